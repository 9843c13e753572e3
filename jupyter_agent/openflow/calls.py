"""Calls over queues: a message whose answer comes back on a private queue.

Knows which answer belongs to which call; refuses to know how messages are sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from jupyter_agent.errors import ConnectionLost, TimedOut, Unavailable
from jupyter_agent.openflow.protocol import new_id
from jupyter_agent.openflow.subscriptions import Queue, QueueEvent

RegisterQueue = Callable[[str, Callable[[QueueEvent], Awaitable[None]]], Awaitable[Queue]]


class Calls:
    """The calls under way, and the private queue that their answers come to."""

    def __init__(self) -> None:
        self._calls: dict[str, asyncio.Future[Any]] = {}
        self._queue: Queue | None = None
        self._registering = asyncio.Lock()

    @contextlib.contextmanager
    def call(self) -> Iterator[tuple[str, asyncio.Future[Any]]]:
        """A call: its correlation id, and its answer to be."""
        correlation_id = new_id()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[correlation_id] = answer
        try:
            yield correlation_id, answer
        finally:
            del self._calls[correlation_id]
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also when something else was raised

    async def queue(self, register: RegisterQueue) -> str:
        """The name of the queue for answers, which is made for the first call. Raises `Unavailable` without one."""
        async with self._registering:
            if self._queue is None:
                self._queue = await register("", self._answered)
        if self._queue.refused is not None:
            raise Unavailable(f"OpenFlow makes no queue for answers: {self._queue.refused}")
        return self._queue.name

    def lost(self) -> None:
        """The connection ended, and the queue with it: no answer will come."""
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(ConnectionLost("The connection to OpenFlow ended before the queue answered."))

    async def _answered(self, event: QueueEvent) -> None:
        answer = self._calls.get(event.correlation_id)
        if answer is not None and not answer.done():
            answer.set_result(event.data)


def without_token(answer: Any, queue: str, *, sent: Any) -> Any:
    """An answer without the token and user that the server may have added.

    A message that nobody took comes back itself, with "timeout" as its command, or as its whole if it was text.
    """
    if answer == "timeout" and isinstance(sent, str):
        raise TimedOut(f"Nobody answers on the queue {queue}.")
    if not isinstance(answer, dict):
        return answer
    if answer.get("command") == "timeout":
        raise TimedOut(f"Nobody answers on the queue {queue}.")
    return {key: value for key, value in answer.items() if key not in ("__jwt", "__user")}
