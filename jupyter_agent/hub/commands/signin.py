"""Signing in, and who makes a request."""

from __future__ import annotations

import time

from jupyter_agent.errors import SignInFailed
from jupyter_agent.hub.callers import Caller
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.hub.services import Services
from jupyter_agent.hub.users import SHORT_S
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.proto.openiap_pb2 import Envelope

NOT_SIGNED_IN = "Not signed in, and missing jwt"


async def caller_of(services: Services, connection: Connection, envelope: Envelope) -> Caller:
    """Who makes a request: the owner of its token, else of the connection. Raises `SignInFailed` when nobody does."""
    if envelope.jwt:
        return await services.users.by_token(envelope.jwt)
    if connection.user is None:
        raise SignInFailed(NOT_SIGNED_IN)
    return await services.users.caller(connection.user)


async def sign_in(
    services: Services, connection: Connection, envelope: Envelope, request: pb.SigninRequest
) -> pb.SigninResponse:
    """Check credentials; unless only that is asked for, the connection is this user's from now on."""
    caller = await _credentials(services, connection, envelope, request)
    token = services.users.token(caller.id, long=request.longtoken)
    if not request.validateonly:
        kind, version = request.agent[:100], request.version[:100]
        connection.sign_in(caller.id, kind=kind, version=version, pings=request.ping, expires_s=time.time() + SHORT_S)
    return pb.SigninResponse(jwt=token, user=user_message(caller), config=services.config)


async def _credentials(
    services: Services, connection: Connection, envelope: Envelope, request: pb.SigninRequest
) -> Caller:
    if request.jwt:
        return await services.users.by_token(request.jwt)
    if request.username or request.password:
        return await services.users.by_password(request.username, request.password)
    if request.validateonly or envelope.jwt:
        return await caller_of(services, connection, envelope)
    raise SignInFailed("A sign-in needs a username and a password, or a jwt.")


def user_message(caller: Caller) -> pb.User:
    """A user as the protocol has them."""
    roles = [pb.Role(_id=role, name=name) for role, name in caller.roles]
    return pb.User(_id=caller.id, name=caller.name, username=caller.username, email=caller.email, roles=roles)
