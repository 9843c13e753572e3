"""Finding the processes that belong together, what they use, and ending what is left of them.

A process belongs to a tag when its environment carries it (every descendant inherits it, whatever session it moved
to), when it has the tag's mark (which it cannot lose, ``marks.py``), when it is in the leader's session, or when it
descends from one that does. A scan reads all processes of the
system, so it is made when something is stopped or recovered, in a thread, never at a start. Nothing here waits for a
child with ``waitpid``: that is its ``Process``'s, which needs the exit status.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from jupyter_agent.processes import marks
from jupyter_agent.processes.environment import TAG

SAME_START_S = 2.0
"""Two start times this near, of one pid, are of one process.

They are wall-clock times reckoned from the boot time, which moves when the clock is set; and a pid comes round again
only after all others were used.
"""

KILLING_S = 5.0
"""How long killed processes are waited for: one that hangs in the kernel cannot be waited for any longer."""

LOOKS = 40
"""So often the marks are looked at, at most, until nobody in the system has forked during one look.

A scan lists the processes, then looks at each: one that forks and ends in between hides its child from that scan. So
the newest are looked at first, they are killed with their whole group, which nobody gets away from by forking, and an
empty scan counts only when nobody was made during it.
"""

KILL_PAUSE_S = 0.005

_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@dataclass(frozen=True)
class Usage:
    """What a tree of processes uses: resident bytes now, CPU seconds (user and system) so far, how many they are."""

    memory_bytes: int
    cpu_s: float
    processes: int = 0


def process_started(pid: int) -> float:
    """When a process started (unix seconds, as psutil gives it). Raises ``ProcessLookupError`` when there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(f"There is no process {pid}.") from error


def is_alive(pid: int, started: float) -> bool:
    """Whether the process with this pid and start time still runs: no zombie, no other one with its pid."""
    return _same(pid, started) is not None


@dataclass(frozen=True)
class Tree:
    """Processes that belong together, and the groups they are in, which hold nobody else."""

    processes: set[psutil.Process]
    groups: set[int]


def members(tag: str, pid: int, started: float, known: Iterable[psutil.Process] = ()) -> Tree:
    """The living processes of the tree that ``pid`` leads.

    ``known`` are processes seen in it earlier: they count whatever they have made of themselves since.
    """
    everyone = list(_scan())
    recycled = any(seen.process.pid == pid and not _near(seen.process, started) for seen in everyone)
    wanted = _Wanted.of({tag})
    roots = {seen.process for seen in everyone if wanted.has(seen) or (seen.session == pid and not recycled)}
    return _with_descendants(roots.union(known), everyone)


def family(pid: int, tag: str) -> set[psutil.Process]:
    """The process that leads a tree and those that have its mark: cheap enough for ten times a second.

    Where there are no marks, its descendants.
    """
    mark, own = marks.mark_of(tag), os.getpid()
    if marks.read(pid) != mark:
        return descendants(pid)
    found: set[psutil.Process] = set()
    for other in psutil.pids():
        if other != own and marks.read(other) == mark:
            with contextlib.suppress(psutil.Error):
                found.add(psutil.Process(other))
    return found


def descendants(pid: int) -> set[psutil.Process]:
    """The process and its descendants, found without reading any environment."""
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(pid)
        return {leader, *leader.children(recursive=True)}
    return set()


def usage(processes: Iterable[psutil.Process]) -> Usage:
    """The sum of what these processes use; those that have ended count nothing."""
    memory, cpu, count = 0, 0.0, 0
    for process in processes:
        with contextlib.suppress(psutil.Error), process.oneshot():
            times = process.cpu_times()
            memory += process.memory_info().rss
            cpu += times.user + times.system
            count += process.status() not in _ENDED
    return Usage(memory, cpu, count)


def send(processes: Iterable[psutil.Process], number: int) -> None:
    """Signal each of them; one that is gone, or whose pid is another's by now, is passed over."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def is_quiet(tags: Collection[str]) -> bool:
    """Whether no process has a mark of the tags; those that have are killed. Blocks for a few milliseconds."""
    wanted, own = frozenset(map(marks.mark_of, tags)), os.getpid()  # we have a mark while we start its process
    for _ in range(LOOKS):
        newest = _newest()
        pids = [pid for pid in reversed(psutil.pids()) if pid != own]
        found = [pid for pid in pids if marks.read(pid) in wanted and _kill_group(pid)]
        if found:
            return False
        if newest is None or newest == _newest():
            break
    return True


def _newest() -> str | None:
    """The number of the process that was made last; ``None`` where nobody knows."""
    try:
        return Path("/proc/loadavg").read_text().split()[-1]
    except OSError:
        return None


def _kill_group(pid: int) -> bool:
    """Kill a marked process and its group; whether it was alive."""
    with contextlib.suppress(OSError, psutil.Error):
        group = os.getpgid(pid)
        if psutil.Process(pid).status() not in _ENDED:
            os.killpg(group, signal.SIGKILL) if group != os.getpgrp() else os.kill(pid, signal.SIGKILL)
            return True
    return False


def kill(find: Callable[[], Tree], *, tags: Collection[str]) -> set[psutil.Process]:
    """Kill what ``find`` finds until there is nothing any more: a process may fork while it is killed.

    All that was found. Blocks, at most ``KILLING_S``.
    """
    killed: set[psutil.Process] = set()
    deadline = time.monotonic() + KILLING_S
    while time.monotonic() < deadline:
        found = find()
        if not found.processes and is_quiet(tags):
            break
        for group in found.groups:
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
        send(found.processes, signal.SIGKILL)
        killed |= found.processes
        time.sleep(KILL_PAUSE_S)
    return killed


def kill_leftovers(tags: str | Collection[str], known: Collection[tuple[int, float]] = ()) -> int:
    """Kill all that carries one of the tags, the ``known`` (pid, start time), and their descendants.

    Returns how many there were; blocks until they are gone, at most ``KILLING_S``. One scan serves all tags.
    """
    names = {tags} if isinstance(tags, str) else set(tags)
    wanted = _Wanted.of(names)
    given = {process for pid, started in known if (process := _same(pid, started)) is not None}

    def left() -> Tree:
        everyone = list(_scan())
        return _with_descendants(given.union(seen.process for seen in everyone if wanted.has(seen)), everyone)

    return len(kill(left, tags=names))


@dataclass(frozen=True)
class _Seen:
    process: psutil.Process
    parent: int
    session: int
    group: int
    tag: str | None
    mark: int | None


@dataclass(frozen=True)
class _Wanted:
    tags: frozenset[str]
    marks: frozenset[int]

    @classmethod
    def of(cls, tags: Collection[str]) -> _Wanted:
        return cls(frozenset(tags), frozenset(map(marks.mark_of, tags)))

    def has(self, seen: _Seen) -> bool:
        return seen.tag in self.tags or seen.mark in self.marks


def _scan() -> Iterator[_Seen]:
    """All living processes but this one, the newest first, as far as their numbers tell."""
    own = os.getpid()
    for pid in reversed(psutil.pids()):
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            with process.oneshot():
                ended, parent = process.status() in _ENDED, process.ppid()
            if pid != own and not ended:
                mark = marks.read(pid)
                tag = _tag(process) if mark is None else None  # the environment need not be read, too
                yield _Seen(process, parent, os.getsid(pid), os.getpgid(pid), tag, mark)


def _tag(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error, OSError):  # refused for other users' processes, which are none of ours
        return process.environ().get(TAG)
    return None


def _with_descendants(roots: set[psutil.Process], everyone: list[_Seen]) -> Tree:
    children: dict[int, list[psutil.Process]] = {}
    for seen in everyone:
        children.setdefault(seen.parent, []).append(seen.process)
    living = {seen.process for seen in everyone}
    found: set[psutil.Process] = set()
    waiting = [root for root in roots if root in living]
    while waiting:
        process = waiting.pop()
        if process not in found:
            found.add(process)
            waiting += children.get(process.pid, ())
    groups = {seen.group for seen in everyone if seen.process in found}
    return Tree(found, groups - {os.getpgrp(), 0})


def _same(pid: int, started: float) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if _near(process, started) and process.status() not in _ENDED:
            return process
    return None


def _near(process: psutil.Process, started: float) -> bool:
    try:
        return abs(process.create_time() - started) < SAME_START_S
    except psutil.Error:
        return False
