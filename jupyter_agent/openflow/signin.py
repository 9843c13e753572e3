"""Signing in: who one is to a server.

Knows the sign-in request and what comes back; refuses to know when it is made.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from jupyter_agent.errors import AgentError, ServerRefused, SignInFailed
from jupyter_agent.openflow.connection import Connection
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import decode_json

SOON = timedelta(days=30)
"""A long token is warned of when it has less left than this."""


@dataclass(frozen=True)
class Credentials:
    """A token, or a user name and password; the token wins."""

    jwt: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)

    def redact(self, text: str) -> str:
        """The text without the secrets."""
        for secret in (self.jwt, self.password):
            text = text.replace(secret, "***") if secret else text
        return text


@dataclass(frozen=True)
class Role:
    """A role that a user has."""

    id: str
    name: str


@dataclass(frozen=True)
class User:
    """Who is signed in."""

    id: str
    name: str
    username: str
    email: str
    roles: tuple[Role, ...]

    @property
    def principals(self) -> frozenset[str]:
        """The ids that count in an ``_acl``: the user's and those of all roles."""
        return frozenset({self.id, *(role.id for role in self.roles)})


@dataclass(frozen=True)
class SignIn:
    """How a client signs in: it names its ``kind`` (free text) and ``version``."""

    kind: str
    version: str

    async def __call__(self, connection: Connection, credentials: Credentials) -> pb.SigninResponse:
        """Make the connection this user's. Raises `SignInFailed`.

        With ``ping`` the server pings, which tells each side that the other one lives.
        """
        return await self._ask(connection, credentials, pb.SigninRequest(ping=True))

    async def check(self, connection: Connection, credentials: Credentials, *, long: bool = False) -> pb.SigninResponse:
        """Have credentials checked, and get a new token for them; the connection stays whose it is."""
        return await self._ask(connection, credentials, pb.SigninRequest(validateonly=True, longtoken=long))

    async def _ask(
        self, connection: Connection, credentials: Credentials, request: pb.SigninRequest
    ) -> pb.SigninResponse:
        request.agent, request.version = self.kind, self.version
        if credentials.jwt:
            request.jwt = credentials.jwt
        else:
            request.username, request.password = credentials.username, credentials.password
        try:
            reply = await connection.request("signin", request, pb.SigninResponse)
        except ServerRefused as error:
            raise refused(connection.url, credentials, str(error)) from None  # its text may repeat the token
        if not user_of(reply.user).id:
            raise refused(connection.url, credentials, "it named no user")
        return reply


def lifetime(jwt: str) -> tuple[datetime, datetime] | None:
    """When a token was made and when it ends, by its own word; ``None`` for one that does not say. Not verified."""
    try:
        payload = jwt.split(".")[1]
        claims = decode_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode())
        return datetime.fromtimestamp(claims["iat"], UTC), datetime.fromtimestamp(claims["exp"], UTC)
    except (AgentError, ValueError, LookupError, TypeError, OverflowError, OSError):
        return None


def expiry_warning(url: str, credentials: Credentials, now: datetime) -> str | None:
    """What to do in time about a long token that ends soon; ``None`` when there is nothing to do.

    A short token is not warned of: whoever signs in with one does not mean to stay.
    """
    made, ends = lifetime(credentials.jwt) or (now, now)
    left = ends - now
    if ends - made < SOON or left > SOON:
        return None
    when = f"ends in {left.days} days, on {ends:%Y-%m-%d}" if left > timedelta(0) else f"ended on {ends:%Y-%m-%d}"
    return f"The token for OpenFlow at {url} {when}: make a new long token and put it in its place."


def refused(url: str, credentials: Credentials, said: str) -> SignInFailed:
    """What the server said about the credentials, and what to do."""
    tried, check = (
        ("the token", "it may have expired or be another server's")
        if credentials.jwt
        else (f"user {credentials.username!r}", "check the user name and the password")
    )
    return SignInFailed(f"OpenFlow at {url} refused {tried}: {credentials.redact(said)} ({check}).")


def user_of(user: pb.User) -> User:
    """The user in a message."""
    roles = tuple(Role(role._id, role.name) for role in user.roles)  # noqa: SLF001 - the field's name
    return User(user._id, user.name, user.username, user.email, roles)  # noqa: SLF001
