"""The commands of watches and queues."""

from __future__ import annotations

from typing import Any

import orjson

from jupyter_agent.errors import AccessDenied, InvalidInput
from jupyter_agent.hub.callers import Caller
from jupyter_agent.hub.commands.call import Call, Command, off_loop
from jupyter_agent.hub.data.waiting import Message
from jupyter_agent.hub.operations import collection_name
from jupyter_agent.hub.queues import DEFAULT_EXPIRATION_MS, denied, is_private, now_ms, queue_name
from jupyter_agent.openflow.proto import openiap_pb2 as pb

MAX_PAYLOAD = 130_000_000
"""Bytes of the JSON text of a message, as in OpenFlow."""

MARKS = ("__jwt", "__user")
"""What tells the receiver of an object who sent it: never the sender's own words."""

NO_EXCHANGES = "AMQP exchange is not enabled on this OpenFlow"


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
    name, queues = queue_name(request.queuename), call.services.queues
    async with await queues.turn(call.connection):
        return pb.RegisterQueueResponse(queuename=await queues.register(call.connection, name, call.caller))


async def unregister_queue(call: Call, request: pb.UnRegisterQueueRequest) -> pb.UnRegisterQueueResponse:
    """Let it consume a queue no more."""
    name, queues = queue_name(request.queuename), call.services.queues
    async with await queues.turn(call.connection):
        queues.unregister(call.connection, name)
    return pb.UnRegisterQueueResponse()


async def register_exchange(_call: Call, request: pb.RegisterExchangeRequest) -> pb.RegisterExchangeResponse:
    """Exchanges are not enabled, as on a real server that was not told otherwise."""
    if not queue_name(request.exchangename):
        raise AccessDenied("Access denied: the exchangename is missing.")
    raise InvalidInput(NO_EXCHANGES)


async def queue_message(call: Call, request: pb.QueueMessageRequest) -> pb.QueueMessageResponse:
    """Send a message to a queue."""
    if request.exchangename:
        raise InvalidInput(NO_EXCHANGES)
    name, reply_to, queues = queue_name(request.queuename), queue_name(request.replyto), call.services.queues
    if not name:
        raise InvalidInput("The queuename is missing: queuename or exchange must be given.")
    async with await queues.turn(call.connection):
        for each in (name, reply_to):  # to where answers go the hub itself sends what nobody took in time
            if each and not is_private(each) and not await queues.owners.may_use(call.caller, each):
                raise denied(each)
        marks = {} if request.striptoken else _marks(call)
        data, returned = await off_loop(request.data, lambda: _payload(request.data, marks))
        expiration_ms = request.expiration if request.expiration >= 1 else DEFAULT_EXPIRATION_MS
        await queues.send(
            Message(
                queue=name,
                data=data,
                returned=returned if queues.exists(reply_to) else "",  # not to who takes the name later
                reply_to=reply_to,
                correlation_id=request.correlationId,
                expires_ms=now_ms() + expiration_ms,
            )
        )
    return pb.QueueMessageResponse(queuename=name, correlationId=request.correlationId, replyto=reply_to)


def _other_user(call: Call) -> str | None:
    """Whose request it is, where a token of its own made it another's than the connection's."""
    return call.caller.id if call.caller.id != call.connection.user else None


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


def _marks(call: Call) -> dict[str, Any]:
    """What tells the receiver who sent a message, and lets it act for them."""
    return {"__jwt": call.services.users.token(call.caller.id), "__user": token_user(call.caller)}


def _payload(text: str, marks: dict[str, Any]) -> tuple[str, str]:
    """What is delivered, and what comes back when nobody takes it.

    What is no JSON is a text: the official client sends texts as they are.
    """
    if len(text) > MAX_PAYLOAD or len(text.encode()) > MAX_PAYLOAD:
        raise InvalidInput(f"The data of a message can have {MAX_PAYLOAD // 1_000_000} MB, not {len(text) / 1e6:.0f}.")
    try:
        payload = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        payload, text = text, orjson.dumps(text).decode()
    if not isinstance(payload, dict):
        return text, orjson.dumps("timeout").decode()
    own = {name: value for name, value in payload.items() if name not in MARKS}
    return orjson.dumps(own | marks).decode(), orjson.dumps(own | {"command": "timeout"}).decode()


COMMANDS: dict[str, Command] = {
    "watch": watch,
    "unwatch": unwatch,
    "registerqueue": register_queue,
    "unregisterqueue": unregister_queue,
    "registerexchange": register_exchange,
    "queuemessage": queue_message,
}
