"""The hub over the wire: a hub's own process, and our client in this one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import mongomock
import orjson
import psutil

from jupyter_agent.home import Home
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from tests.bench.figures import Figure, bench
from tests.hub_peers import ask
from tests.openflow_peers import Hub, running_hub

MIB = 1 << 20
DOCUMENTS = 100_000
PER_TYPE = 500
PER_CALL = 1000
IN_FLIGHT = 64
CLIENTS = 16
SECONDS = 4.0
FILE = 64 * MIB
TEXT = "The quick brown fox jumps over the lazy dog. " * 9
IN_PROCESS = "sqlite3 in this process, no network, no rights, no history"


def document(number: int) -> dict[str, Any]:
    """One of those that are there: about 600 bytes."""
    return {
        "_id": f"d{number:07}",
        "_type": f"kind{number % (DOCUMENTS // PER_TYPE)}",
        "name": f"document {number}",
        "n": number,
        "price": number / 7,
        "tags": ["red", "green", str(number % 10)],
        "place": {"city": "Aarhus", "at": "2026-01-02T03:04:05.678Z"},
        "text": TEXT,
    }


@functools.cache
def filled() -> tuple[tempfile.TemporaryDirectory[str], float]:
    """The home of a hub with all documents, and how many a second it took over the wire."""
    folder = tempfile.TemporaryDirectory(prefix="ja-")

    async def fill(hub: Hub) -> float:
        async with hub.client(timeout_s=120) as client:
            start = time.perf_counter()
            for first in range(0, DOCUMENTS, PER_CALL):
                items = orjson.dumps([document(first + each) for each in range(PER_CALL)]).decode()
                await ask(client, pb.InsertManyRequest(collectionname="things", items=items, skipresults=True))
            return DOCUMENTS / (time.perf_counter() - start)

    with running_hub(Home(Path(folder.name) / "home")) as hub:
        return folder, asyncio.run(fill(hub))


@contextlib.contextmanager
def full_hub() -> Iterator[Hub]:
    """A hub of its own with all documents."""
    with tempfile.TemporaryDirectory(prefix="ja-") as folder:
        shutil.copytree(Path(filled()[0].name) / "home", Path(folder) / "home")
        with running_hub(Home(Path(folder) / "home")) as hub:
            yield hub


@contextlib.asynccontextmanager
async def clients(hub: Hub, count: int) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(hub.client(timeout_s=120)) for _ in range(count)]
        for client in opened:
            await client.connected()
        yield opened


async def rate(work: Callable[[int], Awaitable[Any]], lanes: int) -> float:
    """How often a second ``work(lane)`` gets done, one after the other in each of the lanes."""
    end = time.perf_counter() + SECONDS

    async def lane(number: int) -> int:
        done = 0
        while time.perf_counter() < end:
            await work(number)
            done += 1
        return done

    start = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(lane(number)) for number in range(lanes)]
    return sum(task.result() for task in made) / (time.perf_counter() - start)


def new_document() -> dict[str, Any]:
    """A document whose id the hub makes."""
    return {name: value for name, value in document(7).items() if name != "_id"}


def sqlite_inserts() -> float:
    """Durable inserts a second of the same text into the same table, a commit each."""
    with tempfile.TemporaryDirectory(prefix="ja-") as folder:
        database = sqlite3.connect(Path(folder) / "peer.db", isolation_level=None)
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
            database.execute(statement)
        database.execute("CREATE TABLE things (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, doc TEXT)")
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS / 2:
            text = orjson.dumps(new_document()).decode()
            database.execute("INSERT INTO things (id, doc) VALUES (?, ?)", (str(done), text))
            done += 1
        database.close()
        return done / (time.perf_counter() - start)


@bench("hub_fill", goal="100,000 documents over the wire in calls of 1,000: at least 8,000 a second", kind="budget")
def hub_fill() -> Iterator[Figure]:
    """Filling an empty hub by ``insertmany``, one call after the other."""
    yield Figure(round(filled()[1]), "documents/s")


@bench("hub_inserts", goal="1,000 durable inserts a second from one client at 100,000 documents", kind="comparison")
def hub_inserts() -> Iterator[Figure]:
    """Each is on disk before its reply. One client: with 64 requests under way, and one after the other."""

    async def measure(hub: Hub, lanes: int) -> float:
        async with clients(hub, 1) as (client,):
            return await rate(lambda _: client.insert_one("things", new_document()), lanes)

    with full_hub() as hub:
        for name, lanes in (("hub_inserts", IN_FLIGHT), ("hub_inserts_one_after_the_other", 1)):
            found = asyncio.run(measure(hub, lanes))
            yield Figure(round(found), "inserts/s", IN_PROCESS, round(sqlite_inserts()), name)


@bench("hub_inserts_16", goal="3,000 durable inserts a second from 16 clients at 100,000 documents", kind="comparison")
def hub_inserts_16() -> Iterator[Figure]:
    """16 connections with 4 requests under way each."""

    async def measure(hub: Hub) -> float:
        async with clients(hub, CLIENTS) as opened:
            return await rate(lambda lane: opened[lane % CLIENTS].insert_one("things", new_document()), IN_FLIGHT)

    with full_hub() as hub:
        yield Figure(round(asyncio.run(measure(hub))), "inserts/s", IN_PROCESS, round(sqlite_inserts()))


@functools.cache
def mongomock_things() -> Any:
    """The same documents in the library that tests would use instead of a server."""
    things = mongomock.MongoClient().db.things
    things.insert_many(document(number) for number in range(DOCUMENTS))
    return things


def mean_s(work: Callable[[], Any], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


@bench("hub_queries_by_id", goal="3,000 queries by id a second at 100,000 documents", kind="comparison")
def hub_queries_by_id() -> Iterator[Figure]:
    """One client with 64 requests under way; and one after the other."""
    chance = random.Random(1)  # noqa: S311 - which ones is no secret

    def wanted() -> dict[str, str]:
        return {"_id": f"d{chance.randrange(DOCUMENTS):07}"}

    async def measure(hub: Hub, lanes: int) -> float:
        async with clients(hub, 1) as (client,):
            assert [each["name"] for each in await client.query("things", {"_id": "d0000077"})] == ["document 77"]
            return await rate(lambda _: client.query("things", wanted(), top=1), lanes)

    peer = 1 / mean_s(lambda: list(mongomock_things().find(wanted())), 20)
    with full_hub() as hub:
        for name, lanes in (("hub_queries_by_id", IN_FLIGHT), ("hub_queries_by_id_one_after_the_other", 1)):
            found = asyncio.run(measure(hub, lanes))
            yield Figure(round(found), "queries/s", "mongomock in this process", round(peer, 1), name)


@bench("hub_indexed_query", goal="an indexed query of 500 hits in 15 ms at 100,000 documents", kind="comparison")
def hub_indexed_query() -> Iterator[Figure]:
    """The median of 100, one after the other, documents and all, by the index that every collection has."""
    chance = random.Random(1)  # noqa: S311 - which ones is no secret

    def wanted() -> dict[str, str]:
        return {"_type": f"kind{chance.randrange(DOCUMENTS // PER_TYPE)}"}

    async def measure(hub: Hub) -> float:
        async with clients(hub, 1) as (client,):
            times = []
            for _ in range(100):
                start = time.perf_counter()
                found = await client.query("things", wanted(), top=PER_TYPE)
                times.append(time.perf_counter() - start)
                assert len(found) == PER_TYPE
            return statistics.median(times)

    peer = mean_s(lambda: list(mongomock_things().find(wanted())), 5)
    with full_hub() as hub:
        ours = asyncio.run(measure(hub))
        yield Figure(round(ours * 1000, 1), "ms", "mongomock in this process", round(peer * 1000, 1))


@bench("hub_files", goal="64 MiB up and down at 100 MB/s or more, the hub grows by less than 32 MiB", kind="budget")
def hub_files() -> Iterator[Figure]:
    """The best of five; the peer is the same file written and fsynced, and read, in this process."""
    with tempfile.TemporaryDirectory(prefix="ja-") as folder, full_hub() as hub:
        path = Path(folder) / "big"
        path.write_bytes(os.urandom(FILE))
        assert hub.process is not None
        process = psutil.Process(hub.process.pid)
        up, down, grown = asyncio.run(files(hub, path, process))
        written, read = (min(work(path) for _ in range(3)) for work in (copied, taken))
        yield Figure(round(FILE / up / 1e6), "MB/s", "written here", round(FILE / written / 1e6), "hub_files_up")
        yield Figure(round(FILE / down / 1e6), "MB/s", "read here", round(FILE / read / 1e6), "hub_files_down")
        yield Figure(round(grown, 1), "MiB", name="hub_files_memory")


async def files(hub: Hub, path: Path, process: psutil.Process) -> tuple[float, float, float]:
    """Seconds up, seconds down, and the most MiB that the hub grew by."""
    async with clients(hub, 1) as (client,):
        (path.parent / "in").mkdir()
        small = path.with_name("small")
        small.write_bytes(bytes(MIB))
        await client.download(await client.upload(small), path.parent)  # what is loaded once
        before, most = process.memory_info().rss, 0
        ups, downs = [], []

        async def look() -> None:
            nonlocal most
            while True:
                most = max(most, process.memory_info().rss - before)
                await asyncio.sleep(0.02)

        looking = asyncio.create_task(look())
        for _ in range(5):
            start = time.perf_counter()
            file = await client.upload(path)
            ups.append(time.perf_counter() - start)
            start = time.perf_counter()
            arrived = await client.download(file, path.parent / "in")
            downs.append(time.perf_counter() - start)
            assert arrived.stat().st_size == FILE
            arrived.unlink()
        looking.cancel()
    return min(ups), min(downs), most / MIB


def copied(path: Path) -> float:
    """Seconds of writing a file that is then on disk."""
    data, start = path.read_bytes(), time.perf_counter()
    with path.with_name("peer").open("wb") as file:
        for first in range(0, FILE, MIB):
            file.write(data[first : first + MIB])
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - start


def taken(path: Path) -> float:
    """Seconds of reading it and writing it elsewhere."""
    start = time.perf_counter()
    with path.open("rb") as source, path.with_name("peer").open("wb") as file:
        shutil.copyfileobj(source, file, MIB)
    return time.perf_counter() - start
