"""One client's connection: its envelopes in and out, its requests under way, who it is signed in as.

It knows how answers, events and streams travel, and refuses to know what any command does: that is ``perform``, which
it is given.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from google.protobuf.message import Message  # noqa: TID251 - what commands take and return

from jupyter_agent.errors import AgentError, ProtocolError
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.hub.network.outbox import Outbox, Transport
from jupyter_agent.openflow.proto.openiap_pb2 import BeginStream, EndStream, Envelope, ErrorResponse, Stream
from jupyter_agent.openflow.protocol import BIG, Encoded, Session, decode, encoded, is_big, unpack

LOG = logging.getLogger(__name__)

MAX_REQUESTS = 64
"""Requests of one connection under way at once; what comes then waits in the network."""

MAX_STRANGER = 1 << 20
"""Bytes of a record of who has not signed in."""

MAX_ANSWERS = 16
"""Of these, requests whose answers may be long: so many wait in memory for a client that does not read."""

MAX_UPLOADS = 16
MAX_PARTS = 2 << 20
"""Bytes of a file that wait to be written; a client may send it in parts of any size."""

PART_OVERHEAD = 1 << 10
MAX_SENTENCE = 1000
"""Characters of an error: some repeat what the client sent."""

MAX_UNSENT = 64 << 20
"""Bytes of events that wait for a slow client before it is disconnected; when it comes back it reads anew."""

STREAM_PARTS = frozenset({"beginstream", "stream", "endstream"})
UNANSWERED = frozenset({"ping", "pong", "noop"})
LONG_ANSWERS = frozenset({"query", "aggregate", "distinct", "getdocumentversion", "popworkitem"})
IN_TURN = frozenset({"signin"})
"""Commands that are done before what follows is looked at, so that a client need not wait for the answer."""

NORMAL, PROTOCOL_BROKEN, TRY_AGAIN = 1000, 1002, 1013


class Upload:
    """The parts of a file on their way in."""

    def __init__(self) -> None:
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()
        self._is_wanted = True

    async def put(self, part: bytes | None) -> None:
        """Hand on a part, ``None`` for the end; waits while earlier ones are being written."""
        await self._room.wait()
        if self._is_wanted:
            self._parts.put_nowait(part)
            self._count(_weight(part))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._until_the_end()

    async def _until_the_end(self) -> AsyncIterator[bytes]:
        while (part := await self._parts.get()) is not None:
            self._count(-_weight(part))
            yield part

    def drop(self) -> None:
        """Let the rest of the parts go by."""
        self._is_wanted = False
        self._room.set()
        while not self._parts.empty():
            self._parts.get_nowait()

    def _count(self, size: int) -> None:
        self._waiting += size
        if self._waiting < MAX_PARTS or not self._is_wanted:
            self._room.set()
        else:
            self._room.clear()


def _weight(part: bytes | None) -> int:
    """What a part takes while it waits; an empty one takes something, too."""
    return len(part or b"") + PART_OVERHEAD


Perform = Callable[["Connection", Envelope, Message], Awaitable[Message | Encoded]]


class Connection:
    """A connection from its first byte to its last."""

    def __init__(self, transport: Transport, perform: Perform, *, remote: str, session: Session | None = None) -> None:
        self.id = new_id()
        self.remote = remote
        self.user: str | None = None
        self.kind = ""
        self.version = ""
        self.wants_pings = True
        self.expires_s = 0.0
        self.opened_s = self.heard_s = time.monotonic()
        self._transport = transport
        self._perform = perform
        self._session = session or Session()
        self._outbox = Outbox(transport)
        self._slots = asyncio.Semaphore(MAX_REQUESTS)
        self._answers = asyncio.Semaphore(MAX_ANSWERS)
        self._uploads: dict[str, Upload] = {}
        self._unsent = 0
        self._requests: asyncio.TaskGroup | None = None
        self._is_served = asyncio.Event()
        self._closed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Connection {self.kind or 'new'} from {self.remote}, user {self.user}>"

    @property
    def is_closed(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._closed.is_set()

    @property
    def unsent(self) -> int:
        """Bytes of events that the network has not taken yet."""
        return self._unsent

    def sign_in(self, user: str, *, kind: str, version: str, pings: bool, expires_s: float) -> None:
        """From now on requests are made as this user; ``expires_s`` (since 1970) is when the token does."""
        self.user, self.kind, self.version = user, kind, version
        self.wants_pings, self.expires_s = pings, expires_s

    async def serve(self) -> None:
        """Own the requests under way, until the connection ends; then cancel them."""
        try:
            async with asyncio.TaskGroup() as self._requests:
                self._requests.create_task(self._until_closed())
                self._is_served.set()
        except* _Closed:
            pass

    async def receive(self, data: bytes) -> None:
        """Take bytes from the network; waits while too much is under way."""
        self.heard_s = time.monotonic()
        await self._is_served.wait()
        try:
            for record in self._session.records(data):
                size = len(record)
                decoded = decode(record) if size < BIG else await asyncio.to_thread(decode, record)
                for envelope in self._session.take(decoded, size):
                    if self.is_closed:
                        return
                    await self._take(envelope)
            self._check_stranger()
        except ProtocolError as error:
            LOG.warning("%r is closed: %s", self, error)
            self.close(PROTOCOL_BROKEN, str(error))

    def send(self, command: str, message: Message | Encoded | None = None, *, rid: str = "") -> asyncio.Future[None]:
        """Queue an envelope; the result is done when the network has taken it.

        Raises `InvalidInput` for one that is too long.
        """
        return self._outbox.put(self._session.frame(command, message, rid=rid))

    def push(self, command: str, message: Message | None = None) -> None:
        """Send an event. A client that does not take them in time is disconnected."""
        if self.is_closed:
            return
        if self._unsent > MAX_UNSENT:
            LOG.warning("%r is closed: it does not take its events", self)
            self.close(TRY_AGAIN, "too slow")
            return
        try:
            pieces = self._session.frame(command, message)
        except AgentError as error:
            LOG.warning("%r was not sent a %s: %s", self, command, error)
            return
        size = sum(map(len, pieces))
        self._unsent += size
        self._outbox.put(pieces).add_done_callback(lambda _: self._was_sent(size))

    async def send_file(self, rid: str, parts: AsyncIterator[bytes]) -> None:
        """Send the parts of a file as a stream that belongs to the request ``rid``."""
        part = await anext(parts, b"")  # before anything is sent: it may be missing
        await self.send("beginstream", BeginStream(), rid=rid)
        while part:
            await self.send("stream", Stream(data=part), rid=rid)
            part = await anext(parts, b"")
        await self.send("endstream", EndStream(), rid=rid)

    async def drained(self) -> None:
        """Wait until the requests under way are answered; there must come no more."""
        for _ in range(MAX_REQUESTS):
            await self._slots.acquire()

    def upload(self, rid: str) -> Upload:
        """The stream that belongs to the request ``rid``."""
        return self._uploads[rid]

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """End the connection, once."""
        if not self.is_closed:
            self._closed.set()
            self._outbox.flush()
            self._transport.close(code, reason[:100])

    def lost(self) -> None:
        """The network says that the connection has ended."""
        self._closed.set()

    async def _until_closed(self) -> None:
        await self._closed.wait()
        for upload in self._uploads.values():
            upload.drop()
        raise _Closed

    def _was_sent(self, size: int) -> None:
        self._unsent -= size

    def _check_stranger(self) -> None:
        if self.user is None and self._session.waiting > MAX_STRANGER:
            raise ProtocolError(f"Who has not signed in can send records of up to {MAX_STRANGER >> 20} MiB.")

    async def _take(self, envelope: Envelope) -> None:
        command = envelope.command.lower()
        if command in STREAM_PARTS:
            await self._take_part(command, envelope)
        elif command in UNANSWERED or command.endswith("reply") or command == "error":
            pass
        elif command in IN_TURN:
            await self._answer(command, envelope)
        else:
            await self._start(command, envelope)

    async def _take_part(self, command: str, envelope: Envelope) -> None:
        upload = self._uploads.get(envelope.rid)
        if upload is None:  # refused already
            return
        if command == "stream":
            part = unpack(envelope)
            await upload.put(part.data if isinstance(part, Stream) else b"")
        elif command == "endstream":
            await upload.put(None)

    async def _start(self, command: str, envelope: Envelope) -> None:
        if command == "upload":
            if len(self._uploads) >= MAX_UPLOADS or envelope.id in self._uploads:
                await self._refuse(envelope, f"At most {MAX_UPLOADS} uploads, each with an id, can be under way.")
                return
            self._uploads[envelope.id] = Upload()  # at once: its first parts may be right behind
        else:
            await self._slots.acquire()
        if self._requests is not None and not self.is_closed:
            self._requests.create_task(self._serve_request(command, envelope))

    async def _serve_request(self, command: str, envelope: Envelope) -> None:
        try:
            if command in LONG_ANSWERS:
                async with self._answers:
                    await self._answer(command, envelope)
            else:
                await self._answer(command, envelope)
        finally:
            if command == "upload":
                self._uploads.pop(envelope.id).drop()
            else:
                self._slots.release()

    async def _answer(self, command: str, envelope: Envelope) -> None:
        """Do what is asked and send the reply, or what stands in the way of it."""
        try:
            sent = self.send(f"{command}reply", await self._reply(envelope), rid=envelope.id)
        except AgentError as error:
            sent = self._refuse(envelope, str(error))
        except Exception:  # of ours: logged, and of no use to the client
            LOG.exception("a %s of %r failed", command, self)
            sent = self._refuse(envelope, f"The hub could not do this {command} because of a fault of its own.")
        await sent

    async def _reply(self, envelope: Envelope) -> Message | Encoded:
        """What is asked for, and what comes of it; big messages are decoded and encoded in a thread."""
        data = envelope.data.value
        request = unpack(envelope) if len(data) < BIG else await asyncio.to_thread(unpack, envelope)
        reply = await self._perform(self, envelope, request)
        if isinstance(reply, Encoded) or not is_big(reply):
            return reply
        return await asyncio.to_thread(encoded, reply)

    def _refuse(self, envelope: Envelope, message: str) -> asyncio.Future[None]:
        return self.send("error", ErrorResponse(message=message[:MAX_SENTENCE]), rid=envelope.id)


class _Closed(Exception):
    """Ends the task group of a connection."""
