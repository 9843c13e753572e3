"""HTTP to the agent's socket, from Tornado's event loop.

Knows how the agent is found, started and spoken to; refuses to know what is said. Tornado's own connection class is
used beneath its HTTP client: the client of the Tornado versions we support reads on while the receiver is not ready,
and a request of it cannot be ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Protocol

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream, StreamClosedError

from jupyter_agent.errors import Unavailable
from jupyter_agent.home import Home, Spawn, ensure_agent, failure, running_agent

ANSWER_TIMEOUT_S = 600
"""For the head of an answer: publishing a large package, or making an HTML page, comes before it."""

CHUNK = 1 << 16

ENDED = "The agent ended before it answered: try again."


class Receiver(Protocol):
    """Takes an answer as it comes; nothing more is read before what a method gave back is done."""

    def head(self, status: int, headers: HTTPHeaders) -> Awaitable[None] | None:
        """The answer's status and headers."""

    def body(self, chunk: bytes) -> Awaitable[None] | None:
        """A piece of the body."""


class Upstream:
    """The agent of one home: finds it, starts it once for all who ask at the same time, connects to it."""

    def __init__(self, home: Home, *, spawn: Spawn) -> None:
        self.home = home
        self._spawn = spawn
        self._starting: asyncio.Future[str] | None = None

    async def find(self) -> str | None:
        """The socket of the running agent, ``None`` when none runs. Raises ``NewerVersion``, ``InvalidInput``."""
        return await asyncio.to_thread(running_agent, self.home)

    async def ensure(self) -> str:
        """The socket of the agent, which is started when none runs.

        Raises ``Unavailable`` with the agent's own sentence when it does not start.
        """
        if self._starting is None:
            self._starting = asyncio.ensure_future(asyncio.to_thread(ensure_agent, self.home, self._spawn))
            self._starting.add_done_callback(self._started)
        return await asyncio.shield(self._starting)  # one caller that goes away does not end the others' wait

    def _started(self, starting: asyncio.Future[str]) -> None:
        self._starting = None
        if not starting.cancelled():
            starting.exception()  # seen, even when every caller has gone away

    async def connect(self) -> IOStream:
        """A connection to the agent, which is started when none runs."""
        return await _reach(await self.ensure())

    async def fetch(self, path: str, url: str) -> Any:
        """The JSON of a ``GET`` to the agent at the socket ``path``.

        Raises ``RequestFailed`` with the agent's error, ``Unavailable`` when it does not answer.
        """
        collected = _Collected()
        if not await exchange(await _reach(path), "GET", url, collected):
            raise Unavailable(ENDED)
        if collected.status >= HTTPStatus.BAD_REQUEST:
            raise failure(collected.status, bytes(collected.data))
        return json.loads(collected.data)


async def _reach(path: str) -> IOStream:
    try:
        return await connect(path)
    except OSError as error:
        raise Unavailable(ENDED) from error


async def connect(path: str) -> IOStream:
    """A connection to a Unix socket. Raises ``OSError``."""
    stream = IOStream(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        await stream.connect(path)
    except BaseException:
        stream.close()
        raise
    return stream


async def exchange(
    stream: IOStream,
    method: str,
    path: str,
    receiver: Receiver,
    *,
    headers: HTTPHeaders | None = None,
    body: bytes = b"",
) -> bool:
    """Send one request on a fresh connection and hand its answer to the receiver; the connection is closed after.

    Closing ``stream`` meanwhile ends the exchange. Returns whether the whole answer came. Errors of the receiver are
    raised.
    """
    sent = HTTPHeaders({"Host": "agent", "Connection": "close"})
    for name, value in (headers or HTTPHeaders()).get_all():
        sent.add(name, value)
    if body or method != "GET":
        sent["Content-Length"] = str(len(body))
    parameters = HTTP1ConnectionParameters(
        no_keep_alive=True, chunk_size=CHUNK, header_timeout=ANSWER_TIMEOUT_S, max_body_size=1 << 62
    )
    connection = HTTP1Connection(stream, is_client=True, params=parameters)
    delegate = _Delegate(stream, receiver)
    try:
        with contextlib.suppress(StreamClosedError):
            await connection.write_headers(RequestStartLine(method, path, "HTTP/1.1"), sent, body)
            connection.finish()
            await connection.read_response(delegate)
    finally:
        stream.close()
    if delegate.error is not None:
        raise delegate.error
    return delegate.complete


class _Delegate(HTTPMessageDelegate):
    """Hands what Tornado reads to a receiver; keeps the receiver's error, which Tornado would only log."""

    def __init__(self, stream: IOStream, receiver: Receiver) -> None:
        self._stream = stream
        self._receiver = receiver
        self.complete = False
        self.error: BaseException | None = None

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        status = int(start_line[1])
        interim = status < HTTPStatus.OK
        return None if interim else self._guarded(lambda: self._receiver.head(status, headers))

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._guarded(lambda: self._receiver.body(chunk))

    async def _guarded(self, call: Callable[[], Awaitable[None] | None]) -> None:
        try:
            if (waiting := call()) is not None:
                await waiting
        except BaseException as error:  # noqa: BLE001 - raised again by exchange(): Tornado would swallow it
            self.error = self.error or error
            self._stream.close()

    def finish(self) -> None:
        self.complete = self.error is None


class _Collected:
    """A receiver that keeps a JSON answer."""

    def __init__(self) -> None:
        self.status = 0
        self.data = bytearray()

    def head(self, status: int, _headers: HTTPHeaders) -> None:
        self.status = status

    def body(self, chunk: bytes) -> None:
        self.data += chunk


class Lines:
    """A receiver of JSON lines; ``take`` gets each object, and ``None`` for the blank line of a heartbeat."""

    def __init__(self, take: Callable[[dict[str, Any] | None], Awaitable[None] | None]) -> None:
        self._take = take
        self._rest = b""
        self.status = 0

    def head(self, status: int, _headers: HTTPHeaders) -> None:
        """Keep the status; an error's body is no stream of objects and is left out."""
        self.status = status

    async def body(self, chunk: bytes) -> None:
        """Take the lines that are whole by now."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines if self.status == HTTPStatus.OK else ():
            waiting = self._take(json.loads(line) if line.strip() else None)
            if waiting is not None:
                await waiting
