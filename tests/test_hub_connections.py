"""The life of a connection: signing in, pings, tokens, time-outs, requests under way."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from jupyter_agent.errors import Conflict
from jupyter_agent.hub.network.rates import MAX_KEYS, Rate, RateExceeded, Rates
from jupyter_agent.hub.network.server import SPARE, Server, Timing
from jupyter_agent.hub.users import SHORT_S
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import ADMINS
from tests.hub_peers import Line, line

TIMEOUT_S = 60
NEVER_S = 3600.0
CREDENTIALS = pb.SigninRequest(username="ann", password="secret", ping=True, agent="test", version="1")


@contextlib.asynccontextmanager
async def hub(folder: Path, *, rate: int = 0, capacity: int = 100, **timing: float) -> AsyncIterator[Server]:
    """A hub in this process, so that its clock can be set."""
    times = {"round_s": NEVER_S, "heartbeat_s": NEVER_S, "sign_in_s": NEVER_S, **timing}
    ending = asyncio.Event()
    async with Server(folder, timing=Timing(**times), rate=rate, capacity=capacity) as server:
        with contextlib.suppress(Conflict):
            await server.users.add("ann", "secret", admin=True)
            await server.users.add("bob", "secret", admin=False)
        server.listen()
        async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(ending))
            try:
                yield server
            finally:
                ending.set()


async def signed_in(wire: Line, **fields: Any) -> pb.SigninResponse:
    request = pb.SigninRequest()
    request.CopyFrom(CREDENTIALS)
    request.MergeFrom(pb.SigninRequest(**fields))
    command, reply = await wire.ask("signin", request)
    assert command == "signinreply", reply
    assert isinstance(reply, pb.SigninResponse)
    return reply


async def closed(wire: Line) -> tuple[int, str]:
    """Hear on until the hub closes the connection."""
    with pytest.raises(ConnectionClosed) as ended:
        await wire.hear("nothing")
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


async def test_the_first_word_is_a_ping(tmp_path: Path) -> None:
    async with hub(tmp_path) as server, line(server.url) as wire:
        assert (await wire.hear())[0] == "ping"


async def test_who_is_silent_is_pinged_and_then_closed(tmp_path: Path) -> None:
    async with hub(tmp_path, round_s=0.1, heartbeat_s=2) as server, line(server.url) as wire:
        await signed_in(wire)
        for _ in range(3):
            assert (await wire.hear())[0] == "ping"
        assert await closed(wire) == (1008, "silent")


async def test_who_says_anything_stays(tmp_path: Path) -> None:
    async with hub(tmp_path, round_s=0.06, heartbeat_s=2) as server, line(server.url) as wire:
        await signed_in(wire)
        for _ in range(40):  # more than a heartbeat's time of rounds
            await wire.hear("ping")
            await wire.say("pong")
        assert (await wire.ask("count", pb.CountRequest(collectionname="t")))[0] == "countreply"


async def test_who_wants_no_pings_gets_none_and_stays(tmp_path: Path) -> None:
    async with hub(tmp_path, round_s=0.1, heartbeat_s=2) as server, line(server.url) as quiet:
        request = pb.SigninRequest(username="ann", password="secret")
        assert (await quiet.ask("signin", request))[0] == "signinreply"
        async with line(server.url) as loud:
            await signed_in(loud)
            assert await closed(loud) == (1008, "silent")
        assert (await quiet.ask("count", pb.CountRequest(collectionname="t")))[0] == "countreply"


async def test_who_does_not_sign_in_is_closed_whatever_they_say(tmp_path: Path) -> None:
    async with hub(tmp_path, round_s=0.02, sign_in_s=0.5) as server, line(server.url) as wire:

        async def talk() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await wire.say("ping")
                    await asyncio.sleep(0.01)

        talking = asyncio.create_task(talk())
        assert await closed(wire) == (1008, "not signed in")
        await talking


async def test_a_token_is_renewed_before_it_ends(tmp_path: Path) -> None:
    async with hub(tmp_path, round_s=0.02, refresh_s=SHORT_S + 60) as server, line(server.url) as wire:
        first = await signed_in(wire)
        _, renewed = await wire.hear("refreshtoken")
        assert renewed.username == "ann"
        assert renewed.user == first.user
        async with line(server.url) as other:
            assert (await other.ask("signin", pb.SigninRequest(jwt=renewed.jwt)))[1].user == first.user


async def test_a_token_that_has_time_is_not_renewed(tmp_path: Path) -> None:
    async with hub(tmp_path, round_s=0.02, refresh_s=SHORT_S - 60) as server, line(server.url) as wire:
        await signed_in(wire)
        assert {(await wire.hear())[0] for _ in range(10)} == {"ping"}


async def test_who_is_gone_is_closed_instead_of_renewed(tmp_path: Path) -> None:
    times = hub(tmp_path, round_s=0.02, refresh_s=SHORT_S + 60)
    async with times as server, line(server.url) as ann, line(server.url) as bob:
        await signed_in(ann)
        user = (await signed_in(bob, username="bob")).user
        await bob.hear("refreshtoken")
        assert (await ann.ask("deleteone", pb.DeleteOneRequest(collectionname="users", id=user._id)))[0] != "error"
        assert await closed(bob) == (1008, "signed out")


async def test_what_comes_right_behind_a_sign_in_is_done(tmp_path: Path) -> None:
    async with hub(tmp_path) as server, line(server.url) as wire:
        await wire.say("signin", CREDENTIALS)
        assert (await wire.ask("insertone", pb.InsertOneRequest(collectionname="t", item="{}")))[0] == "insertonereply"


async def test_validating_changes_nobody(tmp_path: Path) -> None:
    async with hub(tmp_path) as server, line(server.url) as wire:
        first = await signed_in(wire)
        other = await signed_in(wire, username="bob", validateonly=True, longtoken=True)
        assert other.user.username == "bob"
        assert server.users.expires(other.jwt) > server.users.expires(first.jwt) + 300 * 24 * 3600
        (_, mine) = await wire.ask("signin", pb.SigninRequest(validateonly=True))
        assert mine.user.username == "ann"
        assert ADMINS in {role._id for role in mine.user.roles}
        assert (await wire.ask("signin", pb.SigninRequest(validateonly=True), jwt=other.jwt))[1].user == other.user


async def test_one_may_sign_in_as_another(tmp_path: Path) -> None:
    async with hub(tmp_path) as server, line(server.url) as wire:
        await signed_in(wire)
        bob = await signed_in(wire, username="bob")
        assert (await wire.ask("signin", pb.SigninRequest(validateonly=True)))[1].user == bob.user
        answer, error = await wire.ask("insertone", pb.InsertOneRequest(collectionname="config", item="{}"))
        assert (answer, error.message[:13]) == ("error", "Access denied")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"username": "ann", "password": "wrong"}, "ann failed logging in using local"),
        ({"username": "nobody", "password": "secret"}, "nobody failed logging in using local"),
        ({"username": "ann"}, "ann failed logging in using local"),
        ({"username": "root"}, "root failed logging in using local"),
        ({"jwt": "x.y.z"}, "Discard signin due to invalid or expired jwt"),
        ({}, "A sign-in needs a username and a password, or a jwt."),
        ({"validateonly": True}, "Not signed in, and missing jwt"),
    ],
)
async def test_refused_sign_ins_are_told_and_can_be_made_good(
    tmp_path: Path, fields: dict[str, Any], sentence: str
) -> None:
    async with hub(tmp_path) as server, line(server.url) as wire:
        answer, error = await wire.ask("signin", pb.SigninRequest(**fields))
        assert (answer, error.message) == ("error", sentence)
        await signed_in(wire)


async def test_many_requests_at_once_are_all_answered(tmp_path: Path) -> None:
    async with hub(tmp_path) as server, line(server.url) as wire:
        await signed_in(wire)
        for number in range(500):
            await wire.say("insertone", pb.InsertOneRequest(collectionname="t", item=f'{{"n":{number}}}'))
        for _ in range(500):
            await wire.hear("insertonereply")
        assert (await wire.ask("count", pb.CountRequest(collectionname="t")))[1].result == 500


async def test_a_slow_request_holds_up_no_other(tmp_path: Path) -> None:
    async with hub(tmp_path) as server, line(server.url) as wire:
        await signed_in(wire)
        slow = await wire.say("upload", pb.UploadRequest(filename="x"))
        assert (await wire.ask("count", pb.CountRequest(collectionname="t")))[0] == "countreply"
        await wire.say("endstream", pb.EndStream(), rid=slow)
        assert (await wire.hear(rid=slow))[0] == "uploadreply"


async def test_a_hub_that_ends_says_goodbye_and_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    async with hub(tmp_path) as server, line(server.url) as wire:
        await signed_in(wire)
        for number in range(50):
            await wire.say("insertone", pb.InsertOneRequest(collectionname="t", item=f'{{"n":{number}}}'))
        await wire.hear("insertonereply")
        port = server.port
    acknowledged = 1
    with contextlib.suppress(ConnectionClosed):
        while await wire.hear("insertonereply"):
            acknowledged += 1
    async with Server(tmp_path) as again:
        again.listen(port)
        ending = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(again.serve(ending))
            async with line(again.url) as other:
                await signed_in(other)
                _, reply = await other.ask("count", pb.CountRequest(collectionname="t"))
                assert reply.result >= acknowledged
            ending.set()


# How much one client may ask


async def test_with_a_rate_limit_what_is_too_much_is_refused_and_not_done(tmp_path: Path) -> None:
    async with hub(tmp_path, rate=5) as server, line(server.url) as wire, line(server.url) as other:
        await signed_in(wire)  # the first request of this second, or of the one before
        for _ in range(40):
            await wire.say("insertone", pb.InsertOneRequest(collectionname="t", item="{}"))
            await wire.say("ping")
        answers: list[tuple[str, Any]] = []
        while len(answers) < 40:
            answers += [answer for answer in [await wire.hear()] if answer[0] != "ping"]
        refused = [answer.message for command, answer in answers if command == "error"]
        assert len(refused) >= 40 - 2 * 5  # 40 requests fell into two seconds at most
        numbers = [int(sentence.removeprefix("Rate limit exceeded consumedPoints: ")) for sentence in refused]
        assert min(numbers) == 6
        await signed_in(other)  # has a limit of its own
        done = sum(command == "insertonereply" for command, _ in answers)
        _, counted = await other.ask("count", pb.CountRequest(collectionname="t"))
        assert counted.result == done
        while (await wire.ask("count", pb.CountRequest(collectionname="t")))[0] == "error":
            pass  # a second goes by
        await streamed(wire, parts=100)


async def streamed(wire: Line, *, parts: int) -> None:
    """Upload a file in many parts: they are no requests."""
    upload = await wire.say("upload", pb.UploadRequest(filename="x"))
    await wire.say("beginstream", pb.BeginStream(), rid=upload)
    for _ in range(parts):
        await wire.say("stream", pb.Stream(data=b"x"), rid=upload)
    await wire.say("endstream", pb.EndStream(), rid=upload)
    assert (await wire.hear(rid=upload))[0] == "uploadreply"


async def test_without_one_nothing_is_refused(tmp_path: Path) -> None:
    async with hub(tmp_path) as server, line(server.url) as wire:
        await signed_in(wire)
        for _ in range(200):
            await wire.say("count", pb.CountRequest(collectionname="t"))
        assert [(await wire.hear())[0] for _ in range(200)] == ["countreply"] * 200


def test_seconds_begin_with_a_request() -> None:
    now = 100.0
    rate = Rate(2, clock=lambda: now)
    rate.spend()
    now = 100.9
    rate.spend()
    for n in (3, 4):
        with pytest.raises(RateExceeded, match=f"^Rate limit exceeded consumedPoints: {n}$"):
            rate.spend()
    now = 101.0
    rate.spend()
    for _ in range(100):
        Rate(0).spend()


def test_those_without_a_connection_are_told_apart() -> None:
    rates = Rates(1)
    rates.spend("a")
    rates.spend("b")
    with pytest.raises(RateExceeded):
        rates.spend("a")
    for number in range(MAX_KEYS):
        rates.spend(str(number))
    assert len(rates._rates) == MAX_KEYS


async def test_there_is_room_for_so_many_clients(tmp_path: Path) -> None:
    async with hub(tmp_path, capacity=3) as server:
        async with contextlib.AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(line(server.url)) for _ in range(3)]
            for wire in wires:
                await signed_in(wire)
            with pytest.raises(InvalidStatus) as refused:
                await stack.enter_async_context(line(server.url))
            assert refused.value.response.status_code == 503
            assert b"The hub has 3 connections, as many as it takes" in (refused.value.response.body or b"")
            for wire in wires:
                assert (await wire.ask("count", pb.CountRequest(collectionname="t")))[0] == "countreply"
        while server.idle_s == 0:  # noqa: ASYNC110 - what is waited for is the hub's own
            await asyncio.sleep(0.01)
        async with line(server.url) as wire:
            await signed_in(wire)


async def test_sockets_beyond_that_are_hung_up_on(tmp_path: Path) -> None:
    async with hub(tmp_path, capacity=1) as server:
        writers = []
        for _ in range(SPARE + 1):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writers.append(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        for each in [*writers, writer]:
            each.close()


async def test_who_has_not_signed_in_may_send_little(tmp_path: Path) -> None:
    item = json.dumps({"text": "x" * (3 << 20)})
    big = pb.InsertOneRequest(collectionname="t", item=item)
    async with hub(tmp_path) as server:
        async with line(server.url) as wire:  # a record in small messages
            data = wire.session.envelope("insertone", big)
            with pytest.raises(ConnectionClosed) as ended:  # noqa: PT012
                for start in range(0, len(data), 100_000):
                    await wire.socket.send(data[start : start + 100_000])
                await wire.hear("nothing")
            assert (ended.value.rcvd and ended.value.rcvd.code) == 1002
        async with line(server.url) as wire:  # or in one
            await wire.say("insertone", big)
            with pytest.raises(ConnectionClosed) as ended:
                await wire.hear("nothing")
            assert (ended.value.rcvd and ended.value.rcvd.code) == 1009
        async with line(server.url) as wire:
            await signed_in(wire)
            assert (await wire.ask("insertone", big))[0] == "insertonereply"


async def test_one_who_sends_headers_slowly_is_hung_up_on(tmp_path: Path) -> None:
    async with hub(tmp_path, headers_s=0.5) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def dribble() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"X")
                    await writer.drain()
                    await asyncio.sleep(0.05)

        dribbling = asyncio.create_task(dribble())
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        dribbling.cancel()
        writer.close()


# Who may do what, from one moment to the next


async def changed(wire: Line, name: str, **fields: Any) -> str:
    """Change a user's document, as an admin; their id."""
    query = pb.QueryRequest(collectionname="users", query=json.dumps({"username": name}))
    (user,) = json.loads((await wire.ask("query", query))[1].results)
    item = json.dumps({**user, **fields})
    answer, reply = await wire.ask("updateone", pb.UpdateOneRequest(collectionname="users", item=item))
    assert answer == "updateonereply", reply
    return str(user["_id"])


async def test_who_is_disabled_is_refused_at_once_and_closed_in_the_next_round(tmp_path: Path) -> None:
    async with hub(tmp_path, round_s=1) as server, line(server.url) as ann, line(server.url) as bob:
        await signed_in(ann)
        token = (await signed_in(bob, username="bob", longtoken=True)).jwt
        user = await changed(ann, "bob", disabled=True)
        with contextlib.suppress(ConnectionClosed):
            answer, error = await bob.ask("count", pb.CountRequest(collectionname="t"))
            assert (answer, error.message) == ("error", f"Failed resolving token, could not find user by {user}")
        assert await closed(bob) == (1008, "signed out")
        async with line(server.url) as again:
            answer, error = await again.ask("signin", pb.SigninRequest(jwt=token))
            assert (answer, error.message) == ("error", f"Failed resolving token, could not find user by {user}")
            answer, error = await again.ask("signin", pb.SigninRequest(username="bob", password="secret"))
            assert (answer, error.message) == ("error", "bob failed logging in using local")
            await changed(ann, "bob", disabled=False)
            assert (await again.ask("signin", pb.SigninRequest(jwt=token)))[0] == "signinreply"


async def test_who_is_locked_reads_and_does_not_write(tmp_path: Path) -> None:
    async with hub(tmp_path) as server, line(server.url) as ann, line(server.url) as bob:
        await signed_in(ann)
        await signed_in(bob, username="bob")
        made = pb.InsertOneRequest(collectionname="t", item='{"_id": "mine"}')
        assert (await bob.ask("insertone", made))[0] == "insertonereply"
        await changed(ann, "bob", dblocked=True)
        await signed_in(bob, username="bob")  # may sign in
        for message in WRITES:
            name = type(message).DESCRIPTOR.name.removesuffix("Request").lower()
            answer, error = await bob.ask(name, message)
            assert answer == "error", name
            assert error.message == "Access denied: bob is locked for writing (dblocked) until an admin changes it."
        for reading in (pb.QueryRequest(collectionname="t"), pb.CustomCommandRequest(command="getclients")):
            name = type(reading).DESCRIPTOR.name.removesuffix("Request").lower()
            assert (await bob.ask(name, reading))[0] == f"{name}reply"
        await changed(ann, "bob", dblocked=False)
        assert (await bob.ask("deleteone", pb.DeleteOneRequest(collectionname="t", id="mine")))[0] == "deleteonereply"


WRITES = (
    pb.InsertOneRequest(collectionname="t", item="{}"),
    pb.InsertManyRequest(collectionname="t", items="[{}]"),
    pb.UpdateOneRequest(collectionname="t", item='{"_id": "mine"}'),
    pb.UpdateDocumentRequest(collectionname="t", query="{}", document='{"$set": {"a": 1}}'),
    pb.InsertOrUpdateOneRequest(collectionname="t", item="{}"),
    pb.InsertOrUpdateManyRequest(collectionname="t", items="[]"),
    pb.DeleteOneRequest(collectionname="t", id="mine"),
    pb.DeleteManyRequest(collectionname="t", query="{}"),
    pb.UploadRequest(filename="x"),
    pb.CustomCommandRequest(command="registeragent", data="{}"),
    pb.PushWorkitemRequest(wiq="q"),
    pb.AddWorkItemQueueRequest(),
)


@pytest.mark.parametrize(
    "message",
    [
        pb.StartAgentRequest(agentid="a"),
        pb.StopAgentRequest(agentid="a"),
        pb.DeleteAgentRequest(agentid="a"),
        pb.GetAgentPodsRequest(agentid="a"),
        pb.GetAgentLogRequest(agentid="a"),
        pb.DeleteAgentPodRequest(agentid="a"),
        pb.InvokeOpenRPARequest(robotid="r"),
        pb.CreateWorkflowInstanceRequest(workflowid="w"),
    ],
)
async def test_what_needs_containers_robots_or_workflows_is_refused_by_name(tmp_path: Path, message: Any) -> None:
    name = type(message).DESCRIPTOR.name.removesuffix("Request").lower()
    async with hub(tmp_path) as server, line(server.url) as wire:
        answer, error = await wire.ask(name, message)
        assert (answer, error.message) == ("error", "Not signed in, and missing jwt")
        await signed_in(wire)
        answer, error = await wire.ask(name, message)
        assert answer == "error"
        assert error.message.startswith(f"The command {name} is not offered: this hub ")


async def test_a_sign_in_tells_of_the_hub(tmp_path: Path) -> None:
    told = []
    for _ in range(2):
        async with hub(tmp_path) as server, line(server.url) as wire:
            told.append(json.loads((await signed_in(wire)).config))
            assert told[-1]["domain"] == f"127.0.0.1:{server.port}"
            assert told[-1]["ping_clients_interval"] == NEVER_S * 1000
    assert told[0]["openflow_uniqueid"] == told[1]["openflow_uniqueid"]
    assert {
        "wshost", "wsurl", "namespace", "agent_domain_schema", "agent_images", "version", "multi_tenant",
        "workspace_enabled", "supports_watch", "amqp_enabled_exchange", "timeseries_collections",
        "collections_with_text_index", "enable_gitserver", "enable_analytics", "loginproviders",
    } <= set(told[0])  # fmt: skip
