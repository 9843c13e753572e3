"""What the hub does with documents against what mingo does, with mongomock as a second vote."""

from __future__ import annotations

import json
from typing import Any

from jupyter_agent.hub.data.results import distinct
from tests.differential import made
from tests.differential.conftest import examples
from tests.differential.judge import (
    faults_of_filter,
    faults_of_pipeline,
    faults_of_projection,
    faults_of_sort,
    faults_of_update,
    matches,
    outcome,
)
from tests.differential.others import Mingo, Mongomock, Refused


@examples(documents=made.documents, query=made.queries())
def test_queries_find_what_mingo_finds(mingo: Mingo, documents: list[Any], query: Any) -> None:
    found = set(mingo.ask("find", documents=documents, query=query))
    for document in documents:
        if matches(query, document) != (document["_id"] in found):
            assert not list(faults_of_filter(mingo, document, query))


@examples(documents=made.documents, change=made.changes())
def test_updates_do_what_mingo_does(mingo: Mingo, documents: list[Any], change: Any) -> None:
    assert not [fault for document in documents for fault in faults_of_update(mingo, document, change)]


@examples(documents=made.documents, order=made.orders)
def test_sorts_are_mingos(mingo: Mingo, documents: list[Any], order: Any) -> None:
    assert not list(faults_of_sort(mingo, documents, {**order, "_id": 1}))


@examples(documents=made.documents, projection=made.projections)
def test_projections_are_mingos(mingo: Mingo, documents: list[Any], projection: Any) -> None:
    assert not [fault for document in documents for fault in faults_of_projection(mingo, document, projection)]


@examples(documents=made.documents, other=made.documents, stages=made.pipelines())
def test_aggregates_give_what_mingo_gives(mingo: Mingo, documents: list[Any], other: list[Any], stages: Any) -> None:
    assert not list(faults_of_pipeline(mingo, documents, other, stages))


@examples(documents=made.documents, field=made.paths.filter(lambda path: not path[-1].isdecimal()))
def test_distinct_gives_what_mongomock_gives(mingo: Mingo, documents: list[Any], field: str) -> None:
    found = distinct(documents, field)
    theirs = outcome(lambda: Mongomock().distinct(documents, field))
    assert isinstance(theirs, Refused) or {unordered(each) for each in found} == {unordered(each) for each in theirs}
    for value in found:
        assert any(matches({field: {"$eq": value}}, document) for document in documents)


def unordered(value: Any) -> str:
    """For mongomock objects are equal whatever the order of their fields, and true is 1; for MongoDB they are not."""
    return json.dumps(value, sort_keys=True, default=str).replace("true", "1").replace("false", "0")
