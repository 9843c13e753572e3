"""Room on the disk, kept so that a run that fills the disk can still be told to have ended."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

BYTES = 2 << 20
"""A row's end is some pages of the database and of its journal; several runs may end while the disk is full."""


class Reserve:
    """A file that takes room until it is needed. Its methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self) -> None:
        """Take the room, if it is not taken; on a disk without so much there is no reserve."""
        if self._path.exists():
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, b"\0" * BYTES)  # not a hole, which would take nothing
            except OSError:
                self._path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)
            if self._path.exists() and self._path.stat().st_size < BYTES:
                self._path.unlink()

    def give(self) -> bool:
        """Give the room back; whether there was any."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
