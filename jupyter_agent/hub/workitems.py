"""Work item queues and work items: what becomes of them, decided on values, and the jobs of the store that do it.

A queue is a document of type ``workitemqueue`` in ``mq``, an item one of type ``workitem`` in ``workitems`` with the
queue's rights. Who may read and invoke the queue may push, pop and update its items. An item that was popped stays
``processing`` until somebody updates it: as on the real server, nothing times out.

A queue or an item may name another queue that gets a copy of what succeeded or failed. Whoever names it must be allowed
to push there; then its id is noted beside the name, so that the worker who comes to an end later needs no right of
their own. A name of what is no queue yet counts as the worker's own wish.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from jupyter_agent.errors import AccessDenied, Conflict, InvalidInput, NotFound
from jupyter_agent.hub import attachments, users
from jupyter_agent.hub.attachments import Given, Kept, Plan, with_acl
from jupyter_agent.hub.callers import SYSTEM, Caller, Document, entry, granted, owned
from jupyter_agent.hub.data.documents import Date, new_id
from jupyter_agent.hub.data.due import COLLECTION as ITEMS
from jupyter_agent.hub.data.due import DEFAULT_PRIORITY
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.store import Documents
from jupyter_agent.hub.operations import Collection
from jupyter_agent.openflow import rights
from jupyter_agent.openflow.rights import Right

LOG = logging.getLogger(__name__)

QUEUES = "mq"
QUEUE, ITEM = "workitemqueue", "workitem"
NEW, PROCESSING, SUCCESSFUL, FAILED, RETRY = "new", "processing", "successful", "failed", "retry"
STATES = (FAILED, SUCCESSFUL, PROCESSING, RETRY)
"""What an update may ask for."""

CHAINS = {SUCCESSFUL: "success", FAILED: "failed"}
CHAINING = ("success_wiqid", "failed_wiqid", "success_wiq", "failed_wiq")
DEFAULT_MAXRETRIES = 3
MAX_NAME = 190
"""Characters of a queue's name; its role's is somewhat longer."""

MAX_DELAY_S = 2**31 - 1
MEMBERS = Right.READ | Right.UPDATE | Right.INVOKE
"""What the role of a queue may do with it and its items."""

USE = Right.READ | Right.INVOKE
DENIED = "Unknown queue or access denied"


@dataclass(frozen=True)
class NewItem:
    """An item to be pushed; ``nextrun`` is when it is due, ``None`` for after the queue's delay."""

    name: str = ""
    payload: Document = field(default_factory=dict, repr=False)
    priority: int = DEFAULT_PRIORITY
    nextrun: Date | None = None
    chaining: Document = field(default_factory=dict)


@dataclass(frozen=True)
class Update:
    """What a worker says of an item; ``fields`` are those to be set, a state ``""`` leaves it as it is."""

    state: str = ""
    fields: Document = field(default_factory=dict, repr=False)
    nextrun: Date | None = None
    ignores_maxretries: bool = False
    files: tuple[Given, ...] = ()


@dataclass(frozen=True)
class Step:
    """An update of an item as it will be done: it holds as long as it would be decided the same way again."""

    old: Document
    new: Document
    files: Plan
    target: Document | None
    """The queue that gets a copy."""

    own_files: tuple[Document, ...]
    """Entries of the files that a copy takes along, besides those that come."""


class Changed(Conflict):
    """Somebody else changed the item while this update was prepared."""


# -- Queues


def find_queue(documents: Documents, wiq: str, wiqid: str) -> Document | None:
    """The queue with this id, else the one of this name."""
    found = documents.get(QUEUES, wiqid) if wiqid else None
    if found is not None and found["_type"] == QUEUE:
        return found
    named = compile_filter({"_type": QUEUE, "name": {"$eq": wiq}})
    return next(documents.find(QUEUES, named), None) if wiq else None


def readable_queue(documents: Documents, caller: Caller, wiq: str, wiqid: str) -> Document:
    """The queue that a client names. Raises `NotFound` also when they may not know of it."""
    if not wiq and not wiqid:
        raise InvalidInput("The work item queue is missing: wiq or wiqid has to be given.")
    queue = find_queue(documents, wiq, wiqid)
    if queue is None or not caller.may(QUEUES, queue, Right.READ):
        raise NotFound(f"Work item queue not found {wiq[:200]} ({wiqid[:60]}) not found.")
    return queue


def usable_queue(documents: Documents, caller: Caller, wiq: str, wiqid: str) -> Document:
    """The queue, for who may push to it and pop from it. Raises `NotFound` or `AccessDenied`."""
    queue = readable_queue(documents, caller, wiq, wiqid)
    if not caller.may(QUEUES, queue, USE):
        raise AccessDenied(DENIED)
    return queue


def add_queue(documents: Documents, caller: Caller, fields: Document, *, with_role: bool) -> Document:
    """A new queue: for the caller, the admins and the *workitem queue admins*, and for a role of its own."""
    item = {"_type": QUEUE, "_id": new_id(), "maxretries": 0, "retrydelay": 0, "initialdelay": 0, **fields}
    if item["maxretries"] < 1:
        item["maxretries"] = DEFAULT_MAXRETRIES
    item["_acl"] = granted(item.get("_acl") or [], rights.WORKITEM_QUEUE_ADMINS, "workitem queue admins", Right.FULL)
    _check_queue(documents, item)
    if with_role:
        _add_role(documents, caller, item)
    return Collection(documents, caller, QUEUES, guard=guard_queue).insert(item)


def change_queue(documents: Documents, caller: Caller, id: str, fields: Document, *, with_role: bool) -> Document:  # noqa: A002 - what OpenFlow calls it
    """Set fields of a queue; it gets a role where it has none and ``with_role`` asks for one."""
    old = readable_queue(documents, caller, str(fields.get("name", "")), id)
    item = {**old, **fields}
    if "_acl" in fields:
        item["_acl"] = owned(fields["_acl"], SYSTEM)  # admins are never locked out
    if whole(item.get("maxretries"), 0) < 1:
        item["maxretries"] = DEFAULT_MAXRETRIES
    queues = Collection(documents, caller, QUEUES, guard=guard_queue)
    if with_role and not item.get("usersrole"):
        if not caller.may(QUEUES, old, Right.READ | Right.UPDATE):
            raise AccessDenied(DENIED)
        _check_queue(documents, item)
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


def delete_queue(documents: Documents, caller: Caller, queue: Document) -> None:
    """Delete a queue that is empty. Raises `Conflict` when it is not."""
    if next(documents.find(ITEMS, compile_filter({"wiqid": {"$eq": queue["_id"]}})), None) is not None:
        name = queue["name"]
        raise Conflict(f"The work item queue {name} is not empty: delete it with purge to delete its items as well.")
    Collection(documents, caller, QUEUES, guard=guard_queue).delete_one(queue["_id"])


def guard_queue(documents: Documents, caller: Caller, old: Document | None, new: Document | None) -> None:
    """The rules of ``mq``: a queue of work items stays one, its name is its own."""
    was_queue = old is not None and old["_type"] == QUEUE
    if new is None:
        if was_queue and old is not None:
            _delete_role(documents, old)
        return
    if old is not None and was_queue != (new["_type"] == QUEUE):
        raise InvalidInput(f"The _type {QUEUE} can neither be given to a document that is there nor taken from it.")
    if new["_type"] == QUEUE:
        _check_queue(documents, new)
        _vouch(documents, caller, old or {}, new)


def _check_queue(documents: Documents, queue: Document) -> None:
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


# -- Items


def push(
    documents: Documents, caller: Caller, queue: Document, item: NewItem, kept: Sequence[Kept], *, now: Date
) -> Document:
    """Insert an item into a queue that the caller may use; ``kept`` are its files."""
    new = {
        "_id": new_id(),
        "_type": ITEM,
        "name": item.name or "New work item",
        "payload": item.payload,
        "priority": item.priority,
        "state": NEW,
        "retries": 0,
        "nextrun": item.nextrun or later(now, queue.get("initialdelay")),
        "wiq": queue["name"],
        "wiqid": queue["_id"],
        "files": [file.entry for file in kept],
        **item.chaining,
        "_acl": queue["_acl"],
    }
    _vouch(documents, caller, {}, new)
    made = Collection(documents, caller, ITEMS, guard=with_acl(ITEMS, queue["_acl"])).insert(new)
    attachments.insert(documents, caller, made, kept)
    return made


def pop(documents: Documents, caller: Caller, queue: Document, *, now: Date) -> Document | None:
    """Give out the item that is due next; ``None`` when none is.

    It happens in one job of the one writer, so nobody else gets the item.
    """
    old = documents.next_due(queue["_id"], now)
    if old is None:
        return None
    new = {**old, "state": PROCESSING, "lastrun": now, "userid": caller.id, "username": caller.name}
    new.pop("nextrun", None)
    return _write(documents, caller, old, new)


def prepare(documents: Documents, caller: Caller, id: str, update: Update, *, now: Date) -> Step:  # noqa: A002
    """What an update would do. Raises `AgentError` for what cannot be done; changes nothing."""
    old, queue = _item(documents, caller, id)
    new = updated(old, queue, update, now)
    _vouch(documents, caller, old, new)
    plan = attachments.planned(attachments.entries_of(old), update.files)
    target = None
    if new["state"] != old.get("state") and new["state"] in CHAINS:
        target = _target(documents, caller, (new, queue), CHAINS[new["state"]])
    stays = {file["_id"] for file in plan.stays}
    own = {file["_id"] for file in attachments.documents_of(documents, old)} & stays if target is not None else set()
    return Step(old, new, plan, target, tuple(file for file in plan.stays if file["_id"] in own))


def carry_out(
    documents: Documents, caller: Caller, step: Step, kept: Sequence[Kept], copies: Sequence[Kept], *, now: Date
) -> Document:
    """Do a step whose contents are on the disk: ``kept`` the item's new ones, ``copies`` those of the copy."""
    new = {**step.new, "files": [*step.files.stays, *(file.entry for file in kept)]}
    attachments.remove(documents, step.old, step.files.goes)
    attachments.insert(documents, caller, new, kept)
    _write(documents, caller, step.old, new)
    if step.target is not None:
        name, payload, priority = str(new.get("name", "")), new.get("payload"), new.get("priority")
        copied = NewItem(
            name, payload if isinstance(payload, dict) else {}, whole(priority, DEFAULT_PRIORITY, -(2**31))
        )
        push(documents, caller, step.target, copied, copies, now=now)
    return new


def delete_item(documents: Documents, caller: Caller, id: str) -> None:  # noqa: A002
    """Delete an item with its files: for who may invoke its queue and delete the item."""
    item, _ = _item(documents, caller, id)
    if not caller.may(ITEMS, item, Right.DELETE):
        raise AccessDenied(f"Access denied: you may not delete the work item {id}.")
    attachments.remove(documents, item)
    documents.delete(ITEMS, item)


def guard_item(documents: Documents, caller: Caller, old: Document | None, new: Document | None) -> None:
    """The rules of ``workitems`` for who edits it directly: nothing gets into a queue past the queue's rights."""
    if new is None:
        attachments.remove(documents, old or {})
        return
    if new["_type"] != ITEM:
        return
    before = old if old is not None and old["_type"] == ITEM else {}
    if new.get("wiqid") != before.get("wiqid") and not caller.is_admin:
        queue = find_queue(documents, "", str(new.get("wiqid") or ""))
        if queue is None or not caller.may(QUEUES, queue, USE):
            raise AccessDenied(DENIED)
    _vouch(documents, caller, before, new)


def updated(item: Document, queue: Document, update: Update, now: Date) -> Document:
    """The item after an update, but for its files. Raises `InvalidInput` for a state that cannot be asked for."""
    new = {**item, **update.fields}
    if update.fields.get("errormessage") and not update.fields.get("errortype"):
        new["errortype"] = "application"
    if update.state and update.state not in STATES:
        raise InvalidInput(
            f"Illegal state {update.state[:60]} on Workitem, must be failed, successful, processing or retry"
        )
    if update.state == RETRY:
        return _retried(new, queue, update, now)
    new["state"] = update.state or item.get("state")
    if new["state"] != NEW:
        new.pop("nextrun", None)
    elif update.nextrun is not None:
        new["nextrun"] = update.nextrun
    return new


def _retried(new: Document, queue: Document, update: Update, now: Date) -> Document:
    """The item after it was asked to be tried once more: new again, or failed."""
    retries = whole(new.get("retries"), 0)
    most = whole(queue.get("maxretries"), 0) or DEFAULT_MAXRETRIES
    is_business = update.fields.get("errortype") == "business"
    if is_business or not (update.ignores_maxretries or retries + 1 < most):
        new["state"] = FAILED
        new.pop("nextrun", None)
        return new
    for name in ("userid", "username"):
        new.pop(name, None)
    return {
        **new,
        "state": NEW,
        "retries": retries + 1,
        "nextrun": update.nextrun or later(now, queue.get("retrydelay")),
    }


def whole(value: Any, default: int, low: int = 0) -> int:
    """A number out of a document that anybody may have written; ``default`` for what is none or absurd."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= MAX_DELAY_S:
        return default
    return int(value)


def later(now: Date, delay_s: Any) -> Date:
    """That many seconds after ``now``."""
    return Date(now.ms + 1000 * whole(delay_s, 0))


def _item(documents: Documents, caller: Caller, id: str) -> tuple[Document, Document]:  # noqa: A002
    """An item and its queue, which the caller may use."""
    item = documents.get(ITEMS, id) if id else None
    if item is None or item["_type"] != ITEM:
        raise NotFound(f"Work item with _id {id[:60]} not found.")
    wiq, wiqid = str(item.get("wiq") or ""), str(item.get("wiqid") or "")
    queue = find_queue(documents, "" if wiqid else wiq, wiqid)  # not another one that has the name by now
    is_known = queue is not None and caller.may(QUEUES, queue, Right.READ)
    if not is_known and not caller.may(ITEMS, item, Right.READ):
        raise NotFound(f"Work item with _id {id[:60]} not found.")
    if queue is None or not is_known:
        raise NotFound(f"Work item queue not found {wiq[:200]} ({wiqid[:60]}) not found.")
    if not caller.may(QUEUES, queue, USE):
        raise AccessDenied(DENIED)
    return item, queue


def _write(documents: Documents, caller: Caller, old: Document, new: Document) -> Document:
    new["_modified"], new["_modifiedby"], new["_modifiedbyid"] = Date.now(), caller.name, caller.id
    new["_version"] = whole(old.get("_version"), 0) + 1
    documents.replace(ITEMS, old, new)
    return new


# -- Chaining


def _vouch(documents: Documents, caller: Caller, old: Document, new: Document) -> None:
    """Check the queues that are named anew for copies, and note id and name of each that is there."""
    for word in CHAINS.values():
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
    queue = find_queue(documents, wiq, wiqid)
    if queue is not None:
        if not caller.may(QUEUES, queue, USE):
            raise AccessDenied(DENIED)
        return dict(zip(names, (queue["_id"], queue["name"]), strict=True))
    if wiqid and not caller.is_admin:  # an id counts as checked later on
        raise NotFound(f"Work item queue not found {wiq[:200]} ({wiqid[:60]}) not found.")
    return {name: value for name, value in zip(names, (wiqid, wiq), strict=True) if value}


def _target(documents: Documents, caller: Caller, named_in: Iterable[Document], word: str) -> Document | None:
    """The queue that gets a copy: the first of these documents that names one counts. ``None``: there is none."""
    for holder in named_in:
        wiqid, wiq = (str(holder.get(f"{word}_{name}") or "") for name in ("wiqid", "wiq"))
        if not wiqid and not wiq:
            continue
        if (checked := find_queue(documents, "", wiqid)) is not None:
            return checked
        queue = find_queue(documents, wiq, "")
        if queue is None:
            LOG.warning("a work item was not copied to the queue %s (%s): there is none", wiq, wiqid)
        elif not caller.may(QUEUES, queue, USE):
            raise AccessDenied(DENIED)
        return queue
    return None
