"""The API put together: its routes, its application, and the server on the agent's socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from tornado import web  # noqa: TID251 - the agent's HTTP API
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from jupyter_agent.agent.agent import Agent
from jupyter_agent.api import agents, environments, packages, runs
from jupyter_agent.api.broadcast import Broadcast
from jupyter_agent.api.handler import HEARTBEAT_S, MAX_BODY_BYTES, Faces, Handler
from jupyter_agent.errors import NotFound

OPENAPI = Path(__file__).parent / "openapi.yaml"

MOST_READ_BYTES = 4 * MAX_BODY_BYTES
"""Of a body that is too large: so many are read to say so; of a larger one nothing is."""


class Status(Handler):
    """``GET status``."""

    async def get(self) -> None:
        """The agent's state."""
        self.reply(self.agent.status())


class Events(Handler):
    """``GET events``."""

    async def get(self) -> None:
        """What changes, as JSON lines, for as long as the reader stays."""
        await self.stream_lines(self._lines())

    async def _lines(self) -> AsyncGenerator[list[dict[str, Any]], None]:
        yield [{"event": "status", "status": self.agent.status()}]
        async with contextlib.aclosing(self.events.follow(HEARTBEAT_S)) as events:
            async for batch in events:
                yield batch


class Description(Handler):
    """``GET openapi.yaml``."""

    async def get(self) -> None:
        """What all routes take and give."""
        self.set_header("Content-Type", "application/yaml")
        self.finish(await asyncio.to_thread(OPENAPI.read_bytes))


class Shutdown(Handler):
    """``POST shutdown``."""

    async def post(self) -> None:
        """End the agent in order."""
        self.reply({"ending": True}, 202)
        self.shut_down()


class NoRoute(Handler):
    """All else."""

    async def prepare(self) -> None:  # type: ignore[override]  # tornado awaits it
        """Say that there is nothing here."""
        super().prepare()
        raise NotFound(f"There is nothing at {self.request.path}.")


ROUTES: tuple[tuple[str, type[Handler]], ...] = (
    (r"status", Status),
    (r"packages", packages.Packages),
    (r"packages/([^/]+)", packages.Package),
    (r"packages/([^/]+)/runs", runs.PackageRuns),
    (r"packages/([^/]+)/prepare", packages.Prepare),
    (r"packages/([^/]+)/reinstall", packages.Reinstall),
    (r"runs", runs.Runs),
    (r"runs/([^/]+)", runs.OneRun),
    (r"runs/([^/]+)/cancel", runs.Cancel),
    (r"runs/([^/]+)/rerun", runs.Rerun),
    (r"runs/([^/]+)/output", runs.Output),
    (r"runs/([^/]+)/stream", runs.Stream),
    (r"runs/([^/]+)/artifacts", runs.Artifacts),
    (r"runs/([^/]+)/artifacts/(.+)", runs.Artifact),
    (r"environments", environments.Environments),
    (r"environments/lock", environments.Lock),
    (r"environments/channel", environments.Channel),
    (r"environments/gc", environments.Collect),
    (r"environments/([^/]+)", environments.OneEnvironment),
    (r"environments/([^/]+)/verify", environments.Verify),
    (r"environments/([^/]+)/repair", environments.Repair),
    (r"agents", agents.Agents),
    (r"agents/([^/]+)", agents.OneAgent),
    (r"agents/([^/]+)/cancel", agents.AgentCancel),
    (r"agents/([^/]+)/runs", agents.AgentRuns),
    (r"agents/([^/]+)/runs/([^/]+)", agents.AgentRun),
    (r"agents/([^/]+)/runs/([^/]+)/cancel", agents.AgentRunCancel),
    (r"agents/([^/]+)/runs/([^/]+)/output", agents.AgentRunOutput),
    (r"agents/([^/]+)/runs/([^/]+)/stream", agents.AgentRunStream),
    (r"agents/([^/]+)/packages/([^/]+)/prepare", agents.AgentPrepare),
    (r"agents/([^/]+)/packages/([^/]+)/reinstall", agents.AgentReinstall),
    (r"agents/([^/]+)/packages/([^/]+)/testrun", agents.AgentTestRun),
    (r"openapi\.yaml", Description),
    (r"events", Events),
    (r"shutdown", Shutdown),
)


def make_application(
    agent: Agent, *, faces: Faces, events: Broadcast, shut_down: Callable[[], None]
) -> web.Application:
    """The API's application."""
    collaborators = {"agent": agent, "faces": faces, "events": events, "shut_down": shut_down}
    routes = [(rf"/api/v1/{path}", handler, collaborators) for path, handler in ROUTES]
    return web.Application(
        routes,
        default_handler_class=NoRoute,
        default_handler_args=collaborators,
        log_function=lambda _handler: None,
    )


class SocketServer(HTTPServer):
    """HTTP for the socket's own user alone: the file's mode says so, and the peer's uid is looked at, too."""

    def handle_stream(self, stream: IOStream, address: tuple[str, int]) -> None:
        """Drop a peer of another user (called by tornado)."""
        if peer_uid(stream.socket) not in (None, 0, os.getuid()):
            stream.close()
            return
        super().handle_stream(stream, address)


def peer_uid(connection: socket.socket) -> int | None:
    """The uid at the other end (``SO_PEERCRED``); ``None`` where the system cannot tell it this way."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
