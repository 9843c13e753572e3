"""The bridge from the agent's event stream to Jupyter's, so that pages know what happens without asking.

It attaches to an agent that runs and never starts one. While nobody listens and nobody has asked for anything, it
lets go of the agent, which may then end when it is idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_agent.errors import AgentError
from jupyter_agent.home import NO_AGENT
from jupyter_agent.server.upstream import Lines, Upstream, connect, exchange

SCHEMAS = "https://schema.jupyter.org/jupyter_agent"
NOUNS = ("run", "status", "package", "environment")
RUN, STATUS, PACKAGE, ENVIRONMENT = (f"{SCHEMAS}/{noun}/v1" for noun in NOUNS)

RECENT_RUNS = 50
"""Runs told of when the bridge attaches: what changed while it was not attached is among them."""

SILENCE_S = 60
"""The agent sends something every 15 s; one that is silent this long is gone."""

UNUSED_S = 300
"""After this long without a request, only somebody who listens keeps the bridge attached."""

LISTENERS_CHECK_S = 60

Emit = Callable[[str, dict[str, Any]], bool]
"""Emit an event by schema id; whether anybody listens to it."""


def schemas() -> list[dict[str, Any]]:
    """The JSON schemas of the events."""
    folder = Path(__file__).parent / "schemas"
    return [json.loads((folder / f"{noun}.json").read_text(encoding="utf-8")) for noun in NOUNS]


def translate(event: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Jupyter's schema id and data for an event of the agent; ``None`` for a kind that pages are not told of."""
    match event:
        case {"event": "run", "run": run}:
            return RUN, {"run": run}
        case {"event": "status", "status": status}:
            return STATUS, {"status": status}
        case {"event": "package", "id": package_id, "operation": operation}:
            return PACKAGE, {"id": package_id, "operation": operation}
        case {"event": "environment", "id": environment_id, "operation": operation}:
            return ENVIRONMENT, {"id": environment_id, "operation": operation}
    return None


class Bridge:
    """Emits the agent's events as Jupyter's, from the first ``wake`` until ``close``."""

    def __init__(
        self,
        upstream: Upstream,
        emit: Emit,
        *,
        log: Callable[[str], None],
        poll_s: float = 1,
        unused_s: float = UNUSED_S,
    ) -> None:
        """``log`` takes a sentence that an administrator should see; ``poll_s``: how often an agent is looked for."""
        self._upstream = upstream
        self._emit = emit
        self._log = log
        self._poll_s = poll_s
        self._unused_s = unused_s
        self._task: asyncio.Task[None] | None = None
        self._nudge = asyncio.Event()
        self._asked = self._checked = 0.0
        self._listened = False
        self._status: dict[str, Any] | None = None
        self._complaint = ""

    def wake(self) -> None:
        """Somebody uses the gate: attach to the agent as soon as one runs."""
        self._asked = time.monotonic()
        self._nudge.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="jupyter_agent events")

    async def close(self) -> None:
        """End the bridge."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            self._nudge.clear()
            if self._is_wanted():
                await self._attach()
            if self._is_wanted():
                self._tell(STATUS, {"status": NO_AGENT})
            with contextlib.suppress(TimeoutError):  # not wait_for: Python 3.11's may swallow the cancellation
                async with asyncio.timeout(self._poll_s):
                    await self._nudge.wait()

    async def _attach(self) -> None:
        """Follow the agent for as long as one runs; what goes wrong is said once."""
        try:
            if (path := await self._upstream.find()) is not None:
                await self._follow(path)
            self._complaint = ""
        except (AgentError, OSError, ValueError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                self._log(f"jupyter_agent: no events from the agent: {error}")

    async def _follow(self, path: str) -> None:
        """Emit the agent's events until it ends, falls silent, or nobody wants them."""
        clock = asyncio.get_running_loop().time
        stream = await connect(path)
        attached = False

        async def take(event: dict[str, Any] | None) -> None:
            nonlocal attached
            silence.reschedule(clock() + SILENCE_S)
            if event is not None and (translated := translate(event)) is not None:
                self._tell(*translated)
            if not attached:
                attached = True
                await self._tell_recent_runs(path)
            if not self._is_wanted():
                stream.close()

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SILENCE_S) as silence:
                await exchange(stream, "GET", "/api/v1/events", Lines(take))

    async def _tell_recent_runs(self, path: str) -> None:
        """What happened while the bridge was not attached, oldest first."""
        page = await self._upstream.fetch(path, f"/api/v1/runs?limit={RECENT_RUNS}")
        for run in reversed(page["runs"]):
            self._tell(RUN, {"run": run})

    def _tell(self, schema: str, data: dict[str, Any]) -> None:
        if schema == STATUS:
            if data["status"] == self._status:
                return
            self._status = data["status"]
        self._listened = self._emit(schema, data)
        self._checked = time.monotonic()

    def _is_wanted(self) -> bool:
        """Whether there was a request lately, or somebody listens (who then gets the status once more)."""
        now = time.monotonic()
        if now - self._asked < self._unused_s:
            return True
        if now - self._checked >= LISTENERS_CHECK_S:
            self._listened = self._emit(STATUS, {"status": self._status or NO_AGENT})
            self._checked = now
        return self._listened
