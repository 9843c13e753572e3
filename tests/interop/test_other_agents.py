"""The official npm agent 0.0.45, unchanged, seen and steered by an agent of ours: it is old and tells little."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.home import AgentClient, Home, RequestFailed
from jupyter_agent.openflow.client import Client
from jupyter_agent.packages import publish
from tests.agent_peers import agent_of
from tests.conftest import cli, make_package
from tests.conftest import until as come_about
from tests.interop.test_agent import ENDLESS, HELLO, official_agent, registered
from tests.openflow_peers import Hub


@contextlib.contextmanager
def asking(hub: Hub) -> Iterator[tuple[Home, AgentClient]]:
    """An agent of ours on the same hub."""
    with agent_of(hub) as both:
        yield both


async def test_the_official_agent_is_steered_by_ours(hub: Hub, client: Client, tmp_path: Path) -> None:
    programs = {"hello": HELLO, "endless": ENDLESS}
    for name, program in programs.items():
        folder = make_package(tmp_path / name, {"main.js": program}, main="main.js", openiap={"language": "nodejs"})
        await publish(client, folder, who="a test")
    with official_agent(hub, tmp_path) as official:
        slug = (await registered(client, official))["slug"]
        with asking(hub) as (home, ours):
            await asyncio.to_thread(check, ours, home, slug)
            run = await asyncio.to_thread(started, ours, slug)
            official.stop()
            await asyncio.to_thread(check_lost, ours, slug, run)


def check(ours: AgentClient, home: Home, slug: str) -> None:
    there = f"agents/{slug}"
    seen = ours.request("GET", there)
    assert (seen["online"], seen["version"], seen["languages"][0]) == (True, "0.0.45", "nodejs")

    done = cli("run", "hello", "--agent", slug, "--json", home=home)
    run = json.loads(done.stdout)
    assert (done.returncode, run["state"], run["exit_code"]) == (0, "succeeded", None), done.stderr
    assert "hello from 1.0.0" in done.stderr

    run = started(ours, slug)
    (listed,) = ours.request("GET", f"{there}/runs")
    assert (listed["id"], listed["package"]) == (run["id"], "endless")
    done = cli("runs", "cancel", run["id"], "--agent", slug, "--json", home=home)
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "cancelled"), done.stderr

    runs = [started(ours, slug) for _ in range(2)]
    assert ours.request("POST", f"{there}/cancel") == {"cancelled": 2}
    for each in runs:
        over = come_about(lambda run_id=each["id"]: ended(ours, slug, run_id), what="it is cancelled")  # type: ignore[misc]
        assert over["state"] == "cancelled"

    for path, body in (
        ("runs", {"target": "hello", "parameters": {"x": 1}}),
        ("packages/hello/prepare", {}),
        ("packages/hello/reinstall", {}),
        ("packages/hello/testrun", {}),
    ):
        with pytest.raises(RequestFailed, match=r"too old .* needs a version above 0\.0\.45"):
            ours.request("POST", f"{there}/{path}", body)


def started(ours: AgentClient, slug: str) -> dict[str, Any]:
    """An endless run that prints."""
    run: dict[str, Any] = ours.request("POST", f"agents/{slug}/runs", {"target": "endless"})
    path = f"agents/{slug}/runs/{run['id']}/output"
    come_about(lambda: "tick" in str(ours.request("GET", path)), what="the endless one prints")
    return run


def ended(ours: AgentClient, slug: str, run_id: str) -> dict[str, Any] | None:
    run: dict[str, Any] = ours.request("GET", f"agents/{slug}/runs/{run_id}")
    return run if run["ended"] else None


def check_lost(ours: AgentClient, slug: str, run: dict[str, Any]) -> None:
    over = come_about(lambda: ended(ours, slug, run["id"]), what="the run of the agent that is gone is lost")
    assert (over["state"], "went away" in over["error"]) == ("lost", True)
    with pytest.raises(RequestFailed, match="not connected"):
        started(ours, slug)
