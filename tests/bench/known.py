"""What it costs an agent that there are very many packages, of which it has some."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import psutil

from jupyter_agent.home import AgentClient, Home
from jupyter_agent.openflow.client import Client
from tests.agent_peers import first_user
from tests.bench.figures import Figure, bench
from tests.bench.measures import MIB, new_home
from tests.conftest import ended, make_package, start_agent

KNOWN = 10_000
HERE = 20
IDLE_S = 30


@bench(
    "packages_known",
    goal="with 10,000 packages idle under 1 % of a core, and 60 MB over an agent with none",
    kind="budget",
)
def packages_known() -> Iterator[Figure]:
    """An agent before which 10,000 packages were made and listed, with 20 of them on its disk; and one with none."""
    with running() as (_, agent):
        bare_percent, bare_mb = idle(agent)
    with running() as (home, agent):
        for number in range(HERE):
            folder = make_package(home.path.parent / f"p{number}", {"main.sh": "true\n"}, openiap={"language": "shell"})
            package = agent.request("POST", "packages", {"path": str(folder)})["id"]
            assert ended(agent, agent.request("POST", f"packages/{package}/runs", {})["id"])["state"] == "succeeded"
        asyncio.run(make_known(home, agent))
        assert len(agent.request("GET", "packages")) == KNOWN + HERE
        percent, mb = idle(agent)
    yield Figure(round(percent, 2), "% of a core", "an agent with none", round(bare_percent, 2), "packages_known_cpu")
    yield Figure(round(mb - bare_mb, 1), "MB", "an agent with none", round(bare_mb, 1), "packages_known_memory")


@contextlib.contextmanager
def running() -> Iterator[tuple[Home, AgentClient]]:
    """An agent on a home of its own."""
    with new_home() as home:
        yield home, start_agent(home)


def idle(agent: AgentClient) -> tuple[float, float]:
    """Percent of a core and MiB of an agent that nobody asks for anything."""
    process = psutil.Process(agent.request("GET", "status")["agent"]["pid"])
    before, start = process.cpu_times(), time.monotonic()
    time.sleep(IDLE_S)
    after = process.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    return 100 * used_s / (time.monotonic() - start), process.memory_info().rss / MIB


async def make_known(home: Home, agent: AgentClient) -> None:
    """Packages in OpenFlow, as large as they usually are, made while the agent watches."""
    url = agent.request("GET", "status")["hub"]["apiurl"]
    async with Client(url, first_user(home), version="1", requests_per_s=None) as client:
        await client.connected(30)
        for start in range(0, KNOWN, 500):
            await client.insert_many("agents", [document(number) for number in range(start, start + 500)])


def document(number: int) -> dict[str, object]:
    """A package's document."""
    return {
        "_type": "package",
        "id": f"@team/package-{number}",
        "name": f"@team/package-{number}",
        "description": "What it does, in a sentence that is as long as such sentences are.",
        "version": f"1.{number}.0",
        "author": "Ann <ann@example.org>",
        "language": "nodejs",
        "main": "index.js",
        "fileid": "",
        "ports": [{"portname": "web", "port": 3000, "protocol": "TCP", "web": True}],
        "openiap": {"language": "nodejs", "ports": [{"portname": "web", "port": 3000}]},
    }
