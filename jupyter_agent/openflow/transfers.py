"""Files to OpenFlow and back, whole or not at all.

Knows what of a file's document proves that it is whole, and how a transfer that was cut is taken up again. Refuses to
know how parts travel and how files lie on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_agent.errors import AgentError, ConnectionLost, Failed, ProtocolError, ServerRefused, TransferLost
from jupyter_agent.openflow import files
from jupyter_agent.openflow.commands import Commands
from jupyter_agent.openflow.connection import Connection
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import encode_json, new_id

FILES = "fs.files"

STORED_PER_S = 1 << 20
"""Bytes; the slowest that a server may be in storing an upload that it has received."""

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class About:
    """What is known of a stored file; ``None`` for what is not, as when its document may not be read."""

    length: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Label:
    """What a file is called where it is stored."""

    filename: str
    mimetype: str
    metadata: dict[str, Any]

    def request(self, departure: files.Departure, upload_id: str) -> pb.UploadRequest:
        """The request that a file's contents follow; its hash and length go along in the metadata."""
        proof = {"sha256": departure.sha256, "length": departure.length, "uploadid": upload_id}
        return pb.UploadRequest(
            filename=self.filename.encode(errors="replace").decode(),  # a name need not be UTF-8
            mimetype=self.mimetype or "application/octet-stream",
            metadata=encode_json({**self.metadata, **proof}),
        )


class Transfers:
    """Uploads and downloads over the present connection of a client."""

    def __init__(
        self, *, commands: Commands, connection: Callable[[], Awaitable[Connection]], timeout_s: float
    ) -> None:
        self._commands = commands
        self._connection = connection
        self._timeout_s = timeout_s

    async def upload(self, path: Path, label: Label, *, upload_id: str, jwt: str) -> str:
        """Store a file; its id. See `Client.upload`."""
        departure = await asyncio.to_thread(files.Departure, path)
        try:
            await departure.measure()
            if upload_id and (stored := await self._stored(upload_id, departure, jwt)):
                return stored[0]
            made = await self._send(departure, label, upload_id or new_id(), jwt)
            if departure.has_changed():
                with contextlib.suppress(AgentError):
                    await self._commands.delete_one(FILES, made, jwt=jwt)
                raise Failed(f"{path} changed while it was being uploaded: try again when nobody writes to it.")
            if upload_id:
                await self._remove_twins(upload_id, departure, made, jwt)
        finally:
            await asyncio.to_thread(departure.close)
        return made

    async def download(
        self,
        id: str,  # noqa: A002 - the field's name
        folder: Path,
        *,
        collection: str,
        resume: bool,
        progress: Progress | None,
        jwt: str,
    ) -> Path:
        """Bring a file here; its path. See `Client.download`."""
        about = await self._about(collection or FILES, id, jwt)
        keep_as = f".download-{files.base_name(id, 'file')[:100]}.part" if resume else ""
        arrival = await asyncio.to_thread(files.Arrival, folder, keep_as=keep_as)
        try:
            request = pb.DownloadRequest(id=id, collectionname=collection)
            reply = await self._receive(request, arrival, about, progress, jwt)
            try:
                check(arrival, about, id)
            except Failed:
                await asyncio.to_thread(arrival.discard)
                raise
            name = files.base_name(reply.filename, fallback=files.base_name(id, "download"))
            return await asyncio.to_thread(arrival.land, name)
        finally:
            await asyncio.to_thread(arrival.leave)

    async def _send(self, departure: files.Departure, label: Label, upload_id: str, jwt: str) -> str:
        patience_s = self._timeout_s + departure.length / STORED_PER_S
        connection = await self._connection()
        try:
            request = label.request(departure, upload_id)
            reply = await connection.upload(request, departure.parts, patience_s=patience_s, jwt=jwt)
        except ConnectionLost as error:
            raise TransferLost(
                f"{error} Whether the file was stored is not known: upload it again with the same upload_id.",
                upload_id=upload_id,
            ) from error
        if not reply.id:
            raise ProtocolError("OpenFlow stored a file and did not say under which id.")
        return reply.id

    async def _receive(
        self, request: pb.DownloadRequest, arrival: files.Arrival, about: About, progress: Progress | None, jwt: str
    ) -> pb.DownloadResponse:
        async def take(data: bytes) -> None:
            await asyncio.to_thread(arrival.write, data)
            if progress is not None:
                progress(arrival.size, about.length)

        connection = await self._connection()
        try:
            return await connection.download(request, take, jwt=jwt)
        except ConnectionLost as error:
            if not arrival.keeps:
                raise
            raise TransferLost(
                f"{error} What has arrived of the file is kept: download it again to go on.",
                partial=arrival.path,
                done=arrival.size,
            ) from error

    async def _about(self, collection: str, id: str, jwt: str) -> About:  # noqa: A002 - the field's name
        """What the file's document says; its package may make it downloadable where that may not be read."""
        try:
            found = await self._commands.query(collection, {"_id": id}, top=1, jwt=jwt)
        except ServerRefused:
            return About()
        return about_of(found[0]) if found else About()

    async def _stored(self, upload_id: str, departure: files.Departure, jwt: str) -> list[str]:
        """The ids of what an upload stored whose answer was lost, the oldest first."""
        wanted = {"metadata.uploadid": upload_id, "metadata.sha256": departure.sha256}
        found = await self._commands.query(FILES, wanted, order_by={"uploadDate": 1}, top=10, jwt=jwt)
        return [document["_id"] for document in found if about_of(document).length == departure.length]

    async def _remove_twins(self, upload_id: str, departure: files.Departure, made: str, jwt: str) -> None:
        """Remove what an earlier attempt stored in the end: nobody was told its id."""
        for twin in await self._stored(upload_id, departure, jwt):
            if twin != made:
                with contextlib.suppress(AgentError):
                    await self._commands.delete_one(FILES, twin, jwt=jwt)


def about_of(document: dict[str, Any]) -> About:
    """What a file's document says that can be checked; anything odd in it is nothing."""
    length, metadata = document.get("length"), document.get("metadata")
    digest = metadata.get("sha256") if isinstance(metadata, dict) else None
    return About(
        length if isinstance(length, int) and not isinstance(length, bool) else None,
        digest.lower() if isinstance(digest, str) and re.fullmatch("[0-9a-fA-F]{64}", digest) else None,
    )


def check(arrival: files.Arrival, about: About, id: str) -> None:  # noqa: A002 - the field's name
    """Raise `Failed` unless what arrived is what was stored, as far as that is known."""
    if about.length is not None and arrival.size != about.length:
        raise Failed(f"The file {id} is {about.length} bytes long but {arrival.size} arrived: try again.")
    if about.sha256 is not None and arrival.sha256 != about.sha256:
        raise Failed(f"The file {id} is not what was uploaded (its sha256 differs): try again, or upload it anew.")
