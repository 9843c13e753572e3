"""Queues and watches: events on their way from a connection to handlers.

A subscription outlives connections: it is registered again on each new one. This module knows which event is whose,
and keeps the handlers in order and apart from the reader; it refuses to know what the events mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message  # noqa: TID251 - events come as messages

from jupyter_agent.errors import AgentError, Conflict, ProtocolError, ServerRefused
from jupyter_agent.openflow.connection import Connection
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import decode_json

log = logging.getLogger(__name__)

E = TypeVar("E")
Key = tuple[str, str]
Close = Callable[[Any], Awaitable[None]]

BACKLOG_EVENTS = 10_000
BACKLOG_BYTES = 256 << 20
"""How far a handler may be behind. The server pushes without asking, so something has to give in the end."""

UNCLAIMED = 100
"""Queues and watches whose events are kept while a registration is under way: they may overtake its reply."""


@dataclass(frozen=True)
class QueueEvent:
    """A message of a queue. ``data`` is parsed JSON, or text that is none; it may hold the sender's ``__jwt``."""

    queue: str
    correlation_id: str
    reply_to: str
    data: Any = field(repr=False)


@dataclass(frozen=True)
class WatchEvent:
    """A change of a document: insert, replace, update or delete. ``document`` is the whole, as it is now."""

    operation: str
    document: dict[str, Any]


class Backlog:
    """Events of one subscription that its handler has not seen yet, oldest first; bounded."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._closed = False
        self._dropping = False

    def put(self, message: Message) -> None:
        """Add an event; the newest are dropped, and the log says so, when the handler is too far behind."""
        size = message.ByteSize()
        full = len(self._messages) >= BACKLOG_EVENTS or (self._messages and self._bytes + size > BACKLOG_BYTES)
        if full and not self._dropping:
            log.error("The handler of %s is too far behind: events are dropped.", self._name)
        self._dropping = bool(full)
        if not full:
            self._messages.append(message)
            self._bytes += size
            self._news.set()

    def put_all(self, early: Backlog) -> None:
        """Add the events of another backlog."""
        for message in early._messages:
            self.put(message)

    async def get(self) -> Message | None:
        """The next event; ``None`` when the subscription was closed, whatever is left."""
        while not self._closed:
            if self._messages:
                message = self._messages.popleft()
                self._bytes -= message.ByteSize()
                return message
            self._news.clear()
            await self._news.wait()
        return None

    def close(self) -> None:
        """No more events are wanted."""
        self._closed = True
        self._messages.clear()
        self._news.set()


class Subscription(Generic[E]):
    """Events for one handler, one at a time and in order. A handler that fails is logged and gets the next event."""

    def __init__(self, title: str, handler: Callable[[E], Awaitable[None]], close: Close) -> None:
        self._handler = handler
        self._close = close
        self.title = title
        self.backlog = Backlog(title)
        self.refused: AgentError | None = None
        """Why the server does not send the events at present, although there is a connection."""

    @property
    def key(self) -> Key:
        """Whose events are meant, on the present connection."""
        raise NotImplementedError

    def event(self, message: Any) -> E:
        """What the handler gets for a message."""
        raise NotImplementedError

    async def register(self, connection: Connection) -> None:
        """Ask the server for the events; sets `key`."""
        raise NotImplementedError

    async def unregister(self, connection: Connection) -> None:
        """Ask the server for no more of them."""
        raise NotImplementedError

    async def work(self) -> None:
        """Hand on events until closed."""
        while (message := await self.backlog.get()) is not None:
            try:
                await self._handler(self.event(message))
            except AgentError as error:
                log.warning("The handler of %s failed: %s", self.title, error)
            except Exception:
                log.exception("The handler of %s failed", self.title)
            del message  # it may be large, and the next one may be long in coming

    async def close(self) -> None:
        """End the subscription here, and on the server if it is connected."""
        self.backlog.close()
        await self._close(self)


class Queue(Subscription[QueueEvent]):
    """A queue that is consumed. ``name`` is as the server returned it; a private one's changes with the connection."""

    def __init__(self, wanted: str, handler: Callable[[QueueEvent], Awaitable[None]], close: Close) -> None:
        super().__init__(f"queue {wanted}" if wanted else "a private queue", handler, close)
        self.wanted = wanted
        self.name = wanted.lower()

    def __repr__(self) -> str:
        return f"<Queue {self.name or '(private, not registered)'}>"

    @property
    def key(self) -> Key:
        """By name; the server lower-cases names."""
        return "queue", self.name.lower()

    async def register(self, connection: Connection) -> None:
        """Consume the queue."""
        request = pb.RegisterQueueRequest(queuename=self.wanted)
        reply = await connection.request("registerqueue", request, pb.RegisterQueueResponse)
        self.name = reply.queuename or self.wanted.lower()

    async def unregister(self, connection: Connection) -> None:
        """Consume it no more."""
        request = pb.UnRegisterQueueRequest(queuename=self.name)
        await connection.request("unregisterqueue", request, pb.UnRegisterQueueResponse)

    def event(self, message: pb.QueueEvent) -> QueueEvent:
        """The event with its data parsed."""
        try:
            data = decode_json(message.data)
        except ProtocolError:
            data = message.data
        return QueueEvent(message.queuename, message.correlationId, message.replyto, data)


class Exchange(Queue):
    """A private queue that gets what is sent to an exchange: with this routing key, as its algorithm says."""

    def __init__(
        self,
        exchange: str,
        algorithm: str,
        routing_key: str,
        handler: Callable[[QueueEvent], Awaitable[None]],
        close: Close,
    ) -> None:
        super().__init__("", handler, close)
        self.title = f"exchange {exchange}"
        self.exchange = exchange
        self.algorithm = algorithm
        self.routing_key = routing_key

    async def register(self, connection: Connection) -> None:
        """Have the server make the queue and bind it."""
        request = pb.RegisterExchangeRequest(
            exchangename=self.exchange, algorithm=self.algorithm, routingkey=self.routing_key, addqueue=True
        )
        self.name = (await connection.request("registerexchange", request, pb.RegisterExchangeResponse)).queuename


class Watch(Subscription[WatchEvent]):
    """A collection that is watched, or the documents in it that the JSONPath expressions of ``paths`` find."""

    def __init__(
        self,
        collection: str,
        paths: tuple[str, ...],
        handler: Callable[[WatchEvent], Awaitable[None]],
        close: Close,
    ) -> None:
        super().__init__(f"the watch on {collection}", handler, close)
        self.collection = collection
        self.paths = paths
        self.id = ""

    def __repr__(self) -> str:
        return f"<Watch {self.collection} {list(self.paths)}>"

    @property
    def key(self) -> Key:
        """By the id that the server gave the watch."""
        return "watch", self.id

    async def register(self, connection: Connection) -> None:
        """Watch the collection."""
        request = pb.WatchRequest(collectionname=self.collection, paths=self.paths)
        self.id = (await connection.request("watch", request, pb.WatchResponse)).id

    async def unregister(self, connection: Connection) -> None:
        """Watch it no more."""
        await connection.request("unwatch", pb.UnWatchRequest(id=self.id), pb.UnWatchResponse)

    def event(self, message: pb.WatchEvent) -> WatchEvent:
        """The event with its document parsed; raises `ProtocolError` when there is none in it."""
        document = decode_json(message.document)
        if not isinstance(document, dict):
            raise ProtocolError("OpenFlow sent a watch event without a document.")
        return WatchEvent(message.operation, document)


class Routes:
    """Whose an event is, on the present connection."""

    def __init__(self) -> None:
        self._backlogs: dict[Key, Backlog] = {}
        self._unclaimed: dict[Key, Backlog] = {}
        self._registering = 0

    def reset(self) -> None:
        """Another connection: names and ids mean nothing any more."""
        self._backlogs.clear()
        self._unclaimed.clear()

    def __enter__(self) -> None:
        """A registration begins: events nobody is known to want are kept until it ends."""
        self._registering += 1

    def __exit__(self, *_: object) -> None:
        self._registering -= 1
        if not self._registering:
            self._unclaimed.clear()

    def add(self, key: Key, backlog: Backlog) -> None:
        """From now on these events go there, those that came early first."""
        self._backlogs[key] = backlog
        if (early := self._unclaimed.pop(key, None)) is not None:
            backlog.put_all(early)

    def remove(self, key: Key, backlog: Backlog) -> None:
        """These events are not wanted any more, unless the key is another's by now."""
        if self._backlogs.get(key) is backlog:
            del self._backlogs[key]

    def put(self, key: Key, message: Message) -> None:
        """Hand an event to its backlog."""
        if backlog := self._backlogs.get(key):
            backlog.put(message)
        elif self._registering and (key in self._unclaimed or len(self._unclaimed) < UNCLAIMED):
            self._unclaimed.setdefault(key, Backlog(" ".join(key))).put(message)
        else:
            log.debug("An event of %s %s, which nobody listens to", *key)


class Subscriptions:
    """The queues and watches of a client. ``connection`` waits for a present one; the handlers run in ``tasks``."""

    def __init__(self, *, connection: Callable[[], Awaitable[Connection]], tasks: asyncio.TaskGroup) -> None:
        self._connection = connection
        self._present: Connection | None = None
        self._tasks = tasks
        self._kept: list[Subscription[Any]] = []
        self._routes = Routes()
        self.some_refused = asyncio.Event()
        """Set for a moment when something was refused that was registered before."""

    async def consume(self, name: str, handler: Callable[[QueueEvent], Awaitable[None]]) -> Queue:
        """A queue, registered; no name: a private one. Raises `Conflict` when it is consumed already."""
        if name and any(isinstance(kept, Queue) and kept.wanted.lower() == name.lower() for kept in self._kept):
            raise Conflict(f"The queue {name} is consumed already.")
        queue = Queue(name, handler, self._close)
        await self._keep(queue)
        return queue

    async def exchange(
        self, name: str, algorithm: str, routing_key: str, handler: Callable[[QueueEvent], Awaitable[None]]
    ) -> Queue:
        """A queue of an exchange, registered."""
        queue = Exchange(name, algorithm, routing_key, handler, self._close)
        await self._keep(queue)
        return queue

    async def watch(
        self, collection: str, paths: tuple[str, ...], handler: Callable[[WatchEvent], Awaitable[None]]
    ) -> Watch:
        """A watch, registered."""
        watch = Watch(collection, paths, handler, self._close)
        await self._keep(watch)
        return watch

    @property
    def has_queues(self) -> bool:
        """Whether a queue is consumed."""
        return any(isinstance(kept, Queue) for kept in self._kept)

    @property
    def refused(self) -> tuple[Subscription[Any], ...]:
        """Those that the present connection should have and has not, as the server refused them."""
        return tuple(kept for kept in self._kept if kept.refused is not None)

    async def register_again(self, connection: Connection) -> None:
        """Register everything on a new connection: queues first, then watches.

        What the server refuses or does not answer keeps the others from nothing; it stands in `refused` then.
        """
        self._present = connection
        for subscription in sorted(self._kept, key=lambda kept: isinstance(kept, Watch)):
            await self._try(connection, subscription)

    async def register_refused(self, connection: Connection) -> bool:
        """Try those in `refused` once more; whether one of them is registered now."""
        return any([await self._try(connection, subscription) for subscription in self.refused])

    async def register_queues_again(self, connection: Connection) -> None:
        """Consume all queues anew on the same connection: the server may have lost its broker, and does not say so."""
        for queue in [kept for kept in self._kept if isinstance(kept, Queue)]:
            self._routes.remove(queue.key, queue.backlog)
            if not queue.wanted:
                with contextlib.suppress(ServerRefused):
                    await queue.unregister(connection)
            await self._try(connection, queue)

    async def _try(self, connection: Connection, subscription: Subscription[Any]) -> bool:
        """Register, if the connection lasts; whether the server took it."""
        try:
            await self._register(connection, subscription)
        except AgentError as error:
            if connection.ended:
                raise
            log.warning("%r could not be registered again: %s", subscription, error)
            subscription.refused = error
            self.some_refused.set()
            self.some_refused.clear()  # who waits is woken all the same
        return subscription.refused is None

    def event(self, message: Message) -> None:
        """An event came."""
        if isinstance(message, pb.QueueEvent):
            self._routes.put(("queue", message.queuename.lower()), message)
        elif isinstance(message, pb.WatchEvent):
            self._routes.put(("watch", message.id), message)

    def lost(self) -> None:
        """The connection ended, and with it what was registered there."""
        self._present = None
        self._routes.reset()
        for subscription in self._kept:
            subscription.refused = None

    async def _keep(self, subscription: Subscription[Any]) -> None:
        """Keep a subscription if its first registration works.

        It is among those kept before that: one that is registered in the moment in which the connection ends must be
        registered again with the others.
        """
        connection = await self._connection()
        self._kept.append(subscription)
        try:
            await self._register(connection, subscription)
            self._tasks.create_task(subscription.work())
        except BaseException:
            self._kept.remove(subscription)
            subscription.backlog.close()
            raise

    async def _register(self, connection: Connection, subscription: Subscription[Any]) -> None:
        with self._routes:
            await subscription.register(connection)
            if subscription in self._kept:
                self._routes.add(subscription.key, subscription.backlog)
            else:  # it was closed in the meantime
                with contextlib.suppress(AgentError):
                    await subscription.unregister(connection)
        subscription.refused = None

    async def _close(self, subscription: Subscription[Any]) -> None:
        if subscription not in self._kept:
            return
        self._kept.remove(subscription)
        self._routes.remove(subscription.key, subscription.backlog)
        if self._present is not None:  # what is registered ends with its connection
            with contextlib.suppress(AgentError):
                await subscription.unregister(self._present)
