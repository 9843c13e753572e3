"""The official npm agent, unchanged: it registers on the hub, runs packages and sees what changes.

This version keeps no schedules; what its document says of its environment it does keep.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_agent.openflow.client import Client
from jupyter_agent.packages import publish
from tests.conftest import make_package
from tests.interop.official import MODULES, run_script
from tests.openflow_peers import Hub, until

HELLO = "console.log('hello from', require('./package.json').version, process.env.GREETING);\n"
ENDLESS = "setInterval(() => console.log('tick'), 50);\n"
SCHEDULES = [{"name": "nightly", "packageid": "p", "enabled": False, "cron": "0 3 * * *", "env": {}}]


@dataclass
class Agent:
    """A running agent with a home of its own."""

    home: Path
    hub: Hub
    given: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.home.mkdir(exist_ok=True)
        ours = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
        environment = {**ours, "HOME": str(self.home), "jwt": self.hub.ready["jwt"], **self.given}
        with (self.home / "log").open("ab") as log:
            program = MODULES / "@openiap" / "nodeagent" / "dist" / "agent.js"
            command = ["node", str(program)]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.home)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    @property
    def packages(self) -> Path:
        return self.home / ".openiap" / "packages"


@contextlib.contextmanager
def official_agent(hub: Hub, folder: Path, **given: str) -> Iterator[Agent]:
    """``given`` is its environment; without any it connects by WebSocket."""
    agent = Agent(folder / "agent", hub, given or {"apiurl": hub.url})
    agent.start()
    try:
        yield agent
    finally:
        agent.stop()


def archive(folder: Path, version: str = "1.0.0") -> Path:
    """As npm makes one: everything is in a folder named package."""
    made = make_package(folder / "by-hand", {"main.js": HELLO}, version=version, main="main.js")
    target = folder / f"by-hand-{version}.tgz"
    with tarfile.open(target, "w:gz") as tar:
        tar.add(made, arcname="package")
    return target


async def registered(client: Client, agent: Agent) -> dict[str, Any]:
    """The agent's document, once it listens and watches."""
    await until(lambda: "watch registered" in agent.log, "the agent watches")
    (document,) = await client.query("agents", {"_type": "agent"})
    return document


async def test_the_official_agent_runs_packages(hub: Hub, client: Client, tmp_path: Path) -> None:
    by_hand = published_by_hand(hub, tmp_path)
    ours, endless = (
        make_package(tmp_path / name, {"main.js": program}, main="main.js", openiap={"language": "nodejs"})
        for name, program in (("ours", HELLO), ("endless", ENDLESS))
    )
    published, without_end = [await publish(client, folder, who="a test") for folder in (ours, endless)]
    with official_agent(hub, tmp_path) as agent:
        document = await registered(client, agent)
        await check_document(client, agent, document)

        def run(packages: dict[str, str], **given: Any) -> dict[str, Any]:
            return run_script("agent", hub, tmp_path, queue=document["slug"], packages=packages, **given)

        told = run({"byHand": by_hand, "ours": published.id}, endless=without_end.id)
        assert "hello from 1.0.0 environment" in told["byHand"]
        assert "hello from 1.0.0 environment" in told["ours"]
        assert [process["id"] for process in told["processes"]["processes"]] == ["endless"]
        assert told["killed"] == {"command": "kill", "success": True}
        assert told["unsigned"] == {"command": "killall", "success": False, "error": "not authenticated"}

        about = json.loads((ours / "package.json").read_text())
        (ours / "package.json").write_text(json.dumps({**about, "version": "2.0.0"}))
        again = await publish(client, ours, who="a test")
        stored = agent.packages / f"{published.id}.json"
        await until(lambda: json.loads(stored.read_text())["fileid"] == again.fileid, "the agent sees the new version")
        assert "hello from 2.0.0 environment" in run({"ours": published.id})["ours"]

        hub.kill()
        hub.start()
        await until(lambda: agent.log.count("watch registered") == 3, "the agent is back")
        assert "hello from 1.0.0 environment" in run({"byHand": by_hand})["byHand"]


def published_by_hand(hub: Hub, folder: Path) -> str:
    """The id of a package that was published with the official client."""
    seen = run_script("packages", hub, folder, archive=str(archive(folder)))
    package: dict[str, Any] = seen["published"]
    assert (package["_version"], package["fileid"] in seen["files"]) == (1, True)
    assert (seen["packages"], len(seen["files"])) == ([package["_id"]], 1)
    for name in ("noFile", "unknown"):
        assert "Access Denied" in seen[name]["error"]
    return str(package["_id"])


async def check_document(client: Client, agent: Agent, document: dict[str, Any]) -> None:
    """It is registered once, keeps what others write in its document, and takes its environment from there."""
    assert document["languages"][0] == "nodejs"
    assert (document["version"], document["daemon"], document["maxpackages"]) == ("0.0.45", True, 50)
    changed = {**document, "environment": {"GREETING": "environment"}, "schedules": SCHEDULES}
    await client.update_one("agents", changed)
    await until(lambda: "agent changed, reload config" in agent.log or "do nothing" in agent.log)
    agent.stop()
    agent.start()
    await until(lambda: agent.log.count("watch registered") == 2)
    known = await registered(client, agent)
    assert (known["_id"], known["schedules"]) == (document["_id"], SCHEDULES)


async def test_the_official_agent_of_a_container_comes_by_grpc(hub: Hub, client: Client, tmp_path: Path) -> None:
    address = json.loads((hub.home / "hub" / "hub.json").read_text())["grpcapiurl"]
    agentid = "5f33c29d8fe78504bd25ffff"
    package = published_by_hand(hub, tmp_path)
    with official_agent(hub, tmp_path, grpcapiurl=address, agentid=agentid) as agent:
        document = await registered(client, agent)
        assert (document["_id"], document.get("daemon")) == (agentid, None)
        told = run_script("agent", hub, tmp_path, queue=document["slug"], packages={"byHand": package})
        assert "hello from 1.0.0" in told["byHand"]
