"""Reading ``requirements.txt``: what it includes, and what cannot be locked.

The grammar is pip's (Requirements File Format); resolving is uv's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from jupyter_agent.errors import InvalidInput

INCLUDE = re.compile(r"^(?:-r|--requirement|-c|--constraint)[\s=]*(?P<file>.+)$")
LOCAL = re.compile(r"^(?:-e\b|--editable\b|\.{1,2}(?:[/\\]|$)|[/\\~]|file:|[^\s@]+ @ file:)")
DEPTH = 8


def read_all(file: Path, root: Path) -> Iterator[tuple[Path, bytes]]:
    """The file and what it includes, each with its bytes.

    Raises ``InvalidInput`` for a file that leaves ``root`` or is missing, and for what cannot be locked: a project in a
    folder, which has no hash.
    """
    yield from _read(file, root.resolve(), 0)


def _read(file: Path, root: Path, depth: int) -> Iterator[tuple[Path, bytes]]:
    try:
        content = file.read_bytes()
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file.name} cannot be read ({error}): it should be a text in UTF-8.") from error
    yield file, content
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if LOCAL.match(text):
            raise InvalidInput(
                f"{file.name}, line {number}: {text!r} is a project in a folder, which cannot be locked: name one "
                "of an index instead, or put its files beside the program."
            )
        if included := INCLUDE.match(text):
            yield from _read(
                _included(file, included["file"].split(" #")[0].strip(), root, number, depth), root, depth + 1
            )


def _included(file: Path, name: str, root: Path, number: int, depth: int) -> Path:
    target = (file.parent / name).resolve()
    if "://" in name or not target.is_relative_to(root):
        raise InvalidInput(f"{file.name}, line {number}: {name} lies outside the package: put it into the package.")
    if not target.is_file():
        raise InvalidInput(f"{file.name}, line {number}: there is no file {name} in the package.")
    if depth >= DEPTH:
        raise InvalidInput(f"{file.name}, line {number}: the files include one another too deeply.")
    return target
