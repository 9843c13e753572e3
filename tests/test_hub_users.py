"""Users and roles: who is in which role, from one moment to the next, and what may not be done to them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from jupyter_agent.errors import ServerRefused
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import ADMINS, USERS
from tests.hub_peers import hub_on_a_new_home, line
from tests.openflow_peers import Hub


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with hub_on_a_new_home() as running:
        running.add_user("ann", "the password of ann")
        yield running


@contextlib.asynccontextmanager
async def admin_of(hub: Hub) -> AsyncIterator[Client]:
    async with hub.client() as client:
        await client.connected()
        yield client


async def user(client: Client, name: str) -> dict[str, Any]:
    (found,) = await client.query("users", {"_type": "user", "username": name})
    return found


async def role(client: Client, name: str, *members: str) -> dict[str, Any]:
    entries = [{"_id": member, "name": "x"} for member in members]
    made: dict[str, Any] = await client.insert_one("users", {"_type": "role", "name": name, "members": entries})
    return made


async def roles_of(hub: Hub, name: str = "ann") -> set[str]:
    """The ids of a user's roles, as they are told who signs in now."""
    async with line(hub.url) as wire:
        request = pb.SigninRequest(username=name, password=f"the password of {name}", validateonly=True)
        _, reply = await wire.ask("signin", request)
        return {each._id for each in reply.user.roles}


async def test_roles_in_roles_count_also_in_a_circle(hub: Hub) -> None:
    async with admin_of(hub) as admin:
        ann = (await user(admin, "ann"))["_id"]
        inner = await role(admin, "inner", ann)
        middle = await role(admin, "middle", inner["_id"])
        outer = await role(admin, "outer", middle["_id"])
        assert await roles_of(hub) == {USERS, inner["_id"], middle["_id"], outer["_id"]}
        circle = {**inner, "members": [*inner["members"], {"_id": outer["_id"], "name": "outer"}]}
        await admin.update_one("users", circle)
        assert await roles_of(hub) == {USERS, inner["_id"], middle["_id"], outer["_id"]}
        await admin.delete_one("users", middle["_id"])
        assert await roles_of(hub) == {USERS, inner["_id"]}
        (left,) = await admin.query("users", {"_id": outer["_id"]})
        assert left["members"] == []


async def test_members_count_from_one_request_to_the_next(hub: Hub) -> None:
    ann = Credentials(username="ann", password="the password of ann")
    async with admin_of(hub) as admin, hub.client(ann) as client:
        user_id = (await client.connected()).id
        readers = await role(admin, "readers")
        acl = [{"_id": readers["_id"], "name": "readers", "rights": 2}]
        await admin.insert_one("told", {"secret": 1, "_acl": acl})
        assert await client.query("told", {}) == []
        members = [{"_id": user_id, "name": "ann"}]
        await admin.update_one("users", {**readers, "members": members})
        assert len(await client.query("told", {})) == 1
        nobody: dict[str, Any] = {"$set": {"members": []}}
        assert (await admin.update_document("users", {"_id": readers["_id"]}, nobody)).modified == 1
        assert await client.query("told", {}) == []


async def test_who_becomes_an_admin_is_one_at_once_and_no_longer(hub: Hub) -> None:
    async with admin_of(hub) as admin:
        ann = await user(admin, "ann")
        await admin.update_one("users", {**ann, "roles": [{"_id": ADMINS, "name": "admins"}]})
        assert ADMINS in await roles_of(hub)
        await admin.update_one("users", {**await user(admin, "ann"), "roles": []})
        assert ADMINS not in await roles_of(hub)


async def test_names_of_roles_are_their_own(hub: Hub) -> None:
    async with admin_of(hub) as admin:
        first, second = await role(admin, "one of a kind"), await role(admin, "another")
        for again in (role(admin, "one of a kind"), role(admin, "admins")):
            with pytest.raises(ServerRefused, match="E11000 duplicate key"):
                await again
        with pytest.raises(ServerRefused, match="E11000 duplicate key"):
            await admin.update_one("users", {**second, "name": "one of a kind"})
        await admin.update_one("users", {**first, "description": "kept"})
        for name in ("", " ", 5, None, "x" * 201):
            with pytest.raises(ServerRefused, match="A role needs a name"):
                await admin.insert_one("users", {"_type": "role", "name": name})


@pytest.mark.parametrize("members", [5, "ann", [5], [{"name": "ann"}], [{"_id": 5}], {"_id": "x"}])
async def test_members_are_a_list_of_ids(hub: Hub, members: Any) -> None:
    async with admin_of(hub) as admin:
        with pytest.raises(ServerRefused, match="members must be a list of objects"):
            await admin.insert_one("users", {"_type": "role", "name": f"with {members!r}", "members": members})


async def test_well_known_roles_stay(hub: Hub) -> None:
    async with admin_of(hub) as admin:
        with pytest.raises(ServerRefused, match="is needed by the hub and cannot be deleted"):
            await admin.delete_one("users", ADMINS)


async def test_what_belongs_to_customers_does_no_harm(hub: Hub) -> None:
    async with admin_of(hub) as admin:
        customer = await admin.insert_one("users", {"_type": "customer", "name": "a customer", "dblocked": True})
        ann = await user(admin, "ann")
        fields = {"customerid": customer["_id"], "selectedcustomerid": customer["_id"], "dbusage": 10**12}
        await admin.update_one("users", {**ann, **fields})
        assert await roles_of(hub) == {USERS} | (await roles_of(hub) - {ADMINS})
        ann = await user(admin, "ann")
        assert {name: ann[name] for name in fields} == fields


async def test_a_locked_owner_is_free_after_a_restart(hub: Hub) -> None:
    async with admin_of(hub) as admin:
        me = await user(admin, hub.ready["username"])
        await admin.update_one("users", {**me, "dblocked": True})
        with pytest.raises(ServerRefused, match="is locked for writing"):
            await admin.insert_one("t", {})
    hub.kill()
    hub.start()
    async with admin_of(hub) as admin:
        await admin.insert_one("t", {})
