"""Indexes: made, listed and dropped; what they forbid; that queries and orders really use them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_agent.errors import Conflict, InvalidInput, ServerRefused
from jupyter_agent.hub.data.documents import Date, new_id
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.indexes import Index, index_of
from jupyter_agent.hub.data.results import order_of, page
from jupyter_agent.hub.data.store import MIGRATIONS, Documents
from jupyter_agent.hub.data.tables import built_in, set_all_right
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import USERS
from tests.hub_peers import ask, hub_on_a_new_home, user_of
from tests.openflow_peers import Hub

ALL = compile_filter({})


@pytest.fixture
def things() -> str:
    return f"things {new_id()}"


async def make(client: Client, things: str, keys: Any, name: str = "", **options: Any) -> str:
    request = pb.CreateIndexRequest(
        collectionname=things, index=json.dumps(keys), options=json.dumps(options), name=name
    )
    return str((await ask(client, request)).result)


async def listed(client: Client, things: str) -> dict[str, Any]:
    found = json.loads((await ask(client, pb.GetIndexesRequest(collectionname=things))).results)
    return {index["name"]: index for index in found}


async def test_indexes_are_made_listed_and_dropped(client: Client, things: str) -> None:
    assert await listed(client, things) == {"_id_": {"v": 2, "key": {"_id": 1}, "name": "_id_", "unique": True}}
    await client.insert_one(things, {"name": "a"})
    assert await make(client, things, {"name": 1, "a.b": -1}) == "name_1_a.b_-1"
    assert await make(client, things, "name", name="Mine", unique=True) == "Mine"
    assert await make(client, things, {"name": 1}, name="mine", background=True) == "mine"
    partial: dict[str, Any] = {"partialFilterExpression": {"_type": "t", "name": {"$exists": True}}}
    assert await make(client, things, {"slug": 1}, unique=True, **partial) == "slug_1"
    found = await listed(client, things)
    assert list(found) == ["_id_", "_type_1", "name_1_a.b_-1", "Mine", "mine", "slug_1"]
    assert found["Mine"] == {"v": 2, "key": {"name": 1}, "name": "Mine", "unique": True}
    assert found["slug_1"] == {"v": 2, "key": {"slug": 1}, "name": "slug_1", "unique": True, **partial}
    assert await make(client, things, {"name": 1}, name="mine") == "mine"  # the same once more
    with pytest.raises(ServerRefused, match=r"An index mine of .* exists already with other fields"):
        await make(client, things, {"other": 1}, name="mine")
    await ask(client, pb.DropIndexRequest(collectionname=things, name="Mine"))
    await client.insert_one(things, {"name": "a"})
    assert "Mine" not in await listed(client, things)
    for name, sentence in (("Mine", "has no index Mine"), ("_id_", "stays"), ("_type_1", "is the hub's own")):
        with pytest.raises(ServerRefused, match=sentence):
            await ask(client, pb.DropIndexRequest(collectionname=things, name=name))


async def test_a_unique_index_forbids_and_says_no_more_than_that(client: Client, hub: Hub, things: str) -> None:
    await make(client, things, {"name": 1}, unique=True)
    await client.insert_one(things, {"name": "secret"})
    async with user_of(hub, "ivy") as ivy:
        with pytest.raises(ServerRefused) as caught:
            await ivy.insert_one(things, {"name": "secret"})
        assert str(caught.value) == f"E11000 duplicate key error: {things} has a document with this name already."
        mine = await ivy.insert_one(things, {"name": "free"})
        with pytest.raises(ServerRefused, match="E11000"):
            await ivy.update_one(things, {**mine, "name": "secret"})
        with pytest.raises(ServerRefused, match="E11000"):
            await ivy.update_document(things, {}, {"$set": {"name": "secret"}})
        assert await ivy.query(things, {}) == [mine]


async def test_what_is_the_same_for_a_unique_index(client: Client, things: str) -> None:
    await make(client, things, {"a.b": 1}, unique=True)
    different: list[Any] = [
        1,
        2.5,
        "1",
        True,
        "true:1",
        {"x": 1},
        "2024-01-02T03:04:05.678Z",
        1704164645678,
        0,
        "",
        False,
    ]
    for value in different:
        await client.insert_one(things, {"a": {"b": value}})
    await client.insert_one(things, {"n": "no a at all"})
    again: list[Any] = [
        {"a": {"b": 1.0}},
        {"a": {"b": None}},
        {"a": {}},
        {},
        {"a": {"b": {"x": 1}}},
        {"a": {"b": True}},
    ]
    for item in again:
        with pytest.raises(ServerRefused, match=r"E11000 .* this a\.b already"):
            await client.insert_one(things, item)
    lists: list[Any] = [{"a": {"b": [1]}}, {"a": [{"b": 9}]}]
    for item in lists:
        with pytest.raises(ServerRefused, match=r"a\.b of a document in .* cannot be a list: a\.b_1 is unique"):
            await client.insert_one(things, item)
    assert await client.count(things, {}) == len(different) + 1


async def test_unique_in_part(client: Client, things: str) -> None:
    partial = {"_type": "agent", "at": "2024-01-02T03:04:05.678Z", "live": True, "n": 1.5, "gone": None}
    await make(client, things, {"x": 1, "y": 1}, unique=True, partialFilterExpression=partial)
    await make(client, things, {"code": 1}, unique=True, sparse=True)
    one = {"x": 1, "y": "it's", **partial}
    await client.insert_one(things, one)
    for other in ({"_type": "b"}, {"at": 1704164645678}, {"live": 1}, {"n": 1}, {"gone": 1}, {"y": 2}):
        await client.insert_one(things, {**one, **other})
    with pytest.raises(ServerRefused, match=r"E11000 .* this x, y already"):
        await client.insert_one(things, one)
    await client.insert_one(things, {"_type": "z", "code": 5})
    with pytest.raises(ServerRefused, match=r"E11000 .* this code already"):
        await client.insert_one(things, {"_type": "z", "code": 5})


async def test_an_index_that_documents_do_not_agree_with_is_not_made(client: Client, things: str) -> None:
    for item in ({"a": 1, "l": [1]}, {"a": 1}, {"a": 2}):
        await client.insert_one(things, item)
    with pytest.raises(ServerRefused, match=r"E11000 duplicate key error: .* has a document with this a already"):
        await make(client, things, {"a": 1}, unique=True)
    with pytest.raises(ServerRefused, match=r"l cannot be unique in .*: the document .* has a list there"):
        await make(client, things, {"l": 1}, unique=True)
    assert list(await listed(client, things)) == ["_id_", "_type_1"]
    await client.insert_one(things, {"a": 1})
    assert await make(client, things, {"a": 1}) == "a_1"


@pytest.mark.parametrize(
    ("index", "options", "sentence"),
    [
        ("{}", "", "An index has 1 to 8 fields"),
        ("", "", "An index has 1 to 8 fields"),
        ("{", "", "The index is not valid JSON"),
        ("[1]", "", "An order is a field's name or an object"),
        ('{"a": 2}', "", "must be 1 or -1"),
        ('{"a": "text"}', "", "An index of the kind text"),
        ('{"a": "2dsphere"}', "", "An index of the kind 2dsphere"),
        ('{"$**": 1}', "", "cannot be indexed"),
        ('{"a.0": 1}', "", "cannot be indexed"),
        ('{"a\\"; DROP TABLE collections; --": 1}', "", "cannot be indexed"),
        ('{"_id": 1}', "", "has its index on _id"),
        (json.dumps({f"f{n}": 1 for n in range(9)}), "", "An index has 1 to 8 fields"),
        ('{"a": 1}', "[]", "The options must be a JSON object"),
        ('{"a": 1}', '{"expireAfterSeconds": 5}', "The option expireAfterSeconds of an index is not offered"),
        ('{"a": 1}', '{"collation": {"locale": "da"}}', "The option collation of an index is not offered"),
        ('{"a": 1}', '{"partialFilterExpression": {"a": {"$gt": 1}}}', "The condition of an index on 'a'"),
        ('{"a": 1}', '{"partialFilterExpression": {"$or": []}}', "cannot be indexed"),
        ('{"a": 1}', '{"partialFilterExpression": {"a": "\\u0000"}}', "plain characters"),
        ('{"a": 1, "b": 1}', '{"sparse": true}', "sparse of an index on several fields"),
        ('{"a": 1}', '{"name": 5}', "The name of an index is a text"),
    ],
)
async def test_an_index_that_cannot_be_is_refused(client: Client, index: str, options: str, sentence: str) -> None:
    with pytest.raises(ServerRefused, match=sentence):
        await ask(client, pb.CreateIndexRequest(collectionname="t", index=index, options=options))
    assert list(await listed(client, "t")) == ["_id_"]


async def test_only_admins_have_to_do_with_indexes(hub: Hub, things: str) -> None:
    async with user_of(hub, "ivy") as ivy:
        requests = [
            pb.CreateIndexRequest(collectionname=things, index='{"a": 1}'),
            pb.GetIndexesRequest(collectionname=things),
            pb.DropIndexRequest(collectionname=things, name="a_1"),
        ]
        for request in requests:
            with pytest.raises(ServerRefused, match="Access denied"):
                await ask(ivy, request)


async def test_indexes_are_there_after_a_restart(tmp_path: Path) -> None:
    with hub_on_a_new_home() as hub:
        async with hub.client() as client:
            await client.connected()
            partial = {"at": "2024-01-02T03:04:05.678Z"}
            await make(client, "things", {"a": 1}, unique=True, partialFilterExpression=partial)
            await client.insert_one("things", {"a": 1, **partial})
            before = await listed(client, "things")
        hub.kill()
        hub.start()
        async with hub.client() as client:
            await client.connected()
            assert await listed(client, "things") == before
            with pytest.raises(ServerRefused, match="E11000"):
                await client.insert_one("things", {"a": 1, **partial})


# What SQLite does


@contextlib.contextmanager
def store() -> Iterator[Documents]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for migration in MIGRATIONS:
        migration(connection)
    try:
        yield Documents(connection)
    finally:
        connection.close()


def plan(documents: Documents, collection: str, query: Any, order: Any = "") -> str:
    """How SQLite did what it was last asked for this query."""
    statements: list[str] = []
    connection = documents._connection
    connection.set_trace_callback(statements.append)
    wanted = compile_filter(query)
    if order:
        found = documents.in_order(collection, wanted, order_of(order))
        assert found is not None
        next(found, None)
        (statement,) = [each for each in statements if "ORDER BY" in each]
    else:
        list(documents.find(collection, wanted))
        statement = statements[-1]
    connection.set_trace_callback(None)
    return "; ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"))


def uses(documents: Documents, collection: str, name: str) -> str:
    """What a plan says that uses the index of this name."""
    shape = documents._shape(collection)
    assert shape is not None
    index = shape.index(name)
    assert index is not None
    return f"USING INDEX {index.finder(shape.table)}"


BUILT_IN_QUERIES = [
    ("things", {"_type": "t"}, "_type_1"),
    ("agents", {"_type": "agent", "slug": {"$eq": "s"}}, "slug_1"),
    ("agents", {"_type": "package", "fileid": {"$eq": "f"}}, "fileid_1"),
    ("users", {"_type": "user", "username": {"$eq": "u"}}, "username_1"),
    ("users", {"_type": "role"}, "_type_1"),
    ("mq", {"_type": "queue", "name": {"$eq": "q"}}, "_type_1_name_1"),
    ("workitems", {"_type": "workitem", "wiqid": "q", "state": {"$in": ["new", "processing"]}}, "wiqid_1_state_1"),
    ("workitems", {"wiq": "q", "state": "new"}, "wiq_1_state_1"),
    ("fs.files", {"filename": {"$eq": "f"}}, "filename_1"),
    ("fs.files", {"metadata.wi": "w"}, "metadata.wi_1"),
    ("fs.files", {"metadata._type": "t"}, "metadata._type_1"),
    ("things_hist", {"id": {"$eq": "x"}, "_version": 3}, "id_1__version_1"),
]


@pytest.mark.parametrize(("collection", "query", "index"), BUILT_IN_QUERIES)
def test_what_the_hub_asks_often_is_found_by_an_index(collection: str, query: dict[str, Any], index: str) -> None:
    with store() as documents:
        documents.make_collection(collection)
        assert uses(documents, collection, index) in plan(documents, collection, query)
        documents.insert(collection, {"_id": "x", **{path: [1] for path in ("wiqid", "wiq", "slug") if path in query}})
        assert uses(documents, collection, index) in plan(documents, collection, query)  # with lists there, too


def test_an_index_of_ones_own_is_used() -> None:
    with store() as documents:
        documents.make_collection("things")
        documents.make_index("things", index_of({"g": 1, "at": -1}, {}, ""))
        mine = uses(documents, "things", "g_1_at_-1")
        for query in ({"g": 5}, {"_type": "t", "g": 5}, {"g": 5, "at": {"$gt": Date(5)}}, {"g": {"$in": [1, 2]}}):
            assert mine in plan(documents, "things", query)
        assert plan(documents, "things", {"g": 5}, {"at": -1}).count("TEMP B-TREE") == 0
        assert plan(documents, "things", {"g": 5}, {"at": 1}).count("TEMP B-TREE") == 0
        assert plan(documents, "things", {}, {"g": -1, "at": 1}) == f"SCAN c1 {mine}"
        assert "TEMP B-TREE" in plan(documents, "things", {}, {"g": 1, "at": 1})
        documents.insert("things", {"_id": "a", "g": [5]})
        assert mine in plan(documents, "things", {"g": 5})
        assert "TEMP B-TREE" in plan(documents, "things", {"g": 5}, {"at": -1})


def test_a_page_of_many_is_read_in_the_order_of_the_index_and_of_few_by_what_finds_them() -> None:
    with store() as documents:
        documents.make_collection("things")
        documents.make_index("things", index_of({"at": 1}, {}, ""))
        for number in range(1500):
            document = {"_id": str(number), "_type": "few" if number < 9 else "many", "at": Date(number * 7 % 1500)}
            documents.insert("things", document)
        assert uses(documents, "things", "at_1") in plan(documents, "things", {"_type": "many"}, {"at": -1})
        assert uses(documents, "things", "_type_1") in plan(documents, "things", {"_type": "few"}, {"at": -1})
        for kind, count in (("many", 1491), ("few", 9)):
            found = documents.in_order("things", compile_filter({"_type": kind}), (("at", -1),))
            assert found is not None
            moments = [document["at"].ms for document in found]
            assert len(moments) == count
            assert moments == sorted(moments, reverse=True)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(-3, 3, allow_nan=False), st.integers(0, 3).map(Date),
    st.sampled_from(["", "a", "b", "ä"]),
)  # fmt: skip
values = st.one_of(scalars, st.lists(scalars, max_size=2), st.dictionaries(st.sampled_from("xy"), scalars, max_size=2))
things_of = st.fixed_dictionaries({}, optional={"a": values, "b": scalars, "c": st.fixed_dictionaries({"d": values})})
few_kinds = st.fixed_dictionaries({}, optional={"a": st.integers(-2, 2), "b": st.sampled_from("xyz")})
orders = st.dictionaries(st.sampled_from(["a", "b", "c.d", "_id"]), st.sampled_from([1, -1]), min_size=1, max_size=3)
indexes = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "c.d"]), st.sampled_from([1, -1]), min_size=1), max_size=2
)


@settings(max_examples=150, deadline=None)
@given(items=st.lists(st.one_of(things_of, few_kinds), max_size=8), order=orders, keys=indexes, first=st.booleans())
def test_an_order_out_of_sql_is_the_order_of_the_database(
    items: list[dict[str, Any]], order: dict[str, int], keys: list[dict[str, int]], *, first: bool
) -> None:
    with store() as documents:
        documents.make_collection("things")
        made = [index_of(each, {}, str(number)) for number, each in enumerate(keys)]
        if first:
            for index in made:
                documents.make_index("things", index)
        for number, item in enumerate(items):
            documents.insert("things", {"_id": str(number), **item})
        if not first:
            for index in made:
                documents.make_index("things", index)
        given_order = tuple(order.items())
        found = documents.in_order("things", ALL, given_order)
        if found is None:
            return
        # documents that are equal in all that was asked for may come in any order
        wanted = (*given_order, ("_id", 1))
        everything = page(documents.find("things", ALL), wanted, 0, 100)
        in_sql = list(found)
        assert page(in_sql, wanted, 0, 100) == everything
        assert [position(document, order) for document in in_sql] == [position(each, order) for each in everything]


few_values = st.sampled_from(
    [1, 2, "a", None, True, Date(1), [1], ["a", 2], [], {"d": 1}, [{"d": 1}], [[1]], {"d": [1]}]
)
few_things = st.dictionaries(st.sampled_from("abc"), few_values)
one = st.sampled_from([1, 2, "a", True, Date(1), None])
conditions = st.one_of(
    one,
    st.dictionaries(st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte", "$ne"]), one, min_size=1, max_size=2),
    st.fixed_dictionaries({"$in": st.lists(one, max_size=3)}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
)
plain_queries = st.dictionaries(st.sampled_from(["a", "b", "c.d", "c"]), conditions, min_size=1, max_size=2)
queries = st.one_of(plain_queries, st.fixed_dictionaries({"$or": st.lists(plain_queries, min_size=1, max_size=2)}))


@settings(max_examples=150, deadline=None)
@given(
    items=st.lists(few_things, max_size=4),
    more=st.lists(few_things, max_size=6),
    keys=indexes,
    wanted=st.lists(queries, min_size=1, max_size=5),
)
def test_indexes_leave_out_nothing_that_matches(
    items: list[Any], more: list[Any], keys: list[dict[str, int]], wanted: list[Any]
) -> None:
    """Whatever kinds of values the indexed fields have, and come to have."""
    with store() as documents:
        for number, item in enumerate(items):
            documents.insert("things", {"_id": str(number), **item})
        for number, each in enumerate(keys):
            documents.make_index("things", index_of(each, {}, str(number)))
        for number, item in enumerate(more):
            old = documents.get("things", str(number))
            new = {"_id": str(number), **item}
            documents.insert("things", new) if old is None else documents.replace("things", old, new)
        everything = list(documents.find("things", ALL))
        for query in wanted:
            compiled = compile_filter(query)
            found = {document["_id"] for document in documents.find("things", compiled)}
            assert found == {document["_id"] for document in everything if compiled.matches(document)}


def position(document: dict[str, Any], order: dict[str, int]) -> Any:
    from jupyter_agent.hub.data.results import sort_key

    return sort_key(tuple(order.items()))(document)


def test_most_orders_do_come_out_of_sql() -> None:
    with store() as documents:
        for number in range(50):
            at = None if number % 7 == 0 else Date(number)
            documents.insert(
                "things", {"_id": str(number), "n": number % 5, "t": "x" * (number % 3), "at": at, "m": at or "x"}
            )
        for order in ({"n": 1}, {"t": -1, "n": 1}, {"at": -1}, {"_id": -1}, {"m": 1}, {"nothing": 1}):
            assert documents.in_order("things", ALL, tuple(order.items())) is not None
        documents.insert("things", {"_id": "list", "n": [1]})
        assert documents.in_order("things", ALL, (("n", 1),)) is None
        assert documents.in_order("things", compile_filter({"t": "x"}), (("n", 1),)) is not None


def test_what_holds_a_text_is_found() -> None:
    with store() as documents:
        for number, text in enumerate(["x1", 'a "quoted" text', "ä\n", "x1"]):
            documents.insert("things", {"_id": str(number), "files": [{"_id": text}], "n": number})
        for text, found in (("x1", ["0", "3"]), ('a "quoted" text', ["1"]), ("ä\n", ["2"]), ("x", []), ("_id", [])):
            wanted = compile_filter({"files._id": {"$eq": text}})
            assert [each["_id"] for each in documents.find("things", wanted, holding=text)] == found
        assert len(list(documents.find("things", compile_filter({"n": 3}), holding="x1"))) == 1


def test_indexes_of_an_older_program_are_made_anew() -> None:
    with store() as documents:
        documents.make_collection("users")
        documents.insert("users", {"_id": "1", "_type": "user", "username": "Ann"})
        connection = documents._connection
        tables = "SELECT name, sql FROM sqlite_master WHERE tbl_name = 'c1' AND name LIKE 'c1_%' ORDER BY name"
        before = connection.execute(tables).fetchall()
        for name, _ in before:
            connection.execute(f"DROP INDEX {name}")
        connection.execute("CREATE INDEX c1_type ON c1 (json_extract(doc, '$._type'))")
        set_all_right(connection)
        assert connection.execute(tables).fetchall() == before
        with pytest.raises(Conflict, match=r"E11000 .* this username already"):
            documents.insert("users", {"_id": "2", "_type": "user", "username": "aNN"})


def test_documents_that_do_not_agree_with_an_index_keep_no_store_from_opening() -> None:
    with store() as documents:
        documents.make_collection("users")
        connection = documents._connection
        connection.execute("DROP INDEX " + forbidding(connection))
        for number in range(2):
            documents.insert("users", {"_id": str(number), "_type": "user", "username": "ann"})
        documents.make_collection("things")
        connection.execute("DROP INDEX " + next(iter(built_in("things")[0].statements("c2"))))
        set_all_right(connection)
        assert len(list(documents.find("users", compile_filter({"username": "ann"})))) == 2
        assert uses(documents, "things", "_type_1") in plan(documents, "things", {"_type": "t"})
        documents.delete("users", {"_id": "1"})
        set_all_right(connection)
        assert forbidding(connection)


def forbidding(connection: sqlite3.Connection) -> str:
    (found,) = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'c1_%_forbids'").fetchone()
    return str(found)


def test_the_built_in_indexes_are_indexes() -> None:
    for collection in ("things", "agents", "users", "mq", "workitems", "fs.files", "things_hist"):
        for index in built_in(collection):
            assert index == Index(index.name, index.keys, index.unique, index.equal, (), index.ignores_case)
    with pytest.raises(InvalidInput):
        index_of({"a": "hashed"}, {}, "")


async def test_pages_in_order_are_whole(client: Client, things: str) -> None:
    """However deep: every document that may be read once, in order."""
    acl = [{"_id": USERS, "rights": 2}]
    items = [{"n": number * 37 % 300, "hidden": number % 3 == 0} for number in range(300)]
    await ask(client, pb.InsertManyRequest(collectionname=things, items=json.dumps(items)))
    await client.update_document(things, {"hidden": False}, {"$push": {"_acl": acl[0]}})
    await make(client, things, {"n": 1})
    for order in ({"n": 1}, {"n": -1}, {"hidden": 1, "n": -1}):
        pages = [await client.query(things, {}, order_by=order, top=7, skip=skip) for skip in range(0, 301, 7)]
        found = [(document["hidden"] if "hidden" in order else 0, document["n"]) for each in pages for document in each]
        assert len(found) == 300
        direction = list(order.values())[-1]
        assert found == sorted(found, key=lambda pair: (pair[0], direction * pair[1]))
