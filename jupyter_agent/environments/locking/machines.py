"""Machines that environments are locked for: their virtual packages, and which wheels run on them.

A lock must not depend on the machine on which it is made. So each platform is solved for fixed virtual packages, which
the file beside this one holds. What has no solution with those (a package that needs CUDA or a newer glibc, such as
the Python of a channel made on this machine) is solved once more with what this machine has, as far as the lock is for
its own platform, and with what ``CONDA_OVERRIDE_CUDA``, ``_GLIBC``, ``_LINUX``, ``_OSX``, ``_WIN`` and ``_ARCHSPEC``
say. The lock then says so in its metadata, and other machines get the same lock wherever one could be made at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from rattler import (  # noqa: TID251 - this is environments/
    BuildString,
    GenericVirtualPackage,
    MatchSpec,
    PackageName,
    PackageRecord,
    RepoDataRecord,
    Version,
)
from rattler.virtual_package import VirtualPackage, VirtualPackageOverrides  # noqa: TID251 - the same

from jupyter_agent.environments.definitions import this_platform
from jupyter_agent.errors import InvalidInput

FILE = Path(__file__).with_name("virtual-packages.yaml")

ARCHITECTURES = {"64": "x86_64", "32": "i686", "armv7l": "armv7l", "arm64": "arm64"}
"""What conda calls them, and what wheels' tags do; others have the same name in both."""

OLDER_TAGS = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""PEP 600: minor versions of glibc and the names that stood for them."""

OLDEST_GLIBC = {"x86_64": 5, "i686": 5}

MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")

UV_GLIBC = (17, 28, *range(31, 41))
"""Minor versions that uv knows as platforms."""


@dataclass(frozen=True)
class Machine:
    """A platform (``linux-64``) with virtual packages: names to version and build (``("2.28", "0")``)."""

    platform: str
    packages: Mapping[str, tuple[str, str]]

    @classmethod
    def usual(cls, platform: str) -> Machine:
        """What locks are made for. Raises ``InvalidInput`` for an unknown platform."""
        known = _file()
        if platform not in known:
            raise InvalidInput(
                f"{platform[:50]!r} is no platform that can be locked for: give one of {', '.join(known)}."
            )
        return cls(platform, known[platform])

    def and_newer(self, overrides: Mapping[str, str]) -> list[Machine]:
        """This one, and those for which a solution is looked for when it has none, each with more than the one before.

        The last ones have what this machine has (CUDA last of all) and what ``CONDA_OVERRIDE_*`` say.
        """
        told = {name: one for name in _overridable(self.platform) if (one := _overridden(name, overrides)) is not None}
        found = dict(self.packages)
        if self.platform == this_platform():
            for package in VirtualPackage.detect(VirtualPackageOverrides()):
                generic = package.into_generic()
                name, version = generic.name.normalized, str(generic.version)
                if name != "__archspec" and _newer(version, found.get(name)):
                    found[name] = (version, "0")
        without_cuda = {name: one for name, one in {**found, **told}.items() if name != "__cuda" or name in told}
        machines = [self, replace(self, packages=without_cuda), replace(self, packages={**found, **told})]
        return [one for place, one in enumerate(machines) if one not in machines[:place]]

    def virtual_packages(self) -> list[GenericVirtualPackage]:
        """For rattler."""
        return [
            GenericVirtualPackage(PackageName(name), Version(version), BuildString(build))
            for name, (version, build) in sorted(self.packages.items())
        ]

    def lacks(self, records: Iterable[RepoDataRecord], wheels: Iterable[str]) -> dict[str, str]:
        """What conda packages and wheels (URLs) need of a machine that this one has not: ``{"__glibc": ">=2.36"}``."""
        own = {
            name: PackageRecord(name, version, BuildString(build), 0, self.platform)
            for name, (version, build) in self.packages.items()
        }
        found: dict[str, set[str]] = {}
        needed = {depends for record in records for depends in record.depends if depends.startswith("__")}
        for depends in [*needed, *self._needed_by(wheels)]:
            name, _, asked = depends.partition(" ")
            if name not in own or not MatchSpec(depends, strict=False).matches(own[name]):
                found.setdefault(name, set()).add(asked or "*")
        return {name: ",".join(sorted(asked)) for name, asked in sorted(found.items())}

    def _needed_by(self, wheels: Iterable[str]) -> Iterator[str]:
        for url in wheels:
            versions = [(int(major), int(minor)) for major, minor in MANYLINUX.findall(url)]
            if versions and "__glibc" in self.packages:
                yield "__glibc >={}.{}".format(*min(versions))

    @property
    def architecture(self) -> str:
        """In the words of wheels: ``x86_64``."""
        word = self.platform.partition("-")[2]
        return ARCHITECTURES.get(word, word)

    def _number(self, name: str) -> tuple[int, int]:
        major, minor = (*self.packages[name][0].split("."), "0")[:2]
        return int(major), int(minor)

    def uv_platform(self) -> str:
        """What uv calls it. Raises ``InvalidInput`` when it does not know it."""
        system = self.platform.partition("-")[0]
        if system == "linux" and self.architecture in ("x86_64", "aarch64"):
            minor = max((one for one in UV_GLIBC if one <= self._number("__glibc")[1]), default=UV_GLIBC[0])
            return f"{self.architecture}-manylinux_2_{minor}"
        names = {
            "osx-64": "x86_64-apple-darwin",
            "osx-arm64": "aarch64-apple-darwin",
            "win-64": "x86_64-pc-windows-msvc",
            "win-arm64": "aarch64-pc-windows-msvc",
        }
        if self.platform not in names:
            raise InvalidInput(f"The pip part cannot be locked for {self.platform}: lock it on such a machine by pip.")
        return names[self.platform]

    def uv_variables(self) -> dict[str, str]:
        """What uv is told by its environment: on macOS the version that wheels may ask for."""
        return {"MACOSX_DEPLOYMENT_TARGET": self.packages["__osx"][0]} if "__osx" in self.packages else {}

    def wheel_tags(self, python: str) -> list[Tag]:
        """The tags of wheels that run here under CPython ``python`` ("3.12.1"), the best first."""
        major, minor = (int(part) for part in python.split(".")[:2])
        platforms = list(self._wheel_platforms())
        interpreter = f"cp{major}{minor}"
        own = cpython_tags((major, minor), abis=[interpreter], platforms=platforms)
        return [*own, *compatible_tags((major, minor), interpreter=interpreter, platforms=platforms)]

    def _wheel_platforms(self) -> Iterator[str]:
        system = self.platform.partition("-")[0]
        if system == "win":
            yield {"x86_64": "win_amd64", "arm64": "win_arm64"}.get(self.architecture, "win32")
        elif system == "osx":
            yield from mac_platforms(self._number("__osx"), self.architecture)
        else:
            yield from self._linux_platforms()

    def _linux_platforms(self) -> Iterator[str]:
        for minor in range(self._number("__glibc")[1], OLDEST_GLIBC.get(self.architecture, 17) - 1, -1):
            yield f"manylinux_2_{minor}_{self.architecture}"
            if minor in OLDER_TAGS:
                yield f"{OLDER_TAGS[minor]}_{self.architecture}"
        yield f"linux_{self.architecture}"


@cache
def _file() -> dict[str, dict[str, tuple[str, str]]]:
    told = yaml.safe_load(FILE.read_text(encoding="utf-8"))["subdirs"]
    return {platform: {name: _parts(text) for name, text in one["packages"].items()} for platform, one in told.items()}


def _parts(text: str) -> tuple[str, str]:
    version, _, build = text.partition(" ")
    return version, build or "0"


def _newer(version: str, known: tuple[str, str] | None) -> bool:
    return known is None or Version(version) > Version(known[0])


def _overridden(name: str, overrides: Mapping[str, str]) -> tuple[str, str] | None:
    value = overrides.get(f"CONDA_OVERRIDE_{name.removeprefix('__').upper()}", "").strip()
    if name == "__archspec":
        return ("1", value) if re.fullmatch(r"[a-z0-9_]+", value) else None
    return (value, "0") if re.fullmatch(r"[0-9]+(\.[0-9]+)*", value) else None


def _overridable(platform: str) -> tuple[str, ...]:
    system = platform.partition("-")[0]
    return {
        "linux": ("__linux", "__glibc", "__cuda", "__archspec"),
        "osx": ("__osx", "__archspec"),
        "win": ("__win", "__cuda", "__archspec"),
    }[system]
