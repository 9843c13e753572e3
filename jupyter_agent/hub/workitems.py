"""Work items: what becomes of them, decided on values, and the jobs of the store that do it.

An item is a document of type ``workitem`` in ``workitems`` with the rights of its queue (`workitem_queues`). Who may
read and invoke the queue may push, pop and update its items. An item that was popped stays ``processing`` until
somebody updates it: as on the real server, nothing times out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jupyter_agent.errors import AccessDenied, Conflict, InvalidInput, NotFound
from jupyter_agent.hub import attachments
from jupyter_agent.hub.attachments import Given, Kept, Plan, with_acl
from jupyter_agent.hub.callers import Caller, Document
from jupyter_agent.hub.data.documents import Date, new_id
from jupyter_agent.hub.data.due import COLLECTION as ITEMS
from jupyter_agent.hub.data.due import DEFAULT_PRIORITY
from jupyter_agent.hub.data.store import Documents
from jupyter_agent.hub.operations import Collection
from jupyter_agent.hub.workitem_queues import DEFAULT_MAXRETRIES, DENIED, QUEUES, USE, find, target_of, vouch, whole
from jupyter_agent.openflow.rights import Right

ITEM = "workitem"
NEW, PROCESSING, SUCCESSFUL, FAILED, RETRY = "new", "processing", "successful", "failed", "retry"
STATES = (FAILED, SUCCESSFUL, PROCESSING, RETRY)
"""What an update may ask for."""

COPIED = {SUCCESSFUL: "success", FAILED: "failed"}
"""By state, what the names of the fields begin with that say where a copy goes."""


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
    vouch(documents, caller, {}, new)
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
    vouch(documents, caller, old, new)
    plan = attachments.planned(attachments.entries_of(old), update.files)
    target = None
    if new["state"] != old.get("state") and new["state"] in COPIED:
        target = target_of(documents, caller, (new, queue), COPIED[new["state"]])
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


def guard(documents: Documents, caller: Caller, old: Document | None, new: Document | None) -> None:
    """The rules of ``workitems`` for who edits it directly: nothing gets into a queue past the queue's rights."""
    if new is None:
        attachments.remove(documents, old or {})
        return
    if new["_type"] != ITEM:
        return
    before = old if old is not None and old["_type"] == ITEM else {}
    if new.get("wiqid") != before.get("wiqid") and not caller.is_admin:
        queue = find(documents, "", str(new.get("wiqid") or ""))
        if queue is None or not caller.may(QUEUES, queue, USE):
            raise AccessDenied(DENIED)
    vouch(documents, caller, before, new)


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


def later(now: Date, delay_s: Any) -> Date:
    """That many seconds after ``now``."""
    return Date(now.ms + 1000 * whole(delay_s, 0))


def _item(documents: Documents, caller: Caller, id: str) -> tuple[Document, Document]:  # noqa: A002
    """An item and its queue, which the caller may use."""
    item = documents.get(ITEMS, id) if id else None
    if item is None or item["_type"] != ITEM:
        raise NotFound(f"Work item with _id {id[:60]} not found.")
    wiq, wiqid = str(item.get("wiq") or ""), str(item.get("wiqid") or "")
    queue = find(documents, "" if wiqid else wiq, wiqid)  # not another one that has the name by now
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
