"""Who the client's tests talk to: a real hub, and servers that break the rules as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from jupyter_agent.home import Home
from jupyter_agent.openflow.client import Backoff, Client, Credentials
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Encoded, Envelope, Session, new_id, unpack

DEADLINE_S = 30.0
QUICKLY = Backoff(first_s=0.05, cap_s=0.2)


async def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait until ``condition()`` is true and give what it gave."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_S):
            while not (value := condition()):  # noqa: ASYNC110 - what is waited for is in another process
                await asyncio.sleep(0.01)
            return value
    raise AssertionError(f"This did not come about within {DEADLINE_S:.0f} s: {what or condition}")


@dataclass
class Hub:
    """A hub's process on a home of its own; it keeps its port when it is started again."""

    home: Path
    ready: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    users: set[str] = field(default_factory=set)
    """Those who were added."""

    def start(self) -> None:
        command = [sys.executable, "-m", "jupyter_agent.hub", "--home", str(self.home), "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def add_user(self, name: str, password: str) -> None:
        """Add a user; a running hub is reached over the wire."""
        command = [sys.executable, "-m", "jupyter_agent.hub", "user-add", "--home", str(self.home), name]
        subprocess.run(command, input=password.encode(), check=True, capture_output=True, timeout=DEADLINE_S)
        self.users.add(name)

    def token_key(self) -> str:
        """What the hub signs its tokens with, to make one that it would take but for its age."""
        with contextlib.closing(sqlite3.connect(self.home / "hub" / "hub.db")) as store:
            (value,) = store.execute("SELECT value FROM settings WHERE name = 'token key'").fetchone()
        return str(value)

    @property
    def url(self) -> str:
        return self.ready["apiurl"]

    @property
    def password(self) -> Credentials:
        return Credentials(username=self.ready["username"], password=self.ready["password"])

    def client(self, credentials: Credentials | None = None, **options: Any) -> Client:
        defaults: dict[str, Any] = {"version": "1.0", "requests_per_s": None, "backoff": QUICKLY}
        return Client(self.url, credentials or Credentials(jwt=self.ready["jwt"]), **{**defaults, **options})


@contextlib.contextmanager
def running_hub(home: Home) -> Iterator[Hub]:
    """A hub on this home, whatever is done to it."""
    home.prepare()
    hub = Hub(home.path)
    hub.start()
    try:
        yield hub
    finally:
        hub.signal(signal.SIGCONT)
        hub.kill()


def names_in(folder: Path) -> list[str]:
    """What is in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


class Seen:
    """A handler that keeps what it saw."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    async def __call__(self, event: Any) -> None:
        self.events.append(event)

    @property
    def data(self) -> list[Any]:
        return [without_token(event.data) for event in self.events]


def without_token(data: Any) -> Any:
    return {k: v for k, v in data.items() if k not in ("__jwt", "__user")} if isinstance(data, dict) else data


Behaviour = Callable[["Peer", Envelope, Message], Awaitable[None]]


class Peer:
    """The server's side of one connection."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]], close: Callable[[], Awaitable[None]]) -> None:
        self.send_bytes = send
        self.close = close
        self.session = Session()

    async def send(self, command: str, message: Message | Encoded | None = None, *, rid: str = "") -> None:
        record = self.session.envelope(command, message, rid=rid)
        await self.send_bytes(record[:4])  # as the real server does: the length and the rest apart
        await self.send_bytes(record[4:])

    async def take(self, envelope: Envelope, behave: Behaviour) -> None:
        message = unpack(envelope)
        if isinstance(message, pb.SigninRequest):
            user = pb.User(_id="u1", name="U", username="u", roles=[pb.Role(_id="r1", name="R")])
            reply = pb.SigninResponse(jwt="short", user=user, config="{}")
            await self.send("signinreply", reply, rid=envelope.id)
        elif envelope.command != "ping":
            await behave(self, envelope, message)

    async def serve(self, socket: ServerConnection, behave: Behaviour) -> None:
        await self.send("ping")
        async for data in socket:
            assert isinstance(data, bytes)
            for envelope in self.session.receive(data):
                await self.take(envelope, behave)


@contextlib.asynccontextmanager
async def odd_peer(behave: Behaviour, identity: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server that signs everybody in and then does as ``behave`` says."""

    async def attend(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await Peer(socket.send, socket.close).serve(socket, behave)

    server = await serve(attend, "127.0.0.1", 0, compression=None, ssl=identity, max_size=None)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


class GrpcPeer(Peer):
    """The same over gRPC: records without their length, and a seq that nobody looks at."""

    def __init__(self, context: Any) -> None:
        super().__init__(context.write, partial(context.abort, grpc.StatusCode.UNAVAILABLE, "going away"))

    async def send(self, command: str, message: Message | Encoded | None = None, *, rid: str = "") -> None:
        envelope = Envelope(command=command, id=new_id(), rid=rid, seq=7)
        if isinstance(message, Encoded):
            envelope.data.type_url, envelope.data.value = message.name, message.value
        elif message is not None:
            envelope.data.Pack(message)
        await self.send_bytes(envelope.SerializeToString())


@contextlib.asynccontextmanager
async def odd_grpc_peer(behave: Behaviour, identity: tuple[str, str] | None = None) -> AsyncIterator[str]:
    """A server as `odd_peer`, that speaks gRPC; ``identity`` is a key and a certificate."""

    async def stream(requests: AsyncIterator[bytes], context: Any) -> None:
        peer = GrpcPeer(context)
        await peer.send("ping")
        async for data in requests:
            await peer.take(Envelope.FromString(data), behave)

    handler = grpc.method_handlers_generic_handler(
        "openiap.FlowService", {"SetupStream": grpc.stream_stream_rpc_method_handler(stream)}
    )
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((handler,))
    if identity is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        key, certificate = (text.encode() for text in identity)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    await server.start()
    try:
        yield f"grpc://127.0.0.1:{port}" if identity is None else f"grpcs://localhost:{port}"
    finally:
        await server.stop(None)


def odd_client(url: str, **options: Any) -> Client:
    return Client(url, Credentials(jwt="t"), version="1", backoff=QUICKLY, **options)
