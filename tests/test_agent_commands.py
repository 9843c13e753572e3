"""The commands of the agent's queue, sent by another client of the hub."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_agent.openflow.client import Client, Credentials, QueueEvent

from jupyter_agent.errors import ServerRefused
from jupyter_agent.home import AgentClient, Home, read_json
from tests.conftest import make_package, start_agent

WALK = "import os, time\nfor n in range(3):\n    print('step', n, flush=True)\n    time.sleep(0.3)\n"
ENVIRONMENT = """
import json, os
print(json.dumps({"environ": dict(os.environ), "payload": json.load(open(os.environ["payloadfile"]))}))
json.dump({"answer": 42}, open(os.environ["payloadfile"], "w"))
"""


class Caller:
    """A client with a queue of its own, as the web UI has one."""

    def __init__(self, client: Client, queue: str) -> None:
        self.client = client
        self.queue = queue
        self.received: list[QueueEvent] = []
        self.arrived = asyncio.Event()

    async def hear(self, event: QueueEvent) -> None:
        self.received.append(event)
        self.arrived.set()

    async def send(self, to: str, data: dict[str, Any], *, correlation_id: str, strip_token: bool = False) -> None:
        await self.client.queue_message(
            to, data, reply_to=self.queue, correlation_id=correlation_id, strip_token=strip_token
        )

    async def until(self, command: str, **fields: Any) -> dict[str, Any]:
        """The first message with this command and these fields."""
        async with asyncio.timeout(90):
            while True:
                for event in self.received:
                    data = event.data
                    if data.get("command") == command and all(data.get(k) == v for k, v in fields.items()):
                        return dict(data)
                self.arrived.clear()
                await self.arrived.wait()


@pytest.fixture
def running(home: Home) -> AgentClient:
    return start_agent(home)


@pytest.fixture
async def caller(running: AgentClient, home: Home) -> AsyncIterator[Caller]:
    stored = read_json(home.hub / "credentials.json") or {}
    url = running.request("GET", "status")["hub"]["apiurl"]
    credentials = Credentials(username=stored["username"], password=stored["password"])
    async with connected(url, credentials) as made:
        yield made


class connected:  # noqa: N801 - used as a context
    def __init__(self, url: str, credentials: Credentials) -> None:
        self.client = Client(url, credentials, version="1", requests_per_s=None)

    async def __aenter__(self) -> Caller:
        await self.client.__aenter__()
        await self.client.connected(30)
        made = Caller(self.client, "")
        made.queue = (await self.client.register_queue("", made.hear)).name
        return made

    async def __aexit__(self, *arguments: object) -> None:
        await self.client.__aexit__(*arguments)  # type: ignore[arg-type]


def published(agent: AgentClient, folder: Path, program: str, **openiap: Any) -> str:
    make_package(folder, {"main.py": program}, openiap={"language": "python", **openiap})
    package: str = agent.request("POST", "packages", {"path": str(folder)})["id"]
    return package


async def test_runpackage_streams_and_ends(running: AgentClient, caller: Caller, tmp_path: Path) -> None:
    package = await asyncio.to_thread(published, running, tmp_path / "walk", WALK)
    queue = running.request("GET", "status")["queue"]
    await caller.send(queue, {"command": "runpackage", "id": package}, correlation_id="s1")
    assert (await caller.until("runpackage", completed=False))["success"] is True
    end = await caller.until("runpackage", completed=True)
    assert (end["success"], end["exitcode"]) == (True, 0)
    assert "step 2" in end["output"]
    streamed = [event.data["data"] for event in caller.received if event.data.get("command") == "stream"]
    assert all(data["type"] == "Buffer" for data in streamed)
    text = b"".join(bytes(data["data"]) for data in streamed).decode()
    assert [line for line in text.splitlines() if line.startswith("step")] == ["step 0", "step 1", "step 2"]
    assert {event.correlation_id for event in caller.received} == {"s1"}
    row = running.request("GET", "runs")["runs"][0]
    assert (row["trigger"], row["token"]) == ("queue", "sender")


async def test_stream_false_sends_no_output(running: AgentClient, caller: Caller, tmp_path: Path) -> None:
    package = await asyncio.to_thread(published, running, tmp_path / "walk", WALK)
    queue = running.request("GET", "status")["queue"]
    await caller.send(queue, {"command": "runpackage", "id": package, "stream": "false"}, correlation_id="s1")
    run = None
    while run is None or not run["ended"]:
        await asyncio.sleep(0.1)
        runs = running.request("GET", "runs")["runs"]
        run = runs[0] if runs else None
    assert [event.data["command"] for event in caller.received] == ["runpackage"]


async def test_kill_and_listprocesses(running: AgentClient, caller: Caller, tmp_path: Path) -> None:
    package = await asyncio.to_thread(
        published, running, tmp_path / "long", "import time\nprint('up', flush=True)\ntime.sleep(600)\n"
    )
    queue = running.request("GET", "status")["queue"]
    await caller.send(queue, {"command": "runpackage", "id": package, "streamid": "mine"}, correlation_id="s1")
    await caller.until("stream")
    await caller.send(queue, {"command": "listprocesses"}, correlation_id="l1")
    listed = await caller.until("listprocesses")
    assert listed["success"] is True
    assert listed["count"] == 1
    process = listed["processes"][0]
    assert (process["id"], process["packageid"], process["packagename"]) == ("mine", package, "long")
    assert process["streamqueues"] == [caller.queue]
    await caller.send(queue, {"command": "kill", "id": "mine"}, correlation_id="k1")
    assert (await caller.until("kill"))["success"] is True
    end = await caller.until("runpackage", completed=True)
    assert end["success"] is False
    assert end["exitcode"] != 0
    await caller.send(queue, {"command": "kill", "id": "mine"}, correlation_id="k2")
    assert "mine" in (await caller.until("kill", success=False))["error"]


async def test_a_payload_steers_nothing(running: AgentClient, caller: Caller, tmp_path: Path) -> None:
    package = await asyncio.to_thread(published, running, tmp_path / "environment", ENVIRONMENT)
    queue = running.request("GET", "status")["queue"]
    payload = {
        "customer": "Acme", "count": 3, "nested": {"a": 1}, "LD_PRELOAD": "/evil.so", "path": "/evil", "PATH": "/evil",
        "PYTHONSTARTUP": "/evil.py", "NODE_OPTIONS": "--require /evil", "jwt": "stolen", "APIURL": "ws://evil",
        "payloadfile": "/etc/passwd", "BASH_ENV": "/evil", "not a name": "x", "http_proxy": "http://evil",
    }  # fmt: skip
    await caller.send(queue, {"command": "runpackage", "id": package, "payload": payload}, correlation_id="s1")
    end = await caller.until("runpackage", completed=True)
    assert end["success"] is True, end
    seen = json.loads(next(line for line in end["output"].splitlines() if line.startswith("{")))
    assert seen["payload"] == payload
    environ = seen["environ"]
    assert (environ["customer"], environ["count"], json.loads(environ["nested"])) == ("Acme", "3", {"a": 1})
    assert not any("evil" in value or value == "stolen" for value in environ.values())
    assert environ["jwt"]
    assert environ["apiurl"].startswith("ws://127.0.0.1:")
    assert end["payload"] == {"answer": 42}
    assert sys.prefix not in environ.get("VIRTUAL_ENV", ""), "the package has an environment of its own"


async def test_senders_are_checked(running: AgentClient, caller: Caller, home: Home, tmp_path: Path) -> None:
    package = await asyncio.to_thread(published, running, tmp_path / "walk", WALK)
    status = running.request("GET", "status")
    await caller.send(status["queue"], {"command": "runpackage", "id": package}, correlation_id="a", strip_token=True)
    assert (await caller.until("runpackage", success=False))["error"] == "not authenticated"
    forged = {"command": "kill", "id": "x", "__jwt": "a.b.c", "__user": {"name": "root"}}
    await caller.send(status["queue"], forged, correlation_id="b", strip_token=True)
    assert "not authenticated" in (await caller.until("kill", success=False))["error"]

    adding = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jupyter_agent.hub", "user-add", "--home", str(home.path), "guest"),
        stdin=asyncio.subprocess.PIPE,
    )
    await adding.communicate(b"a long password\n")
    assert adding.returncode == 0
    async with connected(status["hub"]["apiurl"], Credentials(username="guest", password="a long password")) as guest:
        with pytest.raises(ServerRefused):
            await guest.send(status["queue"], {"command": "runpackage", "id": package}, correlation_id="c")
        document = (await caller.client.query("agents", {"slug": status["slug"]}))[0]
        document["_acl"].append({"_id": guest.client.user.id, "name": "guest", "rights": 2})  # type: ignore[union-attr]
        await caller.client.update_one("agents", document)
        await guest.send(status["queue"], {"command": "runpackage", "id": package}, correlation_id="d")
        assert "invoke" in (await guest.until("runpackage", success=False))["error"]
        document["_acl"][-1]["rights"] = 2 | 16
        await caller.client.update_one("agents", document)
        await asyncio.sleep(2)  # the agent takes changes of its own document once a second
        guest.received.clear()
        await guest.send(status["queue"], {"command": "runpackage", "id": package}, correlation_id="e")
        assert package in (await guest.until("runpackage", success=False))["error"], "the package may not be read"
    assert running.request("GET", "runs")["runs"] == []


async def test_bad_commands_are_answered(running: AgentClient, caller: Caller) -> None:
    queue = running.request("GET", "status")["queue"]
    await caller.send(queue, {"command": "dance"}, correlation_id="a")
    assert "dance" in (await caller.until("dance"))["error"]
    await caller.send(queue, {"command": "runpackage"}, correlation_id="b")
    assert "id" in (await caller.until("runpackage", success=False))["error"]
    await caller.send(queue, {"command": "runpackage", "id": "nothing"}, correlation_id="c")
    await caller.until(
        "runpackage", error="There is no package 'nothing' on OpenFlow, or it may not be read: publish it first."
    )


async def test_a_result_is_told_after_the_hub_was_away(
    running: AgentClient, caller: Caller, home: Home, tmp_path: Path
) -> None:
    """A named queue outlives the hub; what was printed and how it ended arrive when both ends are back."""
    import os
    import signal

    from tests.conftest import pid_in

    named = Caller(caller.client, "results of mine")
    await caller.client.register_queue(named.queue, named.hear)
    package = await asyncio.to_thread(published, running, tmp_path / "walk", WALK.replace("range(3)", "range(12)"))
    queue = running.request("GET", "status")["queue"]
    await named.send(queue, {"command": "runpackage", "id": package}, correlation_id="s1")
    await named.until("stream")
    os.kill(pid_in(home.hub / "hub.json") or 0, signal.SIGKILL)
    end = await named.until("runpackage", completed=True)
    assert end["success"] is True
    assert "step 11" in end["output"]
