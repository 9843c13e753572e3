"""Small conda packages, wheels and locks for tests of builds; the packages are written by the product's own code."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jupyter_agent.environments.channel.archives import File, Link, Package, write
from jupyter_agent.environments.definitions import this_platform


@dataclass(frozen=True)
class Entry:
    """A package as it stands in a lock."""

    name: str
    version: str
    url: str
    sha256: str
    md5: str = ""
    manager: str = "conda"
    category: str = "main"

    @classmethod
    def of(cls, file: Path, url: str | None = None) -> Entry:
        """Of a conda archive on the disk."""
        name, version, _ = file.name.removesuffix(".conda").rsplit("-", 2)
        data = file.read_bytes()
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return cls(name, version, url or file.as_uri(), hashlib.sha256(data).hexdigest(), md5)


def package(
    folder: Path,
    name: str,
    files: Mapping[str, str | bytes],
    *,
    version: str = "1.0",
    noarch: str | None = "python",
    links: Mapping[str, str] | None = None,
    prefixed: Mapping[str, Literal["text", "binary"]] | None = None,
    entry_points: Iterable[str] = (),
) -> Path:
    """A conda package with these files, in the folder of its platform below ``folder``."""
    subdir = "noarch" if noarch else this_platform()
    place = folder / subdir
    place.mkdir(parents=True, exist_ok=True)
    contents = [
        File.of(path, data.encode() if isinstance(data, str) else data, prefixed=(prefixed or {}).get(path, ""))
        for path, data in files.items()
    ]
    made: Any = Package(
        name,
        version,
        "0",
        subdir,
        noarch=noarch,  # type: ignore[arg-type]  # one of two words
        files=(*contents, *(Link(path, target) for path, target in (links or {}).items())),
        entry_points=tuple(entry_points),
    )
    return write(made, place).file


def wheel(folder: Path, name: str, files: Mapping[str, str], *, requires: str = "") -> Entry:
    """A wheel with these files, as it stands in a lock."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + (
        f"Requires-Dist: {requires}\n" if requires else ""
    )
    contents = {
        **files,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in contents.items()]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in {**contents, f"{info}/RECORD": "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"}.items():
            archive.writestr(path, text)
    return Entry(name, "1.0", file.as_uri(), hashlib.sha256(file.read_bytes()).hexdigest(), manager="pip")


def lock(file: Path, entries: Iterable[Entry], *, variables: Mapping[str, str] | None = None) -> Path:
    """A conda-lock.yml with these packages for this machine."""
    platform = this_platform()
    custom = {"jupyter_agent.variables": json.dumps(dict(variables))} if variables else None
    packages = [
        {
            "name": entry.name,
            "version": entry.version,
            "manager": entry.manager,
            "platform": platform,
            "dependencies": {},
            "url": entry.url,
            "hash": {"sha256": entry.sha256, **({"md5": entry.md5} if entry.md5 else {})},
            "category": entry.category,
            "optional": entry.category != "main",
        }
        for entry in entries
    ]
    metadata = {
        "content_hash": {platform: "0" * 64},
        "channels": [{"url": "conda-forge", "used_env_vars": []}],
        "platforms": [platform],
        "sources": ["environment.yml"],
        **({"custom_metadata": custom} if custom else {}),
    }
    blocks = "".join(f"- {json.dumps(found)}\n" for found in packages)  # JSON is YAML, too
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"version: 1\nmetadata: {json.dumps(metadata)}\npackage:\n{blocks}")
    return file


def python_of(channel: Path) -> Entry:
    """The interpreter's package of a channel."""
    return Entry.of(next((channel / this_platform()).glob("python-3*.conda")))


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
