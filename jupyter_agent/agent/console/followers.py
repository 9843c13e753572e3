"""A queue that follows runs: their output as it comes, that they have ended, which of them there are.

One message of a queue is on its way at a time, and what is to be sent next is read from the run's log when its turn has
come: who takes nothing, or has gone, costs neither memory nor anybody else's time. Runs that are followed by the same
queue take turns, and queues do by the lane of their requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from jupyter_agent.agent.console.post import Post
from jupyter_agent.agent.senders import Sender
from jupyter_agent.errors import Unavailable
from jupyter_agent.runs import Page, Run
from jupyter_agent.state import RunRow

log = logging.getLogger(__name__)

BATCH_BYTES = 64 << 10
"""Of output in a message; the Buffer form of JSON makes about four times as much of it."""

PACE_S = 0.1
"""Between two messages of one run: a server allows 30 requests a second for all of them (protocol §3)."""

FULL_PACE_S = 0.01
"""The same while there is more to send than a message holds."""


@dataclass(frozen=True)
class Batch:
    """Output for one message: whole characters, of the log from the offset ``at`` to ``next``."""

    at: int
    next: int
    data: bytes

    def message(self) -> dict[str, Any]:
        """As subscribers get it: a Buffer of Node in JSON. The offsets tell what came twice, or never."""
        buffer = {"type": "Buffer", "data": list(self.data)}
        return {"command": "stream", "data": buffer, "offset": self.at, "next": self.next}


def batches(page: Page, offset: int) -> Iterator[Batch]:
    """A page of a log, read from ``offset`` on, in messages of ``BATCH_BYTES`` at most."""
    data, at, position = bytearray(), offset, offset
    for chunk in page.chunks:
        for piece in pieces(chunk["text"].encode(), BATCH_BYTES):
            if data and len(data) + len(piece) > BATCH_BYTES:
                yield Batch(at, position, bytes(data))
                data, at = bytearray(), position
            data += piece
            position += 0 if "gap" in chunk else len(piece)
        position += chunk.get("gap", 0)
    if data:
        yield Batch(at, position, bytes(data))


def pieces(data: bytes, most: int) -> Iterator[bytes]:
    """UTF-8 in pieces of so many bytes at most (four at least), none of which ends within a character."""
    start = 0
    while len(data) - start > most:
        end = start + most
        while data[end] & 0xC0 == 0x80:  # noqa: PLR2004 - a byte within a character is 10xxxxxx
            end -= 1
        yield data[start:end]
        start = end
    if start < len(data):
        yield data[start:]


@dataclass(eq=False)
class Feed:
    """A run that a queue follows. ``asked``: it was asked for from there, so that its result is the last message."""

    run: Run
    offset: int
    asked: bool
    task: asyncio.Task[None] = field(init=False)

    async def over(self) -> None:
        """Wait until all was sent, or the queue is gone; also when it is sent once more meanwhile."""
        task = None
        while task is not self.task:
            task = self.task
            await asyncio.wait({task})


class Follower:
    """A queue and what it follows. Its tasks live in the group given; ``on_idle`` is called when it follows no more.

    ``everything`` is who has subscribed it to all runs, if anybody has; ``users`` the ids of all who named it.
    """

    def __init__(
        self,
        queue: str,
        *,
        post: Post,
        tasks: asyncio.TaskGroup,
        name_of: Callable[[Run], str],
        ending_of: Callable[[Run, RunRow, Collection[str]], Awaitable[dict[str, Any]]],
        on_idle: Callable[[Follower], None],
    ) -> None:
        """``ending_of`` makes the last message of a run for a queue that these users have named."""
        self.queue = queue
        self.everything: Sender | None = None
        self.users: set[str] = set()
        self.feeds: dict[str, Feed] = {}
        self.gone = False
        self.heard_at = asyncio.get_running_loop().time()
        """When the server has last taken a message for it."""
        self._post = post
        self._tasks = tasks
        self._name_of = name_of
        self._ending_of = ending_of
        self._on_idle = on_idle
        self._turn = asyncio.Lock()
        self._announcing: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> bool:
        """Whether anything is to be sent there, now or later."""
        return not self.gone and (self.everything is not None or bool(self.feeds))

    def follow(self, run: Run, offset: int, *, asked: bool = False, again: bool = False) -> Feed | None:
        """Send the run's output from ``offset`` on, then that it has ended; ``None`` when the queue is gone.

        One that is followed already goes on as it is; ``again``: it is sent once more from there.
        """
        if self.gone:
            return None
        feed = self.feeds.get(run.row.id)
        if feed is not None:
            feed.asked = feed.asked or asked
            if again:
                feed.task.cancel()
                feed.offset = offset
                self._start(feed)
            return feed
        feed = Feed(run, offset, asked)
        self.feeds[run.row.id] = feed
        self._start(feed)
        return feed

    def stop_following(self) -> None:
        """Send nothing more of runs that were not asked for from this queue."""
        self.everything = None
        for run_id, feed in list(self.feeds.items()):
            if not feed.asked:
                del self.feeds[run_id]
                feed.task.cancel()
        self._idle()

    def leave(self) -> None:
        """Send nothing more at all: the queue is gone."""
        self.gone, self.everything = True, None
        for feed in self.feeds.values():
            if feed.task is not asyncio.current_task():
                feed.task.cancel()
        self.feeds.clear()
        if self._announcing is not None and self._announcing is not asyncio.current_task():
            self._announcing.cancel()
        self._idle()

    def announce(self, made: Callable[[], dict[str, Any]], correlation_id: str) -> None:
        """Send a message as it is made when its turn has come; those that wait for theirs are one."""
        if self._announcing is None and not self.gone:
            self._announcing = self._tasks.create_task(self._announce(made, correlation_id))

    async def _announce(self, made: Callable[[], dict[str, Any]], correlation_id: str) -> None:
        try:
            async with self._turn:
                self._announcing = None
                await self._send(made(), correlation_id)
        except Exception:
            log.exception("What the queue %s was to be told could not be sent", self.queue)

    async def ping(self, correlation_id: str, expiration_ms: int) -> None:
        """Send what comes back to us when nobody listens there any more."""
        async with self._turn:
            own = self._post.own_queue
            await self._send({"command": "ping"}, correlation_id, reply_to=own, expiration_ms=expiration_ms)

    async def _send(self, data: dict[str, Any], correlation_id: str, **about: Any) -> bool:
        """Send, having the turn; whether the queue is still there. Where it is not, that is the end of it."""
        if self.gone:
            return False
        if not await self._post.send(self.queue, data, correlation_id=correlation_id, **about):
            self.leave()
            return False
        self.heard_at = asyncio.get_running_loop().time()
        return True

    def _start(self, feed: Feed) -> None:
        feed.task = self._tasks.create_task(self._feed(feed), name=f"feed {self.queue}")

    async def _feed(self, feed: Feed) -> None:
        try:
            if await self._stream(feed):
                await self._tell_end(feed)
        except Exception:
            log.exception("The output of run %s is not sent to %s any more", feed.run.row.id, self.queue)
        if self.feeds.get(feed.run.row.id) is feed:
            del self.feeds[feed.run.row.id]
            self._idle()

    async def _stream(self, feed: Feed) -> bool:
        """Send the output as it comes; whether it came to its end and the queue is still there."""
        output = feed.run.output
        while True:
            changed = output.changed
            async with self._turn:
                page = await asyncio.to_thread(output.read, feed.offset, BATCH_BYTES)
                for batch in batches(page, feed.offset):
                    if not await self._send(batch.message(), self._name_of(feed.run)):
                        return False
                is_full = page.next - feed.offset >= BATCH_BYTES
                feed.offset = page.next
            if page.complete:
                return True
            if page.chunks:
                await asyncio.sleep(FULL_PACE_S if is_full else PACE_S)
            else:
                await changed.wait()

    async def _tell_end(self, feed: Feed) -> None:
        try:
            row = await feed.run.wait()
        except Unavailable:  # nobody could write how it ended
            return
        name = self._name_of(feed.run)
        async with self._turn:
            if await self._send({"command": "completed", "data": None}, name) and not feed.asked:
                await self._send(await self._ending_of(feed.run, row, self.users), name)

    def _idle(self) -> None:
        if not self.wanted:
            self._on_idle(self)
