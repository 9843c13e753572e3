"""The files of work items: how they come and go inside messages, and their documents.

A file belongs to the item that its ``metadata.wi`` names. It is never shared: a copy of an item has copies of these.
"""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import zlib
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Self, TypeVar

from jupyter_agent.errors import AgentError, InvalidInput
from jupyter_agent.hub import files
from jupyter_agent.hub.callers import Caller, Document, security
from jupyter_agent.hub.data.documents import Date, new_id
from jupyter_agent.hub.data.store import Documents
from jupyter_agent.hub.files import Files
from jupyter_agent.hub.operations import Collection, Guard
from jupyter_agent.openflow.protocol import CHUNK
from jupyter_agent.openflow.rights import Right

T = TypeVar("T")
LOG = logging.getLogger(__name__)

MAX_FILES = 1000
"""Files of one item, and of one request."""

MAX_CONTENTS = 128 << 20
"""Bytes of the contents of one item's files, and of one request: what fits into a record together with a payload."""

MAX_NAME = 255
MAX_PATH = 1000
SLICE = 64 << 10


@dataclass(frozen=True)
class Given:
    """An entry of ``files`` as it came: ``data`` is empty where no content came along."""

    name: str
    id: str = ""
    data: bytes = field(default=b"", repr=False)
    is_compressed: bool = False

    @property
    def base(self) -> str:
        """The name without the folders."""
        return files.base_name(self.name)


@dataclass(frozen=True)
class Kept:
    """A content that is on disk and has no document yet."""

    id: str
    name: str
    length: int
    sha256: str

    @property
    def entry(self) -> Document:
        """How an item names it."""
        return {"name": self.name, "filename": files.base_name(self.name), "_id": self.id}


@dataclass(frozen=True)
class Plan:
    """What an update makes of an item's files: entries that stay, ids of files that go, contents that come."""

    stays: tuple[Document, ...]
    goes: tuple[str, ...]
    comes: tuple[Given, ...]


def check(given: Sequence[Given]) -> None:
    """Raise `InvalidInput` for names that are none, and for too many."""
    if len(given) > MAX_FILES:
        raise InvalidInput(f"{len(given)} files are too many: a work item can have {MAX_FILES}.")
    for file in given:
        name = PurePosixPath(file.name.replace("\\", "/")).name
        is_long = len(file.name) > MAX_PATH or len(name) > MAX_NAME
        if is_long or "\0" in file.name or name == ".." or not (name or file.id):
            raise InvalidInput(f"{file.name[:60]!r} cannot be the name of a work item's file.")


def planned(entries: Iterable[Document], given: Sequence[Given]) -> Plan:
    """An update of files: an id alone keeps a file, a content replaces those of its name, neither removes them.

    Files that are not mentioned stay. Raises `InvalidInput` for an id that the item does not have.
    """
    known = {entry["_id"]: entry for entry in entries}
    names = {entry.get("filename") for entry in known.values()}
    gone: set[Any] = set()
    for file in given:
        if file.data or not file.id:
            gone.add(file.base)
        elif file.id not in known and file.base not in names:
            raise InvalidInput(f"The work item has no file with the id {file.id[:60]}, and none called {file.base}.")
    stays = tuple(entry for entry in known.values() if entry.get("filename") not in gone)
    goes = tuple(id for id, entry in known.items() if entry.get("filename") in gone)  # noqa: A001 - what OpenFlow calls it
    comes = tuple(file for file in given if file.data)
    if len(stays) + len(comes) > MAX_FILES:
        raise InvalidInput(f"A work item can have {MAX_FILES} files.")
    return Plan(stays, goes, comes)


def entries_of(item: Document) -> Iterator[Document]:
    """The entries of an item's files; what clients wrote there that is none is left out."""
    entries = item.get("files")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("_id"), str):
            yield entry


def documents_of(documents: Documents, item: Document) -> Iterator[Document]:
    """The documents of the files that belong to an item; not of those that a client merely wrote into it."""
    for entry in entries_of(item):
        file = documents.get(files.COLLECTION, entry["_id"])
        if file is not None and file["metadata"].get("wi") == item["_id"]:
            yield file


def readable(documents: Documents, caller: Caller, item: Document) -> list[Document]:
    """The documents of an item's files that the caller of a pop gets: the item's own, and what they may read anyway."""
    own = {file["_id"]: file for file in documents_of(documents, item)}
    found = []
    for entry in entries_of(item):
        file = own.get(entry["_id"]) or documents.get(files.COLLECTION, entry["_id"])
        if file is not None and (entry["_id"] in own or caller.may(files.COLLECTION, file, Right.READ)):
            found.append(file)
    return found


def insert(documents: Documents, caller: Caller, item: Document, kept: Iterable[Kept]) -> None:
    """The documents of an item's new files; their rights are the item's."""
    for file in kept:
        base = files.base_name(file.name)
        metadata = {
            "_type": "unknown",
            "name": base,
            "filename": base,
            "path": str(PurePosixPath(file.name).parent),
            "uniquename": f"{file.id}-{base}",
            "wi": item["_id"],
            "wiq": item["wiq"],
            "wiqid": item["wiqid"],
        }
        document = {
            "_id": file.id,
            "filename": base,
            "length": file.length,
            "sha256": file.sha256,
            "contentType": mimetypes.guess_type(base)[0] or "application/octet-stream",
            "chunkSize": files.PIECE,
            "uploadDate": Date.now(),
            "metadata": metadata,
        }
        Collection(documents, caller, files.COLLECTION, guard=with_acl(files.COLLECTION, item["_acl"])).insert(document)


def remove(documents: Documents, item: Document, ids: Iterable[str] | None = None) -> None:
    """Remove files that belong to an item, all of them unless ``ids`` says which; contents follow the documents."""
    wanted = None if ids is None else set(ids)
    for file in list(documents_of(documents, item)):
        if wanted is None or file["_id"] in wanted:
            documents.delete(files.COLLECTION, file)


def with_acl(collection: str, acl: list[Document]) -> Guard:
    """A guard that gives what is inserted exactly these rights."""

    def guard(_documents: Documents, _caller: Caller, _old: Document | None, new: Document | None) -> None:
        if new is not None:
            security(collection, new)["_acl"] = [dict(entry) for entry in acl]

    return guard


class Contents:
    """Contents brought to the disk for one request; use it with ``async with``.

    When the request fails they are removed; what a crash leaves of them is removed at the next start.
    """

    def __init__(self, store: Files) -> None:
        self._files = store
        self._ids: list[str] = []
        self._room = MAX_CONTENTS
        self._is_handed_over = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (self._is_handed_over and isinstance(error, asyncio.CancelledError)):
            return
        await asyncio.shield(self._forget())

    async def keep(self, given: Iterable[Given]) -> tuple[Kept, ...]:
        """Keep the contents that came; raises `InvalidInput` when they are broken or too long."""
        return tuple([await self._keep(file.name, self._parts(file)) for file in given])

    async def copy(self, entries: Iterable[Document]) -> tuple[Kept, ...]:
        """Keep copies of stored files; one whose content is lost is left out."""
        kept = []
        for entry in entries:
            name = str(entry.get("name") or entry.get("filename") or entry["_id"])
            try:
                async with aclosing(self._files.send(entry["_id"])) as parts:
                    kept.append(await self._keep(name, parts))
            except AgentError as error:
                LOG.warning("the file %s of a work item is not copied: %s", entry["_id"], error)
        return tuple(kept)

    async def hand_over(self, writing: Awaitable[T]) -> T:
        """Wait for the write that gives them their documents: who is cancelled meanwhile does not undo it."""
        self._is_handed_over = True
        return await writing

    async def _forget(self) -> None:
        for id in self._ids:  # noqa: A001 - what OpenFlow calls it
            await self._files.forget(id)

    async def _keep(self, name: str, parts: AsyncIterator[bytes]) -> Kept:
        id = new_id()  # noqa: A001 - what OpenFlow calls it
        self._ids.append(id)
        content = await self._files.keep(id, parts)
        return Kept(id, name, content.length, content.sha256)

    async def _parts(self, file: Given) -> AsyncIterator[bytes]:
        for part in inflated(file) if file.is_compressed else _sliced(file.data, CHUNK):
            self._room -= len(part)
            if self._room < 0:
                raise InvalidInput(f"The files of a work item can have {MAX_CONTENTS >> 20} MiB together: upload them.")
            yield part


def inflated(file: Given) -> Iterator[bytes]:
    """The content of a compressed file, in parts, so that a little data cannot become much memory."""
    unpacking = zlib.decompressobj()
    try:
        for rest in _sliced(file.data, SLICE):
            while rest:
                part = unpacking.decompress(rest, CHUNK)
                rest = unpacking.unconsumed_tail  # noqa: PLW2901 - what of this piece is still to be unpacked
                if part:
                    yield part
        if part := unpacking.flush():
            yield part
    except zlib.error as error:
        raise _broken(file) from error
    if not unpacking.eof or unpacking.unused_data:
        raise _broken(file)


def _broken(file: Given) -> InvalidInput:
    return InvalidInput(f"The file {file.base} is said to be compressed, and is not what zlib's deflate makes.")


def _sliced(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def load(store: Files, document: Document, *, compressed: bool) -> bytes | None:
    """A file's content, compressed where that is wanted; ``None`` when it is lost."""
    packing = zlib.compressobj() if compressed else None
    try:
        async with aclosing(store.send(document["_id"])) as parts:
            content = [await asyncio.to_thread(packing.compress, part) if packing else part async for part in parts]
    except AgentError as error:
        LOG.warning("a work item is given out without the file %s: %s", document["_id"], error)
        return None
    content += [packing.flush()] if packing else []
    return await asyncio.to_thread(b"".join, content)
