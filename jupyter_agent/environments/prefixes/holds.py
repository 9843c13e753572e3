"""Who uses which prefix: a file for each run, so that other processes know, and later ones after a kill."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from jupyter_agent import processes
from jupyter_agent.environments.prefixes.marks import write_whole

LOST = ".lost"
"""Ends the name of what a process left that was killed."""


@dataclass(frozen=True)
class Hold:
    """Names of prefixes used by a run (its ``tag``), which the process ``pid``, started then, takes care of."""

    tag: str
    pid: int
    started: float
    names: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """``None``: there is none that can be read."""
        try:
            plain: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return cls(str(plain["tag"]), int(plain["pid"]), float(plain["started"]), tuple(plain["names"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def text(self) -> str:
        """As it is written."""
        return json.dumps({"tag": self.tag, "pid": self.pid, "started": self.started, "names": self.names})

    def is_alive(self) -> bool:
        """Whether the process that takes care of it lives."""
        return processes.is_alive(self.pid, self.started)


class Holds:
    """The files in a folder, which must be there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _started(self) -> float:
        return processes.process_started(os.getpid())

    def _file(self, tag: str) -> Path:
        return self._folder / hashlib.sha256(tag.encode()).hexdigest()[:32]

    def take(self, tag: str, name: str) -> None:
        """The run uses this prefix from now on."""
        file = self._file(tag)
        self._folder.mkdir(exist_ok=True, mode=0o700)
        known = Hold.read(file)
        names = known.names if known is not None else ()
        if known is None or known.pid != os.getpid() or name not in names:
            names = tuple(each for each in names if each != name)
            write_whole(file, Hold(tag, os.getpid(), self._started, (*names, name)).text())

    def let_go(self, tag: str, name: str) -> None:
        """The run does not use this one."""
        file = self._file(tag)
        if (known := Hold.read(file)) is not None:
            left = tuple(each for each in known.names if each != name)
            self._replace(file, known, left)

    def _replace(self, file: Path, known: Hold, names: tuple[str, ...]) -> None:
        if names:
            write_whole(file, Hold(known.tag, known.pid, known.started, names).text())
        else:
            file.unlink(missing_ok=True)

    def names(self, tag: str) -> set[str]:
        """What a run uses, or used when its process was killed."""
        file = self._file(tag)
        found = (Hold.read(file), Hold.read(file.with_name(f"{file.name}{LOST}")))
        return {name for hold in found if hold is not None for name in hold.names}

    def drop(self, tag: str) -> None:
        """The run is over, and what it used was looked at."""
        file = self._file(tag)
        file.unlink(missing_ok=True)
        file.with_name(f"{file.name}{LOST}").unlink(missing_ok=True)

    def users(self) -> dict[str, list[str]]:
        """Names of prefixes to the living runs that use them."""
        found: dict[str, list[str]] = {}
        for hold in (hold for _, hold in self._all() if hold.is_alive()):
            for name in hold.names:
                found.setdefault(name, []).append(hold.tag)
        return found

    def lose(self, suspect: Callable[[str], None]) -> None:
        """Have prefixes suspected that were in use when their process was killed, by name.

        Each is told once, and not forgotten before ``suspect`` is done with it.
        """
        for file, hold in list(self._all()):
            if not hold.is_alive():
                for name in hold.names:
                    suspect(name)
                with contextlib.suppress(OSError):
                    file.rename(file.with_name(f"{file.name}{LOST}"))

    def forget_lost(self, *, days: float) -> None:
        """Remove what nobody asked for in so many days."""
        for file in self._folder.glob(f"*{LOST}"):
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < time.time() - days * 86400:
                    file.unlink()

    def _all(self) -> Iterator[tuple[Path, Hold]]:
        for file in self._folder.glob("*"):
            if not file.name.startswith(".") and file.suffix != LOST and (hold := Hold.read(file)) is not None:
                yield file, hold
