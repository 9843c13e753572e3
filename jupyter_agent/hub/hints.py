"""Hints: who consumes the queue that a work item queue names is told, again and again, that items of it are due.

A hint holds no item, gives no right and may get lost: the receiver pops.
"""

from __future__ import annotations

import asyncio
import logging

import orjson

from jupyter_agent.errors import AgentError
from jupyter_agent.hub.callers import Document
from jupyter_agent.hub.data.documents import Date
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.store import Documents, Store
from jupyter_agent.hub.queues import Queues, queue_name
from jupyter_agent.hub.workitem_queues import QUEUE, QUEUES
from jupyter_agent.openflow.proto.openiap_pb2 import QueueEvent

LOG = logging.getLogger(__name__)

ALL = compile_filter({"_type": QUEUE})


class Hints:
    """Gives hints; `run` belongs in a task."""

    def __init__(self, store: Store, queues: Queues) -> None:
        self._store = store
        self._queues = queues

    async def run(self, every_s: float) -> None:
        """Give hints in rounds, for ever."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.give()
            except Exception:  # the next round may do better
                LOG.exception("no hints about work items could be given")

    async def give(self) -> None:
        """One round."""
        heard = [(name, queue) for name, queue in await self._store.read(_hinting) if self._queues.consumers(name)]
        if not heard:
            return
        for name, queue in await self._store.read(lambda documents: _due(documents, heard)):
            about = {"wiq": queue["name"], "wiqid": queue["_id"], "packageid": queue.get("packageid") or ""}
            event = QueueEvent(queuename=name, data=orjson.dumps(about, default=str).decode())
            for connection in list(self._queues.consumers(name)):
                connection.push("queueevent", event)


def _hinting(documents: Documents) -> list[tuple[str, Document]]:
    """The work item queues that name a queue, with its name."""
    found = []
    for queue in documents.find(QUEUES, ALL):
        try:
            name = queue_name(queue["amqpqueue"]) if isinstance(queue.get("amqpqueue"), str) else ""
        except AgentError:
            continue
        if name:
            found.append((name, queue))
    return found


def _due(documents: Documents, queues: list[tuple[str, Document]]) -> list[tuple[str, Document]]:
    now = Date.now()
    return [(name, queue) for name, queue in queues if documents.next_due(queue["_id"], now) is not None]
