"""Bad input, cut uploads, big documents, crowds and long service: the hub stays up, fair, and the same size."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from jupyter_agent.errors import ServerRefused
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Session, encode_json, unpack
from tests.hub_noise import broken_bytes, odd_request
from tests.hub_peers import Line, ask, hub_on_a_new_home, line, rows_of, user_of
from tests.openflow_peers import DEADLINE_S, Hub, names_in, until

MIB = 1 << 20
LANES = 6
PER_CONNECTION = 40
PATIENCE_S = 120


def new_chance() -> random.Random:
    """Random, and told so that it can be had again: ``JUPYTER_AGENT_SEED``."""
    seed = int(os.environ.get("JUPYTER_AGENT_SEED") or time.time_ns())
    print(f"seed {seed}")
    return chances(seed)


def chances(seed: float) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a test's


def memory(hub: Hub) -> int:
    assert hub.process is not None
    return psutil.Process(hub.process.pid).memory_info().rss


@contextlib.asynccontextmanager
async def a_decent_client(hub: Hub) -> AsyncIterator[Client]:
    """One that works all the while, and is answered all the while."""
    async with hub.client(timeout_s=20) as client:
        await client.insert_one("decent", {"_id": "d", "n": 0})
        done = 0

        async def work() -> None:
            nonlocal done
            while True:
                await client.update_document("decent", {"_id": "d"}, {"$inc": {"n": 1}})
                done += 1
                assert (await client.query("decent", {"_id": "d"}))[0]["n"] == done
                await asyncio.sleep(0.01)

        working = asyncio.create_task(work())
        try:
            yield client
            if working.done():
                working.result()
            assert done
        finally:
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
            await client.delete_one("decent", "d")


async def test_requests_that_make_no_sense_are_all_answered(budgets: dict[str, int]) -> None:
    with hub_on_a_new_home() as hub:
        chance, count = new_chance(), budgets["mangled_frames"] * 2 // 3
        async with user_of(hub, "odd") as user, a_decent_client(hub):
            token = await user.mint_token(long=True)

            async def lane(lane_chance: random.Random, share: int) -> None:
                for first in range(0, share, PER_CONNECTION):
                    await odd_conversation(hub, token, lane_chance, min(PER_CONNECTION, share - first))

            await in_lanes(lane, chance, count // 4)
            warm = memory(hub)
            await in_lanes(lane, chance, count - count // 4)
            assert memory(hub) - warm < 48 * MIB
        assert rows_of(hub, "PRAGMA integrity_check") == [("ok",)]


async def in_lanes(
    lane: Callable[[random.Random, int], Coroutine[Any, Any, None]], chance: random.Random, share: int
) -> None:
    """Divide the share among lanes that go side by side, each with chances of its own."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(LANES):
            tasks.create_task(lane(chances(chance.random()), share // LANES))


async def odd_conversation(hub: Hub, token: str, chance: random.Random, count: int) -> None:
    """Each request gets one answer; none of these is a fault of the hub's own."""
    async with line(hub.url) as wire:
        await wire.ask("signin", pb.SigninRequest(jwt=token, ping=True))
        asked: dict[str, str] = {}
        for _ in range(count):
            name, command, record = odd_request(wire.session, chance)
            asked[name] = command
            await wire.socket.send(record)
        async with asyncio.timeout(PATIENCE_S):
            while asked:
                data = await wire.socket.recv()
                assert isinstance(data, bytes)
                for envelope in wire.session.receive(data):
                    if (command := asked.pop(envelope.rid, "")) and envelope.command == "error":
                        message = unpack(envelope).message  # type: ignore[attr-defined]
                        assert "fault of its own" not in message, f"{command}: {message}"


async def test_records_that_are_broken_end_their_own_connection_alone(budgets: dict[str, int]) -> None:
    with hub_on_a_new_home() as hub:
        chance, count = new_chance(), budgets["mangled_frames"] // 3
        async with user_of(hub, "odd") as user, a_decent_client(hub) as decent:
            token = await user.mint_token(long=True)

            async def lane(lane_chance: random.Random, share: int) -> None:
                for _ in range(share):
                    await broken_conversation(hub, token, lane_chance)

            await in_lanes(lane, chance, count // 4)
            warm = memory(hub)
            await in_lanes(lane, chance, count - count // 4)
            await until_alone(decent, 2)
            assert memory(hub) - warm < 32 * MIB
        assert rows_of(hub, "PRAGMA integrity_check") == [("ok",)]


async def broken_conversation(hub: Hub, token: str, chance: random.Random) -> None:
    session = Session()
    records = [session.envelope("signin", pb.SigninRequest(jwt=token, ping=True))]
    records += [odd_request(session, chance)[2] for _ in range(chance.randrange(1, 5))]
    data = broken_bytes(records if chance.random() < 0.5 else records[1:], chance)
    with contextlib.suppress(ConnectionClosed):
        async with line(hub.url) as wire:
            cut = chance.randrange(1 + len(data))
            for piece in (data[:cut], data[cut:]):
                await wire.socket.send(piece)
            if chance.random() < 0.2:
                wire.socket.transport.abort()


async def until_alone(client: Client, count: int) -> None:
    """Wait until the hub has so many clients left."""
    deadline = time.monotonic() + DEADLINE_S
    while len(await client.custom_command("getclients")) > count:
        assert time.monotonic() < deadline, "connections stay"
        await asyncio.sleep(0.05)


async def test_records_that_come_cut_joined_and_out_of_order_are_all_done(hub: Hub) -> None:
    chance = new_chance()
    async with line(hub.url) as wire:
        await wire.sign_in(hub)
        names = [f"q{number}" for number in range(90)]
        request = pb.InsertOneRequest(collectionname="muddled", item='{"n": 1}')
        records = [wire.session.envelope("insertone", request, id=name) for name in names]
        chance.shuffle(records)
        data = b"".join(records)
        while data:
            size = chance.randrange(1, 700)
            await wire.socket.send(data[:size])
            data = data[size:]
        answered: set[str] = set()
        async with asyncio.timeout(PATIENCE_S):
            while len(answered) < len(names):
                received = await wire.socket.recv()
                assert isinstance(received, bytes)
                answered |= {e.rid for e in wire.session.receive(received) if e.command == "insertonereply"}
        _, reply = await wire.ask("count", pb.CountRequest(collectionname="muddled"))
        assert reply.result == len(names)


async def test_a_record_that_comes_again_ends_the_connection_and_is_not_done_again(hub: Hub) -> None:
    async with hub.client() as client:
        async with line(hub.url) as wire:
            await wire.sign_in(hub)
            record = wire.session.envelope("insertone", pb.InsertOneRequest(collectionname="doubled", item="{}"))
            await wire.socket.send(record + record)
            await wire.socket.wait_closed()
        assert await client.count("doubled", {}) in (0, 1)  # its connection may have ended before it was begun


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": "\\ud800"}',
        '{"\\udfff": 1}',
        '{"a": 1,}',
        "{'a': 1}",
        '{"a": 1} {"b": 2}',
        '{"a": {"$date": 5}}',
        '{"_id": 5}',
        '{"a____b": 1}',
        '{"_id": "a\\u0000b"}',
        "[]",
        "null",
        "",
    ],
)
async def test_what_is_no_document_is_refused_in_a_sentence(hub: Hub, text: str) -> None:
    async with hub.client() as client:
        before = await client.count("odd", {})
        with pytest.raises(ServerRefused, match=r"^[A-Z].*\."):
            await ask(client, pb.InsertOneRequest(collectionname="odd", item=text))
        assert await client.count("odd", {}) == before


@pytest.mark.parametrize(
    "document",
    [
        {"at": "aaaaaaaaaaaaaaaaaaaaaaaZ"},
        {"at": "2026-13-45T99:99:99.999Z"},
        {"at": "9999-12-31T23:59:59.999Z"},
        {"at": "2024-01-02T03:04:05Z"},
        {"a.b": 1, "c": {"d.e": [{"f.g": 2}]}},
        {"$ref": "x", "a": {"$set": 1}},
        {"": 1, "\u2028": "\U0001f600"},
        {"n": [0, -1, 2**53, -(2**63), 1e308, 5e-324]},
    ],
)
async def test_odd_values_and_names_come_back_as_they_were(hub: Hub, document: dict[str, Any]) -> None:
    async with hub.client() as client:
        made = await client.insert_one("odd", document)
        (found,) = await client.query("odd", {"_id": made["_id"]})
        assert {name: value for name, value in found.items() if not name.startswith("_")} == document
        await client.delete_one("odd", made["_id"])


CUTS = ("upload", "beginstream", "stream", "half a part", "many parts", "endstream", "half an endstream")


@pytest.mark.parametrize("is_abrupt", [False, True], ids=["closed", "aborted"])
@pytest.mark.parametrize("cut", CUTS)
async def test_an_upload_that_is_cut_leaves_nothing(hub: Hub, cut: str, *, is_abrupt: bool) -> None:
    async with hub.client() as client:
        before, folder = await client.count("fs.files", {}), hub.home / "hub" / "files"
        names = names_in(folder)
        async with line(hub.url) as wire:
            await wire.sign_in(hub)
            await cut_upload(wire, cut)
            if is_abrupt:
                wire.socket.transport.abort()
        if cut == "endstream":  # all of it was there: it is kept whole or not at all
            await until_alone(client, 1)
            assert await client.count("fs.files", {}) - before == len(set(names_in(folder)) - set(names))
        else:
            await until(lambda: names_in(folder) == names, "nothing is left of it")
            assert await client.count("fs.files", {}) == before


async def cut_upload(wire: Line, cut: str) -> None:
    """Send an upload until and with the part that ``cut`` names."""
    id = await wire.say("upload", pb.UploadRequest(filename="cut"))  # noqa: A001 - what OpenFlow calls it
    if cut == "upload":
        return
    await wire.say("beginstream", pb.BeginStream(), rid=id)
    if cut == "beginstream":
        return
    for _ in range(40 if cut == "many parts" else 1):
        await wire.say("stream", pb.Stream(data=bytes(200_000)), rid=id)
    if cut == "half a part":
        await wire.socket.send(wire.session.envelope("stream", pb.Stream(data=bytes(200_000)), rid=id)[:100_000])
    elif cut == "endstream":
        await wire.say("endstream", pb.EndStream(), rid=id)
    elif cut == "half an endstream":
        await wire.socket.send(wire.session.envelope("endstream", pb.EndStream(), rid=id)[:9])


async def test_a_file_comes_in_parts_of_any_size_and_takes_little_memory(hub: Hub) -> None:
    before = memory(hub)
    async with line(hub.url) as wire, hub.client() as client:
        await wire.sign_in(hub)
        id = await wire.say("upload", pb.UploadRequest(filename="odd parts"))  # noqa: A001 - what OpenFlow calls it
        await wire.say("beginstream", pb.BeginStream(), rid=id)
        most = 0
        for size in (0, 1, 30_000_000, 0, 30_000_000, 7, 30_000_000, *[0] * 3000, *[100_000] * 300):
            await wire.say("stream", pb.Stream(data=bytes(size)), rid=id)
            most = max(most, memory(hub) - before)
        await wire.say("endstream", pb.EndStream(), rid=id)
        command, reply = await wire.hear(rid=id)
        assert command == "uploadreply"
        (file,) = await client.query("fs.files", {"_id": reply.id})
        assert file["length"] == 120_000_008
        assert most < 200 * MIB  # a part, the record that it came in, and the message that held that
        await client.delete_one("fs.files", reply.id)


async def test_documents_of_20_mb_are_refused_and_those_that_fit_come_back(hub: Hub) -> None:
    async with hub.client(timeout_s=60) as client, a_decent_client(hub):
        with pytest.raises(ServerRefused, match=r"too big: at most 16 can be stored\."):
            await client.insert_one("big", {"text": "x" * 20_000_000})
        with pytest.raises(ServerRefused, match=r"too big: at most 16 can be stored\."):
            await client.insert_one("big", {"many": [{"n": n, "name": f"name {n}"} for n in range(600_000)]})
        assert await client.count("big", {}) == 0
        text = 'é\u2028"' * 2_000_000
        made = await client.insert_one("big", {"text": text})
        assert made["text"] == text
        (found,) = await client.query("big", {"_id": made["_id"]})
        assert found["text"] == text
        assert (await client.update_one("big", {**found, "text": "short"}))["text"] == "short"
        twice = [{"text": "y" * 10_000_000} for _ in range(3)]
        await ask(client, pb.InsertManyRequest(collectionname="big", items=encode_json(twice), skipresults=True))
        assert [len(each["text"]) for each in await client.query("big", {"text": {"$ne": "short"}})] == [10_000_000] * 3
        await client.delete_many("big", {})


async def test_big_documents_leave_no_memory_behind() -> None:
    with hub_on_a_new_home() as hub:
        async with hub.client(timeout_s=PATIENCE_S) as client:
            for number in range(5):
                text = {"text": "x" * 14_000_000}
                many = {"many": [{"n": number, "name": f"name {n}"} for n in range(200_000)]}
                made = await client.insert_one("big", many if number % 2 else text)
                assert len(await client.query("big", {"_id": made["_id"]})) == 1
                await client.delete_one("big", made["_id"])
            assert memory(hub) < 200 * MIB


async def test_who_never_reads_holds_up_nobody_and_takes_little(hub: Hub) -> None:
    async with hub.client() as client, a_decent_client(hub):
        await client.insert_one("long", {"_id": "l", "text": "x" * 2_000_000})
        before = memory(hub)
        async with line(hub.url, max_queue=1) as wire:
            await wire.sign_in(hub)
            wire.socket.transport.pause_reading()
            request = pb.QueryRequest(collectionname="long", query="{}")
            asking = asyncio.create_task(say_often(wire, request, 500))
            most = 0
            for number in range(100):  # the while that others work
                assert (await client.query("long", {}, projection={"_id": 1}))[0]["_id"] == "l"
                await client.insert_one("others", {"n": number})
                most = max(most, memory(hub) - before)
            assert not asking.done() or asking.exception() is None
            asking.cancel()
            assert most < 128 * MIB
            wire.socket.transport.abort()
        await client.delete_many("others", {})


async def say_often(wire: Line, request: pb.QueryRequest, count: int) -> None:
    for _ in range(count):
        await wire.say("query", request)


async def test_a_thousand_clients_at_once_all_work_and_leave_nothing_behind(budgets: dict[str, int]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096) if hard > 0 else 4096, hard))
    try:
        with hub_on_a_new_home() as hub:
            async with hub.client(timeout_s=PATIENCE_S) as client:
                after: list[int] = []
                for _ in range(budgets["hub_crowds"]):
                    await a_crowd(hub, client, 1000)
                    await until_alone(client, 1)
                    after.append(memory(hub))
                assert after[-1] - after[0] < 16 * MIB, after
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def a_crowd(hub: Hub, client: Client, count: int) -> None:
    """So many connections at once; each inserts a document and reads it again."""
    doors = asyncio.Semaphore(50)
    async with contextlib.AsyncExitStack() as stack:

        async def enter() -> Line:
            async with doors:
                wire = await stack.enter_async_context(line(hub.url, open_timeout=PATIENCE_S, ping_interval=None))
                await wire.sign_in(hub)
                return wire

        async def work(wire: Line, number: int) -> None:
            item = f'{{"_id": "c{number}", "n": {number}}}'
            command, _ = await wire.ask("insertone", pb.InsertOneRequest(collectionname="crowd", item=item))
            assert command == "insertonereply"
            request = pb.QueryRequest(collectionname="crowd", query=f'{{"_id": "c{number}"}}')
            command, reply = await wire.ask("query", request)
            assert command == "queryreply"
            assert f'"n":{number}' in reply.results

        async with asyncio.timeout(PATIENCE_S):
            wires = await asyncio.gather(*(enter() for _ in range(count)))
            assert len(await client.custom_command("getclients")) == count + 1
            await asyncio.gather(*(work(wire, number) for number, wire in enumerate(wires)))
        assert await client.delete_many("crowd", {}) == count


async def test_long_service_takes_no_more_memory(budgets: dict[str, int], tmp_path: Path) -> None:
    with hub_on_a_new_home() as hub:
        count = budgets["mixed_requests"]
        async with hub.client(timeout_s=PATIENCE_S) as client:
            for number in range(200):
                await client.insert_one("mixed", {"_id": f"m{number}", "n": 0, "text": "x" * 500})
            (tmp_path / "file").write_bytes(bytes(100_000))
            await mixed_work(client, count // 4, tmp_path)
            warm = memory(hub)
            await mixed_work(client, count - count // 4, tmp_path)
            assert memory(hub) - warm < 24 * MIB
            assert await client.count("mixed", {}) == 200


async def mixed_work(client: Client, count: int, folder: Path) -> None:
    chance = chances(count)
    works: list[Callable[[int, str], Any]] = [
        lambda n, _: client.query("mixed", {"n": {"$gt": n % 7}}, top=20),
        lambda _, key: client.query("mixed", {"_id": key}),
        lambda _, key: client.query("mixed", {"_id": key}, projection={"n": 1}),
        lambda _, key: client.update_document("mixed", {"_id": key}, {"$inc": {"n": 1}}),
        lambda n, key: client.update_document("mixed", {"_id": key}, {"$set": {f"f{n % 5}": [n]}}),
        lambda _, key: client.count("mixed", {"_id": key}),
        lambda n, _: come_and_go(client, n),
        lambda n, _: client.queue_message("nobody.is.here", {"n": n}, expiration_ms=50),
    ]

    async def lane(number: int) -> None:
        for done in range(count // 32):
            with contextlib.suppress(ServerRefused):
                await chance.choice(works)(done * 100 + number, f"m{chance.randrange(200)}")
            if done % 200 == 199 and number == 0:
                await client.delete_one("fs.files", await client.upload(folder / "file"))

    async with asyncio.TaskGroup() as tasks:
        for number in range(32):
            tasks.create_task(lane(number))


async def come_and_go(client: Client, number: int) -> None:
    made = await client.insert_one("passing", {"n": number})
    await client.delete_one("passing", made["_id"])
