"""Jobs and the children that do them: what is handed over, how they end, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_agent import processes
from jupyter_agent.environments.definitions import Definition
from jupyter_agent.environments.work.jobs import (
    BuildJob,
    ChannelJob,
    Job,
    LockJob,
    Settings,
    VerifyJob,
    from_json,
    to_json,
)
from jupyter_agent.environments.work.telling import Tell
from jupyter_agent.environments.work.worker import work
from jupyter_agent.errors import Failed, NotFound
from jupyter_agent.processes.environment import TAG
from tests.conda_locks import Entry, lock, package, python_of
from tests.conftest import until

SETTINGS = Settings(Path("/c"), Path("/h"), offline=True, default_channels=("one", "two"))

CHILD = "jupyter_agent.environments.work"

PARENT = """
import asyncio, sys
from pathlib import Path
from jupyter_agent import processes
from jupyter_agent.environments.work.jobs import from_json
from jupyter_agent.environments.work.worker import work
from tests.channels import Silent

job = from_json(Path(sys.argv[1]).read_text())
asyncio.run(work(job, environ=processes.inherited_environment(), teller=Silent(), tag=sys.argv[2]))
"""


class Heard:
    """Keeps what is told; ``on_progress`` is called for each word of progress."""

    def __init__(self, on_progress: Callable[[str], None] = lambda _phase: None) -> None:
        self.notes: list[str] = []
        self._on_progress = on_progress

    def note(self, text: str) -> None:
        self.notes.append(text)

    def show_progress(self, phase: str, *_: Any) -> None:
        self._on_progress(phase)


async def do(job: Job, heard: Heard, tag: str) -> dict[str, Any]:
    return await work(job, environ=processes.inherited_environment(), teller=heard, tag=tag)


def tagged(tag: str) -> list[psutil.Process]:
    """The living processes with this tag."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(TAG) == tag and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.fixture
def tag() -> str:
    return f"work-{os.getpid()}-{time.time_ns()}"


@pytest.fixture
def slow(channel: Path, tmp_path: Path) -> BuildJob:
    """A build on a cold cache: it compiles for seconds, in processes of its own."""
    return BuildJob(
        lock(tmp_path / "conda-lock.yml", [python_of(channel)]),
        tmp_path / "prefix",
        Settings(tmp_path / "cache", tmp_path / "channels"),
    )


JOBS: list[Job] = [
    LockJob(
        Definition.of("environment.yml", "dependencies: [python]\n"),
        ("a >=1",),
        ("linux-64",),
        Path("/o"),
        from_pypi=True,
        settings=SETTINGS,
    ),
    BuildJob(Path("/l"), Path("/with spaces/ü\udce9"), SETTINGS, distrust=True),
    ChannelJob(("numpy", "pandas>=2"), Path("/f"), "host", SETTINGS),
    VerifyJob(Path("/p"), SETTINGS),
]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: type(job).__name__)
def test_a_job_comes_back_from_its_file(job: Job) -> None:
    assert from_json(to_json(job)) == job


async def test_an_error_of_the_child_is_raised_with_its_type(tmp_path: Path, tag: str) -> None:
    with pytest.raises(NotFound, match="is no conda environment"):
        await do(VerifyJob(tmp_path, SETTINGS), Heard(), tag)


async def test_a_long_result_comes_in_one(tmp_path: Path, tag: str) -> None:
    meta = tmp_path / "conda-meta"
    meta.mkdir()
    paths = [{"_path": f"lib/{number}-ü.txt", "path_type": "hardlink"} for number in range(5000)]
    (meta / "many-1-0.json").write_text(json.dumps({"name": "many", "paths_data": {"paths": paths}}))
    found = await do(VerifyJob(tmp_path, Settings(tmp_path / "cache", tmp_path)), Heard(), tag)
    assert [fault["path"] for fault in found["faults"]] == [path["_path"] for path in paths]
    assert {fault["what"] for fault in found["faults"]} == {"is missing"}


def test_tellings_of_many_threads_are_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "told"
    with file.open("wb") as stream:
        tell = Tell(stream.fileno(), clock=lambda: 0.0)
        asyncio.run(_tell_much(tell))
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert len([message for message in told if "note" in message]) == 400
    shown = [message["progress"][:2] for message in told if "progress" in message]
    assert shown == [["link", 0], ["link", 100], ["check", 1]]  # the first, the last, and a new phase


async def _tell_much(tell: Tell) -> None:
    await asyncio.gather(*(asyncio.to_thread(_tell_notes, tell) for _ in range(4)))
    for done in range(101):
        tell.show_progress("link", done, 100)
    tell.show_progress("check", 1, 2)


def _tell_notes(tell: Tell) -> None:
    for _ in range(100):
        tell.note("x" * 1000)


async def test_a_child_that_dies_is_a_failure_that_says_how(slow: BuildJob, tag: str) -> None:
    def kill(_phase: str) -> None:
        for process in tagged(tag):
            if CHILD in process.cmdline():
                process.kill()

    with pytest.raises(Failed, match="ended by signal SIGKILL"):
        await do(slow, Heard(kill), tag)
    assert tagged(tag) == []


async def test_a_cancelled_job_leaves_nothing_running(slow: BuildJob, tag: str) -> None:
    compiling = asyncio.Event()
    task = asyncio.ensure_future(do(slow, Heard(lambda phase: compiling.set() if phase == "compile" else None), tag))
    await asyncio.wait_for(compiling.wait(), 60)
    await asyncio.to_thread(until, lambda: len(tagged(tag)) > 1, what="the child, and what compiles for it")
    task.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tagged(tag) == []
    assert not list((slow.settings.cache / "scratch").iterdir())
    assert time.monotonic() - started < 30  # it did not go on to its end


async def test_a_child_ends_with_its_parent_however_that_ends(slow: BuildJob, tag: str, tmp_path: Path) -> None:
    """What the two had written for a while lies in a private folder, which the next job removes."""
    file, temporary, scratch = tmp_path / "job.json", tmp_path / "temporary", slow.settings.cache / "scratch"
    file.write_text(to_json(slow))
    temporary.mkdir()
    environ = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", PARENT, str(file), tag], env=environ) as parent:  # noqa: ASYNC220 - a test waits
        compiled = slow.settings.cache / "compiled"
        await asyncio.to_thread(until, lambda: list(compiled.rglob("[0-9].pyc")), what="it compiles")
        assert tagged(tag)
        parent.send_signal(signal.SIGKILL)
    await asyncio.to_thread(until, lambda: not tagged(tag), deadline_s=20, what="the child and its children are gone")
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (scratch, *scratch.iterdir())] == [0o700, 0o700]
    assert not list(temporary.iterdir())
    with pytest.raises(NotFound):
        await do(VerifyJob(tmp_path / "none", slow.settings), Heard(), tag)
    assert not list(scratch.iterdir())


async def test_the_next_builder_of_a_prefix_waits_for_a_child_that_still_works(slow: BuildJob, tag: str) -> None:
    first, second = Heard(), Heard()
    await asyncio.gather(do(slow, first, tag), do(slow, second, f"{tag}-2"))
    waited = [note for heard in (first, second) for note in heard.notes if "waiting" in note]
    assert len(waited) == 1
    assert (await do(VerifyJob(slow.prefix, slow.settings), Heard(), tag))["faults"] == []


def test_a_build_loads_nothing_that_only_others_need(tmp_path: Path) -> None:
    made = package(tmp_path / "made", "data", {"share/data.txt": "text\n"}, noarch="generic")
    settings = Settings(tmp_path / "cache", tmp_path)
    job = BuildJob(lock(tmp_path / "l.yml", [Entry.of(made)]), tmp_path / "prefix", settings)
    file = tmp_path / "job.json"
    file.write_text(to_json(job))
    code = (
        "import asyncio, os, sys\nfrom pathlib import Path\nfrom jupyter_agent.environments.building import making\n"
        "from jupyter_agent.environments.work.jobs import from_json\n"
        "from jupyter_agent.environments.work.telling import Tell\n"
        "asyncio.run(making.run(from_json(Path(sys.argv[1]).read_text()), Tell(2)))\n"
        "print(*sorted(sys.modules), flush=True)\nos._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "rattler" in loaded
    assert not loaded & {"conda_lock", "pydantic", "yaml", "psutil", "conda_package_streaming"}
