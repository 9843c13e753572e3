"""The reaper's process: kills the trees it was told of when the pipe to the agent closes.

A program of its own, not a module to import: ``python -I -S reap.py``, with as few modules as can be (9 MB, most of
it shared). On stdin come lines, ``+ <tag> <pid>`` and ``- <tag>`` (pid 0: not started yet). At the end of stdin what
was not taken back is ended: SIGTERM, a second, SIGKILL.
"""

# pathlib and contextlib would load twenty modules more:
# ruff: noqa: PTH112, PTH123, PTH208, SIM105

import os
import signal
import time

GRACE_S = 1.0
KILLING_S = 10.0
POLL_S = 0.01


def told(lines: list[bytes], trees: dict[bytes, int]) -> None:
    """Follow the agent's words."""
    for line in lines:
        match line.split():
            case [b"+", tag, pid]:
                trees[tag] = int(pid)
            case [b"-", tag]:
                trees.pop(tag, None)
            case _:
                pass


def listen(trees: dict[bytes, int]) -> None:
    """Return when the agent has closed the pipe, or is gone."""
    rest = b""
    while data := os.read(0, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        told(lines, trees)


def living(trees: dict[bytes, int]) -> list[int]:
    """Pids of processes that carry a tag or are in a leader's session. Nothing where there is no ``/proc``."""
    marks = [mark(tag) for tag in trees]
    leaders = set(trees.values()) - {0}
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        try:
            if name.isdigit() and int(name) != os.getpid() and belongs(name, marks, leaders):
                found.append(int(name))
        except OSError:
            pass  # gone, or another user's
    return found


def mark(tag: bytes) -> bytes:
    """What a process with this tag has in its environment."""
    return b"\0JUPYTER_AGENT_RUN=" + tag + b"\0"


def belongs(name: str, marks: list[bytes], leaders: set[int]) -> bool:
    """Whether a living process is one of the trees'. Raises ``OSError`` when it is gone or another user's."""
    with open(f"/proc/{name}/stat", "rb") as file:  # pid (name) state ppid pgrp session ...
        state, _, _, session = file.read().rpartition(b")")[2].split()[:4]
    if state in b"ZX":
        return False
    if int(session) in leaders:
        return True
    with open(f"/proc/{name}/environ", "rb") as file:
        environment = b"\0" + file.read() + b"\0"
    return any(mark in environment for mark in marks)


def send(trees: dict[bytes, int], number: int) -> None:
    """Signal every process of the trees, and their leaders' groups."""
    for pid in living(trees):
        try:
            os.kill(pid, number)
        except OSError:
            pass
    for pid in trees.values():
        try:
            if pid:
                os.killpg(pid, number)
        except OSError:
            pass


def reap(trees: dict[bytes, int]) -> None:
    """End the trees."""
    send(trees, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while living(trees) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    send(trees, signal.SIGKILL)
    deadline = time.monotonic() + KILLING_S
    while living(trees) and time.monotonic() < deadline:
        send(trees, signal.SIGKILL)
        time.sleep(POLL_S)


def main() -> None:
    """Live as long as the agent, and a moment longer."""
    trees: dict[bytes, int] = {}
    listen(trees)
    if trees:
        reap(trees)


if __name__ == "__main__":
    main()
