"""``kill -9`` of the agent at random moments: what it had begun is known, ended once, and told."""

from __future__ import annotations

import asyncio
import collections
import os
import random
import signal
from pathlib import Path
from typing import Any

import psutil

from jupyter_agent.home import AgentClient, Home
from jupyter_agent.openflow.client import Credentials
from tests.agent_peers import Caller, agent_of, connected, published
from tests.conftest import make_package, pid_in, start_agent, until
from tests.openflow_peers import Hub

SEED = int(os.environ.get("JUPYTER_AGENT_SEED", "0")) or random.SystemRandom().randrange(1 << 31)
LATEST_S = 0.5
RETRIES = 2
CHILD = """
import json, os, subprocess, sys, time
payload = json.load(open(os.environ["payloadfile"]))
with open(payload["journal"], "a") as journal:
    journal.write(payload["name"] + "\\n")
away = {"start_new_session": True, "env": {}, "stdout": -3, "stderr": -3}
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", os.getcwd()], **away)
print("begun", flush=True)
time.sleep(payload["seconds"])
"""


def survivors(home: Home) -> list[list[str]]:
    """Processes of the home's runs: their command lines name its folder of runs."""
    found = []
    for process in psutil.process_iter():
        try:
            if f"{home.runs}/" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


def kill(home: Home) -> None:
    pid = pid_in(home.agent_file)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid))  # gone altogether: its threads may hold the socket longer than it lives
    until(lambda: not survivors(home), deadline_s=30, what="no child survives, without another agent")


def rows_of(agent: AgentClient) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = agent.request("GET", f"runs?limit=200&cursor={cursor}")
        rows += page["runs"]
        if not page["cursor"]:
            return rows
        cursor = page["cursor"]


async def ask_for_runs(agent: AgentClient, caller: Caller, wanted: dict[str, Any]) -> None:
    """One run of each kind: asked for here, with further attempts, and by another client."""

    def here(name: str, **also: Any) -> None:
        parameters = {**wanted["payload"], "name": name}
        agent.request("POST", "runs", {"target": wanted["folder"], "parameters": parameters, **also})

    name = wanted["name"]
    await asyncio.to_thread(here, f"once-{name}")
    await asyncio.to_thread(here, f"again-{name}", retries=RETRIES, retry_delay_s=0.1)
    queue = (await asyncio.to_thread(agent.request, "GET", "status"))["queue"]
    payload = {**wanted["payload"], "name": f"told-{name}"}
    await caller.send(
        queue, {"command": "runpackage", "id": wanted["package"], "payload": payload}, correlation_id=f"told-{name}"
    )


async def test_the_agent_is_killed_at_random_moments(hub: Hub, tmp_path: Path, budgets: dict[str, int]) -> None:
    chance = random.Random(SEED)  # noqa: S311 - a test's
    print(f"seed {SEED}")
    journal = tmp_path / "journal"
    journal.touch()
    with agent_of(hub) as (home, first):
        agent = first
        wanted = {
            "folder": str(make_package(tmp_path / "here", {"main.py": CHILD}, openiap={"language": "python"})),
            "package": await asyncio.to_thread(published, agent, tmp_path / "there", CHILD),
        }
        async with connected(hub.url, Credentials(jwt=hub.ready["jwt"])) as caller:
            for round_ in range(budgets["agent_kills"]):
                payload = {"journal": str(journal), "seconds": chance.choice([0, 0.2, 600])}
                await ask_for_runs(agent, caller, {**wanted, "payload": payload, "name": str(round_)})
                await asyncio.sleep(chance.random() * LATEST_S)
                await asyncio.to_thread(kill, home)
                agent = await asyncio.to_thread(start_agent, home)
                for run in await asyncio.to_thread(rows_of, agent):  # what would go on for ever is ended
                    if not run["ended"] and run["parameters"]["seconds"] > 1:
                        await asyncio.to_thread(agent.request, "POST", f"runs/{run['id']}/cancel", {})
            await asyncio.to_thread(
                until, lambda: all(run["ended"] for run in rows_of(agent)), what="no row is left open"
            )
            accepted = {
                event.correlation_id
                for event in caller.received
                if event.data.get("command") == "runpackage"
                and event.data.get("success")
                and not event.data["completed"]
            }
            for name in accepted:
                await heard(caller, name)
        rows = rows_of(agent)
        assert not survivors(home)
    begun = collections.Counter(journal.read_text().split())
    assert len(accepted) >= budgets["agent_kills"] // 2
    assert {name: count for name, count in begun.items() if count > (RETRIES + 1 if "again" in name else 1)} == {}
    assert {run["state"] for run in rows} <= {"succeeded", "lost", "cancelled"}
    for run in rows:
        name = run["parameters"]["name"]
        assert run["attempt"] >= begun[name] or run["retries"] == 0, run
        if run["state"] == "succeeded":
            assert begun[name] >= 1


async def heard(caller: Caller, name: str) -> None:
    """Wait for the end of a run that was asked for under this name."""
    async with asyncio.timeout(60):
        while not any(
            event.correlation_id == name and event.data.get("command") == "runpackage" and event.data.get("completed")
            for event in caller.received
        ):
            caller.arrived.clear()
            await caller.arrived.wait()
