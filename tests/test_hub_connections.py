"""The life of a connection: signing in, pings, tokens, time-outs, requests under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from jupyter_agent.hub.network.server import Server, Timing
from jupyter_agent.hub.users import SHORT_S
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import ADMINS
from tests.hub_peers import Line, line

TIMEOUT_S = 60
NEVER_S = 3600.0
CREDENTIALS = pb.SigninRequest(username="ann", password="secret", ping=True, agent="test", version="1")


@contextlib.asynccontextmanager
async def hub(folder: Path, **timing: float) -> AsyncIterator[Server]:
    """A hub in this process, so that its clock can be set."""
    times = {"round_s": NEVER_S, "heartbeat_s": NEVER_S, "sign_in_s": NEVER_S, **timing}
    ending = asyncio.Event()
    async with Server(folder, timing=Timing(**times)) as server:
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
