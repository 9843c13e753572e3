"""The commands of OpenFlow as methods: one request, one reply.

Knows what each message takes and gives; refuses to know how it travels: whoever carries it (a kept connection, a single
HTTP request) gives `_request`. What needs events or streams is not here.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson
from google.protobuf.message import Message  # noqa: TID251 - what commands carry

from jupyter_agent.errors import Failed, NotFound, ProtocolError
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import decode_json, encode_json
from jupyter_agent.openflow.workitems import (
    CHAINING,
    Workitem,
    WorkitemFile,
    WorkitemQueue,
    queue_of,
    set_time,
    workitem_of,
)

M = TypeVar("M", bound=Message)
T = TypeVar("T")

OrderBy = Mapping[str, int] | str | None

WRITE: Mapping[str, Any] = {"w": 1, "j": True}
"""Writes are acknowledged when they are in the database's journal."""

PIECE = 1 << 18
"""Characters of JSON that are decoded at once: some milliseconds, in which no other thread of Python's runs."""

MANY = 10_000
"""Characters, fields or documents that make encoding something for a thread."""

PAGE = 500
"""Documents in one query of many; what a server gives when it is not told how many."""


@dataclass(frozen=True)
class UpdateResult:
    """What an update did; ``upserted_id`` is empty unless a document was made."""

    matched: int
    modified: int
    upserted_id: str


class Commands(ABC):
    """Each command as a method. With ``jwt``, that one request is made as the token's owner.

    Every one may raise `ServerRefused` with the server's own sentence, and `Unavailable` and its kinds.
    """

    @abstractmethod
    async def _request(self, command: str, message: Message, expected: type[M], *, jwt: str = "") -> M:
        """Send a request and return its reply."""

    async def _read(
        self, command: str, message: Message, expected: type[M], take: Callable[[M], T], *, jwt: str = ""
    ) -> T:
        """Send a request and return what ``take`` makes of its reply, which may be large."""
        return take(await self._request(command, message, expected, jwt=jwt))

    # Documents

    async def query(
        self,
        collection: str,
        query: dict[str, Any],
        *,
        projection: dict[str, Any] | None = None,
        order_by: OrderBy = None,
        top: int = 100,
        skip: int = 0,
        query_as: str = "",
        jwt: str = "",
    ) -> list[dict[str, Any]]:
        """The documents that match, ``top`` at most; those that may not be read are left out silently.

        ``query_as`` is the id of a user or role: what may be read by that one counts.
        """
        request = pb.QueryRequest(
            collectionname=collection,
            query=encode_json(query),
            projection=encode_json(projection) if projection else "",
            orderby=order_text(order_by),
            top=top,
            skip=skip,
            queryas=query_as,
        )
        return await self._read("query", request, pb.QueryResponse, results, jwt=jwt)

    async def query_all(
        self,
        collection: str,
        query: dict[str, Any],
        *,
        projection: dict[str, Any] | None = None,
        order_by: OrderBy = "_id",
        jwt: str = "",
    ) -> AsyncIterator[dict[str, Any]]:
        """All documents that match, page after page. ``order_by`` must tell any two apart, else some come twice."""
        skip = 0
        while True:
            page = await self.query(
                collection, query, projection=projection, order_by=order_by, top=PAGE, skip=skip, jwt=jwt
            )
            for found in page:
                yield found
            if len(page) < PAGE:
                return
            skip += PAGE

    async def aggregate(
        self, collection: str, stages: Sequence[dict[str, Any]], *, query_as: str = "", hint: str = "", jwt: str = ""
    ) -> list[dict[str, Any]]:
        """What comes out of a pipeline, whole."""
        request = pb.AggregateRequest(
            collectionname=collection, aggregates=encode_json(list(stages)), queryas=query_as, hint=hint
        )
        return await self._read("aggregate", request, pb.AggregateResponse, results, jwt=jwt)

    async def count(self, collection: str, query: dict[str, Any], *, query_as: str = "", jwt: str = "") -> int:
        """How many documents match and may be read."""
        request = pb.CountRequest(collectionname=collection, query=encode_json(query), queryas=query_as)
        return (await self._request("count", request, pb.CountResponse, jwt=jwt)).result

    async def distinct(
        self,
        collection: str,
        field: str,
        query: dict[str, Any] | None = None,
        *,
        options: dict[str, Any] | None = None,
        query_as: str = "",
        jwt: str = "",
    ) -> list[str]:
        """The values that a field has in the documents that match, as the server writes them: always text."""
        request = pb.DistinctRequest(
            collectionname=collection,
            field=field,
            query=encode_json(query or {}),
            queryas=query_as,
            options=encode_json(options) if options else "",
        )
        return list((await self._request("distinct", request, pb.DistinctResponse, jwt=jwt)).results)

    async def get_document_version(
        self,
        collection: str,
        id: str,  # noqa: A002 - the field's name
        version: int,
        *,
        decrypt: bool = False,
        jwt: str = "",
    ) -> dict[str, Any]:
        """A document as it was at a version, also one that was deleted. Raises `NotFound`."""
        request = pb.GetDocumentVersionRequest(collectionname=collection, id=id, version=version, decrypt=decrypt)
        reply = await self._request("getdocumentversion", request, pb.GetDocumentVersionResponse, jwt=jwt)
        if not reply.result or decode_json(reply.result) is None:
            raise NotFound(f"There is no version {version} of {id} in {collection}, or it may not be read.")
        return document(reply.result)

    async def insert_one(self, collection: str, item: dict[str, Any], *, jwt: str = "") -> dict[str, Any]:
        """Add a document; returns it with what the server added, its ``_id`` among it."""
        request = pb.InsertOneRequest(collectionname=collection, item=await json_of(item), **WRITE)
        return await self._read("insertone", request, pb.InsertOneResponse, result, jwt=jwt)

    async def insert_many(
        self, collection: str, items: Sequence[dict[str, Any]], *, skip_results: bool = False, jwt: str = ""
    ) -> list[dict[str, Any]]:
        """Add documents; returns them with what the server added, or nothing with ``skip_results``."""
        request = pb.InsertManyRequest(
            collectionname=collection, items=await json_of(list(items)), skipresults=skip_results, **WRITE
        )
        return await self._read("insertmany", request, pb.InsertManyResponse, results, jwt=jwt)

    async def update_one(self, collection: str, item: dict[str, Any], *, jwt: str = "") -> dict[str, Any]:
        """Replace the document of the item's ``_id``; returns it as it is now.

        Fields that begin with ``_`` are kept when they are left out, all others are not. The last writer wins: compare
        ``_version``, or use `update_document` with it in the query, where that matters.
        """
        request = pb.UpdateOneRequest(collectionname=collection, item=await json_of(item), **WRITE)
        return await self._read("updateone", request, pb.UpdateOneResponse, result, jwt=jwt)

    async def update_document(
        self, collection: str, query: dict[str, Any], document: dict[str, Any], *, jwt: str = ""
    ) -> UpdateResult:
        """Apply operators such as ``$set`` to all documents that match; raises no version and writes no history."""
        request = pb.UpdateDocumentRequest(
            collectionname=collection, query=encode_json(query), document=encode_json(document), **WRITE
        )
        done = (await self._request("updatedocument", request, pb.UpdateDocumentResponse, jwt=jwt)).opresult
        return UpdateResult(done.matchedCount, done.modifiedCount, done.upsertedId)

    async def insert_or_update_one(
        self, collection: str, item: dict[str, Any], *, uniqueness: str = "", jwt: str = ""
    ) -> dict[str, Any]:
        """Replace the document that has the item's values in these fields, or add it; returns it.

        ``uniqueness`` holds names with commas between them; none: ``_id``. Several such documents are an error.
        """
        request = pb.InsertOrUpdateOneRequest(
            collectionname=collection, uniqeness=uniqueness, item=await json_of(item), **WRITE
        )
        return await self._read("insertorupdateone", request, pb.InsertOrUpdateOneResponse, result, jwt=jwt)

    async def insert_or_update_many(
        self,
        collection: str,
        items: Sequence[dict[str, Any]],
        *,
        uniqueness: str = "",
        skip_results: bool = False,
        jwt: str = "",
    ) -> list[dict[str, Any]]:
        """`insert_or_update_one` for each item; returns them, or nothing with ``skip_results``."""
        request = pb.InsertOrUpdateManyRequest(
            collectionname=collection,
            uniqeness=uniqueness,
            items=await json_of(list(items)),
            skipresults=skip_results,
            **WRITE,
        )
        return await self._read("insertorupdatemany", request, pb.InsertOrUpdateManyResponse, results, jwt=jwt)

    async def delete_one(
        self,
        collection: str,
        id: str,  # noqa: A002 - the field's name
        *,
        recursive: bool = False,
        jwt: str = "",
    ) -> int:
        """Delete a document. The server says 1 even when there was none in most collections: query to be sure."""
        request = pb.DeleteOneRequest(collectionname=collection, id=id, recursive=recursive)
        return (await self._request("deleteone", request, pb.DeleteOneResponse, jwt=jwt)).affectedrows

    async def delete_many(
        self,
        collection: str,
        query: dict[str, Any] | None = None,
        *,
        ids: Sequence[str] = (),
        recursive: bool = False,
        jwt: str = "",
    ) -> int:
        """Delete the documents that match, or those with these ids; how many there were."""
        request = pb.DeleteManyRequest(
            collectionname=collection,
            query="" if query is None else encode_json(query),
            ids=ids,
            recursive=recursive,
        )
        return (await self._request("deletemany", request, pb.DeleteManyResponse, jwt=jwt)).affectedrows

    # Collections and indexes; all but the list are for admins

    async def list_collections(self, *, include_history: bool = False, jwt: str = "") -> list[dict[str, Any]]:
        """The collections, each as an object with ``name`` and ``type`` among others."""
        request = pb.ListCollectionsRequest(includehist=include_history)
        return documents((await self._request("listcollections", request, pb.ListCollectionsResponse, jwt=jwt)).results)

    async def create_collection(
        self,
        collection: str,
        *,
        time_field: str = "",
        meta_field: str = "",
        granularity: str = "",
        expire_after_s: int = 0,
        images: bool = False,
        jwt: str = "",
    ) -> None:
        """Make a collection; with ``time_field``, a time series. ``images`` keeps what change streams need of the past.

        With ``expire_after_s`` its documents are removed that long after their time.
        """
        request = pb.CreateCollectionRequest(
            collectionname=collection, expireAfterSeconds=expire_after_s, changeStreamPreAndPostImages=images
        )
        if time_field:
            request.timeseries.timeField = time_field
            request.timeseries.metaField = meta_field
            request.timeseries.granularity = granularity
        await self._request("createcollection", request, pb.CreateCollectionResponse, jwt=jwt)

    async def drop_collection(self, collection: str, *, jwt: str = "") -> None:
        """Remove a collection with all that is in it."""
        request = pb.DropCollectionRequest(collectionname=collection)
        await self._request("dropcollection", request, pb.DropCollectionResponse, jwt=jwt)

    async def create_index(
        self,
        collection: str,
        index: Mapping[str, Any],
        *,
        name: str = "",
        options: Mapping[str, Any] | None = None,
        jwt: str = "",
    ) -> str:
        """Make an index, such as ``{"name": 1}`` with the option ``{"unique": true}``; its name."""
        request = pb.CreateIndexRequest(
            collectionname=collection,
            index=encode_json(dict(index)),
            options=encode_json(dict(options)) if options else "",
            name=name,
        )
        return (await self._request("createindex", request, pb.CreateIndexResponse, jwt=jwt)).result

    async def get_indexes(self, collection: str, *, jwt: str = "") -> list[dict[str, Any]]:
        """The indexes of a collection."""
        request = pb.GetIndexesRequest(collectionname=collection)
        return documents((await self._request("getindexes", request, pb.GetIndexesResponse, jwt=jwt)).results)

    async def drop_index(self, collection: str, name: str, *, jwt: str = "") -> None:
        """Remove an index."""
        request = pb.DropIndexRequest(collectionname=collection, name=name)
        await self._request("dropindex", request, pb.DropIndexResponse, jwt=jwt)

    # Work items

    async def push_workitem(self, queue: str, item: Workitem, *, wiqid: str = "", jwt: str = "") -> Workitem:
        """Add an item to a work item queue, named by name or by ``wiqid``; returns it as it was stored.

        Without ``nextrun`` it is due after the queue's initial delay. The reply says nothing of that which is true.
        """
        request = pb.PushWorkitemRequest(
            wiq=queue,
            wiqid=wiqid,
            name=item.name,
            payload=encode_json(dict(item.payload)),
            priority=item.priority,
            files=[file.message() for file in item.files],
        )
        set_time(request.nextrun, item.nextrun)
        reply = await self._request("pushworkitem", request, pb.PushWorkitemResponse, jwt=jwt)
        return await self._chain_item(replace(workitem_of(reply.workitem), nextrun=item.nextrun), item, jwt=jwt)

    async def push_workitems(
        self, queue: str, items: Sequence[Workitem], *, wiqid: str = "", jwt: str = ""
    ) -> list[Workitem]:
        """Add items to a work item queue; returns them as they were stored."""
        request = pb.PushWorkitemsRequest(wiq=queue, wiqid=wiqid, items=[item.new_message() for item in items])
        if len({item.priority for item in items}) == 1:
            request.priority = items[0].priority
        reply = await self._request("pushworkitems", request, pb.PushWorkitemsResponse, jwt=jwt)
        stored = [workitem_of(message) for message in reply.workitems]
        if any(item.chaining for item in items) and len(stored) != len(items):
            raise ProtocolError("OpenFlow took work items and did not say which: where they lead to was not set.")
        return [
            await self._chain_item(replace(made, nextrun=item.nextrun), item, jwt=jwt)
            for made, item in zip(stored, items, strict=False)
        ]

    async def pop_workitem(
        self, queue: str, *, wiqid: str = "", include_files: bool = False, jwt: str = ""
    ) -> Workitem | None:
        """Take the next item that is due and of the lowest priority; ``None`` when there is none.

        It stays ``processing`` for ever if nobody updates it: remember its id on disk before working on it.
        """
        request = pb.PopWorkitemRequest(wiq=queue, wiqid=wiqid, includefiles=include_files, compressed=include_files)
        reply = await self._request("popworkitem", request, pb.PopWorkitemResponse, jwt=jwt)
        return workitem_of(reply.workitem) if reply.HasField("workitem") and reply.workitem._id else None  # noqa: SLF001 - the field's name

    async def update_workitem(
        self,
        item: Workitem,
        *,
        files: Sequence[WorkitemFile] | None = None,
        ignore_maxretries: bool = False,
        jwt: str = "",
    ) -> Workitem:
        """Change an item: its state to ``successful``, ``failed`` or ``retry``, its payload, its files.

        ``files`` are those to add, keep or remove (see `WorkitemFile`); ``None``: those of the item. Where it leads to
        is set first, as the server follows that when the state is set.
        """
        await self._chain("workitems", item.id, item.chaining, jwt=jwt)
        request = pb.UpdateWorkitemRequest(
            workitem=item.message(),
            ignoremaxretries=ignore_maxretries,
            files=[file.message() for file in (item.files if files is None else files)],
        )
        reply = await self._request("updateworkitem", request, pb.UpdateWorkitemResponse, jwt=jwt)
        return replace(workitem_of(reply.workitem), **item.chaining)

    async def delete_workitem(self, id: str, *, jwt: str = "") -> None:  # noqa: A002 - the field's name
        """Delete an item and its files."""
        await self._request("deleteworkitem", pb.DeleteWorkitemRequest(_id=id), pb.DeleteWorkitemResponse, jwt=jwt)

    async def add_workitem_queue(
        self, queue: WorkitemQueue, *, skip_role: bool = False, jwt: str = ""
    ) -> WorkitemQueue:
        """Make a work item queue; with a role of its users, which takes a second, unless ``skip_role``."""
        request = pb.AddWorkItemQueueRequest(workitemqueue=queue.message(), skiprole=skip_role)
        reply = await self._request("addworkitemqueue", request, pb.AddWorkItemQueueResponse, jwt=jwt)
        made = queue_of(reply.workitemqueue)
        await self._chain("mq", made.id, queue.chaining, jwt=jwt)
        return replace(made, **queue.chaining)

    async def update_workitem_queue(
        self, queue: WorkitemQueue, *, skip_role: bool = False, purge: bool = False, jwt: str = ""
    ) -> WorkitemQueue:
        """Change the work item queue of this id; ``purge`` deletes its items.

        Where it leads to stays as it is for those of these fields that are empty, which the server would overwrite.
        """
        stored = await self.query("mq", {"_id": queue.id}, top=1, jwt=jwt)
        chaining = {name: found for name in CHAINING if (found := stored and stored[0].get(name))} | queue.chaining
        request = pb.UpdateWorkItemQueueRequest(workitemqueue=queue.message(), skiprole=skip_role, purge=purge)
        reply = await self._request("updateworkitemqueue", request, pb.UpdateWorkItemQueueResponse, jwt=jwt)
        made = queue_of(reply.workitemqueue)
        await self._chain("mq", made.id or queue.id, chaining, jwt=jwt)
        return replace(made, **chaining)

    async def delete_workitem_queue(self, queue: str, *, wiqid: str = "", purge: bool = False, jwt: str = "") -> None:
        """Delete a work item queue, which must be empty unless ``purge``."""
        request = pb.DeleteWorkItemQueueRequest(wiq=queue, wiqid=wiqid, purge=purge)
        await self._request("deleteworkitemqueue", request, pb.DeleteWorkItemQueueResponse, jwt=jwt)

    async def _chain_item(self, made: Workitem, wanted: Workitem, *, jwt: str) -> Workitem:
        await self._chain("workitems", made.id, wanted.chaining, jwt=jwt)
        return replace(made, **wanted.chaining)

    async def _chain(self, collection: str, id: str, fields: Mapping[str, str], *, jwt: str) -> None:  # noqa: A002
        """Say where an item leads to; the one place for it, as messages lose these fields (`workitems.CHAINING`)."""
        if not fields:
            return
        done = await self.update_document(collection, {"_id": id}, {"$set": dict(fields)}, jwt=jwt)
        if not done.matched:
            raise Failed(f"{' and '.join(fields)} could not be set on {id}: the right to update it is needed.")

    # Agents, packages, workflows, and all else

    async def custom_command(
        self,
        command: str,
        *,
        id: str = "",  # noqa: A002 - the field's name
        name: str = "",
        data: Any = None,
        jwt: str = "",
    ) -> Any:
        """The result of a command of the server's, parsed; empty text when it has none or there is no such command."""
        request = pb.CustomCommandRequest(
            command=command, id=id, name=name, data="" if data is None else encode_json(data)
        )
        return value((await self._request("customcommand", request, pb.CustomCommandResponse, jwt=jwt)).result)

    async def delete_package(self, id: str, *, jwt: str = "") -> None:  # noqa: A002 - the field's name
        """Remove a package and its archive, by the steps that work. Raises `NotFound`.

        Never by the command ``deletepackage``: servers take another package than the one named by it.
        """
        found = await self.query("agents", {"_id": id, "_type": "package"}, top=1, jwt=jwt)
        if not found:
            raise NotFound(f"There is no package with the id {id} on OpenFlow, or it may not be read.")
        if fileid := str(found[0].get("fileid") or ""):
            await self.update_one("agents", {**found[0], "fileid": ""}, jwt=jwt)
            if fileid != "local":
                await self.delete_one("fs.files", fileid, jwt=jwt)
        await self.delete_one("agents", id, jwt=jwt)

    async def start_agent(self, id: str, *, jwt: str = "") -> None:  # noqa: A002 - the field's name
        """Start an agent's container; nothing happens for agents that have none."""
        await self._request("startagent", pb.StartAgentRequest(agentid=id), pb.StartAgentResponse, jwt=jwt)

    async def stop_agent(self, id: str, *, jwt: str = "") -> None:  # noqa: A002 - the field's name
        """Stop an agent's container."""
        await self._request("stopagent", pb.StopAgentRequest(agentid=id), pb.StopAgentResponse, jwt=jwt)

    async def delete_agent(self, id: str, *, jwt: str = "") -> None:  # noqa: A002 - the field's name
        """Delete an agent with its container."""
        await self._request("deleteagent", pb.DeleteAgentRequest(agentid=id), pb.DeleteAgentResponse, jwt=jwt)

    async def get_agent_pods(self, id: str, *, stats: bool = False, jwt: str = "") -> list[dict[str, Any]]:  # noqa: A002
        """The containers of an agent, with their use of resources when asked for."""
        request = pb.GetAgentPodsRequest(agentid=id, stats=stats)
        return documents((await self._request("getagentpods", request, pb.GetAgentPodsResponse, jwt=jwt)).results)

    async def get_agent_log(self, id: str, pod: str, *, jwt: str = "") -> str:  # noqa: A002 - the field's name
        """What a container of an agent has printed."""
        request = pb.GetAgentLogRequest(agentid=id, podname=pod)
        return (await self._request("getagentlog", request, pb.GetAgentLogResponse, jwt=jwt)).result

    async def delete_agent_pod(self, id: str, pod: str, *, jwt: str = "") -> None:  # noqa: A002 - the field's name
        """Remove a container of an agent; the server makes a new one."""
        request = pb.DeleteAgentPodRequest(agentid=id, podname=pod)
        await self._request("deleteagentpod", request, pb.DeleteAgentPodResponse, jwt=jwt)

    async def invoke_openrpa(
        self, robot: str, workflow: str, payload: Any = None, *, rpc: bool = True, jwt: str = ""
    ) -> Any:
        """Run a workflow on an OpenRPA robot, both by id; what it returned, if ``rpc`` waits for that."""
        request = pb.InvokeOpenRPARequest(robotid=robot, workflowid=workflow, rpc=rpc, payload=encode_json(payload))
        return value((await self._request("invokeopenrpa", request, pb.InvokeOpenRPAResponse, jwt=jwt)).payload)

    async def create_workflow_instance(
        self,
        workflow: str,
        *,
        target: str = "",
        name: str = "",
        result_queue: str = "",
        data: Any = None,
        initial_run: bool = True,
        jwt: str = "",
    ) -> str:
        """Start a workflow for the user or role ``target``; the id of the instance."""
        request = pb.CreateWorkflowInstanceRequest(
            targetid=target,
            workflowid=workflow,
            name=name,
            resultqueue=result_queue,
            data=encode_json({} if data is None else data),
            initialrun=initial_run,
        )
        reply = await self._request("createworkflowinstance", request, pb.CreateWorkflowInstanceResponse, jwt=jwt)
        return reply.instanceid


def order_text(order_by: OrderBy) -> str:
    """An order as the server takes it: a field's name, or JSON."""
    if isinstance(order_by, str):
        return order_by
    return encode_json(dict(order_by)) if order_by else ""


async def json_of(content: dict[str, Any] | list[dict[str, Any]]) -> str:
    """JSON text of documents; what looks big is encoded beside the event loop."""
    return await asyncio.to_thread(encode_json, content) if looks_big(content) else encode_json(content)


def looks_big(content: dict[str, Any] | list[dict[str, Any]]) -> bool:
    """Whether there is much in it, by a glance at its surface."""
    if isinstance(content, list):
        return len(content) > MANY or any(map(looks_big, content))
    return any(isinstance(part, str | list | dict) and len(part) > MANY for part in content.values())


def results(reply: Any) -> list[dict[str, Any]]:
    """The documents in a reply."""
    return documents(reply.results)


def result(reply: Any) -> dict[str, Any]:
    """The document in a reply."""
    return document(reply.result)


def document(text: str) -> dict[str, Any]:
    """The document in JSON text. Raises `ProtocolError`."""
    found = decode_json(text)
    if not isinstance(found, dict):
        raise ProtocolError("OpenFlow sent something else than a document.")
    return found


def documents(text: str) -> list[dict[str, Any]]:
    """The documents in JSON text; no text is none of them. Raises `ProtocolError`."""
    found = decode_in_pieces(text) if len(text) > PIECE else decode_json(text or "[]")
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ProtocolError("OpenFlow answered a query with something else than documents.")
    return found


def decode_in_pieces(text: str, piece: int = PIECE) -> Any:
    """As `decode_json`, for a long text: a list of objects is decoded some at a time, so that others may run between.

    It is cut where an object may have ended. Whether it has is told by the piece before: that is whole then, and valid.
    """
    found: list[Any] = []
    start, size = 1, piece
    while text.startswith("[") and (cut := text.find("},{", start + size)) >= 0:
        try:
            found += orjson.loads(f"[{text[start : cut + 1]}]")
        except orjson.JSONDecodeError:
            size = 2 * size + 1  # within an object, or odd
        else:
            start, size = cut + 2, piece
    rest = decode_json(text if start == 1 else f"[{text[start:]}")
    return found + rest if start > 1 and isinstance(rest, list) else rest


def value(text: str) -> Any:
    """The value in JSON text, or the text itself if it is none."""
    try:
        return decode_json(text)
    except ProtocolError:
        return text
