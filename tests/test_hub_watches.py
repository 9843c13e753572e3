"""Watches: what their paths mean, who is told of what, what they may cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import jsonpath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_agent.errors import InvalidInput, ServerRefused
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.hub.network.server import Server
from jupyter_agent.hub.paths import compile_paths, parse
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from tests.conftest import BUDGETS
from tests.hub_peers import ask, line, user_of
from tests.openflow_peers import Hub, Seen, until


@pytest.fixture
def things() -> str:
    return f"things {new_id()}"


# Paths

NAMES = st.sampled_from(["_type", "n", "a", "b", "é x", "0"])
SCALARS = st.sampled_from([None, True, False, 0, 1, -1, 2.5, 1e3, "", "1", "package", "it's", 'a "b"', "\\", "é"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=4)
OPERATORS = st.sampled_from(["==", "===", "!=", "!==", "<", "<=", ">", ">="])


@st.composite
def queries(draw: st.DrawFn) -> str:
    steps = draw(st.lists(NAMES | st.integers(-2, 2), max_size=3))
    plain = [f".{step}" if step in ("_type", "n", "a", "b") else f"[{json.dumps(step, ensure_ascii=False)}]"
             for step in steps]  # fmt: skip
    return "@" + "".join(plain)


@st.composite
def operands(draw: st.DrawFn) -> str:
    value = draw(SCALARS)
    if isinstance(value, str) and draw(st.booleans()):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return json.dumps(value, ensure_ascii=False)


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    sides = [draw(queries()), draw(operands() | queries())]
    if draw(st.booleans()):
        sides.reverse()
    return f"{sides[0]} {draw(OPERATORS)} {sides[1]}"


CONDITIONS = st.recursive(
    comparisons() | queries(),
    lambda inner: (
        st.builds("({}) && {}".format, inner, inner)
        | st.builds("{} || ({})".format, inner, inner)
        | st.builds("!({})".format, inner)
    ),
    max_leaves=4,
)
FILTERS = st.builds(str.format, st.sampled_from(["$.[?({})]", "$[?({})]", "$[?{}]"]), CONDITIONS)
LONGER = st.builds(
    str.format, st.sampled_from(["$.a[?({})]", "$.*[?({})]", "$.a.a[0][?({})]", "$..[?({})]"]), CONDITIONS
)
PLAIN = st.sampled_from(["$", "$.a", "$.a._type", "$.a[0]", "$.a['b']", "$.a.*", "$.*", "$..a", "$.a | $.b", "$.b"])


@settings(max_examples=BUDGETS.get("watch_paths", 300), deadline=None)
@given(path=FILTERS | LONGER | PLAIN, documents=st.lists(DOCUMENTS, min_size=1, max_size=4))
def test_a_compiled_path_means_what_the_path_means(path: str, documents: list[dict[str, Any]]) -> None:
    wanted, read = compile_paths([path]), parse(path)
    for document in documents:
        try:
            expected = read.match({"a": document}) is not None
        except jsonpath.JSONPathError:
            expected = False
        assert wanted.matches(document) == expected
        assert not expected or wanted.types is None or document.get("_type") in wanted.types


@pytest.mark.parametrize(
    ("paths", "types", "is_quick"),
    [
        ([], None, True),
        (["", "  "], None, True),
        (["$.[?(@._type == 'package')]"], {"package"}, True),
        (["$.[?(@ && @._type == 'package')]"], {"package"}, True),
        (["$[?(@._type === 'a' || 'b' == @._type)]"], {"a", "b"}, True),
        (["$[?(@._type == 'a' || @.n == 1)]"], None, True),
        (["$[?(@._type == 'a' && @.n.b[0] > 1.5)]"], {"a"}, True),
        (["$[?(@['_type'] == 'a')]", "$[?(@._type == 'b')]"], {"a", "b"}, True),
        (["$[?(@._type == 'a')]", "$[?(@.n)]"], None, True),
        (["$[?(!(@._type == 'a'))]"], None, True),
        (["$[?(@._type != 'a')]"], None, True),
        (["$.a.name"], None, True),
        (["$[?(@.x == @.y)]"], None, False),
        (["$.a[?(@.n == 1)]"], None, False),
        (["$..name"], None, False),
        (["$[?(length(@.name) > 2)]"], None, False),
    ],
)
def test_what_is_known_of_paths(*, paths: list[str], types: set[str] | None, is_quick: bool) -> None:
    wanted = compile_paths(paths)
    assert wanted.types == types
    assert wanted.is_quick is is_quick


BOMBS = [
    "$" + "..*" * 20,
    "$..a..b",
    "$[?(@..a)]..b",
    "$" + "['a','a','a']" * 30,
    "$..[?($..a == @.b)]",
    "$..[?($.a.* )]",
    "$[?(" + "!" * 900 + "@.a)]",
    "$" + "[?(@" * 150 + ".a" + ")]" * 150,
    "$[?(@.a == " + "9" * 900 + ")]",
    "$[?(@.a == 1e400)]",
    "$[?(@.a =~ /(a+)+$/)]",
    "$[?match(@.a, '(a+)+$')]",
    "$[?search(@.a, '(a+)+$')]",
    "$[" + "0:9," * 200 + "0:9]",
    "x" * 1001,
    "$[99999999999999999999]",
    "{}",
    '{"_type": "x"}',
    "[[[[",
    "\0",
    "'",
]


@pytest.mark.parametrize("path", BOMBS)
def test_what_would_take_long_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="watch"):
        compile_paths([path])


@given(st.text(max_size=40) | st.text(alphabet="$@.[]()?*'\"&|!=<>ab0,: ", max_size=40))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_path_or_refused(path: str) -> None:
    try:
        wanted = compile_paths([path])
    except InvalidInput:
        return
    for document in ({}, {"a": [{"b": 0}, "a"], "b": {"a": None}}):
        assert wanted.matches(document) in (True, False)


async def test_a_connection_has_so_many_watches(hub: Hub, client: Client, things: str) -> None:
    with pytest.raises(ServerRefused, match="A watch can have 50 paths, not 51"):
        await ask(client, pb.WatchRequest(collectionname=things, paths=["$.a"] * 51))
    with pytest.raises(ServerRefused, match="can have 5000 characters together"):
        await ask(client, pb.WatchRequest(collectionname=things, paths=[f"$.a{n}" + ".a" * 400 for n in range(7)]))
    async with line(hub.url) as wire:
        await wire.sign_in(hub)
        for _ in range(1000):
            assert (await wire.ask("watch", pb.WatchRequest(collectionname=things)))[0] == "watchreply"
        command, error = await wire.ask("watch", pb.WatchRequest(collectionname=things))
        assert (command, error.message) == ("error", "A connection can have 1000 watches.")


@pytest.mark.parametrize("collection", ["", " ", "system.users", "a$b", "nul\0", "x" * 121, "fs.chunks"])
async def test_what_is_no_collection_is_not_watched(client: Client, collection: str) -> None:
    with pytest.raises(ServerRefused, match="collection"):
        await ask(client, pb.WatchRequest(collectionname=collection))


@pytest.mark.parametrize("collection", ["Ünï cödé", "a.b", "__proto__", "-"])
async def test_odd_collections_are_watched(client: Client, collection: str) -> None:
    seen = Seen()
    await client.watch(collection, ["$.[?(@.n == 1)]"], seen)
    await client.insert_one(collection, {"n": 1})
    await until(lambda: seen.events)


# Who is told of what


async def test_a_collection_without_history_tells_of_no_deletion(client: Client) -> None:
    kept, lost, end = Seen(), Seen(), Seen()
    await client.watch("openrpa_instances", [], lost)
    await client.watch("openrpa", [], kept)
    for collection in ("openrpa_instances", "openrpa"):
        document = await client.insert_one(collection, {"n": 1})
        await client.update_document(collection, {"_id": document["_id"]}, {"$set": {"n": 2}})
        await client.delete_one(collection, document["_id"])
    await client.watch("openrpa", ["$.[?(@.n == 3)]"], end)
    await client.insert_one("openrpa", {"n": 3})
    await until(lambda: end.events)
    assert [event.operation for event in lost.events] == ["insert", "update"]
    assert [event.operation for event in kept.events][:3] == ["insert", "update", "delete"]
    assert kept.events[2].document["n"] == 2


async def test_a_watch_sees_what_is_written_after_it_and_nothing_else(client: Client, things: str) -> None:
    watched: list[Seen] = []
    for number in range(100):
        await client.insert_one(things, {"n": number})
        watched.append(Seen())
        await client.watch(things, [], watched[-1])
    await client.insert_one(things, {"n": 100})
    await until(lambda: all(seen.events and seen.events[-1].document["n"] == 100 for seen in watched))
    for number, seen in enumerate(watched):
        assert [event.document["n"] for event in seen.events] == list(range(number + 1, 101))


async def test_many_changes_at_once_are_all_told(client: Client, things: str) -> None:
    seen = Seen()
    await client.watch(things, ["$.[?(@.n < 1000000)]"], seen)
    items = json.dumps([{"n": n} for n in range(5000)])
    await ask(client, pb.InsertManyRequest(collectionname=things, items=items, skipresults=True))
    await ask(client, pb.DeleteManyRequest(collectionname=things, query='{"n": {"$lt": 4000}}'))
    await until(lambda: len(seen.events) == 9000)
    assert [event.document["n"] for event in seen.events[:5000]] == list(range(5000))
    assert sorted(event.document["n"] for event in seen.events[5000:]) == list(range(4000))
    assert {event.operation for event in seen.events[5000:]} == {"delete"}


async def test_nobody_is_told_of_what_they_may_not_read(client: Client, hub: Hub, things: str) -> None:
    async with user_of(hub, "ann") as ann, user_of(hub, "bob") as bob:
        assert ann.user is not None
        anns, bobs = Seen(), Seen()
        await ann.watch(things, ["$.[?(@.n >= 0)]"], anns)
        await bob.watch(things, ["$.[?(@.n >= 0)]"], bobs)
        document = await bob.insert_one(things, {"n": 1})
        acl = [*document["_acl"], {"_id": ann.user.id, "name": "ann", "rights": 2}]
        await bob.update_one(things, {**document, "n": 2, "_acl": acl})
        await bob.update_one(things, {**document, "n": 3, "_acl": document["_acl"]})
        await bob.delete_one(things, document["_id"])
        await bob.insert_one(things, {"n": 4})
        await ann.insert_one(things, {"n": 5})
        await until(lambda: len(bobs.events) == 5 and len(anns.events) >= 2)
        assert [(event.operation, event.document["n"]) for event in bobs.events] == [
            ("insert", 1), ("replace", 2), ("replace", 3), ("delete", 3), ("insert", 4),
        ]  # fmt: skip
        assert [event.document["n"] for event in anns.events] == [2, 5]


async def test_a_watch_is_of_whoever_asked_for_it(client: Client, hub: Hub, things: str) -> None:
    async with user_of(hub, "ann") as ann, line(hub.url) as wire:
        token = await ann.mint_token()
        await wire.sign_in(hub)
        await wire.ask("watch", pb.WatchRequest(collectionname=things), jwt=token)
        await client.insert_one(things, {"n": 1})
        await ann.insert_one(things, {"n": 2})
        _, event = await wire.hear("watchevent")
        assert json.loads(event.document)["n"] == 2


async def test_one_that_takes_long_delays_no_other(client: Client, hub: Hub, things: str) -> None:
    async with line(hub.url) as wire:
        await wire.sign_in(hub)
        request = pb.WatchRequest(collectionname=things, paths=["$..[?(@.x == 1 || @.last == 1)]"])
        _, slow = await wire.ask("watch", request)
        _, quick = await wire.ask("watch", pb.WatchRequest(collectionname=things, paths=["$.[?(@.n == 1)]"]))
        await client.insert_one(things, {"n": 1, "many": [{"i": i} for i in range(100_000)] + [{"last": 1}]})
        heard = [(await wire.hear("watchevent"))[1].id for _ in range(2)]
        assert heard == [quick.id, slow.id]


async def test_an_ended_watch_is_another_ones_business(client: Client, hub: Hub, things: str) -> None:
    seen = Seen()
    watch = await client.watch(things, [], seen)
    async with line(hub.url) as wire:
        await wire.sign_in(hub)
        for id_ in (watch.id if hasattr(watch, "id") else "x", "", "unknown"):
            assert (await wire.ask("unwatch", pb.UnWatchRequest(id=id_)))[0] == "unwatchreply"
    await client.insert_one(things, {})
    await until(lambda: seen.events)


# What is left


async def test_nothing_is_left_of_who_has_gone(tmp_path: Path) -> None:
    ending = asyncio.Event()
    async with Server(tmp_path) as server:
        server.listen()
        await server.users.add("ann", "secret", admin=False)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(ending))
            services = server._services
            try:
                for _ in range(10):
                    async with Client(server.url, Credentials(username="ann", password="secret"), version="1",
                                      requests_per_s=None) as client:  # fmt: skip
                        await client.connected()
                        requests = [pb.RegisterQueueRequest(), pb.RegisterQueueRequest(queuename="ann's"),
                                    *(pb.WatchRequest(collectionname=f"things {n}", paths=[f"$.[?(@.n == {n})]"])
                                      for n in range(3))]  # fmt: skip
                        await asyncio.gather(*(ask(client, request) for request in requests * 100))
                        assert len(services.watches._of) == 1
                await until(lambda: not services.connections)
                await until(lambda: not services.queues._queues)
                assert not services.watches._of
                assert not services.watches._collections
                assert not services.queues._of
                assert services.queues._existing == {"ann's"}
                assert not services.queues._where
            finally:
                ending.set()


async def test_of_many_that_take_nothing_some_are_sent_away(hub: Hub, client: Client, things: str) -> None:
    seen = Seen()
    await client.watch(things, ["$.n"], seen)
    await client.watch(things, ["$.a.n"], seen)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(12):
            deaf = await stack.enter_async_context(line(hub.url, max_queue=1, close_timeout=0.1))
            await deaf.sign_in(hub)
            assert (await deaf.ask("watch", pb.WatchRequest(collectionname=things)))[0] == "watchreply"
        for number in range(25):  # 50 MB for each, which is not too much for one
            await client.insert_one(things, {"n": number, "text": "x" * 2_000_000})
        await until(lambda: len(seen.events) == 25)
        assert [event.document["n"] for event in seen.events] == list(range(25))
        assert 1 < len(await client.custom_command("getclients")) < 10
