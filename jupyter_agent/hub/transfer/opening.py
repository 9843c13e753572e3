"""Opening an export that anybody may have made: unpacked where it is packed, and checked before any of it is used."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import orjson

from jupyter_agent.errors import InvalidInput, NotFound, Unavailable
from jupyter_agent.hub.transfer.disk import Say, Tell, Told, hash_of, lines_of, plain, private
from jupyter_agent.hub.transfer.exporting import is_archive
from jupyter_agent.hub.transfer.layout import (
    CONTENTS,
    FILE_ID,
    FILES,
    MANIFEST,
    MAX_MANIFEST,
    SHA256,
    Manifest,
    Part,
    broken,
    manifest_of,
)

MAX_READ = 16 << 20
"""Bytes of one read. Tar's extended headers are read into memory as a whole."""

MAX_TAIL = 1 << 20
"""Bytes of padding behind the last part."""

SPARE = 64 << 20
"""Bytes of disk that are to be left over."""

BROKEN = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, LookupError, ArithmeticError)
"""What the standard library raises on archives that are broken in one way or another."""


@dataclass(frozen=True)
class Content:
    """The content of a file, as an export tells of it."""

    id: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Export:
    """An export in a folder, checked: every part is as its manifest says."""

    folder: Path
    manifest: Manifest

    def contents(self) -> Iterator[Content]:
        """The contents, in the order of the documents of ``fs.files``."""
        part = self.manifest.part(CONTENTS)
        if part is not None:
            yield from _contents(self.folder, part)


def open_export(source: Path, scratch: Path, say: Say) -> Export:
    """The export in this file or folder, as a whole checked; an archive is unpacked into the folder ``scratch``.

    Raises `NotFound`, `InvalidInput` for what is no export or a damaged one, `NewerVersion`, and `Unavailable` when the
    disk has no room.
    """
    if not source.exists():
        raise NotFound(f"There is no {source}.")
    folder = source
    if source.is_dir():
        manifest = _manifest(folder)
    elif is_archive(source) or source.is_file():
        folder = scratch
        manifest = _unpack(source, scratch, say)
    else:
        raise InvalidInput(f"{source} is neither a file nor a folder.")
    export = Export(folder, manifest)
    _check(export, say)
    return export


def _manifest(folder: Path) -> Manifest:
    if not (folder / MANIFEST).exists():
        raise InvalidInput(f"{folder} is no export of a hub: it has no {MANIFEST}.")
    with plain(folder, MANIFEST) as file:
        data = file.read(MAX_MANIFEST + 1)
    if len(data) > MAX_MANIFEST:
        raise broken("its manifest is too big")
    return manifest_of(data)


def _unpack(source: Path, folder: Path, say: Say) -> Manifest:
    """Take an archive apart: what is in it, in which order and how big, is what its manifest says, or it is refused."""
    try:
        with source.open("rb") as packed, gzip.open(packed) as raw:
            reader = Bounded(raw)
            with tarfile.open(fileobj=reader, mode="r:") as archive:  # type: ignore[call-overload]
                manifest = _unpacked(archive, folder, say)
            if len(raw.read(MAX_TAIL)) == MAX_TAIL:  # to the end, where gzip's own checksum is
                raise broken("there is something behind its end")
            return manifest
    except BROKEN as error:
        raise InvalidInput(
            f"{source} is no export of a hub, or a damaged one ({error or type(error).__name__})."
        ) from error


def _unpacked(archive: tarfile.TarFile, folder: Path, say: Say) -> Manifest:
    members = iter(archive)
    first = next(members, None)
    if first is None or first.name != MANIFEST or first.size > MAX_MANIFEST:
        raise InvalidInput(f"This is no export of a hub: it does not begin with {MANIFEST}.")
    manifest = manifest_of(_content(archive, first).read())
    if manifest.size + SPARE > shutil.disk_usage(folder).free:
        raise Unavailable(
            f"The export needs {manifest.size >> 20} MiB in {folder.parent}: free some space. Nothing was changed."
        )
    for part in manifest.parts:
        tell = partial(say, f"{part.collection or part.name}: unpacking")
        _extract(archive, next(members, None), folder / part.name, part.name, part.bytes, tell=tell)
    (folder / FILES).mkdir(mode=0o700, exist_ok=True)
    told = manifest.part(CONTENTS)
    for count, content in enumerate(_contents(folder, told) if told else (), start=1):
        tell = partial(say, f"files: unpacking {count} of {manifest.files}")
        _extract(
            archive, next(members, None), folder / FILES / content.id, FILES + content.id, content.bytes, tell=tell
        )
        archive.members.clear()  # type: ignore[attr-defined]  # else it keeps one for each file
    if next(members, None) is not None:
        raise broken("it holds more than its manifest says")
    return manifest


def _extract(
    archive: tarfile.TarFile, member: tarfile.TarInfo | None, path: Path, name: str, size: int, *, tell: Tell
) -> None:
    if member is None or member.name != name:
        raise broken(f"{name} is not where it should be")
    if member.size != size:
        raise broken(f"{name} has another size than its manifest says")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with _content(archive, member) as source, private(path) as target:
        length, _ = hash_of(Told(source, tell), target)
    if length != size:
        raise broken(f"{name} is cut off")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
        raise broken(f"{member.name[:200]} is no plain file")
    found = archive.extractfile(member)
    if found is None:
        raise broken(f"{member.name[:200]} is no plain file")
    return found


def _check(export: Export, say: Say) -> None:
    """Look at every part and every content. Raises `InvalidInput` for the first that is not as it was written."""
    for part in export.manifest.parts:
        with plain(export.folder, part.name) as file:
            found = hash_of(Told(file, partial(say, f"{part.collection or part.name}: checking")))
        if found != (part.bytes, part.sha256):
            raise broken(f"{part.name} is not as it was written")
        lines = sum(1 for _ in lines_of(export.folder, part))
        if lines != part.lines:
            raise broken(f"{part.name} has {lines} lines, not {part.lines}")
    total = count = 0
    for content in export.contents():
        with plain(export.folder / FILES, content.id) as file:
            told = Told(file, partial(say, f"files: checking {count + 1} of {export.manifest.files}"))
            if hash_of(told) != (content.bytes, content.sha256):
                raise broken(f"the content of the file {content.id} is not as it was written")
        total, count = total + content.bytes, count + 1
    if (count, total) != (export.manifest.files, export.manifest.file_bytes):
        raise broken(f"{CONTENTS} tells of other files than its manifest")


def _contents(folder: Path, part: Part) -> Iterator[Content]:
    for number, line in lines_of(folder, part):
        with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
            found: dict[str, Any] = orjson.loads(line)
            content = Content(found["id"], found["bytes"], found["sha256"])
            if _is_sound(content):
                yield content
                continue
        raise broken(f"line {number} of {CONTENTS} cannot be understood")


def _is_sound(content: Content) -> bool:
    return (
        isinstance(content.id, str) and FILE_ID.fullmatch(content.id) is not None
        and isinstance(content.bytes, int) and not isinstance(content.bytes, bool) and content.bytes >= 0
        and isinstance(content.sha256, str) and SHA256.fullmatch(content.sha256) is not None
    )  # fmt: skip


class Bounded:
    """A stream of which nobody can read more at once than is good."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def read(self, size: int = -1) -> bytes:
        """Raises ``ValueError`` for more."""
        if not 0 <= size <= MAX_READ:
            raise ValueError("a header of it is too big")
        data: bytes = self._raw.read(size)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's."""
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        """As a file's."""
        return int(self._raw.tell())

    def seekable(self) -> bool:
        """As a file's."""
        return True

    def readable(self) -> bool:
        """As a file's."""
        return True

    def close(self) -> None:
        """As a file's."""
