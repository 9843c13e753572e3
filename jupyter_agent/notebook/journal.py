"""The journal of a run: JSON lines, written while it goes on, from which the output notebook can be made again.

The supervisor reads progress, results and errors from it (they are in its own words); outputs are in it for the case
that the child is killed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jupyter_agent.notebook.spec import complain


class Journal:
    """Appends events to a file; each is flushed. A disk that is full ends the journal, not the run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def add(self, event: str, **facts: Any) -> None:
        """Append one event."""
        if self._descriptor < 0:
            return
        line = to_json({"event": event, **facts}).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            complain(f"The journal of this run cannot be written: {error.strerror}.")
            self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def error(self, text: str) -> None:
        """Say what the run failed of, in one line."""
        first = text.strip().split("\n", 1)[0]
        self.add("error", text=first if len(first) <= 1000 else f"{first[:1000]}…")  # noqa: PLR2004 - a line's worth


def to_json(value: object) -> str:
    """Strict JSON on one line; numbers that JSON does not have become ``null``."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a journal; a last line that was cut off is left out."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event
