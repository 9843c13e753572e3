"""Messages that make no sense: a live agent gives each the right answer, or none, and starts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from jupyter_agent.openflow.client import QueueEvent
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from tests.agent_peers import agent_of, published
from tests.conftest import BUDGETS
from tests.console_peers import House
from tests.hub_peers import ask, hub_on_a_new_home
from tests.openflow_peers import until

COMMANDS = (
    "runpackage", "kill", "killall", "reinstallpackage", "preparepackage", "testrunpackage", "addcommandstreamid",
    "removecommandstreamid", "setstreamid", "listprocesses", "invoke", "", "portdata", "portclose", "timeout",
)  # fmt: skip
FIELDS = (
    "command", "id", "packageid", "payload", "streamid", "queuename", "streamqueue", "stream", "kill_after_seconds",
    "wiq", "wiqid", "port", "portname", "seq", "buf", "__jwt", "__user",
)  # fmt: skip
SUCCEED = ("killall", "listprocesses")
"""What may be done with any fields."""
SILENT = ("addcommandstreamid", "removecommandstreamid")
"""What is not answered when it is done."""

FLOOD = 200

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["", "../..", "x" * 300, "\x00", "null", "__proto__", "unknown.0123456789abcdef01234567", "60a1"]
)
LEAVES = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, width=32) | TEXTS
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
OBJECTS = st.dictionaries(st.sampled_from(FIELDS) | TEXTS, VALUES, max_size=6)
COMMANDED = st.builds(lambda data, command: {**data, "command": command}, OBJECTS, st.sampled_from(COMMANDS) | VALUES)
WRAPPED = st.builds(lambda data: {"payload": data}, COMMANDED)
MESSAGES = st.lists(st.tuples(COMMANDED | WRAPPED | OBJECTS | VALUES, st.booleans()), min_size=20, max_size=20)
NO_JSON = ("", "{", "\x00", '{"command":"killall"', "[" * 50_000, "NaN", "timeout", '{"command":"kill","id":1e999}')


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with hub_on_a_new_home() as hub, agent_of(hub) as (home, agent):
        published(agent, tmp_path_factory.mktemp("package") / "real", "print('started')\n")
        yield House(hub, home, agent, agent.request("GET", "status")["queue"])


@settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # what a live agent did is not made smaller by trying again
    max_examples=BUDGETS["agent_messages"],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(messages=MESSAGES)
def test_any_message_gets_the_right_answer_or_none(house: House, messages: list[tuple[Any, bool]]) -> None:
    asyncio.run(exchange(house, messages))


async def exchange(house: House, messages: list[tuple[Any, bool]]) -> None:
    """Send them all, each with a private queue for its answer; then a question that is answered after them."""
    async with house.hub.client() as client, house.caller(client) as caller:
        await client.connected()
        for number, (data, unsigned) in enumerate(messages):
            await caller.send(house.queue, data, correlation_id=f"message {number}", strip_token=unsigned)
        assert (await house.ask(caller, {"command": "portclose"}))["success"] is False
        due = {f"message {n}" for n, (data, unsigned) in enumerate(messages) if is_answered(data, unsigned=unsigned)}
        await until(lambda: due <= {event.correlation_id for event in caller.received}, "all answers")
        answers = {event.correlation_id: event for event in caller.received}
        for number, (data, unsigned) in enumerate(messages):
            check(data, answers.get(f"message {number}"), unsigned=unsigned)
    assert house.runs() == []
    assert house.agent.request("GET", "status")["connected"] is True


async def test_what_is_no_json_starts_nothing_and_ends_nothing(house: House) -> None:
    async with house.hub.client() as client, house.caller(client) as caller:
        await client.connected()
        for text in NO_JSON:
            await ask(client, pb.QueueMessageRequest(queuename=house.queue, data=text, replyto=caller.queue))
        assert (await house.ask(caller, {"command": "portclose"}))["success"] is False
    assert house.runs() == []
    assert house.agent.request("GET", "status")["connected"] is True


def is_stranger(data: Any, *, unsigned: bool) -> bool:
    """Whether nobody signed this: the server puts tokens into objects alone."""
    return unsigned or not isinstance(data, dict)


def command_of(data: Any) -> Any:
    """What it asks for, wrapped or not."""
    told = data if isinstance(data, dict) else {}
    if not told.get("command") and isinstance(told.get("payload"), dict):
        told = told["payload"]
    return told.get("command") or ""


def is_answered(data: Any, *, unsigned: bool) -> bool:
    return is_stranger(data, unsigned=unsigned) or command_of(data) not in SILENT


def check(data: Any, answer: QueueEvent | None, *, unsigned: bool) -> None:
    """That this is a right answer to this message."""
    if answer is None:
        return
    command = command_of(data)
    assert isinstance(answer.data["command"], str)
    success = answer.data["success"]
    if is_stranger(data, unsigned=unsigned):
        assert (success, answer.data["error"].startswith("not authenticated")) == (False, True), data
    elif command not in SUCCEED:
        assert success is False, data
        assert answer.data["error"]
        assert "Traceback" not in answer.data["error"]
        assert "Internal error" not in answer.data["error"], (data, answer.data["error"])


async def test_a_flood_of_strangers_holds_up_nobody(house: House) -> None:
    """A server takes 28 requests a second from an agent: those who may use it do not wait for those who may not."""
    async with house.hub.client() as client, house.caller(client) as caller, house.caller(client) as stranger:
        await client.connected()
        for number in range(FLOOD):
            claim = {"command": "killall", "__jwt": f"no.token.{number % 7}"}
            await stranger.send(house.queue, claim, correlation_id=f"{number}", strip_token=True)
        assert (await house.ask(caller, {"command": "killall"}))["success"] is True
        assert len(stranger.received) < FLOOD
