"""A run of another agent, as its messages tell of it (protocol §15).

Knows what messages mean; refuses to know how they come and who watches over the other agent.
"""

from __future__ import annotations

import asyncio
import codecs
import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeGuard

from jupyter_agent.agent.others.directory import OtherAgent
from jupyter_agent.agent.others.seam import Seam
from jupyter_agent.runs import OutputLog
from jupyter_agent.state import RunState, now

LONGEST_ERROR = 2000
"""Characters of another agent's sentence that are shown."""


RESULTS_BYTES = 1 << 20
"""Of results, as JSON; they are sent with the run whenever that is shown."""


class Kind(StrEnum):
    """What was asked for."""

    RUN = "run"
    PREPARE = "prepare"
    TEST = "testrun"


@dataclass(frozen=True)
class RemoteRow:
    """What is known of a run of another agent; the fields are those of a local run, and mean the same."""

    id: str
    agent: str
    kind: Kind = Kind.RUN
    state: RunState = RunState.QUEUED
    package_id: str | None = None
    package: str = ""
    version: str | None = None
    language: str = ""
    who: str = ""
    trigger: str = "agent"
    parameters: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    started: str | None = None
    ended: str | None = None
    exit_code: int | None = None
    results: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    ports: list[Any] = field(default_factory=list)


class RemoteRun:
    """One followed run: its row, its output, and who is to be told of changes.

    ``missed`` and ``absent`` count the looks at which its agent was not there, or did not list it; ``seen`` is whether
    the agent was there since our own connection was made; ``subscribed`` is the queue that its output goes to at
    present.
    """

    def __init__(self, row: RemoteRow, agent: OtherAgent, folder: Path, on_change: Callable[[RemoteRun], None]) -> None:
        self.row = row
        self.agent = agent
        self.output = OutputLog(folder / "output", live=True, on_written=lambda: on_change(self))
        self.folder = folder
        self.heard_s = time.monotonic()
        self.asked_to_end = False
        self.missed = self.absent = 0
        self.seen = True
        self.subscribed = ""
        self.seam = Seam()
        self.over_s: float | None = None
        """When its output ended (``time.monotonic``), while how it ended is not told yet."""
        self.claimed: bool | None = None
        """Whether it succeeded, by an agent that says no more than that."""
        self.printed_before = 0
        """Bytes it had printed when it was followed first, as its agent told."""
        self.is_complete = False
        """It is over, and its output is all there."""
        self.accepted = asyncio.Event()
        """There was a sign that the other agent has taken it."""
        self._position = 0
        """In its log, up to which its output has come, where its agent tells that."""
        self._hole: int | None = None
        self._on_change = on_change
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __repr__(self) -> str:
        return f"<RemoteRun {self.row.id} on {self.row.agent}: {self.row.state}>"

    @property
    def ended(self) -> bool:
        """Whether it is over, as far as can be known."""
        return self.row.state.ended

    def take(self, message: Mapping[str, Any]) -> None:
        """A message of its stream."""
        if self.ended:
            return
        self.heard_s, self.missed, self.absent = time.monotonic(), 0, 0
        match message.get("command"):
            case "stream":
                self._started()
                self._heard(message)
            case "completed":
                self.over_s = self.over_s or time.monotonic()
            case "runpackage" | "testrunpackage" | "preparepackage" if message.get("completed") is True:
                self._told_end(message)

    def answered(self, message: Mapping[str, Any]) -> None:
        """The answer to the request that asked for it, when that is its end: a preparation, a run for a test."""
        if not self.ended:
            self._told_end({"exitcode": 0 if message.get("success") is True else 1, **message})

    def answered_late(self, message: Mapping[str, Any]) -> None:
        """An answer to what started it that came when nobody waited for it any more; only a refusal is news."""
        if message.get("command") == "timeout":
            self.lose(f"The agent {self.row.agent} did not take the command: it has just gone.")
        elif message.get("success") is not True:
            self._end(RunState.FAILED, error=sentence_of(message.get("error")))

    def begin_again(self) -> None:
        """Its output may be sent from the beginning once more; where it stands is told by comparing, or by itself."""
        if not self._position and not self.agent.is_old:  # an old one sends nothing again
            self.seam.begin_again()

    def settle(self) -> None:
        """What was sent again after a new subscription has come: the rest is new."""
        if not self.ended and self.seam.is_waiting:
            self._print(self.seam.settle())

    def lose(self, sentence: str) -> None:
        """It is not known what became of it, and will not be."""
        self._end(RunState.LOST, error=sentence)

    def change(self, **changes: Any) -> None:
        """Note something, and tell."""
        if not self.ended:
            self.row = dataclasses.replace(self.row, **changes)
            self._on_change(self)

    def _started(self) -> None:
        self.accepted.set()
        if self.row.state is not RunState.RUNNING:
            self.change(state=RunState.RUNNING, started=self.row.started or now())

    def _heard(self, message: Mapping[str, Any]) -> None:
        """Output. Agents of ours say where it stands in the run's log; of others it is told by comparing."""
        data, at, end = output_of(message.get("data")), message.get("offset"), message.get("next")
        if not (_is_number(at) and _is_number(end) and 0 <= at <= end):
            self._print(self.seam.take(data))
        elif end <= self._position:
            return  # it came before
        elif at > self._position and self._hole != self._position:
            self._hole = self._position  # something never came: it is sent again after a new subscription
            self.subscribed = ""
        else:
            new = data[self._position - at :] if at < self._position else data
            self._position = end
            self._print(self.seam.take(new))

    def _print(self, data: bytes) -> None:
        if text := self._decoder.decode(data):
            self.output.append("stdout", text, time.time())

    def _told_end(self, message: Mapping[str, Any]) -> None:
        """An end with an exit code, output or error is the whole truth; a bare one may be followed by a better one."""
        success, code = message.get("success") is True, message.get("exitcode")
        output, error = message.get("output"), sentence_of(message.get("error"))
        if not (_is_number(code) or isinstance(output, str) or error):
            self.claimed = success
            self.over_s = self.over_s or time.monotonic()
            return
        if isinstance(output, str):
            self._print(self.seam.settle() + self.seam.last_words(output.encode("utf-8", "replace")))
        results = self._results(message.get("payload"))
        exit_code = code if _is_number(code) else None
        self._end(self._verdict(success=success), exit_code=exit_code, error=error, results=results)

    def _results(self, payload: object) -> dict[str, Any]:
        """What the run left in its payload, unless that is more than a row can show."""
        results = left_by(payload, self.row.parameters) if isinstance(payload, dict) else {}
        if len(json.dumps(results)) <= RESULTS_BYTES:
            return results
        note = f"The results are not shown: they are larger than {RESULTS_BYTES >> 20} MiB.\n"
        self.output.append("agent", note, time.time())
        return {}

    def end_as_claimed(self) -> None:
        """Nothing better was told since the output ended, as by agents that know no exit codes.

        Without any word of it, what was asked for counts; else it is not known.
        """
        if self.claimed is not None:
            self._end(self._verdict(success=self.claimed))
        elif self.asked_to_end:
            self._end(RunState.CANCELLED)
        else:
            self.lose(f"The run has ended, but the agent {self.row.agent} does not say how: look there.")

    def _verdict(self, *, success: bool) -> RunState:
        if self.asked_to_end and (not success or self.agent.is_old):  # old agents call every end a success
            return RunState.CANCELLED
        return RunState.SUCCEEDED if success else RunState.FAILED

    def _end(self, state: RunState, **changes: Any) -> None:
        if self.ended:
            return
        self._print(self.seam.settle())
        if rest := self._decoder.decode(b"", final=True):
            self.output.append("stdout", rest, time.time())
        self.accepted.set()
        if state is RunState.FAILED and not changes.get("error"):
            changes["error"] = "The run failed; its agent does not say why."
        self.seam = Seam()  # what it held may be much
        self.row = dataclasses.replace(self.row, state=state, ended=now(), **changes)
        self._on_change(self)


def output_of(data: object) -> bytes:
    """The bytes in a stream message: Node's form of a Buffer, a list of bytes, or text; anything else is none."""
    if isinstance(data, dict):
        data = data.get("data")
    if isinstance(data, str):
        return data.encode("utf-8", "replace")
    try:
        return bytes(data) if isinstance(data, list) else b""
    except (ValueError, TypeError):
        return b""


def left_by(payload: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a run left in its payload: all but the parameters that are as they were sent."""
    return {name: value for name, value in payload.items() if name not in parameters or parameters[name] != value}


def sentence_of(error: object) -> str | None:
    """Another agent's sentence; its texts are JSON or objects at times. ``None``: there is none."""
    if isinstance(error, dict):
        error = error.get("message")
    if not isinstance(error, str) or not error.strip():
        return None
    text = error.strip()
    return (text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text)[:LONGEST_ERROR]


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
