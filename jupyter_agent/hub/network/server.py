"""The hub on the network: HTTP and WebSocket on 127.0.0.1, and the life of connections.

A browser may be made to talk to 127.0.0.1 by any page (DNS rebinding, cross-site requests): so on every route the Host
must be ours, and the Origin, which browsers send, ours too or absent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler  # noqa: TID251 - the hub is a server
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from jupyter_agent import __version__
from jupyter_agent.errors import AgentError, Conflict
from jupyter_agent.hub.commands.signin import user_message
from jupyter_agent.hub.commands.table import perform
from jupyter_agent.hub.data.store import Store
from jupyter_agent.hub.files import Files
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.hub.queues import Queues
from jupyter_agent.hub.services import Services
from jupyter_agent.hub.users import SHORT_S, Users
from jupyter_agent.hub.watches import Watches
from jupyter_agent.openflow.proto.openiap_pb2 import PingRequest, RefreshToken
from jupyter_agent.openflow.protocol import MAX_RECORD

LOG = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
PATH = "/ws/v2"
GOING_AWAY, UNSUPPORTED, TIMED_OUT = 1001, 1003, 1008


@dataclass(frozen=True)
class Timing:
    """How long things may take, in seconds."""

    round_s: float = 10
    heartbeat_s: float = 60
    sign_in_s: float = 120
    refresh_s: float = 60
    """A token with less left than this is renewed."""


class Server:
    """A hub that listens; use it with ``async with``, then `serve`."""

    def __init__(self, folder: Path, *, timing: Timing | None = None) -> None:
        """``folder`` holds the store and the files."""
        self.timing = timing or Timing()
        self._store = Store(folder / "hub.db")
        self._users = Users(self._store)
        self._files = Files(folder / "files", self._store)
        self._http: HTTPServer | None = None
        self._connections: dict[str, Connection] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._left_s = time.monotonic()
        self.port = 0

    @property
    def users(self) -> Users:
        """The users of this hub."""
        return self._users

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"ws://{ADDRESS}:{self.port}{PATH}"

    @property
    def idle_s(self) -> float:
        """How long no client has been connected."""
        return 0 if self._connections else time.monotonic() - self._left_s

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        try:
            await self._users.prepare()
            await self._files.prepare()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            self._http.stop()
        self._users.close()
        self._files.close()
        await self._store.__aexit__(kind, error, trace)

    def listen(self, port: int = 0) -> None:
        """Take a port, 0 for any. Raises `Conflict` when it is taken by another program."""
        try:
            sockets = bind_sockets(port, ADDRESS)
        except OSError as error:
            raise Conflict(f"The hub cannot listen on port {port} of {ADDRESS} ({error.strerror}).") from error
        self.port = sockets[0].getsockname()[1]
        watches = Watches(self._store, self._users)
        services = Services(
            store=self._store,
            users=self._users,
            files=self._files,
            watches=watches,
            queues=Queues(),
            config=self._config(),
            connections=self._connections,
        )
        self._services = services
        routes = [(PATH, Socket, {"server": self}), ("/livenessprobe", Probe, {"server": self})]
        application = Application(routes, default_handler_class=Unknown, default_handler_args={"server": self},
                                  websocket_max_message_size=MAX_RECORD + 4)  # fmt: skip
        self._http = HTTPServer(
            application, max_buffer_size=MAX_RECORD + (1 << 20), max_body_size=1 << 20, idle_connection_timeout=30
        )
        self._http.add_sockets(sockets)

    async def serve(self, until: asyncio.Event) -> None:
        """Serve clients until told to end, then say goodbye to them."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                running = [self._tasks.create_task(self._services.watches.run()),
                           self._tasks.create_task(self._rounds())]  # fmt: skip
                await until.wait()
                await self._end()
                for task in running:
                    task.cancel()
        finally:
            self._tasks = None

    def allows(self, host: str, origin: str | None) -> bool:
        """Whether a request with these headers may come from a client of ours."""
        if host not in (f"{ADDRESS}:{self.port}", f"localhost:{self.port}"):
            return False
        return origin is None or origin == f"http://{host}"

    def connect(self, socket: Socket, remote: str) -> Connection | None:
        """A new client; ``None`` when the hub is ending."""
        if self._tasks is None:
            return None
        connection = Connection(_Wire(socket), partial(perform, self._services), remote=remote)
        self._connections[connection.id] = connection
        self._tasks.create_task(self._attend(connection))
        return connection

    async def _attend(self, connection: Connection) -> None:
        try:
            connection.push("ping", PingRequest())
            await connection.serve()
        except Exception:  # one connection's end must not be everybody's
            LOG.exception("%r failed", connection)
            connection.close()
        finally:
            del self._connections[connection.id]
            self._left_s = time.monotonic()
            self._services.watches.remove(connection)
            self._services.queues.unregister(connection)

    async def _rounds(self) -> None:
        """Ping clients, renew their tokens, and close connections that are silent, for ever."""
        while True:
            await asyncio.sleep(self.timing.round_s)
            for connection in list(self._connections.values()):
                try:
                    await self._look_after(connection)
                except Exception:
                    LOG.exception("%r could not be looked after", connection)

    async def _look_after(self, connection: Connection) -> None:
        now, timing = time.monotonic(), self.timing
        if connection.user is None and now - connection.opened_s > timing.sign_in_s:
            connection.close(TIMED_OUT, "not signed in")
            return
        if connection.wants_pings:
            if now - connection.heard_s > timing.heartbeat_s:
                LOG.info("%r is closed: it is silent", connection)
                connection.close(TIMED_OUT, "silent")
                return
            connection.push("ping", PingRequest())
        if connection.user is not None and connection.expires_s - time.time() < timing.refresh_s:
            await self._refresh(connection, connection.user)

    async def _refresh(self, connection: Connection, user: str) -> None:
        """Send a new token; a user who is gone or disabled is disconnected."""
        try:
            caller = await self._users.caller(user)
        except AgentError as error:
            LOG.info("%r is closed: %s", connection, error)
            connection.close(TIMED_OUT, "signed out")
            return
        connection.expires_s = time.time() + SHORT_S
        token = self._users.token(user)
        connection.push("refreshtoken", RefreshToken(username=caller.username, jwt=token, user=user_message(caller)))

    async def _end(self) -> None:
        if self._http is not None:
            self._http.stop()  # nobody new
        for connection in list(self._connections.values()):
            connection.close(GOING_AWAY, "the hub ends")
        if self._http is not None:
            await self._http.close_all_connections()

    def _config(self) -> str:
        """What a client is told about this OpenFlow when it signs in."""
        domain = f"{ADDRESS}:{self.port}"
        return orjson.dumps({
            "wshost": f"ws://{domain}",
            "wsurl": f"ws://{domain}/",
            "domain": domain,
            "protocol": "http",
            "namespace": "",
            "agent_domain_schema": "",
            "agent_images": [],
            "version": __version__,
            "multi_tenant": False,
            "workspace_enabled": False,
            "supports_watch": True,
            "amqp_enabled_exchange": False,
            "timeseries_collections": [],
            "collections_with_text_index": [],
            "ping_clients_interval": int(1000 * self.timing.round_s),
            "enable_gitserver": False,
            "enable_analytics": False,
            "enable_detailed_analytic": False,
            "otel_trace_url": "",
            "otel_metric_url": "",
            "loginproviders": [],
        }).decode()  # fmt: skip


class _Guarded(RequestHandler):
    """A route of the hub: what does not come from a client of ours is refused."""

    server: Server

    def initialize(self, server: Server) -> None:
        """Take what the route table gives."""
        self.server = server

    def prepare(self) -> None:
        """Check where the request comes from, before anything else."""
        host = self.request.headers.get("Host", "")
        if not self.server.allows(host, self.request.headers.get("Origin")):
            raise HTTPError(403)

    def write_error(self, status_code: int, **_kwargs: Any) -> None:
        """Say no more than the status."""
        self.set_header("Content-Type", "text/plain")
        self.finish(f"{status_code}\n")


class Unknown(_Guarded):
    """Any other path."""

    def prepare(self) -> None:
        """Refuse."""
        super().prepare()
        raise HTTPError(404)


class Probe(_Guarded):
    """Tells that the hub is alive."""

    def get(self) -> None:
        """Answer."""
        self.set_header("Content-Type", "text/plain")
        self.finish("ok\n")


class Socket(_Guarded, WebSocketHandler):
    """The WebSocket of one client: moves bytes between the network and its `Connection`."""

    connection: Connection | None = None

    def check_origin(self, origin: str) -> bool:
        """`prepare` has checked it already."""
        return self.server.allows(self.request.headers.get("Host", ""), origin)

    def open(self, *_args: str, **_kwargs: str) -> None:
        """Begin a connection."""
        self.set_nodelay(True)
        self.connection = self.server.connect(self, self.request.remote_ip or "")
        if self.connection is None:
            self.close(GOING_AWAY, "the hub ends")

    async def on_message(self, message: str | bytes) -> None:
        """Hand on bytes; the next message is read when these were taken."""
        if self.connection is None:
            return
        if isinstance(message, str):
            self.connection.close(UNSUPPORTED, "binary messages only")
            return
        await self.connection.receive(message)

    def on_close(self) -> None:
        """The network says so."""
        if self.connection is not None:
            self.connection.lost()


@dataclass(frozen=True)
class _Wire:
    """`Transport` over a WebSocket: what is written to one that is gone goes nowhere."""

    socket: Socket

    def write(self, data: bytes) -> Awaitable[None]:
        """Queue a message."""
        try:
            return _quiet(self.socket.write_message(data, binary=True))
        except WebSocketClosedError:
            return asyncio.sleep(0)

    def close(self, code: int, reason: str) -> None:
        """Say goodbye."""
        self.socket.close(code, reason)


async def _quiet(sent: Awaitable[None]) -> None:
    with contextlib.suppress(WebSocketClosedError):
        await sent
