"""Work items against a small model of what they are to do, with a clock that only the test moves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_agent.hub import workitem_queues, workitems
from jupyter_agent.hub.attachments import Given, Kept, documents_of, entries_of
from jupyter_agent.hub.callers import SYSTEM, Caller
from jupyter_agent.hub.data import due
from jupyter_agent.hub.data.documents import Date, new_id
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.store import MIGRATIONS, Documents
from jupyter_agent.hub.workitems import NewItem, Update

ANN = Caller(new_id(), "Ann", "ann")
MAXRETRIES, RETRYDELAY_S, INITIALDELAY_S = 2, 7, 2
QUEUES = ("main", "failed")
NAMES = ("a", "b", "c")


@dataclass
class Item:
    """What the model knows of an item."""

    id: str
    queue: str
    priority: int
    due_s: int | None
    order: int
    state: str = "new"
    retries: int = 0
    user: str | None = None
    files: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass
class Model:
    """The rules, once more and as short as they can be."""

    items: list[Item] = field(default_factory=list)
    now_s: int = 1_000_000
    born: int = 0

    def push(self, id: str, queue: str, priority: int, due_s: int | None, files: list[tuple[str, bytes]]) -> None:  # noqa: A002
        self.born += 1
        when = self.now_s + INITIALDELAY_S if due_s is None else due_s
        self.items.append(Item(id, queue, priority, when, self.born, files=files))

    def pop(self, queue: str) -> Item | None:
        ready = [item for item in self.items if item.queue == queue and item.state == "new"]
        ready = [item for item in ready if item.due_s is not None and item.due_s <= self.now_s]
        if not ready:
            return None
        best = min(ready, key=lambda item: (item.priority, item.due_s, item.order))
        best.state, best.due_s, best.user = "processing", None, ANN.name
        return best

    def update(self, item: Item, state: str, *, business: bool, force: bool, due_s: int | None) -> bool:
        """Whether a copy goes to the queue of failures."""
        before = item.state
        if state == "retry" and not business and (force or item.retries + 1 < MAXRETRIES):
            item.state, item.retries, item.user = "new", item.retries + 1, None
            item.due_s = self.now_s + RETRYDELAY_S if due_s is None else due_s
            return False
        item.state = "failed" if state == "retry" else state or item.state
        if item.state != "new":
            item.due_s = None
        elif due_s is not None:
            item.due_s = due_s
        return item.queue == "main" and item.state == "failed" != before


@dataclass
class World:
    """The model beside the real thing."""

    connection: sqlite3.Connection
    documents: Documents
    model: Model = field(default_factory=Model)
    contents: dict[str, bytes] = field(default_factory=dict)

    @property
    def now(self) -> Date:
        return Date(1000 * self.model.now_s)

    def queue(self, name: str) -> dict[str, Any]:
        return workitem_queues.usable(self.documents, ANN, name, "")

    def kept(self, files: list[tuple[str, bytes]]) -> list[Kept]:
        made = [Kept(new_id(), name, len(data), "") for name, data in files]
        self.contents |= {kept.id: data for kept, (_, data) in zip(made, files, strict=True)}
        return made

    def push(self, queue: str, priority: int, due_s: int | None, files: list[tuple[str, bytes]]) -> None:
        item = NewItem(priority=priority, nextrun=None if due_s is None else Date(1000 * due_s))
        made = workitems.push(self.documents, ANN, self.queue(queue), item, self.kept(files), now=self.now)
        self.model.push(made["_id"], queue, priority, due_s, list(files))

    def pop(self, queue: str) -> None:
        popped = workitems.pop(self.documents, ANN, self.queue(queue), now=self.now)
        expected = self.model.pop(queue)
        assert (popped and popped["_id"]) == (expected and expected.id)

    def update(self, number: int, state: str, *, business: bool, force: bool, due_s: int | None,
               files: list[tuple[str, bytes]]) -> None:  # fmt: skip
        if not self.model.items:
            return
        item = self.model.items[number % len(self.model.items)]
        fields: dict[str, Any] = {"errortype": "business"} if business else {}
        update = Update(
            state=state,
            fields=fields,
            nextrun=None if due_s is None else Date(1000 * due_s),
            ignores_maxretries=force,
            files=tuple(Given(name, data=data) for name, data in files),
        )
        step = workitems.prepare(self.documents, ANN, item.id, update, now=self.now)
        assert workitems.prepare(self.documents, ANN, item.id, update, now=self.now) == step
        copied = self.model.update(item, state, business=business, force=force, due_s=due_s)
        assert (step.target is not None) == copied
        named = {name for name, _ in files}
        item.files = [each for each in item.files if each[0] not in named] + [each for each in files if each[1]]
        kept = self.kept([(each.name, each.data) for each in step.files.comes])
        taken = [(entry["filename"], self.contents[entry["_id"]]) for entry in step.own_files]
        copies = self.kept([*taken, *((each.name, self.contents[each.id]) for each in kept)]) if copied else []
        before = set(self.ids())
        workitems.carry_out(self.documents, ANN, step, kept, copies, now=self.now)
        if copied:
            (new,) = set(self.ids()) - before
            self.model.push(new, "failed", item.priority, None, list(item.files))

    def delete(self, number: int) -> None:
        if self.model.items:
            item = self.model.items.pop(number % len(self.model.items))
            workitems.delete_item(self.documents, ANN, item.id)

    def ids(self) -> list[str]:
        return [item["_id"] for item in self.documents.find("workitems", compile_filter({}))]

    def check(self) -> None:
        """Both agree on every item, and every file on its item."""
        found = {item["_id"]: item for item in self.documents.find("workitems", compile_filter({}))}
        assert found.keys() == {item.id for item in self.model.items}
        files: set[str] = set()
        for item in self.model.items:
            seen = found[item.id]
            nextrun = seen["nextrun"].ms // 1000 if "nextrun" in seen else None
            assert (seen["state"], seen["retries"], seen.get("username")) == (item.state, item.retries, item.user)
            assert (seen["wiq"], seen["priority"], nextrun) == (item.queue, item.priority, item.due_s)
            entries = [entry["_id"] for entry in entries_of(seen)]
            assert [
                (file["filename"], self.contents[file["_id"]]) for file in documents_of(self.documents, seen)
            ] == item.files
            assert len(entries) == len(item.files)
            files |= set(entries)
        assert {file["_id"] for file in self.documents.find("fs.files", compile_filter({}))} == files


@contextmanager
def world() -> Iterator[World]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for migrate in MIGRATIONS:
        migrate(connection)
    documents = Documents(connection)
    fields = {"maxretries": MAXRETRIES, "retrydelay": RETRYDELAY_S, "initialdelay": INITIALDELAY_S}
    workitem_queues.add(documents, ANN, {**fields, "name": "failed"}, with_role=False)
    workitem_queues.add(documents, ANN, {**fields, "name": "main", "failed_wiq": "failed"}, with_role=False)
    yield World(connection, documents)
    connection.close()


queues, numbers = st.sampled_from(QUEUES), st.integers(0, 2)
times = st.none() | st.integers(999_990, 1_000_040)
files = st.lists(
    st.tuples(st.sampled_from(NAMES), st.binary(min_size=1, max_size=2)), max_size=2, unique_by=lambda file: file[0]
)
changes = st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=2)), max_size=2, unique_by=lambda file: file[0])
rarely = st.sampled_from([False, False, False, True])
push = st.tuples(st.just("push"), queues, st.integers(-1, 3), times, files)
pop = st.tuples(st.just("pop"), queues)
update = st.tuples(
    st.just("update"), numbers, st.sampled_from(["successful", "failed", "processing", "retry", "retry", ""]),
    rarely, rarely, times, changes,
)  # fmt: skip
delete = st.tuples(st.just("delete"), numbers)
wait = st.tuples(st.just("wait"), st.integers(1, 10))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(push, push, pop, pop, update, update, delete, wait), min_size=15, max_size=40))
def test_items_do_what_the_model_does(steps: list[tuple[Any, ...]]) -> None:
    with world() as tried:
        for name, *values in steps:
            if name == "wait":
                tried.model.now_s += values[0]
            elif name == "update":
                number, state, business, force, due_s, given_files = values
                tried.update(number, state, business=business, force=force, due_s=due_s, files=given_files)
            else:
                getattr(tried, name)(*values)
        tried.check()


def test_the_next_item_is_found_without_sorting_and_without_walking_over_what_is_not_due() -> None:
    with world() as tried:
        queue = tried.queue("main")
        for number in range(2000):
            workitems.push(
                tried.documents, SYSTEM, queue, NewItem(priority=number % 3, nextrun=Date(10**13)), [], now=tried.now
            )
        workitems.push(
            tried.documents, SYSTEM, queue, NewItem(name="it", priority=2, nextrun=Date(5)), [], now=tried.now
        )
        statements: list[str] = []
        tried.connection.set_trace_callback(statements.append)
        found = tried.documents.next_due(queue["_id"], tried.now)
        tried.connection.set_trace_callback(None)
        assert found is not None
        assert found["name"] == "it"
        searches = [statement for statement in statements if due.PRIORITY in statement]
        assert len(searches) <= 6  # a step or two for each priority
        for statement in searches:
            plan = " ".join(row[3] for row in tried.connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
            assert "_due" in plan
            assert "TEMP B-TREE" not in plan


def test_an_update_that_was_overtaken_is_decided_anew() -> None:
    with world() as tried:
        tried.push("main", 1, 0, [("a", b"1")])
        (item,) = tried.ids()
        update_ = Update(state="failed")
        step = workitems.prepare(tried.documents, ANN, item, update_, now=tried.now)
        for change in (
            lambda: tried.pop("main"),
            lambda: workitem_queues.change(
                tried.documents, ANN, "", {"name": "failed", "initialdelay": 9}, with_role=False
            ),
        ):
            change()
            again = workitems.prepare(tried.documents, ANN, item, update_, now=tried.now)
            assert again != step
            step = replace(again)
