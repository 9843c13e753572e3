"""The agent's process: its start, its end, and what keeps it from starting, each told in one sentence."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_agent import processes
from jupyter_agent.api.__main__ import last_words
from jupyter_agent.api.broadcast import MOST_WAITING, Broadcast
from jupyter_agent.errors import Unavailable
from jupyter_agent.home import Home, agent_command, ensure_agent, read_json, running_agent
from tests.conftest import cli, end_all, start_agent, until


def started(home: Home) -> subprocess.CompletedProcess[str]:
    """The agent in the foreground, which is to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "jupyter_agent.api", "--home", str(home.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "setting", ["c.Agent.max_runs = 0", "c.Agent.timeout_s = -1", "c.Agent.max_runs = 'many'", "c.Agent.", "1/0"]
)
def test_settings_that_cannot_be(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    (tmp_path / "jupyter_agent_config.py").write_text(f"{setting}\n")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    done = cli("runs", "list", home=home)
    assert done.returncode == 1
    assert "jupyter_agent_config" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_idle_agent_ends_and_its_hub_after_it(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jupyter_agent_config.py").write_text("c.Agent.idle_s = 1\n")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    start_agent(home)
    about, hub = read_json(home.agent_file) or {}, read_json(home.hub / "hub.json") or {}
    until(lambda: not processes.is_alive(about["pid"], about["started"]), what="the idle agent ends")
    assert not home.agent_file.exists()
    until(lambda: not processes.is_alive(hub["pid"], hub["started"]), deadline_s=120, what="the hub ends after it")


def test_two_agents_started_at_once_are_one(home: Home) -> None:
    home.prepare()
    both = [subprocess.Popen(agent_command(home), stderr=subprocess.DEVNULL) for _ in range(4)]
    try:
        start_agent(home)
        about = read_json(home.agent_file) or {}
        others = [process for process in both if process.pid != about["pid"]]
        until(lambda: all(process.poll() is not None for process in others), what="all but one have ended")
        assert {process.returncode for process in others} == {0}
        assert processes.is_alive(about["pid"], about["started"])
    finally:
        end_all(home)
        for process in both:
            process.wait(30)


@pytest.fixture
def long_home(home: Home) -> Iterator[Home]:
    made = Home(home.path.parent / ("long " * 30))
    yield made
    end_all(made)


def test_a_home_on_a_long_path_leaves_no_folder_for_its_socket(long_home: Home) -> None:
    start_agent(long_home)
    folder = Path(running_agent(long_home) or "").parent
    assert folder != long_home.path
    end_all(long_home)
    until(lambda: not folder.exists(), what="the socket's folder is gone")


def test_a_home_without_room(home: Home) -> None:
    home.prepare()
    (home.path / "agent.lock").mkdir()  # as root may write everywhere, no file can be made there in this way
    done = started(home)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("The agent cannot work in its home")
    assert "Traceback" not in done.stderr


async def test_a_follower_that_takes_nothing_is_let_go() -> None:
    events = Broadcast()
    slow, quick = events.follow(60), events.follow(60)
    first = [asyncio.ensure_future(anext(slow)), asyncio.ensure_future(anext(quick))]
    await asyncio.sleep(0)
    events.send("run", "0", dict)
    await asyncio.gather(*first)
    for number in range(MOST_WAITING + 2):
        events.send("run", str(number), dict)
        if number % 500 == 0:
            await anext(quick)
    assert len(events) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(slow)
    assert await anext(quick)
    await quick.aclose()
    assert len(events) == 0


def test_the_last_words_are_one_sentence_also_out_of_groups(home: Home) -> None:
    inner = Unavailable("The disk is full.")
    assert last_words(ExceptionGroup("a", [ExceptionGroup("b", [inner]), ValueError()]), home) == "The disk is full."
    assert "No space left" in last_words(ExceptionGroup("a", [OSError(28, "No space left")]), home)
    assert "ValueError" in last_words(ValueError("x"), home)


def test_an_agent_that_cannot_say_why_it_does_not_start(home: Home) -> None:
    class Silent:
        def poll(self) -> int:
            return 1

    def spawn(_argv: object, _environment: object, log: Path) -> Silent:
        log.touch()
        return Silent()

    with pytest.raises(Unavailable, match="exit code 1"):
        ensure_agent(home, spawn)
