"""Another client of the hub, as the web UI is one: it sends commands to the agent's queue and hears the answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_agent.home import AgentClient, Home, read_json, write_private
from jupyter_agent.openflow.client import Client, Credentials, QueueEvent
from tests.conftest import end_all, make_package, start_agent
from tests.openflow_peers import Hub


class Caller:
    """A client with a queue of its own, as the web UI has one."""

    def __init__(self, client: Client, queue: str) -> None:
        self.client = client
        self.queue = queue
        self.received: list[QueueEvent] = []
        self.arrived = asyncio.Event()

    async def hear(self, event: QueueEvent) -> None:
        self.received.append(event)
        self.arrived.set()

    async def send(self, to: str, data: dict[str, Any], *, correlation_id: str, strip_token: bool = False) -> None:
        await self.client.queue_message(
            to, data, reply_to=self.queue, correlation_id=correlation_id, strip_token=strip_token
        )

    async def until(self, command: str, **fields: Any) -> dict[str, Any]:
        """The first message with this command and these fields."""
        async with asyncio.timeout(90):
            while True:
                for event in self.received:
                    data = event.data
                    if data.get("command") == command and all(data.get(k) == v for k, v in fields.items()):
                        return dict(data)
                self.arrived.clear()
                await self.arrived.wait()


def first_user(home: Home) -> Credentials:
    """Who the home's hub belongs to."""
    stored = read_json(home.hub / "credentials.json") or {}
    return Credentials(username=stored["username"], password=stored["password"])


class connected:  # noqa: N801 - used as a context
    def __init__(self, url: str, credentials: Credentials) -> None:
        self.client = Client(url, credentials, version="1", requests_per_s=None)

    async def __aenter__(self) -> Caller:
        await self.client.__aenter__()
        await self.client.connected(30)
        made = Caller(self.client, "")
        made.queue = (await self.client.register_queue("", made.hear)).name
        return made

    async def __aexit__(self, *arguments: object) -> None:
        await self.client.__aexit__(*arguments)  # type: ignore[arg-type]


def published(agent: AgentClient, folder: Path, program: str, **openiap: Any) -> str:
    make_package(folder, {"main.py": program}, openiap={"language": "python", **openiap})
    package: str = agent.request("POST", "packages", {"path": str(folder)})["id"]
    return package


@contextlib.contextmanager
def agent_of(hub: Hub, jwt: str = "") -> Iterator[tuple[Home, AgentClient]]:
    """An agent on a home of its own that uses this hub, as the owner of the token (else as the hub's first user)."""
    home = Home(Path(tempfile.mkdtemp(prefix="ja-")) / "home")
    home.path.mkdir(mode=0o700)
    home.prepare()
    write_private(home.config_file, json.dumps({"apiurl": hub.url, "jwt": jwt or hub.ready["jwt"]}))
    try:
        yield home, start_agent(home)
    finally:
        end_all(home)
        shutil.rmtree(home.path.parent, ignore_errors=True)


@contextlib.contextmanager
def two_agents(hub: Hub) -> Iterator[tuple[AgentClient, AgentClient]]:
    """One that asks, and one that is asked, of the same user."""
    with agent_of(hub) as (_, asking), agent_of(hub) as (_, asked):
        yield asking, asked
