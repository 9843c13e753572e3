"""The commands inside ``customcommand``. An unknown one is no error: its result is empty, as on the real server."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from jupyter_agent.errors import AgentError, SignInFailed
from jupyter_agent.hub import agents
from jupyter_agent.hub.commands.call import Call, Command
from jupyter_agent.hub.commands.messaging import token_user
from jupyter_agent.hub.data.documents import Date, parse_object, wire
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import Right


async def custom_command(call: Call, request: pb.CustomCommandRequest) -> pb.CustomCommandResponse:
    """Do what the inner command asks for."""
    command = CUSTOM.get(request.command.lower())
    return pb.CustomCommandResponse(result=await command(call, request) if command is not None else "")


async def register_agent(call: Call, request: pb.CustomCommandRequest) -> str:
    """The agent's document; with a long token of the user it is to run as, where that is another one."""
    data = parse_object(request.data, "data", names=True)
    agent = await call.services.store.write(lambda documents: agents.register(documents, call.caller, request.id, data))
    user = agents.runs_as_another(call.caller, agent)
    if user is None:
        return wire(agent)
    try:
        await call.services.users.caller(user)
    except SignInFailed:  # gone or disabled: the agent stays who it is
        return wire(agent)
    return wire({**agent, "jwt": call.services.users.token(user, long=True)})


async def get_clients(call: Call, _request: pb.CustomCommandRequest) -> str:
    """The connections of all users whom the caller may read."""
    found = [await _client(call, each) for each in list(call.services.connections.values())]
    return orjson.dumps([client for client in found if client is not None]).decode()


async def _client(call: Call, connection: Connection) -> dict[str, Any] | None:
    user = connection.user
    if user is None:
        return None
    document = await call.services.store.read(lambda documents: documents.get("users", user))
    if document is None or not (user == call.caller.id or call.caller.may("users", document, Right.READ)):
        return None
    try:
        caller = await call.services.users.caller(user)
    except AgentError:
        return None
    heard = Date.now().ms - int(1000 * (time.monotonic() - connection.heard_s))
    return {
        "id": connection.id,
        "user": token_user(caller),
        "name": caller.name,
        "username": caller.username,
        "agent": connection.kind,
        "version": connection.version,
        "remoteip": connection.remote,
        "lastheartbeat": str(Date(heard)),
        "signedin": True,
        "queues": [{"queuename": name} for name in call.services.queues.names(connection)],
    }


CUSTOM: dict[str, Callable[[Call, pb.CustomCommandRequest], Awaitable[str]]] = {
    "registeragent": register_agent,
    "getclients": get_clients,
}

COMMANDS: dict[str, Command] = {
    "customcommand": custom_command,
}
