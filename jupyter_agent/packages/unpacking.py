"""Taking a package's archive apart so that nothing escapes and nothing half-made is left.

Knows what may be in an archive, and where it goes. Refuses to know how archives are read, and servers. It decides first
and acts then: ``plan`` says what an archive would put where, and whether it may; only then is a file written.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import re
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from jupyter_agent.errors import AgentError, Conflict, Failed, InvalidInput, NotFound, Unavailable
from jupyter_agent.home import sync
from jupyter_agent.packages.archives import BOUNDS, Bounds, Entry, Read, opened
from jupyter_agent.packages.entries import package_root

BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    ArithmeticError,
    LookupError,
    RuntimeError,  # zipfile: NotImplementedError (an unknown version); also RecursionError
    ValueError,
)
"""What the standard library raises on archives that are broken in one way or another."""

LONGEST_NAME_BYTES = 255
LONGEST_PATH_BYTES = 1000
"""What systems take, less the way to a home."""

SINGLY = 200
"""So many files are brought to the disk one by one; of more, all that waits for it is quicker."""


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
            with opened(archive, Path(building), bounds) as (entries, read):
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
    names = Names()
    total = 0
    for entry in entries:
        path = safe_path(entry.name)
        total += entry.size if entry.kind != "hardlink" else _size_of(kinds, entry)
        names.add(path)
        bounds.check(count=max(entry.index + 1, len(names)), total=total, packed_bytes=packed_bytes)
        known = kinds.get(path)
        if known and not known.kind == entry.kind == "folder":
            raise InvalidInput(f"it holds {entry.name!r} twice")
        if path.parts or entry.kind != "folder":
            kinds[path] = entry
    if not any(entry.kind == "file" for entry in kinds.values()):
        raise InvalidInput("it holds no files")
    _check_folders(kinds)
    return _layout(kinds)


def _size_of(kinds: dict[PurePosixPath, Entry], link: Entry) -> int:
    """What a hard link adds to every copy of the package: the file again."""
    target = kinds.get(safe_path(link.target))
    return target.size if target else 0


def _check_folders(kinds: dict[PurePosixPath, Entry]) -> None:
    """Refuse what lies below something that is no folder."""
    sound: set[PurePosixPath] = set()
    for path in kinds:
        for parent in path.parents:
            if parent in sound:
                break
            if parent in kinds and kinds[parent].kind != "folder":
                raise InvalidInput(f"it puts {str(path)!r} below {str(parent)!r}, which is no folder")
            sound.add(parent)


def safe_path(name: str) -> PurePosixPath:
    """The relative path that a name in an archive means. Raises ``InvalidInput`` for one that is not safe anywhere."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise InvalidInput(f"it holds {name!r}, which leads out of the package")
    if "\\" in name or any(ord(char) < ord(" ") or "\ud800" <= char <= "\udfff" for char in name):
        raise InvalidInput(f"it holds {name!r}, which has characters that file names should not have")
    longest = max((len(os.fsencode(part)) for part in parts), default=0)
    if longest > LONGEST_NAME_BYTES or len(os.fsencode(name)) > LONGEST_PATH_BYTES:
        raise InvalidInput(f"it holds a name that is too long: {name[:60]!r}…")
    return PurePosixPath(*parts)


class Names:
    """Names that are distinct also where capitals, and composed letters, do not count; with those of their folders."""

    def __init__(self) -> None:
        self._known: dict[str, PurePosixPath] = {}

    def __len__(self) -> int:
        """How many there are: files and folders."""
        return len(self._known)

    def add(self, path: PurePosixPath) -> None:
        """Raise ``InvalidInput`` for a name that is another's on some systems."""
        for step in (path, *path.parents):
            if not step.parts:
                return
            known = self._known.setdefault(unicodedata.normalize("NFC", str(step)).casefold(), step)
            if known != step:
                raise InvalidInput(f"it holds {str(known)!r} and {str(step)!r}, which are one name on some systems")
            if known is not step:
                return  # so are its folders


def check_distinct(paths: Iterable[PurePosixPath]) -> None:
    """Raise ``InvalidInput`` when two names, also of folders, are one where capitals or composed letters count not."""
    names = Names()
    for path in paths:
        names.add(path)


def _layout(kinds: dict[PurePosixPath, Entry]) -> Layout:
    layout = Layout()
    for path, entry in kinds.items():
        match entry.kind:
            case "folder":
                layout.folders.append(path)
            case "file" if entry.changes_user:
                raise InvalidInput(f"it holds {entry.name!r}, which is to run as another user (setuid or setgid)")
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
        raise InvalidInput(f"{archive.name} is not a readable archive: {_in_a_line(error)}.") from error
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


def _in_a_line(error: Exception) -> str:
    """What a library says, which may quote the archive."""
    text = " ".join(str(error).split())
    return "".join(char if char.isprintable() else "?" for char in text)[:200] or type(error).__name__


def _write(layout: Layout, content: Path, read: Read) -> None:
    for path in layout.folders:
        (content / path).mkdir(parents=True, exist_ok=True)
    for path, entry in layout.files.items():
        target = content / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            for piece in read(entry):
                file.write(piece)
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
    paths = [root, *root.rglob("*")]
    if len(paths) > SINGLY:
        os.sync()
        return
    for path in paths:
        if not path.is_symlink():
            sync(path)
