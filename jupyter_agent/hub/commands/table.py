"""The table of all commands, and how one is done."""

from __future__ import annotations

from typing import cast

from google.protobuf.message import Message  # noqa: TID251 - what commands take and return

from jupyter_agent.errors import AccessDenied, InvalidInput
from jupyter_agent.hub.callers import Caller
from jupyter_agent.hub.commands import collections, custom, documents, files, messaging, refused, workitems
from jupyter_agent.hub.commands.call import Call, Command, Reply
from jupyter_agent.hub.commands.signin import caller_of, sign_in
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.hub.services import Services
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.proto.openiap_pb2 import Envelope

READING = frozenset({
    "query", "aggregate", "count", "distinct", "getdocumentversion", "listcollections", "getindexes", "download",
    "watch", "unwatch", "registerqueue", "unregisterqueue", "queuemessage",
})  # fmt: skip
"""What a user may do who is locked for writing."""


async def perform(services: Services, connection: Connection, envelope: Envelope, request: Message) -> Reply:
    """Do what an envelope asks for; the message of the reply. Raises `AgentError` for the client to read."""
    name = envelope.command.lower()
    if name == "signin":
        return await sign_in(services, connection, envelope, cast("pb.SigninRequest", request))
    if name not in COMMANDS:
        raise InvalidInput(f"The command {name} is not offered by this hub.")
    caller = await caller_of(services, connection, envelope)
    _check_unlocked(caller, name, request)
    reply: Reply = await COMMANDS[name](Call(services, connection, caller, envelope.id), request)
    return reply


def _check_unlocked(caller: Caller, command: str, request: Message) -> None:
    if not caller.locked or command in READING:
        return
    if isinstance(request, pb.CustomCommandRequest) and request.command.lower() == "getclients":
        return
    raise AccessDenied(f"Access denied: {caller.username} is locked for writing (dblocked) until an admin changes it.")


COMMANDS: dict[str, Command] = {
    **documents.COMMANDS,
    **collections.COMMANDS,
    **files.COMMANDS,
    **messaging.COMMANDS,
    **workitems.COMMANDS,
    **custom.COMMANDS,
    **refused.COMMANDS,
}
