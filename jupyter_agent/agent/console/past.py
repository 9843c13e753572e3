"""Runs that have ended lately, told once more: the connection of whoever asked may have been away at their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_agent.agent.console.followers import BATCH_BYTES, FULL_PACE_S, batches
from jupyter_agent.agent.console.results import last_message
from jupyter_agent.runs import OutputLog
from jupyter_agent.state import RunRow

KEPT = 500
"""Ended runs whose names are known."""


@dataclass(frozen=True)
class Past:
    """An ended run, the name it was followed by, and the ids of its package and of the user who asked for it."""

    run_id: str
    name: str
    package_id: str | None
    asker: str


class Lately:
    """The runs that ended last, by name and by id."""

    def __init__(self) -> None:
        self._past: dict[str, Past] = {}

    def add(self, past: Past) -> None:
        """Know it from now on; the oldest make room."""
        for known in {past.name, past.run_id}:
            self._past.pop(known, None)
            self._past[known] = past
        while len(self._past) > KEPT:
            del self._past[next(iter(self._past))]

    def find(self, name: str) -> Past | None:
        """The run of this name or id."""
        return self._past.get(name)


async def retold(row: RunRow, *, whole: bool) -> AsyncGenerator[dict[str, Any], None]:
    """All messages of an ended run: its output from the beginning, and its end."""
    output, offset = OutputLog(Path(row.folder) / "output"), 0
    while True:
        page = await asyncio.to_thread(output.read, offset, BATCH_BYTES)
        for batch in batches(page, offset):
            yield batch.message()
        if page.complete or page.next == offset:
            break
        offset = page.next
        await asyncio.sleep(FULL_PACE_S)
    yield {"command": "completed", "data": None}
    yield await last_message(row, whole=whole)
