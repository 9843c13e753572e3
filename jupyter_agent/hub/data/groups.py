"""The stage ``$group``: documents with the same key, and what is gathered from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import kind
from jupyter_agent.hub.data.expressions import MISSING, Document, Expression, compile_expression
from jupyter_agent.hub.data.results import rank

Hold = Callable[[Any], None]
"""Told of every value that is kept; raises `InvalidInput` when that is too much."""


class Accumulator(Protocol):
    """What is gathered in one field of one group."""

    def add(self, value: Any) -> bool:
        """Take in the value of one more document, `MISSING` where it has none; whether one more is kept now."""

    def result(self) -> Any:
        """What comes out."""


def compile_group(value: Any) -> Callable[[Iterable[Document], Hold], Iterator[Document]]:
    """Raises `InvalidInput` for what is no specification of a group, naming an accumulator that is not offered."""
    if not isinstance(value, dict) or "_id" not in value:
        raise InvalidInput("$group takes an object with an _id: an expression, or null for one group of all.")
    key = compile_expression(value["_id"])
    fields = {name: _field(name, item) for name, item in value.items() if name != "_id"}

    def group(documents: Iterable[Document], hold: Hold) -> Iterator[Document]:
        groups: dict[Any, tuple[Any, list[Accumulator]]] = {}
        for document in documents:
            id = key(document)  # noqa: A001 - what it becomes
            id = None if id is MISSING else id  # noqa: A001 - the same
            ranked = rank(id)
            if (found := groups.get(ranked)) is None:
                hold(id)
                found = groups[ranked] = (id, [make() for make, _ in fields.values()])
            for accumulator, (_, expression) in zip(found[1], fields.values(), strict=True):
                if accumulator.add(value := expression(document)):
                    hold(value)
        for id, accumulators in groups.values():  # noqa: A001 - the same
            yield {"_id": id, **{name: each.result() for name, each in zip(fields, accumulators, strict=True)}}

    return group


def _field(name: str, value: Any) -> tuple[Callable[[], Accumulator], Expression]:
    if not name or "." in name or name.startswith("$"):
        raise InvalidInput(f"A field of $group cannot have the name {name!r}.")
    if not isinstance(value, dict) or len(value) != 1:
        raise InvalidInput(f"The field {name!r} of $group must be an object with one accumulator, such as {{$sum: 1}}.")
    ((operator, operand),) = value.items()
    if operator not in ACCUMULATORS:
        raise InvalidInput(f"The accumulator {operator} is not offered by this hub.")
    if isinstance(operand, list):
        raise InvalidInput(f"{operator} in $group takes one expression, not {kind(operand)}.")
    return ACCUMULATORS[operator], compile_expression(operand)


class _Sum:
    """Whole numbers exactly, decimal fractions with what rounding took away (Neumaier): order hardly matters."""

    def __init__(self) -> None:
        self.count = 0
        self._whole = 0
        self._fraction = 0.0
        self._lost = 0.0

    def add(self, value: Any) -> bool:
        if isinstance(value, int) and not isinstance(value, bool):
            self.count += 1
            self._whole += value
        elif isinstance(value, float):
            self.count += 1
            self._add_fraction(value)
        return False

    def _add_fraction(self, value: float) -> None:
        total = self._fraction + value
        larger, smaller = (self._fraction, value) if abs(self._fraction) >= abs(value) else (value, self._fraction)
        self._lost += (larger - total) + smaller
        self._fraction = total

    def result(self) -> int | float:
        whole = self._whole if -(2**63) <= self._whole < 2**63 else float(self._whole)
        if not self._fraction and not self._lost:
            return whole
        total = self._fraction + whole
        return total + self._lost if math.isfinite(total) else total


class _Average(_Sum):
    def result(self) -> Any:
        return super().result() / self.count if self.count else None


class _First:
    def __init__(self) -> None:
        self._value: Any = None
        self._is_set = False

    def add(self, value: Any) -> bool:
        if self._is_set:
            return False
        self._value, self._is_set = value, True
        return True

    def result(self) -> Any:
        return None if self._value is MISSING else self._value


class _Last:
    def __init__(self) -> None:
        self._value: Any = None
        self._is_set = False

    def add(self, value: Any) -> bool:
        self._value, was_set, self._is_set = value, self._is_set, True
        return not was_set

    def result(self) -> Any:
        return None if self._value is MISSING else self._value


class _Lowest:
    """The lowest value; null and nothing do not count."""

    def __init__(self) -> None:
        self._ranked: Any = None
        self._value: Any = None

    def add(self, value: Any) -> bool:
        if value is None or value is MISSING:
            return False
        ranked, is_first = rank(value), self._ranked is None
        if is_first or self._precedes(ranked, self._ranked):
            self._ranked, self._value = ranked, value
        return is_first

    def result(self) -> Any:
        return self._value

    def _precedes(self, one: Any, other: Any) -> bool:
        return bool(one < other)


class _Highest(_Lowest):
    def _precedes(self, one: Any, other: Any) -> bool:
        return bool(one > other)


class _List:
    """All values; nothing is left out, null is not."""

    def __init__(self) -> None:
        self._values: list[Any] = []

    def add(self, value: Any) -> bool:
        if value is MISSING:
            return False
        self._values.append(value)
        return True

    def result(self) -> list[Any]:
        return self._values


class _Set:
    """Each value once, as it first came."""

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}

    def add(self, value: Any) -> bool:
        if value is MISSING or (ranked := rank(value)) in self._values:
            return False
        self._values[ranked] = value
        return True

    def result(self) -> list[Any]:
        return list(self._values.values())


ACCUMULATORS: dict[str, Callable[[], Accumulator]] = {
    "$sum": _Sum,
    "$avg": _Average,
    "$min": _Lowest,
    "$max": _Highest,
    "$first": _First,
    "$last": _Last,
    "$push": _List,
    "$addToSet": _Set,
}
