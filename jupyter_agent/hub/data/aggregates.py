"""Aggregates: a list of stages, through which documents pass one after another.

Stages pass documents on as they come, but for those that need all of them (``$sort``, ``$group``, and ``$lookup`` the
other collection). What these hold, and the result, is bounded by `MAX_HELD`; how many documents ``$unwind`` and
``$lookup`` make, by `MAX_MADE`. Documents are never changed, new ones are made.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import kind
from jupyter_agent.hub.data.expressions import MISSING, Document, compile_path
from jupyter_agent.hub.data.filters import Filter, compared, compile_filter
from jupyter_agent.hub.data.groups import compile_group
from jupyter_agent.hub.data.results import MAX_BEST, Order, order_of, rank, sort_key, values_at
from jupyter_agent.hub.data.shapes import MAX_WEIGHT, Shape, add_fields, project, put, unset, weigh

MAX_STAGES = 100

MAX_HELD = 100 << 20
"""Bytes, about, that the stages of one run may hold, as MongoDB allows each stage."""

MAX_MADE = 5_000_000
"""Documents that ``$unwind`` and ``$lookup`` may make in one run."""

Lookup = Callable[[str], Iterable[Document]]
"""Gives the documents of another collection."""


class Run:
    """One run of a pipeline: where other collections come from, and how much it holds."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self._held = 0
        self._made = 0

    def hold(self, value: Any) -> None:
        """Count a value that is kept. Raises `InvalidInput` when it is too much."""
        self._held += weigh(value)
        if self._held > MAX_HELD:
            raise InvalidInput(
                f"The aggregate holds more than {MAX_HELD >> 20} MiB at once: "
                "leave documents out with $match, or fields with $project, before they are sorted or grouped."
            )

    def holding(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Pass them on and count them."""
        for document in documents:
            self.hold(document)
            yield document

    def make(self, count: int) -> None:
        """Count documents that come from others. Raises `InvalidInput` when they are too many."""
        self._made += count
        if self._made > MAX_MADE:
            raise InvalidInput(f"The aggregate makes more than {MAX_MADE:,} documents with $unwind or $lookup.")


Stage = Callable[[Iterator[Document], Run], Iterator[Document]]


@dataclass(frozen=True)
class Pipeline:
    """Compiled stages. ``first`` is what a leading ``$match`` asks for, ``None`` where there is none."""

    first: Filter | None
    stages: tuple[Stage, ...]

    def run(self, documents: Iterable[Document], lookup: Lookup) -> list[Document]:
        """What comes out when ``documents``, all that match ``first``, go in; ``lookup`` reads another collection.

        Blocks. Raises `InvalidInput` for documents that a stage cannot take, and for more than can be held.
        """
        run = Run(lookup)
        stream = iter(documents)
        for stage in self.stages:
            stream = stage(stream, run)
        return list(run.holding(stream))


def compile_pipeline(stages: object) -> Pipeline:
    """Raises `InvalidInput` for what is no pipeline, naming a stage or an operator that is not offered."""
    if not isinstance(stages, list):
        raise InvalidInput(f"An aggregate is a JSON array of stages, not {kind(stages)}.")
    if len(stages) > MAX_STAGES:
        raise InvalidInput(f"An aggregate can have {MAX_STAGES} stages, not {len(stages)}.")
    named = [_named(stage) for stage in stages]
    first = compile_filter(named[0][1]) if named and named[0][0] == "$match" else None
    rest = named[1:] if first else named
    return Pipeline(first, tuple(_compiled(rest, index) for index in range(len(rest))))


def _named(stage: Any) -> tuple[str, Any]:
    if not isinstance(stage, dict) or len(stage) != 1:
        raise InvalidInput("A stage of an aggregate is an object with one name in it, such as $match.")
    ((name, value),) = stage.items()
    if name not in STAGES:
        raise InvalidInput(f"The stage {name} is not offered by this hub.")
    return name, value


def _compiled(stages: list[tuple[str, Any]], index: int) -> Stage:
    name, value = stages[index]
    return _sort(value, _top(stages[index + 1 : index + 3])) if name == "$sort" else STAGES[name](value)


def _top(following: list[tuple[str, Any]]) -> int | None:
    """How many documents are needed of a sorted stream, by the stages behind it; ``None``: all."""
    skipped = 0
    if following and following[0][0] == "$skip":
        skipped = _count_of(following.pop(0)[1], "$skip", 0)
    return skipped + _count_of(following[0][1], "$limit", 1) if following and following[0][0] == "$limit" else None


def _match(value: Any) -> Stage:
    matches = compile_filter(value).matches
    return lambda documents, _run: filter(matches, documents)


def _sort(value: Any, top: int | None = None) -> Stage:
    order: Order = order_of(value) if isinstance(value, dict) else ()
    if not order:
        raise InvalidInput("$sort takes an object of at least one name and 1 or -1.")
    for path, _ in order:
        compile_path(path, "$sort")
    key = sort_key(order)

    def sort(documents: Iterator[Document], run: Run) -> Iterator[Document]:
        if top is not None and top <= MAX_BEST:
            yield from heapq.nsmallest(top, documents, key=key)
        else:
            yield from sorted(run.holding(documents), key=key)

    return sort


def _skip(value: Any) -> Stage:
    count = _count_of(value, "$skip", 0)
    return lambda documents, _run: islice(documents, count, None)


def _limit(value: Any) -> Stage:
    count = _count_of(value, "$limit", 1)
    return lambda documents, _run: islice(documents, count)


def _count_of(value: Any, what: str, least: int) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or value != int(value) or not least <= value < 2**63:
        raise InvalidInput(f"{what} takes a whole number from {least}.")
    return int(value)


def _count(value: Any) -> Stage:
    if not isinstance(value, str) or not value or value.startswith("$") or "." in value:
        raise InvalidInput("$count takes the name of the field that gets the number, without a dot or $ in it.")

    def count(documents: Iterator[Document], _run: Run) -> Iterator[Document]:
        if number := sum(1 for _ in documents):
            yield {value: number}

    return count


def _shaping(make: Callable[[Any], Shape]) -> Callable[[Any], Stage]:
    def stage(value: Any) -> Stage:
        shape = make(value)

        def shaped(documents: Iterator[Document], _run: Run) -> Iterator[Document]:
            for document in documents:
                new = shape(document)
                weigh(new)
                yield new

        return shaped

    return stage


def _unwind(value: Any) -> Stage:
    given = value if isinstance(value, dict) else {"path": value}
    for name in given.keys() - {"path", "includeArrayIndex", "preserveNullAndEmptyArrays"}:
        raise InvalidInput(f"The option {name!r} of $unwind is not offered by this hub.")
    path = given.get("path")
    if not isinstance(path, str) or not path.startswith("$"):
        raise InvalidInput('$unwind takes a path that begins with $, such as "$tags".')
    names = compile_path(path[1:], "$unwind")
    index_names = compile_path(given["includeArrayIndex"], "$unwind") if "includeArrayIndex" in given else None
    if not isinstance(preserve := given.get("preserveNullAndEmptyArrays", False), bool):
        raise InvalidInput("preserveNullAndEmptyArrays of $unwind takes true or false.")

    def unwind(documents: Iterator[Document], run: Run) -> Iterator[Document]:
        for document in documents:
            for item, index in _unwound(_inside(document, names), preserve=preserve):
                run.make(1)
                new = document if item is document else _replaced(document, names, item)
                yield put(new, index_names, index) if index_names else new

    return unwind


def _unwound(value: Any, *, preserve: bool) -> Iterator[tuple[Any, int | None]]:
    """What stands in the place of ``value`` in each new document, with its index."""
    if isinstance(value, list) and value:
        yield from ((item, index) for index, item in enumerate(value))
    elif value is None or value is MISSING or isinstance(value, list):
        if preserve:
            yield (value if value is None else MISSING), None
    else:
        yield value, None


def _inside(document: Any, names: list[str]) -> Any:
    """What a path leads to through objects alone."""
    for name in names:
        if not isinstance(document, dict):
            return MISSING
        document = document.get(name, MISSING)
    return document


def _replaced(document: Document, names: list[str], item: Any) -> Document:
    """A document with another value where a path through objects leads to."""
    name, *rest = names
    if rest:
        inner = document.get(name)
        return {**document, name: _replaced(inner, rest, item)} if isinstance(inner, dict) else document
    if item is MISSING:
        return {other: value for other, value in document.items() if other != name}
    return {**document, name: item}


def _lookup(value: Any) -> Stage:
    if not isinstance(value, dict):
        raise InvalidInput(f"$lookup takes an object, not {kind(value)}.")
    for name in value.keys() - {"from", "localField", "foreignField", "as"}:
        raise InvalidInput(f"The option {name!r} of $lookup is not offered by this hub.")
    if not isinstance(collection := value.get("from"), str) or not collection:
        raise InvalidInput("$lookup takes the name of a collection in from.")
    local = compile_path(value.get("localField"), "localField of $lookup")
    foreign = ".".join(compile_path(value.get("foreignField"), "foreignField of $lookup"))
    names = compile_path(value.get("as"), "as of $lookup")

    def lookup(documents: Iterator[Document], run: Run) -> Iterator[Document]:
        index: _Index | None = None
        for document in documents:
            if index is None:
                index = _Index(run.holding(run.lookup(collection)), foreign)
            found, weight = index.find(_joined_on(document, local))
            run.make(len(found))
            if weight > MAX_WEIGHT:
                raise InvalidInput(f"$lookup finds more than {MAX_WEIGHT >> 20} MiB for one document.")
            yield put(document, names, found)

    return lookup


def _joined_on(document: Document, path: list[str]) -> list[Any]:
    """The values to look for: of a list, those in it; null where nothing is there."""
    found = []
    for value in values_at(document, path):
        found += value if isinstance(value, list) else [value]
    return found or [None]


class _Index:
    """Documents by the values that an equality on one of their fields would match."""

    def __init__(self, documents: Iterable[Document], path: str) -> None:
        self._documents: list[tuple[Document, int]] = []
        self._positions: dict[Any, list[int]] = {}
        values_of = compared(path)
        for position, document in enumerate(documents):
            self._documents.append((document, weigh(document)))
            for ranked in {rank(value) for value in values_of(document)}:
                self._positions.setdefault(ranked, []).append(position)

    def find(self, values: list[Any]) -> tuple[list[Document], int]:
        """Those that have one of these values, in their order, and their weight together."""
        positions = {position for value in values for position in self._positions.get(rank(value), ())}
        found = [self._documents[position] for position in sorted(positions)]
        return [document for document, _ in found], sum(weight for _, weight in found)


def _group(value: Any) -> Stage:
    group = compile_group(value)
    return lambda documents, run: group(documents, run.hold)


STAGES: dict[str, Callable[[Any], Stage]] = {
    "$match": _match,
    "$sort": _sort,
    "$skip": _skip,
    "$limit": _limit,
    "$count": _count,
    "$project": _shaping(project),
    "$addFields": _shaping(add_fields),
    "$set": _shaping(lambda value: add_fields(value, "$set")),
    "$unset": _shaping(unset),
    "$unwind": _unwind,
    "$lookup": _lookup,
    "$group": _group,
}
