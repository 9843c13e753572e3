"""The port of gRPC. What speaks gRPC is loaded when the first client comes: a hub that nobody asks for it stays small.

grpcio cannot take over a socket that was accepted by somebody else: it listens on a Unix socket of its own, and bytes
are carried between that and the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from jupyter_agent.errors import Conflict
from jupyter_agent.hub.network.routes import ADDRESS
from jupyter_agent.hub.network.websocket import Clients

if TYPE_CHECKING:
    from jupyter_agent.hub.network.grpc import GrpcServer

LOG = logging.getLogger(__name__)

PIECE = 256 << 10
END_S = 2.0


class GrpcPort:
    """A port that speaks gRPC: `listen`, then `run`."""

    def __init__(self, clients: Clients, *, is_full: Callable[[int], bool]) -> None:
        """``is_full`` says whether so many sockets are enough."""
        self._clients = clients
        self._is_full = is_full
        self._listener: asyncio.Server | None = None
        self._server: GrpcServer | None = None
        self._loading = asyncio.Lock()
        self._carried: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def open(self) -> int:
        """How many sockets there are: each client takes both ends of the Unix socket, too."""
        return 3 * len(self._carried)

    async def listen(self, port: int) -> None:
        """Take a port, 0 for any. Raises `Conflict` when it is taken."""
        try:
            self._listener = await asyncio.start_server(self._accept, ADDRESS, port, limit=PIECE)
        except OSError as error:
            raise Conflict(f"The hub cannot listen on port {port} of {ADDRESS} ({error.strerror}).") from error
        self.port = int(self._listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Take nobody new; who is there has been told goodbye, and gets a moment to hear it."""
        if self._listener is not None:
            self._listener.close()
        if self._server is not None:
            await self._server.stop()
        if self._carried:
            await asyncio.wait(self._carried, timeout=END_S)
        for task in self._carried:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._is_full(self.open):
            writer.close()
            return
        self._carried.add(task)
        try:
            inner_reader, inner_writer = await asyncio.open_unix_connection(await self._path(), limit=PIECE)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_carry(reader, inner_writer))
                tasks.create_task(_carry(inner_reader, writer))
        except (ImportError, OSError) as error:
            LOG.warning("a client of gRPC could not be served: %s", error)
        finally:
            self._carried.discard(task)
            writer.close()

    async def _path(self) -> str:
        """Where grpcio listens, from the first time on."""
        async with self._loading:
            if self._server is None:
                module = await asyncio.to_thread(importlib.import_module, "jupyter_agent.hub.network.grpc")
                server: GrpcServer = module.GrpcServer(self._clients)
                await server.start()
                self._server = server
        return self._server.path


def is_offered() -> bool:
    """Whether grpcio is installed; it is not loaded by that."""
    return importlib.util.find_spec("grpc") is not None


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes until one side has had enough, as fast as the slower one takes them."""
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    writer.close()
