"""``requirements.txt``, with what it includes, and what it may not ask for.

An environment is shared by all runs with the same requirements, whereas a package's files lie in a new folder in every
run: so nothing in the environment can come from the package's own folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

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

LOCAL = re.compile(r"^(file:|[.~/]|[A-Za-z]:[\\/])|@\s*(file:|[.~/])|^[^\s:@]+\.(whl|zip|tar\.gz|tgz)(\s|;|\[|$)")
"""A requirement that is a path."""


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
        return cls._of(_statements(file, folder, ())) if file.is_file() else cls()

    @classmethod
    def of(cls, text: str) -> Self:
        """Those in a text that includes nothing."""
        return cls._of(("requirements", line, FILE) for line in _lines(text))

    @classmethod
    def _of(cls, statements: Iterable[tuple[str, str, str]]) -> Self:
        found: dict[str, list[str]] = {"requirements": [], "constraints": [], "options": []}
        for kind, line, where in statements:
            option = re.split(r"[\s=]", line, maxsplit=1)[0]
            if option in FOR_ALL:
                _check_option(line, where)
                found["options"].extend([line] if option not in IGNORED else [])
            else:
                found[kind].append(_checked(line, where))
        return cls(tuple(found["requirements"]), tuple(found["constraints"]), tuple(found["options"]))

    def adding(self, extra: Iterable[str]) -> Requirements:
        """The same and more."""
        return Requirements((*self.lines, *extra), self.constraints, self.options)


def _lines(text: str) -> Iterator[str]:
    """The logical lines: continued ones put together, without comments."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        if kept := re.sub(r"(^|\s)#.*$", "", line).strip():
            yield kept


def _statements(file: Path, folder: Path, within: tuple[Path, ...]) -> Iterator[tuple[str, str, str]]:
    """``(kind, line, where)`` for each line of a file and of the files it includes."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"{file.name} cannot be read as text ({error}): save it as UTF-8.") from error
    for line in _lines(text):
        option, _, value = re.sub(r"^(-[rc])(?=\S)", r"\1 ", line).replace("=", " ", 1).partition(" ")
        if option not in INCLUDES:
            yield "requirements", line, str(file.relative_to(folder))
            continue
        for kind, found, where in _statements(_included(value.strip(), file, folder, within), folder, (*within, file)):
            yield ("constraints" if "constraints" in (kind, INCLUDES[option]) else kind), found, where


def _included(name: str, file: Path, folder: Path, within: tuple[Path, ...]) -> Path:
    target = (file.parent / name).resolve()
    if "://" in name or not target.is_relative_to(folder.resolve()):
        raise InvalidInput(f"{file.name} includes {name}, which is not in the package: copy it into the package.")
    if not target.is_file():
        raise NotFound(f"{file.name} includes {name}, but there is no such file in the package.")
    included = folder / target.relative_to(folder.resolve())
    if included in (*within, file):
        raise InvalidInput(f"{file.name} includes {name}, which includes it again: remove one of the two.")
    return included


def _check_option(line: str, where: str) -> None:
    value = re.split(r"[\s=]+", line, maxsplit=1)[-1]
    if line.startswith(("-f", "--find-links")) and "://" not in value and not Path(value).is_absolute():
        raise InvalidInput(f"{where} says {line!r}: a folder of the package cannot be an index for its environment.")


def _checked(line: str, where: str) -> str:
    if re.match(r"(-e|--editable)\b", line) or LOCAL.search(line):
        raise InvalidInput(
            f"{where} asks for {line!r}, a path: environments are made of packages that can be fetched by name or URL."
        )
    return line
