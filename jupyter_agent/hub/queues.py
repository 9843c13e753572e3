"""Queues: messages from one connection to another, by name.

Each message goes to one consumer of its queue, in turn, and at most once. One that finds none waits on disk until it
expires, and then goes back to where answers are expected, as ``timeout``. It leaves the disk before it is delivered:
when the hub is killed between the two it is lost, but never delivered twice.

A queue exists from its first registration on; a private one as long as its connection does.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from jupyter_agent.errors import AccessDenied, AgentError, InvalidInput, ServerRefused
from jupyter_agent.hub.callers import Caller
from jupyter_agent.hub.data import waiting
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.hub.data.store import Change, Store
from jupyter_agent.hub.data.waiting import Entry, Message
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.hub.owners import QUEUES, Owners
from jupyter_agent.hub.users import Users
from jupyter_agent.openflow.proto.openiap_pb2 import QueueEvent

LOG = logging.getLogger(__name__)

DEFAULT_EXPIRATION_MS = 60_000
RETURN_EXPIRATION_MS = 20_000
"""How long a message that came back waits, as in OpenFlow."""

MAX_WAITING = 1000
MAX_WAITING_BYTES = 256 << 20
"""Of one queue."""

MAX_ALL = 50_000
MAX_ALL_BYTES = 1 << 30
"""Of all queues."""

MAX_QUEUES = 1000
"""Queues that one connection may consume."""

MAX_NAME = 200
MAX_BAD = 10_000
ENOUGH_UNSENT = 2 << 20
"""Bytes on their way to a consumer that is not given more: what is for it waits on disk."""

BATCH = 100
BATCH_BYTES = 2 << 20
LOOK_AGAIN_S = 0.05
RETRY_S = 1.0

KINDS = {
    "nodered": "nodered",
    "browser": "webapp",
    "webapp": "webapp",
    "openrpa": "openrpa",
    "powershell": "powershell",
}
"""By kind of client: what the names of its private queues begin with; those of all others with ``unknown``."""

PRIVATE = re.compile(r"(?:unknown|nodered|webapp|openrpa|powershell)\.[0-9a-f]{24}|unknown\..*", re.DOTALL)
"""Names that are given by the hub alone; their ids cannot be guessed."""


@dataclass(eq=False)
class _Queue:
    name: str
    consumers: dict[Connection, str | None] = field(default_factory=dict)
    """The next one in turn first; with the user whose rights count, ``None`` for who is signed in."""
    entries: dict[int, Entry] = field(default_factory=dict)
    """What waits, the first to come first."""
    size: int = 0

    @property
    def is_private(self) -> bool:
        return is_private(self.name)


class Queues:
    """The queues of a hub; `run` delivers what waited and belongs in a task."""

    def __init__(self, store: Store, users: Users) -> None:
        self.owners = Owners(store, users)
        self._store = store
        self._queues: dict[str, _Queue] = {}
        self._of: dict[Connection, dict[str, None]] = {}
        self._existing: set[str] = set()
        """The names that stand on disk."""
        self._bad: dict[str, None] = {}
        self._expiring: list[tuple[int, int]] = []
        self._where: dict[int, _Queue] = {}
        self._size = self._under_way = 0
        self._doomed: list[int] = []
        self._orphans: set[str] = set()
        self._ready: set[str] = set()
        self._wake = asyncio.Event()
        self._is_loaded = asyncio.Event()
        self._is_stopped = False
        self._turns: WeakKeyDictionary[Connection, asyncio.Lock] = WeakKeyDictionary()
        store.follow(self._follow)

    # What commands need

    async def turn(self, connection: Connection) -> asyncio.Lock:
        """What a connection's commands hold one after the other, so that its messages keep their order."""
        await self._is_loaded.wait()
        return self._turns.setdefault(connection, asyncio.Lock())

    async def register(self, connection: Connection, name: str, caller: Caller) -> str:
        """Make a connection a consumer of a queue; without a name of a private one, which is made. Its name.

        What waits in the queue is delivered after this. Raises `AccessDenied` and `InvalidInput`.
        """
        mine = self._of.get(connection, {})
        if len(mine) >= MAX_QUEUES and name not in mine:
            raise InvalidInput(f"A connection can consume {MAX_QUEUES} queues.")
        if not name:
            name = f"{KINDS.get(connection.kind.lower(), 'unknown')}.{new_id()}"
        elif is_private(name):
            if name not in mine:
                raise AccessDenied(f"Access denied: {name} is a private queue.")
        else:
            await self._claim(caller, name)
        queue = self._queues.setdefault(name, _Queue(name))
        queue.consumers.pop(connection, None)
        queue.consumers[connection] = caller.id if caller.id != connection.user else None
        self._of.setdefault(connection, {})[name] = None
        self._bad.pop(name, None)
        self._look_at(queue)
        return name

    def unregister(self, connection: Connection, name: str | None = None) -> None:
        """Take a connection from one queue, or from all; a private queue is gone with it."""
        mine = self._of.get(connection, {})
        for each in list(mine) if name is None else [name] if name in mine else []:
            del mine[each]
            queue = self._queues[each]
            queue.consumers.pop(connection, None)
            if queue.is_private:
                self._doom(queue)
            self._drop_if_empty(queue)
        if not mine:
            self._of.pop(connection, None)

    def names(self, connection: Connection) -> list[str]:
        """The queues that a connection consumes."""
        return list(self._of.get(connection, ()))

    def consumers(self, name: str) -> list[Connection]:
        """The connections that consume a queue."""
        queue = self._queues.get(name)
        return list(queue.consumers) if queue is not None else []

    def exists(self, name: str) -> bool:
        """Whether there is a queue of this name."""
        return name in self._existing or bool(self.consumers(name))

    async def send(self, message: Message) -> None:
        """Deliver a message, or let it wait; then it is on disk when this returns.

        Raises `ServerRefused` for a queue that was missing before, `InvalidInput` for one that is full.
        """
        if message.queue in self._bad:
            raise ServerRefused(f"bad queue: {message.queue} correlationId: {message.correlation_id}")
        if not self.exists(message.queue):
            self._remember_bad(message.queue)
            await self._return(message)
            return
        await self._pass_on(message)

    # Deliveries

    async def run(self) -> None:
        """Deliver what waits, return what expires, until told to `stop`: a round is not broken off."""
        while not self._is_loaded.is_set() and not self._is_stopped:
            await self._try(self._load)
        while not self._is_stopped:
            await self._until_needed()
            await self._try(self._round)

    def stop(self) -> None:
        """Let `run` end."""
        self._is_stopped = True
        self._wake.set()

    async def _round(self) -> None:
        await self._clean()
        await self._expire()
        await self._deliver()

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do a part of `run`; what fails is done again."""
        try:
            await work()
        except AgentError as error:  # a full disk: what waits stays where it is
            LOG.warning("messages in queues have to wait: %s", error)
        except Exception:
            LOG.exception("messages in queues could not be delivered")
        else:
            return
        await asyncio.sleep(RETRY_S)
        self._wake.set()

    async def _load(self) -> None:
        names, entries = await self._store.write(
            lambda documents: (waiting.names(documents.connection), waiting.entries(documents.connection))
        )
        self._existing.update(names)
        for entry in entries:
            self._kept(entry)
        self._is_loaded.set()

    async def _until_needed(self) -> None:
        due_s = (self._expiring[0][0] - now_ms()) / 1000 if self._expiring else None
        if self._ready:  # with consumers that take no more just now
            due_s = min(LOOK_AGAIN_S, due_s) if due_s is not None else LOOK_AGAIN_S
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), None if due_s is None else max(0.0, due_s))
        self._wake.clear()

    async def _clean(self) -> None:
        """Remove from the disk what is gone: private queues, and those whose document was deleted."""
        doomed, self._doomed = self._doomed, []
        orphans = [name for name in self._orphans if not self.consumers(name)]
        self._orphans.clear()
        for name in orphans:
            self._existing.discard(name)
            if (queue := self._queues.get(name)) is not None:
                self._doom(queue)
                self._drop_if_empty(queue)
        if not doomed and not orphans:
            return
        try:
            await self._store.write(lambda documents: _cleaned(documents.connection, doomed, orphans))
        except AgentError:
            self._doomed += doomed
            raise

    async def _expire(self) -> None:
        due: list[int] = []
        while self._expiring and self._expiring[0][0] <= now_ms() and len(due) < BATCH:
            _, number = heapq.heappop(self._expiring)
            if number in self._where:
                due.append(number)
        if self._expiring and self._expiring[0][0] <= now_ms():
            self._wake.set()
        if not due:
            return
        try:
            taken = await self._store.write(lambda documents: waiting.take(documents.connection, due))
        except AgentError:
            for number in due:
                heapq.heappush(self._expiring, (now_ms(), number))
            raise
        for number in due:
            self._gone(number)
        for _, message in taken:
            await self._return(message)

    async def _deliver(self) -> None:
        for name in list(self._ready):
            queue = self._queues.get(name)
            if queue is None or not queue.entries or not queue.consumers:
                self._ready.discard(name)
            elif await self._next_consumer(queue) is not None:
                await self._deliver_from(queue)
                self._wake.set()

    async def _deliver_from(self, queue: _Queue) -> None:
        """Take messages from the disk and give them to consumers."""
        numbers = list(_first(queue))
        taken = await self._store.write(lambda documents: waiting.take(documents.connection, numbers))
        for index, (number, message) in enumerate(taken):
            consumer = await self._next_consumer(queue) or await self._next_consumer(queue, patient=True)
            if consumer is None:  # all have left meanwhile
                await self._put_back(taken[index:])
                return
            self._gone(number)
            if message.expires_ms > now_ms():
                _give(queue, consumer, message)
            else:
                await self._return(message)
        for number in numbers:
            self._gone(number)

    async def _put_back(self, messages: list[tuple[int, Message]]) -> None:
        try:
            await self._store.write(
                lambda documents: [waiting.keep(documents.connection, message, number) for number, message in messages]
            )
        except AgentError:
            for number, _ in messages:
                self._gone(number)
            raise

    async def _next_consumer(self, queue: _Queue, *, patient: bool = False) -> Connection | None:
        """Whose turn it is, among those who may consume; not who has too much to take already, unless ``patient``."""
        for connection, user in list(queue.consumers.items()):
            if connection.is_closed or (connection.unsent > ENOUGH_UNSENT and not patient):
                continue
            whose = user or connection.user
            if not queue.is_private and not await self.owners.may_still_use(whose, queue.name):
                continue
            if connection in queue.consumers:
                return connection
        return None

    async def _pass_on(self, message: Message) -> None:
        """To a consumer; to the disk when there is none, or others wait already."""
        queue = self._queues.get(message.queue)
        if queue is not None and not queue.entries and (consumer := await self._next_consumer(queue)) is not None:
            _give(queue, consumer, message)
            return
        await self._keep(message)

    async def _return(self, message: Message) -> None:
        """Send a message back to where its answer was expected; it vanishes when that is gone."""
        if message.returned and self.exists(message.reply_to):
            back = replace(message, queue=message.reply_to, data=message.returned, reply_to="", returned="",
                           expires_ms=now_ms() + RETURN_EXPIRATION_MS)  # fmt: skip
            with suppress(InvalidInput):  # full
                await self._pass_on(back)

    # What waits

    async def _keep(self, message: Message) -> None:
        queue = self._queues.get(message.queue)
        count, size = (len(queue.entries), queue.size) if queue is not None else (0, 0)
        if count >= MAX_WAITING or size + message.size > MAX_WAITING_BYTES:
            raise InvalidInput(f"The queue {message.queue} is full: nobody takes its messages, or not fast enough.")
        if len(self._where) >= MAX_ALL or self._size + self._under_way + message.size > MAX_ALL_BYTES:
            raise InvalidInput(f"The queue {message.queue} cannot take this: too many messages wait in the queues.")
        self._under_way += message.size
        try:
            await self._store.write(lambda documents: waiting.keep(documents.connection, message), then=self._kept)
        finally:
            self._under_way -= message.size

    def _kept(self, entry: Entry) -> None:
        """A message is on disk."""
        if not self.exists(entry.queue):
            self._doomed.append(entry.number)
            self._wake.set()
            return
        queue = self._queues.setdefault(entry.queue, _Queue(entry.queue))
        queue.entries[entry.number] = entry
        queue.size += entry.size
        self._where[entry.number] = queue
        self._size += entry.size
        heapq.heappush(self._expiring, (entry.expires_ms, entry.number))
        if self._expiring[0][1] == entry.number:
            self._wake.set()
        self._look_at(queue)

    def _gone(self, number: int) -> None:
        """A message is on disk no more."""
        queue = self._where.pop(number, None)
        if queue is not None:
            entry = queue.entries.pop(number)
            queue.size -= entry.size
            self._size -= entry.size
            self._drop_if_empty(queue)
        if len(self._expiring) > 2 * len(self._where) + BATCH:
            self._expiring = [each for each in self._expiring if each[1] in self._where]
            heapq.heapify(self._expiring)

    def _doom(self, queue: _Queue) -> None:
        """Nobody will have what waits in a queue."""
        self._doomed += list(queue.entries)
        for number in list(queue.entries):
            self._gone(number)
        if self._doomed:
            self._wake.set()

    def _look_at(self, queue: _Queue) -> None:
        if queue.entries and queue.consumers:
            self._ready.add(queue.name)
            self._wake.set()

    def _drop_if_empty(self, queue: _Queue) -> None:
        if not queue.consumers and not queue.entries:
            self._queues.pop(queue.name, None)
            self._ready.discard(queue.name)

    # Names

    async def _claim(self, caller: Caller, name: str) -> None:
        if not await self.owners.may_use(caller, name):
            raise denied(name)
        if name not in self._existing or await self.owners.of(name) is None:
            await self.owners.register(caller, name)
            if not await self.owners.may_use(caller, name):  # another was quicker
                raise denied(name)
        self._existing.add(name)

    def _remember_bad(self, name: str) -> None:
        self._bad[name] = None
        if len(self._bad) > MAX_BAD:
            del self._bad[next(iter(self._bad))]

    def _follow(self, changes: list[Change]) -> None:
        for change in changes:
            name = change.document.get("name")
            is_gone = change.collection == QUEUES and change.operation == "delete"
            if is_gone and isinstance(name, str) and name in self._existing:
                self._orphans.add(name)
                self._wake.set()


def queue_name(given: str) -> str:
    """The queue that a client means. Raises `AccessDenied` and `InvalidInput` for what cannot be one."""
    name = given.strip().lower()
    if name == "openflow":
        raise AccessDenied("Access denied: openflow cannot be a queue's name.")
    if len(name) > MAX_NAME or "\0" in name:
        raise InvalidInput(f"{given[:MAX_NAME]!r} cannot be a queue's name.")
    return name


def is_private(name: str) -> bool:
    """Whether this is the name of a private queue."""
    return PRIVATE.fullmatch(name) is not None


def denied(name: str) -> AccessDenied:
    """The error for a queue that is another's."""
    return AccessDenied(f"Access denied: you may not use the queue {name}.")


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _first(queue: _Queue) -> Iterator[int]:
    """The first messages of a queue that are not too many at once."""
    size = 0
    for index, entry in enumerate(queue.entries.values()):
        size += entry.size
        if index and (index == BATCH or size > BATCH_BYTES):
            return
        yield entry.number


def _cleaned(connection: sqlite3.Connection, doomed: list[int], orphans: list[str]) -> None:
    waiting.take(connection, doomed)
    for name in orphans:
        waiting.forget(connection, name)


def _give(queue: _Queue, consumer: Connection, message: Message) -> None:
    if consumer in queue.consumers:
        queue.consumers[consumer] = queue.consumers.pop(consumer)  # others are next
    event = QueueEvent(queuename=message.queue, correlationId=message.correlation_id, replyto=message.reply_to,
                       data=message.data)  # fmt: skip
    consumer.push("queueevent", event)
