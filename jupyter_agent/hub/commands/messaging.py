"""The commands of watches and queues.

Who may send to a queue, or consume it, may read what owns its name: an agent of that slug, a user or role of that id,
or a document of type ``queue`` in ``mq``, in this order. Registering a name that nobody owns makes such a document.
"""

from __future__ import annotations

from typing import Any

import orjson

from jupyter_agent.errors import AccessDenied, AgentError, InvalidInput
from jupyter_agent.hub.callers import Caller, Document
from jupyter_agent.hub.commands.call import Call, Command, off_loop
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.store import Documents
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.hub.operations import Collection, collection_name
from jupyter_agent.hub.queues import DEFAULT_EXPIRATION_MS, PRIVATE, QueueMessage, queue_name, timed_out
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import Right

Owner = tuple[str, Document]
"""A collection and the document in it that owns a queue's name."""


async def watch(call: Call, request: pb.WatchRequest) -> pb.WatchResponse:
    """Tell this connection of the changes in a collection."""
    name = collection_name(request.collectionname)
    watches, user = call.services.watches, _other_user(call)
    return pb.WatchResponse(id=watches.add(call.connection, name, list(request.paths), user=user))


async def unwatch(call: Call, request: pb.UnWatchRequest) -> pb.UnWatchResponse:
    """Tell it no more."""
    call.services.watches.remove(call.connection, request.id)
    return pb.UnWatchResponse()


async def register_queue(call: Call, request: pb.RegisterQueueRequest) -> pb.RegisterQueueResponse:
    """Make this connection a consumer of a queue."""
    name = queue_name(request.queuename)
    if name and not name.startswith(PRIVATE):
        owner = await call.services.store.read(lambda documents: owner_of(documents, name))
        if owner is None:
            owner = await call.services.store.write(lambda documents: _claim(documents, call.caller, name))
        _check(call.caller, owner, name)
    return pb.RegisterQueueResponse(queuename=call.services.queues.register(call.connection, name))


async def unregister_queue(call: Call, request: pb.UnRegisterQueueRequest) -> pb.UnRegisterQueueResponse:
    """Let it consume a queue no more."""
    call.services.queues.unregister(call.connection, queue_name(request.queuename))
    return pb.UnRegisterQueueResponse()


async def queue_message(call: Call, request: pb.QueueMessageRequest) -> pb.QueueMessageResponse:
    """Send a message to a queue."""
    if request.exchangename:
        raise InvalidInput("AMQP exchange is not enabled on this OpenFlow")
    name, reply_to = queue_name(request.queuename), queue_name(request.replyto)
    if not name:
        raise InvalidInput("The queuename is missing.")
    owner = None
    if not name.startswith(PRIVATE):
        owner = await call.services.store.read(lambda documents: owner_of(documents, name))
        _check(call.caller, owner, name)
    marks = {} if request.striptoken else _marks(call)
    data, returned = await off_loop(request.data, lambda: _payload(request.data, marks))
    message = QueueMessage(
        queue=name,
        data=data,
        returned=returned,
        reply_to=reply_to,
        correlation_id=request.correlationId,
        expiration_ms=request.expiration if request.expiration >= 1 else DEFAULT_EXPIRATION_MS,
    )
    allowed = {each.id for each in call.services.queues.consumers(name) if await _may_consume(call, each, owner)}
    call.services.queues.send(
        message,
        exists=owner is not None and owner[0] != "users",
        may_consume=lambda connection: connection.id in allowed,
    )
    return pb.QueueMessageResponse(queuename=name, correlationId=request.correlationId, replyto=reply_to)


def _other_user(call: Call) -> str | None:
    """Whose request it is, where a token of its own made it another's than the connection's."""
    return call.caller.id if call.caller.id != call.connection.user else None


def owner_of(documents: Documents, name: str) -> Owner | None:
    """What owns a queue's name, ``None`` when nothing does."""
    for slug in dict.fromkeys((name.removesuffix("agent"), name)):
        agents = documents.find("agents", compile_filter({"_type": "agent", "slug": {"$eq": slug}}))
        if (agent := next(agents, None)) is not None:
            return "agents", agent
    if (user := documents.get("users", name)) is not None:
        return "users", user
    queues = documents.find("mq", compile_filter({"_type": "queue", "name": {"$eq": name}}))
    return next((("mq", queue) for queue in queues), None)


def token_user(caller: Caller) -> dict[str, Any]:
    """A user as messages and lists of clients name them."""
    return {
        "_type": "user",
        "_id": caller.id,
        "name": caller.name,
        "username": caller.username,
        "email": caller.email,
        "roles": [{"_id": role, "name": name} for role, name in caller.roles],
    }


def _claim(documents: Documents, caller: Caller, name: str) -> Owner:
    owner = owner_of(documents, name)
    return owner or ("mq", Collection(documents, caller, "mq").insert({"_type": "queue", "name": name}))


def _check(caller: Caller, owner: Owner | None, name: str) -> None:
    if owner is not None and not caller.may(*owner, Right.READ):
        raise AccessDenied(f"Access denied: you may not use the queue {name}.")


async def _may_consume(call: Call, connection: Connection, owner: Owner | None) -> bool:
    """Whether a consumer may still read what owns the queue: rights may have changed since it registered."""
    if owner is None:
        return True
    try:
        caller = await call.services.users.caller(connection.user or "")
    except AgentError:
        return False
    return caller.may(*owner, Right.READ)


def _marks(call: Call) -> dict[str, Any]:
    """What tells the receiver who sent a message, and lets it act for them."""
    return {"__jwt": call.services.users.token(call.caller.id), "__user": token_user(call.caller)}


def _payload(text: str, marks: dict[str, Any]) -> tuple[str, str]:
    """What is delivered, and what comes back when nobody takes it."""
    try:
        payload = orjson.loads(text or "{}")
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"The data of a message must be JSON: {error}.") from error
    if not isinstance(payload, dict) or not marks:
        return text or "{}", timed_out(payload)
    return orjson.dumps(payload | marks).decode(), timed_out(payload)


COMMANDS: dict[str, Command] = {
    "watch": watch,
    "unwatch": unwatch,
    "registerqueue": register_queue,
    "unregisterqueue": unregister_queue,
    "queuemessage": queue_message,
}
