"""What the hub does for each command of the protocol: a function for each, and a table of them at the end."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import cast

from google.protobuf.message import Message  # noqa: TID251 - what commands take and return

from jupyter_agent.errors import AccessDenied, InvalidInput, SignInFailed
from jupyter_agent.hub import custom, files, messaging
from jupyter_agent.hub.call import Call, Command, off_loop
from jupyter_agent.hub.callers import Caller, Document
from jupyter_agent.hub.connection import Connection
from jupyter_agent.hub.documents import new_id, parse, parse_object, wire
from jupyter_agent.hub.filters import Filter, compile_filter
from jupyter_agent.hub.operations import Collection, collection_name
from jupyter_agent.hub.results import Order, order_of, projection_of
from jupyter_agent.hub.services import Services
from jupyter_agent.hub.store import Documents
from jupyter_agent.hub.users import SHORT_S
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.proto.openiap_pb2 import Envelope

NOT_SIGNED_IN = "Not signed in, and missing jwt"
MAX_FILENAME = 1000


async def perform(services: Services, connection: Connection, envelope: Envelope, request: Message) -> Message:
    """Do what an envelope asks for; the message of the reply. Raises `AgentError` for the client to read."""
    name = envelope.command.lower()
    if name == "signin":
        return await sign_in(services, connection, envelope, cast("pb.SigninRequest", request))
    if name not in COMMANDS:
        raise InvalidInput(f"The command {name} is not offered by this hub.")
    caller = await caller_of(services, connection, envelope)
    reply: Message = await COMMANDS[name](Call(services, connection, caller, envelope.id), request)
    return reply


async def caller_of(services: Services, connection: Connection, envelope: Envelope) -> Caller:
    """Who makes a request: the owner of its token, else of the connection. Raises `AccessDenied` when nobody does."""
    if envelope.jwt:
        return await services.users.by_token(envelope.jwt)
    if connection.user is None:
        raise AccessDenied(NOT_SIGNED_IN)
    return await services.users.caller(connection.user)


async def sign_in(
    services: Services, connection: Connection, envelope: Envelope, request: pb.SigninRequest
) -> pb.SigninResponse:
    """Check credentials; unless only that is asked for, the connection is this user's from now on."""
    caller = await _credentials(services, connection, envelope, request)
    token = services.users.token(caller.id, long=request.longtoken)
    if not request.validateonly:
        kind, version = request.agent[:100], request.version[:100]
        connection.sign_in(caller.id, kind=kind, version=version, pings=request.ping, expires_s=time.time() + SHORT_S)
    return pb.SigninResponse(jwt=token, user=user_message(caller), config=services.config)


async def _credentials(
    services: Services, connection: Connection, envelope: Envelope, request: pb.SigninRequest
) -> Caller:
    if request.jwt:
        return await services.users.by_token(request.jwt)
    if request.username or request.password:
        return await services.users.by_password(request.username, request.password)
    if request.validateonly or envelope.jwt:
        return await caller_of(services, connection, envelope)
    raise SignInFailed("A sign-in needs a username and a password, or a jwt.")


def user_message(caller: Caller) -> pb.User:
    """A user as the protocol has them."""
    roles = [pb.Role(_id=role, name=name) for role, name in caller.roles]
    return pb.User(_id=caller.id, name=caller.name, username=caller.username, email=caller.email, roles=roles)


async def query(call: Call, request: pb.QueryRequest) -> pb.QueryResponse:
    """Find documents."""
    name = collection_name(request.collectionname)
    _refuse_extras(request)

    def prepared() -> tuple[Filter, Order, Document]:
        return _filter(request.query), _order(request.orderby), parse_object(request.projection, "projection")

    wanted, order, projection = await off_loop(request.query + request.projection, prepared)
    shown = projection_of(projection)

    def job(collection: Collection) -> str:
        return collection.query(wanted, order=order, skip=request.skip, top=request.top, projection=shown)

    return pb.QueryResponse(results=await call.read(name, job))


async def count(call: Call, request: pb.CountRequest) -> pb.CountResponse:
    """Count documents."""
    name = collection_name(request.collectionname)
    _refuse_extras(request)
    wanted = await off_loop(request.query, lambda: _filter(request.query))
    return pb.CountResponse(result=await call.read(name, lambda collection: collection.count(wanted)))


async def insert_one(call: Call, request: pb.InsertOneRequest) -> pb.InsertOneResponse:
    """Insert a document."""
    (document,) = await _insert(call, request.collectionname, [await _item(request.item)])
    return pb.InsertOneResponse(result=await off_loop(request.item, lambda: wire(document)))


async def insert_many(call: Call, request: pb.InsertManyRequest) -> pb.InsertManyResponse:
    """Insert documents: all of them, or none."""
    items = await off_loop(request.items, lambda: parse(request.items, "items", names=True))
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidInput("The items must be a JSON array of objects.")
    documents = await _insert(call, request.collectionname, items)
    text = "[]" if request.skipresults else await off_loop(request.items, lambda: wire(documents))
    return pb.InsertManyResponse(results=text)


async def update_one(call: Call, request: pb.UpdateOneRequest) -> pb.UpdateOneResponse:
    """Replace a document."""
    name = collection_name(request.collectionname)
    item = await _item(request.item)
    password = await _password(call, name, item)

    def job(collection: Collection) -> Document:
        return collection.with_password(collection.update_one(item), password)

    document = await call.write(name, job)
    return pb.UpdateOneResponse(result=await off_loop(request.item, lambda: wire(document)))


async def update_document(call: Call, request: pb.UpdateDocumentRequest) -> pb.UpdateDocumentResponse:
    """Change documents with operators."""
    name = collection_name(request.collectionname)
    wanted = await off_loop(request.query, lambda: _filter(request.query))
    update = await off_loop(request.document, lambda: parse_object(request.document, "document"))
    matched, modified = await call.write(name, lambda collection: collection.update_document(wanted, update))
    result = pb.UpdateResult(acknowledged=True, matchedCount=matched, modifiedCount=modified)
    return pb.UpdateDocumentResponse(opresult=result)


async def insert_or_update_one(call: Call, request: pb.InsertOrUpdateOneRequest) -> pb.InsertOrUpdateOneResponse:
    """Update the document that agrees in the fields named, or insert one."""
    name = collection_name(request.collectionname)
    item = await _item(request.item)
    password = await _password(call, name, item)

    def job(collection: Collection) -> Document:
        return collection.with_password(collection.insert_or_update(request.uniqeness, item), password)

    document = await call.write(name, job)
    return pb.InsertOrUpdateOneResponse(result=await off_loop(request.item, lambda: wire(document)))


async def delete_one(call: Call, request: pb.DeleteOneRequest) -> pb.DeleteOneResponse:
    """Delete a document by its id."""
    name = collection_name(request.collectionname)
    deleted = await call.write(name, lambda collection: collection.delete_one(request.id))
    return pb.DeleteOneResponse(affectedrows=deleted)


async def delete_many(call: Call, request: pb.DeleteManyRequest) -> pb.DeleteManyResponse:
    """Delete documents by their ids, or by a query."""
    name = collection_name(request.collectionname)
    if not request.ids and not request.query.strip():
        raise InvalidInput("deletemany needs a query or ids; the query {} means all.")
    wanted = compile_filter({"_id": {"$in": list(request.ids)}}) if request.ids else _filter(request.query)
    deleted = await call.write(name, lambda collection: collection.delete_many(wanted))
    return pb.DeleteManyResponse(affectedrows=deleted)


async def upload(call: Call, request: pb.UploadRequest) -> pb.UploadResponse:
    """Keep a file: its parts come in the stream of this request."""
    _check_bucket(request.collectionname)
    if not request.filename or len(request.filename) > MAX_FILENAME or "\0" in request.filename:
        raise InvalidInput(f"A file needs a filename of at most {MAX_FILENAME} characters.")
    metadata = parse_object(request.metadata, "metadata", names=True)
    id, store = new_id(), call.services.store  # noqa: A001 - what OpenFlow calls it
    length = await call.services.files.receive(id, call.connection.upload(call.id))
    item = {
        "_id": id,
        "filename": request.filename,
        "length": length,
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
    return pb.DownloadResponse(id=document["_id"], filename=document["filename"], mimetype=mimetype)


async def _insert(call: Call, collection: str, items: list[Document]) -> list[Document]:
    name = collection_name(collection)
    passwords = [await _password(call, name, item) for item in items]

    def job(opened: Collection) -> list[Document]:
        pairs = zip(items, passwords, strict=True)
        return [opened.with_password(opened.insert(item), password) for item, password in pairs]

    return await call.write(name, job)


async def _item(text: str) -> Document:
    if not text.strip():
        raise InvalidInput("The item is missing.")
    return await off_loop(text, lambda: parse_object(text, "item", names=True))


async def _password(call: Call, collection: str, item: Document) -> str | None:
    """The hash of the ``newpassword`` of a user that is to be written."""
    if collection != "users" or "newpassword" not in item or not call.caller.is_admin:
        return None
    return await call.services.users.hashed(item.pop("newpassword"))


def _filter(text: str) -> Filter:
    return compile_filter(parse_object(text, "query"))


def _order(text: str) -> Order:
    """A field's name as it is, or JSON."""
    return order_of(parse(text, "orderby") if text.lstrip().startswith(("{", '"')) else text.strip())


def _refuse_extras(request: pb.QueryRequest | pb.CountRequest) -> None:
    for name in ("queryas", "explain"):
        if getattr(request, name):
            raise InvalidInput(f"{name} is not offered by this hub.")


def _check_bucket(collection: str) -> None:
    if collection not in ("", "fs", "files", "fs.files"):
        raise InvalidInput(f"Files are kept in fs.files only, not in {collection}.")


COMMANDS: dict[str, Command] = {
    "query": query,
    "count": count,
    "insertone": insert_one,
    "insertmany": insert_many,
    "updateone": update_one,
    "updatedocument": update_document,
    "insertorupdateone": insert_or_update_one,
    "deleteone": delete_one,
    "deletemany": delete_many,
    "upload": upload,
    "download": download,
    "customcommand": custom.custom_command,
    **messaging.COMMANDS,
}
