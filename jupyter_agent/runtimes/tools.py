"""Programs of the machine that runtimes and packages need: where they are, and whether they work.

A name on the PATH is not enough: macOS has a ``java`` that only says that there is none, rustup a ``cargo`` without a
toolchain, Ubuntu a ``chromium-browser`` that asks for a snap. So a tool is asked something before it is announced.
Refuses to know what it is needed for.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jupyter_agent import processes
from jupyter_agent.errors import AgentError, Failed, NotFound
from jupyter_agent.processes import Command

ANSWER_S = 20.0
"""How long a tool may take to answer; on a machine that is busy starting even this can be needed."""

AT_ONCE = 2
"""Tools that are asked at the same time: asking must not slow what the agent does meanwhile."""

UTF8 = {"LC_CTYPE": "UTF-8" if sys.platform == "darwin" else "C.UTF-8"}
"""Makes file names and output UTF-8 where nothing says otherwise (glibc from 2.35 on, Debian and musl always)."""

LONGEST_ANSWER = 300
"""Characters of what a tool said that are repeated in a sentence."""


@dataclass(frozen=True)
class Tool:
    """A program under one of ``names``, the first that is there; ``ask`` are arguments that make it answer quickly.

    A name may be a path. ``install`` says what to do where it is missing. ``settings`` are the agent's environment
    variables that say where its own parts lie (``JAVA_HOME``). With an empty ``ask``, being there is enough.
    """

    names: tuple[str, ...]
    install: str
    ask: tuple[str, ...] = ("--version",)
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What to call it."""
        return self.names[0]

    def path(self) -> str | None:
        """Where it is; ``None``: nowhere on the PATH."""
        return next((path for name in self.names if (path := shutil.which(name))), None)

    def missing(self) -> str | None:
        """Why it cannot be used, as far as the PATH tells: a sentence that says what to do. ``None``: it is there."""
        return None if self.path() else f"There is no {self.name} on the agent's PATH: {self.install}."

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """``environ`` with the tool's settings, and UTF-8 where it has no locale."""
        return utf8({**{name: os.environ[name] for name in self.settings if name in os.environ}, **environ})


class Tools:
    """What the machine's tools answered; each look asks anew, and is meant for the background."""

    def __init__(self) -> None:
        self._faults: dict[str, str | None] = {}
        self._asking = asyncio.Semaphore(AT_ONCE)

    async def need(self, tool: Tool) -> str:
        """The tool's path. One that did not work when it was asked last is asked again.

        Raises ``NotFound`` when there is none, ``Failed`` when it does not work, with a sentence that says what to do.
        """
        path = tool.path()
        if path is None:
            raise NotFound(str(tool.missing()))
        if self._faults.get(path) and (fault := await self.fault(tool)):
            raise Failed(fault)
        return path

    async def fault(self, tool: Tool) -> str | None:
        """Ask the tool: why it cannot be used, ``None`` when it works."""
        path = tool.path()
        if path is None:
            return tool.missing()
        if not tool.ask:
            return None
        async with self._asking:
            fault = await _answer(tool, path)
        self._faults[path] = fault
        return fault

    async def working(self, tools: Iterable[Tool]) -> frozenset[Tool]:
        """Those that work, of all of them."""
        asked = list(dict.fromkeys(tools))
        async with asyncio.TaskGroup() as tasks:
            faults = {tool: tasks.create_task(self.fault(tool)) for tool in asked}
        return frozenset(tool for tool, fault in faults.items() if fault.result() is None)


async def _answer(tool: Tool, path: str) -> str | None:
    """What is wrong with the tool, by what it says; it is asked to download nothing."""
    environ = {
        **tool.environment(processes.inherited_environment(builders=False, credentials=False)),
        "RUSTUP_AUTO_INSTALL": "0",
    }
    command = Command((path, *tool.ask), Path(tempfile.gettempdir()), environ)
    try:
        done = await processes.run(command, tag=f"asked-{secrets.token_hex(8)}", timeout_s=ANSWER_S)
    except AgentError as error:
        return f"{tool.name} does not work: {error}"
    if done.exit.ok:
        return None
    first = done.output.strip().partition("\n\n")[0]  # what follows is advice, or a trace of the tool's own
    said = " ".join(first.split())[:LONGEST_ANSWER].rstrip(".") or "it said nothing"
    return f"{tool.name} is at {path} but does not work ({done.exit}): {said}. Mend it, or {tool.install}."


def utf8(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ``, with UTF-8 for names and output where it has no locale."""
    has_locale = any(environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    return dict(environ) if has_locale else {**environ, **UTF8}
