"""Bringing a backup back: checked as a whole, made ready beside the home, and put in its place when nobody uses it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyter_agent import processes
from jupyter_agent.agent import hub_keeper
from jupyter_agent.agent.backup.opening import Backup, open_backup
from jupyter_agent.agent.backup.swapping import go_on, mark, put_in_place
from jupyter_agent.errors import AgentError, Conflict, InvalidInput
from jupyter_agent.home import AgentClient, Home, Lock, ensure_agent, is_ours, read_json, running_agent
from jupyter_agent.hub.data.store import Store
from jupyter_agent.hub.transfer.disk import Say, scratch
from jupyter_agent.state import RunRow, RunState, State, now

END_S = 60
LOOK_S = 0.05
PAGE = 500
AWAY = "The run was under way when the backup was made that was restored."


@dataclass(frozen=True)
class Restored:
    """What was done; ``before`` is where the old home is kept, ``trouble`` why the agent did not start again."""

    home: Path
    backup: Backup
    before: Path | None
    agent: bool
    hub: bool
    trouble: str = ""


@dataclass(frozen=True)
class _Ran:
    """Who was ended for it."""

    agent: bool
    hub: bool


def restore(home: Home, source: Path, *, stop: bool, say: Say, tell: Say) -> Restored:
    """Make the home what the backup holds; the old one is kept beside it.

    ``stop``: runs that are under way are ended; else there is a ``Conflict``. Raises what ``open_backup`` raises, and
    ``InvalidInput`` for a place that cannot be a home. An error means that the old home is as it was. ``tell`` gets
    what should be known before it is done.
    """
    place = home.path.resolve()
    _check_place(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    with _the_only_one(place):
        if (said := go_on(place)) is not None:
            tell(said)
        return _restored(home, place, source, stop=stop, say=say, tell=tell)


def _restored(home: Home, place: Path, source: Path, *, stop: bool, say: Say, tell: Say) -> Restored:
    id_ = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    with scratch(place.parent) as folder:
        backup = open_backup(source, folder / "home", say)
        asyncio.run(_make_ready(backup.folder, place))
        mark(backup.folder, id_, {"restored": now(), "made": backup.head.created, "from": str(source)})
        client = _idle_agent(home, stop=stop)
        tell(f"The backup is sound. From here on {place} is either what it was or what the backup holds.")
        ran = _who_runs(Home(place), client)
        try:
            with _alone(Home(place), client):
                before = put_in_place(backup.folder, place, id_)
        except BaseException:
            _start_again(home, ran)
            raise
    try:
        trouble = _start_again(home, ran)
    except KeyboardInterrupt:  # what was done is told all the same
        trouble = "its start was broken off."
    return Restored(place, backup, before, ran.agent, ran.hub, trouble)


def _check_place(place: Path) -> None:
    if not place.exists():
        return
    Home(place).check_version()
    if place.is_mount():
        raise InvalidInput(
            f"The home {place} is where a file system is mounted, and cannot be exchanged: restore into a folder in it "
            f"(`--home {place}/home`), and have JUPYTER_AGENT_HOME name that."
        )
    if not (place / "version").exists():
        strange = next((entry.name for entry in place.iterdir() if not is_ours(entry.name)), None)
        if strange is not None:
            raise InvalidInput(f"{place} is no home of jupyter_agent, as {strange} lies in it: name another --home.")


async def _make_ready(folder: Path, place: Path) -> None:
    """Bring the databases to this version, and have the runs be where the home will be, all of them ended."""
    if (folder / "hub" / "hub.db").exists():
        async with Store(folder / "hub" / "hub.db"):
            pass
    if (folder / "state.db").exists():
        async with State(folder / "state.db") as state:
            for row in await _rows(state):
                if changes := _changes(row, place):
                    await state.update(row.id, **changes)


async def _rows(state: State) -> list[RunRow]:
    rows, cursor = await state.runs(limit=PAGE)
    while cursor:
        more, cursor = await state.runs(limit=PAGE, cursor=cursor)
        rows += more
    return rows


def _changes(row: RunRow, place: Path) -> dict[str, Any]:
    """What a run's row must say in the new home: what was owed to others then is not sent once more."""
    folder = str(place / "runs" / Path(row.folder).parent.name / Path(row.folder).name) if row.folder else ""
    changes: dict[str, Any] = {"folder": folder} if folder != row.folder else {}
    if row.reply is not None:
        changes["reply"] = None
    if not row.ended:
        changes |= {
            "state": RunState.LOST,
            "ended": now(),
            "error": AWAY,
            "pid": None,
            "pid_started": None,
            "next_attempt": None,
        }
    return changes


def _idle_agent(home: Home, *, stop: bool) -> AgentClient | None:
    """The running agent, ``None`` when none answers. Raises ``Conflict`` when it has runs that are not to be ended."""
    client, count = None, 0
    with contextlib.suppress(AgentError, OSError):
        if (socket := running_agent(home)) is not None:
            client = AgentClient(socket)
            runs = client.request("GET", "status", timeout_s=10)["runs"]
            count = runs["active"] + runs["queued"]
    if count and not stop:
        are = "runs are" if count > 1 else "run is"
        raise Conflict(f"{count} {are} under way, and a restore ends the agent: wait for the end, or say --stop.")
    return client


@contextlib.contextmanager
def _the_only_one(place: Path) -> Iterator[None]:
    """Two restores of one home would be in each other's way. Raises ``Conflict``."""
    descriptor = os.open(place.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Conflict(f"Another restore is under way in {place.parent}: wait for its end.") from error
    else:
        yield
    finally:
        os.close(descriptor)


def _who_runs(home: Home, client: AgentClient | None) -> _Ran:
    agent, hub = _process(home.agent_file), _process(home.hub / "hub.json")
    return _Ran(agent=agent is not None or client is not None, hub=hub is not None)


@contextlib.contextmanager
def _alone(home: Home, client: AgentClient | None) -> Iterator[None]:
    """End the agent, then the hub, in order, and keep others from starting. Raises ``Conflict`` for one that stays."""
    if not home.path.exists():
        yield
        return
    if client is not None:
        with contextlib.suppress(AgentError, OSError):
            client.request("POST", "shutdown", {}, timeout_s=10)
    else:
        _end(_process(home.agent_file))
    with _held(Lock(home.path / "agent.lock", held=f"The agent of {home.path} does not end.")):
        home.hub.mkdir(mode=0o700, exist_ok=True)
        _end(_process(home.hub / "hub.json"))
        with _held(Lock(home.hub / "lock", held=f"The hub of {home.path} does not end.")):
            yield


@contextlib.contextmanager
def _held(lock: Lock) -> Iterator[None]:
    deadline = time.monotonic() + END_S
    while True:
        try:
            lock.acquire()
            break
        except Conflict as error:
            if time.monotonic() > deadline:
                raise Conflict(f"{error} End it, and try again. Nothing was changed.") from error
            time.sleep(LOOK_S)
    try:
        yield
    finally:
        lock.release()


def _process(file: Path) -> int | None:
    """The pid in ``agent.json`` or ``hub.json``, if that process runs."""
    try:
        stored = read_json(file) or {}
        pid, started = int(stored["pid"]), float(stored["started"])
    except (InvalidInput, KeyError, TypeError, ValueError):
        return None
    return pid if processes.is_alive(pid, started) else None


def _end(pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)


def _start_again(home: Home, ran: _Ran) -> str:
    """Start what ran; why that did not work, empty when it did."""
    try:
        if ran.agent:
            ensure_agent(home, processes.spawn_detached)
        elif ran.hub:
            asyncio.run(hub_keeper.ensure(home))
    except AgentError as error:
        return str(error)
    return ""
