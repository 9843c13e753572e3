"""The parent's side: a job is done by a child process, judged by what it says at its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jupyter_agent import errors, processes
from jupyter_agent.environments.telling import Teller
from jupyter_agent.environments.work.jobs import Job, to_json
from jupyter_agent.errors import AgentError, Failed

TIMEOUT_S = 6 * 3600.0
"""For a job: gigabytes through a slow line are waited for, and whoever does not want to wait cancels."""

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
    with contextlib.ExitStack() as stack:
        try:
            file = await asyncio.to_thread(stack.enter_context, _written(job))
        except OSError as error:
            reason = error.strerror or error
            raise Failed(
                f"Nothing can be written to the folder for temporary files ({reason}): free some space."
            ) from error
        command = processes.Command(
            (sys.executable, "-P", "-m", "jupyter_agent.environments.work", str(file)), file.parent, dict(environ)
        )
        done = await processes.run(command, tag=tag, on_line=heard.line, timeout_s=TIMEOUT_S)
    return heard.outcome(done.exit)


@contextlib.contextmanager
def _written(job: Job) -> Iterator[Path]:
    """A file with the job, for its user alone: a channel's URL may have a password in it."""
    with tempfile.TemporaryDirectory(prefix="jupyter-agent-job-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "job.json"
        file.write_text(to_json(job), encoding="utf-8")
        yield file


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
