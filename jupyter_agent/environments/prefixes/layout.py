"""The folder of the store: ``<hash>[.n]/`` are prefixes, ``locks/``, ``channels/``, ``cache/``, and who uses what.

``held/`` has a file for each run that uses prefixes, ``building/`` one for each prefix that is being made,
``distrust/`` one for each prefix in which files were changed that the cache may share. What is to be deleted is
renamed to ``.trash.*`` first.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jupyter_agent.environments.prefixes.marks import READY, TAINTED, write_whole
from jupyter_agent.folders import remove_tree
from jupyter_agent.home import Lock

NAME = re.compile(r"([0-9a-f]{64})(?:\.(\d))?")
SCRATCH = re.compile(r"\.([0-9a-f]{64})")

TRASH = ".trash."

MOST_BESIDE = 9
"""How many of one hash there can be beside the first: one is made anew beside one that was changed and is in use."""


@dataclass(frozen=True)
class Layout:
    """Paths below the store's ``folder``; everything here is a few accesses to files, but for what removes."""

    folder: Path

    def __post_init__(self) -> None:
        if not self.folder.is_absolute():  # a relative one would be written into scripts
            object.__setattr__(self, "folder", self.folder.absolute())

    @property
    def locks(self) -> Path:
        """What definitions were locked to."""
        return self.folder / "locks"

    @property
    def channels(self) -> Path:
        """Channels made from PyPI."""
        return self.folder / "channels"

    @property
    def cache(self) -> Path:
        """``pkgs``, ``repodata``, ``uv``."""
        return self.folder / "cache"

    @property
    def held(self) -> Path:
        """Who uses what."""
        return self.folder / "held"

    @property
    def building(self) -> Path:
        """What is being made by whom."""
        return self.folder / "building"

    @property
    def distrust(self) -> Path:
        """Prefixes whose packages in the cache may have been changed with them."""
        return self.folder / "distrust"

    def prepare(self) -> None:
        """Make the folders, private to their user."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.locks, self.channels, self.cache, self.held, self.building, self.distrust):
            folder.mkdir(exist_ok=True, mode=0o700)

    def lock(self, name: str) -> Lock:
        """The lock of a hash or key."""
        return Lock(self.folder / f".{name}.lock", held=name)

    def generations(self, hash_: str) -> Iterator[Path]:
        """Where prefixes of this hash can lie."""
        return (self.folder / (f"{hash_}.{number}" if number else hash_) for number in range(MOST_BESIDE + 1))

    def prefixes(self) -> list[Path]:
        """All that there are, ready or not."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            return [self.folder / name for name in names if NAME.fullmatch(name)]
        return []

    # -- Suspicion: after a change in place, no prefix is trusted that may share the file

    @property
    def suspicion(self) -> str:
        """What a prefix must have been cleared of; empty: nothing was ever changed."""
        try:
            return (self.folder / "suspicion").read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def suspect(self) -> None:
        """Have every prefix looked at before its next use."""
        write_whole(self.folder / "suspicion", secrets.token_hex(8), durable=True)

    # -- Removing

    def put_away(self, folder: Path) -> Path | None:
        """Give what is to be deleted a name at which nobody looks for it; ``None``: it was not there."""
        trash = self.folder / f"{TRASH}{folder.name}.{secrets.token_hex(4)}"
        try:
            folder.rename(trash)
        except FileNotFoundError:
            return None
        return trash

    def delete(self, folder: Path) -> None:
        """Delete a folder so that no half of it is ever taken for the whole."""
        trash = self.put_away(folder)
        if trash is not None:
            remove_tree(trash)

    def trash(self) -> list[Path]:
        """What is to be deleted: an earlier process did not come to it."""
        return list(self.folder.glob(f"{TRASH}*"))

    def scratch(self) -> list[Path]:
        """Folders in which something was being locked."""
        return [path for path in self.folder.glob(".*") if SCRATCH.fullmatch(path.name) and path.is_dir()]


def hash_of(prefix: Path) -> str:
    """The hash in a prefix's name."""
    found = NAME.fullmatch(prefix.name)
    return found[1] if found else ""


def state_of(prefix: Path, *, building: bool = False) -> str:
    """``ready``, ``changed``, ``building`` or ``half-made``."""
    if (prefix / READY).is_file():
        return "ready"
    if (prefix / TAINTED).is_file():
        return "changed"
    return "building" if building else "half-made"


def python_of(prefix: Path) -> Path:
    """The interpreter of a prefix: where conda puts it on Windows, or where it is elsewhere."""
    return prefix / "python.exe" if os.name == "nt" else prefix / "bin" / "python"
