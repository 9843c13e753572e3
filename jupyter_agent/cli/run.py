"""``run``: start a run and follow it to its end."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import Any

from jupyter_agent.cli.context import Context
from jupyter_agent.cli.following import Following, show_end
from jupyter_agent.errors import NotFound
from jupyter_agent.home import AgentClient, RequestFailed

LAUNCH_TIMEOUT_S = 120

INTERRUPTED = 128 + signal.SIGINT


def run(context: Context, given: argparse.Namespace) -> int:
    """Run a package or a path."""
    body = {
        "target": target_of(given.target),
        "parameters_yaml": dict(given.parameters),
        "isolated": given.isolated,
        **({"timeout_s": given.timeout} if given.timeout else {}),
        **({"memory_mb": given.memory} if given.memory else {}),
    }
    agent = context.agent()
    started = start(agent, given.target, body)
    if given.detach:
        if context.console.json:
            context.console.document(started)
        context.console.line(started["id"])
        return 0
    ended, code = follow(context, agent, started)
    if context.console.json:
        context.console.document(ended)
    show_end(context.console, ended, context.home)
    return code


def target_of(text: str) -> str:
    """A path is made absolute; a bare name is a package's, unless a file has that name."""
    path = Path(text).expanduser()
    if path.is_absolute() or os.sep in text or text in (".", "..") or path.is_file():
        return str(path.absolute())
    return text


def start(agent: AgentClient, target: str, body: dict[str, Any]) -> dict[str, Any]:
    """The run as it was accepted. Raises the agent's sentence."""
    try:
        started: dict[str, Any] = agent.request("POST", "runs", body, timeout_s=LAUNCH_TIMEOUT_S)
    except RequestFailed as error:
        if error.reason == NotFound.__name__ and os.sep not in target and Path(target).is_dir():
            raise NotFound(f"{error} To run the folder of that name, write .{os.sep}{target}.") from error
        raise
    return started


def follow(context: Context, agent: AgentClient, started: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The run as it ended, and the exit code. Ctrl-C cancels the run and waits for its end."""
    following = Following(context, agent, started)
    try:
        ended = following.to_the_end()
    except KeyboardInterrupt:
        following.cancel()
        return following.to_the_end(), INTERRUPTED
    return ended, 0 if ended["state"] == "succeeded" else 1
