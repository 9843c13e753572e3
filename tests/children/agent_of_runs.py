"""A stand-in for an agent: a supervisor on argv[1] with three runs, which waits to be killed.

One run goes on (a tree whose members try to get away), one is being prepared, one is queued. When they are, the file
``ready`` is made.
"""

import asyncio
import sys
from pathlib import Path

from jupyter_agent.processes import Command, inherited_environment, run
from jupyter_agent.runs import Limits, Prepared, Run, Supervisor
from jupyter_agent.state import RunRow, RunState, State, new_run_id

HERE = Path(__file__).parent
PREPARING = "import pathlib, time; pathlib.Path('preparing').touch(); time.sleep(600)"


async def going_on(run: Run) -> Prepared:
    work = run.folder / "work"
    work.mkdir()
    (work / "input.csv").write_text("from before")
    script = str(HERE / "reporter.py")
    command = Command((sys.executable, script, str(run.folder)), work, inherited_environment())
    return Prepared(command, events=run.folder / "events.jsonl", workdir=work)


async def being_prepared(live: Run) -> Prepared:
    command = Command((sys.executable, "-c", PREPARING), live.folder, inherited_environment())
    await run(command, tag=live.row.id, timeout_s=600)
    raise AssertionError("it was to be killed")


async def all_are_there(state: State, going: Run, preparing: Run) -> bool:
    row = await state.get(going.row.id)
    return (
        row.state is RunState.RUNNING and (going.folder / "pids").exists() and (preparing.folder / "preparing").exists()
    )


async def main(home: Path) -> None:
    async with (
        State(home / "state.db") as state,
        Supervisor(state=state, folder=home / "runs", max_runs=2, keep_runs=10) as supervisor,
    ):
        runs = []
        for name, prepare in (("going", going_on), ("preparing", being_prepared), ("queued", going_on)):
            row = RunRow(id=new_run_id(), package=name, reply={"queue": "q", "correlation_id": name})
            runs.append(await supervisor.submit(row, prepare, limits=Limits()))
        going, preparing, _ = runs
        while not await all_are_there(state, going, preparing):  # noqa: ASYNC110 - other processes bring it about
            await asyncio.sleep(0.01)
        (home / "ready").touch()
        await asyncio.sleep(600)


asyncio.run(main(Path(sys.argv[1])))
