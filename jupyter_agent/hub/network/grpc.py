"""gRPC: the same envelopes as in WebSockets, one to a message, with nothing said by their seq.

Of the service ``openiap.FlowService`` only ``SetupStream`` is offered, as on the real server. Messages stay bytes here:
`Session` makes envelopes of them, so no generated stubs are needed. This module needs grpcio, which is an extra.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn

import grpc  # noqa: TID251 - the hub is a server
import grpc.aio  # noqa: TID251

from jupyter_agent.errors import Unavailable
from jupyter_agent.hub.network.connection import MAX_STRANGER, NORMAL, Connection
from jupyter_agent.hub.network.outbox import Record
from jupyter_agent.hub.network.routes import ADDRESS
from jupyter_agent.hub.network.websocket import Clients
from jupyter_agent.openflow.protocol import MAX_RECORD, Envelope, Session, decode

SERVICE = "/openiap.FlowService/"
TOO_BIG = 1009
FLUSH_S = 5.0
"""How long a client that is told goodbye may take for what was sent to it before."""

LAST_S = 60.0
"""How long the last requests of a client may take that has said it will make no more."""

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_RECORD),
    ("grpc.max_send_message_length", MAX_RECORD),
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),  # clients may ping as they like
)


class GrpcServer:
    """gRPC on a Unix socket: `start` it, and `stop` it."""

    def __init__(self, clients: Clients) -> None:
        name = f"jupyter-agent-{secrets.token_hex(16)}"
        self.path = f"\0{name}"
        """What to connect to: a name and no file, which goes with the process."""
        self._clients = clients
        self._server = grpc.aio.server(options=OPTIONS)
        self._server.add_generic_rpc_handlers((_Methods(self._attend),))
        self._server.add_insecure_port(f"unix-abstract:{name}")

    async def start(self) -> None:
        """Listen."""
        await self._server.start()

    async def stop(self) -> None:
        """Take nobody new; who is there has been told goodbye and gets a moment to hear it."""
        await self._server.stop(grace=1)

    async def _attend(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        wire = _Wire()
        try:
            connection = self._clients.connect(wire, ADDRESS, session=_Messages())
        except Unavailable as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(_read(requests, connection, wire))
                await wire.send_all(context)
                reading.cancel()
        finally:
            connection.lost()
            wire.drop()
        if wire.reason:
            await context.abort(grpc.StatusCode.UNAVAILABLE, wire.reason)


async def _read(requests: AsyncIterator[bytes], connection: Connection, wire: _Wire) -> None:
    async for message in requests:
        if connection.user is None and len(message) > MAX_STRANGER:
            connection.close(TOO_BIG, "too long for who has not signed in")
            return
        await connection.receive(message)
    with contextlib.suppress(TimeoutError):  # who says no more may still wait for answers
        async with asyncio.timeout(LAST_S):
            await connection.drained()
    wire.close(NORMAL, "")


class _Messages(Session):
    """A message is an envelope: there is nothing to cut, and no order but the one in which they come."""

    def receive(self, data: bytes) -> list[Envelope]:
        return [decode(data)]

    def records(self, data: bytes) -> list[bytes]:
        return [data]

    def take(self, envelope: Envelope, size: int) -> list[Envelope]:  # noqa: ARG002 - nothing waits
        return [envelope]


class _Wire:
    """`Transport` over a stream of gRPC, which takes one message after the other."""

    def __init__(self) -> None:
        self._unsent: asyncio.Queue[tuple[Sequence[Record], asyncio.Future[None]] | None] = asyncio.Queue()
        self._deadline = asyncio.timeout(None)
        self._is_closed = False
        self.reason = ""

    def write(self, records: Sequence[Record]) -> asyncio.Future[None]:
        """Queue records; what is written to one that is gone goes nowhere."""
        sent = asyncio.get_running_loop().create_future()
        if self._is_closed:
            sent.set_result(None)
        else:
            self._unsent.put_nowait((records, sent))
        return sent

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, after what was written before."""
        if self._is_closed:
            return
        self._is_closed = True
        self.reason = reason or ("" if code == NORMAL else str(code))
        self._unsent.put_nowait(None)
        if self._deadline.when() is None:
            with contextlib.suppress(RuntimeError):  # nothing is being sent yet, or no more
                self._deadline.reschedule(asyncio.get_running_loop().time() + FLUSH_S)

    async def send_all(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Send what is written, until it is closed."""
        with contextlib.suppress(TimeoutError):
            async with self._deadline:
                while (item := await self._unsent.get()) is not None:
                    records, sent = item
                    for record in records:
                        await context.write(b"".join(record[1:]))
                    if not sent.done():
                        sent.set_result(None)

    def drop(self) -> None:
        """Let go of what was not sent, and of who waits for it."""
        self._is_closed = True
        while not self._unsent.empty():
            item = self._unsent.get_nowait()
            if item is not None and not item[1].done():
                item[1].set_result(None)


class _Methods(grpc.GenericRpcHandler):
    """What is done for each method's name."""

    def __init__(self, attend: Any) -> None:
        self._stream: Any = grpc.stream_stream_rpc_method_handler(attend)
        self._refusal: Any = grpc.stream_stream_rpc_method_handler(_refuse)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method, ``None`` for none of ours."""
        if not handler_call_details.method.startswith(SERVICE):
            return None
        return self._stream if handler_call_details.method == f"{SERVICE}SetupStream" else self._refusal


async def _refuse(_requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    await context.abort(
        grpc.StatusCode.UNIMPLEMENTED, "Only SetupStream is offered: send the request in an envelope of its stream."
    )
    raise AssertionError
