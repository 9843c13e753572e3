"""Python: a script, in the environment that its ``requirements.txt`` asks for."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from jupyter_agent.environments import Environment, Requirements
from jupyter_agent.environments.requirements import FILE
from jupyter_agent.errors import InvalidInput
from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared
from jupyter_agent.runtimes.base import Site, Task, Teller
from jupyter_agent.runtimes.tools import Tool

CONDA_FILES = ("environment.yml", "environment.yaml", "conda.yml", "conda.yaml")


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
        environment = await environment_of(task, site, run)
        python = str(environment.python) if environment else sys.executable
        variables = {**(environment.variables(task.env) if environment else task.env), "PYTHONUNBUFFERED": "1"}
        return Prepared(
            command=Command((python, str(task.entry)), task.folder, variables),
            environment=environment.hash if environment else None,
        )


async def environment_of(task: Task, site: Site, run: Teller, *, extra: tuple[str, ...] = ()) -> Environment | None:
    """The environment that the task's ``requirements.txt`` asks for; ``None`` for our own interpreter."""
    requirements = await asyncio.to_thread(_requirements, task)
    if requirements is None:
        return None
    return await site.environments.ensure(requirements, extra=extra, say=run.note, tag=task.tag)


def _requirements(task: Task) -> Requirements | None:
    folder = task.folder
    if (folder / FILE).is_file():
        return Requirements.read(folder)
    if task.own_interpreter:
        return None
    if conda := next((name for name in CONDA_FILES if (folder / name).is_file()), None):
        raise InvalidInput(f"The package asks for a conda environment ({conda}): give it a requirements.txt instead.")
    return Requirements()
