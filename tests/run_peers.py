"""Runs for tests: a state and a supervisor, and programs that are run."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from jupyter_agent.processes import Command, inherited_environment
from jupyter_agent.runs import Limits, OutputLog, Prepared, PrepareFn, Run, Supervisor
from jupyter_agent.state import RunRow, State, new_run_id

DEADLINE_S = 30
QUICK = Limits(grace_s=0.2)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.01)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def python(folder: Path, code: str, *words: str) -> Command:
    return Command((sys.executable, "-c", code, *words), folder, inherited_environment())


def program(code: str, *words: str, **also: Any) -> PrepareFn:
    """Runs ``code`` in the run's folder."""

    async def prepare(run: Run) -> Prepared:
        return Prepared(python(run.folder, code, *words), events=run.folder / "events.jsonl", **also)

    return prepare


def copied(code: str, files: dict[str, str] | None = None) -> PrepareFn:
    """Runs ``code`` in a private copy that holds ``files``."""

    async def prepare(run: Run) -> Prepared:
        work = run.folder / "work"
        for name, text in (files or {}).items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text)
        work.mkdir(exist_ok=True)
        return Prepared(python(work, code), workdir=work)

    return prepare


class Agent:
    """A state and a supervisor, and what its listeners were told."""

    def __init__(self, home: Path, **how: Any) -> None:
        self.home = home
        self.told: list[RunRow] = []
        self.state = State(home / "state.db")
        given = {"max_runs": 4, "keep_runs": 100, **how}
        self.supervisor = Supervisor(state=self.state, folder=home / "runs", **given)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        async with self.state, self.supervisor:
            self.supervisor.subscribe(self.told.append)
            yield self

    async def submit(self, prepare: PrepareFn, limits: Limits = QUICK, **row: Any) -> Run:
        return await self.supervisor.submit(RunRow(id=new_run_id(), **row), prepare, limits=limits, request={})

    async def ended(self, prepare: PrepareFn, limits: Limits = QUICK, **row: Any) -> RunRow:
        submitted = await self.submit(prepare, limits, **row)
        async with asyncio.timeout(DEADLINE_S):
            return await submitted.wait()

    def states(self, run_id: str) -> list[str]:
        """The states told of a run, without repetitions."""
        found = [str(row.state) for row in self.told if row.id == run_id]
        return [state for index, state in enumerate(found) if index == 0 or found[index - 1] != state]


def printed(row: RunRow, stream: str) -> str:
    page = OutputLog(Path(row.folder) / "output").read(0, 1 << 30)
    return "".join(chunk["text"] for chunk in page.chunks if chunk["stream"] == stream)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.01)
