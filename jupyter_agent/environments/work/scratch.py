"""Folders for what is needed for a while and may hold secrets: private, gone at the end, however that comes.

Who works in one holds a lock in it. A process that is killed removes nothing: so whoever comes next, to the same
parent, removes what nobody holds any more.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jupyter_agent.errors import Conflict
from jupyter_agent.home import Lock

ALIVE = "alive"
"""A file in such a folder, locked while somebody works there."""

GIVEN_UP = timedelta(minutes=10)
"""A folder without that file is left over once it is so old."""

HELD = "Another process works there."


@contextlib.contextmanager
def scratch(parent: Path, *, prefix: str) -> Iterator[Path]:
    """A new folder in ``parent``, for its user alone, gone afterwards; those of killed processes go, too."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    sweep(parent, prefix=prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Lock(folder / f"{ALIVE}.new", held=HELD):
            (folder / f"{ALIVE}.new").rename(folder / ALIVE)
            yield folder


def sweep(parent: Path, *, prefix: str) -> None:
    """Remove the folders in ``parent`` in which nobody works any more."""
    for folder in parent.glob(f"{prefix}*"):
        with contextlib.suppress(Conflict, OSError):
            if (folder / ALIVE).exists():
                with Lock(folder / ALIVE, held=HELD):
                    _remove(folder)
            elif datetime.now(UTC) - datetime.fromtimestamp(folder.stat().st_mtime, UTC) > GIVEN_UP:
                shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Remove it, the lock last: where somebody's child still writes, the next one finds it as it was."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != ALIVE:
            entry.unlink(missing_ok=True)
    if [entry.name for entry in folder.iterdir()] == [ALIVE]:
        shutil.rmtree(folder, ignore_errors=True)
