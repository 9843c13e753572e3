from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from typing import Any

import pytest

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import Date, parse_object, restored, stored
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.sql import key

DAY = "2024-01-02T03:04:05.678Z"


def matches(query: str, document: str) -> bool:
    wanted = compile_filter(parse_object(query.replace("DAY", DAY), "query"))
    return wanted.matches(parse_object(document.replace("DAY", DAY), "item", names=True))


@pytest.mark.parametrize(
    ("query", "document", "expected"),
    [
        ("{}", "{}", True),
        ('{"a": 1}', '{"a": 1}', True),
        ('{"a": 1}', '{"a": [3, 1]}', True),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": null}', "{}", True),
        ('{"a.b": 2}', '{"a": [{"b": 1}, {"b": 2}]}', True),
        ('{"a.1": 2}', '{"a": [1, 2]}', True),
        ('{"a": {"b": 1}}', '{"a": {"b": 1, "c": 2}}', False),
        ('{"a": {"$gt": 1, "$lte": 3}}', '{"a": 3}', True),
        ('{"a": {"$gt": "b"}}', '{"a": 3}', False),
        ('{"a": {"$in": [1, null]}}', "{}", True),
        ('{"a": {"$nin": [1]}}', '{"a": [1]}', False),
        ('{"a": {"$exists": false}}', "{}", True),
        ('{"a": {"$all": [1, 2]}}', '{"a": [2, 1, 3]}', True),
        ('{"a": {"$size": 2}}', '{"a": [2, 1]}', True),
        ('{"a": {"$mod": [3, 1]}}', '{"a": 7}', True),
        ('{"a": {"$elemMatch": {"x": 1, "y": 2}}}', '{"a": [{"x": 1, "y": 3}, {"x": 2, "y": 2}]}', False),
        ('{"a": {"$elemMatch": {"$gt": 2, "$lt": 4}}}', '{"a": [1, 3]}', True),
        ('{"a": {"$not": {"$gt": 2}}}', '{"a": 1}', True),
        ('{"$nor": [{"a": 1}, {"b": 1}]}', '{"a": 2}', True),
        ('{"$or": [{"a": 1}, {"b": 1}], "$comment": "x"}', '{"b": 1}', True),
        ('{"a": {"$regex": "^x.z$", "$options": "i"}}', '{"a": "XYZ"}', True),
        ('{"a": {"$regex": "b"}}', '{"a": ["a", "abc"]}', True),
        ('{"a": {"$regex": "b"}}', '{"a": 5}', False),
        ('{"a": "__REGEXP /^n3/i"}', '{"a": "N3x"}', True),
        ('{"a": {"$in": ["__REGEXP /x/", "y"]}}', '{"a": "axb"}', True),
        ('{"a": {"$not": "__REGEXP /x/"}}', '{"a": "axb"}', False),
        ('{"a": {"$regex": "b", "$ne": "abc", "$in": ["abc", "b"], "$type": 2}}', '{"a": "b"}', True),
        ('{"a": {"$type": "string"}}', '{"a": [1, "x"]}', True),
        ('{"a": {"$type": "array"}}', '{"a": [1]}', True),
        ('{"a": {"$type": ["int", "null"]}}', '{"a": 5.0}', True),
        ('{"a": {"$type": "number"}}', '{"a": true}', False),
        ('{"a": {"$type": "null"}}', "{}", False),
        ('{"a": {"$elemMatch": {"b": {"$type": "date"}}}}', '{"a": [{"b": "DAY"}]}', True),
        ('{"a": {"$gte": "DAY"}}', '{"a": "DAY"}', True),
        ('{"a": {"$lt": "DAY"}}', '{"a": 5}', False),
        ('{"a": {"$gt": "2024"}}', '{"a": "DAY"}', False),
        ('{"a____b": 1}', '{"a.b": 1}', True),
    ],
)
def test_what_matches(query: str, document: str, *, expected: bool) -> None:
    assert matches(query, document) is expected


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ('{"$where": "1"}', "The query operator \\$where is not offered"),
        ('{"$expr": {}}', "The query operator \\$expr is not offered"),
        ('{"a": {"$near": 1}}', "The query operator \\$near is not offered"),
        ('{"a": {"$elemMatch": {"$text": 1}}}', "The query operator \\$text is not offered"),
        ('{"$and": [{"a": {"$bitsAllSet": 1}}]}', "The query operator \\$bitsAllSet is not offered"),
        ('{"a": {"$gt": 1, "b": 2}}', "The query operator b is not offered"),
        ('{"$or": []}', "nonempty list"),
        ('{"$or": {}}', "\\$or takes a list, not an object"),
        ('{"$and": [1]}', "A query must be a JSON object, not a number"),
        ('{"a": {"$in": 1}}', "\\$in takes a list"),
        ('{"a": {"$type": "text"}}', "\\$type does not know 'text'"),
        ('{"a": {"$regex": 1}}', "must be texts"),
        ('{"a": {"$regex": "x", "$options": "q"}}', "option 'q' is not offered"),
        ('{"a": {"$options": "i"}}', "\\$options needs \\$regex"),
        ('{"a": {"$regex": "(a"}}', "The regular expression /\\(a/ is not offered by this hub"),
        ('{"a": {"$regex": "(?=a)"}}', "is not offered by this hub"),
        ('{"a": {"$regex": "(a)\\\\1"}}', "is not offered by this hub"),
        ('{"a": {"$regex": "%s"}}' % ("x" * 2000), "may have 1000 characters"),
        ('{"a": {"$not": 1}}', "\\$not takes an operator"),
        ('{"a": {"$size": -1}}', "cannot be understood"),
        ('{"a": {"$mod": [0, 1]}}', "cannot be understood"),
    ],
)
def test_what_is_no_query_is_refused_by_name(query: str, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        matches(query, "{}")


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*)*x", "(a?){40}a{40}", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_no_pattern_can_hold_up_the_hub(pattern: str) -> None:
    wanted = compile_filter({"a": {"$regex": pattern}})
    wanted.matches({"a": "a" * 5000 + "!"})  # Python's own `re` would not come back from this


# Few different values, so that much of what is asked for is there.
SCALARS: list[Any] = [1, "a", True, 0, 2.5, 0.1, None, "", "b", 2**53 + 1, Date(1), Date(2)]


def some_value(chance: random.Random, depth: int = 2) -> Any:
    shape = chance.random() if depth else 0
    if shape < 0.5:
        return chance.choice(SCALARS)
    if shape < 0.75:
        return [some_value(chance, depth - 1) for _ in range(chance.randrange(3))]
    return {"b": some_value(chance, depth - 1)}


def some_document(chance: random.Random) -> dict[str, Any]:
    return {name: some_value(chance) for name in "abc" if chance.random() < 0.8}


def some_condition(chance: random.Random) -> Any:
    operator = chance.choice(["", "", "$eq", "$gt", "$gte", "$lt", "$lte", "$ne", "$in", "$in", "$not"])
    operand = chance.choice(SCALARS) if chance.random() < 0.9 else some_value(chance)
    if operator == "$in":
        return {"$in": [chance.choice(SCALARS) for _ in range(chance.randrange(1, 4))]}
    if operator == "$not":
        return {"$not": {"$eq": operand}}
    return {operator: operand} if operator else operand


def some_query(chance: random.Random, depth: int = 2) -> dict[str, Any]:
    if depth and chance.random() < 0.3:
        operator = chance.choice(["$or", "$or", "$and", "$nor"])
        return {operator: [some_query(chance, depth - 1) for _ in range(chance.randrange(1, 4))]}
    paths = chance.sample(["a", "a.b", "b", "c", "c.b", "_id"], chance.randrange(1, 3))
    return {path: some_condition(chance) for path in paths}


def test_sql_leaves_out_nothing_that_matches() -> None:
    seed = int(os.environ.get("JUPYTER_AGENT_SEED") or time.time_ns())
    chance = random.Random(seed)  # noqa: S311 - no secret
    used = 0
    for _ in range(300):
        documents = [{"_id": chance.choice("ab") + str(number), **some_document(chance)} for number in range(20)]
        documents[0]["_id"] = "a"
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, id TEXT, doc TEXT)")
        for document in documents:
            connection.execute("INSERT INTO t (id, doc) VALUES (?, ?)", (document["_id"], stored(document)))
        for _ in range(20):
            query = some_query(chance)
            wanted = compile_filter(query)
            where = f"WHERE {wanted.where}" if wanted.where else ""
            rows = connection.execute(f"SELECT doc FROM t {where}", wanted.parameters)  # noqa: S608 - tested here
            found = [row for row in (restored(text) for (text,) in rows) if wanted.matches(row)]
            assert found == [each for each in documents if wanted.matches(each)], f"{query}, seed {seed}"
            used += bool(where and found)
        connection.close()
    assert used > 500  # it was really tested


def test_scalar_conditions_use_an_index() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, id TEXT UNIQUE, doc TEXT)")
    connection.execute(f"CREATE INDEX t_type ON t ({key('_type')})")
    for query, index in (
        ({"_type": "x", "b": 1}, "t_type"),
        ({"_id": "x"}, "autoindex"),
        ({"_id": {"$in": ["x"]}}, "autoindex"),
    ):
        wanted = compile_filter(query)
        plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT doc FROM t WHERE {wanted.where}", wanted.parameters)  # noqa: S608
        assert index in json.dumps(plan.fetchall())
    connection.close()


@pytest.mark.parametrize("count", [30, 5000])
def test_long_queries_are_left_to_the_matcher(count: int) -> None:
    wanted = compile_filter({"$or": [{"a": number} for number in range(count)], "b": {"$in": list(range(count))}})
    assert len(wanted.parameters) <= 1000
    assert wanted.matches({"a": count - 1, "b": 3})
