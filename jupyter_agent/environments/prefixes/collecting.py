"""Removing what is not needed any more, and never what lives.

A prefix is removed in this order: its marker is taken away, then it is looked who uses it (whoever is about to holds it
first, then looks for the marker), then it gets a name at which nobody looks for it, then it is deleted. Whatever is
killed in between leaves one that does not count, and is removed later.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from packaging.utils import canonicalize_name

from jupyter_agent.environments.prefixes import checks
from jupyter_agent.environments.prefixes.builds import builders, cache_in_use, end_builder
from jupyter_agent.environments.prefixes.holds import Holds
from jupyter_agent.environments.prefixes.layout import Layout, hash_of, state_of
from jupyter_agent.environments.prefixes.living import lived_in
from jupyter_agent.environments.prefixes.locks import Locks
from jupyter_agent.environments.prefixes.marks import READY, REMOVING, TAINTED, cleared_of
from jupyter_agent.errors import Conflict
from jupyter_agent.folders import remove_tree

EARLIER = re.compile(r"(archive|built-wheels|builds|environments|git|interpreter|sdists|simple|wheels)-v\d+")
"""In the cache, what an earlier version had uv keep there."""

REQUESTS = "requests"
"""In the folder of channels, which request was answered with which."""

COMPILED = re.compile(r"[0-9a-f]{64}")

ENDINGS = re.compile(r"\.(conda|tar\.bz2|json|lock)$|\.tar$")


@dataclass(frozen=True)
class Removed:
    """Something that was removed; ``id`` is a prefix's, else what kind of thing it is. ``bytes`` were freed."""

    id: str
    path: str
    bytes: int


@dataclass(frozen=True)
class Collected:
    """What was removed, or would be."""

    removed: tuple[Removed, ...] = ()

    @property
    def bytes(self) -> int:
        """What that freed."""
        return sum(each.bytes for each in self.removed)


def sweep(layout: Layout, holds: Holds) -> None:
    """Remove what was left half-made or half-removed; suspect what was in use when its process was killed. Blocks."""
    layout.prepare()
    holds.lose(lambda name: checks.lose(layout.folder / name))
    for trash in layout.trash():
        remove_tree(trash)
    for folder in layout.scratch():
        with contextlib.suppress(Conflict), layout.lock(folder.name.removeprefix(".")):
            layout.delete(folder)
    for prefix in layout.prefixes():
        if state_of(prefix) == "half-made":
            with contextlib.suppress(Conflict), layout.lock(hash_of(prefix)):
                end_builder(layout, prefix)
                if state_of(prefix) == "half-made" and not _used(holds, prefix):
                    layout.delete(prefix)
    for name in builders(layout):
        if not (layout.folder / name).exists():
            with contextlib.suppress(Conflict), layout.lock(name.partition(".")[0]):
                end_builder(layout, layout.folder / name)


def remove(layout: Layout, holds: Holds, prefix: Path) -> str:
    """Remove a prefix; who uses it instead, in words, when somebody does. Blocks.

    Raises ``Conflict`` while it is being made.
    """
    lock = layout.lock(hash_of(prefix))
    lock.held = f"The environment {prefix.name[:12]} is being made or removed: wait for that."
    with lock:
        for marker in (READY, TAINTED):
            with contextlib.suppress(FileNotFoundError):
                (prefix / marker).replace(prefix / REMOVING)
                if used := _used(holds, prefix):
                    (prefix / REMOVING).replace(prefix / marker)
                    return used
        end_builder(layout, prefix)
        if used := _used(holds, prefix):
            return used
        layout.delete(prefix)
    return ""


def remove_changed(layout: Layout, holds: Holds, prefix: Path) -> None:
    """Remove one that was changed, unless it is used. Raises ``Conflict`` while its hash is being made."""
    if state_of(prefix) == "changed":
        remove(layout, holds, prefix)


def _used(holds: Holds, prefix: Path) -> str:
    if runs := holds.users().get(prefix.name):
        return f"by {runs[0]}"
    process = lived_in([prefix]).get(prefix)
    return f"by process {process}" if process is not None else ""


# Collecting


def collect(layout: Layout, holds: Holds, locks: Locks, *, days: float, dry_run: bool) -> Collected:
    """Remove what nothing used for ``days``, and what nothing refers to; ``dry_run``: only say what. Blocks.

    Some of it is only put away, for ``sweep`` to delete.
    """
    before = time.time() - days * 86400
    removed = list(_prefixes(layout, holds, before, dry_run=dry_run))
    gone = {each.path for each in removed}
    left = [prefix for prefix in layout.prefixes() if str(prefix) not in gone]
    removed += _locks(locks, {hash_of(prefix) for prefix in left}, before, dry_run=dry_run)
    gone = {each.path for each in removed}
    with cache_in_use(layout, alone=True) as alone:
        if alone:  # else something is being locked or made: it may be about to refer to any of it
            texts = [*_texts(file for file in locks.referring() if str(file) not in gone), *_texts(map(own_lock, left))]
            removed += _channels(layout, texts, before, dry_run=dry_run)
            removed += _cache(layout, texts, left, dry_run=dry_run)
            if not dry_run:
                _forget_distrust(layout, left)
    if not dry_run:
        holds.forget_lost(days=max(days, 1))
    return Collected(tuple(removed))


def _prefixes(layout: Layout, holds: Holds, before: float, *, dry_run: bool) -> Iterator[Removed]:
    prefixes = layout.prefixes()
    users, lived = holds.users(), lived_in(prefixes)
    building = {name for name, hold in builders(layout).items() if hold.is_alive()}
    for prefix in prefixes:
        in_use = prefix.name in users or prefix in lived or prefix.name in building
        if in_use or not _is_old(prefix, before):
            continue
        freed = freed_by(prefix)
        with contextlib.suppress(Conflict):
            if dry_run or not remove(layout, holds, prefix):
                yield Removed(prefix.name, str(prefix), freed)


def _is_old(prefix: Path, before: float) -> bool:
    """Whether nothing used it since; what is not ready is of no use to anybody."""
    try:
        return (prefix / READY).stat().st_mtime <= before
    except OSError:
        return True


def _locks(locks: Locks, hashes: Collection[str], before: float, *, dry_run: bool) -> Iterator[Removed]:
    for file, hash_ in locks.all():
        with contextlib.suppress(OSError):
            if hash_ not in hashes and file.stat().st_mtime <= before:
                words = file.with_suffix(".json")
                yield from _removing("lock", file, dry_run=dry_run, remove=partial(Path.unlink, words, missing_ok=True))


def own_lock(prefix: Path) -> Path:
    """The lock that lies in a conda prefix."""
    return prefix / "lock" / "conda-lock.yml"


def _texts(files: Iterator[Path]) -> Iterator[str]:
    for file in files:
        with contextlib.suppress(OSError, UnicodeError):
            yield file.read_text(encoding="utf-8")


def _channels(layout: Layout, texts: list[str], before: float, *, dry_run: bool) -> Iterator[Removed]:
    """Channels made from PyPI to which nothing refers; a user's lock may, wherever it was moved: by last use, too."""
    requests = [(file, text) for file in _entries(layout.channels / REQUESTS) for text in _texts(iter([file]))]
    for folder in _entries(layout.channels):
        if folder.name == REQUESTS or folder.name.startswith(".") or any(folder.name in text for text in texts):
            continue
        uses = [_changed(folder), *(_changed(file) for file, text in requests if folder.name in text)]
        if max(uses) <= before:
            yield from _removing("channel", folder, dry_run=dry_run, remove=partial(_put_away, layout, folder))


def _cache(layout: Layout, texts: list[str], prefixes: list[Path], *, dry_run: bool) -> Iterator[Removed]:
    """Packages that no lock and no prefix refers to; and what an earlier version kept here."""
    names = {ENDINGS.sub("", name) for text in texts for name in re.findall(r"[^/\s\"'#]+\.(?:conda|tar\.bz2)", text)}
    names |= {file.stem for prefix in prefixes for file in prefix.glob("conda-meta/*.json")}
    for entry in _entries(layout.cache / "pkgs"):
        if ENDINGS.sub("", entry.name) not in names and not entry.name.startswith("."):
            yield from _removing("package", entry, dry_run=dry_run, remove=partial(_put_away, layout, entry))
    for entry in (entry for python in _entries(layout.cache / "compiled") for entry in _entries(python)):
        if COMPILED.fullmatch(entry.name) and not any(entry.name in text for text in texts):
            yield from _removing("bytecode", entry, dry_run=dry_run, remove=partial(_put_away, layout, entry))
    for entry in _entries(layout.cache):
        if EARLIER.fullmatch(entry.name):
            yield from _removing("cache", entry, dry_run=dry_run, remove=partial(_put_away, layout, entry))


def unused_wheels(layout: Layout) -> dict[str, list[Removed]]:
    """Names of pip's packages of which no prefix shares a file with uv's cache, to what is there of them. Blocks.

    uv itself has to remove them: it takes for granted that what it has written down is there.
    """
    found: dict[str, list[Removed]] = {}
    used = set()
    for entry in _entries(layout.cache / "uv" / "archive-v0"):
        for info in entry.glob("*.dist-info"):
            name = canonicalize_name(info.name.split("-")[0])
            if _is_linked(entry):
                used.add(name)
            found.setdefault(name, []).append(Removed("wheel", str(entry), freed_by(entry)))
    return {name: removed for name, removed in found.items() if name not in used}


def _forget_distrust(layout: Layout, prefixes: list[Path]) -> None:
    """What is left in the cache is shared with prefixes that were looked at since; the rest is gone."""
    suspicion = layout.suspicion
    if all(state_of(prefix) != "ready" or cleared_of(prefix) == suspicion for prefix in prefixes):
        hashes = {hash_of(prefix) for prefix in prefixes}
        for hash_ in set(checks.distrusted(layout)) - hashes:
            (layout.distrust / hash_).unlink(missing_ok=True)


def _removing(kind: str, path: Path, *, dry_run: bool, remove: Callable[[], object]) -> Iterator[Removed]:
    freed = freed_by(path)
    if not dry_run:
        remove()
        with contextlib.suppress(OSError):
            path.unlink()
    yield Removed(kind, str(path), freed)


def _put_away(layout: Layout, path: Path) -> None:
    """Builders wait meanwhile: what takes long, to delete it, is done by the ``sweep`` afterwards."""
    if path.is_dir() and not path.is_symlink():
        layout.put_away(path)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _changed(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _files(path: Path) -> Iterator[os.stat_result]:
    waiting = [path]
    while waiting:
        current = waiting.pop()
        with contextlib.suppress(OSError):
            if not current.is_dir() or current.is_symlink():
                yield current.lstat()
                continue
            with os.scandir(current) as entries:
                found = list(entries)
            waiting += [Path(entry.path) for entry in found if entry.is_dir(follow_symlinks=False)]
            yield from (entry.stat(follow_symlinks=False) for entry in found if not entry.is_dir(follow_symlinks=False))


def _is_linked(path: Path) -> bool:
    """Whether a prefix shares a file with this folder of the cache."""
    return any(status.st_nlink > 1 for status in _files(path))


def freed_by(path: Path) -> int:
    """Bytes on the disk that are free when this is removed: what others share stays."""
    return sum(status.st_blocks * 512 for status in _files(path) if status.st_nlink == 1)
