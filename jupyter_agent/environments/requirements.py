"""``requirements.txt``, with what it includes, and what it may not ask for.

An environment is shared by all runs with the same requirements, whereas a package's files lie in a new folder in every
run: so nothing in the environment can come from the package's own folder.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Self

from jupyter_agent.environments.indexes import without_credentials
from jupyter_agent.environments.reading import read_text
from jupyter_agent.errors import InvalidInput, NotFound

FILE = "requirements.txt"

INCLUDES = {"-r": "requirements", "--requirement": "requirements", "-c": "constraints", "--constraint": "constraints"}

FOR_ALL = (
    *("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index"),
    *("--no-binary", "--only-binary", "--pre", "--prefer-binary", "--trusted-host", "--use-feature"),
)
"""Options that stand on a line of their own and hold for all requirements."""

IGNORED = ("--prefer-binary", "--trusted-host", "--use-feature")
"""Those that uv does not know."""

EXPORTED = re.compile(r"[\w.-]+=[^=\s]+=[^=\s]+$")
"""A line of ``conda list --export``, which is often called requirements.txt."""

LOCAL = re.compile(r"^(file:|[.~/]|[A-Za-z]:[\\/])|@\s*(file:|[.~/])|^[^\s:@]+\.(whl|zip|tar\.gz|tgz)(\s|;|\[|$)")
"""A requirement that is a path."""

HASH = re.compile(r"\s--hash[=\s]\s*(\w+:\w+)")

NAMED = re.compile(r"(?:\S+://\S*/([A-Za-z0-9._]+)-\d|([A-Za-z0-9][A-Za-z0-9._-]*))")
"""The name of a requirement, or of the wheel that its URL alone leads to."""

MOST_BYTES = 1_000_000
"""Of a file, and of all files that it includes together."""

MOST_INCLUDED = 100

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Requirements:
    """What an environment is to hold: requirements, constraints, and options such as ``--index-url``, a line each."""

    lines: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Those of the package in ``folder``; none when it has no ``requirements.txt``.

        Raises ``InvalidInput`` for what cannot be had, ``NotFound`` for an included file that is not there.
        """
        file = folder / FILE
        if not file.is_file():
            return cls()
        text = read_text(file, most_bytes=MOST_BYTES)
        return cls.of(text, files=gathered(text, FILE, folder=folder, within=folder))

    @classmethod
    def of(cls, text: str, *, name: str = FILE, files: Mapping[str, str] = NOTHING) -> Self:
        """Those in a text; ``files`` are those it may include, by their path from its folder.

        Raises ``InvalidInput``, ``NotFound``.
        """
        found: dict[str, list[str]] = {"requirements": [], "constraints": [], "options": []}
        for kind, line, where in _Reader(files.get).statements(text, name, (), "requirements"):
            option = option_of(line)
            if option in FOR_ALL:
                _check_option(line, where)
                found["options"].extend([line] if option not in IGNORED else [])
            else:
                found[kind].append(_checked(line, where))
        return cls(tuple(found["requirements"]), tuple(found["constraints"]), tuple(found["options"]))

    def adding(self, extra: Iterable[str]) -> Requirements:
        """The same and more."""
        return Requirements((*self.lines, *extra), self.constraints, self.options)


def hashes_of(lines: Iterable[str]) -> dict[str, frozenset[str]]:
    """The hashes that lines say a package's file may have, none other (``--hash=sha256:...``), by its name.

    The name is in its normal form. Two lines of one name are for two machines: the hashes of both will do.
    """
    found: dict[str, frozenset[str]] = {}
    for line in lines:
        hashes = frozenset(hash_.lower() for hash_ in HASH.findall(line))
        written = NAMED.match(line)
        if hashes and written:
            name = re.sub(r"[-_.]+", "-", written[1] or written[2]).lower()
            found[name] = found.get(name, frozenset()) | hashes
    return found


def option_of(line: str) -> str:
    """The first word of a line; an option where it begins with a dash."""
    return re.split(r"[\s=]", line, maxsplit=1)[0]


def gathered(text: str, name: str, *, folder: Path, within: Path) -> dict[str, str]:
    """The texts of all files that a text includes, by their path from ``folder``, which is its own.

    Raises ``InvalidInput`` for one outside of ``within``, ``NotFound`` for one that is not there.
    """
    found: dict[str, str] = {}
    left = MOST_BYTES

    def fetch(target: str) -> str | None:
        nonlocal left
        if target not in found:
            path = folder / target
            try:
                inside, there = path.resolve().is_relative_to(within.resolve()), path.is_file()
            except (OSError, RuntimeError, ValueError):  # a name that is too long, links in a circle
                return None
            if not inside:
                raise _outside(name, target)
            if not there:
                return None
            found[target] = read_text(path, most_bytes=left)
            left -= len(found[target])
            if len(found) > MOST_INCLUDED:
                raise InvalidInput(f"{name} includes more than {MOST_INCLUDED} files: put them together.")
        return found[target]

    for _ in _Reader(fetch).statements(text, name, (), "requirements"):
        pass
    return found


def _lines(text: str) -> Iterator[str]:
    """The logical lines: continued ones put together, without comments."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        if kept := re.sub(r"(^|\s)#.*$", "", line).strip():
            yield kept


@dataclass(frozen=True)
class _Reader:
    """Goes through a text and what it includes; ``fetch`` gives an included text by its path."""

    fetch: Callable[[str], str | None]
    done: set[tuple[str, str]] = field(default_factory=set)

    def statements(self, text: str, name: str, within: tuple[str, ...], kind: str) -> Iterator[tuple[str, str, str]]:
        """``(kind, line, where)`` for each line; a file that is included twice is heard once."""
        for line in _lines(text):
            option, _, value = re.sub(r"^(-[rc])(?=\S)", r"\1 ", line).replace("=", " ", 1).partition(" ")
            if option not in INCLUDES:
                yield kind, line, name
                continue
            target = _target(value.strip(), name, within)
            inner = "constraints" if kind == "constraints" else INCLUDES[option]
            included = self.fetch(target)
            if included is None:
                raise NotFound(f"{name} includes {value.strip()}, but there is no such file in the package.")
            if (inner, target) not in self.done:
                self.done.add((inner, target))
                yield from self.statements(included, target, (*within, name), inner)


def _target(value: str, name: str, within: tuple[str, ...]) -> str:
    """The path, from the first file's folder, of what the file called ``name`` includes as ``value``."""
    if not value or not value.isprintable():
        raise InvalidInput(f"{name} includes a file without a usable name ({value[:60]!r}): correct or remove it.")
    if "://" in value or value.startswith(("/", "~", "\\")) or re.match(r"[A-Za-z]:", value):
        raise _outside(name, value)
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), value.replace("\\", "/")))
    if target in (*within, name):
        raise InvalidInput(f"{name} includes {value}, which includes it again: remove one of the two.")
    if len(within) >= MOST_INCLUDED:
        raise InvalidInput(f"{name} includes {value} over too many steps: put them together.")
    return target


def _outside(name: str, value: str) -> InvalidInput:
    shown = without_credentials(value)
    return InvalidInput(f"{name} includes {shown}, which is not in the package: copy it into the package.")


def _check_option(line: str, where: str) -> None:
    value = re.split(r"[\s=]+", line, maxsplit=1)[-1]
    if line.startswith(("-f", "--find-links")) and "://" not in value and not Path(value).is_absolute():
        raise InvalidInput(
            f"{where} says {without_credentials(line)!r}: a folder of the package cannot be an index for its "
            "environment."
        )


def _checked(line: str, where: str) -> str:
    if EXPORTED.match(line):
        raise InvalidInput(
            f"{where} asks for {without_credentials(line)!r}, in conda's words: put it into an environment.yml."
        )
    if re.match(r"(-e|--editable)\b", line) or LOCAL.search(line):
        shown = without_credentials(line)
        raise InvalidInput(
            f"{where} asks for {shown!r}, a path: environments are made of packages that can be fetched by name or URL."
        )
    return line
