"""Sends runs' output and results to the queues of those who asked for the runs.

Nothing is lost while OpenFlow is away: output is read from the run's log when it can be sent, and who is owed a
result stands in the run's row until it was sent.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from jupyter_agent.agent.link import Link
from jupyter_agent.errors import AccessDenied, AgentError, ServerRefused, Unavailable
from jupyter_agent.home import read_json
from jupyter_agent.runs import OutputLog, Run
from jupyter_agent.state import RunRow, RunState, State

log = logging.getLogger(__name__)

BATCH_BYTES = 48 << 10
"""Of output in a message; the Buffer form of JSON makes about four times as much of it."""

PACE_S = 0.2
"""Between two messages of one run: a server allows 30 requests a second for all of them (protocol §3)."""

RESULT_BYTES = 500_000
"""Of the newest output in the message that tells a run's end."""

PATIENCE_S = 0.5
"""Between two tries while OpenFlow is away."""


class Console:
    """Followers of runs by queue. Tasks live in the group given."""

    def __init__(self, *, link: Link, state: State, tasks: asyncio.TaskGroup) -> None:
        self._link = link
        self._state = state
        self._tasks = tasks
        self._runs: dict[str, Run] = {}

    def run_of(self, stream_id: str) -> Run | None:
        """The run that is followed under this name and has not ended."""
        run = self._runs.get(stream_id)
        return None if run is None or run.row.ended else run

    @property
    def busy(self) -> bool:
        """Whether output or a result is still to be sent."""
        return bool(self._runs)

    def follow(self, run: Run) -> None:
        """Send the run's output, then its result, to the queue in its row."""
        reply = run.row.reply
        if reply:
            self._runs[reply["correlation_id"]] = run
            self._tasks.create_task(self._serve(run, reply["queue"], reply["correlation_id"]))

    async def _serve(self, run: Run, queue: str, stream_id: str) -> None:
        try:
            reachable = await self._stream(run, queue, stream_id)
            row = await run.wait()
            if reachable:
                await self._send(queue, stream_id, {"command": "completed", "data": None})
            await self._tell_end(row)
        except Exception:
            log.exception("The output of run %s is not sent to %s any more", run.row.id, queue)
        finally:
            self._runs.pop(stream_id, None)

    async def _stream(self, run: Run, queue: str, stream_id: str) -> bool:
        """Send the output as it comes; whether the queue could be reached to the end."""
        async for page in run.output.follow(0):
            data = "".join(chunk["text"] for chunk in page.chunks).encode()
            for start in range(0, len(data), BATCH_BYTES):
                buffer = {"type": "Buffer", "data": list(data[start : start + BATCH_BYTES])}
                if not await self._send(queue, stream_id, {"command": "stream", "data": buffer}):
                    return False
                await asyncio.sleep(PACE_S)
        return True

    async def _send(self, queue: str, stream_id: str, data: dict[str, Any]) -> bool:
        """Send one message, waiting for OpenFlow to come back; ``False`` when the server refuses the queue."""
        while True:
            try:
                client = await self._link.client()
                await client.queue_message(queue, data, correlation_id=stream_id, strip_token=True)
            except (ServerRefused, AccessDenied) as error:
                log.warning("The queue %s cannot be sent to: %s", queue, error)
                return False
            except Unavailable:
                await asyncio.sleep(PATIENCE_S)
            else:
                return True

    async def _tell_end(self, row: RunRow) -> None:
        """Send a run's result; what is owed stands in its row until the server has taken it."""
        if row.reply:
            message = await asyncio.to_thread(result_message, row)
            await self._send(row.reply["queue"], row.reply["correlation_id"], message)
            await self._state.update(row.id, reply=None)

    async def tell_left_over(self) -> None:
        """Send the results that an earlier agent owed when it ended, however it ended."""
        for row in await self._state.owed():
            await self._tell_end(row)


def ending(row: RunRow) -> dict[str, Any]:
    """How a run ended, as ``runpackage`` tells it (protocol §15); a signal has the shell's exit code, 128 + n."""
    message: dict[str, Any] = {
        "command": "runpackage",
        "success": row.state is RunState.SUCCEEDED,
        "completed": True,
        "exitcode": row.exit_code if row.exit_code is not None else (0 if row.state is RunState.SUCCEEDED else 1),
    }
    if row.error:
        message["error"] = row.error
    return message


def result_message(row: RunRow) -> dict[str, Any]:
    """The last message of a run: its end, its newest output, the payload as the package left it, its results."""
    folder = Path(row.folder)
    try:
        payload: Any = read_json(folder / "payload.json") or {}
    except AgentError:  # the package made something else of it
        payload = {}
    return {
        **ending(row),
        "output": OutputLog(folder / "output").tail(RESULT_BYTES),
        "payload": {**payload, **row.results},
    }
