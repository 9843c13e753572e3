"""Every message of the protocol as a method: what is sent, what becomes of the reply, and the server's traps."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jwt as pyjwt
import orjson
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_agent.errors import AgentError, Failed, InvalidInput, NotFound, ProtocolError, ServerRefused
from jupyter_agent.openflow.client import Client, Credentials, Workitem, WorkitemFile, WorkitemQueue
from jupyter_agent.openflow.commands import decode_in_pieces
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import REQUESTS, Envelope, reply_type
from jupyter_agent.openflow.signin import expiry_warning
from jupyter_agent.openflow.workitems import inflated, set_time, time_of
from tests.hub_peers import hub_on_a_new_home
from tests.openflow_peers import Peer, Seen, odd_client, odd_peer

NOT_SENT = {
    "ping", "noop", "error", "beginstream", "stream", "endstream",  # parts of others
    "refreshtoken", "watchevent", "queueevent",  # events
    "deletepackage",  # servers take another package than the one named: `delete_package` does without
}  # fmt: skip


class Recorder:
    """A server that answers each command with what is given for it, and keeps what it was asked."""

    def __init__(self, **replies: Message) -> None:
        self.replies = replies
        self.asked: list[tuple[str, Any, str]] = []

    async def __call__(self, peer: Peer, envelope: Envelope, message: Message) -> None:
        command = envelope.command
        self.asked.append((command, message, envelope.jwt))
        if command in ("stream", "beginstream", "endstream"):
            if command == "endstream":
                await peer.send("uploadreply", pb.UploadResponse(id="f"), rid=envelope.rid)
            return
        kind = reply_type(command)
        assert kind is not None, command
        if command != "upload":
            await peer.send(f"{command}reply", self.replies.get(command) or kind(), rid=envelope.id)

    def of(self, command: str) -> Any:
        """The last message of this command."""
        return next(message for asked, message, _ in reversed(self.asked) if asked == command)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with odd_peer(self) as url, odd_client(url, requests_per_s=None) as client:
            await client.connected()
            yield client


DOCUMENT = '{"_id": "1", "name": "n"}'


async def test_every_command_has_a_method_and_a_token_of_its_own_if_wanted(tmp_path: Any) -> None:
    (source := tmp_path / "f").write_bytes(b"x")
    recorder = Recorder(
        query=pb.QueryResponse(results=f"[{DOCUMENT}]"),
        getdocumentversion=pb.GetDocumentVersionResponse(result=DOCUMENT),
        insertone=pb.InsertOneResponse(result=DOCUMENT),
        updateone=pb.UpdateOneResponse(result=DOCUMENT),
        insertorupdateone=pb.InsertOrUpdateOneResponse(result=DOCUMENT),
        download=pb.DownloadResponse(filename="g"),
        registerqueue=pb.RegisterQueueResponse(queuename="q"),
        registerexchange=pb.RegisterExchangeResponse(queuename="x"),
        watch=pb.WatchResponse(id="w"),
        invokeopenrpa=pb.InvokeOpenRPAResponse(payload='{"a": 1}'),
        createworkflowinstance=pb.CreateWorkflowInstanceResponse(instanceid="i"),
    )
    async with recorder.client() as client:
        calls: list[Callable[[], Any]] = [
            lambda: client.query("c", {}, jwt="j"),
            lambda: client.aggregate("c", [{"$match": {}}], jwt="j"),
            lambda: client.count("c", {}, jwt="j"),
            lambda: client.distinct("c", "f", jwt="j"),
            lambda: client.get_document_version("c", "1", 2, jwt="j"),
            lambda: client.insert_one("c", {}, jwt="j"),
            lambda: client.insert_many("c", [{}], jwt="j"),
            lambda: client.update_one("c", {"_id": "1"}, jwt="j"),
            lambda: client.update_document("c", {}, {"$set": {}}, jwt="j"),
            lambda: client.insert_or_update_one("c", {}, jwt="j"),
            lambda: client.insert_or_update_many("c", [{}], jwt="j"),
            lambda: client.delete_one("c", "1", jwt="j"),
            lambda: client.delete_many("c", {}, jwt="j"),
            lambda: client.list_collections(jwt="j"),
            lambda: client.create_collection("c", time_field="t", jwt="j"),
            lambda: client.drop_collection("c", jwt="j"),
            lambda: client.create_index("c", {"a": 1}, jwt="j"),
            lambda: client.get_indexes("c", jwt="j"),
            lambda: client.drop_index("c", "i", jwt="j"),
            lambda: client.push_workitem("w", Workitem(), jwt="j"),
            lambda: client.push_workitems("w", [Workitem()], jwt="j"),
            lambda: client.pop_workitem("w", jwt="j"),
            lambda: client.update_workitem(Workitem(id="1"), jwt="j"),
            lambda: client.delete_workitem("1", jwt="j"),
            lambda: client.add_workitem_queue(WorkitemQueue("w"), jwt="j"),
            lambda: client.update_workitem_queue(WorkitemQueue("w"), jwt="j"),
            lambda: client.delete_workitem_queue("w", jwt="j"),
            lambda: client.custom_command("c", jwt="j"),
            lambda: client.start_agent("a", jwt="j"),
            lambda: client.stop_agent("a", jwt="j"),
            lambda: client.delete_agent("a", jwt="j"),
            lambda: client.get_agent_pods("a", jwt="j"),
            lambda: client.get_agent_log("a", "p", jwt="j"),
            lambda: client.delete_agent_pod("a", "p", jwt="j"),
            lambda: client.invoke_openrpa("r", "w", jwt="j"),
            lambda: client.create_workflow_instance("w", jwt="j"),
            lambda: client.queue_message("q", {}, jwt="j"),
            lambda: client.upload(source, jwt="j"),
            lambda: client.download("1", tmp_path, jwt="j"),
        ]
        for call in calls:
            await call()
        assert {jwt for command, _, jwt in recorder.asked if command not in NOT_SENT} == {"j"}
        await (await client.register_queue("q", Seen())).close()
        await (await client.watch("c", [], Seen())).close()
        await client.register_exchange("e", Seen())
    assert {command for command, _, _ in recorder.asked} - NOT_SENT == set(REQUESTS) - NOT_SENT - {"signin"}


async def test_documents_are_asked_for_as_the_server_wants_it() -> None:
    recorder = Recorder(
        query=pb.QueryResponse(results="[]"),
        distinct=pb.DistinctResponse(results=["a", "b"]),
        getdocumentversion=pb.GetDocumentVersionResponse(result="null"),
        createindex=pb.CreateIndexResponse(result="a_1"),
        deletemany=pb.DeleteManyResponse(affectedrows=3),
    )
    when = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    async with recorder.client() as client:
        await client.query("c", {"at": when}, order_by={"a": -1, "b": 1}, query_as="u")
        asked = recorder.of("query")
        assert json.loads(asked.query) == {"at": "2024-01-02T03:04:05.000Z"}  # without the fraction it stays text
        assert (asked.orderby, asked.top, asked.queryas) == ('{"a":-1,"b":1}', 100, "u")
        assert await client.distinct("c", "f", {"x": 1}) == ["a", "b"]
        with pytest.raises(NotFound, match="no version 3 of 1"):
            await client.get_document_version("c", "1", 3)
        assert await client.create_index("c", {"a": 1}, name="a_1", options={"unique": True}) == "a_1"
        assert recorder.of("createindex").options == '{"unique":true}'
        assert await client.delete_many("c", ids=["1", "2"]) == 3
        assert list(recorder.of("deletemany").ids) == ["1", "2"]
        await client.insert_or_update_many("c", [{"a": 1}], uniqueness="a,b", skip_results=True)
        asked = recorder.of("insertorupdatemany")
        assert (asked.uniqeness, asked.skipresults, asked.w, asked.j) == ("a,b", True, 1, True)
        await client.create_collection("c", time_field="t", meta_field="m", granularity="hours", expire_after_s=9)
        asked = recorder.of("createcollection")
        assert (asked.timeseries.timeField, asked.expireAfterSeconds) == ("t", 9)
        await client.create_collection("d")
        assert not recorder.of("createcollection").HasField("timeseries")


async def test_all_documents_come_page_after_page() -> None:
    """A server gives 500 at most when it is not told how many."""
    skips: list[int] = []

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        assert isinstance(message, pb.QueryRequest)
        skips.append(message.skip)
        page = [{"_id": str(i)} for i in range(message.skip, min(1200, message.skip + message.top))]
        await peer.send("queryreply", pb.QueryResponse(results=json.dumps(page)), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url) as client:
        found = [document["_id"] async for document in client.query_all("c", {})]
    assert found == [str(i) for i in range(1200)]
    assert skips == [0, 500, 1000]


async def test_a_package_is_deleted_by_the_steps_that_work_and_never_by_its_command() -> None:
    package = {"_id": "p", "_type": "package", "name": "n", "fileid": "f"}
    recorder = Recorder(
        query=pb.QueryResponse(results=json.dumps([package])),
        updateone=pb.UpdateOneResponse(result=json.dumps(package)),
    )
    async with recorder.client() as client:
        await client.delete_package("p")
        assert json.loads(recorder.of("updateone").item) == {**package, "fileid": ""}
        recorder.replies["query"] = pb.QueryResponse(results="[]")
        with pytest.raises(NotFound):
            await client.delete_package("other")
    steps = [(command, getattr(message, "id", "")) for command, message, _ in recorder.asked]
    assert steps == [("query", ""), ("updateone", ""), ("deleteone", "f"), ("deleteone", "p"), ("query", "")]


# Work items


async def test_an_item_is_pushed_with_all_it_has() -> None:
    made = pb.Workitem(_id="1", name="n", payload='{"a": 1}', state="new", wiq="w", wiqid="q")
    made.nextrun.seconds = 5  # a server says 1970
    recorder = Recorder(pushworkitem=pb.PushWorkitemResponse(workitem=made))
    due = datetime(2030, 1, 1, tzinfo=UTC)
    item = Workitem(name="n", payload={"a": 1}, priority=1, nextrun=due, files=(WorkitemFile("a.txt", content=b"A"),))
    async with recorder.client() as client:
        stored = await client.push_workitem("w", item)
    asked = recorder.of("pushworkitem")
    assert (asked.wiq, asked.name, asked.payload, asked.priority) == ("w", "n", '{"a":1}', 1)
    assert [(file.filename, file.file) for file in asked.files] == [("a.txt", b"A")]
    assert (stored.id, stored.nextrun, stored.payload, stored.wiqid) == ("1", due, {"a": 1}, "q")
    assert [command for command, _, _ in recorder.asked] == ["pushworkitem"]


@pytest.mark.parametrize("matched", [1, 0])
async def test_where_an_item_leads_to_is_set_by_an_update_as_messages_lose_it(matched: int) -> None:
    recorder = Recorder(
        pushworkitem=pb.PushWorkitemResponse(workitem=pb.Workitem(_id="1")),
        updatedocument=pb.UpdateDocumentResponse(opresult=pb.UpdateResult(matchedCount=matched)),
    )
    async with recorder.client() as client:
        pushing = client.push_workitem("w", Workitem(success_wiq="next", failed_wiq="bad"))
        if matched:
            assert (await pushing).success_wiq == "next"
        else:
            with pytest.raises(Failed, match="success_wiq and failed_wiq could not be set on 1"):
                await pushing
    asked = recorder.of("updatedocument")
    assert (asked.collectionname, json.loads(asked.query)) == ("workitems", {"_id": "1"})
    assert json.loads(asked.document) == {"$set": {"success_wiq": "next", "failed_wiq": "bad"}}
    assert recorder.of("pushworkitem").success_wiq == ""


async def test_where_items_and_queues_lead_to_is_set_whoever_makes_them() -> None:
    set_once = pb.UpdateDocumentResponse(opresult=pb.UpdateResult(matchedCount=1))
    recorder = Recorder(
        pushworkitems=pb.PushWorkitemsResponse(workitems=[pb.Workitem(_id="1"), pb.Workitem(_id="2")]),
        updateworkitem=pb.UpdateWorkitemResponse(workitem=pb.Workitem(_id="1", state="successful")),
        addworkitemqueue=pb.AddWorkItemQueueResponse(workitemqueue=pb.WorkItemQueue(_id="q", name="w", maxretries=3)),
        updateworkitemqueue=pb.UpdateWorkItemQueueResponse(workitemqueue=pb.WorkItemQueue(_id="q", name="w")),
        updatedocument=set_once,
    )
    async with recorder.client() as client:
        first, second = await client.push_workitems("w", [Workitem(), Workitem(success_wiqid="n")])
        assert (first.success_wiqid, second.success_wiqid) == ("", "n")
        assert json.loads(recorder.of("updatedocument").query) == {"_id": "2"}
        await client.update_workitem(Workitem(id="1", state="successful", failed_wiq="f"))
        names = [command for command, _, _ in recorder.asked]
        assert names == ["pushworkitems", "updatedocument", "updatedocument", "updateworkitem"]
        queue = WorkitemQueue("w", retrydelay_s=5, success_wiq="s", acl=({"_id": "u", "rights": 65535},))
        made = await client.add_workitem_queue(queue, skip_role=True)
        assert (made.id, made.success_wiq, made.maxretries) == ("q", "s", 3)
        asked = recorder.of("addworkitemqueue")
        assert (asked.workitemqueue.retrydelay, asked.skiprole) == (5, True)
        assert [(ace._id, ace.rights) for ace in asked.workitemqueue._acl] == [("u", 65535)]
        assert recorder.of("updatedocument").collectionname == "mq"
        recorder.replies["query"] = pb.QueryResponse(results='[{"_id": "q", "success_wiq": "s", "failed_wiq": "f"}]')
        changed = await client.update_workitem_queue(WorkitemQueue("w", id="q", success_wiq="t"))
        assert (changed.success_wiq, changed.failed_wiq) == ("t", "f")
        assert json.loads(recorder.of("updatedocument").document) == {"$set": {"success_wiq": "t", "failed_wiq": "f"}}
        recorder.replies["pushworkitems"] = pb.PushWorkitemsResponse()
        with pytest.raises(ProtocolError, match="did not say which"):
            await client.push_workitems("w", [Workitem(success_wiq="s")])


async def test_an_item_is_popped_with_its_files_and_given_back_without_storing_them_again() -> None:
    compressed = pb.WorkitemFile(filename="a", _id="f1", compressed=True, file=zlib.compress(b"A" * 1000))
    item = pb.Workitem(
        _id="1", payload="5", state="processing", files=[compressed, pb.WorkitemFile(filename="b", _id="f2")]
    )
    item.lastrun.seconds = 1_700_000_000
    recorder = Recorder(
        popworkitem=pb.PopWorkitemResponse(workitem=item), updateworkitem=pb.UpdateWorkitemResponse(workitem=item)
    )
    async with recorder.client() as client:
        popped = await client.pop_workitem("w", include_files=True)
        assert popped is not None
        assert (popped.payload, popped.nextrun, popped.lastrun) == (
            {"value": 5}, None, datetime.fromtimestamp(1_700_000_000, UTC),
        )  # fmt: skip
        assert popped.files == (WorkitemFile("a", "f1", b"A" * 1000), WorkitemFile("b", "f2", None))
        new = (*popped.files, WorkitemFile("c", content=b"C"), WorkitemFile("gone"))
        await client.update_workitem(popped, files=new, ignore_maxretries=True)
        asked = recorder.of("updateworkitem")
        sent = [(file.filename, file._id, file.file) for file in asked.files]
        assert sent == [("a", "f1", b""), ("b", "f2", b""), ("c", "", b"C"), ("gone", "", b"")]
        assert asked.ignoremaxretries
        assert not asked.workitem.files
        recorder.replies["popworkitem"] = pb.PopWorkitemResponse()
        assert await client.pop_workitem("w") is None


@pytest.mark.parametrize("data", [b"", b"nonsense", zlib.compress(b"A" * 1000)[:-5], b"\x78"])
def test_a_file_whose_compression_is_broken_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        inflated(data)


def test_a_file_that_unpacks_without_end_is_refused() -> None:
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    with pytest.raises(ProtocolError, match="too long"):
        inflated(bomb)


@settings(deadline=None)
@given(st.timedeltas(timedelta(days=400), timedelta(days=80_000)), st.integers(-12, 14))
def test_a_time_never_loses_its_fraction_and_comes_back(since: timedelta, hours: int) -> None:
    """A server takes seconds without a fraction, or the other way round, for no date."""
    when = (datetime(1970, 1, 1, tzinfo=UTC) + since).astimezone(timezone(timedelta(hours=hours)))
    item = pb.Workitem()
    set_time(item.nextrun, when)
    assert item.nextrun.seconds
    assert item.nextrun.nanos >= 1_000_000
    back = time_of(item.nextrun)
    assert back is not None
    assert abs(back - when) <= timedelta(milliseconds=1)


@pytest.mark.parametrize("seconds", [0, 5, -(10**11), 10**15, -62135596800])
def test_a_time_that_is_none_is_told_as_none(seconds: int) -> None:
    item = pb.Workitem()
    item.nextrun.seconds = seconds
    assert time_of(item.nextrun) is None


async def test_the_server_holds_on_to_what_an_exchange_sends() -> None:
    recorder = Recorder(registerexchange=pb.RegisterExchangeResponse(queuename="private.1"))
    async with recorder.client() as client:
        queue = await client.register_exchange("e", Seen(), algorithm="topic", routing_key="a.*")
        assert queue.name == "private.1"
        asked = recorder.of("registerexchange")
        assert (asked.exchangename, asked.algorithm, asked.routingkey, asked.addqueue) == ("e", "topic", "a.*", True)
        await client.queue_message("", {"n": 1}, exchange="e", routing_key="a.b")
        sent = recorder.of("queuemessage")
        assert (sent.queuename, sent.exchangename, sent.routingkey) == ("", "e", "a.b")
        await queue.close()
        assert recorder.of("unregisterqueue").queuename == "private.1"


async def test_items_go_through_a_hub(tmp_path: Path) -> None:
    with hub_on_a_new_home() as hub:
        async with hub.client() as client:
            await client.connected()
            after = await client.add_workitem_queue(WorkitemQueue("after"), skip_role=True)
            queue = WorkitemQueue("work", maxretries=2, success_wiq="after", success_wiqid=after.id)
            made = await client.add_workitem_queue(queue, skip_role=True)
            changed = await client.update_workitem_queue(
                replace(made, success_wiq="", success_wiqid="", retrydelay_s=0)
            )
            assert (changed.success_wiq, changed.success_wiqid) == ("after", after.id)
            later = datetime.now(UTC) + timedelta(hours=1)
            await client.push_workitems("work", [
                Workitem(name="late", nextrun=later),
                Workitem(name="second", priority=3),
                Workitem(name="first", priority=1, payload={"n": 1}, files=(WorkitemFile("a.txt", content=b"A"),)),
            ])  # fmt: skip
            popped = await client.pop_workitem("work", include_files=True)
            assert popped is not None
            assert (popped.name, popped.payload, popped.state) == ("first", {"n": 1}, "processing")
            assert [(file.name, file.content) for file in popped.files] == [("a.txt", b"A")]
            again = await client.update_workitem(replace(popped, state="retry", errormessage="not yet"))
            assert (again.state, again.retries) == ("new", 1)
            popped = await client.pop_workitem("work")
            assert popped is not None
            await client.update_workitem(replace(popped, state="successful", payload={"n": 2}))
            copy = await client.pop_workitem("after", include_files=True)
            assert copy is not None
            assert (copy.name, copy.payload, [file.content for file in copy.files]) == ("first", {"n": 2}, [b"A"])
            second = await client.pop_workitem("work")
            assert second is not None
            assert second.name == "second"
            assert await client.pop_workitem("work") is None
            (late,) = await client.query("workitems", {"name": "late"})
            assert abs(datetime.fromisoformat(late["nextrun"]) - later) < timedelta(seconds=1)
            await client.delete_workitem(second.id)
            with pytest.raises(ServerRefused):
                await client.delete_workitem_queue("work")
            await client.delete_workitem_queue("work", purge=True)
            assert await client.count("workitems", {"wiq": "work"}) == 0


# Replies of other shapes


@pytest.mark.parametrize("text", ["", "not json", "5", "null", "[1]", "{", '"x"'])
async def test_replies_that_are_no_documents_are_typed_errors(text: str) -> None:
    recorder = Recorder(
        insertone=pb.InsertOneResponse(result=text),
        aggregate=pb.AggregateResponse(results=text),
        popworkitem=pb.PopWorkitemResponse(workitem=pb.Workitem(_id="1", payload=text)),
        getdocumentversion=pb.GetDocumentVersionResponse(result=text),
    )
    async with recorder.client() as client:
        for call in (
            lambda: client.insert_one("c", {}),
            lambda: client.aggregate("c", []),
            lambda: client.pop_workitem("w"),
            lambda: client.get_document_version("c", "1", 0),
        ):
            with contextlib.suppress(AgentError):
                await call()
        assert client.is_connected
        assert await client.custom_command("x") == ""


JSON = st.recursive(
    st.none() | st.integers(-(2**53), 2**53) | st.text(max_size=20) | st.sampled_from(["},{", '"},{"', "\\", '\\"},{']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=5), max_size=30), st.integers(0, 200))
def test_documents_that_are_read_some_at_a_time_are_the_same(found: list[dict[str, Any]], size: int) -> None:
    text = orjson.dumps(found).decode()
    assert decode_in_pieces(text, size) == found
    if text != "[]":
        for broken in (text[:-1], text[1:], text + "x", text.replace("},{", "},,{", 1) if "},{" in text else "[{]"):
            with contextlib.suppress(ProtocolError):
                assert decode_in_pieces(broken, size) == json.loads(broken)


async def test_a_large_answer_is_that_of_its_request_and_small_ones_overtake_nothing() -> None:
    large = [{"n": n, "text": "x" * 5000} for n in range(2000)]
    recorder = Recorder(
        query=pb.QueryResponse(results=json.dumps(large, separators=(",", ":"))), count=pb.CountResponse(result=5)
    )
    async with recorder.client() as client:
        found, counted, again = await asyncio.gather(
            client.query("c", {}), client.count("c", {}), client.query("c", {})
        )
        assert found == again == large
        assert counted == 5
        await client.insert_many("c", large)
        assert json.loads(recorder.of("insertmany").items) == large
        with pytest.raises(InvalidInput, match="too long"):
            await client.delete_many("c", ids=["x" * 1000] * 170_000)
        assert await client.count("c", {}) == 5


# Tokens


@pytest.mark.parametrize(
    ("made_days", "ends_days", "warns"),
    [(-300, 65, None), (-350, 15, "ends in 15 days"), (-400, -35, "ended on"), (-0.001, 0.002, None), (-29, 0.5, None)],
)
def test_a_long_token_is_warned_of_a_month_before_it_ends(
    made_days: float, ends_days: float, warns: str | None
) -> None:

    now = datetime(2026, 6, 1, tzinfo=UTC)
    claims = {"iat": now + timedelta(days=made_days), "exp": now + timedelta(days=ends_days, minutes=1)}
    warning = expiry_warning("wss://h", Credentials(jwt=pyjwt.encode(claims, "k" * 32)), now)
    assert warning is None if warns is None else warns in (warning or "")


@pytest.mark.parametrize(
    "token", ["", "opaque", "a.b.c", "a.e30.c", "a.eyJleHAiOiJ4In0.c", "a.eyJpYXQiOjEsImV4cCI6MWU0MDB9.c"]
)
def test_a_token_that_says_nothing_of_its_end_is_not_warned_of(token: str) -> None:
    assert expiry_warning("wss://h", Credentials(jwt=token), datetime.now(UTC)) is None


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Workitem(payload={"x": object()}).message()
