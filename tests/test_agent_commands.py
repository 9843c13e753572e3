"""The commands of the agent's queue, sent by another client of the hub."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jupyter_agent.errors import ServerRefused
from jupyter_agent.home import AgentClient, Home
from jupyter_agent.openflow.client import Credentials
from tests.agent_peers import Caller, connected, first_user, published
from tests.conftest import ended, start_agent

WALK = "import os, time\nfor n in range(3):\n    print('step', n, flush=True)\n    time.sleep(0.3)\n"
ENVIRONMENT = """
import json, os
print(json.dumps({"environ": dict(os.environ), "payload": json.load(open(os.environ["payloadfile"]))}))
json.dump({"answer": 42}, open(os.environ["payloadfile"], "w"))
"""


@pytest.fixture
def running(home: Home) -> AgentClient:
    return start_agent(home)


@pytest.fixture
async def caller(running: AgentClient, home: Home) -> AsyncIterator[Caller]:
    async with connected(running.request("GET", "status")["hub"]["apiurl"], first_user(home)) as made:
        yield made


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


async def test_the_queue_runs_packages_only(running: AgentClient, caller: Caller, tmp_path: Path) -> None:
    """A path is for the home's own user: whoever may invoke the agent may not run any file of its machine."""
    (tmp_path / "mine.py").write_text("print('secret')\n")
    queue = running.request("GET", "status")["queue"]
    await caller.send(queue, {"command": "runpackage", "id": str(tmp_path / "mine.py")}, correlation_id="a")
    assert "mine.py" in (await caller.until("runpackage", success=False))["error"]
    assert running.request("GET", "runs")["runs"] == []


async def test_a_run_without_stream_can_be_killed_by_its_name(
    running: AgentClient, caller: Caller, tmp_path: Path
) -> None:
    package = await asyncio.to_thread(published, running, tmp_path / "long", "import time\ntime.sleep(600)\n")
    queue = running.request("GET", "status")["queue"]
    await caller.send(queue, {"command": "runpackage", "id": package, "stream": False}, correlation_id="mine")
    await caller.until("runpackage", completed=False)
    await caller.send(queue, {"command": "kill", "id": "mine"}, correlation_id="k")
    assert (await caller.until("kill"))["success"] is True
    run = running.request("GET", "runs")["runs"][0]
    assert (await asyncio.to_thread(ended, running, run["id"]))["state"] == "cancelled"


async def test_the_settings_limit_what_the_queue_runs(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jupyter_agent_config.py").write_text("c.Agent.timeout_s = 1.0\nc.Agent.grace_s = 1.0\n")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    running = start_agent(home)
    async with connected(running.request("GET", "status")["hub"]["apiurl"], first_user(home)) as caller:
        package = await asyncio.to_thread(published, running, tmp_path / "long", "import time\ntime.sleep(600)\n")
        queue = running.request("GET", "status")["queue"]
        await caller.send(queue, {"command": "runpackage", "id": package}, correlation_id="a")
        assert "limit of 1 s" in (await caller.until("runpackage", completed=True))["error"]


BAD_PAYLOADS = {
    "half a surrogate pair": """open(p, "w").write('{"a": "\\\\ud800"}')""",
    "too deep": """open(p, "w").write('{"a":' * 100000)""",
    "not JSON": """open(p, "wb").write(b"\\xff\\xfe")""",
    "a FIFO": """os.unlink(p); os.mkfifo(p)""",
    "a huge integer": """open(p, "w").write('{"a": 1' + "0" * 5000 + '}')""",
    "a date of YAML": """open(p, "w").write('{"a": NaN}')""",
    "too big": """open(p, "w").write('{"a": "' + "x" * (170 << 20) + '"}')""",
}


@pytest.mark.parametrize("bad", BAD_PAYLOADS)
async def test_a_result_arrives_whatever_the_package_made_of_its_payload(
    running: AgentClient, caller: Caller, tmp_path: Path, bad: str
) -> None:
    program = f"import os\np = os.environ['payloadfile']\n{BAD_PAYLOADS[bad]}\nprint('done')\n"
    package = await asyncio.to_thread(published, running, tmp_path / "bad", program)
    queue = running.request("GET", "status")["queue"]
    await caller.send(queue, {"command": "runpackage", "id": package}, correlation_id="a")
    assert (await caller.until("runpackage", completed=True))["success"] is True
