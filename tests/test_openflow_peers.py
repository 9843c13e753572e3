"""The client with peers that break the rules, odd addresses and certificates; what a hub never does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from jupyter_agent.errors import (
    AgentError,
    ConnectionLost,
    Failed,
    InvalidInput,
    ProtocolError,
    ServerRefused,
    TimedOut,
    Unavailable,
)
from jupyter_agent.openflow.address import address
from jupyter_agent.openflow.client import (
    Backoff,
    Client,
    Credentials,
    KeepAlive,
)
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Encoded, Envelope, Session, unpack
from tests.openflow_peers import (
    Peer,
    Seen,
    names_in,
    odd_client,
    odd_peer,
    until,
)


async def test_requests_that_exceeded_the_limit_are_sent_again() -> None:
    refusals = 3

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            error = pb.ErrorResponse(message="Rate limit exceeded consumedPoints: 31")
            await peer.send("error", error, rid=envelope.id)
        else:
            await peer.send("countreply", pb.CountResponse(result=7), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url) as client:
        assert await client.count("c", {}) == 7
    assert refusals == 0


async def test_a_renewed_token_and_user_are_kept() -> None:
    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        user = pb.User(_id="u1", username="renamed")
        await peer.send("refreshtoken", pb.RefreshToken(username="renamed", jwt="fresh", user=user))
        await peer.send("countreply", pb.CountResponse(), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url) as client:
        assert client.token == ""
        await client.count("c", {})
        assert client.token == "fresh"
        assert client.user
        assert client.user.username == "renamed"


async def test_events_that_overtake_the_reply_to_their_registration_are_not_lost() -> None:
    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        if isinstance(message, pb.RegisterQueueRequest):
            await peer.send("queueevent", pb.QueueEvent(queuename="priv.1", data="1"))
            await peer.send("queueevent", pb.QueueEvent(queuename="priv.1", data="not json"))
            await peer.send("registerqueuereply", pb.RegisterQueueResponse(queuename="priv.1"), rid=envelope.id)
            await peer.send("queueevent", pb.QueueEvent(queuename="priv.1", data="3"))
        else:
            await peer.send("watchevent", pb.WatchEvent(id="w", operation="insert", document='{"n": 1}'))
            await peer.send("watchreply", pb.WatchResponse(id="w"), rid=envelope.id)
            await peer.send("watchevent", pb.WatchEvent(id="w", operation="insert", document="not json"))
            await peer.send("watchevent", pb.WatchEvent(id="other", operation="insert", document="{}"))
            await peer.send("watchevent", pb.WatchEvent(id="w", operation="delete", document='{"n": 2}'))

    queued, changes = Seen(), Seen()
    async with odd_peer(behave) as url, odd_client(url) as client:
        await client.register_queue("", queued)
        await client.watch("agents", [], changes)
        await until(lambda: len(queued.events) == 3 and len(changes.events) == 2)
    assert queued.data == [1, "not json", 3]
    assert [event.document for event in changes.events] == [{"n": 1}, {"n": 2}]


async def test_an_upload_that_is_refused_settles_at_once_and_sends_no_more(tmp_path: Path) -> None:
    parts = 0

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        nonlocal parts
        if isinstance(message, pb.UploadRequest):
            error = pb.ErrorResponse(message="Access denied", stack="/srv/app/upload.js:1")
            await peer.send("error", error, rid=envelope.id)
        parts += isinstance(message, pb.Stream)

    with (path := tmp_path / "large").open("wb") as file:
        file.truncate(128 << 20)
    async with odd_peer(behave) as url, odd_client(url) as client:
        with pytest.raises(ServerRefused, match=r"^Access denied$"):
            await client.upload(path)
        assert client.is_connected
    assert parts < 100


@pytest.mark.parametrize("refused", ["beginstream", "endstream"])
async def test_an_upload_of_which_a_part_exceeded_the_limit_is_made_again(tmp_path: Path, refused: str) -> None:
    begun: list[str] = []

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        if isinstance(message, pb.UploadRequest):
            begun.append(envelope.id)
        if envelope.command == refused and len(begun) == 1:
            error = pb.ErrorResponse(message="Rate limit exceeded consumedPoints: 31")
            await peer.send("error", error, rid=envelope.id)
        elif envelope.command == "endstream" and envelope.rid == begun[-1] and len(begun) == 2:
            await peer.send("uploadreply", pb.UploadResponse(id="f"), rid=envelope.rid)

    (path := tmp_path / "x").write_bytes(b"content")
    async with odd_peer(behave) as url, odd_client(url) as client:
        assert await client.upload(path) == "f"
    assert len(begun) == 2


@pytest.mark.parametrize("length", [4, 6])
async def test_a_file_of_another_length_than_announced_is_not_kept(tmp_path: Path, length: int) -> None:
    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        if isinstance(message, pb.QueryRequest):
            found = pb.QueryResponse(results=json.dumps([{"_id": "f", "length": 5}]))
            await peer.send("queryreply", found, rid=envelope.id)
        else:
            await peer.send("beginstream", pb.BeginStream(), rid=envelope.id)
            await peer.send("stream", pb.Stream(data=b"x" * length), rid=envelope.id)
            await peer.send("endstream", pb.EndStream(), rid=envelope.id)
            await peer.send("downloadreply", pb.DownloadResponse(id="f", filename="f.txt"), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url) as client:
        with pytest.raises(Failed, match=f"5 bytes long but {length} arrived"):
            await client.download("f", tmp_path)
    assert names_in(tmp_path) == []


async def test_a_file_whose_document_may_not_be_read_is_taken_as_it_comes(tmp_path: Path) -> None:
    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        if isinstance(message, pb.QueryRequest):
            await peer.send("error", pb.ErrorResponse(message="Access denied"), rid=envelope.id)
        else:
            await peer.send("stream", pb.Stream(data=b"abc"), rid=envelope.id)
            await peer.send("downloadreply", pb.DownloadResponse(id="f", filename=".."), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url) as client:
        arrived = await client.download("a/../f", tmp_path)
    assert arrived == tmp_path / "f"
    assert arrived.read_bytes() == b"abc"


async def test_a_download_that_stalls_times_out_and_one_that_is_slow_does_not(tmp_path: Path) -> None:
    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        if isinstance(message, pb.QueryRequest):
            await peer.send("queryreply", pb.QueryResponse(results="[]"), rid=envelope.id)
            return
        assert isinstance(message, pb.DownloadRequest)
        for _ in range(6):
            await asyncio.sleep(0.2)
            await peer.send("stream", pb.Stream(data=b"part"), rid=envelope.id)
        if message.id == "slow":
            await peer.send("downloadreply", pb.DownloadResponse(filename="f"), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url, timeout_s=0.6) as client:
        assert (await client.download("slow", tmp_path)).read_bytes() == b"part" * 6
        (tmp_path / "f").unlink()
        with pytest.raises(TimedOut):
            await client.download("stalled", tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (pb.QueryResponse(results="not json"), ProtocolError),
        (pb.QueryResponse(results='{"a": 1}'), ProtocolError),
        (pb.QueryResponse(results="[1]"), ProtocolError),
        (pb.ErrorResponse(), ServerRefused),
    ],
)
async def test_replies_of_another_shape_are_refused(reply: Message, error: type[AgentError]) -> None:
    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        command = "error" if isinstance(reply, pb.ErrorResponse) else "queryreply"
        await peer.send(command, reply, rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url) as client:
        with pytest.raises(error) as caught:
            await client.query("c", {})
        assert str(caught.value)
        assert client.is_connected


async def test_the_reply_to_another_command_is_refused() -> None:
    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        await peer.send("countreply", pb.CountResponse(), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url) as client:
        with pytest.raises(ProtocolError):
            await client.query("c", {})


async def test_what_nobody_waits_for_and_what_nobody_knows_is_ignored() -> None:
    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        await peer.send("newfangledevent")
        await peer.send("error", pb.ErrorResponse(message="about nothing"))
        await peer.send("queryreply", pb.QueryResponse(), rid="never asked")
        await peer.send("stream", pb.Stream(data=b"x"), rid="never asked")
        await peer.send("queueevent", pb.QueueEvent(queuename="nobody's"))
        await peer.send("noop")
        await peer.send("countreply", pb.CountResponse(result=1), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url) as client:
        assert await client.count("c", {}) == 1
        assert await client.count("c", {}) == 1


@pytest.mark.parametrize("garbage", [b"\xff" * 64, b"\x05\0\0\0hello", "text"])
async def test_garbage_ends_the_connection_and_not_the_client(garbage: Any) -> None:
    lost: list[AgentError] = []
    spoken = False

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        nonlocal spoken
        if not spoken:
            spoken = True
            await peer.send_bytes(garbage)
        else:
            await peer.send("countreply", pb.CountResponse(result=1), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url, on_lost=lost.append) as client:
        with pytest.raises(ConnectionLost):
            await client.count("c", {})
        assert await client.count("c", {}) == 1
    assert isinstance(lost[0], ProtocolError)


class Registry:
    """A server that takes queues and watches, but not everything a second time, and closes when it is told to count."""

    def __init__(self, *, refused: int, silent: bool = False) -> None:
        self.refused = refused
        self.silent = silent
        self.asked: list[str] = []
        self.peers: list[Peer] = []

    async def __call__(self, peer: Peer, envelope: Envelope, message: Message) -> None:
        if peer not in self.peers:
            self.peers.append(peer)
        if isinstance(message, pb.CountRequest):
            await peer.close()
            return
        if isinstance(message, pb.RegisterQueueRequest):
            name, command = message.queuename, "registerqueue"
            reply: Message = pb.RegisterQueueResponse(queuename=name or f"private.{len(self.asked)}")
        elif isinstance(message, pb.WatchRequest):
            name, command, reply = message.collectionname, "watch", pb.WatchResponse(id=f"w{len(self.asked)}")
        else:
            await peer.send("queuemessagereply", pb.QueueMessageResponse(), rid=envelope.id)
            return
        self.asked.append(name)
        if name in ("a", "") and len(self.peers) > 1 and self.refused:
            self.refused -= 1
            if not self.silent:
                await peer.send("error", pb.ErrorResponse(message="Access denied"), rid=envelope.id)
        else:
            await peer.send(f"{command}reply", reply, rid=envelope.id)


@pytest.mark.parametrize("silent", [False, True])
async def test_what_is_refused_after_a_reconnection_is_told_and_tried_until_it_works(*, silent: bool) -> None:
    """And keeps nobody else away."""
    registry = Registry(refused=3, silent=silent)
    told: list[tuple[str, ...]] = []
    reads: list[tuple[str, ...]] = []

    async def read() -> None:
        reads.append(client.unregistered)

    async with odd_peer(registry) as url:
        client = odd_client(url, on_connected=read, on_refused=told.append, timeout_s=1 if silent else 30)
        async with client:
            await client.register_queue("a", Seen())
            await client.register_queue("b", Seen())
            await client.watch("c", [], Seen())
            with pytest.raises(ConnectionLost):
                await client.count("c", {})
            await until(lambda: told)
            assert client.is_connected
            assert "queue a is not registered" in told[0][0]
            await until(lambda: len(reads) == 3)
            assert client.unregistered == ()
    why = "did not answer" if silent else "Access denied"
    assert why in told[0][0]
    assert [len(refused) for refused in told] == [1, 0]
    assert [len(refused) for refused in reads] == [0, 1, 0]  # once more when it worked: what was missed is read
    assert registry.asked == ["a", "b", "c", "a", "b", "c", "a", "a", "a"]


async def test_what_was_refused_and_is_closed_is_not_tried_any_more() -> None:
    registry = Registry(refused=10**6)
    async with odd_peer(registry) as url, odd_client(url) as client:
        queue = await client.register_queue("a", Seen())
        with pytest.raises(ConnectionLost):
            await client.count("c", {})
        await until(lambda: client.unregistered)
        await queue.close()
        assert client.unregistered == ()
        await client.register_queue("b", Seen())
    assert registry.asked[-1] == "b"


async def test_a_call_without_a_queue_for_its_answer_says_so() -> None:
    registry = Registry(refused=10**6)
    async with odd_peer(registry) as url, odd_client(url) as client:
        with pytest.raises(TimedOut):
            await client.rpc("q", {}, timeout_s=0.1)
        with pytest.raises(ConnectionLost):
            await client.count("c", {})
        await until(lambda: client.unregistered)
        with pytest.raises(Unavailable, match="no queue for answers: Access denied"):
            await client.rpc("q", {}, timeout_s=5)


@pytest.mark.parametrize("how", ["lost", "refused", "delivered"])
async def test_queues_whose_messages_do_not_come_through_are_registered_again(how: str) -> None:
    """A server that loses its message broker drops the consumers and tells nobody."""
    registered: list[str] = []
    echoes = 0

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        nonlocal echoes
        if isinstance(message, pb.RegisterQueueRequest):
            registered.append(message.queuename)
            reply = pb.RegisterQueueResponse(queuename=message.queuename or f"private.{len(registered)}")
            await peer.send("registerqueuereply", reply, rid=envelope.id)
        elif isinstance(message, pb.UnRegisterQueueRequest):
            await peer.send("unregisterqueuereply", pb.UnRegisterQueueResponse(), rid=envelope.id)
        elif isinstance(message, pb.QueueMessageRequest):
            echoes += 1
            if how == "refused":
                await peer.send("error", pb.ErrorResponse(message="bad queue: x"), rid=envelope.id)
                return
            await peer.send("queuemessagereply", pb.QueueMessageResponse(), rid=envelope.id)
            if how == "delivered":
                event = pb.QueueEvent(
                    queuename=message.queuename, correlationId=message.correlationId, data=message.data
                )
                await peer.send("queueevent", event)

    seen = Seen()
    keep_alive = KeepAlive(queue_s=0.05)
    async with odd_peer(behave) as url, odd_client(url, keep_alive=keep_alive, timeout_s=0.3) as client:
        await client.connected()
        await client.register_queue("own", seen)
        if how == "delivered":
            await until(lambda: echoes >= 5)
            assert registered == ["own", ""]
        else:
            await until(lambda: len(registered) >= 4)
            assert registered[:4] == ["own", "", "own", ""]
            assert echoes >= 2
        assert client.is_connected
    assert seen.events == []


async def test_a_client_without_queues_sends_no_messages_to_itself() -> None:
    asked: list[str] = []

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        asked.append(envelope.command)

    async with odd_peer(behave) as url, odd_client(url, keep_alive=KeepAlive(queue_s=0.01)) as client:
        await client.connected()
        await asyncio.sleep(0.1)
    assert asked == []


async def test_a_short_token_is_never_used_to_sign_in_again() -> None:
    tokens: list[str] = []

    async def attend(socket: ServerConnection) -> None:
        session = Session()
        async for data in socket:
            assert isinstance(data, bytes)
            for envelope in session.receive(data):
                message = unpack(envelope)
                if isinstance(message, pb.SigninRequest):
                    tokens.append(message.jwt)
                    user = pb.User(_id="u", username="u")
                    for reply in (
                        session.envelope("signinreply", pb.SigninResponse(jwt="short", user=user), rid=envelope.id),
                        session.envelope("refreshtoken", pb.RefreshToken(jwt=f"fresh{len(tokens)}", user=user)),
                    ):
                        await socket.send(reply)
                elif envelope.command == "count":
                    await socket.close()

    server = await serve(attend, "127.0.0.1", 0, compression=None)
    async with server, odd_client(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        await client.connected()
        await until(lambda: client.token == "fresh1")
        with pytest.raises(ConnectionLost):
            await client.count("c", {})
        await until(lambda: client.token == "fresh2")
    assert tokens == ["t", "t"]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\nhello", b"SSH-2.0-OpenSSH_9\r\n", None])
async def test_servers_of_another_kind_are_told_apart(answer: bytes | None) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answer is not None:
            writer.write(answer)
            writer.close()
        else:
            await reader.read()  # says nothing until the client goes
            writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, odd_client(url, timeout_s=1) as client:
        await until(lambda: client.last_error)
        with pytest.raises(Unavailable) as caught:
            await client.connected(0)
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("https://app.example.org/login?x=1", "OpenFlow is at https://app.example.org: put that in the address"),
        ("ws://app.example.org:8/ws/v2", "OpenFlow is at ws://app.example.org:8: put that in the address"),
        ("/login", "answers with HTTP 301 instead of a WebSocket"),
        ("https://[", "answers with HTTP 301 instead of a WebSocket"),
    ],
)
async def test_no_redirect_is_followed(location: str, said: str) -> None:
    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 301 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        writer.write(head.encode())
        writer.close()

    server = await asyncio.start_server(elsewhere, "127.0.0.1", 0)
    async with server, odd_client(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        await until(lambda: client.last_error)
        with pytest.raises(Unavailable, match=re.escape(said)):
            await client.connected(0)


# Addresses, certificates, delays


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("ws://h:3000", "ws://h:3000/ws/v2"),
        ("wss://h/", "wss://h/ws/v2"),
        ("https://app.example.org", "wss://app.example.org/ws/v2"),
        (" http://h:1/ws/v2 ", "ws://h:1/ws/v2"),
        ("https://h/api/v2", "wss://h/ws/v2"),
        ("ws://[::1]:80/other/", "ws://[::1]:80/other"),
    ],
)
def test_addresses_are_completed(given: str, meant: str) -> None:
    assert address(given).url == meant


@pytest.mark.parametrize(
    "url", ["", "h:3000", "pipe://h", "ws://", "ws://h:99999", "ws://h:x", "ws://[::1", "file:///x"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="wss://host"):
        address(url)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidInput) as caught:
        Client("wss://user:hunter2@host", Credentials(), version="1")
    assert "hunter2" not in str(caught.value)


@given(st.integers(1, 10**6))
def test_delays_grow_to_the_cap_and_vary(failures: int) -> None:
    delay_s = Backoff(first_s=0.1, factor=2, cap_s=30, jitter=0.2).delay_s(failures)
    plain = min(30, 0.1 * 2 ** min(failures - 1, 20))
    assert plain * 0.8 <= delay_s <= plain * 1.2


async def test_the_answer_to_a_call_comes_to_a_queue_of_the_connection_that_it_was_made_on() -> None:
    """A private queue ends with its connection: a call that waits for the next one must not name the old one."""
    peers: list[Peer] = []

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        if isinstance(message, pb.RegisterQueueRequest):
            peers.append(peer)
            reply = pb.RegisterQueueResponse(queuename=f"priv.{len(peers)}")
            await peer.send("registerqueuereply", reply, rid=envelope.id)
        elif isinstance(message, pb.QueueMessageRequest):
            await peer.send("queuemessagereply", pb.QueueMessageResponse(), rid=envelope.id)
            event = pb.QueueEvent(queuename=message.replyto, correlationId=message.correlationId, data='{"n": 1}')
            if message.replyto == f"priv.{len(peers)}":
                await peer.send("queueevent", event)

    async with odd_peer(behave) as url, odd_client(url) as client:
        assert await client.rpc("q", {}) == {"n": 1}
        await peers[0].close()
        await until(lambda: not client.is_connected)
        assert await client.rpc("q", {}, timeout_s=10) == {"n": 1}
    assert len(peers) == 2


async def test_what_was_given_up_before_it_was_sent_is_not_sent_later() -> None:
    """Who gave it up may have asked again: it would be done twice."""
    done: list[int] = []
    reads_on = asyncio.Event()

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        if isinstance(message, pb.InsertOneRequest):
            await reads_on.wait()
            done.append(json.loads(message.item)["n"])
        else:
            await peer.send("countreply", pb.CountResponse(result=1), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url, timeout_s=1) as client:
        await client.connected()
        large = "x" * 900_000
        inserts = (client.insert_one("c", {"n": n, "large": large}) for n in range(60))
        errors = await asyncio.gather(*inserts, return_exceptions=True)
        assert {type(error) for error in errors} == {TimedOut}
        reads_on.set()
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(TimedOut):
                    assert await client.count("c", {}) == 1
                    break
    assert done == list(range(len(done)))
    assert len(done) < 60


@pytest.mark.parametrize("private", [True, False])
async def test_a_queue_that_was_full_when_it_was_registered_loses_nothing(*, private: bool) -> None:
    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        for n in range(1000):
            await peer.send("queueevent", pb.QueueEvent(queuename="q", data=str(n)))
        await peer.send("registerqueuereply", pb.RegisterQueueResponse(queuename="q"), rid=envelope.id)

    seen = Seen()
    async with odd_peer(behave) as url, odd_client(url) as client:
        await client.register_queue("" if private else "q", seen)
        await until(lambda: len(seen.events) == 1000)
    assert seen.data == list(range(1000))


async def test_a_reply_that_cannot_be_decoded_fails_its_request_alone_and_an_event_nobody() -> None:
    """Servers in JavaScript send texts that are no UTF-8 where half a surrogate pair is in them."""
    peers: set[int] = set()
    odd_text = b"\x0a\x03\xed\xa0\x80"

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        peers.add(id(peer))
        if isinstance(message, pb.QueryRequest):
            await peer.send("watchevent", Encoded("openiap.WatchEvent", odd_text))
            await peer.send("queryreply", Encoded("openiap.QueryResponse", odd_text), rid=envelope.id)
        else:
            await peer.send("countreply", pb.CountResponse(result=7), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url) as client:
        with pytest.raises(ProtocolError, match="could not be decoded"):
            await client.query("c", {})
        assert await client.count("c", {}) == 7
    assert len(peers) == 1
