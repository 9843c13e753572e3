"""WebSockets: bytes move between the network and a client's `Connection`."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from jupyter_agent.errors import Unavailable
from jupyter_agent.hub.network.connection import MAX_STRANGER, Connection
from jupyter_agent.hub.network.outbox import Record, Transport, size_of
from jupyter_agent.hub.network.routes import Front, Route
from jupyter_agent.openflow.protocol import MAX_RECORD, PIECE, Session, in_pieces

UNSUPPORTED, TRY_AGAIN = 1003, 1013
LENGTH = 4
"""Bytes before a record."""

BINARY, SHORT, LONG = 0x82, 126, 127
"""A whole binary message; and what stands for its length where that takes two bytes, or eight."""


class Clients(Protocol):
    """Who keeps the connections."""

    def check_room(self) -> None:
        """Raises `Unavailable` when there can be no further one."""

    def connect(self, transport: Transport, remote: str, *, session: Session | None = None) -> Connection:
        """A connection, served from now on; ``remote`` is the client's address. Raises `Unavailable`."""


class Socket(Route, WebSocketHandler):
    """The WebSocket of one client."""

    connection: Connection | None = None
    is_stranger = True

    def initialize(self, front: Front, clients: Clients) -> None:  # type: ignore[override]
        """Take what the route table gives."""
        super().initialize(front)
        self.clients = clients

    def prepare(self) -> None:
        """Say before the handshake when there is no room."""
        super().prepare()
        try:
            self.clients.check_room()
        except Unavailable as error:
            self.set_header("Retry-After", "10")
            self.refuse(503, str(error))

    @property
    def max_message_size(self) -> int:
        """Bytes of a message until somebody has signed in."""
        return MAX_STRANGER + LENGTH

    def check_origin(self, origin: str) -> bool:
        """`prepare` has checked it already."""
        return self.front.allows(self.request.headers.get("Host", ""), origin)

    def open(self, *_args: str, **_kwargs: str) -> None:
        """Begin a connection."""
        self.set_nodelay(True)
        try:
            self.connection = self.clients.connect(self._wire(), self.request.remote_ip or "")
        except Unavailable as error:
            self.close(TRY_AGAIN, str(error)[:100])

    async def on_message(self, message: str | bytes) -> None:
        """Hand on bytes; the next message is read when these were taken."""
        if self.connection is None:
            return
        if isinstance(message, str):
            self.connection.close(UNSUPPORTED, "binary messages only")
            return
        await self.connection.receive(message)
        if self.is_stranger and self.connection.user is not None:
            self.is_stranger = False
            if isinstance(self.ws_connection, WebSocketProtocol13):
                self.ws_connection.params.max_message_size = MAX_RECORD + LENGTH

    def _wire(self) -> _Wire:
        # The PyPI client openiap takes a message for a length and the next for what follows, as the real server has it.
        return _Wire(self, is_literal=self.request.headers.get("User-Agent", "").startswith("Python/"))

    def on_close(self) -> None:
        """The network says so."""
        if self.connection is not None:
            self.connection.lost()


@dataclass(frozen=True)
class _Wire:
    """`Transport` over a WebSocket: what is written to one that is gone goes nowhere."""

    socket: Socket
    is_literal: bool

    def write(self, records: Sequence[Record]) -> asyncio.Future[None]:
        """Send them as messages that are not too long, one when the one before was taken."""
        if self.is_literal:
            return asyncio.ensure_future(self._send_all(_length_and_rest(records)))
        pieces = [piece for record in records for piece in record]
        if size_of(records) <= PIECE:
            return self._send(b"".join(pieces))
        return asyncio.ensure_future(self._send_all(in_pieces(pieces)))

    def _send(self, piece: bytes) -> asyncio.Future[None]:
        # Not by write_message, which makes a coroutine and a task of each: that is half of what an event costs.
        protocol = self.socket.ws_connection
        if protocol is not None and protocol.stream is not None and not protocol.is_closing():
            with contextlib.suppress(StreamClosedError):
                sent = protocol.stream.write(_head(len(piece)) + piece)
                sent.add_done_callback(_heard)
                return sent
        nowhere = asyncio.get_running_loop().create_future()
        nowhere.set_result(None)
        return nowhere

    async def _send_all(self, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            await asyncio.wait({self._send(piece)})

    def close(self, code: int, reason: str) -> None:
        """Say goodbye."""
        self.socket.close(code, reason)


def _head(size: int) -> bytes:
    """What goes before the bytes of a binary message from a server (RFC 6455, section 5.2)."""
    if size < SHORT:
        return bytes((BINARY, size))
    return struct.pack(">BBH", BINARY, SHORT, size) if size < 1 << 16 else struct.pack(">BBQ", BINARY, LONG, size)


def _heard(sent: asyncio.Future[None]) -> None:
    """A connection that is gone is noticed elsewhere."""
    if not sent.cancelled():
        sent.exception()


def _length_and_rest(records: Sequence[Record]) -> Iterator[bytes]:
    for length, *rest in records:
        yield length
        yield b"".join(rest)
