"""The official client, as the web UI uses it, with an agent of ours."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.agent_peers import agent_of, published
from tests.console_peers import House, heard
from tests.hub_peers import hub_on_a_new_home
from tests.interop.official import install, run_script

HELLO = "print('hello from ours')\n"
ENDLESS = "import time\nwhile True:\n    print('tick', flush=True)\n    time.sleep(0.05)\n"


@pytest.fixture(autouse=True)
def _installed() -> None:
    install()


async def test_a_page_of_the_web_ui_shows_runs_and_steers_them(tmp_path: Path) -> None:
    with hub_on_a_new_home() as hub, agent_of(hub) as (home, agent):
        hello = await asyncio.to_thread(published, agent, tmp_path / "hello", HELLO)
        endless = await asyncio.to_thread(published, agent, tmp_path / "endless", ENDLESS)
        house = House(hub, home, agent, agent.request("GET", "status")["queue"])
        async with hub.client() as client, house.caller(client) as asker:
            await client.connected()
            await house.run(asker, endless, "before")
            await heard(asker, "before", "tick")
            seen = await asyncio.to_thread(
                run_script, "console", hub, tmp_path, queue=house.queue, hello=hello, endless=endless
            )
    assert (seen["running"]["id"], seen["running"]["packageid"]) == ("before", endless)
    assert seen["asked"] == {"command": "runpackage", "success": True, "completed": False}
    assert seen["mine"]["text"].endswith("hello from ours\n")
    end = seen["mine"]["end"]
    assert (end["success"], end["exitcode"], end["output"]) == (True, 0, seen["mine"]["text"])
    assert seen["silent"] == {"command": "runpackage", "success": True, "completed": False}
    assert seen["killed"] == {"command": "kill", "success": True}
    shown = {key: seen["ended"][key] for key in ("command", "success", "completed", "data")}
    assert shown == {"command": "runpackage", "success": False, "completed": True, "data": ""}
    assert "tick\ntick\n" in seen["text"]
    assert (seen["again"]["command"], seen["again"]["success"]) == ("kill", False)
    assert (seen["tested"]["success"], "tick" in seen["tested"]["output"]) == (True, True)
    assert seen["prepared"]["success"] is True
    assert seen["reinstalled"] == {"command": "reinstallpackage", "success": True}
    assert (seen["killall"]["command"], seen["killall"]["success"]) == ("killall", True)
    assert (seen["invoke"]["success"], seen["invoke"]["completed"]) == (False, True)
    assert "runpackage" in seen["unknown"]["error"]
    assert seen["listings"] > 1, "a run that starts is told"
    assert [each["command"] for each in seen["heard"] if each["id"] == "mine"].count("completed") == 1
