"""Long searches and large changes: how they are cut, and that they come to an end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.errors import InvalidInput, Unavailable
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.results import order_of
from jupyter_agent.hub.data.store import Documents, Store
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from tests.hub_peers import ask, hub_on_a_new_home
from tests.openflow_peers import Hub


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with hub_on_a_new_home() as running:
        yield running


async def test_very_many_are_updated_and_nobody_waits_for_it(hub: Hub) -> None:
    things = "things"
    async with hub.client() as client:
        await client.connected()
        items = json.dumps([{"n": number} for number in range(8000)])
        await ask(client, pb.InsertManyRequest(collectionname=things, items=items, skipresults=True))
        updating = asyncio.create_task(client.update_document(things, {"n": {"$gte": 0}}, {"$inc": {"n": 1}}))
        written = 0
        while not updating.done():
            await client.insert_one(f"other {things}", {})
            written += 1
        result = await updating
        assert (result.matched, result.modified) == (8000, 8000)
        assert await client.count(things, {"n": {"$gt": 0}}) == 8000
        assert written > 4


async def test_a_search_comes_to_an_end(tmp_path: Path) -> None:
    everything = compile_filter({})

    def three(documents: Documents) -> None:
        for number in range(3):
            documents.insert("t", {"_id": str(number)})

    async with Store(tmp_path / "hub.db") as store:
        await store.write(three)
        order = order_of("_id")
        searches: list[Callable[[Documents], Any]] = [
            lambda documents: list(documents.find("t", everything)),
            lambda documents: list(documents.in_order("t", everything, order) or ()),
        ]
        for search in searches:
            assert len(await store.read(search)) == 3
            for carry_out in (store.read, store.write):
                with pytest.raises(InvalidInput, match=r"This takes longer than 0 s: look for less at a time"):
                    await carry_out(search, within_s=0)


async def test_a_search_does_not_keep_the_hub_from_ending(tmp_path: Path) -> None:
    everything, is_searching = compile_filter({}), threading.Event()

    def for_ever(documents: Documents) -> None:
        while True:
            list(documents.find("t", everything))
            is_searching.set()

    async with Store(tmp_path / "hub.db") as store:
        await store.write(lambda documents: documents.insert("t", {"_id": "one"}))
        search = asyncio.create_task(store.read(for_ever))
        await asyncio.to_thread(is_searching.wait)
    with pytest.raises(Unavailable, match="The hub is about to end"):
        await search
