"""JSON in and out of the API."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agent.agent.requests import check_parameters
from jupyter_agent.agent.variables import as_text, harmless
from jupyter_agent.api.broadcast import Broadcast
from jupyter_agent.api.values import TargetBody, yaml_scalar
from jupyter_agent.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("5.5", 5.5), ("true", True), ("null", None), ("'5'", "5"), ("", ""), ("  ", "  "), ("EU", "EU"),
        ("a: b", "a: b"), ("[1, 2]", "[1, 2]"), ("{", "{"), ("2024-01-31", "2024-01-31"), ("# x", "# x"), ("*a", "*a"),
        ("!!python/object:os.system x", "!!python/object:os.system x"), ("1e3", "1e3"), ("~", None),
    ],
)  # fmt: skip
def test_a_yaml_scalar(text: str, value: object) -> None:
    assert yaml_scalar(text) == value
    assert type(yaml_scalar(text)) is type(value)


@given(st.text())
def test_any_text_is_some_scalar(text: str) -> None:
    value = yaml_scalar(text)
    assert value is None or isinstance(value, str | bool | int | float)


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"target": ""}', b'{"target": "x", "timeout_s": -1}', b'{"target":1}'])
def test_a_bad_body_is_one_sentence(body: bytes) -> None:
    with pytest.raises(InvalidInput) as refusal:
        TargetBody.parse(body)
    assert "\n" not in str(refusal.value)


def test_parameters_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(InvalidInput):
        check_parameters({"x": math.nan})


@given(
    st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.lists(st.integers())))
)
def test_harmless_variables_override_and_steer_nothing(payload: dict[str, object]) -> None:
    taken = {"HOME": "/home/me", "customer": "ours"}
    chosen = harmless(payload, taken)
    for name, text in chosen.items():
        assert name in payload
        assert text == as_text(payload[name])
        assert name.upper() not in {"HOME", "CUSTOMER", "JWT", "APIURL", "PATH"}
        assert "\0" not in text


async def test_a_slow_follower_gets_the_newest_state_of_each_thing() -> None:
    events = Broadcast()
    follower = events.follow(5)
    first = asyncio.ensure_future(anext(follower))
    await asyncio.sleep(0)
    for number in range(100):
        events.send("run", "a", lambda number=number: {"n": number})  # type: ignore[misc]
    events.send("run", "b", lambda: {"n": -1})
    assert await first == [{"n": 99}, {"n": -1}]
    await follower.aclose()
    assert len(events) == 0
    events.send("run", "a", lambda: pytest.fail("made for nobody"))
