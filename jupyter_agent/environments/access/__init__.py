"""Access to conda channels: what is configured on this machine, how channels are reached with it, what went wrong."""

from __future__ import annotations

from jupyter_agent.environments.access.access import Access
from jupyter_agent.environments.access.translating import translated

__all__ = ["Access", "translated"]
