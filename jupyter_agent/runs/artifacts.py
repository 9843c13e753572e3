"""The files that a run leaves: what is new or changed in its private copy, and what it names itself."""

from __future__ import annotations

import contextlib
import mimetypes
import os
import shutil
import stat
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_agent.errors import NotFound

MOST = 1000
"""Files of one run; how many more there were is said."""

FOLDER = "artifacts"

PASSED_OVER = frozenset({"__pycache__", ".ipynb_checkpoints", "node_modules", ".git", ".venv", ".cache", ".ipython"})
"""Folders that programs fill by themselves."""

Look = tuple[int, int, int, int, int]
"""Bytes, mtime and ctime in ns, inode, checksum (0 where the times are fine enough without)."""

Snapshot = dict[str, Look]
"""Path relative to the folder -> how the file looked.

Nobody can set back a file's ctime, and it moves whatever is done to a file.
"""

LONGEST_TICK_S = 0.02
"""From one time to the next that a file can get; 10 ms where the kernel's clock ticks a hundred times a second."""

SECOND_NS = 10**9


@dataclass(frozen=True)
class Kept:
    """What became of a run's files: ``{"name", "size", "mimetype"}`` of each, and a sentence about those not kept."""

    artifacts: list[dict[str, Any]]
    error: str | None = None


def snapshot(folder: Path) -> Snapshot:
    """The files in a folder as they are now; links are neither followed nor listed."""
    return {name: _look(folder / name, found) for name, found in _files(folder)}


def settled_snapshot(folder: Path) -> Snapshot:
    """The same; what is done to a file from now on is seen, as it cannot get a time that one of them has already."""
    found = snapshot(folder)
    newest_ns = max((look[2] for look in found.values()), default=0)
    deadline = time.monotonic() + LONGEST_TICK_S
    while time.clock_gettime_ns(COARSE_CLOCK) <= newest_ns and time.monotonic() < deadline:
        time.sleep(0.001)
    return found


COARSE_CLOCK = 5 if sys.platform == "linux" else time.CLOCK_REALTIME
"""The clock of file times: CLOCK_REALTIME_COARSE, which Python has no name for."""


def _look(path: Path, found: os.stat_result) -> Look:
    coarse = found.st_ctime_ns % SECOND_NS == 0 and found.st_mtime_ns % SECOND_NS == 0
    checksum = _checksum(path) if coarse else 0  # a file system that knows whole seconds only
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, checksum


def _checksum(path: Path) -> int:
    checksum = 0
    with contextlib.suppress(OSError), path.open("rb") as file:
        while data := file.read(1 << 20):
            checksum = zlib.crc32(data, checksum)
    return checksum


def changed(folder: Path, before: Snapshot) -> list[str]:
    """The names of files that are new, or not as they were."""
    return sorted(name for name, now in snapshot(folder).items() if before.get(name) != now)


def changed_since(folder: Path, since_s: float) -> list[str]:
    """The names of files written since a moment: all that can be told of a run that another process started."""
    return sorted(name for name, found in _files(folder) if found.st_ctime >= since_s)


def keep(
    run_folder: Path,
    work: Path | None,
    names: Sequence[str],
    named: Sequence[str],
    *,
    most_bytes: int | None = None,
) -> Kept:
    """Move ``names`` from ``work`` to the run's artifacts; list those, and the files that the run ``named``.

    What is named is relative to ``run_folder``: a file there stays where it is, one in ``work`` is moved like the
    others, and what is none of the run's own regular files is left out. Of ``names`` those are moved that have
    ``most_bytes`` together. A run that has put a link in its folder's place has no files.
    """
    if run_folder.is_symlink():
        return Kept([])
    own = [name for name in dict.fromkeys(named) if is_own(run_folder, name)]
    inside = [] if work is None else [path for name in own if (path := run_folder / name).is_relative_to(work)]
    listed = [name for name in own if run_folder / name not in inside]
    failure = None
    if work is not None:
        fitting = _fitting(work, names, most_bytes)
        wanted = list(dict.fromkeys([*fitting, *(str(path.relative_to(work)) for path in inside)]))
        moved, failure = _move_all(
            wanted[: MOST - min(MOST, len(listed))], work, run_folder / FOLDER, taken=set(listed)
        )
        if left_out := len(names) - len(fitting):
            failure = f"{left_out} files were not kept: they are larger than the run's files may be."
        if (more := len(wanted) + len(listed) - MOST) > 0:
            failure = f"Only {MOST} files of a run are kept: {more} were left out."
        listed += moved
    return Kept([_described(run_folder, name) for name in listed[:MOST]], failure)


def _fitting(work: Path, names: Sequence[str], most_bytes: int | None) -> list[str]:
    """The names of files that have so many bytes together, in their order."""
    if most_bytes is None:
        return list(names)
    chosen, room = [], most_bytes
    for name in names:
        with contextlib.suppress(OSError):
            if (size := (work / name).lstat().st_blocks * 512) <= room:
                chosen.append(name)
                room -= size
    return chosen


def path_of(run_folder: Path, name: str) -> Path:
    """Where the artifact of this name is. Raises ``NotFound``, also for a name that leads out of the run's folder."""
    for folder in (run_folder / FOLDER, run_folder):
        if is_own(folder, name):
            return folder / name
    raise NotFound(f"This run has left no file {name!r}.")


def is_own(folder: Path, name: str) -> bool:
    """Whether the name is of a regular file in the folder, reached without leaving it."""
    path = folder / name
    try:
        return path.resolve(strict=True).is_relative_to(folder.resolve()) and stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError, RuntimeError):
        return False


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    if folder.is_symlink() or folder.parent.is_symlink():  # a run has put a link in its place: to others' files
        return
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in PASSED_OVER]
        for file in (Path(path, name) for name in names):
            with contextlib.suppress(OSError):
                found = file.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield str(file.relative_to(folder)), found


def _move_all(names: Sequence[str], source: Path, target: Path, *, taken: set[str]) -> tuple[list[str], str | None]:
    """The names under which the files are in ``target`` now, and why some are not."""
    moved, failure = [], None
    for name in names:
        shown = _printable(f"work/{name}" if name in taken else name)
        try:
            (target / shown).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.move(source / name, target / shown)  # a rename, as both are on one disk
        except OSError as error:
            failure = f"Some files could not be kept ({error.strerror})."
        else:
            moved.append(shown)
    return moved, failure


def _described(run_folder: Path, name: str) -> dict[str, Any]:
    mimetype = "application/x-ipynb+json" if name.endswith(".ipynb") else mimetypes.guess_type(name)[0]
    size = path_of(run_folder, name).stat().st_size
    return {"name": name, "size": size, "mimetype": mimetype or "application/octet-stream"}


def _printable(name: str) -> str:
    """The name as JSON and URLs can hold it: bytes that are no UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")
