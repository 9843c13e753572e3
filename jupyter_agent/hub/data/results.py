"""From the documents that match to the answer: order, page, projection, different values."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from functools import total_ordering
from itertools import islice
from typing import Any

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import Date, kind
from jupyter_agent.hub.data.expressions import MAX_PATH, compile_path
from jupyter_agent.hub.data.shapes import Shape as Projection
from jupyter_agent.hub.data.shapes import projection_of, weigh

__all__ = ["Order", "Projection", "distinct", "order_of", "page", "projection_of", "rank", "sort_key", "values_at"]

ASCENDING, DESCENDING = 1, -1
MAX_ORDER = 32
"""Fields of an order, as in MongoDB."""

MAX_BEST = 1000
"""Documents that are held without counting their bytes."""

MAX_SORTED = 128 << 20
"""Bytes, about, of the documents that are held while others are looked at."""

MAX_DISTINCT = 16 << 20
"""Bytes, about, of what `distinct` finds, as in MongoDB."""

Order = tuple[tuple[str, int], ...]
"""Pairs of a path and a direction, the most important first."""

Rank = tuple[Any, ...]
"""Sorts like the value it was made from does in MongoDB: null, numbers, texts, objects, lists, booleans, dates."""

EMPTY_LIST: Rank = (0,)
NULL: Rank = (1,)
NUMBER, TEXT, OBJECT, LIST, BOOLEAN, DATE = range(2, 8)
SCALARS: dict[type, int] = {type(None): 1, int: NUMBER, float: NUMBER, str: TEXT, bool: BOOLEAN}


def rank(value: Any) -> Rank:
    """Two values are equal to the database when their ranks are equal."""
    if (number := SCALARS.get(type(value))) is not None:
        return (number, value) if value is not None else NULL
    if isinstance(value, Date):
        return (DATE, value.ms)
    if isinstance(value, dict):
        items = ((name, rank(item)) for name, item in value.items())
        return (OBJECT, tuple((ranked[0], name, ranked) for name, ranked in items))
    return (LIST, tuple(rank(item) for item in value))


def order_of(value: object) -> Order:
    """An order out of what the client sent: a field's name or an object of names and 1 or -1.

    Raises `InvalidInput`.
    """
    if isinstance(value, str):
        return ((value, ASCENDING),) if value else ()
    if not isinstance(value, dict):
        raise InvalidInput(f"An order is a field's name or an object of names and 1 or -1, not {kind(value)}.")
    if len(value) > MAX_ORDER:
        raise InvalidInput(f"An order can have {MAX_ORDER} fields, not {len(value)}.")
    for name, direction in value.items():
        if len(name) > MAX_PATH:
            raise InvalidInput(f"A path can have {MAX_PATH} characters, not {len(name)}.")
        if direction not in (ASCENDING, DESCENDING) or isinstance(direction, bool):
            raise InvalidInput(f"The order of {name!r} must be 1 or -1.")
    return tuple((name, int(direction)) for name, direction in value.items())


def page(documents: Iterable[dict[str, Any]], order: Order, skip: int, top: int) -> list[dict[str, Any]]:
    """``top`` documents after the first ``skip``, in that order; without one as they come, and no more is read.

    Raises `InvalidInput` when more than `MAX_SORTED` has to be held for that.
    """
    if not order:
        return list(islice(documents, skip, skip + top))
    count = skip + top
    best = documents if count <= MAX_BEST else _weighed(documents, count)
    return heapq.nsmallest(count, best, key=sort_key(order))[skip:]


def _weighed(documents: Iterable[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """Pass documents on, of which so many are held. Raises `InvalidInput` when they are too much."""
    held = 0
    for number, document in enumerate(documents):
        if number < count:
            held += weigh(document)
            if held > MAX_SORTED:
                raise InvalidInput(
                    f"More than {MAX_SORTED >> 20} MiB would have to be sorted: ask for fewer documents with top."
                )
        yield document


def sort_key(order: Order) -> Callable[[dict[str, Any]], Any]:
    """A key function for `sorted`."""
    paths = [(path.split("."), direction) for path, direction in order]

    def key(document: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(_field_key(document, path, direction) for path, direction in paths)

    return key


def values_at(value: Any, path: list[str]) -> Iterator[Any]:
    """The values a path leads to: several where there are lists of objects on the way."""
    if not path:
        yield value
    elif isinstance(value, dict):
        if path[0] in value:
            yield from values_at(value[path[0]], path[1:])
    elif isinstance(value, list):
        if path[0].isdecimal() and int(path[0]) < len(value):
            yield from values_at(value[int(path[0])], path[1:])
        for item in value:
            if isinstance(item, dict):
                yield from values_at(item, path)


@total_ordering
class _Reversed:
    __slots__ = ("rank",)

    def __init__(self, rank: Rank) -> None:
        self.rank = rank

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and self.rank == other.rank

    def __lt__(self, other: _Reversed) -> bool:
        return other.rank < self.rank

    def __hash__(self) -> int:
        return hash(self.rank)


def _field_key(document: dict[str, Any], path: list[str], direction: int) -> Any:
    """Of several values the lowest counts, or the highest when the order is descending."""
    value: Any = document
    for name in path:
        if type(value) is list:
            break
        value = value.get(name) if type(value) is dict else None
    if type(value) is list:
        ranks = _ranks_at(document, path, 0)
        best = min(ranks) if direction == ASCENDING else max(ranks)
    else:
        best = rank(value)
    return best if direction == ASCENDING else _Reversed(best)


def _ranks_at(value: Any, path: list[str], index: int) -> Iterator[Rank]:
    """What a document is sorted by: of a list, every value in it; what is not there counts as null."""
    if isinstance(value, list):
        yield from _ranks_in(value, path, index)
    elif index == len(path):
        yield rank(value)
    elif isinstance(value, dict) and path[index] in value:
        yield from _ranks_at(value[path[index]], path, index + 1)
    else:
        yield NULL


def _ranks_in(values: list[Any], path: list[str], index: int) -> Iterator[Rank]:
    if index == len(path):
        yield from (rank(item) for item in values) if values else (EMPTY_LIST,)
    elif path[index].isdecimal() and int(path[index]) < len(values):
        yield from _ranks_at(values[int(path[index])], path, index + 1)
    else:
        for item in values or (None,):
            yield from _ranks_at(item, path, index) if isinstance(item, dict) else (NULL,)


def distinct(documents: Iterable[dict[str, Any]], field: str) -> list[Any]:
    """The different values of a field, as they first come; of a list, those in it.

    Raises `InvalidInput` when they are more than `MAX_DISTINCT` bytes.
    """
    names = compile_path(field, "distinct")
    found: dict[Rank, Any] = {}
    weight = 0
    for document in documents:
        for value in _each_value(document, names):
            if (ranked := rank(value)) not in found:
                found[ranked] = value
                weight += weigh(value)
                if weight > MAX_DISTINCT:
                    raise InvalidInput(f"The different values of {field!r} are more than {MAX_DISTINCT >> 20} MiB.")
    return list(found.values())


def _each_value(document: dict[str, Any], names: list[str]) -> Iterator[Any]:
    for value in values_at(document, names):
        if isinstance(value, list):
            yield from value
        else:
            yield value
