"""Packages that may be trusted: the sha256 of their archives, and where their files would go.

rattler checks the sha256 of what it fetches over http, but not of a ``file://`` package, nor whether a package names
files outside of the prefix. What was looked at once is marked inside the extracted package: rattler replaces that
folder as a whole when it extracts the package anew, and the mark goes with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from jupyter_agent.errors import AgentError, Failed, InvalidInput, NotFound

MARK = "info/jupyter_agent-checked"

OUTSIDE = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:|\x00")
"""A path that leads out of the folder that it is meant for."""

OWN = re.compile(
    r"(ready|tainted|removing|lock|\.trust|\.fingerprint|jupyter_agent-activation\.json)(/|$)"
    r"|conda-meta(/history|/state)?$"
)
"""What the environment itself has in a prefix: a package's ``ready`` would make a half-made one count."""

SUFFIXES = (".conda", ".tar.bz2")


@dataclass(frozen=True)
class Seen:
    """Of an extracted package: its archive's hash, files, bytes, and those of files that no prefix shares.

    ``sample`` is one that prefixes share where they can, ``""`` when there is none.
    """

    digest: str
    files: int
    bytes: int
    own_bytes: int
    sample: str

    @classmethod
    def of(cls, digest: str, record: Mapping[str, Any]) -> Self:
        """From a record in conda-meta."""
        entries = record.get("paths_data", {}).get("paths", [])
        shared = [entry for entry in entries if _is_shared(entry)]
        total, linked = (sum(entry.get("size_in_bytes") or 0 for entry in group) for group in (entries, shared))
        sample = shared[0]["_path"] if shared else ""
        return cls(digest, len(entries), total, total - linked, sample)


@dataclass(frozen=True)
class Archive:
    """A locked conda package; ``folder`` is where rattler extracts it, ``path`` the archive of a file:// URL."""

    name: str
    url: str
    sha256: str
    md5: str
    folder: str
    path: Path | None

    def seen(self) -> Seen | None:
        """What was found when its extracted files were looked at; ``None``: they were not."""
        try:
            with open(f"{self.folder}/{MARK}", "rb") as file:  # noqa: PTH123 - dozens of them: half the time of Path's
                found = Seen(**json.loads(file.read()))
        except (OSError, ValueError, TypeError):
            return None
        return found if found.digest == self.digest else None

    @property
    def digest(self) -> str:
        """What of its hashes the lock knows."""
        return self.sha256 or self.md5

    def mark(self, record: Mapping[str, Any]) -> Seen:
        """It was looked at; ``record`` is what conda-meta has of it."""
        seen = Seen.of(self.digest, record)
        with contextlib.suppress(OSError):  # a cache that may not be written: it is looked at again the next time
            Path(self.folder, MARK).write_text(json.dumps(asdict(seen)))
        return seen

    def record(self, prefix: Path) -> dict[str, Any]:
        """What conda-meta of a prefix has of it."""
        file = prefix / "conda-meta" / f"{Path(self.folder).name}.json"
        found: dict[str, Any] = json.loads(file.read_bytes())
        return found

    def check_paths(self) -> None:
        """Raise ``InvalidInput`` when one of its files would lie outside of the prefix, or in the place of ours."""
        for path in _paths(Path(self.folder)):
            if OUTSIDE.search(path) or OWN.match(posixpath.normpath(path)):
                raise self._astray(path)
        if through := _through_links(Path(self.folder)):
            raise self._astray(through)

    def _astray(self, path: str) -> AgentError:
        return InvalidInput(f"The package {self.name} would put {path!r} where it may not be: it was not installed.")


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


def _through_links(folder: Path) -> str | None:
    """A file of the package that would be written through one of its own links, away from where it is to be."""
    try:
        entries = json.loads((folder / "info" / "paths.json").read_bytes()).get("paths", [])
    except FileNotFoundError:
        return None
    links = {entry["_path"] for entry in entries if entry.get("path_type") == "softlink"}
    if not links:
        return None
    paths = (entry["_path"] for entry in entries)
    return next((path for path in paths if any(str(above) in links for above in Path(path).parents)), None)


def _is_shared(entry: Mapping[str, Any]) -> bool:
    """Whether a file, by its entry in conda-meta, is the same in all prefixes."""
    return entry.get("path_type") == "hardlink" and not entry.get("prefix_placeholder")
