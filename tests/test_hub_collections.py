"""Collections as such; many documents in one command; reading as another; how much is too much."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.errors import InvalidInput, ServerRefused
from jupyter_agent.hub.callers import SYSTEM
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.store import Documents, Store
from jupyter_agent.hub.operations import Collection
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import ADMINS, USERS
from tests.hub_peers import ask, user_of
from tests.openflow_peers import Hub

READ = 2


@pytest.fixture
def things() -> str:
    return f"things {new_id()}"


def id_of(client: Client) -> str:
    assert client.user is not None
    return client.user.id


async def names(client: Client, *, history: bool = False) -> set[str]:
    found = json.loads((await ask(client, pb.ListCollectionsRequest(includehist=history))).results)
    assert all(each["type"] == "collection" for each in found)
    return {each["name"] for each in found}


async def aggregated(client: Client, things: str, *stages: dict[str, Any], queryas: str = "") -> Any:
    request = pb.AggregateRequest(collectionname=things, aggregates=json.dumps(stages), queryas=queryas)
    return json.loads((await ask(client, request)).results)


async def distinct(client: Client, things: str, field: str, query: str = "", queryas: str = "") -> list[str]:
    request = pb.DistinctRequest(collectionname=things, field=field, query=query, queryas=queryas)
    return list((await ask(client, request)).results)


async def put_many(client: Client, things: str, items: list[Any], fields: str, *, skip: bool = False) -> Any:
    request = pb.InsertOrUpdateManyRequest(
        collectionname=things, items=json.dumps(items), uniqeness=fields, skipresults=skip
    )
    return json.loads((await ask(client, request)).results)


# Collections


async def test_collections_are_made_listed_and_dropped(client: Client, things: str) -> None:
    await ask(client, pb.CreateCollectionRequest(collectionname=things, changeStreamPreAndPostImages=True))
    assert things in await names(client)
    assert await client.query(things, {}) == []
    with pytest.raises(ServerRefused, match="exists already"):
        await ask(client, pb.CreateCollectionRequest(collectionname=things))
    document = await client.insert_one(things, {"n": 1})
    await client.update_one(things, {**document, "n": 2})
    assert f"{things}_hist" not in await names(client)
    assert {things, f"{things}_hist"} <= await names(client, history=True)
    await ask(client, pb.DropCollectionRequest(collectionname=things))
    assert things not in await names(client)
    assert await client.query(things, {}) == []
    assert await client.count(f"{things}_hist", {}) == 1  # until it is dropped itself
    await client.insert_one(things, {"n": 3})
    assert await client.count(things, {}) == 1
    await ask(client, pb.DropCollectionRequest(collectionname=f"{things}_hist"))
    assert f"{things}_hist" not in await names(client, history=True)
    with pytest.raises(ServerRefused, match="There is no collection nothing like it"):
        await ask(client, pb.DropCollectionRequest(collectionname="nothing like it"))


async def test_what_is_needed_cannot_be_dropped(client: Client) -> None:
    for name in ("users", "agents", "mq", "workitems", "fs.files", "files", "config", "entities"):
        with pytest.raises(ServerRefused, match="is needed by the hub and cannot be dropped"):
            await ask(client, pb.DropCollectionRequest(collectionname=name))


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (pb.CreateCollectionRequest(collectionname="t", capped=True), "The option capped"),
        (pb.CreateCollectionRequest(collectionname="t", max=5), "The option max"),
        (pb.CreateCollectionRequest(collectionname="t", expireAfterSeconds=5), "The option expireAfterSeconds"),
        (pb.CreateCollectionRequest(collectionname="t", collation={"locale": "da"}), "The option collation"),
        (pb.CreateCollectionRequest(collectionname="t", timeseries={"timeField": "at"}), "The option timeseries"),
        (pb.CreateCollectionRequest(), "The collectionname is missing"),
        (pb.CreateCollectionRequest(collectionname="system.users"), "is not the name of a collection"),
    ],
)
async def test_a_collection_that_cannot_be_is_refused(client: Client, request_: Any, sentence: str) -> None:
    with pytest.raises(ServerRefused, match=sentence):
        await ask(client, request_)
    assert "t" not in await names(client)


async def test_only_admins_make_and_drop_collections(hub: Hub, client: Client, things: str) -> None:
    await client.insert_one(things, {"n": 1})
    async with user_of(hub, "ivy") as ivy:
        for request in (
            pb.CreateCollectionRequest(collectionname=f"{things} too"),
            pb.DropCollectionRequest(collectionname=things),
        ):
            with pytest.raises(ServerRefused, match="Access denied"):
                await ask(ivy, request)
        assert things in await names(ivy)
    assert await client.count(things, {}) == 1


# Many documents in one command


async def test_many_are_inserted_or_updated_in_their_order(client: Client, things: str) -> None:
    items = [{"name": "a", "n": 1}, {"name": "b", "n": 2}, {"name": "a", "n": 3}]
    first, second, third = await put_many(client, things, items, "name")
    assert (first["_id"], first["_version"], third["_version"]) == (third["_id"], 0, 1)
    assert [(each["name"], each["n"]) for each in await client.query(things, {}, order_by="name")] == [
        ("a", 3),
        ("b", 2),
    ]
    assert await put_many(client, things, [{**second, "n": 9}, {"n": 5}], "", skip=True) == []
    assert await client.count(things, {}) == 3
    assert (await client.query(things, {"_id": second["_id"]}))[0]["n"] == 9


async def test_a_batch_is_what_its_items_are_one_by_one(client: Client, hub: Hub, things: str) -> None:
    chance = random.Random(7)  # noqa: S311 - no secrets
    values: list[Any] = ["a", "b", 1, 1.0, True, None, "2024-01-02T03:04:05.678Z", "__REGEXP /x/"]
    for batch in range(12):
        kinds = values if batch % 3 else [*values, ["a"], {"x": 1}]
        items = [{"k": chance.choice(kinds), "_type": chance.choice("tT"), "n": n} for n in range(12)]
        items = [{name: value for name, value in item.items() if value is not None} for item in items]
        names = [f"{things} {batch} {each}" for each in ("together", "apart")]
        results: list[Any] = []
        for name in names:
            for earlier in items[:3]:
                await client.insert_one(name, earlier)
        try:
            results.append(len(await put_many(client, names[0], items[3:], "k,_type")))
        except ServerRefused as error:
            results.append(str(error))
        try:
            for item in items[3:]:
                await put_many(client, names[1], [item], "k, _type")
            results.append(9)
        except ServerRefused as error:
            results.append(str(error))
            continue
        assert results[0] == results[1]
        found = [
            await client.query(name, {}, projection={"_id": 0, "k": 1, "_type": 1, "n": 1, "_version": 1})
            for name in names
        ]
        assert sorted(map(json.dumps, found[0])) == sorted(map(json.dumps, found[1]))


async def test_many_are_written_or_none(client: Client, things: str) -> None:
    await client.insert_one(things, {"_id": "1", "name": "x"})
    await client.insert_one(things, {"_id": "2", "name": "x"})
    for items, fields, sentence in (
        ([{"name": "new"}, {"name": "x"}], "name", "More than one document has the same name"),
        ([{"name": "new"}, {"_id": 5}], "name", "An _id must be a text"),
        ([{"name": "new"}, 5], "name", "must be a JSON array of objects"),
        ([{"name": "new"}], "a.b", "'a.b' cannot tell documents apart"),
        ([{"name": "new"}], "$where", r"\$where is not offered"),
    ):
        with pytest.raises(ServerRefused, match=sentence):
            await put_many(client, things, items, fields)
    assert await client.count(things, {}) == 2


async def test_an_insert_or_update_touches_no_document_of_others(client: Client, hub: Hub, things: str) -> None:
    async with user_of(hub, "ivy") as ivy:
        hidden = await client.insert_one(things, {"_id": "h", "name": "x", "n": 1})
        seen = await client.insert_one(things, {"name": "y", "_acl": [{"_id": USERS, "rights": READ}]})
        (mine,) = await put_many(ivy, things, [{"name": "x", "n": 2}], "name")
        assert mine["_id"] != "h"
        with pytest.raises(ServerRefused, match="Access denied: you may not update"):
            await put_many(ivy, things, [{"name": "y", "n": 2}], "name")
        with pytest.raises(
            ServerRefused, match=r"^E11000 duplicate key error: .* has a document with this _id already\.$"
        ):
            await put_many(ivy, things, [{"_id": "h", "n": 2}], "")
        assert await client.query(things, {"_id": {"$in": ["h", seen["_id"]]}}, order_by="name") == [hidden, seen]


async def test_too_many_items_and_too_big_ones_are_refused(client: Client, things: str) -> None:
    many = json.dumps([{}] * 10_001)
    for request in (
        pb.InsertManyRequest(collectionname=things, items=many),
        pb.InsertOrUpdateManyRequest(collectionname=things, items=many),
    ):
        with pytest.raises(ServerRefused, match="10001 items are too many for one command: send up to 10000 at a time"):
            await ask(client, request)
    big = [{"n": 1}, {"text": "x" * 20_000_000}]
    with pytest.raises(ServerRefused, match="A document of 19 MiB is too big: at most 16 can be stored"):
        await ask(client, pb.InsertManyRequest(collectionname=things, items=json.dumps(big)))
    assert things not in await names(client)
    document = await client.insert_one(things, {"text": "x" * 9_000_000})
    with pytest.raises(ServerRefused, match="is too big"):
        await client.update_one(things, {**document, "more": "x" * 9_000_000})
    update = {"$set": {"more": "x" * 9_000_000}}
    with pytest.raises(ServerRefused, match="is too big"):
        await client.update_document(things, {}, update)
    assert await client.query(things, {}) == [document]
    assert await client.count(f"{things}_hist", {}) == 0


async def test_a_result_that_is_too_big_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def query(documents: Documents) -> str:
        return Collection(documents, SYSTEM, "things").query(compile_filter({}))

    def fill(documents: Documents) -> None:
        for number in range(9):
            documents.insert("things", {"_id": str(number), "text": "x" * 15_500_000})

    async with Store(tmp_path / "hub.db") as store:
        await store.write(fill)
        with pytest.raises(InvalidInput, match="The result is bigger than 128 MiB: ask for fewer documents with top"):
            await store.read(query)
        await store.write(lambda documents: documents.delete("things", {"_id": "8"}))
        assert len(await store.read(query)) > 120_000_000


async def test_others_read_while_many_are_written(client: Client, things: str) -> None:
    items = json.dumps([{"n": number, "text": "x" * 300} for number in range(10_000)])
    writing = asyncio.create_task(
        ask(client, pb.InsertManyRequest(collectionname=things, items=items, skipresults=True))
    )
    waits = []
    while not writing.done():
        begun = time.monotonic()
        assert await client.count("nothing here", {}) == 0
        waits.append(time.monotonic() - begun)
    await writing
    assert len(waits) > 3
    assert await client.count(things, {"n": {"$gte": 9_000}}) == 1000


async def test_the_searches_of_one_user_hold_up_nobody_else(client: Client, hub: Hub, things: str) -> None:
    await client.insert_one(things, {"_id": "one"})
    async with user_of(hub, "searcher") as searcher:
        await searcher.insert_many(f"big {things}", [{"l": ["a" * 100_000] * 20} for _ in range(10)])
        searches = [
            asyncio.create_task(searcher.count(f"big {things}", {"l": {"$regex": f"(?:a?){{200}}{number}b"}}))
            for number in range(16)
        ]
        await asyncio.wait(searches, return_when=asyncio.FIRST_COMPLETED)
        assert await client.count(things, {"_id": {"$ne": "two"}}) == 1
        assert sum(search.done() for search in searches) < 12
        assert await asyncio.gather(*searches) == [0] * 16


async def test_an_update_is_looked_for_before_it_is_written(client: Client, things: str) -> None:
    """Nobody can write while the writer looks through a collection."""
    await client.insert_many(f"big {things}", [{"l": ["a" * 100_000] * 20} for _ in range(10)])
    costly = {"l": {"$regex": "(?:a?){200}b"}}
    updates = [
        asyncio.create_task(client.update_document(f"big {things}", costly, {"$set": {"x": 1}})) for _ in range(8)
    ]
    await asyncio.wait(updates, return_when=asyncio.FIRST_COMPLETED)
    await client.insert_one(things, {})
    assert sum(update.done() for update in updates) < 6
    assert [result.matched for result in await asyncio.gather(*updates)] == [0] * 8


async def test_very_many_are_deleted_and_nobody_waits_for_it(client: Client, hub: Hub, things: str) -> None:
    items = json.dumps([{"n": number, "mine": number % 2} for number in range(4000)])
    await ask(client, pb.InsertManyRequest(collectionname=things, items=items, skipresults=True))
    kept = {"$push": {"_acl": {"_id": USERS, "rights": 2 | 8}}}
    await client.update_document(things, {"mine": 1, "n": {"$lt": 3000}}, kept)
    async with user_of(hub, "ivy") as ivy:
        deleting = asyncio.create_task(
            ask(ivy, pb.DeleteManyRequest(collectionname=things, query='{"n": {"$gte": 100}}'))
        )
        written = 0
        while not deleting.done():
            await client.insert_one(f"other {things}", {})
            written += 1
        assert (await deleting).affectedrows == 1450
        assert written > 1
    assert await client.count(things, {}) == 2550
    assert await client.count(things, {"mine": 1, "n": {"$gte": 100, "$lt": 3000}}) == 0
    assert await client.count(f"{things}_hist", {}) == 1450


# Reading


async def test_aggregates_and_distinct_see_what_the_caller_may_read(client: Client, hub: Hub, things: str) -> None:
    async with user_of(hub, "ivy") as ivy:
        for n in range(4):
            acl = [{"_id": id_of(ivy), "rights": READ}] if n % 2 else []
            await client.insert_one(things, {"n": n, "kind": "k", "_acl": acl})
            await client.insert_one(f"other {things}", {"n": n, "secret": f"s{n}", "_acl": acl})
        summed = {"$group": {"_id": "$kind", "sum": {"$sum": "$n"}}}
        assert await aggregated(client, things, summed) == [{"_id": "k", "sum": 6}]
        assert await aggregated(ivy, things, summed) == [{"_id": "k", "sum": 4}]
        assert await aggregated(ivy, things, {"$match": {"n": {"$lt": 3}}}, summed) == [{"_id": "k", "sum": 1}]
        lookup = {"$lookup": {"from": f"other {things}", "localField": "n", "foreignField": "n", "as": "found"}}
        found = await aggregated(ivy, things, {"$match": {}}, lookup)
        assert [each["found"][0]["secret"] for each in found] == ["s1", "s3"]
        crossed = {
            "$lookup": {"from": f"other {things}", "localField": "kind", "foreignField": "nothing", "as": "found"}
        }
        assert [each["found"] for each in await aggregated(ivy, things, {"$match": {}}, crossed)] == [[], []]
        every = {
            "$lookup": {"from": f"other {things}", "localField": "nothing", "foreignField": "nothing", "as": "all"}
        }
        assert {each["secret"] for row in await aggregated(ivy, things, every) for each in row["all"]} == {"s1", "s3"}
        users = {"$lookup": {"from": "users", "localField": "nothing", "foreignField": "nothing", "as": "all"}}
        seen = {
            each["username"]
            for row in await aggregated(ivy, things, users)
            for each in row["all"]
            if "username" in each
        }
        assert seen == {"ivy"}
        assert await distinct(client, things, "n") == ["0", "1", "2", "3"]
        assert await distinct(ivy, things, "n") == ["1", "3"]
        assert await distinct(ivy, things, "n", '{"n": {"$gt": 1}}') == ["3"]
        with pytest.raises(ServerRefused, match="is not the name of a collection"):
            await aggregated(ivy, things, {**lookup, "$lookup": {**lookup["$lookup"], "from": "fs.chunks"}})


async def test_a_read_that_failed_halfway_keeps_nobody_in_the_past(tmp_path: Path) -> None:
    everything = compile_filter({})

    def twenty(documents: Documents) -> None:
        for number in range(20):
            documents.insert("things", {"_id": str(number)})

    def broken(documents: Documents) -> None:
        found = documents.find("things", everything)
        raise InvalidInput(next(found)["_id"])

    async with Store(tmp_path / "hub.db") as store:
        await store.write(twenty)
        failures = await asyncio.gather(*(store.read(broken) for _ in range(10)), return_exceptions=True)
        assert all(isinstance(failure, InvalidInput) for failure in failures)  # kept, with all that they hold
        await store.write(lambda documents: documents.insert("things", {"_id": "new"}))
        found = await asyncio.gather(*(store.read(lambda documents: documents.get("things", "new")) for _ in range(10)))
        assert found == [{"_id": "new"}] * 10


async def test_what_takes_too_long_is_undone(tmp_path: Path) -> None:
    def late(documents: Documents) -> None:
        collection = Collection(documents, SYSTEM, "things")
        collection.insert({"n": 1})
        collection._until = 0  # as if ten seconds had gone by
        collection.insert_many([{"n": 2}])

    async with Store(tmp_path / "hub.db") as store:
        with pytest.raises(
            InvalidInput, match=r"This takes longer than 10 s, .* in smaller parts\. Nothing was changed"
        ):
            await store.write(late)
        assert await store.read(lambda documents: documents.count("things")) == 0


async def test_distinct_values_are_texts(client: Client, things: str) -> None:
    values: list[Any] = ["a", 1, 2.5, True, None, "2024-01-02T03:04:05.678Z", {"x.y": 1}, ["b", "a"]]
    for value in values:
        await client.insert_one(things, {"v": value})
    found = await distinct(client, things, "v")
    assert sorted(found) == sorted(["a", "1", "2.5", "true", "null", "2024-01-02T03:04:05.678Z", '{"x.y":1}', "b"])
    assert await distinct(client, "nothing here", "v") == []


async def test_one_reads_as_another_and_never_more(client: Client, hub: Hub, things: str) -> None:
    async with user_of(hub, "ivy") as ivy, user_of(hub, "joe") as joe:
        role = await client.insert_one("users", {"_type": "role", "name": f"role {things}", "members": []})
        grants = [[id_of(ivy)], [id_of(joe)], [id_of(ivy), id_of(joe)], [role["_id"]], []]
        for n, who in enumerate(grants):
            await client.insert_one(things, {"n": n, "_acl": [{"_id": each, "rights": READ} for each in who]})

        async def seen(client: Client, queryas: str) -> list[int]:
            request = pb.QueryRequest(collectionname=things, query="{}", orderby="n", queryas=queryas)
            found = [each["n"] for each in json.loads((await ask(client, request)).results)]
            counted = await ask(client, pb.CountRequest(collectionname=things, queryas=queryas))
            assert counted.result == len(found)
            assert await distinct(client, things, "n", queryas=queryas) == [str(n) for n in found]
            grouped = await aggregated(client, things, {"$group": {"_id": None, "n": {"$sum": 1}}}, queryas=queryas)
            assert [each["n"] for each in grouped] == ([len(found)] if found else [])
            return found

        assert await seen(client, id_of(ivy)) == [0, 2]
        assert await seen(client, id_of(joe)) == [1, 2]
        assert await seen(client, role["_id"]) == [3]
        assert await seen(client, ADMINS) == [0, 1, 2, 3, 4]
        assert await seen(ivy, id_of(ivy)) == [0, 2]
        assert await seen(ivy, ADMINS) == [0, 2]  # who may see more than the caller shows no more
        assert await seen(ivy, USERS) == []
        for hidden in (id_of(joe), id_of(client), "no such id"):
            with pytest.raises(ServerRefused, match="not found in users or Access Denied"):
                await seen(ivy, hidden)
