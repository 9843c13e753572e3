"""A memory limit kept by the kernel, where a cgroup may be made."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jupyter_agent.processes import Command, inherited_environment
from jupyter_agent.runs import Limits, Prepared, Run, Supervisor
from jupyter_agent.runs.memory import Group
from jupyter_agent.state import RunRow, RunState, State, new_run_id


@pytest.fixture
async def group() -> AsyncIterator[Group]:
    made = await asyncio.to_thread(functools.partial(Group.make, new_run_id(), memory_bytes=64 << 20, processes=None))
    if made is None:
        pytest.skip("no cgroup may be made here")
    yield made
    made.remove()
    assert not made.path.exists()


async def test_a_group_limits_what_is_in_it(group: Group, tmp_path: Path) -> None:
    hog = "b = b'x' * (500 << 20); print('alive')"

    async def prepare(run: Run) -> Prepared:
        return Prepared(
            Command((sys.executable, "-c", f"import time; time.sleep(1); {hog}"), run.folder, inherited_environment())
        )

    async with (
        State(tmp_path / "state.db") as state,
        Supervisor(state=state, folder=tmp_path / "runs", max_runs=1, keep_runs=1) as supervisor,
    ):
        run = await supervisor.submit(RunRow(id=new_run_id()), prepare, limits=Limits(memory_bytes=64 << 20))
        row = await run.wait()
    assert row.state is RunState.KILLED
    assert "memory limit of 64 MiB" in (row.error or "")
    assert (row.peak_memory or 0) <= 80 << 20
    assert not group.exceeded


def test_where_no_group_may_be_made_there_is_none() -> None:
    made = Group.make("x/nowhere/y", memory_bytes=1 << 30, processes=10)  # no folder of this name can be made anywhere
    assert made is None
