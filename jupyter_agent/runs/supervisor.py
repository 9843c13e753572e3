"""Takes runs in, gives them their turn, sees each to exactly one end, and keeps as many of the ended as it should.

It knows when a run goes and what is left of one that an earlier agent had; what a run does is ``execution.py``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from jupyter_agent import processes
from jupyter_agent.errors import AgentError, Unavailable
from jupyter_agent.folders import remove_tree
from jupyter_agent.processes import Reaper
from jupyter_agent.runs import artifacts, attempts
from jupyter_agent.runs.events import EventFile
from jupyter_agent.runs.execution import execute
from jupyter_agent.runs.reserve import Reserve
from jupyter_agent.runs.retention import Retention
from jupyter_agent.runs.run import OUTPUT, Limits, Prepared, PrepareFn, Run
from jupyter_agent.runs.slots import Place, Slots
from jupyter_agent.runs.verdict import Cause, Stop, Verdict, not_started
from jupyter_agent.state import MAKING, Claim, Keep, RunRow, RunState, State, now

T = TypeVar("T")

log = logging.getLogger(__name__)

WORK = "work"
"""The private copy in a run's folder."""

EVENTS = "events.jsonl"
"""Where a run's reports are looked for when the agent that started it is gone."""

AGENT_STOPPED = Stop(Cause.AGENT_ENDS, "The agent was stopped before this run had ended: the run was ended, too.")
LOST = "The agent ended unexpectedly while this run was under way: the run was ended, too."
LOST_UNSTARTED = "The agent ended before this run was started."

ResumeFn = Callable[[RunRow], Awaitable[tuple[PrepareFn, Limits]]]
"""How a run that an earlier agent took in is prepared. Raises an ``AgentError`` when that is not known any more."""


class Supervisor:
    """All runs of a home; use it with ``async with``.

    Entering ends what an earlier agent left: its processes are killed, its unfinished runs are ``lost`` and say so,
    and ``recover`` is called for each of them, to save what can be saved, before its files are listed. Those with
    attempts left go on instead, as ``resume`` says. Leaving stops all runs, with their grace; their rows say ``lost``,
    too, unless the next agent is to go on with them. ``folder`` holds the runs' own folders, ``max_runs`` go at once;
    the ended ones are kept, with their files, as ``keep_runs``, ``keep_days`` and ``keep_bytes`` say (``Keep``).
    """

    def __init__(
        self,
        *,
        state: State,
        folder: Path,
        max_runs: int,
        keep_runs: int,
        keep_days: float | None = None,
        keep_bytes: int | None = None,
        recover: Callable[[RunRow], Awaitable[None]] | None = None,
        resume: ResumeFn | None = None,
    ) -> None:
        self._state = state
        self._folder = folder
        self._retention = Retention(state=state, folder=folder, keep=Keep(keep_runs, keep_days, keep_bytes))
        self._recover = recover
        self._resume = resume
        self._slots = Slots(max_runs)
        self._reaper = Reaper()
        self._reserve = Reserve(folder / ".reserve")
        self._live: dict[str, Run] = {}
        self._listeners: list[Callable[[RunRow], None]] = []
        self._tasks = asyncio.TaskGroup()
        self._closing = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._claiming = asyncio.Lock()

    async def __aenter__(self) -> Self:
        lost, going_on = await self._take_stock()
        await asyncio.to_thread(self._reserve.take)
        await self._tasks.__aenter__()
        for run, prepare in going_on:
            self._live[run.row.id] = run
            self._tasks.create_task(self._see_to_its_end(run, prepare), name=f"run-{run.row.id}")
        self._background = [
            self._tasks.create_task(self._save_what_is_left(lost)),
            self._tasks.create_task(self._retention.now_and_then()),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        for run in self._live.values():
            run.ask_to_stop(AGENT_STOPPED)
        for task in self._background:
            task.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)  # whatever the error is, runs get their grace
        finally:
            await asyncio.to_thread(self._reaper.close)

    async def submit(
        self,
        row: RunRow,
        prepare: PrepareFn,
        *,
        limits: Limits,
        request: Mapping[str, Any] | None = None,
        claim: Claim | None = None,
    ) -> Run:
        """Take a run in: its row is on disk and its folder made when this returns. A lower priority goes first.

        ``request`` is what ``resume`` needs, and a repetition. Where ``claim`` stands for a run already, that one is
        given back, which may be over, and nothing is started. Raises ``Unavailable`` when the agent is ending or the
        disk is full, ``Conflict`` when the claim's key was used for something else; no run is left then.
        """
        self._refuse_when_closing()
        row = dataclasses.replace(row, state=RunState.QUEUED, created=row.created or now())
        row = dataclasses.replace(row, folder=str(self._folder / row.created[:7] / row.id))
        if claim is None:
            return self._begin(await self._insert(row, request, None), prepare, limits)
        async with self._claiming:  # until it is live, whoever else has the key must not look for it
            inserted = await self._insert(row, request, claim)
            return await self._known(inserted) if inserted.id != row.id else self._begin(inserted, prepare, limits)

    async def claimed(self, claim: Claim) -> Run | None:
        """The run that a claim stands for, which may be over; ``None``: there is none. Raises ``Conflict``."""
        async with self._claiming:
            row = await self._state.claimed(claim)
            return None if row is None else await self._known(row)

    def _begin(self, row: RunRow, prepare: PrepareFn, limits: Limits) -> Run:
        run = self._made(row, limits)
        self._live[row.id] = run
        self._tell(row)
        self._tasks.create_task(self._see_to_its_end(run, prepare), name=f"run-{row.id}")
        return run

    async def _known(self, row: RunRow) -> Run:
        if (run := self._live.get(row.id)) is not None:
            return run
        if not row.state.ended:  # it was read before the run's end was written, which is there now
            row = await self._state.get(row.id)
        run = self._made(row, Limits(), live=False)
        run.is_past()
        return run

    def _made(self, row: RunRow, limits: Limits, *, live: bool = True) -> Run:
        return Run(
            row,
            folder=Path(row.folder),
            limits=limits,
            state=self._state,
            reserve=self._reserve,
            notify=self._tell,
            live=live,
        )

    async def _insert(self, row: RunRow, request: Mapping[str, Any] | None, claim: Claim | None) -> RunRow:
        folder = Path(row.folder)
        try:
            await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True)
            inserted = await self._state.insert(row, request=request, claim=claim)
        except OSError as error:
            raise Unavailable(f"The run's folder {folder} cannot be made ({error.strerror}).") from error
        except BaseException:
            await asyncio.to_thread(remove_tree, folder)
            raise
        if inserted.id != row.id:
            await asyncio.to_thread(remove_tree, folder)
            return inserted
        if self._closing.is_set():
            await self._state.update(row.id, state=RunState.LOST, ended=now(), error=AGENT_STOPPED.sentence)
        self._refuse_when_closing()
        return inserted

    def _refuse_when_closing(self) -> None:
        if self._closing.is_set():
            raise Unavailable("The agent is ending and takes no more runs: try again when it has started anew.")

    def live(self, run_id: str) -> Run | None:
        """The run, if it has not ended."""
        return self._live.get(run_id)

    def live_runs(self) -> list[Run]:
        """All runs that have not ended, in the order in which they came."""
        return list(self._live.values())

    def live_of(self, package_id: str) -> list[Run]:
        """The runs of a package that have not ended, in the order in which they came."""
        return [run for run in self._live.values() if run.row.package_id == package_id]

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

    async def _see_to_its_end(self, run: Run, prepare: PrepareFn) -> None:
        place = Place(self._slots)
        try:
            async with asyncio.TaskGroup() as tasks:
                informing = tasks.create_task(run.keep_listeners_informed())
                writing = tasks.create_task(run.output.keep_writing())
                decided, facts = await self._attempts(run, prepare, place)
                await run.output.close()
                informing.cancel()
                writing.cancel()
            if decided is not None:
                error = f"{decided.error or ''} {run.output.error or ''}".strip() or None
                changes = {**facts, "state": decided.state, "error": error, "ended": now()}
                await run.finish(changes, closing=self._closing)
        except Exception:
            log.exception("Run %s could not be seen to its end", run.row.id)
            with contextlib.suppress(Exception):  # then its row will be found unfinished
                await run.output.close()
                await run.give_up(closing=self._closing)
        finally:
            run.abandon()
            self._live.pop(run.row.id, None)
            self._reaper.forget(run.tag)
            place.give_back()
        if not self._closing.is_set():
            await self._retention.tidy()
        await asyncio.to_thread(self._reserve.take)

    async def _attempts(self, run: Run, prepare: PrepareFn, place: Place) -> tuple[Verdict | None, dict[str, Any]]:
        """All attempts, the first included: what the last one came to; ``None``: the next agent goes on."""
        while True:
            decided, facts = await self._attempt(run, prepare, place)
            waiting = self._goes_on(run.row, decided)
            if waiting is None:
                return decided, {**facts, "next_attempt": None}
            run.begin_again()
            if "error" in waiting:
                run.note(waiting["error"])
            await run.save(waiting, closing=self._closing)
            if self._closing.is_set():
                return None, {}
            place.give_back()

    def _goes_on(self, row: RunRow, decided: Verdict) -> dict[str, Any] | None:
        """What the row says until its next attempt; ``None``: there is none."""
        moment, chance = datetime.now(UTC), random.random()  # noqa: S311 - jitter
        if decided.state is not RunState.LOST:
            return attempts.again(row, decided, moment=moment, chance=chance)
        if self._resume is None:
            return None
        return attempts.after_its_agent(row, AGENT_STOPPED.sentence, moment=moment, chance=chance)

    async def _attempt(self, run: Run, prepare: PrepareFn, place: Place) -> tuple[Verdict, dict[str, Any]]:
        """From the queue to the end of an attempt: what it came to. Whatever goes wrong is part of that."""
        try:
            if not await self._waited(run, place):
                return not_started(run.stop, None), {}
            return await self._take_turn(run, prepare)
        except Exception as error:
            if not isinstance(error, AgentError | OSError):
                log.warning("Run %s failed", run.row.id, exc_info=True)
            return not_started(run.stop, error), {}

    async def _waited(self, run: Run, place: Place) -> bool:
        """Wait for the attempt's time, and its place; false when the run is to end before."""
        left_s = attempts.left_s(run.row, moment=datetime.now(UTC))
        if left_s and await _unless_stopped(asyncio.sleep(left_s, result=True), run) is None:
            return False
        return await _unless_stopped(place.take(run.row.priority), run) is not None

    async def _take_turn(self, run: Run, prepare: PrepareFn) -> tuple[Verdict, dict[str, Any]]:
        run.change(state=RunState.PREPARING, next_attempt=None)
        prepared: Prepared | None = None
        watching = asyncio.create_task(asyncio.to_thread(self._reaper.watch, run.tag))  # it may have to be started
        try:
            await asyncio.to_thread(_clear, run.folder)
            prepared = await _unless_stopped(prepare(run), run)
            if prepared is None:
                return not_started(run.stop, None), {}
            if run.row.kind in MAKING:
                run.no_more_stops()
                made = {"environment": prepared.environment, "results": dict(prepared.results), "progress": None}
                return Verdict(RunState.SUCCEEDED), made
            return await execute(run, prepared, reaper=self._reaper)
        finally:
            await watching
            if prepared is None or run.row.kind in MAKING:
                await asyncio.to_thread(processes.kill_leftovers, run.tag)
            await asyncio.to_thread(_remove_copy, run.folder, prepared)

    async def _take_stock(self) -> tuple[list[RunRow], list[tuple[Run, PrepareFn]]]:
        """End what an earlier agent left: its processes, then the rows that are lost; and the runs that go on."""
        rows = await self._state.unfinished()
        if not rows:
            return [], []
        known = [(row.pid, row.pid_started) for row in rows if row.pid is not None and row.pid_started is not None]
        await asyncio.to_thread(processes.kill_leftovers, [row.tag or row.id for row in rows], known)
        lost: list[RunRow] = []
        going_on: list[tuple[Run, PrepareFn]] = []
        for row in rows:
            if (found := await self._taken_up(row)) is not None:
                going_on.append(found)
            else:
                lost.append(await self._mark_lost(row))
        return lost, going_on

    async def _taken_up(self, row: RunRow) -> tuple[Run, PrepareFn] | None:
        """A run of an earlier agent that has attempts left, waiting for the next one; ``None`` for any other."""
        changes = attempts.after_its_agent(row, LOST, moment=datetime.now(UTC), chance=random.random())  # noqa: S311 - jitter
        if changes is None or self._resume is None:
            return None
        try:
            prepare, limits = await self._resume(row)
            await asyncio.to_thread(Path(row.folder).mkdir, mode=0o700, parents=True, exist_ok=True)
            run = self._made(row, limits)
            await asyncio.to_thread(run.output.take_up)
        except (AgentError, OSError) as error:
            log.warning("Run %s cannot be tried again: %s", row.id, error)
            return None
        tag = f"{row.id}.{secrets.token_hex(4)}"  # what the earlier agent started is perhaps being ended still
        run.row = await self._state.update(row.id, tag=tag, **changes)
        if "error" in changes:
            run.note(changes["error"])
        return run, prepare

    async def _mark_lost(self, row: RunRow) -> RunRow:
        reported = await asyncio.to_thread(_reported, Path(row.folder))
        error = LOST_UNSTARTED if row.state is RunState.QUEUED else LOST
        changes = {"state": RunState.LOST, "ended": now(), "error": error, "next_attempt": None}
        return await self._state.update(row.id, **changes, **reported)

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
        await self._retention.tidy()


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
    if folder.is_symlink():
        return
    copies = {folder / WORK, *([prepared.workdir] if prepared is not None and prepared.workdir is not None else [])}
    for copy in copies:
        if copy.is_relative_to(folder) and copy != folder and copy.is_dir():
            remove_tree(copy)


def _clear(folder: Path) -> None:
    """Remove what an earlier attempt has left, all but its output; one that removed the folder itself gets it back."""
    if folder.is_symlink():  # to others' files
        folder.unlink()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name != OUTPUT:
                remove_tree(path)
        else:
            path.unlink()


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
