"""The client over gRPC, and over TLS of any kind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from jupyter_agent.errors import AgentError, ConnectionLost, InvalidInput, Unavailable
from jupyter_agent.home import Home, read_json
from jupyter_agent.openflow.address import address
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Envelope
from tests.certificates import SELF_SIGNED, authority, identity, key_and_certificate
from tests.openflow_peers import QUICKLY, Peer, Seen, odd_client, odd_grpc_peer, odd_peer, running_hub, until


async def seven(peer: Peer, envelope: Envelope, message: Message) -> None:
    """Answer every count with 7."""
    if isinstance(message, pb.CountRequest):
        await peer.send("countreply", pb.CountResponse(result=7), rid=envelope.id)


async def test_requests_events_and_files_travel_over_grpc(tmp_path: Path) -> None:
    stored = bytearray()

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        if isinstance(message, pb.RegisterQueueRequest):
            await peer.send("registerqueuereply", pb.RegisterQueueResponse(queuename="q"), rid=envelope.id)
            await peer.send("queueevent", pb.QueueEvent(queuename="q", data='{"n": 1}'))
        elif isinstance(message, pb.Stream):
            stored.extend(message.data)
        elif isinstance(message, pb.EndStream):
            await peer.send("uploadreply", pb.UploadResponse(id="f"), rid=envelope.rid)
        elif isinstance(message, pb.QueryRequest):
            await peer.send("queryreply", pb.QueryResponse(results="[]"), rid=envelope.id)
        elif isinstance(message, pb.DownloadRequest):
            for start in range(0, len(stored), 100_000):
                await peer.send("stream", pb.Stream(data=bytes(stored[start : start + 100_000])), rid=envelope.id)
            await peer.send("downloadreply", pb.DownloadResponse(filename="f.bin"), rid=envelope.id)
        else:
            await seven(peer, envelope, message)

    seen = Seen()
    (source := tmp_path / "source").write_bytes(bytes(range(256)) * 4000)
    async with odd_grpc_peer(behave) as url, odd_client(url) as client:
        assert (await client.connected()).username == "u"
        assert await client.count("c", {}) == 7
        await client.register_queue("q", seen)
        await until(lambda: seen.events)
        assert await client.upload(source) == "f"
        assert (await client.download("f", tmp_path)).read_bytes() == source.read_bytes()
        assert url in repr(client)


async def test_a_large_message_travels_over_grpc() -> None:
    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        assert isinstance(message, pb.InsertOneRequest)
        await peer.send("insertonereply", pb.InsertOneResponse(result=message.item), rid=envelope.id)

    async with odd_grpc_peer(behave) as url, odd_client(url) as client:
        text = "x" * (20 << 20)
        assert await client.insert_one("c", {"text": text}) == {"text": text}


async def test_a_grpc_server_that_goes_is_found_again() -> None:
    lost: list[AgentError] = []

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        if lost:
            await seven(peer, envelope, message)
        else:
            await peer.close()

    async with odd_grpc_peer(behave) as url, odd_client(url, on_lost=lost.append) as client:
        with pytest.raises(ConnectionLost):
            await client.count("c", {})
        assert await client.count("c", {}) == 7
    assert "going away" in str(lost[0])


async def test_a_grpc_server_that_ends_the_stream_is_found_again() -> None:
    lost: list[AgentError] = []

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        if lost:
            await seven(peer, envelope, message)
        else:
            raise LookupError("a fault of the server's")

    async with odd_grpc_peer(behave) as url, odd_client(url, on_lost=lost.append) as client:
        with pytest.raises(ConnectionLost):
            await client.count("c", {})
        assert await client.count("c", {}) == 7


async def test_where_no_grpc_server_is_the_reason_is_told() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with odd_client(f"grpc://127.0.0.1:{port}", timeout_s=2) as client:
        with pytest.raises(Unavailable, match=r"does not speak gRPC|does not answer"):
            await client.connected()
        server.close()
        await server.wait_closed()
        await until(lambda: "nothing answers there" in str(client.last_error))


def test_without_the_extra_a_grpc_address_says_what_to_install() -> None:
    program = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'grpc' else found(name, *rest)\n"
        "from jupyter_agent.agent.endpoint import configured\n"
        "from jupyter_agent.home import Home\n"
        "from jupyter_agent.openflow.client import Client, Credentials\n"
        "from pathlib import Path\n"
        "home = Home(Path('/nonexistent'))\n"
        "both = {'jwt': 't', 'grpcapiurl': 'grpc://h:50051', 'wsapiurl': 'ws://h:3000/ws/v2'}\n"
        "print(configured(home, both).url)\n"
        "assert 'grpc' not in sys.modules\n"
        "try:\n    Client('grpc://h', Credentials(), version='1')\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "ws://h:3000/ws/v2"
    assert second.startswith("InvalidInput")
    assert "pip install jupyter_agent[grpc]" in second


def test_grpc_is_imported_when_it_is_used_and_not_before() -> None:
    program = "import sys, jupyter_agent.openflow.client; assert 'grpc' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("given", "meant", "tls"),
    [
        ("grpc://h", "grpc://h:50051", False),
        ("grpc://h:443", "grpc://h:443", True),
        ("grpcs://h", "grpcs://h:443", True),
        ("grpcs://h:50051", "grpcs://h:50051", True),
        ("grpc://[::1]:50051", "grpc://[::1]:50051", False),
    ],
)
def test_grpc_addresses_are_completed(given: str, meant: str, *, tls: bool) -> None:
    found = address(given)
    assert (found.url, found.tls, found.grpc) == (meant, tls, True)
    with pytest.raises(InvalidInput):
        _ = found.api_url


async def test_a_hub_is_used_over_grpc_and_found_again_after_it_was_killed(home: Home, tmp_path: Path) -> None:
    with running_hub(home) as hub:
        credentials = Credentials(jwt=hub.ready["jwt"])
        options: dict[str, Any] = {"version": "1", "backoff": QUICKLY, "requests_per_s": None}
        url = str((read_json(home.hub / "hub.json") or {})["grpcapiurl"])
        async with Client(url, credentials, **options) as client:
            seen = Seen()
            assert (await client.connected()).username == hub.ready["username"]
            stored = await client.insert_one("entities", {"name": "n", "text": "x" * (8 << 20)})
            assert (await client.query("entities", {"_id": stored["_id"]}))[0]["text"] == stored["text"]
            queue = await client.register_queue("q", seen)
            (source := tmp_path / "f").write_bytes(os.urandom(5 << 20))
            fileid = await client.upload(source)
            (target := tmp_path / "there").mkdir()
            assert (await client.download(fileid, target)).read_bytes() == source.read_bytes()
            hub.kill()
            await until(lambda: not client.is_connected)
            hub.start()
            await until(lambda: client.is_connected)
            await client.queue_message(queue.name, {"n": 1})
            await until(lambda: seen.data == [{"n": 1}])


# Certificates

WHAT_TO_DO = {
    "expired": "has expired: have it renewed",
    "early": "is not valid yet: set this machine's clock",
    "other": "was made for another host name: use that name",
    "self-signed": "is self-signed: name the file",
    "good": "name the file of its CA",
}


@pytest.mark.parametrize("kind", WHAT_TO_DO)
@pytest.mark.parametrize("transport", ["wss", "grpcs"])
async def test_a_certificate_that_is_not_trusted_is_told_with_what_to_do(
    tmp_path: Path, kind: str, transport: str
) -> None:
    """The good one is not trusted where its authority is not known."""
    ca_file = None if kind in ("good", "self-signed") else authority(tmp_path)
    if transport == "wss":
        peer = odd_peer(seven, identity(tmp_path, kind))
    else:
        peer = odd_grpc_peer(seven, key_and_certificate(kind))
    async with peer as plain, odd_client(over_tls(plain), ca_file=ca_file, timeout_s=10) as client:
        await until(lambda: client.last_error)
        assert not client.is_connected
        said = str(client.last_error)
    assert WHAT_TO_DO[kind] in said
    assert over_tls(plain) in said
    assert "\n" not in said


@pytest.mark.parametrize("kind", ["good", "self-signed"])
@pytest.mark.parametrize("transport", ["wss", "grpcs"])
async def test_an_own_authority_is_trusted_by_setting(tmp_path: Path, kind: str, transport: str) -> None:
    ca_file = authority(tmp_path)
    if kind == "self-signed":
        ca_file.write_text(SELF_SIGNED)
    if transport == "wss":
        peer = odd_peer(seven, identity(tmp_path, kind))
    else:
        peer = odd_grpc_peer(seven, key_and_certificate(kind))
    async with peer as plain, odd_client(over_tls(plain), ca_file=ca_file) as client:
        assert await client.count("c", {}) == 7


@pytest.mark.parametrize("transport", ["wss", "grpcs"])
async def test_an_authority_is_trusted_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority(tmp_path)))
    if transport == "wss":
        peer = odd_peer(seven, identity(tmp_path, "good"))
    else:
        peer = odd_grpc_peer(seven, key_and_certificate("good"))
    async with peer as plain, odd_client(over_tls(plain)) as client:
        assert await client.count("c", {}) == 7


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    async with odd_client("wss://127.0.0.1:1", ca_file=path) as client:
        await until(lambda: client.last_error)
        assert str(path) in str(client.last_error)
        assert "c.Agent.ca_file" in str(client.last_error)


def over_tls(url: str) -> str:
    return url.replace("ws://127.0.0.1", "wss://localhost") + ("/ws/v2" if url.startswith("ws") else "")
