"""pip's part for one platform: resolved by uv against what conda installs, one wheel chosen for each package."""

from __future__ import annotations

import json
import re
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag
from packaging.utils import BuildTag, InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from jupyter_agent.environments.specs import pypi
from jupyter_agent.errors import InvalidInput

NO_HASHES: Mapping[str, frozenset[str]] = MappingProxyType({})


@dataclass(frozen=True)
class Wheel:
    """A package of PyPI's as it is locked; ``dependencies`` are names."""

    name: str
    version: str
    url: str
    sha256: str
    dependencies: tuple[str, ...] = field(default=())


def constraints(conda: Mapping[str, str]) -> dict[str, str]:
    """What conda's Python packages (name to version) are to pip: ``{name on PyPI: version}``.

    One whose version means nothing to pip constrains nothing.
    """
    names = _names_on_pypi()
    found: dict[str, str] = {}
    for name, version in sorted(conda.items()):
        try:
            Version(version)
        except InvalidVersion:
            continue
        found[str(canonicalize_name(names.get(name, name)))] = str(Version(version))
    return found


def _names_on_pypi() -> dict[str, str]:
    known = json.loads(pypi.NAMES.read_text(encoding="utf-8"))
    return {one["conda_name"]: one["pypi_name"] for one in known.values()}


def write_stubs(folder: Path, packages: Mapping[str, str]) -> None:
    """Wheels that hold nothing but name and version: what conda installs is there, whatever an index knows of it."""
    folder.mkdir()
    for name, version in packages.items():
        named = f"{name.replace('-', '_')}-{version}"
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        with zipfile.ZipFile(folder / f"{named}-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{named}.dist-info/METADATA", about)
            archive.writestr(
                f"{named}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{named}.dist-info/RECORD", "")


def chosen(
    pylock: str,
    *,
    tags: Sequence[Tag],
    without: Mapping[str, str],
    source: str,
    folder: Path,
    hashes: Mapping[str, frozenset[str]] = NO_HASHES,
) -> list[Wheel]:
    """A wheel for each package in a pylock.toml but those that conda installs, sorted by name.

    ``tags`` say which wheels can be used, best first; ``hashes`` which files alone, for packages that are in it. Raises
    ``InvalidInput`` for a package without such a wheel.
    """
    order = {tag: place for place, tag in enumerate(tags)}
    found = []
    for package in tomllib.loads(pylock).get("packages", []):
        name = str(canonicalize_name(package["name"]))
        if name not in without:
            found.append(_wheel(name, package, _ranked(package, order, folder), hashes.get(name), source))
    return sorted(found, key=lambda wheel: wheel.name)


def _ranked(package: Mapping[str, Any], order: Mapping[Tag, int], folder: Path) -> list[_Candidate]:
    """Its wheels that can be used, the best first."""
    archives = [package["archive"]] if "archive" in package else package.get("wheels", [])
    ranked = sorted(
        (rank, one)
        for one in (_Candidate.of(archive, folder) for archive in archives)
        if one is not None and (rank := one.rank(order)) is not None
    )
    return [one for _, one in ranked]


def _wheel(
    name: str, package: Mapping[str, Any], ranked: Sequence[_Candidate], hashes: frozenset[str] | None, source: str
) -> Wheel:
    if not ranked:
        why = "it is fetched from a repository or folder" if {"vcs", "directory"} & package.keys() else "it has none"
        raise InvalidInput(
            f"{source} asks pip for {name}, but only wheels with a hash can be locked, and {why} that can be used: "
            "give the URL of a wheel, another version, or have it from a conda channel."
        )
    best = next((one for one in ranked if hashes is None or f"sha256:{one.sha256}" in hashes), None)
    if best is None:
        raise InvalidInput(
            f"{source} says with --hash which files of {name} may be installed, but none of its wheels that can be "
            f"used has one of these hashes ({ranked[0].file} has sha256:{ranked[0].sha256}): look why, or correct them."
        )
    return Wheel(name, str(package.get("version") or best.version), without_secrets(best.url), best.sha256)


@dataclass(frozen=True, order=True)
class _Candidate:
    """A wheel that there is."""

    url: str
    sha256: str
    version: str
    build: BuildTag
    tags: frozenset[Tag] = field(compare=False)

    @property
    def file(self) -> str:
        """Its name."""
        return unquote(urlsplit(self.url).path).rpartition("/")[2]

    @classmethod
    def of(cls, archive: Mapping[str, Any], folder: Path) -> _Candidate | None:
        """``None`` for what is no wheel, or has no sha256."""
        url = str(archive.get("url") or (folder / str(archive.get("path", ""))).resolve().as_uri())
        sha256 = archive.get("hashes", {}).get("sha256")
        try:
            _, version, build, tags = parse_wheel_filename(
                str(archive.get("name") or unquote(urlsplit(url).path).rpartition("/")[2])
            )
        except InvalidWheelFilename:
            return None
        return cls(url, sha256, str(version), build, tags) if sha256 else None

    def rank(self, order: Mapping[Tag, int]) -> tuple[int, int, str, bool] | None:
        """The lower the better: by tags, the higher build number, and not from a folder of this machine.

        ``None``: it does not run there.
        """
        place = min((order[tag] for tag in self.tags if tag in order), default=None)
        number, suffix = (int(self.build[0]), str(self.build[1])) if self.build else (-1, "")
        return None if place is None else (place, -number, suffix, self.url.startswith("file:"))


SECRETS = re.compile(
    r"(^|[&;])(x-amz-[a-z-]+|token|access_token|auth\w*|sig\w*|key|api[_-]?key|password|secret)=", re.IGNORECASE
)


def without_secrets(url: str) -> str:
    """The URL without user and password, conda's token, a query that signs, and fragment."""
    parts = urlsplit(url)
    query = "" if SECRETS.search(parts.query) else parts.query
    path = re.sub(r"^(.*?)/t/[^/]+(?=/)", r"\1", parts.path) if parts.path.startswith("/t/") else parts.path
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path, query=query, fragment="").geturl()
