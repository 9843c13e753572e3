"""Watchers over the wire: a hub's own process, and watchers in this one that do as little as can be."""

from __future__ import annotations

import asyncio
import resource
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from jupyter_agent.home import Home
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Session
from tests.bench.figures import Figure, bench
from tests.openflow_peers import Hub, running_hub, until

WATCHERS = 1000
ROUNDS = 30
PATH = "$.[?(@._type == 'package' && @.n >= 0)]"
OTHER = "$.[?(@._type == 'other')]"
FILES = 8192
UPGRADE = (
    "GET /ws/v2 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Tally:
    """What all watchers have got."""

    def __init__(self) -> None:
        self.replies = self.events = 0
        self._wanted = 0
        self._is_met = asyncio.Event()

    def add(self, data: bytes) -> None:
        """Count by the names of envelopes."""
        self.replies += data.count(b"watchreply")
        self.events += data.count(b"watchevent")
        if self.events >= self._wanted:
            self._is_met.set()

    async def reach(self, events: int) -> None:
        """Wait until so many events have come."""
        self._wanted = events
        self._is_met.clear()
        if self.events < events:
            await self._is_met.wait()


class Watcher(asyncio.Protocol):
    """A connection with watches."""

    def __init__(self, tally: Tally, port: int, jwt: str, watches: int) -> None:
        self._tally = tally
        self._port = port
        self._first = b""
        session = Session()
        paths = [PATH] * watches + [OTHER]  # what watches another type is not to cost anything
        requests = [pb.WatchRequest(collectionname="things", paths=[path]) for path in paths]
        payload = session.envelope("signin", pb.SigninRequest(jwt=jwt))
        payload += b"".join(session.envelope("watch", request) for request in requests)
        length = struct.pack(">BBQ", 0x82, 0x80 | 127, len(payload))
        self._requests = length + bytes(4) + payload  # a mask of zeros changes nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(UPGRADE.format(port=self._port).encode())

    def data_received(self, data: bytes) -> None:
        if b"\r\n\r\n" in data and not self._first:
            self._first = data
            self._transport.write(self._requests)
        self._tally.add(data)


@bench("hub_watchers", goal="an insert is seen by 1,000 watchers within 100 ms", kind="budget")
def hub_watchers() -> Iterator[Figure]:
    """From the insert's request to the last of 1,000 events, each on a connection of its own, and 20 on each of 50."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit[0], min(FILES, limit[1])), limit[1]))
    for connections in (WATCHERS, 50):
        with tempfile.TemporaryDirectory(prefix="ja-") as folder, running_hub(Home(Path(folder) / "home")) as hub:
            times = asyncio.run(seen_by(hub, connections, WATCHERS // connections))
        name = f"hub_watchers_{connections}x{WATCHERS // connections}"
        yield Figure(round(statistics.median(times), 1), "ms", name=name)
        yield Figure(round(max(times), 1), "ms", name=f"{name}_worst")


async def seen_by(hub: Hub, connections: int, each: int) -> list[float]:
    """Milliseconds from an insert to the last event, for each insert."""
    loop, port, tally = asyncio.get_running_loop(), int(hub.url.split(":")[2].split("/")[0]), Tally()
    for _ in range(connections):
        await loop.create_connection(lambda: Watcher(tally, port, hub.ready["jwt"], each), "127.0.0.1", port)
    await until(lambda: tally.replies == connections * (each + 1), "all watch")
    times = []
    async with hub.client() as client:
        await client.connected()
        for number in range(1, ROUNDS + 1):
            start = time.perf_counter()
            inserted = asyncio.ensure_future(client.insert_one("things", {"_type": "package", "n": number}))
            await tally.reach(number * connections * each)
            times.append((time.perf_counter() - start) * 1000)
            await inserted
    return times
