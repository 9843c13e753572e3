"""Files: their contents in a folder, named by id, and their documents in ``fs.files``.

A content is complete and on disk before its document is, and goes after it: what has no document is an orphan of a
crash, removed at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from jupyter_agent.errors import AccessDenied, Conflict, InvalidInput, NotFound, Unavailable
from jupyter_agent.home import sync
from jupyter_agent.hub.callers import Caller, Document, checked_acl, granted
from jupyter_agent.hub.data.documents import Date
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.store import Change, Documents, Store
from jupyter_agent.hub.operations import Collection
from jupyter_agent.openflow import rights
from jupyter_agent.openflow.protocol import CHUNK
from jupyter_agent.openflow.rights import Right

T = TypeVar("T")

COLLECTION = "fs.files"
PIECE = 261_120
"""Bytes of a piece in GridFS; a fact about files that clients may look at, not how they are kept here."""

FIXED = ("length", "chunkSize", "uploadDate", "sha256")
"""What stands about a content, which never changes."""

ALL = compile_filter({})


@dataclass(frozen=True)
class Content:
    """A content that is kept: its length in bytes, and its hash in hexadecimal digits."""

    length: int
    sha256: str


class Files:
    """The contents of files. `prepare` before use, `close` after."""

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="files")
        store.follow(self._follow)

    async def prepare(self) -> None:
        """Make the folder, and remove what a crash left in it."""
        known = await self._store.read(_ids)
        await self._in_thread(_tidy, self._folder, known)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown()

    async def keep(self, id: str, parts: AsyncIterable[bytes]) -> Content:  # noqa: A002 - what OpenFlow calls it
        """Keep a content. Nothing is left where this fails.

        Raises `Unavailable` when the disk is full.
        """
        temporary, path = self._folder / f"{id}.part", self._folder / id
        try:
            file = await self._to_the_end(_create, temporary)
            hashed = hashlib.sha256()
            try:
                async for part in parts:
                    await self._to_the_end(_write, file, hashed, part)
            except BaseException:
                await self._in_thread(file.close)
                raise
            length = await self._to_the_end(_finish, file, temporary, path)
            return Content(length, hashed.hexdigest())
        except OSError as error:
            await self._in_thread(_remove, temporary, path)
            raise _unavailable(error, self._folder) from error
        except BaseException:
            await asyncio.shield(self._in_thread(_remove, temporary, path))
            raise

    async def send(self, id: str, *, start: int = 0) -> AsyncGenerator[bytes]:  # noqa: A002
        """The content of a file in parts, from the byte ``start`` on. Raises `NotFound` when it is lost."""
        try:
            file = await self._in_thread(_open, self._folder / id, start)
        except OSError as error:
            raise NotFound(f"The content of the file {id} is missing.") from error
        try:
            while part := await self._in_thread(file.read, CHUNK):
                yield part
        finally:
            file.close()

    async def forget(self, id: str) -> None:  # noqa: A002
        """Remove a content whose document was not written."""
        await self._in_thread(_remove, self._folder / id)

    def _follow(self, changes: list[Change]) -> None:
        for change in changes:
            if change.collection == COLLECTION and change.operation == "delete":
                self._threads.submit(_remove, self._folder / change.document["_id"])

    async def _to_the_end(self, function: Callable[..., T], *arguments: Any) -> T:
        """The same; who is cancelled meanwhile waits for the thread, which would go on behind what is undone."""
        working = asyncio.ensure_future(self._in_thread(function, *arguments))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait({working})
            raise

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def guard(documents: Documents, caller: Caller, old: Document | None, new: Document | None) -> None:
    """The rules of ``fs.files``: made by upload alone, never changed in content, not deleted while in use."""
    if old is None:
        raise InvalidInput("Files are made by upload.")
    if new is None:
        _check_unused(documents, caller, old)
        return
    if not isinstance(new.get("filename"), str):
        raise InvalidInput("A file's filename must be a text.")
    for name in FIXED:
        new.pop(name, None)
    new.update({name: old[name] for name in FIXED if name in old})


def insert(documents: Documents, caller: Caller, item: Document) -> Document:
    """The document of a file that was uploaded; ``item`` has ``_id``, filename, length, contentType and metadata.

    ``_acl`` in the metadata counts, and besides it the uploader and the *filestore admins* may do everything and the
    *filestore users* read, as on a server of one tenant. There everybody is one of these; here nobody is until an admin
    says so, so that what one user uploads is not open to all.
    """
    acl = checked_acl(item["metadata"].get("_acl") or [])
    acl = granted([*acl], rights.FILESTORE_ADMINS, "filestore admins", Right.FULL)
    acl = granted(acl, rights.FILESTORE_USERS, "filestore users", Right.READ)
    metadata = {"name": item["filename"], **item["metadata"], "_acl": acl}
    new = {**item, "chunkSize": PIECE, "uploadDate": Date.now(), "metadata": metadata}
    return Collection(documents, caller, COLLECTION).insert(new)


def readable(documents: Documents, caller: Caller, id: str) -> Document:  # noqa: A002
    """The document of a file whose content the caller may have: by itself, or as the archive of a package.

    Raises `AccessDenied`.
    """
    document = documents.get(COLLECTION, id)
    if document is not None and caller.may(COLLECTION, document, Right.READ):
        return document
    packages = documents.find("agents", compile_filter({"_type": "package", "fileid": {"$eq": id}}))
    if document is not None and any(caller.may("agents", package, Right.READ) for package in packages):
        return document
    raise AccessDenied(f"item {id} not found in {COLLECTION} or Access Denied")


def named(documents: Documents, caller: Caller, filename: str) -> Document:
    """The newest file of this name that the caller may read. Raises `AccessDenied`."""
    files = Collection(documents, caller, COLLECTION).readable(compile_filter({"filename": {"$eq": filename}}))
    newest = max(files, key=lambda document: document["uploadDate"].ms, default=None)
    if newest is None:
        raise AccessDenied(f"item {filename} not found in {COLLECTION} or Access Denied")
    return newest


def base_name(filename: str) -> str:
    """The last part of a name, for clients that make a path of what they are told."""
    name = PurePosixPath(filename.replace("\\", "/")).name
    return name if name not in ("", "..") else "file"


def share(documents: Documents, caller: Caller, id: str, acl: list[Document]) -> None:  # noqa: A002
    """Give a file these rights, where the caller may change it: who may only read a file does not get to share it."""
    file = documents.get(COLLECTION, id)
    if file is None or not caller.may(COLLECTION, file, Right.READ | Right.UPDATE):
        return
    changed = {**file, "metadata": {**file["metadata"], "_acl": acl}}
    Collection(documents, caller, COLLECTION, guard=guard).update_one(changed)


def user_of(documents: Documents, file: Document) -> Document | None:
    """A document that needs this file: an agent, a package or a work item; ``None`` when there is none."""
    fileid = file["_id"]
    user = next(documents.find("agents", compile_filter({"fileid": {"$eq": fileid}})), None)
    if user is not None:
        return user
    wanted = compile_filter({"files._id": {"$eq": fileid}})
    if isinstance(item := file.get("metadata", {}).get("wi"), str):  # a file of a work item names it: no need to search
        found = documents.get("workitems", item)
        return found if found is not None and wanted.matches(found) else None
    return next(documents.find("workitems", wanted, holding=fileid), None)


def _check_unused(documents: Documents, caller: Caller, file: Document) -> None:
    if (user := user_of(documents, file)) is None:
        return
    what = "one that you may not read"
    if caller.may("agents", user, Right.READ):  # or workitems: it is the same there
        what = f"{user.get('_type')} {user.get('name') or user['_id']}"
    raise Conflict(f"Cannot delete file, it is in use by an agent/workitem ({what}).")


def _ids(documents: Documents) -> set[str]:
    return {document["_id"] for document in documents.find(COLLECTION, ALL)}


def _tidy(folder: Path, known: set[str]) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in known:
            _remove(path)


def _create(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _write(file: IO[bytes], hashed: Any, part: bytes) -> None:
    hashed.update(part)
    file.write(part)


def _open(path: Path, start: int) -> IO[bytes]:
    file = path.open("rb")
    file.seek(start)
    return file


def _finish(file: IO[bytes], temporary: Path, path: Path) -> int:
    """Bring a content to the disk and give it its name."""
    with file:
        file.flush()
        os.fsync(file.fileno())
        length = file.tell()
    temporary.rename(path)
    sync(path.parent)
    return length


def _remove(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _unavailable(error: OSError, folder: Path) -> Unavailable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"The disk that holds {folder} is full: free some space and try again. Nothing was kept.")
    return Unavailable(f"The file could not be kept in {folder} ({error.strerror}).")
