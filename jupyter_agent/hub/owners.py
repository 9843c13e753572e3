"""Who owns a queue's name, and with it says who may use the queue.

It is the user or role with that id, else a document of type ``queue`` in ``mq`` with that name, else the agent with
that slug (or the name without the suffix ``agent``). Whoever may read the owner may send to the queue and consume it.

Anybody can write a document with any name into ``mq``. So of several the one counts that the queue was registered
with, else the oldest; and against an agent only one whose maker may update the agent. Of two agents, with the name and
with the name without the suffix, the older one counts.
"""

from __future__ import annotations

from jupyter_agent.errors import AccessDenied, AgentError, InvalidInput
from jupyter_agent.hub.callers import Caller, Document
from jupyter_agent.hub.data import waiting
from jupyter_agent.hub.data.documents import Date
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.store import Change, Documents, Store
from jupyter_agent.hub.operations import Collection
from jupyter_agent.hub.users import Users, as_caller
from jupyter_agent.openflow.rights import Right

Owner = tuple[str, Document]
"""A collection and the document in it that owns a queue's name."""

QUEUES = "mq"
MAX_KNOWN = 2000
MAX_CLAIMS = 1000
"""Queues that one user may claim."""


class Owners:
    """The owners of queues' names, and what users may do with them."""

    def __init__(self, store: Store, users: Users) -> None:
        self._store = store
        self._users = users
        self._known: dict[str, Owner | None] = {}
        store.follow(self._forget)

    async def of(self, name: str) -> Owner | None:
        """What owns a name, ``None`` when nothing does."""
        known = self._known
        if name in known:
            return known[name]
        found = await self._store.read(lambda documents: _guarded(owner_of(documents, name)))
        if len(known) >= MAX_KNOWN:
            known.clear()
        known[name] = found  # not in the dictionary of today, if something changed meanwhile
        return found

    async def may_use(self, caller: Caller, name: str) -> bool:
        """Whether a user may send to a queue and consume it."""
        owner = await self.of(name)
        return owner is None or name in caller.principals or caller.may(*owner, Right.READ)

    async def may_still_use(self, user: str | None, name: str) -> bool:
        """The same for the user with an id: rights may have changed since they registered."""
        try:
            return await self.may_use(await self._users.caller(user or ""), name)
        except AgentError:
            return False

    async def register(self, caller: Caller, name: str) -> None:
        """Note on disk that a queue exists, and make it the caller's when nobody owns its name."""
        await self._store.write(lambda documents: _register(documents, caller, name))

    def _forget(self, changes: list[Change]) -> None:
        if any(change.collection in (QUEUES, "agents", "users") for change in changes):
            self._known = {}


def _guarded(owner: Owner | None) -> Owner | None:
    """An owner with no more of its document than says who may use it."""
    return (owner[0], {"_acl": owner[1].get("_acl")}) if owner is not None else None


def owner_of(documents: Documents, name: str) -> Owner | None:
    """What owns a queue's name, ``None`` when nothing does."""
    if (user := documents.get("users", name)) is not None:
        return "users", user
    queue, agent = _queue(documents, name), _agent(documents, name)
    if queue is not None and (agent is None or _may_speak_for(documents, queue, agent)):
        return QUEUES, queue
    return ("agents", agent) if agent is not None else None


def _register(documents: Documents, caller: Caller, name: str) -> None:
    owner, claimed_by = owner_of(documents, name), ""
    if owner is None:
        if caller.locked:
            raise AccessDenied(
                f"Access denied: {caller.username} is locked for writing (dblocked): {name} is no queue."
            )
        if waiting.claims(documents.connection, caller.id) >= MAX_CLAIMS:
            raise InvalidInput(
                f"You own {MAX_CLAIMS} queues: delete some of your documents of type queue in mq before you make more."
            )
        owner, claimed_by = (QUEUES, _claimed(documents, caller, name)), caller.id
        waiting.empty(documents.connection, name)  # it was sent to whoever owned the name before
    document = owner[1]["_id"] if owner[0] == QUEUES else ""
    waiting.declare(documents.connection, name, document, claimed_by)


def _claimed(documents: Documents, caller: Caller, name: str) -> Document:
    return Collection(documents, caller, QUEUES).insert({"_type": "queue", "name": name})


def _queue(documents: Documents, name: str) -> Document | None:
    registered = waiting.document_of(documents.connection, name)
    found = documents.get(QUEUES, registered) if registered else None
    if found is not None and found["_type"] == "queue" and found.get("name") == name:
        return found
    named = documents.find(QUEUES, compile_filter({"_type": "queue", "name": {"$eq": name}}))
    return min(named, key=_age, default=None)


def _age(document: Document) -> tuple[int, str]:
    created = document.get("_created")
    return created.ms if isinstance(created, Date) else 0, str(document["_id"])


def _agent(documents: Documents, name: str) -> Document | None:
    slugs = {name, name.removesuffix("agent")}
    found = [compile_filter({"_type": "agent", "slug": {"$eq": slug}}) for slug in slugs]
    agents = [agent for wanted in found for agent in documents.find("agents", wanted)]
    return min(agents, key=_age, default=None)


def _may_speak_for(documents: Documents, queue: Document, agent: Document) -> bool:
    maker = as_caller(documents, str(queue.get("_createdbyid", "")))
    return maker is not None and maker.may("agents", agent, Right.UPDATE)
