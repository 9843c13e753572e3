"""Requirement lines for pip, as conda_lock's model has them.

uv takes the lines as they are written; the model is for content hashes. conda_lock's parser takes an ``http://`` URL
for a path and knows no version that Poetry would not write: those are put right here.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jupyter_agent.environments.indexes import without_credentials
from jupyter_agent.environments.specs.condalock import (
    Dependency,
    PathDependency,
    URLDependency,
    VCSDependency,
    VersionedDependency,
    evaluate_marker,
    parse_python_requirement,
)
from jupyter_agent.errors import InvalidInput

NAMES = Path(__file__).parent / "pypi-names.json"
"""Packages whose names in conda-forge are not those on PyPI, for pyproject.toml. conda_lock would fetch a list."""

PER_LINE = re.compile(r"\s+--(hash|config-settings?|global-option|install-option)[=\s].*$")

ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

BARE = re.compile(
    r"(?P<url>(https?|git\+[a-z]+|hg\+[a-z]+|svn\+[a-z]+|bzr\+[a-z]+)://[^\s;]+)\s*(;\s*(?P<marker>.*))?$"
)


def on_platform(line: str, platform: str, where: str) -> Dependency | None:
    """What a requirement line asks for on a platform; ``None`` where its marker says that it is for others.

    Markers that speak of a Python version are left to who knows it. Raises ``InvalidInput``.
    """
    if line.startswith("-"):
        raise InvalidInput(f"{where} says {line[:100]!r} to pip, which has no meaning here: remove it.")
    try:
        return _read(line, platform, where)
    except ValueError as error:  # of a requirement, a marker, a URL
        reason = str(error).splitlines()[0][:200]
        raise InvalidInput(f"{where} asks pip for {line[:200]!r}, which is no requirement ({reason}).") from error


def _read(line: str, platform: str, where: str) -> Dependency | None:
    """As above. Raises ``ValueError``, too."""
    bare = PER_LINE.sub("", line)
    if match := BARE.match(bare):
        dependency: Dependency = _of_url(_name_in(match["url"], where), match["url"], [])
        return dependency if _holds(match["marker"], platform) else None
    requirement = Requirement(bare)
    return _modelled(bare, requirement) if _holds(str(requirement.marker or ""), platform) else None


def name_of(dependency: Dependency) -> str:
    """Its name as it is compared."""
    return str(canonicalize_name(dependency.name))


def _modelled(bare: str, requirement: Requirement) -> Dependency:
    name, extras = str(canonicalize_name(requirement.name)), sorted(requirement.extras)
    marker = str(requirement.marker) if requirement.marker else None
    if requirement.url:
        found = _of_url(name, requirement.url, extras)
        return found.model_copy(update={"markers": marker})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return parse_python_requirement(bare, manager="pip", mapping_url=str(NAMES))
    except Exception:  # noqa: BLE001 - it raises many kinds; what it cannot say the line says
        version = str(requirement.specifier) or "*"
        return VersionedDependency(name=name, version=version, manager="pip", extras=extras, markers=marker)


def _of_url(name: str, url: str, extras: list[str]) -> URLDependency | VCSDependency:
    parts = urlsplit(url)
    if not parts.hostname or parts.port == 0:  # reading the port raises ValueError for one that is none
        raise ValueError(f"{without_credentials(url)!r} names no host")
    vcs, plus, _ = url.partition("+")
    bare, fragment = urldefrag(url)
    if plus and "://" not in vcs:
        source, at, revision = bare.partition("+")[2].rpartition("@")
        if not at or "/" not in source.partition("://")[2]:
            source, revision = bare.partition("+")[2], ""
        subdirectory = re.search(r"subdirectory=([^&]+)", fragment)
        return VCSDependency(
            name=name,
            manager="pip",
            extras=extras,
            source=source,
            vcs=vcs,
            rev=revision or None,
            subdirectory=subdirectory[1] if subdirectory else None,
        )
    return URLDependency(name=name, manager="pip", extras=extras, url=bare, hashes=[fragment.replace("=", ":")])


def _name_in(url: str, where: str) -> str:
    """The name of what a URL alone leads to: the archive's, or the repository's. Raises ``InvalidInput``."""
    bare, fragment = urldefrag(url)
    if egg := re.search(r"egg=([A-Za-z0-9._-]+)", fragment):
        return str(canonicalize_name(egg[1]))
    file = bare.partition("://")[2].rstrip("/").rpartition("/")[2].partition("@")[0]
    of_repository = "+" in url.partition("://")[0]
    name = file.removesuffix(".git") if of_repository else re.split(r"-\d", file, maxsplit=1)[0]
    if not (of_repository or file.endswith(ARCHIVES)) or not re.fullmatch(
        r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name
    ):
        raise InvalidInput(f"{where} asks pip for {url[:200]!r}, which names no package: write 'NAME @ URL'.")
    return str(canonicalize_name(name))


def _holds(marker: str | None, platform: str) -> bool:
    """Whether a marker is true as far as a platform decides it. Raises ``ValueError`` for none."""
    if not marker:
        return True
    Marker(marker)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(evaluate_marker(marker, platform))
    except Exception:  # noqa: BLE001 - conda_lock knows six platforms and some markers: uv decides
        return True


def line_of(dependency: Dependency) -> str:
    """A requirement line for what conda_lock's parser made of a pyproject.toml. Raises ``InvalidInput`` for a path."""
    extras = f"[{','.join(dependency.extras)}]" if dependency.extras else ""
    marker = f" ; {dependency.markers}" if dependency.markers else ""
    if isinstance(dependency, PathDependency):
        raise InvalidInput(
            f"pyproject.toml asks for {dependency.path!r}, a path: environments are made of packages that can be "
            "fetched by name or URL."
        )
    if isinstance(dependency, VCSDependency):
        revision = f"@{dependency.rev}" if dependency.rev else ""
        below = f"#subdirectory={dependency.subdirectory}" if dependency.subdirectory else ""
        return f"{dependency.name}{extras} @ {dependency.vcs}+{dependency.source}{revision}{below}{marker}"
    if isinstance(dependency, URLDependency):
        fragment = "".join(f"#{found.replace(':', '=')}" for found in dependency.hashes[:1] if found)
        return f"{dependency.name}{extras} @ {dependency.url}{fragment}{marker}"
    return f"{dependency.name}{extras}{_version(dependency)}{marker}"


def _version(dependency: VersionedDependency) -> str:
    """A version as PEP 440 has it: what stands alone is meant exactly. Raises ``InvalidInput``."""
    parts = [part.strip() for part in dependency.version.split(",") if part.strip() not in ("", "*")]
    for part in parts:
        if not re.match(r"([=<>~]=?|!=|===)?\s*[0-9]", part):
            raise InvalidInput(f"pyproject.toml asks for {dependency.name} {part[:60]!r}, which is no version.")
    return ",".join(f"=={part.lstrip('= ')}" if re.match(r"=?\s*[0-9]", part) else part for part in parts)
