"""Kill -9 at any moment: what was acknowledged is there, and nothing is half done."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jupyter_agent.errors import AgentError, ServerRefused
from jupyter_agent.home import Home
from jupyter_agent.openflow.client import Client
from tests.conftest import small_file_system
from tests.hub_peers import rows_of
from tests.openflow_peers import Hub, names_in, running_hub

WRITERS = 4


@dataclass
class Acknowledged:
    """What the hub said it has."""

    inserts: set[str] = field(default_factory=set)
    updates: dict[str, int] = field(default_factory=dict)
    deletes: set[str] = field(default_factory=set)
    uploads: dict[str, bytes] = field(default_factory=dict)


async def write_documents(client: Client, known: Acknowledged, name: str) -> None:
    """Insert, replace, change, delete, until the hub is gone."""
    for number in range(1_000_000):
        document = await client.insert_one("things", {"_id": f"{name}-{number}", "n": 0})
        known.inserts.add(document["_id"])
        await client.update_one("things", {**document, "n": 1})
        known.updates[document["_id"]] = 1
        await client.update_document("things", {"_id": document["_id"]}, {"$inc": {"n": 1}})
        known.updates[document["_id"]] = 2
        if number % 3 == 0:
            await client.delete_one("things", document["_id"])
            known.deletes.add(document["_id"])


async def write_files(client: Client, known: Acknowledged, folder: Path, chance: random.Random) -> None:
    """Upload files, until the hub is gone."""
    while True:
        data = chance.randbytes(chance.randrange(1, 600_000))
        path = folder / "upload"
        path.write_bytes(data)
        known.uploads[await client.upload(path)] = hashlib.sha256(data).digest()


async def until_gone(work: Awaitable[None]) -> None:
    with contextlib.suppress(AgentError):
        await work


@contextlib.asynccontextmanager
async def clients(hub: Hub, count: int) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(hub.client()) for _ in range(count)]
        for client in opened:
            await client.connected()
        yield opened


async def test_kill_9_loses_nothing_that_was_acknowledged(home: Home, tmp_path: Path, budgets: dict[str, int]) -> None:
    seed = int(os.environ.get("JUPYTER_AGENT_SEED") or time.time_ns())
    chance = random.Random(seed)  # noqa: S311 - moments and contents, no secrets
    known = Acknowledged()
    with running_hub(home) as hub:
        for turn in range(budgets.get("hub_kills", 20)):
            async with clients(hub, WRITERS + 1) as opened, asyncio.TaskGroup() as tasks:
                for number, client in enumerate(opened[1:]):
                    tasks.create_task(until_gone(write_documents(client, known, f"{turn}-{number}")))
                tasks.create_task(until_gone(write_files(opened[0], known, tmp_path, chance)))
                await asyncio.sleep(chance.uniform(0.02, 0.6))  # the moment is what is tried
                hub.kill()
            hub.start()
            check_store(hub, known, f"seed {seed}, turn {turn}")
        assert known.updates
        assert known.uploads
        async with clients(hub, 1) as (client,):
            (tmp_path / "in").mkdir()
            for file, digest in random.Random(seed).sample(sorted(known.uploads.items()), 3):  # noqa: S311
                path = await client.download(file, tmp_path / "in")
                assert hashlib.sha256(path.read_bytes()).digest() == digest
                path.unlink()


def check_store(hub: Hub, known: Acknowledged, where: str) -> None:
    assert rows_of(hub, "PRAGMA integrity_check") == [("ok",)], where
    things, files, history = (
        rows_of(hub, f"SELECT n FROM collections WHERE name = '{name}'")[0][0]  # noqa: S608
        for name in ("things", "fs.files", "things_hist")
    )
    found = dict(rows_of(hub, f"SELECT id, json_extract(doc, '$.n') FROM c{things}"))  # noqa: S608
    gone = known.deletes
    assert known.inserts - gone - set(found) <= maybe_deleted(known), where
    assert not gone & set(found), where
    assert {key for key, n in known.updates.items() if key in found and found[key] < n} == set(), where
    versions = f"SELECT json_extract(doc, '$.id') FROM c{history} WHERE json_extract(doc, '$._version') = 0"  # noqa: S608
    old = {key for (key,) in rows_of(hub, versions)}
    assert set(known.updates) <= old, where
    stored = {key for (key,) in rows_of(hub, f"SELECT id FROM c{files}")}  # noqa: S608
    folder = hub.home / "hub" / "files"
    assert set(known.uploads) <= stored, where
    assert set(names_in(folder)) == stored, where
    for key, digest in known.uploads.items():
        assert hashlib.sha256((folder / key).read_bytes()).digest() == digest, where


def maybe_deleted(known: Acknowledged) -> set[str]:
    """Those whose deletion was asked for and may have been done without an answer."""
    return {key for key in known.inserts if int(key.rsplit("-", 1)[1]) % 3 == 0}


async def test_a_disk_that_takes_no_more_is_said_and_harms_nothing(home: Home, tmp_path: Path) -> None:
    with running_hub(home) as hub:
        async with clients(hub, 1) as (client,):
            before = await client.insert_one("things", {"n": 1})
            assert hub.process is not None
            no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            (tmp_path / "big").write_bytes(bytes(3_000_000))
            resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
            with pytest.raises(ServerRefused, match=r"hub\.db cannot be written .* Nothing was changed\."):
                await client.insert_one("things", {"text": "x" * 3_000_000})
            with pytest.raises(ServerRefused, match=r"The file could not be kept in .*files \(File too large\)\."):
                await client.upload(tmp_path / "big")
            assert await client.query("things", {}) == [before]
            resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, no_limit)
            assert names_in(hub.home / "hub" / "files") == []
            await client.insert_one("things", {"text": "x" * 3_000_000})
            file = await client.upload(tmp_path / "big")
            assert await client.count("things", {}) == 2
            assert names_in(hub.home / "hub" / "files") == [file]
        assert rows_of(hub, "PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    with small_file_system(tmp_path / "small", "size=18m") as folder:
        yield folder


async def test_on_a_full_disk_nothing_is_lost_and_with_room_the_hub_goes_on(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3_000_000))
    with running_hub(Home(small_disk / "home")) as hub:
        async with clients(hub, 4) as opened:
            first = await opened[0].upload(tmp_path / "big")
            (small_disk / "filler").write_bytes(bytes(8_000_000))
            known: set[str] = set()
            refusals = await asyncio.gather(*(insert_until_refused(client, known) for client in opened))
            assert known
            for refusal in refusals:
                assert "is full: free some space and try again. Nothing was changed." in refusal
            with pytest.raises(ServerRefused, match=r"is full: free some space and try again\. Nothing was kept\."):
                await opened[0].upload(tmp_path / "big")
            assert names_in(hub.home / "hub" / "files") == [first]
            assert {each["_id"] for each in await opened[1].query("things", {}, top=100_000)} == known
            (small_disk / "filler").unlink()
            made = await opened[2].insert_one("things", {"text": "x" * 20_000})
            second = await opened[0].upload(tmp_path / "big")
            assert names_in(hub.home / "hub" / "files") == sorted([first, second])
        hub.kill()
        hub.start()
        async with clients(hub, 1) as (client,):
            assert {each["_id"] for each in await client.query("things", {}, top=100_000)} == {*known, made["_id"]}
        assert rows_of(hub, "PRAGMA integrity_check") == [("ok",)]


async def insert_until_refused(client: Client, known: set[str]) -> str:
    while True:
        try:
            known.add((await client.insert_one("things", {"text": "x" * 20_000}))["_id"])
        except ServerRefused as error:
            return str(error)
