"""A child process in a session of its own: started, waited for, measured and stopped with all that it started."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import fcntl
import functools
import os
import resource
import signal
import subprocess  # noqa: TID251 - this package is where processes are started
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import psutil

from jupyter_agent.errors import AgentError, Failed, InvalidInput, NotFound, TimedOut, Unavailable
from jupyter_agent.processes import marks, tree
from jupyter_agent.processes.environment import TAG

READ_LIMIT = 1 << 17
"""Bytes buffered of one pipe before its child has to wait."""

PIPE_BYTES = 1 << 20
"""What the kernel buffers of a pipe, where it may: a child prints on while what it printed is written."""

DRAIN_S = 1.0
"""How long the output of an ended child is waited for: a grandchild may hold the pipe open for ever."""

BUSY_S = 1.0
BUSY_PAUSE_S = 0.01
"""A program that is open for writing cannot be started: tried again for so long, so often."""

LAST_GRACE_S = 1.0
"""What a process that left its group is given between SIGTERM and SIGKILL, once its group is gone."""

TAIL = 64 << 10
"""Characters of a preparation's output that are kept."""

LONGEST_LINE = 64 << 10
"""Characters; a longer line is handed on in pieces."""


@dataclass(frozen=True)
class Command:
    """A program to run. ``env`` is the whole environment of the child; ``argv[0]`` is looked up on its PATH."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]

    @property
    def program(self) -> str:
        """What to call it in a sentence."""
        return self.argv[0]


@dataclass(frozen=True)
class Exit:
    """How a process ended: with a code, or by a signal (its name), never both; both ``None`` when nobody knows."""

    code: int | None
    signal: str | None = None

    @classmethod
    def of(cls, returncode: int) -> Self:
        """From Python's form, in which a signal is negative."""
        return cls(returncode) if returncode >= 0 else cls(None, signal_name(-returncode))

    @property
    def ok(self) -> bool:
        """Only exit code 0 is success."""
        return self.code == 0

    def __str__(self) -> str:
        if self.signal is not None:
            return f"signal {self.signal}"
        return "an unknown end" if self.code is None else f"exit code {self.code}"


@dataclass(frozen=True)
class Completed:
    """What a preparation step came to; ``output`` is the newest of its output, stdout and stderr as they came."""

    exit: Exit
    output: str


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return f"SIG{number}"


async def start(command: Command, *, tag: str, waiting: bool = False) -> Process:
    """Start ``command``, stdin null, tagged. Raises an ``AgentError`` that says why it cannot be started.

    ``waiting``: its stdin is a pipe, and it does nothing until something comes there (``Process.hand_over``).
    """
    process = Process(await _spawned(command, tag, subprocess.PIPE if waiting else subprocess.DEVNULL), tag)
    try:
        await process.connect()
    except BaseException:
        process.kill()
        process.close()
        raise
    return process


async def run(
    command: Command, *, tag: str, on_line: Callable[[str, str], None] | None = None, timeout_s: float
) -> Completed:
    """Run a preparation step to its end; ``on_line(stream, line)`` sees its output as it comes.

    Raises ``TimedOut`` after ``timeout_s``. However it ends, also when the caller is cancelled, nothing that it
    started is left.
    """
    process = await start(command, tag=tag)
    tail = _Tail(on_line)
    try:
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as tasks:
            pumps = [
                tasks.create_task(tail.pump("stdout", process.stdout)),
                tasks.create_task(tail.pump("stderr", process.stderr)),
            ]
            exit_ = await process.wait()
            await process.drained(pumps)
    except TimeoutError as error:
        raise TimedOut(f"{command.program} was stopped: it had not ended after {timeout_s:g} s.") from error
    finally:
        await process.end()
        process.close()
    return Completed(exit_, tail.text)


class Process:
    """A running child; made by ``start``.

    ``stdout`` and ``stderr`` are to be read: a child whose output is not read has to wait. ``cpu_s`` and
    ``peak_memory_bytes`` are what the system accounted for it and the children it waited for, once it has ended. A
    child starts as a copy of its parent: where ``peak_is_exact`` is false, the peak was ours, and its own is less.
    """

    def __init__(self, popen: subprocess.Popen[bytes], tag: str) -> None:
        loop = asyncio.get_running_loop()
        self.pid = popen.pid
        self.tag = tag
        self.stdout = asyncio.StreamReader(limit=READ_LIMIT)
        self.stderr = asyncio.StreamReader(limit=READ_LIMIT)
        self.cpu_s: float | None = None
        self.peak_memory_bytes: int | None = None
        self.peak_is_exact = False
        self._popen = popen
        self._own_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._known: set[psutil.Process] = set()
        self._all_gone = False
        self._transports: list[asyncio.ReadTransport] = []
        self._exit: asyncio.Future[Exit] = loop.create_future()
        self._descriptor: int | None = None
        self.started = psutil.Process(self.pid).create_time()  # it cannot be gone: nobody has waited for it yet
        self._watch(loop)

    async def connect(self) -> None:
        """Connect the pipes to the readers (called by ``start``)."""
        loop = asyncio.get_running_loop()
        for reader, pipe in ((self.stdout, self._popen.stdout), (self.stderr, self._popen.stderr)):
            _widen(pipe)
            transport, _ = await loop.connect_read_pipe(functools.partial(asyncio.StreamReaderProtocol, reader), pipe)
            self._transports.append(transport)

    def hand_over(self, tag: str, message: bytes) -> bool:
        """Have one that was started waiting belong to ``tag`` from now on, and tell it what to do; whether it was told.

        One that was not is of no use any more. ``message`` has to fit into a pipe (64 KiB).
        """
        pipe = self._popen.stdin
        if pipe is None or self.exit is not None or not marks.put(self.pid, tag):
            return False
        self.tag = tag
        try:
            with pipe:
                return pipe.write(message) == len(message)
        except OSError:
            return False

    @property
    def exit(self) -> Exit | None:
        """How it ended; ``None`` while it runs."""
        return self._exit.result() if self._exit.done() else None

    async def wait(self) -> Exit:
        """Wait for the end of the child itself; its children may still run."""
        return await asyncio.shield(self._exit)

    async def drained(self, pumps: list[asyncio.Task[None]]) -> bool:
        """After the end: let ``pumps`` read what is left in the pipes, but not wait for ever; whether they are done.

        A grandchild may keep a pipe open: after ``DRAIN_S`` without an end the pumps are cancelled.
        """
        _, reading = await asyncio.wait(pumps, timeout=DRAIN_S)
        for pump in reading:
            pump.cancel()
        if reading:
            await asyncio.wait(reading)
        return not reading

    def usage(self) -> tree.Usage:
        """What the child and its descendants use now. Blocks some milliseconds: for a thread."""
        seen = {process for process in self._known | tree.family(self.pid, self.tag) if process.is_running()}
        self._known = seen
        return tree.usage(seen)

    def pids(self) -> list[int]:
        """The child and its descendants. Blocks some milliseconds: for a thread."""
        return [process.pid for process in tree.family(self.pid, self.tag)]

    async def stop(self, *, grace_s: float) -> None:
        """End it and all it started: SIGTERM to the group, up to ``grace_s`` seconds, SIGKILL to what is left.

        Whoever left the group gets a SIGTERM of its own when the group is gone. Does no harm when all is ended.
        """
        try:
            found = await self._remember()
            if self.exit is not None and not found and await asyncio.to_thread(tree.is_quiet, {self.tag}):
                self._all_gone = True
            elif grace_s > 0:
                await self._terminate(found, grace_s)
        finally:
            self.kill()
        await self.end()

    async def _terminate(self, found: set[psutil.Process], grace_s: float) -> None:
        self._signal_group(signal.SIGTERM)
        if self.exit is not None:  # then nobody can be told by the group's id any more
            await asyncio.to_thread(tree.send, filter(self._in_group, found), signal.SIGTERM)
        await self._gone(grace_s, self._in_group)
        if left := await self._remember():
            await asyncio.to_thread(tree.send, left, signal.SIGTERM)
            await self._gone(min(grace_s, LAST_GRACE_S), lambda _: True)

    async def end(self) -> None:
        """SIGKILL what is left of the tree, also of one whose leader has ended; it is all gone when this returns."""
        if self._all_gone:
            return
        try:
            if self.exit is None:
                await self._remember()  # an orphan that emptied its environment could not be told any more
            self._signal_group(signal.SIGKILL)
            await asyncio.to_thread(tree.kill, self._members, tags={self.tag})
            await self.wait()
            self._all_gone = True
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the group, at once: the last resort of one who cannot wait."""
        self._signal_group(signal.SIGKILL)

    def close(self) -> None:
        """Let go of the pipes; what was not read is lost."""
        for transport in self._transports:
            transport.close()
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        for pipe in (self._popen.stdout, self._popen.stderr)[len(self._transports) :]:  # never connected
            if pipe is not None:
                pipe.close()

    def _members(self) -> tree.Tree:
        return tree.members(self.tag, self.pid, self.started, self._known)

    async def _remember(self) -> set[psutil.Process]:
        self._known = (await asyncio.to_thread(self._members)).processes
        return self._known

    def _in_group(self, process: psutil.Process) -> bool:
        try:
            return os.getpgid(process.pid) == self.pid
        except OSError:
            return False

    async def _gone(self, timeout_s: float, whoever: Callable[[psutil.Process], bool]) -> None:
        """Wait until the child has ended and no member for whom ``whoever`` holds is left, at most ``timeout_s``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.wait()
                pause_s = 0.01
                while any(whoever(process) for process in await self._remember()):
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 1.5, 0.25)

    def _signal_group(self, number: int) -> None:
        """Only while the child was not waited for, dead or alive: until then nobody else can have its group's id."""
        if not self._exit.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or an old one
            threading.Thread(target=self._wait_in_thread, args=(loop,), daemon=True).start()
        else:
            loop.add_reader(self._descriptor, self._reap, loop)

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        ended = _waited(self.pid, os.WNOHANG)
        if ended is not None and self._descriptor is not None:
            loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            self._ended(*ended)

    def _wait_in_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        ended = _waited(self.pid, 0)
        if ended is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
                loop.call_soon_threadsafe(self._ended, *ended)

    def _ended(self, exit_: Exit, used: resource.struct_rusage | None) -> None:
        self._popen.returncode = -1 if exit_.code is None else exit_.code  # it was waited for, Popen must not
        if used is not None:
            self.cpu_s = used.ru_utime + used.ru_stime
            self.peak_is_exact = used.ru_maxrss > self._own_peak
            self.peak_memory_bytes = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if not self._exit.done():
            self._exit.set_result(exit_)


def _widen(pipe: IO[bytes] | None) -> None:
    """Have the kernel buffer more of a pipe: 64 KiB are full within a millisecond."""
    if pipe is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # the user's share of buffers is used up
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _waited(pid: int, options: int) -> tuple[Exit, resource.struct_rusage | None] | None:
    """How the child ended and what it used; ``None`` when it has not ended."""
    try:
        found, status, used = os.wait4(pid, options)
    except ChildProcessError:  # somebody else has waited for it: its exit status is lost, which is no success
        return Exit(None), None
    return (Exit.of(os.waitstatus_to_exitcode(status)), used) if found else None


async def _spawned(command: Command, tag: str, stdin: int) -> subprocess.Popen[bytes]:
    """Start it; a program that was just written may be open in a child that another thread starts in this moment."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + BUSY_S
    while True:
        try:
            return _spawn(command, tag, stdin)
        except (OSError, ValueError) as error:
            is_busy = isinstance(error, OSError) and error.errno == errno.ETXTBSY
            if not is_busy or loop.time() > deadline:
                raise explained(command, error) from error
        await asyncio.sleep(BUSY_PAUSE_S)


def _spawn(command: Command, tag: str, stdin: int) -> subprocess.Popen[bytes]:
    if not command.argv:
        raise InvalidInput("Nothing can be started: the command is empty.")
    with marks.given(tag):
        return subprocess.Popen(
            command.argv,
            cwd=command.cwd,
            env={**command.env, TAG: tag},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )


def explained(command: Command, error: Exception) -> AgentError:
    """Why ``command`` could not be started, as a sentence."""
    program = command.program
    if not isinstance(error, OSError):
        return InvalidInput(f"{program} cannot be started: its command or environment has an unusable word ({error}).")
    if not os.access(command.cwd, os.X_OK) or not command.cwd.is_dir():
        return NotFound(f"{program} cannot be started: its working folder {command.cwd} cannot be entered.")
    if error.errno == errno.ENOENT and (command.cwd / program).is_file():
        return Failed(f"{program} cannot be started: the interpreter named in its first line does not exist.")
    kind, sentence = _SENTENCES.get(error.errno or 0, (Failed, "{program} cannot be started ({error.strerror})."))
    return kind(sentence.format(program=program, error=error))


_SENTENCES: dict[int, tuple[type[AgentError], str]] = {
    errno.ENOENT: (NotFound, "The program {program} was not found: install it, or check the PATH."),
    errno.ENOTDIR: (NotFound, "The program {program} was not found: a part of its path is not a folder."),
    errno.EACCES: (Failed, "{program} cannot be started: it is not executable (chmod +x would make it so)."),
    errno.EPERM: (Failed, "{program} cannot be started: the system does not permit it."),
    errno.ENOEXEC: (Failed, "{program} cannot be started: it is no program for this system (a first line #!...?)."),
    errno.ETXTBSY: (Unavailable, "{program} cannot be started now: something has it open for writing."),
    errno.E2BIG: (Failed, "{program} cannot be started: its arguments and environment are too long for the system."),
    errno.EAGAIN: (Unavailable, "{program} cannot be started now: the limit on the number of processes is reached."),
    errno.ENOMEM: (Unavailable, "{program} cannot be started now: there is not enough memory."),
    errno.EMFILE: (Unavailable, "{program} cannot be started now: too many files are open."),
    errno.ENFILE: (Unavailable, "{program} cannot be started now: too many files are open on this system."),
}


class _Tail:
    """Splits two streams into lines, hands them on and keeps the newest."""

    def __init__(self, on_line: Callable[[str, str], None] | None) -> None:
        self._on_line = on_line
        self._text = ""

    @property
    def text(self) -> str:
        return self._text[-TAIL:]

    async def pump(self, name: str, reader: asyncio.StreamReader) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        try:
            while data := await reader.read(READ_LIMIT):
                *lines, rest = (rest + decoder.decode(data)).split("\n")
                if len(rest) > LONGEST_LINE:
                    lines, rest = [*lines, rest], ""
                self._take(name, lines)
        finally:
            rest += decoder.decode(b"", final=True)
            self._take(name, [rest] if rest else [])

    def _take(self, name: str, lines: list[str]) -> None:
        if len(self._text) > 2 * TAIL:
            self._text = self.text
        self._text += "".join(f"{line}\n" for line in lines)
        if self._on_line is not None:
            for line in lines:
                self._on_line(name, line.rstrip("\r"))
