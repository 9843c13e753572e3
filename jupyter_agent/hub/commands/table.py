"""The table of all commands, and how one is done."""

from __future__ import annotations

from typing import cast

from google.protobuf.message import Message  # noqa: TID251 - what commands take and return

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.commands import custom, documents, files, messaging
from jupyter_agent.hub.commands.call import Call, Command
from jupyter_agent.hub.commands.signin import caller_of, sign_in
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.hub.services import Services
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.proto.openiap_pb2 import Envelope


async def perform(services: Services, connection: Connection, envelope: Envelope, request: Message) -> Message:
    """Do what an envelope asks for; the message of the reply. Raises `AgentError` for the client to read."""
    name = envelope.command.lower()
    if name == "signin":
        return await sign_in(services, connection, envelope, cast("pb.SigninRequest", request))
    if name not in COMMANDS:
        raise InvalidInput(f"The command {name} is not offered by this hub.")
    caller = await caller_of(services, connection, envelope)
    reply: Message = await COMMANDS[name](Call(services, connection, caller, envelope.id), request)
    return reply


COMMANDS: dict[str, Command] = {
    **documents.COMMANDS,
    **files.COMMANDS,
    **messaging.COMMANDS,
    **custom.COMMANDS,
}
