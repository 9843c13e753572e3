"""Programs that the system itself starts: compiled for it, or scripts whose first line names their interpreter."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import dataclass
from pathlib import Path

from jupyter_agent.errors import Failed
from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared
from jupyter_agent.runtimes.base import Site, Task, Teller
from jupyter_agent.runtimes.binaries import check_program
from jupyter_agent.runtimes.tools import Tool, utf8


@dataclass(frozen=True)
class Executable:
    """A program of the package's own, started from the run's copy of the package."""

    language: str = "exec"
    tools: tuple[Tool, ...] = ()

    def missing(self) -> str | None:
        """Nothing: a program brings what it needs."""
        return None

    async def prepare(self, task: Task, site: Site, run: Teller) -> Prepared:  # noqa: ARG002 - as every runtime's
        """The program; whether the system can start it is looked at before, so that the reason can be told."""
        await asyncio.to_thread(check_program, task.entry)
        if await asyncio.to_thread(made_executable, task.entry, private=task.manifest is not None):
            run.note(f"{task.entry.name} was not executable, as if it came from Windows: the run's copy of it is.")
        return Prepared(Command((str(task.entry),), task.folder, utf8(task.env)))


def made_executable(file: Path, *, private: bool) -> bool:
    """Make a program executable whose mode was lost on its way; whether that was needed.

    Raises ``Failed`` for one that is not a ``private`` copy: the user's own files are left as they are.
    """
    mode = file.stat().st_mode
    if mode & stat.S_IXUSR:
        return False
    if not private:
        raise Failed(f"{file.name} cannot be started: it is not executable (chmod +x would make it so).")
    file.chmod(mode | stat.S_IXUSR)
    return True
