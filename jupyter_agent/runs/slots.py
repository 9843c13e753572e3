"""So many runs at once; who waits gets a place by priority, then first come."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class Slots:
    """``count`` places. A lower ``priority`` is more urgent."""

    def __init__(self, count: int) -> None:
        self._free = max(1, count)
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()

    async def take(self, priority: int) -> bool:
        """Wait for a place; true. Cancelled while waiting, it takes none."""
        if self._free and not self._waiting:
            self._free -= 1
            return True
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._arrivals), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn came in the same moment
                self.give_back()
            raise
        return True

    def give_back(self) -> None:
        """Let the next one have the place."""
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Place:
    """One run's place, or the lack of it."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._taken = False

    async def take(self, priority: int) -> bool:
        """Wait for the place; true."""
        self._taken = await self._slots.take(priority)
        return True

    def give_back(self) -> None:
        """Let another run have it, if this one has it."""
        taken, self._taken = self._taken, False
        if taken:
            self._slots.give_back()
