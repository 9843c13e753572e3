from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import Date, new_id, parse, parse_object, restored, stored, wire


def near_dates(draw: st.DrawFn) -> str:
    """Texts of a date's length and nearly its form; those that are dates are given as they come back."""
    moment = draw(st.datetimes())
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z".zfill(24)
    if draw(st.booleans()):
        return text
    place, other = draw(st.integers(0, 18)), draw(st.sampled_from("0123456789TZ-:. x"))
    changed = text[:place] + other + text[place + 1 :]
    found = parse(json.dumps(changed), "item")
    return str(found) if isinstance(found, Date) else changed


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    | st.composite(near_dates)()
    | st.sampled_from(["2024-01-02T03:04:05Z", "x" * 23 + "Z", "__REGEXP /a/i", "$date", "{}"])
)
parts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0$_"), min_size=1, max_size=4)
names = (
    st.lists(parts, min_size=1, max_size=3).map(".".join)
    | st.sampled_from(["", "_id", "__proto__", "a_b", "$ref", "a$b", "_", "___", "a._b", ".", ".."])
).filter(lambda name: "$$" not in name)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
objects = st.dictionaries(names, values, max_size=5)


@given(objects)
def test_what_a_client_sends_comes_back_the_same(given_object: dict[str, Any]) -> None:
    document = parse_object(json.dumps(given_object), "item", names=True)
    assert exactly(json.loads(wire(restored(stored(document))))) == exactly(given_object)


def exactly(value: Any) -> str:
    """With the order of fields, and 1.0 told from 1."""
    return json.dumps(value)


@pytest.mark.parametrize(
    ("name", "comes_back"),
    [("x____y", "x.y"), ("a_.b", "a._b"), ("______", ".__"), ("_____.", ".._")],
)
def test_a_name_that_would_come_back_as_another_is_refused(name: str, comes_back: str) -> None:
    with pytest.raises(InvalidInput, match=f"The name '{name}' in the item cannot be stored: .* as '{comes_back}'"):
        parse(json.dumps({"a": [{name: 1}]}), "item", names=True)
    assert parse(json.dumps({name: 1}), "query") == {name: 1}  # there it is a path


@pytest.mark.parametrize("number", [2**64 + 1, -(2**63) - 1, 123456789012345678901234567890])
def test_a_number_that_would_be_rounded_is_refused(number: int) -> None:
    with pytest.raises(InvalidInput, match=f"The number {number} in the item has more than 64 bits"):
        parse(f'{{"a": ["1234567890123456789012", {number}]}}', "item")


@pytest.mark.parametrize("text", ["18446744073709551616", "18446744073709552000", "100000000000000000000", "1e300"])
def test_a_number_as_javascript_writes_it_is_taken(text: str) -> None:
    (number,) = json.loads(wire(parse(f"[{text}]", "item")))
    assert number == float(text)


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00.0+01:00",  # before the calendar's first day, in UTC
        "9999-12-31T23:59:59.999-05:00",
        "0000-01-01T00:00:00.000Z",
        "2024-02-30T00:00:00.000Z",
        "2024-01-02T24:00:00.000Z",
        "2024-01-02T03:04:60.000Z",
        "2024-01-02T03:04:05.678+25:00",
        "\uff12024-01-02T03:04:05.678Z",
        "2024-01-02t03:04:05.678z",
    ],
)
def test_what_is_nearly_a_date_stays_text(text: str) -> None:
    assert wire(parse(json.dumps([text]), "item")) == json.dumps([text], ensure_ascii=False, separators=(",", ":"))


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
