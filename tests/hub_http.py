"""A plain HTTP client for the hub's routes: what was sent is what was asked for, and nothing is followed."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.openflow_peers import Hub

DEADLINE_S = 60


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def sentence(self) -> str:
        return str(self.json["message"])


def send(hub: Hub, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """One request; ``Content_Type`` and the like become headers, a body that is no bytes becomes JSON."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and not isinstance(body, bytes):
        body, given = json.dumps(body).encode(), {"Content-Type": "application/json", **given}
    parts = urlsplit(hub.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=DEADLINE_S)
    try:
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def bearer(token: str) -> str:
    return f"Bearer {token}"
