"""Many short runs with random ends and cancels: each ends exactly once, and nothing is left of it."""

from __future__ import annotations

import asyncio
import collections
import os
import random
import sys
from pathlib import Path

import psutil

from jupyter_agent.processes import Command, inherited_environment
from jupyter_agent.runs import Limits, Prepared, Run, Supervisor
from jupyter_agent.state import RunRow, RunState, State, new_run_id
from tests.conftest import BUDGETS

SEED = int(os.environ.get("JUPYTER_AGENT_SEED", "0")) or random.SystemRandom().randrange(1 << 31)


def chances(seed: float) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a test's


def script(chance: random.Random) -> str:
    return chance.choice(
        [
            "echo out; echo err >&2",
            "exit 3",
            "kill -9 $$",
            "echo work > made; sleep 0.0$((RANDOM % 10))",
            "sleep 600",
            "sleep 600 & echo $!",
            "setsid sleep 600 >/dev/null 2>&1 & exit 0",
            "trap '' TERM; sleep 600; sleep 600",
            "yes | head -c 3000000",
        ]
    )


async def run_one(supervisor: Supervisor, chance: random.Random) -> RunRow:
    words, preparing_s = script(chance), chance.choice([0, 0, 0.05])
    fails = chance.random() < 0.05

    async def prepare(run: Run) -> Prepared:
        await asyncio.sleep(preparing_s)
        if fails:
            raise RuntimeError("as it happens")
        work = run.folder / "work"
        work.mkdir()
        return Prepared(Command(("bash", "-c", words), work, inherited_environment()), workdir=work)

    wall_s = chance.choice([None, 0.1, 0.5]) if "600" not in words else 0.4
    row = RunRow(id=new_run_id(), package=words, priority=chance.randrange(4))
    run = await supervisor.submit(row, prepare, limits=Limits(wall_s=wall_s, grace_s=0.1))
    if chance.random() < 0.5:
        await asyncio.sleep(chance.random() * 0.3)
        await supervisor.cancel(run.row.id, who="chance")
    return await run.wait()


async def test_every_run_of_a_storm_ends_exactly_once(tmp_path: Path) -> None:
    count, chance = BUDGETS["run_storm"], chances(SEED)
    print(f"{count} runs, seed {SEED}", file=sys.stderr)
    ends: collections.Counter[str] = collections.Counter()
    descriptors = psutil.Process().num_fds()
    earlier = set(psutil.Process().children(recursive=True))  # what other tests share

    def listen(row: RunRow) -> None:
        ends[row.id] += row.state.ended

    async with (
        State(tmp_path / "state.db") as state,
        Supervisor(state=state, folder=tmp_path / "runs", max_runs=8, keep_runs=count) as supervisor,
    ):
        supervisor.subscribe(listen)
        async with asyncio.TaskGroup() as tasks:
            made = []
            for _ in range(count):
                made.append(tasks.create_task(run_one(supervisor, chances(chance.random()))))
                await asyncio.sleep(chance.random() * 0.02)
        rows = [task.result() for task in made]
        assert supervisor.live_runs() == []
        stored = {row.id: row for row in (await state.runs(limit=1000))[0]}
    assert len(rows) == count
    assert all(ends[row.id] == 1 for row in rows)
    assert all(stored.get(row.id, row) == row for row in rows)
    assert {row.state for row in rows} <= set(RunState) - {RunState.LOST, RunState.KERNEL_DIED}
    assert {row.state for row in rows} >= {RunState.SUCCEEDED, RunState.CANCELLED}
    assert not [row for row in rows if row.state is RunState.SUCCEEDED and row.exit_code != 0]
    assert list((tmp_path / "runs").glob("*/*/work")) == []
    children = set(psutil.Process().children(recursive=True)) - earlier
    assert [(child.name(), child.status()) for child in children] == []
    assert psutil.Process().num_fds() <= descriptors + 8
