"""Build steps: what is run once before a run can start, with its output live in the run's log."""

from __future__ import annotations

import re
from collections.abc import Callable

from jupyter_agent import processes
from jupyter_agent.errors import Failed
from jupyter_agent.processes import Command
from jupyter_agent.runtimes.base import Teller

TIMEOUT_S = 3600

MOST_LINES = 2000
"""Of a step's output in the log: a build that prints without end leaves room for the run's own output."""

LONGEST_LINE = 2000
"""Characters of a line in the log."""

LAST_LINES = 5
"""Of a failed step's output in the error's sentence."""

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]")


def last_lines(output: str) -> str:
    """The last lines that say anything, as one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " ".join(lines[-LAST_LINES:])


async def build(
    command: Command,
    *,
    run: Teller,
    tag: str,
    what: str,
    explain: Callable[[str], str] = last_lines,
    hide: Callable[[str], str] = lambda text: text,
    fault: re.Pattern[str] | None = None,
) -> str:
    """Run a step to its end, its output live in the run's log; the newest of the output (64 KiB).

    ``what`` names the step in the error's sentence (``"npm ci"``), ``explain`` finds in the output of a failed one
    why it failed, ``hide`` makes secrets in a line unreadable; a line in which ``fault`` is found tells of a failure
    whatever the exit code. Raises ``Failed`` with that sentence, and what
    ``processes.run`` raises; nothing that the step started is left then, nor after a cancellation.
    """
    shown = _Shown(run, hide, fault)
    done = await processes.run(
        command, tag=tag, on_line=lambda _stream, line: shown.take(_ESCAPES.sub("", line)), timeout_s=TIMEOUT_S
    )
    shown.finish()
    output = hide(_ESCAPES.sub("", done.output))
    if not done.exit.ok:
        raise Failed(f"{what} failed ({done.exit}): {explain(output) or 'it said nothing'}")
    if shown.failure is not None:
        raise Failed(f"{what} failed, though it ended as if it had not: {hide(shown.failure)[:LONGEST_LINE]}")
    return output


class _Shown:
    """Hands lines to the log, up to a bound; keeps the first that tells of a failure."""

    def __init__(self, run: Teller, hide: Callable[[str], str], fault: re.Pattern[str] | None) -> None:
        self.failure: str | None = None
        self._run = run
        self._hide = hide
        self._fault = fault
        self._count = 0

    def take(self, line: str) -> None:
        self._count += 1
        if self.failure is None and self._fault is not None and self._fault.search(line):
            self.failure = line
        if self._count <= MOST_LINES:
            self._run.note(self._hide(line)[:LONGEST_LINE])

    def finish(self) -> None:
        if self._count > MOST_LINES:
            self._run.note(f"… {self._count - MOST_LINES} more lines …")
