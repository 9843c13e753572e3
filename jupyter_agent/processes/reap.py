"""The reaper's process: kills the trees it was told of when the pipe to the agent closes.

A program of its own, not a module to import: ``python -I -S reap.py``, with as few modules as can be (9 MB, most of
it shared). On stdin come lines, ``+ <tag> <pid> <mark>`` and ``- <tag>`` (pid 0: not started yet). At the end of stdin
what was not taken back is ended: SIGTERM, a second, SIGKILL.
"""

# pathlib and contextlib would load twenty modules more:
# ruff: noqa: PTH112, PTH123, PTH208

import os
import signal
import time

try:
    from resource import RLIMIT_RTTIME, prlimit
except ImportError:  # not Linux
    prlimit = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE_S = 1.0
KILLING_S = 10.0
POLL_S = 0.01
QUIET_SCANS = 5
"""So often nothing is to be found before all is gone: who forks and ends while it is looked for hides its child."""


def told(lines: list[bytes], trees: dict[bytes, tuple[int, int]]) -> None:
    """Follow the agent's words; a tree is its leader and its mark."""
    for line in lines:
        match line.split():
            case [b"+", tag, pid, number]:
                trees[tag] = int(pid), int(number)
            case [b"-", tag]:
                trees.pop(tag, None)
            case _:
                pass


def listen(trees: dict[bytes, tuple[int, int]]) -> None:
    """Return when the agent has closed the pipe, or is gone."""
    rest = b""
    while data := os.read(0, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        told(lines, trees)


def living(trees: dict[bytes, tuple[int, int]]) -> "Iterator[int]":
    """Pids of processes that carry a tag or a mark, or are in a leader's session. None where there is no ``/proc``."""
    tags = [mark(tag) for tag in trees]
    leaders = {pid for pid, _ in trees.values()} - {0}
    marks = {number for _, number in trees.values()}
    for name in reversed(os.listdir("/proc") if os.path.isdir("/proc/self") else []):  # the newest first, mostly
        try:
            if name.isdigit() and int(name) != os.getpid() and belongs(name, tags, leaders, marks):
                yield int(name)
        except OSError:
            pass  # gone, or another user's


def mark(tag: bytes) -> bytes:
    """What a process with this tag has in its environment."""
    return b"\0JUPYTER_AGENT_RUN=" + tag + b"\0"


def belongs(name: str, tags: list[bytes], leaders: set[int], marks: set[int]) -> bool:
    """Whether a living process is one of the trees'. Raises ``OSError`` when it is gone or another user's."""
    with open(f"/proc/{name}/stat", "rb") as file:  # pid (name) state ppid pgrp session ...
        state, _, _, session = file.read().rpartition(b")")[2].split()[:4]
    if state in b"ZX":
        return False
    if int(session) in leaders or is_marked(int(name), marks):
        return True
    with open(f"/proc/{name}/environ", "rb") as file:
        environment = b"\0" + file.read() + b"\0"
    return any(tag in environment for tag in tags)


def is_marked(pid: int, marks: set[int]) -> bool:
    """Whether a process has one of the marks (``marks.py``)."""
    try:
        return prlimit is not None and prlimit(pid, RLIMIT_RTTIME)[0] in marks
    except OSError:
        return False


def send(trees: dict[bytes, tuple[int, int]], number: int) -> None:
    """Signal every process of the trees, and their leaders' groups."""
    for pid in living(trees):
        try:
            if number == signal.SIGKILL:  # nobody gets away from his group by forking
                os.killpg(os.getpgid(pid), number)
            else:
                os.kill(pid, number)
        except OSError:
            pass
    for pid, _ in trees.values():
        try:
            if pid:
                os.killpg(pid, number)
        except OSError:
            pass


def reap(trees: dict[bytes, tuple[int, int]]) -> None:
    """End the trees."""
    send(trees, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while any(living(trees)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    quiet = 0
    deadline = time.monotonic() + KILLING_S
    while quiet < QUIET_SCANS and time.monotonic() < deadline:
        send(trees, signal.SIGKILL)
        time.sleep(POLL_S)
        quiet = 0 if any(living(trees)) else quiet + 1


def main() -> None:
    """Live as long as the agent, and a moment longer."""
    trees: dict[bytes, tuple[int, int]] = {}
    listen(trees)
    if trees:
        reap(trees)


if __name__ == "__main__":
    main()
