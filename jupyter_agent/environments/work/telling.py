"""What a child tells its parent: one JSON value a line on the stdout that it started with.

``{"note": text}``, ``{"progress": [phase, done, total, detail]}``, ``{"error": {"type", "text"}}``,
``{"result": {...}}``. A line too long for the parent's reader goes in pieces: ``{"piece": text}``, then ``{"joined":
true}``.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

PIECE = 16 << 10
"""Characters; the parent's reader cuts what is longer than 64 Ki."""

PAUSE_S = 0.1
"""Between two tellings of how far a phase is: whoever looks on sees no more."""


class Tell:
    """The child's ``Teller``; from any thread."""

    def __init__(self, descriptor: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._descriptor = descriptor
        self._clock = clock
        self._lock = threading.Lock()
        self._last: tuple[str, float] = ("", 0.0)

    def note(self, text: str) -> None:
        """A line of the log."""
        self._say({"note": text})

    def show_progress(self, phase: str, done: float, total: float | None, detail: str = "") -> None:
        """How far a phase is. Left out when the last word was just said, unless the phase begins or is done."""
        now = self._clock()
        last_phase, last = self._last
        if phase == last_phase and now - last < PAUSE_S and done != total:
            return
        self._last = (phase, now)
        self._say({"progress": [phase, done, total, detail]})

    def fail(self, kind: str, text: str) -> None:
        """Why it did not work; the last word."""
        self._say({"error": {"type": kind, "text": text}})

    def finish(self, result: dict[str, Any]) -> None:
        """What came of it; the last word."""
        self._say({"result": result})

    def _say(self, message: dict[str, Any]) -> None:
        line = json.dumps(message)
        if len(line) <= PIECE:
            lines = [line]
        else:
            pieces = [line[start : start + PIECE] for start in range(0, len(line), PIECE)]
            lines = [*(json.dumps({"piece": piece}) for piece in pieces), json.dumps({"joined": True})]
        with self._lock:
            self._write("".join(f"{line}\n" for line in lines).encode())

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]
