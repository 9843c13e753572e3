"""Runs from their submission to their end, with real children."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jupyter_agent.errors import Failed, NotFound, Unavailable
from jupyter_agent.processes import Command, inherited_environment, run
from jupyter_agent.runs import Limits, OutputLog, Prepared, PrepareFn, Run, artifact_path
from jupyter_agent.state import RunRow, RunState, State
from tests.conftest import small_file_system
from tests.run_peers import DEADLINE_S, Agent, copied, eventually, gone, mode, printed, program, python, until

CHILDREN = Path(__file__).parent / "children"


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    async with Agent(tmp_path).running() as agent:
        yield agent


async def test_a_run_goes_through_its_states_to_one_end(agent: Agent) -> None:
    row = await agent.ended(program("import sys; print('out'); print('err', file=sys.stderr)"), package="p", who="ada")
    assert row.state is RunState.SUCCEEDED
    assert (row.exit_code, row.signal, row.error) == (0, None, None)
    assert (printed(row, "stdout"), printed(row, "stderr")) == ("out\n", "err\n")
    assert row.created <= (row.started or "") <= (row.ended or "")
    assert row.pid is not None
    assert row.cpu_s is not None
    assert row.peak_memory is not None
    assert agent.states(row.id)[0] == "queued"
    assert agent.states(row.id)[-2:] == ["running", "succeeded"]
    assert [told for told in agent.told if told.state.ended] == [row]
    assert await agent.state.get(row.id) == row
    assert mode(Path(row.folder)) == 0o700
    assert Path(row.folder) == agent.home / "runs" / row.created[:7] / row.id
    assert agent.supervisor.live_runs() == []


async def test_the_row_is_on_disk_before_the_run_starts(agent: Agent) -> None:
    seen: list[RunRow] = []

    async def prepare(run: Run) -> Prepared:
        seen.append(await agent.state.get(run.row.id))
        raise Failed("Enough seen.")

    submitted = await agent.submit(prepare)
    assert (await agent.state.get(submitted.row.id)).ended is None
    assert agent.supervisor.live(submitted.row.id) is submitted
    row = await submitted.wait()
    assert len(seen) == 1
    assert (row.state, row.error, row.started) == ("failed", "Enough seen.", None)


@pytest.mark.parametrize(
    ("code", "state", "error", "exit_"),
    [
        ("raise SystemExit(3)", "failed", "exit code 3", 3),
        ("{}['x']", "failed", "KeyError: 'x'", 1),
        ("import os; os.kill(os.getpid(), 9)", "killed", "SIGKILL", "SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "killed", "crashed (SIGSEGV)", "SIGSEGV"),
        ("import os; os.kill(os.getpid(), 15)", "killed", "SIGTERM", "SIGTERM"),
    ],
)
async def test_no_bad_end_is_success(agent: Agent, code: str, state: str, error: str, exit_: int | str) -> None:
    row = await agent.ended(program(code))
    assert row.state == state
    assert (row.exit_code, row.signal) == ((exit_, None) if isinstance(exit_, int) else (None, exit_))
    assert error in (row.error or "")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Failed("The requirements cannot be met."), "The requirements cannot be met."),
        (NotFound("There is no package x."), "There is no package x."),
        (OSError(28, "No space left on device", "/x"), "No space left on device"),
        (ExceptionGroup("x", [Failed("One of several.")]), "One of several."),
        (ZeroDivisionError("a fault of ours"), "a fault of ours"),
    ],
)
async def test_an_error_while_preparing_fails_the_run(agent: Agent, fault: Exception, words: str) -> None:
    async def prepare(run: Run) -> Prepared:
        (run.folder / "work").mkdir()
        raise fault

    row = await agent.ended(prepare)
    assert (row.state, row.started, row.exit_code) == ("failed", None, None)
    assert words in (row.error or "")
    assert "running" not in agent.states(row.id)
    assert not (Path(row.folder) / "work").exists()


async def test_a_program_that_cannot_be_started_fails_the_run(agent: Agent) -> None:
    async def prepare(run: Run) -> Prepared:
        return Prepared(Command(("no-such-program",), run.folder, {}))

    row = await agent.ended(prepare)
    assert (row.state, row.started) == ("failed", None)
    assert "no-such-program was not found" in (row.error or "")


async def test_preparation_can_report_and_speak(agent: Agent) -> None:
    async def prepare(run: Run) -> Prepared:
        await run.say("building")
        await run.report(1, 4, "resolving")
        await until(lambda: any(row.progress for row in agent.told))
        return await program("")(run)

    row = await agent.ended(prepare)
    assert printed(row, "agent") == "building\n"
    assert {"done": 1, "total": 4, "label": "resolving"} in [told.progress for told in agent.told]


REPORT = """
import json
def tell(event, **facts):
    with open('events.jsonl', 'a') as events:
        print(json.dumps({'event': event, **facts}), file=events)
for done in range(4):
    tell('progress', done=done, total=3, label=str(done))
tell('result', name='a', value=[1, None])
tell('artifact', path='made.txt')
open('made.txt', 'w').write('x')
tell('error', text='KeyError: 4 (cell 2)')
raise SystemExit(1)
"""


async def test_what_a_child_reports_is_in_the_row(agent: Agent) -> None:
    row = await agent.ended(program(REPORT))
    assert (row.state, row.error) == ("failed", "KeyError: 4 (cell 2)")
    assert row.progress == {"done": 3, "total": 3, "label": "3"}
    assert row.results == {"a": [1, None]}
    assert row.artifacts == [{"name": "made.txt", "size": 1, "mimetype": "text/plain"}]


async def test_a_kernel_that_died_is_told_apart(agent: Agent) -> None:
    report = "open('events.jsonl', 'w').write('{\"event\": \"kernel_died\"}\\n'); raise SystemExit(2)"
    assert (await agent.ended(program(report))).state == "kernel_died"


async def test_progress_is_told_while_it_goes_on_but_not_too_often(agent: Agent) -> None:
    report = (
        "import json, time\n"
        "with open('events.jsonl', 'a', buffering=1) as events:\n"
        "    for n in range(400):\n"
        "        print(json.dumps({'event': 'progress', 'done': n, 'total': 400, 'label': ''}), file=events)\n"
        "        print(n, flush=True)\n"
        "        time.sleep(0.002)\n"
    )
    row = await agent.ended(program(report))
    told = [row for row in agent.told if row.progress and row.state == "running"]
    assert 2 <= len(told) <= 50
    assert row.progress == {"done": 399, "total": 400, "label": ""}


async def test_new_and_changed_files_become_artifacts_and_the_copy_goes(agent: Agent) -> None:
    code = "import os; os.mkdir('out'); open('out/new.csv', 'w').write('1'); open('changed', 'w').write('after')"
    row = await agent.ended(copied(code, {"changed": "before", "same/file": "x"}))
    assert [artifact["name"] for artifact in row.artifacts] == ["changed", "out/new.csv"]
    assert artifact_path(Path(row.folder), "changed").read_text() == "after"
    assert not (Path(row.folder) / "work").exists()


async def test_a_folder_of_the_user_is_never_removed(agent: Agent, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious").write_text("x")

    async def prepare(run: Run) -> Prepared:
        return Prepared(python(mine, "open('new', 'w').close()"), workdir=mine)

    assert (await agent.ended(prepare)).state == "succeeded"
    assert (mine / "precious").exists()


@pytest.mark.parametrize("code", ["", "raise SystemExit(1)", "import os; os.kill(os.getpid(), 9)"])
async def test_a_rescue_is_made_when_the_file_is_missing(agent: Agent, code: str) -> None:
    async def prepare(run: Run) -> Prepared:
        rescue = (
            "import json; open('output.ipynb', 'w').write('saved');"
            "open('events.jsonl', 'a').write(json.dumps({'event': 'artifact', 'path': 'output.ipynb'}) + '\\n')"
        )
        return Prepared(
            python(run.folder, code),
            events=run.folder / "events.jsonl",
            rescue=python(run.folder, rescue),
            rescue_unless=run.folder / "output.ipynb",
        )

    row = await agent.ended(prepare)
    assert [artifact["name"] for artifact in row.artifacts] == ["output.ipynb"]
    assert row.state != "succeeded" or code == ""


async def test_a_rescue_is_not_made_when_it_is_not_needed_and_may_fail(agent: Agent) -> None:
    async def prepare(run: Run) -> Prepared:
        (run.folder / "there").touch()
        wrong = python(run.folder, "open('rescued', 'w')")
        return Prepared(python(run.folder, ""), rescue=wrong, rescue_unless=run.folder / "there")

    row = await agent.ended(prepare)
    assert not (Path(row.folder) / "rescued").exists()

    async def failing(run: Run) -> Prepared:
        wrong = python(run.folder, "raise SystemExit('it cannot be saved')")
        return Prepared(python(run.folder, ""), rescue=wrong, rescue_unless=run.folder / "there")

    row = await agent.ended(failing)
    assert row.state == "succeeded"
    assert "it cannot be saved" in printed(row, "agent")


async def test_the_wall_time_limit(agent: Agent) -> None:
    started = "print('go', flush=True); import time; time.sleep(600)"
    row = await agent.ended(program(started), Limits(wall_s=0.5, grace_s=0.2))
    assert (row.state, row.signal) == ("timed_out", "SIGTERM")
    assert "0.5 s" in (row.error or "")
    assert printed(row, "stdout") == "go\n"


async def test_the_memory_limit_counts_the_whole_tree(agent: Agent) -> None:
    hog = "b = bytearray(150 << 20); b[::4096] = b'x' * len(b[::4096]); import time; time.sleep(600)"
    tree = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hog!r}])"
    row = await agent.ended(program(tree), Limits(memory_bytes=100 << 20))
    assert row.state == "killed"
    assert "memory limit of 100 MiB" in (row.error or "")
    assert (row.peak_memory or 0) > 100 << 20


async def test_cancel_while_queued(agent: Agent) -> None:
    blockers = [await agent.submit(program("import time; time.sleep(600)")) for _ in range(4)]
    queued = await agent.submit(program("open('ran', 'w')"))
    await agent.supervisor.cancel(queued.row.id, who="ada")
    row = await queued.wait()
    assert (row.state, row.started) == ("cancelled", None)
    assert "ada" in (row.error or "")
    assert not (queued.folder / "ran").exists()
    for blocker in blockers:
        await agent.supervisor.cancel(blocker.row.id, who="ada")
        assert (await blocker.wait()).state == "cancelled"


async def test_cancel_while_preparing_ends_the_command(agent: Agent) -> None:
    async def prepare(live: Run) -> Prepared:
        command = Command(
            (sys.executable, str(CHILDREN / "detacher.py"), str(live.folder / "pids")),
            live.folder,
            inherited_environment(),
        )
        await run(command, tag=live.row.id, timeout_s=600)
        raise AssertionError("it was cancelled")

    submitted = await agent.submit(prepare)
    await until((submitted.folder / "pids").exists)
    await agent.supervisor.cancel(submitted.row.id, who="ada")
    row = await submitted.wait()
    assert (row.state, row.started) == ("cancelled", None)
    assert all(gone(pid) for pid in json.loads((submitted.folder / "pids").read_text()).values())


async def test_cancel_while_running_ends_the_whole_tree(agent: Agent) -> None:
    script = str(CHILDREN / "detacher.py")

    async def prepare(run: Run) -> Prepared:
        command = Command((sys.executable, script, str(run.folder / "pids")), run.folder, inherited_environment())
        return Prepared(command)

    submitted = await agent.submit(prepare)
    await until((submitted.folder / "pids").exists)
    await agent.supervisor.cancel(submitted.row.id, who="ada")
    await agent.supervisor.cancel(submitted.row.id, who="bob")
    row = await submitted.wait()
    assert row.state == "cancelled"
    assert "ada" in (row.error or "")  # the first one counts
    assert all(gone(pid) for pid in json.loads((submitted.folder / "pids").read_text()).values())


async def test_cancel_gives_its_grace_and_keeps_the_last_words(agent: Agent) -> None:
    async def prepare(run: Run) -> Prepared:
        graceful = (sys.executable, str(CHILDREN / "graceful.py"), "0.2")
        return Prepared(Command(graceful, run.folder, inherited_environment()))

    submitted = await agent.submit(prepare, Limits(grace_s=DEADLINE_S))
    await until(lambda: submitted.output.size)
    await agent.supervisor.cancel(submitted.row.id, who="ada")
    row = await submitted.wait()
    assert (row.state, row.exit_code) == ("cancelled", 0)  # that it ended well does not make it a success
    assert printed(row, "stdout") == "ready\nasked to stop\ntidied up\n"


async def test_cancel_of_an_ended_or_unknown_run(agent: Agent) -> None:
    row = await agent.ended(program(""))
    assert await agent.supervisor.cancel(row.id, who="ada") == row
    with pytest.raises(NotFound):
        await agent.supervisor.cancel("nowhere", who="ada")


async def test_slots_go_by_priority_then_first_come(tmp_path: Path) -> None:
    order: list[str] = []

    def noted(name: str) -> PrepareFn:
        async def prepare(run: Run) -> Prepared:
            order.append(name)
            assert len([one for one in made.supervisor.live_runs() if one.row.state != "queued"]) <= 1
            return await program("")(run)

        return prepare

    made = Agent(tmp_path, max_runs=1)
    async with made.running() as agent:
        blocker = await agent.submit(program("import time; time.sleep(600)"))
        await until(lambda: blocker.row.state == "running")
        waiting = [
            await agent.submit(noted(name), priority=priority)
            for name, priority in (("normal-1", 2), ("low", 3), ("normal-2", 2), ("urgent", 1), ("given up", 0))
        ]
        await agent.supervisor.cancel(waiting.pop().row.id, who="ada")
        await agent.supervisor.cancel(blocker.row.id, who="ada")
        for one in waiting:
            assert (await one.wait()).state == "succeeded"
    assert order == ["urgent", "normal-1", "normal-2", "low"]


async def test_a_grandchild_with_the_pipe_does_not_hold_a_run_up(agent: Agent) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    row = await agent.ended(program(code))
    assert row.state == "succeeded"
    assert gone(int(printed(row, "stdout")))


async def test_a_grandchild_without_the_pipe_does_not_outlive_the_run(agent: Agent) -> None:
    code = "import subprocess as s; print(s.Popen(['sleep', '600'], stdout=-3, stderr=-3, start_new_session=True).pid)"
    row = await agent.ended(program(code))
    assert row.state == "succeeded"
    assert gone(int(printed(row, "stdout")))


async def test_any_bytes_may_be_printed(agent: Agent) -> None:
    code = "import os; os.write(1, bytes(range(256)) * 1000 + b'\\xc3'); os.write(2, b'x' * 10**6)"
    row = await agent.ended(program(code))
    expected = (bytes(range(256)) * 1000 + b"\xc3").decode("utf-8", "replace")
    assert printed(row, "stdout") == expected
    assert printed(row, "stderr") == "x" * 10**6
    assert row.state == "succeeded"


async def test_a_flood_of_output_is_bounded_in_memory_and_on_disk(agent: Agent) -> None:
    code = "import os\nfor n in range(300): os.write(1, (b'y' * 999 + b'\\n') * 1000)\nos.write(1, b'the end')"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = await agent.ended(program(code), Limits(log_head_bytes=1 << 16, log_tail_bytes=1 << 20))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    output = OutputLog(Path(row.folder) / "output")
    assert output.size == 300 * 10**6 + 7
    assert output.tail(7) == "the end"
    assert sum(path.stat().st_size for path in (Path(row.folder) / "output").iterdir()) < 2 << 20
    assert grown < 60 << 20


async def test_the_log_is_complete_when_the_row_says_ended(agent: Agent) -> None:
    missing: list[str] = []

    def check(row: RunRow) -> None:
        if row.state.ended and printed(row, "stdout")[-6:] != "9999\n"[-6:].rjust(6, "\n"):
            missing.append(row.id)

    agent.supervisor.subscribe(check)
    for _ in range(5):
        await agent.ended(program("for n in range(10000): print(n)"))
    assert missing == []


async def test_a_run_whose_row_is_gone_harms_no_other(agent: Agent) -> None:
    async def prepare(run: Run) -> Prepared:
        await agent.state.delete([run.row.id])
        return await program("")(run)

    submitted = await agent.submit(prepare)
    with pytest.raises(Unavailable):
        await submitted.wait()
    async with asyncio.timeout(DEADLINE_S):
        assert [page async for page in submitted.output.follow()] == []
    assert agent.supervisor.live(submitted.row.id) is None
    assert (await agent.ended(program(""))).state == "succeeded"


async def test_a_listener_that_fails_does_no_harm_and_can_leave(agent: Agent) -> None:
    told: list[RunRow] = []

    def failing(row: RunRow) -> None:
        raise RuntimeError("a listener's own fault")

    agent.supervisor.subscribe(failing)
    leave = agent.supervisor.subscribe(told.append)
    assert (await agent.ended(program(""))).state == "succeeded"
    assert told
    leave()
    leave()
    told.clear()
    await agent.ended(program(""))
    assert told == []


async def test_only_so_many_ended_runs_are_kept(tmp_path: Path) -> None:
    async with Agent(tmp_path, keep_runs=3).running() as agent:
        live = await agent.submit(program("import time; time.sleep(600)"))
        owing = await agent.ended(program(""), reply={"queue": "q", "correlation_id": "c"})
        rows = [await agent.ended(program("")) for _ in range(6)]
        kept = {owing.id, *(row.id for row in rows[-3:])}
        expected = kept | {live.row.id}

        async def tidy() -> bool:
            return {row.id for row in (await agent.state.runs())[0]} == expected

        await eventually(tidy)
        await until(lambda: {path.name for path in (tmp_path / "runs").glob("*/*")} == expected)
        assert live.row.state == "running"
        await agent.supervisor.cancel(live.row.id, who="ada")
        await live.wait()


async def test_stopping_the_agent_stops_its_runs_with_grace(tmp_path: Path) -> None:
    async def graceful(run: Run) -> Prepared:
        words = (sys.executable, str(CHILDREN / "graceful.py"), "0.1")
        return Prepared(Command(words, run.folder, inherited_environment()))

    async def slow(run: Run) -> Prepared:
        await asyncio.sleep(600)
        raise AssertionError("it was stopped")

    async with Agent(tmp_path, max_runs=2).running() as agent:
        running = await agent.submit(graceful, Limits(grace_s=DEADLINE_S))
        preparing = await agent.submit(slow)
        queued = await agent.submit(program(""))
        await until(lambda: running.output.size)
    async with State(tmp_path / "state.db") as state:
        rows = [await state.get(run.row.id) for run in (running, preparing, queued)]
        assert [row.state for row in rows] == [RunState.LOST] * 3
        assert all("agent was stopped" in (row.error or "") for row in rows)
        assert await state.unfinished() == []
    assert printed(rows[0], "stdout") == "ready\nasked to stop\ntidied up\n"


async def test_a_supervisor_that_has_ended_takes_nothing(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    async with agent.state:
        async with agent.supervisor:
            pass
        with pytest.raises(Unavailable, match="ending"):
            await agent.submit(program(""))
        assert await agent.state.unfinished() == []


async def test_an_error_in_the_agent_still_gives_runs_their_end(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - it is raised inside
        async with Agent(tmp_path).running() as agent:
            live = await agent.submit(program("import time; time.sleep(600)"))
            await until(lambda: live.row.state == "running")
            raise ZeroDivisionError
    assert live.row.state is RunState.LOST
    assert gone(live.row.pid or 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    with small_file_system(tmp_path / "small", "size=4m") as folder:
        yield folder


FILL = """
import time
with open('filler', 'wb', buffering=0) as file:
    try:
        while file.write(b'x' * 4096): pass
    except OSError as error:
        print('full:', error.errno, flush=True)
for n in range(20):
    print('y' * 5000, flush=True)
    time.sleep(0.02)
raise SystemExit(CODE)
"""


@pytest.mark.parametrize("code", [0, 1])
async def test_a_full_disk_in_a_run_is_told_in_one_sentence(small_disk: Path, code: int) -> None:
    async def prepare(run: Run) -> Prepared:
        work = run.folder / "work"
        work.mkdir()
        return Prepared(python(work, FILL.replace("CODE", str(code))), workdir=work)

    async with Agent(small_disk).running() as agent:
        submitted = await agent.submit(prepare)
        row = await submitted.wait()
        assert row.state == ("succeeded" if code == 0 else "failed")
        assert "could not be kept (No space left on device)" in (row.error or "")
        assert "\n" not in (row.error or "")
        assert not (Path(row.folder) / "work").exists()
        (submitted.folder / "artifacts" / "filler").unlink()
        assert (await agent.ended(program("print('the agent goes on')"))).state == "succeeded"


async def test_submitting_to_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    async with Agent(small_disk).running() as agent:
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        with pytest.raises(Unavailable):  # noqa: PT012 - the database's log still has some room
            while True:
                await agent.submit(program("import time; time.sleep(600)"), parameters={"x": "y" * 100_000})
        (small_disk / "filler").unlink()
        on_disk = {path.name for path in (small_disk / "runs").glob("*/*")}
        assert on_disk == {run.row.id for run in agent.supervisor.live_runs()}
