"""The bridge by itself, with a real agent at its other end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from jupyter_agent import processes
from jupyter_agent.home import NO_AGENT, AgentClient, Home
from jupyter_agent.server.events import ENVIRONMENT, PACKAGE, RUN, STATUS, Bridge, schemas, translate
from jupyter_agent.server.upstream import Upstream
from tests.conftest import ended, make_package, start_agent, until


class Listener:
    """Where the bridge's events go; ``listening`` is whether anybody hears them."""

    def __init__(self, *, listening: bool) -> None:
        self.listening = listening
        self.told: list[tuple[str, dict[str, Any]]] = []

    def emit(self, schema: str, data: dict[str, Any]) -> bool:
        self.told.append((schema, data))
        return self.listening

    def states(self) -> list[str]:
        return [data["run"]["state"] for schema, data in self.told if schema == RUN]

    def has_told(self, *, connected: bool) -> bool:
        return any(schema == STATUS and data["status"]["connected"] is connected for schema, data in self.told)


async def eventually(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(until, condition)


@pytest.fixture
async def make_bridge(home: Home) -> AsyncIterator[Callable[..., Bridge]]:
    made: list[Bridge] = []

    def make(listener: Listener, *, unused_s: float) -> Bridge:
        upstream = Upstream(home, spawn=processes.spawn_detached)
        bridge = Bridge(upstream, listener.emit, log=lambda _: None, poll_s=0.05, unused_s=unused_s)
        made.append(bridge)
        return bridge

    yield make
    for bridge in made:
        await bridge.close()


def connections(agent: AgentClient) -> int:
    """How many connections to its socket the agent has open."""
    process = psutil.Process(agent.request("GET", "status")["agent"]["pid"])
    sockets = [socket for socket in process.net_connections("unix") if str(socket.laddr) == agent.socket]
    return len(sockets) - 1  # the one that listens


def launch(agent: AgentClient, folder: Path) -> str:
    """A short run."""
    package = make_package(folder / "short", {"main.py": "print(1)\n"}, openiap={"language": "python"})
    return str(agent.request("POST", "runs", {"target": str(package)})["id"])


async def test_without_an_agent_it_says_so_once(make_bridge: Callable[..., Bridge], home: Home) -> None:
    listener = Listener(listening=True)
    bridge = make_bridge(listener, unused_s=300)
    bridge.wake()
    await eventually(lambda: bool(listener.told))
    await asyncio.sleep(0.3)
    assert listener.told == [(STATUS, {"status": NO_AGENT})]
    assert not home.path.exists(), "it never starts one"


async def test_an_agent_that_is_started_later_is_found(
    make_bridge: Callable[..., Bridge], home: Home, tmp_path: Path
) -> None:
    listener = Listener(listening=True)
    make_bridge(listener, unused_s=300).wake()
    agent = await asyncio.to_thread(start_agent, home)
    await eventually(lambda: listener.has_told(connected=True))
    await asyncio.to_thread(launch, agent, tmp_path)
    await eventually(lambda: "succeeded" in listener.states())


async def test_when_nobody_listens_it_lets_go_and_comes_back_with_the_next_request(
    make_bridge: Callable[..., Bridge], home: Home, tmp_path: Path
) -> None:
    agent = await asyncio.to_thread(start_agent, home)
    listener = Listener(listening=False)
    bridge = make_bridge(listener, unused_s=0.5)
    bridge.wake()
    await eventually(lambda: listener.has_told(connected=True))
    while await asyncio.to_thread(connections, agent):  # what happens now finds nobody
        await asyncio.to_thread(ended, agent, launch(agent, tmp_path))
    heard = len(listener.states())
    run_id = await asyncio.to_thread(launch, agent, tmp_path)
    await asyncio.to_thread(ended, agent, run_id)
    assert len(listener.states()) == heard
    listener.listening = True
    bridge.wake()
    await eventually(lambda: any(schema == RUN and data["run"]["id"] == run_id for schema, data in listener.told))


async def test_while_somebody_listens_it_stays(make_bridge: Callable[..., Bridge], home: Home, tmp_path: Path) -> None:
    agent = await asyncio.to_thread(start_agent, home)
    listener = Listener(listening=True)
    make_bridge(listener, unused_s=0).wake()
    await eventually(lambda: listener.has_told(connected=True))
    for count in (1, 2):
        await asyncio.to_thread(launch, agent, tmp_path)
        await eventually(lambda: listener.states().count("succeeded") >= count)  # noqa: B023 - awaited at once


async def test_it_can_be_ended_at_any_moment(make_bridge: Callable[..., Bridge], home: Home) -> None:
    await asyncio.to_thread(start_agent, home)
    random = Random(1)  # noqa: S311 - moments, not secrets
    for _ in range(100):
        bridge = make_bridge(Listener(listening=True), unused_s=300)
        bridge.wake()
        for _ in range(random.randrange(30)):
            await asyncio.sleep(0)
        await asyncio.sleep(random.choice((0, 0, 0.001, 0.002, 0.004, 0.008)))
        if random.random() < 0.5:
            bridge.wake()
        async with asyncio.timeout(10):
            await bridge.close()


def test_events_of_unknown_kinds_are_left_out() -> None:
    assert translate({"event": "run", "run": {"id": "1"}}) == (RUN, {"run": {"id": "1"}})
    assert translate({"event": "package", "id": "1", "operation": "insert"}) == (
        PACKAGE,
        {"id": "1", "operation": "insert"},
    )
    assert translate({"event": "weather"}) is None
    assert translate({}) is None


def test_the_schemas_are_those_that_are_told() -> None:
    assert {schema["$id"] for schema in schemas()} == {RUN, STATUS, PACKAGE, ENVIRONMENT}
