"""Indexes: what a client asks for, the SQL that finds by one or forbids a second of the same, and orders they can give.

An index that is unique is two in SQLite: one that finds, on the keys of its fields as the planner writes them, and one
that forbids, on what tells values apart as the database does. So that an order can be taken from an index, the store
remembers which kinds of values a field of one has ever held.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import Date, kind
from jupyter_agent.hub.data.results import ASCENDING, DESCENDING, Order, order_of, rank
from jupyter_agent.hub.data.sql import SIMPLE_PATH, key

Document = dict[str, Any]
Scalar = str | int | float | bool | Date | None

MAX_FIELDS = 8
MAX_NAME = 120
MAX_TEXT = 200
"""Characters of a text in the condition of an index."""

NULL, NUMBER, TEXT, BOOLEAN, DATE, OTHER, LIST = (1 << bit for bit in range(7))
ORDERED = (NULL | NUMBER | TEXT, NULL | BOOLEAN, NULL | DATE)
"""Kinds that SQLite sorts as the database does, where a field holds no others."""

KINDS: dict[type, int] = {
    type(None): NULL, int: NUMBER, float: NUMBER, bool: BOOLEAN, Date: DATE, dict: OTHER, list: LIST,
}  # fmt: skip

HARMLESS = frozenset({"background", "v", "name", "ns"})
"""Options that change nothing here."""


@dataclass(frozen=True)
class Index:
    """An index; with ``equal`` and ``present`` it is unique only among documents that have these values and fields.

    ``ignores_case`` is for the hub's own.
    """

    name: str
    keys: Order
    unique: bool = False
    equal: tuple[tuple[str, Scalar], ...] = ()
    present: tuple[str, ...] = ()
    ignores_case: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields, the most important first."""
        return tuple(path for path, _ in self.keys)

    @property
    def tag(self) -> str:
        """What its parts in SQLite, whose names know no case, are named after."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]

    def finder(self, table: str) -> str:
        """The name of the index in SQLite that finds."""
        return f"{table}_{self.tag}_finds"

    def statements(self, table: str) -> dict[str, str]:
        """The indexes in SQLite: their names and the SQL that makes them."""
        terms = ", ".join(f"{key(path)}{_direction(direction)}" for path, direction in self.keys)
        made = {self.finder(table): f"CREATE INDEX {self.finder(table)} ON {table} ({terms})"}
        if self.unique:
            name = f"{table}_{self.tag}_forbids"
            values = ", ".join(self._told_apart(path) for path in self.paths)
            where = f" WHERE {self.scope}" if self.scope else ""
            made[name] = f"CREATE UNIQUE INDEX {name} ON {table} ({values}){where}"
        return made

    @property
    def scope(self) -> str:
        """The SQL of which documents it counts for, where it is unique; ``""`` is all."""
        equal = [f"{told_apart(path)} = {_literal(value)}" for path, value in self.equal]
        return " AND ".join([*equal, *(f"json_type(doc, '{_place(path)}') IS NOT NULL" for path in self.present)])

    def check(self, collection: str, document: Document) -> None:
        """Raises `InvalidInput` for a list in a field whose values are to be unique: it would be many values."""
        if not self.unique or not self._counts_for(document):
            return
        for path in self.paths:
            if kind_at(document, path) == LIST:
                raise InvalidInput(f"{path} of a document in {collection} cannot be a list: {self.name} is unique.")

    def has_order(self, order: Order) -> bool:
        """Whether it has this order from its first field on, forwards or backwards."""
        first = self.keys[: len(order)]
        return order in (first, tuple((path, -direction) for path, direction in first))

    def shown(self) -> Document:
        """As ``getindexes`` shows it."""
        shown: Document = {"v": 2, "key": dict(self.keys), "name": self.name}
        if self.unique:
            shown["unique"] = True
        partial = dict(self.equal) | {path: {"$exists": True} for path in self.present}
        return shown | ({"partialFilterExpression": partial} if partial else {})

    def _counts_for(self, document: Document) -> bool:
        return all(rank(_value(document, path)) == rank(value) for path, value in self.equal) and all(
            kind_at(document, path) != NULL for path in self.present
        )

    def _told_apart(self, path: str) -> str:
        return f"lower({told_apart(path)})" if self.ignores_case else told_apart(path)


ID = Index("_id_", (("_id", ASCENDING),), unique=True)
"""The one that every collection has."""


def index_of(keys: Any, options: Any, name: str) -> Index:
    """An index as a client asks for it. Raises `InvalidInput`, naming what is not offered."""
    for path, direction in keys.items() if isinstance(keys, dict) else ():
        if isinstance(direction, str):
            raise InvalidInput(f"An index of the kind {direction} ({path}) is not offered by this hub.")
    order = order_of(keys)
    if not 1 <= len(order) <= MAX_FIELDS:
        raise InvalidInput(f"An index has 1 to {MAX_FIELDS} fields.")
    for path, _ in order:
        _check_path(path)
    equal, present = _scope(options, order)
    given = name or options.get("name") or "_".join(f"{path}_{direction}" for path, direction in order)
    if not isinstance(given, str) or len(given) > MAX_NAME or "\0" in given:
        raise InvalidInput(f"The name of an index is a text of up to {MAX_NAME} characters.")
    return Index(given, order, unique=bool(options.get("unique")), equal=equal, present=present)


def kind_at(document: Document, path: str) -> int:
    """The kind of the value at a path; `LIST` also where a list is on the way to it."""
    value: Any = document
    for name in path.split("."):
        if isinstance(value, list):
            return LIST
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, str):
        return TEXT if "\0" not in value else OTHER
    return KINDS[type(value)]


def kinds_sql(table: str, path: str) -> str:
    """A query for the kinds of values that stand at a path now, one in each row."""
    places = [_place(path, count + 1) for count in range(path.count(".") + 1)]
    way = " ".join(f"WHEN json_type(doc, '{place}') = 'array' THEN {LIST}" for place in places)
    place = places[-1]
    date = f"""json_type(doc, '{place}."$date"')"""
    return f"""
        SELECT DISTINCT CASE {way} ELSE CASE coalesce(json_type(doc, '{place}'), 'null')
            WHEN 'null' THEN {NULL} WHEN 'integer' THEN {NUMBER} WHEN 'real' THEN {NUMBER}
            WHEN 'true' THEN {BOOLEAN} WHEN 'false' THEN {BOOLEAN}
            WHEN 'text' THEN CASE instr(doc, '\\u0000') WHEN 0 THEN {TEXT} ELSE {OTHER} END
            ELSE CASE WHEN {date} IS NULL THEN {OTHER} ELSE {DATE} END
        END END FROM {table}"""  # noqa: S608 - paths are simple ones, tables are ours


def holds_list(index: Index) -> str:
    """The SQL condition of a document with a list in a field of an index."""
    return " OR ".join(
        f"json_type(doc, '{_place(path, count + 1)}') = 'array'"
        for path in index.paths
        for count in range(path.count(".") + 1)
    )


def told_apart(path: str) -> str:
    """The SQL of a value that is the same for two documents when the database takes their values for the same."""
    place = _place(path)
    return (
        f"CASE coalesce(json_type(doc, '{place}'), 'null') WHEN 'null' THEN x'' WHEN 'integer' THEN"
        f" json_extract(doc, '{place}') WHEN 'real' THEN json_extract(doc, '{place}')"
        f" ELSE json_type(doc, '{place}') || ':' || json_extract(doc, '{place}') END"
    )


@dataclass(frozen=True)
class Sorting:
    """An order in SQL: ``terms`` of ORDER BY.

    ``odd`` holds for documents that these would put in a wrong place, ``""`` when it is known that there are none.
    """

    terms: str
    odd: str = ""


def sorting(order: Order, kinds: dict[str, int]) -> Sorting | None:
    """How SQL sorts by this order; ``None`` where it cannot. ``kinds`` are those that indexed fields may hold."""
    if not all(SIMPLE_PATH.fullmatch(path) for path, _ in order):
        return None
    unsure = [path for path, _ in order if path != "_id" and not sorts_well(kinds.get(path))]
    terms = [term for path, direction in order for term in _terms(path, direction, typed=path in unsure)]
    return Sorting(", ".join(terms), " OR ".join(f"{key(path)} IS x''" for path in unsure))


def sorts_well(kinds: int | None) -> bool:
    """Whether SQLite sorts values of these kinds as the database does; ``None`` is not known."""
    return kinds is not None and any(kinds | fine == fine for fine in ORDERED)


def _terms(path: str, direction: int, *, typed: bool) -> Iterable[str]:
    if path == "_id":
        yield f"id{_direction(direction)}"
        return
    if typed:
        kinds = "WHEN 'integer' THEN 2 WHEN 'real' THEN 2 WHEN 'text' THEN 3 WHEN 'object' THEN 7"
        type_of = f"coalesce(json_type(doc, '{_place(path)}'), 'null')"
        yield f"CASE {type_of} WHEN 'null' THEN 1 {kinds} ELSE 6 END{_direction(direction)}"
    yield f"{key(path)}{_direction(direction)}"


def _direction(direction: int) -> str:
    return " DESC" if direction == DESCENDING else ""


def _place(path: str, depth: int | None = None) -> str:
    return "$" + "".join(f'."{name}"' for name in path.split(".")[:depth])


def _check_path(path: str) -> None:
    if not SIMPLE_PATH.fullmatch(path):
        raise InvalidInput(f"{path!r} cannot be indexed: a path has up to 5 names of letters, digits, _, - and spaces.")
    if path == "_id":
        raise InvalidInput("Every collection has its index on _id.")


def _scope(options: Any, order: Order) -> tuple[tuple[tuple[str, Scalar], ...], tuple[str, ...]]:
    """Which documents an index counts for: those with these values, and with these fields."""
    if not isinstance(options, dict):
        raise InvalidInput(f"The options of an index must be a JSON object, not {kind(options)}.")
    for name, value in options.items():
        if name not in HARMLESS | {"unique", "partialFilterExpression", "sparse"} and value not in (None, False):
            raise InvalidInput(f"The option {name} of an index is not offered by this hub.")
    if options.get("sparse") and len(order) > 1:
        raise InvalidInput("The option sparse of an index on several fields is not offered by this hub.")
    present = [path for path, _ in order] if options.get("sparse") else []
    partial = options.get("partialFilterExpression") or {}
    if not isinstance(partial, dict):
        raise InvalidInput("partialFilterExpression must be a JSON object.")
    equal: list[tuple[str, Scalar]] = []
    for path, value in partial.items():
        _check_path(path)
        if value == {"$exists": True}:
            present.append(path)
        else:
            equal.append((path, _constant(path, value)))
    return tuple(equal), tuple(present)


def _constant(path: str, value: Any) -> Scalar:
    value = value["$eq"] if isinstance(value, dict) and list(value) == ["$eq"] else value
    if isinstance(value, dict | list):
        raise InvalidInput(
            f"The condition of an index on {path!r} is not offered by this hub: it compares with one value, or says"
            ' {"$exists": true}.'
        )
    if isinstance(value, str) and (len(value) > MAX_TEXT or re.search(r"[\0-\x1f]", value)):
        raise InvalidInput(f"A text in the condition of an index has up to {MAX_TEXT} plain characters.")
    return value  # type: ignore[no-any-return] # all that is left


def _value(document: Document, path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _literal(value: Scalar) -> str:
    """What `told_apart` is for a document with this value."""
    if value is None:
        return "x''"
    if isinstance(value, bool):
        return "'true:1'" if value else "'false:0'"
    if isinstance(value, int | float):
        return repr(value)
    text = f'object:{{"$date":{value.ms}}}' if isinstance(value, Date) else f"text:{value}"
    return "'" + text.replace("'", "''") + "'"
