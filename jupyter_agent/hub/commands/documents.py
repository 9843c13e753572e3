"""The commands on documents."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.callers import Document
from jupyter_agent.hub.commands.call import BIG_COPY, Call, Command, Reply, answer, off_loop
from jupyter_agent.hub.data.aggregates import compile_pipeline
from jupyter_agent.hub.data.documents import parse, parse_object, wire
from jupyter_agent.hub.data.filters import Filter, compile_text
from jupyter_agent.hub.data.results import Order, order_of, projection_of
from jupyter_agent.hub.data.updates import check_update
from jupyter_agent.hub.operations import ALL, Collection, check_number, collection_name
from jupyter_agent.openflow.proto import openiap_pb2 as pb

WRITTEN_AT_ONCE = 1000
"""Documents that are changed or deleted before others get their turn; about a tenth of a second."""

MAX_IDS = 100_000
"""Ids in one command that deletes."""


async def query(call: Call, request: pb.QueryRequest) -> Reply:
    """Find documents."""
    name = collection_name(request.collectionname)
    _refuse_extras(request)

    text, order_text, shown_text = request.query, request.orderby, request.projection

    def prepared() -> tuple[Filter, Order, Document]:
        return _filter(text), _order(order_text), parse_object(shown_text, "projection")

    wanted, order, projection = await off_loop(text + order_text + shown_text, prepared)
    shown = projection_of(projection)

    def job(collection: Collection) -> str:
        return collection.query(wanted, order=order, skip=request.skip, top=request.top, projection=shown)

    results = await call.read(name, job, queryas=request.queryas, is_short=wanted.id is not None)
    return await answer(len(results), lambda: pb.QueryResponse(results=results), big=BIG_COPY)


async def count(call: Call, request: pb.CountRequest) -> pb.CountResponse:
    """Count documents."""
    name = collection_name(request.collectionname)
    _refuse_extras(request)
    wanted = await off_loop(request.query, lambda: _filter(request.query))
    result = await call.read(name, lambda collection: collection.count(wanted), queryas=request.queryas)
    return pb.CountResponse(result=result)


async def aggregate(call: Call, request: pb.AggregateRequest) -> Reply:
    """Let documents pass through the stages of a pipeline. A ``hint`` is not needed: indexes are found."""
    name = collection_name(request.collectionname)
    _refuse_extras(request)
    text = request.aggregates
    pipeline = await off_loop(text, lambda: compile_pipeline(parse(text, "aggregates")))
    results = await call.read(name, lambda collection: collection.aggregate(pipeline), queryas=request.queryas)
    return await answer(len(results), lambda: pb.AggregateResponse(results=results), big=BIG_COPY)


async def distinct(call: Call, request: pb.DistinctRequest) -> pb.DistinctResponse:
    """Find the different values of a field."""
    name = collection_name(request.collectionname)
    _refuse_extras(request)
    if request.options.strip() not in ("", "{}"):
        raise InvalidInput("The options of distinct are not offered by this hub.")
    wanted = await off_loop(request.query, lambda: _filter(request.query))
    field, queryas = request.field, request.queryas

    def job(collection: Collection) -> pb.DistinctResponse:
        return pb.DistinctResponse(results=collection.distinct(field, wanted))

    return await call.read(name, job, queryas=queryas)


async def get_document_version(call: Call, request: pb.GetDocumentVersionRequest) -> Reply:
    """Read a document as it was. Nothing is encrypted here, so ``decrypt`` changes nothing."""
    name = collection_name(request.collectionname)
    result = await call.read(name, lambda collection: wire(collection.version(request.id, request.version)))
    return await answer(len(result), lambda: pb.GetDocumentVersionResponse(result=result), big=BIG_COPY)


async def insert_one(call: Call, request: pb.InsertOneRequest) -> Reply:
    """Insert a document."""
    text = request.item  # once: each time it is decoded anew
    (document,) = await _insert(call, request.collectionname, [await _item(text)])
    return await answer(len(text), lambda: pb.InsertOneResponse(result=wire(document)))


async def insert_many(call: Call, request: pb.InsertManyRequest) -> Reply:
    """Insert documents: all of them, or none."""
    text, skip = request.items, request.skipresults
    documents = await _insert(call, request.collectionname, await _items(text))
    return await answer(len(text), lambda: pb.InsertManyResponse(results=_results(documents, skip=skip)))


async def update_one(call: Call, request: pb.UpdateOneRequest) -> Reply:
    """Replace a document."""
    text = request.item
    document = await _put(call, request.collectionname, text, Collection.update_one)
    return await answer(len(text), lambda: pb.UpdateOneResponse(result=wire(document)))


async def update_document(call: Call, request: pb.UpdateDocumentRequest) -> pb.UpdateDocumentResponse:
    """Change documents with operators.

    Very many are changed in parts, so that others can write in between: where one cannot be changed as asked, what came
    before stays changed, as in MongoDB.
    """
    name = collection_name(request.collectionname)
    query, text = request.query, request.document
    wanted = await off_loop(query, lambda: _filter(query))
    update = await off_loop(text, lambda: _update(text))
    # Looked for by a reader: nobody can write while the writer looks through a big collection.
    ids = [wanted.id] if wanted.id else await call.read(name, lambda collection: collection.updatable(wanted))
    matched = modified = 0
    for begin in range(0, len(ids), WRITTEN_AT_ONCE):
        some = ids[begin : begin + WRITTEN_AT_ONCE]
        counts = await call.write(name, partial(Collection.update_document, wanted=wanted, update=update, ids=some))
        matched, modified = matched + counts[0], modified + counts[1]
    result = pb.UpdateResult(acknowledged=True, matchedCount=matched, modifiedCount=modified)
    return pb.UpdateDocumentResponse(opresult=result)


async def insert_or_update_one(call: Call, request: pb.InsertOrUpdateOneRequest) -> Reply:
    """Update the document that agrees in the fields named, or insert one."""
    text, fields = request.item, request.uniqeness
    document = await _put(
        call, request.collectionname, text, lambda collection, item: collection.insert_or_update(fields, item)
    )
    return await answer(len(text), lambda: pb.InsertOrUpdateOneResponse(result=wire(document)))


async def insert_or_update_many(call: Call, request: pb.InsertOrUpdateManyRequest) -> Reply:
    """The same for many: all of them, or none."""
    name = collection_name(request.collectionname)
    text, skip = request.items, request.skipresults
    items = await _items(text)
    passwords = [await _password(call, name, item) for item in items]

    def job(collection: Collection) -> list[Document]:
        written = collection.insert_or_update_many(request.uniqeness, items)
        return [collection.with_password(*pair) for pair in zip(written, passwords, strict=True)]

    documents = await call.write(name, job)
    return await answer(len(text), lambda: pb.InsertOrUpdateManyResponse(results=_results(documents, skip=skip)))


async def delete_one(call: Call, request: pb.DeleteOneRequest) -> pb.DeleteOneResponse:
    """Delete a document by its id. ``recursive`` is about customers and what is theirs, which a hub has not."""
    name = collection_name(request.collectionname)
    deleted = await call.write(name, lambda collection: collection.delete_one(request.id))
    return pb.DeleteOneResponse(affectedrows=deleted)


async def delete_many(call: Call, request: pb.DeleteManyRequest) -> pb.DeleteManyResponse:
    """Delete documents by their ids, or by a query.

    Very many are deleted in parts, so that others can write in between; each is there, or gone with its history kept.
    """
    name = collection_name(request.collectionname)
    if not request.ids and not request.query.strip():
        raise InvalidInput("deletemany needs a query or ids; the query {} means all.")
    if len(request.ids) > MAX_IDS:
        raise InvalidInput(f"{len(request.ids)} ids are too many for one command: send up to {MAX_IDS} at a time.")
    query = request.query
    wanted = ALL if request.ids else await off_loop(query, lambda: _filter(query))
    ids = list(request.ids) or await call.read(name, lambda collection: collection.deletable(wanted))
    deleted = 0
    for begin in range(0, len(ids), WRITTEN_AT_ONCE):
        some = ids[begin : begin + WRITTEN_AT_ONCE]
        deleted += await call.write(name, partial(Collection.delete_many, wanted=wanted, ids=some))
    return pb.DeleteManyResponse(affectedrows=deleted)


async def _insert(call: Call, collection: str, items: list[Document]) -> list[Document]:
    name = collection_name(collection)
    passwords = [await _password(call, name, item) for item in items]

    def job(opened: Collection) -> list[Document]:
        pairs = zip(opened.insert_many(items), passwords, strict=True)
        return [opened.with_password(*pair) for pair in pairs]

    return await call.write(name, job)


async def _put(call: Call, collection: str, text: str, put: Callable[[Collection, Document], Document]) -> Document:
    """Write the document in ``text`` with ``put``, a user's password with it; the document as it is then."""
    name = collection_name(collection)
    item = await _item(text)
    password = await _password(call, name, item)
    return await call.write(name, lambda opened: opened.with_password(put(opened, item), password))


async def _item(text: str) -> Document:
    if not text.strip():
        raise InvalidInput("The item is missing.")
    return await off_loop(text, lambda: parse_object(text, "item", names=True))


async def _items(text: str) -> list[Document]:
    items = await off_loop(text, lambda: parse(text, "items", names=True))
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidInput("The items must be a JSON array of objects.")
    check_number(items)
    return items


def _results(documents: list[Document], *, skip: bool) -> str:
    return "[]" if skip else wire(documents)


async def _password(call: Call, collection: str, item: Document) -> str | None:
    """The hash of the ``newpassword`` of a user that is to be written."""
    if collection != "users" or "newpassword" not in item or not call.caller.is_admin:
        return None
    return await call.services.users.hashed(item.pop("newpassword"))


def _update(text: str) -> Document:
    update = parse_object(text, "document")
    check_update(update)
    return update


def _filter(text: str) -> Filter:
    return compile_text(text)


def _order(text: str) -> Order:
    """A field's name as it is, or JSON."""
    return order_of(parse(text, "orderby") if text.lstrip().startswith(("{", '"')) else text.strip())


def _refuse_extras(request: pb.QueryRequest | pb.CountRequest | pb.AggregateRequest | pb.DistinctRequest) -> None:
    if request.explain:
        raise InvalidInput("explain is not offered by this hub.")


COMMANDS: dict[str, Command] = {
    "query": query,
    "count": count,
    "aggregate": aggregate,
    "distinct": distinct,
    "getdocumentversion": get_document_version,
    "insertone": insert_one,
    "insertmany": insert_many,
    "updateone": update_one,
    "updatedocument": update_document,
    "insertorupdateone": insert_or_update_one,
    "insertorupdatemany": insert_or_update_many,
    "deleteone": delete_one,
    "deletemany": delete_many,
}
