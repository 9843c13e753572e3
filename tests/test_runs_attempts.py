"""Further attempts of a run that failed, preparations, keys: over restarts of the agent, too."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jupyter_agent.errors import Conflict, Failed, InvalidInput, Unavailable
from jupyter_agent.runs import Limits, OutputLog, Prepared, PrepareFn, Run, Verdict
from jupyter_agent.runs.attempts import LONGEST_DELAY_S, after_its_agent, again, delay_s, left_s
from jupyter_agent.state import Claim, RunRow, RunState, State, new_run_id
from tests.run_peers import DEADLINE_S, QUICK, Agent, gone, printed, program, until

CHILDREN = Path(__file__).parent / "children"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
FLAKY = """
import pathlib, sys
counter = pathlib.Path(sys.argv[1])
attempt = len(counter.read_text()) if counter.exists() else 0
counter.write_text("x" * (attempt + 1))
print("attempt", attempt + 1, sorted(path.name for path in pathlib.Path().iterdir()))
pathlib.Path("left").write_text("x")
with open("events.jsonl", "a") as events:
    print('{"event": "result", "name": "attempt%d", "value": 1}' % (attempt + 1), file=events)
raise SystemExit(0 if attempt + 1 >= int(sys.argv[2]) else 3)
"""


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    async with Agent(tmp_path).running() as agent:
        yield agent


def row(**changes: object) -> RunRow:
    return dataclasses.replace(RunRow(id="r", retries=3, retry_delay_s=10.0), **changes)  # type: ignore[arg-type]


def test_delays_grow_up_to_a_bound_and_come_by_chance() -> None:
    assert [delay_s(row(attempt=attempt), 0) for attempt in (1, 2, 3)] == [10, 20, 40]
    assert delay_s(row(attempt=1), 1) == 11
    assert delay_s(row(attempt=99), 0) == LONGEST_DELAY_S
    assert delay_s(row(attempt=99, retry_delay_s=86_400.0), 0) == 86_400
    assert delay_s(row(attempt=2, retry_delay_s=0.0), 1) == 0


@pytest.mark.parametrize(
    ("state", "tried"),
    [(state, state not in ("succeeded", "cancelled")) for state in RunState if state.ended],
)
def test_what_fails_is_tried_again_what_was_cancelled_is_not(state: RunState, *, tried: bool) -> None:
    found = again(row(), Verdict(state, "It broke."), moment=MOMENT, chance=0)
    assert (found is not None) is tried
    if found is not None:
        assert (found["attempt"], found["state"]) == (2, "queued")
        assert found["next_attempt"] == "2026-01-01T00:00:10.000+00:00"
        assert found["error"] == "Attempt 1 of 4 failed: It broke."


def test_there_is_an_end_to_trying() -> None:
    failed = Verdict(RunState.FAILED, "It broke.")
    assert again(row(attempt=3), failed, moment=MOMENT, chance=0) is not None
    assert again(row(attempt=4), failed, moment=MOMENT, chance=0) is None
    assert again(row(retries=0), failed, moment=MOMENT, chance=0) is None
    assert again(row(), Verdict(RunState.FAILED, "No such file.", hopeless=True), moment=MOMENT, chance=0) is None


def test_an_attempt_that_was_not_begun_is_none() -> None:
    for state in (RunState.QUEUED, RunState.PREPARING):
        assert after_its_agent(row(state=state, attempt=4), "x", moment=MOMENT, chance=0) == {"state": "queued"}
        assert after_its_agent(row(state=state, retries=0), "x", moment=MOMENT, chance=0) is None
    begun = after_its_agent(row(state=RunState.RUNNING), "It was lost.", moment=MOMENT, chance=0)
    assert begun is not None
    assert begun["attempt"] == 2
    assert after_its_agent(row(state=RunState.RUNNING, attempt=4), "x", moment=MOMENT, chance=0) is None


def test_a_clock_that_was_set_back_does_not_make_a_run_wait_for_ever() -> None:
    at = (MOMENT + timedelta(days=400)).isoformat()
    assert left_s(row(next_attempt=at), moment=MOMENT) <= LONGEST_DELAY_S * 1.1
    assert left_s(row(next_attempt=at), moment=MOMENT + timedelta(days=500)) == 0
    assert left_s(row(), moment=MOMENT) == 0


async def test_a_run_is_tried_again_until_it_succeeds(agent: Agent, tmp_path: Path) -> None:
    counter = str(tmp_path / "counter")
    found = await agent.ended(program(FLAKY, counter, "3"), retries=5, retry_delay_s=0.1, reply={"queue": "q"})
    assert (found.state, found.attempt, found.error, found.exit_code) == ("succeeded", 3, None, 0)
    assert found.next_attempt is None
    assert found.results == {"attempt3": 1}  # of the last attempt alone
    said = printed(found, "stdout").splitlines()
    assert [line.split()[1] for line in said] == ["1", "2", "3"]
    assert all("left" not in line for line in said)  # each begins afresh
    assert "Attempt 1 of 6 failed: It ended with exit code 3.\n" in printed(found, "agent")
    assert len([told for told in agent.told if told.ended]) == 1
    assert found.reply == {"queue": "q"}
    waiting = next(told for told in agent.told if told.next_attempt)
    assert (waiting.state, waiting.attempt) == ("queued", 2)


async def test_a_run_whose_attempts_are_used_up_ends_as_the_last_one(agent: Agent, tmp_path: Path) -> None:
    found = await agent.ended(program(FLAKY, str(tmp_path / "counter"), "9"), retries=2, retry_delay_s=0.0)
    assert (found.state, found.attempt, found.exit_code) == ("failed", 3, 3)
    assert (tmp_path / "counter").read_text() == "xxx"


async def test_a_preparation_that_fails_is_tried_again_but_not_what_can_never_be(agent: Agent) -> None:
    tried: list[int] = []

    def failing(error: Exception) -> PrepareFn:
        async def prepare(run: Run) -> Prepared:
            tried.append(run.row.attempt)
            raise error

        return prepare

    found = await agent.ended(failing(Failed("The network is away.")), retries=1, retry_delay_s=0.0)
    assert (found.state, tried) == ("failed", [1, 2])
    found = await agent.ended(failing(InvalidInput("It is no notebook.")), retries=5, retry_delay_s=0.0)
    assert (found.state, found.attempt, found.error) == ("failed", 1, "It is no notebook.")


async def test_cancel_ends_the_waiting_for_the_next_attempt(agent: Agent) -> None:
    run = await agent.submit(program("raise SystemExit(1)"), retries=3, retry_delay_s=600.0)
    await until(lambda: run.row.next_attempt)
    await agent.supervisor.cancel(run.row.id, who="ada")
    found = await run.wait()
    assert (found.state, found.attempt, found.next_attempt) == ("cancelled", 2, None)
    assert found.error == "The run was cancelled by ada."


async def test_cancel_ends_an_attempt_and_those_that_would_follow(agent: Agent) -> None:
    run = await agent.submit(program("import time; time.sleep(600)"), retries=3, retry_delay_s=0.0)
    await until(lambda: run.row.state == "running")
    await agent.supervisor.cancel(run.row.id, who="ada")
    found = await run.wait()
    assert (found.state, found.attempt) == ("cancelled", 1)


async def test_cancel_at_any_moment_ends_all_attempts(agent: Agent, tmp_path: Path) -> None:
    for number in range(8):
        runs = [await agent.submit(program("raise SystemExit(1)"), retries=100, retry_delay_s=0.0) for _ in range(2)]
        await until(lambda: all(run.row.attempt > 1 for run in runs))  # noqa: B023 - awaited at once
        await asyncio.sleep(number * 0.013)
        for run in runs:
            await agent.supervisor.cancel(run.row.id, who="ada")
        async with asyncio.timeout(DEADLINE_S):
            assert {(await run.wait()).state for run in runs} == {RunState.CANCELLED}


async def test_a_waiting_run_takes_no_place(tmp_path: Path) -> None:
    async with Agent(tmp_path, max_runs=1).running() as agent:
        waiting = await agent.submit(program("raise SystemExit(1)"), retries=1, retry_delay_s=600.0)
        await until(lambda: waiting.row.next_attempt)
        assert (await agent.ended(program(""))).state == "succeeded"
        await agent.supervisor.cancel(waiting.row.id, who="ada")
        await waiting.wait()


async def test_attempts_go_on_after_a_restart_of_the_agent(tmp_path: Path) -> None:
    counter = str(tmp_path / "counter")
    prepare = program(FLAKY, counter, "3")

    async def resume(found: RunRow) -> tuple[PrepareFn, Limits]:
        return prepare if found.package == "flaky" else program(""), QUICK

    async with Agent(tmp_path, resume=resume).running() as first:
        waiting = await first.submit(prepare, retries=5, retry_delay_s=1.0, reply={"queue": "q"}, package="flaky")
        last = await first.submit(program("import time; time.sleep(600)"), retries=0)
        running = await first.submit(program("import time; time.sleep(600)"), retries=1, retry_delay_s=0.0)
        await until(lambda: waiting.row.next_attempt and running.row.state == last.row.state == "running")
    with pytest.raises(Unavailable):
        await waiting.wait()
    assert gone(running.row.pid or 0)
    async with Agent(tmp_path, resume=resume).running() as second:
        taken = {run.row.id: run for run in second.supervisor.live_runs()}
        assert set(taken) == {waiting.row.id, running.row.id}
        found = await taken[waiting.row.id].wait()
        assert (found.state, found.attempt, found.reply) == ("succeeded", 3, {"queue": "q"})
        lines = printed(found, "stdout").splitlines()
        assert [line.split()[1] for line in lines] == ["1", "2", "3"]  # one log over both agents
        assert (await taken[running.row.id].wait()).attempt == 2
        assert (await second.state.get(last.row.id)).state == "lost"


async def test_a_killed_agents_run_with_attempts_left_goes_on(tmp_path: Path) -> None:
    agent = await asyncio.create_subprocess_exec(sys.executable, str(CHILDREN / "agent_of_runs.py"), str(tmp_path))
    try:
        await until((tmp_path / "ready").exists)
    finally:
        agent.kill()
        await agent.wait()
    async with State(tmp_path / "state.db") as state:
        rows = {found.package: found for found in (await state.runs())[0]}
        for found in rows.values():
            await state.update(found.id, retries=1, retry_delay_s=0.0)

    async def resume(found: RunRow) -> tuple[PrepareFn, Limits]:
        if found.package == "queued":
            raise Conflict("Nobody knows it any more.")
        return program("print('again')"), QUICK

    async with Agent(tmp_path, resume=resume).running() as second:
        ended = {run.row.package: await run.wait() for run in second.supervisor.live_runs()}
        assert {name: (found.state, found.attempt) for name, found in ended.items()} == {
            "going": ("succeeded", 2),
            "preparing": ("succeeded", 1),
        }
        assert printed(ended["going"], "stdout") == "reported\nagain\n"
        assert (await second.state.get(rows["queued"].id)).state == "lost"


async def test_a_log_that_is_taken_up_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = ""
    for round_ in range(6):
        log = OutputLog(tmp_path / "log", live=True, head_bytes=2000, tail_bytes=8000)
        await asyncio.to_thread(log.take_up)
        for number in range(40):
            text = f"{round_} {number} {'x' * 50}\n"
            log.append("stdout", text, 0.0)
            whole += text
            await log.flush()
        assert log.size == len(whole)
        await log.close()
        with max((tmp_path / "log").iterdir()).open("ab") as file:
            file.write(b'{"at": 17, "str')  # as a crash leaves it
    ended = OutputLog(tmp_path / "log")
    assert ended.tail(3000) == whole[-3000:]
    page = ended.read(0, 1 << 30)
    assert page.chunks[0]["text"] == whole[: len(page.chunks[0]["text"])]
    assert any("gap" in chunk for chunk in page.chunks)
    assert sum(path.stat().st_size for path in (tmp_path / "log").iterdir()) < 14_000


async def test_a_preparation_ends_when_all_is_ready(agent: Agent) -> None:
    async def prepare(run: Run) -> Prepared:
        run.note("made ready")
        (run.folder / "work").mkdir()
        return Prepared(None, workdir=run.folder / "work", environment="hash")

    found = await agent.ended(prepare, kind="prepare")
    assert (found.state, found.started, found.exit_code, found.environment) == ("succeeded", None, None, "hash")
    assert printed(found, "agent") == "made ready\n"
    assert not (Path(found.folder) / "work").exists()
    assert (await agent.ended(program("raise SystemExit(1)"), kind="prepare")).state == "succeeded"  # nothing started
    assert (await agent.ended(prepare)).error == "There is nothing to be started."


async def test_a_key_starts_one_run_whoever_is_first(tmp_path: Path) -> None:
    claim = Claim("local ada", "order-7", "print")
    counter = tmp_path / "counter"
    code = f"open({str(counter)!r}, 'a').write('x')"

    async def submit(agent: Agent) -> Run:
        made = RunRow(id=new_run_id(), key="order-7")
        return await agent.supervisor.submit(made, program(code), limits=QUICK, claim=claim)

    async with Agent(tmp_path).running() as agent:
        runs = await asyncio.gather(*(submit(agent) for _ in range(10)))
        assert len({run.row.id for run in runs}) == 1
        assert {(await run.wait()).state for run in runs} == {RunState.SUCCEEDED}
        again_ = await submit(agent)  # it is over: its row and output are given back
        assert again_.row.ended
        assert (await again_.wait()).id == runs[0].row.id
        assert [path.name for path in (tmp_path / "runs").glob("*/*")] == [runs[0].row.id]
        with pytest.raises(Conflict, match="another request"):
            await agent.supervisor.claimed(dataclasses.replace(claim, fingerprint="other"))
    async with Agent(tmp_path).running() as agent:
        found = await agent.supervisor.claimed(claim)
        assert found is not None
        assert (await found.wait()).id == runs[0].row.id
        assert (await submit(agent)).row.id == runs[0].row.id
    assert counter.read_text() == "x"


async def test_runs_are_kept_by_age_and_size_too(tmp_path: Path) -> None:
    big = "open('data', 'wb').write(b'x' * 300_000)"
    async with Agent(tmp_path, keep_bytes=1_000_000).running() as agent:
        rows = [await agent.ended(program(big)) for _ in range(6)]
        await until(lambda: {path.name for path in (tmp_path / "runs").glob("*/*")} == {row.id for row in rows[-3:]})
    async with State(tmp_path / "state.db") as state:
        await state.update(rows[-2].id, ended="2020-01-01T00:00:00.000+00:00")
    async with Agent(tmp_path, keep_days=30).running() as agent:
        kept = {rows[-3].id, rows[-1].id}
        await until(lambda: {path.name for path in (tmp_path / "runs").glob("*/*")} == kept)
