"""SQL for a superset of what a query matches, and the index expressions that make it quick.

A field's key is its value where that is a scalar (a date's milliseconds), and an empty blob where it, or anything on
the way to it, is an array or an object: those are always let through. So equality becomes ``key IN (?, x'')``, still a
search in an index on the very same expression.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jupyter_agent.hub.data.documents import Date

Condition = tuple[str, list[Any]]
"""An SQL expression and its parameters."""

MAX_LIST = 1000
"""Values of an ``$in`` that are looked for in SQL; longer lists are left to the matcher."""

MAX_TERMS = 20
MAX_TEXT = 8000
"""Characters of one condition. SQLite takes expressions of up to 1000 levels; longer ones are left to the matcher."""

EXACT = 2**53
"""From here on JSON numbers may be rounded on the way."""

SLACK = 1e-12
"""SQLite may read a decimal fraction one bit away from what Python reads: bounds are that much wider."""

SIMPLE_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_ -]*(?:\.[A-Za-z_][A-Za-z0-9_ -]*){0,4}")


@dataclass(frozen=True)
class Field:
    """A field in SQL; ``has_lists``: there may be a list in it or on the way to it."""

    expression: str
    has_lists: bool = True


def superset(query: dict[str, Any], scalars: frozenset[str] = frozenset()) -> Condition:
    """An SQL condition that holds for every document that ``query`` matches; ``""`` when all have to be looked at.

    ``scalars`` are paths where no document has a list: with those, equality is plain enough for an index to give an
    order besides.
    """
    found = [condition for condition in _conditions(query, scalars) if _is_small(condition)]
    return _joined(" AND ", found[:MAX_TERMS]) if found else ("", [])


@lru_cache(maxsize=1000)
def key(path: str) -> str:
    """The SQL expression of a field's key."""
    names = path.split(".")
    places = ["$" + "".join(f'."{name}"' for name in names[: count + 1]) for count in range(len(names))]
    way = "".join(f"WHEN json_type(doc, '{place}') = 'array' THEN x'' " for place in places)
    place = places[-1]
    date = f"""coalesce(json_extract(doc, '{place}."$date"'), x'')"""
    return f"CASE {way}WHEN json_type(doc, '{place}') = 'object' THEN {date} ELSE json_extract(doc, '{place}') END"


def _conditions(query: dict[str, Any], scalars: frozenset[str]) -> Iterator[Condition]:
    for name, value in query.items():
        if name == "$and":
            for child in value:
                yield from _conditions(child, scalars)
        elif name == "$or":
            children = [superset(child, scalars) for child in value]
            if len(children) <= MAX_TERMS and all(sql for sql, _ in children):
                yield _joined(" OR ", children)
        elif name == "_id":
            yield from _id_conditions(value)
        elif SIMPLE_PATH.fullmatch(name):
            yield from _field_conditions(Field(key(name), name not in scalars), value)


def _id_conditions(value: Any) -> Iterator[Condition]:
    """Conditions on the column of ids, which are texts."""
    if isinstance(value, str):
        yield "id = ?", [value]
    elif isinstance(value, dict):  # an id is no object: what is here is an expression, or matches nothing
        if isinstance(value.get("$eq"), str):
            yield "id = ?", [value["$eq"]]
        values = value.get("$in")
        if isinstance(values, list) and len(values) <= MAX_LIST and all(isinstance(item, str) for item in values):
            yield f"id IN ({_marks(values)})", list(values)


def _field_conditions(field: Field, value: Any) -> Iterator[Condition]:
    if not isinstance(value, dict):
        yield from _equal(field, value)
        return
    if not next(iter(value), "").startswith("$"):  # a document to be equal to
        return
    for operator, operand in value.items():
        if operator in OPERATORS:
            yield from OPERATORS[operator](field, operand)


def _equal(field: Field, value: Any) -> Iterator[Condition]:
    yield from _in(field, [value])


def _in(field: Field, values: Any) -> Iterator[Condition]:
    if isinstance(values, list) and len(values) <= MAX_LIST and all(_is_exact(value) for value in values):
        parameters = [_parameter(value) for value in values]
        if field.has_lists:
            yield f"{field.expression} IN ({'?,' * len(values)}x'')", parameters
        elif len(values) == 1:
            yield f"{field.expression} = ?", parameters
        else:
            yield f"{field.expression} IN ({_marks(values)})", parameters


def _above(field: Field, value: Any) -> Iterator[Condition]:
    if _is_ordered(value):
        yield _or_list(field, ">="), [_widened(value, -SLACK)]


def _below(field: Field, value: Any) -> Iterator[Condition]:
    if _is_ordered(value):
        yield _or_list(field, "<="), [_widened(value, SLACK)]


def _or_list(field: Field, comparison: str) -> str:
    compared = f"{field.expression} {comparison} ?"
    return f"({compared} OR {field.expression} = x'')" if field.has_lists else compared


OPERATORS: dict[str, Callable[[Field, Any], Iterator[Condition]]] = {
    "$eq": _equal,
    "$in": _in,
    "$gt": _above,
    "$gte": _above,
    "$lt": _below,
    "$lte": _below,
}


def _is_exact(value: Any) -> bool:
    """Whether SQLite's ``=`` finds every stored value that is equal to this one."""
    if isinstance(value, str):
        return "\0" not in value
    if isinstance(value, float):
        return value.is_integer() and abs(value) < EXACT
    return isinstance(value, bool | Date) or (isinstance(value, int) and abs(value) < EXACT)


def _is_ordered(value: Any) -> bool:
    if isinstance(value, int | float):
        return not isinstance(value, bool) and abs(value) < EXACT
    return isinstance(value, Date) or (isinstance(value, str) and "\0" not in value)


def _parameter(value: Any) -> Any:
    return value.ms if isinstance(value, Date) else value


def _widened(value: Any, slack: float) -> Any:
    if isinstance(value, int | float):
        return value + slack * (1 + abs(value))
    return _parameter(value)


def _marks(values: list[Any]) -> str:
    return ",".join("?" * len(values))


def _is_small(condition: Condition) -> bool:
    sql, parameters = condition
    return len(sql) <= MAX_TEXT and len(parameters) <= MAX_LIST


def _joined(word: str, conditions: list[Condition]) -> Condition:
    text = word.join(sql for sql, _ in conditions)
    return f"({text})", [parameter for _, parameters in conditions for parameter in parameters]
