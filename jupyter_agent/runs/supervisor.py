"""Takes runs in, gives them their turn, sees each to exactly one end, and keeps as many of the ended as it should.

It knows when a run goes and what is left of one that an earlier agent had; what a run does is ``execution.py``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from jupyter_agent import processes
from jupyter_agent.errors import AgentError, Unavailable
from jupyter_agent.folders import remove_tree
from jupyter_agent.processes import Reaper
from jupyter_agent.runs import artifacts
from jupyter_agent.runs.events import EventFile
from jupyter_agent.runs.execution import execute
from jupyter_agent.runs.reserve import Reserve
from jupyter_agent.runs.run import Limits, Prepared, PrepareFn, Run
from jupyter_agent.runs.slots import Slots
from jupyter_agent.runs.verdict import Cause, Stop, Verdict, not_started
from jupyter_agent.state import RunRow, RunState, State, now

T = TypeVar("T")

log = logging.getLogger(__name__)

WORK = "work"
"""The private copy in a run's folder."""

EVENTS = "events.jsonl"
"""Where a run's reports are looked for when the agent that started it is gone."""

AGENT_STOPPED = Stop(Cause.AGENT_ENDS, "The agent was stopped before this run had ended: the run was ended, too.")
LOST = "The agent ended unexpectedly while this run was under way: the run was ended, too."
LOST_UNSTARTED = "The agent ended before this run was started."


class Supervisor:
    """All runs of a home; use it with ``async with``.

    Entering ends what an earlier agent left: its processes are killed, its unfinished runs are ``lost`` and say so,
    and ``recover`` is called for each of them, to save what can be saved, before its files are listed. Leaving stops
    all runs, with their grace; their rows say ``lost``, too. ``folder`` holds the runs' own folders, ``max_runs`` go at
    once, the newest ``keep_runs`` ended ones are kept with their files.
    """

    def __init__(
        self,
        *,
        state: State,
        folder: Path,
        max_runs: int,
        keep_runs: int,
        recover: Callable[[RunRow], Awaitable[None]] | None = None,
    ) -> None:
        self._state = state
        self._folder = folder
        self._keep_runs = keep_runs
        self._recover = recover
        self._slots = Slots(max_runs)
        self._reaper = Reaper()
        self._reserve = Reserve(folder / ".reserve")
        self._live: dict[str, Run] = {}
        self._listeners: list[Callable[[RunRow], None]] = []
        self._tasks = asyncio.TaskGroup()
        self._closing = asyncio.Event()
        self._recovering: asyncio.Task[None] | None = None
        self._retiring = asyncio.Lock()

    async def __aenter__(self) -> Self:
        lost = await self._mark_lost()
        await asyncio.to_thread(self._reserve.take)
        await self._tasks.__aenter__()
        if lost:
            self._recovering = self._tasks.create_task(self._save_what_is_left(lost))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        for run in self._live.values():
            run.ask_to_stop(AGENT_STOPPED)
        if self._recovering is not None:
            self._recovering.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)  # whatever the error is, runs get their grace
        finally:
            await asyncio.to_thread(self._reaper.close)

    async def submit(self, row: RunRow, prepare: PrepareFn, *, limits: Limits, priority: int = 2) -> Run:
        """Take a run in: its row is on disk and its folder made when this returns. A lower priority goes first.

        Raises ``Unavailable`` when the agent is ending or the disk is full; no run is left then.
        """
        self._refuse_when_closing()
        row = dataclasses.replace(row, state=RunState.QUEUED, created=row.created or now())
        folder = self._folder / row.created[:7] / row.id
        row = await self._insert(dataclasses.replace(row, folder=str(folder)))
        run = Run(row, folder=folder, limits=limits, state=self._state, reserve=self._reserve, notify=self._tell)
        self._live[row.id] = run
        self._tell(row)
        self._tasks.create_task(self._see_to_its_end(run, prepare, priority), name=f"run-{row.id}")
        return run

    async def _insert(self, row: RunRow) -> RunRow:
        folder = Path(row.folder)
        try:
            await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True)
            row = await self._state.insert(row)
        except OSError as error:
            raise Unavailable(f"The run's folder {folder} cannot be made ({error.strerror}).") from error
        except BaseException:
            await asyncio.to_thread(remove_tree, folder)
            raise
        if self._closing.is_set():
            await self._state.update(row.id, state=RunState.LOST, ended=now(), error=AGENT_STOPPED.sentence)
        self._refuse_when_closing()
        return row

    def _refuse_when_closing(self) -> None:
        if self._closing.is_set():
            raise Unavailable("The agent is ending and takes no more runs: try again when it has started anew.")

    def live(self, run_id: str) -> Run | None:
        """The run, if it has not ended."""
        return self._live.get(run_id)

    def live_runs(self) -> list[Run]:
        """All runs that have not ended, in the order in which they came."""
        return list(self._live.values())

    async def cancel(self, run_id: str, *, who: str) -> RunRow:
        """Order the end of a run, whatever it is doing; its row as it is now (``Run.wait`` has its end).

        A run that has ended stays as it is. Raises ``NotFound``.
        """
        run = self._live.get(run_id)
        if run is None:
            return await self._state.get(run_id)
        run.ask_to_stop(Stop(Cause.CANCELLED, f"The run was cancelled by {who}."))
        return run.row

    def subscribe(self, listener: Callable[[RunRow], None]) -> Callable[[], None]:
        """Have ``listener`` called with the row at each change of a run; the function returned ends that.

        Also for new output (``live(row.id).output.size``) and progress, at most five times a second a run. The row of
        an ended run comes once; the run is still live in that moment.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def _tell(self, row: RunRow) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(row)
            except Exception:
                log.exception("A listener failed at run %s", row.id)

    async def _see_to_its_end(self, run: Run, prepare: PrepareFn, priority: int) -> None:
        has_place = False
        try:
            async with asyncio.TaskGroup() as tasks:
                informing = tasks.create_task(run.keep_listeners_informed())
                writing = tasks.create_task(run.output.keep_writing())
                has_place = await _unless_stopped(self._slots.take(priority), run) is not None
                changes = await self._attempt(run, prepare) if has_place else _changes(not_started(run.stop, None))
                await run.output.close()
                informing.cancel()
                writing.cancel()
            if run.output.error is not None:
                changes["error"] = f"{changes['error'] or ''} {run.output.error}".strip()
            await run.finish({**changes, "ended": now()}, closing=self._closing)
        except Exception:
            log.exception("Run %s could not be seen to its end", run.row.id)
            with contextlib.suppress(Exception):  # then its row will be found unfinished
                await run.output.close()
                await run.give_up(closing=self._closing)
        finally:
            run.abandon()
            self._live.pop(run.row.id, None)
            self._reaper.forget(run.row.id)
            if has_place:
                self._slots.give_back()
        await self._retire()
        await asyncio.to_thread(self._reserve.take)

    async def _attempt(self, run: Run, prepare: PrepareFn) -> dict[str, Any]:
        """All between the queue and the end: the last changes of the row. Whatever goes wrong is one of them."""
        try:
            return await self._take_turn(run, prepare)
        except Exception as error:
            if not isinstance(error, AgentError | OSError):
                log.warning("Run %s failed", run.row.id, exc_info=True)
            return _changes(not_started(run.stop, error))

    async def _take_turn(self, run: Run, prepare: PrepareFn) -> dict[str, Any]:
        run.change(state=RunState.PREPARING)
        prepared: Prepared | None = None
        watching = asyncio.create_task(asyncio.to_thread(self._reaper.watch, run.row.id))  # it may have to be started
        try:
            prepared = await _unless_stopped(prepare(run), run)
            if prepared is None:
                return _changes(not_started(run.stop, None))
            decided, facts = await execute(run, prepared, reaper=self._reaper)
            return _changes(decided) | facts
        finally:
            await watching
            if prepared is None:
                await asyncio.to_thread(processes.kill_leftovers, run.row.id)
            await asyncio.to_thread(_remove_copy, run.folder, prepared)

    async def _mark_lost(self) -> list[RunRow]:
        """End what an earlier agent left unfinished: its processes, then its rows."""
        rows = await self._state.unfinished()
        if not rows:
            return []
        known = [(row.pid, row.pid_started) for row in rows if row.pid is not None and row.pid_started is not None]
        await asyncio.to_thread(processes.kill_leftovers, [row.id for row in rows], known)
        lost = []
        for row in rows:
            reported = await asyncio.to_thread(_reported, Path(row.folder))
            error = LOST_UNSTARTED if row.state is RunState.QUEUED else LOST
            lost.append(await self._state.update(row.id, state=RunState.LOST, ended=now(), error=error, **reported))
        return lost

    async def _save_what_is_left(self, lost: list[RunRow]) -> None:
        for row in lost:
            try:
                if self._recover is not None:
                    await self._recover(row)
                files = await asyncio.to_thread(_left_files, row)
                self._tell(await self._state.update(row.id, artifacts=files))
            except Exception:
                log.exception("What run %s left could not be saved", row.id)
            await asyncio.to_thread(_remove_copy, Path(row.folder), None)
        await self._retire()

    async def _retire(self) -> None:
        """Remove the oldest ended runs beyond the number that is kept, files first."""
        if self._closing.is_set():
            return
        async with self._retiring:
            try:
                rows = await self._state.expired(self._keep_runs)
                gone = [row.id for row in rows if await asyncio.to_thread(self._remove_folder, Path(row.folder))]
                if gone:
                    await self._state.delete(gone)
            except AgentError as error:
                log.warning("Old runs could not be removed: %s", error)

    def _remove_folder(self, folder: Path) -> bool:
        """Whether the folder of an ended run is gone. One that is none of ours is left, and forgotten."""
        if not folder.is_relative_to(self._folder) or folder == self._folder:
            return True
        if not remove_tree(folder):
            log.warning("The folder %s of an old run cannot be removed.", folder)
            return False
        if folder.parent.name < now()[:7]:
            with contextlib.suppress(OSError):  # other runs of that month are kept
                folder.parent.rmdir()
        return True


def _changes(decided: Verdict) -> dict[str, Any]:
    return {"state": decided.state, "error": decided.error}


async def _unless_stopped(work: Awaitable[T], run: Run) -> T | None:
    """The work's result; ``None`` when the run is to end before it is done: it is cancelled then."""
    task = asyncio.ensure_future(work)
    asked = asyncio.create_task(run.stop_asked.wait())
    try:
        await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("Run %s was to end while it was prepared, and that failed: %s", run.row.id, error)
        return None
    finally:
        asked.cancel()
        task.cancel()


def _remove_copy(folder: Path, prepared: Prepared | None) -> None:
    """Remove a run's private copy, and nothing outside the run's own folder."""
    copies = {folder / WORK, *([prepared.workdir] if prepared is not None and prepared.workdir is not None else [])}
    for copy in copies:
        if copy.is_relative_to(folder) and copy != folder and copy.is_dir():
            remove_tree(copy)


def _reported(folder: Path) -> dict[str, Any]:
    """What a run had reported before it was lost."""
    events = EventFile(folder / EVENTS)
    events.read_all()
    return {"progress": events.reported.progress, "results": events.reported.results}


def _left_files(row: RunRow) -> list[dict[str, Any]]:
    """The files of a lost run: those it named, and what was written in its private copy since it started."""
    folder = Path(row.folder)
    events = EventFile(folder / EVENTS)
    events.read_all()
    started = None if row.started is None else datetime.fromisoformat(row.started).timestamp()
    names = [] if started is None else artifacts.changed_since(folder / WORK, started)
    return artifacts.keep(folder, folder / WORK, names, events.reported.artifacts).artifacts
