"""Runtimes: from a run's files to the commands that prepare and run them. One small class per language.

A runtime plans; the environments are built and the processes started elsewhere. Announced are the languages in the
table at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jupyter_agent import processes
from jupyter_agent.environments import Environment, Environments
from jupyter_agent.errors import InvalidInput
from jupyter_agent.notebook.spec import KernelSpec, Spec, check_parameters, read_notebook
from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared, Run
from jupyter_agent.state import RunRow

REQUIREMENTS = "requirements.txt"
KERNEL = "ipykernel>=6.29"
SPEC, EVENTS, OUTPUT = "spec.json", "events.jsonl", "output.ipynb"
RESCUE_TIMEOUT_S = 120


@dataclass(frozen=True)
class Task:
    """What is to be run: ``entry`` in ``folder``, which is its working folder; ``run_folder`` is the run's own.

    ``env`` is the child's environment without what activates the run's own; ``tag`` marks its processes.
    ``own_interpreter``: without a ``requirements.txt`` it runs in the interpreter that jupyter_agent is installed in,
    as a file of the user's does, not in an empty environment.
    """

    folder: Path
    run_folder: Path
    entry: Path
    tag: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    own_interpreter: bool = False


class Runtime(Protocol):
    """One language."""

    async def prepare(self, task: Task, environments: Environments, run: Run) -> Prepared:
        """What to start. Raises an ``AgentError`` that says why it cannot be started."""


@dataclass(frozen=True)
class Interpreter:
    """A Python to run in, and the environment that makes it the right one."""

    python: str
    env: Mapping[str, str]
    environment: str | None


class PythonRuntime:
    """A Python program, in the environment of its ``requirements.txt``."""

    async def prepare(self, task: Task, environments: Environments, run: Run) -> Prepared:
        """The program, unbuffered: what it prints is seen when it prints it."""
        found = await interpreter_for(task, environments, run)
        env = {**found.env, "PYTHONUNBUFFERED": "1"}
        return Prepared(Command((found.python, str(task.entry)), task.folder, env), environment=found.environment)


class NotebookRuntime:
    """A notebook: executed by a child of our installation, its kernel in the environment of its requirements."""

    async def prepare(self, task: Task, environments: Environments, run: Run) -> Prepared:
        """The child, its event log, and what makes the output notebook of the log if it is killed."""
        read_notebook(task.entry, language="python")
        check_parameters(task.parameters)
        found = await interpreter_for(task, environments, run, extra=(KERNEL,))
        events, output, spec = (task.run_folder / name for name in (EVENTS, OUTPUT, SPEC))
        kernel = KernelSpec((found.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"), found.env)
        Spec(task.entry, output, events, task.folder, kernel, task.parameters).write(spec)
        child = (sys.executable, "-m", "jupyter_agent.notebook", str(spec))
        return Prepared(
            Command(child, task.run_folder, task.env),
            events=events,
            rescue=rescue(task.run_folder, task.entry, task.env),
            rescue_unless=output,
            environment=found.environment,
        )


async def interpreter_for(
    task: Task, environments: Environments, run: Run, *, extra: tuple[str, ...] = ()
) -> Interpreter:
    """The interpreter of the environment for the task's requirements, built first where there is none yet."""
    requirements = task.folder / REQUIREMENTS
    if task.own_interpreter and not requirements.exists():
        return Interpreter(sys.executable, task.env, None)
    made: Environment = await environments.ensure(
        requirements if requirements.exists() else None, extra=extra, say=run.note, tag=task.tag
    )
    env = {**task.env, **made.variables(task.env.get("PATH", ""))}
    return Interpreter(str(made.python), env, made.hash)


def rescue(run_folder: Path, notebook: Path, env: Mapping[str, str]) -> Command:
    """What makes the output notebook of the event log."""
    files = (str(run_folder / EVENTS), str(notebook), str(run_folder / OUTPUT))
    return Command((sys.executable, "-m", "jupyter_agent.notebook.recover", *files), run_folder, env)


async def recover(row: RunRow) -> None:
    """Save what can be saved of a run whose agent was killed: a notebook's outputs so far."""
    folder = Path(row.folder)
    if (folder / SPEC).exists() and (folder / EVENTS).exists() and not (folder / OUTPUT).exists():
        command = rescue(folder, Spec.read(folder / SPEC).notebook, processes.inherited_environment())
        await processes.run(command, tag=f"{row.id}-rescue", timeout_s=RESCUE_TIMEOUT_S)


def runtime_for(language: str) -> Runtime:
    """The runtime of a language. Raises ``InvalidInput``, naming those there are."""
    found = RUNTIMES.get(language.lower())
    if found is None:
        raise InvalidInput(
            f"This agent cannot run {language or 'a package that names no language'}: it runs {', '.join(languages())}."
        )
    return found


def languages() -> list[str]:
    """What is announced to OpenFlow."""
    return list(RUNTIMES)


RUNTIMES: Mapping[str, Runtime] = {
    "notebook": NotebookRuntime(),
    "python": PythonRuntime(),
}
