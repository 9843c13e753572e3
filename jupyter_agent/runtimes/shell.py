"""Shell scripts."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared
from jupyter_agent.runtimes.base import Site, Task, Teller
from jupyter_agent.runtimes.binaries import check_interpreter, first_line
from jupyter_agent.runtimes.tools import Tool, utf8

SHELL = Tool(("bash", "sh"), "install bash", ask=())


@dataclass(frozen=True)
class Shell:
    """A script, run by the interpreter that its first line names, else by bash, else by sh.

    It need not be executable: archives from Windows lose that.
    """

    language: str = "shell"
    tools: tuple[Tool, ...] = ()

    def missing(self) -> str | None:
        """Why there is no shell."""
        return SHELL.missing()

    async def prepare(self, task: Task, site: Site, run: Teller) -> Prepared:  # noqa: ARG002 - as every runtime's
        """The script, with its interpreter in front."""
        words = await asyncio.to_thread(_named, task.entry) or (await site.tools.need(SHELL),)
        return Prepared(Command((*words, str(task.entry)), task.folder, utf8(task.env)))


def _named(script: Path) -> tuple[str, ...]:
    """What the first line names. Raises ``Failed`` when that is not here."""
    words = first_line(script)
    if words:
        check_interpreter(script, words)
    return tuple(os.fspath(word) for word in words)
