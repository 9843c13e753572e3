"""The agent and its OpenFlow: what changes there, or in the home's settings, is taken up while the agent runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from websockets.exceptions import ConnectionClosed

from jupyter_agent import processes
from jupyter_agent.agent.endpoint import configured
from jupyter_agent.errors import InvalidInput
from jupyter_agent.home import AgentClient, Home, ensure_agent, read_json, running_agent, write_private
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Envelope
from tests.agent_peers import Caller, connected, first_user, published
from tests.certificates import authority, identity
from tests.conftest import end_all, start_agent, until
from tests.openflow_peers import Peer, odd_peer


@pytest.fixture
async def caller(agent: AgentClient, home: Home) -> AsyncIterator[Caller]:
    async with connected(agent.request("GET", "status")["hub"]["apiurl"], first_user(home)) as made:
        yield made


async def soon(condition: Callable[[], Any], what: str) -> Any:
    return await asyncio.to_thread(until, condition, what=what)


def add_user(home: Home, name: str) -> None:
    command = [sys.executable, "-m", "jupyter_agent.hub", "user-add", "--home", str(home.path), name]
    subprocess.run(command, input=b"a long password\n", check=True, capture_output=True)


async def own_document(agent: AgentClient, caller: Caller) -> dict[str, Any]:
    return (await caller.client.query("agents", {"slug": agent.request("GET", "status")["slug"]}))[0]


async def test_another_slug_is_another_queue(agent: AgentClient, caller: Caller) -> None:
    document = await own_document(agent, caller)
    await caller.client.update_one("agents", {**document, "slug": "renamed"})
    await soon(lambda: agent.request("GET", "status")["queue"] == "renamedagent", "the new queue is listened on")
    await caller.send("renamedagent", {"command": "listprocesses"}, correlation_id="a")
    assert (await caller.until("listprocesses"))["success"] is True


async def test_a_deleted_agent_registers_again(agent: AgentClient, caller: Caller) -> None:
    document = await own_document(agent, caller)
    await caller.client.delete_one("agents", document["_id"])
    await soon(lambda: agent.request("GET", "status")["slug"] not in (None, document["slug"]), "a new document")
    found = await own_document(agent, caller)
    assert found["_id"] == document["_id"]
    await caller.send(f"{found['slug']}agent", {"command": "listprocesses"}, correlation_id="a")
    assert (await caller.until("listprocesses"))["success"] is True


async def test_runas_is_taken_up_kept_over_reconnections_and_given_back(
    agent: AgentClient, caller: Caller, home: Home, tmp_path: Path
) -> None:
    await asyncio.to_thread(add_user, home, "worker")
    worker = (await caller.client.query("users", {"username": "worker"}))[0]
    program = "import os\nprint('token', bool(os.environ.get('jwt')))\n"
    package = await asyncio.to_thread(published, agent, tmp_path / "whose", program)
    own = agent.request("GET", "status")["openflow"]["user"]
    shared = (await caller.client.query("agents", {"_id": package}))[0]
    shared["_acl"].append({"_id": worker["_id"], "name": "worker", "rights": 65535})
    await caller.client.update_one("agents", shared)

    document = await own_document(agent, caller)
    await caller.client.update_one("agents", {**document, "runas": worker["_id"], "runasname": "worker"})
    await soon(lambda: agent.request("GET", "status")["openflow"]["user"] == "worker", "it acts as worker")
    document = await own_document(agent, caller)
    await caller.client.update_one("agents", {**document, "name": "again"})  # it registers again, as worker
    await soon(lambda: agent.request("GET", "status")["connected"], "it is connected")
    for name in ("s1", "s2"):
        await caller.send(f"{document['slug']}agent", {"command": "runpackage", "id": package}, correlation_id=name)
        end = await caller.until("runpackage", completed=True)
        assert "token True" in end["output"], end
        assert agent.request("GET", "runs")["runs"][0]["token"] == "runas"
        await asyncio.sleep(1.5)  # registrations are a second apart
        caller.received.clear()

    document = await own_document(agent, caller)
    await caller.client.update_one("agents", {**document, "runas": "", "runasname": ""})
    await soon(lambda: agent.request("GET", "status")["openflow"]["user"] == own, "it is itself again")
    await soon(lambda: agent.request("GET", "status")["connected"], "it is connected")
    await caller.send(f"{document['slug']}agent", {"command": "runpackage", "id": package}, correlation_id="s3")
    await caller.until("runpackage", completed=True)
    assert agent.request("GET", "runs")["runs"][0]["token"] == "sender"


def test_renewed_credentials_count_without_a_restart(agent: AgentClient, home: Home) -> None:
    hub = read_json(home.hub / "hub.json") or {}
    good = (read_json(home.hub / "credentials.json") or {})["jwt"]
    other = Home(home.path.parent / "other")
    other.prepare()
    write_private(other.config_file, json.dumps({"apiurl": hub["apiurl"], "jwt": "a.b.c"}))
    try:
        second = AgentClient(ensure_agent(other, processes.spawn_detached))
        until(lambda: "config.json" in (second.request("GET", "status")["error"] or ""))
        write_private(other.config_file, json.dumps({"apiurl": hub["apiurl"], "jwt": good}))
        until(lambda: second.request("GET", "status")["connected"], what="the renewed token is used")
        assert second.request("GET", "status")["openflow"]["embedded"] is False
        other.config_file.unlink()
        until(lambda: second.request("GET", "status")["hub"], what="nothing is configured: the embedded hub is used")
        until(lambda: second.request("GET", "status")["connected"])
        write_private(other.config_file, json.dumps({"apiurl": hub["apiurl"], "jwt": good}))
        until(lambda: second.request("GET", "status")["hub"] is None, what="the configured one is used again")
    finally:
        end_all(other)


def test_where_openflow_is_comes_from_the_environment_as_servers_set_it(home: Home) -> None:
    both = {"jwt": "t", "grpcapiurl": "grpc://h:50051", "wsapiurl": "ws://h:3000/ws/v2"}
    assert getattr(configured(home, {**both, "apiurl": "wss://a"}), "url", "") == "wss://a"
    assert getattr(configured(home, both), "url", "") == "grpc://h:50051"
    assert getattr(configured(home, {**both, "grpcapiurl": ""}), "url", "") == "ws://h:3000/ws/v2"
    for wrong in ("ftp://h", "h:3000"):
        with pytest.raises(InvalidInput, match="ws, wss, http, https or grpc"):
            configured(home, {"apiurl": wrong, "jwt": "t"})


class Refusing:
    """An OpenFlow that takes the agent, and its queue when it is in the mood."""

    def __init__(self) -> None:
        self.refuses = False
        self.peers: list[Peer] = []

    async def __call__(self, peer: Peer, envelope: Envelope, message: Message) -> None:
        if peer not in self.peers:
            self.peers.append(peer)
        command, reply = f"{envelope.command}reply", self.reply(message)
        await peer.send("error" if isinstance(reply, pb.ErrorResponse) else command, reply, rid=envelope.id)

    def reply(self, message: Message) -> Message:
        if isinstance(message, pb.CustomCommandRequest):
            return pb.CustomCommandResponse(result=json.dumps({"_id": "a", "slug": "deaf"}))
        if isinstance(message, pb.RegisterQueueRequest) and not self.refuses:
            return pb.RegisterQueueResponse(queuename=message.queuename)
        return pb.WatchResponse(id="w") if isinstance(message, pb.WatchRequest) else pb.ErrorResponse(message="No")


async def test_an_agent_that_is_connected_but_deaf_says_so_until_it_hears_again(home: Home) -> None:
    openflow = Refusing()
    async with odd_peer(openflow) as url:
        home.prepare()
        write_private(home.config_file, json.dumps({"apiurl": url, "jwt": "t"}))
        agent = AgentClient(await asyncio.to_thread(ensure_agent, home, processes.spawn_detached))

        def status() -> dict[str, Any]:
            found: dict[str, Any] = agent.request("GET", "status")
            return found

        await soon(lambda: status()["connected"], "it is connected")
        openflow.refuses = True
        await openflow.peers[0].close()
        said = "queue deafagent is not registered (No). It is tried again."
        await soon(lambda: said in str(status()["error"]), "it says so")
        told = await asyncio.to_thread(status)
        assert (told["connected"], told["deaf"]) == (False, True)
        openflow.refuses = False
        await soon(lambda: status()["connected"] and status()["error"] is None, "it hears again")
        assert (await asyncio.to_thread(status))["deaf"] is False
        await asyncio.to_thread(agent.request, "POST", "shutdown", {})


class Renaming:
    """An OpenFlow that gives the agent another slug and closes; then two registrations are under way at once."""

    def __init__(self) -> None:
        self.slug = "old"
        self.peers: list[Peer] = []
        self._both = asyncio.Event()
        self._first: asyncio.Event | None = None

    async def __call__(self, peer: Peer, envelope: Envelope, message: Message) -> None:
        self.peers += [peer] if peer not in self.peers else []
        if isinstance(message, pb.CustomCommandRequest):
            asyncio.get_running_loop().create_task(self._register(peer, envelope))
        elif isinstance(message, pb.RegisterQueueRequest):
            reply = pb.RegisterQueueResponse(queuename=message.queuename)
            await peer.send("registerqueuereply", reply, rid=envelope.id)
        elif isinstance(message, pb.UnRegisterQueueRequest):
            await peer.send("unregisterqueuereply", pb.UnRegisterQueueResponse(), rid=envelope.id)
        elif isinstance(message, pb.WatchRequest):
            await peer.send("watchreply", pb.WatchResponse(id="w"), rid=envelope.id)

    async def _register(self, peer: Peer, envelope: Envelope) -> None:
        document = {"_id": "a", "_type": "agent", "slug": self.slug, "name": "x", "_acl": []}
        if self.slug == "new" and self._first is None:
            self._first = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(3):
                    await self._both.wait()
        elif self._first is not None:
            self._both.set()
            await self._first.wait()  # they are answered in turn
        with contextlib.suppress(ConnectionClosed):
            reply = pb.CustomCommandResponse(result=json.dumps(document))
            await peer.send("customcommandreply", reply, rid=envelope.id)
        if self._first is not None:
            self._first.set()

    async def rename(self) -> None:
        self.slug = "new"
        document = json.dumps({"_id": "a", "_type": "agent", "slug": "new", "name": "x", "_acl": []})
        await self.peers[-1].send("watchevent", pb.WatchEvent(id="w", operation="replace", document=document))
        await self.peers[-1].close()


async def test_an_agent_that_is_renamed_while_the_connection_ends_listens_on_its_new_queue(home: Home) -> None:
    openflow = Renaming()
    async with odd_peer(openflow) as url:
        home.prepare()
        write_private(home.config_file, json.dumps({"apiurl": url, "jwt": "t"}))
        agent = AgentClient(await asyncio.to_thread(ensure_agent, home, processes.spawn_detached))
        await soon(lambda: agent.request("GET", "status")["queue"] == "oldagent", "it is registered")
        await openflow.rename()

        def renamed() -> bool:
            status = agent.request("GET", "status")
            return status["connected"] and status["queue"] == "newagent" and status["error"] is None

        await soon(renamed, "it listens on its new queue")
        await asyncio.to_thread(agent.request, "POST", "shutdown", {})
    assert len(openflow.peers) == 2  # the connection was not given up over it


async def test_an_own_authority_is_trusted_by_setting(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (configuration := tmp_path / "jupyter").mkdir()
    (configuration / "jupyter_agent_config.py").write_text(f"c.Agent.ca_file = {str(authority(tmp_path))!r}\n")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(configuration))
    async with odd_peer(Refusing(), identity(tmp_path, "good")) as url:
        home.prepare()
        over_tls = url.replace("ws://127.0.0.1", "wss://localhost")
        write_private(home.config_file, json.dumps({"apiurl": over_tls, "jwt": "t"}))
        agent = AgentClient(await asyncio.to_thread(ensure_agent, home, processes.spawn_detached))
        await soon(lambda: agent.request("GET", "status")["connected"], "it is connected")
        await asyncio.to_thread(agent.request, "POST", "shutdown", {})


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x", "started": [], "apiurl": 5}', '{"pid": 1}'])
def test_a_broken_hub_json_is_the_hubs_to_mend(home: Home, text: str) -> None:
    home.prepare()
    (home.hub / "hub.json").write_text(text)
    assert start_agent(home).request("GET", "status")["connected"] is True


async def test_the_agent_ends_while_output_is_sent_and_the_next_one_tells_the_result(
    home: Home, tmp_path: Path
) -> None:
    agent = await asyncio.to_thread(start_agent, home)
    async with connected(agent.request("GET", "status")["hub"]["apiurl"], first_user(home)) as caller:
        program = "print('x' * 4_000_000, flush=True)\nimport time\ntime.sleep(600)\n"
        package = await asyncio.to_thread(published, agent, tmp_path / "loud", program)
        status = agent.request("GET", "status")
        await caller.send(status["queue"], {"command": "runpackage", "id": package}, correlation_id="s1")
        await soon(lambda: agent.request("GET", "runs")["runs"], "the run has come")
        run = agent.request("GET", "runs")["runs"][0]["id"]
        await soon(lambda: agent.request("GET", f"runs/{run}")["output_size"] > 4_000_000, "all is printed")
        os.kill(status["hub"]["pid"], signal.SIGSTOP)  # nothing can be sent any more
        try:
            agent.request("POST", "shutdown", {})
            pid, started = status["agent"]["pid"], status["agent"]["started"]
            await soon(lambda: not processes.is_alive(pid, started), "the agent has ended")
            assert running_agent(home) is None
        finally:
            os.kill(status["hub"]["pid"], signal.SIGCONT)
        await asyncio.to_thread(start_agent, home)
        end = await caller.until("runpackage", completed=True)
        assert end["success"] is False
        assert "stopped" in end["error"]


async def test_a_result_is_told_once(agent: AgentClient, caller: Caller, home: Home, tmp_path: Path) -> None:
    """Registrations in the middle of a result that is being sent do not send it again."""
    package = await asyncio.to_thread(published, agent, tmp_path / "loud", "print('x' * 1_500_000)\n")
    document = await own_document(agent, caller)
    await caller.send(f"{document['slug']}agent", {"command": "runpackage", "id": package}, correlation_id="s1")
    await soon(lambda: (agent.request("GET", "runs")["runs"] or [{}])[0].get("ended"), "the run has ended")
    await caller.client.update_one("agents", {**document, "name": "renamed"})
    await caller.until("completed")
    await caller.until("runpackage", completed=True)
    await caller.send(f"{document['slug']}agent", {"command": "listprocesses"}, correlation_id="s2")
    await caller.until("listprocesses")
    ends = [event.data for event in caller.received if event.data.get("completed")]
    assert len(ends) == 1
    assert caller.received[-2].data is ends[0] or caller.received[-2].data == ends[0]
