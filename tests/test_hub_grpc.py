"""The hub over gRPC: everything that goes over a WebSocket, and what is different."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
import psutil
import pytest
from google.protobuf.message import Message

from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Envelope, unpack
from tests.hub_peers import line
from tests.openflow_peers import QUICKLY, Hub, Seen, until
from tests.test_hub_process import process, stored

DEADLINE_S = 60
SETUP = "/openiap.FlowService/SetupStream"
BIG = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


def grpc_url(home: Path) -> str:
    return str(stored(home, "hub.json")["grpcapiurl"])


class Stream:
    """A gRPC stream that says exactly what it is told to."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self._said = 0

    async def say(self, command: str, message: Message | None = None, *, seq: int = 0, jwt: str = "") -> str:
        """Send an envelope; its id."""
        self._said += 1
        envelope = Envelope(command=command, seq=seq, id=f"e{self._said}", jwt=jwt)
        if message is not None:
            envelope.data.Pack(message)
        await self.call.write(envelope.SerializeToString())
        return envelope.id

    async def hear(self, rid: str = "") -> tuple[str, Any]:
        while True:
            data = await self.call.read()
            assert data is not grpc.aio.EOF, "the stream has ended"
            envelope = Envelope.FromString(data)
            if not rid or envelope.rid == rid:
                return envelope.command, unpack(envelope)

    async def ask(self, command: str, message: Message | None = None, **fields: Any) -> tuple[str, Any]:
        return await self.hear(await self.say(command, message, **fields))

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """Read on until the hub ends it; the status."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await self.call.read() is not grpc.aio.EOF:
                pass
        return await self.call.code(), await self.call.details()


@contextlib.asynccontextmanager
async def stream(home: Path, method: str = SETUP) -> AsyncIterator[Stream]:
    target = urlsplit(grpc_url(home)).netloc
    async with asyncio.timeout(DEADLINE_S), grpc.aio.insecure_channel(target, options=BIG) as channel:
        call: Any = channel.stream_stream(method)()
        yield Stream(call)
        call.cancel()


async def test_everything_travels_over_grpc(hub: Hub, tmp_path: Path) -> None:
    seen, heard = Seen(), Seen()
    (source := tmp_path / "source.bin").write_bytes(os.urandom(3 << 20))
    (folder := tmp_path / "down").mkdir()
    credentials = Credentials(username=hub.ready["username"], password=hub.ready["password"])
    async with Client(grpc_url(hub.home), credentials, version="1", backoff=QUICKLY) as client:
        assert (await client.connected()).username == hub.ready["username"]
        await client.watch("over grpc", [], heard)
        made = await client.insert_one("over grpc", {"text": "ä" * 2_000_000})
        assert (await client.query("over grpc", {"_id": made["_id"]}))[0]["text"] == made["text"]
        await until(lambda: heard.events)
        queue = await client.register_queue("", seen)
        await client.queue_message(str(getattr(queue, "name", queue)), {"n": 1})
        await until(lambda: seen.events)
        file = await client.upload(source)
        assert (await client.download(file, folder)).read_bytes() == source.read_bytes()
    async with line(hub.url) as wire:  # the same hub
        await wire.sign_in(hub)
        _, reply = await wire.ask("count", pb.CountRequest(collectionname="over grpc"))
        assert reply.result == 1


async def test_the_order_is_that_of_the_stream_whatever_seq_says(hub: Hub) -> None:
    async with stream(hub.home) as wire:
        assert (await wire.hear())[0] == "ping"
        assert (await wire.ask("signin", pb.SigninRequest(jwt=hub.ready["jwt"]), seq=7))[0] == "signinreply"
        for seq in (7, 0, -1, 2**31 - 1):
            assert (await wire.ask("count", pb.CountRequest(collectionname="t"), seq=seq))[0] == "countreply"


async def test_errors_travel_too(hub: Hub) -> None:
    async with stream(hub.home) as wire:
        answer, error = await wire.ask("count", pb.CountRequest(collectionname="t"))
        assert (answer, error.message) == ("error", "Not signed in, and missing jwt")
        answer, error = await wire.ask("nosuch")
        assert (answer, error.message) == ("error", "no such type: openiap.nosuch")
        assert (await wire.ask("count", pb.CountRequest(collectionname="t"), jwt=hub.ready["jwt"]))[0] == "countreply"


async def test_other_methods_are_refused(hub: Hub) -> None:
    async with stream(hub.home, "/openiap.FlowService/Query") as wire:
        code, details = await wire.end()
        assert code == grpc.StatusCode.UNIMPLEMENTED
        assert details == "Only SetupStream is offered: send the request in an envelope of its stream."
    async with stream(hub.home, "/another.Service/SetupStream") as wire:
        assert (await wire.end())[0] == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("data", "code", "sentence"),
    [
        (b"\xff\xff\xff", grpc.StatusCode.UNAVAILABLE, "The other side sent a record that is no envelope."),
        (bytes(2 << 20), grpc.StatusCode.UNAVAILABLE, "too long for who has not signed in"),
        (bytes(161 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED, ""),
    ],
)
async def test_what_is_no_envelope_ends_the_stream(hub: Hub, data: bytes, code: grpc.StatusCode, sentence: str) -> None:
    async with stream(hub.home) as other, stream(hub.home) as wire:
        assert (await other.ask("signin", pb.SigninRequest(jwt=hub.ready["jwt"])))[0] == "signinreply"
        with contextlib.suppress(grpc.aio.AioRpcError):
            await wire.call.write(data)
        found, details = await wire.end()
        assert found == code, details
        assert sentence in details
        assert (await other.ask("count", pb.CountRequest(collectionname="t")))[0] == "countreply"


async def test_who_says_no_more_gets_the_answers(hub: Hub) -> None:
    async with stream(hub.home) as wire:
        await wire.say("signin", pb.SigninRequest(jwt=hub.ready["jwt"]))
        ids = [await wire.say("insertone", pb.InsertOneRequest(collectionname="last", item="{}")) for _ in range(50)]
        await wire.call.done_writing()
        heard = [(await wire.hear())[0] for _ in range(52)]
        assert heard.count("insertonereply") == len(ids)
        assert (await wire.end())[0] == grpc.StatusCode.OK


async def test_a_client_that_goes_is_gone(hub: Hub) -> None:
    async with line(hub.url) as wire:
        await wire.sign_in(hub)

        async def clients() -> list[str]:
            _, reply = await wire.ask("customcommand", pb.CustomCommandRequest(command="getclients"))
            return [client["agent"] for client in json.loads(reply.result)]

        async with stream(hub.home) as first, stream(hub.home) as second:
            for each, kind in ((first, "leaves"), (second, "breaks")):
                await each.ask("signin", pb.SigninRequest(jwt=hub.ready["jwt"], agent=kind))
            assert {"leaves", "breaks"} <= set(await clients())
            await first.call.done_writing()
            assert (await first.end())[0] == grpc.StatusCode.OK
            second.call.cancel()
            async with asyncio.timeout(DEADLINE_S):
                while {"leaves", "breaks"} & set(await clients()):
                    pass


async def test_a_hub_that_ends_says_goodbye_and_keeps_its_port(tmp_path: Path) -> None:
    urls = []
    for _ in range(2):
        with process(tmp_path / "home") as hub:
            hub.ready()
            urls.append(grpc_url(tmp_path / "home"))
            async with stream(tmp_path / "home") as wire:
                assert (await wire.hear())[0] == "ping"
                hub.popen.send_signal(signal.SIGTERM)
                assert await wire.end() == (grpc.StatusCode.UNAVAILABLE, "the hub ends")
            code, errors = hub.ended()
            assert (code, "Traceback" in errors) == (0, False), errors
    assert urls[0] == urls[1]


def test_a_taken_port_is_left_to_who_has_it(tmp_path: Path) -> None:
    with process(tmp_path / "home") as hub:
        hub.ready()
        assert hub.end()[0] == 0
    port = urlsplit(grpc_url(tmp_path / "home")).port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with process(tmp_path / "home") as hub:
            hub.ready()
            assert urlsplit(grpc_url(tmp_path / "home")).port != port


def test_nothing_is_loaded_until_somebody_comes(tmp_path: Path) -> None:
    with process(tmp_path / "home") as hub:
        hub.ready()
        of_grpc = [each.path for each in psutil.Process(hub.popen.pid).memory_maps() if "grpc" in each.path]
        assert of_grpc == []
        asyncio.run(_greet(tmp_path / "home"))
        assert [each for each in psutil.Process(hub.popen.pid).memory_maps() if "grpc" in each.path]


async def _greet(home: Path) -> None:
    async with stream(home) as wire:
        assert (await wire.hear())[0] == "ping"


def test_without_grpcio_there_is_no_grpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['grpc'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with process(tmp_path / "home") as hub:
        hub.ready()
        assert "grpcapiurl" not in stored(tmp_path / "home", "hub.json")
        assert len(psutil.Process(hub.popen.pid).net_connections("tcp")) == 1
        code, errors = hub.end()
        assert (code, "grpc" in errors) == (0, False)


def test_junk_on_the_port_does_not_harm(hub: Hub) -> None:
    address = urlsplit(grpc_url(hub.home))
    for junk in (b"\x00" * 1000, os.urandom(5000), b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""):
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address.hostname, address.port), timeout=DEADLINE_S) as connection,
        ):
            connection.sendall(junk)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    asyncio.run(_greet(hub.home))
