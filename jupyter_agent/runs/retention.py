"""Which ended runs stay, and the end of the others: files first, then rows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

from jupyter_agent.errors import AgentError
from jupyter_agent.folders import remove_tree
from jupyter_agent.state import Keep, State, now

log = logging.getLogger(__name__)

MEASURED_AT_ONCE = 50
"""Folders of ended runs whose size is looked at before the loop looks at other things again."""

EVERY_S = 3600.0
"""Runs also grow old while none ends."""


class Retention:
    """Keeps as many of the ended runs in ``folder`` as it should."""

    def __init__(self, *, state: State, folder: Path, keep: Keep) -> None:
        self._state = state
        self._folder = folder
        self._keep = keep
        self._tidying = asyncio.Lock()
        self._wanted = False

    async def now_and_then(self) -> None:
        """Tidy up every so often, until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.tidy()

    async def tidy(self) -> None:
        """Remove what need not be kept; whoever comes while another one waits for his turn need not wait, too."""
        if self._wanted:
            return
        self._wanted = True
        async with self._tidying:
            self._wanted = False
            try:
                if self._keep.total_bytes is not None:
                    await self._measure()
                await self._remove_expired()
            except AgentError as error:
                log.warning("Old runs could not be removed: %s", error)

    async def _measure(self) -> None:
        while rows := await self._state.unmeasured(MEASURED_AT_ONCE):
            sizes = await asyncio.to_thread(lambda: {row.id: size_of(Path(row.folder)) for row in rows})
            await self._state.measured(sizes)

    async def _remove_expired(self) -> None:
        rows = await self._state.expired(self._keep)
        gone = [row.id for row in rows if await asyncio.to_thread(self._remove_folder, Path(row.folder))]
        if gone:
            await self._state.delete(gone)

    def _remove_folder(self, folder: Path) -> bool:
        """Whether the folder of an ended run is gone. One that is none of ours is left, and forgotten."""
        if not folder.is_relative_to(self._folder) or folder == self._folder:
            return True
        if not remove_tree(folder):
            log.warning("The folder %s of an old run cannot be removed.", folder)
            return False
        if folder.parent.name < now()[:7]:
            with contextlib.suppress(OSError):  # other runs of that month are kept
                folder.parent.rmdir()
        return True


def size_of(folder: Path, *, without: Path | None = None) -> int:
    """Bytes that the files in a folder take on the disk; a hole takes nothing, nor does what has gone meanwhile."""
    total, waiting = 0, [os.fspath(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        if without is None or entry.path != os.fspath(without):
                            waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total
