"""From what a file says to what is to be solved. For a child process: conda_lock takes half a second to import."""

from __future__ import annotations

from jupyter_agent.environments.specs.explicit import Explicit
from jupyter_agent.environments.specs.spec import Spec, parse

__all__ = ["Explicit", "Spec", "parse"]
