"""How many requests a second: counted as the real server does, in whole seconds that begin with a request."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from jupyter_agent.errors import Unavailable

DEFAULT = 30
"""What the real server allows."""

MAX_KEYS = 10_000


class RateExceeded(Unavailable):
    """There were too many requests in this second; the one that was refused was not executed."""


class Rate:
    """The requests of one client; a ``limit`` of 0 is none."""

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._began = float("-inf")
        self._used = 0

    def spend(self) -> None:
        """Count a request. Raises `RateExceeded` when this second had enough."""
        if not self._limit:
            return
        now = self._clock()
        if now - self._began >= 1:
            self._began, self._used = now, 0
        self._used += 1
        if self._used > self._limit:
            raise RateExceeded(f"Rate limit exceeded consumedPoints: {self._used}")


class Rates:
    """The same for clients without a connection, told apart by their token or address."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rates: OrderedDict[str, Rate] = OrderedDict()

    def spend(self, key: str) -> None:
        """Count a request of this client. Raises `RateExceeded`."""
        if not self._limit:
            return
        rate = self._rates.get(key) or self._rates.setdefault(key, Rate(self._limit))
        self._rates.move_to_end(key)
        if len(self._rates) > MAX_KEYS:
            self._rates.popitem(last=False)
        rate.spend()
