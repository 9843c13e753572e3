"""A client of an OpenFlow server that keeps its connection.

It connects, signs in, registers its queues and watches, and does so again whenever the connection ends, until it is
left. It refuses to know what the documents and messages mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from google.protobuf.message import Message  # noqa: TID251 - what commands carry

from jupyter_agent.errors import (
    AgentError,
    ConnectionLost,
    ProtocolError,
    ServerRefused,
    SignInFailed,
    TimedOut,
    Unavailable,
)
from jupyter_agent.openflow.address import address
from jupyter_agent.openflow.calls import Calls, without_token
from jupyter_agent.openflow.commands import Commands, UpdateResult
from jupyter_agent.openflow.connection import Connection, KeepAlive
from jupyter_agent.openflow.pace import Lane, in_lane
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import decode_json, encode_json, new_id
from jupyter_agent.openflow.signin import Credentials, Role, SignIn, User, expiry_warning, user_of
from jupyter_agent.openflow.subscriptions import Queue, QueueEvent, Subscriptions, Watch, WatchEvent
from jupyter_agent.openflow.transfers import Label, Progress, Transfers
from jupyter_agent.openflow.transport import CLOSE_S, open_transport
from jupyter_agent.openflow.workitems import Workitem, WorkitemFile, WorkitemQueue

__all__ = [
    "Backoff",
    "Client",
    "Credentials",
    "KeepAlive",
    "Lane",
    "Queue",
    "QueueEvent",
    "Role",
    "UpdateResult",
    "User",
    "Watch",
    "WatchEvent",
    "Workitem",
    "WorkitemFile",
    "WorkitemQueue",
    "in_lane",
    "new_id",
]

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
T = TypeVar("T")

GRACE_S = 5.0
"""How long a request waits for a connection that is being made again."""

STEADY_S = 10.0
"""A connection that lived this long was a good one: the next attempt is made at once."""

ECHO = {"command": "echo"}
MISSED = 2
"""Messages through our own queue, in a row, that have not come back: then its consumer is taken for lost."""

LONGEST_EXPIRATION_MS = 2**31 - 1


@dataclass(frozen=True)
class Backoff:
    """How long to wait after the n-th failure in a row: longer each time up to a cap, and never all clients at once."""

    first_s: float = 0.1
    factor: float = 2
    cap_s: float = 30
    jitter: float = 0.2

    def delay_s(self, failures: int) -> float:
        """Seconds to wait; ``failures`` counts from 1."""
        plain = min(self.cap_s, self.first_s * self.factor ** min(failures - 1, 100))
        return plain * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - it spreads load


class Client(Commands):
    """A connection to OpenFlow that is made again whenever it ends, as long as the client is entered.

    Every request may raise `Unavailable` (no connection came about within a few seconds), `ConnectionLost` (it ended
    before the answer came), `TimedOut`, and `ServerRefused` with the server's own sentence.

    ``on_connected`` is awaited after each sign-in and registration, and when a registration worked later: it is to read
    what may have changed. When it raises, the connection is given up and made again. ``on_lost`` is called with the
    reason whenever a connection ended or could not be made, ``on_refused`` with `unregistered` when that has changed.
    ``requests_per_s`` keeps under the server's limit, by `Lane`; ``None`` where there is none, as at the embedded hub.
    ``ca_file`` holds certificates that are trusted besides those of the system.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        version: str,
        kind: str = "jupyter_agent",
        timeout_s: float = 30,
        backoff: Backoff = Backoff(),
        keep_alive: KeepAlive = KeepAlive(),  # noqa: B008 - frozen
        requests_per_s: float | None = 28,
        ca_file: Path | None = None,
        on_connected: Callable[[], Awaitable[None]] | None = None,
        on_lost: Callable[[AgentError], None] | None = None,
        on_refused: Callable[[tuple[str, ...]], None] | None = None,
    ) -> None:
        """Raises `InvalidInput` for an address that is none."""
        self._address = address(url)
        self.url = self._address.url
        self.timeout_s = timeout_s
        self.user: User | None = None
        self.token = ""
        self.config: dict[str, Any] = {}
        self.last_error: AgentError | None = None
        self._renewals = 0
        self._credentials = credentials
        self._acting: Credentials | None = None
        self._sign_in = SignIn(kind, version)
        self._backoff = backoff
        self._keep_alive = keep_alive
        self._requests_per_s = requests_per_s
        self._ca_file = ca_file
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._on_refused = on_refused
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        self._closed = False
        self._tasks = asyncio.TaskGroup()
        self._subscriptions = Subscriptions(connection=self._live, tasks=self._tasks)
        self._calls = Calls()
        self._transfers = Transfers(commands=self, connection=self._live, timeout_s=timeout_s)

    def __repr__(self) -> str:
        state = f"connected as {self.user.username}" if self.is_connected and self.user else "not connected"
        return f"<Client of {self.url}, {state}>"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep_connected(), name=f"keep {self.url} connected")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._tell()
        while not self._task.done():
            # Again: before Python 3.13 a task group may swallow a cancellation (CPython issue 116720).
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=2 * CLOSE_S)

    # The connection

    @property
    def is_connected(self) -> bool:
        """Whether requests can be made now."""
        return self._connection is not None and not self._connection.ended

    @property
    def unregistered(self) -> tuple[str, ...]:
        """What the server refused to register again after a reconnection, and why; it is tried until it works.

        As long as there is any, the client is connected but hears less than it should.
        """
        return tuple(
            f"{kept.title} is not registered ({str(kept.refused).rstrip('.')})" for kept in self._subscriptions.refused
        )

    @property
    def warning(self) -> str | None:
        """What should be done before it is too late: the long token that the client signs in with ends in a month."""
        return expiry_warning(self.url, self._acting or self._credentials, datetime.now(UTC))

    async def connected(self, timeout_s: float | None = None) -> User:
        """Wait until signed in, with queues and watches registered; ``None``: as long as a request may take.

        Raises `SignInFailed` at once when the server refused the credentials at the last attempt, `Unavailable` with
        the last reason when the time is over, `TimedOut` when not even a reason is known.
        """
        try:
            async with asyncio.timeout(self.timeout_s if timeout_s is None else timeout_s):
                while not self.is_connected or self.user is None:
                    if self._closed:
                        raise Unavailable("The connection to OpenFlow was closed: this process is ending.")
                    if isinstance(self.last_error, SignInFailed):
                        raise SignInFailed(str(self.last_error))
                    await self._changed.wait()
                return self.user
        except TimeoutError:
            if self.last_error is None:
                raise TimedOut(f"OpenFlow at {self.url} does not answer.") from None
            raise Unavailable(str(self.last_error)) from self.last_error

    async def _keep_connected(self) -> None:
        failures = 0
        async with self._tasks:
            while not self._closed:
                started = asyncio.get_running_loop().time()
                error = await self._connect_once()
                if asyncio.get_running_loop().time() - started > STEADY_S:
                    failures = 0
                failures += 1
                self._lost(error)
                refused = isinstance(error, SignInFailed)
                await asyncio.sleep(self._backoff.delay_s(100 if refused else failures))

    async def _connect_once(self) -> AgentError:
        """One connection, from opening to end; why it ended or did not come about."""
        try:
            opening = open_transport(self._address, timeout_s=self.timeout_s, ca_file=self._ca_file)
            async with opening as transport, asyncio.TaskGroup() as tasks:
                connection = Connection(
                    transport,
                    url=self.url,
                    on_event=self._event,
                    timeout_s=self.timeout_s,
                    keep_alive=self._keep_alive,
                    requests_per_s=self._requests_per_s,
                )
                tasks.create_task(connection.run())
                tasks.create_task(self._establish(connection))
                tasks.create_task(self._check_queues(connection))
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is made again
            return reason(error)
        finally:
            self._connection = None
            self._subscriptions.lost()
            self._calls.lost()
        return ConnectionLost(f"The connection to {self.url} ended.")

    async def _establish(self, connection: Connection) -> None:
        """Sign in, register what is kept, and only then let requests through."""
        await self._sign_in_again(connection)
        await self._subscriptions.register_again(connection)
        self._connection = connection
        self.last_error = None
        self._tell()
        if self._on_connected is not None:
            await self._on_connected()
        await self._mend(connection)

    async def _mend(self, connection: Connection) -> None:
        """Try to register what was refused until it works, for ever; what was missed meanwhile is read then."""
        told: tuple[str, ...] = ()
        failures = 0
        while True:
            if (refused := self.unregistered) != told and self._on_refused is not None:
                self._on_refused(refused)
            told = refused
            if not refused:
                failures = 0
                await self._subscriptions.some_refused.wait()
                continue
            failures += 1
            await asyncio.sleep(self._backoff.delay_s(failures))
            if await self._subscriptions.register_refused(connection) and self._on_connected is not None:
                await self._on_connected()

    async def _check_queues(self, connection: Connection) -> None:
        """See now and then whether messages come through; register the queues again when they do not."""
        missed = 0
        while True:
            await asyncio.sleep(self._keep_alive.queue_s)
            if connection is not self._connection or not self._subscriptions.has_queues:
                continue
            with in_lane(Lane.SYNC):
                missed = 0 if await self._comes_through() else missed + 1
            if missed == MISSED:
                log.warning("Messages to our own queue do not come through: the queues are registered again.")
                await self._subscriptions.register_queues_again(connection)
                missed = 0

    async def _comes_through(self) -> bool:
        """Whether a message of ours to our own private queue comes back."""
        try:
            queue = await self._calls.queue(self.register_queue)
        except AgentError as error:  # without such a queue nothing can be told
            log.debug("There is no queue to see by whether messages come through: %s", error)
            return True
        with self._calls.call() as (correlation_id, answer):
            try:
                async with asyncio.timeout(self.timeout_s):
                    expiration_ms = int(self.timeout_s * 1000)
                    await self.queue_message(
                        queue, ECHO, correlation_id=correlation_id, expiration_ms=expiration_ms, strip_token=True
                    )
                    await answer
            except (TimeoutError, TimedOut, ServerRefused):  # "bad queue", for example
                return False
            except AgentError:  # the connection ended
                return True
            return True

    def _lost(self, error: AgentError) -> None:
        self.last_error = error
        self._tell()
        if self._on_lost is not None:
            try:
                self._on_lost(error)
            except Exception:
                log.exception("What is to be told of lost connections failed")

    def _tell(self) -> None:
        """Wake those who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _event(self, message: Message) -> None:
        if isinstance(message, pb.RefreshToken):
            self._renewals += 1
            self._signed_in(message.jwt, message.user)
        else:
            self._subscriptions.event(message)

    async def _live(self) -> Connection:
        """The connection, waiting a little for one that is being made again: an agent's hub restarts in a moment."""
        if not self.is_connected:
            await self.connected(min(self.timeout_s, GRACE_S))
        if self._connection is None:
            raise Unavailable("The connection to OpenFlow ended before this was sent.")
        return self._connection

    async def _request(self, command: str, message: Message, expected: type[M], *, jwt: str = "") -> M:
        connection = await self._live()
        return await connection.request(command, message, expected, jwt=jwt)

    async def _read(
        self, command: str, message: Message, expected: type[M], take: Callable[[M], T], *, jwt: str = ""
    ) -> T:
        connection = await self._live()
        return await connection.read(command, message, expected, take, jwt=jwt)

    # Signing in

    async def sign_in_as(self, jwt: str) -> None:
        """Sign in as the owner of this token, here and after each reconnection. Raises `SignInFailed`.

        Should the token not be taken any more after a reconnection, the credentials that the client was made with
        are used again.
        """
        acting = Credentials(jwt=jwt)
        await self._become(await self._live(), acting)
        self._acting = acting

    async def validate(self, jwt: str) -> User:
        """Whose token this is, by the server's word; the connection stays as it is. Raises `SignInFailed`."""
        if not jwt:  # the server would take it for the connection's own
            raise SignInFailed("There is no token to sign in with.")
        reply = await self._sign_in.check(await self._live(), Credentials(jwt=jwt))
        return user_of(reply.user)

    async def mint_token(self, *, long: bool = False) -> str:
        """A token of the user who is signed in: short (5 minutes by default) or long (a year)."""
        reply = await self._sign_in.check(await self._live(), self._acting or self._credentials, long=long)
        if not reply.jwt:
            raise ProtocolError("OpenFlow made no token.")
        return reply.jwt

    async def _sign_in_again(self, connection: Connection) -> None:
        """Sign in on a new connection, never with the last short token: it may have expired."""
        if self._acting is not None:
            try:
                await self._become(connection, self._acting)
            except SignInFailed as error:
                log.warning("The token that was used last is not taken any more: %s", error)
                self._acting = None
            else:
                return
        await self._become(connection, self._credentials)
        if warning := self.warning:
            log.warning("%s", warning)

    async def _become(self, connection: Connection, credentials: Credentials) -> None:
        renewals = self._renewals
        reply = await self._sign_in(connection, credentials)
        if renewals == self._renewals:  # else what came after the reply was taken before it
            self._signed_in(reply.jwt, reply.user)
        with contextlib.suppress(ProtocolError):
            config = decode_json(reply.config or "{}")
            self.config = config if isinstance(config, dict) else {}

    def _signed_in(self, jwt: str, user: pb.User) -> None:
        self.token = jwt or self.token
        if (signed_in := user_of(user)).id:
            self.user = signed_in

    # Files

    async def upload(
        self,
        path: Path,
        *,
        filename: str | None = None,
        mimetype: str = "",
        metadata: dict[str, Any] | None = None,
        upload_id: str = "",
        jwt: str = "",
    ) -> str:
        """Store a file; returns its id in ``fs.files``. One part of it is in memory at a time.

        Its ``sha256``, ``length`` and ``uploadid`` go into its metadata. When the connection ends on the way
        (`TransferLost`) it is not known whether it was stored: call this again with the ``upload_id`` of the error, or
        with one chosen before (`new_id`), and what was stored is found by that and by its hash, not stored twice.
        Raises `InvalidInput` when there is no such file, `Failed` when it cannot be read to its end or changes on the
        way.
        """
        label = Label(filename or path.name, mimetype, metadata or {})
        return await self._transfers.upload(path, label, upload_id=upload_id, jwt=jwt)

    async def download(
        self,
        id: str,  # noqa: A002 - the field's name
        folder: Path,
        *,
        collection: str = "",
        resume: bool = False,
        jwt: str = "",
        progress: Progress | None = None,
    ) -> Path:
        """Bring a file into ``folder`` under the base name it has on the server; returns its path.

        It arrives under a temporary name, one part in memory at a time, and gets its own when it is whole, which is
        checked by the length and sha256 in its document where that may be read. ``progress`` gets the bytes done and
        that length. ``collection`` is ``fs.files`` unless given. Raises `Failed` when it is not whole or cannot be
        written; nothing is left then.

        With ``resume``, what has arrived is kept when the connection ends (`TransferLost`) or this is cancelled, and
        the same call again goes on from there: it is sent from the beginning, as the protocol has it, but what is on
        the disk already is compared, not written.
        """
        return await self._transfers.download(
            id, folder, collection=collection, resume=resume, progress=progress, jwt=jwt
        )

    # Watches and queues

    async def watch(self, collection: str, paths: list[str], handler: Callable[[WatchEvent], Awaitable[None]]) -> Watch:
        """Have ``handler`` called with each change of documents that may be read, one at a time, in order.

        ``paths`` are JSONPath expressions on ``{"a": document}``; none: every document. It is kept over
        reconnections; what changed in between is not told.
        """
        return await self._subscriptions.watch(collection, tuple(paths), handler)

    async def register_queue(self, name: str, handler: Callable[[QueueEvent], Awaitable[None]]) -> Queue:
        """Have ``handler`` called with each message of a queue, one at a time, in order.

        No name: a private queue, whose name the server makes, anew after each reconnection. Delivery is at most once.
        Raises `Conflict` when this client consumes the queue already.
        """
        return await self._subscriptions.consume(name, handler)

    async def register_exchange(
        self,
        name: str,
        handler: Callable[[QueueEvent], Awaitable[None]],
        *,
        algorithm: str = "fanout",
        routing_key: str = "",
    ) -> Queue:
        """Have ``handler`` called with what is sent to an exchange, through a private queue; kept as queues are.

        ``algorithm`` is direct, fanout, topic or header. Servers refuse exchanges unless they are set up for them.
        """
        return await self._subscriptions.exchange(name, algorithm, routing_key, handler)

    async def queue_message(
        self,
        queue: str,
        data: Any,
        *,
        reply_to: str = "",
        correlation_id: str = "",
        expiration_ms: int = 0,
        strip_token: bool = False,
        exchange: str = "",
        routing_key: str = "",
        jwt: str = "",
    ) -> None:
        """Send a message; returns when the broker has it. The server adds a token of ours unless ``strip_token``.

        ``expiration_ms`` below 1 is the server's default, a minute. With ``exchange`` it goes there and to no queue.
        A queue that nobody has registered is refused for as long: register before others are told of a queue.
        """
        request = pb.QueueMessageRequest(
            queuename=queue,
            correlationId=correlation_id,
            replyto=reply_to,
            exchangename=exchange,
            routingkey=routing_key,
            data=encode_json(data),
            striptoken=strip_token,
            expiration=min(expiration_ms, LONGEST_EXPIRATION_MS),
        )
        await self._request("queuemessage", request, pb.QueueMessageResponse, jwt=jwt)

    async def rpc(self, queue: str, data: Any, *, timeout_s: float = 60) -> Any:
        """Send a message and return the answer to it, without the answerer's token.

        Raises `TimedOut` when nobody answers in time or nobody consumes the queue.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._live()  # else the queue for the answer may be one that ended with its connection
                with self._calls.call() as (correlation_id, answer):
                    await self.queue_message(
                        queue,
                        data,
                        reply_to=await self._calls.queue(self.register_queue),
                        correlation_id=correlation_id,
                        expiration_ms=int(timeout_s * 1000),
                    )
                    return without_token(await answer, queue, sent=data)
        except TimeoutError:
            raise TimedOut(f"The queue {queue} did not answer within {timeout_s:.0f} s.") from None


def reason(error: BaseException) -> AgentError:
    """The first of our errors in a (group of) errors; anything else is a fault of ours and logged whole."""
    while isinstance(error, BaseExceptionGroup):
        error = next((inner for inner in error.exceptions if isinstance(inner, AgentError)), error.exceptions[0])
    if isinstance(error, AgentError):
        return error
    log.error("The connection to OpenFlow failed in an unknown way", exc_info=error)
    return Unavailable(f"The connection to OpenFlow failed ({type(error).__name__}); it is made again.")
