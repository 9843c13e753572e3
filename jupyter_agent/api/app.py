"""The routes of the agent's API. What they answer is described in ``values``; what they do is the agent's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import mimetypes
import os
import socket
import struct
import sys
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from tornado import web  # noqa: TID251 - the agent's HTTP API
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, StreamClosedError

from jupyter_agent import errors
from jupyter_agent.agent.agent import Agent
from jupyter_agent.agent.endpoint import user_name
from jupyter_agent.agent.launch import RunRequest
from jupyter_agent.agent.senders import find_package, sentence
from jupyter_agent.api.broadcast import Broadcast
from jupyter_agent.api.reports import html_report
from jupyter_agent.api.values import PublishBody, RunBody, TargetBody, package_json, run_json
from jupyter_agent.errors import AgentError, InvalidInput, NotFound
from jupyter_agent.packages import publish
from jupyter_agent.runs import OutputLog, artifact_path
from jupyter_agent.state import RunRow

log = logging.getLogger(__name__)

USER_HEADER = "X-Jupyter-Agent-User"
HEARTBEAT_S = 15.0
PAGE_BYTES = 256 << 10
MAX_PAGE_BYTES = 4 << 20
MAX_BODY_BYTES = 16 << 20
CHUNK_BYTES = 256 << 10
MAX_RUNS_PAGE = 1000

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
            raise InvalidInput(f"{name} should be a whole number from 0 to {most}, not {text!r}.")
        return int(text)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """``{"message", "reason"}``, with the sentence of our error (called by tornado)."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, AgentError):
            status_code = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
        self.set_status(status_code)
        message = sentence(error) if error and not isinstance(error, web.HTTPError) else self._reason
        self.finish(json.dumps({"message": message, "reason": type(error).__name__ if error else ""}))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Errors of our own are answers, not faults of the program: only the others are logged with their trace."""
        if not isinstance(value, AgentError):
            super().log_exception(typ, value, tb)

    async def row(self, run_id: str) -> RunRow:
        """The run with this id. Raises ``NotFound``."""
        live = self.agent.supervisor.live(run_id)
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


class Status(Handler):
    """``GET status``."""

    async def get(self) -> None:
        """The agent's state."""
        self.reply(self.agent.status())


class Packages(Handler):
    """``GET, POST packages``."""

    async def get(self) -> None:
        """All packages that the agent may read, by name."""
        client = await self.agent.link.client()
        documents = await client.query("agents", {"_type": "package"}, order_by={"name": 1}, top=1000)
        self.reply([package_json(document) for document in documents])

    async def post(self) -> None:
        """Pack the folder at ``path`` and publish it."""
        path = Path(PublishBody.parse(self.request.body).path)
        if not path.is_absolute():
            raise InvalidInput(f"The path of a package's folder should be absolute, not {path}.")
        client = await self.agent.link.client()
        published = await publish(client, path, who=self.who)
        self.reply(
            {"id": published.id, "fileid": published.fileid, "name": published.name, "version": published.version}, 201
        )


class Package(Handler):
    """``GET packages/{id or name}``."""

    async def get(self, wanted: str) -> None:
        """One package."""
        self.reply(package_json(await find_package(await self.agent.link.client(), wanted)))


class PackageRuns(Handler):
    """``POST packages/{id or name}/runs``."""

    async def post(self, wanted: str) -> None:
        """Run a package."""
        if os.path.isabs(wanted):  # noqa: PTH117 - a string that may be no path at all
            raise InvalidInput("A package is named by its id or name here; paths go to runs.")
        await launch(self, wanted, RunBody.parse(self.request.body), isolated=False)


class Runs(Handler):
    """``GET, POST runs``."""

    async def get(self) -> None:
        """Runs, newest first, a page at a time."""
        rows, cursor = await self.agent.state.runs(
            state=self.get_query_argument("state", None),
            package=self.get_query_argument("package", None),
            limit=max(1, self.whole_number("limit", 50, MAX_RUNS_PAGE)),
            cursor=self.get_query_argument("cursor", None),
        )
        found = [
            (live.row, live.output) if (live := self.agent.supervisor.live(row.id)) else (row, None) for row in rows
        ]
        shown = await asyncio.to_thread(
            lambda: [run_json(row, (output or self.output(row)).size) for row, output in found]
        )
        self.reply({"runs": shown, "cursor": cursor})

    async def post(self) -> None:
        """Run a package or a file."""
        body = TargetBody.parse(self.request.body)
        await launch(self, body.target, body, isolated=body.isolated)


async def launch(handler: Handler, target: str, body: RunBody, *, isolated: bool) -> None:
    """Start a run for the caller and answer 202 with it."""
    trigger = "rest" if USER_HEADER in handler.request.headers else "cli"
    run = await handler.agent.launcher.launch(
        RunRequest(
            target=target,
            who=handler.who,
            trigger=trigger,
            parameters=body.all_parameters(),
            isolated=isolated,
            limits=handler.agent.limits(timeout_s=body.timeout_s, memory_mb=body.memory_mb),
        )
    )
    handler.reply(await handler.shown(run.row), 202)


class OneRun(Handler):
    """``GET runs/{id}``."""

    async def get(self, run_id: str) -> None:
        """One run."""
        self.reply(await self.shown(await self.row(run_id)))


class Cancel(Handler):
    """``POST runs/{id}/cancel``."""

    async def post(self, run_id: str) -> None:
        """Cancel a run; one that has ended is answered as it ended."""
        row = await self.row(run_id)
        if not row.state.ended:
            row = await self.agent.supervisor.cancel(run_id, who=self.who)
        self.reply(await self.shown(row))


class Output(Handler):
    """``GET runs/{id}/output``."""

    async def get(self, run_id: str) -> None:
        """A page of the run's output from an offset."""
        row = await self.row(run_id)
        offset = self.whole_number("offset", 0, sys.maxsize)
        limit = self.whole_number("limit", PAGE_BYTES, MAX_PAGE_BYTES)
        page = await asyncio.to_thread(self.output(row).read, offset, max(1, limit))
        self.reply({"chunks": page.chunks, "next": page.next, "complete": page.complete and row.state.ended})


class Stream(Handler):
    """``GET runs/{id}/stream``."""

    async def get(self, run_id: str) -> None:
        """The run's output and its changes as JSON lines, until it has ended."""
        await self.row(run_id)
        await self.stream_lines(self._lines(run_id, self.whole_number("offset", 0, sys.maxsize)))

    async def _lines(self, run_id: str, offset: int) -> AsyncGenerator[list[dict[str, Any]], None]:
        changed = asyncio.Event()
        unsubscribe = self.agent.supervisor.subscribe(lambda row: changed.set() if row.id == run_id else None)
        told: dict[str, Any] = {}
        try:
            while True:
                changed.clear()
                row = await self.row(run_id)
                offset, chunks = await asyncio.to_thread(read_on, self.output(row), offset)
                if chunks:
                    yield chunks
                    continue
                if (shown := await self.shown(row)) != told:
                    told = shown
                    yield [{"run": shown}]
                if row.state.ended:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_S):
                        await changed.wait()
        finally:
            unsubscribe()


def read_on(output: OutputLog, offset: int) -> tuple[int, list[dict[str, Any]]]:
    """The next page; its last chunk tells where the one after it begins."""
    page = output.read(offset, PAGE_BYTES)
    chunks = [dict(chunk) for chunk in page.chunks]
    if chunks:
        chunks[-1]["next"] = page.next
    return page.next, chunks


class Artifacts(Handler):
    """``GET runs/{id}/artifacts``."""

    async def get(self, run_id: str) -> None:
        """The files that the run left."""
        row = await self.row(run_id)
        self.reply(row.artifacts)


class Artifact(Handler):
    """``GET runs/{id}/artifacts/{name}``."""

    async def get(self, run_id: str, name: str) -> None:
        """One file, as bytes; ``output.html`` is made of ``output.ipynb`` when it is first asked for."""
        row = await self.row(run_id)
        path = await self._file(row, name)
        self.set_header("Content-Type", mimetypes.guess_type(path.name)[0] or "application/octet-stream")
        with opened(path) as file, contextlib.suppress(StreamClosedError):
            self.set_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
                self.write(data)
                await self.flush()

    async def _file(self, row: RunRow, name: str) -> Path:
        folder = Path(row.folder)
        if any(artifact["name"] == name for artifact in row.artifacts):
            return await asyncio.to_thread(artifact_path, folder, name)
        if name == "output.html":
            return await html_report(folder, tag=row.id)
        raise NotFound(f"Run {row.id} has left no file {name!r}.")


def opened(path: Path) -> BinaryIO:
    """A file that a run left, which may have been removed since, or made unreadable. Raises ``NotFound``."""
    try:
        return path.open("rb")
    except OSError as error:
        raise NotFound(f"The file {path.name} of this run cannot be read any more ({error.strerror}).") from error


class Events(Handler):
    """``GET events``."""

    async def get(self) -> None:
        """What changes, as JSON lines, for as long as the reader stays."""
        await self.stream_lines(self._lines())

    async def _lines(self) -> AsyncGenerator[list[dict[str, Any]], None]:
        yield [{"event": "status", "status": self.agent.status()}]
        async with contextlib.aclosing(self.events.follow(HEARTBEAT_S)) as events:
            async for batch in events:
                yield batch


class Shutdown(Handler):
    """``POST shutdown``."""

    async def post(self) -> None:
        """End the agent in order."""
        self.reply({"ending": True}, 202)
        self.shut_down()


class NoRoute(Handler):
    """All else."""

    async def prepare(self) -> None:  # type: ignore[override]  # tornado awaits it
        """Say that there is nothing here."""
        super().prepare()
        raise NotFound(f"There is nothing at {self.request.path}.")


ROUTES: tuple[tuple[str, type[Handler]], ...] = (
    (r"status", Status),
    (r"packages", Packages),
    (r"packages/([^/]+)", Package),
    (r"packages/([^/]+)/runs", PackageRuns),
    (r"runs", Runs),
    (r"runs/([^/]+)", OneRun),
    (r"runs/([^/]+)/cancel", Cancel),
    (r"runs/([^/]+)/output", Output),
    (r"runs/([^/]+)/stream", Stream),
    (r"runs/([^/]+)/artifacts", Artifacts),
    (r"runs/([^/]+)/artifacts/(.+)", Artifact),
    (r"events", Events),
    (r"shutdown", Shutdown),
)


def make_application(
    agent: Agent, *, faces: Faces, events: Broadcast, shut_down: Callable[[], None]
) -> web.Application:
    """The API's application."""
    collaborators = {"agent": agent, "faces": faces, "events": events, "shut_down": shut_down}
    routes = [(rf"/api/v1/{path}", handler, collaborators) for path, handler in ROUTES]
    return web.Application(
        routes,
        default_handler_class=NoRoute,
        default_handler_args=collaborators,
        log_function=lambda _handler: None,
    )


class SocketServer(HTTPServer):
    """HTTP for the socket's own user alone: the file's mode says so, and the peer's uid is looked at, too."""

    def handle_stream(self, stream: IOStream, address: tuple[str, int]) -> None:
        """Drop a peer of another user (called by tornado)."""
        if peer_uid(stream.socket) not in (None, 0, os.getuid()):
            stream.close()
            return
        super().handle_stream(stream, address)


def peer_uid(connection: socket.socket) -> int | None:
    """The uid at the other end (``SO_PEERCRED``); ``None`` where the system cannot tell it this way."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
