"""One folder takes another's place, so that at every moment one of the two is there as a whole.

Linux exchanges two folders in one step; elsewhere, and on file systems that cannot, there are two, and a moment without
either: ``go_on`` completes what was broken off there.

While it goes on the new home lies beside the old one as ``<home>.restore-<id>``; the old one is kept as
``<home>.before-<id>``. Which of them is new tells ``restored.json`` in it, with its id.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from pathlib import Path

from jupyter_agent.errors import InvalidInput
from jupyter_agent.home import read_json, sync, write_private

MARK = "restored.json"
COMING, BEFORE = ".restore-", ".before-"

AT_FDCWD = -100
RENAME_EXCHANGE = 2
CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def mark(folder: Path, id_: str, about: dict[str, object]) -> None:
    """Note in a new home which restore it is of."""
    write_private(folder / MARK, json.dumps({"id": id_, **about}, indent=2))


def put_in_place(new: Path, home: Path, id_: str) -> Path | None:
    """Make ``new`` (marked, on the same disk) the home; where the old one is kept, ``None`` where there was none."""
    coming, before = home.with_name(f"{home.name}{COMING}{id_}"), home.with_name(f"{home.name}{BEFORE}{id_}")
    new.rename(coming)
    sync(home.parent)
    if not home.exists():
        coming.rename(home)
        sync(home.parent)
        return None
    if exchange(coming, home):
        coming.rename(before)  # which is the old one now
    else:
        home.rename(before)
        try:
            coming.rename(home)
        except BaseException:
            before.rename(home)
            raise
    sync(home.parent)
    return before


def go_on(home: Path) -> str | None:
    """Complete what a restore left that was broken off; what was done, in a sentence, ``None`` for nothing."""
    said = None
    for left in left_behind(home):
        id_ = left.name.removeprefix(home.name + COMING)
        if _id_of(left) != id_:  # the two were exchanged: it is the old one
            before = home.with_name(f"{home.name}{BEFORE}{id_}")
            left.rename(before)
            said = f"A restore that was broken off had been done; what was there before is in {before}."
        elif not home.exists():
            left.rename(home)
            said = f"A restore that was broken off was completed: {home} is what it brought."
        else:
            shutil.rmtree(left)
            said = f"A restore was broken off before it changed anything; what it had unpacked was removed from {left}."
        sync(home.parent)
    return said


def left_behind(home: Path) -> list[Path]:
    """What a restore that was broken off left beside the home."""
    return sorted(path for path in home.parent.iterdir() if path.name.startswith(home.name + COMING))


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; false where that cannot be done. Raises ``OSError``."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    if function(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _id_of(folder: Path) -> str | None:
    try:
        found = (read_json(folder / MARK) or {}).get("id")
    except InvalidInput:
        return None
    return found if isinstance(found, str) else None
