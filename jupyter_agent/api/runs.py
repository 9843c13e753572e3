"""Routes of runs: starting, following, ending them, and what they left."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, BinaryIO

from tornado.iostream import StreamClosedError

from jupyter_agent.agent.environments import expanded
from jupyter_agent.agent.launch import RunRequest
from jupyter_agent.api.handler import HEARTBEAT_S, USER_HEADER, Handler
from jupyter_agent.api.reports import html_report
from jupyter_agent.api.values import FetchBody, NoBody, RunBody, TargetBody, run_json
from jupyter_agent.errors import InvalidInput, NotFound
from jupyter_agent.runs import OutputLog, artifact_path
from jupyter_agent.state import RunRow

PAGE_BYTES = 256 << 10
MAX_PAGE_BYTES = 4 << 20
CHUNK_BYTES = 256 << 10
MAX_RUNS_PAGE = 1000


class PackageRuns(Handler):
    """``POST packages/{id or name}/runs``."""

    async def post(self, wanted: str) -> None:
        """Run a package."""
        if os.path.isabs(wanted):  # noqa: PTH117 - a string that may be no path at all
            raise InvalidInput("A package is named by its id or name here; paths go to runs.")
        await launch(self, wanted, await self.body(RunBody), isolated=False)


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
        body = await self.body(TargetBody)
        await launch(self, expanded(body.target), body, isolated=body.isolated)


async def launch(handler: Handler, target: str, body: RunBody, *, isolated: bool) -> None:
    """Start a run for the caller and answer 202 with it."""
    run = await handler.agent.launcher.launch(
        RunRequest(
            target=target,
            who=handler.who,
            trigger=trigger_of(handler),
            parameters=body.all_parameters(),
            isolated=isolated,
            limits=handler.agent.limits(timeout_s=body.timeout_s, memory_mb=body.memory_mb),
            priority=body.priority,
            retries=body.retries,
            retry_delay_s=body.retry_delay_s,
            key=body.key_of(handler.request.headers.get("Idempotency-Key")),
            environment=expanded(body.environment or ""),
            from_pypi=body.from_pypi,
            offline=body.offline,
        )
    )
    handler.reply(await handler.shown(run.row), 202)


def trigger_of(handler: Handler) -> str:
    """Which face a request came through: only the gate names a user."""
    return "rest" if USER_HEADER in handler.request.headers else "cli"


class OneRun(Handler):
    """``GET runs/{id}``."""

    async def get(self, run_id: str) -> None:
        """One run."""
        self.reply(await self.shown(await self.row(run_id)))


class Cancel(Handler):
    """``POST runs/{id}/cancel``."""

    async def post(self, run_id: str) -> None:
        """Cancel a run; one that has ended is answered as it ended."""
        await self.body(NoBody)
        row = await self.row(run_id)
        if not row.state.ended:
            row = await self.agent.supervisor.cancel(run_id, who=self.who)
        self.reply(await self.shown(row))


class Rerun(Handler):
    """``POST runs/{id}/rerun``."""

    async def post(self, run_id: str) -> None:
        """Run once more what a run was: its target, parameters and limits; the new run."""
        body = await self.body(FetchBody)
        await self.row(run_id)
        changes = {name: value for name, value in body.model_dump().items() if value is not None}
        run = await self.agent.launcher.rerun(run_id, who=self.who, trigger=trigger_of(self), **changes)
        self.reply(await self.shown(run.row), 202)


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
        live = self.agent.supervisor.live(run_id)
        written = live.output.on_write(changed.set) if live is not None else None
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
            if written is not None:
                written()


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
