from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import Date, new_id, parse, parse_object, restored, stored, wire

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.datetimes().map(lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z".zfill(24))
)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0$_"), max_size=8)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
objects = st.dictionaries(names, values, max_size=5)


@given(objects)
def test_what_a_client_sends_comes_back_the_same(given_object: dict[str, Any]) -> None:
    document = parse_object(json.dumps(given_object), "item", names=True)
    assert json.loads(wire(restored(stored(document)))) == given_object


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2024-01-02T03:04:05.678Z", 1704164645678),
        ("2024-01-02T03:04:05.678", 1704164645678),
        ("2024-01-02T04:04:05.678+01:00", 1704164645678),
        ("2024-01-02T03:04:05.678901234Z", 1704164645678),
        ("1969-12-31T23:59:59.999Z", -1),
        ("0001-01-01T00:00:00.0Z", -62135596800000),
    ],
)
def test_iso_text_with_a_fraction_is_a_date(text: str, ms: int) -> None:
    assert parse(json.dumps([{"at": text}]), "item") == [{"at": Date(ms)}]


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-02T03:04:05Z",
        "2024-01-02",
        "2024-13-02T03:04:05.6Z",
        "x2024-01-02T03:04:05.678Z",
        "2024-01-02 03:04:05.6Z",
    ],
)
def test_other_text_stays_text(text: str) -> None:
    assert parse(json.dumps(text), "item") == text


def test_dates_are_shown_with_milliseconds_and_z() -> None:
    assert wire({"at": Date(1704164645000)}) == '{"at":"2024-01-02T03:04:05.000Z"}'


def test_a_date_compares_only_with_dates() -> None:
    assert Date(5) == Date(5) < Date(6)
    others: list[Any] = [5, "1970-01-01T00:00:00.005Z", None, {}]
    for other in others:
        assert Date(5) != other
        assert not Date(5) < other
        assert not Date(5) >= other


def test_names_with_dots_are_stored_without_and_shown_with_them() -> None:
    document = parse_object('{"a.b": {"c.d": [{"e.f": 1}]}}', "item", names=True)
    assert "." not in stored(document)
    assert wire(document) == '{"a.b":{"c.d":[{"e.f":1}]}}'


def test_names_of_the_clients_own_are_left_out() -> None:
    assert parse('{"$$hashKey": 1, "a": {"$$x": 2, "b": 3}, "$ref": 4}', "item") == {"a": {"b": 3}, "$ref": 4}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "The item is not valid JSON"),
        ('{"a": NaN}', "The item is not valid JSON"),
        ('{"a": Infinity}', "The item is not valid JSON"),
        ('{"a": 1e999}', "The item is not valid JSON"),
        ('{"a": "\\ud800"}', "The item is not valid JSON"),
        ("[" * 5000 + "]" * 5000, "The item is not valid JSON"),
        ("[" * 200 + "]" * 200, "nested deeper than 100 levels"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested deeper than 100 levels"),
        ('{"a": {"$date": 5}}', "A date in the item is written as text"),
        ('{"a": {"$date": "x", "b": 1}}', "A date in the item is written as text"),
        ('{"a\\u0000b": 1}', "holds a NUL character"),
    ],
)
def test_what_cannot_be_a_document_is_refused_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence) as caught:
        parse(text, "item")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("text", "what"), [("[]", "a list"), ('"x"', "a text"), ("null", "null"), ("3", "a number")])
def test_what_must_be_an_object_is(text: str, what: str) -> None:
    with pytest.raises(InvalidInput, match=f"The query must be a JSON object, not {what}."):
        parse_object(text, "query")


def test_no_text_is_an_empty_object() -> None:
    assert parse_object("", "query") == {}


def test_too_big_documents_and_numbers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="A document of 16 MiB is too big"):
        stored({"a": "x" * (16 << 20)})
    with pytest.raises(InvalidInput, match="cannot be stored"):
        stored({"a": 2**70})


def test_ids_are_24_hexadecimal_digits_and_differ() -> None:
    made = {new_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(each) == 24 and set(each) <= set("0123456789abcdef") for each in made)
