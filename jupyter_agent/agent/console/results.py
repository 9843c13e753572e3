"""How the end of a run is told to whoever asked for it over a queue (protocol §15)."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

from jupyter_agent.errors import AgentError, InvalidInput, ProtocolError
from jupyter_agent.openflow.protocol import decode_json
from jupyter_agent.runs import OutputLog
from jupyter_agent.state import RunRow, RunState

RESULT_BYTES = 500_000
"""Of the newest output in the message that tells a run's end."""

PAYLOAD_BYTES = 16 << 20
"""Of a payload that a package has left; a longer one is not sent back, and the output says so."""


def exit_code(row: RunRow) -> int:
    """Of the program; where it had none: 0 after a success, else 1."""
    return row.exit_code if row.exit_code is not None else (0 if row.state is RunState.SUCCEEDED else 1)


def how_it_ended(row: RunRow) -> dict[str, Any]:
    """How a run ended, as ``runpackage`` tells it."""
    message: dict[str, Any] = {
        "command": "runpackage",
        "success": row.state is RunState.SUCCEEDED,
        "completed": True,
        "exitcode": exit_code(row),
    }
    if row.error:
        message["error"] = row.error
    return message


def newest_output(row: RunRow) -> str:
    """The end of what an ended run has printed. Blocks for a few file accesses."""
    return OutputLog(Path(row.folder) / "output").tail(RESULT_BYTES)


def result_message(row: RunRow) -> dict[str, Any]:
    """The last message of a run: its end, its newest output, the payload as the package left it, its results."""
    output = newest_output(row)
    try:
        payload = left_payload(Path(row.folder) / "payload.json")
    except AgentError as error:
        payload, output = {}, f"{output}\n{error}\n"
    results = decode_json(json.dumps(row.results))  # as other clients can hold them: no integers of hundreds of digits
    return {**how_it_ended(row), "output": output, "payload": {**payload, **results}}


async def last_message(row: RunRow, *, whole: bool) -> dict[str, Any]:
    """The last message of a run: ``whole``, as who asked for it gets it, or whether it succeeded (protocol §15)."""
    if whole:
        return {**await asyncio.to_thread(result_message, row), "data": ""}
    return {"command": "runpackage", "success": row.state is RunState.SUCCEEDED, "completed": True, "data": ""}


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
