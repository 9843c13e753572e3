"""A command as its function gets it: who asks, on which connection, and the way to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message  # noqa: TID251 - what commands take and return

from jupyter_agent.errors import AccessDenied
from jupyter_agent.hub import agents, files, users, workitem_queues, workitems
from jupyter_agent.hub.callers import Caller, Document
from jupyter_agent.hub.data.store import Documents
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.hub.operations import MAX_HOLD_S, Collection, Guard
from jupyter_agent.hub.services import Services
from jupyter_agent.openflow.protocol import Encoded, encoded
from jupyter_agent.openflow.rights import Right

T = TypeVar("T")
Reply = Message | Encoded

MAX_SEARCH_S = 60
"""How long one command may search: it keeps a reader busy, also when its client has gone."""

BIG = 20_000
"""Characters of JSON that are worth a thread: they would hold up the event loop."""

BIG_COPY = 500_000
"""The same where they are JSON already, and are copied alone."""


@dataclass(frozen=True)
class Call:
    """One command of one client; ``id`` is its envelope's."""

    services: Services
    connection: Connection
    caller: Caller
    id: str

    async def read(
        self, collection: str, job: Callable[[Collection], T], *, queryas: str = "", is_short: bool = False
    ) -> T:
        """Run ``job`` on a collection as this caller sees it; with ``queryas``, what that user or role sees of it.

        Unless it ``is_short``, it waits while others of this user are under way. Raises `AccessDenied` when the caller
        may not read that user or role.
        """

        def run(documents: Documents) -> T:
            view = self._other(documents, queryas) if queryas else None
            return job(self._open(documents, collection, view))

        store = self.services.store
        if is_short:
            return await store.read(run)
        return await self.services.turns.take(self.caller.id, lambda: store.read(run, within_s=MAX_SEARCH_S))

    async def write(self, collection: str, job: Callable[[Collection], T]) -> T:
        """The same for a job that writes; all of it is on disk when this returns, or nothing is."""
        store = self.services.store
        return await store.write(lambda documents: job(self._open(documents, collection)), within_s=MAX_HOLD_S)

    def _open(self, documents: Documents, collection: str, view: Caller | None = None) -> Collection:
        return Collection(documents, self.caller, collection, guard=GUARDS.get(collection), view=view)

    def _other(self, documents: Documents, id: str) -> Caller:  # noqa: A002 - what OpenFlow calls it
        """A user or a role that the caller may read, as one who reads."""
        document = documents.get("users", id)
        if document is None or not self.caller.may("users", document, Right.READ):
            raise AccessDenied(f"item {id} not found in users or Access Denied")
        if document["_type"] == "role":
            return Caller(id, str(document.get("name", "")), "")
        if (user := users.as_caller(documents, id)) is None:
            raise AccessDenied(f"item {id} not found in users or Access Denied")
        return user


async def off_loop(text: str, work: Callable[[], T]) -> T:
    """Do ``work`` on ``text``: at once, or in a thread when the text is long."""
    return work() if len(text) < BIG else await asyncio.to_thread(work)


async def answer(size: int, make: Callable[[], Message], *, big: int = BIG) -> Reply:
    """The reply that ``make`` makes of so many characters: a long one is made and encoded in a thread."""
    return make() if size < big else await asyncio.to_thread(lambda: encoded(make()))


def admins_only(_documents: Documents, caller: Caller, _old: Document | None, _new: Document | None) -> None:
    """The rule of collections that hold what the hub itself goes by."""
    if not caller.is_admin:
        raise AccessDenied("Access denied: only admins may change this collection.")


GUARDS: dict[str, Guard] = {
    "users": users.guard,
    "agents": agents.guard,
    "fs.files": files.guard,
    "mq": workitem_queues.guard,
    "workitems": workitems.guard,
    "config": admins_only,
    "audit": admins_only,
    "oauthtokens": admins_only,
}

Command = Callable[[Call, Any], Any]
"""``async def command(call, request) -> reply``, both messages of the protocol."""
