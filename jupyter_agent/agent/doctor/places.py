"""The home on its disk: who may read it, where it lies, how much room there is, and whether its databases are whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from jupyter_agent.agent.backup.swapping import left_behind
from jupyter_agent.agent.doctor.findings import Case, Finding, ok, problem, warning
from jupyter_agent.agent.mounts import network_file_system
from jupyter_agent.errors import AgentError
from jupyter_agent.home import SOCKET_PATH_LIMIT, read_json

LITTLE_BYTES, LEAST_BYTES = 2 << 30, 200 << 20
LITTLE_INODES, LEAST_INODES = 20_000, 1_000
OTHERS = stat.S_IRWXG | stat.S_IRWXO
SQLITE = (3, 37)
"""The first with STRICT tables."""

PATIENCE_S = 8
STEPS = 100_000
SECRETS = ("config.json", "hub/credentials.json", "state.db", "hub/hub.db")
STORES = ("state.db", "hub/hub.db")


async def look(case: Case) -> list[Finding]:
    """All of it, in a thread."""
    return await asyncio.to_thread(lambda: list(_look(case)))


def _look(case: Case) -> Iterator[Finding]:
    home = case.home.path
    yield _versions()
    if home.exists():
        yield from _home(home)
        yield _version(case)
        yield from _identity(home)
        yield from _stores(home)
    else:
        yield _place(home)
    yield _file_system(home)
    yield _socket(home)
    yield from _room("disk of the home", _first_that_exists(home), "move the home: JUPYTER_AGENT_HOME")
    yield from _room("temporary folder", case.temp, "have TMPDIR name a folder with more room")
    place = home.resolve()
    for left in left_behind(place) if place.parent.is_dir() else []:
        yield warning(
            "restore", f"A restore was broken off; {left} is left of it.", "Run `jupyter-agent restore` again."
        )


def _versions() -> Finding:
    found = sqlite3.sqlite_version_info
    said = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    if found < SQLITE:
        return problem("versions", f"{said}: this SQLite is too old.", "Use a Python that has SQLite 3.37 or newer.")
    return ok("versions", f"{said}.")


def _place(home: Path) -> Finding:
    above = _first_that_exists(home)
    if not os.access(above, os.W_OK | os.X_OK) or not above.is_dir():
        return problem(
            "home", f"There is no home yet, and none can be made in {above}.", "Name another: JUPYTER_AGENT_HOME."
        )
    return ok("home", f"There is none yet at {home}; the first command that needs it makes it.")


def _home(home: Path) -> Iterator[Finding]:
    found = home.stat()
    if not stat.S_ISDIR(found.st_mode):
        yield problem("home", f"{home} is no folder.", "Remove it, or name another with JUPYTER_AGENT_HOME.")
        return
    if found.st_uid != os.geteuid():
        yield problem(
            "owner", f"{home} belongs to another user (uid {found.st_uid}).", f"chown -R $USER {quote(str(home))}"
        )
    wrong = [path for path in (home, *(home / name for name in SECRETS)) if _is_open(path)]
    for path in wrong:
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = "700" if path == home else "600"
        yield problem("permissions", f"Others may use {path} (mode {mode:04o}).", f"chmod {wanted} {quote(str(path))}")
    if not wrong:
        yield ok("permissions", f"{home} and the tokens in it are yours alone.")
    yield _writable(home)


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & OTHERS)
    except OSError:
        return False


def _writable(home: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=home, prefix=".version.") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return problem(
            "writing", f"Nothing can be written to {home} ({error.strerror}).", "Mend the disk, or the folder's owner."
        )
    return ok("writing", f"{home} can be written to.")


def _version(case: Case) -> Finding:
    try:
        case.home.check_version()
    except AgentError as error:
        return problem("home", str(error), "Upgrade jupyter_agent, or name another home.")
    return ok("home", f"{case.home.path} is of this version.")


def _identity(home: Path) -> Iterator[Finding]:
    file = home / "identity.json"
    try:
        read_json(file)
    except AgentError as error:
        todo = f"Bring it back from a backup, or: rm {quote(str(file))} (the agent gets another name and queue then)"
        yield problem("identity", str(error), todo)


def _stores(home: Path) -> Iterator[Finding]:
    for name in STORES:
        if (home / name).exists():
            said = _verdict(home / name)
            if said != "ok":
                yield problem(
                    "databases",
                    f"{home / name} is damaged ({' '.join(said.split())}).",
                    "Bring it back with `jupyter-agent restore`, or move it away to begin anew.",
                )
            else:
                yield ok("databases", f"{name} is whole.")


def _verdict(path: Path) -> str:
    """What SQLite says of a database, ``ok`` also where that would take too long."""
    deadline = time.monotonic() + PATIENCE_S
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE_S)) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        return "ok" if error.sqlite_errorcode in (sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_BUSY) else str(error)
    except sqlite3.Error as error:
        return str(error)
    return str(said)


def _file_system(home: Path) -> Finding:
    if kind := network_file_system(_first_that_exists(home)):
        return problem(
            "file system",
            f"{home} is on a network file system ({kind}), on which databases and locks break.",
            "Have JUPYTER_AGENT_HOME name a folder on a disk of this machine.",
        )
    return ok("file system", f"{home} is on no network file system.")


def _socket(home: Path) -> Finding:
    length = len(os.fsencode(home / "agent.sock"))
    if length <= SOCKET_PATH_LIMIT:
        return ok("socket", f"The path of the agent's socket is short enough ({length} bytes).")
    return ok("socket", f"The path of the home is long ({length} bytes), so the agent's socket lies elsewhere.")


def _room(what: str, folder: Path, todo: str) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    yield _enough(what, f"{free / (1 << 30):.1f} GiB free", free, LITTLE_BYTES, LEAST_BYTES, todo)
    found = os.statvfs(folder)
    if found.f_files:  # btrfs and others have as many as they like
        said = f"{found.f_favail} files can be made"
        yield _enough(f"files of the {what}", said, found.f_favail, LITTLE_INODES, LEAST_INODES, todo)


def _enough(what: str, said: str, found: int, little: int, least: int, todo: str) -> Finding:  # noqa: PLR0917 - a row
    if found < least:
        return problem(what, f"It is full: {said}.", f"Free some space, or {todo}.")
    if found < little:
        return warning(what, f"It is nearly full: {said}.", f"Free some space, or {todo}.")
    return ok(what, f"{said[0].upper()}{said[1:]}.")


def _first_that_exists(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())
