"""What every command gets: the home, the console, and the way to the agent."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from jupyter_agent.cli.console import Console
from jupyter_agent.home import AgentClient, Home, Started, ensure_agent, running_agent


@dataclass(frozen=True)
class Context:
    """The home and the console of one command."""

    home: Home
    console: Console

    def agent(self) -> AgentClient:
        """The home's agent, which is started when none runs. Raises ``Unavailable`` with the agent's own sentence."""
        if running_agent(self.home) is None:
            self.console.bar("starting the agent")
        try:
            return AgentClient(ensure_agent(self.home, spawn))
        finally:
            self.console.clear()

    def running_agent(self) -> AgentClient | None:
        """The home's agent if it runs."""
        path = running_agent(self.home)
        return AgentClient(path) if path else None


def become(context: Context, module: str, *arguments: str) -> NoReturn:
    """Let a program of the agent's side take the place of this process."""
    context.console.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606 - no shell is wanted


def spawn(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Started:
    """Start the agent detached (see ``home.Spawn``)."""
    from jupyter_agent.processes import spawn_detached

    return spawn_detached(argv, environment, log)


def segment(text: str) -> str:
    """A name or id as one segment of a path."""
    return quote(text, safe="")
