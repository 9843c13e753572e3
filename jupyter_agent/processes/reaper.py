"""The agent's end of the reaper: a tiny process that ends the agent's children when the agent itself was killed."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess  # noqa: TID251 - this package is where processes are started
import sys
import threading
from pathlib import Path
from typing import Self

from jupyter_agent.processes import marks
from jupyter_agent.processes.environment import inherited_environment

log = logging.getLogger(__name__)
_PROGRAM = Path(__file__).with_name("reap.py")

CLOSING_S = 15.0
"""More than the reaper itself takes to end what it was told of."""


class Reaper:
    """Keeps a process that kills the trees told to it when this process is gone, however it went.

    The process starts with the first ``watch`` or ``start`` and is replaced when it was killed itself. It is in a
    session of its own, so that no signal to the agent's group or to a run's reaches it. Every method may be called
    from any thread; only ``start`` and ``close`` take longer than a write to a pipe.
    """

    def __init__(self) -> None:
        self._trees: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The reaper's process, ``None`` while there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process now, if there is none: some milliseconds, better spent in a thread."""
        with self._lock:
            self._ensure()

    def watch(self, tag: str, pid: int = 0) -> None:
        """From now on the tree with this tag, led by ``pid`` (0: not started yet), ends when we are gone."""
        with self._lock:
            leader = self._trees[tag] = pid or self._trees.get(tag, 0)
            self._say(_watch(tag, leader))

    def forget(self, tag: str) -> None:
        """The tree has ended."""
        with self._lock:
            if self._trees.pop(tag, None) is not None:
                self._say(f"- {tag}\n")

    def close(self) -> None:
        """End the process, and with it what was not forgotten. Blocks."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            _end(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ensure(self) -> None:
        if self._process is None and not self._closed:
            self._process = _spawn()
            for tag, pid in self._trees.items():
                self._write(_watch(tag, pid))

    def _say(self, line: str) -> None:
        if self._process is not None and not self._write(line):
            log.warning("The reaper (pid %d) was ended by someone: another one is started.", self._process.pid)
            self._process.kill()  # a mere end of its input would make it end the runs
            _end(self._process)
            self._process = None
        self._ensure()  # a new one is told of all trees, the line's among them

    def _write(self, line: str) -> bool:
        """Whether the process took the line. It never blocks: a reaper that is stopped and full is replaced."""
        if self._process is None or self._process.stdin is None or self._process.poll() is not None:
            return False
        try:
            return self._process.stdin.write(line.encode()) == len(line)
        except OSError:
            return False


def _watch(tag: str, leader: int) -> str:
    return f"+ {tag} {leader} {marks.mark_of(tag)}\n"


def _spawn() -> subprocess.Popen[bytes] | None:
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=inherited_environment(builders=False, credentials=False),
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:  # no memory, no more processes: runs go on without it, and say so
        log.warning("No reaper can be started (%s): children would outlive a killed agent.", error.strerror)
        return None
    marks.clear(process.pid)  # it may have been started in the same moment as a run
    if process.stdin is not None:
        os.set_blocking(process.stdin.fileno(), False)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(CLOSING_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
