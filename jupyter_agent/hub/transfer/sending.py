"""Bringing an export into an OpenFlow, through the client: what its server lets one set, within its rate.

Files get new ids there, users and roles are those of the same name: in all documents the ids are put right. What is
found under its id is replaced, and a file that was brought over is known again, so it may be done once more where it
was broken off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import orjson

from jupyter_agent.errors import AccessDenied, InvalidInput, ServerRefused, TimedOut, Unavailable
from jupyter_agent.hub.data.moving import renamed
from jupyter_agent.hub.transfer.disk import Say, lines_of
from jupyter_agent.hub.transfer.layout import FILES, Part
from jupyter_agent.hub.transfer.opening import Content, Export
from jupyter_agent.openflow import rights
from jupyter_agent.openflow.client import Client, Credentials

T = TypeVar("T")
Document = dict[str, Any]

ATTEMPTS = 5
FIRST_S = 4
"""An address that nobody answers at is told after so long; a server that is only slow gets the time of `CONNECT_S`."""

CONNECT_S = 30
BATCH = 100
BATCH_BYTES = 4 << 20
MARK = "importedfrom"
"""What in a file's metadata names the id that it had."""

STAMPS = ("_created", "_createdby", "_createdbyid", "_modified", "_modifiedby", "_modifiedbyid", "_version")
FIRST = ("mq", "agents")
NOT_SENT = ("users", "fs.files")


@dataclass
class Sent:
    """What was brought over, by collection, and what was not; ``failed`` are sentences."""

    documents: Counter[str] = field(default_factory=Counter)
    files: int = 0
    known_files: int = 0
    users: list[str] = field(default_factory=list)
    missing_users: list[str] = field(default_factory=list)
    versions: int = 0
    indexes: int = 0
    failed: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "documents": dict(sorted(self.documents.items())),
            "files": self.files,
            "known_files": self.known_files,
            "users": self.users,
            "missing_users": self.missing_users,
            "versions_left_out": self.versions,
            "indexes": self.indexes,
            "failed": self.failed,
        }

    def sentence(self) -> str:
        """As text, with what a server sets itself and nobody else."""
        text = f"{sum(self.documents.values())} documents and {self.files} files were brought over"
        if self.known_files:
            text += f", {self.known_files} files had been before"
        text += ".\nNot brought over: who made and changed what and when, numbers of versions, passwords"
        text += f", {self.versions} old versions." if self.versions else "."
        if self.missing_users:
            text += f"\nNot there, so their rights count for nobody: {', '.join(self.missing_users)}."
        return text


async def send(export: Export, url: str, username: str, secret: str, *, say: Say) -> Sent:
    """Import into the OpenFlow at ``url``. ``secret`` is the password of ``username``, or without one a token.

    Raises the client's errors when it cannot be reached or does not take the credentials.
    """
    credentials = Credentials(username=username, password=secret) if username else Credentials(jwt=secret)
    async with Client(url, credentials, version="", kind="jupyter_agent") as client:
        try:
            user = await client.connected(FIRST_S)
        except TimedOut:
            user = await client.connected(CONNECT_S)
        sender = _Sender(client, export, say, is_admin=rights.ADMINS in user.principals)
        await sender.run()
        return sender.sent


class _Sender:
    def __init__(self, client: Client, export: Export, say: Say, *, is_admin: bool) -> None:
        self._client = client
        self._export = export
        self._say = say
        self._is_admin = is_admin
        self._ids: dict[str, str] = {}
        self.sent = Sent()

    async def run(self) -> None:
        """Users and roles first, as rights name them; then files, as packages and work items name those."""
        await self._users()
        await self._files()
        parts = [part for part in self._export.manifest.collections if part.collection not in NOT_SENT]
        for part in sorted(parts, key=lambda part: part.collection not in FIRST):
            if part.collection.endswith("_hist"):
                self.sent.versions += part.lines
                continue
            await self._collection(part)
            await self._indexes(part)

    async def _users(self) -> None:
        for document in self._documents("users"):
            kind = document.get("_type")
            name = str(document.get("username" if kind == "user" else "name"))
            if kind not in ("user", "role") or document["_id"] == rights.ROOT:
                continue
            wanted = {"_type": kind, "username" if kind == "user" else "name": name}
            found = await self._client.query("users", wanted, projection={"_id": 1}, top=2)
            if len(found) == 1:
                self.sent.users.append(f"{kind} {name}")
                self._ids[document["_id"]] = found[0]["_id"]
            else:
                self.sent.missing_users.append(f"{kind} {name}")

    async def _files(self) -> None:
        contents = self._export.contents()
        for count, document in enumerate(self._documents("fs.files"), start=1):
            content = next(contents, None)
            if content is None or content.id != document["_id"]:
                raise InvalidInput(f"The content of the file {document['_id']} is not where it should be.")
            try:
                self._ids[content.id] = await self._surely(partial(self._file, document, content))
            except (ServerRefused, AccessDenied) as error:
                self.sent.failed.append(f"file {document['filename']}: {error}")
            self._say(f"files: {count} of {self._export.manifest.files}")

    async def _file(self, document: Document, content: Content) -> str:
        wanted = {f"metadata.{MARK}": content.id, "length": content.bytes}
        if found := await self._client.query("fs.files", wanted, top=1):
            self.sent.known_files += 1
            return str(found[0]["_id"])
        metadata = {name: value for name, value in document["metadata"].items() if name not in (*STAMPS, "uploadid")}
        new = await self._client.upload(
            self._export.folder / FILES / content.id,
            filename=document["filename"],
            mimetype=str(document.get("contentType") or ""),
            metadata=renamed(metadata, self._id) | {MARK: content.id},
        )
        self.sent.files += 1
        return new

    async def _collection(self, part: Part) -> None:
        batch: list[Document] = []
        size = 0
        for document in self._documents(part.collection):
            text = orjson.dumps(document)
            if batch and (len(batch) == BATCH or size + len(text) > BATCH_BYTES):
                await self._batch(part.collection, batch)
                batch, size = [], 0
            kept = {name: value for name, value in document.items() if name not in STAMPS}
            batch.append(renamed(kept, self._id))
            size += len(text)
        if batch:
            await self._batch(part.collection, batch)

    async def _batch(self, collection: str, batch: list[Document]) -> None:
        """All at once; where one is refused, each by itself."""
        try:
            await self._surely(lambda: self._client.insert_or_update_many(collection, batch, skip_results=True))
            self.sent.documents[collection] += len(batch)
        except (ServerRefused, AccessDenied):
            for document in batch:
                await self._one(collection, document)
        self._say(f"{collection}: {self.sent.documents[collection]} documents")

    async def _one(self, collection: str, document: Document) -> None:
        try:
            await self._surely(lambda: self._client.insert_or_update_one(collection, document))
            self.sent.documents[collection] += 1
        except (ServerRefused, AccessDenied) as error:
            self.sent.failed.append(f"{collection} {document['_id']}: {error}")

    async def _indexes(self, part: Part) -> None:
        for index in part.indexes if self._is_admin else ():
            options = {name: value for name, value in index.items() if name not in ("v", "key", "name")}
            try:
                await self._client.create_index(part.collection, index["key"], options=options, name=index["name"])
                self.sent.indexes += 1
            except (ServerRefused, AccessDenied) as error:
                self.sent.failed.append(f"index {index.get('name')} of {part.collection}: {error}")

    async def _surely(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do what may be done twice, again where a connection was lost over it."""
        for attempt in range(ATTEMPTS):
            try:
                return await call()
            except Unavailable:
                if attempt == ATTEMPTS - 1:
                    raise
                await self._client.connected(CONNECT_S)
        raise AssertionError

    def _documents(self, collection: str) -> Iterator[Document]:
        part = self._export.manifest.part(collection)
        for _, line in lines_of(self._export.folder, part) if part else ():
            document: Document = orjson.loads(line)
            yield document

    def _id(self, text: str) -> str:
        return self._ids.get(text, text)
