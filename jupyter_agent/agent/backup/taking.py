"""Taking a backup, also while the agent and the hub work: databases first, each as of one moment, then what they name.

The contents of the hub's files, which never change but may be deleted, are held by links before and after the hub's
database is copied; the folders of runs that its copy of the state does not know are left out. What is written gets its
name when it is complete and on the disk.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import sqlite3
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from jupyter_agent import __version__
from jupyter_agent.agent.backup.layout import (
    CONTENTS,
    HEAD,
    MADE_ANEW,
    MANIFEST,
    Entry,
    Head,
    Manifest,
    check_link,
    is_left_out,
)
from jupyter_agent.errors import AgentError, Conflict, Failed, InvalidInput, NotFound
from jupyter_agent.home import Home, sync
from jupyter_agent.hub.data.moving import snapshot
from jupyter_agent.hub.transfer.disk import Say, private, scratch
from jupyter_agent.runs.supervisor import WORK

MAGIC = b"SQLite format 3\0"
LEVEL = 3
"""Of gzip: what is big in a home is packed already."""

BUSY_S = 30
ATTEMPTS = 5
PIECE = 1 << 20

HUB_FILES = PurePosixPath("hub/files")
HUB_FILE = PurePosixPath("hub/hub.json")
STORE, STATE = PurePosixPath("hub/hub.db"), PurePosixPath("state.db")
OTHERS_FILES = ("runs", *MADE_ANEW)
"""Where a database may be a run's or a package's own."""

FORGIVEN = ("runs", "logs", *MADE_ANEW)
"""Where a file that cannot be read, or goes meanwhile, does not spoil the backup: it is told."""


@dataclass(frozen=True)
class Taken:
    """What was written, for whoever asked for it."""

    path: Path
    head: Head
    manifest: Manifest
    size: int


@dataclass(frozen=True)
class _Item:
    """Something to be packed; ``source`` is where it is, or what it holds. ``size`` is what it had at first."""

    path: PurePosixPath
    source: Path | bytes
    mode: int
    mtime_ns: int
    size: int


def back_up(home: Home, target: Path, *, everything: bool, force: bool, say: Say) -> Taken:
    """Back the home up into the file ``target``, 0600; with ``everything`` also what can be made anew.

    Raises ``NotFound`` where there is no home, ``Conflict`` when the target is there (unless ``force``), ``Failed`` for
    a database that is damaged, ``Unavailable`` when the disk is full; nothing is left then.
    """
    if not (home.path / "version").exists():
        raise NotFound(f"There is no home at {home.path}: there is nothing to back up.")
    home.check_version()
    _check_target(home, target, force=force)
    with scratch(target.parent) as made, scratch(home.path) as held:
        taking = _Taking(home, made, held, everything=everything, say=say)
        taking.copy_stores()
        taking.list_files()
        finished = made / "finished"
        head, manifest = taking.pack(finished)
        size = finished.stat().st_size
        _give_name(finished, target, force=force)
    return Taken(target, head, manifest, size)


def _check_target(home: Home, target: Path, *, force: bool) -> None:
    if not target.parent.is_dir():
        raise InvalidInput(f"There is no folder {target.parent} to write the backup to.")
    if target.is_dir():
        raise InvalidInput(f"{target} is a folder: name the file to be written.")
    if target.exists() and not target.is_file():  # as root one would put a file in the place of a device
        raise InvalidInput(f"{target} is a device, a pipe or a socket: name the file to be written.")
    if not force and (target.exists() or target.is_symlink()):
        raise Conflict(f"{target} is there already: name another file, or say --force.")
    if target.resolve().is_relative_to(home.path.resolve()):
        raise InvalidInput(f"{target} lies in the home that is backed up: name a file elsewhere.")


def _give_name(finished: Path, target: Path, *, force: bool) -> None:
    if force:
        finished.rename(target)
    else:
        try:
            os.link(finished, target)
        except FileExistsError:
            raise Conflict(f"{target} has come to be meanwhile: name another file, or say --force.") from None
        except OSError:  # a file system without links
            finished.rename(target)
    sync(target.parent)


class _Taking:
    """One backup on its way."""

    def __init__(self, home: Home, made: Path, held: Path, *, everything: bool, say: Say) -> None:
        self._home = home.path
        self._made = made
        self._held = held
        self._everything = everything
        self._say = say
        self._items: list[_Item] = []
        self._entries: list[Entry] = []
        self._left_out: list[str] = []
        self._stores: dict[PurePosixPath, Path] = {}
        self._runs: dict[str, bool] | None = None

    def copy_stores(self) -> None:
        """Copy the databases, each as of one moment, with the contents that the hub's names."""
        hub = self._home / STORE
        if hub.exists():
            self._copy_hub()
        for path in sorted(_stores(self._home)):
            relative = PurePosixPath(path.relative_to(self._home).as_posix())
            if relative != STORE and _is_store(path):
                self._stores[relative] = self._copy(path, f"store-{len(self._stores)}")
        if (state := self._stores.get(STATE)) is not None:
            with contextlib.closing(sqlite3.connect(state)) as connection, contextlib.suppress(sqlite3.Error):
                rows = connection.execute("SELECT id, ended IS NOT NULL FROM runs").fetchall()
                self._runs = {str(id_): bool(ended) for id_, ended in rows}

    def list_files(self) -> None:
        """Note all that is to be packed."""
        for path in _walk(self._home, self._wanted, self._unreadable):
            relative = PurePosixPath(path.relative_to(self._home).as_posix())
            with self._forgiving(relative):
                self._note(path, relative, path.lstat())
        for relative, copy in self._stores.items():
            self._items.append(_Item(relative, copy, 0o600, 0, copy.stat().st_size))
        for content in sorted(self._held.iterdir()):
            found = content.stat()
            self._items.append(_Item(HUB_FILES / content.name, content, 0o600, found.st_mtime_ns, found.st_size))

    def pack(self, target: Path) -> tuple[Head, Manifest]:
        """Write the archive and bring it to the disk."""
        head = Head(
            datetime.now(UTC).isoformat(timespec="seconds"),
            __version__,
            len(self._items),
            sum(item.size for item in self._items),
        )
        with private(target) as file:
            with (
                gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed,
                tarfile.open(fileobj=packed, mode="w:", format=tarfile.PAX_FORMAT) as archive,
            ):
                _add(archive, HEAD, head.text())
                for number, item in enumerate(self._items):
                    self._say(f"packing {number + 1} of {len(self._items)}")
                    with self._forgiving(item.path):
                        self._entries.append(_packed(archive, number, item))
                manifest = Manifest(str(self._home), tuple(self._entries), tuple(self._left_out))
                _add(archive, MANIFEST, manifest.text())
            file.flush()
            os.fsync(file.fileno())
        return head, manifest

    def _copy_hub(self) -> None:
        """The hub's database, and links to the contents of all files that it tells of."""
        files = self._home / HUB_FILES
        missing: set[str] = set()
        for _ in range(ATTEMPTS):
            self._hold(files)
            copy = self._copy(self._home / STORE, "hub-store")
            self._hold(files)
            known = _files_of(copy)
            missing, before = {id_ for id_ in known or () if not (self._held / id_).exists()}, missing
            if missing <= before:
                break
        if known is not None:
            for content in list(self._held.iterdir()):
                if content.name not in known:
                    content.unlink()
        self._left_out += [f"The content of the file {id_} of the hub is missing." for id_ in sorted(missing)]
        self._stores[STORE] = copy

    def _hold(self, files: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(files):
                held = self._held / entry.name
                if entry.is_file(follow_symlinks=False) and not entry.name.endswith(".part") and not held.exists():
                    with contextlib.suppress(FileNotFoundError):
                        _link_or_copy(Path(entry.path), held)

    def _copy(self, store: Path, name: str) -> Path:
        """A copy of a database as it was at one moment. Raises ``Failed`` when it is damaged."""
        self._say(f"copying {store.name}")
        target = self._made / name
        target.unlink(missing_ok=True)
        private(target).close()
        try:
            with (
                contextlib.closing(sqlite3.connect(store, timeout=BUSY_S)) as source,
                contextlib.closing(sqlite3.connect(target, timeout=BUSY_S)) as copy,
            ):
                source.backup(copy)
                (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
                raise OSError(28, "No space left on device") from error
            verdict = str(error)
        if verdict != "ok":
            raise Failed(
                f"{store} cannot be backed up ({verdict}): bring it back from an earlier backup, or move it away."
            )
        return target

    def _wanted(self, relative: PurePosixPath) -> bool:
        parts = relative.parts
        if is_left_out(relative, everything=self._everything):
            return False
        if parts[:2] == HUB_FILES.parts and len(parts) > len(HUB_FILES.parts):
            return False  # they are held
        if parts[0] == "runs" and len(parts) > 2 and self._runs is not None:  # noqa: PLR2004 - runs/<month>/<id>
            ended = self._runs.get(parts[2])
            return ended is not None and (ended or parts[3:4] != (WORK,))
        return True

    def _note(self, path: Path, relative: PurePosixPath, found: os.stat_result) -> None:
        mode, name = stat.S_IMODE(found.st_mode), str(relative)
        if stat.S_ISDIR(found.st_mode):
            self._entries.append(Entry(name, "folder", mode, found.st_mtime_ns))
        elif stat.S_ISLNK(found.st_mode):
            target = str(path.readlink())
            try:
                check_link(relative, target)
            except InvalidInput:
                self._left_out.append(f"The link {name!r} leads out of its folder, to {target!r}.")
            else:
                self._entries.append(Entry(name, "link", mode, found.st_mtime_ns, target=target))
        elif stat.S_ISREG(found.st_mode) and relative not in self._stores:
            source: Path | bytes = path
            if relative == HUB_FILE:
                source = _hub_file(path)
            size = len(source) if isinstance(source, bytes) else found.st_size
            self._items.append(_Item(relative, source, mode, found.st_mtime_ns, size))

    @contextlib.contextmanager
    def _forgiving(self, relative: PurePosixPath) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            pass  # it went meanwhile
        except PermissionError as error:
            self._unreadable(relative, error)

    def _unreadable(self, relative: PurePosixPath, error: OSError) -> None:
        """Tell of it, or raise ``InvalidInput`` where nothing may be missing."""
        if relative.parts[0] not in FORGIVEN:
            raise InvalidInput(
                f"{relative} in the home cannot be read ({error.strerror}): mend its owner or its mode."
            ) from error
        self._left_out.append(f"{relative} cannot be read ({error.strerror}).")


def _stores(home: Path) -> Iterator[Path]:
    for folder in (home, *(below for below in home.iterdir() if below.is_dir() and below.name not in OTHERS_FILES)):
        yield from folder.glob("*.db")


def _is_store(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return not path.is_symlink() and file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _files_of(store: Path) -> set[str] | None:
    """The files that a hub's database tells of; ``None`` when that is of another version, and all are kept."""
    try:
        with snapshot(store) as taken:
            return set(taken.ids("fs.files"))
    except AgentError:
        return None


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        with source.open("rb") as reader, private(target) as writer:
            while data := reader.read(PIECE):
                writer.write(data)


def _hub_file(path: Path) -> bytes:
    """The hub's address without its process, so that it keeps its port and nobody takes another's hub for it."""
    try:
        stored = json.loads(path.read_bytes())
    except ValueError:
        stored = {}
    kept = {name: stored[name] for name in ("apiurl", "grpcapiurl") if isinstance(stored, dict) and name in stored}
    return json.dumps(kept).encode()


def _walk(
    folder: Path, wanted: Callable[[PurePosixPath], bool], unreadable: Callable[[PurePosixPath, OSError], None]
) -> Iterator[Path]:
    """All below a folder, a folder before what is in it; links are not followed."""

    def below(place: Path) -> Iterator[Path]:
        try:
            paths = sorted(place.iterdir())
        except FileNotFoundError:
            return
        except PermissionError as error:
            unreadable(PurePosixPath(place.relative_to(folder).as_posix()), error)
            return
        for path in paths:
            if wanted(PurePosixPath(path.relative_to(folder).as_posix())):
                yield path
                if path.is_dir() and not path.is_symlink():
                    yield from below(path)

    return below(folder)


def _packed(archive: tarfile.TarFile, number: int, item: _Item) -> Entry:
    with _opened(item.source) as file:
        size = item.size if isinstance(item.source, bytes) else min(item.size, os.fstat(file.fileno()).st_size)
        reader = _Exactly(file, size)
        archive.addfile(_info(f"{CONTENTS}{number}", size), cast("IO[bytes]", reader))
    archive.members.clear()  # type: ignore[attr-defined]  # else it keeps one for each file
    return Entry(str(item.path), "file", item.mode, item.mtime_ns, number, reader.found, reader.hashed.hexdigest())


def _opened(source: Path | bytes) -> IO[bytes]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.fdopen(descriptor, "rb")


class _Exactly:
    """A file of which so much is read as it had at first: it may grow meanwhile, or lose some, for which zeros come."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self._is_short = False
        self.found = 0
        self.hashed: Any = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """As a file's, for ``tarfile``."""
        data = b"" if self._is_short else self._file.read(min(size, self._size - self.found))
        self._is_short = len(data) < size
        self.found += len(data)
        self.hashed.update(data)
        return data + bytes(size - len(data))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(_info(name, len(data)), io.BytesIO(data))


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info
