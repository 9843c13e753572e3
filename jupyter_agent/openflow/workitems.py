"""Work items and their queues as values, and their form on the wire.

Knows the messages' fields and the server's odd readings of them; refuses to know when anything is sent.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from jupyter_agent.errors import ProtocolError
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import MAX_RECORD, decode_json, encode_json

FIRST_REAL = datetime(1971, 1, 1, tzinfo=UTC)
"""Times before this are none: the server fills in 1970 where it means nothing, or did not understand."""

CHAINING = ("success_wiq", "failed_wiq", "success_wiqid", "failed_wiqid")
"""Fields that are lost in both directions in messages: the server's decoder expects them in camel case.

They are set, and only there, by `Commands._chain` with ``updatedocument``.
"""


@dataclass(frozen=True)
class WorkitemFile:
    """A file of a work item: its base name, its id in ``fs.files`` once it is stored, its contents when they are here.

    In an update, a file with an id is kept as it is stored, one with contents alone is added or replaces the one of
    its name, and one with neither is removed.
    """

    name: str
    id: str = ""
    content: bytes | None = field(default=None, repr=False)

    def message(self) -> pb.WorkitemFile:
        """As it is sent: a file that is stored is named by its id alone, else it would be stored once more."""
        return pb.WorkitemFile(filename=self.name, _id=self.id, file=b"" if self.id else self.content or b"")


@dataclass(frozen=True)
class Workitem:
    """An item of a work item queue. A lower ``priority`` runs first; ``payload`` is always an object.

    ``state`` is new, processing, successful or failed; in an update it may also be retry, which is a request. The four
    fields of chaining are as they were given: the server sends none of them.
    """

    id: str = ""
    name: str = ""
    payload: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    priority: int = 2
    state: str = ""
    wiq: str = ""
    wiqid: str = ""
    nextrun: datetime | None = None
    lastrun: datetime | None = None
    retries: int = 0
    username: str = ""
    errormessage: str = ""
    errorsource: str = ""
    errortype: str = ""
    files: tuple[WorkitemFile, ...] = ()
    success_wiq: str = ""
    failed_wiq: str = ""
    success_wiqid: str = ""
    failed_wiqid: str = ""

    @property
    def chaining(self) -> dict[str, Any]:
        """The fields of chaining that are set."""
        return {name: value for name in CHAINING if (value := getattr(self, name))}

    def message(self) -> pb.Workitem:
        """As it is sent in an update, without files, which travel beside it."""
        message = pb.Workitem(
            _id=self.id,
            name=self.name,
            payload=encode_json(dict(self.payload)),
            priority=self.priority,
            state=self.state,
            wiq=self.wiq,
            wiqid=self.wiqid,
            errormessage=self.errormessage,
            errorsource=self.errorsource,
            errortype=self.errortype,
        )
        set_time(message.nextrun, self.nextrun)
        return message

    def new_message(self) -> pb.Workitem:
        """As it is sent in a push of many, with its files."""
        message = pb.Workitem(name=self.name, payload=encode_json(dict(self.payload)), priority=self.priority)
        message.files.extend(file.message() for file in self.files)
        set_time(message.nextrun, self.nextrun)
        return message


@dataclass(frozen=True)
class WorkitemQueue:
    """A work item queue. Names are unique; ``maxretries`` counts attempts, fewer than 1 become 3.

    ``amqpqueue`` with ``packageid`` means: the agent that consumes that queue is told of items that are due.
    """

    name: str
    id: str = ""
    maxretries: int = 3
    retrydelay_s: int = 0
    initialdelay_s: int = 0
    packageid: str = ""
    amqpqueue: str = ""
    robotqueue: str = ""
    workflowid: str = ""
    projectid: str = ""
    usersrole: str = ""
    success_wiq: str = ""
    failed_wiq: str = ""
    success_wiqid: str = ""
    failed_wiqid: str = ""
    acl: tuple[Mapping[str, Any], ...] = ()

    @property
    def chaining(self) -> dict[str, Any]:
        """The fields of chaining that are set."""
        return {name: value for name in CHAINING if (value := getattr(self, name))}

    def message(self) -> pb.WorkItemQueue:
        """As it is sent. An entry of ``acl`` has no name on the wire."""
        message = pb.WorkItemQueue(
            _id=self.id,
            name=self.name,
            maxretries=self.maxretries,
            retrydelay=self.retrydelay_s,
            initialdelay=self.initialdelay_s,
            packageid=self.packageid,
            amqpqueue=self.amqpqueue,
            robotqueue=self.robotqueue,
            workflowid=self.workflowid,
            projectid=self.projectid,
            usersrole=self.usersrole,
        )
        for entry in self.acl:
            message._acl.add(_id=entry["_id"], deny=bool(entry.get("deny")), rights=int(entry.get("rights", 0)))  # noqa: SLF001 - the field's name
        return message


def workitem_of(message: pb.Workitem) -> Workitem:
    """The item in a message. Raises `ProtocolError` for one that is none."""
    payload = decode_json(message.payload or "{}")
    return Workitem(
        id=message._id,  # noqa: SLF001 - the field's name
        name=message.name,
        payload=payload if isinstance(payload, dict) else {"value": payload},
        priority=message.priority,
        state=message.state,
        wiq=message.wiq,
        wiqid=message.wiqid,
        nextrun=time_of(message.nextrun),
        lastrun=time_of(message.lastrun),
        retries=message.retries,
        username=message.username,
        errormessage=message.errormessage,
        errorsource=message.errorsource,
        errortype=message.errortype,
        files=tuple(file_of(file) for file in message.files),
        **{name: getattr(message, name) for name in CHAINING},
    )


def queue_of(message: pb.WorkItemQueue) -> WorkitemQueue:
    """The work item queue in a message."""
    acl = tuple({"_id": ace._id, "deny": ace.deny, "rights": ace.rights} for ace in message._acl)  # noqa: SLF001 - names
    return WorkitemQueue(
        id=message._id,  # noqa: SLF001 - the field's name
        name=message.name,
        maxretries=message.maxretries,
        retrydelay_s=message.retrydelay,
        initialdelay_s=message.initialdelay,
        packageid=message.packageid,
        amqpqueue=message.amqpqueue,
        robotqueue=message.robotqueue,
        workflowid=message.workflowid,
        projectid=message.projectid,
        usersrole=message.usersrole,
        acl=acl,
        **{name: getattr(message, name) for name in CHAINING},
    )


def file_of(message: pb.WorkitemFile) -> WorkitemFile:
    """The file in a message, with its contents when they came along. Raises `ProtocolError` for broken ones."""
    content = inflated(message.file) if message.compressed and message.file else message.file
    return WorkitemFile(message.filename, message._id, content or None)  # noqa: SLF001 - the field's name


def inflated(data: bytes) -> bytes:
    """Contents that the server has compressed. Raises `ProtocolError`, also for more than a message could hold."""
    unpacking = zlib.decompressobj()
    try:
        content = unpacking.decompress(data, MAX_RECORD)
    except zlib.error as error:
        raise ProtocolError("OpenFlow sent a work item's file whose compression is broken.") from error
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise ProtocolError("OpenFlow sent a work item's file that is cut off or too long.")
    return content


def set_time(field: Any, when: datetime | None) -> None:  # the generated types know no WhichOneof for it
    """Put a time into a timestamp field, rounded to milliseconds, with one of them at least.

    A server takes a time whose fraction is zero for no date at all.
    """
    if when is None:
        return
    since = when.astimezone(UTC)
    field.seconds = int(since.timestamp() // 1)
    field.nanos = max(1, since.microsecond // 1000) * 1_000_000


def time_of(timestamp: Any) -> datetime | None:
    """The time in a timestamp field; ``None`` for none and for what a server did not mean."""
    if timestamp.seconds <= FIRST_REAL.timestamp():
        return None
    try:
        return datetime.fromtimestamp(timestamp.seconds, UTC).replace(microsecond=timestamp.nanos // 1000 % 1_000_000)
    except (ValueError, OverflowError, OSError):
        return None
