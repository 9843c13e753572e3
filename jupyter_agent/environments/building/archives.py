"""Packages that may be trusted: the sha256 of their archives, and where their files would go.

rattler checks the sha256 of what it fetches over http, but not of a ``file://`` package, nor whether a package names
files outside of the prefix. What was looked at once is marked inside the extracted package: rattler replaces that
folder as a whole when it extracts the package anew, and the mark goes with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from jupyter_agent.errors import AgentError, Failed, InvalidInput, NotFound

MARK = "info/jupyter_agent-checked"

OUTSIDE = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:|\x00")
"""A path that leads out of the folder that it is meant for."""

SUFFIXES = (".conda", ".tar.bz2")


@dataclass(frozen=True)
class Archive:
    """A locked conda package; ``folder`` is where rattler extracts it, ``path`` the archive of a file:// URL."""

    name: str
    url: str
    sha256: str
    md5: str
    folder: str
    path: Path | None

    def is_checked(self) -> bool:
        """Whether what is extracted was looked at."""
        try:
            with open(f"{self.folder}/{MARK}") as file:  # noqa: PTH123 - 52 of them: half the time of Path's
                return file.read() == self.digest
        except OSError:
            return False

    @property
    def digest(self) -> str:
        """What of its hashes the lock knows."""
        return self.sha256 or self.md5

    def mark(self) -> None:
        """It was looked at."""
        with contextlib.suppress(OSError):  # a cache that may not be written: it is looked at again the next time
            Path(self.folder, MARK).write_text(self.digest)

    def check_paths(self) -> None:
        """Raise ``InvalidInput`` when one of its files would lie outside of the prefix."""
        for path in _paths(Path(self.folder)):
            if OUTSIDE.search(path):
                raise InvalidInput(
                    f"The package {self.name} would put {path!r} outside of the environment: it was not installed."
                )


def archive_of(record: Any, packages: Path) -> Archive:
    """Of a rattler ``RepoDataRecord``; ``packages`` is the folder of extracted ones."""
    stem = record.file_name
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    url = str(record.url)
    parts = urlsplit(url) if url.startswith("file:") else None
    path = Path(unquote(parts.path)) if parts is not None else None
    digests = ["" if value is None else value.hex() for value in (record.sha256, record.md5)]
    return Archive(record.name.normalized, url, digests[0], digests[1], f"{packages}/{stem}", path)


def check_all(archives: Iterable[Archive]) -> dict[Archive, tuple[int, ...]]:
    """Hold each archive of a file:// URL against its hash; how each stood on the disk then (``standing``).

    Raises ``NotFound`` or ``Failed``, in which the archive is named. Two at a time: they are read once.
    """
    local = [archive for archive in archives if archive.path is not None]
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(local, threads.map(_checked, local), strict=True))


def standing(archive: Archive) -> tuple[int, ...]:
    """What changes when the archive is written or replaced."""
    if archive.path is None:
        return ()
    state = archive.path.stat()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _checked(archive: Archive) -> tuple[int, ...]:
    if archive.path is None:
        return ()
    try:
        before = standing(archive)
        with archive.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256" if archive.sha256 else _md5).hexdigest()
    except FileNotFoundError as error:
        raise NotFound(f"The package {archive.path} is not there any more: lock the environment again.") from error
    except OSError as error:
        raise Failed(f"The package {archive.path} cannot be read: {error.strerror or error}.") from error
    if found != archive.digest:
        raise swapped(archive.url, found, archive.digest)
    return before


def swapped(url: str, found: str, locked: str) -> AgentError:
    """The error of an archive that is not the one that was locked."""
    return Failed(
        f"{url} is not the package that was locked (its hash is {found[:12]}…, the lock has {locked[:12]}…): "
        "it was changed or damaged; get it anew, or lock the environment again."
    )


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def _paths(folder: Path) -> Iterator[str]:
    """Where a package's files are to go, by all lists that rattler reads."""
    info = folder / "info"
    with contextlib.suppress(FileNotFoundError):
        for entry in json.loads((info / "paths.json").read_bytes()).get("paths", []):
            yield str(entry.get("_path", ""))
    with contextlib.suppress(FileNotFoundError):
        yield from (info / "files").read_text(encoding="utf-8", errors="replace").splitlines()
    with contextlib.suppress(FileNotFoundError):
        noarch = json.loads((info / "link.json").read_bytes()).get("noarch")
        for entry in (noarch.get("entry_points") or []) if isinstance(noarch, dict) else []:
            yield str(entry).partition("=")[0].strip()


def through_links(folder: Path) -> str | None:
    """A file of the package that would be written through one of its own links, away from where it is to be."""
    entries = json.loads((folder / "info" / "paths.json").read_bytes()).get("paths", [])
    links = {entry["_path"] for entry in entries if entry.get("path_type") == "softlink"}
    if not links:
        return None
    paths = (entry["_path"] for entry in entries)
    return next((path for path in paths if any(str(above) in links for above in Path(path).parents)), None)


def size(archive: Archive) -> int:
    """Bytes of an archive of a file:// URL, 0 for others."""
    with contextlib.suppress(OSError):
        return os.stat(archive.path).st_size if archive.path is not None else 0  # noqa: PTH116 - as above
    return 0
