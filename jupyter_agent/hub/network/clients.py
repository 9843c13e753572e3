"""The clients of a hub: who is connected, pings, tokens, and who has to go."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from google.protobuf.message import Message  # noqa: TID251 - what commands take and return

from jupyter_agent.errors import AgentError, SignInFailed, Unavailable
from jupyter_agent.hub.callers import Caller
from jupyter_agent.hub.commands.call import Reply
from jupyter_agent.hub.commands.signin import user_message
from jupyter_agent.hub.commands.table import perform
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.hub.network.outbox import Transport
from jupyter_agent.hub.network.rates import Rate
from jupyter_agent.hub.services import Services
from jupyter_agent.hub.users import SHORT_S
from jupyter_agent.openflow.proto.openiap_pb2 import Envelope, PingRequest, RefreshToken
from jupyter_agent.openflow.protocol import Session

LOG = logging.getLogger(__name__)

GOING_AWAY, TIMED_OUT = 1001, 1008


@dataclass(frozen=True)
class Timing:
    """How long things may take, in seconds."""

    round_s: float = 10
    heartbeat_s: float = 60
    sign_in_s: float = 120
    refresh_s: float = 60
    """A token with less left than this is renewed."""

    headers_s: float = 30
    """In which the head of an HTTP request must be there."""

    body_s: float = 300
    """And then its body."""
    hints_s: float = 10
    """Between two rounds of hints about work items that are due."""


class Clients:
    """The connections of a hub; they live while `run` does."""

    def __init__(self, services: Services, *, timing: Timing, rate: int, capacity: int) -> None:
        """``rate`` is how many requests a second each may make, 0 for any number; ``capacity`` how many there may be.

        They stand in the connections of ``services``.
        """
        self._services = services
        self._connections = services.connections
        self._timing = timing
        self._rate = rate
        self._capacity = capacity
        self._tasks: asyncio.TaskGroup | None = None
        self.left_s = time.monotonic()
        """When the last one left."""

    def __len__(self) -> int:
        return len(self._connections)

    async def run(self, until: asyncio.Event) -> None:
        """Serve clients until told to end, then say goodbye to them."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                rounds = self._tasks.create_task(self._rounds())
                await until.wait()
                rounds.cancel()
                for connection in list(self._connections.values()):
                    connection.close(GOING_AWAY, "the hub ends")
        finally:
            self._tasks = None

    def check_room(self) -> None:
        """Raises `Unavailable` when there can be no further one."""
        if self._tasks is None:
            raise Unavailable("The hub is about to end: try again in a moment.")
        if len(self._connections) >= self._capacity:
            raise Unavailable(f"The hub has {self._capacity} connections, as many as it takes: try again later.")

    def connect(self, transport: Transport, remote: str, *, session: Session | None = None) -> Connection:
        """A connection, served from now on; ``remote`` is the client's address. Raises `Unavailable`."""
        self.check_room()
        rate = Rate(self._rate)

        async def performed(connection: Connection, envelope: Envelope, request: Message) -> Reply:
            rate.spend()
            return await perform(self._services, connection, envelope, request)

        connection = Connection(transport, performed, remote=remote, session=session)
        self._connections[connection.id] = connection
        if self._tasks is not None:
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
            self.left_s = time.monotonic()
            self._services.watches.remove(connection)
            self._services.queues.unregister(connection)

    async def _rounds(self) -> None:
        """Ping clients, renew their tokens, and close connections that are silent or whose user is gone, for ever."""
        while True:
            await asyncio.sleep(self._timing.round_s)
            for connection in list(self._connections.values()):
                try:
                    await self._look_after(connection)
                except Exception:
                    LOG.exception("%r could not be looked after", connection)

    async def _look_after(self, connection: Connection) -> None:
        now, timing = time.monotonic(), self._timing
        if connection.user is None and now - connection.opened_s > timing.sign_in_s:
            connection.close(TIMED_OUT, "not signed in")
            return
        if connection.wants_pings:
            if now - connection.heard_s > timing.heartbeat_s:
                LOG.info("%r is closed: it is silent", connection)
                connection.close(TIMED_OUT, "silent")
                return
            connection.push("ping", PingRequest())
        if connection.user is not None:
            await self._look_after_user(connection, connection.user)

    async def _look_after_user(self, connection: Connection, user: str) -> None:
        """Send a new token in time; a user who is gone or disabled is disconnected."""
        try:
            caller = await self._services.users.caller(user)
        except SignInFailed as error:
            LOG.info("%r is closed: %s", connection, error)
            connection.close(TIMED_OUT, "signed out")
            return
        except AgentError as error:
            LOG.warning("the user of %r cannot be looked up: %s", connection, error)
            return
        if connection.expires_s - time.time() < self._timing.refresh_s:
            self._refresh(connection, caller)

    def _refresh(self, connection: Connection, caller: Caller) -> None:
        connection.expires_s = time.time() + SHORT_S
        token = self._services.users.token(caller.id)
        connection.push("refreshtoken", RefreshToken(username=caller.username, jwt=token, user=user_message(caller)))
