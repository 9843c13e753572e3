"""Turns: nobody keeps all readers of the store busy, so others are answered however long one user's searches take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

AT_ONCE = 3
"""Works of one user under way at once: one fewer than there are readers."""


class Turns:
    """By user, what is under way."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def take(self, user: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do ``work`` when it is its turn. It keeps its place until it is done, also when its caller is cancelled."""
        turn = self._turns.get(user) or self._turns.setdefault(user, asyncio.Semaphore(AT_ONCE))
        await turn.acquire()
        working = asyncio.create_task(work())

        def done(task: asyncio.Task[T]) -> None:
            turn.release()
            if not task.cancelled():
                task.exception()  # told to the caller, if there still is one

        working.add_done_callback(done)
        return await asyncio.shield(working)
