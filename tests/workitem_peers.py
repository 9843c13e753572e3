"""What the tests of work items say to a hub, and hear of it."""

from __future__ import annotations

import json
import zlib
from typing import Any

from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from tests.hub_peers import ask


async def add(client: Client, name: str, **fields: Any) -> pb.WorkItemQueue:
    message = pb.WorkItemQueue(name=name, **{"maxretries": 2, **fields})
    reply = await ask(client, pb.AddWorkItemQueueRequest(workitemqueue=message, skiprole=True))
    queue: pb.WorkItemQueue = reply.workitemqueue
    return queue


async def push(client: Client, wiq: str, payload: object = None, **fields: Any) -> pb.Workitem:
    text = "" if payload is None else json.dumps(payload)
    item: pb.Workitem = (await ask(client, pb.PushWorkitemRequest(wiq=wiq, payload=text, **fields))).workitem
    return item


async def pop(client: Client, wiq: str, **fields: Any) -> pb.Workitem | None:
    reply = await ask(client, pb.PopWorkitemRequest(wiq=wiq, **fields))
    return reply.workitem if reply.HasField("workitem") else None


async def popped(client: Client, wiq: str, **fields: Any) -> pb.Workitem:
    item = await pop(client, wiq, **fields)
    assert item is not None
    return item


async def update(client: Client, item: pb.Workitem | str, *, force: bool = False, **fields: Any) -> pb.Workitem:
    """Say something of an item; ``given`` are files beside it."""
    given = fields.pop("given", [])
    message = pb.Workitem(_id=item if isinstance(item, str) else item._id, **fields)
    request = pb.UpdateWorkitemRequest(workitem=message, ignoremaxretries=force, files=given)
    updated: pb.Workitem = (await ask(client, request)).workitem
    return updated


def file(name: str, data: bytes = b"", id: str = "", *, compress: bool = False) -> pb.WorkitemFile:  # noqa: A002
    return pb.WorkitemFile(filename=name, _id=id, file=zlib.compress(data) if compress else data, compressed=compress)


async def stored(client: Client, item: pb.Workitem) -> dict[str, Any]:
    (document,) = await client.query("workitems", {"_id": item._id})
    return document


async def files_of(client: Client, item: pb.Workitem) -> list[dict[str, Any]]:
    return await client.query("fs.files", {"metadata.wi": item._id}, order_by="filename")


def ms(time: Any) -> int:
    return int(1000 * time.seconds + time.nanos // 1_000_000)
