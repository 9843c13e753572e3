"""Whether a prefix is still as it was made: looked at after runs, and when files that it may share were changed.

A file that is changed in place is changed in every prefix and in the cache that share its inode. So a change makes all
others suspect, each is looked at before its next use, and what is built meanwhile does not trust the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from jupyter_agent.environments.prefixes import fingerprints
from jupyter_agent.environments.prefixes.contents import owners
from jupyter_agent.environments.prefixes.fingerprints import Changes
from jupyter_agent.environments.prefixes.layout import Layout, hash_of
from jupyter_agent.environments.prefixes.marks import READY, TAINTED, TRUST, Mark, clear, cleared_of, write_whole
from jupyter_agent.home import sync

BAD = "changed-files"
"""Names the inodes of files that were changed in prefixes."""

MOST_BAD = 20_000
"""Inodes of changed files that are remembered, the newest."""


class Checks:
    """Looks at prefixes, in threads: at one of them one look at a time, and each begins after it was asked for."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._running: dict[str, asyncio.Task[Changes]] = {}
        self._queued: dict[str, asyncio.Task[Changes]] = {}

    async def check(self, name: str) -> Changes:
        """What was changed in a prefix. It is tainted then, else cleared of what it was suspected of."""
        queued = self._queued.get(name)
        if queued is None:
            queued = asyncio.create_task(self._look(name), name=f"check-{name[:8]}")
            self._queued[name] = queued
        return await asyncio.shield(queued)

    def is_under_way(self, name: str) -> bool:
        """Whether a look at this prefix is."""
        return name in self._running or name in self._queued

    async def finished(self, name: str) -> None:
        """Wait for the looks at this prefix that are under way."""
        under_way = [task for task in (self._running.get(name), self._queued.get(name)) if task is not None]
        if under_way:
            await asyncio.wait(under_way)

    async def _look(self, name: str) -> Changes:
        if (before := self._running.get(name)) is not None:
            await asyncio.wait([before])
        task = self._queued.pop(name)
        self._running[name] = task
        try:
            return await asyncio.to_thread(looked_at, self._layout, self._layout.folder / name)
        finally:
            if self._running.get(name) is task:
                del self._running[name]


def looked_at(layout: Layout, prefix: Path) -> Changes:
    """Look at all files of a prefix; taint it, or clear it. Blocks: 60 ms for 12,400 files."""
    suspicion = layout.suspicion
    mark = Mark.read(prefix) or Mark.read(prefix, TAINTED)
    if mark is None:
        return Changes()  # it is not there any more, or half-made: nobody uses it
    if not mark.made and not (prefix / fingerprints.FILE).exists():  # an earlier version's: as it is now it is right
        with contextlib.suppress(OSError):
            fingerprints.keep(prefix, fingerprints.taken(prefix))
    found = Changes(moved=mark.prefix) if is_moved(mark, prefix) else fingerprints.looked_at(prefix, bad=_bad(layout))
    if found:
        taint(layout, prefix, found)
    elif cleared_of(prefix) != suspicion:
        clear(prefix, suspicion)
    return found


def is_moved(mark: Mark, prefix: Path) -> bool:
    """Whether a prefix was made at another place: its path stands in its programs. Another name of it does no harm."""
    if mark.prefix in ("", str(prefix)):
        return False
    try:
        return not prefix.samefile(mark.prefix)
    except OSError:
        return True


def taint(layout: Layout, prefix: Path, found: Changes) -> None:
    """Have a prefix made anew at its next use; what may share a changed file is suspected before that."""
    if found.modified:
        try:
            _distrust(layout, prefix, found)
        except OSError:
            lose(prefix)  # with no space left it is ready still, but not used before it was looked at again
            raise
    with contextlib.suppress(FileNotFoundError):
        (prefix / READY).replace(prefix / TAINTED)
        sync(prefix)


def lose(prefix: Path) -> None:
    """Nobody saw what became of a prefix's last use: it is looked at before the next one. It takes no space."""
    if (prefix / READY).is_file():
        (prefix / TRUST).unlink(missing_ok=True)


def _distrust(layout: Layout, prefix: Path, found: Changes) -> None:
    layout.prepare()
    known = _bad(layout)
    now = sorted(fingerprints.inodes(prefix, found.modified) - set(known))
    before = distrusted(layout).get(hash_of(prefix))
    begun = (prefix / READY).is_file()  # it may have been broken off after some of this
    if now or before is None or begun:
        names = {*(before.names if before is not None else ()), *owners(prefix, found.modified)}
        _write(layout, hash_of(prefix), Distrust((prefix / "conda-meta").is_dir(), tuple(sorted(names))))
        write_whole(layout.folder / BAD, json.dumps([*known, *now][-MOST_BAD:]), durable=True)
        layout.suspect()


def _bad(layout: Layout) -> list[str]:
    try:
        return [str(word) for word in json.loads((layout.folder / BAD).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


# The cache


@dataclass(frozen=True)
class Distrust:
    """Of a prefix that was changed: whether conda's packages in the cache may be, and which of pip's are."""

    conda: bool
    names: tuple[str, ...] = ()


def distrusted(layout: Layout) -> dict[str, Distrust]:
    """Hashes of prefixes whose packages in the cache may have been changed with them."""
    found = {}
    for file in layout.distrust.glob("*") if layout.distrust.is_dir() else ():
        if not file.name.startswith("."):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                plain = json.loads(file.read_text(encoding="utf-8"))
                found[file.name] = Distrust(bool(plain["conda"]), tuple(map(str, plain["names"])))
    return found


def trust(layout: Layout, hash_: str, before: Mapping[str, Distrust]) -> None:
    """One of this hash was made without trusting the cache, as far as ``before`` says; pip's packages were removed."""
    for name, then in before.items():
        if distrusted(layout).get(name) != then:
            continue  # and again meanwhile
        if name == hash_ or not then.conda:
            (layout.distrust / name).unlink(missing_ok=True)
        elif then.names:
            _write(layout, name, Distrust(conda=True))


def _write(layout: Layout, hash_: str, distrust: Distrust) -> None:
    write_whole(layout.distrust / hash_, json.dumps(asdict(distrust)), durable=True)
