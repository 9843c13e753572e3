"""Envelopes over gRPC: the one method that servers offer is a stream of them in each direction.

Imports gRPC, the extra ``[grpc]``, and is itself imported only when an address asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc  # noqa: TID251 - here it is put to use
import grpc.aio  # noqa: TID251

from jupyter_agent.errors import AgentError, ConnectionLost, Unavailable
from jupyter_agent.openflow.address import Address
from jupyter_agent.openflow.protocol import BIG, MAX_RECORD, Envelope
from jupyter_agent.openflow.transport import CLOSE_S, decoded, unreachable
from jupyter_agent.openflow.trust import root_certificates, trust

METHOD = "/openiap.FlowService/SetupStream"
KEEP_ALIVE_S = 60
"""Between two pings of HTTP/2, seldom enough for strict servers: envelopes are sent as signs of life, too."""

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_RECORD),
    ("grpc.max_send_message_length", MAX_RECORD),
    ("grpc.keepalive_time_ms", KEEP_ALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),  # each connection its own: one that hangs is given up whole
)
MAX_WORDS = 200


class GrpcTransport:
    """Envelopes as messages of a gRPC stream, which keeps them whole and in order: seq is not looked at."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def send(self, records: Sequence[Sequence[bytes]]) -> None:
        """Send records, each without its length."""
        with ending_explained():
            for pieces in records:
                await self._call.write(b"".join(pieces[1:]))

    async def receive(self) -> list[tuple[Envelope, bool]]:
        """The next envelope."""
        with ending_explained():
            data = await self._call.read()
        if data is grpc.aio.EOF:
            raise ConnectionLost("OpenFlow closed the connection.")
        return [(await decoded(data), len(data) > BIG)]

    async def probe(self, answered: Callable[[], object]) -> None:
        """HTTP/2 does it by itself."""

    def abort(self) -> None:
        """Cancel the stream."""
        self._call.cancel()


@contextlib.asynccontextmanager
async def open_stream(address: Address, timeout_s: float, ca_file: Path | None) -> AsyncIterator[GrpcTransport]:
    """A stream to a gRPC address. Raises `Unavailable`."""
    async with contextlib.AsyncExitStack() as stack:
        channel = await open_channel(address, ca_file)
        stack.push_async_callback(channel.close, CLOSE_S / 2)
        try:
            async with asyncio.timeout(timeout_s):
                await ready(channel)
        except (TimeoutError, ConnectionError) as error:
            raise await explained(address, error, timeout_s, ca_file) from error
        # Without serializers what is sent and received are bytes.
        call: Any = channel.stream_stream(METHOD)()
        stack.callback(call.cancel)
        yield GrpcTransport(call)


async def open_channel(address: Address, ca_file: Path | None) -> grpc.aio.Channel:
    """A channel that verifies the server's certificate where TLS is asked for."""
    target = f"{address.host if ':' not in address.host else f'[{address.host}]'}:{address.port}"
    options = [*OPTIONS, ("grpc.enable_http_proxy", 0 if address.is_loopback else 1)]
    if not address.tls:
        return grpc.aio.insecure_channel(target, options=options)
    roots = await asyncio.to_thread(lambda: root_certificates(trust(ca_file)))
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(root_certificates=roots), options=options)


async def ready(channel: grpc.aio.Channel) -> None:
    """Wait until the channel is connected. Raises `ConnectionError` at the first failure; nothing is tried again."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            raise ConnectionError("no gRPC server answers there")
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)


async def explained(address: Address, error: Exception, timeout_s: float, ca_file: Path | None) -> AgentError:
    """Why there is no stream: gRPC does not say, so that the same address is tried without it."""
    context = await asyncio.to_thread(trust, ca_file) if address.tls else None
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except Exception as found:  # noqa: BLE001 - it is told
        return unreachable(address.url, found)
    writer.transport.abort()
    if isinstance(error, TimeoutError):
        return unreachable(address.url, error)
    return Unavailable(f"{address.url} does not speak gRPC{' with TLS' * address.tls}: check the address of OpenFlow.")


@contextlib.contextmanager
def ending_explained() -> Iterator[None]:
    """Say in our terms that the stream has ended."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        said = " ".join((error.details() or "").split())[:MAX_WORDS]
        raise ConnectionLost(f"OpenFlow closed the connection{f' ({said})' if said else ''}.") from error
    except grpc.aio.UsageError as error:  # the stream has ended before
        raise ConnectionLost("OpenFlow closed the connection.") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # gRPC says so, too, when not this task but the stream was cancelled, by the server for example.
        raise ConnectionLost("OpenFlow closed the connection.") from error
