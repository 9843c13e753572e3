"""The commands on collections and their indexes. All but the list are for admins."""

from __future__ import annotations

from jupyter_agent.errors import AccessDenied, InvalidInput
from jupyter_agent.hub.callers import Document
from jupyter_agent.hub.commands.call import Call, Command, off_loop
from jupyter_agent.hub.data.documents import parse, parse_object, wire
from jupyter_agent.hub.data.indexes import ID, Index, index_of
from jupyter_agent.hub.data.store import Documents
from jupyter_agent.hub.data.tables import HISTORY
from jupyter_agent.hub.operations import collection_name
from jupyter_agent.openflow.proto import openiap_pb2 as pb

RESERVED = frozenset({
    "users", "config", "mq", "workitems", "agents", "fs.files", "audit", "oauthtokens", "entities", "openrpa",
    "openrpa_instances", "forms", "workflow", "workflow_instances", "nodered",
})  # fmt: skip
"""Collections that OpenFlow itself uses; they cannot be dropped."""


async def list_collections(call: Call, request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
    """The names of collections, for everybody who is signed in, as on the real server."""
    names = await call.services.store.read(Documents.collections)
    shown = [_shown(name) for name in names if request.includehist or not name.endswith(HISTORY)]
    return pb.ListCollectionsResponse(results=wire(shown))


async def create_collection(call: Call, request: pb.CreateCollectionRequest) -> pb.CreateCollectionResponse:
    """Make an empty collection. ``changeStreamPreAndPostImages`` changes nothing: changes are told anyway."""
    name = _changeable(call, request.collectionname)
    for option in ("collation", "timeseries"):
        if request.HasField(option) and getattr(request, option).ListFields():
            raise _not_offered(option)
    for option in ("expireAfterSeconds", "capped", "max", "size"):
        if getattr(request, option):
            raise _not_offered(option)
    await call.services.store.write(lambda documents: documents.make_collection(name))
    return pb.CreateCollectionResponse()


async def drop_collection(call: Call, request: pb.DropCollectionRequest) -> pb.DropCollectionResponse:
    """Remove a collection with all that is in it. Its history stays until it is dropped itself."""
    _admins_only(call)
    name = collection_name(request.collectionname)
    if name in RESERVED:
        raise AccessDenied(f"Access denied: the collection {name} is needed by the hub and cannot be dropped.")
    await call.services.store.write(lambda documents: documents.drop_collection(name))
    return pb.DropCollectionResponse()


async def create_index(call: Call, request: pb.CreateIndexRequest) -> pb.CreateIndexResponse:
    """Make an index; its name."""
    name = _changeable(call, request.collectionname)
    text, options = request.index, request.options

    def prepared() -> Index:
        keys = parse(text, "index") if text.strip() else {}
        return index_of(keys, parse_object(options, "options"), request.name)

    index = await off_loop(text + options, prepared)
    await call.services.store.write(lambda documents: documents.make_index(name, index))
    return pb.CreateIndexResponse(result=index.name)


async def get_indexes(call: Call, request: pb.GetIndexesRequest) -> pb.GetIndexesResponse:
    """The indexes of a collection; one that is not there yet has the one on ``_id``."""
    _admins_only(call)
    name = collection_name(request.collectionname)

    def job(documents: Documents) -> list[Index]:
        return documents.indexes(name) if name in documents.collections() else [ID]

    found = await call.services.store.read(job)
    return pb.GetIndexesResponse(results=wire([index.shown() for index in found]))


async def drop_index(call: Call, request: pb.DropIndexRequest) -> pb.DropIndexResponse:
    """Remove an index."""
    name = _changeable(call, request.collectionname)
    await call.services.store.write(lambda documents: documents.drop_index(name, request.name))
    return pb.DropIndexResponse()


def _admins_only(call: Call) -> None:
    if not call.caller.is_admin:
        raise AccessDenied("Access denied: collections and indexes are the admins'.")


def _changeable(call: Call, given: str) -> str:
    _admins_only(call)
    name = collection_name(given)
    if name.endswith(HISTORY):
        raise AccessDenied(f"Access denied: {name} is a history, which the hub keeps as it is.")
    return name


def _not_offered(option: str) -> InvalidInput:
    return InvalidInput(f"The option {option} of a collection is not offered by this hub.")


def _shown(name: str) -> Document:
    return {
        "name": name,
        "type": "collection",
        "options": {},
        "info": {"readOnly": name.endswith(HISTORY)},
        "idIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_"},
    }


COMMANDS: dict[str, Command] = {
    "listcollections": list_collections,
    "createcollection": create_collection,
    "dropcollection": drop_collection,
    "createindex": create_index,
    "getindexes": get_indexes,
    "dropindex": drop_index,
}
