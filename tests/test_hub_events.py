"""Watches and queues over the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jupyter_agent.errors import ServerRefused, TimedOut
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from tests.hub_peers import Line, ask, line
from tests.openflow_peers import Hub, Seen, until


@pytest.fixture
async def wire(hub: Hub) -> AsyncIterator[Line]:
    async with line(hub.url) as opened:
        await opened.sign_in(hub)
        yield opened


@pytest.fixture
def things() -> str:
    return f"things {new_id()}"


# Watches


async def test_a_watcher_sees_every_change_in_order(client: Client, things: str) -> None:
    seen = Seen()
    await client.watch(things, [], seen)
    document = await client.insert_one(things, {"n": 1, "at": "2024-01-02T03:04:05.678Z", "a.b": 1})
    changed = await client.update_one(things, {**document, "n": 2})
    await client.update_document(things, {}, {"$set": {"n": 3}})
    await client.update_document(things, {}, {"$set": {"n": 3}})  # changes nothing
    await client.delete_one(things, document["_id"])
    await client.insert_one(f"not {things}", {"n": 4})
    await until(lambda: len(seen.events) == 4)
    assert [event.operation for event in seen.events] == ["insert", "replace", "update", "delete"]
    assert seen.events[0].document == document
    assert seen.events[1].document == changed
    assert [event.document["n"] for event in seen.events[2:]] == [3, 3]


async def test_the_order_is_that_of_the_commits(client: Client, things: str) -> None:
    seen = Seen()
    await client.watch(things, [], seen)
    await client.insert_one(things, {"_id": "counter", "n": 0})
    await asyncio.gather(*(client.update_document(things, {}, {"$inc": {"n": 1}}) for _ in range(100)))
    await until(lambda: len(seen.events) == 101)
    assert [event.document["n"] for event in seen.events] == list(range(101))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$.[?(@._type == 'package')]", ["p"]),
        ("$.[?(@._type === 'package')]", ["p"]),
        ('$.[?(@._type == "package" || @.n > 2)]', ["p", "big"]),
        ("$[?(@._type == 'package' && @.n > 2)]", []),
        ("$.[?(@.deep.er[0].x == 1)]", ["deep"]),
        ("$.a.text", ["text"]),
        ("$..er", ["deep"]),
        ("$.[?(@.text == 'a.[b')]", ["text"]),
    ],
)
async def test_paths_choose(client: Client, things: str, path: str, expected: list[str]) -> None:
    seen = Seen()
    await client.watch(things, [path], seen)
    for item in (
        {"name": "p", "_type": "package", "n": 1},
        {"name": "big", "n": 3},
        {"name": "deep", "deep": {"er": [{"x": 1}]}},
        {"name": "text", "text": "a.[b"},
    ):
        await client.insert_one(things, item)
    end = Seen()
    await client.watch(things, [], end)
    await client.insert_one(things, {"name": "end"})
    await until(lambda: end.events)
    assert [event.document["name"] for event in seen.events] == expected


@pytest.mark.parametrize("path", ["$.[?(", "nonsense[", "$[?(@.a =~ /x/)]", "$[?match(@.a, 'x')]", "$." + "a" * 2000])
async def test_bad_paths_are_refused(client: Client, things: str, path: str) -> None:
    with pytest.raises(ServerRefused, match="watch"):
        await ask(client, pb.WatchRequest(collectionname=things, paths=[path]))


async def test_an_ended_watch_is_silent(client: Client, things: str) -> None:
    seen, all_ = Seen(), Seen()
    watch = await client.watch(things, [], seen)
    await client.watch(things, [], all_)
    await watch.close()
    await client.insert_one(things, {})
    await until(lambda: all_.events)
    assert seen.events == []


async def test_a_watcher_that_takes_nothing_is_disconnected_and_the_hub_goes_on(
    client: Client, hub: Hub, things: str
) -> None:
    async with line(hub.url, max_queue=1, close_timeout=1) as deaf:
        await deaf.sign_in(hub)
        for _ in range(50):
            command, _ = await deaf.ask("watch", pb.WatchRequest(collectionname=things))
            assert command == "watchreply"
        await client.insert_one(things, {"text": "x" * 2_000_000})
        while len(await client.custom_command("getclients")) > 1:
            await client.insert_one(things, {"n": 1})
    assert await client.count(things, {"text": {"$exists": True}}) == 1


# Queues


async def test_a_message_arrives_with_the_senders_token(client: Client, hub: Hub) -> None:
    seen, name = Seen(), f"Queue-{new_id()}"
    queue = await client.register_queue(name, seen)
    assert queue.name == name.lower()
    await client.queue_message(name, {"n": 1, "__user": "forged", "__jwt": "forged"}, correlation_id="c", reply_to="r")
    await client.queue_message(name.upper(), {"n": 2}, strip_token=True)
    await client.queue_message(name, "text")
    await client.queue_message(name, [1, 2])
    await until(lambda: len(seen.events) == 4)
    first, second, third, fourth = seen.events
    assert (first.queue, first.correlation_id, first.reply_to) == (name.lower(), "c", "r")
    assert (await client.validate(first.data["__jwt"])) == client.user
    assert client.user is not None
    assert first.data["__user"]["_id"] == client.user.id
    assert "__jwt" not in second.data
    assert "__user" not in second.data
    assert third.data == "text"
    assert fourth.data == [1, 2]


async def test_consumers_take_turns(client: Client, hub: Hub) -> None:
    name, first, second = f"queue-{new_id()}", Seen(), Seen()
    await client.register_queue(name, first)
    async with hub.client() as other:
        await other.connected()
        await other.register_queue(name, second)
        for number in range(10):
            await client.queue_message(name, {"n": number})
        await until(lambda: len(first.events) + len(second.events) == 10)
    assert [event["n"] for event in first.data] == [0, 2, 4, 6, 8]
    assert [event["n"] for event in second.data] == [1, 3, 5, 7, 9]
    await until(lambda: True)
    for number in range(3):
        await client.queue_message(name, {"n": number})
    await until(lambda: len(first.events) == 8)


async def test_a_message_waits_for_a_consumer(client: Client, wire: Line) -> None:
    name, seen = f"queue-{new_id()}", Seen()
    assert (await wire.ask("registerqueue", pb.RegisterQueueRequest(queuename=name)))[0] == "registerqueuereply"
    assert (await wire.ask("unregisterqueue", pb.UnRegisterQueueRequest(queuename=name)))[0] == "unregisterqueuereply"
    for number in range(3):
        await client.queue_message(name, {"n": number})
    await client.register_queue(name, seen)
    await until(lambda: len(seen.events) == 3)
    assert [event["n"] for event in seen.data] == [0, 1, 2]


async def test_a_message_that_nobody_takes_comes_back_as_timeout(client: Client, wire: Line) -> None:
    name, answers = f"queue-{new_id()}", Seen()
    await wire.ask("registerqueue", pb.RegisterQueueRequest(queuename=name))
    await wire.ask("unregisterqueue", pb.UnRegisterQueueRequest(queuename=name))
    private = await client.register_queue("", answers)
    options: dict[str, Any] = {"reply_to": private.name, "correlation_id": "c1", "expiration_ms": 50}
    await client.queue_message(name, {"command": "run", "n": 1}, **options)
    await until(lambda: answers.events)
    await client.queue_message(name, "text", **options)
    await until(lambda: len(answers.events) == 2)
    assert [event.data for event in answers.events] == [{"command": "timeout", "n": 1}, "timeout"]
    assert answers.events[0].correlation_id == "c1"
    assert answers.events[0].reply_to == ""


async def test_a_missing_queue_is_timed_out_at_once_and_then_bad_until_it_is_there(client: Client) -> None:
    name, answers, seen = f"queue-{new_id()}", Seen(), Seen()
    private = await client.register_queue("", answers)
    await client.queue_message(name, {"n": 1}, reply_to=private.name)
    await until(lambda: answers.data)
    assert answers.data == [{"command": "timeout", "n": 1}]
    with pytest.raises(ServerRefused, match=f"bad queue: {name} correlationId: c9"):
        await client.queue_message(name, {"n": 1}, reply_to=private.name, correlation_id="c9")
    await client.register_queue(name, seen)
    await client.queue_message(name, {"n": 2})
    await until(lambda: seen.events)


async def test_calls_are_answered(client: Client) -> None:
    name = f"queue-{new_id()}"

    async def answer(event: Any) -> None:
        data = {"sum": event.data["a"] + event.data["b"]}
        await client.queue_message(event.reply_to, data, correlation_id=event.correlation_id, strip_token=True)

    await client.register_queue(name, answer)
    assert await client.rpc(name, {"a": 40, "b": 2}) == {"sum": 42}
    with pytest.raises(TimedOut):
        await client.rpc(f"queue-{new_id()}", {"a": 1})


async def test_a_private_queue_goes_with_its_connection(client: Client, hub: Hub) -> None:
    answers = Seen()
    back = await client.register_queue("", answers)
    async with line(hub.url) as wire:
        await wire.sign_in(hub)
        _, reply = await wire.ask("registerqueue", pb.RegisterQueueRequest())
        name = reply.queuename
        assert name.startswith("unknown.")
        await client.queue_message(name, {"n": 1})
        assert json.loads((await wire.hear("queueevent"))[1].data)["n"] == 1

    refused = ""
    while "bad queue" not in refused:  # the hub may not have noticed yet
        try:
            await client.queue_message(name, {"n": 2}, reply_to=back.name)
        except ServerRefused as error:
            refused = str(error)
    await until(lambda: {"command": "timeout", "n": 2} in answers.data)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (pb.QueueMessageRequest(queuename="", data="{}"), "The queuename is missing"),
        (pb.QueueMessageRequest(queuename="OpenFlow", data="{}"), "Access denied"),
        (pb.QueueMessageRequest(queuename="x", replyto="openflow", data="{}"), "Access denied"),
        (pb.QueueMessageRequest(queuename="x", exchangename="e", data="{}"), "AMQP exchange is not enabled"),
        (pb.QueueMessageRequest(queuename="x" * 300, data="{}"), "cannot be a queue's name"),
        (pb.RegisterQueueRequest(queuename="OpenFlow"), "Access denied: openflow cannot be a queue's name"),
        (pb.RegisterQueueRequest(queuename="nul\0"), "cannot be a queue's name"),
        (pb.RegisterQueueRequest(queuename="unknown.0123"), "is a private queue"),
        (
            pb.RegisterExchangeRequest(exchangename="x", algorithm="direct"),
            "AMQP exchange is not enabled on this OpenFl",
        ),
        (pb.RegisterExchangeRequest(exchangename="openflow"), "Access denied"),
        (pb.RegisterExchangeRequest(), "Access denied"),
    ],
)
async def test_bad_messages_are_refused(client: Client, request_: Any, sentence: str) -> None:
    with pytest.raises(ServerRefused, match=sentence):
        await ask(client, request_)


async def test_a_queue_that_nobody_empties_fills_up(wire: Line) -> None:
    name = f"queue-{new_id()}"
    await wire.ask("registerqueue", pb.RegisterQueueRequest(queuename=name))
    await wire.ask("unregisterqueue", pb.UnRegisterQueueRequest(queuename=name))
    answers = [
        await wire.ask("queuemessage", pb.QueueMessageRequest(queuename=name, data="{}", expiration=600_000))
        for _ in range(1001)
    ]
    assert [command for command, _ in answers] == ["queuemessagereply"] * 1000 + ["error"]
    assert "is full" in answers[-1][1].message
