"""What a file asks of conda's channels, as requirements for PyPI.

rattler reads the specs, so that a version means here what it means to the solver: ``=1.2`` is ``1.2.*``, ``1.2`` alone
is exactly that. What PyPI cannot have is told all at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from rattler import MatchSpec, VersionSpec  # noqa: TID251 - conda's words are read here
from rattler import Version as CondaVersion  # noqa: TID251 - the same
from rattler.exceptions import InvalidMatchSpecError  # noqa: TID251 - the same

from jupyter_agent.environments.channel import names
from jupyter_agent.errors import InvalidInput


@dataclass(frozen=True)
class Asked:
    """A Python package: conda's ``name``, PyPI's ``project`` with extras, and version expressions.

    Any of ``choices`` will do; they are tried in this order, the newest first. ``""`` is any version.
    """

    name: str
    project: str
    choices: tuple[str, ...] = ("",)

    def line(self, choice: int = 0) -> str:
        """The requirement."""
        return f"{self.project}{self.choices[choice]}"


@dataclass(frozen=True)
class Translation:
    """All that a file asks for: ``empty`` are ``(name, version)`` of packages in which there is nothing."""

    asked: tuple[Asked, ...]
    empty: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def plain(words: Iterable[str]) -> list[str]:
    """The specs without channel, build and hash: those are of a channel that a stand-in is not."""
    return [_plain(_read(one)) for one in words]


def _plain(spec: MatchSpec) -> str:
    return f"{_name(spec)} {spec.version or ''}".strip()


def _name(spec: MatchSpec) -> str:
    return str(getattr(spec.name, "normalized", spec.name))


def _read(words: str) -> MatchSpec:
    try:
        return MatchSpec(words)
    except InvalidMatchSpecError as error:
        raise InvalidInput(f"{words[:200]!r} is no package of conda's: {error}.") from error


def translate(words: Iterable[str], *, python: str) -> Translation:
    """The specs for an interpreter of version ``python`` (``3.11.7``).

    Raises ``InvalidInput`` that names all that PyPI cannot have, or says which Python there is.
    """
    specs = [_read(one) for one in words]
    if missing := sorted({_name(spec) for spec in specs if names.is_not_python(_name(spec))}):
        raise not_had(missing)
    _check_python(specs, python)
    others = [spec for spec in specs if _name(spec) not in ("python", "python_abi")]
    support = [spec for spec in others if names.is_support(_name(spec))]
    asked = [_asked(spec) for spec in others if not names.is_support(_name(spec))]
    return Translation(
        tuple(asked), tuple((_name(spec), _a_version(spec)) for spec in support), tuple(_notes(specs, support, asked))
    )


def not_had(missing: Sequence[str]) -> InvalidInput:
    """What is said of packages that PyPI cannot have."""
    which = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
    them = "it" if len(missing) == 1 else "them"
    return InvalidInput(
        f"PyPI has no {which} for this machine: take {them} out of the file and install {them} on the machine, or make "
        "the environment where a conda channel can be reached."
    )


def _check_python(specs: list[MatchSpec], python: str) -> None:
    have = CondaVersion(python)
    for spec in specs:
        if _name(spec) == "python" and spec.version is not None and not VersionSpec(str(spec.version)).matches(have):
            raise InvalidInput(
                f"The file asks for python {spec.version}, but an environment made from PyPI has the Python that runs "
                f"jupyter_agent, {python}: ask for 'python {'.'.join(python.split('.')[:2])}.*', or run jupyter_agent "
                "with the other one."
            )


def _asked(spec: MatchSpec) -> Asked:
    name = _name(spec)
    return Asked(name, names.pypi_name(name), tuple(_choices(spec)) or ("",))


def _choices(spec: MatchSpec) -> list[str]:
    """PEP 440's expressions for each alternative, the one with the highest version first."""
    text = str(spec.version or "").replace(" ", "")
    found = []
    for alternative in _alternatives(text):
        terms = [_term(term, spec) for term in alternative]
        found.append(",".join(term for term in terms if term))
    return sorted(dict.fromkeys(found), key=_highest, reverse=True)


def _alternatives(text: str) -> Iterator[list[str]]:
    """An expression's alternatives, each a list of terms that all hold: ``(1|2),<3`` is two of them."""
    parts = _split(text, "|")
    if len(parts) > 1:
        for part in parts:
            yield from _alternatives(part)
        return
    terms = _split(text, ",")
    nested = next((term for term in terms if term.startswith("(")), None)
    if nested is None:
        yield terms
        return
    rest = [term for term in terms if term is not nested]
    for inner in _alternatives(nested[1:-1]):
        yield from _alternatives(",".join([*inner, *rest]))


def _split(text: str, by: str) -> list[str]:
    """Split outside of parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == by and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


TERM = re.compile(r"(?P<operator>[=!<>~]*)(?P<version>[^=!<>~]*)")


def _term(term: str, spec: MatchSpec) -> str:
    """One term in PEP 440's words; empty for one that says nothing."""
    found = TERM.fullmatch(term)
    operator, version = (found["operator"], found["version"]) if found else ("", term)
    if version in ("", "*"):
        return ""
    if version.endswith(".*"):
        operator = {"": "==", "=": "=="}.get(operator, operator)
        written = f"{operator}{version}" if operator in ("==", "!=") else f"{operator}{version[:-2]}"
    else:
        written = f"{operator or '=='}{version}"
    try:
        return str(SpecifierSet(written))
    except InvalidSpecifier as error:
        raise InvalidInput(
            f"PyPI knows no version like {term!r}, which is asked of {_name(spec)}: write it as PyPI does."
        ) from error


def _highest(expression: str) -> Version:
    found = []
    for number in re.findall(r"\d[\w.!+]*", expression):
        try:
            found.append(Version(number.removesuffix(".*").rstrip(".")))
        except InvalidVersion:
            continue
    return max(found, default=Version("0"))


def _a_version(spec: MatchSpec) -> str:
    """A version that the spec is satisfied with, for a package in which there is nothing."""
    text = str(spec.version or "")
    tried = [
        number for found in re.findall(r"\d[\w.]*", text) for number in (found.rstrip("."), f"{found.rstrip('.')}.1")
    ]
    accepted = VersionSpec(text) if text else None
    return next((one for one in tried if accepted and accepted.matches(CondaVersion(one))), "0")


def _notes(specs: list[MatchSpec], support: list[MatchSpec], asked: list[Asked]) -> Iterator[str]:
    if builds := sorted({_name(spec) for spec in specs if spec.build is not None}):
        yield f"Builds are conda's own and are not looked at: {', '.join(builds)}."
    if support:
        which = ", ".join(sorted({_name(spec) for spec in support}))
        yield f"PyPI's packages bring these along, or the system has them: {which}."
    for one in asked:
        if canonicalize_name(one.name) != one.project:
            yield f"{one.name} is {one.project} on PyPI."
