"""Forwarding one request of a Jupyter user to the agent: what passes inward and outward, and how a stream passes.

Headers pass by allow-list, so that neither hop-by-hop headers nor Jupyter's cookies and tokens reach the agent, and
no header of an answer takes effect on Jupyter's origin.
"""

from __future__ import annotations

from typing import cast
from urllib.parse import parse_qsl, quote, urlencode

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.iostream import IOStream, StreamClosedError
from tornado.web import RequestHandler  # noqa: TID251 - the gate's handlers are Tornado's

from jupyter_agent.errors import Unavailable
from jupyter_agent.server.upstream import ENDED, exchange

USER_HEADER = "X-Jupyter-Agent-User"

INWARD = ("Accept", "Content-Type", "Idempotency-Key")
OUTWARD = ("Cache-Control", "Content-Disposition", "Content-Length", "Content-Type", "Last-Modified")

JUPYTERS_ARGUMENTS = frozenset({"token", "_xsrf", "no_track_activity"})

WHOLE = 1 << 16
"""Bytes; an answer up to this length is sent in one piece (and with an ETag), a longer one as it comes."""

_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def inward_headers(request: HTTPServerRequest, username: str) -> HTTPHeaders:
    """What the agent gets to see; who asks is Jupyter's word, never the request's.

    The name is percent-encoded where it is not printable ASCII.
    """
    headers = HTTPHeaders({USER_HEADER: quote(username, safe=_PLAIN)})
    for name in INWARD:
        if (value := request.headers.get(name)) is not None:
            headers[name] = value
    return headers


def inward_path(request: HTTPServerRequest, base_url: str) -> str:
    """The path on the agent's socket, as it was percent-encoded, and the query without what is Jupyter's own."""
    path = request.path[len(base_url) + len("jupyter-agent") :]
    query = [item for item in parse_qsl(request.query, keep_blank_values=True) if item[0] not in JUPYTERS_ARGUMENTS]
    return f"{path}?{urlencode(query)}" if query else path


class Relay:
    """Receives the agent's answer and writes it to the browser, at the pace of the browser."""

    def __init__(self, handler: RequestHandler) -> None:
        self._handler = handler
        self._streams = False
        self.started = False
        self.content_type = "application/json"

    async def head(self, status: int, headers: HTTPHeaders) -> None:
        """Send the head at once, unless the whole answer is short."""
        self.started = True
        self.content_type = headers.get("Content-Type", self.content_type)
        self._streams = not 0 <= int(headers.get("Content-Length", "-1")) <= WHOLE
        self._handler.set_status(status)
        for name in OUTWARD:
            if (value := headers.get(name)) is not None:
                self._handler.set_header(name, value)
        await self._flush()

    async def body(self, chunk: bytes) -> None:
        """Send a piece; done when the browser's connection has taken it."""
        self._handler.write(chunk)
        await self._flush()

    async def _flush(self) -> None:
        if self._streams:
            await self._handler.flush()


async def forward(handler: RequestHandler, upstream: IOStream, username: str, base_url: str) -> str | None:
    """Pass the handler's request on and its answer back; gives back the answer's content type.

    ``None``: the browser went away, or the agent did with half of the answer given; then the browser's connection is
    closed, for an answer that merely stops must not look whole. Raises ``Unavailable`` when the agent gave no answer.
    """
    request, relay = handler.request, Relay(handler)
    try:
        complete = await exchange(
            upstream,
            request.method or "GET",
            inward_path(request, base_url),
            relay,
            headers=inward_headers(request, username),
            body=request.body,
        )
    except StreamClosedError:
        return None  # the browser's
    if complete:
        return relay.content_type
    if not handler._headers_written:  # noqa: SLF001 - Tornado offers no other way to know
        raise Unavailable(ENDED)
    cast("HTTP1Connection", request.connection).close()
    return None
