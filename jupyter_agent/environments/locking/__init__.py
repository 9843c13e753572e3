"""From what is asked for to what is installed: a conda-lock.yml, the same bytes for the same input.

``hashes`` is for everybody; the rest is for a child process. It is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_agent.environments.locking.locks import lock, run
else:

    def __getattr__(name: str) -> object:
        """Load what needs rattler and conda_lock (PEP 562): the agent needs ``hashes`` alone."""
        if name not in ("lock", "run"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from jupyter_agent.environments.locking import locks  # noqa: PLC0415 - takes half a second

        return getattr(locks, name)


__all__ = ["lock", "run"]
