"""The commands inside ``customcommand``. An unknown one is no error: its result is empty, as on the real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from jupyter_agent.errors import AccessDenied, AgentError, InvalidInput, NotFound, SignInFailed
from jupyter_agent.hub import agents
from jupyter_agent.hub.callers import Caller
from jupyter_agent.hub.commands import refused
from jupyter_agent.hub.commands.call import Call, Command, off_loop
from jupyter_agent.hub.commands.messaging import token_user
from jupyter_agent.hub.data.documents import Date, parse_object, wire
from jupyter_agent.hub.data.store import Documents
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import Right


async def custom_command(call: Call, request: pb.CustomCommandRequest) -> pb.CustomCommandResponse:
    """Do what the inner command asks for."""
    name = request.command.lower()
    if name in refused.REFUSED:
        raise refused.refusal(name)
    if name in REFUSED:
        raise InvalidInput(f"The custom command {name} is not offered by this hub.")
    command = CUSTOM.get(name)
    return pb.CustomCommandResponse(result=await command(call, request) if command is not None else "")


async def register_agent(call: Call, request: pb.CustomCommandRequest) -> str:
    """The agent's document; with a long token of the user it is to run as, where that is another one."""
    text = request.data
    data = await off_loop(text, lambda: parse_object(text, "data", names=True))
    agent = await call.services.store.write(lambda documents: agents.register(documents, call.caller, request.id, data))
    user = agents.runs_as_another(call.caller, agent)
    if user is None:
        return await asyncio.to_thread(wire, agent)
    try:
        await call.services.users.caller(user)
    except SignInFailed:  # gone or disabled: the agent stays who it is
        return await asyncio.to_thread(wire, agent)
    return await asyncio.to_thread(wire, {**agent, "jwt": call.services.users.token(user, long=True)})


async def get_clients(call: Call, _request: pb.CustomCommandRequest) -> str:
    """The connections of all users whom the caller may read."""
    signed_in = [each for each in list(call.services.connections.values()) if each.user is not None]
    users = {each.user for each in signed_in if each.user is not None}
    shown = await call.services.store.read(lambda documents: _shown(documents, call.caller, users))
    found = [await _client(call, each) for each in signed_in if each.user in shown]
    return orjson.dumps([client for client in found if client is not None]).decode()


async def dump_clients(call: Call, _request: pb.CustomCommandRequest) -> str:
    """All connections, also those that have not signed in. For admins."""
    _admins_only(call, "dumpwebsocketclients")
    found = [await _client(call, each) or _stranger(each) for each in list(call.services.connections.values())]
    return orjson.dumps(found).decode()


async def kill_client(call: Call, request: pb.CustomCommandRequest) -> str:
    """End one connection; its client may come back. For admins."""
    _admins_only(call, "killwebsocketclient")
    connection = call.services.connections.get(request.id)
    if connection is None:
        raise NotFound(f"There is no client with the id {request.id}: getclients tells those there are.")
    connection.close(reason="ended by an admin")
    return ""


async def delete_package_by_id(call: Call, request: pb.CustomCommandRequest) -> str:
    """Delete a package and its file."""
    await _delete_package(call, request.id)
    return ""


async def delete_package(call: Call, request: pb.DeletePackageRequest) -> pb.DeletePackageResponse:
    """The same as a message of its own (where the real server deletes any package, the first it finds)."""
    await _delete_package(call, request.packageid)
    return pb.DeletePackageResponse()


async def _delete_package(call: Call, package: str) -> None:
    await call.services.store.write(lambda documents: agents.delete_package(documents, call.caller, package))


def _admins_only(call: Call, command: str) -> None:
    if not call.caller.is_admin:
        raise AccessDenied(f"Access denied: {command} is for admins only.")


def _shown(documents: Documents, caller: Caller, users: set[str]) -> set[str]:
    """Those of the users whom the caller may read."""
    found = [(user, documents.get("users", user)) for user in users]
    return {
        user for user, document in found
        if document is not None and (user == caller.id or caller.may("users", document, Right.READ))
    }  # fmt: skip


async def _client(call: Call, connection: Connection) -> dict[str, Any] | None:
    """What there is to tell about a connection that has signed in; ``None`` for others."""
    if connection.user is None:
        return None
    try:
        caller = await call.services.users.caller(connection.user)
    except AgentError:
        return None
    return {
        **_stranger(connection),
        "user": token_user(caller),
        "name": caller.name,
        "username": caller.username,
        "signedin": True,
        "queues": [{"queuename": name} for name in call.services.queues.names(connection)],
    }


def _stranger(connection: Connection) -> dict[str, Any]:
    heard = Date.now().ms - int(1000 * (time.monotonic() - connection.heard_s))
    return {
        "id": connection.id,
        "agent": connection.kind,
        "version": connection.version,
        "remoteip": connection.remote,
        "lastheartbeat": str(Date(heard)),
        "signedin": False,
        "queues": [],
    }


REFUSED = frozenset({
    "createindex", "webpushmessage", "clearcache", "heapdump", "shutdown", "snapshotcreate", "snapshotrestore",
    "issuelicense",
})  # fmt: skip
"""What a real server does besides, for its own upkeep or as a message of its own, too."""

CUSTOM: dict[str, Callable[[Call, pb.CustomCommandRequest], Awaitable[str]]] = {
    "registeragent": register_agent,
    "getclients": get_clients,
    "deletepackage": delete_package_by_id,
    "dumpwebsocketclients": dump_clients,
    "killwebsocketclient": kill_client,
}

COMMANDS: dict[str, Command] = {
    "customcommand": custom_command,
    "deletepackage": delete_package,
}
