from __future__ import annotations

from typing import Any

import pytest

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import Date
from jupyter_agent.hub.data.results import order_of, page, projection_of

VALUES: list[Any] = [Date(5), True, [3, 9], "b", 2.5, None, {"x": 1}, "a", 1, [], False, "é", [[1]]]


def ordered(order: Any) -> list[Any]:
    return [document["v"] for document in page(({"v": value} for value in VALUES), order_of(order), 0, 100)]


def test_values_of_all_types_have_one_order() -> None:
    assert ordered("v") == [[], None, 1, 2.5, [3, 9], "a", "b", "é", {"x": 1}, [[1]], False, True, Date(5)]
    assert ordered({"v": -1}) == [Date(5), True, False, [[1]], {"x": 1}, "é", "b", "a", [3, 9], 2.5, 1, None, []]


def test_several_keys_paths_and_pages() -> None:
    documents = [{"a": {"b": number % 2}, "c": number} for number in range(10)]
    found = page(documents, order_of({"a.b": 1, "c": -1}), 3, 4)
    assert [document["c"] for document in found] == [2, 0, 9, 7]
    assert [document["c"] for document in page(documents, (), 8, 5)] == [8, 9]


def test_a_missing_field_sorts_like_null_and_lists_by_their_objects() -> None:
    documents: list[dict[str, Any]] = [{"n": 1, "a": [{"b": 5}, {"b": 1}]}, {"n": 2, "a": {"b": 3}}, {"n": 3}]
    assert [document["n"] for document in page(documents, order_of("a.b"), 0, 9)] == [3, 1, 2]
    assert [document["n"] for document in page(documents, order_of({"a.b": -1}), 0, 9)] == [1, 2, 3]


@pytest.mark.parametrize("order", [3, ["a"], {"a": "up"}, {"a": 2}, {"a": True}, None])
def test_what_is_no_order_is_refused(order: Any) -> None:
    with pytest.raises(InvalidInput, match="order"):
        order_of(order)


DOCUMENT = {"_id": "1", "a": {"b": 1, "c": 2}, "d": [{"e": 1, "f": 2}, 3], "g": 4}


@pytest.mark.parametrize(
    ("projection", "expected"),
    [
        ({}, DOCUMENT),
        ({"g": 1}, {"_id": "1", "g": 4}),
        ({"g": 1, "_id": 0}, {"g": 4}),
        ({"_id": 1}, {"_id": "1"}),
        ({"a.b": 1}, {"_id": "1", "a": {"b": 1}}),
        ({"a.b": 1, "a.c": 1}, {"_id": "1", "a": {"b": 1, "c": 2}}),
        ({"d.e": 1}, {"_id": "1", "d": [{"e": 1}]}),
        ({"d.e": 0, "a": 0, "g": 0}, {"_id": "1", "d": [{"f": 2}, 3]}),
        ({"_id": 0}, {"a": {"b": 1, "c": 2}, "d": [{"e": 1, "f": 2}, 3], "g": 4}),
        ({"nothing": 1}, {"_id": "1"}),
    ],
)
def test_projections(projection: dict[str, Any], expected: dict[str, Any]) -> None:
    assert projection_of(projection)(DOCUMENT) == expected


@pytest.mark.parametrize("projection", [{"a": 1, "b": 0}, {"a": "x"}, {"a": {"$slice": 1}}, {"$a": 1}, {"a..b": 1}])
def test_what_is_no_projection_is_refused(projection: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="projection"):
        projection_of(projection)
