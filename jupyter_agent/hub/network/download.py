"""``GET /download/<id>``: the content of a file, for who may read it, piece by piece.

Files are anybody's: a browser is told to save them, and never to show one as a page of ours. Their contents never
change, so a download that broke off can go on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import quote

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from jupyter_agent.errors import AccessDenied, AgentError, NotFound, SignInFailed
from jupyter_agent.hub import files
from jupyter_agent.hub.callers import Document
from jupyter_agent.hub.network.routes import Route, in_a_sentence

LOG = logging.getLogger(__name__)

STALLED_S = 60.0
"""How long somebody may take for a piece of what they asked for."""

RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
MIMETYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}(; ?charset=[\w-]{1,40})?")


@dataclass(frozen=True)
class Part:
    """The bytes of a file from ``start`` on, ``end`` not included."""

    start: int
    end: int


def part_of(length: int, asked: str) -> Part | None:
    """The part that a ``Range`` header asks for: all where it asks for nothing that is known, ``None`` for none."""
    found = RANGE.fullmatch(asked.strip())
    if found is None or found.groups() == ("", ""):
        return Part(0, length)
    first, last = found.groups()
    if not first:  # the last so many bytes
        return Part(max(0, length - int(last)), length) if int(last) and length else None
    start, end = int(first), min(length, int(last) + 1 if last else length)
    if last and int(last) < start:
        return Part(0, length)
    return Part(start, end) if start < length else None


def disposition(filename: str) -> str:
    """The ``Content-Disposition`` of a file of this name, plain for old programs and whole for all others."""
    name = files.base_name(filename)
    plain = re.sub(r"[^\w .()+,@-]", "_", name, flags=re.ASCII)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name.encode(errors='replace'), safe='')}"


class Download(Route):
    """``/download/<id>``."""

    @in_a_sentence
    async def get(self, id: str) -> None:  # noqa: A002 - what OpenFlow calls it
        """Send the file."""
        document = await self._document(id)
        part = self._part(document)
        if part is None:
            return
        if self.request.method == "HEAD":
            await self.finish()
            return
        try:
            await self._send(document["_id"], part)
        except (StreamClosedError, TimeoutError):
            self._break_off("the other side does not take it")
        except AgentError as error:
            if not self._headers_written:
                self.clear()
                raise
            self._break_off(str(error))

    head = get

    async def _document(self, id: str) -> Document:  # noqa: A002
        caller = await self.caller()
        if caller is None:
            raise SignInFailed("A download needs an Authorization header: Bearer or jwt with a token, or Basic.")
        self.front.rates.spend(caller.id)
        try:
            return await self.front.services.store.read(lambda documents: files.readable(documents, caller, id))
        except AccessDenied as error:
            raise NotFound(str(error)) from error

    def _part(self, document: Document) -> Part | None:
        """Say what will come, and which part of the file it is."""
        length, mark = int(document["length"]), f'"{document["_id"]}"'
        ranged = self.request.headers.get("If-Range", mark) == mark
        part = part_of(length, self.request.headers.get("Range", "") if ranged else "")
        if part is None:
            self.set_header("Content-Range", f"bytes */{length}")
            self.refuse(416, f"The file has {length} bytes.")
            return None
        mimetype = str(document.get("contentType", ""))
        self.set_header("Content-Type", mimetype if MIMETYPE.fullmatch(mimetype) else "application/octet-stream")
        self.set_header("Content-Disposition", disposition(str(document["filename"])))
        self.set_header("Content-Security-Policy", "sandbox; default-src 'none'")
        self.set_header("Content-Length", str(part.end - part.start))
        self.set_header("Accept-Ranges", "bytes")
        self.set_header("ETag", mark)
        if part != Part(0, length):
            self.set_status(206)
            self.set_header("Content-Range", f"bytes {part.start}-{part.end - 1}/{length}")
        return part

    async def _send(self, id: str, part: Part) -> None:  # noqa: A002
        left = part.end - part.start
        async with aclosing(self.front.services.files.send(id, start=part.start)) as pieces:
            async for piece in pieces:
                self.write(piece[:left])
                left -= len(piece[:left])
                async with asyncio.timeout(STALLED_S):
                    await self.flush()
                if not left:
                    break
        if left:
            raise NotFound(f"{left} bytes of the content of the file {id} are missing.")
        await self.finish()

    def _break_off(self, why: str) -> None:
        """Close the connection: what was sent is not all, and must not look so."""
        LOG.warning("the download from %s broke off: %s", self.request.path, why)
        if isinstance(self.request.connection, HTTP1Connection):
            self.request.connection.close()
