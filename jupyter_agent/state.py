"""The agent's durable state: a row for each run, what was asked for, and the keys that keep it from running twice.

It knows rows. It refuses to know how a run goes (``runs/``) and how its result is sent (``agent/``): a row that still
has its ``reply`` owes one.
"""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jupyter_agent.database import Database
from jupyter_agent.errors import Conflict, InvalidInput, NotFound

MOST_ROWS = 1000
"""The longest page of rows."""

PATIENCE = 4
LEAST_PATIENCE = 1000
"""So many times as many rows, and so many at least, are kept of those that owe a result, or whose key still holds."""

KEYS_HOLD = timedelta(hours=24)
"""At least so long the same key is the same run."""


class RunState(StrEnum):
    """Where a run is. A signal is never ``SUCCEEDED``, nor is an error while preparing."""

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    KILLED = "killed"
    KERNEL_DIED = "kernel_died"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        """Whether it is over; such a row changes no more."""
        return self not in LIVE


LIVE = (RunState.QUEUED, RunState.PREPARING, RunState.RUNNING)

MAKING = ("prepare", "environment")
"""Kinds of runs that end when all is ready: no program is started."""


@dataclass(frozen=True)
class RunRow:
    """A run as it is on disk; every value is JSON.

    Times are ISO strings in UTC. ``package`` is the package's name, or the file's for a run of a ``path``. ``token``
    is which token the run got: ``none``, ``sender``, ``agent`` or ``runas``. ``parameters`` name secrets, never hold
    them. ``progress`` is ``{"done", "total", "label"}``; ``artifacts`` a list of ``{"name", "size", "mimetype"}``;
    ``reply`` ``{"queue", "correlation_id"}`` of the message that asked for the run, until it has its result;
    ``environment`` the hash of its lock, or the path of one that is not ours; ``folder`` the absolute path of its
    folder. ``peak_memory`` is in bytes. ``error`` is a sentence, ``warning`` another one, of a run that may have done
    well.

    ``kind`` is ``run``, ``prepare`` for one that ends when all is ready, or ``environment`` for one that makes an
    environment, a lock or a channel (``MAKING``); a lower ``priority`` goes first. A run that
    fails is tried ``retries`` times more, in the same row: ``attempt`` counts them from 1, ``next_attempt`` is when the
    next one begins while that is waited for, ``error`` then why the one before failed. ``rerun_of`` is the run that
    this one repeats, ``key`` what its caller calls it. ``tag`` is what marks its processes, where that is not the id.
    """

    id: str
    kind: str = "run"
    state: RunState = RunState.QUEUED
    package_id: str | None = None
    package: str = ""
    version: str | None = None
    fileid: str | None = None
    path: str | None = None
    language: str = ""
    trigger: str = ""
    who: str = ""
    token: str = "none"  # noqa: S105 - the kind of the token, not one
    parameters: dict[str, Any] = field(default_factory=dict)
    priority: int = 2
    attempt: int = 1
    retries: int = 0
    retry_delay_s: float = 10.0
    next_attempt: str | None = None
    rerun_of: str | None = None
    key: str | None = None
    created: str = ""
    started: str | None = None
    ended: str | None = None
    exit_code: int | None = None
    signal: str | None = None
    pid: int | None = None
    pid_started: float | None = None
    peak_memory: int | None = None
    cpu_s: float | None = None
    progress: dict[str, Any] | None = None
    results: dict[str, Any] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    warning: str | None = None
    environment: str | None = None
    reply: dict[str, Any] | None = None
    folder: str = ""
    tag: str | None = None


@dataclass(frozen=True)
class Claim:
    """A caller's own name for a run: within ``KEYS_HOLD``, the same one of the same caller is the same run.

    ``fingerprint`` is of all that is asked for: another one with the same key is refused.
    """

    caller: str
    key: str
    fingerprint: str


@dataclass(frozen=True)
class Keep:
    """Which ended runs are kept: so many, so young, so large together (bytes); ``None`` is no bound.

    The newest is kept whatever its size. One that owes a result, or whose key holds, outlives the bounds, up to
    ``PATIENCE`` times ``runs``, or ``LEAST_PATIENCE``.
    """

    runs: int
    days: float | None = None
    total_bytes: int | None = None


def new_run_id() -> str:
    """Ids sort by the time they were made (to the microsecond); their tails cannot be guessed (64 bits)."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{secrets.token_hex(8)}"


def now() -> str:
    """This moment, as rows hold it: ISO, UTC, to the millisecond."""
    return _iso(datetime.now(UTC))


class State:
    """The rows of all runs; use it with ``async with``. What a method has returned is on disk."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, MIGRATIONS)

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._database.__aexit__(kind, error, trace)

    async def insert(
        self, row: RunRow, *, request: Mapping[str, Any] | None = None, claim: Claim | None = None
    ) -> RunRow:
        """Add a row, and what was asked for; the row, or the one that its ``claim`` stands for already.

        Raises ``InvalidInput`` when its id is taken, ``Conflict`` as ``claimed`` does.
        """
        try:
            return await self._database.write(lambda connection: _insert(connection, row, request, claim))
        except sqlite3.IntegrityError as error:
            raise InvalidInput(f"There is a run {row.id} already.") from error

    async def claimed(self, claim: Claim) -> RunRow | None:
        """The run that this claim stands for; ``None``: the key is free.

        Raises ``Conflict`` when the key was used for something else, or its run is no longer kept.
        """
        return await self._database.read(lambda connection: _claimed(connection, claim))

    async def request(self, id: str) -> dict[str, Any] | None:  # noqa: A002
        """What was asked for when the run was made, whole; ``None`` when that is not known."""
        found = await self._database.read(
            lambda connection: connection.execute("SELECT request FROM requests WHERE id = ?", (id,)).fetchone()
        )
        return None if found is None else dict(json.loads(found[0]))

    async def update(self, id: str, **changes: Any) -> RunRow:  # noqa: A002 - the row's own word
        """Change fields of a row; the new row. Raises ``NotFound``."""
        return await self._database.write(lambda connection: _update(connection, id, changes))

    async def get(self, id: str) -> RunRow:  # noqa: A002
        """A run's row. Raises ``NotFound``."""
        return await self._database.read(lambda connection: _get(connection, id))

    async def runs(
        self,
        state: str | None = None,
        package: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[RunRow], str | None]:
        """A page of rows, newest first, and the cursor of the next page (``None`` after the last).

        ``state`` is one, or several with commas between; ``package`` a name or an id. Raises ``InvalidInput``.
        """
        where, values = _where(state, package, cursor)
        most = max(1, min(limit, MOST_ROWS))
        rows = await self._database.read(
            lambda connection: _select(connection, f"{where} ORDER BY id DESC LIMIT ?", (*values, most + 1))
        )
        return rows[:most], rows[most - 1].id if len(rows) > most else None

    async def unfinished(self) -> list[RunRow]:
        """Rows that say their run has not ended, oldest first."""
        return await self._database.read(lambda connection: _select(connection, "ended IS NULL ORDER BY id", ()))

    async def expired(self, keep: Keep) -> list[RunRow]:
        """Ended rows that need not be kept, oldest first."""
        moment = datetime.now(UTC)
        values = {
            "runs": keep.runs,
            "most": max(keep.runs * PATIENCE, LEAST_PATIENCE),
            "bytes": keep.total_bytes,
            "oldest": None if keep.days is None else _iso(moment - timedelta(days=keep.days)),
            "holds": _iso(moment - KEYS_HOLD),
        }
        return await self._database.read(lambda connection: _select(connection, _EXPIRED, values))

    async def unmeasured(self, limit: int) -> list[RunRow]:
        """Ended rows of which nobody has said what their folders take, newest first."""
        condition = "ended IS NOT NULL AND bytes IS NULL ORDER BY id DESC LIMIT ?"
        return await self._database.read(lambda connection: _select(connection, condition, (limit,)))

    async def measured(self, sizes: Mapping[str, int]) -> None:
        """Note how many bytes the folders of these runs take."""
        values = [(size, run_id) for run_id, size in sizes.items()]
        await self._database.write(
            lambda connection: connection.executemany("UPDATE runs SET bytes = ? WHERE id = ?", values)
        )

    async def owed(self) -> list[RunRow]:
        """Ended rows whose result has not reached the one who asked for the run, oldest first."""
        return await self._database.read(
            lambda connection: _select(connection, "ended IS NOT NULL AND reply IS NOT NULL ORDER BY id", ())
        )

    async def environments_of_one(self, package_id: str) -> list[str]:
        """The environments in which this package has run, or was prepared, and no other that is known of."""
        return await self._database.read(
            lambda connection: [name for (name,) in connection.execute(_OF_ONE, (package_id,))]
        )

    async def delete(self, ids: Collection[str]) -> None:
        """Remove rows; one that is not there is passed over. A key holds on without its row."""
        await self._database.write(lambda connection: _delete(connection, [(id_,) for id_ in ids]))


def _first(connection: sqlite3.Connection) -> None:
    connection.execute(
        """CREATE TABLE runs (
            id TEXT PRIMARY KEY, state TEXT NOT NULL, package TEXT NOT NULL, package_id TEXT, ended TEXT, reply TEXT,
            row TEXT NOT NULL
        ) STRICT, WITHOUT ROWID"""
    )
    connection.execute("CREATE INDEX unfinished ON runs (id) WHERE ended IS NULL")


def _second(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE runs ADD COLUMN bytes INTEGER")
    connection.execute("CREATE TABLE requests (id TEXT PRIMARY KEY, request TEXT NOT NULL) STRICT, WITHOUT ROWID")
    connection.execute(
        """CREATE TABLE keys (
            caller TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, run TEXT NOT NULL, made TEXT NOT NULL,
            PRIMARY KEY (caller, key)
        ) STRICT, WITHOUT ROWID"""
    )


MIGRATIONS = (_first, _second)

_FIELDS = {entry.name for entry in dataclasses.fields(RunRow)}

# What is asked for is in columns of its own; ``row`` holds everything, as JSON.
_INSERT = "INSERT INTO runs (state, package, package_id, ended, reply, row, id) VALUES (?, ?, ?, ?, ?, ?, ?)"
_FORGET = "UPDATE requests SET request = json_remove(request, '$.jwt') WHERE id = ?"
"""A token is kept only as long as another attempt may need it."""
_UPDATE = "UPDATE runs SET state = ?, package = ?, package_id = ?, ended = ?, reply = ?, row = ? WHERE id = ?"

_OF_ONE = """
SELECT environment FROM (SELECT package_id, json_extract(row, '$.environment') AS environment FROM runs)
WHERE environment IS NOT NULL GROUP BY environment HAVING min(package_id IS ?1) ORDER BY environment
"""

_EXPIRED = """id IN (
    SELECT id FROM (
        SELECT id, reply, ended, row_number() OVER newest AS place, sum(bytes) OVER newest AS total
        FROM runs WHERE ended IS NOT NULL WINDOW newest AS (ORDER BY id DESC)
    )
    WHERE (place > :runs OR (place > 1 AND total > :bytes) OR ended < :oldest)
    AND NOT (place <= :most AND (reply IS NOT NULL OR id IN (SELECT run FROM keys WHERE made > :holds)))
) ORDER BY id"""
"""Compared with ``NULL``, a bound that is not set, nothing is beyond it."""


def _insert(
    connection: sqlite3.Connection, row: RunRow, request: Mapping[str, Any] | None, claim: Claim | None
) -> RunRow:
    if claim is not None:
        if (known := _claimed(connection, claim)) is not None:
            return known
        connection.execute("DELETE FROM keys WHERE made <= ?", (_iso(datetime.now(UTC) - KEYS_HOLD),))
        claimed = (claim.caller, claim.key, claim.fingerprint, row.id, now())
        connection.execute("INSERT INTO keys (caller, key, fingerprint, run, made) VALUES (?, ?, ?, ?, ?)", claimed)
    values = _values(row)
    connection.execute(_INSERT, values)
    if request is not None:
        connection.execute("INSERT INTO requests (id, request) VALUES (?, ?)", (row.id, encoded(dict(request))))
    return _row(values[-2])


def _claimed(connection: sqlite3.Connection, claim: Claim) -> RunRow | None:
    holds = _iso(datetime.now(UTC) - KEYS_HOLD)
    found = connection.execute(
        "SELECT run, fingerprint FROM keys WHERE caller = ? AND key = ? AND made > ?", (claim.caller, claim.key, holds)
    ).fetchone()
    if found is None:
        return None
    run_id, fingerprint = found
    if fingerprint != claim.fingerprint:
        raise Conflict(f"The key {claim.key} was used for another request (run {run_id}): use a new one for this.")
    if rows := _select(connection, "id = ?", (run_id,)):
        return rows[0]
    raise Conflict(f"The key {claim.key} was used for run {run_id}, which is no longer kept: use a new one.")


def _delete(connection: sqlite3.Connection, ids: list[tuple[str]]) -> None:
    connection.executemany("DELETE FROM runs WHERE id = ?", ids)
    connection.executemany("DELETE FROM requests WHERE id = ?", ids)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _update(connection: sqlite3.Connection, run_id: str, changes: Mapping[str, Any]) -> RunRow:
    row = dataclasses.replace(_get(connection, run_id), **changes)
    values = _values(row)
    connection.execute(_UPDATE, values)
    if row.retries and changes.get("ended"):
        connection.execute(_FORGET, (run_id,))
    return _row(values[-2])


def _values(row: RunRow) -> tuple[str, str, str | None, str | None, str | None, str, str]:
    reply = None if row.reply is None else encoded(row.reply)
    return row.state, row.package, row.package_id, row.ended, reply, encoded(dataclasses.asdict(row)), row.id


def _get(connection: sqlite3.Connection, run_id: str) -> RunRow:
    if rows := _select(connection, "id = ?", (run_id,)):
        return rows[0]
    raise NotFound(f"There is no run {run_id}.")


def _select(
    connection: sqlite3.Connection, condition: str, values: Sequence[object] | Mapping[str, object]
) -> list[RunRow]:
    found = connection.execute(f"SELECT row FROM runs WHERE {condition}", values)  # noqa: S608 - this module's words
    return [_row(text) for (text,) in found]


def _where(state: str | None, package: str | None, cursor: str | None) -> tuple[str, tuple[str, ...]]:
    clauses, values = ["TRUE"], []
    if state:
        states = state.split(",")
        if unknown := [name for name in states if name not in tuple(RunState)]:
            raise InvalidInput(f"{unknown[0]!r} is no state of a run: those are {', '.join(RunState)}.")
        clauses.append(f"state IN ({', '.join('?' * len(states))})")
        values += states
    if package:
        clauses.append("? IN (package, package_id)")
        values.append(package)
    if cursor:
        clauses.append("id < ?")
        values.append(cursor)
    return " AND ".join(clauses), tuple(values)


def _row(text: str) -> RunRow:
    """From JSON; fields that only a later version had are dropped, those it had not get their defaults."""
    stored = {name: value for name, value in json.loads(text).items() if name in _FIELDS}
    return RunRow(**{**stored, "state": RunState(stored["state"])})


def encoded(value: Any) -> str:
    """JSON that every reader takes: NaN and infinities become null, half a surrogate pair a question mark."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
