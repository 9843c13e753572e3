"""The way of packages to OpenFlow, and out of it: publishing a folder, removing a package.

Knows the documents of the collection ``agents`` and the order of steps that leaves nothing half-made
(openiap-protocol.md, section 14). Refuses to know what is in a package.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_agent.errors import AccessDenied, AgentError, Conflict, Failed, Unavailable
from jupyter_agent.openflow.rights import ADMINS, ROOT, Right, allowed
from jupyter_agent.packages.archives import BOUNDS, Bounds
from jupyter_agent.packages.manifest import Manifest
from jupyter_agent.packages.packing import pack
from jupyter_agent.waiting import to_its_end

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


async def publish(client: Client, folder: Path, *, who: str, bounds: Bounds = BOUNDS) -> Published:
    """Pack ``folder`` and make it the package of its name in OpenFlow; a version may be published again.

    ``who`` is recorded with the archive. The order is: document, archive, the document's pointer to it, removal of the
    archive before it; what fails or is cancelled in between is taken back. Raises ``InvalidInput`` for a faulty
    package, ``Conflict`` when several packages have its name, and the client's errors.
    """
    publication = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="jupyter-agent-") as scratch:
        manifest, archive = await to_its_end(
            lambda: (Manifest.read(folder), pack(folder, Path(scratch), bounds=bounds))
        )
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
            document = await _again(client, document)  # as it is after what may have been a long upload
            updated = await _point(client, document, {**_fields(manifest), "fileid": fileid})
        except BaseException:
            with contextlib.suppress(AgentError):
                await _take_back(client, publication, document["_id"], inserted=found is None)
            raise
    await _remove_archive(client, str(document.get("fileid") or ""), keep=fileid)
    return Published(document["_id"], fileid, manifest.name, manifest.version, updated)


async def remove(client: Client, document: Mapping[str, Any]) -> None:
    """Remove a package and its archive from OpenFlow; ``document`` is the package's in ``agents``.

    The pointer goes first, as no server removes an archive that a document points to. Raises ``AccessDenied`` before
    anything is changed, and the client's errors. An archive that may not be removed is left, and logged.
    """
    id, fileid = str(document["_id"]), str(document.get("fileid") or "")  # noqa: A001 - its name
    name = document.get("name") or id
    if client.user is None or not _may_delete(document, client.user.principals):
        raise AccessDenied(f"The package {name} may not be removed: the right to delete it is needed.")
    if fileid:
        await client.update_one(AGENTS, {**_kept(document), "fileid": "", "_id": id})
    await _remove_archive(client, fileid, keep="")
    await client.delete_one(AGENTS, id)
    if await client.query(AGENTS, {"_id": id}, projection={"_id": 1}, top=1):  # servers say 1 whatever they did
        raise Failed(f"The package {name} is still there: OpenFlow did not remove it.")


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


async def _again(client: Client, document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as it is now: an update replaces it whole, and what others changed meanwhile would be lost."""
    found = await client.query(AGENTS, {"_id": document["_id"]}, top=1)
    if not found:
        raise Conflict(f"The package {document.get('name')} was removed while it was published: publish it again.")
    return found[0]


def _kept(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that an update has to repeat.

    Those whose names begin with ``_`` are left out: the server keeps them, also those changed in the meantime.
    """
    return {key: value for key, value in document.items() if not key.startswith("_") and key not in ("repo", "ref")}


def _may_delete(document: Mapping[str, Any], principals: Collection[str]) -> bool:
    return allowed(document.get("_acl"), principals, Right.DELETE) or not {ROOT, ADMINS}.isdisjoint(principals)


async def _point(client: Client, document: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Let the document point to the new archive.

    What it said of a git repository counts no more: it has files of its own now.
    """
    try:
        return await client.update_one(AGENTS, {**_kept(document), **fields, "_id": document["_id"]})
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
