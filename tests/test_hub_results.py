from __future__ import annotations

from typing import Any

import pytest

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import Date
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.results import distinct, order_of, page, projection_of

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


@pytest.mark.parametrize(
    ("path", "values", "expected"),
    [
        ("v.b", [[{"b": 5}, {"c": 1}], {"b": 1}, [{"b": 0}]], "021"),  # nothing in an object of a list is null
        ("v.b", [[5, {"b": 5}], {"b": 1}, []], "021"),
        ("v.b", [[[{"b": 5}]], {"b": 1}], "01"),
        ("v.1", [[5, 1], [1, 5], [9]], "201"),
        ("v.0.b", [[{"b": 2}], [{"b": 1}, {"b": 9}]], "10"),
        ("v", [[], None, [None], [1, "a"], 0], "01243"),
    ],
)
def test_what_lists_are_sorted_by(path: str, values: list[Any], expected: str) -> None:
    documents = [{"n": str(number), "v": value} for number, value in enumerate(values)]
    assert "".join(each["n"] for each in page(documents, order_of({path: 1}), 0, 9)) == expected


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        ("v", [1, "a", 1.0, True, None, 1], [1, "a", True, None]),
        ("v", [[1, 2], 2, [], [[1, 2]]], [1, 2, [1, 2]]),
        ("v", [{"b": 1}, {"b": 1}, {"b": True}, Date(1)], [{"b": 1}, {"b": True}, Date(1)]),
        ("v.b", [{"b": 1}, [{"b": 2}, {"b": [3, 1]}, 5], 7], [1, 2, 3]),
        ("v.0", [[4, 5], {"0": 6}], [4, 6]),
        ("none", [1], []),
    ],
)
def test_different_values(field: str, values: list[Any], expected: list[Any]) -> None:
    found = distinct(({"v": value} for value in values), field)
    assert [(type(each), each) for each in found] == [(type(each), each) for each in expected]


@pytest.mark.parametrize("field", ["", "a..b", "$a", "a.$"])
def test_what_is_no_field_has_no_values(field: str) -> None:
    with pytest.raises(InvalidInput, match="distinct cannot name"):
        distinct([], field)


def test_too_many_different_values_are_refused() -> None:
    with pytest.raises(InvalidInput, match="different values of 'v' are more than 16 MiB"):
        distinct(({"v": f"{number}{'x' * 999_999}"} for number in range(20)), "v")


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
        ({"a": {"b": 1}}, {"_id": "1", "a": {"b": 1}}),
        ({"g": 5, "_id": 0.0}, {"g": 4}),
    ],
)
def test_projections(projection: dict[str, Any], expected: dict[str, Any]) -> None:
    assert projection_of(projection)(DOCUMENT) == expected


@pytest.mark.parametrize(
    "projection", [{"a": 1, "a.b": 1}, {"a": 1, "b": 0}, {"a": "x"}, {"a": {"$slice": 1}}, {"$a": 1}, {"a..b": 1}]
)
def test_what_is_no_projection_is_refused(projection: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="projection"):
        projection_of(projection)


def test_a_page_of_big_documents_is_bounded() -> None:
    documents = [{"n": number, "v": "x" * (1 << 20)} for number in range(150)]
    assert [each["n"] for each in page(documents, order_of({"n": -1}), 0, 3)] == [149, 148, 147]
    with pytest.raises(InvalidInput, match="More than 128 MiB would have to be sorted"):
        page(documents, order_of({"n": -1}), 0, 100_000)


def test_paths_are_bounded() -> None:
    long = "a." * 600 + "b"
    for use in (
        lambda: order_of({long: 1}),
        lambda: projection_of({long: 1}),
        lambda: distinct([], long),
        lambda: compile_filter({long: 1}),
    ):
        with pytest.raises(InvalidInput, match="A path can have 1000 characters, not 1201"):
            use()
