"""What is made once for many runs: made by one, whole or not there, never removed while it is used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_agent.errors import Failed, InvalidInput, Unavailable
from jupyter_agent.home import AgentClient, Home
from jupyter_agent.packages import Preparations
from tests.conftest import ended, make_package, start_agent, until

FILES = 300

MAKER = f"""
import asyncio, sys
from pathlib import Path
from jupyter_agent.packages import Preparations

async def make(folder):
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    for number in range({FILES}):
        (folder / str(number)).write_text("x")
        if number % 10 == 0:
            print(number, flush=True)
            await asyncio.sleep(0)

async def main():
    folder = await Preparations(Path(sys.argv[1])).ensure("npm-1", make, holder="me")
    print("ready", len(list(folder.glob("[0-9]*"))), flush=True)
    if len(sys.argv) > 3:
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def ten(folder: Path) -> None:
    for number in range(10):
        (folder / str(number)).write_text("x")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


@contextlib.contextmanager
def maker(folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", MAKER, str(folder / "preparations"), str(folder / "log"), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def live() -> set[str]:
    """The runs that live."""
    return set()


@pytest.fixture
def preparations(tmp_path: Path, live: set[str]) -> Preparations:
    return Preparations(tmp_path / "preparations", living=lambda: live)


async def test_it_is_made_once_for_all_who_ask(preparations: Preparations) -> None:
    count = 0

    async def make(folder: Path) -> None:
        nonlocal count
        count += 1
        await asyncio.sleep(0)
        await ten(folder)

    waited: list[str] = []
    found = await asyncio.gather(
        *(
            preparations.ensure("npm-1", make, holder=f"run{number}", on_wait=lambda: waited.append("x"))
            for number in range(5)
        )
    )
    assert (len(set(found)), count, len(waited)) == (1, 1, 4)
    assert await preparations.ensure("npm-2", make, holder="run1") != found[0]
    with pytest.raises(InvalidInput):
        await preparations.ensure("../out", make, holder="run1")


async def test_two_processes_make_one_of_a_key(tmp_path: Path) -> None:
    with maker(tmp_path) as one, maker(tmp_path) as other:
        told = await asyncio.gather(asyncio.to_thread(one.communicate), asyncio.to_thread(other.communicate))
    assert [out.splitlines()[-1] for out, _ in told] == [f"ready {FILES}"] * 2
    assert (tmp_path / "log").read_text() == "made\n"


async def test_one_that_is_killed_while_it_makes_leaves_nothing_that_counts(
    tmp_path: Path, preparations: Preparations, budgets: dict[str, int]
) -> None:
    chance = random.Random(7)  # noqa: S311 - moments
    for _ in range(budgets["preparation_kills"]):
        last = chance.randrange(0, FILES, 10)
        with maker(tmp_path) as process:
            assert process.stdout
            for line in process.stdout:
                if line.startswith("ready") or int(line) >= last:
                    break
            process.send_signal(signal.SIGKILL)
            process.wait()
        folder = tmp_path / "preparations" / "npm-1"
        whole = (folder / ".ready").exists()
        assert not whole or len(list(folder.glob("[0-9]*"))) == FILES
        removed = await preparations.tidy(keep_days=1)
        assert removed == ([] if whole else ["npm-1"])
        if whole:
            await preparations.tidy(keep_days=-1)
        assert names(tmp_path / "preparations") == []
    with maker(tmp_path) as process:
        assert process.communicate()[0].endswith(f"ready {FILES}\n")


async def test_one_that_fails_or_is_cancelled_leaves_nothing(tmp_path: Path, preparations: Preparations) -> None:
    begun = asyncio.Event()

    async def fails(folder: Path) -> None:
        await ten(folder)
        raise Failed("no")

    async def hangs(folder: Path) -> None:
        await ten(folder)
        begun.set()
        await asyncio.Event().wait()

    with pytest.raises(Failed):
        await preparations.ensure("npm-1", fails, holder="run1")
    assert names(tmp_path / "preparations") == []
    making = asyncio.create_task(preparations.ensure("npm-1", hangs, holder="run1"))
    await begun.wait()
    assert await preparations.tidy(keep_days=-1) == []  # it is being made
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert names(tmp_path / "preparations") == []
    assert (await preparations.ensure("npm-1", ten, holder="run2")).name == "npm-1"


async def test_what_a_living_run_uses_is_never_removed(
    tmp_path: Path, preparations: Preparations, live: set[str]
) -> None:
    live |= {"run1", "run2"}
    folder = await preparations.ensure("npm-1", ten, holder="run1")
    await preparations.ensure("npm-1", ten, holder="run2")
    other = Preparations(tmp_path / "preparations", living=lambda: live)
    for tidying in (preparations, other):
        assert await tidying.tidy(keep_days=-1) == []
    live.discard("run1")
    assert await preparations.tidy(keep_days=-1) == []
    assert len(list(folder.glob("[0-9]*"))) == 10
    live.clear()
    assert await preparations.tidy(keep_days=30) == []  # not old enough
    assert await preparations.tidy(keep_days=-1) == ["npm-1"]


async def test_what_another_process_uses_is_never_removed(tmp_path: Path, preparations: Preparations) -> None:
    with maker(tmp_path, "stay") as process:
        assert process.stdout
        assert any(line.startswith("ready") for line in process.stdout)
        assert await preparations.tidy(keep_days=-1) == []
        process.kill()
        process.wait()
        assert await preparations.tidy(keep_days=-1) == ["npm-1"]


async def test_asking_and_tidying_at_once_never_gives_what_is_gone(tmp_path: Path) -> None:
    """Two of them, as two processes would be, on one folder."""
    one, other = (Preparations(tmp_path / "preparations", living=set) for _ in range(2))
    over = asyncio.Event()

    async def tidying() -> None:
        while not over.is_set():
            for each in (one, other):
                await each.tidy(keep_days=-1)

    async def asking(name: str, each: Preparations) -> None:
        for number in range(60):
            folder = await each.ensure("npm-1", ten, holder=f"{name}{number}")
            # Nobody else lets go of it before this returns to the loop.
            assert len(list(folder.glob("[0-9]*"))) == 10

    tidy = asyncio.create_task(tidying())
    async with asyncio.TaskGroup() as tasks:
        for each in (one, other):
            for name in "ab":
                tasks.create_task(asking(name, each))
    over.set()
    await tidy


async def test_what_is_forgotten_is_made_anew_beside_what_is_in_use(preparations: Preparations, live: set[str]) -> None:
    live |= {"old", "new"}
    old = await preparations.ensure("npm-1", ten, holder="old", source="file1")
    shared = await preparations.ensure("npm-2", ten, holder="old", source="file2")
    await preparations.forget("file1")
    new = await preparations.ensure("npm-1", ten, holder="new", source="file1")
    assert (old.name, new.name) == ("npm-1", "npm-1~1")
    assert len(list(old.glob("[0-9]*"))) == 10
    assert await preparations.ensure("npm-2", ten, holder="new") == shared
    live.discard("old")
    assert await preparations.tidy(keep_days=30) == ["npm-1"]
    assert await preparations.ensure("npm-1", ten, holder="new") == new
    await preparations.forget("../file1")


async def test_it_may_be_forgotten_as_often_as_runs_end(
    tmp_path: Path, preparations: Preparations, live: set[str]
) -> None:
    """Nobody waits for the next tidying."""
    for number in range(30):
        live.add(f"run{number}")
        await preparations.ensure("npm-1", ten, holder=f"run{number}", source="file1")
        live.discard(f"run{number - 1}")
        await preparations.forget("file1")
    assert len(names(tmp_path / "preparations")) <= 2
    for number in range(30, 38):
        live.add(f"run{number}")
        await preparations.ensure("npm-1", ten, holder=f"run{number}", source="file1")
        await preparations.forget("file1")
    with pytest.raises(Unavailable, match="wait until some have ended"):
        await preparations.ensure("npm-1", ten, holder="one more")


def test_the_agent_removes_what_was_not_used_for_long(home: Home) -> None:
    old = home.preparations / "npm-old"
    half = home.preparations / "npm-half"
    for folder in (old, half):
        folder.mkdir(parents=True)
    (home.path / "version").write_text("1\n")
    (old / ".ready").touch()
    os.utime(old / ".ready", (1, 1))
    agent: AgentClient = start_agent(home)
    until(lambda: names(home.preparations) == [], what="they are removed")
    package = make_package(home.path.parent / "p", {"main.js": "console.log(1)"}, openiap={"language": "nodejs"})
    assert ended(agent, agent.request("POST", "runs", {"target": str(package)})["id"])["state"] == "succeeded"
