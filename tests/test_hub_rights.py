"""Rights: ``_acl`` on every operation, users and roles, what packages and agents give to others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.errors import AgentError, ServerRefused, SignInFailed
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.openflow import rights
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import ADMINS, ROOT, USERS
from tests.hub_peers import ask, rows_of, user_of
from tests.openflow_peers import Hub, Seen, until

READ, UPDATE, DELETE, INVOKE = 2, 4, 8, 16
NO_FILE = r"not found in fs\.files or Access Denied"


@pytest.fixture
def things() -> str:
    return f"things {new_id()}"


def id_of(client: Client) -> str:
    assert client.user is not None
    return client.user.id


async def shared(client: Client, things: str, other: Client, mask: int, **fields: Any) -> dict[str, Any]:
    """A document of one user with these rights for another."""
    return await client.insert_one(things, {**fields, "_acl": [{"_id": id_of(other), "name": "x", "rights": mask}]})


async def test_what_one_may_not_read_is_not_there(ann: Client, bob: Client, client: Client, things: str) -> None:
    document = await ann.insert_one(things, {"secret": 1})
    assert await bob.query(things, {}) == []
    assert await bob.count(things, {"secret": 1}) == 0
    assert await bob.delete_one(things, document["_id"]) == 1  # as for one that is not there
    result = await bob.update_document(things, {}, {"$set": {"secret": 2}})
    assert (result.matched, result.modified) == (0, 0)
    assert (await ask(bob, pb.DeleteManyRequest(collectionname=things, query="{}"))).affectedrows == 0
    with pytest.raises(ServerRefused, match=r"not found in .* or Access Denied"):
        await bob.update_one(things, {"_id": document["_id"], "secret": 2})
    assert await client.query(things, {}) == [document] == await ann.query(things, {})


async def test_reading_is_not_writing(ann: Client, bob: Client, things: str) -> None:
    document = await shared(ann, things, bob, READ, n=1)
    assert await bob.query(things, {}) == [document]
    with pytest.raises(ServerRefused, match="Access denied: you may not update"):
        await bob.update_one(things, {**document, "n": 2})
    assert (await bob.update_document(things, {}, {"$set": {"n": 2}})).matched == 0
    with pytest.raises(ServerRefused, match="Access denied: you may not delete"):
        await bob.delete_one(things, document["_id"])
    put = pb.InsertOrUpdateOneRequest(collectionname=things, item='{"n": 1, "x": 2}', uniqeness="n")
    with pytest.raises(ServerRefused, match="Access denied"):
        await ask(bob, put)
    assert await ann.query(things, {}) == [document]


async def test_updating_is_not_deleting(ann: Client, bob: Client, things: str) -> None:
    document = await shared(ann, things, bob, READ | UPDATE, n=1)
    changed = await bob.update_one(things, {**document, "n": 2})
    assert changed["_modifiedbyid"] == id_of(bob)
    assert changed["_createdbyid"] == id_of(ann)
    assert (await bob.update_document(things, {}, {"$set": {"n": 3}})).modified == 1
    with pytest.raises(ServerRefused, match="Access denied"):
        await bob.delete_one(things, document["_id"])
    assert (await ask(bob, pb.DeleteManyRequest(collectionname=things, query="{}"))).affectedrows == 0


async def test_a_denied_right_is_denied_and_admins_pass(ann: Client, bob: Client, client: Client, things: str) -> None:
    acl = [{"_id": USERS, "rights": 65535}, {"_id": id_of(bob), "rights": DELETE, "deny": True}]
    document = await ann.insert_one(things, {"_acl": acl})
    assert await bob.count(things, {}) == 1
    with pytest.raises(ServerRefused, match="Access denied"):
        await bob.delete_one(things, document["_id"])
    assert await client.delete_one(things, document["_id"]) == 1


async def test_rights_taken_away_are_gone_at_once(ann: Client, bob: Client, things: str) -> None:
    document = await shared(ann, things, bob, READ)
    assert await bob.count(things, {}) == 1
    mine = [entry for entry in document["_acl"] if entry["_id"] != id_of(bob)]
    await ann.update_one(things, {**document, "_acl": mine})
    assert await bob.count(things, {}) == 0
    await ann.update_document(things, {}, {"$push": {"_acl": {"_id": id_of(bob), "rights": READ}}})
    assert await bob.count(things, {}) == 1


async def test_watchers_see_what_they_may_read(ann: Client, bob: Client, things: str) -> None:
    seen = Seen()
    watch = await bob.watch(things, [], seen)
    await ann.insert_one(things, {"n": "hidden"})
    await shared(ann, things, bob, READ, n="shown")
    await until(lambda: seen.events)
    assert [event.document["n"] for event in seen.events] == ["shown"]
    await watch.close()


async def test_a_token_in_the_envelope_makes_the_request_its_owners(ann: Client, bob: Client, things: str) -> None:
    await ann.insert_one(things, {"n": 1})
    assert await bob.query(things, {}) == []
    assert len(await bob.query(things, {}, jwt=await ann.mint_token())) == 1
    with pytest.raises(ServerRefused, match="invalid or expired jwt"):
        await bob.query(things, {}, jwt="nonsense")


# Users and roles


async def test_no_secret_of_a_user_is_ever_shown(client: Client, ann: Client, hub: Hub) -> None:
    user = await client.insert_one(
        "users", {"_type": "user", "username": "carl", "newpassword": "s3cret", "passwordhash": "x", "password": "y"}
    )
    text = json.dumps([user, await client.query("users", {}), await ann.query("users", {})])
    assert "argon2" not in text
    assert "password" not in text
    (stored,) = rows_of(hub, "SELECT hash FROM passwords WHERE id = ?", user["_id"])
    assert stored[0].startswith("$argon2id$")
    async with hub.client(Credentials(username="carl", password="s3cret")) as carl:
        assert (await carl.connected()).id == user["_id"]
    await client.update_one("users", {**user, "newpassword": "other"})
    async with hub.client(Credentials(username="carl", password="s3cret")) as carl:
        with pytest.raises(SignInFailed):
            await carl.connected()
    async with hub.client(Credentials(username="carl", password="other")) as carl:
        await carl.connected()


async def test_others_see_no_user_but_themselves_and_the_roles(ann: Client) -> None:
    found = await ann.query("users", {"_type": "user"})
    assert [user["username"] for user in found] == ["ann"]
    roles = {role["_id"] for role in await ann.query("users", {"_type": "role"})}
    assert {ADMINS, USERS, rights.ROBOTS, rights.FILESTORE_ADMINS, rights.WORKITEM_QUEUE_ADMINS} <= roles


async def test_nobody_raises_himself(ann: Client, bob: Client, client: Client) -> None:
    (me,) = await ann.query("users", {"username": "ann"})
    (admins,) = await client.query("users", {"_id": ADMINS})
    attempts = [
        ann.update_one("users", {**me, "roles": [{"_id": ADMINS}]}),
        ann.update_one("users", {**admins, "members": [{"_id": me["_id"], "name": "ann"}]}),
        ann.insert_one("users", {"_type": "user", "username": "eve", "newpassword": "x"}),
        ann.insert_one("users", {"_type": "role", "name": "mine", "_id": "r", "members": []}),
        ann.delete_one("users", me["_id"]),
        ask(ann, pb.InsertOrUpdateOneRequest(collectionname="users", item=json.dumps({**me, "username": "root"}))),
        ask(ann, pb.InsertManyRequest(collectionname="users", items='[{"_type":"user","username":"eve"}]')),
        ann.insert_one("config", {"_type": "config", "multi_tenant": True}),
    ]
    for attempt in attempts:
        with pytest.raises(ServerRefused, match="Access denied"):
            await attempt
    for update in ({"$push": {"members": {"_id": me["_id"]}}}, {"$set": {"name": "x"}}):
        assert (await ann.update_document("users", {}, update)).modified == 0
    assert await ann.query("users", {"_id": me["_id"]}) == [me]
    async with asyncio.timeout(10):
        assert ADMINS not in (await ann.validate(await ann.mint_token())).principals


async def test_roles_of_roles_count_and_at_once(client: Client, bob: Client, things: str) -> None:
    team = await client.insert_one(
        "users", {"_type": "role", "name": "team", "members": [{"_id": id_of(bob), "name": "bob"}]}
    )
    company = await client.insert_one("users", {"_type": "role", "name": "company", "members": [{"_id": team["_id"]}]})
    await client.insert_one(things, {"_acl": [{"_id": company["_id"], "rights": READ}]})
    assert await bob.count(things, {}) == 1
    assert company["_id"] in (await bob.validate(await bob.mint_token())).principals
    await client.update_one("users", {**team, "members": []})
    assert await bob.count(things, {}) == 0
    await client.update_one("users", {**company, "members": [{"_id": company["_id"]}, {"_id": team["_id"]}]})  # a ring
    await client.update_one("users", {**team, "_version": 0, "members": [{"_id": company["_id"]}]})
    assert await bob.count(things, {}) == 0


async def test_an_admin_makes_and_unmakes_admins(client: Client, hub: Hub) -> None:
    item = {"_type": "user", "username": "dora", "newpassword": "d", "roles": [{"_id": ADMINS}]}
    user = await client.insert_one("users", item)
    assert "roles" not in user
    async with hub.client(Credentials(username="dora", password="d")) as dora:
        assert ADMINS in (await dora.connected()).principals
        await client.update_one("users", {**user, "roles": []})
        with pytest.raises(ServerRefused, match="Access denied"):
            await dora.insert_one("users", {"_type": "user", "username": "eve"})


async def test_who_is_disabled_or_deleted_is_out(client: Client, hub: Hub, things: str) -> None:
    user = await client.insert_one("users", {"_type": "user", "username": "emil", "newpassword": "e"})
    async with hub.client(Credentials(username="emil", password="e")) as emil:
        await emil.connected()
        token = await emil.mint_token(long=True)
        await client.update_one("users", {**user, "disabled": True})
        with pytest.raises(ServerRefused, match="could not find user"):
            await emil.count(things, {})
        await client.update_one("users", user)
        assert await emil.count(things, {}) == 0
        await client.delete_one("users", user["_id"])
        with pytest.raises(ServerRefused, match="could not find user"):
            await emil.count(things, {})
    async with hub.client(Credentials(jwt=token)) as emil:
        with pytest.raises(SignInFailed, match="could not find user"):
            await emil.connected()
    assert rows_of(hub, "SELECT * FROM passwords WHERE id = ?", user["_id"]) == []


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ({"_type": "user", "username": "ann", "newpassword": "x"}, "E11000 .* users has a document with this username"),
        ({"_type": "user", "username": "ANN", "newpassword": "x"}, "E11000"),
        ({"_type": "user", "username": "", "newpassword": "x"}, "'' cannot be a user's name"),
        ({"_type": "user", "username": "a b", "newpassword": "x"}, "'a b' cannot be a user's name"),
        ({"_type": "user", "newpassword": "x"}, "None cannot be a user's name"),
        ({"_type": "user", "username": ["x"]}, "cannot be a user's name"),
        ({"_type": "user", "username": "x1", "newpassword": ""}, "A password cannot be empty"),
        ({"_type": "user", "username": "x1", "newpassword": 5}, "A password cannot be empty"),
        ({"_type": "user", "username": "x1", "roles": "admins"}, "roles must be a list"),
        ({"_type": "user", "username": "x1", "roles": [{"_id": "no such role"}]}, "There is no role with the id"),
        ({"_type": "role", "name": "r", "members": [5]}, "members must be a list"),
        ({"_type": "role", "name": "r", "members": {"_id": "x"}}, "members must be a list"),
    ],
)
async def test_users_that_cannot_be_are_refused(client: Client, item: dict[str, Any], sentence: str) -> None:
    before = await client.count("users", {})
    with pytest.raises(ServerRefused, match=sentence):
        await client.insert_one("users", item)
    assert await client.count("users", {}) == before


async def test_what_the_hub_needs_stays(client: Client) -> None:
    for needed in (ADMINS, USERS, ROOT):
        with pytest.raises(ServerRefused, match="is needed by the hub"):
            await client.delete_one("users", needed)
    (admins,) = await client.query("users", {"_id": ADMINS})
    with pytest.raises(ServerRefused, match="_type of a role cannot be changed"):
        await client.update_one("users", {**admins, "_type": "user", "username": "x"})


# Packages and files


async def test_a_package_gives_its_file_to_those_who_may_read_it(ann: Client, bob: Client, tmp_path: Path) -> None:
    (tmp_path / "p.tgz").write_bytes(b"content")
    (tmp_path / "bob").mkdir()
    file = await ann.upload(tmp_path / "p.tgz")
    with pytest.raises(AgentError, match=NO_FILE):
        await bob.download(file, tmp_path / "bob")
    package = {"_type": "package", "name": "p", "fileid": file, "_acl": [{"_id": id_of(bob), "rights": READ}]}
    await ann.insert_one("agents", package)
    assert (await bob.download(file, tmp_path / "bob")).read_bytes() == b"content"


async def test_a_package_cannot_be_made_of_a_file_of_another(ann: Client, bob: Client, tmp_path: Path) -> None:
    (tmp_path / "p.tgz").write_bytes(b"content")
    file = await ann.upload(tmp_path / "p.tgz")
    with pytest.raises(ServerRefused, match=NO_FILE):
        await bob.insert_one("agents", {"_type": "package", "name": "p", "fileid": file})
    mine = await bob.insert_one("agents", {"_type": "package", "name": "p", "fileid": ""})
    with pytest.raises(ServerRefused, match=NO_FILE):
        await bob.update_one("agents", {**mine, "fileid": file})
    with pytest.raises(ServerRefused, match=NO_FILE):
        await bob.update_document("agents", {"_id": mine["_id"]}, {"$set": {"fileid": file}})
    thing = await bob.insert_one("agents", {"_type": "thing", "fileid": file})
    with pytest.raises(ServerRefused, match=NO_FILE):
        await bob.update_one("agents", {**thing, "_type": "package"})
    with pytest.raises(ServerRefused, match=NO_FILE):
        await bob.insert_one("agents", {"_type": "package", "name": "p", "fileid": "no such file"})


# Agents


async def register(client: Client, **data: Any) -> dict[str, Any]:
    about = {
        "hostname": new_id(),
        "username": "u",
        "os": "linux",
        "arch": "x64",
        "version": "1",
        "languages": ["python"],
    }
    found: dict[str, Any] = await client.custom_command("registeragent", id=data.pop("id", ""), data={**about, **data})
    return found


async def test_an_agent_registers_and_is_known_again(ann: Client) -> None:
    first = await register(ann, hostname="h1", username="u1")
    assert first["name"] == "h1 / u1"
    assert first["runas"] == id_of(ann)
    assert "jwt" not in first
    again = await register(ann, hostname="h1", username="u1", version="2", name="not taken")
    assert (again["_id"], again["slug"], again["version"], again["name"]) == (
        first["_id"],
        first["slug"],
        "2",
        "h1 / u1",
    )
    assert again["_version"] == 1
    by_id = await register(ann, id=first["_id"], hostname="h2")
    assert (by_id["_id"], by_id["hostname"]) == (first["_id"], "h2")
    new = await register(ann, id="an-id-of-mine")
    assert new["_id"] == "an-id-of-mine"
    assert new["slug"] != first["slug"]


async def test_an_agent_of_another_is_not_taken_over(ann: Client, bob: Client, client: Client) -> None:
    mine = await register(ann, hostname="shared host", username="u")
    with pytest.raises(ServerRefused, match="or Access Denied"):
        await register(bob, id=mine["_id"])
    other = await register(bob, hostname="shared host", username="u")
    assert other["_id"] != mine["_id"]
    with pytest.raises(ServerRefused, match="E11000"):
        await register(client, slug=mine["slug"])
    for attempt in ({**other, "slug": "better"}, {**other, "runas": id_of(ann)}):
        with pytest.raises(ServerRefused, match="Access denied: only admins"):
            await bob.update_one("agents", attempt)
    with pytest.raises(ServerRefused, match="Access denied: only admins"):
        await bob.update_document("agents", {"_id": other["_id"]}, {"$set": {"runas": ROOT}})
    with pytest.raises(ServerRefused, match="Access denied: only admins"):
        await register(bob, runas=id_of(ann))
    thing = await bob.insert_one("agents", {"_type": "package", "name": "x", "runas": id_of(ann), "slug": "y"})
    with pytest.raises(ServerRefused, match="Access denied: only admins"):
        await bob.update_one("agents", {**thing, "_type": "agent"})


async def test_an_agent_that_runs_as_another_gets_their_token(
    ann: Client, bob: Client, client: Client, hub: Hub
) -> None:
    agent = await register(bob)
    (whole,) = await client.query("agents", {"_id": agent["_id"]})
    await client.update_one("agents", {**whole, "runas": id_of(ann), "runasname": "ann"})
    registered = await register(bob, id=agent["_id"])
    async with hub.client(Credentials(jwt=registered["jwt"])) as as_ann:
        assert (await as_ann.connected()).id == id_of(ann)
        (seen,) = await as_ann.query("agents", {"_id": agent["_id"]})
        assert "jwt" not in seen
        assert "jwt" not in await register(as_ann, id=agent["_id"])


@pytest.mark.parametrize("slug", [None, "", "Big", "a b", "-a", "x" * 80, 5, {"$gt": ""}])
async def test_an_agent_needs_a_proper_slug(ann: Client, slug: Any) -> None:
    with pytest.raises(ServerRefused, match="An agent needs a slug"):
        await ann.insert_one("agents", {"_type": "agent", "name": "x", "slug": slug})


async def test_clients_are_listed_to_those_who_may_read_their_users(client: Client, ann: Client, bob: Client) -> None:
    await ann.register_queue("", Seen())
    all_clients = await client.custom_command("getclients")
    assert {client["username"] for client in all_clients} >= {"ann", "bob"}
    (mine,) = await ann.custom_command("getclients")
    assert mine["username"] == "ann"
    assert mine["agent"] == "jupyter_agent"
    assert mine["queues"][0]["queuename"].startswith("unknown.")


# Queues


async def test_who_may_not_read_an_agent_may_neither_send_to_it_nor_listen(ann: Client, bob: Client) -> None:
    agent = await register(ann)
    name = f"{agent['slug']}agent"
    seen = Seen()
    await ann.register_queue(name, seen)
    for queue in (name, agent["slug"], name.upper()):
        with pytest.raises(ServerRefused, match="Access denied: you may not use the queue"):
            await bob.queue_message(queue, {"command": "x"})
        with pytest.raises(ServerRefused, match="Access denied: you may not use the queue"):
            await bob.register_queue(queue, Seen())
    acl = [*agent["_acl"], {"_id": id_of(bob), "rights": READ | INVOKE}]
    agent = await ann.update_one("agents", {**agent, "_acl": acl})
    await bob.queue_message(name, {"n": 1})
    await until(lambda: seen.events)
    assert seen.events[0].data["__user"]["username"] == "bob"
    spy = Seen()
    await bob.register_queue(name, spy)
    await ann.update_one("agents", {**agent, "_acl": acl[:-1]})
    for number in range(4):
        await ann.queue_message(name, {"n": number})
    await until(lambda: len(seen.events) == 5)
    assert spy.events == []


async def test_a_new_queue_belongs_to_who_registers_it(ann: Client, bob: Client, client: Client) -> None:
    name = f"queue-{new_id()}"
    await ann.register_queue(name, Seen())
    (document,) = await client.query("mq", {"name": name})
    assert (document["_type"], document["_createdbyid"]) == ("queue", id_of(ann))
    with pytest.raises(ServerRefused, match="Access denied"):
        await bob.register_queue(name, Seen())
    with pytest.raises(ServerRefused, match="Access denied"):
        await bob.queue_message(name, {})


async def test_a_users_own_queue_is_theirs(ann: Client, bob: Client) -> None:
    with pytest.raises(ServerRefused, match="Access denied"):
        await bob.register_queue(id_of(ann), Seen())
    seen = Seen()
    await ann.register_queue(id_of(ann), seen)
    with pytest.raises(ServerRefused, match="Access denied"):
        await bob.queue_message(id_of(ann), {})


async def test_a_private_queue_is_its_makers(ann: Client, bob: Client) -> None:
    queue = await ann.register_queue("", Seen())
    with pytest.raises(ServerRefused, match="is a private queue"):
        await bob.register_queue(queue.name, Seen())


async def test_no_answer_is_asked_for_in_a_queue_of_another(ann: Client, bob: Client) -> None:
    """Else what nobody takes in time would come back there, with the words of who may not send to it."""
    name, seen = f"queue-{new_id()}", Seen()
    await ann.register_queue(name, seen)
    with pytest.raises(ServerRefused, match=f"Access denied: you may not use the queue {name}"):
        await bob.queue_message(f"queue-{new_id()}", {"n": 1}, reply_to=name)
    free, later = f"queue-{new_id()}", Seen()
    await (await bob.register_queue(own := f"queue-{new_id()}", Seen())).close()
    await bob.queue_message(own, {"n": 2}, reply_to=free, expiration_ms=200)
    await ann.register_queue(free, later)
    back = Seen()
    await bob.register_queue(mine := f"queue-{new_id()}", back)
    await bob.queue_message(
        own, {"n": 3, "__user": {"username": "ann"}, "__jwt": "x"}, reply_to=mine, expiration_ms=200
    )
    await until(lambda: back.events, "the timeout of the message that was sent last")
    assert [event.data for event in back.events] == [{"n": 3, "command": "timeout"}]
    assert later.events == seen.events == []


async def test_who_is_locked_for_writing_claims_no_queue(client: Client, bob: Client, hub: Hub) -> None:
    async with user_of(hub, "locked") as locked:
        await (await locked.register_queue(old := f"queue-{new_id()}", Seen())).close()
        (user,) = await client.query("users", {"_id": id_of(locked)})
        await client.update_one("users", {**user, "dblocked": True})
        with pytest.raises(ServerRefused, match="is locked for writing"):
            await locked.register_queue(new := f"queue-{new_id()}", Seen())
        assert await client.count("mq", {"name": new}) == 0
        await locked.register_queue(old, seen := Seen())
        await locked.queue_message(old, {"n": 1})
        await until(lambda: seen.events)
        await locked.register_queue("", Seen())


async def test_an_agent_is_never_taken_for_one_that_another_made(ann: Client, bob: Client, client: Client) -> None:
    """Its environment and its schedules would be run on the host that it is named after."""
    host = {"hostname": f"host {new_id()}", "username": "ann"}
    full = [{"_id": id_of(ann), "name": "ann", "rights": 65535}]
    item = {"_type": "agent", "slug": f"trap-{new_id()}", **host, "environment": {"NODE_OPTIONS": "x"}, "_acl": full}
    trap = await bob.insert_one("agents", item)
    registered = await register(ann, **host)
    assert registered["_id"] != trap["_id"]
    assert "environment" not in registered
    assert (await register(ann, **host))["_id"] == registered["_id"]
    item = {"_type": "agent", "slug": f"given-{new_id()}", "hostname": "given", "username": "ann"}
    given = await client.insert_one("agents", {**item, "runas": id_of(ann)})
    assert (await register(ann, hostname="given", username="ann"))["_id"] == given["_id"]


async def test_who_deletes_a_file_does_not_learn_what_uses_it(ann: Client, bob: Client, tmp_path: Path) -> None:
    path = tmp_path / "f.tgz"
    path.write_bytes(b"x")
    file = await ann.upload(path)
    (document,) = await ann.query("fs.files", {"_id": file})
    acl = [*document["metadata"]["_acl"], {"_id": id_of(bob), "rights": READ}]
    await ann.update_one("fs.files", {**document, "metadata": {**document["metadata"], "_acl": acl}})
    package = await bob.insert_one("agents", {"_type": "package", "name": "a plan of bob's", "fileid": file})
    with pytest.raises(ServerRefused, match=r"in use by an agent/workitem \(one that you may not read\)"):
        await ann.delete_one("fs.files", file)
    await bob.update_one("agents", {**package, "_acl": [*package["_acl"], {"_id": id_of(ann), "rights": READ}]})
    with pytest.raises(ServerRefused, match=r"in use by an agent/workitem \(package a plan of bob's\)"):
        await ann.delete_one("fs.files", file)


async def test_nobody_learns_a_users_name_from_a_queue(ann: Client, bob: Client, client: Client) -> None:
    ace = pb.Ace(_id=id_of(ann), rights=READ)
    queue = pb.WorkItemQueue(name=f"queue {new_id()}", _acl=[ace])
    made = (await ask(bob, pb.AddWorkItemQueueRequest(workitemqueue=queue, skiprole=True))).workitemqueue

    async def name_of_ann() -> str:
        (document,) = await bob.query("mq", {"name": queue.name})
        return next(str(entry["name"]) for entry in document["_acl"] if entry["_id"] == id_of(ann))

    assert await name_of_ann() == ""
    await ask(client, pb.UpdateWorkItemQueueRequest(workitemqueue=made, skiprole=True))
    assert await name_of_ann() == "ann"
    await ask(bob, pb.UpdateWorkItemQueueRequest(workitemqueue=made, skiprole=True))
    assert await name_of_ann() == "ann"


async def test_user_of_a_new_name_can_be_made_while_the_hub_runs(hub: Hub) -> None:
    async with user_of(hub, "frieda") as frieda:
        assert frieda.user is not None
        assert frieda.user.username == "frieda"
        assert ADMINS not in frieda.user.principals
