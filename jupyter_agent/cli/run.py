"""``run``: start a run and follow it to its end."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import Any

from jupyter_agent.cli import agents
from jupyter_agent.cli.context import Context, segment
from jupyter_agent.cli.following import Following, show_end
from jupyter_agent.cli.runs import find
from jupyter_agent.errors import NotFound
from jupyter_agent.home import AgentClient, RequestFailed

LAUNCH_TIMEOUT_S = 120

INTERRUPTED = 128 + signal.SIGINT


def run(context: Context, given: argparse.Namespace) -> int:
    """Run a package or a path, here or on another agent."""
    body = agents.body_of_run(given) if given.agent else body_of(given)
    agent = context.agent()
    started = start(agent, given.target, body, path=agents.base(given.agent) if given.agent else "runs")
    return see_to_end(context, agent, started, detach=given.detach)


def rerun(context: Context, given: argparse.Namespace) -> int:
    """Run once more what an ended run was."""
    agent = context.agent()
    wanted = find(agent, given.id)
    path = f"runs/{segment(wanted['id'])}/rerun"
    started = agent.request("POST", path, fetching(given), timeout_s=LAUNCH_TIMEOUT_S)
    return see_to_end(context, agent, started, detach=given.detach)


def body_of(given: argparse.Namespace) -> dict[str, Any]:
    """What is asked of this agent; what is not asked for is as its settings say."""
    optional = {
        "timeout_s": given.timeout,
        "memory_mb": given.memory,
        "priority": given.priority,
        "retries": given.retries,
        "retry_delay_s": given.retry_delay,
        "key": given.key,
        "environment": target_of(given.environment) if given.environment else None,
        **fetching(given),
    }
    return {
        "target": target_of(given.target),
        "parameters_yaml": dict(given.parameters),
        "isolated": given.isolated,
        **{name: value for name, value in optional.items() if value is not None},
    }


def fetching(given: argparse.Namespace) -> dict[str, Any]:
    """What may be fetched for an environment, as far as that was said."""
    asked = {"from_pypi": given.channel_from_pypi, "offline": given.offline}
    return {name: value for name, value in asked.items() if value is not None}


def see_to_end(context: Context, agent: AgentClient, started: dict[str, Any], *, detach: bool) -> int:
    """Follow a run that was started and show its end, or only name it; the exit code."""
    if detach:
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


def start(agent: AgentClient, target: str, body: dict[str, Any], *, path: str = "runs") -> dict[str, Any]:
    """The run as it was accepted. Raises the agent's sentence."""
    try:
        started: dict[str, Any] = agent.request("POST", path, body, timeout_s=LAUNCH_TIMEOUT_S)
    except RequestFailed as error:
        if path == "runs" and error.reason == NotFound.__name__ and os.sep not in target and Path(target).is_dir():
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
