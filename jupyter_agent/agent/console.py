"""Sends runs' output and results to the queues of those who asked for the runs.

Nothing is lost while OpenFlow is away: output is read from the run's log when it can be sent, and who is owed a
result stands in the run's row until it was sent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import stat
from pathlib import Path
from typing import Any

from jupyter_agent.agent.link import Link
from jupyter_agent.errors import AgentError, InvalidInput, ProtocolError, ServerRefused, SignInFailed, Unavailable
from jupyter_agent.openflow.client import Lane, in_lane
from jupyter_agent.openflow.protocol import decode_json
from jupyter_agent.runs import OutputLog, Run
from jupyter_agent.state import RunRow, RunState, State

log = logging.getLogger(__name__)

BATCH_BYTES = 48 << 10
"""Of output in a message; the Buffer form of JSON makes about four times as much of it."""

PACE_S = 0.2
"""Between two messages of one run: a server allows 30 requests a second for all of them (protocol §3)."""

RESULT_BYTES = 500_000
"""Of the newest output in the message that tells a run's end."""

PAYLOAD_BYTES = 16 << 20
"""Of a payload that a package has left; a longer one is not sent back, and the output says so."""

PATIENCE_S = 0.5
"""Between two tries while OpenFlow is away."""

LEAVE_S = 3.0
"""What is being sent when the agent ends gets this long; a result that was not sent then is owed still."""


class Console:
    """Followers of runs by queue. Tasks live in the group given; ``end`` ends them."""

    def __init__(self, *, link: Link, state: State, tasks: asyncio.TaskGroup) -> None:
        self._link = link
        self._state = state
        self._tasks = tasks
        self._named: dict[str, Run] = {}
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._paying = asyncio.Lock()

    def run_of(self, name: str) -> Run | None:
        """The run that is known under this name and has not ended."""
        run = self._named.get(name)
        return None if run is None or run.row.ended else run

    def name_of(self, run: Run) -> str:
        """The name under which whoever asked for the run knows it; its id where nobody named it."""
        return next((name for name, named in self._named.items() if named is run), run.row.id)

    @property
    def busy(self) -> bool:
        """Whether output or a result is still to be sent."""
        return bool(self._serving)

    def follow(self, run: Run, name: str) -> None:
        """Know the run under this name until it has ended; send its output, then its result, to the queue in its row.

        An empty name is none.
        """
        if name:
            self._named[name] = run
        self._serving[run.row.id] = self._tasks.create_task(self._serve(run, name))

    async def end(self) -> None:
        """Send no more, after a moment for what is under way."""
        if self._serving:
            await asyncio.wait(self._serving.values(), timeout=LEAVE_S)
        for task in self._serving.values():
            task.cancel()

    async def _serve(self, run: Run, name: str) -> None:
        try:
            reply = run.row.reply
            reachable = reply is not None and await self._stream(run, reply["queue"], reply["correlation_id"])
            row = await run.wait()
            if reply is not None and reachable:
                await self._send(reply["queue"], reply["correlation_id"], {"command": "completed", "data": None})
            await self._tell_end(row)
        except Exception:
            log.exception("The output of run %s is not sent any more", run.row.id)
        finally:
            del self._serving[run.row.id]
            if self._named.get(name) is run:
                del self._named[name]

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
        """Send one message, waiting for OpenFlow to come back; ``False`` when the server refuses the queue.

        Refused credentials are no reason to give up what is owed: they may be renewed.
        """
        while True:
            try:
                client = await self._link.client()
                with in_lane(Lane.CONSOLE):  # a flood of output is no reason for anybody's command to wait
                    await client.queue_message(queue, data, correlation_id=stream_id, strip_token=True)
            except ServerRefused as error:
                log.warning("The queue %s cannot be sent to: %s", queue, error)
                return False
            except (Unavailable, SignInFailed):
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
        """Send the results that are owed by nobody who is at it: those that an earlier agent owed when it ended.

        One that cannot be told (whatever the package left) keeps none of the others from being told.
        """
        async with self._paying:
            for owed in await self._state.owed():
                try:
                    if owed.id not in self._serving:
                        await self._tell_end(await self._state.get(owed.id))
                except Exception:
                    log.exception("The result of run %s cannot be sent", owed.id)


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
    output = OutputLog(folder / "output").tail(RESULT_BYTES)
    try:
        payload = left_payload(folder / "payload.json")
    except AgentError as error:
        payload, output = {}, f"{output}\n{error}\n"
    results = decode_json(json.dumps(row.results))  # as other clients can hold them: no integers of hundreds of digits
    return {**ending(row), "output": output, "payload": {**payload, **results}}


def left_payload(path: Path) -> dict[str, Any]:
    """The payload as a package left it, which may be anything; ``{}`` when there is none.

    Raises ``InvalidInput`` with the sentence for whoever asked for the run.
    """
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > PAYLOAD_BYTES:
            raise InvalidInput(
                f"The payload is not sent back: {path.name} is no file of {PAYLOAD_BYTES >> 20} MiB at most."
            )
        value = decode_json(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, ProtocolError) as error:
        raise InvalidInput(
            f"The payload is not sent back: the package has made {path.name} something else than JSON."
        ) from error
    return value if isinstance(value, dict) else {"value": value}
