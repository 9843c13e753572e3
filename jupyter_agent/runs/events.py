"""What a child reports about its run: JSON lines in a file that is read while the child appends to it.

Only the lines that concern a run are parsed, told by the ``event`` key at their beginning: a notebook's outputs, with
their images, are passed over unread.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONGEST_LINE = 1 << 20
"""Bytes; a longer one is passed over."""

BLOCK_BYTES = 256 << 10
BLOCKS_AT_ONCE = 64
"""So much is read before the loop looks at other things again: 16 MiB."""

DEEPEST = 64
MOST_RESULTS = 1000
MOST_RESULT_BYTES = 4 << 20
"""As JSON, of all results of a run: they are in its row, which is read and sent as a whole."""

LONGEST_LABEL = 200
MOST_ARTIFACTS = 1000

_KIND = re.compile(rb'\s*\{\s*"event"\s*:\s*"(progress|result|error|kernel_died|artifact)"')


@dataclass
class Reported:
    """What a run has reported so far."""

    progress: dict[str, Any] | None = None
    results: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    kernel_died: bool = False
    artifacts: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    """Names of results for which there was no room."""
    _sizes: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def take(self, event: dict[str, Any]) -> bool:
        """Take in one event; whether it was one that changes anything."""
        match event:
            case {"event": "progress", "done": int() | float() as done, "total": int() | float() | None as total}:
                label = event.get("label")
                text = label[:LONGEST_LABEL] if isinstance(label, str) else ""
                self.progress = {"done": done, "total": total, "label": text}
            case {"event": "result", "name": str() as name, "value": value}:
                self._take_result(name, value)
            case {"event": "error", "text": str() as text}:
                self.error = text
            case {"event": "kernel_died"}:
                self.kernel_died = True
            case {"event": "artifact", "path": str() as path} if len(self.artifacts) < MOST_ARTIFACTS:
                if path not in self.artifacts:
                    self.artifacts.append(path)
            case _:
                return False
        return True

    def _take_result(self, name: str, value: Any) -> None:
        size = len(name) + len(json.dumps(value))
        others = sum(self._sizes.values()) - self._sizes.get(name, 0)
        if others + size > MOST_RESULT_BYTES or (name not in self.results and len(self.results) >= MOST_RESULTS):
            self.refused.add(name)
            return
        self.refused.discard(name)
        self.results[name] = value
        self._sizes[name] = size


class EventLines:
    """Cuts what was appended into lines and parses those that matter; a line may come in any number of pieces."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._passing_over = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The events that are complete now."""
        *lines, rest = data.split(b"\n")
        events = [event for line in lines if (event := self._end(line)) is not None]
        self._keep(rest)
        return events

    def _keep(self, part: bytes) -> None:
        if self._passing_over:
            return
        self._rest += part
        if len(self._rest) > LONGEST_LINE:
            self._passing_over = True
            self._rest.clear()

    def _end(self, part: bytes) -> dict[str, Any] | None:
        self._keep(part)
        passed_over, line = self._passing_over, bytes(self._rest)
        self._passing_over = False
        self._rest.clear()
        return None if passed_over else parsed(line)


def parsed(line: bytes) -> dict[str, Any] | None:
    """The event in a line; ``None`` when it is none of a run's, or broken."""
    if not _KIND.match(line):
        return None
    try:
        event = json.loads(line, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and _is_flat_enough(event) else None


def _is_flat_enough(value: Any) -> bool:
    """Whether lists and objects are nested less than ``DEEPEST``: whoever writes or copies them recurses."""
    level = [value]
    for _ in range(DEEPEST):
        if not level:
            return True
        below = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [item for items in below for item in items]
    return False


def _finite(text: str) -> float | None:
    """The number; ``None`` for one that is too large to be one, as for NaN: no JSON can hold them."""
    number = float(text)
    return number if math.isfinite(number) else None


class EventFile:
    """Reads a child's event file as it grows. There need not be one yet; blocks for the reading, so it is for a thread.

    The child can put anything there: a link or a pipe is not opened, and a file that became shorter is read anew.
    """

    def __init__(self, path: Path) -> None:
        self.reported = Reported()
        self._path = path
        self._offset = 0
        self._lines = EventLines()
        self._reading = threading.Lock()

    def has_more(self) -> bool:
        """Whether the file's size says that there is something to read; cheap."""
        try:
            return self._path.stat(follow_symlinks=False).st_size != self._offset
        except OSError:
            return False

    def read(self) -> bool:
        """Take in what was appended; whether that changed anything."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            with self._reading:
                return self._read(descriptor)
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def read_all(self) -> None:
        """Take in all that is left in a file that does not grow any more."""
        last = -1
        while self.has_more() and self._offset != last:
            last = self._offset
            self.read()

    def _read(self, descriptor: int) -> bool:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return False
        if found.st_size < self._offset:
            self._offset, self._lines = 0, EventLines()
        changed = False
        for _ in range(BLOCKS_AT_ONCE):
            data = os.pread(descriptor, BLOCK_BYTES, self._offset)
            self._offset += len(data)
            for event in self._lines.feed(data):
                changed = self.reported.take(event) or changed
            if len(data) < BLOCK_BYTES:
                break
        return changed
