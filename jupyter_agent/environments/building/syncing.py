"""What was built outlasts a power cut, and what was being built when one came is not trusted."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def sync_all(*folders: Path) -> None:
    """Have all that was written to the file systems of these folders on the disk: ``syncfs`` alone, where there is one.

    ``os.sync`` would wait for what other programs write to other disks.
    """
    devices = {folder.stat().st_dev: folder for folder in folders}
    if sys.platform != "linux":
        os.sync()
        return
    library = ctypes.CDLL(None, use_errno=True)
    for folder in devices.values():
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if library.syncfs(descriptor) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
        finally:
            os.close(descriptor)


class Unsynced:
    """Says in the cache that packages are being extracted, until they are on the disk.

    A kill does no harm to them, but after a power cut they may be there with holes in them. ``doubtful`` is true when
    the system was started anew since then: the cache is held against its hashes, once.
    """

    def __init__(self, cache: Path, name: str) -> None:
        self._folder = cache / "unsynced"
        self._file = self._folder / name
        self._left: list[Path] = []

    def doubtful(self) -> bool:
        """Whether a build did not come to its end before the system did."""
        boot = _boot()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._left = [file for file in self._folder.iterdir() if _text(file) != boot]
        return bool(self._left)

    @contextlib.contextmanager
    def until_synced(self) -> Iterator[None]:
        """Within, packages may be extracted; they are synced at its end."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._file.open("w") as file:
            file.write(_boot())
            file.flush()
            os.fsync(file.fileno())
        yield
        self._file.unlink(missing_ok=True)

    def forget(self) -> None:
        """The cache was held against its hashes."""
        for file in self._left:
            file.unlink(missing_ok=True)


def _boot() -> str:
    return _text(Path("/proc/sys/kernel/random/boot_id")) or "unknown"


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
