"""Ways for envelopes between client and server: a WebSocket here, gRPC in a module that is loaded when it is needed.

A transport knows how records travel; it refuses to know what is in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidStatus

from jupyter_agent import __version__
from jupyter_agent.errors import AgentError, ConnectionLost, Unavailable
from jupyter_agent.openflow.address import WEBSOCKET, Address
from jupyter_agent.openflow.protocol import BIG, MAX_RECORD, Envelope, Session, decode, in_pieces
from jupyter_agent.openflow.trust import distrust, trust

log = logging.getLogger(__name__)
socket_log = logging.getLogger(f"{__name__}.socket")
socket_log.setLevel(logging.INFO)  # at DEBUG, websockets writes down what is sent: passwords and tokens

MAX_PLACE = 200

CLOSE_S = 2.0
"""How long the server may take to say goodbye."""


class Transport(Protocol):
    """An open way to a server. One task sends, one receives. Both raise `ConnectionLost` when it has ended."""

    async def send(self, records: Sequence[Sequence[bytes]]) -> None:
        """Send records as `Session.frame` makes them: the length, and the rest in pieces."""

    async def receive(self) -> list[tuple[Envelope, bool]]:
        """The next envelopes, in order, and whether each is a big one; may be none.

        Raises `ProtocolError` too, after which it is of no more use.
        """

    async def probe(self, answered: Callable[[], object]) -> None:
        """Ask the other end for a sign of life, below envelopes, where that is not done anyway."""

    def abort(self) -> None:
        """End it at once."""


class WebSocketTransport:
    """Envelopes as a stream of records in binary WebSocket messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._session = Session()
        self._big: set[int] = set()

    async def send(self, records: Sequence[Sequence[bytes]]) -> None:
        """Send records: together in one message, or in several where they are long."""
        with ending_explained():
            for piece in in_pieces([piece for record in records for piece in record]):
                await self._socket.send(piece)

    async def receive(self) -> list[tuple[Envelope, bool]]:
        """The envelopes that the next message completes."""
        with ending_explained():
            data = await self._socket.recv(decode=False)
        envelopes: list[Envelope] = []
        for record in self._session.records(data):
            envelope = await decoded(record)
            if len(record) > BIG:
                self._big.add(envelope.seq)
            envelopes += self._session.take(envelope, len(record))
        taken = [(envelope, envelope.seq in self._big) for envelope in envelopes]
        self._big -= {envelope.seq for envelope, is_big in taken if is_big}
        return taken

    async def probe(self, answered: Callable[[], object]) -> None:
        """Send a WebSocket ping, which the other end's library answers."""

        def ponged(pong: asyncio.Future[float]) -> None:
            if not pong.cancelled() and pong.exception() is None:
                answered()

        with ending_explained():
            asyncio.ensure_future(await self._socket.ping()).add_done_callback(ponged)

    def abort(self) -> None:
        """Drop the connection without a word."""
        self._socket.transport.abort()


async def decoded(record: bytes) -> Envelope:
    """The envelope in a record; a big one is decoded beside the event loop. Raises `ProtocolError`."""
    return await asyncio.to_thread(decode, record) if len(record) > BIG else decode(record)


def open_transport(
    address: Address, *, timeout_s: float, ca_file: Path | None
) -> AbstractAsyncContextManager[Transport]:
    """A way to this address, closed at the end even when that is cancelled. Raises `Unavailable` when none is found.

    Certificates are verified (see `trust`). Proxies of the environment are used, but not to this machine itself.
    """
    opening = open_grpc if address.grpc else open_socket
    return opening(address, timeout_s=timeout_s, ca_file=ca_file)


class Straight(connect):
    """Follows no redirect: the credentials would go to wherever that leads."""

    def process_redirect(self, exc: Exception) -> Exception:
        """Make an error of it, like others."""
        return exc


@contextlib.asynccontextmanager
async def open_socket(address: Address, *, timeout_s: float, ca_file: Path | None) -> AsyncIterator[Transport]:
    """A WebSocket."""
    context = await asyncio.to_thread(trust, ca_file) if address.tls else None
    try:
        socket = await Straight(
            address.url,
            ssl=context,
            proxy=None if address.is_loopback else True,
            compression=None,  # files are compressed already, and the hub is on this machine
            open_timeout=timeout_s,
            close_timeout=CLOSE_S,
            ping_interval=None,  # KeepAlive does it
            max_size=MAX_RECORD + 4,
            max_queue=4,
            user_agent_header=f"jupyter_agent/{__version__}",
            logger=socket_log,
        )
    except Exception as error:
        raise unreachable(address.url, error) from error
    try:
        yield WebSocketTransport(socket)
    finally:
        try:
            await socket.close()
        finally:
            socket.transport.abort()


@contextlib.asynccontextmanager
async def open_grpc(address: Address, *, timeout_s: float, ca_file: Path | None) -> AsyncIterator[Transport]:
    """A gRPC stream. Its module, and with it gRPC, is imported now and in a thread: it takes its time."""
    module = await asyncio.to_thread(importlib.import_module, "jupyter_agent.openflow.grpc_transport")
    opening = cast("AbstractAsyncContextManager[Transport]", module.open_stream(address, timeout_s, ca_file))
    async with opening as transport:
        yield transport


@contextlib.contextmanager
def ending_explained() -> Iterator[None]:
    """Say in our terms that the socket was closed."""
    try:
        yield
    except ConnectionClosed as error:
        said = f" ({error.rcvd.reason})" if error.rcvd and error.rcvd.reason else ""
        raise ConnectionLost(f"OpenFlow closed the connection{said}.") from error


def unreachable(url: str, error: Exception) -> AgentError:
    """Why no connection could be made, in a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unavailable(distrust(url, error))
    if isinstance(error, TimeoutError):
        return Unavailable(f"OpenFlow at {url} does not answer.")
    if isinstance(error, InvalidStatus):
        return Unavailable(answered(url, error.response.status_code, error.response.headers.get("Location", "")))
    if isinstance(error, OSError):
        # asyncio words refusals by address, and several of them in one error without a number.
        refusal = "Connect call failed" in str(error)
        why = "nothing answers there" if refusal else error.strerror or str(error)
        return Unavailable(f"OpenFlow at {url} cannot be reached ({why}).")
    if isinstance(error, InvalidHandshake | InvalidProxy | ValueError | ImportError | EOFError):
        return Unavailable(f"OpenFlow at {url} cannot be reached ({error}).")
    log.error("The connection to %s failed in an unknown way", url, exc_info=error)
    return Unavailable(f"OpenFlow at {url} cannot be reached ({type(error).__name__}).")


def answered(url: str, status: int, location: str) -> str:
    """What an answer means that is no WebSocket, in a sentence; of a redirect, the scheme, host and port are told."""
    with contextlib.suppress(ValueError):
        there, here = urlsplit(location), urlsplit(url)
        if there.hostname and (WEBSOCKET.get(there.scheme), there.netloc) != (here.scheme, here.netloc):
            place = f"{there.scheme}://{there.netloc}"[:MAX_PLACE]
            return f"{url} says that OpenFlow is at {place}: put that in the address if you trust it."
    return f"{url} answers with HTTP {status} instead of a WebSocket: check the address of OpenFlow."
