"""Who asks, and what they may do with a document."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jupyter_agent.errors import InvalidInput
from jupyter_agent.openflow.rights import ADMINS, ROOT, Right, allowed

Document = dict[str, Any]
MAX_ENTRIES = 1000


@dataclass(frozen=True)
class Caller:
    """A user with all their roles; ``principals`` are the ids that an ``_acl`` may name for them.

    Who is ``locked`` (``dblocked`` in their document) may read and not write.
    """

    id: str
    name: str
    username: str
    email: str = ""
    roles: tuple[tuple[str, str], ...] = ()
    locked: bool = False
    principals: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "principals", frozenset({self.id, *(role for role, _ in self.roles)}))

    @property
    def is_admin(self) -> bool:
        """Admins and root may do everything."""
        return ADMINS in self.principals or ROOT in self.principals

    def may(self, collection: str, document: Document, right: Right) -> bool:
        """Whether this user may do that with that document."""
        return self.is_admin or allowed(security(collection, document).get("_acl"), self.principals, right)


SYSTEM = Caller(ROOT, "root", "root")
"""The hub itself."""


def security(collection: str, document: Document) -> Document:
    """The part of a document that holds ``_acl``, ``_created`` and so on: in files it is their metadata."""
    if not collection.endswith(".files"):
        return document
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def entry(id: str, name: str, rights: int) -> Document:  # noqa: A002 - what OpenFlow calls it
    """An entry of an ``_acl``."""
    return {"_id": id, "name": name, "rights": int(rights)}


def checked_acl(acl: object) -> list[Document]:
    """An ``_acl`` that a client sent. Raises `InvalidInput` when it is none."""
    if not isinstance(acl, list) or len(acl) > MAX_ENTRIES:
        raise InvalidInput(f"_acl must be a list of up to {MAX_ENTRIES} entries.")
    for item in acl:
        if not isinstance(item, dict) or not isinstance(item.get("_id"), str):
            raise InvalidInput('Each entry of _acl must be an object like {"_id": "<user or role>", "rights": 2}.')
        rights = item.get("rights", 0)
        if isinstance(rights, bool) or not isinstance(rights, int | float | str):
            raise InvalidInput("The rights in _acl must be a number: the sum of 2 read, 4 update, 8 delete, 16 invoke.")
    return acl


def owned(acl: list[Document], caller: Caller) -> list[Document]:
    """``acl`` with full control for the admins and for the caller."""
    entries = list(acl)
    if not allowed(entries, {ADMINS}, Right.FULL):
        entries.append(entry(ADMINS, "admins", Right.FULL))
    if caller is not SYSTEM and not allowed(entries, {caller.id}, Right.FULL):
        entries.append(entry(caller.id, caller.name, Right.FULL))
    return entries


def granted(acl: list[Document], id: str, name: str, right: Right) -> list[Document]:  # noqa: A002
    """``acl`` with at least this right for that user."""
    return acl if allowed(acl, {id}, right) else [*acl, entry(id, name, right)]
