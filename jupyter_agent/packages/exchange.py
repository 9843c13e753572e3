"""The way of packages to OpenFlow and back: publishing a folder, fetching an archive.

Knows the documents of the collection ``agents`` and the order of steps that leaves nothing half-made
(openiap-protocol.md, section 14). Refuses to know what is in a package.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_agent.errors import AgentError, Conflict, Failed, InvalidInput, Unavailable
from jupyter_agent.home import Lock
from jupyter_agent.packages.entries import package_root
from jupyter_agent.packages.manifest import Manifest
from jupyter_agent.packages.packing import pack
from jupyter_agent.packages.unpacking import unpack
from jupyter_agent.waiting import holding, to_its_end

if TYPE_CHECKING:
    from jupyter_agent.openflow.client import Client  # packing alone (the CLI) needs no wire


AGENTS = "agents"
FILES = "fs.files"
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A package as OpenFlow has it now: the ids of its document and of its archive; ``document`` is the whole."""

    id: str
    fileid: str
    name: str
    version: str
    document: Mapping[str, Any]


async def publish(client: Client, folder: Path, *, who: str) -> Published:
    """Pack ``folder`` and make it the package of its name in OpenFlow; a version may be published again.

    ``who`` is recorded with the archive. The order is: document, archive, the document's pointer to it, removal of the
    archive before it; what fails or is cancelled in between is taken back. Raises ``InvalidInput`` for a faulty
    package, ``Conflict`` when several packages have its name, and the client's errors.
    """
    publication = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="jupyter-agent-") as scratch:
        manifest, archive = await to_its_end(lambda: (Manifest.read(folder), pack(folder, Path(scratch))))
        metadata = {
            "name": manifest.name,
            "version": manifest.version,
            "publication": publication,
            "publishedby": who,
        }
        found = await _document(client, manifest.name)
        document = found or await client.insert_one(AGENTS, {**_fields(manifest), "fileid": ""})
        try:
            fileid = await client.upload(archive, mimetype="application/gzip", metadata=metadata)
            updated = await _point(client, document, {**_fields(manifest), "fileid": fileid})
        except BaseException:
            with contextlib.suppress(AgentError):
                await _take_back(client, publication, document["_id"], inserted=found is None)
            raise
    await _remove_archive(client, str(document.get("fileid") or ""), keep=fileid)
    return Published(document["_id"], fileid, manifest.name, manifest.version, updated)


async def fetch(client: Client, document: Mapping[str, Any], packages: Path, *, jwt: str = "") -> Path:
    """The folder of the package's files, downloaded and unpacked below ``packages`` by file id unless it is there.

    ``document`` is the package's document in ``agents``; ``jwt`` whose rights count. Fetches of one archive wait for
    one another, also those of other processes; one that is killed leaves nothing that counts. Raises ``InvalidInput``
    for a package without an archive and for a broken one, and the client's errors.
    """
    fileid = _file_id(document)
    folder = packages / fileid
    if not folder.is_dir():
        packages.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a moment on the own disk
        async with holding(Lock(packages / f".{fileid}.lock", held=fileid)):
            if not folder.is_dir():
                await _download(client, fileid, folder, jwt=jwt)
    return package_root(folder)


def _fields(manifest: Manifest) -> dict[str, Any]:
    """What the manifest says, under the names of the document."""
    return {
        "_type": "package",
        "id": manifest.name,
        "name": manifest.name,
        "description": manifest.description,
        "version": manifest.version,
        "author": manifest.author,
        "language": manifest.language,
        "main": manifest.main or "",
        "daemon": manifest.daemon,
        "chrome": manifest.openiap.chrome,
        "chromium": manifest.openiap.chromium,
        "ports": [port.model_dump() for port in manifest.ports],
        "openiap": {**manifest.section, "language": manifest.language},
    }


async def _document(client: Client, name: str) -> dict[str, Any] | None:
    found = await client.query(AGENTS, {"_type": "package", "id": name}, top=2)
    if len(found) > 1:
        ids = " and ".join(str(document["_id"]) for document in found)
        raise Conflict(f"There are several packages with the id {name} ({ids}): remove all but one.")
    return found[0] if found else None


async def _point(client: Client, document: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Let the document point to the new archive.

    Fields whose names begin with ``_`` are left out: the server keeps them, also those changed in the meantime.
    """
    kept = {key: value for key, value in document.items() if not key.startswith("_")}
    try:
        return await client.update_one(AGENTS, {**kept, **fields, "_id": document["_id"]})
    except Unavailable:  # it is not known whether it was done
        now = await client.query(AGENTS, {"_id": document["_id"]}, top=1)
        if not now or now[0].get("fileid") != fields["fileid"]:
            raise
        return now[0]


async def _take_back(client: Client, publication: str, id: str, *, inserted: bool) -> None:  # noqa: A002 - its name
    """Remove what a publication left: archives nothing points to, and its document if that is new and empty.

    The archive is found by its metadata, as the answer with its id may be what was lost.
    """
    documents = await client.query(AGENTS, {"_id": id}, top=1)
    used = documents[0].get("fileid") if documents else None
    for file in await client.query(FILES, {"metadata.publication": publication}, top=10):
        if file["_id"] != used:
            await client.delete_one(FILES, file["_id"])
    if inserted and used == "":
        await client.delete_one(AGENTS, id)


async def _remove_archive(client: Client, fileid: str, *, keep: str) -> None:
    """Remove the archive that was replaced; the server would keep it for ever."""
    if fileid in ("", "local", keep):
        return
    try:
        await client.delete_one(FILES, fileid)
    except AgentError as error:
        LOG.warning("The replaced archive %s could not be removed: %s", fileid, error)


def _file_id(document: Mapping[str, Any]) -> str:
    name = document.get("name") or document.get("_id") or "the package"
    fileid = str(document.get("fileid") or "")
    if not fileid:
        raise InvalidInput(f"The package {name} has no archive in OpenFlow: publish it again.")
    if fileid == "local":
        raise InvalidInput(
            f"The package {name} is marked as local: its files are only on the agent it was made for; publish it."
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", fileid):
        raise InvalidInput(f"The package {name} has a file id that is none ({fileid[:80]!r}): publish it again.")
    return fileid


async def _download(client: Client, fileid: str, folder: Path, *, jwt: str) -> None:
    """Bring the archive here and unpack it; the lock is held."""
    for leftover in folder.parent.glob(f".{fileid}.*"):
        if leftover.is_dir():
            await to_its_end(partial(shutil.rmtree, leftover))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{fileid}.") as scratch:
        try:
            archive = await client.download(fileid, Path(scratch), jwt=jwt)
        except Failed as error:
            raise Failed(f"The package's archive could not be fetched: {error}") from error
        await to_its_end(lambda: unpack(archive, folder))
