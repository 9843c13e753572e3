"""Keeps the embedded hub running while the agent needs it. It knows the hub's files, nothing of what it does."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
from dataclasses import dataclass

from jupyter_agent import processes
from jupyter_agent.errors import InvalidInput, Unavailable
from jupyter_agent.home import Home, read_json

log = logging.getLogger(__name__)

IDLE_S = 60
"""Seconds after which a hub that we started ends when its last client has gone."""

START_TIMEOUT_S = 30
POLL_S = 0.05
WATCH_S = 0.5


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
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(told)
        said = [line.strip() for line in file if line.strip()]
    raise Unavailable(said[-1] if said else f"The embedded hub did not start: see {path}.")


async def ended(hub: RunningHub, home: Home) -> None:
    """Return when this hub runs no more, or another one has taken its place."""
    while await asyncio.to_thread(running, home) == hub:  # noqa: ASYNC110 - see below
        await asyncio.sleep(WATCH_S)  # a process that is not our child can only be looked at


@dataclass
class RestartDelay:
    """How long to wait before the hub is started again: doubled by each failure, with jitter, up to a cap."""

    first_s: float = 0.2
    cap_s: float = 30
    calm_s: float = 60
    _next_s: float = 0.0

    def failed(self, lived_s: float) -> float:
        """Seconds to wait after a hub that lived ``lived_s`` (0: it did not start)."""
        if lived_s > self.calm_s or not self._next_s:
            self._next_s = self.first_s
        delay = self._next_s * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        self._next_s = min(self._next_s * 2, self.cap_s)
        return delay
