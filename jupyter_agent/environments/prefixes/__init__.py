"""The store of environments: each made once at its own path, named by what is in it, never changed.

It knows which there are, who uses them, whether they are still as they were made, and which may go. It refuses to know
how conda's packages are solved and linked: a child process does that.
"""

from __future__ import annotations

from jupyter_agent.environments.prefixes.collecting import Collected, Removed
from jupyter_agent.environments.prefixes.contents import Package
from jupyter_agent.environments.prefixes.environment import Environment
from jupyter_agent.environments.prefixes.known import Known, Shown
from jupyter_agent.environments.prefixes.store import Environments
from jupyter_agent.environments.prefixes.verifying import Fault

__all__ = ["Collected", "Environment", "Environments", "Fault", "Known", "Package", "Removed", "Shown"]
