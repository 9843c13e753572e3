"""The store's tables: their versions, and the indexes that stand in SQLite as they should.

It knows names and SQL, and refuses to know documents.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache

import orjson

from jupyter_agent.hub.data import due
from jupyter_agent.hub.data.documents import Date
from jupyter_agent.hub.data.indexes import LIST, Index, kinds_sql
from jupyter_agent.hub.data.results import ASCENDING

LOG = logging.getLogger(__name__)

HISTORY = "_hist"
"""What the name of a collection's history ends with."""

TABLE = "CREATE TABLE IF NOT EXISTS c{number} (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, doc TEXT)"

POOR = "1000000 100000"
"""What SQLite is told of the index on ``_type``: documents in all, and with the same. Any other index is better."""


def _ascending(*paths: str) -> Index:
    return Index("_".join(f"{path}_1" for path in paths), tuple((path, ASCENDING) for path in paths))


TYPE = _ascending("_type")
VERSIONS = _ascending("id", "_version")

BUILT_IN: dict[str, tuple[Index, ...]] = {
    "agents": (
        TYPE,
        Index("slug_1", (("slug", ASCENDING),), unique=True, equal=(("_type", "agent"),)),
        _ascending("fileid"),
    ),
    "users": (
        TYPE,
        Index("username_1", (("username", ASCENDING),), unique=True, equal=(("_type", "user"),), ignores_case=True),
    ),
    "mq": (_ascending("_type", "name"),),
    "workitems": (
        _ascending("wiqid", "state"),
        _ascending("wiq", "state"),
    ),  # and the one of `due`
    "fs.files": tuple(_ascending(path) for path in ("filename", "metadata._type", "metadata.wi", "metadata.wiqid")),
}


def built_in(collection: str) -> tuple[Index, ...]:
    """The indexes that a collection has from its beginning."""
    if collection.endswith(HISTORY):
        return (VERSIONS,)
    return BUILT_IN.get(collection, (TYPE,))


@dataclass(frozen=True)
class Shape:
    """What the store knows of a collection: its table, its indexes, and the kinds of values that these have met."""

    name: str
    number: int
    indexes: tuple[Index, ...]
    kinds: dict[str, int]
    scalars: frozenset[str]
    """The indexed paths where no document has a list."""

    @property
    def table(self) -> str:
        """Its table in SQLite."""
        return f"c{self.number}"

    @property
    def own(self) -> tuple[Index, ...]:
        """The indexes that were asked for."""
        return self.indexes[len(built_in(self.name)) :]

    def index(self, name: str) -> Index | None:
        """The index of this name."""
        return next((each for each in self.indexes if each.name == name), None)

    def forbidding(self, error: sqlite3.IntegrityError) -> Index | None:
        """The unique index that SQLite's error is about, ``None`` when it is the one of ids."""
        return next((each for each in self.indexes if each.unique and f"_{each.tag}_" in str(error)), None)


def shape(connection: sqlite3.Connection, name: str) -> Shape | None:
    """What is known of a collection, ``None`` when there is none."""
    row = connection.execute("SELECT n, indexes, kinds FROM collections WHERE name = ?", (name,)).fetchone()
    return _shape(name, *row) if row else None


@lru_cache(maxsize=1000)
def _shape(name: str, number: int, indexes: str, kinds: str) -> Shape:
    known = orjson.loads(kinds)
    scalars = frozenset(path for path, mask in known.items() if not mask & LIST)
    return Shape(name, number, (*built_in(name), *_restored(indexes)), known, scalars)


def make(connection: sqlite3.Connection, name: str) -> Shape:
    """Make a collection."""
    number = connection.execute("INSERT INTO collections (name) VALUES (?)", (name,)).lastrowid
    connection.execute(TABLE.format(number=number))
    return set_right(connection, name)


def drop(connection: sqlite3.Connection, shape: Shape) -> None:
    """Remove a collection with all that is in it."""
    connection.execute(f"DROP TABLE {shape.table}")
    connection.execute("DELETE FROM sqlite_stat1 WHERE tbl = ?", (shape.table,))
    connection.execute("DELETE FROM collections WHERE name = ?", (shape.name,))


def set_indexes(connection: sqlite3.Connection, shape: Shape, own: Iterable[Index]) -> Shape:
    """Give a collection these indexes besides those that it always has.

    Raises ``sqlite3.IntegrityError`` when documents do not agree with a unique one.
    """
    text = orjson.dumps([asdict(index) for index in own]).decode()
    connection.execute("UPDATE collections SET indexes = ? WHERE name = ?", (text, shape.name))
    return set_right(connection, shape.name)


def set_kinds(connection: sqlite3.Connection, shape: Shape, kinds: dict[str, int]) -> None:
    """Remember the kinds of values that indexed fields may hold."""
    text = orjson.dumps(kinds).decode()
    connection.execute("UPDATE collections SET kinds = ? WHERE name = ?", (text, shape.name))


def set_right(connection: sqlite3.Connection, name: str) -> Shape:
    """Bring a collection's indexes in SQLite to what they should be, whatever version of this program made them."""
    known = shape(connection, name)
    assert known is not None  # noqa: S101 - the callers have just seen it
    wanted = {each: sql for index in known.indexes for each, sql in index.statements(known.table).items()}
    found = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL"
    there = dict(connection.execute(found, (known.table,)).fetchall())
    for each, sql in there.items():
        if wanted.get(each) != sql and not each.endswith("_due"):
            connection.execute(f"DROP INDEX {each}")
    missing = [sql for each, sql in wanted.items() if there.get(each) != sql]
    for sql in sorted(missing, key=lambda sql: sql.startswith("CREATE UNIQUE")):  # those may fail
        connection.execute(sql)
    if name == due.COLLECTION:
        due.create_index(connection, known.number)
    if missing and TYPE in known.indexes:
        _call_poor(connection, known.table, TYPE.finder(known.table))
    kinds = dict(_kinds(connection, known))
    if kinds != known.kinds:
        set_kinds(connection, known, kinds)
    return shape(connection, name) or known


def set_all_right(connection: sqlite3.Connection) -> None:
    """Do so for every collection, when the store is opened."""
    for (name,) in connection.execute("SELECT name FROM collections").fetchall():
        try:
            set_right(connection, name)
        except sqlite3.IntegrityError as error:  # of a program with other rules; all else goes on
            LOG.error("%s holds documents that do not agree with a unique index: %s", name, error)  # noqa: TRY400 - it says it all


def _call_poor(connection: sqlite3.Connection, table: str, index: str) -> None:
    connection.execute("ANALYZE sqlite_schema")  # makes the table of statistics
    connection.execute("DELETE FROM sqlite_stat1 WHERE idx = ?", (index,))
    connection.execute("INSERT INTO sqlite_stat1 VALUES (?, ?, ?)", (table, index, POOR))
    connection.execute("ANALYZE sqlite_schema")  # reads it again


def _kinds(connection: sqlite3.Connection, known: Shape) -> Iterator[tuple[str, int]]:
    for path in sorted({path for index in known.indexes for path in index.paths}):
        mask = known.kinds.get(path)
        if mask is None:
            mask = sum({each for (each,) in connection.execute(kinds_sql(known.table, path))})
        yield path, mask


def _restored(text: str) -> Iterator[Index]:
    for item in orjson.loads(text):
        item["keys"] = tuple((path, direction) for path, direction in item["keys"])
        item["equal"] = tuple((path, Date(**value) if isinstance(value, dict) else value)
                              for path, value in item["equal"])  # fmt: skip
        yield Index(**{**item, "present": tuple(item["present"])})


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


def keep_history_in_collections(connection: sqlite3.Connection) -> None:
    """Version 2: histories are collections, and collections remember their indexes."""
    connection.execute("ALTER TABLE collections ADD COLUMN indexes TEXT NOT NULL DEFAULT '[]'")
    connection.execute("ALTER TABLE collections ADD COLUMN kinds TEXT NOT NULL DEFAULT '{}'")
    kept = "SELECT DISTINCT collection, name FROM history JOIN collections ON collections.n = history.collection"
    for number, name in connection.execute(kept).fetchall():
        connection.execute("INSERT OR IGNORE INTO collections (name) VALUES (?)", (name + HISTORY,))
        found = connection.execute("SELECT n FROM collections WHERE name = ?", (name + HISTORY,)).fetchone()
        connection.execute(TABLE.format(number=found[0]))
        connection.execute(
            f"INSERT OR IGNORE INTO c{found[0]} (id, doc) SELECT printf('%024x', n), {_WRAPPED}"  # noqa: S608 - ours
            " FROM history WHERE collection = ? ORDER BY n",
            (number,),
        )
    connection.execute("DROP TABLE history")


_OF_ITEM = ("name", "_type", "_acl", "_modified", "_modifiedby", "_modifiedbyid")
_WRAPPED = f"""json_object('_id', printf('%024x', n), 'id', id, '_version', version,
    {", ".join(f"'{field}', json_extract(doc, '$.{field}')" for field in _OF_ITEM)},
    '_created', json_extract(doc, '$._modified'), '_createdby', json_extract(doc, '$._modifiedby'),
    '_createdbyid', json_extract(doc, '$._modifiedbyid'), 'item', json(doc))"""
