"""Output over a hub that does not stay: runs stream on, nothing is lost or twice, and what is owed arrives."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.openflow.client import Client, QueueEvent
from tests.agent_peers import Caller, agent_of, published
from tests.conftest import printed
from tests.console_peers import House, answer
from tests.hub_peers import hub_on_a_new_home
from tests.openflow_peers import DEADLINE_S, Hub, until

RUNS = 20
PAUSE_S = 10.0
"""Between two restarts of the hub."""

COUNTER = """
import itertools, json, os, time
given = json.load(open(os.environ["payloadfile"]))
for n in itertools.count():
    print(f"{given['name']} {n:06} " + "x" * 60, flush=True)
    if os.path.exists(given["stop"]):
        break
    time.sleep(0.05)
print("last", n, flush=True)
"""


@dataclass
class Heard:
    """What a queue that outlives the hub has got, by run."""

    queue: str
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ends: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def hear(self, event: QueueEvent) -> None:
        kind = self.parts if event.data["command"] == "stream" else self.ends
        kind.setdefault(event.correlation_id, []).append(event.data)
        self.arrived.set()

    def over(self, name: str) -> dict[str, Any] | None:
        """The last message of a run."""
        ends = [end for end in self.ends.get(name, ()) if end["command"] == "runpackage" and end["completed"]]
        return ends[-1] if ends else None

    async def until_all_are_over(self, names: list[str]) -> None:
        async with asyncio.timeout(4 * DEADLINE_S):
            while not all(self.over(name) for name in names):
                self.arrived.clear()
                await self.arrived.wait()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    (tmp_path / "jupyter_agent_config.py").write_text(f"c.Agent.max_runs = {RUNS}\n")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    with hub_on_a_new_home() as hub, agent_of(hub) as (home, agent):
        yield House(hub, home, agent, agent.request("GET", "status")["queue"])


@pytest.fixture
async def listener(house: House) -> AsyncIterator[Client]:
    async with house.hub.client() as client:
        await client.connected()
        yield client


async def restart(hub: Hub, *, politely: bool) -> None:
    """End the hub, by its leave or without, and start it again on its port."""
    if politely:
        process = hub.process
        assert process is not None
        process.terminate()
        await asyncio.to_thread(process.wait)
    await asyncio.to_thread(hub.kill)
    await asyncio.to_thread(hub.start)


async def test_a_hub_that_restarts_loses_and_doubles_nothing_of_runs_that_stream(
    house: House, listener: Client, tmp_path: Path, budgets: dict[str, int]
) -> None:
    """Twenty runs print all the time; one queue asked for them, another follows all of the agent.

    The protocol delivers at most once: what a hub has acknowledged and given to a connection that breaks in that moment
    is gone (protocol §11), and nobody can tell. Such a gap is seen by the offsets; it is of the messages of that moment
    alone, and what the run's end tells and the run's own log hold everything. What comes twice says ``again``: its
    acknowledgement was lost.
    """
    package = await asyncio.to_thread(published, house.agent, tmp_path / "counter", COUNTER)
    asked, watched = Heard("asked for"), Heard("follows all")
    for each in (asked, watched):
        await listener.register_queue(each.queue, each.hear)
    names = [f"run {n}" for n in range(RUNS)]
    stop = tmp_path / "stop"
    async with house.caller(listener) as caller:
        adding = {"command": "addcommandstreamid", "streamqueue": watched.queue}
        await caller.send(house.queue, adding, correlation_id="add")
        await ask_for_all(caller, house, names, {"id": package, "queuename": asked.queue, "stop": str(stop)})
    async with asyncio.timeout(4 * DEADLINE_S):
        while len(asked.parts) < RUNS or len(watched.parts) < RUNS:
            await asked.arrived.wait()
            await asyncio.sleep(0.1)

    restarts = budgets["hub_restarts"]
    for n in range(restarts):
        await asyncio.sleep(PAUSE_S)
        await restart(house.hub, politely=n % 2 == 0)
    await listener.connected()
    stop.touch()
    await asked.until_all_are_over(names)
    await watched.until_all_are_over(names)

    rows = {run["parameters"]["name"]: run for run in house.runs()}
    for name in names:
        printed_by_it = await asyncio.to_thread(printed, house.agent, rows[name]["id"], None)
        check_log(name, printed_by_it)
        results = [end for end in asked.ends[name] if end.get("output") is not None]
        assert [bool(end.get("again")) for end in results] == [False, *[True] * (len(results) - 1)]
        assert (results[0]["success"], results[0]["exitcode"], results[0]["output"]) == (True, 0, printed_by_it)
        assert watched.over(name) is not None
        for heard in (asked, watched):
            lost = check_parts(heard.parts[name], printed_by_it.encode())
            assert lost <= restarts, "a gap is of the moment in which a hub ended"


async def test_an_answer_that_was_due_while_the_hub_was_away_comes_when_it_is_back(
    house: House, listener: Client, tmp_path: Path
) -> None:
    sleeper = "import time\nprint('up', flush=True)\ntime.sleep(600)\n"
    package = await asyncio.to_thread(published, house.agent, tmp_path / "sleeper", sleeper)
    asker = Caller(listener, "answers that wait")
    await listener.register_queue(asker.queue, asker.hear)
    command = {"command": "testrunpackage", "packageid": package, "kill_after_seconds": 1}
    await asker.send(house.queue, command, correlation_id="tried")

    def states() -> list[str]:
        return [run["state"] for run in house.runs()]

    await until(lambda: states() == ["running"], "it runs")
    await asyncio.to_thread(house.hub.kill)
    await until(lambda: states() == ["timed_out"], "its time is over")
    await asyncio.to_thread(house.hub.start)
    told = await answer(asker, "tried")
    assert (told["success"], told["output"].endswith("up\n")) == (True, True)


async def ask_for_all(caller: Caller, house: House, names: list[str], about: dict[str, str]) -> None:
    for name in names:
        payload = {"name": name, "stop": about["stop"]}
        told = await house.run(caller, about["id"], name, queuename=about["queuename"], payload=payload)
        assert told["success"] is True


def check_log(name: str, text: str) -> None:
    """All that the program has printed, in order."""
    lines = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    assert [int(line.split()[2]) for line in lines] == list(range(len(lines)))
    assert f"last {len(lines) - 1}\n" in text


def check_parts(parts: list[dict[str, Any]], whole: bytes) -> int:
    """That what came is in order, as printed, and twice only where it says so; the number of gaps."""
    seen: dict[int, dict[str, Any]] = {}
    for part in parts:
        if (before := seen.get(part["offset"])) is not None:
            assert part.get("again"), f"{part['offset']} came twice, though its acknowledgement was not lost"
            assert before["data"] == part["data"]
        seen.setdefault(part["offset"], part)
    firsts = list(seen.values())
    for part in firsts:
        assert bytes(part["data"]["data"]) == whole[part["offset"] : part["next"]]
    for one, other in itertools.pairwise(firsts):
        assert one["next"] <= other["offset"]
    gaps: int = sum(one["next"] < other["offset"] for one, other in itertools.pairwise(firsts))
    print(json.dumps({"messages": len(parts), "twice": len(parts) - len(firsts), "gaps": gaps}))
    return gaps + int(firsts[0]["offset"] > 0) + int(firsts[-1]["next"] < len(whole))
