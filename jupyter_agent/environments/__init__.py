"""Environments for packages: made from what they ask for once, named by their lock, never changed.

A name's module is loaded when the name is first asked for: a child that works on an environment needs none of them,
and its start is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_agent.environments.prefixes import Environment, Environments
    from jupyter_agent.environments.requirements import Requirements
    from jupyter_agent.environments.telling import Teller
else:
    from importlib import import_module

    _HOMES = {
        "Environment": "prefixes",
        "Environments": "prefixes",
        "Requirements": "requirements",
        "Teller": "telling",
    }

    def __getattr__(name: str) -> object:
        """Load the module that holds ``name`` (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = ["Environment", "Environments", "Requirements", "Teller"]
