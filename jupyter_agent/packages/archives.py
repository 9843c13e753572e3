"""Reading an archive: a gzipped tar or a zip becomes entries, and each entry's content a stream of pieces.

What an archive says of itself is believed as little as possible: nothing of it is taken into memory as a whole, and
forms that hardly any packing tool makes, but that have been used to harm (sparse files, overlapping or encrypted
entries, headers of megabytes), are refused. Refuses to know where anything is put.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Self

from jupyter_agent.errors import InvalidInput

PIECE = 1 << 20

LONGEST_HEADER_BYTES = 1 << 20
"""Tar's extended headers are read into memory as a whole."""

LONGEST_GLOBAL_BYTES = 16 << 10
"""Those that count for all that follows are copied for each entry."""

MOST_GLOBALS = 200

LONGEST_LINK_BYTES = 4096

LONGEST_DIRECTORY_BYTES = 64 << 20
"""A zip's directory is read into memory as a whole."""

LOCAL_HEADER_BYTES = 30

UTF8_NAME = 0x800
"""The flag of a zip's entry that says that its name is UTF-8; without it names are of code page 437."""

MADE_ON_WINDOWS = 0

SPARSE = re.compile(rb"\d GNU\.sparse\.")
"""What an extended header says of a sparse file."""

SPARSE_FILE = "it holds a sparse file, of which only parts are stored: pack it without `--sparse` (`-S`)"

Kind = Literal["file", "folder", "symlink", "hardlink", "special"]


@dataclass(frozen=True)
class Bounds:
    """What an archive may hold. The ratio (unpacked to packed) counts only above ``ratio_from_bytes``."""

    files: int = 100_000
    total_bytes: int = 4 << 30
    ratio: int = 200
    ratio_from_bytes: int = 256 << 20

    def check(self, *, count: int, total: int, packed_bytes: int) -> None:
        """Raise ``InvalidInput`` for more files and folders, or bytes, than there may be."""
        if count > self.files:
            raise InvalidInput(f"it holds more than {self.files} files and folders (Agent.max_package_files)")
        if total > self.total_bytes:
            raise InvalidInput(f"it unpacks to more than {self.total_bytes >> 20} MiB (Agent.max_package_mb)")
        if total > self.ratio_from_bytes and total > self.ratio * packed_bytes:
            raise InvalidInput(f"it unpacks to more than {self.ratio} times its size (Agent.max_package_ratio)")


BOUNDS = Bounds()


@dataclass(frozen=True)
class Entry:
    """One thing in an archive, as the archive says; ``index`` counts within it, ``size`` is in bytes.

    ``changes_user``: it is to run with the rights of its owner or group (setuid, setgid).
    """

    index: int
    name: str
    kind: Kind
    size: int = 0
    executable: bool = False
    changes_user: bool = False
    target: str = ""


Read = Callable[[Entry], Iterator[bytes]]
"""What an entry holds, piece by piece. Its end may come too early, never too late."""


@contextlib.contextmanager
def opened(archive: Path, scratch: Path, bounds: Bounds) -> Iterator[tuple[Iterator[Entry], Read]]:
    """The entries of an archive and how to read them; its kind is told by its first bytes, not by its name.

    ``scratch`` is a folder for what has to lie on the disk meanwhile. Raises ``InvalidInput`` for what is refused, and
    what the standard library raises on broken archives, here and while entries are taken.
    """
    with archive.open("rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with _tar(raw, scratch, bounds) as found:
                yield found
        elif magic in (b"PK\x03\x04", b"PK\x05\x06"):
            with _zip(archive, bounds) as found:
                yield found
        else:
            raise ValueError("it is neither a gzipped tar (.tgz) nor a zip")


# Tar


@contextlib.contextmanager
def _tar(raw: IO[bytes], scratch: Path, bounds: Bounds) -> Iterator[tuple[Iterator[Entry], Read]]:
    path = scratch / "content.tar"
    _gunzip(raw, path, bounds)
    offsets: list[int] = []
    with (
        _Headers(path, bounds) as headers,
        path.open("rb") as data,
        tarfile.open(fileobj=headers, mode="r:", tarinfo=_Member) as tar,
    ):
        yield _tar_entries(tar, data, offsets), lambda entry: _part(data, offsets[entry.index], entry.size)


def _gunzip(raw: IO[bytes], path: Path, bounds: Bounds) -> None:
    """Unpack the tar to the disk, so that its end, and gzip's check sum, is known before anything is made of it."""
    packed_bytes = os.fstat(raw.fileno()).st_size
    with gzip.GzipFile(fileobj=raw) as stream, path.open("xb") as file:
        while data := stream.read(PIECE):
            bounds.check(count=0, total=file.tell() + len(data), packed_bytes=packed_bytes)
            file.write(data)


class _Headers(io.BufferedReader):
    """A tar as ``tarfile`` sees it, which reads nothing of it but headers; those that are too long are refused."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        super().__init__(io.FileIO(path))
        self._left = max(LONGEST_HEADER_BYTES, 2048 * bounds.files)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes of a header."""
        if size is None or not 0 <= size <= LONGEST_HEADER_BYTES:
            raise ValueError(f"it has a header of {size} bytes")
        self._left -= size if size > tarfile.BLOCKSIZE else 0
        if self._left < 0:
            raise ValueError("its headers are longer than a package of so many files needs")
        data = super().read(size)
        if SPARSE.search(data):
            raise InvalidInput(SPARSE_FILE)
        return data


class _Member(tarfile.TarInfo):
    """A header; each is looked at before ``tarfile`` does what it says."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a block."""
        found = super().frombuf(buf, encoding, errors)
        if found.type == tarfile.GNUTYPE_SPARSE:
            raise InvalidInput(SPARSE_FILE)
        if found.type == tarfile.XGLTYPE and found.size > LONGEST_GLOBAL_BYTES:
            raise ValueError(f"it has a header of {found.size} bytes for all its files")
        if found.size < 0:
            raise ValueError("it holds a file of less than no bytes")
        return found


def _tar_entries(tar: tarfile.TarFile, data: IO[bytes], offsets: list[int]) -> Iterator[Entry]:
    while member := tar.next():
        tar.members = []  # type: ignore[attr-defined]  # else all of them stay in memory, each with its own copy of the headers for all
        if member.size < 0:
            raise ValueError("it holds a file of less than no bytes")
        if len(tar.pax_headers) > MOST_GLOBALS:
            raise ValueError("it has too many headers for all its files")
        offsets.append(member.offset_data)
        yield Entry(
            index=len(offsets) - 1,
            name=member.name,
            kind=_tar_kind(member),
            size=member.size if member.isreg() else 0,
            executable=bool(member.mode & stat.S_IXUSR),
            changes_user=bool(member.mode & (stat.S_ISUID | stat.S_ISGID)),
            target=member.linkname,
        )
    data.seek(tar.offset)
    while rest := data.read(PIECE):
        # tarfile takes a header that it cannot read for the end.
        if rest.strip(b"\0"):
            raise ValueError("it is damaged in the middle")


def _tar_kind(member: tarfile.TarInfo) -> Kind:
    if member.isreg():
        return "file"
    if member.isdir():
        return "folder"
    if member.issym():
        return "symlink"
    return "hardlink" if member.islnk() else "special"


def _part(data: IO[bytes], offset: int, size: int) -> Iterator[bytes]:
    while size > 0:
        data.seek(offset)
        piece = data.read(min(PIECE, size))
        if not piece:
            return
        yield piece
        offset, size = offset + len(piece), size - len(piece)


# Zip


@contextlib.contextmanager
def _zip(archive: Path, bounds: Bounds) -> Iterator[tuple[Iterator[Entry], Read]]:
    with _Directory(archive, bounds) as raw, zipfile.ZipFile(raw) as zipped:
        infos = zipped.infolist()
        _refuse_overlaps(infos, end=zipped.start_dir)
        yield _zip_entries(zipped, infos), lambda entry: _unzipped(zipped, infos[entry.index])


class _Directory(io.BufferedReader):
    """A zip as ``zipfile`` sees it; a directory that would fill the memory is refused."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        super().__init__(io.FileIO(path))
        self._most = bounds.files

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes; without it, what may be the comment at the end."""
        if size is None or size < 0:
            return super().read(PIECE)
        if size > LONGEST_DIRECTORY_BYTES:
            raise ValueError(f"it has a directory of {size} bytes")
        data = super().read(size)
        if data.count(b"PK\x01\x02") > self._most:
            raise InvalidInput(f"it holds more than {self._most} files and folders (Agent.max_package_files)")
        return data


def _refuse_overlaps(infos: list[zipfile.ZipInfo], *, end: int) -> None:
    """Refuse entries that share their bytes, of which a small zip can hold very much."""
    starts = sorted((info.header_offset, info.compress_size, info.filename) for info in infos)
    for (start, size, name), (following, _, _) in zip(starts, [*starts[1:], (end, 0, "")], strict=True):
        if start + LOCAL_HEADER_BYTES + size > following:
            raise InvalidInput(f"it holds {name!r}, which lies over something else in it")


def _zip_entries(zipped: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> Iterator[Entry]:
    for index, info in enumerate(infos):
        if info.flag_bits & 1:
            raise InvalidInput(f"it holds {info.filename!r}, which is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InvalidInput(f"it holds {info.filename!r}, which is packed in an unusual way: pack it with deflate")
        name, mode = _zip_name(info), info.external_attr >> 16
        kind = _zip_kind(name, mode)
        if kind == "symlink" and info.file_size > LONGEST_LINK_BYTES:
            raise ValueError(f"{info.filename!r} is no link")
        yield Entry(
            index=index,
            name=name,
            kind=kind,
            size=info.file_size,
            executable=bool(mode & stat.S_IXUSR),
            changes_user=bool(mode & (stat.S_ISUID | stat.S_ISGID)),
            target=b"".join(_unzipped(zipped, info)).decode() if kind == "symlink" else "",
        )


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name as it was meant: Linux' zip does not say that its names are UTF-8, Windows' tools write backslashes."""
    name = info.filename
    if not info.flag_bits & UTF8_NAME:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/") if info.create_system == MADE_ON_WINDOWS else name


def _zip_kind(name: str, mode: int) -> Kind:
    if name.endswith("/") or stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISLNK(mode):
        return "symlink"
    return "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "special"


def _unzipped(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    stream: Any  # typed as text or bytes
    with zipped.open(info) as stream:
        while piece := stream.read(PIECE):
            yield piece
