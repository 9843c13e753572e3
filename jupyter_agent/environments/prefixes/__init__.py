"""The store of environments: each made once at its own path, named by what is in it, never changed."""

from __future__ import annotations

from jupyter_agent.environments.prefixes.store import Environment, Environments

__all__ = ["Environment", "Environments"]
