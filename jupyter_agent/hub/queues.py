"""Queues: messages from one connection to another, by name.

Each message goes to one consumer of its queue, in turn. One that finds none waits until it expires and then goes back
to where answers are expected, as ``timeout``. Messages are in memory only: OpenFlow promises at most one delivery, and
a minute's patience.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from jupyter_agent.errors import AccessDenied, InvalidInput, ServerRefused
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.openflow.proto.openiap_pb2 import QueueEvent

DEFAULT_EXPIRATION_MS = 60_000
MAX_WAITING = 1000
MAX_WAITING_BYTES = 256 << 20
MAX_NAME = 200
MAX_BAD = 10_000
PRIVATE = "unknown."
"""What the names of private queues begin with; the rest cannot be guessed."""

MayConsume = Callable[[Connection], bool]


@dataclass(frozen=True, eq=False)
class QueueMessage:
    """A message: ``data`` is what the receiver gets, ``returned`` what the sender gets back when nobody takes it."""

    queue: str
    data: str
    returned: str = ""
    reply_to: str = ""
    correlation_id: str = ""
    expiration_ms: int = DEFAULT_EXPIRATION_MS


@dataclass
class _Queue:
    consumers: deque[Connection] = field(default_factory=deque)
    waiting: deque[QueueMessage] = field(default_factory=deque)

    @property
    def waiting_bytes(self) -> int:
        return sum(len(message.data) for message in self.waiting)


class Queues:
    """The queues of a hub."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._bad: dict[str, None] = {}

    def register(self, connection: Connection, name: str) -> str:
        """Make a connection a consumer of a queue; without a name of a private one, which is made. Its name."""
        if not name:
            name = PRIVATE + new_id()
        elif name.startswith(PRIVATE) and connection not in self.consumers(name):
            raise AccessDenied(f"Access denied: {name} is a private queue.")
        queue = self._queues.setdefault(name, _Queue())
        if connection not in queue.consumers:
            queue.consumers.append(connection)
        self._bad.pop(name, None)
        waiting, queue.waiting = queue.waiting, deque()
        for message in waiting:
            connection.push("queueevent", _event(message))
        return name

    def unregister(self, connection: Connection, name: str | None = None) -> None:
        """Take a connection from one queue, or from all; a private queue is gone with it."""
        for each in [name] if name else list(self._queues):
            queue = self._queues.get(each)
            if queue is None or connection not in queue.consumers:
                continue
            queue.consumers.remove(connection)
            if each.startswith(PRIVATE):
                del self._queues[each]

    def names(self, connection: Connection) -> list[str]:
        """The queues that a connection consumes."""
        return [name for name, queue in self._queues.items() if connection in queue.consumers]

    def send(self, message: QueueMessage, *, exists: bool, may_consume: MayConsume) -> None:
        """Deliver a message, or let it wait. ``exists``: somebody owns the name, though nobody consumes it now.

        Raises `ServerRefused` for a queue that was missing before.
        """
        if message.queue in self._bad:
            raise ServerRefused(f"bad queue: {message.queue} correlationId: {message.correlation_id}")
        queue = self._queues.get(message.queue)
        if queue is None and not exists:
            self._remember_bad(message.queue)
            self._return(message)
            return
        if queue is None:
            queue = self._queues.setdefault(message.queue, _Queue())
        self._deliver(queue, message, may_consume)

    def consumers(self, name: str) -> deque[Connection]:
        """The connections that consume a queue."""
        queue = self._queues.get(name)
        return queue.consumers if queue is not None else deque()

    def _deliver(self, queue: _Queue, message: QueueMessage, may_consume: MayConsume) -> None:
        for _ in range(len(queue.consumers)):
            queue.consumers.rotate(-1)
            if may_consume(queue.consumers[-1]):
                queue.consumers[-1].push("queueevent", _event(message))
                return
        if len(queue.waiting) >= MAX_WAITING or queue.waiting_bytes + len(message.data) > MAX_WAITING_BYTES:
            raise InvalidInput(f"The queue {message.queue} is full: nobody takes its messages.")
        queue.waiting.append(message)
        asyncio.get_running_loop().call_later(message.expiration_ms / 1000, self._expire, queue, message)

    def _expire(self, queue: _Queue, message: QueueMessage) -> None:
        if message in queue.waiting:
            queue.waiting.remove(message)
            self._return(message)

    def _return(self, message: QueueMessage) -> None:
        """Send a message back to where its answer was expected."""
        queue = self._queues.get(message.reply_to) if message.reply_to else None
        if queue is not None and queue.consumers:
            back = replace(message, queue=message.reply_to, data=message.returned, reply_to="")
            queue.consumers[0].push("queueevent", _event(back))

    def _remember_bad(self, name: str) -> None:
        self._bad[name] = None
        if len(self._bad) > MAX_BAD:
            del self._bad[next(iter(self._bad))]


def queue_name(given: str) -> str:
    """The queue that a client means. Raises `InvalidInput` for what cannot be one."""
    name = given.strip().lower()
    if len(name) > MAX_NAME or "\0" in name or name == "openflow":
        raise InvalidInput(f"{given[:MAX_NAME]!r} cannot be a queue's name.")
    return name


def timed_out(payload: Any) -> str:
    """What a sender gets back of a message that nobody took."""
    return orjson.dumps({**payload, "command": "timeout"} if isinstance(payload, dict) else "timeout").decode()


def _event(message: QueueMessage) -> QueueEvent:
    return QueueEvent(
        queuename=message.queue,
        correlationId=message.correlation_id,
        replyto=message.reply_to,
        data=message.data,
    )
