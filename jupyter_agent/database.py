"""SQLite for the agent's state and for the hub: one writer thread with group commit, a few readers.

It knows transactions, versions and what a full disk means. It refuses to know any table: those are its users'
migrations and jobs. A job is a plain function of a connection; it runs in a thread, so it touches nothing of the event
loop.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from jupyter_agent.errors import NewerVersion, Unavailable

T = TypeVar("T")
Migration = Callable[[sqlite3.Connection], None]

DELIVER_S = 0.005
"""How long a value that was read may wait for those that are read next: each waking of the event loop costs both."""

GROUP = 200
"""The most jobs in one commit: enough to share one fsync, few enough to answer soon."""

BUSY_S = 10
"""How long a statement waits for a lock of another process (a backup, a curious ``sqlite3`` shell)."""

PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # in WAL mode anything less may lose the last commits when the power fails
    "PRAGMA fullfsync = ON",  # macOS: its plain fsync stops at the drive's cache
    "PRAGMA foreign_keys = ON",
    "PRAGMA journal_size_limit = 67108864",
)


@dataclass(frozen=True)
class _Job:
    run: Callable[[sqlite3.Connection], Any]
    then: Callable[[Any], None] | None
    waiter: asyncio.Future[Any]


@dataclass(frozen=True)
class _Outcome:
    job: _Job
    value: Any = None
    error: BaseException | None = None

    def deliver(self) -> None:
        """In the event loop: tell the one who waits, if there still is one."""
        if self.error is None and self.job.then is not None:
            self.job.then(self.value)
        if self.job.waiter.done():  # cancelled: what was done stays done
            return
        if self.error is None:
            self.job.waiter.set_result(self.value)
        elif isinstance(self.error, StopIteration):  # which no future takes
            self.job.waiter.set_exception(RuntimeError("a job ended an iterator that is not its own"))
        else:
            self.job.waiter.set_exception(self.error)


class Database:
    """A SQLite file that this process alone writes; use it with ``async with``.

    ``migrations[n]`` brings a file from version n to n+1, each in a transaction of its own: it must use
    ``execute`` only (``executescript`` would commit). Entering raises ``NewerVersion`` for a file of a newer version
    and ``Unavailable`` where the file cannot be opened.
    """

    def __init__(self, path: Path, migrations: Sequence[Migration], *, readers: int = 4) -> None:
        self.path = path
        self._migrations = migrations
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._reads: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._read: deque[_Outcome] = deque()
        self._reading = 0
        self._tick: asyncio.TimerHandle | None = None
        self._reader_count = readers
        self._readers: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        connection = await asyncio.to_thread(self._prepare)
        self._writer = threading.Thread(target=self._work, args=(connection,), name=f"{self.path.name}-writer")
        self._writer.start()
        self._loop = asyncio.get_running_loop()
        for number in range(self._reader_count):
            name = f"{self.path.name}-reader-{number}"
            self._readers.append(threading.Thread(target=self._serve_reads, args=(self._loop,), name=name))
            self._readers[-1].start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            # Shielded: what is cancelled before a thread has taken it is never done, and our threads would never end.
            await asyncio.shield(loop.run_in_executor(None, self._end))
            self._tell_read()  # what was read last: nothing wakes the loop for it any more

    async def write(self, job: Callable[[sqlite3.Connection], T], *, then: Callable[[T], None] | None = None) -> T:
        """Run ``job`` in the writer thread and return its value once it is on disk.

        Concurrent jobs share a commit, each in a savepoint: an exception of a job undoes that job alone and is raised
        here. Writes complete in the order of their commits. ``then`` is called in the event loop with the value after
        the commit, in the same order, also when the caller was cancelled meanwhile (which undoes nothing).
        Raises ``Unavailable`` when the file cannot be written (a full disk); nothing was changed then.
        """
        if self._loop is None:
            raise Unavailable(f"{self.path} is closed.")
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(job, then, waiter))
        return await waiter

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``job`` in a reader thread on one consistent state; it sees every write that has returned."""
        if self._loop is None:
            raise Unavailable(f"{self.path} is closed.")
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._reading += 1
        self._reads.put(_Job(job, None, waiter))
        self._wait_for_reads(self._loop)
        return await waiter

    def _prepare(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self.path.chmod(0o600)  # SQLite gives its -wal and -shm files the same mode
        except OSError as error:
            raise Unavailable(f"{self.path} cannot be opened for writing ({error.strerror}).") from error
        connection = self._connect()
        try:
            version = self._version(connection)  # before anything is written
            self._set_up(connection)
            self._migrate(connection, version)
        except sqlite3.Error as error:
            connection.close()
            raise self._unavailable(error) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)

    def _set_up(self, connection: sqlite3.Connection) -> None:
        for pragma in PRAGMAS:
            connection.execute(pragma)

    def _version(self, connection: sqlite3.Connection) -> int:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(self._migrations):
            raise NewerVersion(
                f"{self.path} was written by a newer version of jupyter_agent (format {version}, this one knows "
                f"{len(self._migrations)}): upgrade jupyter_agent, or use another home."
            )
        return int(version)

    def _migrate(self, connection: sqlite3.Connection, version: int) -> None:
        for number in range(version, len(self._migrations)):
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._migrations[number](connection)
                connection.execute(f"PRAGMA user_version = {number + 1}")
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    def _serve_reads(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a reader thread. What was read is told when nothing else is to be read, or at the next tick."""
        connection: sqlite3.Connection | None = None
        while (job := self._reads.get()) is not None:
            if not job.waiter.cancelled():
                try:
                    connection = connection or self._connect_to_read()
                    outcome = _Outcome(job, self._run_read(connection, job))
                except sqlite3.Error as error:
                    outcome = _Outcome(job, error=self._translated(error))
                except BaseException as error:  # noqa: BLE001 - whatever a job raises is its caller's
                    outcome = _Outcome(job, error=error)
            else:
                outcome = _Outcome(job)
            self._read.append(outcome)
            if self._reads.empty() and not loop.is_closed():
                loop.call_soon_threadsafe(self._tell_read)
            del job, outcome  # a big value must not stay until the next comes
        if connection is not None:
            connection.close()

    def _connect_to_read(self) -> sqlite3.Connection:
        connection = self._connect()
        self._set_up(connection)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _run_read(self, connection: sqlite3.Connection, job: _Job) -> Any:
        connection.execute("BEGIN")
        try:
            return job.run(connection)
        finally:
            connection.rollback()

    def _wait_for_reads(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look again soon where several are under way: one that takes long must not hold back what was read before."""
        if self._tick is None and self._reading > 1:
            self._tick = loop.call_later(DELIVER_S, self._look_again, loop)

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tick = None
        self._tell_read()
        self._wait_for_reads(loop)

    def _tell_read(self) -> None:
        outcomes = []
        while self._read:
            outcomes.append(self._read.popleft())
        self._reading -= len(outcomes)
        _deliver_all(outcomes)

    def _work(self, connection: sqlite3.Connection) -> None:
        going_on = True
        while going_on:
            batch, going_on = self._take()
            self._deliver(self._commit(connection, batch) if batch else [])
            del batch  # its jobs may hold much, and the next one may be long in coming
        connection.close()  # the last connection to close moves the log into the file: readers were closed before

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for a job and take those that wait behind it; false at the end."""
        job = self._jobs.get()
        batch = []
        while job is not None:
            batch.append(job)
            if len(batch) == GROUP or self._jobs.empty():
                return batch, True
            job = self._jobs.get()
        return batch, False

    def _commit(self, connection: sqlite3.Connection, batch: list[_Job]) -> list[_Outcome]:
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._attempt(connection, job) for job in batch]
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            connection.rollback()
            return [_Outcome(job, error=self._unavailable(error)) for job in batch]
        return outcomes

    def _attempt(self, connection: sqlite3.Connection, job: _Job) -> _Outcome:
        """Run one job in a savepoint. Raises ``sqlite3.Error`` when the error took the whole transaction along."""
        connection.execute("SAVEPOINT job")
        try:
            value = job.run(connection)
        except BaseException as error:  # whatever a job raises is its caller's
            if isinstance(error, sqlite3.Error) and not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            return _Outcome(job, error=self._translated(error) if isinstance(error, sqlite3.Error) else error)
        connection.execute("RELEASE job")
        return _Outcome(job, value)

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        loop = outcomes[0].job.waiter.get_loop() if outcomes else None
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(_deliver_all, outcomes)

    def _translated(self, error: sqlite3.Error) -> BaseException:
        """``Unavailable`` for what the file or the disk did; the error itself for what the job did."""
        return self._unavailable(error) if _code(error) in _OF_THE_FILE else error

    def _unavailable(self, error: sqlite3.Error) -> Unavailable:
        sentence = _OF_THE_FILE.get(_code(error), "{path} cannot be used ({error}).")
        translated = Unavailable(sentence.format(path=self.path, folder=self.path.parent, error=error))
        translated.__cause__ = error
        return translated

    def _end(self) -> None:
        for _ in self._readers:
            self._reads.put(None)
        for reader in self._readers:
            reader.join()
        self._jobs.put(None)
        if self._writer is not None:
            self._writer.join()


def _deliver_all(outcomes: list[_Outcome]) -> None:
    for outcome in outcomes:
        try:
            outcome.deliver()
        except Exception as error:  # noqa: BLE001 - one caller's ``then`` must not keep the others waiting
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a follow-up of a write failed", "exception": error}
            )


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 for errors of Python's module itself."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


_OF_THE_FILE = {
    sqlite3.SQLITE_FULL: "The disk that holds {folder} is full: free some space and try again. Nothing was changed.",
    sqlite3.SQLITE_IOERR: "{path} cannot be written ({error}): the disk may be full or failing. Nothing was changed.",
    sqlite3.SQLITE_READONLY: "{path} is not writable: check its owner, its mode and the disk it is on.",
    sqlite3.SQLITE_PERM: "{path} is not writable: check its owner, its mode and the disk it is on.",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened: check its folder's owner and mode.",
    sqlite3.SQLITE_BUSY: "{path} is locked by another program: close it and try again.",
    sqlite3.SQLITE_LOCKED: "{path} is locked by another program: close it and try again.",
    sqlite3.SQLITE_CORRUPT: "{path} is damaged: restore it from a backup, or move it away to begin anew.",
    sqlite3.SQLITE_NOTADB: "{path} is not a database: restore it from a backup, or move it away to begin anew.",
}
