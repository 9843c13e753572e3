"""Agents and packages: what the hub does with a package and its file, and what admins may do with clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.errors import AgentError, ServerRefused
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from tests.hub_peers import ask, line
from tests.openflow_peers import Hub, Seen, until

READ, UPDATE = 2, 4


def read_by(client: Client) -> list[dict[str, Any]]:
    assert client.user is not None
    return [{"_id": client.user.id, "name": client.user.name, "rights": READ}]


async def uploaded(client: Client, tmp_path: Path, **metadata: Any) -> str:
    (tmp_path / "p.tgz").write_bytes(b"content")
    return await client.upload(tmp_path / "p.tgz", metadata=metadata)


async def package_of(client: Client, fileid: str, **fields: Any) -> dict[str, Any]:
    return await client.insert_one("agents", {"_type": "package", "name": "p", "fileid": fileid, **fields})


async def test_rights_of_a_package_come_to_its_file(ann: Client, bob: Client, tmp_path: Path) -> None:
    package = await package_of(ann, await uploaded(ann, tmp_path))
    acl = package["_acl"]
    assert await bob.query("files", {"_id": package["fileid"]}) == []
    shared = await ann.update_one("agents", {**package, "_acl": [*acl, *read_by(bob)]})
    (file,) = await bob.query("files", {"_id": package["fileid"]})
    assert file["metadata"]["_acl"] == shared["_acl"]
    await ann.update_one("agents", {**shared, "_acl": acl})
    assert await bob.query("files", {"_id": package["fileid"]}) == []


async def test_a_package_gives_away_no_rights_to_a_file_that_its_owner_may_only_read(
    ann: Client, bob: Client, tmp_path: Path
) -> None:
    fileid = await uploaded(ann, tmp_path, _acl=read_by(bob))
    theirs = await package_of(bob, fileid)
    (before,) = await ann.query("files", {"_id": fileid})
    await bob.update_one("agents", {**theirs, "name": "q"})
    assert await ann.query("files", {"_id": fileid}) == [before]


@pytest.mark.parametrize("way", ["message", "custom command"])
async def test_a_package_is_deleted_with_its_file(ann: Client, tmp_path: Path, way: str) -> None:
    other = await package_of(ann, await uploaded(ann, tmp_path))
    package = await package_of(ann, await uploaded(ann, tmp_path))
    if way == "message":
        await ask(ann, pb.DeletePackageRequest(packageid=package["_id"]))
    else:
        assert await ann.custom_command("deletepackage", id=package["_id"]) == ""
    both, files = [other["_id"], package["_id"]], [other["fileid"], package["fileid"]]
    assert [each["_id"] for each in await ann.query("agents", {"_id": {"$in": both}})] == [other["_id"]]
    assert [each["_id"] for each in await ann.query("files", {"_id": {"$in": files}})] == [other["fileid"]]
    await ask(ann, pb.DeletePackageRequest(packageid=other["_id"]))


async def test_a_file_that_others_need_stays(ann: Client, tmp_path: Path) -> None:
    fileid = await uploaded(ann, tmp_path)
    package, other = await package_of(ann, fileid), await package_of(ann, fileid)
    await ask(ann, pb.DeletePackageRequest(packageid=package["_id"]))
    assert len(await ann.query("files", {"_id": fileid})) == 1
    await ask(ann, pb.DeletePackageRequest(packageid=other["_id"]))
    assert await ann.query("files", {"_id": fileid}) == []


async def test_no_other_package_is_ever_deleted(ann: Client, bob: Client, tmp_path: Path) -> None:
    package = await package_of(ann, await uploaded(ann, tmp_path))
    agent = await ann.custom_command("registeragent", data={"hostname": "h", "username": "u"})
    for other in ("", "no-such-id", agent["_id"]):
        with pytest.raises(ServerRefused, match="not found in agents or Access Denied"):
            await ask(ann, pb.DeletePackageRequest(packageid=other))
        with pytest.raises(ServerRefused, match="not found in agents or Access Denied"):
            await ann.custom_command("deletepackage", id=other)
    with pytest.raises(ServerRefused, match="Access Denied"):
        await ask(bob, pb.DeletePackageRequest(packageid=package["_id"]))
    await ann.update_one("agents", {**package, "_acl": [*package["_acl"], *read_by(bob)]})
    with pytest.raises(ServerRefused, match="you may not delete"):
        await ask(bob, pb.DeletePackageRequest(packageid=package["_id"]))
    assert len(await ann.query("agents", {"_id": package["_id"]})) == 1
    await ask(ann, pb.DeletePackageRequest(packageid=package["_id"]))


@pytest.mark.parametrize("fileid", ["5f33c29d8fe78504bd259a04", 7, ["x"], {"$gt": ""}])
async def test_a_package_needs_a_file_that_is_there(ann: Client, fileid: Any) -> None:
    with pytest.raises(ServerRefused, match=r"not found in fs\.files or Access Denied|must be a text"):
        await package_of(ann, fileid)
    assert (await package_of(ann, "local"))["fileid"] == "local"


async def test_each_registration_is_an_event(ann: Client) -> None:
    agent = await ann.custom_command("registeragent", data={"hostname": "e", "username": "u", "maxpackages": 50})
    assert agent["maxpackages"] == 50
    seen = Seen()
    await ann.watch("agents", [], seen)
    again = await ann.custom_command("registeragent", id=agent["_id"], data={"daemon": True, "maxpackages": 1})
    await until(lambda: seen.events)
    assert [(event.operation, event.document["_id"]) for event in seen.events] == [("replace", agent["_id"])]
    assert (again["daemon"], again["maxpackages"]) == (True, 50)
    assert again["lastseen"] > agent["lastseen"]


async def test_admins_see_all_clients_and_may_end_one(hub: Hub, client: Client, ann: Client) -> None:
    async with line(hub.url):
        everybody = await client.custom_command("dumpwebsocketclients")
    assert {client.get("username") for client in everybody} >= {None, "ann"}
    for command in ("dumpwebsocketclients", "killwebsocketclient"):
        with pytest.raises(ServerRefused, match="for admins only"):
            await ann.custom_command(command, id=everybody[0]["id"])
    (mine,) = [client for client in everybody if client.get("username") == "ann"]
    assert await client.custom_command("killwebsocketclient", id=mine["id"]) == ""

    async def ids() -> set[str]:
        return {client["id"] for client in await client.custom_command("getclients") if client["username"] == "ann"}

    while mine["id"] in await ids():
        pass
    await ann.connected()  # it comes back by itself
    with pytest.raises(ServerRefused, match="There is no client with the id nobody"):
        await client.custom_command("killwebsocketclient", id="nobody")


@pytest.mark.parametrize("command", ["heapdump", "shutdown", "clearcache", "snapshotrestore", "CreateIndex"])
async def test_what_the_hub_does_not_do_is_refused_by_name(client: Client, command: str) -> None:
    with pytest.raises(AgentError, match=f"The custom command {command.lower()} is not offered by this hub"):
        await client.custom_command(command)
    assert await client.custom_command("never heard of") == ""
