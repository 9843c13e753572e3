"""One run from its start to its end: the child, its output, its reports, its limits, and what it leaves."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

from jupyter_agent import processes
from jupyter_agent.errors import AgentError, Failed
from jupyter_agent.processes import Command, Exit, Process, Reaper
from jupyter_agent.runs import artifacts
from jupyter_agent.runs.events import EventFile, Reported
from jupyter_agent.runs.looks import Looks, over_memory, refused_processes
from jupyter_agent.runs.memory import Group
from jupyter_agent.runs.run import Prepared, Run
from jupyter_agent.runs.verdict import Ending, Verdict, last_words, verdict
from jupyter_agent.state import RunState, now

READ_BYTES = 256 << 10

EVENTS_PAUSE_S = 0.1
"""Between two looks at the size of the event file."""

LEFTOVERS_GRACE_S = 1.0
"""What is left of the tree when the child itself has ended is given this long."""

DRAINING_S = 60.0
"""For what is left in the pipes of an ended tree, while it comes: somebody else may hold them and print on."""

RESCUE_S = 60.0

LAST_LINES = 16 << 10
"""Characters of stderr that are kept to find what it said at last: a stack may be long."""


async def execute(run: Run, prepared: Prepared, *, reaper: Reaper) -> tuple[Verdict, dict[str, Any]]:
    """Start the prepared run and see it to its end: the verdict, and what else there is to say in its row.

    Raises ``AgentError`` when it cannot be started. Nothing of it runs any more when this returns.
    """
    if prepared.command is None:
        raise Failed("There is nothing to be started.")
    workdir = prepared.workdir
    before = {} if workdir is None else await asyncio.to_thread(artifacts.settled_snapshot, workdir)
    execution = _Execution(run, prepared)
    ending = await execution.go(prepared.command, reaper)
    await _rescue(run, prepared)
    await asyncio.to_thread(execution.read_reports)  # the rescue may have added to them
    if refused := execution.reported.refused:
        run.note(f"There was no room for {len(refused)} of the results: {', '.join(sorted(refused))[:1000]}")
    kept = await asyncio.to_thread(
        _keep_files, run.folder, workdir, before, execution.reported.artifacts, run.limits.files_bytes
    )
    decided = verdict(ending)
    if kept.error is not None:
        decided = dataclasses.replace(decided, error=f"{decided.error or ''} {kept.error}".strip())
    return decided, {**execution.facts(ending.exit), "artifacts": kept.artifacts}


def _keep_files(
    folder: Path, workdir: Path | None, before: artifacts.Snapshot, named: list[str], most_bytes: int | None
) -> artifacts.Kept:
    names = [] if workdir is None else artifacts.changed(workdir, before)
    return artifacts.keep(folder, workdir, names, named, most_bytes=most_bytes)


async def _rescue(run: Run, prepared: Prepared) -> None:
    """Run the command that mends what the child left undone, if it is needed."""
    if prepared.rescue is None or (prepared.rescue_unless is not None and prepared.rescue_unless.exists()):
        return
    try:
        done = await processes.run(prepared.rescue, tag=run.tag, timeout_s=RESCUE_S)
        if not done.exit.ok:
            run.note(f"The output could not be completed: {done.output.strip() or done.exit}")
    except AgentError as error:
        run.note(f"The output could not be completed: {error}")


class _Execution:
    def __init__(self, run: Run, prepared: Prepared) -> None:
        self._run = run
        self._prepared = prepared
        self._events = EventFile(prepared.events) if prepared.events is not None else None
        self._looks = Looks(run)
        self._used = self._looks.used
        self._last_lines = ""

    @property
    def reported(self) -> Reported:
        return Reported() if self._events is None else self._events.reported

    def facts(self, exit_: Exit) -> dict[str, Any]:
        """What the row says besides the verdict."""
        return {
            "exit_code": exit_.code,
            "signal": exit_.signal,
            "peak_memory": self._used.peak_memory,
            "cpu_s": self._used.cpu_s,
            "progress": self.reported.progress or self._run.row.progress,
            "results": self.reported.results,
        }

    def read_reports(self) -> None:
        """Take in all that was reported; for when nobody reports any more."""
        if self._events is not None:
            self._events.read_all()

    async def go(self, command: Command, reaper: Reaper) -> Ending:
        """From the start to the end of the child and of all it started."""
        group = await self._make_group()
        try:
            start = self._prepared.start or processes.start
            process = await start(command, tag=self._run.tag)
            try:
                reaper.watch(self._run.tag, process.pid)
                self._tell_start(process)
                exit_ = await self._see_through(process, group)
            finally:
                await process.end()
                process.close()
            return await asyncio.to_thread(self._ending, process, exit_, group)
        finally:
            if group is not None:
                await asyncio.to_thread(group.remove)

    async def _make_group(self) -> Group | None:
        limits, name = self._run.limits, self._run.row.id
        await asyncio.to_thread(self._looks.begin)
        if limits.memory_bytes is None and limits.processes is None:
            return None
        return await asyncio.to_thread(
            lambda: Group.make(name, memory_bytes=limits.memory_bytes, processes=limits.processes)
        )

    def _tell_start(self, process: Process) -> None:
        self._run.change(
            state=RunState.RUNNING,
            started=now(),
            pid=process.pid,
            pid_started=process.started,
            environment=self._prepared.environment,
            progress=None,  # that was the preparation's
        )

    async def _see_through(self, process: Process, group: Group | None) -> Exit:
        run, looks = self._run, self._looks
        async with asyncio.TaskGroup() as tasks:
            pumps = [tasks.create_task(self._pump("stdout", process)), tasks.create_task(self._pump("stderr", process))]
            stopping = tasks.create_task(self._stop_when_asked(process))
            watching = [
                tasks.create_task(watch)
                for watch in (looks.at_time(), looks.at_use(process, group), looks.at_files(), self._follow_events())
            ]
            exit_ = await process.wait()
            run.no_more_stops()
            if run.stop is None:
                stopping.cancel()
            await asyncio.wait([stopping])
            await asyncio.wait(pumps, timeout=processes.DRAIN_S)
            await process.stop(grace_s=min(LEFTOVERS_GRACE_S, run.limits.grace_s))
            await self._drain(process, pumps)
            for watch in watching:
                watch.cancel()
        return exit_

    async def _drain(self, process: Process, pumps: list[asyncio.Task[None]]) -> None:
        """Read what an ended tree has left in the pipes, as long as more of it comes: the disk may be slow."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAINING_S):
                before = -1
                while before < self._looks.printed_bytes and any(not pump.done() for pump in pumps):
                    before = self._looks.printed_bytes
                    await asyncio.wait(pumps, timeout=processes.DRAIN_S)
        await process.drained(pumps)

    async def _pump(self, stream: str, process: Process) -> None:
        reader = process.stdout if stream == "stdout" else process.stderr
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while data := await reader.read(READ_BYTES):
                self._looks.printed(len(data))
                self._take(stream, decoder.decode(data))
                await self._run.output.room()
        except OSError as error:
            self._run.note(f"The rest of {stream} could not be read ({error.strerror}).")
        finally:
            self._take(stream, decoder.decode(b"", final=True))

    def _take(self, stream: str, text: str) -> None:
        if text:
            self._run.output.append(stream, text, time.time())
            if stream == "stderr":
                self._last_lines = (self._last_lines + text[-LAST_LINES:])[-LAST_LINES:]

    async def _stop_when_asked(self, process: Process) -> None:
        await self._run.stop_asked.wait()
        hurried = self._run.stop is not None and self._run.stop.hurried
        await process.stop(grace_s=0 if hurried else self._run.limits.grace_s)

    async def _follow_events(self) -> None:
        while self._events is not None:
            await asyncio.sleep(EVENTS_PAUSE_S)
            if self._events.has_more() and await asyncio.to_thread(self._events.read):
                self._run.show(progress=self.reported.progress, results=dict(self.reported.results))

    def _ending(self, process: Process, exit_: Exit, group: Group | None) -> Ending:
        self.read_reports()
        limit = self._run.limits.memory_bytes
        if process.peak_is_exact or self._used.peak_memory is None:
            self._used.saw(process.peak_memory_bytes, None)
        self._used.saw(None if group is None else group.peak_bytes, process.cpu_s)
        if group is not None and group.refused_processes:
            self._run.note(refused_processes(self._run.limits.processes or 0))
        return Ending(
            exit_,
            stop=self._run.stop or self._looks.over_files(),
            out_of_memory=over_memory(limit) if limit is not None and group is not None and group.exceeded else None,
            kernel_died=self.reported.kernel_died,
            told=self.reported.error,
            last_line=last_words(self._last_lines),
        )
