"""Folders in which something is made once and then used by many runs: installed dependencies, built programs.

Each has a key that names for ever what it was made from. One counts when its marker is there, which is written last;
one without it was being made when something ended, and is made anew. Refuses to know what is made, and how.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

from jupyter_agent.errors import Conflict, InvalidInput, Unavailable
from jupyter_agent.folders import remove_tree
from jupyter_agent.home import Lock, sync, write_private
from jupyter_agent.waiting import holding, to_its_end

READY = ".ready"

SOURCES = ".sources"
"""In a preparation, a folder with one empty file for each archive that has used it: what ``forget`` goes by."""

KEY = re.compile(r"[a-z0-9][a-z0-9.-]{0,120}")
SOURCE = re.compile(r"[A-Za-z0-9_-]{1,128}")
FOLDER = re.compile(r"[a-z0-9][a-z0-9.-]{0,120}(~\d)?")

BESIDE = 9
"""How many of one key there can be: one is made anew beside one that was forgotten while runs use it."""

Make = Callable[[Path], Awaitable[None]]
"""Fills an empty folder, which it may name in what it makes: the folder is not moved afterwards."""


class Preparations:
    """The folders below one of ours; many runs and processes may ask for them at once.

    ``living`` gives the holders that still live; without it, all do.
    """

    def __init__(self, folder: Path, *, living: Callable[[], set[str]] | None = None) -> None:
        self._folder = folder
        self._living = living
        self._uses: dict[Path, _Use] = {}

    async def ensure(
        self, key: str, make: Make, *, holder: str, source: str = "", on_wait: Callable[[], None] = lambda: None
    ) -> Path:
        """The folder of this key, made unless it is there. ``key`` is like ``npm-<sha256>``.

        ``holder`` is the run that uses it: it stays as long as that one lives. ``source`` is the file id of
        the archive it belongs to, for ``forget``. ``on_wait`` is called when another run is making it. What ``make``
        raises is passed on; nothing is left then.
        """
        if not KEY.fullmatch(key):
            raise InvalidInput(f"{key!r} cannot be the key of a preparation.")
        if folder := self._found(key, holder, source):
            return folder
        await asyncio.to_thread(partial(self._folder.mkdir, parents=True, exist_ok=True, mode=0o700))
        async with holding(Lock(self._folder / f".{key}.lock", held=key), on_wait=on_wait):
            return self._found(key, holder, source) or await self._make(key, make, holder, source)

    def _found(self, key: str, holder: str, source: str) -> Path | None:
        """The one that is ready, held from now on. A few accesses to files: less than handing it to a thread takes."""
        for folder in self._beside(key):
            use = self._uses.get(folder) or _Use.of(folder)
            if use is not None and use.is_ready():
                self._hold(folder, use, holder)
                _mark_source(folder, source)
                return folder
        return None

    def _beside(self, key: str) -> Iterator[Path]:
        return (self._folder / (f"{key}~{number}" if number else key) for number in range(BESIDE))

    def _hold(self, folder: Path, use: _Use, holder: str) -> None:
        use.holders.add(holder)
        self._uses[folder] = use

    def _let_go(self) -> None:
        """Hold no longer what only runs have used that are over."""
        if self._living is None:
            return
        living = self._living()
        for folder, use in list(self._uses.items()):
            use.holders &= living
            if not use.holders:
                del self._uses[folder]
                use.close()

    async def _make(self, key: str, make: Make, holder: str, source: str) -> Path:
        self._let_go()
        folder = await to_its_end(partial(_new_folder, key, list(self._beside(key))))
        use = _Use.of(folder)
        if use is None:
            raise Unavailable(f"{folder} was removed in the moment it was made: try again.")
        try:
            await make(folder)
            await to_its_end(partial(_mark, folder))
        except BaseException:
            use.close()
            await to_its_end(partial(remove_tree, folder))
            raise
        self._hold(folder, use, holder)
        _mark_source(folder, source)
        return folder

    async def tidy(self, *, keep_days: float) -> list[str]:
        """Remove what no living run uses and none has used for so many days, and what was left half-made.

        The names of the folders removed. What another process uses or makes is left, too.
        """
        self._let_go()
        old = await asyncio.to_thread(_older, self._folder, time.time() - keep_days * 86400)
        return [name for name in old if await to_its_end(partial(_remove_old, self._folder, name))]

    async def forget(self, source: str) -> None:
        """Have all that the archive ``source`` uses made anew when it is next asked for; runs keep what they use."""
        if SOURCE.fullmatch(source):
            await to_its_end(partial(_unmark, self._folder, source))


class _Use:
    """A shared lock on a preparation's folder, which keeps every process from removing it; ends with the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.holders: set[str] = set()

    @classmethod
    def of(cls, folder: Path) -> _Use | None:
        """``None``: there is no such folder, or it is being removed."""
        descriptor = _locked(folder, fcntl.LOCK_SH)
        return None if descriptor is None else cls(descriptor)

    def is_ready(self) -> bool:
        """Whether it is ready; then the time of its last use is this moment. One that is not ready is let go."""
        try:
            os.utime(READY, dir_fd=self._descriptor)
        except OSError:
            if not self.holders:
                self.close()
            return False
        return True

    def close(self) -> None:
        os.close(self._descriptor)


def _locked(folder: Path, kind: int) -> int | None:
    """A descriptor of the folder, locked; ``None`` when there is none, or somebody's lock is in the way."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _new_folder(key: str, places: list[Path]) -> Path:
    """An empty folder at the first place that nobody uses. Raises ``Unavailable`` when there is none."""
    for folder in places:
        if not folder.exists() or _remove_unused(folder, ready=False):
            folder.mkdir(mode=0o700)
            return folder
    raise Unavailable(f"{key} was made anew too often while runs use what was made before: wait until some have ended.")


def _remove_unused(folder: Path, *, ready: bool = True) -> bool:
    """Remove it unless it is in use; one that is ready only if ``ready``. Whether it is gone."""
    descriptor = _locked(folder, fcntl.LOCK_EX)
    if descriptor is None:
        return False
    try:
        return (ready or not (folder / READY).exists()) and remove_tree(folder)
    finally:
        os.close(descriptor)


def _remove_old(folder: Path, name: str) -> bool:
    """Remove the one of this name, unless it is in use or being made; whether it is gone."""
    with contextlib.suppress(Conflict), Lock(folder / f".{name.partition('~')[0]}.lock", held=name):
        return _remove_unused(folder / name)
    return False


def _mark(folder: Path) -> None:
    """Mark a folder as ready; all that is in it is on the disk before."""
    os.sync()
    write_private(folder / READY, "")


def _mark_source(folder: Path, source: str) -> None:
    marker = folder / SOURCES / source
    if SOURCE.fullmatch(source) and not marker.exists():
        with contextlib.suppress(OSError):  # a full disk: then this one is not forgotten by its source
            marker.parent.mkdir(exist_ok=True)
            marker.touch()


def _unmark(folder: Path, source: str) -> None:
    for found in _folders(folder):
        if (found / SOURCES / source).exists():
            (found / READY).unlink(missing_ok=True)
            sync(found)


def _folders(folder: Path) -> list[Path]:
    try:
        found = list(os.scandir(folder))
    except FileNotFoundError:
        return []
    return [Path(entry) for entry in found if entry.is_dir(follow_symlinks=False) and FOLDER.fullmatch(entry.name)]


def _older(folder: Path, before_s: float) -> list[str]:
    """The names of those last used before a moment; one without a marker was never ready."""
    return [found.name for found in _folders(folder) if _used_s(found) < before_s]


def _used_s(folder: Path) -> float:
    try:
        return (folder / READY).stat().st_mtime
    except OSError:
        return 0.0
