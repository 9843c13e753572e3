"""Notebooks: executed by a child of our own installation, in a kernel of their environment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jupyter_agent import processes
from jupyter_agent.environments import Environment
from jupyter_agent.errors import AgentError
from jupyter_agent.notebook import KernelSpec, Spec, check_parameters, read_notebook
from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared
from jupyter_agent.runtimes.base import CHILD, Site, Task, Teller
from jupyter_agent.runtimes.places import environment_of_notebook, mark_of
from jupyter_agent.runtimes.tools import Tool
from jupyter_agent.state import RunRow

KERNEL = ("-m", "ipykernel_launcher", "-f", "{connection_file}", "--HistoryManager.hist_file=:memory:")
"""A kernel that keeps no history: runs at the same time would wait for one another's."""

RESCUE_S = 60


@dataclass(frozen=True)
class Notebook:
    """A notebook, executed by a child of our installation in a kernel of its environment."""

    language: str = "notebook"
    tools: tuple[Tool, ...] = ()

    def missing(self) -> str | None:
        """Nothing: it comes with us."""
        return None

    async def prepare(self, task: Task, site: Site, run: Teller) -> Prepared:
        """The child; the notebook and its parameters are looked at before an environment is made for them."""
        await asyncio.to_thread(read_notebook, task.entry, language="python")
        check_parameters(task.parameters)
        environment = await environment_of_notebook(task, site, run)
        spec = self._spec(task, environment)
        await asyncio.to_thread(spec.write, spec_file(task.run_folder))
        return Prepared(
            command=Command((*CHILD, "-m", "jupyter_agent.notebook", str(spec_file(task.run_folder))), *_own(task)),
            events=spec.events,
            rescue=rescue(spec, env=_own(task)[1]),
            rescue_unless=spec.output,
            environment=mark_of(environment),
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
