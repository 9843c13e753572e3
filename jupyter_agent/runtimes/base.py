"""What a runtime gets and gives: a task in, what is to be started out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jupyter_agent.environments import Environments, Teller
from jupyter_agent.packages import Manifest, Preparations
from jupyter_agent.runs import Prepared
from jupyter_agent.runtimes.tools import Tool, Tools

__all__ = ["CHILD", "Runtime", "Site", "Task", "Teller"]

if TYPE_CHECKING:
    from jupyter_agent.runtimes.nodejs import Spares  # which know what is here

CHILD = (sys.executable, "-P")
"""Our interpreter, without the working folder on its path: a file of the package must not stand in for a module."""


@dataclass(frozen=True)
class Task:
    """What is to be run: ``entry`` in ``folder``, its working folder, with ``parameters``.

    ``run_folder`` is the run's own folder, ``env`` the environment for the child, ``tag`` marks its processes.
    ``own_interpreter``: without a ``requirements.txt`` it runs in the interpreter that jupyter_agent is installed in,
    as a file of the user's does, not in an empty environment. ``manifest`` is the package's, ``None`` for a single
    file; ``source`` names its files for ever (the file id), empty for a folder of the user's, which may change.
    ``prepare_only``: nothing is started afterwards, so that nothing need be there that only the start needs.

    ``environment`` is the one it runs in instead of what its files ask for: an id, a name, or an absolute path, also of
    a file that says what one is to hold. ``from_pypi`` and ``offline`` are as ``Environments.ensure`` takes them.
    """

    folder: Path
    run_folder: Path
    entry: Path
    parameters: Mapping[str, Any]
    env: Mapping[str, str]
    tag: str
    own_interpreter: bool = False
    manifest: Manifest | None = None
    source: str = ""
    prepare_only: bool = False
    environment: str = ""
    from_pypi: bool | None = None
    offline: bool | None = None


@dataclass(frozen=True)
class Site:
    """What the agent's machine offers to runtimes: environments, folders in which something is made once, programs.

    Where there are ``spares``, a node is kept ready for runs to come.
    """

    environments: Environments
    preparations: Preparations
    tools: Tools = field(default_factory=Tools)
    spares: Spares | None = None


class Runtime(Protocol):
    """Runs one language."""

    @property
    def language(self) -> str:
        """As in ``package.json``, lower case."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The programs it needs on this machine: it is announced when all of them work."""

    def missing(self) -> str | None:
        """Why this machine cannot run it: a sentence that says what to install; ``None``: it can. Quick."""

    async def prepare(self, task: Task, site: Site, run: Teller) -> Prepared:
        """Make all ready that a run needs (what is the same for every run, once), and say what is to be started.

        Raises an ``AgentError`` whose sentence says why it cannot be.
        """
