"""The page of an agent that is one of several on an OpenFlow: other agents, packages, attempts, and what is not well.

A hub, an agent with its JupyterLab, and a second agent, all of a user who is no admin; the token of the first agent
ends in some days. The journeys are in journeys.mjs.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest

from jupyter_agent.home import Home, write_private
from jupyter_agent.openflow.client import Credentials
from tests.conftest import end_all, start_agent
from tests.openflow_peers import Hub, running_hub
from tests.ui.test_page import TICKS, USER_X_Y, Actions, Lab, free_port, publish, python_package, travel

DAY_S = 86_400
ANN = Credentials(username="ann", password="password of ann")
SECOND_TIME = (
    "import pathlib, sys\nmark = pathlib.Path({mark!r})\n"
    "if not mark.exists():\n    mark.touch()\n    raise ValueError('no such column: rain')\nprint('found it')\n"
)


@dataclass
class World:
    """A hub, two agents on it, and a JupyterLab on the home of the first one."""

    folder: Path
    hub: Hub
    here: Home
    there: Home
    lab: Lab

    @property
    def there_slug(self) -> str:
        return str(start_agent(self.there).request("GET", "status")["slug"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="ja-"))
    with pytest.MonkeyPatch.context() as patch, running_hub(Home(folder / "hub")) as hub:
        for name in ("apiurl", "grpcapiurl", "wsapiurl", "jwt", "agentid"):
            patch.delenv(name, raising=False)
        hub.add_user("ann", ANN.password)
        here, there = home_of_ann(folder / "here", hub, days=9.5), home_of_ann(folder / "there", hub, days=300)
        patch.setenv("JUPYTER_AGENT_HOME", str(here.path))
        lab = Lab(here, tmp_path_factory.mktemp("agents") / "lab", USER_X_Y, free_port())
        try:
            lab.start()
            start_agent(there)
            yield World(folder, hub, here, there, lab)
        finally:
            lab.stop()
            end_all(here)
            end_all(there)
    shutil.rmtree(folder, ignore_errors=True)


def home_of_ann(path: Path, hub: Hub, *, days: float) -> Home:
    """A home that is to use the hub, with a token of a year of which so many days are left."""

    async def user_id() -> str:
        async with hub.client(ANN) as client:
            return (await client.connected()).id

    now = int(time.time())
    claims = {"data": {"_id": asyncio.run(user_id())}, "iat": now - 300 * DAY_S, "exp": now + int(days * DAY_S)}
    home = Home(path)
    home.prepare()
    token = jwt.encode(claims, hub.token_key(), algorithm="HS256")
    write_private(home.config_file, json.dumps({"apiurl": hub.ready["apiurl"], "jwt": token}))
    return home


def test_a_package_runs_on_another_agent_and_is_followed_live(world: World, tmp_path: Path) -> None:
    package = python_package(tmp_path / "ticks", TICKS)
    actions: Actions = {
        "publish": publish(world.here, package),
        "slug": lambda: world.there_slug,
        "end there": lambda: end_all(world.there),
        "begin there": lambda: start_agent(world.there) and None,
    }
    travel("others", world.lab, actions, tmp_path)
    started = start_agent(world.there).request("GET", "runs")["runs"]
    assert {run["state"] for run in started} == {"cancelled", "succeeded"}, started
    assert {run["kind"] for run in started} == {"run", "prepare"}


def test_packages_are_published_prepared_reinstalled_and_removed(world: World, tmp_path: Path) -> None:
    package = python_package(tmp_path / "count" / "a-package-whose-name-is-too-long-for-the-panel", TICKS)
    actions: Actions = {"folder": lambda: str(package), "name": lambda: package.name}
    travel("packages", world.lab, actions, tmp_path)
    left = start_agent(world.here).request("GET", "packages")
    assert package.name not in {each["name"] for each in left}


def test_attempts_are_counted_and_runs_are_run_again(world: World, tmp_path: Path) -> None:
    package = python_package(tmp_path / "rains", SECOND_TIME.format(mark=str(tmp_path / "mark")))
    name = publish(world.here, package)

    def run_with_retries() -> str:
        body = {"retries": 2, "retry_delay_s": 0.5, "parameters": {"level": 3}}
        return str(start_agent(world.here).request("POST", f"packages/{package.name}/runs", body)["id"])

    travel("attempts", world.lab, {"publish": name, "run with retries": run_with_retries}, tmp_path)


def test_what_is_not_well_is_said_in_the_panel(world: World, tmp_path: Path) -> None:
    """The token ends soon; and after a reconnection OpenFlow does not let the agent listen, until it does again."""
    queue = f"{start_agent(world.here).request('GET', 'status')['slug']}agent"
    made: list[str] = []

    def refuse() -> None:
        async def take_the_name() -> str:
            async with world.hub.client() as owner:
                document = await owner.insert_one("mq", {"_type": "queue", "name": queue})
                return str(document["_id"])

        made.append(asyncio.run(take_the_name()))
        world.hub.kill()
        world.hub.start()

    def allow() -> None:
        async def give_it_back() -> None:
            async with world.hub.client() as owner:
                await owner.delete_one("mq", made[0])

        asyncio.run(give_it_back())

    travel("unwell", world.lab, {"refuse": refuse, "allow": allow}, tmp_path)
