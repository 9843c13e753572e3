"""Users from the command line: added, listed, given a new password, removed; with a hub that runs, and without."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_agent.errors import SignInFailed
from jupyter_agent.home import Home
from jupyter_agent.openflow.client import Credentials
from tests.openflow_peers import Hub, running_hub


@pytest.fixture(params=["running", "not running"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A home whose hub has an owner, and runs or does not."""
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(running_hub(Home(tmp_path / "home")))
        if request.param == "not running":
            stack.close()
        yield hub.home


def users(home: Path, name: str, *options: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jupyter_agent.hub", f"user-{name}", "--home", str(home), *options]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def listed(home: Path) -> dict[str, Any]:
    found = json.loads(users(home, "list", "--json").stdout)
    return {user.pop("username"): user for user in found}


def owner(home: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((home / "hub" / "credentials.json").read_text())
    return found


async def signs_in(home: Path, name: str, password: str) -> bool:
    """Whether this user comes in, and whether by the hub that runs or one that is started."""
    stored = json.loads((home / "hub" / "hub.json").read_text())
    with contextlib.ExitStack() as stack:
        hub = Hub(home, {"apiurl": stored["apiurl"]})
        if not psutil.pid_exists(stored["pid"]):
            hub = stack.enter_context(running_hub(Home(home)))
        try:
            async with hub.client(Credentials(username=name, password=password)) as client:
                await client.connected()
        except SignInFailed:
            return False
        return True


async def test_users_come_and_go(home: Path) -> None:
    me = owner(home)["username"]
    assert users(home, "add", "ann", text="first\n").stdout == "The user ann was added.\n"
    assert json.loads(users(home, "add", "--json", "--admin", "boss", text="b\n").stdout) == {
        "username": "boss",
        "added": True,
    }
    found = listed(home)
    assert {name: user["roles"] for name, user in found.items()} == {me: ["admins"], "ann": [], "boss": ["admins"]}
    assert users(home, "list").stdout == "\n".join(sorted(
        [f"{me} (admins)", "ann", "boss (admins)"])) + "\n"  # fmt: skip

    id_of_ann = found["ann"]["id"]
    assert users(home, "add", "--admin", "ann", text="second\n").stdout == "The user ann has a new password.\n"
    assert listed(home)["ann"] == {"id": id_of_ann, "roles": ["admins"], "disabled": False}
    assert await signs_in(home, "ann", "second")

    assert users(home, "remove", "ann").stdout == "The user ann was removed.\n"
    assert set(listed(home)) == {me, "boss"}
    assert not await signs_in(home, "ann", "second")


async def test_the_owner_keeps_a_new_password_and_stays(home: Path) -> None:
    me = owner(home)["username"]
    assert users(home, "add", me, text="a new one\n").returncode == 0
    assert owner(home)["password"] == "a new one"
    assert (home / "hub" / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert await signs_in(home, me, "a new one")
    refused = users(home, "remove", me.upper())
    assert (refused.returncode, refused.stderr) == (
        1,
        f"{me.upper()} is the user of this hub's owner and cannot be removed.\n",
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("nobody", "There is no user named nobody."), ("root", "root is the hub itself and cannot be removed.")],
)
def test_who_cannot_be_removed_is_told(home: Path, name: str, sentence: str) -> None:
    done = users(home, "remove", name)
    assert (done.returncode, done.stderr) == (1, f"{sentence}\n")
