"""Kill -9 amid pushes, pops and updates: what was acknowledged stands, and items and files agree."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from dataclasses import dataclass, field
from typing import Any

from jupyter_agent.home import Home
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from tests.hub_peers import ask, rows_of
from tests.openflow_peers import Hub, names_in, running_hub
from tests.test_hub_durability import clients, until_gone
from tests.workitem_peers import add, file, pop, push, update

PUSHERS, WORKERS = 2, 3
STATES = ("successful", "failed", "retry", "")


@dataclass
class Acknowledged:
    """What the hub said. Whoever popped an item is alone with it until they ask for a state."""

    pushed: set[str] = field(default_factory=set)
    held: dict[str, int] = field(default_factory=dict)
    """Items that were popped and of which nothing was said since, with the times they were."""
    asked: dict[str, str] = field(default_factory=dict)
    """Items whose update was sent, with the state: done or not."""
    done: dict[str, str] = field(default_factory=dict)


async def push_items(client: Client, known: Acknowledged, chance: random.Random) -> None:
    while True:
        files = [file(f"{n}.bin", chance.randbytes(chance.randrange(1, 50_000))) for n in range(chance.randrange(3))]
        known.pushed.add((await push(client, "q", {"n": 1}, priority=chance.randrange(1, 4), files=files))._id)


async def work(client: Client, known: Acknowledged, chance: random.Random) -> None:
    """Pop, and say what became of it, or nothing."""
    while True:
        item = await pop(client, "q", includefiles=chance.random() < 0.5)
        if item is None:
            continue
        assert item._id not in known.held, "it was given to two"
        assert known.done.get(item._id, "retry") == "retry", "it was over"
        known.held[item._id] = 1
        known.done.pop(item._id, None)
        if state := chance.choice(STATES):
            del known.held[item._id]
            known.asked[item._id] = state
            given = [file("out.txt", chance.randbytes(1000))] if chance.random() < 0.5 else []
            await update(client, item, state=state, force=True, given=given)
            del known.asked[item._id]
            known.done[item._id] = state


async def test_kill_9_leaves_items_and_files_as_they_were_acknowledged(home: Home, budgets: dict[str, int]) -> None:
    seed = int(os.environ.get("JUPYTER_AGENT_SEED") or time.time_ns())
    chance = random.Random(seed)  # noqa: S311 - moments and contents, no secrets
    known = Acknowledged()
    with running_hub(home) as hub:
        async with clients(hub, 1) as (client,):
            await add(client, "failures")
            await add(client, "q", failed_wiq="failures", maxretries=2)
        for turn in range(budgets["workitem_kills"]):
            async with clients(hub, PUSHERS + WORKERS) as opened, asyncio.TaskGroup() as tasks:
                for number, client in enumerate(opened):
                    job = push_items if number < PUSHERS else work
                    tasks.create_task(until_gone(job(client, known, chance)))
                await asyncio.sleep(chance.uniform(0.05, 0.7))  # the moment is what is tried
                hub.kill()
            hub.start()
            check_store(hub, known, f"seed {seed}, turn {turn}")
        assert known.held
        assert known.done
        async with clients(hub, 1) as (client,):  # the rest is still to be had, each once
            waiting = {
                item["_id"] for item in documents(hub, "workitems") if (item["wiq"], item["state"]) == ("q", "new")
            }
            rest = [item._id for _ in waiting if (item := await pop(client, "q")) is not None]
            assert sorted(rest) == sorted(waiting), seed
            assert not waiting & set(known.held)
            await ask(client, pb.DeleteWorkItemQueueRequest(wiq="q", purge=True))
            await ask(client, pb.DeleteWorkItemQueueRequest(wiq="failures", purge=True))
        assert documents(hub, "workitems") == documents(hub, "fs.files") == []


def check_store(hub: Hub, known: Acknowledged, where: str) -> None:
    items = {item["_id"]: item for item in documents(hub, "workitems")}
    mine = {id: item for id, item in items.items() if item["wiq"] == "q"}  # noqa: A001 - what OpenFlow calls it
    assert known.pushed <= mine.keys(), where
    for id in known.held:  # noqa: A001
        assert mine[id]["state"] == "processing", where
    for id, state in known.done.items():  # noqa: A001
        # What waits to be tried again may have been popped by somebody who was not told.
        assert mine[id]["state"] in (("new", "processing") if state == "retry" else (state,)), where
    for id in known.asked:  # noqa: A001 - nobody knows, but it is one or the other
        known.done.pop(id, None)
    known.asked.clear()
    failed = sum(item["state"] == "failed" for item in mine.values())
    assert failed == len(items) - len(mine), where  # each has its copy
    named = {entry["_id"]: item["_id"] for item in items.values() for entry in item["files"]}
    assert {file["_id"]: file["metadata"]["wi"] for file in documents(hub, "fs.files")} == named, where
    assert set(names_in(hub.home / "hub" / "files")) == named.keys(), where


def documents(hub: Hub, collection: str) -> list[dict[str, Any]]:
    """All of a collection, as they lie in the store."""
    found = rows_of(hub, "SELECT n FROM collections WHERE name = ?", collection)
    return [json.loads(row[0]) for row in rows_of(hub, f"SELECT doc FROM c{found[0][0]}")] if found else []  # noqa: S608
