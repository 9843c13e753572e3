"""The store: collections of documents in one SQLite file, with history and what changed.

It knows documents, ids and unique fields, and refuses to know rights and rules: those are `operations`'. Passwords
stand in a table of their own, so that no query of documents, however it is written, can return one.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import orjson

from jupyter_agent.database import Database
from jupyter_agent.errors import Conflict, InvalidInput, NotFound, Unavailable
from jupyter_agent.hub.data import due, tables, waiting
from jupyter_agent.hub.data.documents import Date, new_id, restored, stored
from jupyter_agent.hub.data.filters import Filter
from jupyter_agent.hub.data.indexes import ID, Index, holds_list, kind_at, sorting
from jupyter_agent.hub.data.results import Order
from jupyter_agent.hub.data.tables import HISTORY, Shape, create, keep_history_in_collections

T = TypeVar("T")
Document = dict[str, Any]
Operation = Literal["insert", "replace", "update", "delete"]

WITHOUT_HISTORY = frozenset({
    "audit", "oauthtokens", "openrpa_instances", "workflow_instances", "workitems", "mailhist", "fs.files",
})  # fmt: skip

FEW = 1000
"""Documents that are sorted rather than read in the order of an index, which may pass many others by."""

MAX_COLLECTIONS = 5000
MAX_INDEXES = 64
"""Of one collection, as in MongoDB."""


@dataclass(frozen=True)
class Change:
    """What happened to a document: ``document`` is what it is now, or what it last was."""

    operation: Operation
    collection: str
    document: Document


MIGRATIONS = (create, keep_history_in_collections, waiting.create)


class Documents:
    """The store as one job sees it; ``changes`` is what the job did so far."""

    def __init__(
        self, connection: sqlite3.Connection, *, within_s: float = math.inf, ending: threading.Event | None = None
    ) -> None:
        """``within_s`` is how long the job may search. What takes longer raises `InvalidInput`.

        When ``ending`` is set, what still searches raises `Unavailable`.
        """
        self._connection = connection
        self._ending = ending or threading.Event()
        self._within_s = within_s
        self._until = time.monotonic() + within_s
        self._shapes: dict[str, Shape | None] = {}
        self._reading: set[sqlite3.Cursor] = set()
        self.changes: list[Change] = []

    def close(self) -> None:
        """End what is still being read, whoever holds it: it would keep its connection in the past."""
        for cursor in list(self._reading):
            self._end(cursor)

    @property
    def connection(self) -> sqlite3.Connection:
        """For the tables that are no collections (`waiting`)."""
        return self._connection

    def get(self, collection: str, id: str) -> Document | None:  # noqa: A002 - what OpenFlow calls it
        """One document, ``None`` when there is none with this id."""
        if (shape := self._shape(collection)) is None:
            return None
        row = self._connection.execute(f"SELECT doc FROM {shape.table} WHERE id = ?", (id,)).fetchone()  # noqa: S608 - ours
        return restored(row[0]) if row else None

    def find(self, collection: str, wanted: Filter, *, holding: str = "") -> Iterator[Document]:
        """The documents that match, in no certain order. Exhaust it before anything is written.

        ``holding`` is a text that those that match hold as a value, somewhere: without an index, looking for that first
        is quicker than taking every document apart.
        """
        if (shape := self._shape(collection)) is None:
            return
        where, parameters = _where(wanted, shape)
        if holding:  # looked at first: the rest takes the JSON apart
            where = f" WHERE instr(doc, ?) AND {where.removeprefix(' WHERE ') or 'true'}"
            parameters.insert(0, orjson.dumps(holding).decode())
        rows = self._read(f"SELECT doc FROM {shape.table}{where}", parameters)  # noqa: S608 - of ours
        try:
            for (text,) in rows:
                self._check_time()
                document = restored(text)
                if wanted.matches(document):
                    yield document
        finally:
            self._end(rows)

    def count(self, collection: str) -> int:
        """How many documents there are."""
        if (shape := self._shape(collection)) is None:
            return 0
        return int(self._connection.execute(f"SELECT count(*) FROM {shape.table}").fetchone()[0])  # noqa: S608 - ours

    def in_order(self, collection: str, wanted: Filter, order: Order) -> Iterator[Document] | None:
        """The documents that match, in an order that SQLite can give; ``None`` where it cannot.

        They are read one by one, so that a page of many costs little more than the page.
        """
        if (shape := self._shape(collection)) is None:
            return iter(())
        if (found := sorting(order, shape.kinds)) is None:
            return None
        where, parameters = _where(wanted, shape)
        source, terms = shape.table, found.terms
        index = next((each for each in shape.indexes if not found.odd and each.has_order(order)), None)
        if index is not None and (not where or self._are_many(f"{shape.table}{where}", parameters)):
            source += f" INDEXED BY {index.finder(shape.table)}"
        elif index is not None:
            terms = f"+{terms}"  # SQLite takes no index for that
        odd = f"({found.odd})" if found.odd else "0"
        first = f"{odd} DESC, " if found.odd else ""
        statement = f"SELECT n, {odd} FROM {source}{where} ORDER BY {first}{terms}"  # noqa: S608 - of ours
        rows = self._read(statement, parameters)
        row = rows.fetchone()
        if row and row[1]:
            self._end(rows)
            return None
        return self._matching(shape, wanted, row, rows)

    def next_due(self, queue: str, now: Date) -> Document | None:
        """The work item of this queue that is to be given out now, ``None`` when none is due."""
        shape = self._shape(due.COLLECTION)
        text = due.next_due(self._connection, shape.number, queue, now) if shape is not None else None
        return restored(text) if text is not None else None

    def insert(self, collection: str, document: Document) -> None:
        """Raises `Conflict` (E11000) when the id, or a field that must be unique, is there already."""
        shape = self._shape(collection) or self._make(collection)
        self._write(shape, document, f"INSERT INTO {shape.table} (doc, id) VALUES (?, ?)", document["_id"])  # noqa: S608
        self.changes.append(Change("insert", collection, document))

    def replace(self, collection: str, old: Document, new: Document, operation: Operation = "replace") -> None:
        """Put ``new`` in the place of ``old``. A replacement (not an update) keeps the old one in the history.

        Raises `Conflict` (E11000) when a field that must be unique is there already.
        """
        shape = self._known(collection)
        self._write(shape, new, f"UPDATE {shape.table} SET doc = ? WHERE id = ?", old["_id"])  # noqa: S608
        if operation == "replace":
            self._keep(collection, old, {})
        self.changes.append(Change(operation, collection, new))

    def delete(self, collection: str, document: Document, **marks: Any) -> None:
        """Remove a document; the history keeps it, with these marks of who did it."""
        table = self._known(collection).table
        self._connection.execute(f"DELETE FROM {table} WHERE id = ?", (document["_id"],))  # noqa: S608
        self._keep(collection, document, marks)
        self.changes.append(Change("delete", collection, document))

    def collections(self) -> list[str]:
        """The names of all collections, histories too."""
        return [name for (name,) in self._connection.execute("SELECT name FROM collections ORDER BY name")]

    def make_collection(self, collection: str) -> None:
        """Make an empty collection. Raises `Conflict` when it is there."""
        if self._shape(collection) is not None:
            raise Conflict(f"The collection {collection} exists already.")
        self._make(collection)

    def drop_collection(self, collection: str) -> None:
        """Remove a collection with all its documents; its history stays. Raises `NotFound`."""
        tables.drop(self._connection, self._known(collection))
        self._shapes.pop(collection)

    def indexes(self, collection: str) -> list[Index]:
        """The indexes of a collection. Raises `NotFound`."""
        return [ID, *self._known(collection).indexes]

    def make_index(self, collection: str, index: Index) -> None:
        """Add an index; the same one again changes nothing. An unknown collection is made.

        Raises `Conflict` when another one has its name or documents do not agree with it, `InvalidInput` for a unique
        one where there are lists.
        """
        shape = self._shape(collection) or self._make(collection)
        same = shape.index(index.name)
        if same is not None and same != index:
            raise Conflict(f"An index {index.name} of {collection} exists already with other fields or options.")
        if same is not None:
            return
        if len(shape.own) >= MAX_INDEXES:
            raise InvalidInput(f"A collection can have {MAX_INDEXES} indexes.")
        if index.unique:
            self._refuse_lists(shape, index)
        try:
            self._shapes[collection] = tables.set_indexes(self._connection, shape, [*shape.own, index])
        except sqlite3.IntegrityError as error:
            raise _duplicate(collection, index) from error

    def drop_index(self, collection: str, name: str) -> None:
        """Remove an index. Raises `NotFound`, and `Conflict` for one that is always there."""
        shape = self._known(collection)
        kept = [each for each in shape.own if each.name != name]
        if name == ID.name or (len(kept) == len(shape.own) and shape.index(name) is not None):
            raise Conflict(f"The index {name} of {collection} is the hub's own and stays.")
        if len(kept) == len(shape.own):
            raise NotFound(f"{collection} has no index {name}.")
        self._shapes[collection] = tables.set_indexes(self._connection, shape, kept)

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

    def _shape(self, collection: str) -> Shape | None:
        if collection not in self._shapes:
            self._shapes[collection] = tables.shape(self._connection, collection)
        return self._shapes[collection]

    def _known(self, collection: str) -> Shape:
        if (shape := self._shape(collection)) is None:
            raise NotFound(f"There is no collection {collection}.")
        return shape

    def _make(self, collection: str) -> Shape:
        (count,) = self._connection.execute("SELECT count(*) FROM collections").fetchone()
        if count >= MAX_COLLECTIONS:
            raise InvalidInput(f"There are {count} collections already: drop some before you make {collection}.")
        shape = self._shapes[collection] = tables.make(self._connection, collection)
        return shape

    def _write(self, shape: Shape, document: Document, sql: str, id: str) -> None:  # noqa: A002
        """Put a document into its table, in all that goes with it."""
        for index in shape.indexes:
            index.check(shape.name, document)
        try:
            self._connection.execute(sql, (stored(document), id))
        except sqlite3.IntegrityError as error:
            raise _duplicate(shape.name, shape.forbidding(error) or ID) from error
        self._note_kinds(shape, document)

    def _note_kinds(self, shape: Shape, document: Document) -> None:
        found = {path: kind_at(document, path) for path in shape.kinds}
        if any(mask & ~shape.kinds[path] for path, mask in found.items()):
            kinds = {path: mask | found[path] for path, mask in shape.kinds.items()}
            tables.set_kinds(self._connection, shape, kinds)
            del self._shapes[shape.name]

    def _keep(self, collection: str, document: Document, marks: Document) -> None:
        """Write what a document was to the history."""
        if collection in WITHOUT_HISTORY or collection.endswith(".files"):
            return
        name = collection + HISTORY
        shape = self._shape(name) or tables.make(self._connection, name)  # however many there are
        self._shapes[name] = shape
        header = {"_id": new_id(), "id": document["_id"], "_version": document.get("_version", 0)}
        header |= {field: document[field] for field in OF_ITEM if field in document}
        header |= {field.replace("modified", "created"): header[field] for field in STAMPS if field in header} | marks
        text = f'{stored(header)[:-1]},"item":{stored(document)}}}'
        self._connection.execute(f"INSERT INTO {shape.table} (id, doc) VALUES (?, ?)", (header["_id"], text))  # noqa: S608
        self._note_kinds(shape, header)

    def _are_many(self, rows: str, parameters: list[Any]) -> bool:
        (count,) = self._connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {rows} LIMIT {FEW})",  # noqa: S608 - of ours
            parameters,
        ).fetchone()
        return bool(count == FEW)

    def _matching(
        self, shape: Shape, wanted: Filter, first: tuple[int, int] | None, rows: sqlite3.Cursor
    ) -> Iterator[Document]:
        one = f"SELECT doc FROM {shape.table} WHERE n = ?"  # noqa: S608 - ours
        row = first
        try:
            while row is not None:
                self._check_time()
                document = restored(self._connection.execute(one, row[:1]).fetchone()[0])
                if wanted.matches(document):
                    yield document
                row = rows.fetchone()
        finally:
            self._end(rows)

    def _check_time(self) -> None:
        if self._ending.is_set():
            raise Unavailable("The hub is about to end: try again in a moment.")
        if time.monotonic() > self._until:
            raise InvalidInput(
                f"This takes longer than {self._within_s:g} s: look for less at a time, or by a field with an index."
            )

    def _read(self, statement: str, parameters: list[Any]) -> sqlite3.Cursor:
        cursor = self._connection.execute(statement, parameters)
        self._reading.add(cursor)
        return cursor

    def _end(self, cursor: sqlite3.Cursor) -> None:
        if cursor in self._reading:
            self._reading.remove(cursor)
            cursor.close()

    def _refuse_lists(self, shape: Shape, index: Index) -> None:
        scope = f" AND {index.scope}" if index.scope else ""
        found = self._connection.execute(
            f"SELECT id FROM {shape.table} WHERE ({holds_list(index)}){scope} LIMIT 1"  # noqa: S608 - ours
        ).fetchone()
        if found:
            fields = " or ".join(index.paths)
            raise InvalidInput(f"{fields} cannot be unique in {shape.name}: the document {found[0]} has a list there.")


OF_ITEM = ("name", "_type", "_acl", "_modified", "_modifiedby", "_modifiedbyid")
STAMPS = ("_modified", "_modifiedby", "_modifiedbyid")
"""What a document of the history has from the document that it keeps."""


def _done(job: Callable[[Documents], T], documents: Documents) -> T:
    try:
        return job(documents)
    finally:
        documents.close()


def _where(wanted: Filter, shape: Shape) -> tuple[str, list[Any]]:
    where, parameters = wanted.condition(shape.scalars)
    return f" WHERE {where}" if where else "", parameters


def _duplicate(collection: str, index: Index) -> Conflict:
    """MongoDB's error about a unique index; it says no value, which may not be the client's to know."""
    field = ", ".join(index.paths)
    return Conflict(f"E11000 duplicate key error: {collection} has a document with this {field} already.")


class Store:
    """The store of a hub; use it with ``async with``. The database's errors are raised as they are."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, MIGRATIONS)
        self._followers: list[Callable[[list[Change]], None]] = []
        self._ending = threading.Event()

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        try:
            await self._database.write(tables.set_all_right)
        except BaseException:
            await self._database.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()  # a long search would keep it open
        await self._database.__aexit__(kind, error, trace)

    def follow(self, follower: Callable[[list[Change]], None]) -> None:
        """Call ``follower`` in the event loop with what each job changed, after its commit and in that order."""
        self._followers.append(follower)

    async def read(self, job: Callable[[Documents], T], *, within_s: float = math.inf) -> T:
        """Run ``job``, which must not write, in a thread on one consistent state; it may search for so long."""
        return await self._database.read(lambda connection: _done(job, self._documents(connection, within_s)))

    async def write(
        self, job: Callable[[Documents], T], *, then: Callable[[T], None] | None = None, within_s: float = math.inf
    ) -> T:
        """Run ``job`` in the writer's thread; all that it did is on disk when this returns, or nothing is.

        ``then`` is called in the event loop with the value after the commit, in the order of commits, also when the
        caller was cancelled meanwhile.
        """

        def run(connection: sqlite3.Connection) -> tuple[T, list[Change]]:
            documents = self._documents(connection, within_s)
            return _done(job, documents), documents.changes

        def tell(done: tuple[T, list[Change]]) -> None:
            self._tell(done)
            if then is not None:
                then(done[0])

        value, _ = await self._database.write(run, then=tell)
        return value

    def _documents(self, connection: sqlite3.Connection, within_s: float) -> Documents:
        return Documents(connection, within_s=within_s, ending=self._ending)

    def _tell(self, done: tuple[Any, list[Change]]) -> None:
        _, changes = done
        if changes:
            for follower in self._followers:
                follower(changes)
