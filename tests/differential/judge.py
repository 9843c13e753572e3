"""Whether a difference between the hub and mingo is the hub's fault.

It is when mongomock does not vote for the hub and none of the known quirks of mingo explains it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from typing import Any

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.aggregates import compile_pipeline
from jupyter_agent.hub.data.documents import Date
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.results import order_of, page, projection_of
from jupyter_agent.hub.data.updates import check_update, updated
from tests.differential import quirks
from tests.differential.others import UNDEFINED, Mingo, Mongomock, Refused

Document = dict[str, Any]
MOCK = Mongomock()


def outcome(work: Callable[[], Any]) -> Any:
    """What comes out, or `Refused`."""
    try:
        return work()
    except InvalidInput as error:
        return Refused(str(error))
    except Refused as error:
        return error


def same(one: Any, other: Any) -> bool:
    """Equal, with booleans told from numbers; all refusals are."""
    if isinstance(one, Refused) or isinstance(other, Refused):
        return isinstance(one, Refused) and isinstance(other, Refused)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, float) or isinstance(other, float):
        numbers = not isinstance(one, bool | str) and not isinstance(other, bool | str)
        return numbers and isinstance(one, int | float) and isinstance(other, int | float) and abs(one - other) < 1e-9
    return type(one) is type(other) and bool(one == other)


def matches(query: Document, document: Document) -> bool:
    """Whether the hub finds it."""
    return compile_filter(query).matches(document)


def faults_of_filter(mingo: Mingo, document: Document, query: Document) -> Iterator[str]:
    """Why a difference about this query and document, which there is, is the hub's."""
    leaves = list(leaves_of(query))
    guilty = [leaf for leaf in leaves if differs(mingo, document, leaf)]
    if not guilty:
        yield f"Each part of {query} is the same for {document}, the whole is not."
    for leaf in guilty:
        ((path, condition),) = leaf.items()
        if not (is_voted_for(document, leaf) or is_known(mingo, document, path, condition)):
            yield f"{leaf} finds {document}: {matches(leaf, document)}; mingo does not agree."


def leaves_of(query: Document) -> Iterator[Document]:
    """The conditions with one operator each that a query consists of."""
    for name, value in query.items():
        if name in ("$and", "$or", "$nor"):
            for child in value:
                yield from leaves_of(child)
        elif isinstance(value, dict) and next(iter(value), "").startswith("$"):
            yield from _leaves_of(name, value)
        else:
            yield {name: value}


def _leaves_of(path: str, expression: Document) -> Iterator[Document]:
    for operator, operand in expression.items():
        if operator == "$not":
            yield from _leaves_of(path, operand)
        elif operator == "$regex":
            yield {path: {"$regex": operand, "$options": expression.get("$options", "")}}
        elif operator == "$all" and any(isinstance(each, dict) and "$elemMatch" in each for each in operand):
            for each in operand:
                yield {path: each}
        elif operator != "$options":
            yield {path: {operator: operand}}


def differs(mingo: Mingo, document: Document, query: Document) -> bool:
    """Whether mingo finds it when the hub does not, or the other way round."""
    found: list[str] = mingo.ask("find", documents=[document], query=query)
    return found != [document["_id"]] * matches(query, document)


def is_voted_for(document: Document, query: Document) -> bool:
    """Whether mongomock finds what the hub finds."""
    return same(outcome(lambda: MOCK.find([document], query)), [document["_id"]] * matches(query, document))


def is_known(mingo: Mingo, document: Document, path: str, condition: Any) -> bool:
    """Whether a quirk explains it, or one that shows in the elements which an $elemMatch looks at."""
    is_expression = isinstance(condition, dict) and next(iter(condition), "").startswith("$")
    operator, operand = next(iter(condition.items())) if is_expression else ("$eq", condition)
    if any(quirk(document, path, operator, operand) for quirk in quirks.FILTERS):
        return True
    return operator == "$elemMatch" and any(
        not list(faults_of_filter(mingo, part, query))
        for part, query in _elements(document, path, operand)
        if differs(mingo, part, query)
    )


def _elements(document: Document, path: str, operand: Document) -> Iterator[tuple[Document, Document]]:
    is_expression = next(iter(operand), "").startswith("$") and next(iter(operand)) not in ("$and", "$or", "$nor")
    for value in quirks.reached(document, path.split(".")):
        for item in value if isinstance(value, list) else ():
            if is_expression:
                yield {"_id": "e", "item": item}, {"item": operand}
            elif isinstance(item, dict):
                yield {**item, "_id": item.get("_id", "e")}, operand


def faults_of_update(mingo: Mingo, document: Document, change: Document) -> Iterator[str]:
    """Why a difference about this update is the hub's; nothing where there is no difference."""
    ((operator, fields),) = change.items()
    ours = outcome(lambda: checked_and_updated(document, change))
    theirs = outcome(lambda: without_holes(mingo.ask("update", document=document, change=change)))
    if same(ours, theirs) or same(ours, outcome(lambda: MOCK.update(document, change))):
        return
    known = any(quirk(document, operator, fields, ours, theirs) for quirk in quirks.UPDATES)
    if not known and not (operator == "$pull" and is_known_pull(mingo, document, fields)):
        yield f"{change} of {document}: {ours!r} here, {theirs!r} with mingo."


def is_known_pull(mingo: Mingo, document: Document, fields: Document) -> bool:
    """Whether a quirk of queries shows in an element that $pull looks at."""
    return any(
        not list(faults_of_filter(mingo, part, query))
        for path, operand in fields.items()
        for part, query in _elements(document, path, operand if isinstance(operand, dict) else {"$eq": operand})
        if differs(mingo, part, query)
    )


def checked_and_updated(document: Document, change: Document) -> Document:
    """What the hub makes of it."""
    check_update(change)
    return updated(document, change, Date(0))


def without_holes(value: Any) -> Any:
    """JavaScript's lists may have holes, where the hub and MongoDB have null."""
    if isinstance(value, list):
        return [None if item == UNDEFINED else without_holes(item) for item in value]
    return {name: without_holes(item) for name, item in value.items()} if isinstance(value, dict) else value


def faults_of_sort(mingo: Mingo, documents: list[Document], order: dict[str, int]) -> Iterator[str]:
    """Why a difference about this order is the hub's: first of all, two documents by one key."""
    asked = {"skip": 0, "limit": len(documents)}
    if same(
        page(documents, order_of(order), 0, len(documents)), mingo.ask("page", documents=documents, sort=order, **asked)
    ):
        return
    guilty = 0
    for path, direction in order.items():
        for pair in combinations(documents, 2):
            key = {path: direction, "_id": 1}
            ours = page(pair, order_of(key), 0, 2)
            if same(ours, mingo.ask("page", documents=pair, sort=key, skip=0, limit=2)):
                continue
            guilty += 1
            if not is_voted_for_sort(list(pair), key) and not is_known_sort(list(pair), key):
                yield f"By {path} ({direction}) {ours} comes out."
    if not guilty and not is_voted_for_sort(documents, order) and not is_known_sort(documents, order):
        yield f"Each two of {documents} are in the same order by each key of {order}, all are not."


def is_voted_for_sort(documents: list[Document], order: dict[str, int]) -> bool:
    """Whether mongomock has the hub's order."""
    ours = page(documents, order_of(order), 0, len(documents))
    return same(ours, outcome(lambda: MOCK.page(documents, order, 0, len(documents), None)))


def is_known_sort(documents: list[Document], order: dict[str, int]) -> bool:
    """Whether a quirk shows in one of the keys."""
    return any(quirk(documents, path) for path in order for quirk in quirks.SORTS)


def faults_of_projection(mingo: Mingo, document: Document, projection: dict[str, int]) -> Iterator[str]:
    """Why a difference about this projection is the hub's."""
    ours = projection_of(projection)(document)
    asked = {"documents": [document], "projection": projection, "skip": 0, "limit": 1}
    theirs = outcome(lambda: without_holes(mingo.ask("page", **asked))[0])
    if same(ours, theirs) or same(ours, outcome(lambda: MOCK.page([document], {"_id": 1}, 0, 1, projection)[0])):
        return
    if not any(quirk(document, path, theirs) for path in projection for quirk in quirks.PROJECTIONS):
        yield f"{projection} of {document}: {ours} here, {theirs!r} with mingo."


def faults_of_pipeline(
    mingo: Mingo, documents: list[Document], other: list[Document], stages: list[Any]
) -> Iterator[str]:
    """Why a difference about one of the stages is the hub's, or one between the stages and the whole."""
    current = documents
    for stage in stages:
        result = outcome(partial(run, [stage], current, other))
        yield from faults_of_stage(mingo, current, other, stage, result)
        if isinstance(result, Refused):
            return
        current = result
    if not same(current, run(stages, documents, other)):
        yield f"{stages} together give another result for {documents} than one after another."


def run(stages: list[Any], documents: list[Document], other: list[Document]) -> list[Document]:
    """What the hub makes of it."""
    pipeline = compile_pipeline(stages)
    found = [each for each in documents if pipeline.first is None or pipeline.first.matches(each)]
    return pipeline.run(found, {"other": other}.__getitem__)


def faults_of_stage(
    mingo: Mingo, documents: list[Document], other: list[Document], stage: Document, ours: Any
) -> Iterator[str]:
    """The same for one stage."""
    ((name, value),) = stage.items()
    if name == "$match":
        for document in documents:
            if "_id" in document and differs(mingo, document, value):
                yield from faults_of_filter(mingo, document, value)
    elif name == "$sort":
        yield from faults_of_sort(mingo, documents, value)
    else:
        theirs = outcome(lambda: defined(mingo.ask("aggregate", documents=documents, other=other, stages=[stage])))
        votes = (theirs, outcome(lambda: MOCK.aggregate(documents, other, [stage])))
        if any(same(unordered(name, ours), unordered(name, vote)) for vote in votes):
            return
        if not any(quirk(documents, name, value, theirs) for quirk in quirks.STAGES):
            yield f"{stage} of {documents}: {ours!r} here, {theirs!r} with mingo."


def defined(value: Any) -> Any:
    """A field that is undefined is none, in a list it is null, as BSON has it."""
    if isinstance(value, list):
        return [None if item == UNDEFINED else defined(item) for item in value]
    if isinstance(value, dict):
        return {name: defined(item) for name, item in value.items() if item != UNDEFINED}
    return value


def unordered(name: str, found: Any) -> Any:
    """Groups come, and sets are, in any order."""
    if name != "$group" or isinstance(found, Refused):
        return found
    return sorted(({field: _sorted(field, item) for field, item in each.items()} for each in found), key=_text)


def _sorted(field: str, item: Any) -> Any:
    return sorted(item, key=_text) if isinstance(item, list) and field != "_id" else item


def _text(value: Any) -> str:
    """JavaScript has names that are numbers first, so the order of fields says nothing."""
    return json.dumps(value, sort_keys=True, default=str)
