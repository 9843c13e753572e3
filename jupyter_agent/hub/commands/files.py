"""The commands on files."""

from __future__ import annotations

from contextlib import aclosing

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub import files
from jupyter_agent.hub.callers import Document
from jupyter_agent.hub.commands.call import Call, Command, off_loop
from jupyter_agent.hub.data.documents import new_id, parse_object
from jupyter_agent.hub.data.store import Documents
from jupyter_agent.openflow.proto import openiap_pb2 as pb

MAX_FILENAME = 1000


async def upload(call: Call, request: pb.UploadRequest) -> pb.UploadResponse:
    """Keep a file: its parts come in the stream of this request."""
    _check_bucket(request.collectionname)
    if not request.filename or len(request.filename) > MAX_FILENAME or "\0" in request.filename:
        raise InvalidInput(f"A file needs a filename of at most {MAX_FILENAME} characters.")
    text = request.metadata
    metadata = await off_loop(text, lambda: parse_object(text, "metadata", names=True))
    id, store = new_id(), call.services.store  # noqa: A001 - what OpenFlow calls it
    content = await call.services.files.keep(id, call.connection.upload(call.id))
    item = {
        "_id": id,
        "filename": request.filename,
        "length": content.length,
        "sha256": content.sha256,
        "contentType": request.mimetype or "application/octet-stream",
        "metadata": metadata,
    }
    try:
        await store.write(lambda documents: files.insert(documents, call.caller, item))
    except Exception:  # not when cancelled: then the document is written all the same
        await call.services.files.forget(id)
        raise
    return pb.UploadResponse(id=id, filename=request.filename)


async def download(call: Call, request: pb.DownloadRequest) -> pb.DownloadResponse:
    """Send a file: its parts go in the stream of this request, before the reply."""
    _check_bucket(request.collectionname)

    def find(documents: Documents) -> Document:
        if request.id:
            return files.readable(documents, call.caller, request.id)
        return files.named(documents, call.caller, request.filename)

    document = await call.services.store.read(find)
    async with aclosing(call.services.files.send(document["_id"])) as parts:
        await call.connection.send_file(call.id, parts)
    mimetype = str(document.get("contentType", ""))
    name = files.base_name(document["filename"])
    return pb.DownloadResponse(id=document["_id"], filename=name, mimetype=mimetype)


def _check_bucket(collection: str) -> None:
    if collection not in ("", "fs", "files", "fs.files"):
        raise InvalidInput(f"Files are kept in fs.files only, not in {collection}.")


COMMANDS: dict[str, Command] = {
    "upload": upload,
    "download": download,
}
