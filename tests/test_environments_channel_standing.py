"""A channel from PyPI in the place of those of a file: made once, whole or not at all, the same for the same."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from jupyter_agent import processes
from jupyter_agent.environments.channel import stand_in, stand_in_words
from jupyter_agent.environments.definitions import Definition, this_platform
from jupyter_agent.environments.specs import parse
from jupyter_agent.environments.work.jobs import ChannelJob, Settings, to_json
from jupyter_agent.errors import InvalidInput, Unavailable
from tests.channels import Silent, installed, pip_wheel_in, records, wheel


class Listening(Silent):
    """A teller that remembers what was noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def shelf(channel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels in which pip finds what it finds."""
    place = tmp_path_factory.mktemp("shelf")
    pip_wheel_in(place, channel)
    wheel(place, "msgpack", "1.1", metadata="Requires-Dist: lower\n")
    for version in ("1.0", "1.5", "2.0"):
        wheel(place, "lower", version)
    wheel(place, "uvicorn", "0.5", metadata="Provides-Extra: standard\nRequires-Dist: lower<2; extra == 'standard'\n")
    return place


@pytest.fixture
def settings(tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Nothing made yet, and pip told by its own configuration to look at the shelf."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return Settings(cache=tmp_path / "cache", channels=tmp_path / "channels")


async def made(settings: Settings, *dependencies: str, platform: str = "", tell: Silent | None = None) -> Path:
    """The channel that stands in for those of an environment.yml."""
    definition = Definition.of("environment.yml", json.dumps({"dependencies": list(dependencies)}))
    spec = parse(definition)
    url = await stand_in(spec, platform or this_platform(), settings=settings, tell=tell or Silent())
    return Path(unquote(urlsplit(url).path))


async def test_what_the_file_asks_for_can_be_solved_and_installed_from_it(settings: Settings, tmp_path: Path) -> None:
    tell = Listening()
    asked = ["python >=3.8", "pip", "msgpack-python=1.1", "conda-forge::uvicorn-standard", "lower >=1,<2|>=3", "zlib"]
    place = await made(settings, *asked, tell=tell)
    found = await installed([place], stand_in_words(asked), tmp_path / "prefix", cache=tmp_path / "cache")
    assert {"python", "msgpack", "msgpack-python", "uvicorn", "uvicorn-standard", "lower", "zlib"} <= set(found)
    assert records(place)["lower"]["version"] == "1.5"
    assert any("same operating system only" in note for note in tell.notes)
    assert any("msgpack-python is msgpack on PyPI" in note for note in tell.notes)


async def test_the_same_is_made_once_and_needs_no_network_then(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await made(settings, "python", "lower")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nonexistent")
    assert await made(settings, "lower", "python") == first
    offline = Settings(settings.cache, settings.channels, offline=True)
    assert await made(offline, "lower") == first
    with pytest.raises(Unavailable, match="offline"):
        await made(offline, "lower <2")


async def test_what_was_made_before_serves_when_pypi_cannot_be_reached(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await made(settings, "lower")
    for file in settings.channels.glob("requests/*.json"):
        stored = json.loads(file.read_text())
        file.write_text(json.dumps(stored | {"made": (datetime.now(UTC) - timedelta(days=3)).isoformat()}))
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:hidden@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    tell = Listening()
    assert await made(settings, "lower", tell=tell) == first
    assert any("made from PyPI before is used" in note for note in tell.notes)
    with pytest.raises(Unavailable, match="cannot be reached") as told:
        await made(settings, "msgpack")
    assert "hidden" not in str(told.value) + "".join(tell.notes)


async def test_two_at_once_both_have_it(settings: Settings) -> None:
    places = await asyncio.gather(made(settings, "lower"), made(settings, "lower"), made(settings, "lower =2.0"))
    assert places[0] == places[1] == places[2]
    assert [path.name for path in _channels(settings.channels)] == [places[0].name]


async def test_all_that_pypi_does_not_have_is_named(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match=r"PyPI has no lower==7 or ==6 and nowhere-to-be-had>=3 for this machine"):
        await made(settings, "nowhere-to-be-had >=3", "msgpack", "lower ==7|==6")
    with pytest.raises(InvalidInput, match="nodejs and r-base"):
        await made(settings, "r-base", "nodejs", "lower")
    assert _channels(settings.channels) == []


async def test_another_kind_of_machine_or_another_python_is_refused(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="lock for osx-arm64 where"):
        await made(settings, "lower", platform="osx-arm64")
    with pytest.raises(InvalidInput, match="has the Python that runs jupyter_agent"):
        await made(settings, "python 3.7.*")


def test_kill_9_at_any_moment_leaves_a_whole_channel_or_none(
    settings: Settings, tmp_path: Path, budgets: dict[str, int]
) -> None:
    place, took_s = tmp_path / "made", 0.0
    for number in range(budgets["channel_kills"] + 1):
        file = tmp_path / "job.json"
        file.write_text(to_json(ChannelJob(("msgpack", "uvicorn[standard]"), place, python=True, settings=settings)))
        began = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "jupyter_agent.environments.work", file],
            stdout=subprocess.PIPE,
            env={**os.environ, "JUPYTER_AGENT_RUN": f"channel-kill-{number}"},
        )
        if number == 0 or number == budgets["channel_kills"]:
            output, _ = child.communicate(timeout=120)
            assert b'"result"' in output
            took_s = took_s or time.monotonic() - began
            assert _is_whole(place)
            assert [path for path in tmp_path.iterdir() if path.name.startswith(".channel-")] == []
            continue
        _ends_after(child, random.uniform(0, took_s))  # noqa: S311 - any moment
        processes.kill_leftovers(f"channel-kill-{number}")  # its pip, as who started it would do
        assert not place.exists() or _is_whole(place)


def _ends_after(child: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
    child.communicate()


def _channels(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != "requests"] if folder.exists() else []


def _is_whole(place: Path) -> bool:
    return all(
        (place / record["subdir"] / record["fn"]).stat().st_size == record["size"] for record in records(place).values()
    ) and {"python", "pip", "msgpack", "lower", "uvicorn", "uvicorn-extra-standard"} <= set(records(place))
