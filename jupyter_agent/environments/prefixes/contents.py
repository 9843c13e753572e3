"""What is in a prefix: packages of conda's and of pip's, how large they are, and why each is there."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from jupyter_agent.environments.indexes import without_credentials

ASKED = "asked for"


@dataclass(frozen=True)
class Package:
    """A package in a prefix; ``manager`` is ``conda`` or ``pip``; ``channel`` where it is from, as far as known.

    ``why``: ``asked for``, or the names of those that need it.
    """

    name: str
    version: str
    build: str
    manager: str
    channel: str
    bytes: int
    why: tuple[str, ...] = ()
    needs: frozenset[str] = field(default=frozenset(), compare=False)


def packages(prefix: Path, asked: Iterable[str] = ()) -> list[Package]:
    """All that are in a prefix, by name. Blocks: it reads what each says of itself."""
    conda = [package for file in sorted(prefix.glob("conda-meta/*.json")) if (package := _of_conda(file))]
    known = {package.name for package in conda}
    pip = [package for package in distributions(prefix) if package.name not in known]
    found = sorted((*conda, *pip), key=lambda package: (package.name, package.manager))
    return _explained(found, {name for line in asked if (name := name_in(line))})


def _explained(found: list[Package], asked: set[str]) -> list[Package]:
    names = {package.name for package in found}
    needed_by: dict[str, list[str]] = {}
    for package in found:
        for name in package.needs & (names - {package.name}):
            needed_by.setdefault(name, []).append(package.name)
    return [
        Package(
            package.name,
            package.version,
            package.build,
            package.manager,
            package.channel,
            package.bytes,
            why=((ASKED,) if package.name in asked or package.name not in needed_by else ())
            + tuple(sorted(needed_by.get(package.name, ()))),
            needs=package.needs,
        )
        for package in found
    ]


def name_in(line: str) -> str:
    """The name of the package that a requirement or a match spec asks for; empty: none is seen."""
    found = re.match(r"(?:[^\s\[]*::)?\s*([A-Za-z0-9_][A-Za-z0-9._-]*)", line.strip())
    return canonicalize_name(found[1]) if found else ""


# conda's


def _of_conda(file: Path) -> Package | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        plain: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        paths = plain.get("paths_data", {}).get("paths", ())
        return Package(
            name=canonicalize_name(plain["name"]),
            version=str(plain["version"]),
            build=str(plain.get("build", "")),
            manager="conda",
            channel=without_credentials(str(plain.get("url") or "").rpartition("/")[0].rpartition("/")[0]),
            bytes=sum(int(path.get("size_in_bytes") or 0) for path in paths),
            needs=frozenset(name for line in plain.get("depends", ()) if (name := name_in(line))),
        )
    return None


# pip's


def distributions(prefix: Path) -> list[Package]:
    """Those in ``site-packages``, by what they say of themselves."""
    return [package for folder in infos(prefix) if (package := _of_pip(folder))]


def infos(prefix: Path) -> list[Path]:
    """The ``.dist-info`` folders, where they lie on any system."""
    patterns = ("lib/python*/site-packages/*.dist-info", "Lib/site-packages/*.dist-info")
    return sorted({folder for pattern in patterns for folder in prefix.glob(pattern)})


def _of_pip(folder: Path) -> Package | None:
    with contextlib.suppress(OSError, ValueError):
        said = HeaderParser().parsestr((folder / "METADATA").read_text(encoding="utf-8", errors="replace"))
        name, version = said.get("Name"), said.get("Version")
        if name and version:
            needs = frozenset(_needs(said.get_all("Requires-Dist") or ()))
            size = sum(size for _, _, size in records(folder))
            return Package(canonicalize_name(name), version, "", "pip", "", size, needs=needs)
    return None


def _needs(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        with contextlib.suppress(InvalidRequirement):
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                yield canonicalize_name(wanted.name)


def records(folder: Path) -> Iterator[tuple[str, str, int]]:
    """``(path below site-packages, hash, size)`` of a ``.dist-info``'s files; the hash like ``sha256=...`` or empty."""
    with contextlib.suppress(OSError, csv.Error), (folder / "RECORD").open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            if len(row) == 3:  # noqa: PLR2004 - as the format has it
                yield row[0], row[1], int(row[2]) if row[2].isdecimal() else 0


def owners(prefix: Path, paths: Iterable[str]) -> list[str]:
    """Names of pip's packages that brought some of these files of a prefix."""
    wanted = {os.path.normpath(prefix / path) for path in paths if "site-packages" in path}
    found = []
    for folder in infos(prefix) if wanted else ():
        brought = {os.path.normpath(folder.parent / path) for path, _, _ in records(folder)}
        package = _of_pip(folder) if brought & wanted else None
        found += [package.name] if package else []
    return sorted(found)


def configured_version(prefix: Path) -> str:
    """The version of the prefix's Python; empty where it is not known."""
    for file in prefix.glob("conda-meta/python-[0-9]*.json"):
        return file.name.split("-")[1]
    with contextlib.suppress(OSError, UnicodeError):
        found = re.search(r"^version(?:_info)?\s*=\s*(\S+)", (prefix / "pyvenv.cfg").read_text(), re.MULTILINE)
        return found[1] if found else ""
    return ""
