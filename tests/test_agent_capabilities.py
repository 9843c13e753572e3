"""What the agent tells OpenFlow that it can run is true, and is asked for when something is launched."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.agent.capabilities import Capabilities
from jupyter_agent.errors import AgentError
from jupyter_agent.home import AgentClient, Home
from jupyter_agent.packages import platform_name
from jupyter_agent.runtimes import Tools
from tests.agent_peers import Caller, connected, first_user
from tests.conftest import ended, make_package, printed, start_agent

PACKAGES = Path(__file__).parent / "packages"


def program(folder: Path, name: str, text: str = "#!/bin/sh\n") -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def agent(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AgentClient:
    """An agent that finds a Chromium that works, a Chrome and a pwsh that do not."""
    program(tmp_path / "bin", "chromium")
    for name in ("google-chrome", "pwsh"):
        program(tmp_path / "bin", name, "#!/bin/sh\necho It is broken.\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return start_agent(home)


@pytest.fixture
async def caller(agent: AgentClient, home: Home) -> AsyncIterator[Caller]:
    async with connected(agent.request("GET", "status")["hub"]["apiurl"], first_user(home)) as made:
        yield made


async def announced(agent: AgentClient, caller: Caller) -> dict[str, Any]:
    """The agent's document, once the tools were asked."""
    slug = agent.request("GET", "status")["slug"]
    async with asyncio.timeout(60):
        while True:
            document = (await caller.client.query("agents", {"slug": slug}))[0]
            if "shell" in document["languages"] and document["chromium"]:
                return document
            await asyncio.sleep(0.05)


def publish(agent: AgentClient, folder: Path) -> str:
    return str(agent.request("POST", "packages", {"path": str(folder)})["id"])


async def test_languages_and_browsers_are_announced_and_needs_enforced(
    agent: AgentClient, caller: Caller, tmp_path: Path
) -> None:
    document = await announced(agent, caller)
    assert {"python", "notebook", "shell", "exec", "php", "rust", "java"} <= set(document["languages"])
    assert "powershell" not in document["languages"]
    assert (document["chromium"], document["chrome"]) == (True, False)
    assert (document["os"], document["arch"]) == platform_name()

    files = {"main.sh": 'echo "hello $name"'}
    needy = make_package(tmp_path / "needy", files, openiap={"language": "shell", "chrome": True})
    package = await asyncio.to_thread(publish, agent, needy)
    with pytest.raises(AgentError, match=r"^The package needy needs chrome\. google-chrome is at .*: It is broken\."):
        agent.request("POST", f"packages/{package}/runs", {"parameters": {}})
    assert agent.request("GET", "runs")["runs"] == []

    make_package(tmp_path / "needy", files, openiap={"language": "shell", "chromium": True}, version="1.0.1")
    await asyncio.to_thread(publish, agent, needy)
    run = agent.request("POST", f"packages/{package}/runs", {"parameters": {"name": "ü"}})
    assert (await asyncio.to_thread(ended, agent, run["id"]))["state"] == "succeeded"
    assert await asyncio.to_thread(printed, agent, run["id"]) == "hello ü\n"

    run = agent.request("POST", "runs", {"target": str(PACKAGES / "powershell"), "parameters": {}})
    done = await asyncio.to_thread(ended, agent, run["id"])
    assert done["state"] == "failed"
    assert "pwsh is at" in done["error"]


async def test_what_changes_is_told_once_and_tools_are_not_asked_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    told: list[dict[str, object]] = []
    known = Capabilities(Tools(), on_change=lambda: told.append(known.announcement()), look_pause_s=0)
    assert known.announcement() == {"languages": ["exec", "notebook", "python"], "chrome": False, "chromium": False}
    await known.look()
    assert told == []
    program(tmp_path / "bin", "chromium-browser")
    program(tmp_path / "bin", "pwsh")
    await known.look()
    await known.look()
    assert told == [{"languages": ["exec", "notebook", "powershell", "python"], "chrome": False, "chromium": True}]
    program(tmp_path / "bin", "pwsh", "#!/no/such/interpreter\n")
    await known.look()
    assert told[1:] == [{"languages": ["exec", "notebook", "python"], "chrome": False, "chromium": True}]
    slow = Capabilities(Tools(), on_change=lambda: told.append({}), look_pause_s=600)
    await slow.look()
    (tmp_path / "bin" / "chromium-browser").unlink()
    await slow.look()
    assert slow.announcement()["chromium"] is True
