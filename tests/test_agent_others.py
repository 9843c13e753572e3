"""Other agents, seen and steered over their queues: several agents of ours on one hub."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from jupyter_agent.home import AgentClient, Home, RequestFailed
from jupyter_agent.openflow.client import Client, QueueEvent
from jupyter_agent.openflow.rights import Right
from tests.agent_peers import agent_of, published
from tests.conftest import cli, ended, pid_in, start_agent, until
from tests.openflow_peers import Hub

RESULT = """
import json, os, sys
payload = json.load(open(os.environ["payloadfile"]))
print("got", payload["count"], type(payload["count"]).__name__, "é", flush=True)
print("to stderr", file=sys.stderr)
json.dump({**payload, "doubled": 2 * payload["count"]}, open(os.environ["payloadfile"], "w"))
"""
FAILING = "import sys\nprint('no good')\nsys.exit(3)\n"
LONG = "import time\nprint('up', flush=True)\ntime.sleep(600)\n"
SHORT = """
import json, os, time
print("up", flush=True)
time.sleep(1.5)
payload = json.load(open(os.environ["payloadfile"]))
json.dump({**payload, "doubled": 2 * payload["count"]}, open(os.environ["payloadfile"], "w"))
print("down")
"""
COUNTING = "import time\nfor n in range(200):\n    print('line', n, flush=True)\n    time.sleep(0.02)\n"
PROGRAMS = {"result": RESULT, "failing": FAILING, "long": LONG, "short": SHORT, "counting": COUNTING}


class Pair:
    """An agent that asks (with its home, for the command line) and one that is asked."""

    def __init__(self, home: Home, asking: AgentClient, asked_home: Home, asked: AgentClient) -> None:
        self.home, self.asking, self.asked_home, self.asked = home, asking, asked_home, asked
        self.slug: str = asked.request("GET", "status")["slug"]
        self.there = f"agents/{self.slug}/runs"

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return cli(*arguments, home=self.home)

    def run(self, target: str, **body: Any) -> dict[str, Any]:
        run: dict[str, Any] = self.asking.request("POST", self.there, {"target": target, **body})
        return run

    def end(self, run: dict[str, Any]) -> dict[str, Any]:
        """The run once it has ended, as the asking agent knows it."""
        over = lambda: (now := self.asking.request("GET", f"{self.there}/{run['id']}"))["ended"] and now  # noqa: E731
        found: dict[str, Any] = until(over, what=f"{run['id']} ends")
        return found

    def output(self, run: dict[str, Any]) -> str:
        page = self.asking.request("GET", f"{self.there}/{run['id']}/output")
        return "".join(chunk["text"] for chunk in page["chunks"])


@pytest.fixture(scope="module")
def pair(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("packages")
    with agent_of(hub) as (home, asking), agent_of(hub) as (asked_home, asked):
        for name, program in PROGRAMS.items():
            published(asking, folder / name, program)
        yield Pair(home, asking, asked_home, asked)


async def unheard(_event: QueueEvent) -> None:
    """Nothing comes."""


def refused(agent: AgentClient, method: str, path: str, body: object = None) -> RequestFailed:
    with pytest.raises(RequestFailed) as failed:
        agent.request(method, path, body)
    return failed.value


def test_agents_are_listed_with_who_is_there(pair: Pair) -> None:
    own = pair.asking.request("GET", "status")["slug"]
    listed = {each["slug"]: each for each in pair.asking.request("GET", "agents")}
    assert (listed[own]["self"], listed[own]["online"]) == (True, True)
    other = listed[pair.slug]
    assert (other["self"], other["online"], other["may_invoke"], "python" in other["languages"]) == (
        False, True, True, True,
    )  # fmt: skip
    assert pair.asking.request("GET", f"agents/{other['id']}") == pair.asking.request("GET", f"agents/{pair.slug}")
    shown = pair.cli("agents", "list")
    assert shown.returncode == 0
    assert re.search(rf"online +{pair.slug}", shown.stdout)
    assert {each["slug"] for each in json.loads(pair.cli("agents", "list", "--json").stdout)} == set(listed)


async def test_nothing_is_sent_to_an_agent_that_nobody_listens_for(pair: Pair, client: Client) -> None:
    documents = [{"_type": "agent", "slug": f"nobody-{n}", "name": "nobody", "languages": ["python"]} for n in (1, 2)]
    added = [await client.insert_one("agents", each) for each in documents]
    try:
        missing = await asyncio.to_thread(refused, pair.asking, "POST", "agents/nobody-1/runs", {"target": "result"})
        assert (missing.status, "not connected" in str(missing)) == (503, True)
        twins = await asyncio.to_thread(refused, pair.asking, "GET", "agents/nobody")
        assert (twins.status, "2 agents are named nobody" in str(twins)) == (400, True)
        queue = await client.register_queue("nobody-1agent", unheard)  # refused where it is on the list of bad ones
        await queue.close()
        assert not (await asyncio.to_thread(pair.asking.request, "GET", "agents/nobody-1"))["online"]
        offline = await asyncio.to_thread(pair.cli, "run", "result", "--agent", "nobody-2")
        assert (offline.returncode, "not connected" in offline.stderr) == (1, True)
    finally:
        for document in added:
            await client.delete_one("agents", document["_id"])


def test_a_run_there_with_parameters_output_and_results(pair: Pair) -> None:
    done = pair.cli("run", "result", "--agent", pair.slug, "-p", "count=21", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert (run["state"], run["exit_code"], run["results"]) == ("succeeded", 0, {"doubled": 42})
    assert (run["agent"], run["parameters"], run["package"]) == (pair.slug, {"count": 21}, "result")
    assert "got 21 int é" in done.stderr
    local = pair.asked.request("GET", "runs?limit=1")["runs"][0]
    assert (local["state"], local["trigger"]) == ("succeeded", "queue")
    assert set(local) <= set(run)
    plain = pair.cli("run", "result", "--agent", pair.slug, "-p", "count=1")
    assert (plain.returncode, "got 1 int é" in plain.stdout) == (0, True)


def test_a_run_that_fails_there(pair: Pair) -> None:
    done = pair.cli("run", "failing", "--agent", pair.slug, "--json")
    run = json.loads(done.stdout)
    assert (done.returncode, run["state"], run["exit_code"]) == (1, "failed", 3)
    assert run["error"]
    assert "no good" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("no-such-package",), "There is no package"),
        (("./result",), "Another agent cannot see"),
        (("result", "--isolated"), "--isolated cannot be asked of another agent"),
        (("result", "--timeout", "5", "--key", "x"), "--timeout, --key cannot be asked"),
    ],
)
def test_what_cannot_be_run_there(pair: Pair, arguments: tuple[str, ...], sentence: str) -> None:
    done = pair.cli("run", *arguments, "--agent", pair.slug)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_an_agent_that_there_is_not(pair: Pair) -> None:
    for command in (("run", "result"), ("runs", "list"), ("runs", "cancel", "last"), ("runs", "logs", "abcd")):
        done = pair.cli(*command, "--agent", "no-such-agent")
        assert (done.returncode, "There is no agent" in done.stderr) == (1, True), command


def test_ctrl_c_cancels_the_run_there(pair: Pair) -> None:
    command = [sys.executable, "-m", "jupyter_agent.cli", "run", "long", "--agent", pair.slug, "--json"]
    environment = {**os.environ, "JUPYTER_AGENT_HOME": str(pair.home.path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        for line in process.stderr:
            if line.strip() == "up":
                break
        process.send_signal(signal.SIGINT)
        run = json.loads(process.stdout.read())
        process.stderr.read()
    assert (process.returncode, run["state"]) == (130, "cancelled")
    assert pair.asked.request("GET", "runs?limit=1")["runs"][0]["state"] == "cancelled"


def test_a_detached_run_is_listed_and_cancelled(pair: Pair) -> None:
    started = pair.cli("run", "long", "--agent", pair.slug, "--detach")
    run_id = started.stdout.strip()
    assert run_id in pair.cli("runs", "list", "--agent", pair.slug).stdout
    (listed,) = json.loads(pair.cli("runs", "list", "--agent", pair.slug, "--json").stdout)
    assert (listed["id"], listed["package"], listed["ports"]) == (run_id, "long", [])
    until(lambda: "up" in pair.output({"id": run_id}))
    assert "up" in pair.cli("runs", "logs", run_id[:10], "--agent", pair.slug).stdout
    done = pair.cli("runs", "cancel", "last", "--agent", pair.slug)
    assert (done.returncode, "cancelled" in done.stdout) == (0, True), done.stderr
    again = pair.cli("runs", "cancel", run_id, "--agent", pair.slug)
    assert (again.returncode, "has ended already" in again.stderr) == (1, True)
    assert "Nothing runs" in pair.cli("runs", "list", "--agent", pair.slug).stderr


def test_a_run_of_somebody_else_is_followed_from_its_beginning(pair: Pair) -> None:
    run = pair.asked.request("POST", "runs", {"target": "long"})
    until(lambda: pair.asked.request("GET", f"runs/{run['id']}")["state"] == "running")
    until(lambda: "up" in str(pair.asked.request("GET", f"runs/{run['id']}/output")))
    assert pair.asking.request("GET", f"{pair.there}/{run['id']}")["package"] == "long"
    assert "up" in pair.cli("runs", "logs", run["id"], "--agent", pair.slug).stdout
    done = pair.cli("runs", "cancel", run["id"], "--agent", pair.slug, "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "cancelled"), done.stderr
    assert ended(pair.asked, run["id"])["state"] == "cancelled"


def test_all_runs_there_are_cancelled_at_once(pair: Pair) -> None:
    runs = [pair.run("long") for _ in range(3)]
    until(lambda: len(pair.asking.request("GET", pair.there)) == 3)
    assert pair.asking.request("POST", f"agents/{pair.slug}/cancel")["cancelled"] == 3
    assert {pair.end(run)["state"] for run in runs} == {"cancelled"}


def test_preparing_and_testing_there(pair: Pair) -> None:
    path = f"agents/{pair.slug}/packages/result"
    made = pair.asking.request("POST", f"{path}/prepare", {})
    assert (made["kind"], made["state"]) == ("prepare", "preparing")
    assert pair.end(made)["state"] == "succeeded"
    tried = pair.asking.request("POST", f"agents/{pair.slug}/packages/long/testrun", {"kill_after_s": 2})
    over = pair.end(tried)
    assert over["ended"]
    assert "up" in pair.output(tried)
    running = pair.run("long")
    answer = pair.asking.request("POST", f"agents/{pair.slug}/packages/long/reinstall")
    assert answer["cancelled"] in (None, 1)
    assert pair.end(running)["state"] != "succeeded"


def test_a_hub_that_restarts_in_the_middle_costs_no_output(pair: Pair, hub: Hub) -> None:
    run = pair.run("counting")
    until(lambda: "line 20\n" in pair.output(run))
    hub.kill()
    hub.start()
    over = pair.end(run)
    assert (over["state"], over["exit_code"]) == ("succeeded", 0), over
    lines = [line for line in pair.output(run).splitlines() if line.startswith("line")]
    assert lines == [f"line {n}" for n in range(200)]


def test_a_run_that_ends_while_the_hub_is_away_is_told_of_afterwards(pair: Pair, hub: Hub) -> None:
    run = pair.run("short", parameters={"count": 5})
    until(lambda: "up" in pair.output(run))
    hub.kill()
    there = pair.asked.request("GET", "runs?limit=1")["runs"][0]["id"]
    assert ended(pair.asked, there)["state"] == "succeeded"
    hub.start()
    over = pair.end(run)
    assert (over["state"], over["exit_code"], over["results"]) == ("succeeded", 0, {"doubled": 10}), over
    assert pair.output(run).split()[-2:] == ["up", "down"]


def test_our_own_agent_dies_while_a_run_there_is_followed(pair: Pair) -> None:
    command = [sys.executable, "-m", "jupyter_agent.cli", "run", "counting", "--agent", pair.slug]
    environment = {**os.environ, "JUPYTER_AGENT_HOME": str(pair.home.path)}
    told = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line.strip())
            if line == "line 50\n":
                os.kill(pid_in(pair.home.agent_file) or 0, signal.SIGKILL)
    assert process.returncode == 0
    assert [line for line in told if line.startswith("line")] == [f"line {n}" for n in range(200)]
    pair.asking = start_agent(pair.home)


def test_an_agent_that_dies_during_a_run(pair: Pair, hub: Hub) -> None:
    with agent_of(hub) as (home, dying):
        slug = dying.request("GET", "status")["slug"]
        run = pair.asking.request("POST", f"agents/{slug}/runs", {"target": "long"})
        lines = pair.asking.lines(f"agents/{slug}/runs/{run['id']}/stream")
        assert next(line for line in lines if "up" in line.get("text", ""))
        os.kill(pid_in(home.agent_file) or 0, signal.SIGKILL)
        last = list(lines)[-1]["run"]
        assert (last["state"], f"The agent {slug} went away" in last["error"]) == ("lost", True)
        gone = refused(pair.asking, "POST", f"agents/{slug}/runs", {"target": "long"})
        assert (gone.status, "not connected" in str(gone)) == (503, True)


async def test_who_may_not_invoke_is_told_so(pair: Pair, hub: Hub, client: Client, ann: Client) -> None:
    assert ann.user is not None
    (document,) = await client.query("agents", {"slug": pair.slug})
    entry = {"_id": ann.user.id, "name": "ann", "rights": int(Right.READ)}
    await client.update_one("agents", {**document, "_acl": [*document["_acl"], entry]})
    with agent_of(hub, jwt=await ann.mint_token(long=True)) as (home, hers):
        listed = {each["slug"]: each for each in await asyncio.to_thread(hers.request, "GET", "agents")}
        assert not listed[pair.slug]["may_invoke"]
        no = await asyncio.to_thread(refused, hers, "POST", f"agents/{pair.slug}/runs", {"target": "result"})
        assert (no.status in (403, 503), "invoke" in str(no) or "not be seen" in str(no)) == (True, True)
        done = await asyncio.to_thread(lambda: cli("runs", "list", "--agent", pair.slug, home=home))
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        hidden = await asyncio.to_thread(refused, hers, "GET", "agents/of-nobody-at-all")
        assert hidden.status == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "runs", {}, 400),
        ("POST", "runs", {"target": ""}, 400),
        ("POST", "runs", {"target": 5}, 400),
        ("POST", "runs", {"target": "result", "isolated": True}, 400),
        ("POST", "runs", {"target": "result", "parameters": []}, 400),
        ("POST", "runs", {"target": "result", "parameters_yaml": {"a": 5}}, 400),
        ("POST", "runs", [], 400),
        ("POST", "runs", "x", 400),
        ("POST", "runs", {"target": "/etc/passwd"}, 400),
        ("POST", "runs/x/cancel", None, 404),
        ("POST", "runs/x/cancel", {"now": True}, 400),
        ("GET", "runs/%00", None, 404),
        ("GET", "runs/%2e%2e%2f%2e%2e", None, 404),
        ("GET", "runs/" + "x" * 5000, None, 404),
        ("GET", "runs/%ff%fe", None, 400),
        ("GET", "runs/x/stream?offset=-1", None, 400),
        ("GET", "runs/x/output?limit=x", None, 400),
        ("POST", "packages/nothing/prepare", None, 404),
        ("POST", "packages/result/testrun", {"kill_after_s": -1}, 400),
        ("POST", "packages/result/testrun", {"kill_after_s": "1"}, 400),
        ("POST", "packages/result/prepare", {"x": 1}, 400),
        ("POST", "cancel", {"x": 1}, 400),
        ("POST", "nothing", {}, 404),
    ],
)
def test_bad_requests(pair: Pair, method: str, path: str, body: object, status: int) -> None:
    failed = refused(pair.asking, method, f"agents/{pair.slug}/{path}", body)
    assert failed.status == status, str(failed)
    assert str(failed).strip()
    assert "Traceback" not in str(failed)
    assert "\n" not in str(failed)
