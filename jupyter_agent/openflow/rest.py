"""Single requests over HTTP, for who has one thing to ask and needs no connection that is kept.

Only commands travel this way: no events, and so no queues and watches, and no streams, so no files.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import http.client
import urllib.request
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast
from urllib.error import HTTPError, URLError

from google.protobuf.message import DecodeError, Message  # noqa: TID251 - messages become JSON here

from jupyter_agent import __version__
from jupyter_agent.errors import (
    AgentError,
    ConnectionLost,
    Failed,
    InvalidInput,
    ProtocolError,
    ServerRefused,
    SignInFailed,
    TimedOut,
    Unavailable,
)
from jupyter_agent.openflow.address import Address, address
from jupyter_agent.openflow.commands import Commands
from jupyter_agent.openflow.pace import within_limits
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import MAX_RECORD, decode_json, encode_json, new_id
from jupyter_agent.openflow.signin import Credentials
from jupyter_agent.openflow.transport import unreachable
from jupyter_agent.openflow.trust import trust

M = TypeVar("M", bound=Message)

MAX_REPLY = 6 * MAX_RECORD
"""Bytes of a reply's JSON, in which each byte of the message is a number of up to three digits and a comma."""

HEADERS = {"Content-Type": "application/json", "User-Agent": f"jupyter_agent/{__version__}"}
AUTHENTICATION = (401, 403)


class Rest(Commands):
    """The commands of OpenFlow, each as one ``POST /api/v2`` with a token. Nothing is kept between them."""

    def __init__(
        self, url: str, credentials: Credentials, *, timeout_s: float = 30, ca_file: Path | None = None
    ) -> None:
        """``url`` is any address of the server but a gRPC one. Raises `InvalidInput`, also without a token."""
        self._address = address(url)
        self.url = self._address.api_url
        if not credentials.jwt:
            raise InvalidInput("Single requests are made with a token, not with a user name and a password.")
        self._jwt = credentials.jwt
        self._timeout_s = timeout_s
        self._ca_file = ca_file

    def __repr__(self) -> str:
        return f"<Rest to {self.url}>"

    async def _request(self, command: str, message: Message, expected: type[M], *, jwt: str = "") -> M:
        body = {"command": command, "id": new_id(), "data": encode_json(fields_of(message))}
        request = urllib.request.Request(  # noqa: S310 - the address is http(s) alone
            self.url,
            data=encode_json(body).encode(),
            headers={**HEADERS, "Authorization": f"Bearer {jwt or self._jwt}"},
            method="POST",
        )

        def post() -> M:
            return reply_of(command, self._post(request, command), expected)

        return await within_limits(lambda: asyncio.to_thread(post), None)

    def _post(self, request: urllib.request.Request, command: str) -> str:
        try:
            with opener(self._address, self._ca_file).open(request, timeout=self._timeout_s) as response:
                text = cast("bytes", response.read(MAX_REPLY + 1))
                if response.length and len(text) <= MAX_REPLY:  # a part of it is missing
                    raise ConnectionResetError
        except HTTPError as error:
            with error:
                raise self._refused(error, command) from None
        except TimeoutError:
            raise self._silent(command) from None
        except URLError as error:
            reason = error.reason
            raise unreachable(self.url, reason if isinstance(reason, Exception) else error) from error
        except http.client.HTTPException as error:
            raise Unavailable(f"OpenFlow at {self.url} cannot be reached ({type(error).__name__}).") from error
        except OSError as error:
            raise ConnectionLost(f"The connection to {self.url} ended before it answered a {command}.") from error
        if len(text) > MAX_REPLY:
            raise Failed(f"The answer to a {command} is too long for one reply: ask for less at once.")
        return text.decode(errors="replace")

    def _silent(self, command: str) -> TimedOut:
        return TimedOut(
            f"OpenFlow did not answer a {command} within {self._timeout_s:.0f} s: it is not known whether it was done."
        )

    def _refused(self, error: HTTPError, command: str) -> AgentError:
        if error.code in AUTHENTICATION:
            return SignInFailed(
                f"OpenFlow at {self.url} refused the token (it may have expired or be another server's)."
            )
        if error.code == http.HTTPStatus.TOO_MANY_REQUESTS:
            return Unavailable("OpenFlow answers no more requests for now: its limit for a second is exceeded.")
        said = error.read(MAX_REPLY).decode(errors="replace")
        try:
            raise_error(command, decode_json(said))
        except ServerRefused as refusal:
            return refusal
        except ProtocolError:
            pass
        return Unavailable(f"{self.url} answers with HTTP {error.code}: check the address of OpenFlow.")


def opener(address: Address, ca_file: Path | None) -> urllib.request.OpenerDirector:
    """What posts: with proxies of the environment but not to this machine itself, and without following redirects.

    A redirected request would carry the token to wherever it is sent.
    """
    handlers: list[urllib.request.BaseHandler] = [Stay()]
    if address.is_loopback:
        handlers.append(urllib.request.ProxyHandler({}))
    if address.tls:
        handlers.append(urllib.request.HTTPSHandler(context=trust(ca_file)))
    return urllib.request.build_opener(*handlers)


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it is an answer like others."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Make no other request."""


def fields_of(message: Message) -> dict[str, Any]:
    """A message as JSON takes it: the protocol's names, bytes as base64, times as seconds and nanoseconds."""
    return {field.name: field_value(content) for field, content in message.ListFields()}


def field_value(content: Any) -> Any:
    """A field's content as JSON takes it."""
    if isinstance(content, Message):
        return fields_of(content)
    if isinstance(content, bytes):
        return base64.b64encode(content).decode()
    if isinstance(content, str | int | float):
        return content
    return [field_value(item) for item in content]


def reply_of(command: str, text: str, expected: type[M]) -> M:
    """The reply in the JSON of an envelope. Raises `ServerRefused` for an error, `ProtocolError` for anything else."""
    envelope = decode_json(text)
    raise_error(command, envelope)
    if not isinstance(envelope, dict) or str(envelope.get("command")).lower() != f"{command}reply":
        raise ProtocolError(f"OpenFlow answered a {command} with something else than its reply.")
    try:
        return expected.FromString(data_of(envelope))
    except DecodeError as error:
        raise ProtocolError(f"The data of a {command} could not be decoded.") from error


def raise_error(command: str, envelope: Any) -> None:
    """Raise `ServerRefused` if an envelope's JSON is an error; its stack is dropped."""
    if not isinstance(envelope, dict) or str(envelope.get("command")).lower() != "error":
        return
    try:
        error = pb.ErrorResponse.FromString(data_of(envelope))
    except DecodeError:
        error = pb.ErrorResponse()
    refuse(command, error.message)


def refuse(command: str, said: str) -> NoReturn:
    """Raise what the server said."""
    raise ServerRefused(said or f"OpenFlow refused a {command} and did not say why.", command=command)


def data_of(envelope: dict[str, Any]) -> bytes:
    """The encoded message in an envelope's JSON, in Node's form of a buffer or as base64; none is an empty one."""
    data = envelope.get("data")
    found = data.get("value") if isinstance(data, dict) else data
    if isinstance(found, dict):
        found = found.get("data")
    try:
        if isinstance(found, str):
            return base64.b64decode(found, validate=True)
        return bytes(list(found or ()))  # of a number, `bytes` would make as many zeros
    except (binascii.Error, ValueError, TypeError) as error:
        raise ProtocolError("OpenFlow sent a reply whose data is none.") from error
