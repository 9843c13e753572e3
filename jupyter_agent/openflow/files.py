"""The disk's side of uploads and downloads: reading a file in parts, and letting one arrive so that it is whole.

Knows files and folders; refuses to know the wire. Everything here blocks and runs in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import BinaryIO

from jupyter_agent.errors import Conflict, Failed, InvalidInput
from jupyter_agent.home import sync
from jupyter_agent.openflow.protocol import CHUNK

NAME_BYTES = 255
"""What file systems take for one name."""

MEASURED = 4 << 20
"""Bytes that are hashed at once."""

KEPT = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


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


class Departure:
    """A file that is about to be sent, open. ``sha256`` is what it holds, once `measure` has read it."""

    def __init__(self, path: Path) -> None:
        """Raises `InvalidInput` when it is no file that can be read."""
        if not path.is_file():  # a pipe or device could be opened, and would wait for ever
            raise InvalidInput(f"There is no file at {path} to upload.")
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read ({error.strerror}).") from error
        self._path = path
        self.length = 0
        self.sha256 = ""

    async def measure(self) -> None:
        """Read it once: its length and hash go with its name, before its contents do."""
        async with contextlib.aclosing(self.parts(MEASURED)) as parts:
            async for _ in parts:
                pass
        self.length, self.sha256 = self._read, self._hash.hexdigest()

    async def parts(self, size: int = CHUNK) -> AsyncGenerator[bytes]:
        """The contents from the beginning, one part in memory at a time. Raises `Failed` when they cannot be read."""
        self._hash, self._read = hashlib.sha256(), 0
        try:
            await asyncio.to_thread(self._file.seek, 0)
            while data := await asyncio.to_thread(self._next, size):
                yield data
        except OSError as error:
            raise Failed(f"{self._path} could not be read to its end ({error.strerror}).") from error

    def has_changed(self) -> bool:
        """Whether what was read last is something else than what was measured."""
        return (self._read, self._hash.hexdigest()) != (self.length, self.sha256)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _next(self, size: int) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        self._read += len(data)
        return data


class Arrival:
    """A file on its way into a folder, under a temporary name until it is whole; nothing is left of one that is not.

    With ``keep_as`` what has arrived stays under that name when the way breaks off, and the next one goes on from
    there: contents come from their beginning again, but what is here already is only compared.
    Its methods exclude one another: a write that was under way when the download was cancelled may still be at it.
    """

    def __init__(self, folder: Path, *, keep_as: str = "") -> None:
        """Raises `Failed` when nothing can be written to the folder, `Conflict` when another one keeps that name."""
        self._folder = folder
        try:
            if keep_as:
                descriptor, name = open_kept(folder / keep_as), str(folder / keep_as)
            else:
                descriptor, name = tempfile.mkstemp(dir=folder, prefix=".download-")  # 0600
        except OSError as error:
            raise Failed(f"Nothing can be written to {folder} ({error.strerror}).") from error
        self._file: BinaryIO = os.fdopen(descriptor, "r+b")
        self._path: Path | None = Path(name)
        self._busy = threading.Lock()
        self._hash = hashlib.sha256()
        self._kept = os.fstat(descriptor).st_size
        self.keeps = bool(keep_as)
        self.size = 0

    @property
    def path(self) -> Path | None:
        """Where it is for now."""
        return self._path

    @property
    def sha256(self) -> str:
        """Of what has arrived."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Add to the file. Raises `Failed` when the disk is full."""
        with self._writing():
            if self.size >= self._kept or self._file.read(len(data)) != data:
                self._add(data)
            self._hash.update(data)
            self.size += len(data)

    def land(self, name: str) -> Path:
        """The file is whole: flush it to the disk and give it its name, in place of what had that name."""
        with self._writing() as temporary:
            self._file.truncate(self.size)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            landed = temporary.replace(self._folder / name)
            self._path = None
            sync(self._folder)
            return landed

    def discard(self) -> None:
        """Leave nothing, unless it has landed."""
        self._end(keep=False)

    def leave(self) -> None:
        """Leave what was to be kept for the next time, and nothing else."""
        self._end(keep=self.keeps)

    def _add(self, data: bytes) -> None:
        if self._kept:  # what was kept is not what arrives, from here on at least
            self._file.seek(self.size)
            self._file.truncate()
            self._kept = 0
        self._file.write(data)

    def _end(self, *, keep: bool) -> None:
        with self._busy:
            if self._path is None:
                return
            if not keep:
                self._path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._file.close()  # which writes what is buffered, and the disk may be full
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


def open_kept(path: Path) -> int:
    """A file that is kept from one download to the next, open and locked, made where there is none.

    Raises `Conflict` when another download has it.
    """
    descriptor = os.open(path, KEPT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), path.stat()):  # it has landed since it was opened
            raise FileNotFoundError
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError | FileNotFoundError):
            raise Conflict(f"This file is being downloaded to {path.parent} already.") from error
        raise
    return descriptor
