"""The budget of requests in a second, shared by lanes: how a server's limit is kept without making anybody wait long.

A server answers 30 requests a second on a connection and refuses the others. Whatever is urgent goes first, what is not
leaves room for it, and nobody waits for ever. `Turns` decides and knows no clock; `Pace` waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextvars import ContextVar
from enum import IntEnum
from typing import TypeVar

from jupyter_agent.errors import ServerRefused, Unavailable

T = TypeVar("T")

WINDOW_S = 1.0
BURST_S = 0.1

PAUSES_S = (0.5, 1, 1, 1.5, 2, 3, 4, 5)
"""Waits before a request is sent again that the server refused, unexecuted, by its limit for a second."""


class Lane(IntEnum):
    """What a request is for; the lower goes first."""

    COMMANDS = 0
    ITEMS = 1
    CONSOLE = 2
    SYNC = 3


BULK = (Lane.CONSOLE, Lane.SYNC)
"""Lanes whose requests come in floods."""

LANE: ContextVar[Lane] = ContextVar("LANE", default=Lane.COMMANDS)


@contextlib.contextmanager
def in_lane(lane: Lane) -> Iterator[None]:
    """Requests made inside, also by tasks that are started there, belong to this lane."""
    before = LANE.set(lane)
    try:
        yield
    finally:
        LANE.reset(before)


class Turns:
    """Whose turn it is: at most ``per_s`` in any second, by lane.

    - A lane that waits gets its share of a second (a tenth each) before anybody gets more: nobody starves.
    - Then the first lane goes first, and the lower ones leave a part of each second free for those before them.
    - Bulk lanes spread over the second, so that one that comes after a flood of theirs finds a turn soon.
    """

    def __init__(self, per_s: int) -> None:
        self._per_s = max(1, per_s)
        share = max(1, self._per_s // 10) if self._per_s > len(Lane) else 0
        self._share = {Lane.COMMANDS: 0, Lane.ITEMS: share, Lane.CONSOLE: share, Lane.SYNC: share}
        self._left_free = {lane: lane.value * self._per_s // 9 for lane in Lane}
        self._burst = max(1, round(self._per_s * BURST_S))
        self._taken: deque[tuple[float, Lane]] = deque()

    def take(self, waiting: Collection[Lane], now_s: float) -> Lane | None:
        """The lane whose turn it is, which has taken it; ``None`` when those that wait have to wait on."""
        while self._taken and self._taken[0][0] + WINDOW_S <= now_s:
            self._taken.popleft()
        in_order = sorted(waiting, key=lambda lane: (not self._owed(lane), lane))
        lane = next((lane for lane in in_order if self._may(lane, waiting, now_s)), None)
        if lane is not None:
            self._taken.append((now_s, lane))
        return lane

    def next_s(self, now_s: float) -> float:
        """When it is worth asking again."""
        ends = (taken_s + length_s for taken_s, _ in self._taken for length_s in (BURST_S, WINDOW_S))
        return min((end_s for end_s in ends if end_s > now_s), default=now_s)

    def _may(self, lane: Lane, waiting: Collection[Lane], now_s: float) -> bool:
        used = len(self._taken)
        if used >= self._per_s or (lane in BULK and self._burst_of_bulk(now_s) >= self._burst):
            return False
        if self._owed(lane):
            return True
        promised = sum(self._owed(other) for other in waiting)  # to a bulk lane that has to wait a moment
        return used + promised + self._left_free[lane] < self._per_s

    def _owed(self, lane: Lane) -> int:
        """Turns of its share of the last second that the lane has not got."""
        return max(0, self._share[lane] - sum(taken is lane for _, taken in self._taken))

    def _burst_of_bulk(self, now_s: float) -> int:
        return sum(taken_s + BURST_S > now_s and lane in BULK for taken_s, lane in self._taken)


class Pace:
    """Has requests wait for their turns; in a lane, first come first served."""

    def __init__(self, per_s: float) -> None:
        self._turns = Turns(int(per_s))
        self._waiting: dict[Lane, deque[asyncio.Future[None]]] = {lane: deque() for lane in Lane}
        self._timer: asyncio.TimerHandle | None = None

    async def turn(self) -> None:
        """Wait for the next turn of the present lane and take it."""
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[LANE.get()].append(gone)
        self._give()
        await gone

    def _give(self) -> None:
        """Give the turns there are now, and come back when there may be more."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for line in self._waiting.values():
            while line and line[0].done():  # nobody waits any more
                line.popleft()
        while waiting := [lane for lane, line in self._waiting.items() if line]:
            lane = self._turns.take(waiting, now_s)
            if lane is None:
                break
            self._give_to(lane)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._turns.next_s(now_s), self._give) if waiting else None

    def _give_to(self, lane: Lane) -> None:
        line = self._waiting[lane]
        line.popleft().set_result(None)
        while line and line[0].done():
            line.popleft()


async def within_limits(attempt: Callable[[], Awaitable[T]], pace: Pace | None) -> T:
    """Make an attempt at a pace that the server allows, and again when it was too fast nevertheless.

    Raises `Unavailable` when that does not end.
    """
    for pause_s in (*PAUSES_S, None):
        if pace is not None:
            await pace.turn()
        try:
            return await attempt()
        except ServerRefused as error:
            if not str(error).startswith("Rate limit exceeded"):
                raise
        if pause_s is not None:
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - it spreads load
    raise Unavailable("OpenFlow answers no more requests for now: its limit for a second stays exceeded.")
