"""Access to conda channels: what is configured on this machine, how channels are reached with it, what went wrong.

A name's module is loaded when the name is first asked for: the parent reads conda's settings alone (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_agent.environments.access.access import Access
    from jupyter_agent.environments.access.translating import translated
else:
    from importlib import import_module

    _HOMES = {"Access": "access", "translated": "translating"}

    def __getattr__(name: str) -> object:
        """Load the module that holds ``name``."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = ["Access", "translated"]
