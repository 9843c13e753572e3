"""Taking a package's archive apart so that nothing escapes and nothing half-made is left.

Knows tar, gzip and zip, and what may be in an archive. Refuses to know servers. It decides first and acts then:
``plan`` says what an archive would put where, and whether it may; only then is a file written.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import re
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from jupyter_agent.errors import AgentError, Conflict, Failed, InvalidInput, NotFound, Unavailable
from jupyter_agent.home import sync
from jupyter_agent.packages.entries import package_root

BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ArithmeticError,
    LookupError,
    RuntimeError,  # zipfile: encrypted; also RecursionError and NotImplementedError (an unknown compression)
    ValueError,
)
"""What the standard library raises on archives that are broken in one way or another."""

LONGEST_HEADER_BYTES = 16 << 20
"""Tar's extended headers are read into memory as a whole."""


@dataclass(frozen=True)
class Bounds:
    """What an archive may hold. The ratio (unpacked to packed) counts only above ``ratio_from_bytes``."""

    files: int = 100_000
    total_bytes: int = 4 << 30
    ratio: int = 200
    ratio_from_bytes: int = 256 << 20


BOUNDS = Bounds()

Kind = Literal["file", "folder", "symlink", "hardlink", "special"]


@dataclass(frozen=True)
class Entry:
    """One thing in an archive, as the archive says; ``index`` counts within it, ``size`` is in bytes."""

    index: int
    name: str
    kind: Kind
    size: int = 0
    executable: bool = False
    target: str = ""


@dataclass
class Layout:
    """What an archive puts where, checked: the paths are relative, distinct, and stay in the folder."""

    folders: list[PurePosixPath] = field(default_factory=list)
    files: dict[PurePosixPath, Entry] = field(default_factory=dict)
    symlinks: dict[PurePosixPath, str] = field(default_factory=dict)
    hardlinks: dict[PurePosixPath, PurePosixPath] = field(default_factory=dict)


def unpack(archive: Path, folder: Path, *, bounds: Bounds = BOUNDS) -> None:
    """Unpack a package's archive (gzipped tar, or zip) as ``folder``, which must not exist or be empty.

    All or nothing: it is built beside ``folder``, made durable, renamed. A single folder around the package
    (``package/``) is taken off; modes become 0644 or 0755. Raises ``InvalidInput`` for whatever is wrong with the
    archive, ``NotFound`` when it is not there, ``Conflict`` when ``folder`` is not empty, ``Unavailable`` when the disk
    is full.
    """
    with _explained(archive, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name[:40]}.") as building:
            content = Path(building) / "content"
            content.mkdir()
            with _opened(archive, Path(building), bounds) as (entries, read):
                layout = plan(entries, packed_bytes=archive.stat().st_size, bounds=bounds)
                _write(layout, content, read)
            root = package_root(content)
            _write_symlinks(layout, content, PurePosixPath(root.relative_to(content).as_posix()))
            _make_durable(root)
            root.rename(folder)
            sync(folder.parent)


def plan(entries: Iterable[Entry], *, packed_bytes: int, bounds: Bounds) -> Layout:
    """What the entries put where. Raises ``InvalidInput`` (what the archive does wrong) for one that may not be."""
    kinds: dict[PurePosixPath, Entry] = {}
    total = 0
    for entry in entries:
        total += entry.size
        _check_bounds(entry.index + 1, total, packed_bytes, bounds)
        path = safe_path(entry.name)
        known = kinds.get(path)
        if known and not known.kind == entry.kind == "folder":
            raise InvalidInput(f"it holds {entry.name!r} twice")
        if path.parts or entry.kind != "folder":
            kinds[path] = entry
    if not any(entry.kind == "file" for entry in kinds.values()):
        raise InvalidInput("it holds no files")
    check_distinct(kinds)
    for path in kinds:
        for parent in path.parents:
            if parent in kinds and kinds[parent].kind != "folder":
                raise InvalidInput(f"it puts {str(path)!r} below {str(parent)!r}, which is no folder")
    return _layout(kinds)


def safe_path(name: str) -> PurePosixPath:
    """The relative path that a name in an archive means. Raises ``InvalidInput`` for one that is not safe anywhere."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise InvalidInput(f"it holds {name!r}, which leads out of the package")
    if "\\" in name or any(ord(char) < ord(" ") or "\ud800" <= char <= "\udfff" for char in name):
        raise InvalidInput(f"it holds {name!r}, which has characters that file names should not have")
    if any(len(os.fsencode(part)) > 255 for part in parts) or len(os.fsencode(name)) > 3000:  # noqa: PLR2004 - Linux's
        raise InvalidInput(f"it holds a name that is too long: {name[:60]!r}…")
    return PurePosixPath(*parts)


def check_distinct(paths: Iterable[PurePosixPath]) -> None:
    """Raise ``InvalidInput`` when two names, also of folders, are one where capitals or composed letters count not."""
    exact: dict[str, PurePosixPath] = {}
    for path in paths:
        for step in (path, *path.parents):
            known = exact.setdefault(unicodedata.normalize("NFC", str(step)).casefold(), step)
            if known != step:
                raise InvalidInput(f"it holds {str(known)!r} and {str(step)!r}, which are one name on some systems")


def _check_bounds(count: int, total: int, packed_bytes: int, bounds: Bounds) -> None:
    if count > bounds.files:
        raise InvalidInput(f"it holds more than {bounds.files} files")
    if total > bounds.total_bytes:
        raise InvalidInput(f"it unpacks to more than {bounds.total_bytes >> 20} MiB")
    if total > bounds.ratio_from_bytes and total > bounds.ratio * packed_bytes:
        raise InvalidInput(f"it unpacks to more than {bounds.ratio} times its size")


def _layout(kinds: dict[PurePosixPath, Entry]) -> Layout:
    layout = Layout()
    for path, entry in kinds.items():
        match entry.kind:
            case "folder":
                layout.folders.append(path)
            case "file" if path.parts:
                layout.files[path] = entry
            case "symlink":
                _check_link(path, entry.target, PurePosixPath())
                layout.symlinks[path] = entry.target
            case "hardlink":
                target = safe_path(entry.target)
                if target not in layout.files:
                    raise InvalidInput(f"it links {entry.name!r} to {entry.target!r}, which is no file before it")
                layout.hardlinks[path] = target
            case _:
                raise InvalidInput(f"it holds {entry.name!r}, which is no file, folder or link")
    return layout


def _check_link(path: PurePosixPath, target: str, root: PurePosixPath) -> None:
    """Refuse a symbolic link that leads out of ``root``.

    ``..`` may stand at the beginning only: behind a name that is a link itself it would mean another folder than it
    seems to. As nothing lies below a link, those at the beginning mean what they seem to.
    """
    steps = [step for step in target.split("/") if step not in ("", ".")]
    ups = next((count for count, step in enumerate(steps) if step != ".."), len(steps))
    depth = len(path.relative_to(root).parent.parts)
    if not steps or target.startswith("/") or ".." in steps[ups:] or ups > depth:
        raise InvalidInput(f"it links {str(path)!r} to {target!r}, which may lie outside the package")
    safe_path("/".join(steps[ups:]))


@contextlib.contextmanager
def _explained(archive: Path, folder: Path) -> Iterator[None]:
    """Say what is wrong with an archive, or with the place it is unpacked to, in one sentence."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{archive.name} cannot be unpacked: {error}.") from error
    except AgentError:
        raise
    except BROKEN as error:
        raise InvalidInput(
            f"{archive.name} is not a readable archive: {str(error) or type(error).__name__}."
        ) from error
    except OSError as error:
        raise _translated(error, archive, folder) from error


def _translated(error: OSError, archive: Path, folder: Path) -> AgentError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"The disk is full: {archive.name} could not be unpacked to {folder}.")
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
        return Conflict(f"{folder} is there already: remove it first.")
    if error.errno == errno.EINVAL:  # zipfile, sent to a place before the file's begin
        return InvalidInput(f"{archive.name} is not a readable archive: it points outside itself.")
    if isinstance(error, FileNotFoundError) and not archive.exists():
        return NotFound(f"There is no archive {archive}.")
    return Failed(f"{archive.name} could not be unpacked to {folder}: {error.strerror or error}.")


Read = Callable[[Entry], contextlib.AbstractContextManager[IO[bytes]]]
"""Opens what an entry holds."""


@contextlib.contextmanager
def _opened(archive: Path, scratch: Path, bounds: Bounds) -> Iterator[tuple[Iterator[Entry], Read]]:
    """The entries of an archive and how to read them; its kind is told by its first bytes, not by its name."""
    with archive.open("rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with _gunzipped(raw, scratch, bounds) as plain, tarfile.open(fileobj=plain, mode="r:") as tar:
                members: list[tarfile.TarInfo] = []
                yield _tar_entries(tar, plain, members), lambda entry: _tar_file(tar, members[entry.index])
        elif magic in (b"PK\x03\x04", b"PK\x05\x06"):
            with zipfile.ZipFile(raw) as zipped:
                infos = zipped.infolist()
                yield _zip_entries(zipped, infos), lambda entry: zipped.open(infos[entry.index])
        else:
            raise ValueError("it is neither a gzipped tar (.tgz) nor a zip")


class _Plain(io.BufferedReader):
    """An unpacked tar; refuses to read what tarfile would take into memory as a whole, or backwards."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes."""
        if size is None or not 0 <= size <= LONGEST_HEADER_BYTES:
            raise ValueError(f"it has a header of {size} bytes")
        return super().read(size)


@contextlib.contextmanager
def _gunzipped(raw: IO[bytes], scratch: Path, bounds: Bounds) -> Iterator[_Plain]:
    """The tar in a gzip, on disk, so that its end (and gzip's check sum) is known before anything is made of it."""
    path = scratch / "content.tar"
    packed = os.fstat(raw.fileno()).st_size
    with gzip.GzipFile(fileobj=raw) as packed_stream, path.open("xb") as file:
        while data := packed_stream.read(1 << 20):
            file.write(data)
            _check_bounds(0, file.tell(), packed, bounds)
    with _Plain(io.FileIO(path)) as plain:
        yield plain


def _tar_entries(tar: tarfile.TarFile, plain: _Plain, members: list[tarfile.TarInfo]) -> Iterator[Entry]:
    for index, member in enumerate(tar):
        if member.size < 0:
            raise ValueError("it holds a file of less than no bytes")
        members.append(member)
        yield Entry(
            index=index,
            name=member.name,
            kind=_tar_kind(member),
            size=member.size,
            executable=bool(member.mode & stat.S_IXUSR),
            target=member.linkname,
        )
    plain.seek(tar.offset)
    while rest := plain.read(1 << 20):
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


def _tar_file(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    if file is None:
        raise ValueError(f"{member.name!r} holds nothing")
    return file


def _zip_entries(zipped: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> Iterator[Entry]:
    for index, info in enumerate(infos):
        mode = info.external_attr >> 16
        kind: Kind = "folder" if info.is_dir() else "symlink" if stat.S_ISLNK(mode) else "file"
        if kind == "symlink" and info.file_size > LONGEST_HEADER_BYTES:
            raise ValueError(f"{info.filename!r} is no link")
        yield Entry(
            index=index,
            name=info.filename,
            kind=kind,
            size=info.file_size,
            executable=bool(mode & stat.S_IXUSR),
            target=zipped.read(info).decode() if kind == "symlink" else "",
        )


def _write(layout: Layout, content: Path, read: Read) -> None:
    for path in layout.folders:
        (content / path).mkdir(parents=True, exist_ok=True)
    for path, entry in layout.files.items():
        target = content / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with read(entry) as source, target.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            if file.tell() != entry.size:
                raise ValueError(f"{entry.name!r} is cut off")
        target.chmod(0o755 if entry.executable else 0o644)
    for path, original in layout.hardlinks.items():
        (content / path).parent.mkdir(parents=True, exist_ok=True)
        (content / path).hardlink_to(content / original)


def _write_symlinks(layout: Layout, content: Path, root: PurePosixPath) -> None:
    """Last of all, so that nothing is written through a link; those outside the package are not made."""
    for path, target in layout.symlinks.items():
        if path.is_relative_to(root):
            _check_link(path, target, root)
            (content / path).parent.mkdir(parents=True, exist_ok=True)
            (content / path).symlink_to(target)


def _make_durable(root: Path) -> None:
    """Bring everything below ``root`` to the disk."""
    root.chmod(0o755)
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                sync(path)
        sync(Path(folder))
