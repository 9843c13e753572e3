"""Work item queues and work items over the wire: states, files, copies, rights, hints, bad input."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import zlib
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.errors import ServerRefused
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import ADMINS, WORKITEM_QUEUE_ADMINS, Right
from tests.hub_peers import ask, line, rows_of, user_of
from tests.openflow_peers import Hub, Seen, names_in, until
from tests.test_hub_connections import hub as hub_with
from tests.test_hub_connections import signed_in
from tests.workitem_peers import add, file, files_of, ms, pop, popped, push, stored, update


@pytest.fixture
def wiq() -> str:
    """The name of a queue that nobody else uses."""
    return f"queue {new_id()}"


# Queues


async def test_a_queue_has_a_name_of_its_own_and_defaults(client: Client, wiq: str) -> None:
    added = await add(client, wiq, maxretries=0)
    assert (added.name, added.maxretries, added.retrydelay, added.usersrole) == (wiq, 3, 0, "")
    (document,) = await client.query("mq", {"_id": added._id})
    assert (document["_type"], document["_version"]) == ("workitemqueue", 0)
    assert client.user is not None
    everything = {ace["_id"] for ace in document["_acl"] if ace["rights"] == Right.FULL}
    assert everything == {client.user.id, ADMINS, WORKITEM_QUEUE_ADMINS}
    with pytest.raises(ServerRefused, match="already exists"):
        await add(client, wiq)


async def test_a_queue_may_have_a_role_that_goes_with_it(client: Client, wiq: str) -> None:
    reply = await ask(client, pb.AddWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name=wiq)))
    role = reply.workitemqueue.usersrole
    (document,) = await client.query("users", {"_id": role})
    assert client.user is not None
    assert (document["name"], [each["_id"] for each in document["members"]]) == (f"{wiq} users", [client.user.id])
    assert {ace._id: ace.rights for ace in reply.workitemqueue._acl}[role] == Right.READ | Right.UPDATE | Right.INVOKE
    await ask(client, pb.DeleteWorkItemQueueRequest(wiq=wiq))
    assert await client.count("users", {"_id": role}) == 0


async def test_a_role_that_is_there_is_neither_joined_nor_deleted(client: Client, wiq: str) -> None:
    named = pb.WorkItemQueue(name="robot")  # its role would be the well-known "robot users"
    with pytest.raises(ServerRefused, match="There is a role robot users already"):
        await ask(client, pb.AddWorkItemQueueRequest(workitemqueue=named))
    assert await client.count("mq", {"name": "robot"}) == 0
    role = await client.insert_one("users", {"_type": "role", "name": f"role {wiq}", "members": []})
    queue = await add(client, wiq)
    await client.update_document("mq", {"_id": queue._id}, {"$set": {"usersrole": role["_id"]}})
    await ask(client, pb.DeleteWorkItemQueueRequest(wiqid=queue._id))
    assert await client.count("users", {"_id": role["_id"]}) == 1


async def test_a_queue_is_changed_in_part_or_as_a_whole(client: Client, wiq: str) -> None:
    queue = await add(client, wiq, amqpqueue="worker", packageid="p", retrydelay=5)
    part = pb.WorkItemQueue(name=wiq, maxretries=7)
    request = pb.UpdateWorkItemQueueRequest(workitemqueue=part, skiprole=True)
    changed = (await ask(client, request)).workitemqueue
    assert (changed.maxretries, changed.amqpqueue, changed.retrydelay, changed._version) == (7, "worker", 5, 1)
    changed.name, changed.amqpqueue, changed.retrydelay = f"{wiq} 2", "", 0
    whole = (await ask(client, pb.UpdateWorkItemQueueRequest(workitemqueue=changed, skiprole=True))).workitemqueue
    assert (whole._id, whole.name, whole.amqpqueue, whole.retrydelay, whole.packageid) == (
        queue._id, f"{wiq} 2", "", 0, "p",
    )  # fmt: skip
    assert [ace.rights for ace in whole._acl] == [ace.rights for ace in queue._acl]
    await add(client, wiq)
    with pytest.raises(ServerRefused, match="already exists"):
        await ask(client, pb.UpdateWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(_id=queue._id, name=wiq)))


async def test_a_queue_with_items_is_deleted_by_purge_alone(client: Client, hub: Hub, wiq: str) -> None:
    await add(client, wiq)
    first = await push(client, wiq, files=[file("a.txt", b"a")])
    await ask(client, pb.PushWorkitemsRequest(wiq=wiq, items=[pb.Workitem(payload="{}")] * 1200))  # several jobs
    (content,) = await files_of(client, first)
    with pytest.raises(ServerRefused, match="is not empty"):
        await ask(client, pb.DeleteWorkItemQueueRequest(wiq=wiq))
    await ask(
        client, pb.UpdateWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name=wiq), skiprole=True, purge=True)
    )
    assert await client.count("workitems", {"wiq": wiq}) == await client.count("files", {"_id": content["_id"]}) == 0
    await until(lambda: content["_id"] not in names_in(hub.home / "hub" / "files"))
    await push(client, wiq)
    await ask(client, pb.DeleteWorkItemQueueRequest(wiq=wiq, purge=True))
    assert await client.count("workitems", {"wiq": wiq}) == await client.count("mq", {"name": wiq}) == 0


# Items


async def test_an_item_from_push_to_success(client: Client, wiq: str) -> None:
    queue = await add(client, wiq)
    item = await push(client, wiq, {"a.b": 1, "at": "2024-01-02T03:04:05.678Z"}, name="one")
    assert (item.state, item.retries, item.priority, item.name) == ("new", 0, 2, "one")
    assert (item.wiq, item.wiqid) == (wiq, queue._id)
    document = await stored(client, item)
    assert document["payload"] == {"a.b": 1, "at": "2024-01-02T03:04:05.678Z"}
    assert document["_acl"] == (await client.query("mq", {"name": wiq}))[0]["_acl"]
    given = await popped(client, wiq)
    assert client.user is not None
    assert (given._id, given.state, given.username) == (item._id, "processing", client.user.name)
    assert given.HasField("lastrun")
    assert not given.HasField("nextrun")
    assert await pop(client, wiq) is None
    done = await update(client, item, state="successful", payload='{"b": 2}')
    assert (done.state, json.loads(done.payload)) == ("successful", {"b": 2})
    document = await stored(client, item)
    assert (document["_version"], document["userid"]) == (2, client.user.id)
    await ask(client, pb.DeleteWorkitemRequest(_id=item._id))
    assert await client.count("workitems", {"wiq": wiq}) == 0


@pytest.mark.parametrize(
    ("text", "payload"),
    [("", {}), ("null", {}), ("5", {"value": 5}), ('"x"', {"value": "x"}), ("[1, {}]", {"value": [1, {}]})],
)
async def test_a_payload_is_always_an_object(client: Client, wiq: str, text: str, payload: object) -> None:
    await add(client, wiq)
    item = (await ask(client, pb.PushWorkitemRequest(wiq=wiq, payload=text))).workitem
    assert (await stored(client, item))["payload"] == payload
    assert json.loads((await popped(client, wiq)).payload) == payload


async def test_lower_priorities_come_first_then_earlier_ones(client: Client, wiq: str) -> None:
    await add(client, wiq)
    pushed: dict[str, dict[str, Any]] = {
        "late": {"nextrun": {"seconds": 2000}},
        "low": {"priority": 9},
        "early": {"nextrun": {"seconds": 1000}},
        "early too": {"nextrun": {"seconds": 1000}},
        "never": {"priority": -5, "nextrun": {"seconds": 200_000_000_000}},
        "urgent": {"priority": -1},
    }
    for name, fields in pushed.items():
        await push(client, wiq, name=name, **fields)
    items = [await popped(client, wiq) for _ in range(5)]
    assert [item.name for item in items] == ["urgent", "early", "early too", "late", "low"]
    assert await pop(client, wiq) is None


async def test_delays_and_times_are_kept(client: Client, wiq: str) -> None:
    await add(client, wiq, initialdelay=1000, retrydelay=500)
    item = await push(client, wiq)
    created = (await client.query("workitems", {"_id": item._id}, projection={"_created": 1}))[0]["_created"]
    assert item.nextrun.seconds > 0
    assert await pop(client, wiq) is None
    document = await stored(client, item)
    assert document["nextrun"] > created
    now = await push(client, wiq, nextrun={"seconds": 1})
    assert (await popped(client, wiq))._id == now._id
    again = await update(client, now, state="retry")
    assert ms(again.nextrun) - ms(now.nextrun) > 500_000
    at = await update(client, now, state="retry", nextrun={"seconds": 1_700_000_000}, force=True)
    assert (await stored(client, at))["nextrun"] == "2023-11-14T22:13:20.000Z"
    both = await ask(client, pb.PushWorkitemsRequest(wiq=wiq, nextrun={"nanos": 5_000_000}, items=[
        pb.Workitem(payload="{}"), pb.Workitem(payload="{}", nextrun={"seconds": 7}),
    ]))  # fmt: skip
    assert [ms(each.nextrun) for each in both.workitems] == [5, 7000]


async def test_retries_come_to_an_end(client: Client, wiq: str) -> None:
    await add(client, wiq, maxretries=3)
    item = await push(client, wiq)
    seen = []
    for _ in range(3):
        await popped(client, wiq)
        told = await update(client, item, state="Retry", errormessage="no network")
        seen.append((told.state, told.retries, told.username, told.errortype))
    assert client.user is not None
    assert seen == [("new", 1, "", "application"), ("new", 2, "", "application"),
                    ("failed", 2, client.user.name, "application")]  # fmt: skip
    assert await pop(client, wiq) is None
    forced = await update(client, item, state="retry", force=True)
    assert (forced.state, forced.retries) == ("new", 3)
    await popped(client, wiq)
    business = await update(client, item, state="retry", errortype="business", errormessage="unknown customer")
    assert (business.state, business.errortype, business.errormessage) == ("failed", "business", "unknown customer")


async def test_an_update_leaves_what_it_does_not_mention(client: Client, wiq: str) -> None:
    await add(client, wiq)
    item = await push(client, wiq, {"n": 1}, name="one", priority=7)
    told = await update(client, item, errorsource="me")
    assert (told.state, told.name, told.priority, told.payload, told.errorsource) == ("new", "one", 7, '{"n":1}', "me")
    assert told.HasField("nextrun")
    assert (await popped(client, wiq))._id == item._id
    kept = await update(client, item, state="processing", payload='{"n": 2}', priority=1)
    assert (kept.state, kept.priority, kept.payload) == ("processing", 1, '{"n":2}')


async def test_many_clients_pop_each_item_once(hub: Hub, client: Client, wiq: str) -> None:
    await add(client, wiq)
    items = [pb.Workitem(payload="{}", priority=1 + number % 5) for number in range(400)]
    pushed = (await ask(client, pb.PushWorkitemsRequest(wiq=wiq, items=items))).workitems
    given: list[list[pb.Workitem]] = []

    async def work(worker: Client) -> None:
        mine: list[pb.Workitem] = []
        given.append(mine)
        while (item := await pop(worker, wiq)) is not None:
            mine.append(item)

    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(hub.client()) for _ in range(8)]
        await asyncio.gather(*(work(worker) for worker in workers))
    ids = [item._id for mine in given for item in mine]
    assert sorted(ids) == sorted(item._id for item in pushed)
    for mine in given:
        assert [item.priority for item in mine] == sorted(item.priority for item in mine)


# Copies


async def test_what_fails_is_copied_with_its_files(client: Client, hub: Hub, wiq: str) -> None:
    target = await add(client, f"{wiq} failed")
    await add(client, wiq, maxretries=1, failed_wiq=target.name)
    item = await push(client, wiq, {"n": 1}, name="one", priority=4, files=[file("a.txt", b"A"), file("b.txt", b"B")])
    given = await popped(client, wiq)
    told = await update(client, given, state="retry", errormessage="no", given=[file("b.txt", b"BB")])
    assert (told.state, told.failed_wiq) == ("failed", "")
    assert await stored(client, item)
    copy = await popped(client, target.name, includefiles=True)
    assert (copy.name, copy.priority, copy.payload, copy.retries) == ("one", 4, '{"n":1}', 0)
    assert (copy.errormessage, copy.errortype, copy.failed_wiq, copy.wiqid) == ("", "", "", target._id)
    assert {each.filename: each.file for each in copy.files} == {"a.txt": b"A", "b.txt": b"BB"}
    assert {each._id for each in copy.files}.isdisjoint(each._id for each in told.files)
    await ask(client, pb.DeleteWorkitemRequest(_id=item._id))
    assert [each["filename"] for each in await files_of(client, copy)] == ["a.txt", "b.txt"]
    assert {each._id for each in copy.files} <= set(names_in(hub.home / "hub" / "files"))
    await update(client, copy, state="failed")  # the copy has no queue of its own to go to
    assert await client.count("workitems", {"name": "one", "wiq": {"$in": [wiq, target.name]}}) == 1


async def test_an_items_own_queues_count_before_its_queues(client: Client, wiq: str) -> None:
    theirs, own = await add(client, f"{wiq} theirs"), await add(client, f"{wiq} own")
    await add(client, wiq, success_wiqid=theirs._id, failed_wiq=theirs.name)
    await push(client, wiq, name="a", success_wiq=own.name)
    await push(client, wiq, name="b")
    items = [pb.Workitem(payload="{}", name="c"), pb.Workitem(payload="{}", name="d", success_wiqid=theirs._id)]
    await ask(client, pb.PushWorkitemsRequest(wiq=wiq, items=items, success_wiq=own.name))
    for _ in range(4):
        await update(client, await popped(client, wiq), state="successful")
    assert [(await popped(client, own.name)).name for _ in range(2)] == ["a", "c"]
    assert [(await popped(client, theirs.name)).name for _ in range(2)] == ["b", "d"]
    again = (await client.query("workitems", {"wiq": wiq, "name": "a"}))[0]["_id"]
    await update(client, again, state="successful")  # it is already
    assert await pop(client, own.name) is None


async def test_queues_for_copies_are_set_by_direct_edits(client: Client, wiq: str) -> None:
    await add(client, wiq, success_wiq=(await add(client, f"{wiq} 1")).name)
    await add(client, f"{wiq} 2")
    for name, change in {
        "to 2": {"$set": {"success_wiq": f"{wiq} 2"}},
        "to 3": {"$set": {"success_wiq": f"{wiq} 3"}},  # which comes later
        "nowhere": {"$unset": {"success_wiq": ""}},
    }.items():
        await client.update_document("mq", {"name": wiq}, change)
        if name == "to 3":
            await add(client, f"{wiq} 3")
        await push(client, wiq, name=name)
        await update(client, await popped(client, wiq), state="successful")
    assert [(await popped(client, f"{wiq} {number}")).name for number in (2, 3)] == ["to 2", "to 3"]
    assert await client.count("workitems", {"wiq": f"{wiq} 1"}) == 0
    await client.update_document("mq", {"name": wiq}, {"$set": {"success_wiq": f"{wiq} 4"}})
    await push(client, wiq)
    assert (await update(client, await popped(client, wiq), state="successful")).state == "successful"


# Files


async def test_files_come_and_go_with_their_item(client: Client, hub: Hub, wiq: str, tmp_path: Path) -> None:
    queue = await add(client, wiq)
    data = b"a line\n" * 100_000
    given = [file("C:\\in\\a.csv", data, compress=True), file("../../b.bin", b"B"), file("b.bin", b"")]
    item = await push(client, wiq, files=given[:2])
    entries = (await stored(client, item))["files"]
    assert [(each["name"], each["filename"]) for each in entries] == [
        ("C:\\in\\a.csv", "a.csv"), ("../../b.bin", "b.bin"),
    ]  # fmt: skip
    a, b = await files_of(client, item)
    assert (a["_id"], a["filename"], a["length"], a["contentType"]) == (
        item.files[0]._id,
        "a.csv",
        len(data),
        "text/csv",
    )
    about = a["metadata"]
    assert (about["wiq"], about["wiqid"], about["filename"]) == (wiq, queue._id, "a.csv")
    assert about["uniquename"].endswith("-a.csv")
    assert b["metadata"]["path"] == "../.."
    assert about["_acl"] == (await stored(client, item))["_acl"]
    assert (await client.download(a["_id"], tmp_path)).read_bytes() == data
    with pytest.raises(ServerRefused, match="in use by an agent/workitem"):
        await client.delete_one("files", a["_id"])
    await ask(client, pb.DeleteWorkitemRequest(_id=item._id))
    assert await files_of(client, item) == []
    await until(lambda: a["_id"] not in names_in(hub.home / "hub" / "files"))


@pytest.mark.parametrize("compressed", [False, True])
async def test_contents_come_with_a_popped_item(client: Client, wiq: str, compressed: bool) -> None:  # noqa: FBT001
    await add(client, wiq)
    data = b"a line\n" * 1000
    item = await push(client, wiq, files=[file("a", data), file("empty", b"", compress=True)])
    a, empty = (await popped(client, wiq, includefiles=True, compressed=compressed)).files
    assert (a._id, a.filename, a.compressed) == (item.files[0]._id, "a", compressed)
    assert (zlib.decompress(a.file), zlib.decompress(empty.file)) == (data, b"") if compressed else a.file == data
    assert len(a.file) < len(data) or not compressed
    await update(client, item, state="retry")
    assert [each.file for each in (await popped(client, wiq)).files] == [b"", b""]


async def test_an_update_keeps_replaces_and_removes_files(client: Client, hub: Hub, wiq: str) -> None:
    await add(client, wiq)
    item = await push(
        client, wiq, files=[file("keep", b"1"), file("replace", b"2"), file("gone", b"3"), file("rest", b"4")]
    )
    keep, replace, gone, rest = item.files
    given = [file("keep", id=keep._id), file("dir/replace", b"22", id=replace._id), file("gone"), file("new", b"5")]
    told = await update(client, item, given=given)
    names = {each.filename: each._id for each in told.files}
    assert (names["keep"], names["rest"]) == (keep._id, rest._id)
    assert set(names) == {"keep", "rest", "replace", "new"}
    assert names["replace"] != replace._id
    assert {each["_id"] for each in await files_of(client, item)} == set(names.values())
    await until(lambda: {replace._id, gone._id}.isdisjoint(names_in(hub.home / "hub" / "files")))
    back = await popped(client, wiq, includefiles=True)
    assert {each.filename: each.file for each in back.files} == {
        "keep": b"1", "rest": b"4", "replace": b"22", "new": b"5",
    }  # fmt: skip
    request = pb.UpdateWorkitemRequest(workitem=back)  # as it was popped, contents and all
    request.workitem.state = "successful"
    again = (await ask(client, request)).workitem
    assert sorted(each.filename for each in again.files) == sorted(names)
    assert [each["length"] for each in await files_of(client, item)] == [1, 1, 2, 1]


async def test_a_failed_request_leaves_no_file(client: Client, hub: Hub, wiq: str) -> None:
    await add(client, wiq)
    item = await push(client, wiq, files=[file("a", b"1")])
    before = names_in(hub.home / "hub" / "files")
    broken = pb.WorkitemFile(filename="b", file=b"not compressed", compressed=True)
    cut = pb.WorkitemFile(filename="b", file=zlib.compress(b"x" * 100_000)[:-5], compressed=True)
    for bad in (broken, cut, pb.WorkitemFile(filename="b", file=zlib.compress(b"x") + b"more", compressed=True)):
        with pytest.raises(ServerRefused, match="is said to be compressed"):
            await push(client, wiq, files=[file("ok", b"ok"), bad])
        with pytest.raises(ServerRefused, match="is said to be compressed"):
            await update(client, item, state="failed", given=[file("a", b"2"), bad])
    with pytest.raises(ServerRefused, match="Illegal state"):
        await update(client, item, state="new", given=[file("a", b"2")])
    with pytest.raises(ServerRefused, match="not found"):
        await push(client, "no such queue", files=[file("a", b"2")])
    with pytest.raises(ServerRefused, match="MiB is too big"):
        await push(client, wiq, "x" * (17 << 20), files=[file("a", b"2")])
    await until(lambda: names_in(hub.home / "hub" / "files") == before)
    assert (await stored(client, item))["state"] == "new"
    assert await client.count("workitems", {"wiq": wiq}) == 1


async def test_a_little_data_does_not_become_too_much(client: Client, hub: Hub, wiq: str) -> None:
    await add(client, wiq)
    before = names_in(hub.home / "hub" / "files")
    packing = zlib.compressobj(9)
    bomb = b"".join(packing.compress(bytes(1 << 20)) for _ in range(200)) + packing.flush()
    with pytest.raises(ServerRefused, match="MiB together"):
        await push(client, wiq, files=[pb.WorkitemFile(filename="bomb", file=bomb, compressed=True)])
    await until(lambda: names_in(hub.home / "hub" / "files") == before)
    assert await client.count("workitems", {"wiq": wiq}) == 0


async def test_files_that_clients_write_into_an_item_are_nobody_elses(client: Client, hub: Hub, wiq: str) -> None:
    async with user_of(hub, "ann") as ann:
        await add(client, wiq)
        assert ann.user is not None
        await client.update_document("mq", {"name": wiq}, {"$push": {"_acl": {"_id": ann.user.id, "rights": 65535}}})
        other = await push(client, wiq, files=[file("mine", b"secret")])
        await client.update_document("workitems", {"_id": other._id}, {"$set": {"_acl": [], "nextrun": None}})
        await client.update_document("files", {"_id": other.files[0]._id}, {"$set": {"metadata._acl": []}})
        item = await push(ann, wiq)
        entry = {"name": "x", "filename": "x", "_id": other.files[0]._id}
        await ann.update_document("workitems", {"_id": item._id}, {"$set": {"files": [entry]}})
        (found,) = (await popped(ann, wiq, includefiles=True)).files
        assert (found._id, found.file) == (other.files[0]._id, b"")
        await update(ann, item, given=[file("x")])
        await ann.update_document("workitems", {"_id": item._id}, {"$set": {"files": [entry]}})
        await ask(ann, pb.DeleteWorkitemRequest(_id=item._id))
        assert await client.count("files", {"_id": other.files[0]._id}) == 1


# Direct edits, watches, hints


async def test_items_may_be_edited_directly(client: Client, wiq: str) -> None:
    await add(client, wiq)
    item = await push(client, wiq, files=[file("a", b"1")])
    await client.update_document("workitems", {"_id": item._id}, {"$set": {"state": "failed"}})
    assert await pop(client, wiq) is None
    document = await stored(client, item)
    odd = {"priority": "high", "retries": "many", "errormessage": 5, "payload": [1], "username": None, "name": 7}
    await client.update_one("workitems", {**document, **odd, "state": "new"})
    given = await popped(client, wiq)
    assert (given._id, given.priority, given.retries, given.payload, given.name) == (item._id, 2, 0, "[1]", "")
    assert (await update(client, item, state="retry")).retries == 1
    await client.delete_one("workitems", item._id)
    assert await files_of(client, item) == []


async def test_a_queue_stays_a_queue(client: Client, wiq: str) -> None:
    queue = await add(client, wiq)
    (document,) = await client.query("mq", {"_id": queue._id})
    with pytest.raises(ServerRefused, match="_type workitemqueue"):
        await client.update_one("mq", {**document, "_type": "queue"})
    with pytest.raises(ServerRefused, match="already exists"):
        await client.insert_one("mq", {"_type": "workitemqueue", "name": wiq})
    with pytest.raises(ServerRefused, match="needs a name"):
        await client.update_document("mq", {"_id": queue._id}, {"$set": {"name": ""}})
    bare = await client.insert_one("mq", {"_type": "workitemqueue", "name": f"{wiq} bare", "maxretries": "x"})
    item = await push(client, bare["name"])
    await popped(client, bare["name"])
    assert (await update(client, item, state="retry")).state == "new"
    await client.delete_one("mq", bare["_id"])
    await add(client, bare["name"])  # another one
    with pytest.raises(ServerRefused, match="Work item queue not found"):
        await update(client, item, state="retry")
    await client.delete_one("workitems", item._id)


async def test_watchers_see_what_becomes_of_items(client: Client, wiq: str) -> None:
    seen = Seen()
    queue = await add(client, wiq)
    await client.watch("workitems", [f"$.[?(@.wiqid == '{queue._id}')]"], seen)
    item = await push(client, wiq)
    await popped(client, wiq)
    await update(client, item, state="successful")
    await ask(client, pb.DeleteWorkitemRequest(_id=item._id))
    await push(client, wiq)
    await until(lambda: len(seen.events) >= 4)
    states = [(event.operation, event.document["state"]) for event in seen.events]
    assert states == [("insert", "new"), ("replace", "processing"), ("replace", "successful"), ("insert", "new")]


async def test_who_consumes_the_queues_queue_is_told_of_due_items(tmp_path: Path) -> None:
    async with hub_with(tmp_path, hints_s=0.05) as server, line(server.url) as wire, line(server.url) as other:
        for each, name in ((wire, "Worker"), (other, "another")):
            await signed_in(each)
            await each.ask("registerqueue", pb.RegisterQueueRequest(queuename=name))
        queue = pb.WorkItemQueue(name="q", amqpqueue="Worker", packageid="p")
        _, added = await wire.ask("addworkitemqueue", pb.AddWorkItemQueueRequest(workitemqueue=queue, skiprole=True))
        await wire.ask("addworkitemqueue", pb.AddWorkItemQueueRequest(
            workitemqueue=pb.WorkItemQueue(name="silent", amqpqueue="another"), skiprole=True))  # fmt: skip
        await wire.ask("pushworkitem", pb.PushWorkitemRequest(wiq="q", nextrun={"seconds": 200_000_000_000}))
        await wire.ask("pushworkitem", pb.PushWorkitemRequest(wiq="q"))
        for _ in range(2):  # again and again
            _, event = await wire.hear("queueevent")
            assert json.loads(event.data) == {"wiq": "q", "wiqid": added.workitemqueue._id, "packageid": "p"}
            assert (event.queuename, event.correlationId, event.replyto) == ("worker", "", "")
        _, reply = await wire.ask("popworkitem", pb.PopWorkitemRequest(wiq="q"))
        assert reply.HasField("workitem")
        await other.ask("pushworkitem", pb.PushWorkitemRequest(wiq="silent"))
        _, event = await other.hear("queueevent")  # of rounds in which nothing else was due
        assert json.loads(event.data)["wiq"] == "silent"


# Faults


async def test_who_hangs_up_in_the_middle_leaves_no_content_without_an_item(client: Client, hub: Hub, wiq: str) -> None:
    await add(client, wiq)
    item = await push(client, wiq, files=[file("one", b"1")])
    files = [file(f"{number}.bin", bytes(300_000)) for number in range(10)]
    for turn in range(12):
        async with line(hub.url) as wire:
            await wire.sign_in(hub)
            if turn % 2:
                await wire.say("pushworkitem", pb.PushWorkitemRequest(wiq=wiq, files=files))
            else:
                message = pb.Workitem(_id=item._id)
                await wire.say("updateworkitem", pb.UpdateWorkitemRequest(workitem=message, files=files))
            await asyncio.sleep(turn * 0.012)  # the moment is what is tried
            wire.socket.transport.abort()
    folder = hub.home / "hub" / "files"

    def known() -> list[str]:
        (number,) = rows_of(hub, "SELECT n FROM collections WHERE name = 'fs.files'")[0]
        return sorted(row[0] for row in rows_of(hub, f"SELECT id FROM c{number}"))  # noqa: S608 - a number

    await until(lambda: names_in(folder) == known(), "contents and documents agree")
    for found in await client.query("workitems", {"wiq": wiq}):
        assert len(found["files"]) in (1, len(files), 1 + len(files))


async def test_a_full_disk_is_said_and_nothing_is_left(client: Client, hub: Hub, wiq: str) -> None:
    await add(client, wiq)
    item = await push(client, wiq, files=[file("a", b"1")])
    before = names_in(hub.home / "hub" / "files")
    assert hub.process is not None
    limit = resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (400_000, limit[1]))
    try:
        with pytest.raises(ServerRefused, match="could not be kept"):
            await push(client, wiq, files=[file("b", b"2"), file("c", bytes(500_000))])
        with pytest.raises(ServerRefused, match="could not be kept"):
            await update(client, item, state="failed", given=[file("a", b"2"), file("c", bytes(500_000))])
    finally:
        resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, limit)
    await until(lambda: names_in(hub.home / "hub" / "files") == before)
    assert [entry["_id"] for entry in (await stored(client, item))["files"]] == [item.files[0]._id]
    assert (await push(client, wiq, files=[file("c", bytes(500_000))])).state == "new"
