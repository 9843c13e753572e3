"""Programs that behave badly in every way there is: each run ends once, says what happened, and leaves nothing."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from jupyter_agent.home import AgentClient, Home
from jupyter_agent.processes import Command, inherited_environment, marks
from jupyter_agent.runs import Limits, OutputLog, Prepared, PrepareFn, Run
from jupyter_agent.runs.retention import size_of
from tests.conftest import end_all, ended, make_package, start_agent
from tests.conftest import printed as said
from tests.run_peers import DEADLINE_S, Agent, copied, gone, printed, program, until

CHILDREN = Path(__file__).parent / "children"
MIB = 1 << 20


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    async with Agent(tmp_path).running() as agent:
        yield agent


def shell(words: str, *, copy: bool = True) -> PrepareFn:
    """Runs a shell's words in a private copy."""

    async def prepare(run: Run) -> Prepared:
        work = run.folder / "work"
        work.mkdir()
        command = Command(("bash", "-c", words), work, inherited_environment())
        return Prepared(command, workdir=work if copy else None)

    return prepare


def left_of(run_id: str) -> list[int]:
    """Living processes with the mark of a run, whatever else they have lost."""
    found = [pid for pid in psutil.pids() if marks.read(pid) == marks.mark_of(run_id)]
    return [pid for pid in found if not gone(pid)]


async def test_a_program_that_ignores_sigterm_is_ended_after_its_grace(agent: Agent) -> None:
    async def prepare(run: Run) -> Prepared:
        words = (sys.executable, str(CHILDREN / "stubborn.py"))
        return Prepared(Command(words, run.folder, inherited_environment()))

    run = await agent.submit(prepare, Limits(grace_s=0.3))
    await until(lambda: run.output.size)
    await agent.supervisor.cancel(run.row.id, who="ada")
    row = await run.wait()
    assert (row.state, row.signal, row.error) == ("cancelled", "SIGKILL", "The run was cancelled by ada.")
    assert gone(row.pid or 0)


async def test_a_program_that_died_by_a_signal_is_not_waited_for(agent: Agent) -> None:
    run = await agent.submit(shell("echo go; kill -SEGV $$"), Limits(grace_s=600))
    async with asyncio.timeout(DEADLINE_S):
        row = await run.wait()
        await agent.supervisor.cancel(row.id, who="ada")
    assert (row.state, row.signal) == ("killed", "SIGSEGV")


GRANDCHILDREN = (
    "setsid sleep 600 >/dev/null 2>&1 & "
    "env -i setsid sh -c 'env -i setsid sleep 600 & sleep 600' >/dev/null 2>&1 & "
    "(setsid nohup sh -c 'sleep 600 & exec sleep 600' </dev/null >/dev/null 2>&1 &) ; "
    "sleep 0.2; echo ready; "
)


@pytest.mark.parametrize("how", ["ends", "is cancelled", "dies"])
async def test_grandchildren_that_leave_group_session_and_environment_are_ended(agent: Agent, how: str) -> None:
    last = {"ends": "exit 0", "is cancelled": "sleep 600", "dies": "kill -9 $$"}[how]
    run = await agent.submit(shell(GRANDCHILDREN + last))
    await until(lambda: run.output.size)
    if how == "is cancelled":
        assert len(left_of(run.row.id)) >= 6
        await agent.supervisor.cancel(run.row.id, who="ada")
    row = await run.wait()
    assert row.state == {"ends": "succeeded", "is cancelled": "cancelled", "dies": "killed"}[how]
    assert left_of(row.id) == []


async def test_a_program_that_closes_its_output_runs_on_to_its_end(agent: Agent) -> None:
    row = await agent.ended(shell("echo before; exec >&- 2>&-; sleep 0.5; touch made; exit 7"))
    assert (row.state, row.exit_code) == ("failed", 7)
    assert printed(row, "stdout") == "before\n"
    assert [artifact["name"] for artifact in row.artifacts] == ["made"]


async def test_a_gigabyte_of_output_is_bounded_and_its_end_is_kept(agent: Agent) -> None:
    code = "block = (b'y' * 999 + b'\\n') * 1000\nfor n in range(1000): write(block)\nwrite(b'end')"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = await agent.submit(program(PARTS + code))
    async with asyncio.timeout(DEADLINE_S * 4):
        row = await run.wait()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    output = OutputLog(Path(row.folder) / "output")
    assert row.state == "succeeded"
    assert output.size == 10**9 + 3
    assert output.tail(3) == "end"
    assert sum(path.stat().st_size for path in (Path(row.folder) / "output").iterdir()) < 6 * MIB
    assert output.read(0).chunks[0]["text"].startswith("yyy")  # the head is kept, too
    assert grown < 60 * MIB


PARTS = """
import os
def write(data):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
"""


async def test_invalid_utf8_and_half_lines_are_seen_as_they_come(agent: Agent, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    words = (
        "printf 'half a line'; "
        f"while [ ! -e {gate} ]; do sleep 0.02; done; "
        "printf ' and its end\\n\\xc3'; sleep 0.2; printf '\\xa9 whole \\xff\\xfe \\xc3'"
    )
    run = await agent.submit(shell(words))
    await until(lambda: run.output.size == len("half a line"))
    assert run.output.tail(100) == "half a line"
    gate.touch()
    row = await run.wait()
    assert printed(row, "stdout") == "half a line and its end\né whole \ufffd\ufffd \ufffd"


async def test_a_program_that_eats_memory_is_ended(agent: Agent) -> None:
    code = "b = []\nwhile True: b.append(bytearray(b'x' * (4 << 20)))"
    row = await agent.ended(program(code), Limits(memory_bytes=150 * MIB))
    assert row.state == "killed"
    assert row.error == "The run was killed: it used more than its memory limit of 150 MiB."


async def test_a_program_that_forks_without_end_is_ended(agent: Agent) -> None:
    code = "import os, time\nfor n in range(400):\n    if os.fork() == 0: time.sleep(600)\n    time.sleep(0.005)"
    row = await agent.ended(program(code), Limits(processes=30))
    assert (row.state, row.error) == ("killed", "The run was killed: it had more than its limit of 30 processes.")
    assert left_of(row.id) == []


async def test_a_program_that_fills_its_folder_is_ended(agent: Agent) -> None:
    code = (
        "import os, time\nos.mkdir('deep')\nwhile True:\n    open('deep/data', 'ab').write(b'x' * (1 << 20))\n"
        "    time.sleep(0.01)"
    )
    row = await agent.ended(copied(code, {"own": "x" * 5_000_000}), Limits(files_bytes=8 * MIB))
    said = "1 files were not kept: they are larger than the run's files may be."
    assert row.error == f"The run was killed: it wrote more than its limit of 8 MiB of files. {said}"
    assert (row.state, row.artifacts) == ("killed", [])
    assert size_of(Path(row.folder)) < MIB


async def test_too_many_files_of_a_short_program_are_told_too(agent: Agent) -> None:
    row = await agent.ended(copied("open('data', 'wb').write(b'x' * (9 << 20))"), Limits(files_bytes=8 * MIB))
    assert row.state == "killed"
    assert "limit of 8 MiB of files" in (row.error or "")
    assert row.artifacts == []
    well = await agent.ended(copied("open('data', 'wb').write(b'x' * (7 << 20))"), Limits(files_bytes=8 * MIB))
    assert (well.state, [found["size"] for found in well.artifacts]) == ("succeeded", [7 * MIB])


async def test_output_over_its_budget_is_said_or_ends_the_run(agent: Agent) -> None:
    code = PARTS + "for n in range(300): write(b'x' * 9_999 + b'\\n')"
    row = await agent.ended(program(code), Limits(output_bytes=MIB))
    assert row.state == "succeeded"
    assert printed(row, "agent") == "The run has printed more than its budget of 1 MiB; it goes on.\n"
    assert len(printed(row, "stdout")) == 3_000_000
    row = await agent.ended(
        program(code + "\nimport time; time.sleep(600)"), Limits(output_bytes=MIB, output_stops=True)
    )
    assert (row.state, row.error) == ("killed", "The run was stopped: it printed more than its limit of 1 MiB.")


@pytest.mark.parametrize("what", ["$PWD", "$PWD/.."])
async def test_a_program_that_deletes_its_folder_ends_as_it_ends(agent: Agent, what: str) -> None:
    row = await agent.ended(shell(f"echo before; sleep 0.3; rm -rf {what}; echo after; exit 3"))
    assert (row.state, row.exit_code, row.artifacts) == ("failed", 3, [])
    assert "after\n" in printed(row, "stdout")
    assert (await agent.ended(shell("echo well"))).state == "succeeded"


@pytest.mark.parametrize("place", [".", ".."])
async def test_a_link_where_a_runs_folder_was_leads_to_nothing_that_is_touched(
    agent: Agent, tmp_path: Path, place: str
) -> None:
    """Neither taken for the run's files, nor removed with them, nor made private; also by the next attempt."""
    elsewhere = tmp_path / "elsewhere"
    kept = [elsewhere / "treasure", elsewhere / "work" / "treasure", elsewhere / "work" / "in" / "treasure"]
    kept[-1].parent.mkdir(parents=True)
    for file in kept:
        file.write_text("mine")
        file.parent.chmod(0o755)
    words = f'link=$(realpath -m "$PWD/{place}"); cd /; rm -rf "$link"; ln -s {elsewhere} "$link"; exit 3'
    run = await agent.submit(shell(words), retries=1, retry_delay_s=0.0)
    async with asyncio.timeout(DEADLINE_S):
        row = await run.wait()
    assert (row.state, row.attempt, row.artifacts) == ("failed", 2, [])
    assert [file.read_text() for file in kept] == ["mine"] * 3
    assert {file.parent.stat().st_mode & 0o777 for file in kept} == {0o755}


HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
HOLDING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


async def test_no_signal_is_success(agent: Agent) -> None:
    """Each that ends a process, the real-time ones too; those that hold one up leave it to be cancelled."""
    killing = [number for number in signal.valid_signals() if number not in HARMLESS | HOLDING]
    code = (
        "import os, resource, signal, sys, time\nnumber = int(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "if number != 9: signal.signal(number, signal.SIG_DFL)\nos.kill(os.getpid(), number); time.sleep(600)"
    )
    runs = {number: await agent.submit(program(code, str(int(number)))) for number in killing}
    held = await agent.submit(shell("echo go; kill -STOP $$; exit 0"), Limits(grace_s=0.3))
    for number, run in runs.items():
        row = await run.wait()
        assert row.state == "killed", (number, row)
        expected = signal.Signals(number).name if number in list(signal.Signals) else f"SIG{int(number)}"
        assert (row.signal, row.exit_code) == (expected, None)
        assert row.error
    await until(lambda: held.output.size)
    await agent.supervisor.cancel(held.row.id, who="ada")
    assert (await held.wait()).state == "cancelled"


async def test_programs_that_cannot_be_started_fail_with_a_reason(agent: Agent) -> None:
    def named(text: bytes, mode: int) -> PrepareFn:
        async def prepare(run: Run) -> Prepared:
            (run.folder / "main").write_bytes(text)
            (run.folder / "main").chmod(mode)
            return Prepared(Command((str(run.folder / "main"),), run.folder, inherited_environment()))

        return prepare

    for text, mode, reason in (
        (b"#!/no/such/interpreter\necho x\n", 0o700, "the interpreter named in its first line does not exist"),
        (b"#!/usr/bin/env no-such-interpreter\n", 0o700, "No such file or directory"),
        (b"#!/bin/sh\r\necho x\n", 0o700, "the interpreter named in its first line does not exist"),
        (b"echo x\n", 0o600, "it is not executable"),
        (b"\x7fELF\x02\x01\x01 and no more", 0o700, "it is no program for this system"),
        (b"", 0o700, "it is no program for this system"),
    ):
        row = await agent.ended(named(text, mode))
        assert row.state == "failed", text
        assert reason in (row.error or ""), (text, row.error)
        assert row.exit_code != 0


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[AgentClient, Home]]:
    """An agent for the tests that need a whole one."""
    with tempfile.TemporaryDirectory(prefix="ja-") as folder, pytest.MonkeyPatch.context() as patch:
        for name in ("apiurl", "grpcapiurl", "wsapiurl", "jwt", "agentid"):
            patch.delenv(name, raising=False)
        patch.setenv("SECRET_OF_THE_AGENT", "hidden")
        patch.setenv("NPM_TOKEN", "hidden")
        home = Home(Path(folder) / "home")
        patch.setenv("JUPYTER_AGENT_HOME", str(home.path))
        try:
            yield start_agent(home), home
        finally:
            end_all(home)


def published(client: AgentClient, folder: Path, code: str, **files: str) -> str:
    """The name of a package that runs this Python."""
    make_package(folder, {"main.py": code, **files}, openiap={"language": "python"})
    client.request("POST", "packages", {"path": str(folder)})
    return folder.name


def test_a_package_that_changes_its_own_files_changes_no_other_run(
    running: tuple[AgentClient, Home], tmp_path: Path
) -> None:
    client, _ = running
    code = (
        "import os, pathlib\nprint(sorted(os.listdir()), pathlib.Path('data').read_text())\n"
        "for path in pathlib.Path().iterdir():\n    path.chmod(0o600); path.write_text('changed')\n"
        "pathlib.Path('left').write_text('x')\n"
    )
    name = published(client, tmp_path / "changer", code, data="original")
    runs = [client.request("POST", f"packages/{name}/runs", {}) for _ in range(3)]
    for run in runs:
        row = ended(client, run["id"])
        assert row["state"] == "succeeded", row["error"]
        assert said(client, row["id"]) == "['data', 'main.py', 'package.json'] original\n"
        assert {"data", "left", "main.py"} <= {artifact["name"] for artifact in row["artifacts"]}


def test_the_payload_is_the_runs_own_and_the_package_may_rewrite_it(
    running: tuple[AgentClient, Home], tmp_path: Path
) -> None:
    """Each run has its own input and output, also at once; what it writes is found where it wrote it."""
    client, home = running
    code = (
        "import json, os, pathlib, time\npath = pathlib.Path(os.environ['payloadfile'])\n"
        "payload = json.loads(path.read_text())\ntime.sleep(0.2)\n"
        "path.write_text(json.dumps({'twice': payload['n'] * 2}))\n"
        "pathlib.Path('result.txt').write_text(str(payload['n']))\n"
    )
    name = published(client, tmp_path / "doubler", code)
    runs = {n: client.request("POST", f"packages/{name}/runs", {"parameters": {"n": n}})["id"] for n in range(4)}
    for n, run_id in runs.items():
        row = ended(client, run_id)
        assert row["state"] == "succeeded", row["error"]
        folder = next(home.runs.glob(f"*/{run_id}"))
        assert json.loads((folder / "payload.json").read_text()) == {"twice": n * 2}
        assert [artifact["name"] for artifact in row["artifacts"]] == ["result.txt"]
        assert (folder / "artifacts" / "result.txt").read_text() == str(n)


def test_no_payload_steers_a_run_and_no_secret_reaches_it(running: tuple[AgentClient, Home], tmp_path: Path) -> None:
    client, _ = running
    name = published(client, tmp_path / "teller", "import json, os\nprint(json.dumps(dict(os.environ)))\n")
    evil = {
        "NODE_OPTIONS": "--require /tmp/evil.js",
        "LD_PRELOAD": "/tmp/evil.so",
        "PATH": "/tmp/evil",
        "PYTHONSTARTUP": "/tmp/evil.py",
        "jwt": "stolen",
        "apiurl": "grpc://evil",
        "payloadfile": "/etc/passwd",
        "JUPYTER_AGENT_RUN": "another",
        "harmless": "seen",
    }
    row = ended(client, client.request("POST", f"packages/{name}/runs", {"parameters": evil})["id"])
    seen = json.loads(said(client, row["id"]))
    assert seen["harmless"] == "seen"
    assert {key for key, value in evil.items() if seen.get(key) == value} == {"harmless"}
    assert "jwt" not in seen  # nobody granted it the agent's token
    assert "hidden" not in seen.values()


def test_a_failure_before_the_start_is_a_failed_run(running: tuple[AgentClient, Home], tmp_path: Path) -> None:
    client, _ = running
    name = published(client, tmp_path / "unmet", "print(1)", **{"requirements.txt": "no such requirement !!\n"})
    row = ended(client, client.request("POST", f"packages/{name}/runs", {})["id"])
    assert (row["state"], row["exit_code"], row["started"]) == ("failed", None, None)
    assert row["error"]


def test_a_run_is_run_again_with_all_it_was_given(running: tuple[AgentClient, Home], tmp_path: Path) -> None:
    client, _ = running
    code = "import json, os\nprint(len(json.load(open(os.environ['payloadfile']))['long']))\n"
    name = published(client, tmp_path / "long", code)
    first = client.request("POST", f"packages/{name}/runs", {"parameters": {"long": "x" * 300_000}, "timeout_s": 50})
    assert ended(client, first["id"])["state"] == "succeeded"
    assert len(first["parameters"]["long"]) < 2000  # the row holds the beginning
    again = client.request("POST", f"runs/{first['id']}/rerun", {})
    assert again["id"] != first["id"]
    row = ended(client, again["id"])
    assert (row["state"], row["rerun_of"]) == ("succeeded", first["id"])
    assert said(client, row["id"]) == "300000\n"


def test_a_key_is_one_run_and_further_attempts_are_made(running: tuple[AgentClient, Home], tmp_path: Path) -> None:
    client, _ = running
    code = (
        f"import pathlib\npath = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "count = len(path.read_text()) if path.exists() else 0\npath.write_text('x' * (count + 1))\n"
        "raise SystemExit(0 if count else 5)\n"
    )
    folder = make_package(tmp_path / "flaky", {"main.py": code}, openiap={"language": "python"})
    body = {"target": str(folder), "key": "nightly", "retries": 2, "retry_delay_s": 0.1, "priority": 1}
    runs = [client.request("POST", "runs", body) for _ in range(3)]
    assert len({run["id"] for run in runs}) == 1
    row = ended(client, runs[0]["id"])
    assert (row["state"], row["attempt"], row["retries"], row["priority"]) == ("succeeded", 2, 2, 1)
    assert client.request("POST", "runs", body)["state"] == "succeeded"
    with pytest.raises(Exception, match="another request"):
        client.request("POST", "runs", {**body, "parameters": {"x": 1}})
    assert (tmp_path / "count").read_text() == "xx"


def test_programs_that_cannot_be_started_harm_no_agent(running: tuple[AgentClient, Home], tmp_path: Path) -> None:
    client, home = running
    for name, text in (("shebang", "#!/no/such/interpreter\n"), ("broken", "\x7fELF")):
        folder = make_package(tmp_path / name, {"tool": text}, main="tool", openiap={"language": "exec"})
        (folder / "tool").chmod(0o700)
        row = ended(client, client.request("POST", "runs", {"target": str(folder)})["id"])
        assert (row["state"], row["exit_code"]) == ("failed", None), row
        assert "tool" in row["error"]
    assert client.request("GET", "status")["agent"]["home"] == str(home.path)
