"""The gate's paths: a table of what is forwarded, and the two things the gate answers itself."""

from __future__ import annotations

import contextlib
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from jupyter_server.auth.decorator import authorized  # noqa: TID251 - this is the extension
from jupyter_server.base.handlers import APIHandler  # noqa: TID251 - this is the extension
from tornado.iostream import IOStream
from tornado.web import HTTPError, authenticated  # noqa: TID251 - the gate's handlers are Tornado's

from jupyter_agent.errors import AgentError, Unavailable
from jupyter_agent.home import NO_AGENT, RequestFailed
from jupyter_agent.server.events import Bridge
from jupyter_agent.server.forward import forward
from jupyter_agent.server.upstream import Upstream

API = "/jupyter-agent/api/v1/"

BODY_LIMIT = 16 << 20
"""Bytes of a request; parameters are values, files go by other ways."""

SANDBOX = "sandbox allow-scripts allow-popups allow-downloads"
"""What notebooks made runs, but with an origin of its own: neither Jupyter's cookies nor its API are in reach."""


class GateHandler(APIHandler):
    """What all paths of the gate share: Jupyter's checks, the agent, errors in Jupyter's form."""

    auth_resource = "jupyter_agent"

    def initialize(self, *, upstream: Upstream, bridge: Bridge, methods: str = "") -> None:
        """Take the collaborators and, of a forwarded path, the methods (called by Tornado)."""
        self.upstream = upstream
        self.bridge = bridge
        self.methods = methods.split()
        self.connection: IOStream | None = None
        self.gone = False

    async def prepare(self) -> None:  # type: ignore[override]  # as Jupyter's own handlers do
        """Check the request as Jupyter does; from the first user on, events are bridged."""
        await super().prepare()
        self._track_activity = self.request.method != "GET"  # a page that only watches keeps no idle server alive
        if self.current_user:
            self.bridge.wake()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Errors of ours as ``{"message", "reason"}``: the agent's own, or 503 for an agent that cannot be had."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, RequestFailed):
            self.set_status(error.status)
            self.finish({"message": str(error), "reason": error.reason})
        elif isinstance(error, AgentError):
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
            self.finish({"message": str(error), "reason": type(error).__name__})
        else:
            super().write_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """One line for what is no fault of the gate."""
        if isinstance(value, AgentError):
            self.log.warning("jupyter_agent: %s", value)
        else:
            super().log_exception(typ, value, tb)


class ForwardHandler(GateHandler):
    """A path of the agent's API, for the methods it has."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """Forward."""
        await self._forward()

    @authenticated
    @authorized
    async def post(self) -> None:
        """Forward."""
        await self._forward()

    @authenticated
    @authorized
    async def delete(self) -> None:
        """Forward."""
        await self._forward()

    async def _forward(self) -> None:
        self._check()
        connection = self.connection = await self.upstream.connect()
        if self.gone:
            connection.close()
        self.bridge.wake()  # the agent may have been started for this request
        content_type = await forward(self, connection, self.current_user.username, self.base_url)
        if content_type is not None:
            await self.finish(set_content_type=content_type)

    def _check(self) -> None:
        if self.request.method not in self.methods:
            raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)
        if len(self.request.body) > BODY_LIMIT:
            raise HTTPError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request holds at most {BODY_LIMIT} bytes.")
        if {".", ".."} & set(unquote(self.request.path).split("/")):
            raise HTTPError(HTTPStatus.NOT_FOUND, "There is no such path.")

    def on_connection_close(self) -> None:
        """End the agent's side when the browser went away (called by Tornado)."""
        self.gone = True
        if self.connection is not None:
            self.connection.close()


class ArtifactHandler(ForwardHandler):
    """A file that a run made; shown by the browser, but never on Jupyter's origin."""

    @property
    def content_security_policy(self) -> str:
        """The sandbox, and what is set for Jupyter's own pages (who may frame them)."""
        return f"{SANDBOX}; {super(APIHandler, self).content_security_policy}"


class StatusHandler(GateHandler):
    """The agent's status, without starting one."""

    @authenticated
    @authorized
    async def get(self) -> None:
        """The status as the agent's API gives it, with ``agent`` null when none runs."""
        path = await self.upstream.find()
        status: dict[str, Any] = NO_AGENT
        if path is not None:
            with contextlib.suppress(Unavailable):  # it ended in this moment
                status = await self.upstream.fetch(path, "/api/v1/status")
        await self.finish(status)


class StartHandler(GateHandler):
    """Starting the agent."""

    @authenticated
    @authorized
    async def post(self) -> None:
        """Start the agent when none runs; its status."""
        path = await self.upstream.ensure()
        self.bridge.wake()
        await self.finish(await self.upstream.fetch(path, "/api/v1/status"))


class UnknownHandler(GateHandler):
    """Every other path below ours: an error in JSON."""

    @authenticated
    async def get(self) -> None:
        """Refuse."""
        raise HTTPError(HTTPStatus.NOT_FOUND, "There is no such path.")

    @authenticated
    async def post(self) -> None:
        """Refuse."""
        raise HTTPError(HTTPStatus.NOT_FOUND, "There is no such path.")

    @authenticated
    async def delete(self) -> None:
        """Refuse."""
        raise HTTPError(HTTPStatus.NOT_FOUND, "There is no such path.")


FORWARDED: tuple[tuple[str, type[ForwardHandler], str], ...] = (
    ("events", ForwardHandler, "GET"),
    (r"openapi\.yaml", ForwardHandler, "GET"),
    ("packages", ForwardHandler, "GET POST"),
    ("packages/[^/]+", ForwardHandler, "GET DELETE"),
    ("packages/[^/]+/(?:runs|prepare|reinstall)", ForwardHandler, "POST"),
    ("runs", ForwardHandler, "GET POST"),
    ("runs/[^/]+", ForwardHandler, "GET"),
    ("runs/[^/]+/(?:cancel|rerun)", ForwardHandler, "POST"),
    ("runs/[^/]+/(?:output|stream|artifacts)", ForwardHandler, "GET"),
    ("runs/[^/]+/artifacts/.+", ArtifactHandler, "GET"),
    ("environments", ForwardHandler, "GET POST"),
    ("environments/(?:lock|channel|gc)", ForwardHandler, "POST"),
    (r"environments/(?!(?:lock|channel|gc)\Z)[^/]+", ForwardHandler, "GET DELETE"),
    ("environments/[^/]+/(?:verify|repair)", ForwardHandler, "POST"),
    ("agents(?:/[^/]+)?", ForwardHandler, "GET"),
    ("agents/[^/]+/runs", ForwardHandler, "GET POST"),
    ("agents/[^/]+/runs/[^/]+", ForwardHandler, "GET"),
    ("agents/[^/]+/runs/[^/]+/(?:output|stream)", ForwardHandler, "GET"),
    ("agents/[^/]+(?:/runs/[^/]+)?/cancel", ForwardHandler, "POST"),
    ("agents/[^/]+/packages/[^/]+/(?:prepare|reinstall|testrun)", ForwardHandler, "POST"),
)
"""Paths below ``/api/v1/`` that the agent serves and the gate forwards. ``shutdown`` is the socket's alone."""


def handlers(upstream: Upstream, bridge: Bridge) -> list[tuple[str, type[GateHandler], dict[str, Any]]]:
    """The rules for Jupyter's web application, without its base_url."""
    shared = {"upstream": upstream, "bridge": bridge}
    return [
        (API + "status", StatusHandler, shared),
        (API + "start", StartHandler, shared),
        *((API + path, handler, {**shared, "methods": methods}) for path, handler, methods in FORWARDED),
        (API + ".*", UnknownHandler, shared),
    ]
