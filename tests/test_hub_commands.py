"""The database commands over the wire, as the real server does them."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.errors import ServerRefused
from jupyter_agent.hub import commands
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rest import Rest
from jupyter_agent.openflow.rights import ADMINS
from tests.hub_peers import ask
from tests.openflow_peers import Hub


@pytest.fixture
def things() -> str:
    """A collection for this test alone."""
    return f"things {new_id()}"


async def test_an_insert_sets_what_the_server_sets(client: Client, things: str) -> None:
    user = client.user
    assert user is not None
    item = {"name": "n", "_type": "Thing", "_createdbyid": "forged", "_version": 7, "_created": "long ago", "_id": ""}
    document = await client.insert_one(things, item)
    assert len(document["_id"]) == 24
    assert document["_type"] == "thing"
    assert document["_version"] == 0
    assert document["_createdbyid"] == document["_modifiedbyid"] == user.id
    assert document["_createdby"] == document["_modifiedby"] == user.name
    assert document["_created"] == document["_modified"]
    assert document["_created"].endswith("Z")
    full = {entry["_id"]: entry["rights"] for entry in document["_acl"]}
    assert full == {ADMINS: 65535, user.id: 65535}
    assert (await client.insert_one(things, {}))["_type"] == "unknown"
    assert await client.query(things, {"_id": document["_id"]}) == [document]


async def test_an_id_is_unique_in_its_collection(client: Client, things: str) -> None:
    await client.insert_one(things, {"_id": "one"})
    with pytest.raises(ServerRefused, match=r"E11000 duplicate key error: .* has a document with this _id already"):
        await client.insert_one(things, {"_id": "one"})
    await client.insert_one(f"others of {things}", {"_id": "one"})


async def test_a_replacement_keeps_fields_with_underscore_and_drops_others(client: Client, things: str) -> None:
    first = await client.insert_one(things, {"a": 1, "b": 2, "_mine": 3, "_gone": 4})
    second = await client.update_one(things, {"_id": first["_id"], "a": 5, "_gone": None, "_createdbyid": "x"})
    assert second == {
        **{name: value for name, value in first.items() if name not in ("b", "_gone")},
        "a": 5,
        "_version": 1,
        "_modified": second["_modified"],
    }
    assert await client.query(things, {}) == [second]


async def test_a_replacement_by_the_same_is_no_new_version(client: Client, things: str) -> None:
    first = await client.insert_one(things, {"a": {"x": 1, "y": [1, "2024-01-02T03:04:05.678Z"]}})
    assert await client.update_one(things, first) == first
    changed = await client.update_one(things, {**first, "a": {"x": True, "y": []}})
    assert changed["_version"] == 1


async def test_an_update_with_operators_raises_no_version(client: Client, things: str) -> None:
    first = await client.insert_one(things, {"n": 1, "_type": "t"})
    await client.insert_one(things, {"n": 1, "_type": "u"})
    update = {"$set": {"n": 2, "_type": "x", "_version": 9, "_createdbyid": "x"}}
    result = await client.update_document(things, {"n": 1, "_type": "t"}, update)
    assert (result.matched, result.modified) == (1, 1)
    (found,) = await client.query(things, {"_id": first["_id"]})
    assert found == {**first, "n": 2, "_modified": found["_modified"]}
    result = await client.update_document(things, {"n": 2}, {"$set": {"n": 2}})
    assert (result.matched, result.modified) == (1, 0)
    result = await client.update_document(things, {"n": 77}, {"$set": {"n": 2}})
    assert (result.matched, result.modified) == (0, 0)


async def test_an_update_is_done_to_all_or_to_none(client: Client, things: str) -> None:
    await client.insert_one(things, {"n": 1})
    await client.insert_one(things, {"n": "text"})
    with pytest.raises(ServerRefused, match=r"\$inc cannot change 'n': it is a text"):
        await client.update_document(things, {}, {"$inc": {"n": 1}})
    assert {document["n"] for document in await client.query(things, {})} == {1, "text"}
    with pytest.raises(ServerRefused, match="The _id of a document cannot be changed"):
        await client.update_document(things, {"n": 1}, {"$set": {"_id": "x"}})


async def test_queries_page_sort_and_project(client: Client, things: str) -> None:
    items = [{"n": number, "at": f"2024-01-{number + 1:02}T00:00:00.000Z", "x.y": number} for number in range(12)]
    await asyncio.gather(*(client.insert_one(things, item) for item in items))
    page = await client.query(things, {"n": {"$gte": 2}}, order_by={"n": -1}, top=3, skip=1, projection={"n": 1})
    assert [{name: document[name] for name in document if name != "_id"} for document in page] == [
        {"n": 10},
        {"n": 9},
        {"n": 8},
    ]
    found = await client.query(things, {"at": {"$lt": "2024-01-03T00:00:00.000Z"}}, order_by="n")
    assert [document["at"] for document in found] == ["2024-01-01T00:00:00.000Z", "2024-01-02T00:00:00.000Z"]
    assert found[1]["x.y"] == 1
    assert await client.count(things, {"n": {"$lt": 5}}) == 5
    assert await client.query("nothing here", {}) == []
    assert await client.count("nothing here", {}) == 0


async def test_a_query_returns_500_unless_it_says(client: Client, things: str) -> None:
    many = pb.InsertManyRequest(collectionname=things, items=str([{"n": n} for n in range(501)]).replace("'", '"'))
    assert len((await ask(client, many)).results) > 501
    reply = await ask(client, pb.QueryRequest(collectionname=things, query="{}"))
    assert reply.results.count('"_version"') == 500
    assert len(await client.query(things, {}, top=501)) == 501


async def test_many_are_inserted_or_none(client: Client, things: str) -> None:
    with pytest.raises(ServerRefused, match="E11000"):
        await ask(client, pb.InsertManyRequest(collectionname=things, items='[{"_id":"a"},{"_id":"b"},{"_id":"a"}]'))
    assert await client.count(things, {}) == 0
    reply = await ask(
        client, pb.InsertManyRequest(collectionname=things, items='[{"_id":"a"},{"_id":"b"}]', skipresults=True)
    )
    assert reply.results == "[]"
    assert await client.count(things, {}) == 2


async def test_insert_or_update_goes_by_the_fields_named(client: Client, things: str) -> None:
    async def put(item: str, fields: str) -> None:
        await ask(client, pb.InsertOrUpdateOneRequest(collectionname=things, item=item, uniqeness=fields))

    await put('{"name":"a","kind":"x","n":1}', "name,kind")
    await put('{"name":"a","kind":"x","n":2}', "name, kind")
    await put('{"name":"a","kind":"y","n":3}', "name,kind")
    await put('{"_id":"mine","n":4}', "")
    await put('{"_id":"mine","n":5}', "")
    found = await client.query(things, {}, order_by="n")
    assert [(document["n"], document["_version"]) for document in found] == [(2, 1), (3, 0), (5, 1)]
    with pytest.raises(ServerRefused, match="More than one document has the same name"):
        await put('{"name":"a"}', "name")


async def test_documents_are_deleted_by_id_ids_and_query(client: Client, things: str) -> None:
    ids = [(await client.insert_one(things, {"n": number}))["_id"] for number in range(6)]
    assert await client.delete_one(things, ids[0]) == 1
    assert await client.delete_one(things, ids[0]) == 1  # so the real server says
    assert await client.delete_one("nothing here", "x") == 1
    assert await client.delete_one("fs.files", "x") == 0
    assert (await ask(client, pb.DeleteManyRequest(collectionname=things, ids=ids[:3]))).affectedrows == 2
    assert (await ask(client, pb.DeleteManyRequest(collectionname=things, query='{"n": 3}'))).affectedrows == 1
    with pytest.raises(ServerRefused, match="deletemany needs a query or ids"):
        await ask(client, pb.DeleteManyRequest(collectionname=things))
    assert await client.count(things, {}) == 2


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (pb.QueryRequest(collectionname="t", query="{"), "The query is not valid JSON"),
        (pb.QueryRequest(collectionname="t", query="[]"), "The query must be a JSON object"),
        (pb.QueryRequest(collectionname="t", query='{"a": {"$bad": 1}}'), r"\$bad is not offered"),
        (pb.QueryRequest(collectionname="t", orderby='{"a": 5}'), "must be 1 or -1"),
        (pb.QueryRequest(collectionname="t", orderby="{"), "The orderby is not valid JSON"),
        (pb.QueryRequest(collectionname="t", projection="3"), "The projection must be a JSON object"),
        (pb.QueryRequest(collectionname="t", top=-1), "cannot be negative"),
        (pb.QueryRequest(collectionname="t", skip=-1), "cannot be negative"),
        (pb.QueryRequest(collectionname="t", queryas="x"), "item x not found in users or Access Denied"),
        (pb.QueryRequest(collectionname="t", explain=True), "explain is not offered"),
        (
            pb.QueryRequest(collectionname="t", orderby=json.dumps({f"a{number}": 1 for number in range(33)})),
            "An order can have 32 fields, not 33",
        ),
        (pb.DeleteManyRequest(collectionname="t", ids=["x"] * 100_001), "100001 ids are too many for one command"),
        (pb.QueryRequest(), "The collectionname is missing"),
        (pb.QueryRequest(collectionname="a\0b"), "is not the name of a collection"),
        (pb.QueryRequest(collectionname="$cmd"), "is not the name of a collection"),
        (pb.QueryRequest(collectionname="x" * 500), "is not the name of a collection"),
        (pb.CountRequest(collectionname="t", query="nope"), "The query is not valid JSON"),
        (pb.InsertOneRequest(collectionname="t"), "The item is missing"),
        (pb.InsertOneRequest(collectionname="t", item="[1]"), "The item must be a JSON object, not a list"),
        (pb.InsertOneRequest(collectionname="t", item='{"a": NaN}'), "The item is not valid JSON"),
        (pb.InsertOneRequest(collectionname="t", item='{"a":' * 300 + "1" + "}" * 300), "nested deeper than 100"),
        (pb.InsertOneRequest(collectionname="t", item='{"_id": 5}'), "An _id must be a text"),
        (pb.InsertOneRequest(collectionname="t", item='{"_type": 5}'), "_type must be a text"),
        (pb.InsertOneRequest(collectionname="t", item='{"_acl": {"a": 1}}'), "_acl must be a list"),
        (pb.InsertOneRequest(collectionname="t", item='{"_acl": [1]}'), "Each entry of _acl"),
        (pb.InsertOneRequest(collectionname="t", item='{"_acl": [{"_id": "x", "rights": []}]}'), "rights in _acl"),
        (pb.InsertOneRequest(collectionname="t", item='{"_encrypt": ["a"]}'), "does not encrypt"),
        (pb.InsertOneRequest(collectionname="t", item='{"a": "%s"}' % ("x" * (17 << 20))), "is too big"),
        (pb.InsertOneRequest(collectionname="fs.files", item="{}"), "metadata of a file"),
        (pb.InsertOneRequest(collectionname="files", item='{"metadata":{}}'), "Files are made by upload"),
        (pb.InsertOneRequest(collectionname="fs.chunks", item="{}"), "is not the name of a collection"),
        (pb.InsertManyRequest(collectionname="t", items="{}"), "must be a JSON array of objects"),
        (pb.InsertManyRequest(collectionname="t", items="[1]"), "must be a JSON array of objects"),
        (pb.UpdateOneRequest(collectionname="t", item='{"a": 1}'), "The item has no _id"),
        (pb.UpdateOneRequest(collectionname="t", item='{"_id": "x"}'), "item x not found in t or Access Denied"),
        (pb.UpdateDocumentRequest(collectionname="t", query="{}"), "consists of operators"),
        (pb.UpdateDocumentRequest(collectionname="t", document='{"$set": 1}'), "takes an object of fields"),
        (pb.AggregateRequest(collectionname="t"), "The aggregates is not valid JSON"),
        (pb.AggregateRequest(collectionname="t", aggregates="{}"), "An aggregate is a JSON array of stages"),
        (pb.AggregateRequest(collectionname="t", aggregates='[{"$out": "x"}]'), r"The stage \$out is not offered"),
        (pb.AggregateRequest(collectionname="t", aggregates="[]", explain=True), "explain is not offered"),
        (pb.DistinctRequest(collectionname="t", field="a", options='{"maxTimeMS": 5}'), "options of distinct"),
        (pb.DistinctRequest(collectionname="t", field="$a"), r"\$a"),
    ],
)
async def test_bad_input_is_refused_in_a_sentence_and_the_connection_goes_on(
    client: Client, message: Any, sentence: str
) -> None:
    with pytest.raises(ServerRefused, match=sentence) as caught:
        await ask(client, message)
    assert len(str(caught.value)) < 400
    assert await client.count("t", {}) == 0


async def test_an_unknown_custom_command_has_an_empty_result(client: Client, things: str) -> None:
    assert (await ask(client, pb.CustomCommandRequest(command="there is no such"))).result == ""


READS_TEXT = {"parse", "parse_object", "compile_text", "compile_filter", "compile_pipeline", "_filter", "_order"}


async def test_long_answers_are_what_short_ones_are(client: Client, hub: Hub, things: str) -> None:
    """They are made in another thread, and encoded already when they come to the network."""
    text = "é" * 600_000
    long = await client.insert_one(things, {"_id": "long", "text": text, "l": list(range(12_000))})
    assert long["text"] == text
    assert await client.query(things, {}) == [long]
    assert await client.aggregate(things, [{"$project": {"text": 1, "_id": 0}}]) == [{"text": text}]
    assert await client.get_document_version(things, "long", 0) == long
    assert await client.distinct(things, "l") == [str(number) for number in range(12_000)]
    assert (await client.update_one(things, {**long, "n": 1}))["_version"] == 1
    rest = Rest(hub.url, Credentials(jwt=hub.ready["jwt"]))
    assert (await rest.query(things, {}))[0]["text"] == text


def calls_in(node: ast.AST) -> Iterator[ast.Call]:
    """The calls that a function makes itself, not those in functions that it hands on."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from calls_in(child)


@pytest.mark.parametrize("path", sorted(Path(commands.__path__[0]).glob("*.py")), ids=lambda path: path.stem)
def test_no_command_reads_a_clients_text_on_the_event_loop(path: Path) -> None:
    """A text may have 160 MiB: nobody else would be heard for seconds."""
    functions = [each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.AsyncFunctionDef)]
    calls = [(each.name, call) for each in functions for call in calls_in(each)]
    assert [
        f"{name}: {ast.unparse(call)}"
        for name, call in calls
        if isinstance(call.func, ast.Name) and call.func.id in READS_TEXT
    ] == []
