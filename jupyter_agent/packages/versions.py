"""The versions of packages that are on this machine: brought here once, kept while they are used, then removed.

A version's files lie in a folder named by the id of its archive, never change, and are whole when the folder is there.
A small file beside it says whose they are. Refuses to know runs, and what OpenFlow says now: both are told to ``tidy``
and ``supersede``. One agent has a home's packages to itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_agent.errors import AgentError, Failed, InvalidInput
from jupyter_agent.folders import remove_tree
from jupyter_agent.home import read_json, write_private
from jupyter_agent.packages.archives import BOUNDS, Bounds
from jupyter_agent.packages.unpacking import unpack
from jupyter_agent.waiting import to_its_end

if TYPE_CHECKING:
    from jupyter_agent.openflow.client import Client  # packing alone (the CLI) needs no wire

LOG = logging.getLogger(__name__)

ARCHIVE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

DAY_S = 86400

Connect = Callable[[], Awaitable["Client"]]
"""Gives the connected client; asked only when something has to be fetched."""


@dataclass
class Use:
    """A version that is being read or fetched just now."""

    readers: int = 0
    fetching: asyncio.Lock = field(default_factory=asyncio.Lock)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Versions:
    """The versions below one folder; ``bounds`` are what an archive may hold.

    ``openflow`` names the OpenFlow that is connected, from which versions are fetched; empty until it is known.
    """

    def __init__(self, folder: Path, *, bounds: Bounds = BOUNDS) -> None:
        self._folder = folder
        self.bounds = bounds
        self.openflow = ""
        self._packages: dict[str, str] = {}
        self._openflows: dict[str, str] = {}
        self._superseded: set[str] = set()
        self._uses: dict[str, Use] = {}
        self._leftovers: list[Path] = []

    async def open(self) -> None:
        """Look at what is there. Before the first ``take``: what has begun by then was left by an agent that ended."""
        abouts, self._leftovers = await asyncio.to_thread(partial(_found, self._folder))
        self._packages = {fileid: str(about.get("package") or "") for fileid, about in abouts.items()}
        self._openflows = {fileid: str(about.get("openflow") or "") for fileid, about in abouts.items()}

    @property
    def packages(self) -> Mapping[str, str]:
        """The package's id by file id, of all versions that are here; empty where it is not known."""
        return self._packages

    def comparable(self) -> dict[str, str]:
        """Those of ``packages`` of which the OpenFlow that is connected can tell: what is of another is not gone."""
        return {
            fileid: package
            for fileid, package in self._packages.items()
            if self._openflows.get(fileid, "") in ("", self.openflow)
        }

    def is_current(self, fileid: str) -> bool:
        """Whether this version is here and nothing has said that its package has another one by now."""
        return fileid in self._packages and fileid not in self._superseded

    def supersede(self, package: str, current: str | None) -> list[str]:
        """Its package has the version ``current`` now (``None``: it is gone); the others that are here."""
        self._superseded.discard(current or "")
        others = [fileid for fileid, owner in self._packages.items() if owner == package and fileid != current]
        self._superseded.update(others)
        return others

    def is_outdated(self, package: str, current: str | None) -> bool:
        """Whether a version is here that is not known to be an old one, but is none of ``current``."""
        mine = (fileid for fileid, owner in self._packages.items() if owner == package)
        return any(fileid != current and fileid not in self._superseded for fileid in mine)

    def adopt(self, current: Mapping[str, str]) -> None:
        """Learn whose versions those are of which that was not known; ``current``: packages by file id."""
        for fileid, package in self._packages.items():
            if not package and fileid in current:
                self._packages[fileid] = current[fileid]

    @contextlib.asynccontextmanager
    async def take(self, connect: Connect, document: Mapping[str, Any], *, jwt: str = "") -> AsyncIterator[Path]:
        """The folder of the package's files, brought here unless it is; it stays as long as this is entered.

        ``document`` is the package's in ``agents``; ``jwt`` whose rights count for the archive. Who wants the same
        waits for whoever fetches it. Raises ``InvalidInput`` for a package without an archive, for a broken one and
        one beyond the bounds, and the client's errors; nothing is left then.
        """
        fileid = archive_of(document)
        use = self._uses.setdefault(fileid, Use())
        use.readers += 1
        try:
            async with use.fetching:
                await self._make_sure(connect, fileid, document, jwt)
            yield self._folder / fileid
        finally:
            use.readers -= 1
            if not use.readers:
                del self._uses[fileid]
                use.over.set()

    async def forget(self, fileid: str) -> None:
        """Remove a version, once nobody reads it; who takes it next fetches it anew."""
        while use := self._uses.get(fileid):
            await use.over.wait()
        await self._remove(fileid)

    async def tidy(self, in_use: Collection[str], *, keep_days: float) -> list[str]:
        """Remove what was superseded, what was not taken for so many days, and what was left half-made; the file ids.

        ``in_use`` are the versions that living runs have: they stay.
        """
        leftovers, self._leftovers = self._leftovers, []
        for path in leftovers:
            await to_its_end(partial(_remove_any, path))
        old = await asyncio.to_thread(_older, self._folder, list(self._packages), time.time() - keep_days * DAY_S)
        removed = []
        for fileid in self._superseded.union(old):
            if fileid not in in_use and fileid not in self._uses:
                await self._remove(fileid)
                removed.append(fileid)
        return removed

    async def _remove(self, fileid: str) -> None:
        """Take a version away in one moment, in which nobody can begin to read it, then remove its files."""
        self._packages.pop(fileid, None)
        self._openflows.pop(fileid, None)
        self._superseded.discard(fileid)
        aside = _set_aside(self._folder, fileid)
        if not await to_its_end(partial(remove_tree, aside)):
            LOG.warning("The folder %s of a package's old version cannot be removed.", aside)

    async def _make_sure(self, connect: Connect, fileid: str, document: Mapping[str, Any], jwt: str) -> None:
        """The version is here afterwards, and known from now on: its package may change while it is on its way."""
        package = str(document.get("_id") or "")
        known = self._packages.setdefault(fileid, package) if package else self._packages.get(fileid)
        if _used_now(self._folder / fileid):
            if known != package or self._openflows.get(fileid, "") != self.openflow:
                await self._belongs(fileid, document)
            return
        try:
            await self._fetch(await connect(), fileid, jwt)
        except BaseException:
            self._packages.pop(fileid, None)
            raise
        await self._belongs(fileid, document)

    async def _fetch(self, client: Client, fileid: str, jwt: str) -> None:
        await asyncio.to_thread(partial(self._folder.mkdir, parents=True, exist_ok=True, mode=0o700))
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=f".{fileid}.") as scratch:
            try:
                archive = await client.download(fileid, Path(scratch), jwt=jwt, progress=self._check_size)
            except Failed as error:
                raise Failed(f"The package's archive could not be fetched: {error}") from error
            await to_its_end(partial(unpack, archive, self._folder / fileid, bounds=self.bounds))

    def _check_size(self, done: int, length: int | None) -> None:
        if max(done, length or 0) > self.bounds.total_bytes:
            raise InvalidInput(
                f"The package's archive is larger than {self.bounds.total_bytes >> 20} MiB, which is what a package "
                "may hold (Agent.max_package_mb)."
            )

    async def _belongs(self, fileid: str, document: Mapping[str, Any]) -> None:
        """Note whose version it is; on disk, as later agents want to know."""
        self._packages[fileid] = str(document.get("_id") or "")
        self._openflows[fileid] = self.openflow
        about = {
            "package": self._packages[fileid],
            "name": document.get("name"),
            "version": document.get("version"),
            "openflow": self.openflow,
        }
        with contextlib.suppress(AgentError, OSError):  # a full disk: it is known until the agent ends
            await asyncio.to_thread(write_private, about_file(self._folder, fileid), json.dumps(about, default=str))


def archive_of(document: Mapping[str, Any]) -> str:
    """The id of the archive in a package's document. Raises ``InvalidInput`` where there is none to be had."""
    name = document.get("name") or document.get("_id") or "the package"
    fileid = str(document.get("fileid") or "")
    if not fileid and document.get("repo"):
        raise InvalidInput(
            f"The package {name} is a git repository ({str(document['repo'])[:200]}), which this agent does not fetch: "
            "publish its files as a package."
        )
    if not fileid:
        raise InvalidInput(f"The package {name} has no archive in OpenFlow: publish it again.")
    if fileid == "local":
        raise InvalidInput(
            f"The package {name} is marked as local: its files are only on the agent it was made for; publish it."
        )
    if not ARCHIVE_ID.fullmatch(fileid):
        raise InvalidInput(f"The package {name} has a file id that is none ({fileid[:80]!r}): publish it again.")
    return fileid


def about_file(folder: Path, fileid: str) -> Path:
    """Where it stands whose version this is: ``{"package", "name", "version", "openflow"}``."""
    return folder / f"{fileid}.json"


def _set_aside(folder: Path, fileid: str) -> Path:
    aside = folder / f".{fileid}.{secrets.token_hex(4)}"
    with contextlib.suppress(FileNotFoundError):
        (folder / fileid).rename(aside)
    about_file(folder, fileid).unlink(missing_ok=True)
    return aside


def _used_now(folder: Path) -> bool:
    """Whether the version is there; then the time of its last use is this moment."""
    try:
        os.utime(folder)
    except OSError:
        return folder.is_dir()
    return True


def _found(folder: Path) -> tuple[dict[str, dict[str, Any]], list[Path]]:
    """The versions in a folder with what is known of them, and what was left of an agent that ended."""
    abouts, leftovers = {}, []
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.name.startswith("."):
                leftovers.append(Path(entry.path))
            elif entry.is_dir(follow_symlinks=False) and ARCHIVE_ID.fullmatch(entry.name):
                abouts[entry.name] = _about(folder, entry.name)
            elif not (folder / entry.name.removesuffix(".json")).is_dir():
                leftovers.append(Path(entry.path))
    return abouts, leftovers


def _about(folder: Path, fileid: str) -> dict[str, Any]:
    try:
        return read_json(about_file(folder, fileid)) or {}
    except (AgentError, OSError):
        return {}


def _older(folder: Path, fileids: list[str], before_s: float) -> list[str]:
    old = []
    for fileid in fileids:
        with contextlib.suppress(OSError):
            if (folder / fileid).stat().st_mtime < before_s:
                old.append(fileid)
    return old


def _remove_any(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
