"""What is on its way out to one client.

It knows order, and that the network takes things in its own time; it refuses to know what the bytes are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from jupyter_agent.openflow.protocol import PIECE

Record = Sequence[bytes]
"""A record as `Session.frame` makes it: its length, and the rest in pieces."""


class Transport(Protocol):
    """What a connection needs of the network."""

    def write(self, records: Sequence[Record]) -> asyncio.Future[None]:
        """Send records, in order; the result is done, and never an error, when the network has taken them.

        The next are written when these were taken, or when the connection is about to be closed.
        """

    def close(self, code: int, reason: str) -> None:
        """End the connection."""


class Outbox:
    """The records that wait for the network. Those of one turn of the event loop leave together."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._waiting: list[Record] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._is_writing = self._is_long = False

    def put(self, record: Record) -> asyncio.Future[None]:
        """Queue a record; the result is done when the network has taken it."""
        loop = asyncio.get_running_loop()
        if not self._waiters and not self._is_writing:
            loop.call_soon(self._write)
        self._waiting.append(record)
        self._waiters.append(loop.create_future())
        return self._waiters[-1]

    def flush(self) -> None:
        """Write what waits, because the connection is about to be closed; not into the middle of a long record."""
        if not self._is_long:
            self._is_writing = False
            self._write()

    def _write(self) -> None:
        if self._is_writing or not self._waiters:
            return
        records, waiters = self._waiting, self._waiters
        self._waiting, self._waiters = [], []
        self._is_writing, self._is_long = True, size_of(records) > PIECE
        self._transport.write(records).add_done_callback(lambda _: self._written(waiters))

    def _written(self, waiters: list[asyncio.Future[None]]) -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._is_writing = self._is_long = False
        self._write()


def size_of(records: Sequence[Record]) -> int:
    """Bytes."""
    return sum(len(piece) for record in records for piece in record)
