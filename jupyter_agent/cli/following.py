"""Following a run to its end: its output as it comes, its progress, and what it left."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_agent.cli.console import Console
from jupyter_agent.cli.context import Context, segment
from jupyter_agent.cli.text import plain, size, took
from jupyter_agent.errors import Conflict, NotFound, Unavailable
from jupyter_agent.home import AgentClient, Home, RequestFailed

ENDED = ("succeeded", "failed", "timed_out", "cancelled", "killed", "kernel_died", "lost")

STATES = {
    "queued": ("○", "o", "dim"),
    "preparing": ("◌", "o", "yellow"),
    "running": ("●", "*", "blue"),
    "succeeded": ("✓", "+", "green"),
}
"""Symbol, its substitute in ASCII, and colour; all others are failures."""

FAILURE = ("✗", "x", "red")

DYING_S = 2
"""For this long an agent that has been killed may still take a connection."""

BAR = 12
"""Characters of a progress bar."""


def state_text(console: Console, run: dict[str, Any]) -> str:
    """A run's state with its symbol."""
    symbol, substitute, _colour = STATES.get(run["state"], FAILURE)
    return f"{console.symbol(symbol, substitute)} {run['state'].replace('_', ' ')}"


def state_colour(run: dict[str, Any]) -> str:
    """The colour of a run's state."""
    return STATES.get(run["state"], FAILURE)[2]


def progress_text(console: Console, run: dict[str, Any]) -> str:
    """``running  cell 3 of 9``, on a terminal with a bar."""
    progress = run.get("progress") or {}
    parts = [state_text(console, run), plain(progress.get("label"))]
    if console.live and run["state"] in ("preparing", "running") and progress.get("total"):
        filled = round(BAR * min(1.0, progress.get("done", 0) / progress["total"]))
        parts.append(console.symbol("█", "#") * filled + console.symbol("░", ".") * (BAR - filled))
    return "  ".join(part for part in parts if part)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, so that what was counted was shown, and the other way round."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Following:
    """One run's stream, shown as it comes; it can be taken up again where it was left."""

    def __init__(self, context: Context, agent: AgentClient, run: dict[str, Any]) -> None:
        self._context = context
        self._console = context.console
        self._agent = agent
        self._offset = 0
        self._since_offset = 0
        self._told = ("", "")
        self.run = run
        self._path = path_of(run)
        self._show_progress()

    def to_the_end(self) -> dict[str, Any]:
        """The run as it ended. An agent that ended meanwhile is started again, and tells what became of the run.

        Another agent's run goes on: it is followed further.
        """
        while True:
            try:
                self._follow()
            except (Unavailable, ValueError, ConnectionError):  # it ended, perhaps within a line
                pass
            finally:
                self._console.clear()
            if self.run["state"] in ENDED:
                return self.run
            self._console.note("The agent ended; it is started again to tell what became of the run.", "yellow")
            self.run = self._from_the_next_agent()
            if self.run["state"] in ENDED or "agent" not in self.run:
                return self.run

    def _from_the_next_agent(self) -> dict[str, Any]:
        deadline = time.monotonic() + DYING_S
        while True:
            try:
                self._agent = self._context.agent()
                run: dict[str, Any] = self._agent.request("GET", self._path)
            except RequestFailed as error:
                if "agent" not in self.run or error.reason != NotFound.__name__:
                    raise
                return {**self.run, "state": "lost", "error": str(error)}
            except Unavailable:  # the old one's last moments
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return run

    def cancel(self) -> None:
        """Ask the agent to cancel the run."""
        self._console.note(f"Cancelling {self.run['package']}; Ctrl-C again does not wait for its end.", "yellow")
        self.run = self._agent.request("POST", f"{self._path}/cancel", timeout_s=None)

    def _follow(self) -> None:
        seen, self._since_offset = self._since_offset, 0
        for line in self._agent.lines(f"{self._path}/stream?offset={self._offset}"):
            if "run" in line:
                self.run = line["run"]
                self._show_progress()
                continue
            with uninterrupted():
                self._since_offset += 1
                if self._since_offset > seen:  # what came before an interruption is not shown again
                    self._console.pass_on(line["text"], to_err=line["stream"] != "stdout")
                if "next" in line:
                    self._offset, self._since_offset, seen = line["next"], 0, 0

    def _show_progress(self) -> None:
        if self.run["state"] in ENDED:
            self._console.clear()
            return
        text = progress_text(self._console, self.run)
        # What is not drawn over itself would be a line for each file that is fetched.
        news = (self.run["state"], (self.run.get("progress") or {}).get("phase") or text)
        if self._console.live:
            self._console.bar(f"{plain(self.run['package'])}  {text}")
        elif news != self._told:
            self._console.note(f"{plain(self.run['package'])}: {text}")
        self._told = news


def see_cancelled(context: Context, agent: AgentClient, run: dict[str, Any]) -> int:
    """Cancel a run, here or on another agent, and wait for its end; the exit code. Raises ``Conflict`` after it."""
    if run["ended"]:
        raise Conflict(f"Run {run['id']} has ended already: {run['state'].replace('_', ' ')}.")
    path, console = path_of(run), context.console
    console.bar(f"cancelling {plain(run['package'])}")
    run = agent.request("POST", f"{path}/cancel", timeout_s=None)
    for line in agent.lines(f"{path}/stream?offset={sys.maxsize}"):
        run = line.get("run", run)
    console.clear()
    if console.json:
        console.document(run)
    console.line(f"{state_text(console, run)}: {plain(run['package'])} (run {run['id']})")
    return 0 if run["state"] == "cancelled" else 1


def path_of(run: dict[str, Any]) -> str:
    """Where the API has a run: this agent's, or another one's."""
    own = f"runs/{segment(run['id'])}"
    return f"agents/{segment(run['agent'])}/{own}" if run.get("agent") else own


def show_end(console: Console, run: dict[str, Any], home: Home) -> None:
    """How a run ended, its results, and where its files are."""
    after = f" after {took(run)}" if run["started"] else ""
    console.note(f"{plain(run['package'])}: {state_text(console, run)}{after}  (run {run['id']})", state_colour(run))
    if run["error"]:
        console.note(f"jupyter-agent: {plain(run['error'])}")
    if run.get("warning"):
        console.note(plain(run["warning"]), "yellow")
    if run["results"]:
        console.line("Results")
        console.facts(((name, value) for name, value in run["results"].items()), indent="  ")
    if run["artifacts"]:
        console.line("Files")
        folder = run_folder(home, run["id"])
        for artifact in run["artifacts"]:
            console.line(f"  {file_of(folder, artifact['name'])}  {console.paint(size(artifact['size']), 'dim')}")


def run_folder(home: Home, run_id: str) -> Path | None:
    """The folder of a run, ``runs/<month>/<id>``; ``None`` when it has been removed."""
    return next(home.runs.glob(f"*/{run_id}"), None)


def file_of(folder: Path | None, name: str) -> Path:
    """Where a run's file of this name is."""
    if folder is None:
        return Path(name)
    return next((path for path in (folder / "artifacts" / name, folder / name) if path.exists()), folder / name)
