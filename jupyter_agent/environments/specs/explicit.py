"""Explicit lists: ``@EXPLICIT`` and the URLs of packages, as conda writes them. Nothing to solve."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from jupyter_agent.environments.definitions import Definition, this_platform
from jupyter_agent.environments.specs.condalock import VersionedDependency
from jupyter_agent.environments.specs.matchspecs import PLATFORMS, URL, archive_parts, hash_of
from jupyter_agent.errors import InvalidInput

PLATFORM = re.compile(r"^#\s*platform:\s*(\S+)\s*$", re.MULTILINE | re.IGNORECASE)

MARK = "@EXPLICIT"


@dataclass(frozen=True)
class Explicit:
    """A package of an explicit list; ``md5`` and ``sha256`` in hexadecimal, empty where the list has none."""

    url: str
    md5: str = ""
    sha256: str = ""

    @property
    def parts(self) -> tuple[str, str, str]:
        """Name, version and build, by its file's name."""
        return archive_parts(self.url, "The list")

    @property
    def subdir(self) -> str:
        """``linux-64``, ``noarch``: the folder of the channel in which it lies."""
        return self.url.rsplit("/", 2)[-2]

    @property
    def channel(self) -> str:
        """The URL of its channel."""
        return self.url.rsplit("/", 2)[0]

    @property
    def asked(self) -> VersionedDependency:
        """The package as conda_lock would have it asked for."""
        name, version, build = self.parts
        return VersionedDependency(name=name, version=version, build=build, hash=self.md5 or None)


def read(definition: Definition) -> tuple[Explicit, ...]:
    """The packages of a list, in its order. Raises ``InvalidInput``."""
    found: dict[str, Explicit] = {}
    for line, where in _lines(definition):
        package = _package(line, where)
        name = package.parts[0]
        if name in found and found[name] != package:
            raise InvalidInput(f"{where}: {name} is listed twice, with two URLs: keep one of them.")
        found[name] = package
    if not found:
        raise InvalidInput(f"{definition.name} lists no packages: write their URLs below {MARK}.")
    return tuple(found.values())


def platform_of(definition: Definition, packages: Sequence[Explicit]) -> str:
    """The one platform that a list is for: of its comment, else of its URLs, else this one. Raises ``InvalidInput``."""
    named = {match.lower() for match in PLATFORM.findall(definition.text)}
    lying = {package.subdir for package in packages} - {"noarch"}
    unknown = sorted((named | lying) - PLATFORMS)
    if unknown:
        raise InvalidInput(
            f"{definition.name} has packages for {unknown[0][:60]!r}, no platform of conda's: a URL is "
            "CHANNEL/linux-64/NAME-VERSION-BUILD.conda or the like."
        )
    if len(named | lying) > 1:
        several = " and ".join(sorted(named | lying))
        raise InvalidInput(f"{definition.name} has packages for {several}: an explicit list is for one platform.")
    return next(iter(named | lying), this_platform())


def unheard(definition: Definition) -> list[str]:
    """What a list says in comments that conda does not hear, but its writer may think it does."""
    lines = re.findall(r"^#\s*pip\s+(\S+)", definition.text, re.MULTILINE)
    if not lines:
        return []
    return [f"{definition.name}: {len(lines)} packages of pip stand in comments ({lines[0]}, ...): they are not heard."]


def _lines(definition: Definition) -> list[tuple[str, str]]:
    """The lines that say something, each with where it stands."""
    found = []
    for number, line in enumerate(definition.text.split("\n"), 1):
        said = line.strip()
        if said and not said.startswith("#") and said != MARK:
            found.append((said, f"{definition.name}, line {number}"))
    return found


def _package(line: str, where: str) -> Explicit:
    url, _, fragment = line.partition("#")
    url = url.strip()
    if not URL.fullmatch(url) or not url.isprintable():
        raise InvalidInput(
            f"{where} says {line[:100]!r}: below {MARK} stand URLs alone, CHANNEL/linux-64/NAME-VERSION-BUILD.conda."
        )
    kind, value = hash_of(fragment, line, where)
    package = Explicit(url, **({kind: value} if kind else {}))
    archive_parts(url, where)
    if url.count("/") < 5:  # noqa: PLR2004 - scheme://host/subdir/file, and file:///channel/subdir/file
        raise InvalidInput(f"{where} says {line[:100]!r}: a URL is CHANNEL/linux-64/NAME-VERSION-BUILD.conda.")
    return package
