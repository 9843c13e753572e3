"""A conda channel for tests, made by the product's own code from PyPI's wheels, once for all tests of a session."""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path

from jupyter_agent.environments.channel import run
from jupyter_agent.environments.work.jobs import ChannelJob, Settings

REQUIREMENTS = ("ipykernel>=6.29", "numpy", "pandas", "papermill", "pip")


class Silent:
    """A teller that nobody listens to."""

    def note(self, text: str) -> None:
        """A line of the log."""

    def show_progress(self, phase: str, done: float, total: float | None, detail: str = "") -> None:
        """How far it is."""


def channel_in(folder: Path, requirements: tuple[str, ...] = REQUIREMENTS) -> Path:
    """The channel in ``folder``, made when it is not there; whoever comes second waits."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "channel"
    with (folder / "channel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            settings = Settings(cache=folder / "cache", channels=folder / "channels")
            asyncio.run(run(ChannelJob(requirements, place, python=True, settings=settings), Silent()))
    return place
