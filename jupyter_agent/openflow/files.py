"""The disk's side of uploads and downloads: reading a file in parts, and letting one arrive so that it is whole.

Knows files and folders; refuses to know the wire. Everything here blocks and runs in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import BinaryIO

from jupyter_agent.errors import Failed, InvalidInput
from jupyter_agent.openflow.protocol import CHUNK

NAME_BYTES = 255
"""What file systems take for one name."""


def base_name(name: str, fallback: str) -> str:
    """A name for a file in a folder of ours, made of one that somebody else chose; ``fallback`` where none is left.

    Only what follows the last slash or backslash counts, without control characters, cut to what a file system takes.
    """
    kept = re.sub(r"[\x00-\x1f\x7f]", "", re.split(r"[/\\]", name)[-1]).strip()
    if kept in ("", ".", ".."):
        return fallback
    stem, dot, suffix = kept.rpartition(".")
    ending = (dot + suffix).encode()[: NAME_BYTES // 2] if stem else b""
    start = (stem or kept).encode(errors="replace")[: NAME_BYTES - len(ending)]
    return (start + ending).decode(errors="ignore")


def open_to_send(path: Path) -> tuple[BinaryIO, int]:
    """The file, open, and its size. Raises `InvalidInput` when it is no file that can be read."""
    if not path.is_file():  # a pipe or device could be opened, and would wait for ever
        raise InvalidInput(f"There is no file at {path} to upload.")
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}).") from error
    return file, os.fstat(file.fileno()).st_size


async def parts_of(file: BinaryIO, path: Path) -> AsyncGenerator[bytes]:
    """The file's contents from its beginning, in parts of `CHUNK` bytes, one in memory at a time."""
    try:
        await asyncio.to_thread(file.seek, 0)
        while data := await asyncio.to_thread(file.read, CHUNK):
            yield data
    except OSError as error:
        raise Failed(f"{path} could not be read to its end ({error.strerror}).") from error


class Arrival:
    """A file on its way into a folder, under a temporary name until it is whole; nothing is left of one that is not.

    Its methods exclude one another: a write that was under way when the download was cancelled may still be at it.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `Failed` when nothing can be written to the folder."""
        self._folder = folder
        try:
            descriptor, name = tempfile.mkstemp(dir=folder, prefix=".download-")  # 0600
        except OSError as error:
            raise Failed(f"Nothing can be written to {folder} ({error.strerror}).") from error
        self._file = os.fdopen(descriptor, "wb")
        self._path: Path | None = Path(name)
        self._busy = threading.Lock()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Add to the file. Raises `Failed` when the disk is full."""
        with self._writing():
            self._file.write(data)
            self.size += len(data)

    def land(self, name: str) -> Path:
        """The file is whole: flush it to the disk and give it its name, in place of what had that name."""
        with self._writing() as temporary:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            landed = temporary.replace(self._folder / name)
            self._path = None
            sync_folder(self._folder)
            return landed

    def discard(self) -> None:
        """Leave nothing, unless it has landed."""
        with self._busy:
            if self._path is None:
                return
            with contextlib.suppress(OSError):
                self._file.close()  # which writes what is buffered, and the disk may be full
            self._path.unlink(missing_ok=True)
            self._path = None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Path]:
        with self._busy:
            if self._path is None:
                raise Failed(f"The file for {self._folder} was given up.")
            try:
                yield self._path
            except OSError as error:
                raise Failed(f"The file could not be written to {self._folder} ({error.strerror}).") from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
