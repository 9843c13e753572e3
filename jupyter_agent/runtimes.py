"""Runtimes: from a package's files or a single file to the command that runs it, one small class per language.

A runtime plans; it makes sure of the environment and writes what its child is to read, but starts nothing itself.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jupyter_agent import processes
from jupyter_agent.environments import Environment, Environments, Requirements
from jupyter_agent.environments.requirements import FILE
from jupyter_agent.errors import AgentError, InvalidInput
from jupyter_agent.notebook import KernelSpec, Spec, check_parameters, read_notebook
from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared
from jupyter_agent.state import RunRow

CONDA_FILES = ("environment.yml", "environment.yaml", "conda.yml", "conda.yaml")

CHILD = (sys.executable, "-P")
"""Our interpreter, without the working folder on its path: a file of the package must not stand in for a module."""

KERNEL = ("-m", "ipykernel_launcher", "-f", "{connection_file}", "--HistoryManager.hist_file=:memory:")
"""A kernel that keeps no history: runs at the same time would wait for one another's."""

IPYKERNEL = "ipykernel>=6.29"

RESCUE_S = 60


@dataclass(frozen=True)
class Task:
    """What is to be run: ``entry`` in ``folder``, its working folder, with ``parameters``.

    ``run_folder`` is the run's own folder, ``env`` the environment for the child, ``tag`` marks its processes.
    ``own_interpreter``: without a ``requirements.txt`` it runs in the interpreter that jupyter_agent is installed in,
    as a file of the user's does, not in an empty environment.
    """

    folder: Path
    run_folder: Path
    entry: Path
    parameters: Mapping[str, Any]
    env: Mapping[str, str]
    tag: str
    own_interpreter: bool = False


class Teller(Protocol):
    """Who is told how the preparation goes (a live run)."""

    def note(self, text: str) -> None:
        """Take a line."""


class Runtime(Protocol):
    """Runs one language."""

    @property
    def language(self) -> str:
        """As in ``package.json``."""

    async def prepare(self, task: Task, environments: Environments, run: Teller) -> Prepared:
        """What is to be started. Raises an ``AgentError`` whose sentence says why it cannot be."""


@dataclass(frozen=True)
class Python:
    """A script, run by the interpreter of its environment."""

    language: str = "python"

    async def prepare(self, task: Task, environments: Environments, run: Teller) -> Prepared:
        """The script, unbuffered: what it prints is to be seen when it prints it."""
        environment = await environment_of(task, environments, run)
        python = str(environment.python) if environment else sys.executable
        variables = {**(environment.variables(task.env) if environment else task.env), "PYTHONUNBUFFERED": "1"}
        return Prepared(
            command=Command((python, str(task.entry)), task.folder, variables),
            environment=environment.hash if environment else None,
        )


@dataclass(frozen=True)
class Notebook:
    """A notebook, executed by a child of our installation in a kernel of its environment."""

    language: str = "notebook"

    async def prepare(self, task: Task, environments: Environments, run: Teller) -> Prepared:
        """The child; the notebook and its parameters are looked at before an environment is made for them."""
        await asyncio.to_thread(read_notebook, task.entry, language="python")
        check_parameters(task.parameters)
        environment = await environment_of(task, environments, run, extra=(IPYKERNEL,))
        spec = self._spec(task, environment)
        await asyncio.to_thread(spec.write, spec_file(task.run_folder))
        return Prepared(
            command=Command((*CHILD, "-m", "jupyter_agent.notebook", str(spec_file(task.run_folder))), *_own(task)),
            events=spec.events,
            rescue=rescue(spec, env=_own(task)[1]),
            rescue_unless=spec.output,
            environment=environment.hash if environment else None,
        )

    def _spec(self, task: Task, environment: Environment | None) -> Spec:
        python = str(environment.python) if environment else sys.executable
        variables = environment.variables(task.env) if environment else task.env
        changed = {name: value for name, value in variables.items() if _own(task)[1].get(name) != value}
        return Spec(
            notebook=task.entry,
            output=task.run_folder / "output.ipynb",
            events=task.run_folder / "events.jsonl",
            cwd=task.folder,
            kernel=KernelSpec((python, *KERNEL), changed),
            parameters=task.parameters,
        )


def _own(task: Task) -> tuple[Path, dict[str, str]]:
    """Where our child runs, and in what environment: what steers a Python is the kernel's business alone."""
    return task.folder, {name: value for name, value in task.env.items() if not name.startswith("PYTHON")}


def spec_file(run_folder: Path) -> Path:
    """Where a notebook's child reads what it is to do."""
    return run_folder / "notebook.json"


def rescue(spec: Spec, *, env: Mapping[str, str]) -> Command:
    """What makes the output notebook of a child that was killed."""
    files = (str(spec.events), str(spec.notebook), str(spec.output))
    return Command((*CHILD, "-m", "jupyter_agent.notebook.recover", *files), spec.output.parent, env)


async def recover(row: RunRow) -> None:
    """Save what can be saved of a run that an earlier agent left: the output notebook. Raises ``AgentError``."""
    folder = Path(row.folder)
    if not await asyncio.to_thread(spec_file(folder).is_file):
        return
    spec = await asyncio.to_thread(Spec.read, spec_file(folder))
    if await asyncio.to_thread(spec.output.exists) or not await asyncio.to_thread(spec.events.exists):
        return
    command = rescue(spec, env=processes.inherited_environment())
    done = await processes.run(command, tag=row.id, timeout_s=RESCUE_S)
    if not done.exit.ok:
        raise AgentError(f"The output notebook of run {row.id} could not be made: {done.output.strip() or done.exit}")


async def environment_of(
    task: Task, environments: Environments, run: Teller, *, extra: tuple[str, ...] = ()
) -> Environment | None:
    """The environment that the task's ``requirements.txt`` asks for; ``None`` for our own interpreter."""
    requirements = await asyncio.to_thread(_requirements, task)
    if requirements is None:
        return None
    return await environments.ensure(requirements, extra=extra, say=run.note, tag=task.tag)


def _requirements(task: Task) -> Requirements | None:
    folder = task.folder
    if (folder / FILE).is_file():
        return Requirements.read(folder)
    if task.own_interpreter:
        return None
    if conda := next((name for name in CONDA_FILES if (folder / name).is_file()), None):
        raise InvalidInput(f"The package asks for a conda environment ({conda}): give it a requirements.txt instead.")
    return Requirements()


RUNTIMES: dict[str, Runtime] = {runtime.language: runtime for runtime in (Python(), Notebook())}

LANGUAGES = tuple(sorted(RUNTIMES))


def runtime_for(language: str) -> Runtime:
    """The runtime of a language. Raises ``InvalidInput`` naming those there are."""
    if runtime := RUNTIMES.get(language.lower()):
        return runtime
    raise InvalidInput(f"Packages in {language or 'no language'} cannot be run here: there are {', '.join(LANGUAGES)}.")


def languages() -> list[str]:
    """What this agent runs, as it is announced to OpenFlow."""
    return list(LANGUAGES)
