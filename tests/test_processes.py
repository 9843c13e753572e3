"""Real children: started, refused, stopped with all they started, reaped after a kill -9 of their parent."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jupyter_agent.errors import AgentError, Failed, InvalidInput, NotFound, TimedOut, Unavailable
from jupyter_agent.processes import (
    Command,
    Exit,
    Process,
    Reaper,
    inherited_environment,
    is_alive,
    kill_leftovers,
    marks,
    process_started,
    reap,
    run,
    spawn_detached,
    start,
)
from jupyter_agent.processes.environment import TAG

CHILDREN = Path(__file__).parent / "children"
DEADLINE_S = 20


def python(folder: Path, *words: str, env: dict[str, str] | None = None) -> Command:
    return Command((sys.executable, *words), folder, inherited_environment() | (env or {}))


def child(folder: Path, script: str, *words: str) -> Command:
    return python(folder, str(CHILDREN / script), *words)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


async def until_async(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(until, condition)


async def rest(process: Process) -> str:
    return (await process.stdout.read()).decode()


@pytest.fixture
def reaper() -> Iterator[Reaper]:
    with Reaper() as reaper:
        yield reaper


async def test_a_child_gets_its_environment_and_nothing_else(tmp_path: Path) -> None:
    show = "import os, json; print(json.dumps(dict(os.environ)))"
    completed = await run(
        Command((sys.executable, "-c", show), tmp_path, {"GIVEN": "1"}), tag="run-1", timeout_s=DEADLINE_S
    )
    seen = json.loads(completed.output)
    seen.pop("LC_CTYPE", None)  # set by Python itself
    assert seen == {"GIVEN": "1", TAG: "run-1"}


async def test_a_child_has_its_own_session_no_stdin_and_the_folder(tmp_path: Path) -> None:
    show = "import os, sys; print(os.getsid(0), os.getpgrp(), os.getcwd(), repr(sys.stdin.read()))"
    process = await start(python(tmp_path, "-c", show), tag="proc")
    assert await rest(process) == f"{process.pid} {process.pid} {tmp_path} ''\n"
    assert (await process.wait()).ok
    await process.end()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("raise SystemExit(0)", Exit(0)),
        ("raise SystemExit(3)", Exit(3)),
        ("import os; os.kill(os.getpid(), 9)", Exit(None, "SIGKILL")),
        ("import os; os.kill(os.getpid(), 11)", Exit(None, "SIGSEGV")),
        ("import os; os.kill(os.getpid(), 40)", Exit(None, "SIG40")),
    ],
)
async def test_exit_says_code_or_signal(tmp_path: Path, how: str, expected: Exit) -> None:
    completed = await run(python(tmp_path, "-c", how), tag="proc", timeout_s=DEADLINE_S)
    assert completed.exit == expected
    assert completed.exit.ok == (how == "raise SystemExit(0)")


def test_an_exit_reads_as_words() -> None:
    assert [str(Exit(2)), str(Exit(None, "SIGKILL")), str(Exit(None))] == [
        "exit code 2",
        "signal SIGKILL",
        "an unknown end",
    ]


async def test_a_program_that_is_still_being_written_is_waited_for(tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy2("/bin/true", program)
    command = Command((str(program),), tmp_path, inherited_environment())
    with program.open("ab"):
        starting = asyncio.create_task(run(command, tag="proc", timeout_s=DEADLINE_S))
        await asyncio.sleep(0.05)  # it may have been tried already: it makes no difference to what is to come
    assert (await starting).exit.ok
    with program.open("ab"), pytest.raises(Unavailable, match="has it open for writing"):
        await start(command, tag="proc")


@pytest.mark.skipif(sys.platform != "linux", reason="there are marks on Linux only")
def test_who_starts_a_process_is_none_of_its_tree() -> None:
    """It has the mark itself for that moment, in which another thread may be ending what has it."""
    words = (
        "import os\nfrom jupyter_agent.processes import kill_leftovers, marks\n"
        "with marks.given('t'):\n"
        "    assert marks.read(os.getpid()) == marks.mark_of('t')\n"
        "    print(kill_leftovers('t'))\n"
        "assert marks.read(os.getpid()) is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", words], check=False, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


async def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("hello")
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\x00\x01\x02")
    garbage.chmod(0o755)
    orphan = tmp_path / "orphan"
    orphan.write_text("#!/no/such/interpreter\n")
    orphan.chmod(0o755)
    env = inherited_environment()
    refused: list[tuple[Command, type[AgentError], str]] = [
        (Command(("no-such-program",), tmp_path, env), NotFound, "no-such-program was not found"),
        (Command(("./missing",), tmp_path, env), NotFound, "missing was not found"),
        (Command((str(plain),), tmp_path, env), Failed, "not executable"),
        (Command((str(tmp_path),), tmp_path, env), Failed, "not executable"),
        (Command((f"{plain}/x",), tmp_path, env), NotFound, "not a folder"),
        (Command((str(garbage),), tmp_path, env), Failed, "no program for this system"),
        (Command((str(orphan),), tmp_path, env), Failed, "interpreter named in its first line"),
        (Command(("ls",), tmp_path / "nowhere", env), NotFound, "nowhere cannot be entered"),
        (Command(("ls",), plain, env), NotFound, "plain cannot be entered"),
        (Command(("ls", "a\0b"), tmp_path, env), InvalidInput, "unusable word"),
        (Command(("ls",), tmp_path, {"A=B": "c"}), InvalidInput, "unusable word"),
        (Command(("ls", "x" * (4 << 20)), tmp_path, env), Failed, "too long"),
        (Command((), tmp_path, env), InvalidInput, "empty"),
    ]
    for command, kind, words in refused:
        with pytest.raises(kind, match=words) as caught:
            await start(command, tag="proc")
        assert type(caught.value) is kind
        assert str(caught.value).endswith(".") or str(caught.value).endswith(")")


async def test_no_descriptor_leaks_over_many_starts(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    for number in range(20):
        await run(python(tmp_path, "-S", "-c", "print(1)"), tag=f"t{number}", timeout_s=DEADLINE_S)
        with pytest.raises(NotFound):
            await start(Command(("no-such-program",), tmp_path, {}), tag="proc")
    await asyncio.sleep(0)  # transports close in the loop's next turn
    assert psutil.Process().num_fds() <= before + 3


async def test_stop_lets_the_whole_group_tidy_up(tmp_path: Path) -> None:
    # The shell dies at once of SIGTERM; what it started must get its grace all the same.
    graceful = f'"{sys.executable}" "{CHILDREN / "graceful.py"}" 0.3'
    process = await start(Command(("sh", "-c", f"{graceful}; true"), tmp_path, inherited_environment()), tag="proc")
    assert await process.stdout.readline() == b"ready\n"
    await process.stop(grace_s=DEADLINE_S)
    assert (await rest(process), await process.stderr.read()) == ("asked to stop\ntidied up\n", b"")
    assert process.exit == Exit(None, "SIGTERM")


async def test_stop_kills_what_ignores_it(tmp_path: Path) -> None:
    process = await start(child(tmp_path, "stubborn.py"), tag="proc")
    await process.stdout.readline()
    await process.stop(grace_s=0.1)
    assert process.exit == Exit(None, "SIGKILL")


@pytest.mark.parametrize("grace_s", [0, 0.5])
async def test_stop_reaches_those_that_got_away(tmp_path: Path, grace_s: float) -> None:
    pids = tmp_path / "pids"
    process = await start(child(tmp_path, "detacher.py", str(pids)), tag="away")
    await until_async(pids.exists)
    started = json.loads(pids.read_text())
    assert not any(gone(pid) for pid in started.values())
    assert os.getsid(started["daemon"]) != process.pid
    await process.stop(grace_s=grace_s)
    assert {name: pid for name, pid in started.items() if not gone(pid)} == {}


async def test_end_kills_what_an_ended_child_left(tmp_path: Path) -> None:
    script = "setsid sleep 600 >/dev/null 2>&1 & echo $!"
    process = await start(Command(("sh", "-c", script), tmp_path, inherited_environment()), tag="left")
    assert (await process.wait()).ok
    sleeper = int(await rest(process))
    assert not gone(sleeper)
    await process.end()
    assert gone(sleeper)


async def test_a_system_without_pidfd_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    completed = await run(python(tmp_path, "-c", "print(1); raise SystemExit(3)"), tag="proc", timeout_s=DEADLINE_S)
    assert (completed.exit, completed.output) == (Exit(3), "1\n")
    process = await start(child(tmp_path, "stubborn.py"), tag="proc")
    await process.stdout.readline()
    await process.stop(grace_s=0)
    assert process.exit == Exit(None, "SIGKILL")


async def test_stop_of_an_ended_child_does_no_harm(tmp_path: Path) -> None:
    process = await start(python(tmp_path, "-c", ""), tag="proc")
    await process.wait()
    await process.stop(grace_s=5)
    await process.stop(grace_s=0)
    assert process.exit == Exit(0)


async def test_run_hands_on_lines_of_both_streams(tmp_path: Path) -> None:
    lines: list[tuple[str, str]] = []
    script = "import sys; print('ä\\nb\\r'); print('c', end='', file=sys.stderr)"
    completed = await run(
        python(tmp_path, "-c", script), tag="proc", on_line=lambda *line: lines.append(line), timeout_s=DEADLINE_S
    )
    assert [text for stream, text in lines if stream == "stdout"] == ["ä", "b"]
    assert [text for stream, text in lines if stream == "stderr"] == ["c"]
    assert sorted(completed.output.splitlines()) == ["b", "c", "ä"]


async def test_run_keeps_the_newest_of_much_output(tmp_path: Path) -> None:
    script = "import sys; [print(n) for n in range(200000)]; sys.stdout.write('x' * 300000 + 'the end')"
    longest = 0

    def measure(_: str, line: str) -> None:
        nonlocal longest
        longest = max(longest, len(line))

    completed = await run(python(tmp_path, "-c", script), tag="proc", on_line=measure, timeout_s=DEADLINE_S)
    assert completed.output.endswith("the end\n")
    assert len(completed.output) <= 64 << 10
    assert longest <= 256 << 10


async def test_run_is_not_held_up_by_a_grandchild_with_its_pipe(tmp_path: Path) -> None:
    script = "sleep 600 & echo $!"
    completed = await run(
        Command(("sh", "-c", script), tmp_path, inherited_environment()), tag="proc", timeout_s=DEADLINE_S
    )
    assert completed.exit.ok
    assert gone(int(completed.output))


async def test_run_ends_in_time(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(TimedOut, match="had not ended after"):
        await run(child(tmp_path, "detacher.py", str(pids)), tag="proc", timeout_s=1.5)
    if pids.exists():
        assert all(gone(pid) for pid in json.loads(pids.read_text()).values())


async def test_a_cancelled_run_leaves_nothing(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    task = asyncio.create_task(run(child(tmp_path, "detacher.py", str(pids)), tag="proc", timeout_s=600))
    await until_async(pids.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(gone(pid) for pid in json.loads(pids.read_text()).values())


async def test_usage_counts_the_tree(tmp_path: Path) -> None:
    hog = "b = bytearray(60 << 20); b[::4096] = b'x' * len(b[::4096]); print('ready', flush=True); input()"
    outer = "import subprocess as s, sys; s.Popen([sys.executable, '-c', sys.argv[1]], stdin=s.PIPE).wait()"
    process = await start(python(tmp_path, "-c", outer, hog), tag="proc")
    assert await process.stdout.readline() == b"ready\n"
    used = await asyncio.to_thread(process.usage)
    assert used.memory_bytes > 60 << 20
    assert used.cpu_s > 0
    await process.stop(grace_s=0)


async def test_what_the_system_accounted_is_known_at_the_end(tmp_path: Path) -> None:
    hog = "b = bytearray(300 << 20); b[::4096] = b'x' * len(b[::4096]); sum(range(10**6))"
    process = await start(python(tmp_path, "-c", hog), tag="proc")
    await process.wait()
    await process.end()
    assert process.cpu_s is not None
    assert process.cpu_s > 0.01
    assert process.peak_memory_bytes is not None
    assert process.peak_memory_bytes > 300 << 20


async def test_alive_means_the_same_process(tmp_path: Path) -> None:
    process = await start(child(tmp_path, "stubborn.py"), tag="proc")
    assert process.started == process_started(process.pid)
    assert is_alive(process.pid, process.started)
    assert not is_alive(process.pid, process.started - 60)  # another one with the same pid
    await process.stop(grace_s=0)
    assert not is_alive(process.pid, process.started)
    with pytest.raises(ProcessLookupError):
        process_started(process.pid)


async def test_leftovers_are_found_by_tag_and_by_pid(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    tree = await start(child(tmp_path, "detacher.py", str(pids)), tag="mine")
    other = await start(child(tmp_path, "stubborn.py"), tag="other")
    known = await start(child(tmp_path, "stubborn.py"), tag="unknown")
    await until_async(pids.exists)
    recycled = (other.pid, other.started - 60)
    killed = await asyncio.to_thread(kill_leftovers, ["mine", "none"], [(known.pid, known.started), recycled])
    assert killed == 6  # the detacher, its shell, its three sleepers, and the one known by pid
    assert all(gone(pid) for pid in json.loads(pids.read_text()).values())
    assert other.exit is None
    for process in (tree, other, known):
        await process.stop(grace_s=0)
    assert await asyncio.to_thread(kill_leftovers, "mine") == 0


def test_children_are_reaped_when_their_parent_is_killed(tmp_path: Path) -> None:
    target = tmp_path / "pids"
    parent = subprocess.Popen([sys.executable, str(CHILDREN / "parent_of_runs.py"), str(target)])
    try:
        until(target.exists)
        pids = json.loads(target.read_text())
        tree = json.loads(target.with_suffix(".tree").read_text())
        assert not any(gone(pid) for pid in (*pids.values(), *tree.values()))
        parent.kill()
        parent.wait()
        freed = pids.pop("freed")
        until(lambda: all(gone(pid) for pid in (*pids.values(), *tree.values())))
        assert not gone(freed)  # it was taken back
    finally:
        parent.kill()
        parent.wait()
        kill_leftovers(["early", "tree", "stubborn", "freed"])


async def test_a_reaper_that_was_killed_is_replaced_and_told_all(tmp_path: Path, reaper: Reaper) -> None:
    first = await start(child(tmp_path, "stubborn.py"), tag="first")
    reaper.watch("first", first.pid)
    pid = reaper.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until_async(lambda: gone(pid))
    second = await start(child(tmp_path, "stubborn.py"), tag="second")
    for process in (first, second):
        await process.stdout.readline()
    reaper.watch("second", second.pid)
    assert reaper.pid not in (None, pid)
    await asyncio.to_thread(reaper.close)  # in place of our own end: it cannot tell the two apart
    assert (await first.wait(), await second.wait()) == (Exit(None, "SIGKILL"), Exit(None, "SIGKILL"))
    for process in (first, second):
        await process.end()


async def test_a_reaper_ends_with_its_agent_and_is_not_started_for_nothing(reaper: Reaper) -> None:
    reaper.forget("never watched")
    pids = [reaper.pid]
    reaper.start()
    pids.append(reaper.pid)
    assert pids[0] is None
    pid = pids[1]
    assert pid is not None
    assert os.getsid(pid) == pid
    reaper.close()
    assert gone(pid)


def test_a_closed_reaper_stays_closed(reaper: Reaper) -> None:
    reaper.close()
    reaper.watch("late")
    assert reaper.pid is None


def test_the_reaper_knows_the_mark() -> None:
    assert reap.mark(b"x") == f"\0{TAG}=x\0".encode()
    assert reap.is_marked(os.getpid(), {marks.mark_of("x")}) is False


LOSES_ALL = "env -i setsid sh -c 'env -i setsid sleep 600 & echo $!' </dev/null 2>/dev/null & wait"
"""Starts a process in a session of its own, without an environment, whose parents have all ended."""


async def test_a_process_that_lost_its_environment_session_and_parents_is_found(tmp_path: Path) -> None:
    process = await start(Command(("sh", "-c", LOSES_ALL), tmp_path, inherited_environment()), tag="lost")
    assert (await process.wait()).ok
    sleeper = int(await process.stdout.readline())
    assert os.getsid(sleeper) != process.pid
    assert not gone(sleeper)
    await process.stop(grace_s=0.1)
    assert gone(sleeper)


async def test_a_process_that_lost_all_is_found_by_the_next_agent(tmp_path: Path) -> None:
    process = await start(Command(("sh", "-c", LOSES_ALL), tmp_path, inherited_environment()), tag="lost")
    assert (await process.wait()).ok
    sleeper = int(await process.stdout.readline())
    assert await asyncio.to_thread(kill_leftovers, "another") == 0
    assert await asyncio.to_thread(kill_leftovers, "lost") == 1
    assert gone(sleeper)


DETACHING = """
import os, sys, time
from pathlib import Path
from jupyter_agent.processes import spawn_detached
print(spawn_detached(['sleep', '600'], dict(os.environ), Path('log')).pid, flush=True)
"""


async def test_what_a_run_starts_detached_outlives_it(tmp_path: Path) -> None:
    """The agent itself, or the hub, that a program of a run was the first to need."""
    process = await start(python(tmp_path, "-c", DETACHING), tag="starter")
    detached = int(await process.stdout.readline())
    try:
        assert (await process.wait()).ok
        await process.stop(grace_s=0.1)
        assert await asyncio.to_thread(kill_leftovers, "starter") == 0
        assert marks.read(detached) is None
        assert not gone(detached)
    finally:
        os.kill(detached, signal.SIGKILL)


RESTLESS = """
import os, sys, time
end = time.monotonic() + 60
while time.monotonic() < end:  # a new process every few milliseconds, which forks the next one
    if os.fork():
        os._exit(0)
    time.sleep(0.002)
"""


async def test_a_tree_that_never_stands_still_is_ended(tmp_path: Path) -> None:
    for number in range(3):
        process = await start(python(tmp_path, "-c", RESTLESS), tag=f"restless-{number}")
        await process.wait()
        await process.stop(grace_s=0)
        assert await asyncio.to_thread(kill_leftovers, f"restless-{number}") == 0


def test_what_is_spawned_detached_outlives_and_is_reaped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    script = "import os; print(os.getsid(0) == os.getpid(), os.environ.get('JUPYTER_AGENT_RUN'), os.environ['X'])"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        process = spawn_detached([sys.executable, "-c", script], {**os.environ, TAG: "a-run", "X": "1"}, log)
        pid = process.pid
        del process
        until(lambda: not psutil.pid_exists(pid))  # gone altogether: no zombie either
    assert log.read_text() == "before\nTrue None 1\n"


def test_a_new_log_is_private(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = spawn_detached([sys.executable, "-c", ""], os.environ, log)
    assert log.stat().st_mode & 0o777 == 0o600
    until(lambda: process.poll() == 0)


def test_only_what_is_listed_is_inherited() -> None:
    secret = {
        "jwt": "x",
        "apiurl": "x",
        "JUPYTER_TOKEN": "x",
        "PYTHONPATH": "x",
        "NODE_OPTIONS": "x",
        "LD_PRELOAD": "x",
    }
    plain = {"PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "https_proxy": "http://proxy:3128"}
    building = {"UV_INDEX_URL": "https://u:p@index/simple", "PIP_TRUSTED_HOST": "index"}
    everything = {**secret, **plain, **building, TAG: "outer", "AWS_SECRET_ACCESS_KEY": "x"}
    assert inherited_environment(everything) == plain | building
    assert inherited_environment(everything, builders=False) == plain
    careful = inherited_environment({**everything, "HTTP_PROXY": "http://u:p@proxy"}, credentials=False)
    assert careful == plain | {"PIP_TRUSTED_HOST": "index"}


def test_the_gate_need_not_pay_for_it() -> None:
    code = (
        "import sys; from jupyter_agent.processes import spawn_detached;"
        "print([name for name in ('asyncio', 'psutil') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
