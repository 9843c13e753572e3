"""Text and YAML that anyone may have written: read within bounds, or refused in a sentence.

PyYAML's fast loader crashes the process on deeply nested text, and spends minutes on other text; its parser does
neither as long as somebody looks at each event. So a text is looked through before it is loaded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from jupyter_agent.errors import InvalidInput, NotFound

DEEPEST = 30

MOST_NODES = 1_000_000
"""Of a document whose aliases stand for what they name."""

BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def read_text(path: Path, *, most_bytes: int, within: Path | None = None) -> str:
    """The text of a file, its lines ended by a newline alone.

    Raises ``NotFound`` where there is none, and ``InvalidInput`` for one that is no text, holds more than
    ``most_bytes``, is none (a folder, a device), or is a link that leads out of ``within``.
    """
    try:
        if within is not None and not path.resolve().is_relative_to(within.resolve()):
            raise InvalidInput(f"{path.name} leads out of its folder: copy the file itself into the folder.")
        data = _bytes(path, most_bytes)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path.name} in {path.parent}.") from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{path.name[:100]!r} cannot be read ({reason}): give a file that can be.") from error
    return text_of(data, path.name, most_bytes=most_bytes)


def _bytes(path: Path, most_bytes: int) -> bytes:
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:  # noqa: PTH123 - a handle, opened so that a pipe does not make us wait
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise InvalidInput(f"{path.name} is no file that can be read: give a text file.")
        return file.read(most_bytes + 1)


def text_of(data: bytes, name: str, *, most_bytes: int) -> str:
    """The text in ``data``. Raises ``InvalidInput`` as above."""
    if len(data) > most_bytes:
        raise InvalidInput(f"{name} has more than {most_bytes / 1e6:g} MB: a file that says so little can be smaller.")
    if data[:2] in BYTE_ORDER_MARKS:
        raise InvalidInput(f"{name} cannot be read as text ({BYTE_ORDER_MARKS[data[:2]]}): save it as UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeError as error:
        raise InvalidInput(f"{name} cannot be read as text ({error}): save it as UTF-8.") from error
    if "\0" in text:
        raise InvalidInput(f"{name} cannot be read as text (it holds NUL characters): save it as UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def load_yaml(text: str, name: str, *, plain: bool = False, duplicates: bool = False) -> Any:
    """The value of a YAML text; ``plain``: all scalars as they are written; ``duplicates``: keys may come twice.

    Raises ``InvalidInput`` for what is not YAML, nested deeper than any file of use, grown by aliases, or ambiguous.
    """
    try:
        _look_through(text, name, duplicates=duplicates)
        return yaml.load(text, Loader=yaml.CBaseLoader if plain else yaml.CSafeLoader)  # noqa: S506 - both are safe
    except yaml.YAMLError as error:
        raise InvalidInput(f"{name} is not YAML: {_reason(error, text)}.") from error
    except (ValueError, OverflowError, RecursionError, TypeError, KeyError, AttributeError) as error:  # of its scalars
        raise InvalidInput(f"{name} is not YAML that can be used: {str(error)[:200]}.") from error


def spans(text: str, keys: Sequence[str]) -> list[tuple[int, int]]:
    """Where, in the mapping that a text is, some keys stand with values of one word: from key to value's end.

    None where it is no mapping or no YAML, or nested too deep.
    """
    found: list[tuple[int, int]] = []
    depth, before = 0, list[yaml.Event]()
    try:
        for event in _events(text):
            if depth == 1 and isinstance(event, yaml.NodeEvent):
                before = [] if len(before) == 2 else before  # noqa: PLR2004 - a key and its value
                before.append(event)
                found.extend(_span(before, keys))
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                return []
    except (yaml.YAMLError, UnicodeError):
        return []
    return found


def _span(pair: Sequence[yaml.Event], keys: Sequence[str]) -> Iterator[tuple[int, int]]:
    match pair:
        case [yaml.ScalarEvent() as key, yaml.ScalarEvent() as value] if key.value in keys:
            if key.start_mark and value.end_mark:
                yield key.start_mark.index, value.end_mark.index


def _reason(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).splitlines()[0][:200]
    if mark is None:
        return problem
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or "\\t" in problem:
        problem = "a tab, where YAML takes spaces only"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


@dataclass
class _Open:
    """A list or mapping whose end has not come yet."""

    mapping: bool
    anchor: str | None
    before: int
    keys: set[str] = field(default_factory=set)
    children: int = 0


def _look_through(text: str, name: str, *, duplicates: bool) -> None:
    """Raise ``InvalidInput`` for nesting, growth and keys that come twice; ``yaml.YAMLError`` for what is not YAML."""
    nodes, grown = 0, 0
    sizes: dict[str | None, int] = {}
    path: list[_Open] = []
    for event in _events(text):
        if isinstance(event, yaml.CollectionEndEvent):
            closed = path.pop()
            if closed.anchor:
                sizes[closed.anchor] = nodes + grown - closed.before
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        nodes += 1
        if isinstance(event, yaml.AliasEvent):
            grown += sizes.get(event.anchor, 1)
        if nodes + grown > MOST_NODES:
            raise InvalidInput(f"{name} grows beyond {MOST_NODES} values by its aliases: write out what is meant.")
        if path:
            _count(path[-1], event, name, duplicates=duplicates)
        if isinstance(event, yaml.CollectionStartEvent):
            path.append(_Open(isinstance(event, yaml.MappingStartEvent), event.anchor, nodes + grown))
            if len(path) > DEEPEST:
                raise InvalidInput(f"{name} is nested deeper than {DEEPEST} levels: no file of this kind is.")


def _events(text: str) -> Iterator[yaml.Event]:
    return iter(yaml.parse(text, Loader=yaml.CSafeLoader))


def _count(parent: _Open, event: yaml.NodeEvent, name: str, *, duplicates: bool) -> None:
    parent.children += 1
    if parent.mapping and parent.children % 2 and isinstance(event, yaml.ScalarEvent) and not duplicates:
        if event.value in parent.keys:
            where = f" (line {event.start_mark.line + 1})" if event.start_mark else ""
            raise InvalidInput(f"{name} has the key {event.value[:100]!r} twice{where}: put the two together.")
        parent.keys.add(event.value)
