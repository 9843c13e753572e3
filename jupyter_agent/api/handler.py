"""What all routes of the API share: who asks, JSON in and out, errors in Jupyter's form, streams of lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from tornado import web  # noqa: TID251 - the agent's HTTP API
from tornado.iostream import StreamClosedError

from jupyter_agent import errors
from jupyter_agent.agent.agent import Agent
from jupyter_agent.agent.endpoint import user_name
from jupyter_agent.agent.senders import sentence
from jupyter_agent.api.broadcast import Broadcast
from jupyter_agent.api.values import Body, run_json
from jupyter_agent.errors import AgentError, InvalidInput, NotFound
from jupyter_agent.runs import OutputLog
from jupyter_agent.state import RunRow

MAX_BODY_BYTES = 16 << 20

LONGEST_ID = 200

AT_ONCE_BYTES = 64 << 10
"""A longer body is parsed in a thread, so that the others need not wait."""

USER_HEADER = "X-Jupyter-Agent-User"
HEARTBEAT_S = 15.0

B = TypeVar("B", bound=Body)

STATUS: tuple[tuple[type[AgentError], int], ...] = (
    (errors.InvalidInput, 400),
    (errors.AccessDenied, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.ServerRefused, 502),
    (errors.Unavailable, 503),
)
"""The HTTP status of each error; all others are 500."""


@dataclass
class Faces:
    """Who uses the agent: open event streams and the time of the last request (``time.monotonic``)."""

    streams: int = 0
    last_request: float = field(default_factory=time.monotonic)

    def idle_s(self) -> float:
        """Seconds since anybody needed something."""
        return 0.0 if self.streams else time.monotonic() - self.last_request

    @contextlib.contextmanager
    def stream(self) -> Any:
        """Count a stream as long as it is open."""
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1
            self.last_request = time.monotonic()


class Handler(web.RequestHandler):
    """What all routes share: collaborators, JSON, errors in Jupyter's form."""

    agent: Agent
    faces: Faces
    events: Broadcast
    shut_down: Callable[[], None]

    def initialize(self, **collaborators: Any) -> None:
        """Take what the application was made with (called by tornado)."""
        for name, value in collaborators.items():
            setattr(self, name, value)

    def prepare(self) -> None:
        """Note that somebody is there, and answer errors as JSON."""
        self.faces.last_request = time.monotonic()
        self.set_header("Content-Type", "application/json")
        if len(self.request.body) > MAX_BODY_BYTES:
            raise web.HTTPError(413)

    async def body(self, kind: type[B]) -> B:
        """What the request's body says. Raises ``InvalidInput``."""
        data = self.request.body
        return kind.parse(data) if len(data) <= AT_ONCE_BYTES else await asyncio.to_thread(kind.parse, data)

    @property
    def who(self) -> str:
        """The Jupyter user that the gate names (percent-encoded); else the OS user, who alone can open the socket."""
        return unquote(self.request.headers.get(USER_HEADER, "")) or f"cli:{user_name()}"

    def reply(self, value: object, status: int = 200) -> None:
        """End the answer with JSON."""
        self.set_status(status)
        self.finish(json.dumps(value))

    def whole_number(self, name: str, default: int, most: int) -> int:
        """A number of the query. Raises ``InvalidInput``."""
        text = self.get_query_argument(name, str(default))
        if not text.isascii() or not text.isdigit() or len(text) > len(str(most)) or int(text) > most:
            raise InvalidInput(f"{name} should be a whole number from 0 to {most}, not {text[:100]!r}.")
        return int(text)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """``{"message", "reason"}``, with the sentence of our error (called by tornado)."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, AgentError):
            status_code = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
        self.set_status(status_code)
        self.set_header(
            "Content-Type", "application/json"
        )  # tornado has cleared it: as HTML a name in it could be a script
        message = sentence(error) if error and not isinstance(error, web.HTTPError) else self._refusal(status_code)
        self.finish(json.dumps({"message": message, "reason": type(error).__name__ if error else ""}))

    def _refusal(self, status: int) -> str:
        """What is wrong with a request that no handler has seen."""
        told = {
            400: "The request cannot be read: names in its path and query are percent-encoded UTF-8.",
            405: f"{self.request.path} does not take {self.request.method}.",
            413: f"A request holds at most {MAX_BODY_BYTES >> 20} MiB.",
        }
        return told.get(status, f"{self._reason}.")

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Errors of our own are answers, not faults of the program: only the others are logged with their trace."""
        if not isinstance(value, AgentError):
            super().log_exception(typ, value, tb)

    async def row(self, run_id: str) -> RunRow:
        """The run with this id. Raises ``NotFound``."""
        live = self.agent.supervisor.live(run_id)
        if not live and len(run_id) > LONGEST_ID:
            raise NotFound(f"There is no run {run_id[:LONGEST_ID]}….")
        return live.row if live else await self.agent.state.get(run_id)

    def output(self, row: RunRow) -> OutputLog:
        """The run's output, live or as it was left."""
        live = self.agent.supervisor.live(row.id)
        return live.output if live else OutputLog(Path(row.folder) / "output")

    async def shown(self, row: RunRow) -> dict[str, Any]:
        """The run as JSON."""
        return run_json(row, await asyncio.to_thread(lambda: self.output(row).size))

    async def stream_lines(self, lines: AsyncGenerator[list[dict[str, Any]], None]) -> None:
        """Write JSON lines as they come, until they end or the reader has gone. An empty list is a heartbeat."""
        self.set_header("Content-Type", "application/x-ndjson")
        writing = asyncio.ensure_future(self._write_lines(lines))
        self._gone = writing.cancel
        with self.faces.stream(), contextlib.suppress(asyncio.CancelledError, StreamClosedError):
            await writing

    async def _write_lines(self, lines: AsyncGenerator[list[dict[str, Any]], None]) -> None:
        async with contextlib.aclosing(lines) as source:
            async for batch in source:
                self.write("".join(json.dumps(line) + "\n" for line in batch) or "\n")
                await self.flush()

    def on_connection_close(self) -> None:
        """Stop writing to a reader that has gone (called by tornado)."""
        getattr(self, "_gone", lambda: None)()
