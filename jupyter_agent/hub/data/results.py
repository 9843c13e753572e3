"""From the documents that match to the answer: order, page, projection."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import total_ordering
from itertools import islice
from typing import Any

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import Date, kind

ASCENDING, DESCENDING = 1, -1
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
    for name, direction in value.items():
        if direction not in (ASCENDING, DESCENDING) or isinstance(direction, bool):
            raise InvalidInput(f"The order of {name!r} must be 1 or -1.")
    return tuple((name, int(direction)) for name, direction in value.items())


def page(documents: Iterable[dict[str, Any]], order: Order, skip: int, top: int) -> list[dict[str, Any]]:
    """``top`` documents after the first ``skip``, in that order; without one as they come, and no more is read."""
    if not order:
        return list(islice(documents, skip, skip + top))
    return heapq.nsmallest(skip + top, documents, key=sort_key(order))[skip:]


def sort_key(order: Order) -> Callable[[dict[str, Any]], Any]:
    """A key function for `sorted`."""
    paths = [(path.split("."), direction) for path, direction in order]

    def key(document: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(_field_key(list(values_at(document, path)), direction) for path, direction in paths)

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


def _field_key(values: list[Any], direction: int) -> Any:
    """Of several values the lowest counts, or the highest when the order is descending."""
    ranks = [each for value in values for each in _ranks(value)] or [NULL]
    return min(ranks) if direction == ASCENDING else _Reversed(max(ranks))


def _ranks(value: Any) -> list[Rank]:
    if isinstance(value, list):
        return [rank(item) for item in value] or [EMPTY_LIST]
    return [rank(value)]


Projection = Callable[[dict[str, Any]], dict[str, Any]]


def projection_of(value: Mapping[str, Any]) -> Projection:
    """A projection out of what the client sent: an object of paths and 1 or 0, all the same but for ``_id``.

    Raises `InvalidInput`.
    """
    for path, choice in value.items():
        if path.startswith("$") or "" in path.split("."):
            raise InvalidInput(f"The projection cannot name {path!r}.")
        if choice not in (0, 1) or not isinstance(choice, int | float):
            raise InvalidInput(f"The projection of {path!r} must be 1 or 0.")
    choices = {bool(choice) for path, choice in value.items() if path != "_id"}
    if len(choices) > 1:
        raise InvalidInput("A projection either includes fields or excludes fields, not both.")
    including = choices.pop() if choices else bool(value.get("_id", 0))
    tree = _tree({path: None for path in value if path != "_id" or bool(value["_id"]) == including})
    if including and value.get("_id", 1):
        tree["_id"] = {}
    if not value:
        return lambda document: document
    return lambda document: _projected(document, tree, including=including)


def _tree(paths: Iterable[str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in paths:
        branch = tree
        for name in path.split("."):
            branch = branch.setdefault(name, {})
    return tree


def _projected(value: Any, tree: dict[str, Any], *, including: bool) -> Any:
    if isinstance(value, list):
        kept = value if not including else [item for item in value if isinstance(item, dict | list)]
        return [_projected(item, tree, including=including) for item in kept]
    if not isinstance(value, dict):
        return value
    shown = {}
    for name, item in value.items():
        branch = tree.get(name)
        if branch is None:
            if not including:
                shown[name] = item
        elif branch:
            if not including or isinstance(item, dict | list):
                shown[name] = _projected(item, branch, including=including)
        elif including:
            shown[name] = item
    return shown
