"""Servers of conda channels for tests, real ones: with credentials, in trouble, behind a proxy; and their clients."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.certificates import identity


@dataclass
class Trouble:
    """How a server answers: ``status`` to all, or to those that do not show ``wanted`` as their Authorization."""

    status: int = 0
    wanted: str = ""
    page: bytes = b""
    cut: bool = False
    redirect: str = ""
    token: str = ""
    times: int = 1 << 30
    """How many answers are so; afterwards all is well."""


@dataclass
class Server:
    """A server that runs; ``seen`` are (method, path, Authorization) of what it was asked."""

    url: str
    port: int
    trouble: Trouble
    seen: list[tuple[str, str, str]] = field(default_factory=list)


class _Files(SimpleHTTPRequestHandler):
    """Gives the files of a folder, as its server's trouble allows."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        peer: Server = self.server.peer
        shown = self.headers.get("Authorization", "")
        peer.seen.append((self.command, self.path, shown))
        trouble = peer.trouble
        if trouble.token:
            if not self.path.startswith(f"/t/{trouble.token}/"):
                return self._say(401)
            self.path = self.path.removeprefix(f"/t/{trouble.token}")
        if trouble.wanted and shown != trouble.wanted:
            return self._say(401)
        if trouble.times > 0 and self._in_trouble(trouble):
            trouble.times -= 1
            return None
        return super().do_GET()

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _in_trouble(self, trouble: Trouble) -> bool:
        if trouble.redirect:
            self.send_response(302)
            self.send_header("Location", trouble.redirect + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif trouble.page:
            self._say(200, trouble.page, "text/html")
        elif trouble.cut and self.command == "GET":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"x" * 100)
            self.close_connection = True
        elif trouble.status:
            self._say(trouble.status)
        else:
            return False
        return True

    def _say(self, status: int, body: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Nothing is printed."""


class _Proxy(BaseHTTPRequestHandler):
    """A proxy that wants a password; it knows the way to hosts that do not exist (``routes``)."""

    server: Any

    def do_CONNECT(self) -> None:
        if self._allowed():
            with socket.create_connection(self.server.routes(self.path.partition(":")[0])) as far:
                self.send_response(200)
                self.end_headers()
                _pump(self.connection, far)

    def do_GET(self) -> None:
        if not self._allowed():
            return
        target = urlsplit(self.path)
        with socket.create_connection(self.server.routes(target.hostname)) as far:
            head = [f"{self.command} {target.path} HTTP/1.1", "Connection: close"]
            kept = [
                f"{name}: {value}"
                for name, value in self.headers.items()
                if not name.lower().startswith(("proxy-", "connection"))
            ]
            far.sendall("\r\n".join([*head, *kept, "", ""]).encode())
            while part := far.recv(65536):
                self.wfile.write(part)
        self.close_connection = True

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _allowed(self) -> bool:
        peer: Server = self.server.peer
        shown = self.headers.get("Proxy-Authorization", "")
        peer.seen.append((self.command, self.path, shown))
        if shown == peer.trouble.wanted:
            return True
        self.send_response(407)
        self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Nothing is printed."""


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has heard enough goes away: nothing to print."""


def _pump(one: socket.socket, other: socket.socket) -> None:
    while True:
        readable, _, _ = select.select([one, other], [], [], 30)
        for source in readable:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)
        if not readable:
            return


@contextlib.contextmanager
def _serving(
    handler: Callable[..., BaseHTTPRequestHandler],
    trouble: Trouble,
    *,
    tls: tuple[Path, str] | None = None,
    routes: Callable[[str], tuple[str, int]] | None = None,
) -> Iterator[Server]:
    server: Any = _Quiet(("127.0.0.1", 0), handler)
    server.routes = routes
    where = f"127.0.0.1:{server.server_port}"
    if tls is not None:
        server.socket = identity(*tls).wrap_socket(server.socket, server_side=True)
        where = f"localhost:{server.server_port}"
    server.peer = Server(f"http{'s' if tls else ''}://{where}", server.server_port, trouble)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server.peer
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def serving(folder: Path, trouble: Trouble | None = None, *, tls: tuple[Path, str] | None = None) -> Iterator[Server]:
    """A server of ``folder``; with ``tls`` (a folder for keys, a name in tests.certificates) by https."""
    with _serving(partial(_Files, directory=str(folder)), trouble or Trouble(), tls=tls) as peer:
        yield peer


@contextlib.contextmanager
def proxy(user: str, password: str, routes: Callable[[str], tuple[str, int]]) -> Iterator[Server]:
    """A proxy for http and https with this password."""
    wanted = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    with _serving(_Proxy, Trouble(wanted=wanted), routes=routes) as peer:
        yield peer


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """The URL of a server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
