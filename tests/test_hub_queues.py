"""Queues over the wire: what waits, who owns a name, what outlives the hub, what is left of who has gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from typing import Any

import pytest

from jupyter_agent.errors import AgentError, ServerRefused
from jupyter_agent.home import Home
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from tests.hub_peers import ask, line, rows_of, user_of
from tests.openflow_peers import Hub, Seen, running_hub, until

SENDERS = 4


async def queue_without_consumer(client: Client) -> str:
    name = f"queue-{new_id()}"
    await (await client.register_queue(name, Seen())).close()
    return name


async def received(client: Client, name: str) -> list[Any]:
    """All that waits in a queue."""
    seen = Seen()
    queue = await client.register_queue(name, seen)
    await client.queue_message(name, "the end")  # behind what waits
    await until(lambda: "the end" in seen.data, "all that waits")
    await queue.close()
    return seen.data[:-1]


def waiting(hub: Hub) -> int:
    return int(rows_of(hub, "SELECT count(*) FROM waiting")[0][0])


# What waits


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_what_waits_outlives_the_hub(home: Home, number: signal.Signals) -> None:
    with running_hub(home) as hub:
        async with hub.client() as client:
            name = await queue_without_consumer(client)
            for each in range(50):
                await client.queue_message(name, {"n": each}, strip_token=True)
        hub.signal(number)
        assert hub.process is not None
        await asyncio.to_thread(hub.process.wait)
        hub.kill()
        hub.start()
        assert waiting(hub) == 50
        async with hub.client() as client:
            assert await received(client, name) == [{"n": each} for each in range(50)]
            assert waiting(hub) == 0
            assert await received(client, name) == []


async def test_expirations_go_on_while_the_hub_is_down(home: Home) -> None:
    with running_hub(home) as hub:
        async with hub.client() as client:
            name, answers = await queue_without_consumer(client), Seen()
            back = await client.register_queue(f"queue-{new_id()}", answers)
            private = await client.register_queue("", Seen())
            for reply_to in (back.name, private.name, ""):
                await client.queue_message(name, {"n": 1}, reply_to=reply_to, correlation_id="c", expiration_ms=500)
            hub.kill()
            before = time.time()
            await until(lambda: time.time() > before + 0.6)
            hub.start()
            await until(lambda: answers.events, "the timeout")
            assert answers.data == [{"command": "timeout", "n": 1}]
            assert answers.events[0].correlation_id == "c"
            await until(lambda: waiting(hub) == 0, "what nobody expects back vanishes")
            assert await received(client, name) == []


async def test_a_timeout_waits_for_whom_it_is_for(client: Client, hub: Hub) -> None:
    back = await queue_without_consumer(client)
    await client.queue_message(f"queue-{new_id()}", {"n": 1}, reply_to=back)
    assert await received(client, back) == [{"command": "timeout", "n": 1}]


async def test_who_comes_later_gets_in_line(client: Client) -> None:
    name, seen = await queue_without_consumer(client), Seen()
    for number in range(300):
        await client.queue_message(name, number)
    await client.register_queue(name, seen)
    await asyncio.gather(*(client.queue_message(name, number) for number in range(300, 400)))
    await until(lambda: len(seen.events) == 400)
    assert seen.data == list(range(400))


async def test_messages_of_any_size_keep_their_order(client: Client) -> None:
    name, seen = f"queue-{new_id()}", Seen()
    await client.register_queue(name, seen)
    texts = ["x" * size for size in (500_000, 1, 30_000, 2, 19_999, 3)]
    await asyncio.gather(*(client.queue_message(name, text) for text in texts))
    await until(lambda: len(seen.events) == len(texts))
    assert seen.data == texts


async def test_a_slow_consumer_misses_nothing(client: Client, hub: Hub) -> None:
    name, text = f"queue-{new_id()}", "x" * 1_000_000
    async with line(hub.url, max_queue=1) as slow:
        await slow.sign_in(hub)
        await slow.ask("registerqueue", pb.RegisterQueueRequest(queuename=name))
        for number in range(100):  # more than a connection may leave lying
            await client.queue_message(name, {"n": number, "text": text}, expiration_ms=600_000)
        assert waiting(hub) > 0
        numbers = [json.loads((await slow.hear("queueevent"))[1].data)["n"] for _ in range(100)]
        assert numbers == list(range(100))
    await until(lambda: waiting(hub) == 0)


# What is sent


async def send_raw(client: Client, queue: str, data: str, *, strip: bool = False) -> None:
    await ask(client, pb.QueueMessageRequest(queuename=queue, data=data, striptoken=strip))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("plain text", "plain text"),
        ('{"n": NaN}', '{"n": NaN}'),
        ("{", "{"),
        ("", {}),
        ("null", None),
        ("[1, 2.5, true]", [1, 2.5, True]),
        ('"\\u0000 \\ud83d\\ude00"', "\0 \U0001f600"),
        ('{"a": {"b": [{}]}}', {"a": {"b": [{}]}}),
    ],
)
async def test_any_data_arrives(client: Client, data: str, expected: Any) -> None:
    name, seen = f"queue-{new_id()}", Seen()
    await client.register_queue(name, seen)
    await send_raw(client, name, data)
    await until(lambda: seen.events)
    assert seen.data == [expected]


async def test_who_sent_a_message_is_said_by_the_hub_alone(client: Client) -> None:
    name, seen = f"queue-{new_id()}", Seen()
    await client.register_queue(name, seen)
    forged = json.dumps({"n": 1, "__user": {"name": "root"}, "__jwt": "x"})
    await send_raw(client, name, forged, strip=True)
    await send_raw(client, name, forged)
    await until(lambda: len(seen.events) == 2)
    assert seen.events[0].data == {"n": 1}
    assert client.user is not None
    assert seen.events[1].data["__user"]["_id"] == client.user.id


async def test_a_payload_has_a_limit(client: Client) -> None:
    name = await queue_without_consumer(client)
    with pytest.raises(ServerRefused, match=r"can have 130 MB, not 13\d"):
        await client.queue_message(name, "x" * 131_000_000)


@pytest.mark.parametrize("expiration", [-5, 0, -(2**31)])
async def test_without_an_expiration_a_message_waits_a_minute(hub: Hub, client: Client, expiration: int) -> None:
    name = await queue_without_consumer(client)
    await ask(client, pb.QueueMessageRequest(queuename=name, data="1", expiration=expiration))
    ((expires,),) = rows_of(hub, "SELECT expires FROM waiting WHERE queue = ?", name)
    assert 50_000 < expires - time.time() * 1000 <= 60_000
    assert await received(client, name) == [1]


# Names


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("node", "unknown"),
        ("nodered", "nodered"),
        ("browser", "webapp"),
        ("openrpa", "openrpa"),
        ("powershell", "powershell"),
    ],
)
async def test_private_queues_are_named_by_kind(hub: Hub, kind: str, prefix: str) -> None:
    async with line(hub.url) as wire:
        await wire.ask("signin", pb.SigninRequest(jwt=hub.ready["jwt"], agent=kind))
        _, reply = await wire.ask("registerqueue", pb.RegisterQueueRequest())
        assert reply.queuename.startswith(f"{prefix}.")
        again, _ = await wire.ask("registerqueue", pb.RegisterQueueRequest(queuename=reply.queuename))
        assert again == "registerqueuereply"
        other, _ = await wire.ask("registerqueue", pb.RegisterQueueRequest(queuename=f"{prefix}.{new_id()}"))
        assert other == "error"


ODD_NAMES = [
    "\U0001f600 queue", "İSTANBUL", "ß", "a\tb", "a\nb", "$where", "a.b.c", "' OR 1=1 --", "%_", "__proto__", "null",
    "0", "-1", "unknown", "é" * 200, "59f1f6e6f0a22200126638d8x", "\u202e", "agent", "openflow agent",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_any_name_is_a_name(client: Client, name: str) -> None:
    seen = Seen()
    queue = await client.register_queue(name, seen)
    await client.queue_message(queue.name, 1)
    await client.queue_message(name, 2)
    await until(lambda: len(seen.events) == 2)
    assert [(event.queue, event.data) for event in seen.events] == [(queue.name, 1), (queue.name, 2)]


@pytest.mark.parametrize("name", ["x" * 201, "nul\0", "openflow", " OpenFlow ", "unknown.x", "webapp." + "0" * 24])
async def test_what_cannot_be_a_name_is_refused(client: Client, name: str) -> None:
    for request in (pb.RegisterQueueRequest(queuename=name), pb.RegisterExchangeRequest(exchangename=name)):
        with pytest.raises(ServerRefused, match=r"Access denied|cannot be a queue|AMQP exchange is not enabled"):
            await ask(client, request)


async def test_registering_again_makes_no_second_consumer(client: Client, hub: Hub) -> None:
    name = f"queue-{new_id()}"
    async with line(hub.url) as wire:
        await wire.sign_in(hub)
        for given in (name, name.upper(), f" {name} "):
            _, reply = await wire.ask("registerqueue", pb.RegisterQueueRequest(queuename=given))
            assert reply.queuename == name
        for number in range(4):
            await client.queue_message(name, number)
        assert [(await wire.hear("queueevent"))[1].data for _ in range(4)] == ["0", "1", "2", "3"]
        await wire.ask("unregisterqueue", pb.UnRegisterQueueRequest(queuename=name))
        await client.queue_message(name, 4)
    assert await received(client, name) == [4]


async def document(client: Client, collection: str, **item: Any) -> dict[str, Any]:
    return await client.insert_one(collection, item)


async def may_use(client: Client, name: str) -> bool:
    answers = []
    for request in (pb.RegisterQueueRequest(queuename=name), pb.QueueMessageRequest(queuename=name, expiration=1)):
        try:
            await ask(client, request)
        except ServerRefused as error:
            answers.append(str(error))
    await ask(client, pb.UnRegisterQueueRequest(queuename=name))
    assert answers in ([], [f"Access denied: you may not use the queue {name}."] * 2)
    return not answers


def readable_by(client: Client) -> list[dict[str, Any]]:
    assert client.user is not None
    return [{"_id": client.user.id, "name": "x", "rights": 2}]


async def test_a_name_belongs_to_a_user_then_a_queue_then_an_agent(client: Client, ann: Client, bob: Client) -> None:
    slug = f"agent{new_id()}"
    await document(client, "agents", _type="agent", slug=slug, name=slug, _acl=readable_by(ann))
    for name in (slug, f"{slug}agent"):
        assert await may_use(ann, name)
        assert not await may_use(bob, name)
    await document(
        bob, "mq", _type="queue", name=f"{slug}agent"
    )  # of no meaning: not a word of who may change the agent
    assert await may_use(ann, f"{slug}agent")
    assert not await may_use(bob, f"{slug}agent")
    await document(client, "mq", _type="queue", name=slug, _acl=readable_by(bob))
    assert await may_use(bob, slug)
    assert not await may_use(ann, slug)
    assert ann.user is not None
    await document(bob, "mq", _type="queue", name=ann.user.id)
    assert await may_use(ann, ann.user.id)
    assert not await may_use(bob, ann.user.id)


async def test_a_queue_cannot_be_taken_by_giving_a_document_its_name(ann: Client, bob: Client) -> None:
    name = f"queue-{new_id()}"
    older = await document(bob, "mq", _type="queue", name=f"other-{name}")
    assert await may_use(ann, name)
    await bob.update_one("mq", {**older, "name": name})
    await document(bob, "mq", _type="queue", name=name)
    assert await may_use(ann, name)
    assert not await may_use(bob, name)


async def test_the_queue_of_an_agent_is_not_that_of_a_later_one(ann: Client, bob: Client) -> None:
    for first, later, shared in (("s{}", "s{}agent", "s{}agent"), ("t{}agent", "t{}", "t{}agent")):
        suffix = new_id()
        await document(ann, "agents", _type="agent", slug=first.format(suffix), name="first")
        await document(bob, "agents", _type="agent", slug=later.format(suffix), name="later")
        assert await may_use(ann, shared.format(suffix))
        assert not await may_use(bob, shared.format(suffix))


async def test_who_is_in_a_role_may_use_its_queue(client: Client, ann: Client, bob: Client) -> None:
    assert ann.user is not None
    role = await document(
        client, "users", _type="role", name=f"r{new_id()}", members=[{"_id": ann.user.id, "name": "ann"}]
    )
    assert await may_use(ann, role["_id"])
    assert not await may_use(bob, role["_id"])


async def test_a_queue_is_forgotten_with_its_document(client: Client, hub: Hub, ann: Client, bob: Client) -> None:
    name = f"queue-{new_id()}"
    await (await ann.register_queue(name, Seen())).close()
    await ann.queue_message(name, "for ann")
    (owner,) = await ann.query("mq", {"name": name})
    await ann.delete_one("mq", owner["_id"])
    await until(lambda: rows_of(hub, "SELECT 1 FROM queues WHERE name = ?", name) == [])
    odds: tuple[Any, ...] = ([], {}, None, 1, name * 9)
    for odd in odds:
        await ann.delete_one("mq", (await document(ann, "mq", _type="queue", name=odd))["_id"])
    assert await received(bob, name) == []


async def test_claims_are_counted(hub: Hub) -> None:
    async with user_of(hub, "greedy") as greedy:

        async def claim(number: int) -> None:
            await ask(greedy, pb.RegisterQueueRequest(queuename=f"greedy-{number}"))
            await ask(greedy, pb.UnRegisterQueueRequest(queuename=f"greedy-{number}"))

        await asyncio.gather(*map(claim, range(1000)))
        with pytest.raises(ServerRefused, match="You own 1000 queues: delete some"):
            await claim(1000)
        await greedy.delete_one("mq", (await greedy.query("mq", {"name": "greedy-0"}))[0]["_id"])
        await until(lambda: rows_of(hub, "SELECT 1 FROM queues WHERE name = 'greedy-0'") == [])
        await claim(1000)


async def test_a_connection_has_so_many_queues(hub: Hub) -> None:
    async with line(hub.url) as wire:
        await wire.sign_in(hub)
        for _ in range(1000):
            assert (await wire.ask("registerqueue", pb.RegisterQueueRequest()))[0] == "registerqueuereply"
        command, error = await wire.ask("registerqueue", pb.RegisterQueueRequest())
        assert command == "error"
        assert "can consume 1000 queues" in error.message


# The hub is killed


async def send_until_gone(client: Client, name: str, sender: int, sent: list[int], acknowledged: set[int]) -> None:
    """Send numbers in order, until the hub is gone."""
    with contextlib.suppress(AgentError):
        for number in range(sender, 1_000_000, SENDERS):
            sent.append(number)
            await client.queue_message(name, number, expiration_ms=600_000)
            acknowledged.add(number)


async def test_kill_9_amid_messages_delivers_each_once(home: Home, budgets: dict[str, int]) -> None:
    seed = int(os.environ.get("JUPYTER_AGENT_SEED") or time.time_ns())
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    total = 0
    with running_hub(home) as hub:
        for turn in range(budgets.get("queue_kills", 10)):
            name, where = f"queue-{turn}", f"seed {seed}, turn {turn}"
            early, sent, acknowledged = Seen(), list[int](), set[int]()
            is_consumed = turn % 2 == 1
            async with contextlib.AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(hub.client()) for _ in range(SENDERS + 1)]
                await (await clients[0].register_queue(name, Seen())).close()
                async with asyncio.TaskGroup() as tasks:
                    for sender, client in enumerate(clients[1:]):
                        tasks.create_task(send_until_gone(client, name, sender, sent, acknowledged))
                    await asyncio.sleep(chance.uniform(0.02, 0.4))  # the moment is what is tried
                    if is_consumed:
                        with contextlib.suppress(AgentError):
                            await clients[0].register_queue(name, early)
                        await asyncio.sleep(chance.uniform(0, 0.1))
                    hub.kill()
            hub.start()
            async with hub.client() as client:
                late = await received(client, name)
            got = [event.data for event in early.events] + late
            assert len(got) == len(set(got)), where
            assert set(got) <= set(sent), where
            if not is_consumed:
                assert acknowledged <= set(got), where
                total += len(acknowledged)
            for sender in range(SENDERS):
                mine = [number for number in late if number % SENDERS == sender]
                assert mine == sorted(mine), where
    assert total
