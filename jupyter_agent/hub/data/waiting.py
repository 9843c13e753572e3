"""What stands on disk of queues: their names, whose document each is by, and the messages that wait for a consumer.

These tables are no collections: no query of documents reaches them. All functions run inside a job of the store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """A message: ``data`` is what the receiver gets, ``returned`` what the sender gets back when nobody takes it.

    ``expires_ms`` counts since 1970: it goes on while the hub is down.
    """

    queue: str
    data: str
    expires_ms: int
    returned: str = ""
    reply_to: str = ""
    correlation_id: str = ""

    @property
    def size(self) -> int:
        """Characters that it takes."""
        return len(self.data) + len(self.returned)


@dataclass(frozen=True)
class Entry:
    """What is kept in memory of a message that waits."""

    number: int
    queue: str
    expires_ms: int
    size: int


def create(connection: sqlite3.Connection) -> None:
    """The tables; numbers of messages are never used twice."""
    connection.execute(
        "CREATE TABLE queues (name TEXT PRIMARY KEY, document TEXT NOT NULL, claimed_by TEXT NOT NULL) WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX queues_claimed ON queues (claimed_by)")
    connection.execute(
        # The short ones first: what stands behind long texts is slow to reach.
        "CREATE TABLE waiting (n INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, expires INTEGER NOT NULL,"
        " size INTEGER NOT NULL, reply_to TEXT NOT NULL, correlation TEXT NOT NULL, data TEXT NOT NULL,"
        " returned TEXT NOT NULL)"
    )
    connection.execute("CREATE INDEX waiting_in ON waiting (queue)")


def names(connection: sqlite3.Connection) -> list[str]:
    """The queues that were ever registered and not forgotten."""
    return [name for (name,) in connection.execute("SELECT name FROM queues")]


def document_of(connection: sqlite3.Connection, queue: str) -> str | None:
    """The id of the document in ``mq`` that a queue was registered with, empty without one; ``None``: no such queue."""
    row = connection.execute("SELECT document FROM queues WHERE name = ?", (queue,)).fetchone()
    return str(row[0]) if row else None


def claims(connection: sqlite3.Connection, user: str) -> int:
    """How many queues a user has claimed."""
    return int(connection.execute("SELECT count(*) FROM queues WHERE claimed_by = ?", (user,)).fetchone()[0])


def declare(connection: sqlite3.Connection, queue: str, document: str, user: str) -> None:
    """From now on the queue exists; ``user`` claimed it, empty for nobody."""
    connection.execute("INSERT OR REPLACE INTO queues VALUES (?, ?, ?)", (queue, document, user))


def forget(connection: sqlite3.Connection, queue: str) -> None:
    """The queue is no more, nor what waits in it."""
    connection.execute("DELETE FROM queues WHERE name = ?", (queue,))
    empty(connection, queue)


def empty(connection: sqlite3.Connection, queue: str) -> None:
    """Drop what waits in a queue."""
    connection.execute("DELETE FROM waiting WHERE queue = ?", (queue,))


def keep(connection: sqlite3.Connection, message: Message, number: int | None = None) -> Entry:
    """Let a message wait; with ``number`` in the place that it had before."""
    done = connection.execute(
        "INSERT INTO waiting (n, queue, data, expires, returned, reply_to, correlation, size)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            message.queue,
            message.data,
            message.expires_ms,
            message.returned,
            message.reply_to,
            message.correlation_id,
            message.size,
        ),
    )
    return Entry(int(done.lastrowid or 0), message.queue, message.expires_ms, message.size)


def take(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[tuple[int, Message]]:
    """Remove messages, and give them to be delivered, in the order in which they came."""
    taken = []
    for number in numbers:
        row = connection.execute(
            "SELECT queue, data, expires, returned, reply_to, correlation FROM waiting WHERE n = ?", (number,)
        ).fetchone()
        if row is not None:
            connection.execute("DELETE FROM waiting WHERE n = ?", (number,))
            taken.append((number, Message(*row)))
    return taken


def entries(connection: sqlite3.Connection) -> list[Entry]:
    """All that waits, in the order in which it came; what waits in a queue that is gone is dropped."""
    connection.execute("DELETE FROM waiting WHERE queue NOT IN (SELECT name FROM queues)")
    rows = connection.execute("SELECT n, queue, expires, size FROM waiting ORDER BY n")
    return [Entry(*row) for row in rows]
