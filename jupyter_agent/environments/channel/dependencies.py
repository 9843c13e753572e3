"""What a wheel needs, in conda's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from jupyter_agent.errors import InvalidInput


def conda_version(version: str) -> str:
    """A version as conda writes it: PEP 440's normal form, which has no ``-``."""
    try:
        return str(Version(version))
    except InvalidVersion:
        return version.replace("-", "_")


def conda_expression(specifiers: SpecifierSet) -> str:
    """A version expression of PEP 440 as conda's; empty for any version."""
    return ",".join(_expression(specifier) for specifier in sorted(specifiers, key=str))


def _expression(specifier: Specifier) -> str:
    version = specifier.version
    if version.endswith(".*"):
        return version if specifier.operator == "==" else f"{specifier.operator}{version}"
    return f"{specifier.operator.replace('===', '==')}{conda_version(version)}"


def parsed(line: str, *, of: str) -> Requirement:
    """A requirement that ``of`` states. Raises ``InvalidInput``."""
    try:
        return Requirement(line)
    except InvalidRequirement as error:
        why = " ".join(str(error).split())
        raise InvalidInput(f"{of} asks for {line[:200]!r}, which is no requirement: {why}.") from error


def holds(requirement: Requirement, markers: Mapping[str, str], extra: str = "") -> bool:
    """Whether a requirement counts here, for a wheel itself or for one of its extras."""
    return requirement.marker is None or requirement.marker.evaluate({**markers, "extra": extra})


def extra_name(name: str, extra: str) -> str:
    """The conda package that stands for an extra of another: it is empty and needs what the extra needs."""
    return f"{canonicalize_name(name)}-extra-{canonicalize_name(extra)}"


def depends(requirements: Iterable[Requirement]) -> list[str]:
    """The conda ``depends`` for requirements that count."""
    found = []
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        found.append(f"{name} {conda_expression(requirement.specifier)}".strip())
        found += [extra_name(name, extra) for extra in sorted(requirement.extras)]
    return found
