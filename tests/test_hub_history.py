"""Old versions of documents: what is kept, who may read it, and stores that were written before."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.errors import ServerRefused
from jupyter_agent.home import Home
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import USERS
from tests.hub_peers import ask, user_of
from tests.openflow_peers import Hub, running_hub

GONE = r"item .* not found in .* or Access Denied"


@pytest.fixture
def things() -> str:
    return f"things {new_id()}"


async def version(client: Client, things: str, id: str, number: int) -> Any:  # noqa: A002
    request = pb.GetDocumentVersionRequest(collectionname=things, id=id, version=number, decrypt=True)
    return json.loads((await ask(client, request)).result)


async def test_every_version_can_be_read(client: Client, things: str) -> None:
    kept = [await client.insert_one(things, {"n": 0, "at": "2024-01-02T03:04:05.678Z", "x.y": 1})]
    for number in range(1, 4):
        kept.append(await client.update_one(things, {**kept[-1], "n": number}))
    id = kept[0]["_id"]  # noqa: A001
    assert [await version(client, things, id, number) for number in range(4)] == kept
    await client.delete_one(things, id)
    assert [await version(client, things, id, number) for number in range(4)] == kept
    for number in (4, -1):
        with pytest.raises(ServerRefused, match=GONE):
            await version(client, things, id, number)
    with pytest.raises(ServerRefused, match=GONE):
        await version(client, "nothing here", id, 0)


async def test_a_history_is_read_like_a_collection(client: Client, things: str) -> None:
    user = client.user
    assert user is not None
    first = await client.insert_one(things, {"n": 0, "name": "a", "_type": "t"})
    second = await client.update_one(things, {**first, "n": 1})
    await client.insert_one(things, {"n": 9})
    await client.delete_one(things, first["_id"])
    history = await client.query(f"{things}_hist", {"id": first["_id"]}, order_by="_version")
    assert [each["item"] for each in history] == [first, second]
    assert [each["_version"] for each in history] == [0, 1]
    deleted = history[1]
    assert deleted["_deletedbyid"] == user.id
    assert deleted["_deletedby"] == user.name
    assert deleted["_deleted"] >= deleted["_modified"] == deleted["_created"] == second["_modified"]
    assert (deleted["name"], deleted["_type"], deleted["_acl"]) == ("a", "t", first["_acl"])
    assert len(deleted["_id"]) == 24
    assert "_deleted" not in history[0]
    assert await client.count(f"{things}_hist", {"item.n": 1}) == 1
    stages = json.dumps([{"$group": {"_id": "$id", "versions": {"$sum": 1}}}])
    reply = await ask(client, pb.AggregateRequest(collectionname=f"{things}_hist", aggregates=stages))
    assert json.loads(reply.results) == [{"_id": first["_id"], "versions": 2}]


async def test_what_is_no_new_version_is_not_kept(client: Client, things: str) -> None:
    first = await client.insert_one(things, {"n": 0})
    await client.update_document(things, {}, {"$set": {"n": 1}})
    (second,) = await client.query(things, {})
    await client.update_one(things, second)
    assert await client.count(f"{things}_hist", {}) == 0
    assert second["_version"] == first["_version"] == 0
    await client.update_one(things, {**second, "n": 2})
    assert await version(client, things, first["_id"], 0) == second
    for without in ("workitems", "audit", "workflow_instances"):
        document = await client.insert_one(without, {"n": 0})
        changed = await client.update_one(without, {**document, "n": 1})
        await client.delete_one(without, document["_id"])
        assert changed["_version"] == 1
        assert await client.count(f"{without}_hist", {}) == 0
        with pytest.raises(ServerRefused, match=GONE):
            await version(client, without, document["_id"], 0)


async def test_an_id_that_is_used_again_has_its_newest_versions(client: Client, things: str) -> None:
    for n in (1, 2):
        document = await client.insert_one(things, {"_id": "x", "n": n})
        await client.update_one(things, {**document, "n": -n})
        await client.delete_one(things, "x")
    assert (await version(client, things, "x", 0))["n"] == 2
    assert (await version(client, things, "x", 1))["n"] == -2
    assert await client.count(f"{things}_hist", {"id": "x"}) == 4


async def test_a_history_cannot_be_changed(client: Client, things: str) -> None:
    first = await client.insert_one(things, {"n": 0})
    await client.update_one(things, {**first, "n": 1})
    name = f"{things}_hist"
    (kept,) = await client.query(name, {})
    attempts = [
        client.insert_one(name, {"id": "forged"}),
        client.insert_one("new_hist", {"id": "forged"}),
        client.update_one(name, {**kept, "item": {}}),
        client.update_document(name, {}, {"$set": {"item": {}}}),
        client.delete_one(name, kept["_id"]),
        ask(client, pb.DeleteManyRequest(collectionname=name, query="{}")),
        ask(client, pb.InsertManyRequest(collectionname=name, items='[{"a":1}]')),
        ask(client, pb.InsertOrUpdateOneRequest(collectionname=name, item='{"a":1}')),
        ask(client, pb.CreateCollectionRequest(collectionname="new_hist")),
        ask(client, pb.CreateIndexRequest(collectionname=name, index='{"item.n":1}')),
        ask(client, pb.DropIndexRequest(collectionname=name, name="id_1__version_1")),
    ]
    for attempt in attempts:
        with pytest.raises(ServerRefused, match=r"Access denied: .*_hist is a history"):
            await attempt
    assert await client.query(name, {}) == [kept]


async def test_a_version_is_for_those_who_may_read_it_and_the_document(client: Client, hub: Hub, things: str) -> None:
    everybody = [{"_id": USERS, "rights": 2}]
    async with user_of(hub, "ann") as ann, user_of(hub, "bob") as bob:
        secret = await ann.insert_one(things, {"n": "secret"})
        shown = await ann.update_one(things, {**secret, "n": "shown", "_acl": [*secret["_acl"], *everybody]})
        await ann.update_one(things, {**shown, "n": "shown too"})
        history, id = f"{things}_hist", secret["_id"]  # noqa: A001
        assert [each["item"]["n"] for each in await bob.query(history, {}, order_by="_version")] == ["shown"]
        assert (await version(bob, things, id, 1))["n"] == "shown"
        with pytest.raises(ServerRefused, match=GONE):
            await version(bob, things, id, 0)
        assert await ann.count(history, {}) == 2
        (now,) = await ann.query(things, {})
        await ann.update_one(things, {**now, "_acl": secret["_acl"]})
        assert await bob.count(history, {}) == 0
        assert (
            json.loads((await ask(bob, pb.DistinctRequest(collectionname=history, field="item.n"))).results or "[]")
            == []
        )
        with pytest.raises(ServerRefused, match=GONE):
            await version(bob, things, id, 1)
        await ann.delete_one(things, id)
        assert [each["item"]["n"] for each in await bob.query(history, {}, order_by="_version")] == [
            "shown",
            "shown too",
        ]
        assert await client.count(history, {}) == 4


def write_version_1(
    path: Path, documents: dict[str, list[dict[str, Any]]], history: list[tuple[str, int, Any]]
) -> None:
    """A store as the first version of the hub wrote it; ``history`` has collections, moments and documents."""
    key = """CASE WHEN json_type(doc, '$."_type"') = 'array' THEN x'' ELSE json_extract(doc, '$."_type"') END"""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        connection.execute("CREATE TABLE passwords (id TEXT PRIMARY KEY, hash TEXT NOT NULL) WITHOUT ROWID")
        connection.execute("CREATE TABLE collections (n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)")
        connection.execute(
            "CREATE TABLE history (n INTEGER PRIMARY KEY, collection INTEGER NOT NULL REFERENCES collections,"
            " id TEXT NOT NULL, version INTEGER NOT NULL, at INTEGER NOT NULL, doc TEXT NOT NULL)"
        )
        connection.execute("CREATE INDEX history_of ON history (collection, id, version)")
        numbers = {}
        for number, (name, items) in enumerate(documents.items(), 1):
            numbers[name] = number
            connection.execute("INSERT INTO collections VALUES (?, ?)", (number, name))
            connection.execute(f"CREATE TABLE c{number} (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, doc TEXT)")
            connection.execute(f"CREATE INDEX c{number}_type ON c{number} ({key})")
            rows = [(item["_id"], json.dumps(item, separators=(",", ":"))) for item in items]
            connection.executemany(f"INSERT INTO c{number} (id, doc) VALUES (?, ?)", rows)  # noqa: S608
        for name, at, item in history:
            row = (numbers[name], item["_id"], item["_version"], at, json.dumps(item, separators=(",", ":")))
            connection.execute("INSERT INTO history (collection, id, version, at, doc) VALUES (?, ?, ?, ?, ?)", row)
        connection.execute("PRAGMA user_version = 1")
        connection.commit()


def old_document(**fields: Any) -> dict[str, Any]:
    moment = {"$date": 1704164645678}
    stamps = {"_created": moment, "_createdby": "a", "_createdbyid": "i", "_modified": moment, "_modifiedby": "a"}
    return {"_type": "t", "_acl": [{"_id": USERS, "name": "users", "rights": 2}], **stamps, **fields}


async def test_a_store_of_version_1_is_brought_forward() -> None:
    x = [old_document(_id="x", _version=number, n=number, name=f"ä{number}") for number in range(3)]
    gone = old_document(_id="gone", _version=0, n=[1])
    role = {"_id": USERS, "_type": "role", "name": "users", "members": [], "_acl": [], "_version": 0}
    slug = old_document(_id="agent", _type="agent", slug="s", _version=0)
    mine = old_document(_id="kept", _version=0, n="a client's own")
    documents = {"things": [x[2]], "users": [role], "agents": [slug], "things_hist": [mine], "empty": []}
    history = [("things", 5, x[0]), ("things", 6, x[1]), ("things", 7, gone)]
    with tempfile.TemporaryDirectory(prefix="ja-") as folder:
        home = Home(Path(folder) / "home")
        home.prepare()
        home.hub.mkdir(parents=True, exist_ok=True)
        write_version_1(home.hub / "hub.db", documents, history)
        with running_hub(home) as hub:
            async with hub.client() as client:
                await client.connected()
                (now,) = await client.query("things", {"_type": "t"})
                assert (now["n"], now["_created"]) == (2, "2024-01-02T03:04:05.678Z")
                for number in range(3):
                    found = await version(client, "things", "x", number)
                    assert (found["n"], found["name"], found["_acl"]) == (number, f"ä{number}", now["_acl"])
                    assert found["_modified"] == now["_modified"]
                assert (await version(client, "things", "gone", 0))["n"] == [1]
                kept = await client.query("things_hist", {}, order_by="_id")
                assert [each.get("item", {}).get("name") for each in kept] == ["ä0", "ä1", None, None]
                assert (kept[0]["_created"], kept[0]["_createdby"]) == (now["_modified"], "a")
                await client.update_one("things", {**now, "n": 3})
                assert await client.count("things_hist", {"id": "x"}) == 3
                with pytest.raises(ServerRefused, match="E11000"):
                    await client.insert_one("agents", {"_type": "agent", "slug": "s"})
            async with hub.client(Credentials(jwt="none")) as nobody:
                with pytest.raises(Exception, match="jwt"):
                    await nobody.connected()
            with contextlib.closing(sqlite3.connect(home.hub / "hub.db")) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'history'").fetchall() == []
            hub.kill()
            hub.start()  # and once more, as it is now
            async with hub.client() as client:
                await client.connected()
                assert await client.count("things_hist", {"id": "x"}) == 3
