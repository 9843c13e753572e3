"""Events to many followers. A slow follower misses states in between, never the newest one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

Key = tuple[str, str]

MOST_WAITING = 2000
"""Things whose newest event waits for one follower; one that is further behind is let go and has to begin anew."""


class Broadcast:
    """Keeps for each follower the newest event of each thing that it has not been told of yet."""

    def __init__(self) -> None:
        self._followers: set[Follower] = set()

    def __len__(self) -> int:
        return len(self._followers)

    def send(self, kind: str, thing: str, make: Callable[[], dict[str, Any]]) -> None:
        """Tell all followers of ``thing``; ``make`` is called only when there are any."""
        if self._followers:
            event = make()
            for follower in self._followers:
                follower.put((kind, thing), event)
            self._followers = {follower for follower in self._followers if not follower.lagging}

    async def follow(self, heartbeat_s: float) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Events as they come, several at once where they came together; an empty list is a heartbeat.

        Ends for a follower that takes none for too long.
        """
        follower = Follower()
        self._followers.add(follower)
        try:
            while not follower.lagging:
                yield await follower.take(heartbeat_s)
        finally:
            self._followers.discard(follower)


class Follower:
    """One follower's waiting events, in the order in which their things first changed."""

    def __init__(self) -> None:
        self._waiting: dict[Key, dict[str, Any]] = {}
        self._some = asyncio.Event()
        self.lagging = False

    def put(self, key: Key, event: dict[str, Any]) -> None:
        """Add an event in the place of an earlier one of the same thing."""
        self._waiting[key] = event
        if len(self._waiting) > MOST_WAITING:
            self.lagging = True
            self._waiting.clear()
        self._some.set()

    async def take(self, timeout_s: float) -> list[dict[str, Any]]:
        """All that waits; after the time-out an empty list."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._some.wait()
        except TimeoutError:
            return []
        self._some.clear()
        taken, self._waiting = list(self._waiting.values()), {}
        return taken
