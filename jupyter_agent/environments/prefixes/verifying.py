"""Every file of an environment against what its packages say of it, and against what was seen when it was made."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from jupyter_agent.environments.prefixes import fingerprints
from jupyter_agent.environments.prefixes.condas import Condas
from jupyter_agent.environments.prefixes.contents import infos, records
from jupyter_agent.environments.prefixes.fingerprints import FILE, Changes
from jupyter_agent.environments.prefixes.layout import Layout, python_of, state_of
from jupyter_agent.environments.telling import Teller

MISSING = "is missing"
ADDED = "was added"
CHANGED = "is not what its package has (sha256)"


@dataclass(frozen=True)
class Fault:
    """A file that is not as it should be; ``path`` is below the prefix, ``package`` empty where it is of none."""

    path: str
    package: str
    what: str

    def is_absence(self) -> bool:
        """Whether there is no such file, or none should be: no other prefix can share it."""
        return self.what in (MISSING, ADDED)


class Quiet:
    """A ``Teller`` whom nobody listens to."""

    def note(self, text: str) -> None:
        """Take a line."""

    def show_progress(self, phase: str, done: float, total: float | None, detail: str = "") -> None:
        """Take how far it is."""


class Verifier:
    """Verifies prefixes, ours and others'."""

    def __init__(self, layout: Layout, condas: Condas) -> None:
        self._layout = layout
        self._condas = condas

    async def faults(self, prefix: Path, *, ours: bool, teller: Teller | None, tag: str) -> list[Fault]:
        """All that are found. Of one that is half-made that is the only one."""
        if ours and state_of(prefix) not in ("ready", "changed"):
            return [Fault(".", "", "is half-made: it is made anew at its next use")]
        if (prefix / "conda-meta").is_dir():
            plain = await self._condas.verify(prefix, teller=teller or Quiet(), tag=tag)
            found = [Fault(each["path"], each["package"], each["what"]) for each in plain]
        else:
            found = await asyncio.to_thread(_of_venv, prefix)
        return [*found, *(await asyncio.to_thread(_of_changes, prefix, found) if ours else ())]


def _of_venv(prefix: Path) -> list[Fault]:
    """Of the packages that pip knows, and the interpreter."""
    gone = [] if python_of(prefix).exists() else [Fault("bin/python", "", MISSING)]
    return gone + [fault for folder in infos(prefix) for fault in _of_package(prefix, folder)]


def _of_package(prefix: Path, folder: Path) -> list[Fault]:
    package = folder.name.removesuffix(".dist-info").rpartition("-")[0]
    return [
        Fault(_below(prefix, folder.parent / path), package, what)
        for path, digest, _ in records(folder)
        if (what := _what(folder.parent / path, digest)) is not None
    ]


def _what(file: Path, digest: str) -> str | None:
    """What is wrong with a file; ``None``: nothing. ``digest`` is like ``sha256=<base64>``, or empty."""
    kind, _, wanted = digest.partition("=")
    try:
        with file.open("rb") as opened:
            if kind not in hashlib.algorithms_guaranteed or kind.startswith("shake"):
                return None
            found = hashlib.file_digest(opened, kind).digest()
    except OSError:
        return None if file.suffix == ".pyc" else MISSING
    return None if base64.urlsafe_b64encode(found).rstrip(b"=").decode() == wanted else CHANGED


def _below(prefix: Path, file: Path) -> str:
    path = os.path.normpath(file)  # links are not followed
    return os.path.relpath(path, prefix)


def _of_changes(prefix: Path, known: list[Fault]) -> list[Fault]:
    """What was changed since it was made, of which no package says anything."""
    if not (prefix / FILE).exists():
        return []
    paths = {fault.path for fault in known}
    found: Changes = fingerprints.looked_at(prefix)
    told = ((found.modified, "was changed"), (found.missing, MISSING), (found.added, ADDED))
    return [Fault(path, "", what) for changed, what in told for path in changed if path not in paths]
