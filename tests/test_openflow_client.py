"""The client against a real hub and its faults."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jwt as pyjwt
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agent.errors import (
    AgentError,
    ConnectionLost,
    Failed,
    InvalidInput,
    ServerRefused,
    SignInFailed,
    TimedOut,
    Unavailable,
)
from jupyter_agent.home import Home
from jupyter_agent.openflow.client import (
    Client,
    Credentials,
    KeepAlive,
    Watch,
)
from jupyter_agent.openflow.files import base_name
from jupyter_agent.openflow.protocol import CHUNK
from jupyter_agent.openflow.rights import ADMINS
from tests.openflow_peers import QUICKLY, Hub, Seen, names_in, running_hub, until


@pytest.fixture
def hub(home: Home) -> Iterator[Hub]:
    with running_hub(home) as running:
        yield running


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub for all tests that do it no harm."""
    with running_hub(Home(tmp_path_factory.mktemp("home"))) as running:
        yield running


@pytest.fixture
async def client(steady: Hub) -> AsyncIterator[Client]:
    async with steady.client() as entered:
        await entered.connected()
        yield entered


# Signing in


@pytest.mark.parametrize("how", ["token", "password"])
async def test_one_signs_in_with_a_token_or_a_password(steady: Hub, how: str) -> None:
    credentials = steady.password if how == "password" else None
    async with steady.client(credentials) as client:
        user = await client.connected()
        assert user.username == steady.ready["username"]
        assert ADMINS in user.principals
        assert user.id in user.principals
        assert client.user == user
        assert client.is_connected
        assert client.token
        assert isinstance(client.config, dict)


@pytest.mark.parametrize("kind", ["password", "token", "unknown user", "nothing"])
async def test_refused_credentials_are_told_in_one_sentence_without_the_secret(steady: Hub, kind: str) -> None:
    secret = "S3cret-that-is-wrong"
    credentials = {
        "password": Credentials(username=steady.ready["username"], password=secret),
        "token": Credentials(jwt=secret),
        "unknown user": Credentials(username="nobody", password=secret),
        "nothing": Credentials(),
    }[kind]
    lost: list[AgentError] = []
    async with steady.client(credentials, on_lost=lost.append) as client:
        with pytest.raises(SignInFailed) as caught:
            await client.connected()
        assert not client.is_connected
        await until(lambda: lost)
        with pytest.raises(SignInFailed):
            await client.query("agents", {})
    said = str(caught.value)
    assert steady.url in said
    assert secret not in said + repr(lost) + repr(credentials) + repr(client)
    assert "\n" not in said
    assert said.endswith(").")


@pytest.mark.parametrize("whose", ["this server", "another server"])
async def test_an_expired_token_of_another_server_is_refused(steady: Hub, whose: str) -> None:
    claims = pyjwt.decode(steady.ready["jwt"], options={"verify_signature": False})
    key = steady.token_key() if whose == "this server" else "k" * 64
    stale = pyjwt.encode({**claims, "iat": 1_600_000_000, "exp": 1_600_000_300}, key)
    async with steady.client(Credentials(jwt=stale)) as client:
        with pytest.raises(SignInFailed, match="refused the token"):
            await client.connected()
    assert stale not in str(client.last_error)


async def test_a_refused_client_comes_in_once_the_server_takes_it(hub: Hub) -> None:
    async with hub.client(Credentials(username="late", password="pw-of-late")) as client:
        with pytest.raises(SignInFailed):
            await client.connected()
        await asyncio.to_thread(hub.add_user, "late", "pw-of-late")
        await until(lambda: client.is_connected)
        assert (await client.connected()).username == "late"


async def test_tokens_are_minted_and_checked_without_changing_who_one_is(steady: Hub, client: Client) -> None:
    await asyncio.to_thread(steady.add_user, "other", "pw-of-other")
    async with steady.client(Credentials(username="other", password="pw-of-other")) as other:
        short, long = await other.mint_token(), await other.mint_token(long=True)
    lifetimes = [
        token["exp"] - token["iat"]
        for token in (pyjwt.decode(t, options={"verify_signature": False}) for t in (short, long))
    ]
    assert lifetimes[0] < 3600 < 24 * 3600 < lifetimes[1]
    for token in (short, long):
        assert (await client.validate(token)).username == "other"
    assert (await client.connected()).username == steady.ready["username"]
    for token in ("", "nonsense", short[:-3] + "abc"):
        with pytest.raises(SignInFailed):
            await client.validate(token)
    assert (await client.query("users", {}, top=1)) is not None


async def test_one_stays_signed_in_as_another_over_reconnections(hub: Hub) -> None:
    await asyncio.to_thread(hub.add_user, "robot", "pw-of-robot")
    async with hub.client(Credentials(username="robot", password="pw-of-robot")) as robot:
        await robot.connected()
        token = await robot.mint_token(long=True)
    async with hub.client() as client:
        await client.connected()
        with pytest.raises(SignInFailed):
            await client.sign_in_as("nonsense")
        assert (await client.connected()).username == hub.ready["username"]
        await client.sign_in_as(token)
        assert (await client.connected()).username == "robot"
        hub.kill()
        await until(lambda: not client.is_connected)
        hub.start()
        await until(lambda: client.is_connected)
        assert (await client.connected()).username == "robot"
        assert (await client.validate(await client.mint_token())).username == "robot"


# Documents


async def test_documents_are_stored_found_changed_and_deleted(client: Client) -> None:
    stored = [await client.insert_one("entities", {"name": f"n{i}", "i": i, "_type": "t"}) for i in range(5)]
    assert all(document["_id"] for document in stored)
    found = await client.query("entities", {"_type": "t"}, order_by={"i": -1}, top=2, skip=1)
    assert [document["i"] for document in found] == [3, 2]
    assert [d["i"] for d in await client.query("entities", {"_type": "t"}, order_by="i")] == [0, 1, 2, 3, 4]
    (projected,) = await client.query("entities", {"i": 3}, projection={"name": 1})
    assert projected["name"] == "n3"
    assert "i" not in projected
    assert await client.count("entities", {"i": {"$gte": 3}}) == 2

    replaced = await client.update_one("entities", {"_id": stored[0]["_id"], "name": "new"})
    assert replaced["name"] == "new"
    assert "i" not in replaced
    done = await client.update_document("entities", {"i": {"$gte": 3}}, {"$set": {"seen": True}})
    assert (done.matched, done.modified) == (2, 2)
    assert await client.delete_one("entities", stored[4]["_id"]) == 1
    assert await client.count("entities", {"_type": "t"}) == 4


async def test_who_comes_too_late_is_told_by_the_version(client: Client) -> None:
    """A server compares no versions by itself: the query does."""
    stored = await client.insert_one("entities", {"name": "shared", "_type": "v"})
    changed = await client.update_one("entities", {**stored, "name": "by another"})
    late = await client.update_document(
        "entities", {"_id": stored["_id"], "_version": stored["_version"]}, {"$set": {"name": "too late"}}
    )
    assert (late.matched, late.modified) == (0, 0)
    assert changed["_version"] == stored["_version"] + 1
    assert (await client.query("entities", {"_id": stored["_id"]}))[0]["name"] == "by another"
    assert (await client.get_document_version("entities", stored["_id"], stored["_version"]))["name"] == "shared"


async def test_nothing_found_is_an_empty_list(client: Client) -> None:
    assert await client.query("entities", {"no": "such"}) == []
    assert await client.count("entities", {"no": "such"}) == 0


async def test_a_request_is_made_as_the_owner_of_another_token(steady: Hub, client: Client) -> None:
    await asyncio.to_thread(steady.add_user, "guest2", "pw-of-guest")
    async with steady.client(Credentials(username="guest2", password="pw-of-guest")) as guest:
        await guest.connected()
        token = await guest.mint_token()
    private = await client.insert_one("entities", {"name": "mine"})
    assert await client.query("entities", {"_id": private["_id"]}, jwt=token) == []
    theirs = await client.insert_one("entities", {"name": "theirs"}, jwt=token)
    assert theirs["_createdby"] != private["_createdby"]


async def test_what_the_server_refuses_comes_with_its_own_words_and_the_connection_stays(client: Client) -> None:
    with pytest.raises(ServerRefused) as caught:
        await client.update_one("entities", {"_id": "0" * 24, "name": "none"})
    assert caught.value.command == "updateone"
    assert "Traceback" not in str(caught.value)
    assert client.is_connected


async def test_what_cannot_be_sent_is_refused_before_it_is(client: Client) -> None:
    with pytest.raises(InvalidInput):
        await client.insert_one("entities", {"when": object()})
    with pytest.raises(InvalidInput, match="too long"):
        await client.queue_message("q", "x" * (161 << 20))
    assert client.is_connected


async def test_many_requests_at_once_get_their_own_answers(client: Client) -> None:
    stored = await asyncio.gather(*(client.insert_one("entities", {"i": i}) for i in range(200)))
    assert [document["i"] for document in stored] == list(range(200))
    found = await asyncio.gather(*(client.query("entities", {"_id": document["_id"]}) for document in stored))
    assert [documents[0]["i"] for documents in found] == list(range(200))


async def test_requests_that_are_given_up_leave_the_connection_whole(steady: Hub) -> None:
    chance = random.Random(7)  # noqa: S311
    lost: list[AgentError] = []
    async with steady.client(on_lost=lost.append) as client:
        await client.connected()
        tasks = [asyncio.create_task(client.query("users", {}, top=50)) for _ in range(300)]
        while not all(task.done() for task in tasks):
            chance.choice(tasks).cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await client.query("users", {})
    assert lost == []


async def test_an_unknown_custom_command_has_an_empty_result(client: Client) -> None:
    assert await client.custom_command("makecoffee", id="1", name="x", data={"milk": True}) == ""


# Files


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 5])
async def test_files_come_back_as_they_were(client: Client, tmp_path: Path, size: int) -> None:
    source = tmp_path / "data.bin"
    source.write_bytes(os.urandom(size))
    stored = await client.upload(source, metadata={"sha": "x"}, mimetype="application/x-data")
    (about,) = await client.query("fs.files", {"_id": stored})
    assert about["length"] == size
    assert about["metadata"]["sha"] == "x"
    (target := tmp_path / "there").mkdir()
    progress: list[tuple[int, int | None]] = []
    arrived = await client.download(stored, target, progress=lambda done, total: progress.append((done, total)))
    assert arrived == target / "data.bin"
    assert arrived.read_bytes() == source.read_bytes()
    assert names_in(target) == ["data.bin"]
    assert all(total == size for _, total in progress)
    assert not size or progress[-1][0] == size


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../../etc/passwd", "passwd"),
        ("/etc/cron.d/x", "x"),
        ("C:\\Windows\\system.ini", "system.ini"),
        ("å" * 300 + ".tgz", "å" * 125 + ".tgz"),
    ],
)
async def test_a_name_from_the_server_never_leaves_the_folder(
    client: Client, tmp_path: Path, name: str, expected: str
) -> None:
    (source := tmp_path / "s").write_bytes(b"content")
    (target := tmp_path / "there").mkdir()
    arrived = await client.download(await client.upload(source, filename=name), target)
    assert arrived == target / expected
    assert arrived.read_bytes() == b"content"


@given(st.text(max_size=400))
def test_any_text_makes_one_name_in_a_folder(name: str) -> None:
    made = base_name(name, "fallback")
    assert made not in ("", ".", "..")
    assert not set(made) & {"/", "\\", "\0", "\n"}
    assert len(made.encode()) <= 255


def test_control_characters_are_left_out_of_names() -> None:
    assert base_name("a\0b\n\x7f.txt", "fallback") == "ab.txt"


@pytest.mark.parametrize("name", ["", ".", "..", "a/..", "\\", "/", "\x00", "   "])
def test_where_no_name_is_left_the_fallback_is_it(name: str) -> None:
    assert base_name(name, "fallback") == "fallback"


async def test_an_upload_that_cannot_begin_settles_at_once(client: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = await client.count("fs.files", {})
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe"):
        with pytest.raises(InvalidInput, match=path.name):
            await client.upload(path)
    assert await client.count("fs.files", {}) == before


async def test_a_file_that_is_not_there_leaves_nothing(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ServerRefused):
        await client.download("0" * 24, tmp_path)
    assert names_in(tmp_path) == []


async def test_a_folder_that_is_not_there_is_named(client: Client, tmp_path: Path) -> None:
    (source := tmp_path / "s").write_bytes(b"content")
    stored = await client.upload(source)
    with pytest.raises(Failed, match="nowhere"):
        await client.download(stored, tmp_path / "nowhere")


async def test_a_full_disk_leaves_nothing_and_the_connection_works_on(client: Client, tmp_path: Path) -> None:
    (source := tmp_path / "s").write_bytes(bytes(1 << 20))
    stored = await client.upload(source)
    (target := tmp_path / "there").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        with pytest.raises(Failed, match="could not be written"):
            await client.download(stored, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names_in(target) == []
    assert (await client.download(stored, target)).stat().st_size == 1 << 20


async def test_a_download_that_is_given_up_leaves_nothing(client: Client, tmp_path: Path) -> None:
    (source := tmp_path / "s").write_bytes(bytes(20 << 20))
    stored = await client.upload(source)
    (target := tmp_path / "there").mkdir()
    begun = asyncio.Event()
    download = asyncio.create_task(client.download(stored, target, progress=lambda *_: begun.set()))
    await begun.wait()
    download.cancel()
    with pytest.raises(asyncio.CancelledError):
        await download
    assert names_in(target) == []
    assert (await client.download(stored, target)).stat().st_size == 20 << 20


async def test_a_file_that_arrives_while_the_server_dies_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    (source := tmp_path / "s").write_bytes(bytes(20 << 20))
    (target := tmp_path / "there").mkdir()
    begun = asyncio.Event()
    async with hub.client() as client:
        stored = await client.upload(source)
        download = asyncio.create_task(client.download(stored, target, progress=lambda *_: begun.set()))
        await begun.wait()
        hub.signal(signal.SIGSTOP)  # it shall not be done already
        hub.kill()
        with pytest.raises(ConnectionLost):
            await download
    assert names_in(target) == []


async def test_large_files_pass_in_flat_memory(client: Client, tmp_path: Path) -> None:
    size = 50 << 20
    with (source := tmp_path / "large").open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    (target := tmp_path / "there").mkdir()
    (small := tmp_path / "small").write_bytes(bytes(CHUNK))
    await client.download(await client.upload(small), target)  # what is loaded once is loaded
    process = psutil.Process()
    before = process.memory_info().rss
    highest = before

    async def measure() -> None:
        nonlocal highest
        while True:
            highest = max(highest, process.memory_info().rss)
            await asyncio.sleep(0.005)

    measuring = asyncio.create_task(measure())
    arrived = await client.download(await client.upload(source), target)
    measuring.cancel()
    assert arrived.stat().st_size == size
    assert highest - before < 16 << 20


# The connection ends


async def test_after_the_hub_was_killed_everything_comes_back_by_itself(hub: Hub) -> None:
    told, queued, changes = Seen(), Seen(), Seen()
    lost: list[AgentError] = []

    async def on_connected() -> None:
        await told(reconnecting.is_connected)

    reconnecting = hub.client(on_connected=on_connected, on_lost=lost.append)
    async with reconnecting:
        await reconnecting.connected()
        queue = await reconnecting.register_queue("kept", queued)
        private = await reconnecting.register_queue("", queued)
        watch: Watch = await reconnecting.watch("agents", [], changes)
        before = (private.name, watch.id)
        stored = await reconnecting.insert_one("agents", {"name": "before"})

        hub.signal(signal.SIGSTOP)
        pending = asyncio.create_task(reconnecting.query("agents", {}))
        calling = asyncio.create_task(reconnecting.rpc("kept", {}))
        await asyncio.sleep(0)
        hub.kill()
        for task in (pending, calling):
            with pytest.raises(ConnectionLost):
                await task
        await until(lambda: not reconnecting.is_connected)

        hub.start()
        await until(lambda: reconnecting.is_connected and len(told.events) == 2)
        assert told.events == [True, True]
        assert isinstance(lost[0], ConnectionLost)
        assert reconnecting.last_error is None
        assert await reconnecting.query("agents", {"_id": stored["_id"]})
        queued.events.clear()
        await reconnecting.queue_message("kept", 1)
        await reconnecting.queue_message(private.name, 2)
        await until(lambda: len(queued.events) == 2)
        changes.events.clear()
        await reconnecting.insert_one("agents", {"name": "after"})
        await until(lambda: changes.events)
        assert [event.document["name"] for event in changes.events] == ["after"]
        assert queue.name == "kept"
        assert (private.name, watch.id) != before


async def test_a_request_waits_a_moment_for_a_connection_that_is_being_made_again(hub: Hub) -> None:
    async with hub.client() as client:
        await client.connected()
        hub.kill()
        await until(lambda: not client.is_connected)
        waiting = asyncio.create_task(client.query("users", {}))
        await asyncio.to_thread(hub.start)
        assert await waiting


async def test_without_a_server_the_reason_is_told(hub: Hub) -> None:
    hub.kill()
    lost: list[AgentError] = []
    async with hub.client(on_lost=lost.append, timeout_s=0.5) as client:
        with pytest.raises(Unavailable, match="nothing answers there"):
            await client.connected()
        with pytest.raises(Unavailable, match=hub.url):
            await client.query("users", {})
        await until(lambda: len(lost) > 2)
    hub.start()


async def test_a_server_that_falls_silent_is_given_up_and_found_again(hub: Hub) -> None:
    lost: list[AgentError] = []
    keep_alive = KeepAlive(ping_s=0.2, silent_s=1)
    async with hub.client(on_lost=lost.append, keep_alive=keep_alive, timeout_s=2) as client:
        await client.connected()
        with pytest.raises(TimeoutError):  # while it lives, silence between requests is none
            async with asyncio.timeout(3):
                await until(lambda: lost)
        hub.signal(signal.SIGSTOP)
        await until(lambda: lost)
        assert isinstance(lost[0], ConnectionLost)
        assert "silent" in str(lost[0])
        hub.signal(signal.SIGCONT)
        await until(lambda: client.is_connected)
        assert await client.query("users", {})


async def test_a_request_that_is_not_answered_times_out(hub: Hub) -> None:
    async with hub.client(timeout_s=1) as client:
        await client.connected()
        hub.signal(signal.SIGSTOP)
        with pytest.raises(TimedOut, match="did not answer a query within 1 s"):
            await client.query("users", {})
        hub.signal(signal.SIGCONT)
        assert await client.query("users", {})


async def test_a_first_step_that_fails_is_taken_again_on_a_new_connection(hub: Hub) -> None:
    attempts: list[int] = []
    lost: list[AgentError] = []

    async def on_connected() -> None:
        attempts.append(len(attempts))
        if len(attempts) < 3:
            raise Unavailable("not yet")

    async with hub.client(on_connected=on_connected, on_lost=lost.append):
        await until(lambda: len(attempts) == 3)
    assert [str(error) for error in lost] == ["not yet", "not yet"]


async def test_a_client_that_is_left_ends_its_requests_and_lets_errors_through(hub: Hub) -> None:
    client = hub.client()
    under_way: list[asyncio.Task[Any]] = []

    async def leave() -> None:
        async with client:
            await client.connected()
            hub.signal(signal.SIGSTOP)
            under_way.append(asyncio.create_task(client.query("users", {})))
            await asyncio.sleep(0)
            raise LookupError("of the body")

    with pytest.raises(LookupError, match="of the body"):
        await leave()
    with pytest.raises(ConnectionLost):
        await under_way[0]
    with pytest.raises(Unavailable, match="closed"):
        await client.query("users", {})


async def test_a_wrong_path_is_told_with_the_servers_answer(hub: Hub) -> None:
    client = Client(hub.url.replace("/ws/v2", "/nowhere"), hub.password, version="1", backoff=QUICKLY, timeout_s=2)
    async with client:
        with pytest.raises(Unavailable, match=r"HTTP 40\d"):
            await client.connected()
