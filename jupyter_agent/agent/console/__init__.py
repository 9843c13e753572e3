"""What runs print and how they end, sent to the queues of those who follow them or asked for them (protocol §15)."""

from __future__ import annotations

from jupyter_agent.agent.console.console import Console

__all__ = ["Console"]
