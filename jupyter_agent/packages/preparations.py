"""Folders in which something is made once and then used by many runs: installed dependencies, built programs.

Each has a key that names for ever what it was made from. One counts when its marker is there, which is written last;
one without it was being made when something ended, and is made anew. Refuses to know what is made, and how.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from jupyter_agent.errors import InvalidInput
from jupyter_agent.folders import remove_tree
from jupyter_agent.home import Lock, write_private
from jupyter_agent.waiting import holding, to_its_end

READY = ".ready"

KEY = re.compile(r"[a-z0-9][a-z0-9.-]{0,120}")

Make = Callable[[Path], Awaitable[None]]
"""Fills an empty folder, which it may name in what it makes: the folder is not moved afterwards."""


class Preparations:
    """The folders below one of ours; many runs may ask for them at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._holders: dict[str, set[str]] = {}

    async def ensure(self, key: str, make: Make, *, holder: str, on_wait: Callable[[], None] = lambda: None) -> Path:
        """The folder of this key, made unless it is there. ``key`` is like ``npm-<sha256>``.

        ``holder`` is the run that uses it: ``tidy`` keeps it as long as that one lives. ``on_wait`` is called when
        another run is making it. What ``make`` raises is passed on; nothing is left then.
        """
        if not KEY.fullmatch(key):
            raise InvalidInput(f"{key!r} cannot be the key of a preparation.")
        self._holders.setdefault(key, set()).add(holder)
        folder = self._folder / key
        if await asyncio.to_thread(_used_now, folder):
            return folder
        await asyncio.to_thread(partial(self._folder.mkdir, parents=True, exist_ok=True, mode=0o700))
        async with holding(Lock(self._folder / f".{key}.lock", held=key), on_wait=on_wait):
            if not await asyncio.to_thread(_used_now, folder):
                await self._make(folder, make)
        return folder

    async def _make(self, folder: Path, make: Make) -> None:
        await to_its_end(partial(_empty, folder))
        try:
            await make(folder)
            await to_its_end(partial(_mark, folder))
        except BaseException:
            await to_its_end(partial(remove_tree, folder))
            raise

    async def tidy(self, is_live: Callable[[str], bool], *, keep_days: float) -> list[str]:
        """Remove what no living run uses and none has used for so many days, and what was left half-made; the keys."""
        for key, holders in list(self._holders.items()):
            holders -= {holder for holder in holders if not is_live(holder)}
            if not holders:
                del self._holders[key]
        old = await asyncio.to_thread(_older, self._folder, time.time() - keep_days * 86400)
        removed = []
        for key in old:
            lock = Lock(self._folder / f".{key}.lock", held=key)
            async with holding(lock):
                if key not in self._holders:
                    await to_its_end(partial(remove_tree, self._folder / key))
                    removed.append(key)
        return removed


def _used_now(folder: Path) -> bool:
    """Whether it is ready; then the time of its last use is this moment."""
    try:
        os.utime(folder / READY)
    except OSError:
        return False
    return True


def _empty(folder: Path) -> None:
    remove_tree(folder)
    folder.mkdir(mode=0o700)


def _mark(folder: Path) -> None:
    """Mark a folder as ready; all that is in it is on the disk before."""
    os.sync()
    write_private(folder / READY, "")


def _older(folder: Path, before_s: float) -> list[str]:
    """The keys last used before a moment; one without a marker was never ready."""
    keys = []
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False) and KEY.fullmatch(entry.name):
                try:
                    used_s = (folder / entry.name / READY).stat().st_mtime
                except OSError:
                    used_s = 0.0
                if used_s < before_s:
                    keys.append(entry.name)
    return keys
