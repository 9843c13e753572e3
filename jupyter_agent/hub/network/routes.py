"""What all routes of the hub's HTTP server share: who may come in, and how it is said that something is not to be.

A browser may be made to talk to 127.0.0.1 by any page (DNS rebinding, cross-site requests): so on every route the Host
must be ours, and the Origin, which browsers send, ours too or absent. No page of another origin may read an answer.
"""

from __future__ import annotations

import base64
import binascii
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tornado.iostream import StreamClosedError
from tornado.web import Finish, HTTPError, RequestHandler  # noqa: TID251 - the hub is a server

from jupyter_agent.errors import (
    AccessDenied,
    AgentError,
    Conflict,
    InvalidInput,
    NotFound,
    ProtocolError,
    SignInFailed,
    Unavailable,
)
from jupyter_agent.hub.callers import Caller
from jupyter_agent.hub.logins import Logins
from jupyter_agent.hub.network.rates import RateExceeded, Rates
from jupyter_agent.hub.services import Services

LOG = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
MAX_SENTENCE = 1000

STATUSES: tuple[tuple[type[AgentError], int], ...] = (
    (SignInFailed, 401),
    (AccessDenied, 403),
    (NotFound, 404),
    (Conflict, 409),
    (InvalidInput, 400),
    (ProtocolError, 400),
    (RateExceeded, 429),
    (Unavailable, 503),
)
"""By error, the first that fits."""


@dataclass(frozen=True)
class Front:
    """What every route is given."""

    services: Services
    port: int
    rates: Rates
    logins: Logins

    def allows(self, host: str, origin: str | None) -> bool:
        """Whether a request with these headers may come from a client of ours."""
        if host not in (f"{ADDRESS}:{self.port}", f"localhost:{self.port}"):
            return False
        return origin is None or origin == f"http://{host}"


class Route(RequestHandler):
    """A route of the hub: what does not come from a client of ours is refused."""

    front: Front

    def initialize(self, front: Front) -> None:
        """Take what the route table gives."""
        self.front = front

    def set_default_headers(self) -> None:
        """What every answer says to a browser: mine alone, as it is, and not to be kept."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")

    def prepare(self) -> Awaitable[None] | None:
        """Check where the request comes from, before anything else."""
        host = self.request.headers.get("Host", "")
        if not self.front.allows(host, self.request.headers.get("Origin")):
            raise HTTPError(403)
        return None

    def write_error(self, status_code: int, **_kwargs: Any) -> None:
        """Say no more than the status."""
        self.set_header("Content-Type", "text/plain")
        self.finish(f"{status_code}\n")

    def refuse(self, status: int, sentence: str) -> None:
        """Answer with one sentence."""
        self.set_status(status)
        self.finish({"message": sentence[:MAX_SENTENCE]})

    async def caller(self) -> Caller | None:
        """Who the ``Authorization`` header says is asking, ``None`` when there is none. Raises `SignInFailed`."""
        users = self.front.services.users
        scheme, _, value = self.request.headers.get("Authorization", "").strip().partition(" ")
        if not scheme:
            return None
        if scheme.lower() in ("bearer", "jwt"):
            return await users.by_token(value.strip())
        if scheme.lower() == "basic":
            username, password = _basic(value.strip())
            return await users.by_password(username, password)
        raise SignInFailed("The Authorization header must begin with Bearer, jwt or Basic.")


R = TypeVar("R", bound=Route)
Method = Callable[..., Awaitable[None]]


def in_a_sentence(method: Method) -> Method:
    """Let a method of a route answer with the sentence of the error that stops it."""

    @functools.wraps(method)
    async def answering(route: Route, *arguments: str) -> None:
        try:
            await method(route, *arguments)
        except AgentError as error:
            status = status_of(error)
            if status == 401:  # noqa: PLR2004 - as it is known
                route.set_header("WWW-Authenticate", "Bearer")
            route.refuse(status, str(error))
        except StreamClosedError:
            LOG.debug("%s went away before it was answered", route.request.remote_ip)
        except (HTTPError, Finish):
            raise
        except Exception:
            LOG.exception("%s %s failed", route.request.method, route.request.path)
            route.refuse(500, "The hub could not do this because of a fault of its own.")

    return answering


def status_of(error: AgentError) -> int:
    """The HTTP status that says the same."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def _basic(value: str) -> tuple[str, str]:
    try:
        username, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise SignInFailed("The Authorization header must hold a user and a password, as Basic says.")
    return username, password


class Unknown(Route):
    """Any other path."""

    def prepare(self) -> None:
        """Refuse."""
        super().prepare()
        raise HTTPError(404)


class Probe(Route):
    """Tells that the hub is alive."""

    def get(self) -> None:
        """Answer."""
        self.set_header("Content-Type", "text/plain")
        self.finish("ok\n")

    head = get
