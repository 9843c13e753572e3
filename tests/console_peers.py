"""Who follows runs over the queue, and a package that prints what a test tells it to."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_agent.home import AgentClient, Home
from jupyter_agent.openflow.client import Client, QueueEvent
from tests.agent_peers import Caller
from tests.openflow_peers import Hub, until

TALKER = """
import json, os, time
print("up", flush=True)
with open(json.load(open(os.environ["payloadfile"]))["script"]) as script:
    while (line := script.readline()) != "end\\n":
        if line:
            print(line, end="", flush=True)
        else:
            time.sleep(0.01)
"""


@dataclass
class Script:
    """What a talker is to print."""

    path: Path

    def say(self, *lines: str) -> None:
        with self.path.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def end(self) -> None:
        self.say("end")


@dataclass
class House:
    """An agent on a hub, and its queue."""

    hub: Hub
    home: Home
    agent: AgentClient
    queue: str

    def runs(self) -> list[dict[str, Any]]:
        """All its runs, the newest first."""
        found: list[dict[str, Any]] = self.agent.request("GET", "runs?limit=1000")["runs"]
        return found

    @contextlib.asynccontextmanager
    async def caller(self, client: Client) -> AsyncIterator[Caller]:
        """One more queue of a client's, for as long as the context."""
        made = Caller(client, "")
        queue = await client.register_queue("", made.hear)
        made.queue = queue.name
        yield made
        await queue.close()

    async def run(self, caller: Caller, package: str, name: str, **about: Any) -> dict[str, Any]:
        """Have a package run; the answer."""
        await caller.send(self.queue, {"command": "runpackage", "id": package, **about}, correlation_id=name)
        return await answer(caller, name, "runpackage")

    async def ask(self, caller: Caller, data: dict[str, Any]) -> dict[str, Any]:
        """A command and its answer."""
        name = f"question {len(caller.received)} {data.get('command')}"
        await caller.send(self.queue, data, correlation_id=name)
        return await answer(caller, name)

    async def nothing_runs(self) -> None:
        """Wait until all runs have ended."""
        await until(lambda: self.agent.request("GET", "status")["runs"] == {"active": 0, "queued": 0})


async def answer(caller: Caller, name: str, command: str = "", **fields: Any) -> dict[str, Any]:
    """The first message with this correlation id, command and fields."""

    def found() -> dict[str, Any] | None:
        for event in caller.received:
            data = event.data
            is_it = event.correlation_id == name and command in ("", data.get("command"))
            if is_it and all(data.get(key) == value for key, value in fields.items()):
                return {key: value for key, value in data.items() if not key.startswith("__")}
        return None

    given: dict[str, Any] = await until(found, f"{command or 'an answer'} for {name}")
    return given


def commands(caller: Caller, name: str) -> list[str]:
    """The commands of the messages with this correlation id, but for the output."""
    return [e.data["command"] for e in caller.received if e.correlation_id == name and e.data["command"] != "stream"]


def streamed(received: list[QueueEvent], name: str) -> list[dict[str, Any]]:
    """The messages with a run's output, as they came."""
    return [e.data for e in received if e.correlation_id == name and e.data.get("command") == "stream"]


def text(caller: Caller, name: str) -> str:
    """The output of a run as a queue got it."""
    return b"".join(bytes(each["data"]["data"]) for each in streamed(caller.received, name)).decode()


async def heard(caller: Caller, name: str, words: str) -> None:
    """Wait until these words of a run's output have come."""
    await until(lambda: words in text(caller, name), f"{words!r} of {name}")


async def holds(condition: Callable[[], Any], caller: Caller, house: House) -> None:
    """See that nothing changes until everything that was sent before has arrived: a question goes there and back."""
    await house.ask(caller, {"command": "portclose"})
    assert condition()
