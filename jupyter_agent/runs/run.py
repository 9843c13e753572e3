"""A run as those see it who ask for one: its limits, what is to be executed, and the live run."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jupyter_agent.errors import Unavailable
from jupyter_agent.processes import Command, Process
from jupyter_agent.runs.output import OutputLog
from jupyter_agent.runs.reserve import Reserve
from jupyter_agent.runs.verdict import ENDS_ALL, Stop
from jupyter_agent.state import RunRow, RunState, State, now

log = logging.getLogger(__name__)

SHOW_PAUSE_S = 0.2
"""Listeners hear of new output and progress at most this often."""

OUTPUT = "output"
"""The log's folder in a run's folder."""

RETRY_S = 1.0
"""Until a row that could not be written (a full disk) is tried again."""


@dataclass(frozen=True)
class Limits:
    """What a run may use; ``None`` is no limit.

    ``wall_s`` counts from the start of the program, ``memory_bytes`` all its processes together, ``processes`` how many
    those are at once. ``files_bytes`` is what it may add to its own folder, ``output_bytes`` what it may print: over
    that it goes on, and its log says so, unless ``output_stops``. ``grace_s`` is the time between SIGTERM and SIGKILL.
    ``log_head_bytes`` and ``log_tail_bytes`` bound the log on disk.
    """

    wall_s: float | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    files_bytes: int | None = None
    output_bytes: int | None = None
    output_stops: bool = False
    grace_s: float = 10
    log_head_bytes: int = 1 << 20
    log_tail_bytes: int = 4 << 20


class Start(Protocol):
    """Starts a command, as ``processes.start`` does."""

    async def __call__(self, command: Command, *, tag: str) -> Process:
        """The process. Raises an ``AgentError`` that says why it cannot be started."""


@dataclass(frozen=True)
class Prepared:
    """A run that can be started.

    ``events`` is the JSON-lines file that the child appends to. ``workdir`` is a private copy inside the run's folder:
    new or changed files in it become artifacts, then it is removed. ``rescue`` is run after the child has ended, unless
    ``rescue_unless`` exists then. ``environment`` is as in the run's row. A run that ends when all is ready needs no
    ``command``; ``results`` are what it made. ``start`` starts the command quicker than ``processes.start`` would.
    """

    command: Command | None
    events: Path | None = None
    workdir: Path | None = None
    rescue: Command | None = None
    rescue_unless: Path | None = None
    environment: str | None = None
    start: Start | None = None
    results: Mapping[str, Any] = field(default_factory=dict)

    def with_workdir(self, workdir: Path) -> Prepared:
        """The same with a private copy."""
        return dataclasses.replace(self, workdir=workdir)


class Run:
    """A live run; made by ``Supervisor.submit``.

    ``row`` is its newest state, of which what has ended is on disk. ``folder`` is its own folder, private to the user.
    """

    def __init__(
        self,
        row: RunRow,
        *,
        folder: Path,
        limits: Limits,
        state: State,
        reserve: Reserve,
        notify: Callable[[RunRow], None],
        live: bool = True,
    ) -> None:
        self.row = row
        self.folder = folder
        self.limits = limits
        self.output = OutputLog(
            folder / OUTPUT,
            live=live,
            head_bytes=limits.log_head_bytes,
            tail_bytes=limits.log_tail_bytes,
            on_written=self._touch,
        )
        self.stop: Stop | None = None
        """Why it is to end; the first order counts."""
        self.stop_asked = asyncio.Event()
        self._state = state
        self._reserve = reserve
        self._notify = notify
        self._unsaved: dict[str, Any] = {}
        self._touched = asyncio.Event()
        self._save = asyncio.Event()
        self._over = False
        self._late: Stop | None = None
        self._end: asyncio.Future[RunRow] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Run {self.row.id} {self.row.package!r} {self.row.state}>"

    @property
    def tag(self) -> str:
        """What marks its processes."""
        return self.row.tag or self.row.id

    async def wait(self) -> RunRow:
        """The row of the ended run, once it is on disk."""
        return await asyncio.shield(self._end)

    async def report(self, done: float, total: float | None, label: str = "") -> None:
        """Show progress: ``done`` of ``total`` (``None``: nobody knows how many)."""
        self.show(progress={"done": done, "total": total, "label": label})

    async def say(self, text: str) -> None:
        """Add a line of the agent's own to the output."""
        self.note(text)

    def note(self, text: str) -> None:
        """As ``say``, for those who cannot wait; from the event loop only."""
        self.output.append("agent", text if text.endswith("\n") else f"{text}\n", time.time())

    def show_progress(self, phase: str, done: float, total: float | None, detail: str = "") -> None:
        """Show how far a phase of the preparation is; from the event loop only."""
        label = f"{phase}: {detail}" if detail else phase
        self.show(progress={"done": done, "total": total, "label": label, "phase": phase})

    def ask_to_stop(self, stop: Stop) -> bool:
        """Order the end of the run; whether the order came in time and is the first.

        One that comes too late for this attempt still ends those that would follow.
        """
        if self._over or self.stop is not None:
            self._late = self._late or (stop if stop.cause in ENDS_ALL else None)
            return False
        self.stop = stop
        self.stop_asked.set()
        return True

    def no_more_stops(self) -> None:
        """Its process has ended: what it came to is decided."""
        self._over = True

    def begin_again(self) -> None:
        """A further attempt follows: orders count again, those that came too late for the last one first."""
        self._over = False
        self.stop, self._late = self._late, None
        if self.stop is None:
            self.stop_asked.clear()
        else:
            self.stop_asked.set()

    def show(self, **changes: Any) -> None:
        """Change the row for those who look on; it is written with the next ``change``."""
        self.row = dataclasses.replace(self.row, **changes)
        self._unsaved |= changes
        self._touch()

    def change(self, **changes: Any) -> None:
        """Change the row, write it soon, then tell the listeners."""
        self._save.set()
        self.show(**changes)

    async def keep_listeners_informed(self) -> None:
        """Write changes and tell of them, and of new output and progress; runs until it is cancelled."""
        while True:
            await self._touched.wait()
            self._touched.clear()
            if self._save.is_set():
                self._save.clear()
                if await self._write() is None:
                    self.change()  # again, after the pause
                    await asyncio.sleep(RETRY_S)
            self._notify(self.row)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SHOW_PAUSE_S):
                    await self._save.wait()

    async def finish(self, changes: dict[str, Any], *, closing: asyncio.Event) -> None:
        """Write the end of the run, then tell it, once.

        A full disk has a reserve for this. Where that is used up, too, this waits for room, until the agent is
        ``closing``: then the row stays unfinished, and the next agent will find it so.
        """
        self._unsaved |= changes
        while (row := await self._write()) is None and not closing.is_set():
            if await asyncio.to_thread(self._reserve.give):
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await closing.wait()
        self.row = row or dataclasses.replace(self.row, **changes)
        self._notify(self.row)
        if not self._end.done():
            self._end.set_result(self.row)

    async def save(self, changes: dict[str, Any], *, closing: asyncio.Event) -> None:
        """Write changes of a run that goes on, before it does; a full disk is waited for, until ``closing``."""
        self.row = dataclasses.replace(self.row, **changes)
        self._unsaved |= changes
        while await self._write() is None and not closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await closing.wait()
        self._notify(self.row)

    async def give_up(self, *, closing: asyncio.Event) -> None:
        """Write no more than that the agent failed with this run."""
        self._unsaved = {}
        ended = {"state": RunState.FAILED, "error": "The agent failed with this run: see its log.", "ended": now()}
        await self.finish(ended, closing=closing)

    def is_past(self) -> None:
        """It is the run that its row tells of, over or nobody's any more."""
        if self.row.state.ended:
            self._end.set_result(self.row)
        self.abandon()

    def abandon(self) -> None:
        """Nobody sees to its end any more: tell those who wait. No-op when they have been told."""
        if not self._end.done():
            self._end.set_exception(Unavailable(f"The end of run {self.row.id} could not be written."))
            self._end.exception()  # nobody needs to have waited for it

    async def _write(self) -> RunRow | None:
        """Write what was changed; ``None`` when that was not possible now."""
        unsaved, self._unsaved = self._unsaved, {}
        try:
            return await self._state.update(self.row.id, **unsaved)
        except BaseException as error:
            self._unsaved = unsaved | self._unsaved  # written twice does no harm, not at all would
            if not isinstance(error, Unavailable):
                raise
            log.warning("The state of run %s cannot be written: %s", self.row.id, error)
            return None

    def _touch(self) -> None:
        self._touched.set()


PrepareFn = Callable[[Run], Awaitable[Prepared]]
"""Makes everything ready for a run: fetches, copies, builds. It is cancelled when the run is; what it raises becomes
the run's error.
"""
