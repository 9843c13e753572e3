"""Files of an export on the disk: written so that a crash leaves nothing half-made, read so that nothing surprises."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Self

import psutil

from jupyter_agent.errors import AgentError, Failed, InvalidInput, Unavailable
from jupyter_agent.hub.transfer.layout import MAX_LINE, Part, broken

PIECE = 1 << 20
SCRATCH = re.compile(r"\.hub-transfer-(\d+)-[0-9a-f]+")
TELL_S = 0.5

Say = Callable[[str], None]
Tell = Callable[[], None]
"""A `Say` of one thing."""


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A private folder beside where things are to go, removed at the end; so are those that a kill left."""
    sweep(parent)
    folder = parent / f".hub-transfer-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    except OSError as error:
        raise unavailable(error, parent) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class PartWriter:
    """Writes one part of an export."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name = name
        path = folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._file = private(path)
        self._hash = hashlib.sha256()
        self._lines = self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, line: str | bytes) -> None:
        """One line, without its end."""
        data = (line.encode() if isinstance(line, str) else line) + b"\n"
        self._file.write(data)
        self._hash.update(data)
        self._lines += 1
        self._bytes += len(data)

    def finish(self, collection: str = "", indexes: tuple[dict[str, Any], ...] = ()) -> Part:
        """Bring it to the disk; what there is to say of it."""
        synced(self._file)
        return Part(self._name, self._lines, self._bytes, self._hash.hexdigest(), collection, indexes)


def private(path: Path) -> IO[bytes]:
    """A new file that its owner alone may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def synced(file: IO[bytes]) -> None:
    """Close a file when it is on the disk."""
    with file:
        file.flush()
        os.fsync(file.fileno())


def plain(folder: Path, name: str) -> IO[bytes]:
    """A plain file in an export. Raises `InvalidInput` for a link, and where there is none."""
    path = folder / name
    try:
        if stat.S_ISLNK(path.parent.lstat().st_mode):
            raise broken(f"{path.parent.name} is a link")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise broken(f"{name} is missing") from error
    except OSError as error:
        raise broken(f"{name} cannot be read ({error.strerror})") from error
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise broken(f"{name} is no plain file")
    return file


def lines_of(folder: Path, part: Part) -> Iterator[tuple[int, bytes]]:
    """The lines of a part with their numbers from 1. Raises `InvalidInput` for one that is endless."""
    with plain(folder, part.name) as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            if not line.endswith(b"\n"):
                raise broken(f"line {number} of {part.name} has no end")
            yield number, line


class Told:
    """A file that tells of itself whenever it is read, so that the reading of a big one can be broken off."""

    def __init__(self, file: IO[bytes], tell: Tell) -> None:
        self._file = file
        self._tell = tell

    def read(self, size: int = -1) -> bytes:
        """As a file's. Raises what ``tell`` raises."""
        self._tell()
        return self._file.read(size)


def hash_of(file: IO[bytes] | Told, copy: IO[bytes] | None = None) -> tuple[int, str]:
    """Length and hash of what is in a file, which is copied on the way where ``copy`` is given."""
    hashed, length = hashlib.sha256(), 0
    while piece := file.read(PIECE):
        hashed.update(piece)
        length += len(piece)
        if copy is not None:
            copy.write(piece)
    return length, hashed.hexdigest()


def unavailable(error: OSError, folder: Path) -> AgentError:
    """What an error of the disk means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"The disk that holds {folder} is full: free some space and try again. Nothing was changed.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
        return InvalidInput(f"{folder} cannot be written to ({error.strerror}).")
    return Unavailable(f"{folder} cannot be written to ({error.strerror}). Nothing was changed.")


class Progress:
    """Tells on standard error how far something is, a few times a second, where somebody looks."""

    def __init__(self) -> None:
        self._told_s = 0.0
        self._shown = 0
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def __call__(self, text: str) -> None:
        """Show this in the place of what was shown before. Raises `Failed` when it is to end."""
        if self._stopped:
            raise Failed("It was stopped. Nothing was changed.")
        if not sys.stderr.isatty() or time.monotonic() - self._told_s < TELL_S:
            return
        self._told_s = time.monotonic()
        sys.stderr.write(f"\r{text:<{self._shown}}")
        sys.stderr.flush()
        self._shown = len(text)

    def stop(self) -> None:
        """Break off what tells of itself."""
        self._stopped = True

    def clear(self) -> None:
        """Leave the line empty."""
        if self._shown:
            sys.stderr.write(f"\r{'':<{self._shown}}\r")
            sys.stderr.flush()
            self._shown = 0


def sweep(parent: Path) -> None:
    """Remove what an export or import that was killed left in this folder."""
    with contextlib.suppress(OSError):
        for path in parent.iterdir():
            found = SCRATCH.fullmatch(path.name)
            if found and not psutil.pid_exists(int(found[1])):
                shutil.rmtree(path, ignore_errors=True)
