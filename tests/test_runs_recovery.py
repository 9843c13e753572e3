"""What a new agent makes of the runs of one that was killed."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from jupyter_agent.processes import Command, inherited_environment, start
from jupyter_agent.processes.environment import TAG
from jupyter_agent.runs import OutputLog, Supervisor, artifact_path
from jupyter_agent.state import RunRow, RunState, State, new_run_id, now

CHILDREN = Path(__file__).parent / "children"
DEADLINE_S = 30


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def tagged(run_ids: set[str]) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG) in run_ids and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The home of an agent that was killed with a run going on, one being prepared and one queued."""
    agent = subprocess.Popen([sys.executable, str(CHILDREN / "agent_of_runs.py"), str(tmp_path)])
    try:
        until((tmp_path / "ready").exists)
    finally:
        agent.kill()
        agent.wait()
    return tmp_path


async def rows(home: Path) -> dict[str, RunRow]:
    async with State(home / "state.db") as state:
        return {row.package: row for row in (await state.runs())[0]}


async def test_runs_of_a_killed_agent_are_lost_and_say_so(killed: Path) -> None:
    before = await rows(killed)
    assert {row.state for row in before.values()} == {"running", "preparing", "queued"}
    saved: list[str] = []

    async def recover(row: RunRow) -> None:
        assert row.state is RunState.LOST
        (Path(row.folder) / "output.ipynb").write_text("saved")
        with (Path(row.folder) / "events.jsonl").open("a") as events:
            events.write("\n" + json.dumps({"event": "artifact", "path": "output.ipynb"}) + "\n")
        saved.append(row.package)

    told: list[RunRow] = []
    async with (
        State(killed / "state.db") as state,
        Supervisor(state=state, folder=killed / "runs", max_runs=2, keep_runs=10, recover=recover) as supervisor,
    ):
        supervisor.subscribe(told.append)
        assert tagged({row.id for row in before.values()}) == []
        assert await state.unfinished() == []
        assert {row.package for row in await state.owed()} == {"going", "preparing", "queued"}
        await asyncio.to_thread(until, lambda: len(told) == 3)
        after = {row.package: row for row in (await state.runs())[0]}
    assert sorted(saved) == ["going", "preparing", "queued"]
    assert {row.state for row in after.values()} == {RunState.LOST}
    assert all(row.ended for row in after.values())
    assert "unexpectedly" in (after["going"].error or "")
    assert "before this run was started" in (after["queued"].error or "")
    going = after["going"]
    assert (going.results, going.progress) == ({"mean": 11.5}, {"done": 2, "total": 5, "label": "cell 2 of 5"})
    assert [artifact["name"] for artifact in going.artifacts] == ["named.txt", "output.ipynb", "output.csv"]
    assert artifact_path(Path(going.folder), "output.csv").read_text() == "1,2,3"
    assert not (Path(going.folder) / "work").exists()
    assert OutputLog(Path(going.folder) / "output").tail(100) == "reported\n"


async def test_children_of_a_killed_agent_end_without_another_agent(killed: Path) -> None:
    before = await rows(killed)
    await asyncio.to_thread(until, lambda: not tagged({row.id for row in before.values()}))


async def test_a_recovery_that_fails_for_one_run_does_not_keep_the_agent_from_starting(tmp_path: Path) -> None:
    async with State(tmp_path / "state.db") as state:
        for _ in range(3):
            await state.insert(
                RunRow(id=new_run_id(), state=RunState.RUNNING, created=now(), folder=str(tmp_path / "none"))
            )

    async def recover(row: RunRow) -> None:
        raise ZeroDivisionError

    async with (
        State(tmp_path / "state.db") as state,
        Supervisor(state=state, folder=tmp_path / "runs", max_runs=1, keep_runs=10, recover=recover),
    ):
        assert {row.state for row in (await state.runs())[0]} == {RunState.LOST}


async def test_only_the_process_itself_is_killed_not_another_with_its_pid(tmp_path: Path) -> None:
    words = (sys.executable, str(CHILDREN / "stubborn.py"))
    same = await start(Command(words, tmp_path, inherited_environment()), tag="no-run")
    other = await start(Command(words, tmp_path, inherited_environment()), tag="no-run-either")
    left = RunRow(id=new_run_id(), state=RunState.RUNNING, pid=same.pid, pid_started=same.started)
    recycled = dataclasses.replace(left, id=new_run_id(), pid=other.pid, pid_started=other.started - 100)
    async with State(tmp_path / "state.db") as state:
        await state.insert(left)
        await state.insert(recycled)
        async with Supervisor(state=state, folder=tmp_path / "runs", max_runs=1, keep_runs=10):
            pass
    assert (await same.wait()).signal == "SIGKILL"
    assert other.exit is None
    await other.stop(grace_s=0)
    await same.end()
