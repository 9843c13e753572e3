"""Bytecode that is kept beside the package cache: made once for a package and a Python, hard-linked into prefixes.

``<tag>-<magic>-<site>/<sha256 of the package>/`` holds ``0.pyc``, ``1.pyc``, ... and ``manifest.json``, which says
whose they are; it comes there as a whole, by a rename. Bytecode counts while its source has the time and size that
stand in it: a hard link has those of the cache; a copy (other file system, reflink) is given the cache's time; a
source in which rattler writes the prefix is compiled in the prefix. Names in bytecode are relative, and Python puts
the real ones in when it loads it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

MANIFEST = "manifest.json"

SUMS = "sums.json"


@dataclass(frozen=True)
class Python:
    """What of an interpreter decides about bytecode; folders are relative to the prefix."""

    tag: str
    magic: str
    stdlib: str
    site: str

    @property
    def key(self) -> str:
        """Name of the folder for its bytecode."""
        return f"{self.tag}-{self.magic}-{hashlib.sha256(self.site.encode()).hexdigest()[:8]}"

    def target(self, source: str) -> str:
        """Where the bytecode of a source lies."""
        folder, _, name = source.rpartition("/")
        return f"{folder}/__pycache__/{name.removesuffix('.py')}.{self.tag}.pyc"


@dataclass(frozen=True)
class Manifest:
    """Of a package: sources in the prefix, their times (whole seconds), and those to be compiled in each prefix.

    ``numbers`` are the names of the bytecode files, ``bytes`` their size together.
    """

    sources: list[str]
    mtimes: list[int]
    local: list[str]
    numbers: list[int]
    bytes: int


@dataclass(frozen=True)
class Source:
    """One to be compiled: where it is in the prefix, and where it is read."""

    path: str
    file: str


@dataclass(frozen=True)
class Sources:
    """Of a package, identified by its sha256: what can be shared, and what is of this prefix alone."""

    digest: str
    shared: tuple[Source, ...]
    local: tuple[str, ...]


class Store:
    """Kept bytecode of one Python, below ``folder``."""

    def __init__(self, folder: Path, python: Python) -> None:
        self.python = python
        self.folder = folder / python.key

    @classmethod
    def known(cls, folder: Path, python_package: str) -> Self | None:
        """The one of a Python of which bytecode was made before, by the sha256 of its package."""
        try:
            return cls(folder, Python(**json.loads((folder / "pythons" / f"{python_package}.json").read_bytes())))
        except (OSError, ValueError, TypeError):
            return None

    def remember(self, folder: Path, python_package: str) -> None:
        """That the Python in this package is this one."""
        put(folder / "pythons" / f"{python_package}.json", asdict(self.python))

    def manifest(self, digest: str) -> Manifest | None:
        """Of a package's bytecode; ``None`` when there is none."""
        try:
            with open(f"{self.folder}/{digest}/{MANIFEST}", "rb") as file:  # noqa: PTH123 - half the time of Path's
                return Manifest(**json.loads(file.read()))
        except (OSError, ValueError, TypeError):
            return None

    def link(self, digest: str, prefix: Path) -> Manifest | None:
        """Put a package's bytecode into the prefix. ``None``: there is none that fits, and it is to be made."""
        manifest = self.manifest(digest)
        if manifest is None or not _times_fit(manifest, f"{prefix}/"):
            return None
        try:
            for number, source in zip(manifest.numbers, manifest.sources, strict=True):
                _link(f"{self.folder}/{digest}/{number}.pyc", f"{prefix}/{self.python.target(source)}")
        except FileNotFoundError:  # of the store: someone emptied it in part
            return None
        return manifest

    def changed(self, digest: str) -> bool:
        """Whether a file of a package's bytecode is not as it was made."""
        folder = self.folder / digest
        try:
            sums: dict[str, str] = json.loads((folder / SUMS).read_bytes())
            return any(hashlib.sha256((folder / f"{n}.pyc").read_bytes()).hexdigest() != s for n, s in sums.items())
        except (OSError, ValueError):
            return True

    def drop(self, digest: str) -> None:
        """Forget a package's bytecode; prefixes keep their links."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.folder / digest)

    def keep(self, made: Path, digest: str, manifest: Manifest, sums: Mapping[str, str]) -> None:
        """Take a package's bytecode, made in a folder of this file system; what another has put there stays."""
        put(made / SUMS, dict(sums))
        put(made / MANIFEST, asdict(manifest))
        try:
            made.rename(self.folder / digest)
        except OSError:
            if self.manifest(digest) is None or self._lacks(digest):
                self.drop(digest)
                made.rename(self.folder / digest)

    def _lacks(self, digest: str) -> bool:
        manifest = self.manifest(digest)
        folder = self.folder / digest
        return manifest is None or not all((folder / f"{number}.pyc").is_file() for number in manifest.numbers)


def of_conda(meta: Mapping[str, Any], digest: str, python: Python) -> Sources:
    """What of an installed package, by its record in conda-meta, has no bytecode of its own."""
    folder = meta.get("extracted_package_dir") or ""
    paths = {entry["_path"]: entry for entry in meta.get("paths_data", {}).get("paths", [])}
    shared, local = [], []
    for path, entry in paths.items():
        if not _wants_bytecode(path, python, paths) or entry.get("path_type") == "softlink":
            continue
        file = None if entry.get("prefix_placeholder") else _extracted(folder, path, python)
        if file is None:
            local.append(path)
        else:
            shared.append(Source(path, file))
    return Sources(digest, tuple(shared), tuple(local))


def _extracted(folder: str, path: str, python: Python) -> str | None:
    """Where a file of a prefix lies in the package: one for all Pythons has a ``site-packages`` of its own."""
    places = [f"{folder}/{path}"]
    if path.startswith(f"{python.site}/"):
        places.append(f"{folder}/site-packages{path.removeprefix(python.site)}")
    return next((place for place in places if os.path.isfile(place)), None)  # noqa: PTH113 - thousands


def of_wheel(paths: Iterable[str], digest: str, prefix: Path, python: Python) -> Sources:
    """The same of a wheel, by the files that its RECORD names, relative to the prefix."""
    known = set(paths)
    shared = [Source(path, f"{prefix}/{path}") for path in known if _wants_bytecode(path, python, known)]
    return Sources(digest, tuple(sorted(shared, key=lambda source: source.path)), ())


def _wants_bytecode(path: str, python: Python, others: Iterable[str]) -> bool:
    return path.endswith(".py") and path.startswith(f"{python.stdlib}/") and python.target(path) not in others


def put(file: Path, value: Any) -> None:
    """Write JSON so that it is there as a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(file)


def _link(kept: str, target: str) -> None:
    """Hard-link bytecode, or copy it where that cannot be; what the package brought itself stays."""
    try:
        os.link(kept, target)
    except FileExistsError:
        return
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120 - thousands
        with contextlib.suppress(FileExistsError):
            _link_or_copy(kept, target)
    except OSError:
        _link_or_copy(kept, target)


def _link_or_copy(kept: str, target: str) -> None:
    try:
        os.link(kept, target)
    except FileExistsError:
        return
    except FileNotFoundError:
        raise
    except OSError:  # another file system, one without hard links, or 65,000 links already
        shutil.copyfile(kept, target)


def _times_fit(manifest: Manifest, prefix: str) -> bool:
    """Whether the sources have the times for which the bytecode was made; copies of our own are given them."""
    pairs = zip(manifest.sources, manifest.mtimes, strict=True)
    first = next(pairs, None)
    try:
        if first is None or int(os.stat(prefix + first[0]).st_mtime) == first[1]:  # noqa: PTH116 - one stands for all
            return True
        for source, mtime in [first, *pairs]:
            state = os.stat(prefix + source)  # noqa: PTH116 - thousands
            if int(state.st_mtime) != mtime:
                if state.st_nlink > 1:  # shared with the cache, which was made anew
                    return False
                os.utime(prefix + source, (state.st_atime, mtime))
    except OSError:
        return False
    return True
