"""Whole folders: copying one privately, removing one for good. Everything here blocks."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading
from pathlib import Path

COPIED = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
"""Kinds of files that belong into a copy; opening one of the others may wait for ever."""


class BrokenOff(Exception):
    """Nobody wants the copy any more."""


def copy_tree(source: Path, target: Path, *, without: Path, broken_off: threading.Event) -> None:
    """A private copy: same modes and times; links are copied as links, FIFOs, sockets and devices not at all.

    ``without`` is a folder that is left out. Raises ``shutil.Error`` with what could not be copied.
    """

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if not is_wanted(Path(folder, name))}

    def is_wanted(path: Path) -> bool:
        try:
            found = path.lstat()
        except OSError:  # gone meanwhile
            return False
        return stat.S_IFMT(found.st_mode) in COPIED and not os.path.samestat(found, unwanted)

    def copy(source: str, target: str) -> str:
        if broken_off.is_set():
            raise BrokenOff
        return copy_file(source, target)

    unwanted = without.stat()
    shutil.copytree(source, target, symlinks=True, ignore=left_out, copy_function=copy)


def copy_file(source: str, target: str) -> str:
    """``shutil.copy2`` that shares the blocks where the file system can (btrfs, XFS)."""
    if not hasattr(os, "copy_file_range"):
        return shutil.copy2(source, target)
    with open(source, "rb") as reader, open(target, "wb") as writer:  # noqa: PTH123 - copytree's signature is str
        size = os.fstat(reader.fileno()).st_size
        try:
            while size > 0 and (copied := os.copy_file_range(reader.fileno(), writer.fileno(), size)):
                size -= copied
        except OSError:  # across file systems, or one that cannot
            reader.seek(0)
            writer.seek(0)
            shutil.copyfileobj(reader, writer)
    shutil.copystat(source, target)
    return target


def remove_tree(folder: Path) -> bool:
    """Remove a folder, also one in which something was made unwritable; whether it is gone.

    Of a link to a folder the link is removed: what it leads to may be anything.
    """
    if folder.is_symlink():
        with contextlib.suppress(OSError):
            folder.unlink()
        return not folder.is_symlink()
    with contextlib.suppress(OSError, RecursionError):
        shutil.rmtree(folder)
    if folder.is_dir():
        _make_writable(folder)
        with contextlib.suppress(OSError, RecursionError):
            shutil.rmtree(folder)
    return not folder.is_dir()


def _make_writable(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
    for path, folders, _ in os.walk(folder):
        for name in folders:
            if not (below := Path(path, name)).is_symlink():
                with contextlib.suppress(OSError):
                    below.chmod(0o700)
