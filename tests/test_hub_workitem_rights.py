"""Who may do what with work items, and what is refused to everybody."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jupyter_agent.errors import ServerRefused
from jupyter_agent.hub.attachments import MAX_FILES
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import Right
from tests.hub_peers import ask
from tests.openflow_peers import Hub, names_in, until
from tests.workitem_peers import add, file, pop, popped, push, update


@pytest.fixture
def wiq() -> str:
    """The name of a queue that nobody else uses."""
    return f"queue {new_id()}"


# Rights


@pytest.fixture
async def people(hub: Hub, client: Client) -> AsyncIterator[dict[str, Client]]:
    names = ("owner", "reader", "invoker", "worker", "stranger")
    async with contextlib.AsyncExitStack() as stack:
        entered = {}
        for name in names:
            with contextlib.suppress(ServerRefused):  # there already
                await client.insert_one("users", {"_type": "user", "username": name, "newpassword": "secret"})
            credentials = Credentials(username=name, password="secret")
            entered[name] = await stack.enter_async_context(hub.client(credentials))
            await entered[name].connected()
        yield entered


RIGHTS = {"reader": Right.READ, "invoker": Right.INVOKE, "worker": Right.READ | Right.INVOKE}


def refused_to(name: str, wiq: str) -> str:
    return f"Work item queue not found {wiq}" if name in ("invoker", "stranger") else "Unknown queue or access denied"


async def test_who_may_do_what(people: dict[str, Client], wiq: str) -> None:
    owner, worker = people["owner"], people["worker"]
    acl = [pb.Ace(_id=people[name].user.id, rights=right) for name, right in RIGHTS.items()]  # type: ignore[union-attr]
    queue = await add(owner, wiq, _acl=acl)
    assert {ace["_id"] for ace in (await owner.query("mq", {"name": wiq}))[0]["_acl"]} >= {ace._id for ace in acl}
    item = await push(worker, wiq, {"n": 1})
    assert [await people[name].count("workitems", {"wiq": wiq}) for name in (*RIGHTS, "owner", "stranger")] == [
        1,
        0,
        1,
        1,
        0,
    ]
    for name in ("reader", "invoker", "stranger"):
        for request in (
            pb.PushWorkitemRequest(wiq=wiq, payload="{}"),
            pb.PushWorkitemsRequest(wiqid=queue._id, wiq=wiq, items=[pb.Workitem(payload="{}")]),
            pb.PopWorkitemRequest(wiq=wiq),
        ):
            with pytest.raises(ServerRefused, match=refused_to(name, wiq)):
                await ask(people[name], request)
        gone = "Unknown queue" if name == "reader" else f"Work item with _id {item._id} not found"
        with pytest.raises(ServerRefused, match=gone):
            await update(people[name], item, state="failed")
        with pytest.raises(ServerRefused, match=gone):
            await ask(people[name], pb.DeleteWorkitemRequest(_id=item._id))
    for name in ("reader", "worker", "invoker", "stranger"):
        for change in (
            pb.UpdateWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name=wiq, maxretries=9)),
            pb.UpdateWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name=wiq), skiprole=True, purge=True),
            pb.DeleteWorkItemQueueRequest(wiq=wiq, purge=True),
        ):
            with pytest.raises(ServerRefused, match=r"(?i)access denied|not found"):
                await ask(people[name], change)
    change = pb.UpdateWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name=wiq, maxretries=9), skiprole=True)
    change.purge = True
    editor = {"_id": people["reader"].user.id, "rights": Right.READ | Right.UPDATE}  # type: ignore[union-attr]
    await owner.update_document("mq", {"name": wiq}, {"$push": {"_acl": editor}})
    with pytest.raises(ServerRefused, match="Unknown queue or access denied"):  # and nothing is half done
        await ask(people["reader"], change)
    assert await worker.count("workitems", {"wiq": wiq}) == 1
    assert (await owner.query("mq", {"name": wiq}))[0]["maxretries"] == 2
    assert (await popped(worker, wiq))._id == item._id
    with pytest.raises(ServerRefused, match="may not delete the work item"):
        await ask(worker, pb.DeleteWorkitemRequest(_id=item._id))
    assert (await update(worker, item, state="successful")).state == "successful"
    await ask(owner, pb.DeleteWorkitemRequest(_id=item._id))


async def test_members_of_a_queues_role_may_work(people: dict[str, Client], client: Client, wiq: str) -> None:
    owner, worker = people["owner"], people["stranger"]
    made = (await ask(owner, pb.AddWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name=wiq)))).workitemqueue
    (role,) = await client.query("users", {"_id": made.usersrole})
    assert worker.user is not None
    await client.update_one("users", {**role, "members": [*role["members"], {"_id": worker.user.id, "name": "w"}]})
    item = await push(worker, wiq)
    assert (await popped(worker, wiq))._id == item._id
    assert (await owner.update_document("users", {"_id": made.usersrole}, {"$set": {"members": []}})).matched == 0
    await ask(owner, pb.DeleteWorkItemQueueRequest(wiq=wiq, purge=True))
    assert await client.count("users", {"_id": made.usersrole}) == 0


async def test_nothing_gets_into_a_queue_past_its_rights(people: dict[str, Client], client: Client, wiq: str) -> None:
    owner, worker = people["owner"], people["worker"]
    secret, mine = await add(client, f"{wiq} secret"), await add(owner, wiq)
    chaining: list[tuple[str, Any]] = [("success_wiq", secret.name), ("failed_wiqid", secret._id)]
    for field, value in chaining:
        for attempt in (
            pb.PushWorkitemRequest(wiq=wiq, **{field: value}),
            pb.AddWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name=new_id(), **{field: value}), skiprole=True),
            pb.UpdateWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name=wiq, **{field: value}), skiprole=True),
        ):
            with pytest.raises(ServerRefused, match="Unknown queue or access denied"):
                await ask(owner, attempt)
        with pytest.raises(ServerRefused, match="Unknown queue or access denied"):
            await owner.update_document("mq", {"name": wiq}, {"$set": {field: value}})
    with pytest.raises(ServerRefused, match="Work item queue not found"):
        await push(owner, wiq, failed_wiqid="an id that may be one day")
    item = {"_type": "workitem", "state": "new", "wiqid": secret._id, "wiq": secret.name, "payload": {}}
    with pytest.raises(ServerRefused, match="Unknown queue or access denied"):
        await owner.insert_one("workitems", item)
    other = await owner.insert_one("workitems", {**item, "_type": "other"})
    with pytest.raises(ServerRefused, match="Unknown queue or access denied"):
        await owner.update_one("workitems", {**other, "_type": "workitem"})
    pushed = await push(owner, wiq)
    with pytest.raises(ServerRefused, match="Unknown queue or access denied"):
        await owner.update_document("workitems", {"_id": pushed._id}, {"$set": {"wiqid": secret._id}})
    # A name that is no queue's yet is the worker's own wish; what was checked when it was set is not asked again.
    later = f"{wiq} later"
    await owner.update_document("mq", {"name": wiq}, {"$set": {"success_wiq": later}})
    await add(client, later)
    with pytest.raises(ServerRefused, match="Unknown queue or access denied"):
        await update(owner, await popped(owner, wiq), state="successful")
    assert worker.user is not None
    acl = [{"_id": worker.user.id, "rights": Right.READ | Right.INVOKE}]
    checked = {"success_wiq": secret.name, "_acl": acl}
    await client.update_document("mq", {"_id": mine._id}, {"$set": checked})
    await push(worker, wiq)
    await update(worker, await popped(worker, wiq), state="successful")
    assert await client.count("workitems", {"wiq": secret.name, "_type": "workitem"}) == 1
    assert await client.count("workitems", {"wiq": later}) == 0


# Bad input


def item(**fields: Any) -> pb.Workitem:
    return pb.Workitem(_id="here", **fields)


DEEP = "[" * 120 + "]" * 120
BAD_PUSHES: dict[str, tuple[dict[str, Any], str]] = {
    "no JSON": ({"payload": "hello"}, "The payload is not valid JSON"),
    "NaN": ({"payload": '{"n": NaN}'}, "not valid JSON"),
    "half a pair": ({"payload": '{"s": "\\ud800"}'}, "not valid JSON"),
    "deep": ({"payload": DEEP}, "nested deeper"),
    "a date of ours": ({"payload": '{"$date": 1}'}, "is written as text"),
    "NUL in a name": ({"payload": '{"a\\u0000b": 1}'}, "NUL"),
    "too big": ({"payload": json.dumps({"x": "y" * (20 << 20)})}, "MiB is too big"),
    "a long name": ({"name": "n" * 1001}, "The name of a work item"),
    "far future": ({"nextrun": {"seconds": 2**62}}, "is no date"),
    "far past": ({"nextrun": {"seconds": -(2**62)}}, "is no date"),
    "odd nanos": ({"nextrun": {"seconds": 253_402_300_799, "nanos": 2**31 - 1}}, "is no date"),
    "no file name": ({"files": [file("", b"x")]}, "cannot be the name of a work item's file"),
    "a folder": ({"files": [file("a/..", b"x")]}, "cannot be the name"),
    "NUL in a file's name": ({"files": [file("a\0b", b"x")]}, "cannot be the name"),
    "a long file name": ({"files": [file("a" * 256, b"x")]}, "cannot be the name"),
    "many files": ({"files": [file(str(n), b"x") for n in range(MAX_FILES + 1)]}, "too many"),
    "an id for a file": ({"files": [file("a", id="123")]}, "needs the content"),
}


@pytest.mark.parametrize("name", BAD_PUSHES)
async def test_bad_pushes_are_refused_in_a_sentence(client: Client, hub: Hub, wiq: str, name: str) -> None:
    fields, sentence = BAD_PUSHES[name]
    await add(client, wiq)
    before = names_in(hub.home / "hub" / "files")
    with pytest.raises(ServerRefused, match=sentence):
        await ask(client, pb.PushWorkitemRequest(wiq=wiq, **fields))
    ok = pb.Workitem(payload="{}", files=[file("ok", b"x")])
    with pytest.raises(ServerRefused, match=sentence):
        await ask(client, pb.PushWorkitemsRequest(wiq=wiq, items=[ok, pb.Workitem(**fields)]))
    assert await client.count("workitems", {"wiq": wiq}) == 0
    await until(lambda: names_in(hub.home / "hub" / "files") == before)
    assert await pop(client, wiq) is None


BAD_REQUESTS: dict[str, tuple[Any, str]] = {
    "push nowhere": (pb.PushWorkitemRequest(payload="{}"), "wiq or wiqid"),
    "push to nothing": (pb.PushWorkitemRequest(wiq="nope"), r"Work item queue not found nope \(\) not found\."),
    "push to no id": (pb.PushWorkitemRequest(wiqid="5"), r"Work item queue not found  \(5\) not found."),
    "push to NUL": (pb.PushWorkitemRequest(wiq="a\0b"), "not found"),
    "push many nowhere": (pb.PushWorkitemsRequest(items=[pb.Workitem()]), "wiq or wiqid"),
    "push too many": (pb.PushWorkitemsRequest(wiq="q", items=[pb.Workitem()] * 10_001), "10000 items"),
    "pop nowhere": (pb.PopWorkitemRequest(), "wiq or wiqid"),
    "pop nothing": (pb.PopWorkitemRequest(wiqid="nope"), "Work item queue not found"),
    "update nothing": (pb.UpdateWorkitemRequest(), "The workitem is missing"),
    "update no id": (pb.UpdateWorkitemRequest(workitem=pb.Workitem(state="failed")), "not found"),
    "update unknown": (pb.UpdateWorkitemRequest(workitem=pb.Workitem(_id="no")), "_id no not found"),
    "abandoned": (pb.UpdateWorkitemRequest(workitem=item(state="abandoned")),
                  "Illegal state abandoned on Workitem, must be failed, successful, processing or retry"),
    "new": (pb.UpdateWorkitemRequest(workitem=item(state="new")), "Illegal state new"),
    "odd state": (pb.UpdateWorkitemRequest(workitem=item(state="suc\0cessful")), "Illegal state"),
    "update with no JSON": (pb.UpdateWorkitemRequest(workitem=item(payload="{", state="failed")), "not valid JSON"),
    "update with much": (pb.UpdateWorkitemRequest(workitem=item(payload=f'"{"x" * (17 << 20)}"')), "too big"),
    "update with no date": (pb.UpdateWorkitemRequest(workitem=item(nextrun={"seconds": 2**62})), "is no date"),
    "update with a long name": (pb.UpdateWorkitemRequest(workitem=item(name="n" * 1001)), "The name"),
    "another's file": (pb.UpdateWorkitemRequest(workitem=item(), files=[file("x", id="1")]), "has no file"),
    "update with no file's name": (pb.UpdateWorkitemRequest(workitem=item(), files=[file("", b"x")]), "cannot be"),
    "delete nothing": (pb.DeleteWorkitemRequest(), "not found"),
    "delete unknown": (pb.DeleteWorkitemRequest(_id="nope"), "Work item with _id nope not found"),
    "a queue with no name": (pb.AddWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(maxretries=1)), "needs a name"),
    "a queue of nothing": (pb.AddWorkItemQueueRequest(), "needs a name"),
    "a blank name": (pb.AddWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name="  ")), "needs a name"),
    "a long queue": (pb.AddWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name="n" * 191)), "needs a name"),
    "NUL in a queue": (pb.AddWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name="a\0b")), "needs a name"),
    "before now": (pb.AddWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name="z", retrydelay=-1)), "retrydelay"),
    "change nothing": (pb.UpdateWorkItemQueueRequest(), "wiq or wiqid"),
    "change unknown": (pb.UpdateWorkItemQueueRequest(workitemqueue=pb.WorkItemQueue(name="nope")), "not found"),
    "drop nothing": (pb.DeleteWorkItemQueueRequest(), "wiq or wiqid"),
    "drop unknown": (pb.DeleteWorkItemQueueRequest(wiq="nope", purge=True), "not found"),
}  # fmt: skip


async def test_bad_requests_are_refused_in_a_sentence_and_change_nothing(client: Client) -> None:
    queue = await add(client, "bad requests")
    made = await client.insert_one("workitems", {"_id": "here", "_type": "workitem", "state": "processing",
                                                 "wiqid": queue._id, "wiq": queue.name, "payload": {}})  # fmt: skip
    queues = await client.count("mq", {})
    for name, (request, sentence) in BAD_REQUESTS.items():
        with pytest.raises(ServerRefused, match=sentence) as refused:
            await ask(client, request)
        assert "fault of its own" not in str(refused.value), name
        assert len(str(refused.value)) < 400, name
    assert await client.query("workitems", {"wiqid": queue._id}) == [made]
    assert await client.count("mq", {}) == queues
