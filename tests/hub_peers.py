"""What the hub's tests share: one hub for many tests, and ways to say what no decent client would."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from websockets.asyncio.client import ClientConnection, connect

from jupyter_agent.home import Home
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Envelope, Session, reply_type, unpack
from tests.openflow_peers import Hub, running_hub


@contextlib.contextmanager
def hub_on_a_new_home() -> Iterator[Hub]:
    """A hub of its own for a module of tests."""
    with tempfile.TemporaryDirectory(prefix="ja-") as folder, running_hub(Home(Path(folder) / "home")) as hub:
        yield hub


@contextlib.asynccontextmanager
async def user_of(hub: Hub, name: str) -> AsyncIterator[Client]:
    """A client of a user who is no admin, added where needed."""
    if name not in hub.users:
        hub.add_user(name, f"password of {name}")
    async with hub.client(Credentials(username=name, password=f"password of {name}")) as client:
        await client.connected()
        yield client


async def ask(client: Client, message: Message, *, jwt: str = "") -> Any:
    """Send any message of the protocol, also one that the client has no method for; the reply."""
    command = type(message).DESCRIPTOR.name.removesuffix("Request").lower()
    expected = reply_type(command)
    assert expected is not None
    return await client._request(command, message, expected, jwt=jwt)


class Line:
    """A connection that says exactly what it is told to."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.session = Session()
        self._waiting: list[Envelope] = []

    async def say(self, command: str, message: Message | None = None, *, rid: str = "", jwt: str = "") -> str:
        """Send an envelope; its id."""
        record = self.session.envelope(command, message, rid=rid, jwt=jwt)
        await self.socket.send(record)
        return Envelope.FromString(record[4:]).id

    async def hear(self, command: str = "", *, rid: str = "") -> tuple[str, Any]:
        """The next envelope of this command, or for this request, as command and message; others are left out."""
        while True:
            while self._waiting:
                envelope = self._waiting.pop(0)
                if (not command or envelope.command == command) and (not rid or envelope.rid == rid):
                    return envelope.command, unpack(envelope)
            data = await self.socket.recv()
            assert isinstance(data, bytes)
            self._waiting += self.session.receive(data)

    async def ask(self, command: str, message: Message | None = None, *, jwt: str = "") -> tuple[str, Any]:
        """Send a request; the command and the message of its answer."""
        return await self.hear(rid=await self.say(command, message, jwt=jwt))

    async def sign_in(self, hub: Hub) -> None:
        command, _ = await self.ask("signin", pb.SigninRequest(jwt=hub.ready["jwt"], ping=True))
        assert command == "signinreply"


@contextlib.asynccontextmanager
async def line(url: str, **options: Any) -> AsyncIterator[Line]:
    async with connect(url, compression=None, max_size=None, **options) as socket:
        yield Line(socket)


def rows_of(hub: Hub, sql: str, *parameters: Any) -> list[Any]:
    """What stands in the hub's store."""
    connection = sqlite3.connect(hub.home / "hub" / "hub.db")
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()
