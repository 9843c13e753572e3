"""Who sent a queue message, and what they may do.

A message's ``__user`` is a claim, its ``__jwt`` is verified by the server (protocol §15): only the latter counts.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from jupyter_agent.errors import AccessDenied, AgentError, NotFound, SignInFailed
from jupyter_agent.openflow.client import Client, User
from jupyter_agent.openflow.rights import Right, allowed, mask

CACHE_S = 60
CACHE_SIZE = 256

TOKEN = re.compile(r"[\w=-]+\.[\w=-]+\.[\w=-]*")
"""What a JSON Web Token looks like."""


@dataclass(frozen=True)
class Sender:
    """A verified user of OpenFlow and the short token the message came with."""

    user: User
    jwt: str = field(repr=False)


class Senders:
    """Verifies the senders of messages; what the server said of a token holds for a minute."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, tuple[float, User | str]] = OrderedDict()

    async def verify(self, client: Client, data: dict[str, Any]) -> Sender:
        """The sender of a message; raises ``AccessDenied`` where there is no valid ``__jwt``."""
        jwt = data.get("__jwt")
        if not isinstance(jwt, str) or not TOKEN.fullmatch(jwt):  # the server need not be asked
            raise AccessDenied("not authenticated")
        now = asyncio.get_running_loop().time()
        told = self._told.get(jwt)
        if told is None or now - told[0] > CACHE_S:
            told = (now, await _owner(client, jwt))
            self._told[jwt] = told
            self._told.move_to_end(jwt)
            while len(self._told) > CACHE_SIZE:
                self._told.popitem(last=False)
        if isinstance(told[1], str):
            raise AccessDenied(f"not authenticated: {told[1]}")
        return Sender(told[1], jwt)


async def _owner(client: Client, jwt: str) -> User | str:
    """Whose token this is, or why it is nobody's."""
    try:
        return await client.validate(jwt)
    except SignInFailed as error:
        return str(error)


def require_invoke(sender: Sender, document: dict[str, Any]) -> None:
    """Raise ``AccessDenied`` unless the sender may invoke the agent whose document this is."""
    if not allowed(document.get("_acl"), sender.user.principals, Right.INVOKE):
        raise AccessDenied(
            f"{sender.user.name or sender.user.username} may not use this agent: "
            f"the right to invoke {document.get('name') or document.get('slug')} is needed."
        )


def require_package(sender: Sender, document: dict[str, Any]) -> None:
    """Raise ``AccessDenied`` when the sender may read this package, but others alone may run it.

    Its ``_acl`` says so by the right to invoke in an entry that does not give all rights, or denies that right.
    """
    acl = document.get("_acl")
    entries = [entry for entry in acl if isinstance(entry, dict)] if isinstance(acl, list) else []
    told_apart = any(
        mask(entry.get("rights")) & Right.INVOKE and (entry.get("deny") or mask(entry.get("rights")) != Right.FULL)
        for entry in entries
    )
    if told_apart and not allowed(acl, sender.user.principals, Right.INVOKE):
        raise AccessDenied(
            f"{sender.user.name or sender.user.username} may not run {document.get('name') or document.get('_id')}: "
            "the right to invoke the package is needed."
        )


async def find_package(client: Client, wanted: str, *, jwt: str = "") -> dict[str, Any]:
    """The document of the package with this id or name, read as the owner of ``jwt`` (empty: as the agent).

    A name stands for the package that was changed last, of those that may be read. Raises ``NotFound``.
    """
    query = {"_type": "package", "$or": [{"_id": wanted}, {"id": wanted}, {"name": wanted}]}
    found = await client.query("agents", query, order_by={"_modified": -1}, top=2, jwt=jwt)
    if not found:
        raise NotFound(f"There is no package {wanted[:100]!r} on OpenFlow, or it may not be read: publish it first.")
    return next((document for document in found if document.get("_id") == wanted), found[0])


def sentence(error: BaseException) -> str:
    """What is told of an error to somebody else: our own sentences, but only the type of an unexpected error."""
    return str(error) if isinstance(error, AgentError) else f"Internal error of the agent ({type(error).__name__})."
