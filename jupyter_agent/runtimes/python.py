"""Python: a script, in the environment that its package asks for."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared
from jupyter_agent.runtimes.base import Site, Task, Teller
from jupyter_agent.runtimes.places import environment_of_script, mark_of
from jupyter_agent.runtimes.tools import Tool


@dataclass(frozen=True)
class Python:
    """A script, run by the interpreter of its environment."""

    language: str = "python"
    tools: tuple[Tool, ...] = ()

    def missing(self) -> str | None:
        """Nothing: it comes with us."""
        return None

    async def prepare(self, task: Task, site: Site, run: Teller) -> Prepared:
        """The script, unbuffered: what it prints is to be seen when it prints it."""
        environment = await environment_of_script(task, site, run)
        python = str(environment.python) if environment else sys.executable
        variables = {**(environment.variables(task.env) if environment else task.env), "PYTHONUNBUFFERED": "1"}
        return Prepared(
            command=Command((python, str(task.entry)), task.folder, variables), environment=mark_of(environment)
        )
