"""Where channels lie: made in a folder beside their place, put there whole by a rename; what was killed is swept."""

from __future__ import annotations

import contextlib
import json
import os
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jupyter_agent.environments.channel.making import synced
from jupyter_agent.environments.work import scratch as scratches
from jupyter_agent.errors import Conflict
from jupyter_agent.home import Lock

SCRATCH = ".channel-"

AGE = timedelta(days=1)
"""So long what was found on PyPI for a file is taken as it is; later PyPI is asked again, where it can be reached."""


def scratch(parent: Path) -> AbstractContextManager[Path]:
    """A new folder in ``parent``, on the same file system, gone afterwards; those of killed processes go, too."""
    return scratches.scratch(parent, prefix=SCRATCH)


def put(made: Path, place: Path) -> None:
    """Put the channel at ``place``, which holds the same one already, or nothing: it is named by its contents."""
    with contextlib.suppress(OSError):  # another process was first
        made.rename(place)
    if not is_channel(place):
        raise Conflict(f"{place} is in the way of a channel: move it away.")
    synced(place.parent)


def replace(made: Path, place: Path) -> None:
    """Put the channel at ``place``, instead of the one that was made there before.

    Raises ``Conflict`` for a place with anything else in it: nothing of it is touched.
    """
    check_place(place)
    if place.exists():
        old = made.parent / "old"
        place.rename(old)
        try:
            made.rename(place)
        except OSError:
            old.rename(place)
            raise
    else:
        made.rename(place)
    synced(place.parent)


def check_place(place: Path) -> None:
    """Raise ``Conflict`` when something lies at ``place`` that is no channel of ours."""
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise Conflict(f"{place} is no folder: name another one for the channel.")
    if place.is_dir() and any(place.iterdir()) and not is_channel(place):
        raise Conflict(f"{place} holds something else than a channel: name a new folder for it.")


def is_channel(place: Path) -> bool:
    """Whether a channel lies there."""
    return (place / "noarch" / "repodata.json").is_file() and (place / "README.md").is_file()


class Requests:
    """Which channel was made for what was asked, and when."""

    def __init__(self, channels: Path) -> None:
        self._channels = channels
        self._folder = channels / "requests"

    def lock(self, digest: str) -> Lock:
        """For whoever makes the channel for it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return Lock(self._folder / f"{digest}.lock", held="Another process makes this channel.")

    def known(self, digest: str) -> tuple[Path, bool] | None:
        """The channel for what was asked, and whether it is new enough not to ask again; ``None``: there is none."""
        try:
            stored = json.loads((self._folder / f"{digest}.json").read_text(encoding="utf-8"))
            place = self._channels / str(stored["channel"])
            age = datetime.now(UTC) - datetime.fromisoformat(stored["made"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (place, timedelta() <= age < AGE) if is_channel(place) else None

    def remember(self, digest: str, place: Path) -> None:
        """``place`` is what was made for it, now."""
        text = json.dumps({"channel": place.name, "made": datetime.now(UTC).isoformat()})
        new = self._folder / f".{digest}.{os.getpid()}.new"
        new.write_text(text, encoding="utf-8")
        synced(new)
        new.replace(self._folder / f"{digest}.json")
