"""The hub on the network: its parts, its ports and its routes.

HTTP, WebSocket and, where grpcio is installed, gRPC, all on 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import Application  # noqa: TID251 - the hub is a server

from jupyter_agent import __version__
from jupyter_agent.errors import Conflict
from jupyter_agent.hub.data.store import Store
from jupyter_agent.hub.files import Files
from jupyter_agent.hub.hints import Hints
from jupyter_agent.hub.logins import Logins
from jupyter_agent.hub.network import grpc_port
from jupyter_agent.hub.network.clients import Clients, Timing
from jupyter_agent.hub.network.download import Download
from jupyter_agent.hub.network.grpc_port import GrpcPort
from jupyter_agent.hub.network.login import About, AddTokenRequest, GetTokenRequest, Login
from jupyter_agent.hub.network.rates import Rates
from jupyter_agent.hub.network.rest import Envelopes, Plain
from jupyter_agent.hub.network.routes import ADDRESS, Front, Probe, Unknown
from jupyter_agent.hub.network.websocket import Socket
from jupyter_agent.hub.queues import Queues
from jupyter_agent.hub.services import Services
from jupyter_agent.hub.users import Users
from jupyter_agent.hub.watches import Watches
from jupyter_agent.openflow.protocol import MAX_RECORD

__all__ = ["Server", "Timing"]

LOG = logging.getLogger(__name__)

PATH = "/ws/v2"
CAPACITY = 4096
"""Connections at most, where the process may open as many."""

SPARE = 64
"""Further sockets that are taken, to be told in a sentence that there is no room."""

FULL_SENTENCE = b'{"message": "The hub has as many connections as it takes: try again later."}'
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(FULL_SENTENCE), FULL_SENTENCE)
)


class Server:
    """A hub that listens; use it with ``async with``, then `serve`."""

    def __init__(self, folder: Path, *, timing: Timing | None = None, rate: int = 0, capacity: int = CAPACITY) -> None:
        """``folder`` holds the store and the files.

        ``rate`` is how many requests a second each client may make, 0 for any number; ``capacity`` how many clients
        there may be.
        """
        self.timing = timing or Timing()
        self._rate = rate
        self._capacity = capacity
        self._store = Store(folder / "hub.db")
        self._users = Users(self._store)
        self._files = Files(folder / "files", self._store)
        self._http: _Http | None = None
        self._clients: Clients | None = None
        self._left_s = time.monotonic()
        self._grpc: GrpcPort | None = None
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
        if self._clients is None or self._http is None:
            return time.monotonic() - self._left_s
        if len(self._clients) or self._http.open:
            return 0
        return time.monotonic() - max(self._clients.left_s, self._http.left_s)

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
        self._services = self._compose()
        clients = Clients(self._services, timing=self.timing, rate=self._rate, capacity=self._capacity)
        front = Front(self._services, self.port, Rates(self._rate), Logins())
        self._clients = clients
        self._http = _Http(
            application(front, clients),
            max_buffer_size=MAX_RECORD + (1 << 20),
            max_body_size=1 << 20,
            idle_connection_timeout=self.timing.headers_s,
            body_timeout=self.timing.body_s,
        )
        self._http.is_full = self._is_full
        self._http.add_sockets(sockets)

    async def listen_grpc(self, port: int = 0) -> None:
        """Take a port for gRPC, too, where grpcio is installed. Raises `Conflict` when it is taken."""
        if self._clients is None:
            raise RuntimeError("listen first")
        if not grpc_port.is_offered():
            LOG.debug("gRPC is not offered: grpcio is not installed")
            return
        self._grpc = GrpcPort(self._clients, is_full=self._is_full)
        await self._grpc.listen(port)

    @property
    def grpc_url(self) -> str:
        """What clients of gRPC connect to, empty where it is not offered."""
        return f"grpc://{ADDRESS}:{self._grpc.port}" if self._grpc is not None and self._grpc.port else ""

    async def serve(self, until: asyncio.Event) -> None:
        """Serve clients until told to end, then say goodbye to them."""
        if self._clients is None or self._http is None:
            raise RuntimeError("listen first")
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._services.watches.run())
            tasks.create_task(self._services.queues.run())
            hints = Hints(self._store, self._services.queues)
            hinting = tasks.create_task(hints.run(self.timing.hints_s))
            clients = tasks.create_task(self._clients.run(until))
            await until.wait()
            self._http.stop()  # nobody new
            await self._http.close_all_connections()
            await clients
            if self._grpc is not None:
                await self._grpc.close()
            self._services.queues.stop()
            watching.cancel()
            hinting.cancel()

    def _is_full(self, sockets: int) -> bool:
        return sockets + len(self._services.connections) >= self._capacity + SPARE

    def _compose(self) -> Services:
        return Services(
            store=self._store,
            users=self._users,
            files=self._files,
            watches=Watches(self._store, self._users),
            queues=Queues(self._store, self._users),
            config=self._config(),
        )

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
            "openflow_uniqueid": self._users.hub_id,
        }).decode()  # fmt: skip


def application(front: Front, clients: Clients) -> Application:
    """The routes of a hub."""
    given = {"front": front}
    routes: list[Any] = [
        (PATH, Socket, {**given, "clients": clients}),
        ("/livenessprobe", Probe, given),
        ("/api/v2", Envelopes, given),
        (r"/rest/v1/(\w{1,100})", Plain, given),
        (r"/download/([^/]{1,200})", Download, given),
        ("/AddTokenRequest", AddTokenRequest, given),
        ("/GetTokenRequest", GetTokenRequest, given),
        (r"/(?:login|local)", Login, given),
        ("/(user|config|jwt|jwtlong)", About, given),
    ]
    return Application(
        routes,
        default_handler_class=Unknown,
        default_handler_args=given,
        xsrf_cookie_name=f"jupyter-agent-hub-{front.port}-form",
        xsrf_cookie_kwargs={"httponly": True, "samesite": "Strict"},
    )


def refuse(stream: IOStream) -> None:
    """Say that there is no room, and hang up."""

    def hang_up(sent: asyncio.Future[None]) -> None:
        sent.exception()
        stream.close()

    stream.write(FULL).add_done_callback(hang_up)


class _Http(HTTPServer):
    """Takes no more sockets than it should, and knows how many there are: those of WebSockets are not among them."""

    open = 0
    left_s = 0.0
    """When the last one was closed."""

    is_full: Callable[[int], bool] = staticmethod(lambda _: False)
    """Whether so many are enough."""

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if self.is_full(self.open):
            refuse(stream)
            return
        self.open += 1
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # whose other side is gone is closed
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        self.open -= 1
        self.left_s = time.monotonic()
        super().on_close(server_conn)
