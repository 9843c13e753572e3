"""The SQL of a query against the matcher alone, through real tables and indexes: no document that matches is lost."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from jupyter_agent.hub.data.documents import Date, restored, stored
from jupyter_agent.hub.data.filters import Filter, compile_filter
from jupyter_agent.hub.data.sql import key

DOCUMENTS = 8
FILTERS = 10
"""Of each table."""

INDEXES = {
    "by_type": ("_type",), "by_a": ("a",), "by_inner": ("a.b",), "by_deep": ("a.b.c",), "by_space": ("b c",),
    "by_two": ("_type", "a"), "by_three": ("_type", "a.b", "n"),
}  # fmt: skip
NAMES = ("_type", "a", "b c", "n")
PATHS = (*NAMES, "_type", "a", "a.b", "a.b", "a.b.c", "b c", "n", "n", "a.0", "a.0.b", "a.b.0", "_id", "x-y", "a.$date")
# Few different values, so that much of what is asked for is there; those that SQLite may see otherwise than Python.
SCALARS: list[Any] = [
    *(None, True, False, "", "a", "b", "é", "\U0001f600", "a\0b", "1", "x'", "A", "ab"),
    *(0, 1, 2, -1, 1.0, 2.5, 0.1, 0.30000000000000004, 1e-320, 1e300, -0.0),
    *(2**53, 2**53 - 1, 2**53 + 1, float(2**53), 2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
    *(Date(0), Date(1), Date(2), Date(-1)),
]  # fmt: skip


def some_value(chance: random.Random, depth: int = 3) -> Any:
    shape = chance.random() if depth else 0
    if shape < 0.6:
        return chance.choice(SCALARS)
    if shape < 0.75:
        return [some_value(chance, depth - 1) for _ in range(chance.randrange(3))]
    return {name: some_value(chance, depth - 1) for name in ("b", "c", "0") if chance.random() < 0.6}


def some_documents(chance: random.Random) -> list[dict[str, Any]]:
    depth = chance.choice([0, 2, 3])  # with 0 no field holds a list
    bodies = ({name: some_value(chance, depth) for name in NAMES if chance.random() < 0.8} for _ in range(DOCUMENTS))
    return [{"_id": f"d{number}", **body} for number, body in enumerate(bodies)]


def leaves(value: Any) -> Iterator[Any]:
    """A value and all that is in it."""
    yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from leaves(item)


def some_operand(chance: random.Random, documents: list[dict[str, Any]], path: str) -> Any:
    """Mostly what is there, so that much matches."""
    name, found = path.partition(".")[0], chance.choice(documents)
    if name in found and chance.random() < 0.7:
        return chance.choice(list(leaves(found[name])))
    return chance.choice(SCALARS) if chance.random() < 0.8 else some_value(chance)


def some_condition(chance: random.Random, documents: list[dict[str, Any]], path: str) -> Any:
    operator = chance.choice(
        ["", "", "$eq", "$gt", "$gte", "$lt", "$lte", "$ne", "$in", "$in", "$nin", "$not", "$exists", "$regex", "$type"]
    )
    operand = some_operand(chance, documents, path)
    if operator in ("$in", "$nin"):
        return {operator: [some_operand(chance, documents, path) for _ in range(chance.randrange(4))]}
    if operator == "$not":
        return {"$not": {chance.choice(["$eq", "$gt", "$lte"]): operand}}
    if operator in ("", "$exists", "$regex", "$type"):
        return {"": operand, "$exists": {"$exists": True}, "$regex": {"$regex": "a"}, "$type": {"$type": 2}}[operator]
    second = {chance.choice(["$lt", "$gte", "$in"]): operand} if chance.random() < 0.2 else {}
    return {operator: operand, **{name: [value] if name == "$in" else value for name, value in second.items()}}


def some_query(chance: random.Random, documents: list[dict[str, Any]], depth: int = 2) -> dict[str, Any]:
    if depth and chance.random() < 0.3:
        operator = chance.choice(["$or", "$or", "$and", "$nor"])
        return {operator: [some_query(chance, documents, depth - 1) for _ in range(chance.randrange(1, 4))]}
    paths = chance.sample(PATHS, chance.choice([1, 1, 1, 2, 3]))
    return {path: some_condition(chance, documents, path) for path in paths}


def table(documents: list[dict[str, Any]]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, doc TEXT)")
    for name, paths in INDEXES.items():
        connection.execute(f"CREATE INDEX {name} ON t ({', '.join(map(key, paths))})")
    rows = [(document["_id"], stored(document)) for document in documents]
    connection.executemany("INSERT INTO t (id, doc) VALUES (?, ?)", rows)
    connection.execute("ANALYZE")
    return connection


def has_list(value: Any, path: list[str]) -> bool:
    if isinstance(value, list):
        return True
    return bool(path) and isinstance(value, dict) and has_list(value.get(path[0]), path[1:])


def ways(connection: sqlite3.Connection, wanted: Filter, scalars: frozenset[str]) -> Iterator[tuple[str, list[str]]]:
    """What each index that SQLite can use finds, by its name; the name is empty where SQLite chooses."""
    for flat in {frozenset[str](), scalars}:
        where, parameters = wanted.condition(flat)
        for name in ("", *INDEXES):
            forced = f"INDEXED BY {name}" if name else ""
            try:
                condition = f"WHERE {where}" if where else ""
                rows = connection.execute(f"SELECT doc FROM t {forced} {condition} ORDER BY t.n", parameters)  # noqa: S608 - the hub's
                yield name, [text for (text,) in rows]
            except sqlite3.OperationalError as error:
                if "no query solution" not in str(error):
                    raise


def test_no_index_loses_a_document_that_matches(budgets: dict[str, int]) -> None:
    seed = int(os.environ.get("JUPYTER_AGENT_SEED") or time.time_ns())
    chance = random.Random(seed)  # noqa: S311 - no secret
    used: Counter[str] = Counter()
    left_out = 0
    for _ in range(budgets["planner_filters"] // FILTERS):
        documents = some_documents(chance)
        scalars = frozenset(
            path for path in PATHS if not any(has_list(document, path.split(".")) for document in documents)
        )
        with closing(table(documents)) as connection:
            for _ in range(FILTERS):
                query = some_query(chance, documents)
                wanted = compile_filter(query)
                expected = [stored(document) for document in documents if wanted.matches(document)]
                for index, found in ways(connection, wanted, scalars):
                    assert [text for text in found if wanted.matches(restored(text))] == expected, f"{query}, {seed}"
                    used[index] += bool(expected)
                    left_out += len(documents) - len(found)
    assert all(used[name] for name in INDEXES), used  # each was really used, and found something
    assert left_out > budgets["planner_filters"]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ({"_type": "x", "zzz": 1}, "by_t"),
        ({"_type": "x", "a": 1}, "by_two"),
        ({"_type": "x", "a.b": "y", "n": {"$gte": 5}}, "by_three"),
        ({"a.b": {"$in": ["x", 3]}}, "by_inner"),
        ({"$and": [{"a": Date(5)}, {"zzz": 1}]}, "by_a"),
        ({"_id": "x"}, "autoindex"),
        ({"_id": {"$eq": "x"}}, "autoindex"),
        ({"_id": {"$in": ["x", "y"]}}, "autoindex"),
    ],
)
def test_scalar_conditions_use_an_index(query: dict[str, Any], index: str) -> None:
    wanted = compile_filter(query)
    with closing(table([])) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT doc FROM t WHERE {wanted.where}", wanted.parameters)  # noqa: S608 - the hub's
        assert index in json.dumps(plan.fetchall())


@pytest.mark.parametrize("count", [30, 5000])
def test_long_queries_are_left_to_the_matcher(count: int) -> None:
    wanted = compile_filter({"$or": [{"a": number} for number in range(count)], "b": {"$in": list(range(count))}})
    assert len(wanted.parameters) <= 1000
    assert wanted.matches({"a": count - 1, "b": 3})


def test_a_query_by_id_is_the_same_as_any_other() -> None:
    for wanted in ("x", "", "a.b", "$x"):
        plain, general = compile_filter({"_id": wanted}), compile_filter({"$and": [{"_id": wanted}]})
        for found in (wanted, "y", None, 5, [id], [["x"]], [1, "y"], {"x": 1}, Date(5)):
            assert plain.matches({"_id": found}) is general.matches({"_id": found})
        assert plain.matches({}) is general.matches({}) is False
