"""The parent's side: a job is done by a child process, judged by what it says at its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_agent import errors, processes
from jupyter_agent.environments.telling import Teller
from jupyter_agent.environments.work.jobs import Job, to_json
from jupyter_agent.environments.work.scratch import scratch
from jupyter_agent.errors import AgentError, Failed

TIMEOUT_S = 6 * 3600.0
"""For a job: gigabytes through a slow line are waited for, and whoever does not want to wait cancels."""

SCRATCH = "scratch"
"""In the cache: a folder for each job under way."""

TEMPORARY = ("TMPDIR", "TEMP", "TMP")
"""Variables that say where temporary files go."""

LAST_LINES = 5
"""Of what a child printed that ended without a result."""

ERRORS: dict[str, type[AgentError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, AgentError)
}


async def work(job: Job, *, environ: Mapping[str, str], teller: Teller, tag: str) -> dict[str, Any]:
    """Have a child process do the job; its result. ``environ`` is the child's environment, ``tag`` its mark.

    Raises the ``AgentError`` that the child raised, or ``Failed`` with its last lines when it died. Cancelled, it is
    killed with all that it started, and gone when this returns.
    """
    heard = _Heard(teller)
    stack = contextlib.ExitStack()
    written = asyncio.create_task(asyncio.to_thread(_written, job, stack))
    try:
        file = await asyncio.shield(written)
        own = dict.fromkeys(TEMPORARY, str(file.parent))
        command = processes.Command(
            (sys.executable, "-P", "-m", "jupyter_agent.environments.work", str(file)), file.parent, {**environ, **own}
        )
        done = await processes.run(command, tag=tag, on_line=heard.line, timeout_s=TIMEOUT_S)
    finally:
        await asyncio.wait([written])
        await asyncio.to_thread(stack.close)
    return heard.outcome(done.exit)


def _written(job: Job, stack: contextlib.ExitStack) -> Path:
    """A file with the job, for its user alone: a channel's URL may have a password in it.

    It lies in a folder for all that the child needs for a while, which is gone with ``stack``. Raises ``Failed``.
    """
    place = job.settings.cache / SCRATCH
    try:
        file = stack.enter_context(scratch(place, prefix="job-")) / "job.json"
        file.write_text(to_json(job), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise Failed(f"Nothing can be written to {place} ({reason}): free some space, or make it writable.") from error
    return file


class _Heard:
    """What a child has said."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._pieces: list[str] = []
        self._rest: list[str] = []
        self._result: dict[str, Any] | None = None
        self._error: AgentError | None = None

    def line(self, stream: str, line: str) -> None:
        """A line that it printed."""
        message = _message(line) if stream == "stdout" else None
        if message is None:
            self._rest = [*self._rest, line][-LAST_LINES:] if line.strip() else self._rest
        else:
            self._hear(message)

    def outcome(self, exit_: processes.Exit) -> dict[str, Any]:
        """Its result, or what it failed with. How its process ended does not matter when it gave a result."""
        if self._result is not None:
            return self._result
        if self._error is not None:
            raise self._error
        last = " ".join(line.strip() for line in self._rest)
        raise Failed(f"The process that worked on the environment ended by {exit_}" + (f": {last}" if last else "."))

    def _hear(self, message: dict[str, Any]) -> None:
        if "piece" in message:
            self._pieces.append(message["piece"])
        elif "joined" in message:
            text, self._pieces = "".join(self._pieces), []
            self._hear(json.loads(text))
        elif "note" in message:
            self._teller.note(message["note"])
        elif "progress" in message:
            self._teller.show_progress(*message["progress"])
        elif "error" in message:
            self._error = ERRORS.get(message["error"]["type"], Failed)(message["error"]["text"])
        elif "result" in message:
            self._result = message["result"]


def _message(line: str) -> dict[str, Any] | None:
    """What a line of the child's says; ``None`` when it is none of its own."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
