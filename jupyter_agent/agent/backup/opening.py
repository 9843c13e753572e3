"""Opening a backup that anybody may have made: unpacked, compared with its manifest, and only then given its names."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jupyter_agent.agent.backup.layout import (
    CONTENTS,
    HEAD,
    MANIFEST,
    MAX_HEAD,
    MAX_MANIFEST,
    PRIVATE,
    Entry,
    Head,
    Manifest,
    broken,
    head_of,
    manifest_of,
)
from jupyter_agent.errors import InvalidInput, NotFound, Unavailable
from jupyter_agent.home import sync
from jupyter_agent.hub.transfer.disk import Say, hash_of, private
from jupyter_agent.hub.transfer.opening import BROKEN, MAX_TAIL, SPARE, Bounded

OWN = 0o600
"""What the owner may do with any file, and nobody else with those that lie beside the databases."""


@dataclass(frozen=True)
class Backup:
    """A backup that was checked as a whole; ``folder`` is the home that was made of it."""

    folder: Path
    head: Head
    manifest: Manifest


@dataclass(frozen=True)
class _Content:
    path: Path
    bytes: int


def open_backup(source: Path, folder: Path, say: Say) -> Backup:
    """Make the home that is in a backup as the new ``folder``, on the disk.

    Raises ``NotFound``, ``InvalidInput`` for what is no backup or a damaged one, ``NewerVersion``, and ``Unavailable``
    when the disk has no room. ``OSError`` is for who knows which disk that is.
    """
    if not source.is_file():
        raise NotFound(f"There is no file {source}.")
    folder.mkdir(mode=PRIVATE)
    unpacked = folder.with_name(f"{folder.name}-contents")
    unpacked.mkdir(mode=PRIVATE)
    try:
        with source.open("rb") as packed, gzip.open(packed) as raw:
            with tarfile.open(fileobj=Bounded(raw), mode="r:") as archive:  # type: ignore[call-overload]
                head, contents, manifest = _unpacked(archive, unpacked, say)
            if len(raw.read(MAX_TAIL)) == MAX_TAIL:  # to the end, where gzip's own checksum is
                raise broken("there is something behind its end")
    except BROKEN as error:
        raise InvalidInput(
            f"{source} is no backup of a home, or a damaged one ({error or type(error).__name__}). Nothing was changed."
        ) from error
    _put_together(folder, manifest, contents, say)
    shutil.rmtree(unpacked)
    return Backup(folder, head, manifest)


def _unpacked(archive: tarfile.TarFile, folder: Path, say: Say) -> tuple[Head, dict[int, _Content], Manifest]:
    members = _members(archive)
    first = next(members, None)
    if first is None or first.name != HEAD:
        raise InvalidInput("This is no backup of a home: it does not begin with its head. Nothing was changed.")
    head = head_of(_read(archive, first, MAX_HEAD))
    if head.size + SPARE > shutil.disk_usage(folder).free:
        raise Unavailable(f"The backup needs {head.size >> 20} MiB in {folder.parent.parent}: free some space.")
    contents: dict[int, _Content] = {}
    total = 0
    for member in members:
        if member.name == MANIFEST:
            manifest = manifest_of(_read(archive, member, MAX_MANIFEST))
            if next(members, None) is not None:
                raise broken("it holds more than its manifest says")
            return head, contents, manifest
        number, total = _number(member.name), total + member.size
        if number in contents or len(contents) >= head.files or total > head.size:
            raise broken("it holds more than its head says")
        say(f"unpacking {len(contents) + 1} of {head.files}")
        contents[number] = _Content(folder / str(number), member.size)
        with _file(archive, member) as source, private(contents[number].path) as target:
            shutil.copyfileobj(source, target, 1 << 20)
            if target.tell() != member.size:
                raise broken(f"{member.name} is cut off")
    raise broken("its manifest is missing")


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        yield member
        archive.members.clear()  # type: ignore[attr-defined]  # else it keeps one for each file


def _number(name: str) -> int:
    text = name.removeprefix(CONTENTS)
    if not name.startswith(CONTENTS) or not text.isascii() or not text.isdigit() or len(text) > 12:  # noqa: PLR2004
        raise broken(f"it holds {name[:200]!r}, which no backup has")
    return int(text)


def _file(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    found = archive.extractfile(member) if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) else None
    if found is None or member.sparse is not None:
        raise broken(f"{member.name[:200]!r} is no plain file")
    return found


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    if member.size > most:
        raise broken(f"its {member.name} is too big")
    return _file(archive, member).read()


def _put_together(folder: Path, manifest: Manifest, contents: dict[int, _Content], say: Say) -> None:
    """Give the contents their names, the links last, so that nothing is written through one; all of it on the disk."""
    files = [entry for entry in manifest.entries if entry.kind == "file"]
    if {entry.content for entry in files} != set(contents):
        raise broken("its manifest tells of other contents than there are")
    folders = [entry for entry in manifest.entries if entry.kind == "folder"]
    for entry in sorted(folders, key=lambda entry: entry.path.count("/")):
        (folder / entry.path).mkdir(mode=PRIVATE)
    for number, entry in enumerate(files, start=1):
        say(f"checking {number} of {len(files)}")
        _place(folder, entry, contents[entry.content])
    for entry in manifest.entries:
        if entry.kind == "link":
            (folder / entry.path).symlink_to(entry.target)
    for entry in sorted(folders, key=lambda entry: -entry.path.count("/")):
        path = folder / entry.path
        sync(path)
        path.chmod(PRIVATE | (entry.mode if "/" in entry.path else 0))
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
    sync(folder)


def _place(folder: Path, entry: Entry, content: _Content) -> None:
    path = folder / entry.path
    if entry.bytes > content.bytes:
        raise broken(f"{entry.path[:200]!r} is cut off")
    if path.exists() or path.is_symlink():  # a file system that does not tell capitals apart
        raise InvalidInput(
            f"{entry.path!r} is in the backup in two spellings, which are one here. Nothing was changed."
        )
    if entry.bytes < content.bytes:  # it lost some while it was packed
        os.truncate(content.path, entry.bytes)
    with content.path.open("rb") as file:
        if hash_of(file) != (entry.bytes, entry.sha256):
            raise broken(f"{entry.path[:200]!r} is not as it was written")
        os.fsync(file.fileno())
    content.path.rename(path)
    path.chmod(OWN | (entry.mode if entry.path.count("/") > 1 else 0))
    if entry.mtime_ns:
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
