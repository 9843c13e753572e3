"""The only place that starts processes.

``start`` and ``run`` start a child in a session and group of its own, marked with a tag in its environment, so that
it and everything it starts can be found and ended however they detach. ``spawn_detached`` starts what outlives us.
``Reaper`` ends the children of a process that was killed. This package knows processes, signals and resource use; it
refuses to know what a run is.

A name's module is loaded when the name is first asked for: the gate and the CLI only spawn, and need neither asyncio
nor psutil for that (50 ms).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_agent.processes.child import DRAIN_S, Command, Completed, Exit, Process, run, start
    from jupyter_agent.processes.detached import spawn_detached
    from jupyter_agent.processes.environment import inherited_environment
    from jupyter_agent.processes.reaper import Reaper
    from jupyter_agent.processes.tree import Usage, is_alive, kill_leftovers, process_started
else:
    from importlib import import_module

    _MODULES = {
        "child": ("DRAIN_S", "Command", "Completed", "Exit", "Process", "run", "start"),
        "detached": ("spawn_detached",),
        "environment": ("inherited_environment",),
        "reaper": ("Reaper",),
        "tree": ("Usage", "is_alive", "kill_leftovers", "process_started"),
    }
    _HOMES = {name: module for module, names in _MODULES.items() for name in names}

    def __getattr__(name: str) -> object:
        """Load the module that holds ``name`` (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
    "DRAIN_S",
    "Command",
    "Completed",
    "Exit",
    "Process",
    "Reaper",
    "Usage",
    "inherited_environment",
    "is_alive",
    "kill_leftovers",
    "process_started",
    "run",
    "spawn_detached",
    "start",
]
