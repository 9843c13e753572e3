"""The store: collections of documents in one SQLite file, with history and what changed.

It knows tables, ids and unique fields, and refuses to know rights and rules: those are `operations`'. Passwords
stand in a table of their own, so that no query of documents, however it is written, can return one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from jupyter_agent.database import Database
from jupyter_agent.errors import Conflict
from jupyter_agent.hub.data import due
from jupyter_agent.hub.data.documents import Date, restored, stored
from jupyter_agent.hub.data.filters import Filter
from jupyter_agent.hub.data.sql import key

T = TypeVar("T")
Document = dict[str, Any]
Operation = Literal["insert", "replace", "update", "delete"]

WITHOUT_HISTORY = frozenset({
    "audit", "oauthtokens", "openrpa_instances", "workflow_instances", "workitems", "mailhist", "fs.files",
})  # fmt: skip

UNIQUE = {
    "agents": ("slug", "json_extract(doc, '$.slug')", "json_extract(doc, '$._type') = 'agent'"),
    "users": ("username", "lower(json_extract(doc, '$.username'))", "json_extract(doc, '$._type') = 'user'"),
}
"""By collection: a field, the SQL of what must be unique, and of where."""


@dataclass(frozen=True)
class Change:
    """What happened to a document: ``document`` is what it is now, or what it last was."""

    operation: Operation
    collection: str
    document: Document


def create(connection: sqlite3.Connection) -> None:
    """The tables of version 1."""
    connection.execute("CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    connection.execute("CREATE TABLE passwords (id TEXT PRIMARY KEY, hash TEXT NOT NULL) WITHOUT ROWID")
    connection.execute("CREATE TABLE collections (n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)")
    connection.execute(
        "CREATE TABLE history (n INTEGER PRIMARY KEY, collection INTEGER NOT NULL REFERENCES collections,"
        " id TEXT NOT NULL, version INTEGER NOT NULL, at INTEGER NOT NULL, doc TEXT NOT NULL)"
    )
    connection.execute("CREATE INDEX history_of ON history (collection, id, version)")


MIGRATIONS = (create,)


class Documents:
    """The store as one job sees it; ``changes`` is what the job did so far."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.changes: list[Change] = []

    def get(self, collection: str, id: str) -> Document | None:  # noqa: A002 - what OpenFlow calls it
        """One document, ``None`` when there is none with this id."""
        if (number := self._number(collection)) is None:
            return None
        row = self._connection.execute(f"SELECT doc FROM c{number} WHERE id = ?", (id,)).fetchone()  # noqa: S608 - n
        return restored(row[0]) if row else None

    def find(self, collection: str, wanted: Filter) -> Iterator[Document]:
        """The documents that match, in no certain order. Exhaust it before anything is written."""
        if (number := self._number(collection)) is None:
            return
        where = f" WHERE {wanted.where}" if wanted.where else ""
        rows = self._connection.execute(f"SELECT doc FROM c{number}{where}", wanted.parameters)  # noqa: S608
        for (text,) in rows:
            document = restored(text)
            if wanted.matches(document):
                yield document

    def next_due(self, queue: str, now: Date) -> Document | None:
        """The work item of this queue that is to be given out now, ``None`` when none is due."""
        number = self._number(due.COLLECTION)
        text = due.next_due(self._connection, number, queue, now) if number is not None else None
        return restored(text) if text is not None else None

    def insert(self, collection: str, document: Document) -> None:
        """Raises `Conflict` (E11000) when the id, or a field that must be unique, is there already."""
        number = self._number(collection) or self._create(collection)
        with _duplicates(collection):
            self._connection.execute(
                f"INSERT INTO c{number} (id, doc) VALUES (?, ?)",  # noqa: S608 - a number of ours
                (document["_id"], stored(document)),
            )
        self.changes.append(Change("insert", collection, document))

    def replace(self, collection: str, old: Document, new: Document, operation: Operation = "replace") -> None:
        """Put ``new`` in the place of ``old``. A replacement (not an update) keeps the old one in the history.

        Raises `Conflict` (E11000) when a field that must be unique is there already.
        """
        number = self._number(collection)
        with _duplicates(collection):
            self._connection.execute(
                f"UPDATE c{number} SET doc = ? WHERE id = ?",  # noqa: S608 - a number of ours
                (stored(new), old["_id"]),
            )
        if operation == "replace":
            self._keep(number, collection, old)
        self.changes.append(Change(operation, collection, new))

    def delete(self, collection: str, document: Document) -> None:
        """Remove a document; the history keeps it."""
        number = self._number(collection)
        self._connection.execute(f"DELETE FROM c{number} WHERE id = ?", (document["_id"],))  # noqa: S608
        self._keep(number, collection, document)
        self.changes.append(Change("delete", collection, document))

    def password(self, user: str) -> str | None:
        """The hash of a user's password."""
        row = self._connection.execute("SELECT hash FROM passwords WHERE id = ?", (user,)).fetchone()
        return str(row[0]) if row else None

    def set_password(self, user: str, hashed: str | None) -> None:
        """Set it, or with ``None`` remove it."""
        if hashed is None:
            self._connection.execute("DELETE FROM passwords WHERE id = ?", (user,))
        else:
            self._connection.execute("INSERT OR REPLACE INTO passwords VALUES (?, ?)", (user, hashed))

    def setting(self, name: str, default: Callable[[], str]) -> str:
        """A setting of the store; where it is not set, set to ``default()``."""
        self._connection.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, default()))
        return str(self._connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()[0])

    def _number(self, collection: str) -> int | None:
        row = self._connection.execute("SELECT n FROM collections WHERE name = ?", (collection,)).fetchone()
        return int(row[0]) if row else None

    def _create(self, collection: str) -> int:
        number = self._connection.execute("INSERT INTO collections (name) VALUES (?)", (collection,)).lastrowid
        self._connection.execute(f"CREATE TABLE c{number} (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, doc TEXT)")
        self._connection.execute(f"CREATE INDEX c{number}_type ON c{number} ({key('_type')})")
        if collection == due.COLLECTION:
            due.create_index(self._connection, int(number or 0))
        if collection in UNIQUE:
            field, expression, where = UNIQUE[collection]
            self._connection.execute(f"CREATE UNIQUE INDEX c{number}_{field} ON c{number} ({expression}) WHERE {where}")
        return int(number or 0)

    def _keep(self, number: int | None, collection: str, document: Document) -> None:
        if collection not in WITHOUT_HISTORY:
            self._connection.execute(
                "INSERT INTO history (collection, id, version, at, doc) VALUES (?, ?, ?, ?, ?)",
                (number, document["_id"], document.get("_version", 0), Date.now().ms, stored(document)),
            )


@contextmanager
def _duplicates(collection: str) -> Iterator[None]:
    """Turns SQLite's error about a unique index into MongoDB's."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        field = UNIQUE[collection][0] if "index" in str(error) else "_id"
        raise Conflict(f"E11000 duplicate key error: {collection} has a document with this {field} already.") from error


class Store:
    """The store of a hub; use it with ``async with``. The database's errors are raised as they are."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, MIGRATIONS)
        self._followers: list[Callable[[list[Change]], None]] = []

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._database.__aexit__(kind, error, trace)

    def follow(self, follower: Callable[[list[Change]], None]) -> None:
        """Call ``follower`` in the event loop with what each job changed, after its commit and in that order."""
        self._followers.append(follower)

    async def read(self, job: Callable[[Documents], T]) -> T:
        """Run ``job``, which must not write, in a thread on one consistent state."""
        return await self._database.read(lambda connection: job(Documents(connection)))

    async def write(self, job: Callable[[Documents], T]) -> T:
        """Run ``job`` in the writer's thread; all that it did is on disk when this returns, or nothing is."""

        def run(connection: sqlite3.Connection) -> tuple[T, list[Change]]:
            documents = Documents(connection)
            return job(documents), documents.changes

        value, _ = await self._database.write(run, then=self._tell)
        return value

    def _tell(self, done: tuple[Any, list[Change]]) -> None:
        _, changes = done
        if changes:
            for follower in self._followers:
                follower(changes)
