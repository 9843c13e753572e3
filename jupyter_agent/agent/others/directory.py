"""Which agents there are, and which of them can be reached: their documents, and the queues of connected clients.

A message to a queue that nobody has registered puts its name on the server's list of bad ones (protocol §11), so a
queue is only ever taken from what connected clients have registered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_agent.errors import AccessDenied, InvalidInput, NotFound, Unavailable
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.rights import Right, allowed

PAGE = 500
"""Documents asked for at once."""

MOST = 10_000
"""Agents that are looked at; more than any panel can show."""


@dataclass(frozen=True)
class OtherAgent:
    """An agent's document (protocol §13) as far as it matters here.

    ``queue`` is the queue that a connected client has registered for it, empty while none has. ``is_self``: it is
    this agent's own document. ``may_invoke``: whether we may send it commands.
    """

    id: str
    slug: str
    name: str
    hostname: str = ""
    os: str = ""
    arch: str = ""
    languages: tuple[str, ...] = ()
    chrome: bool = False
    chromium: bool = False
    version: str = ""
    lastseen: str | None = None
    queue: str = ""
    is_self: bool = False
    may_invoke: bool = False

    @property
    def online(self) -> bool:
        """Whether somebody listens on its queue."""
        return bool(self.queue)

    @property
    def is_old(self) -> bool:
        """Whether it is the official agent up to 0.0.45, which listens on ``<slug>`` alone and knows few commands."""
        return self.queue == self.slug.lower()

    def reachable(self) -> OtherAgent:
        """This agent. Raises ``Unavailable`` or ``AccessDenied`` when it cannot be sent commands."""
        if not self.online:
            raise Unavailable(
                f"The agent {self.slug} is not connected to OpenFlow, or its connection may not be seen: "
                "start it, or ask for the right to read its user."
            )
        if not self.may_invoke:
            raise AccessDenied(
                f"The agent {self.slug} may not be used: ask whoever it belongs to for the right to invoke it."
            )
        return self

    def must_know(self, command: str) -> None:
        """Raise ``InvalidInput`` for a command that an agent of this age does not answer."""
        if self.is_old:
            raise InvalidInput(f"The agent {self.slug} is too old to {command}: it needs a version above 0.0.45.")


async def agents(client: Client, own_id: str) -> list[OtherAgent]:
    """All agents that may be read, by name; ``own_id`` is the ``_id`` of our own document."""
    queues = registered(await client.custom_command("getclients"))
    principals = client.user.principals if client.user else frozenset()
    found: list[OtherAgent] = []
    for skip in range(0, MOST, PAGE):
        page = await client.query("agents", {"_type": "agent"}, order_by={"name": 1, "_id": 1}, top=PAGE, skip=skip)
        found += [of_document(each, queues, own_id, principals) for each in page if _is_usable(each)]
        if len(page) < PAGE:
            break
    return found


def registered(clients: object) -> frozenset[str]:
    """The names of the queues in the answer of ``getclients``, which servers write in two forms."""
    queues = [each.get("queues") for each in clients if isinstance(each, dict)] if isinstance(clients, list) else []
    names = (
        queue.get("queuename") if isinstance(queue, dict) else queue
        for each in queues
        if isinstance(each, list)
        for queue in each
    )
    return frozenset(name.lower() for name in names if isinstance(name, str) and name)


def queue_of(slug: str, queues: frozenset[str]) -> str:
    """The queue on which the agent of this slug listens; empty when it does not."""
    return next((name for name in (f"{slug}agent".lower(), slug.lower()) if name in queues), "")


def of_document(
    document: Mapping[str, Any], queues: frozenset[str], own_id: str, principals: frozenset[str]
) -> OtherAgent:
    """An agent's document, whatever its fields hold."""
    slug = _text(document, "slug")
    languages = document.get("languages")
    return OtherAgent(
        id=_text(document, "_id"),
        slug=slug,
        name=_text(document, "name") or slug,
        hostname=_text(document, "hostname"),
        os=_text(document, "os"),
        arch=_text(document, "arch"),
        languages=tuple(each for each in languages if isinstance(each, str)) if isinstance(languages, list) else (),
        chrome=document.get("chrome") is True,
        chromium=document.get("chromium") is True,
        version=_text(document, "version"),
        lastseen=_text(document, "lastseen") or None,
        queue=queue_of(slug, queues),
        is_self=document.get("_id") == own_id,
        may_invoke=allowed(document.get("_acl"), principals, Right.INVOKE),
    )


def find(known: Iterable[OtherAgent], wanted: str) -> OtherAgent:
    """The agent with this slug, id, or name that only one has. Raises ``NotFound`` or ``InvalidInput``."""
    listed = list(known)
    for agent in listed:
        if wanted in (agent.slug, agent.id):
            return agent
    named = [agent for agent in listed if agent.name == wanted]
    if len(named) > 1:
        slugs = ", ".join(sorted(agent.slug for agent in named)[:5])
        raise InvalidInput(f"{len(named)} agents are named {wanted[:100]}: give the slug of one ({slugs}).")
    if not named:
        raise NotFound(f"There is no agent {wanted[:100]!r} on OpenFlow, or it may not be read.")
    return named[0]


def _is_usable(document: object) -> bool:
    return isinstance(document, dict) and bool(_text(document, "slug")) and bool(_text(document, "_id"))


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""
