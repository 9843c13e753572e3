"""Finding the processes that belong together, what they use, and ending what is left of them.

A process belongs to a tag when its environment carries it (every descendant inherits it, whatever session it moved
to), when it is in the leader's session, or when it descends from one that does. A scan reads all processes of the
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

import psutil

from jupyter_agent.processes.environment import TAG

SAME_START_S = 2.0
"""Two start times this near, of one pid, are of one process.

They are wall-clock times reckoned from the boot time, which moves when the clock is set; and a pid comes round again
only after all others were used.
"""

KILLING_S = 5.0
"""How long killed processes are waited for: one that hangs in the kernel cannot be waited for any longer."""

_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@dataclass(frozen=True)
class Usage:
    """What a tree of processes uses: resident bytes now, and CPU seconds (user and system) so far."""

    memory_bytes: int
    cpu_s: float


def process_started(pid: int) -> float:
    """When a process started (unix seconds, as psutil gives it). Raises ``ProcessLookupError`` when there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(f"There is no process {pid}.") from error


def is_alive(pid: int, started: float) -> bool:
    """Whether the process with this pid and start time still runs: no zombie, no other one with its pid."""
    return _same(pid, started) is not None


def members(tag: str, pid: int, started: float, known: Iterable[psutil.Process] = ()) -> set[psutil.Process]:
    """The living processes of the tree that ``pid`` leads.

    ``known`` are processes seen in it earlier: they count whatever they have made of themselves since.
    """
    everyone = list(_scan())
    recycled = any(seen.process.pid == pid and not _near(seen.process, started) for seen in everyone)
    roots = {seen.process for seen in everyone if seen.tag == tag or (seen.session == pid and not recycled)}
    return _with_descendants(roots.union(known), everyone)


def descendants(pid: int) -> set[psutil.Process]:
    """The process and its descendants, found without reading any environment: cheap enough for each second."""
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(pid)
        return {leader, *leader.children(recursive=True)}
    return set()


def usage(processes: Iterable[psutil.Process]) -> Usage:
    """The sum of what these processes use; those that have ended count nothing."""
    memory, cpu = 0, 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error), process.oneshot():
            times = process.cpu_times()
            memory += process.memory_info().rss
            cpu += times.user + times.system
    return Usage(memory, cpu)


def send(processes: Iterable[psutil.Process], number: int) -> None:
    """Signal each of them; one that is gone, or whose pid is another's by now, is passed over."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def kill(find: Callable[[], set[psutil.Process]]) -> set[psutil.Process]:
    """Kill what ``find`` finds until it finds nothing: a process may fork while it is killed. All that was found.

    Blocks, at most ``KILLING_S``.
    """
    killed: set[psutil.Process] = set()
    deadline = time.monotonic() + KILLING_S
    while (found := find()) and time.monotonic() < deadline:
        send(found, signal.SIGKILL)
        killed |= found
        time.sleep(0.005)
    return killed


def kill_leftovers(tags: str | Collection[str], known: Collection[tuple[int, float]] = ()) -> int:
    """Kill all that carries one of the tags, the ``known`` (pid, start time), and their descendants.

    Returns how many there were; blocks until they are gone, at most ``KILLING_S``. One scan serves all tags.
    """
    wanted = {tags} if isinstance(tags, str) else set(tags)
    given = {process for pid, started in known if (process := _same(pid, started)) is not None}

    def left() -> set[psutil.Process]:
        everyone = list(_scan())
        return _with_descendants(given.union(seen.process for seen in everyone if seen.tag in wanted), everyone)

    return len(kill(left))


@dataclass(frozen=True)
class _Seen:
    process: psutil.Process
    parent: int
    session: int
    tag: str | None


def _scan() -> Iterator[_Seen]:
    """All living processes but this one."""
    own = os.getpid()
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            if pid != own and process.status() not in _ENDED:
                yield _Seen(process, process.ppid(), os.getsid(pid), _tag(process))


def _tag(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error, OSError):  # refused for other users' processes, which are none of ours
        return process.environ().get(TAG)
    return None


def _with_descendants(roots: set[psutil.Process], everyone: list[_Seen]) -> set[psutil.Process]:
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
    return found


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
