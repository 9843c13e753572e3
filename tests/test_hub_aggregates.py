from __future__ import annotations

from typing import Any

import pytest

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.aggregates import compile_pipeline
from jupyter_agent.hub.data.documents import Date, parse, wire

DOCUMENTS: list[dict[str, Any]] = [
    {"_id": "1", "lab": "a", "n": 1, "tags": ["x", "y"], "in": {"b": 1, "c": [{"d": 1}, {"d": 2}, 5]}, "at": Date(5)},
    {"_id": "2", "lab": "a", "n": 2.5, "tags": [], "in": {"b": 2}, "at": Date(4)},
    {"_id": "3", "lab": "b", "n": None, "tags": "z", "in": [{"b": 3}, 4]},
    {"_id": "4", "n": "text"},
]
OTHER: list[dict[str, Any]] = [
    {"_id": "o1", "k": "x"},
    {"_id": "o2", "k": ["y", "x"]},
    {"_id": "o3", "k": None},
    {"_id": "o4"},
    {"_id": "o5", "k": [{"m": 1}, {"m": 2}]},
]


def outcome(*stages: Any, documents: list[dict[str, Any]] | None = None) -> list[Any]:
    given = DOCUMENTS if documents is None else documents
    before = wire([given, OTHER])
    pipeline = compile_pipeline(list(stages))
    matching = [each for each in given if pipeline.first is None or pipeline.first.matches(each)]
    result = pipeline.run(matching, {"other": OTHER}.__getitem__)
    assert wire([given, OTHER]) == before, "documents were changed"
    return result


def values(*stages: Any) -> list[Any]:
    return [each.get("v", "nothing") for each in outcome(*stages)]


def no_other(collection: str) -> list[dict[str, Any]]:
    raise AssertionError(collection)


def test_a_leading_match_is_for_the_store() -> None:
    pipeline = compile_pipeline([{"$match": {"lab": "a"}}, {"$match": {"n": 1}}])
    assert pipeline.first is not None
    assert "lab" in pipeline.first.where
    assert len(pipeline.stages) == 1
    assert compile_pipeline([{"$limit": 1}]).first is None
    assert compile_pipeline([]).run(DOCUMENTS, no_other) == DOCUMENTS


@pytest.mark.parametrize(
    ("stages", "ids"),
    [
        ([{"$match": {"lab": "a"}}], "12"),
        ([{"$match": {"in.b": 3}}], "3"),
        ([{"$match": {"lab": "__REGEXP /^A/i"}}], "12"),
        ([{"$skip": 1}, {"$limit": 2}], "23"),
        ([{"$sort": {"n": -1}}], "4213"),
        ([{"$sort": {"n": 1}}, {"$limit": 2}], "31"),
        ([{"$sort": {"n": 1}}, {"$skip": 1}, {"$limit": 2}], "12"),
        ([{"$sort": {"lab": -1, "_id": -1}}, {"$skip": 3}], "4"),
        ([{"$unwind": "$tags"}], "113"),
        ([{"$unwind": {"path": "$tags", "preserveNullAndEmptyArrays": True}}], "11234"),
        ([{"$unwind": "$in.c"}], "111"),
        ([{"$unwind": "$in.b"}], "12"),
    ],
)
def test_which_documents_come_out(stages: list[Any], ids: str) -> None:
    assert "".join(each["_id"] for each in outcome(*stages)) == ids


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("$n", [1, 2.5, None, "text"]),
        ("$none", ["nothing"] * 4),
        ("$in.b", [1, 2, [3], "nothing"]),
        ("$in.c.d", [[1, 2], "nothing", [], "nothing"]),
        ("$in.0", ["nothing", "nothing", [], "nothing"]),
        ("text", ["text"] * 4),
        (Date(7), [Date(7)] * 4),
        ({"$literal": "$n"}, ["$n"] * 4),
        ({"$literal": {"a.b": 1}}, [{"a____b": 1}] * 4),
        (["$n", "$none"], [[1, None], [2.5, None], [None, None], ["text", None]]),
        ({"$ifNull": ["$n", 0]}, [1, 2.5, 0, "text"]),
        ({"$ifNull": ["$none", "$n", "$lab"]}, [1, 2.5, "b", "text"]),
        ({"$ifNull": [0, 1]}, [0] * 4),
        ({"$size": {"$ifNull": ["$in.c", []]}}, [3, 0, 0, 0]),
        ({"$size": [["a", "b"]]}, [2] * 4),
    ],
)
def test_expressions(expression: Any, expected: list[Any]) -> None:
    assert values({"$project": {"v": expression}}) == expected
    assert values({"$addFields": {"v": expression}}) == expected
    grouped = [None if each == "nothing" else each for each in expected]
    assert [each["_id"] for each in outcome({"$group": {"_id": [expression, "$_id"]}})] == [
        [each, str(number)] for number, each in enumerate(grouped, start=1)
    ]


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ({"$project": {"n": 1}}, {"_id": "1", "n": 1}),
        ({"$project": {"n": True, "_id": 0}}, {"n": 1}),
        ({"$project": {"in.b": 1}}, {"_id": "1", "in": {"b": 1}}),
        ({"$project": {"in": {"b": 1}}}, {"_id": "1", "in": {"b": 1}}),
        ({"$project": {"in.c.d": 1}}, {"_id": "1", "in": {"c": [{"d": 1}, {"d": 2}]}}),
        ({"$project": {"in.c": {"d": "$n"}}}, {"_id": "1", "in": {"c": [{"d": 1}, {"d": 1}, {"d": 1}]}}),
        ({"$project": {"in": {"b": 1, "new": "$n"}}}, {"_id": "1", "in": {"b": 1, "new": 1}}),
        ({"$project": {"_id": "$n"}}, {"_id": 1}),
        ({"$project": {"in": 0, "tags": 0, "at": False}}, {"_id": "1", "lab": "a", "n": 1}),
        ({"$unset": ["in", "tags", "at", "_id"]}, {"lab": "a", "n": 1}),
    ],
)
def test_what_is_projected(stage: dict[str, Any], expected: dict[str, Any]) -> None:
    assert outcome(stage)[0] == expected


@pytest.mark.parametrize("name", ["$addFields", "$set"])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"a": 2}, {"a": 2}),
        ({"a.b": "$x"}, {"a": {"b": 9, "c": 1}}),
        ({"a": {"b": "$x"}}, {"a": {"b": 9, "c": 1}}),
        ({"l.b": "$x"}, {"l": [{"b": 9}, {"b": 9, "c": 2}, [{"b": 9}]]}),
        ({"new.deep": "$none"}, {"new": {}}),
        ({"a": "$none"}, {"a": "nothing"}),
        ({"x": "$a", "a": "$x"}, {"x": {"c": 1}, "a": 9}),
        ({}, {}),
    ],
)
def test_fields_are_added(name: str, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    document = {"_id": "1", "a": {"c": 1}, "l": [1, {"c": 2}, [3]], "x": 9}
    wanted = {field: value for field, value in {**document, **expected}.items() if value != "nothing"}
    assert outcome({name: fields}, documents=[document]) == [wanted]


def test_unwinding_tells_places_and_goes_inside() -> None:
    stage = {"$unwind": {"path": "$tags", "includeArrayIndex": "p.i", "preserveNullAndEmptyArrays": True}}
    assert [(each.get("tags"), each["p"]["i"]) for each in outcome(stage)] == [
        ("x", 0), ("y", 1), (None, None), ("z", None), (None, None),
    ]  # fmt: skip
    assert [each["in"]["c"] for each in outcome({"$unwind": "$in.c"})] == [{"d": 1}, {"d": 2}, 5]


@pytest.mark.parametrize(
    ("local", "foreign", "expected"),
    [
        ("lab", "k", [[], [], [], ["o3", "o4"]]),
        ("tags", "k", [["o1", "o2"], ["o3", "o4"], [], ["o3", "o4"]]),
        ("in.c.d", "k.m", [["o5"], ["o1", "o3", "o4"], ["o1", "o3", "o4"], ["o1", "o3", "o4"]]),
        ("_id", "_id", [[], [], [], []]),
    ],
)
def test_documents_are_joined(local: str, foreign: str, expected: list[Any]) -> None:
    stage = {"$lookup": {"from": "other", "localField": local, "foreignField": foreign, "as": "found"}}
    assert [[other["_id"] for other in each["found"]] for each in outcome(stage)] == expected


@pytest.mark.parametrize(
    ("accumulator", "expected"),
    [
        ({"$sum": "$n"}, 3.5),
        ({"$sum": 1}, 4),
        ({"$sum": 2**62}, 2.0**64),
        ({"$avg": "$n"}, 1.75),
        ({"$avg": "$lab"}, None),
        ({"$min": "$n"}, 1),
        ({"$max": "$n"}, "text"),
        ({"$max": "$at"}, Date(5)),
        ({"$min": "$none"}, None),
        ({"$first": "$lab"}, "a"),
        ({"$last": "$lab"}, None),
        ({"$push": "$lab"}, ["a", "a", "b"]),
        ({"$push": "$n"}, [1, 2.5, None, "text"]),
        ({"$addToSet": "$lab"}, ["a", "b"]),
        ({"$addToSet": {"l": "$lab"}}, [{"l": "a"}, {"l": "b"}, {}]),
    ],
)
def test_groups_gather(accumulator: dict[str, Any], expected: Any) -> None:
    assert outcome({"$group": {"_id": None, "v": accumulator}}) == [{"_id": None, "v": expected}]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("$lab", ["a", "b", None]),
        ({"l": "$lab", "t": "$tags"}, [{"l": "a", "t": ["x", "y"]}, {"l": "a", "t": []}, {"l": "b", "t": "z"}, {}]),
        (["$lab"], [["a"], ["b"], [None]]),
        (1, [1]),
    ],
)
def test_groups_have_any_key(key: Any, expected: list[Any]) -> None:
    assert [each["_id"] for each in outcome({"$group": {"_id": key}})] == expected


def test_numbers_booleans_and_dates_are_different_keys() -> None:
    documents = [{"_id": str(index), "v": value} for index, value in enumerate([1, True, 1.0, Date(1), "1"])]
    assert outcome({"$group": {"_id": "$v", "n": {"$sum": 1}}}, documents=documents) == [
        {"_id": 1, "n": 2}, {"_id": True, "n": 1}, {"_id": Date(1), "n": 1}, {"_id": "1", "n": 1},
    ]  # fmt: skip


def test_sums_do_not_lose_small_numbers() -> None:
    documents = [{"_id": str(index), "v": value} for index, value in enumerate([1e16, 0.1, -1e16, 3])]
    (found,) = outcome({"$group": {"_id": None, "v": {"$sum": "$v"}}}, documents=documents)
    assert found["v"] == 3.1


def test_no_documents_give_no_groups_and_no_count() -> None:
    for stage in ({"$group": {"_id": None, "n": {"$sum": 1}}}, {"$count": "n"}):
        assert outcome(stage, documents=[]) == []
    assert outcome({"$count": "n"}) == [{"n": 4}]


def test_dates_and_expressions_in_json_count_as_in_queries() -> None:
    text = '[{"$match": {"at": {"$gte": "1970-01-01T00:00:00.005Z"}}}, {"$project": {"v": "1970-01-01T00:00:00.001Z"}}]'
    assert outcome(*parse(text, "aggregates")) == [{"_id": "1", "v": Date(1)}]


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ({}, "An aggregate is a JSON array of stages, not an object"),
        (["$match"], "A stage of an aggregate is an object with one name"),
        ([{}], "A stage of an aggregate is an object with one name"),
        ([{"$match": {}, "$limit": 1}], "A stage of an aggregate is an object with one name"),
        ([{"$limit": 1}] * 101, "can have 100 stages, not 101"),
        ([{"$facet": {}}], "The stage \\$facet is not offered"),
        ([{"$out": "x"}], "The stage \\$out is not offered"),
        ([{"$limit": 1}, {"$merge": "x"}], "The stage \\$merge is not offered"),
        ([{"$match": {"$expr": {}}}], "The query operator \\$expr is not offered"),
        ([{"$match": 1}], "A query must be a JSON object"),
        ([{"$sort": {}}], "\\$sort takes an object of at least one name"),
        ([{"$sort": "a"}], "\\$sort takes an object"),
        ([{"$sort": {"a": {"$meta": "x"}}}], "must be 1 or -1"),
        ([{"$skip": -1}], "\\$skip takes a whole number from 0"),
        ([{"$limit": 0}], "\\$limit takes a whole number from 1"),
        ([{"$sort": {"a": 1}}, {"$limit": 1.5}], "\\$limit takes a whole number"),
        ([{"$limit": True}], "\\$limit takes a whole number"),
        ([{"$count": "a.b"}], "\\$count takes the name"),
        ([{"$project": {}}], "\\$project takes an object of at least one field"),
        ([{"$project": {"a": 1, "b": 0}}], "either includes fields or excludes"),
        ([{"$project": {"a": 0, "b": "$c"}}], "either includes fields or excludes"),
        ([{"$project": {"a": 1, "a.b": 1}}], "names 'a.b' twice"),
        ([{"$project": {"a.b": "$x", "a": 1}}], "names 'a' twice"),
        ([{"$project": {"a": {}}}], "empty object at 'a'"),
        ([{"$project": {"a": {"$concat": ["x"]}}}], "The expression operator \\$concat is not offered"),
        ([{"$project": {"a": "$$ROOT"}}], "The variable \\$\\$ROOT is not offered"),
        ([{"$project": {"a": "$"}}], "cannot name ''"),
        ([{"$project": {"$a": 1}}], "cannot name '\\$a'"),
        ([{"$project": {"a": {"$literal": 1, "$size": 2}}}], "An expression has one operator"),
        ([{"$addFields": {"a": [{"b.c": 1}]}}], "cannot have the name 'b.c'"),
        ([{"$addFields": {"a": {"$ifNull": ["$b"]}}}], "\\$ifNull takes a list of two"),
        ([{"$addFields": {"a": {"$size": [1, 2]}}}], "\\$size takes one expression, not 2"),
        ([{"$set": []}], "\\$set takes an object of fields, not a list"),
        ([{"$unset": []}], "\\$unset takes a field's name"),
        ([{"$unset": ["a", 1]}], "takes a path as a text"),
        ([{"$unwind": "tags"}], "begins with \\$"),
        ([{"$unwind": {"path": "$a", "x": 1}}], "The option 'x' of \\$unwind is not offered"),
        ([{"$unwind": {"path": "$a", "preserveNullAndEmptyArrays": 1}}], "takes true or false"),
        ([{"$lookup": {"from": "o", "pipeline": [], "as": "x"}}], "The option 'pipeline' of \\$lookup is not offered"),
        ([{"$lookup": {"from": "o", "localField": "a", "as": "x"}}], "foreignField of \\$lookup takes a path"),
        ([{"$lookup": {"from": {}, "localField": "a"}}], "the name of a collection"),
        ([{"$group": {"n": {"$sum": 1}}}], "\\$group takes an object with an _id"),
        ([{"$group": {"_id": 1, "n": 1}}], "must be an object with one accumulator"),
        ([{"$group": {"_id": 1, "n": {"$stdDevPop": "$a"}}}], "The accumulator \\$stdDevPop is not offered"),
        ([{"$group": {"_id": 1, "n": {"$sum": [1, 2]}}}], "\\$sum in \\$group takes one expression"),
        ([{"$group": {"_id": 1, "a.b": {"$sum": 1}}}], "cannot have the name 'a.b'"),
    ],
)
def test_what_is_no_aggregate_is_refused_by_name(stages: Any, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        compile_pipeline(stages)


def test_what_a_stage_cannot_take_is_told() -> None:
    with pytest.raises(InvalidInput, match=r"\$size takes a list, not a number"):
        outcome({"$project": {"v": {"$size": "$n"}}})
    with pytest.raises(InvalidInput, match=r"\$size takes a list, not a field that is missing"):
        outcome({"$project": {"v": {"$size": "$none"}}})


def test_documents_cannot_grow_beyond_all_bounds() -> None:
    with pytest.raises(InvalidInput, match="makes a document of more than 16 MiB"):
        outcome(*([{"$addFields": {"n": ["$n", "$n"]}}] * 60))
    with pytest.raises(InvalidInput, match="nested deeper than 200 levels"):
        outcome(*([{"$addFields": {"n": [["$n"], 1], "tags": {"$literal": 1}}}] * 99 + [{"$project": {"n": [["$n"]]}}]))


@pytest.mark.parametrize(
    "stages",
    [
        [{"$sort": {"v": 1}}],
        [{"$group": {"_id": "$_id", "v": {"$first": "$v"}}}],
        [{"$group": {"_id": "$_id", "v": {"$max": "$v"}}}],
        [{"$group": {"_id": None, "v": {"$push": "$v"}}}],
        [{"$group": {"_id": None, "v": {"$addToSet": {"v": "$v", "id": "$_id"}}}}],
        [{"$lookup": {"from": "big", "localField": "_id", "foreignField": "_id", "as": "x"}}, {"$count": "n"}],
        [],
    ],
)
def test_what_is_held_is_bounded(stages: list[Any]) -> None:
    text = "x" * (1 << 20)
    documents = [{"_id": str(number), "v": text} for number in range(110)]
    with pytest.raises(InvalidInput, match="holds more than 100 MiB at once"):
        compile_pipeline(stages).run(documents, {"big": documents}.__getitem__)


def test_what_passes_by_is_not_held() -> None:
    text = "x" * (1 << 20)
    documents = ({"_id": str(number), "v": text} for number in range(250))
    best = compile_pipeline([{"$sort": {"_id": 1}}, {"$skip": 1}, {"$limit": 2}]).run(documents, no_other)
    assert [each["_id"] for each in best] == ["1", "10"]


def test_what_is_made_is_bounded() -> None:
    documents = [{"_id": str(number)} for number in range(2500)]
    stage = {"$lookup": {"from": "same", "localField": "none", "foreignField": "none", "as": "x"}}
    with pytest.raises(InvalidInput, match="makes more than 5,000,000 documents"):
        compile_pipeline([stage, {"$count": "n"}]).run(documents, {"same": documents}.__getitem__)
