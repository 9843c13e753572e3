"""Work item queues: documents of type ``workitemqueue`` in ``mq``; who may use them, and where their items' copies go.

A queue or an item may name another queue that gets a copy of what succeeded or failed. Whoever names it must be allowed
to push there; then its id is noted beside the name, so that the worker who comes to an end later needs no right of
their own. A name of what is no queue yet counts as the worker's own wish.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any

from jupyter_agent.errors import AccessDenied, Conflict, InvalidInput, NotFound
from jupyter_agent.hub import attachments, users
from jupyter_agent.hub.callers import SYSTEM, Caller, Document, entry, granted, owned
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.hub.data.due import COLLECTION as ITEMS
from jupyter_agent.hub.data.filters import Filter, compile_filter
from jupyter_agent.hub.data.store import Documents
from jupyter_agent.hub.operations import Collection
from jupyter_agent.openflow import rights
from jupyter_agent.openflow.rights import Right

LOG = logging.getLogger(__name__)

QUEUES, QUEUE = "mq", "workitemqueue"
DEFAULT_MAXRETRIES = 3
MAX_NAME = 190
"""Characters of a queue's name; its role's is somewhat longer."""

MAX_DELAY_S = 2**31 - 1
MEMBERS = Right.READ | Right.UPDATE | Right.INVOKE
"""What the role of a queue may do with it and its items."""

USE = Right.READ | Right.INVOKE
DENIED = "Unknown queue or access denied"
WORDS = ("success", "failed")
"""What the names of the fields begin with that name a queue for copies; they end with ``_wiq`` and ``_wiqid``."""


def find(documents: Documents, wiq: str, wiqid: str) -> Document | None:
    """The queue with this id, else the one of this name."""
    found = documents.get(QUEUES, wiqid) if wiqid else None
    if found is not None and found["_type"] == QUEUE:
        return found
    return next(documents.find(QUEUES, _named_queue(wiq)), None) if wiq else None


@lru_cache(maxsize=200)
def _named_queue(wiq: str) -> Filter:
    return compile_filter({"_type": QUEUE, "name": {"$eq": wiq}})


def readable(documents: Documents, caller: Caller, wiq: str, wiqid: str) -> Document:
    """The queue that a client names. Raises `NotFound` also when they may not know of it."""
    if not wiq and not wiqid:
        raise InvalidInput("The work item queue is missing: wiq or wiqid has to be given.")
    queue = find(documents, wiq, wiqid)
    if queue is None or not caller.may(QUEUES, queue, Right.READ):
        raise NotFound(f"Work item queue not found {wiq[:200]} ({wiqid[:60]}) not found.")
    return queue


def usable(documents: Documents, caller: Caller, wiq: str, wiqid: str) -> Document:
    """The queue, for who may push to it and pop from it. Raises `NotFound` or `AccessDenied`."""
    queue = readable(documents, caller, wiq, wiqid)
    if not caller.may(QUEUES, queue, USE):
        raise AccessDenied(DENIED)
    return queue


def add(documents: Documents, caller: Caller, fields: Document, *, with_role: bool) -> Document:
    """A new queue: for the caller, the admins and the *workitem queue admins*, and for a role of its own."""
    item = {"_type": QUEUE, "_id": new_id(), "maxretries": 0, "retrydelay": 0, "initialdelay": 0, **fields}
    if item["maxretries"] < 1:
        item["maxretries"] = DEFAULT_MAXRETRIES
    item["_acl"] = granted(item.get("_acl") or [], rights.WORKITEM_QUEUE_ADMINS, "workitem queue admins", Right.FULL)
    _check(documents, item)
    if with_role:
        _add_role(documents, caller, item)
    return Collection(documents, caller, QUEUES, guard=guard).insert(item)


def change(documents: Documents, caller: Caller, id: str, fields: Document, *, with_role: bool) -> Document:  # noqa: A002 - what OpenFlow calls it
    """Set fields of a queue; it gets a role where it has none and ``with_role`` asks for one."""
    old = readable(documents, caller, str(fields.get("name", "")), id)
    item = {**old, **fields}
    if "_acl" in fields:
        names = {each["_id"]: each.get("name", "") for each in old["_acl"]}
        named = [each if each["name"] else {**each, "name": names.get(each["_id"], "")} for each in fields["_acl"]]
        item["_acl"] = owned(named, SYSTEM)  # admins are never locked out
    if whole(item.get("maxretries"), 0) < 1:
        item["maxretries"] = DEFAULT_MAXRETRIES
    queues = Collection(documents, caller, QUEUES, guard=guard)
    if with_role and not item.get("usersrole"):
        if not caller.may(QUEUES, old, Right.READ | Right.UPDATE):
            raise AccessDenied(DENIED)
        _check(documents, item)
        _add_role(documents, caller, item)
    return queues.update_one(item)


def purge(documents: Documents, caller: Caller, queue: str, most: int) -> bool:
    """Delete up to so many of a queue's items with their files; whether none is left.

    Raises `AccessDenied` to who may not delete the queue, whose rights its items have.
    """
    found = documents.get(QUEUES, queue)
    if found is None:
        return True
    if not caller.may(QUEUES, found, Right.READ | Right.DELETE):
        raise AccessDenied(DENIED)
    items = list(islice(documents.find(ITEMS, compile_filter({"wiqid": {"$eq": queue}})), most + 1))
    for item in items[:most]:
        attachments.remove(documents, item)
        documents.delete(ITEMS, item)
    return len(items) <= most


def delete(documents: Documents, caller: Caller, queue: Document) -> None:
    """Delete a queue that is empty. Raises `Conflict` when it is not."""
    if next(documents.find(ITEMS, compile_filter({"wiqid": {"$eq": queue["_id"]}})), None) is not None:
        name = queue["name"]
        raise Conflict(f"The work item queue {name} is not empty: delete it with purge to delete its items as well.")
    Collection(documents, caller, QUEUES, guard=guard).delete_one(queue["_id"])


def guard(documents: Documents, caller: Caller, old: Document | None, new: Document | None) -> None:
    """The rules of ``mq``: a queue of work items stays one, its name is its own."""
    was_queue = old is not None and old["_type"] == QUEUE
    if new is None:
        if was_queue and old is not None:
            _delete_role(documents, old)
        return
    if old is not None and was_queue != (new["_type"] == QUEUE):
        raise InvalidInput(f"The _type {QUEUE} can neither be given to a document that is there nor taken from it.")
    if new["_type"] == QUEUE:
        _check(documents, new)
        vouch(documents, caller, old or {}, new)


def _check(documents: Documents, queue: Document) -> None:
    name = queue.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME or "\0" in name:
        raise InvalidInput(f"A work item queue needs a name of up to {MAX_NAME} characters.")
    for delay in ("retrydelay", "initialdelay"):
        value = queue.get(delay)
        if isinstance(value, int | float) and not 0 <= value <= MAX_DELAY_S:
            raise InvalidInput(f"The {delay} of a work item queue is a number of seconds, not {value}.")
    same = compile_filter({"_type": QUEUE, "name": {"$eq": name}, "_id": {"$ne": queue["_id"]}})
    if next(documents.find(QUEUES, same), None) is not None:
        raise Conflict(f"A work item queue with the name {name} already exists.")


def _add_role(documents: Documents, caller: Caller, queue: Document) -> None:
    """A new role for a queue. One that is there is never joined: its members may do other things as well."""
    name = f"{queue['name']} users"
    taken = compile_filter({"_type": "role", "name": {"$eq": name}})
    if next(documents.find("users", taken), None) is not None:
        raise Conflict(f"There is a role {name} already: choose another name for the queue, or skiprole.")
    role = new_id()
    item = {
        "_id": role,
        "_type": "role",
        "name": name,
        "members": [{"_id": caller.id, "name": caller.name}],
        "workitemqueue": queue["_id"],
        "_acl": [entry(caller.id, caller.name, Right.READ), entry(role, name, Right.READ)],
    }
    Collection(documents, SYSTEM, "users", guard=users.guard).insert(item)
    queue["usersrole"] = role
    queue["_acl"] = granted(queue["_acl"], role, name, MEMBERS)


def _delete_role(documents: Documents, queue: Document) -> None:
    """The role that was made for a queue goes with it; not just any role that a client named there."""
    role = documents.get("users", queue["usersrole"]) if isinstance(queue.get("usersrole"), str) else None
    if role is not None and role["_type"] == "role" and role.get("workitemqueue") == queue["_id"]:
        Collection(documents, SYSTEM, "users", guard=users.guard).delete_one(role["_id"])


def vouch(documents: Documents, caller: Caller, old: Document, new: Document) -> None:
    """Check the queues that are named anew for copies, and note id and name of each that is there."""
    for word in WORDS:
        names = (f"{word}_wiqid", f"{word}_wiq")
        changed = {name: new.get(name) for name in names if new.get(name) != old.get(name)}
        if not changed:
            continue
        if not all(value is None or isinstance(value, str) for value in changed.values()):
            raise InvalidInput(f"{names[0]} and {names[1]} name a work item queue: they must be texts.")
        for name in names:
            new.pop(name, None)
        wiqid, wiq = (changed.get(name) or "" for name in names)
        if wiq or wiqid:
            new |= _named(documents, caller, names, wiqid, wiq)


def _named(documents: Documents, caller: Caller, names: tuple[str, str], wiqid: str, wiq: str) -> Document:
    queue = find(documents, wiq, wiqid)
    if queue is not None:
        if not caller.may(QUEUES, queue, USE):
            raise AccessDenied(DENIED)
        return dict(zip(names, (queue["_id"], queue["name"]), strict=True))
    if wiqid and not caller.is_admin:  # an id counts as checked later on
        raise NotFound(f"Work item queue not found {wiq[:200]} ({wiqid[:60]}) not found.")
    return {name: value for name, value in zip(names, (wiqid, wiq), strict=True) if value}


def target_of(documents: Documents, caller: Caller, named_in: Iterable[Document], word: str) -> Document | None:
    """The queue that gets a copy: the first of these documents that names one counts. ``None``: there is none."""
    for holder in named_in:
        wiqid, wiq = (str(holder.get(f"{word}_{name}") or "") for name in ("wiqid", "wiq"))
        if not wiqid and not wiq:
            continue
        if (checked := find(documents, "", wiqid)) is not None:
            return checked
        queue = find(documents, wiq, "")
        if queue is None:
            LOG.warning("a work item was not copied to the queue %s (%s): there is none", wiq, wiqid)
        elif not caller.may(QUEUES, queue, USE):
            raise AccessDenied(DENIED)
        return queue
    return None


def whole(value: Any, default: int, low: int = 0) -> int:
    """A number out of a document that anybody may have written; ``default`` for what is none or absurd."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= MAX_DELAY_S:
        return default
    return int(value)
