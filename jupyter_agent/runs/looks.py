"""Looking at what a run uses while it goes on, and ordering its end when that is too much."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jupyter_agent.processes import Process
from jupyter_agent.runs.memory import Group
from jupyter_agent.runs.retention import size_of
from jupyter_agent.runs.run import OUTPUT, Run
from jupyter_agent.runs.verdict import Cause, Stop

FIRST_LOOKS_S = (0.02, 0.2)
"""A run's use of memory and CPU is first looked at this soon, so that short ones have figures, too."""

LOOK_PAUSE_S = 1.0
LONGEST_LOOK_PAUSE_S = 5.0
"""Without a limit the looks become rarer: each one asks for the limits of every process of the system."""

COUNT_PAUSE_S = 0.1
"""Between two counts of processes, which can become many very quickly."""

FILES_PAUSE_S = 0.25
FILES_SHARE = 0.1
"""Looking at a folder with very many files takes so much of the time, at most."""


@dataclass
class Used:
    """The most that was seen of a run's use: resident bytes at once, CPU seconds in all."""

    peak_memory: int | None = None
    cpu_s: float | None = None

    def saw(self, memory_bytes: int | None, cpu_s: float | None) -> None:
        """Take in one look; ``None`` is what nobody knows."""
        if memory_bytes:
            self.peak_memory = max(self.peak_memory or 0, memory_bytes)
        if cpu_s is not None:
            self.cpu_s = max(self.cpu_s or 0.0, cpu_s)


class Looks:
    """What is seen of one attempt of a run; ``watches`` are to be run while it goes on."""

    def __init__(self, run: Run) -> None:
        self.used = Used()
        self._run = run
        self._limits = run.limits
        self.printed_bytes = 0
        self._before = 0

    def begin(self) -> None:
        """Note what the run's folder holds before it starts. Blocks."""
        if self._limits.files_bytes is not None:
            self._before = self._size()

    async def at_time(self) -> None:
        """End it when its time is over."""
        limit_s = self._limits.wall_s
        if limit_s is not None:
            await asyncio.sleep(limit_s)
            self._run.ask_to_stop(
                Stop(Cause.WALL_TIME, f"The run was stopped: it took longer than its limit of {limit_s:g} s.")
            )

    async def at_use(self, process: Process, group: Group | None) -> None:
        """Look at memory, CPU and processes."""
        if group is not None:
            await asyncio.to_thread(lambda: group.add(process.pids()))
        memory, processes = self._limits.memory_bytes, self._limits.processes
        for pause_s in _pauses(limited=memory is not None, counted=processes is not None):
            await asyncio.sleep(pause_s)
            used = await asyncio.to_thread(process.usage)
            self.used.saw(used.memory_bytes, used.cpu_s)
            if memory is not None and used.memory_bytes > memory:
                self._run.ask_to_stop(Stop(Cause.LIMIT, over_memory(memory), hurried=True))
            if processes is not None and used.processes > processes:
                self._run.ask_to_stop(Stop(Cause.LIMIT, over_processes(processes), hurried=True))

    async def at_files(self) -> None:
        """Look at what it adds to its folder."""
        while self._limits.files_bytes is not None:
            began = time.monotonic()
            if (over := await asyncio.to_thread(self.over_files)) is not None:
                self._run.ask_to_stop(over)
            await asyncio.sleep(max(FILES_PAUSE_S, (time.monotonic() - began) / FILES_SHARE))

    def over_files(self) -> Stop | None:
        """The order to end when the run has added more to its folder than it may. Blocks."""
        limit = self._limits.files_bytes
        if limit is None or self._size() - self._before <= limit:
            return None
        sentence = f"The run was killed: it wrote more than its limit of {mib(limit)} of files."
        return Stop(Cause.LIMIT, sentence, hurried=True)

    def printed(self, count: int) -> None:
        """So many bytes more were printed; said, or the end of the run, when they are too many in all."""
        limit, before = self._limits.output_bytes, self.printed_bytes
        self.printed_bytes += count
        if limit is None or before > limit or self.printed_bytes <= limit:
            return
        if self._limits.output_stops:
            sentence = f"The run was stopped: it printed more than its limit of {mib(limit)}."
            self._run.ask_to_stop(Stop(Cause.LIMIT, sentence))
        else:
            self._run.note(f"The run has printed more than its budget of {mib(limit)}; it goes on.")

    def _size(self) -> int:
        folder: Path = self._run.folder
        return size_of(folder, without=folder / OUTPUT)


def mib(count: int) -> str:
    """``1536 << 10`` -> "1.5 MiB"."""
    return f"{count / (1 << 20):.4g} MiB"


def over_memory(limit_bytes: int) -> str:
    """The sentence for a run that used more memory than it may."""
    return f"The run was killed: it used more than its memory limit of {limit_bytes / (1 << 20):.0f} MiB."


def refused_processes(limit: int) -> str:
    """The sentence for a run that the kernel gave no more processes."""
    return f"The run wanted more than its limit of {limit} processes: some could not be started."


def over_processes(limit: int) -> str:
    """The sentence for a run that had more processes than it may."""
    return f"The run was killed: it had more than its limit of {limit} processes."


def _pauses(*, limited: bool, counted: bool) -> Iterator[float]:
    """Seconds between two looks at what a run uses."""
    yield from FIRST_LOOKS_S
    pause_s = COUNT_PAUSE_S if counted else LOOK_PAUSE_S
    while True:
        yield pause_s
        if not (limited or counted):
            pause_s = min(pause_s * 2, LONGEST_LOOK_PAUSE_S)
