"""Waiting for threads, which cannot be cancelled, and for locks that another process may hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from jupyter_agent.errors import AgentError, Conflict
from jupyter_agent.home import Lock

T = TypeVar("T")

LOOK_S = 0.05
"""Between two looks at a lock."""


async def to_its_end(job: Callable[[], T], break_off: Callable[[], None] = lambda: None) -> T:
    """Run ``job`` in a thread. A thread cannot be stopped: a cancellation calls ``break_off`` and waits for its end."""
    task = asyncio.ensure_future(asyncio.to_thread(job))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        break_off()
        await asyncio.wait([task])
        with contextlib.suppress(AgentError, asyncio.CancelledError):  # that it was broken off is no news
            task.result()
        raise


@contextlib.asynccontextmanager
async def holding(lock: Lock, *, on_wait: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Hold the lock; wait for whoever has it, in this process or another. ``on_wait`` is called once if one has."""
    waiting = False
    while True:
        try:
            lock.acquire()
            break
        except Conflict:
            if not waiting:
                on_wait()
            waiting = True
            await asyncio.sleep(LOOK_S)
    try:
        yield
    finally:
        lock.release()
