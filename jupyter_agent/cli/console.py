"""What is written where: results on stdout, everything else on stderr; colours and progress only on a terminal."""

from __future__ import annotations

import json as jsonlib
import os
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from jupyter_agent.cli.text import cut, plain, table
from jupyter_agent.errors import AgentError

COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "dim": "2", "bold": "1"}

CLEAR_LINE = "\r\x1b[K"

FAILED = 1


@dataclass
class Console:
    """The two outputs of a command. With ``json``, stdout is kept for the one document."""

    out: TextIO
    err: TextIO
    json: bool = False
    plain_colours: bool = False
    _bar: str = field(default="", init=False)
    _line_open: bool = field(default=False, init=False)

    @classmethod
    def standard(cls, *, json: bool) -> Console:
        """The process's own, which print ``?`` for what they cannot encode."""
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # they are TextIOWrappers
        return cls(sys.stdout, sys.stderr, json=json, plain_colours=bool(os.environ.get("NO_COLOR")))

    @property
    def live(self) -> bool:
        """Whether progress can be drawn over itself."""
        return _is_terminal(self.err)

    def width(self, stream: TextIO) -> int | None:
        """Columns of the terminal; ``None``: not one."""
        return shutil.get_terminal_size().columns if _is_terminal(stream) else None

    def paint(self, text: str, colour: str, stream: TextIO | None = None) -> str:
        """The text in a colour, where colours are wanted."""
        if self.plain_colours or colour not in COLOURS or not _is_terminal(stream or self.out):
            return text
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"

    def symbol(self, symbol: str, ascii_symbol: str) -> str:
        """A symbol, or its substitute where it cannot be printed."""
        return symbol if (self.out.encoding or "").lower().replace("-", "").startswith("utf") else ascii_symbol

    def line(self, text: str = "") -> None:
        """A line of the result, for people: on stdout, not with ``--json``."""
        if not self.json:
            self._write(self.out, f"{text}\n")

    def note(self, text: str, colour: str = "") -> None:
        """A line beside the result: on stderr."""
        self._write(self.err, f"{self.paint(text, colour, self.err)}\n")

    def rows(
        self,
        head: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        soft: Collection[int] = (),
        colours: Sequence[str] = (),
    ) -> None:
        """A table, as wide as the terminal at most.

        ``soft`` are the columns that are cut first; ``colours`` those of each row's first column.
        """
        cells = table([head, *([plain(cell) for cell in row] for row in rows)], self.width(self.out), soft)
        for index, row in enumerate(cells):
            if index == 0:
                self.line(self.paint("  ".join(row).rstrip(), "bold"))
            else:
                first = self.paint(row[0], colours[index - 1] if colours else "")
                self.line("  ".join([first, *row[1:]]).rstrip())

    def facts(self, facts: Iterable[tuple[str, object]], *, indent: str = "") -> None:
        """Names and values, a line each."""
        shown = [(name, plain(value)) for name, value in facts if value not in (None, "")]
        widest = max((len(name) for name, _value in shown), default=0)
        for name, value in shown:
            self.line(f"{indent}{self.paint(name.ljust(widest), 'dim')}  {value}")

    def document(self, value: Any) -> None:
        """The one JSON document of ``--json``."""
        self.clear()
        self.out.write(jsonlib.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def pass_on(self, text: str, *, to_err: bool) -> None:
        """A run's own output, as it is; with ``--json`` all of it goes to stderr."""
        self._write(self.err if to_err or self.json else self.out, text)

    def bar(self, text: str) -> None:
        """Show ``text`` below everything else, in place of the one before; only on a terminal."""
        if text != self._bar:
            self._bar = text
            self._draw()

    def clear(self) -> None:
        """Take the bar away; after a text that ended in the middle of a line, begin a new one."""
        if self._bar and self.live and not self._line_open:
            self.err.write(CLEAR_LINE)
        self._bar = ""
        if self._line_open:
            self._line_open = False
            self.err.write("\n")
        self.err.flush()

    def flush(self) -> None:
        """Write out what is buffered. Raises ``BrokenPipeError`` when nobody reads it."""
        self.out.flush()
        self.err.flush()

    def fail(self, error: AgentError) -> int:
        """Say in one sentence what went wrong; the exit code."""
        try:
            self.clear()
            self.err.write(f"jupyter-agent: {error}\n")
            if self.json:
                self.document({"message": str(error), "reason": getattr(error, "reason", "") or type(error).__name__})
            self.flush()
        except OSError:  # a full disk, a pipe that nobody reads
            self.give_up()
        return FAILED

    def give_up(self) -> None:
        """Write nothing more to stdout, nor have the interpreter try it at its end."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())

    def _write(self, stream: TextIO, text: str) -> None:
        if not text:
            return
        if self._bar and self.live and not self._line_open:
            self.err.write(CLEAR_LINE)
            self.err.flush()
        stream.write(text)
        stream.flush()
        if _is_terminal(stream):
            self._line_open = not text.endswith("\n")
        self._draw()

    def _draw(self) -> None:
        if self._bar and self.live and not self._line_open:
            columns = shutil.get_terminal_size().columns
            self.err.write(f"{CLEAR_LINE}{self.paint(cut(self._bar, columns - 1), 'dim', self.err)}")
            self.err.flush()


def open_closed_streams() -> None:
    """Let the standard streams that were closed lead nowhere, also for the program that takes our place.

    Else the next file or socket that is opened would be in their place.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)  # noqa: FBT003 - it takes no keyword
            setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - it stays open


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"
