"""Which file says what an environment is to hold, and its text: read with bounds, told apart, named by a digest.

It does not know what the text asks for: that is worked out where conda's libraries may be imported (``specs``).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from jupyter_agent.environments.reading import load_yaml, read_text, spans, text_of
from jupyter_agent.environments.requirements import INCLUDES, MOST_BYTES, Requirements, gathered, option_of
from jupyter_agent.errors import AgentError, InvalidInput

MOST_LOCK_BYTES = 32_000_000

LOCK_NAME = "conda-lock.yml"

CONDA_NAMES = ("environment.yml", "environment.yaml", "conda.yml", "conda.yaml")

EXPLICIT_MARK = re.compile(r"^\s*@EXPLICIT\s*$", re.MULTILINE)

LOCK_MARKS = (re.compile(r"^package:", re.MULTILINE), re.compile(r"^metadata:", re.MULTILINE))

INCLUDING = re.compile(r"(?<![\w-])-[rc]|--(requirement|constraint)\b")

SYSTEMS = {"linux": "linux", "darwin": "osx", "win32": "win"}

MACHINES = {"x86_64": "64", "amd64": "64", "i686": "32", "i386": "32", "x86": "32"}

NO_IDENTITY = ("name", "prefix")
"""Keys of an environment.yml that say where somebody has it, not what it holds."""


AFTER_VALUE = re.compile(r"[ \t]*(#[^\n]*)?\n*")


class Kind(StrEnum):
    """Of a file that says what an environment is to hold."""

    CONDA = "conda"
    LOCK = "lock"
    EXPLICIT = "explicit"
    REQUIREMENTS = "requirements"
    PYPROJECT = "pyproject"


def this_platform() -> str:
    """What conda calls this machine: ``linux-64``, ``osx-arm64``, ``win-64``."""
    machine = platform.machine().lower()
    return f"{SYSTEMS.get(sys.platform, sys.platform)}-{MACHINES.get(machine, machine)}"


@dataclass(frozen=True)
class Definition:
    """A file's text, and the texts of the files that it includes (``-r``, ``-c``).

    Those are named by their path from the file's own folder (``more/base.txt``).
    """

    name: str
    kind: Kind
    text: str
    included: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, *, within: Path | None = None) -> Self:
        """The file at ``path``; what it includes lies in ``within`` (its own folder where that is ``None``).

        Raises ``NotFound`` where there is no such file, ``InvalidInput`` for what is none of the files known here.
        """
        _check_name(path.name)
        text = read_text(path, most_bytes=_most_bytes(path.name), within=within)
        made = cls(path.name, kind_of(path.name, text), text)
        included: dict[str, str] = {}
        for text in made._including():
            more = gathered(text, path.name, folder=path.parent, within=within or path.parent)
            included.update(more)
        return cls(made.name, made.kind, made.text, included)

    @classmethod
    def of(cls, name: str, text: str) -> Self:
        """One that has a name and a text but no folder, so that it can include nothing. Raises ``InvalidInput``."""
        _check_name(name)
        try:
            data = text.encode()
        except UnicodeEncodeError as error:  # half a character, as JSON may hold it
            raise InvalidInput(f"{name} cannot be read as text ({error.reason}): give whole characters.") from error
        checked = text_of(data, name, most_bytes=_most_bytes(name))
        return cls(name, kind_of(name, checked), checked)

    @property
    def digest(self) -> str:
        """The same for what asks for the same: sha256 of kind, text and included texts, whatever they are called."""
        text = without_identity(self.text) if self.kind is Kind.CONDA else self.text
        return hashlib.sha256(json.dumps([self.kind, text, sorted(self.included.items())]).encode()).hexdigest()

    def conda(self) -> bool:
        """Whether it needs conda; otherwise ``requirements()`` says all of it. Raises ``InvalidInput``."""
        if self.kind is Kind.PYPROJECT:
            return _needs_conda(load_toml(self.text, self.name))
        return self.kind is not Kind.REQUIREMENTS

    def requirements(self) -> Requirements:
        """What a file that needs no conda asks for. Raises ``InvalidInput``, ``NotFound``."""
        if self.kind is Kind.REQUIREMENTS:
            return Requirements.of(self.text, name=self.name, files=self.included)
        if self.kind is Kind.PYPROJECT and not self.conda():
            return Requirements.of("\n".join(_project_lines(self.text, self.name)), name=self.name)
        raise InvalidInput(f"{self.name} asks for a conda environment: it cannot be made from requirements alone.")

    def _including(self) -> Iterator[str]:
        """The text, or the parts of it, that may include other files."""
        if self.kind is Kind.REQUIREMENTS:
            yield self.text
        elif self.kind is Kind.CONDA and INCLUDING.search(self.text):
            lines = (line.strip() for line in pip_lines(load_yaml(self.text, self.name, duplicates=True)))
            yield "\n".join(line for line in lines if re.sub(r"^(-[rc]).*", r"\1", option_of(line)) in INCLUDES)


def find(folder: Path) -> Path | None:
    """The file in a package's folder that says what its environment is to hold; ``None``: there is none."""
    there = [name for name in (LOCK_NAME, *CONDA_NAMES) if _is_file(folder / name)]
    lists = ("explicit.txt", f"conda-{this_platform()}.lock", "spec-file.txt")
    there += [name for name in lists if _is_file(folder / name) and EXPLICIT_MARK.search(_beginning(folder / name))]
    if _is_file(folder / "requirements.txt"):
        there.append("requirements.txt")
    if not there and _is_file(folder / "pyproject.toml") and _asks(folder / "pyproject.toml"):
        there.append("pyproject.toml")
    return folder / there[0] if there else None


def kind_of(name: str, text: str) -> Kind:
    """By the name where it is a usual one, by the text otherwise. Raises ``InvalidInput`` for neither."""
    lowered = name.lower()
    if _is_lock_name(lowered):
        return Kind.LOCK
    if lowered in CONDA_NAMES:
        return Kind.CONDA
    if EXPLICIT_MARK.search(text):
        return Kind.EXPLICIT
    if lowered.endswith(".toml"):
        return Kind.PYPROJECT
    if lowered.endswith((".yml", ".yaml", ".lock")) or re.search(r"^dependencies:", text, re.MULTILINE):
        return Kind.LOCK if all(mark.search(text) for mark in LOCK_MARKS) else Kind.CONDA
    if lowered.endswith((".txt", ".in")):
        return Kind.REQUIREMENTS
    raise InvalidInput(
        f"{name[:100]!r} is no file that says what an environment is to hold: give an environment.yml, "
        "a requirements.txt, a pyproject.toml, a conda-lock.yml or an explicit list."
    )


def _check_name(name: str) -> None:
    if not name or not name.isprintable():
        raise InvalidInput(f"The file's name {name[:60]!r} cannot be shown: give it one of letters and digits.")


def _most_bytes(name: str) -> int:
    return MOST_LOCK_BYTES if _is_lock_name(name) else MOST_BYTES


def _is_lock_name(name: str) -> bool:
    return name.lower().endswith(("conda-lock.yml", "conda-lock.yaml"))


def _beginning(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - that of pathlib raises for a folder that may not be entered


def without_identity(text: str) -> str:
    """Without the lines that say ``name:`` and ``prefix:``; as it is where it is no YAML."""
    parts, at = [], 0
    for start, end in spans(text, NO_IDENTITY):
        parts.append(text[at:start])
        rest = AFTER_VALUE.match(text, end)
        at = rest.end() if rest else end
    return "".join((*parts, text[at:])).rstrip("\n")


def pip_lines(value: object) -> Iterator[str]:
    """The lines of the ``pip:`` parts of a loaded environment.yml, as far as they are text."""
    dependencies = value.get("dependencies") if isinstance(value, dict) else None
    for dependency in dependencies if isinstance(dependencies, list) else ():
        pip = dependency.get("pip") if isinstance(dependency, dict) else None
        yield from (line for line in (pip if isinstance(pip, list) else ()) if isinstance(line, str))


# pyproject.toml


def load_toml(text: str, name: str) -> dict[str, Any]:
    """The value of a TOML text. Raises ``InvalidInput``."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise InvalidInput(f"{name} is not TOML: {str(error)[:200]}.") from error


def table(value: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A table in a table; empty where there is none."""
    for name in names:
        value = value.get(name, {}) if isinstance(value, Mapping) else {}
    return dict(value) if isinstance(value, Mapping) else {}


def _asks(file: Path) -> bool:
    """Whether a pyproject.toml asks for something; one that cannot be read does, so that somebody is told."""
    try:
        value = load_toml(read_text(file, most_bytes=MOST_BYTES), file.name)
        return bool(table(value, "project").get("dependencies")) or _needs_conda(value)
    except AgentError:
        return True


def _needs_conda(value: Mapping[str, Any]) -> bool:
    tool = table(value, "tool")
    return "conda-lock" in tool or "dependencies" in table(tool, "poetry") or not _suits_us(value)


def _suits_us(value: Mapping[str, Any]) -> bool:
    """Whether our own interpreter is one of those that the project is for."""
    wanted = table(value, "project").get("requires-python")
    if not isinstance(wanted, str):
        return True
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415 - for such projects alone

    try:
        return SpecifierSet(wanted).contains(platform.python_version(), prereleases=True)
    except InvalidSpecifier as error:
        raise InvalidInput(
            f"pyproject.toml asks for Python {wanted!r}, which is no version: write '>=3.11'."
        ) from error


def _project_lines(text: str, name: str) -> list[str]:
    return project_dependencies(load_toml(text, name), name)


def project_dependencies(value: Mapping[str, Any], name: str) -> list[str]:
    """``[project] dependencies``, each a line. Raises ``InvalidInput`` for what is no list of them."""
    found = table(value, "project").get("dependencies", [])
    if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
        raise InvalidInput(f"{name}: [project] dependencies is no list of texts: write dependencies = ['numpy>=2'].")
    for line in found:
        if not line.strip() or line.lstrip().startswith("-") or not line.isprintable():
            raise InvalidInput(
                f"{name} asks for {line[:100]!r}, which is no requirement: write 'numpy>=2' or the like."
            )
    return list(found)
