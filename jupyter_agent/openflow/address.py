"""Addresses of OpenFlow: what a user writes, and what is meant by it."""

from __future__ import annotations

import importlib.util
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from jupyter_agent.errors import InvalidInput

WEBSOCKET = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
GRPC = ("grpc", "grpcs")
API = "/api/v2"
GRPC_PORT, GRPC_TLS_PORT = 50051, 443
"""A server's own port, and that of a hosted one, which is behind TLS."""


@dataclass(frozen=True)
class Address:
    """Where a server is. ``url`` is the address in full."""

    url: str
    host: str
    port: int | None
    grpc: bool = False
    tls: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, told by its name alone."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def api_url(self) -> str:
        """Where single requests are posted to. Raises `InvalidInput` for a gRPC address, which has no such place."""
        if self.grpc:
            raise InvalidInput(f"Single requests need the http or ws address of OpenFlow, not {self.url}.")
        parts = urlsplit(self.url)
        return urlunsplit(("https" if self.tls else "http", parts.netloc, API, "", ""))


def address(url: str) -> Address:
    """The address meant by ``url``, whose scheme may also be http(s) and whose path may be missing.

    Raises `InvalidInput` for anything else, without repeating what may be a password, and for gRPC where that is not
    installed.
    """
    try:
        parts = urlsplit(url.strip())
        valid = (parts.scheme in WEBSOCKET or parts.scheme in GRPC) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise InvalidInput("The address of OpenFlow should be like wss://host, ws://host:port or grpc://host:port.")
    host, port = parts.hostname or "", parts.port
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(f"The address of OpenFlow must not hold a user or password: {host} is enough.")
    if parts.scheme in GRPC:
        return grpc_address(parts.scheme, host, port)
    scheme = WEBSOCKET[parts.scheme]
    path = parts.path.rstrip("/")
    full = urlunsplit((scheme, parts.netloc, "/ws/v2" if path in ("", API) else path, parts.query, ""))
    return Address(full, host, port, tls=scheme == "wss")


def grpc_address(scheme: str, host: str, port: int | None) -> Address:
    """A gRPC address: TLS by its scheme, or by the port of hosted servers. Raises `InvalidInput` without the extra."""
    if not has_grpc():
        raise InvalidInput(
            f"The address of OpenFlow is {scheme}://{host}, but gRPC is not installed: "
            "`pip install jupyter_agent[grpc]`, or use the wss address."
        )
    port = port or (GRPC_TLS_PORT if scheme == "grpcs" else GRPC_PORT)
    tls = scheme == "grpcs" or port == GRPC_TLS_PORT
    return Address(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}", host, port, grpc=True, tls=tls)


def has_grpc() -> bool:
    """Whether the extra for gRPC is installed. It is not imported for that."""
    return importlib.util.find_spec("grpc") is not None
