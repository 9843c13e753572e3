"""Rows on a real file: written, changed, paged, kept within bounds, refused when a newer version wrote them."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jupyter_agent.errors import Conflict, InvalidInput, NewerVersion, NotFound
from jupyter_agent.state import LEAST_PATIENCE, Claim, Keep, RunRow, RunState, State, new_run_id, now

FULL = RunRow(
    id="20250101-000000-000001-aa",
    state=RunState.RUNNING,
    package_id="p1",
    package="weather",
    version="1.0.0",
    fileid="f1",
    path="/x/weather.ipynb",
    language="notebook",
    trigger="rest",
    who="ada",
    token="sender",
    parameters={"city": "Seattle", "days": [1, 2]},
    kind="prepare",
    priority=1,
    attempt=2,
    retries=3,
    retry_delay_s=0.5,
    next_attempt=now(),
    rerun_of="run-0001",
    key="k",
    created=now(),
    started=now(),
    exit_code=0,
    signal="SIGKILL",
    pid=4711,
    pid_started=1234.5,
    peak_memory=1 << 33,
    cpu_s=1.25,
    progress={"done": 1, "total": 3, "label": "cell 1 of 3"},
    results={"mean": 11.5},
    artifacts=[{"name": "a/b.csv", "size": 3, "mimetype": "text/csv"}],
    error="It broke.",
    environment="hash",
    reply={"queue": "q", "correlation_id": "c"},
    folder="/runs/x",
)


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    async with State(tmp_path / "state.db") as state:
        yield state


def row(number: int, *, ended: bool = True, owes: bool = False, package: str = "p") -> RunRow:
    return RunRow(
        id=f"run-{number:04}",
        state=RunState.SUCCEEDED if ended else RunState.RUNNING,
        package=package,
        ended=now() if ended else None,
        reply={"queue": "q", "correlation_id": "c"} if owes else None,
    )


def ids(rows: list[RunRow]) -> list[int]:
    return [int(row.id.removeprefix("run-")) for row in rows]


async def test_a_row_survives_the_file_being_closed(tmp_path: Path) -> None:
    async with State(tmp_path / "state.db") as state:
        assert await state.insert(FULL) == FULL
    assert stat.S_IMODE((tmp_path / "state.db").stat().st_mode) == 0o600
    async with State(tmp_path / "state.db") as state:
        found = await state.get(FULL.id)
    assert found == FULL
    assert isinstance(found.state, RunState)


async def test_update_changes_what_is_named(state: State) -> None:
    await state.insert(FULL)
    changed = await state.update(FULL.id, state=RunState.FAILED, ended="later", reply=None)
    assert changed == dataclasses.replace(FULL, state=RunState.FAILED, ended="later", reply=None)
    assert await state.get(FULL.id) == changed


async def test_updates_at_once_lose_nothing(state: State) -> None:
    await state.insert(FULL)
    await asyncio.gather(
        state.update(FULL.id, exit_code=3), state.update(FULL.id, error="x"), state.update(FULL.id, pid=1)
    )
    assert await state.get(FULL.id) == dataclasses.replace(FULL, exit_code=3, error="x", pid=1)


async def test_what_is_not_there_or_there_already_is_refused(state: State) -> None:
    await state.insert(FULL)
    with pytest.raises(InvalidInput, match="already"):
        await state.insert(FULL)
    with pytest.raises(NotFound, match="no run nowhere"):
        await state.get("nowhere")
    with pytest.raises(NotFound):
        await state.update("nowhere", error="x")
    with pytest.raises(TypeError):
        await state.update(FULL.id, colour="grey")
    assert await state.get(FULL.id) == FULL


async def test_values_that_json_has_not_are_made_harmless(state: State) -> None:
    await state.insert(FULL)
    found = await state.update(
        FULL.id, results={"a": float("nan"), "b": [float("inf"), {"c": 10**30}]}, error="half \ud83d a pair \0"
    )
    assert found.results == {"a": None, "b": [None, {"c": 10**30}]}
    assert found.error == "half ? a pair \0"
    assert await state.get(FULL.id) == found


async def test_pages_go_from_the_newest_to_the_oldest(state: State) -> None:
    for number in range(7):
        await state.insert(row(number))
    seen: list[list[int]] = []
    cursor = None
    while True:
        rows, cursor = await state.runs(limit=3, cursor=cursor)
        seen.append(ids(rows))
        if cursor is None:
            break
    assert seen == [[6, 5, 4], [3, 2, 1], [0]]
    rows, cursor = await state.runs(limit=7)
    assert (ids(rows), cursor) == ([6, 5, 4, 3, 2, 1, 0], None)


async def test_pages_can_be_of_a_state_or_a_package(state: State) -> None:
    await state.insert(row(1, ended=False))
    await state.insert(row(2, package="other"))
    await state.insert(dataclasses.replace(row(3), package_id="id-3"))
    assert ids((await state.runs(state=RunState.RUNNING))[0]) == [1]
    assert ids((await state.runs(state="running,succeeded"))[0]) == [3, 2, 1]
    assert ids((await state.runs(package="other"))[0]) == [2]
    assert ids((await state.runs(package="id-3"))[0]) == [3]
    assert ids((await state.runs(state="queued"))[0]) == []
    with pytest.raises(InvalidInput, match="no state of a run"):
        await state.runs(state="happy")


async def test_unfinished_are_those_without_an_end(state: State) -> None:
    for number in range(4):
        await state.insert(row(number, ended=number % 2 == 0))
    assert ids(await state.unfinished()) == [1, 3]
    await state.update("run-0001", state=RunState.LOST, ended=now())
    assert ids(await state.unfinished()) == [3]


async def test_the_oldest_ended_rows_expire_but_not_those_that_owe(state: State) -> None:
    for number in range(12):
        await state.insert(row(number, ended=number != 1, owes=number in (0, 5)))
    assert ids(await state.owed()) == [0, 5]
    assert ids(await state.expired(Keep(2))) == [2, 3, 4, 6, 7, 8, 9]
    assert ids(await state.expired(Keep(0))) == [2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert ids(await state.expired(Keep(0, days=0, total_bytes=0))) == [2, 3, 4, 6, 7, 8, 9, 10, 11]
    await state.delete(["run-0000", "run-0002", "none"])
    assert ids((await state.runs(limit=3, cursor="run-0004"))[0]) == [3, 1]


async def test_debts_are_not_kept_without_end(state: State) -> None:
    await asyncio.gather(*(state.insert(row(number, owes=True)) for number in range(LEAST_PATIENCE + 2)))
    assert ids(await state.expired(Keep(2))) == [0, 1]
    assert ids(await state.expired(Keep(LEAST_PATIENCE))) == []


def test_ids_sort_by_time_and_differ() -> None:
    made = [new_run_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert [name[:22] for name in made] == sorted(name[:22] for name in made)


def test_every_state_is_live_or_ended() -> None:
    assert {state for state in RunState if not state.ended} == {"queued", "preparing", "running"}


async def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(NewerVersion):
        async with State(tmp_path / "state.db"):
            pass


async def test_fields_of_other_versions_do_no_harm(tmp_path: Path) -> None:
    async with State(tmp_path / "state.db") as state:
        await state.insert(row(1))
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("""UPDATE runs SET row = '{"id": "run-0001", "state": "failed", "of_later": 1}'""")
    connection.close()
    async with State(tmp_path / "state.db") as state:
        assert await state.get("run-0001") == RunRow(id="run-0001", state=RunState.FAILED)


RELEASED = (
    """CREATE TABLE runs (
        id TEXT PRIMARY KEY, state TEXT NOT NULL, package TEXT NOT NULL, package_id TEXT, ended TEXT, reply TEXT,
        row TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX unfinished ON runs (id) WHERE ended IS NULL",
    """INSERT INTO runs VALUES ('20240101-000000-000001-aa', 'succeeded', 'weather', 'p1',
        '2025-01-01T00:00:01.000+00:00', '{"queue": "q", "correlation_id": "c"}',
        '{"id": "20240101-000000-000001-aa", "state": "succeeded",
        "package_id": "p1", "package": "weather", "version": "1.0.0", "fileid": "f1", "path": null,
        "language": "notebook", "trigger": "queue", "who": "ada", "token": "sender", "parameters": {"city": "Seattle"},
        "attempt": 1, "created": "2025-01-01T00:00:00.000+00:00", "started": "2025-01-01T00:00:00.500+00:00",
        "ended": "2025-01-01T00:00:01.000+00:00", "exit_code": 0, "signal": null, "pid": 4711, "pid_started": 1234.5,
        "peak_memory": 1048576, "cpu_s": 0.5, "progress": null, "results": {"mean": 11.5}, "artifacts": [],
        "error": null, "environment": "hash", "reply": {"queue": "q", "correlation_id": "c"}, "folder": "/runs/x"}')""",
    "PRAGMA user_version = 1",
)
"""The file as version 0.1.0 wrote it."""


async def test_a_file_of_the_first_release_is_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.db") as connection:
        for statement in RELEASED:
            connection.execute(statement)
    connection.close()
    async with State(tmp_path / "state.db") as state:
        (found,) = (await state.runs(package="weather"))[0]
        assert found.parameters == {"city": "Seattle"}
        assert (found.kind, found.priority, found.retries, found.attempt) == ("run", 2, 0, 1)
        assert (found.next_attempt, found.rerun_of, found.key) == (None, None, None)
        assert await state.owed() == [found]
        assert await state.request(found.id) is None
        assert await state.unmeasured(10) == [found]
        await state.measured({found.id: 100})
        assert await state.unmeasured(10) == []
        changed = await state.update(found.id, reply=None)
        claim = Claim("ada", "key", "print")
        assert await state.insert(FULL, request={"parameters": {"x": 1}}, claim=claim) == FULL
        assert await state.claimed(claim) == FULL
    async with State(tmp_path / "state.db") as state:
        assert [row.id for row in (await state.runs())[0]] == sorted([FULL.id, changed.id], reverse=True)
        assert await state.request(FULL.id) == {"parameters": {"x": 1}}


async def test_a_key_stands_for_one_run_also_over_a_restart(tmp_path: Path) -> None:
    claim = Claim("ada", "order-7", "print")
    async with State(tmp_path / "state.db") as state:
        made = [dataclasses.replace(row(number), key="order-7") for number in range(20)]
        got = await asyncio.gather(*(state.insert(one, request={}, claim=claim) for one in made))
        assert {one.id for one in got} == {got[0].id}
        assert len((await state.runs())[0]) == 1
        with pytest.raises(Conflict, match="another request"):
            await state.insert(row(50), claim=dataclasses.replace(claim, fingerprint="other"))
        other = await state.insert(row(51), claim=dataclasses.replace(claim, caller="bob"))
        assert other.id == "run-0051"
    async with State(tmp_path / "state.db") as state:
        assert await state.claimed(claim) == got[0]
        assert await state.insert(row(60), claim=claim) == got[0]
        await state.delete([got[0].id])
        with pytest.raises(Conflict, match="no longer kept"):
            await state.insert(row(61), claim=claim)


async def test_a_key_is_free_again_after_its_time(tmp_path: Path) -> None:
    claim = Claim("ada", "order-7", "print")
    async with State(tmp_path / "state.db") as state:
        await state.insert(row(1), claim=claim)
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("UPDATE keys SET made = '2020-01-01T00:00:00.000+00:00'")
    connection.close()
    async with State(tmp_path / "state.db") as state:
        assert await state.claimed(claim) is None
        assert (await state.insert(row(2), claim=dataclasses.replace(claim, fingerprint="new"))).id == "run-0002"


async def test_a_token_that_is_kept_goes_with_the_end_of_its_run(state: State) -> None:
    await state.insert(dataclasses.replace(row(1, ended=False), retries=1), request={"parameters": {}, "jwt": "secret"})
    await state.update("run-0001", state=RunState.QUEUED)
    assert await state.request("run-0001") == {"parameters": {}, "jwt": "secret"}
    await state.update("run-0001", state=RunState.FAILED, ended=now())
    assert await state.request("run-0001") == {"parameters": {}}


async def test_rows_expire_by_age_and_by_the_size_of_their_files(state: State) -> None:
    for number in range(6):
        await state.insert(dataclasses.replace(row(number), ended="2020-01-01" if number < 2 else now()))
    await state.measured({f"run-{number:04}": 100 for number in range(6)})
    assert ids(await state.expired(Keep(100))) == []
    assert ids(await state.expired(Keep(100, days=1))) == [0, 1]
    assert ids(await state.expired(Keep(100, total_bytes=350))) == [0, 1, 2]
    assert ids(await state.expired(Keep(100, total_bytes=1))) == [0, 1, 2, 3, 4]  # the newest stays
    assert ids(await state.expired(Keep(1, days=1, total_bytes=10_000))) == [0, 1, 2, 3, 4]
    await state.insert(dataclasses.replace(row(7), ended="2020-01-01"), claim=Claim("ada", "key", "print"))
    assert ids(await state.expired(Keep(100, days=1))) == [0, 1]  # a key that holds keeps its run
