"""What was being built when the power went is not trusted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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
