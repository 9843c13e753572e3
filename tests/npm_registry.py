"""A registry for npm, in this process: a few tiny packages, as npm asks for them over HTTP."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Registry:
    """Start it with ``with``. ``token``: what one has to show; ``stalls``: it never answers for these names."""

    def __init__(self) -> None:
        self.packages: dict[str, dict[str, tuple[dict[str, Any], bytes]]] = {}
        self.asked: list[str] = []
        self.token = ""
        self.stalls: set[str] = set()
        self.stalled = threading.Event()
        self._go_on = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def add(self, name: str, files: dict[str, str], *, version: str = "1.0.0", **fields: Any) -> None:
        about = {"name": name, "version": version, "main": "index.js", **fields}
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            for path, text in {"package.json": json.dumps(about), **files}.items():
                member = tarfile.TarInfo(f"package/{path}")
                member.size, member.mode = len(text.encode()), 0o755
                tar.addfile(member, io.BytesIO(text.encode()))
        self.packages.setdefault(name, {})[version] = (about, archive.getvalue())

    def integrity(self, name: str, version: str = "1.0.0") -> str:
        digest = hashlib.sha512(self.packages[name][version][1]).digest()
        return f"sha512-{base64.b64encode(digest).decode()}"

    def lock(self, *names: str) -> str:
        """A lock of these packages, each at 1.0.0."""
        entries = {
            f"node_modules/{name}": {
                "version": "1.0.0",
                "resolved": f"{self.url}{name}/-/{name}-1.0.0.tgz",
                "integrity": self.integrity(name),
            }
            for name in names
        }
        root = {"name": "p", "version": "1.0.0", "dependencies": dict.fromkeys(names, "1.0.0")}
        return json.dumps({"name": "p", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": root, **entries}})

    def __enter__(self) -> Self:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry._answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
                """Be quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()  # how soon it ends
        return self

    def __exit__(self, *_: object) -> None:
        self._go_on.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.lstrip("/").replace("%2f", "/")
        self.asked.append(path)
        name, _, file = path.partition("/-/")
        if name in self.stalls:
            self.stalled.set()
            self._go_on.wait(60)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            self._send(request, 401, b'{"error": "who are you?"}')
        elif name not in self.packages:
            self._send(request, 404, b'{"error": "not found"}')
        elif file:
            version = file.removesuffix(".tgz").rpartition("-")[2]
            self._send(request, 200, self.packages[name][version][1])
        else:
            self._send(request, 200, json.dumps(self._document(name)).encode())

    def _document(self, name: str) -> dict[str, Any]:
        versions = {
            version: {
                **about,
                "dist": {
                    "tarball": f"{self.url}{name}/-/{name}-{version}.tgz",
                    "integrity": self.integrity(name, version),
                },
            }
            for version, (about, _) in self.packages[name].items()
        }
        return {"name": name, "versions": versions, "dist-tags": {"latest": max(versions)}}

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
