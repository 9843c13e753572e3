"""One connection to a server, from its opening to its end; never used again after that.

It carries envelopes: requests and their replies, files in parts, events. It refuses to know who is signed in, what the
events mean, and what follows after the end: that is the client's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.message import Message  # noqa: TID251 - what envelopes carry

from jupyter_agent.errors import ConnectionLost, InvalidInput, ProtocolError, ServerRefused, TimedOut, Unavailable
from jupyter_agent.openflow.pace import Pace, within_limits
from jupyter_agent.openflow.proto import openiap_pb2
from jupyter_agent.openflow.protocol import (
    MAX_RECORD,
    Encoded,
    Envelope,
    Session,
    encoded,
    is_big,
    new_id,
    request_type,
    unpack,
)
from jupyter_agent.openflow.transport import Transport

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
T = TypeVar("T")

OVERHEAD = 1 << 16
"""Bytes that are kept for what else is in an envelope: a token, ids."""

TOGETHER = 64
"""Envelopes that leave in one go, at most."""

EVENTS = (openiap_pb2.RefreshToken, openiap_pb2.WatchEvent, openiap_pb2.QueueEvent)


@dataclass(frozen=True)
class KeepAlive:
    """A ping every ``ping_s``; a server that has been silent for ``silent_s`` is taken for dead.

    The server pings every 10 s and drops a client that has been silent for 60 s. It answers no ping envelope, so
    WebSocket pings, which the other end's library answers, go with them.

    A server that has lost its message broker tells nobody: every ``queue_s`` a message is sent through a queue of our
    own, and when two in a row have not come back, all queues are registered again.
    """

    ping_s: float = 20
    silent_s: float = 60
    queue_s: float = 60


@dataclass
class Pending:
    """A request under way. ``take`` gets the parts of a file, in order, and holds up the connection meanwhile."""

    reply: asyncio.Future[Message]
    take: Callable[[bytes], Awaitable[None]] | None = None
    id: str = field(default_factory=new_id)
    parts: list[str] = field(default_factory=list)
    """Ids of envelopes that belong to it and that the server may refuse by themselves."""
    heard_at: float = 0.0
    is_large: bool = False

    async def part(self, data: bytes) -> None:
        """Hand on a part; a taker that fails has failed the request, not the connection."""
        if self.take is None or self.reply.done():
            return
        try:
            await self.take(data)
        except Exception as error:  # noqa: BLE001 - it is raised where the request was made
            self.fail(error)

    def settle(self, message: Message) -> None:
        """The reply came."""
        if not self.reply.done():
            self.reply.set_result(message)

    def fail(self, error: Exception) -> None:
        """No reply will come."""
        if not self.reply.done():
            self.reply.set_exception(error)

    def drop(self) -> None:
        """Nobody waits any more: an error that nobody saw is none."""
        if not self.reply.cancel() and not self.reply.cancelled():
            self.reply.exception()


@dataclass(frozen=True)
class Outgoing:
    """An envelope that waits to be sent. Its seq is given when it is its turn."""

    command: str
    message: Message | Encoded
    id: str
    rid: str = ""
    jwt: str = ""
    sent: asyncio.Future[None] | None = None

    @property
    def is_big(self) -> bool:
        """Whether it is enough for once."""
        return isinstance(self.message, Encoded)


class Connection:
    """The envelopes of one open transport. ``run`` carries them; requests are made while it runs. It closes nothing.

    ``on_event`` is called with each `RefreshToken`, `WatchEvent` and `QueueEvent` as it comes and must not wait.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        url: str,
        on_event: Callable[[Message], None],
        timeout_s: float,
        keep_alive: KeepAlive,
        requests_per_s: float | None,
    ) -> None:
        self.url = url
        self._transport = transport
        self._on_event = on_event
        self._timeout_s = timeout_s
        self._keep_alive = keep_alive
        self._pace = Pace(requests_per_s) if requests_per_s else None
        self._session = Session()
        self._outbox: asyncio.Queue[Outgoing] = asyncio.Queue()
        self._pending: dict[str, Pending] = {}
        self._heard_at = asyncio.get_running_loop().time()
        self._listening = False
        self.ended = False

    async def run(self) -> None:
        """Carry envelopes until the connection ends. Never returns; raises a group with why it ended.

        Requests under way raise `ConnectionLost` then.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read())
                tasks.create_task(self._write())
                tasks.create_task(self._stay_alive())
        finally:
            self.ended = True
            for pending in self._pending.values():
                pending.fail(ConnectionLost("The connection to OpenFlow ended before it answered."))

    async def request(
        self, command: str, message: Message, expected: type[M], *, jwt: str = "", timeout_s: float | None = None
    ) -> M:
        """Send a request and return its reply.

        Raises `ServerRefused` with the server's sentence, `TimedOut`, `ConnectionLost`, and `InvalidInput` for what is
        too long to be sent. Refused by the limit for a second, which means not executed, it is sent again.
        """
        return await self.read(command, message, expected, lambda reply: reply, jwt=jwt, timeout_s=timeout_s)

    async def read(
        self,
        command: str,
        message: Message,
        expected: type[M],
        take: Callable[[M], T],
        *,
        jwt: str = "",
        timeout_s: float | None = None,
    ) -> T:
        """As `request`, for what ``take`` makes of the reply: of a large one beside the event loop."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        payload = await ready_to_send(command, message)

        async def attempt() -> tuple[Message, bool]:
            with self._expecting() as pending:
                self._post(command, payload, id=pending.id, jwt=jwt)
                return await self._replied(pending, command, limit_s), pending.is_large

        reply, is_large = await within_limits(attempt, self._pace)
        of_its_kind = answer(command, expected, reply)
        return await asyncio.to_thread(take, of_its_kind) if is_large else take(of_its_kind)

    async def upload(
        self,
        message: openiap_pb2.UploadRequest,
        parts: Callable[[], AsyncGenerator[bytes]],
        *,
        patience_s: float,
        jwt: str = "",
    ) -> openiap_pb2.UploadResponse:
        """Send a file in parts, the next when the one before has left; settles at once when the server refuses.

        ``patience_s`` is how long the server may take to store it after the last part. The protocol has no way to
        break off an upload: one that fails here stays open at the server until the connection ends.
        """

        async def attempt() -> Message:
            with self._expecting() as pending:
                self._post("upload", message, id=pending.id, jwt=jwt)
                await self._sent("beginstream", openiap_pb2.BeginStream(), pending)
                async with contextlib.aclosing(parts()) as all_parts:
                    async for data in all_parts:
                        await self._sent("stream", openiap_pb2.Stream(data=data), pending)
                await self._sent("endstream", openiap_pb2.EndStream(), pending)
                return await self._replied(pending, "upload", patience_s)

        return answer("upload", openiap_pb2.UploadResponse, await within_limits(attempt, self._pace))

    async def download(
        self, message: openiap_pb2.DownloadRequest, take: Callable[[bytes], Awaitable[None]], *, jwt: str = ""
    ) -> openiap_pb2.DownloadResponse:
        """Receive a file: ``take`` gets its parts. Times out when none comes for the time of a request."""

        async def attempt() -> Message:
            with self._expecting(take) as pending:
                self._post("download", message, id=pending.id, jwt=jwt)
                while True:
                    heard_at = pending.heard_at
                    try:
                        return await self._replied(pending, "download", self._timeout_s)
                    except TimedOut:
                        if pending.heard_at == heard_at:
                            raise

        return answer("download", openiap_pb2.DownloadResponse, await within_limits(attempt, self._pace))

    @contextlib.contextmanager
    def _expecting(self, take: Callable[[bytes], Awaitable[None]] | None = None) -> Iterator[Pending]:
        """A request whose reply is waited for inside; what comes for it later is ignored."""
        if self.ended:
            raise Unavailable("The connection to OpenFlow ended before this was sent.")
        pending = Pending(asyncio.get_running_loop().create_future(), take)
        self._pending[pending.id] = pending
        try:
            yield pending
        finally:
            for each in (pending.id, *pending.parts):
                del self._pending[each]
            pending.drop()

    def _post(
        self,
        command: str,
        message: Message | Encoded,
        *,
        id: str,  # noqa: A002 - the envelope's
        rid: str = "",
        jwt: str = "",
        sent: asyncio.Future[None] | None = None,
    ) -> None:
        self._outbox.put_nowait(Outgoing(command, message, id, rid, jwt, sent))

    async def _sent(self, command: str, message: Message, pending: Pending) -> None:
        """Send a part and wait until it has left, or until the request was answered, which ends it."""
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        part = new_id()
        if command != "stream":  # the server's limit for a second leaves these out alone
            pending.parts.append(part)
            self._pending[part] = pending
        self._post(command, message, id=part, rid=pending.id, sent=sent)
        either: set[asyncio.Future[Any]] = {sent, pending.reply}
        await asyncio.wait(either, timeout=self._keep_alive.silent_s, return_when=asyncio.FIRST_COMPLETED)
        if pending.reply.done():
            raise_refusal("upload", pending.reply.result())
        elif not sent.done():
            raise TimedOut(f"OpenFlow took nothing of an upload for {self._keep_alive.silent_s:.0f} s.")

    async def _replied(self, pending: Pending, command: str, timeout_s: float) -> Message:
        await asyncio.wait({pending.reply}, timeout=timeout_s)
        if not pending.reply.done():
            raise TimedOut(
                f"OpenFlow did not answer a {command} within {timeout_s:.0f} s: it is not known whether it was done."
            )
        reply = pending.reply.result()
        raise_refusal(command, reply)
        return reply

    async def _read(self) -> None:
        while True:
            self._listening = True
            envelopes = await self._transport.receive()
            self._listening = False
            self._heard()
            for envelope, is_large in envelopes:
                await self._deliver(envelope, is_large=is_large)

    async def _deliver(self, envelope: Envelope, *, is_large: bool) -> None:
        if request_type(envelope.command) is None and envelope.rid not in self._pending:
            log.debug("OpenFlow sent a %s that nobody waits for", envelope.command)
            return
        try:
            message = await asyncio.to_thread(unpack, envelope) if is_large else unpack(envelope)
        except ProtocolError as error:  # one odd text in it, for example, is no reason to lose all others
            self._undelivered(envelope, error)
            return
        pending = self._pending.get(envelope.rid)
        if isinstance(message, EVENTS):
            self._on_event(message)
        elif pending is None or isinstance(message, openiap_pb2.BeginStream | openiap_pb2.EndStream):
            pass  # pings, parts of a file that nobody wants any more, and the frame around its parts
        elif isinstance(message, openiap_pb2.Stream):
            await pending.part(message.data)
            pending.heard_at = self._heard()
        else:
            pending.is_large = is_large
            pending.settle(message)

    def _undelivered(self, envelope: Envelope, error: ProtocolError) -> None:
        if (pending := self._pending.get(envelope.rid)) is not None:
            pending.fail(error)
        else:
            log.warning("A %.100r of OpenFlow's is lost: %s", envelope.command, error)

    async def _write(self) -> None:
        while True:
            leaving = [await self._outbox.get()]
            while len(leaving) < TOGETHER and not leaving[-1].is_big and not self._outbox.empty():
                leaving.append(self._outbox.get_nowait())  # what waits together leaves together
            await self._transport.send([record for out in leaving if (record := self._frame(out))])
            for out in leaving:
                if out.sent is not None and not out.sent.done():
                    out.sent.set_result(None)
                if out.command == "ping":
                    await self._transport.probe(self._heard)

    def _frame(self, out: Outgoing) -> list[bytes]:
        """The record; none of what turns out to be too long, which has failed its request and nothing else.

        None either of what nobody waits for any more: who gave it up may have asked again, and it would be done twice.
        """
        if out.command != "ping" and (out.rid or out.id) not in self._pending:
            return []
        try:
            return self._session.frame(out.command, out.message, id=out.id, rid=out.rid, jwt=out.jwt)
        except InvalidInput as error:
            if (pending := self._pending.get(out.rid or out.id)) is not None:
                pending.fail(error)
            return []

    async def _stay_alive(self) -> None:
        loop = asyncio.get_running_loop()
        self._heard()
        while True:
            await asyncio.sleep(min(self._keep_alive.ping_s, self._keep_alive.silent_s / 3))
            # While a part of a file is being written nothing is heard, which is not the server's silence.
            if self._listening and loop.time() - self._heard_at > self._keep_alive.silent_s:
                self._transport.abort()
                raise ConnectionLost(f"OpenFlow has been silent for {self._keep_alive.silent_s:.0f} s.")
            if self._outbox.empty():
                self._post("ping", openiap_pb2.PingRequest(), id=new_id())

    def _heard(self) -> float:
        """The other end lives."""
        self._heard_at = asyncio.get_running_loop().time()
        return self._heard_at


async def ready_to_send(command: str, message: Message) -> Message | Encoded:
    """The message; a big one encoded already, which is done beside the event loop.

    Raises `InvalidInput` for one that is too long for the server.
    """
    if not is_big(message):
        return message
    payload = await asyncio.to_thread(encoded, message)
    if (size := len(payload.value)) > MAX_RECORD - OVERHEAD:
        raise InvalidInput(f"A {command} of {size >> 20} MiB is too long: OpenFlow takes {MAX_RECORD >> 20} MiB.")
    return payload


def raise_refusal(command: str, reply: Message) -> None:
    """Raise `ServerRefused` if the reply is an error. The server's stack is dropped: it may hold paths of its."""
    if isinstance(reply, openiap_pb2.ErrorResponse):
        raise ServerRefused(reply.message or f"OpenFlow refused a {command} and did not say why.", command=command)


def answer(command: str, expected: type[M], reply: Message) -> M:
    """The reply, if it is of the kind that belongs to the command."""
    if not isinstance(reply, expected):
        raise ProtocolError(f"OpenFlow answered a {command} with a {type(reply).__name__}.")
    return reply
