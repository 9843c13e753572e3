"""The commands on work item queues and work items: messages to values, and back.

Where the messages of the protocol cannot say whether a field was given, what is empty was not: a text ``""``, a number
0, a time at 0. The fields for copies (``success_wiq``, ``failed_wiq`` and their ids) count here, while a real server
loses them on the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from google.protobuf.message import Message  # noqa: TID251 - what commands take and return

from jupyter_agent.errors import Conflict, InvalidInput
from jupyter_agent.hub import attachments, workitem_queues, workitems
from jupyter_agent.hub.attachments import MAX_CONTENTS, Contents, Given
from jupyter_agent.hub.callers import Caller, Document
from jupyter_agent.hub.commands.call import BIG, Call, Command
from jupyter_agent.hub.data.documents import Date, parse, wire
from jupyter_agent.hub.data.due import DEFAULT_PRIORITY
from jupyter_agent.hub.data.store import Documents
from jupyter_agent.hub.workitem_queues import WORDS, whole
from jupyter_agent.hub.workitems import Changed, NewItem, Update
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import Right, mask

T = TypeVar("T")

MAX_ITEMS = 10_000
"""Items of one push."""

MAX_PAYLOADS = 64 << 20
"""Characters of the payloads of one push: they go back in the answer."""

MAX_NAME = 1000
BATCH = 500
"""Items that are deleted in one job of the writer, before others get their turn."""

ATTEMPTS = 20
MOMENTS = range(-62_135_596_800_000, 253_402_300_800_000)
"""The milliseconds of the years 1 to 9999, which can be written as dates."""

CHAINING = tuple(f"{word}_{name}" for word in WORDS for name in ("wiqid", "wiq"))
QUEUE_TEXTS = ("name", "workflowid", "robotqueue", "amqpqueue", "projectid", "packageid", *CHAINING)
QUEUE_NUMBERS = ("maxretries", "retrydelay", "initialdelay")
ITEM_TEXTS = ("name", "errormessage", "errorsource", "errortype", *CHAINING)


async def push_workitem(call: Call, request: pb.PushWorkitemRequest) -> pb.PushWorkitemResponse:
    """Put an item into a queue."""
    size = _size(request)
    item, given = await _apart(size, lambda: (_new_item(request, request), _given(request.files)))
    (pushed,) = await _push(call, request, [(item, given)])
    return pb.PushWorkitemResponse(workitem=pushed)


async def push_workitems(call: Call, request: pb.PushWorkitemsRequest) -> pb.PushWorkitemsResponse:
    """Put items into a queue: all of them, or none."""
    if len(request.items) > MAX_ITEMS or sum(len(item.payload) for item in request.items) > MAX_PAYLOADS:
        raise InvalidInput(
            f"One push can have {MAX_ITEMS} items with {MAX_PAYLOADS >> 20} MiB of payload: push them in parts."
        )
    size = sum(_size(item) for item in request.items)
    items = await _apart(size, lambda: [(_new_item(item, request), _given(item.files)) for item in request.items])
    attachments.check([file for _, given in items for file in given])
    return pb.PushWorkitemsResponse(workitems=await _push(call, request, items))


async def pop_workitem(call: Call, request: pb.PopWorkitemRequest) -> pb.PopWorkitemResponse:
    """Give out the item of a queue that is due next, or none."""

    def job(documents: Documents) -> tuple[pb.Workitem, list[Document]] | None:
        queue = workitem_queues.usable(documents, call.caller, request.wiq, request.wiqid)
        item = workitems.pop(documents, call.caller, queue, now=Date.now())
        if item is None:
            return None
        return item_message(item), attachments.readable(documents, call.caller, item) if request.includefiles else []

    popped = await call.services.store.write(job)
    if popped is None:
        return pb.PopWorkitemResponse()
    message, found = popped
    response = pb.PopWorkitemResponse(workitem=message)  # before there are contents in it, which would be copied
    await _load(call, response.workitem, found, compressed=request.compressed)
    return response


async def update_workitem(call: Call, request: pb.UpdateWorkitemRequest) -> pb.UpdateWorkitemResponse:
    """Say what became of an item."""
    if not request.HasField("workitem"):
        raise InvalidInput("The workitem is missing.")
    update = await _apart(_size(request.workitem) + BIG * len(request.files), lambda: _update(request))
    for _ in range(ATTEMPTS):
        with suppress(Changed):
            item = await _carry_out(call, request.workitem._id, update)  # noqa: SLF001 - the field's name
            return pb.UpdateWorkitemResponse(workitem=item)
    raise Conflict("Others keep changing this work item: try again.")


async def delete_workitem(call: Call, request: pb.DeleteWorkitemRequest) -> pb.DeleteWorkitemResponse:
    """Delete an item with its files."""
    id = request._id  # noqa: A001, SLF001 - the field's name
    await call.services.store.write(lambda documents: workitems.delete_item(documents, call.caller, id))
    return pb.DeleteWorkitemResponse()


async def add_queue(call: Call, request: pb.AddWorkItemQueueRequest) -> pb.AddWorkItemQueueResponse:
    """Make a queue."""

    def job(documents: Documents) -> pb.WorkItemQueue:
        fields = _queue_fields(documents, call.caller, request.workitemqueue)
        added = workitem_queues.add(documents, call.caller, fields, with_role=not request.skiprole)
        return queue_message(added)

    return pb.AddWorkItemQueueResponse(workitemqueue=await call.services.store.write(job))


async def update_queue(call: Call, request: pb.UpdateWorkItemQueueRequest) -> pb.UpdateWorkItemQueueResponse:
    """Change a queue, and with ``purge`` delete its items.

    A queue that was read before (it says who created it) is taken as a whole; of any other the fields that are given.
    """
    id, is_whole = request.workitemqueue._id, bool(request.workitemqueue._createdbyid)  # noqa: A001, SLF001 - names

    def job(documents: Documents) -> tuple[Document, bool]:
        fields = _queue_fields(documents, call.caller, request.workitemqueue, is_whole=is_whole)
        changed = workitem_queues.change(documents, call.caller, id, fields, with_role=not request.skiprole)
        return changed, not request.purge or workitem_queues.purge(documents, call.caller, changed["_id"], BATCH)

    changed, is_done = await call.services.store.write(job)
    queue = changed["_id"]
    while not is_done:
        is_done = await call.services.store.write(lambda each: workitem_queues.purge(each, call.caller, queue, BATCH))
    return pb.UpdateWorkItemQueueResponse(workitemqueue=queue_message(changed))


async def delete_queue(call: Call, request: pb.DeleteWorkItemQueueRequest) -> pb.DeleteWorkItemQueueResponse:
    """Delete a queue that is empty, or with ``purge`` one with its items."""

    def job(documents: Documents) -> bool:
        queue = workitem_queues.readable(documents, call.caller, request.wiq, request.wiqid)
        if request.purge and not workitem_queues.purge(documents, call.caller, queue["_id"], BATCH):
            return False
        workitem_queues.delete(documents, call.caller, queue)
        return True

    while not await call.services.store.write(job):
        pass
    return pb.DeleteWorkItemQueueResponse()


async def _push(call: Call, request: Any, items: Sequence[tuple[NewItem, Sequence[Given]]]) -> list[pb.Workitem]:
    """Contents first: an item never names a file that is not there."""
    for _, given in items:
        attachments.check(given)
        _check_contents(given)
    store, wiq, wiqid = call.services.store, request.wiq, request.wiqid
    if any(given for _, given in items):
        await store.read(lambda documents: workitem_queues.usable(documents, call.caller, wiq, wiqid))
    async with Contents(call.services.files) as contents:
        new = [(item, await contents.keep(given)) for item, given in items]

        def job(documents: Documents) -> list[pb.Workitem]:
            queue, now = workitem_queues.usable(documents, call.caller, wiq, wiqid), Date.now()
            pushed = [workitems.push(documents, call.caller, queue, item, kept, now=now) for item, kept in new]
            return [item_message(item) for item in pushed]

        return await contents.hand_over(store.write(job))


async def _carry_out(call: Call, id: str, update: Update) -> pb.Workitem:  # noqa: A002 - what OpenFlow calls it
    """Do an update; raises `Changed` when it has to be decided anew."""
    store, caller, now = call.services.store, call.caller, Date.now()
    step = await store.read(lambda documents: workitems.prepare(documents, caller, id, update, now=now))
    async with Contents(call.services.files) as contents:
        kept = await contents.keep(step.files.comes)
        entries = [*step.own_files, *(file.entry for file in kept)]
        copies = await contents.copy(entries) if step.target is not None else ()

        def job(documents: Documents) -> pb.Workitem:
            if workitems.prepare(documents, caller, id, update, now=now) != step:
                raise Changed
            return item_message(workitems.carry_out(documents, caller, step, kept, copies, now=now))

        return await contents.hand_over(store.write(job))


async def _load(call: Call, message: pb.Workitem, found: Iterable[Document], *, compressed: bool) -> None:
    """Put contents into a message, as many as fit; the others are there to be downloaded."""
    room, documents = MAX_CONTENTS, {document["_id"]: document for document in found}
    for file in message.files:
        document = documents.get(file._id)  # noqa: SLF001 - the field's name
        if document is None or document["length"] > room:
            continue
        content = await attachments.load(call.services.files, document, compressed=compressed)
        if content is not None:
            await asyncio.to_thread(setattr, file, "file", content)
            file.compressed = compressed
            room -= document["length"]


def item_message(item: Document) -> pb.Workitem:
    """An item as the protocol has it, without contents of files."""
    message = pb.Workitem(
        payload=wire(item.get("payload", {})),
        priority=whole(item.get("priority"), DEFAULT_PRIORITY, -(2**31)),
        retries=whole(item.get("retries"), 0),
    )
    _set_texts(message, item, ("_id", "state", "wiq", "wiqid", "username", *ITEM_TEXTS))
    _set_times(message, item, ("nextrun", "lastrun"))
    for entry in attachments.entries_of(item):
        message.files.add(filename=str(entry.get("filename") or ""), _id=entry["_id"])
    return message


def queue_message(queue: Document) -> pb.WorkItemQueue:
    """A queue as the protocol has it."""
    message = pb.WorkItemQueue(_version=whole(queue.get("_version"), 0))
    for name in QUEUE_NUMBERS:
        setattr(message, name, whole(queue.get(name), 0))
    stamps = ("_createdby", "_createdbyid", "_modifiedby", "_modifiedbyid")
    _set_texts(message, queue, ("_id", "usersrole", *stamps, *QUEUE_TEXTS))
    _set_times(message, queue, ("_created", "_modified"))
    for ace in queue["_acl"]:
        message._acl.add(_id=ace["_id"], deny=bool(ace.get("deny")), rights=mask(ace.get("rights")))  # noqa: SLF001 - the field's name
    return message


def _new_item(item: Any, request: Any) -> NewItem:
    """An item out of a push; what it leaves out, the request says for all."""
    return NewItem(
        name=_name(item.name),
        payload=_payload(item.payload) or {},
        priority=item.priority or request.priority or DEFAULT_PRIORITY,
        nextrun=_moment(item, "nextrun") or _moment(request, "nextrun"),
        chaining=_chaining(item, request, "success") | _chaining(item, request, "failed"),
    )


def _chaining(item: Any, request: Any, word: str) -> Document:
    """Where copies go: as the item says, or else the request."""
    for message in (item, request):
        if found := {name: value for name in (f"{word}_wiqid", f"{word}_wiq") if (value := getattr(message, name))}:
            return found
    return {}


def _update(request: pb.UpdateWorkitemRequest) -> Update:
    item = request.workitem
    fields = {name: value for name in ITEM_TEXTS if (value := getattr(item, name))}
    _name(item.name)
    if item.priority:
        fields["priority"] = item.priority
    if (payload := _payload(item.payload)) is not None:
        fields["payload"] = payload
    given = [*_given(item.files), *_given(request.files)]
    attachments.check(given)
    return Update(
        state=item.state.strip().lower(),
        fields=fields,
        nextrun=_moment(item, "nextrun"),
        ignores_maxretries=request.ignoremaxretries,
        files=tuple(given),
    )


def _name(name: str) -> str:
    if len(name) > MAX_NAME:
        raise InvalidInput(f"The name of a work item can have {MAX_NAME} characters, not {len(name)}.")
    return name


def _payload(text: str) -> Document | None:
    """Always an object; ``None`` for none."""
    value = parse(text, "payload", names=True) if text.strip() else None
    return value if value is None or isinstance(value, dict) else {"value": value}


def _moment(message: Any, name: str) -> Date | None:
    """The time in a field, ``None`` where none was given. Raises `InvalidInput` for what is no date."""
    if not message.HasField(name):
        return None
    time = getattr(message, name)
    ms = 1000 * time.seconds + time.nanos // 1_000_000
    if ms not in MOMENTS:
        raise InvalidInput(f"The {name} of a work item is no date between the years 1 and 9999.")
    return Date(ms) if time.seconds or time.nanos else None


def _given(entries: Iterable[pb.WorkitemFile]) -> list[Given]:
    return [Given(each.filename, each._id, each.file, each.compressed) for each in entries]  # noqa: SLF001 - the field's name


def _check_contents(given: Sequence[Given]) -> None:
    """In a push there is nothing that an id could stand for."""
    for file in given:
        if file.id and not file.data:
            raise InvalidInput(f"The file {file.base} has an id and no content: a new work item needs the content.")


def _queue_fields(
    documents: Documents, caller: Caller, message: pb.WorkItemQueue, *, is_whole: bool = False
) -> Document:
    names = (*QUEUE_TEXTS, *QUEUE_NUMBERS)
    fields = {name: value for name in names if (value := getattr(message, name)) or (is_whole and name != "name")}
    if message._acl:  # noqa: SLF001 - the field's name
        fields["_acl"] = [_ace(documents, caller, ace) for ace in message._acl]  # noqa: SLF001
    return fields


def _ace(documents: Documents, caller: Caller, ace: pb.Ace) -> Document:
    """An entry of an ``_acl``; messages leave its name out, and nobody learns one here that they may not read."""
    user = documents.get("users", ace._id)  # noqa: SLF001 - the field's name
    name = str(user.get("name", "")) if user is not None and caller.may("users", user, Right.READ) else ""
    made = {"_id": ace._id, "name": name, "rights": ace.rights}  # noqa: SLF001
    return {**made, "deny": True} if ace.deny else made


def _set_texts(message: Message, document: Document, names: Iterable[str]) -> None:
    for name in names:
        if isinstance(value := document.get(name), str):
            setattr(message, name, value)


def _set_times(message: Message, document: Document, names: Iterable[str]) -> None:
    for name in names:
        if isinstance(value := document.get(name), Date):
            time = getattr(message, name)
            time.seconds, time.nanos = value.ms // 1000, value.ms % 1000 * 1_000_000


def _size(item: Any) -> int:
    """About how much there is to be read of an item. Any file is worth a thread: its content has to be copied."""
    return 100 + len(item.payload) + BIG * len(item.files)


async def _apart(size: int, work: Callable[[], T]) -> T:
    """Do ``work`` on a message: at once, or in a thread when it is big."""
    return work() if size < BIG else await asyncio.to_thread(work)


COMMANDS: dict[str, Command] = {
    "pushworkitem": push_workitem,
    "pushworkitems": push_workitems,
    "popworkitem": pop_workitem,
    "updateworkitem": update_workitem,
    "deleteworkitem": delete_workitem,
    "addworkitemqueue": add_queue,
    "updateworkitemqueue": update_queue,
    "deleteworkitemqueue": delete_queue,
}
