"""Keeps the embedded hub running while the agent needs it. It knows the hub's files, nothing of what it does."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import dataclass

from jupyter_agent import processes
from jupyter_agent.errors import InvalidInput, Unavailable
from jupyter_agent.home import Home, last_words, read_json
from jupyter_agent.openflow.client import Backoff

log = logging.getLogger(__name__)

IDLE_S = 60
"""Seconds after which a hub that we started ends when its last client has gone."""

START_TIMEOUT_S = 30
POLL_S = 0.05
WATCH_S = 0.5
CALM_S = 60
RESTART = Backoff(first_s=0.2)


@dataclass(frozen=True)
class RunningHub:
    """A hub's process and its address."""

    apiurl: str
    pid: int


def running(home: Home) -> RunningHub | None:
    """The hub that runs on this home, told by ``hub.json``; a recycled pid is told apart by its start time."""
    try:
        stored = read_json(home.hub / "hub.json")
    except InvalidInput:  # it is the hub's to mend: it writes the file anew when it starts
        return None
    try:
        found = RunningHub(str(stored["apiurl"]), int(stored["pid"])) if stored else None
        alive = found is not None and processes.is_alive(found.pid, float((stored or {})["started"]))
    except (KeyError, TypeError, ValueError):  # the same
        return None
    return found if alive else None


async def ensure(home: Home) -> RunningHub:
    """The home's hub, started when none runs. Raises ``Unavailable`` with the hub's own last sentence."""
    if (found := await asyncio.to_thread(running, home)) is not None:
        return found
    path = home.logs / "hub.log"
    told = path.stat().st_size if path.exists() else 0
    argv = [sys.executable, "-P", "-m", "jupyter_agent.hub", "--home", str(home.path), "--exit-when-idle", str(IDLE_S)]
    child = await asyncio.to_thread(processes.spawn_detached, argv, os.environ, path)
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
    while asyncio.get_running_loop().time() < deadline:
        if (found := await asyncio.to_thread(running, home)) is not None:
            return found
        if child.poll() is not None:
            break
        await asyncio.sleep(POLL_S)
    raise Unavailable(last_words(path, told) or f"The embedded hub did not start: see {path}.")


async def ended(hub: RunningHub, home: Home) -> None:
    """Return when this hub runs no more, or another one has taken its place."""
    while await asyncio.to_thread(running, home) == hub:  # noqa: ASYNC110 - see below
        await asyncio.sleep(WATCH_S)  # a process that is not our child can only be looked at


@dataclass
class RestartDelay:
    """How long to wait before something is started again; what lived for a while begins a new row of failures."""

    failures: int = 0

    def failed(self, lived_s: float) -> float:
        """Seconds to wait after it lived ``lived_s`` (0: it did not start)."""
        self.failures = 1 if lived_s > CALM_S else self.failures + 1
        return RESTART.delay_s(self.failures)
