"""Packages from the order to their first output, beside the official agent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from jupyter_agent.home import Home
from jupyter_agent.openflow.client import Client
from tests.agent_peers import Caller, connected, first_user
from tests.bench.figures import Figure, bench
from tests.bench.measures import new_home
from tests.conftest import make_package, start_agent
from tests.interop.official import MODULES, install

ROUNDS = 30
PROGRAM = "const ms = require('ms'); console.log('first output', Date.now(), ms('2 days'));\n"
MARK = b"first output"

PAUSE_S = 0.5
"""Between two turns, so that one agent's afterwork is none of the other's time."""

PASSED_ON = ("PATH", "LANG", "TMPDIR")
"""Variables that all three have: others make node itself slower (``NODE_EXTRA_CA_CERTS`` by 40 ms)."""


@bench(
    "package_start",
    goal="a prepared Node package, from the command to its first output, less the same of a bare node: "
    "at least 5 times less than @openiap/nodeagent 0.0.45",
    kind="comparison",
)
def package_start() -> Iterator[Figure]:
    """Milliseconds over the queue on one hub, both agents and a bare node by turns; and whole, with node's own.

    Ours has a node ready, so that it may be quicker than a bare one: less than nothing counts as 1 ms.
    """
    with new_home() as home:
        ours, theirs, bare = asyncio.run(measured(home))
    ms = {name: statistics.median(times) for name, times in (("ours", ours), ("theirs", theirs), ("bare", bare))}
    peer = "@openiap/nodeagent 0.0.45"
    yield Figure(max(1.0, round(ms["ours"] - ms["bare"], 1)), "ms", peer, round(ms["theirs"] - ms["bare"], 1))
    yield Figure(round(ms["ours"], 1), "ms", peer, round(ms["theirs"], 1), "package_start_with_node")


async def measured(home: Home) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of ours, of the official agent and of a bare node."""
    install()
    agent = start_agent(home)
    folder = make_package(
        home.path.parent / "clock",
        {"main.js": PROGRAM},
        main="main.js",
        dependencies={"ms": "2.1.3"},
        openiap={"language": "nodejs"},
    )
    package = agent.request("POST", "packages", {"path": str(folder)})["id"]
    status = agent.request("GET", "status")
    own = status["queue"]
    await asyncio.to_thread(subprocess.run, ["npm", "install", "--silent"], cwd=folder, check=True, timeout=120)
    async with connected(status["hub"]["apiurl"], first_user(home)) as caller, official(caller, status, home) as other:
        times: dict[str, list[float]] = {own: [], other: []}
        bare = []
        for turn in range(ROUNDS + 2):
            for queue, found in times.items():
                found.append(await order(caller, queue, package, f"{queue}-{turn}"))
            bare.append(await asyncio.to_thread(bare_start, folder))
            await asyncio.sleep(PAUSE_S)
        return times[own][2:], times[other][2:], bare[2:]


def bare_start(folder: Path) -> float:
    """Milliseconds of the same program without any agent, to its first output."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    start = time.perf_counter()
    with subprocess.Popen(["node", "main.js"], cwd=folder, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        return (time.perf_counter() - start) * 1000


async def order(caller: Caller, queue: str, package: str, name: str) -> float:
    """Milliseconds from the command to the first of the program's output; then it has ended."""
    caller.received.clear()
    start = time.perf_counter()
    data = {"command": "runpackage", "id": package, "stream": True, "queuename": caller.queue}
    await caller.send(queue, data, correlation_id=name)
    async with asyncio.timeout(60):
        while not any(is_first(event.data) for event in caller.received):
            caller.arrived.clear()
            await caller.arrived.wait()
        taken = (time.perf_counter() - start) * 1000
    await caller.until("runpackage", completed=True)
    return taken


def is_first(data: dict[str, Any]) -> bool:
    """Whether it is the program's own output, and none of an agent's notes."""
    shown = data.get("data") if data.get("command") == "stream" else None
    return isinstance(shown, dict) and MARK in bytes(shown["data"])


@contextlib.asynccontextmanager
async def official(caller: Caller, status: dict[str, Any], home: Home) -> AsyncIterator[str]:
    """The official agent on the same hub; its queue."""
    client: Client = caller.client
    with tempfile.TemporaryDirectory(prefix="ja-") as folder:
        environment = {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            "HOME": folder,
            "apiurl": status["hub"]["apiurl"],
            "jwt": await client.mint_token(),
        }
        program = MODULES / "@openiap" / "nodeagent" / "dist" / "agent.js"
        with (Path(folder) / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                "node", program, env=environment, stdout=log, stderr=log, cwd=folder
            )
        try:
            yield await registered(client, Path(folder) / "log", status["slug"])
        finally:
            process.kill()
            await process.wait()


async def registered(client: Client, log: Path, own_slug: str) -> str:
    """The queue of the other agent, once it listens."""
    async with asyncio.timeout(60):
        while "watch registered" not in await asyncio.to_thread(log.read_text):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.05)
    (slug,) = [each["slug"] for each in await client.query("agents", {"_type": "agent"}) if each["slug"] != own_slug]
    return str(slug)
