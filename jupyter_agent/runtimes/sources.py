"""What is built from a package's files: once for each state of them, from a copy that stays.

What is built may name where its source lay, and a build leaves files behind: neither is to be the run's own folder,
which ends with the run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jupyter_agent.errors import Failed
from jupyter_agent.folders import copy_tree
from jupyter_agent.runtimes.base import Site, Task, Teller
from jupyter_agent.waiting import to_its_end

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where something is built: the preparation's ``folder``, and the copy of the package in it, ``source``."""

    folder: Path

    @property
    def source(self) -> Path:
        """The copy of the package."""
        return self.folder / "source"


Build = Callable[[Place], Awaitable[None]]


async def built(task: Task, site: Site, run: Teller, *, kind: str, by: str, build: Build) -> Place:
    """The place in which ``build`` did its work: now, or for an earlier run of the same files.

    ``kind`` begins its key (``cargo``), ``by`` is what the result depends on besides the files (the compiler).
    """
    named = task.source or await to_its_end(partial(digest, task.folder))
    main = (task.manifest.main if task.manifest else None) or ""
    parts = (named, str(task.entry.relative_to(task.folder)), main, by)
    key = hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()

    async def make(folder: Path) -> None:
        place = Place(folder)
        await copied(task.folder, place.source)
        await build(place)

    waiting = partial(run.note, "Another run is building this package; waiting for it.")
    return Place(
        await site.preparations.ensure(f"{kind}-{key}", make, holder=task.tag, source=task.source, on_wait=waiting)
    )


async def copied(source: Path, target: Path) -> None:
    """Copy a folder. Raises ``Failed`` naming the first of what could not be; a cancellation breaks it off."""
    broken_off = threading.Event()
    try:
        await to_its_end(partial(copy_tree, source, target, without=source, broken_off=broken_off), broken_off.set)
    except shutil.Error as error:
        failures: list[tuple[str, str, str]] = error.args[0]
        raise Failed(f"{len(failures)} of the files cannot be copied, the first: {failures[0][2]}") from error
    except OSError as error:
        raise Failed(f"The files cannot be copied to {target}: {error.strerror}.") from error


def stamp(program: str) -> str:
    """What changes when a compiler is replaced by another version of it."""
    found = Path(program).resolve().stat()
    return f"{program} {found.st_size} {found.st_mtime_ns}"


def digest(folder: Path) -> str:
    """The sha256 of a folder's files: names, contents, modes, where links point. Blocks. Raises ``Failed``."""
    hashed = hashlib.sha256()
    for path in _below(folder):
        _add(hashed, folder, path)
    return hashed.hexdigest()


def _add(hashed: hashlib._Hash, folder: Path, path: Path) -> None:
    try:
        found = path.lstat()
        link = str(path.readlink()) if path.is_symlink() else ""
        line = (os.path.relpath(path, folder), str(found.st_mode), link, str(found.st_size))
        hashed.update(repr(line).encode("utf-8", "surrogateescape"))
        if path.is_file() and not link:
            with path.open("rb") as file:
                while block := file.read(READ_BYTES):
                    hashed.update(block)
    except OSError as error:
        raise Failed(f"{path.relative_to(folder)} cannot be read: {error.strerror}.") from error


def _below(folder: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(path, name) for name in sorted((*files, *folders)))
