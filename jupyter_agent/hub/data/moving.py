"""A store as a whole: reading all of it as it was at one moment, and what an import needs of its tables.

It knows tables and texts, and refuses to know what an export looks like.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from jupyter_agent.database import PRAGMAS
from jupyter_agent.errors import Conflict, NewerVersion, Unavailable
from jupyter_agent.hub.data import tables
from jupyter_agent.hub.data.documents import DOT, restored, wire
from jupyter_agent.hub.data.indexes import Index, index_of
from jupyter_agent.hub.data.store import MIGRATIONS, Documents

BUSY_S = 30


@dataclass(frozen=True)
class Stored:
    """A collection: its name, and the indexes that were asked for as ``getindexes`` shows them."""

    name: str
    indexes: tuple[dict[str, Any], ...]


class Snapshot:
    """A store as it was when this was made, whatever is written meanwhile."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def collections(self) -> list[Stored]:
        """All collections, histories too, in the order of their names."""
        names = [name for (name,) in self._connection.execute("SELECT name FROM collections ORDER BY name")]
        shapes = [tables.shape(self._connection, name) for name in names]
        return [Stored(each.name, tuple(index.shown() for index in each.own)) for each in shapes if each is not None]

    def lines(self, collection: str) -> Iterator[str]:
        """The documents of a collection as clients see them, each a line of JSON, the oldest first."""
        for (text,) in self._rows(collection, "doc"):
            yield wire(restored(text)) if '"$date"' in text or DOT in text else text

    def ids(self, collection: str) -> Iterator[str]:
        """The ids in a collection, the oldest document first."""
        for (id_,) in self._rows(collection, "id"):
            yield id_

    def passwords(self) -> Iterator[tuple[str, str]]:
        """Users' ids and the hashes of their passwords."""
        yield from self._connection.execute("SELECT id, hash FROM passwords ORDER BY id")

    def _rows(self, collection: str, column: str) -> Iterator[tuple[Any, ...]]:
        if (known := tables.shape(self._connection, collection)) is not None:
            yield from self._connection.execute(f"SELECT {column} FROM {known.table} ORDER BY n")  # noqa: S608 - ours


@contextmanager
def snapshot(path: Path) -> Iterator[Snapshot]:
    """The store in this file, also while another process writes it. Raises `Unavailable`."""
    with _connected(path, "PRAGMA query_only = ON") as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM collections").fetchone()  # from here on it stands still
        yield Snapshot(connection)


class Filling:
    """A store that this process alone writes, in one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._connection.execute("CREATE TEMP TABLE seen (collection TEXT, id TEXT, PRIMARY KEY (collection, id))")
        self.documents = Documents(connection)

    def is_new(self, collection: str, id_: str) -> bool:
        """Whether this is asked for the first time; it is remembered on the disk."""
        seen = self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (collection, id_))
        return seen.rowcount == 1

    def insert(self, collection: str, document: dict[str, Any]) -> None:
        """Raises `Conflict` when the id, or a field that must be unique, is there already."""
        self.documents.insert(collection, document)
        self.documents.changes.clear()  # nobody follows them, and there may be millions

    def replace(self, collection: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        """Put ``new`` in the place of ``old``; neither goes into the history. Raises `Conflict` as `insert`."""
        self.documents.replace(collection, old, new, "update")
        self.documents.changes.clear()

    def counts(self) -> dict[str, int]:
        """How many documents there are in each collection."""
        names = [name for (name,) in self._connection.execute("SELECT name FROM collections").fetchall()]
        shapes = [tables.shape(self._connection, name) for name in names]
        count = "SELECT count(*) FROM "
        return {
            each.name: int(self._connection.execute(count + each.table).fetchone()[0])
            for each in shapes if each is not None
        }  # fmt: skip

    def empty(self, collection: str) -> None:
        """Remove all documents of a collection, with no trace."""
        if (known := tables.shape(self._connection, collection)) is not None:
            self._connection.execute(f"DELETE FROM {known.table}")  # noqa: S608 - a name of ours
        if collection == "users":
            self._connection.execute("DELETE FROM passwords")

    def add_indexes(self, collection: str, wanted: Iterable[dict[str, Any]]) -> None:
        """Make these indexes besides those there are. Raises `Conflict` where documents do not agree with one."""
        known = tables.shape(self._connection, collection) or tables.make(self._connection, collection)
        own: dict[str, Index] = {index.name: index for index in known.own}
        for each in wanted:
            index = index_of(each.get("key"), {k: v for k, v in each.items() if k not in ("v", "key")}, "")
            own.setdefault(index.name, index)
        try:
            tables.set_indexes(self._connection, known, own.values())
        except sqlite3.IntegrityError as error:
            raise Conflict(f"A unique index of {collection} does not agree with its documents.") from error


@contextmanager
def filling(path: Path) -> Iterator[Filling]:
    """Fill the store in this file: all that is done is kept, or where it raises nothing. Raises `Unavailable`."""
    with _connected(path, *PRAGMAS) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield Filling(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise


@contextmanager
def _connected(path: Path, *pragmas: str) -> Iterator[sqlite3.Connection]:
    try:
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            _check_version(connection, path)
            for pragma in pragmas:
                connection.execute(pragma)
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise Unavailable(
            f"{path} cannot be used ({error}): look whether the disk is full. Nothing was changed."
        ) from error


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise NewerVersion(f"{path} was written by a newer version of jupyter_agent: upgrade jupyter_agent.")
    if version < len(MIGRATIONS):
        raise Conflict(f"{path} is in use by a hub of an older version of jupyter_agent: stop that hub, and try again.")


def renamed(value: Any, names: Callable[[str], str]) -> Any:
    """A value with every text in it replaced by what ``names`` says."""
    if isinstance(value, str):
        return names(value)
    if isinstance(value, dict):
        return {key: renamed(item, names) for key, item in value.items()}
    return [renamed(item, names) for item in value] if isinstance(value, list) else value


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two documents are the same, the order of their fields apart."""
    return _sorted(one) == _sorted(other)


def _sorted(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, default=repr, option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS)
