"""What lies in a prefix, and what has changed in it since it was made.

Of each entry size, time of change, mode and link target are looked at, not its content: 5 microseconds each.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from jupyter_agent.environments.prefixes.marks import OURS, READY, TRUST, write_whole

FILE = ".fingerprint"

BYTECODE = "__pycache__"
"""What Python writes there when a module is first imported is no change."""

TEMPORARY = (f".{FILE}.", f".{READY}.", f".{TRUST}.")
"""Beginnings of the names of files of ours that are being written."""

PART = 2000
"""Entries in a line of what is written down: while one is read, all threads wait."""

Entries = dict[str, str]
"""Path below the prefix to what is to be seen of it."""


@dataclass(frozen=True)
class Changes:
    """Paths below a prefix; ``modified`` ones may be shared with other prefixes. ``moved``: where it was made."""

    modified: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    moved: str = ""

    def __bool__(self) -> bool:
        return bool(self.modified or self.missing or self.added or self.moved)

    def __str__(self) -> str:
        """In a few words: the first, and how many more."""
        words = (
            *((f"it was made at {self.moved}",) if self.moved else ()),
            *(f"{path} was changed" for path in self.modified),
            *(f"{path} was removed" for path in self.missing),
            *(f"{path} was added" for path in self.added),
        )
        first = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in words[0]) if words else ""
        return first + (f", and {len(words) - 1} more" if len(words) > 1 else "") if words else "nothing was changed"


UNREADABLE = Changes(modified=("its list of files",))


def taken(prefix: Path, *, bad: Collection[str] = (), hit: Callable[[str], None] = lambda _: None) -> Entries:
    """All that lies in a prefix now; ``hit`` hears of paths whose inode is one of ``bad``. Raises ``OSError``."""
    found: Entries = {}
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(f"{prefix}/{below}") as entries:
            for entry in entries:
                path = f"{below}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    found[path] = "folder"
                    waiting.append(f"{path}/")
                    continue
                if entry.is_symlink():
                    found[path] = f"link {os.readlink(entry.path)}"  # noqa: PTH115 - thousands of them
                else:
                    found[path] = _words(entry.stat(follow_symlinks=False))
                if bad and inode_of(entry.inode(), found[path]) in bad:
                    hit(path)
    for path in [path for path in found if "/" not in path and _ours(path)]:
        del found[path]
    return found


def _words(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_mode:o}"


def inode_of(number: int, seen: str) -> str:
    """What tells a file that is shared by links from any that comes after it: its inode, and when it was changed."""
    return f"{number} {seen}"


def _ours(path: str) -> bool:
    return path == FILE or path in OURS or path.startswith(TEMPORARY)


def keep(prefix: Path, entries: Entries) -> None:
    """Write down what lies in a prefix, in it."""
    pairs = list(entries.items())
    parts = (dict(pairs[start : start + PART]) for start in range(0, len(pairs), PART))
    write_whole(prefix / FILE, "".join(f"{json.dumps(part)}\n" for part in parts))


def kept(prefix: Path) -> Entries | None:
    """What was written down; ``None``: nothing that can be read."""
    found: Entries = {}
    try:
        for line in (prefix / FILE).read_text(encoding="utf-8").splitlines():
            found.update(json.loads(line))
    except (OSError, ValueError, TypeError):
        return None
    return found or None


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> Changes:
    """What is different; new bytecode is not."""
    if before == now:
        return Changes()
    modified = (path for path, seen in now.items() if before.get(path, seen) != seen)
    missing = (path for path in before if path not in now)
    added = (path for path in now if path not in before and not _is_bytecode(path))
    return Changes(tuple(sorted(modified)), tuple(sorted(missing)), tuple(sorted(added)))


def _is_bytecode(path: str) -> bool:
    return path.endswith(f"/{BYTECODE}") or f"/{BYTECODE}/" in path


def looked_at(prefix: Path, *, bad: Collection[str] = ()) -> Changes:
    """What has changed in a prefix since it was made; all of it when what was written down cannot be read.

    A file whose inode is one of ``bad``, as ``inode_of`` gives them, was changed before it was linked to.
    """
    before = kept(prefix)
    if before is None:
        return UNREADABLE
    shared: list[str] = []
    try:
        found = changes(before, taken(prefix, bad=bad, hit=shared.append))
    except OSError:
        return UNREADABLE
    modified = {path for path in found.modified if not _is_rewritten(prefix, path)}
    return Changes(tuple(sorted({*modified, *shared})), found.missing, found.added)


def _is_rewritten(prefix: Path, path: str) -> bool:
    """Whether it is bytecode that Python wrote anew, as the package's was not that of its source: no other shares it.

    So it is where a package brings bytecode of a source in which the prefix is written.
    """
    if not _is_bytecode(path):
        return False
    with contextlib.suppress(OSError):
        status = (prefix / path).lstat()
        return stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    return False


def inodes(prefix: Path, paths: Collection[str]) -> set[str]:
    """Those of files that were changed, as ``inode_of`` gives them."""
    found = set()
    for path in paths:
        with contextlib.suppress(OSError):
            status = (prefix / path).lstat()
            found.add(inode_of(status.st_ino, _words(status)))
    return found
