"""Queues and watches of the client, against a real hub."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jupyter_agent.errors import (
    AgentError,
    Conflict,
    ServerRefused,
    TimedOut,
)
from jupyter_agent.openflow.client import (
    Client,
    KeepAlive,
    Queue,
    QueueEvent,
    WatchEvent,
)
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.subscriptions import BACKLOG_EVENTS, Backlog
from tests.openflow_peers import Hub, Seen, until

# Queues


async def test_messages_of_a_queue_come_in_order_with_the_token_of_their_sender(hub: Hub, client: Client) -> None:
    seen = Seen()
    queue = await client.register_queue("Jobs", seen)
    assert queue.name == "jobs"
    async with hub.client() as sender:
        await sender.connected()
        for i in range(100):
            await sender.queue_message("jobs", {"i": i}, correlation_id=f"c{i}", reply_to="back")
        await sender.queue_message("jobs", "text", strip_token=True)
        await until(lambda: len(seen.events) == 101)
    first: QueueEvent = seen.events[0]
    assert seen.data == [{"i": i} for i in range(100)] + ["text"]
    assert (first.queue, first.correlation_id, first.reply_to) == ("jobs", "c0", "back")
    assert (await client.validate(first.data["__jwt"])).username == hub.ready["username"]
    assert first.data["__jwt"] not in repr(first)


async def test_the_token_is_left_out_when_asked(client: Client) -> None:
    seen = Seen()
    queue = await client.register_queue("", seen)
    await client.queue_message(queue.name, {"x": 1}, strip_token=True)
    await until(lambda: seen.events)
    assert seen.events[0].data == {"x": 1}


async def test_a_handler_that_fails_is_logged_and_gets_the_next_message(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()

    async def handler(event: QueueEvent) -> None:
        await seen(event)
        raise ValueError("of the handler")

    await client.register_queue("q", handler)
    await client.queue_message("q", 1)
    await client.queue_message("q", 2)
    await until(lambda: len(seen.events) == 2)
    assert seen.data == [1, 2]
    assert "of the handler" in caplog.text
    assert client.is_connected


async def test_a_handler_that_waits_holds_up_neither_requests_nor_other_queues(client: Client) -> None:
    release, seen = asyncio.Event(), Seen()
    slow: list[Any] = []

    async def waits(event: QueueEvent) -> None:
        await release.wait()
        slow.append(event.data)

    await client.register_queue("slow", waits)
    await client.register_queue("fast", seen)
    for i in range(5):
        await client.queue_message("slow", i)
    await client.queue_message("fast", "x")
    await until(lambda: seen.events)
    assert await client.query("users", {})
    assert slow == []
    release.set()
    await until(lambda: len(slow) == 5)
    assert slow == list(range(5))


async def test_calls_are_answered_each_with_its_own(hub: Hub, client: Client) -> None:
    async def double(event: QueueEvent) -> None:
        await client.queue_message(event.reply_to, {"n": event.data["n"] * 2}, correlation_id=event.correlation_id)

    await client.register_queue("double", double)
    async with hub.client() as caller:
        await caller.connected()
        answers = await asyncio.gather(*(caller.rpc("double", {"n": n}) for n in range(30)))
    assert answers == [{"n": 2 * n} for n in range(30)]  # and no token of the answerer


async def test_a_handler_may_call_back_over_the_same_client(client: Client) -> None:
    async def inner(event: QueueEvent) -> None:
        await client.queue_message(event.reply_to, "inner", correlation_id=event.correlation_id, strip_token=True)

    async def outer(event: QueueEvent) -> None:
        answer = await client.rpc("inner", {})
        await client.queue_message(event.reply_to, answer, correlation_id=event.correlation_id, strip_token=True)

    await client.register_queue("inner", inner)
    await client.register_queue("outer", outer)
    assert await client.rpc("outer", {}) == "inner"


@pytest.mark.parametrize("data", [{"command": "run"}, "text"])
async def test_a_call_to_a_queue_that_is_not_there_says_so(client: Client, data: Any) -> None:
    with pytest.raises(AgentError) as caught:
        await client.rpc("nowhere", data, timeout_s=10)
    assert isinstance(caught.value, TimedOut | ServerRefused)
    assert "nowhere" in str(caught.value)


async def test_a_call_that_is_not_answered_in_time_says_so(client: Client) -> None:
    seen = Seen()
    await client.register_queue("mute", seen)
    with pytest.raises(TimedOut, match="mute did not answer within"):
        await client.rpc("mute", {"x": 1}, timeout_s=0.5)
    assert seen.data == [{"x": 1}]


async def test_a_queue_is_consumed_once_and_again_after_it_was_closed(client: Client) -> None:
    first, second = Seen(), Seen()
    queue = await client.register_queue("q", first)
    with pytest.raises(Conflict):
        await client.register_queue("Q", second)
    await queue.close()
    await queue.close()
    await client.register_queue("q", second)
    await client.queue_message("q", 1)
    await until(lambda: second.events)
    assert first.events == []


async def test_a_queue_may_be_closed_by_its_own_handler(client: Client) -> None:
    seen = Seen()

    async def once(event: QueueEvent) -> None:
        await seen(event)
        await queue.close()

    queue: Queue = await client.register_queue("once", once)
    await client.queue_message("once", 1)
    await until(lambda: seen.events)
    again = Seen()
    await until(lambda: queue not in client._subscriptions._kept)
    await client.register_queue("once", again)
    await client.queue_message("once", 2)
    await until(lambda: again.events)
    assert (seen.data, again.data) == ([1], [2])


def test_a_handler_that_is_too_far_behind_loses_the_newest_events_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backlog = Backlog("queue q")
    for i in range(BACKLOG_EVENTS + 3):
        backlog.put(pb.QueueEvent(data=str(i)))
    assert caplog.text.count("too far behind") == 1
    assert asyncio.run(backlog.get()) == pb.QueueEvent(data="0")


# Watches


async def test_changes_are_told_as_they_happen(client: Client) -> None:
    seen = Seen()
    watch = await client.watch("agents", [], seen)
    stored = await client.insert_one("agents", {"name": "p", "_type": "package"})
    await client.update_one("agents", {**stored, "name": "p2"})
    await client.update_document("agents", {"_id": stored["_id"]}, {"$set": {"seen": 1}})
    await client.delete_one("agents", stored["_id"])
    await until(lambda: len(seen.events) == 4)
    events: list[WatchEvent] = seen.events
    assert [event.operation for event in events] == ["insert", "replace", "update", "delete"]
    assert {event.document["_id"] for event in events} == {stored["_id"]}
    assert events[1].document["name"] == "p2"
    await watch.close()
    await client.insert_one("agents", {"name": "q", "_type": "package"})
    await client.query("agents", {})
    assert len(seen.events) == 4


async def test_a_watch_sees_what_its_paths_find(client: Client) -> None:
    seen = Seen()
    await client.watch("agents", ["$.[?(@._type == 'package')]"], seen)
    await client.insert_one("agents", {"name": "no", "_type": "other"})
    await client.insert_one("agents", {"name": "yes", "_type": "package"})
    await until(lambda: seen.events)
    assert [event.document["name"] for event in seen.events] == ["yes"]


async def test_looking_whether_messages_come_through_disturbs_nothing(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    seen, changes = Seen(), Seen()
    async with hub.client(keep_alive=KeepAlive(queue_s=0.02)) as client:
        await client.connected()
        queue = await client.register_queue("looked-at", seen)
        private = await client.register_queue("", seen)
        names = queue.name, private.name
        await client.watch("agents", [], changes)
        for i in range(200):
            await client.queue_message(names[i % 2], i, strip_token=True)
        await until(lambda: len(seen.events) == 200)
        answers = client._calls._queue
        assert answers is not None
        assert (queue.name, private.name) == names
    assert sorted(seen.data) == list(range(200))
    assert changes.events == []
    assert "registered again" not in caplog.text
