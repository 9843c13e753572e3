"""The REST forms: one request, one answer, for who has no connection.

``POST /api/v2`` takes an envelope as JSON and answers with one, errors too, as the real server does. ``POST
/rest/v1/<Command>`` takes a request as plain JSON; its answer is a JSON string that holds JSON, with what was asked for
under ``result``. Commands that need a connection are refused by name.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import orjson
from google.protobuf.message import Message  # noqa: TID251 - what commands take and return
from tornado.http1connection import HTTP1Connection
from tornado.web import stream_request_body  # noqa: TID251 - the hub is a server

from jupyter_agent.errors import AgentError, InvalidInput, ProtocolError
from jupyter_agent.hub.commands.call import Reply
from jupyter_agent.hub.commands.table import perform
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.hub.network.outbox import Record
from jupyter_agent.hub.network.plain import message_of, plain_result
from jupyter_agent.hub.network.routes import MAX_SENTENCE, Front, Route, in_a_sentence
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Encoded, encoded, is_big, reply_type, request_type, unpack

T = TypeVar("T")

LOG = logging.getLogger(__name__)

NEEDS_CONNECTION = frozenset({
    "watch", "unwatch", "registerqueue", "registerexchange", "unregisterqueue", "upload", "download",
    "beginstream", "stream", "endstream",
})  # fmt: skip

MAX_STRANGER, MAX_BODY = 1 << 20, 64 << 20
"""Bytes of a request: of somebody without a valid token, and with one."""

MAX_READ = 1 << 30
"""Bytes of a body that are read, and let go by, to tell that it is too long: a client hears only after it has sent."""

BIG = 20_000
"""Bytes of JSON that are worth a thread."""

PIECE = 64 << 10


@stream_request_body
class Request(Route):
    """A request with JSON in its body."""

    def initialize(self, front: Front) -> None:
        """Nothing of the body is there yet."""
        super().initialize(front)
        self._body = bytearray()
        self._limit = MAX_STRANGER
        self._refused: tuple[int, str] | None = None
        self._is_big = False

    async def prepare(self) -> None:
        """Look at the head, before the body comes."""
        super().prepare()
        if isinstance(self.request.connection, HTTP1Connection):
            self.request.connection.set_max_body_size(MAX_READ)
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if self.request.method != "POST":
            return
        if kind != "application/json":
            self._refused = 415, "The request must be JSON: send it with Content-Type: application/json."
        elif self._may_be_long and await self._is_known():
            self._limit = MAX_BODY

    def data_received(self, chunk: bytes) -> None:
        """Keep a part of the body, unless it is too long."""
        if self._refused is None and len(self._body) + len(chunk) > self._limit:
            whose = "with a valid token" if self._limit == MAX_BODY else "without a valid token"
            self._refused = 413, f"A request {whose} can have up to {self._limit >> 20} MiB."
        if self._refused is None:
            self._body += chunk
        else:
            self._body.clear()

    @property
    def token(self) -> str:
        """The token in the request's head, empty where there is none."""
        scheme, _, value = self.request.headers.get("Authorization", "").strip().partition(" ")
        return value.strip() if scheme.lower() in ("bearer", "jwt") else ""

    async def given(self) -> dict[str, Any] | None:
        """The JSON object in the body; ``None`` when it was refused. Raises `InvalidInput` for what is none."""
        if self._refused is not None:
            self.refuse(*self._refused)
            return None
        body, self._body = self._body, bytearray()
        self._is_big = len(body) >= BIG
        value = await self.aside(lambda: _parsed(body))
        if not isinstance(value, dict):
            raise InvalidInput("The request must be a JSON object.")
        return value

    async def aside(self, work: Callable[[], T]) -> T:
        """Do work on the request: in a thread when it is big."""
        return await asyncio.to_thread(work) if self._is_big else work()

    async def perform(self, command: str, request: Message, *, jwt: str = "", id: str = "") -> Reply:  # noqa: A002
        """Do a command as the owner of the token. Raises `RateExceeded` when that one asked too often."""
        self.front.rates.spend(jwt or self.token or self.request.remote_ip or "")
        name = command.lower()
        if name in NEEDS_CONNECTION:
            raise InvalidInput(f"The command {name} needs a connection: use WebSocket or gRPC for it.")
        if name in ("noop", "ping"):
            return pb.Noop()
        envelope = pb.Envelope(command=name, id=id or new_id(), jwt=jwt or self.token)
        connection = Connection(_Nowhere(), _never, remote=self.request.remote_ip or "")
        return await perform(self.front.services, connection, envelope, request)

    @property
    def _may_be_long(self) -> bool:
        length = self.request.headers.get("Content-Length", "")
        return not length.isdigit() or len(length) > 15 or int(length) > MAX_STRANGER  # noqa: PLR2004 - digits

    async def _is_known(self) -> bool:
        if not self.token:
            return False
        try:
            await self.front.services.users.by_token(self.token)
        except AgentError:
            return False
        return True


class Envelopes(Request):
    """``/api/v2``."""

    @in_a_sentence
    async def post(self) -> None:
        """Answer an envelope with an envelope."""
        given = await self.given()
        if given is None:
            return
        command, id, jwt = (_text(given, name) for name in ("command", "id", "jwt"))  # noqa: A001
        try:
            request = await self.aside(lambda: _request_in(command, given.get("data")))
            reply = await self.perform(command, request, jwt=jwt, id=id)
            answer = "noop" if isinstance(reply, pb.Noop) else f"{command.lower()}reply"
        except AgentError as error:
            answer, reply = "error", pb.ErrorResponse(message=str(error)[:MAX_SENTENCE])
        except Exception:
            LOG.exception("a %s over HTTP failed", command)
            answer, reply = (
                "error",
                pb.ErrorResponse(message="The hub could not do this because of a fault of its own."),
            )
        await self._send(answer, reply, rid=id)

    async def _send(self, command: str, message: Reply, *, rid: str) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        head = {"command": command, "priority": 2, "seq": 0, "id": new_id(), "rid": rid}
        data = message if isinstance(message, Encoded) else encoded(message)
        type_url = f"type.googleapis.com/{data.name}"
        self.write(orjson.dumps(head)[:-1] + b',"data":{"type_url":' + orjson.dumps(type_url))
        self.write(b',"value":{"type":"Buffer","data":[')
        for piece in _numbers(data.value):
            self.write(piece)
            await self.flush()
        await self.finish(b']}},"jwt":"","traceid":"","spanid":""}')


class Plain(Request):
    """``/rest/v1/<Command>``."""

    @in_a_sentence
    async def post(self, command: str) -> None:
        """Answer plain JSON with JSON in a JSON string."""
        given = await self.given()
        if given is None:
            return
        found = request_type(command)
        if found is None:
            raise ProtocolError(f"no such type: openiap.{command}")
        request = await self.aside(lambda: message_of(found, given))
        reply = await self.perform(command, request)
        is_long = isinstance(reply, Encoded) or is_big(reply)
        text = await asyncio.to_thread(_twice, command, reply) if is_long else _twice(command, reply)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        await self.finish(text)


def _parsed(body: bytes | bytearray) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"The request is not valid JSON: {error}.") from error


def _twice(command: str, reply: Reply) -> bytes:
    """The result in JSON, in a JSON string."""
    if isinstance(reply, Encoded):
        kind = reply_type(command)
        reply = kind.FromString(reply.value) if kind is not None else pb.Noop()
    return orjson.dumps(orjson.dumps({"result": plain_result(reply)}).decode())


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f"The {name} of an envelope must be a text.")
    return value


def _request_in(command: str, data: Any) -> Message:
    """The request in an envelope's data: JSON text, plain JSON, or bytes as JavaScript makes JSON of them."""
    found = request_type(command)
    if found is None:
        raise ProtocolError(f"no such type: openiap.{command}")
    if isinstance(data, str) and data:
        data = _parsed(data.encode(errors="surrogatepass"))
    if data is None or data == "":
        return found()
    if not isinstance(data, dict):
        raise InvalidInput("The data of an envelope must be the request, as JSON or as JSON text.")
    if "type_url" not in data and data.get("type") != "Buffer":
        return message_of(found, data)
    envelope = pb.Envelope(command=command)
    envelope.data.value = _bytes_in(data.get("value") if "type_url" in data else data)
    return unpack(envelope)


def _bytes_in(value: Any) -> bytes:
    """Bytes as JavaScript makes JSON of them, or in base64 as protobuf does."""
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else bytes(value["data"])
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput('Bytes must be {"type": "Buffer", "data": [numbers from 0 to 255]} or base64.') from error


NUMBERS = [str(number).encode() for number in range(256)]


def _numbers(data: bytes) -> Iterator[bytes]:
    """The bytes as decimal numbers with commas between them."""
    for at in range(0, len(data), PIECE):
        yield (b"," if at else b"") + b",".join([NUMBERS[byte] for byte in data[at : at + PIECE]])


class _Nowhere:
    """The transport of who has no connection."""

    def write(self, records: Sequence[Record]) -> asyncio.Future[None]:  # noqa: ARG002 - it goes nowhere
        """Let it go."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def close(self, code: int, reason: str) -> None:
        """There is nothing to close."""


async def _never(_connection: Connection, _envelope: pb.Envelope, _request: Message) -> Message:
    raise ProtocolError("There is no connection.")
