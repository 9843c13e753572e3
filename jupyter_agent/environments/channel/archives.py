"""Conda packages, and the ``.conda`` archives that hold them: the same bytes for the same contents.

The form is that of conda's own documentation, version 2: an uncompressed zip with ``metadata.json`` and two zstd
tarballs, the contents before the ``info``, for the sha256 of every file stands there. conda-package-streaming reads
these archives; its writer keeps the whole contents in memory twice over and puts the present time into the zip, so
the outer zip is written here, as a stream.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

try:
    from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # from Python 3.14 on
except ImportError:
    from backports import zstd

PLACEHOLDER = ("/opt/placeholder_" + "_placeh" * 34)[:255]
"""Stands for the prefix in files that name it: as long as what conda builds with, for whoever pads."""

TIME_S = 1_700_000_000
"""The time of everything in an archive, in seconds since 1970: contents alone decide what it is."""

ZIP_TIME = (2023, 11, 14, 22, 13, 20)
"""The same, as a zip says it."""

LEVEL = 3
"""Of zstd. Measured for CPython, numpy, pandas and 50 others: 4.3 s of CPU and 51 MB; level 1 takes as long for 58 MB,
level 9 half as long again for 45 MB."""

BUFFER = 1 << 20

Prefixed = Literal["", "text", "binary"]


@dataclass(frozen=True)
class File:
    """A file of a package: where it goes below the prefix, and how its ``size`` bytes are had.

    ``prefixed``: how ``PLACEHOLDER`` stands in it, as text or in a binary file; empty where it does not.
    """

    path: str
    size: int
    open: Callable[[], BinaryIO]
    executable: bool = False
    prefixed: Prefixed = ""

    @classmethod
    def of(cls, path: str, data: bytes, *, executable: bool = False, prefixed: Prefixed = "") -> File:
        """One whose contents are at hand."""
        return cls(path, len(data), lambda: io.BytesIO(data), executable, prefixed)


@dataclass(frozen=True)
class Link:
    """A symbolic link of a package."""

    path: str
    target: str


@dataclass(frozen=True)
class Package:
    """A conda package. ``noarch``: ``None`` for one of a platform, ``"python"``, ``"generic"``.

    ``entry_points`` (``name = module:function``) are written by whoever installs a ``noarch: python`` package.
    """

    name: str
    version: str
    build: str
    subdir: str
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    noarch: Literal["python", "generic"] | None = None
    license: str = ""
    summary: str = ""
    files: tuple[File | Link, ...] = ()
    entry_points: tuple[str, ...] = ()
    site_packages: str = ""

    @property
    def stem(self) -> str:
        """What its archive is called, but for the ending."""
        return f"{self.name}-{self.version}-{self.build}"

    def index(self) -> dict[str, Any]:
        """``info/index.json``."""
        system, _, machine = self.subdir.partition("-")
        kind = {"noarch": self.noarch} if self.noarch else {"platform": system, "arch": ARCHS.get(machine, machine)}
        more = {"license": self.license, "python_site_packages_path": self.site_packages}
        return {
            "name": self.name,
            "version": self.version,
            "build": self.build,
            "build_number": 0,
            "subdir": self.subdir,
            "depends": sorted(set(self.depends)),
            "constrains": sorted(set(self.constrains)),
            "timestamp": TIME_S * 1000,
            **kind,
            **{name: value for name, value in more.items() if value},
        }


ARCHS = {"64": "x86_64", "32": "x86"}


@dataclass(frozen=True)
class Archive:
    """An archive on disk, and what a channel's index says of it."""

    file: Path
    record: dict[str, Any]

    @property
    def subdir(self) -> str:
        """The folder of the channel in which it belongs."""
        return str(self.record["subdir"])


def write(package: Package, folder: Path, *, level: int = LEVEL) -> Archive:
    """Write the package's archive into ``folder``, on disk when this returns. Raises what reading a file raises."""
    file = folder / f"{package.stem}.conda"
    with file.open("xb") as raw:
        _write_zip(package, raw, level)
        raw.flush()
        os.fsync(raw.fileno())
    return described(file, package.index())


def described(file: Path, index: dict[str, Any]) -> Archive:
    """The archive with its size and hashes."""
    with file.open("rb") as raw:
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        while block := raw.read(BUFFER):
            md5.update(block)
            sha256.update(block)
        size = raw.tell()
    return Archive(file, {**index, "size": size, "md5": md5.hexdigest(), "sha256": sha256.hexdigest()})


def _write_zip(package: Package, raw: BinaryIO, level: int) -> None:
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as outer:
        outer.writestr(_member("metadata.json"), json.dumps({"conda_pkg_format_version": 2}))
        large = sum(file.size for file in package.files if isinstance(file, File)) > zipfile.ZIP64_LIMIT // 2
        with outer.open(_member(f"pkg-{package.stem}.tar.zst"), "w", force_zip64=large) as part:
            paths = _write_contents(package, part, level)
        with (
            outer.open(_member(f"info-{package.stem}.tar.zst"), "w") as part,
            _tar(part, level) as tar,
        ):
            for file in _info(package, paths):
                with file.open() as stream:
                    tar.addfile(_entry(file), stream)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, ZIP_TIME)
    member.external_attr = 0o644 << 16
    return member


@contextmanager
def _tar(part: Any, level: int) -> Iterator[tarfile.TarFile]:
    """A compressed tarball, written as a stream."""
    with (
        zstd.ZstdFile(part, mode="w", level=level) as stream,
        tarfile.open(fileobj=stream, mode="w|", bufsize=BUFFER) as tar,
    ):
        yield tar


def _entry(file: File | Link) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(file.path)
    entry.mtime = TIME_S
    if isinstance(file, Link):
        entry.type, entry.linkname = tarfile.SYMTYPE, file.target
    else:
        entry.size, entry.mode = file.size, 0o755 if file.executable else 0o644
    return entry


def _write_contents(package: Package, part: Any, level: int) -> list[dict[str, Any]]:
    """Write the files, and give what ``info/paths.json`` says of each."""
    paths = []
    with _tar(part, level) as tar:
        for file in sorted(package.files, key=lambda file: file.path):
            if isinstance(file, Link):
                tar.addfile(_entry(file))
                paths.append(_path(file.path, "softlink", hashlib.sha256().hexdigest(), 0))
                continue
            with file.open() as stream:
                hashed = _Hashed(stream)
                tar.addfile(_entry(file), hashed)
            path = _path(file.path, "hardlink", hashed.sha256.hexdigest(), file.size)
            placeholder = {"prefix_placeholder": PLACEHOLDER, "file_mode": file.prefixed} if file.prefixed else {}
            paths.append(path | placeholder)
    return paths


def _path(path: str, kind: str, sha256: str, size: int) -> dict[str, Any]:
    return {"_path": path, "path_type": kind, "sha256": sha256, "size_in_bytes": size}


class _Hashed(io.RawIOBase):
    """A stream that is hashed as it is read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """As any stream's."""
        data = self._stream.read(size)
        self.sha256.update(data)
        return data


def _info(package: Package, paths: list[dict[str, Any]]) -> Iterable[File]:
    """The files below ``info/``."""
    yield _json("info/about.json", {"summary": package.summary, "license": package.license})
    yield File.of("info/files", "".join(f"{path['_path']}\n" for path in paths).encode())
    if lines := [_has_prefix(path) for path in paths if "prefix_placeholder" in path]:
        yield File.of("info/has_prefix", "".join(lines).encode())
    yield _json("info/index.json", package.index())
    if package.noarch == "python":
        points = {"entry_points": list(package.entry_points)} if package.entry_points else {}
        yield _json("info/link.json", {"noarch": {"type": "python", **points}, "package_metadata_version": 1})
    yield _json("info/paths.json", {"paths": paths, "paths_version": 1})


def _has_prefix(path: dict[str, Any]) -> str:
    """A line of the older form of the same."""
    name = f'"{path["_path"]}"' if " " in path["_path"] else path["_path"]
    return f"{PLACEHOLDER} {path['file_mode']} {name}\n"


def _json(path: str, value: dict[str, Any]) -> File:
    return File.of(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode())
