"""Update operators: a document and an update give the new document.

Written by hand, since no library of today does this right for nested lists: of the candidates one destroys lists, one
loses empty objects, one stores texts for objects. Nothing here touches the store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import MAX_DEPTH, Date, copied, kind, with_stored_names
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.results import rank

MAX_GAP = 1000
"""How far behind a list's end an element may be set; what is between becomes null."""

Document = dict[str, Any]
Container = dict[str, Any] | list[Any]
MISSING = object()


def updated(document: Document, update: Document, now: Date) -> Document:
    """A new document: ``document`` after ``update``, which `check_update` has let through.

    Raises `InvalidInput` where a field is not of the type that its operator needs.
    """
    result: Document = copied(document)
    for operator, fields in update.items():
        for path, operand in fields.items():
            OPERATORS[operator](result, path, operand, now)
    return result


def check_update(update: Document) -> None:
    """Raise `InvalidInput` for what is no update: unknown operators, bad paths, two that change the same field."""
    if not update or not all(name.startswith("$") for name in update):
        raise InvalidInput("An update consists of operators such as $set; to replace a document use updateone.")
    paths: list[str] = []
    for operator, fields in update.items():
        if operator not in OPERATORS:
            raise InvalidInput(f"The update operator {operator} is not offered by this hub.")
        if not isinstance(fields, dict):
            raise InvalidInput(f"{operator} takes an object of fields, not {kind(fields)}.")
        for path, operand in fields.items():
            paths += [path, operand] if operator == "$rename" and isinstance(operand, str) else [path]
    for path in paths:
        _check_path(path)
    _check_conflicts(sorted(path.split(".") for path in paths))


def _check_path(path: str) -> None:
    names = path.split(".")
    if len(names) > MAX_DEPTH:
        raise InvalidInput(f"A path of {len(names)} names is too long: at most {MAX_DEPTH}.")
    for name in names:
        if not name:
            raise InvalidInput(f"The path {path!r} has an empty name in it.")
        if name.startswith("$"):
            raise InvalidInput(f"The path {path!r} has {name} in it, which is not offered by this hub.")


def _check_conflicts(paths: list[list[str]]) -> None:
    for path, following in pairwise(paths):
        if following[: len(path)] == path:
            raise InvalidInput(f"Two operators change {'.'.join(path)!r} at the same time.")


def _set(document: Document, path: str, operand: Any, _now: Date) -> None:
    _put(document, path, with_stored_names(operand, "update"))


def _set_on_insert(document: Document, path: str, operand: Any, now: Date) -> None:
    """Nothing is inserted by an update."""


def _unset(document: Document, path: str, _operand: Any, _now: Date) -> None:
    place = _place(document, path.split("."))
    if place is None:
        return
    container, name = place
    if isinstance(container, dict):
        container.pop(name, None)
    elif int(name) < len(container):
        container[int(name)] = None


def _increase(document: Document, path: str, operand: Any, _now: Date) -> None:
    _put(document, path, _number(_get_number(document, path, "$inc") + _operand(operand, "$inc"), path))


def _multiply(document: Document, path: str, operand: Any, _now: Date) -> None:
    _put(document, path, _number(_get_number(document, path, "$mul") * _operand(operand, "$mul"), path))


def _minimum(document: Document, path: str, operand: Any, _now: Date) -> None:
    value = _get(document, path)
    if value is MISSING or rank(operand) < rank(value):
        _put(document, path, with_stored_names(operand, "update"))


def _maximum(document: Document, path: str, operand: Any, _now: Date) -> None:
    value = _get(document, path)
    if value is MISSING or rank(operand) > rank(value):
        _put(document, path, with_stored_names(operand, "update"))


def _current_date(document: Document, path: str, operand: Any, now: Date) -> None:
    if operand is not True and operand not in ({"$type": "date"}, {"$type": "timestamp"}):
        raise InvalidInput('$currentDate takes true or {"$type": "date"}.')
    _put(document, path, now)


def _rename(document: Document, path: str, operand: Any, _now: Date) -> None:
    if not isinstance(operand, str):
        raise InvalidInput(f"$rename takes the new name as a text, not {kind(operand)}.")
    if (value := _get(document, path)) is MISSING:
        return
    for name in (path, operand):
        if any(isinstance(container, list) for container in _containers(document, name)):
            raise InvalidInput(f"$rename cannot reach into a list ({name!r}).")
    _unset(document, path, None, _now)
    _put(document, operand, value)


def _push(document: Document, path: str, operand: Any, _now: Date) -> None:
    items, modifiers = _items(operand, "$push", ("$each", "$position", "$slice"))
    values = _get_list(document, path, "$push")
    position = _integer(modifiers.get("$position", len(values)), "$position")
    values[position:position] = items
    if "$slice" in modifiers:
        count = _integer(modifiers["$slice"], "$slice")
        values[:] = values[:count] if count >= 0 else values[count:]
    _put(document, path, values)


def _add_to_set(document: Document, path: str, operand: Any, _now: Date) -> None:
    items, _ = _items(operand, "$addToSet", ("$each",))
    values = _get_list(document, path, "$addToSet")
    known = {rank(value) for value in values}
    for item in items:
        if (ranked := rank(item)) not in known:
            known.add(ranked)
            values.append(item)
    _put(document, path, values)


def _pull(document: Document, path: str, operand: Any, _now: Date) -> None:
    if _get(document, path) is not MISSING:
        unwanted = _pull_condition(operand)
        _put(document, path, [item for item in _get_list(document, path, "$pull") if not unwanted(item)])


def _pull_condition(operand: Any) -> Callable[[Any], bool]:
    if isinstance(operand, dict) and not next(iter(operand), "").startswith("$"):
        matches = compile_filter(operand).matches
        return lambda item: isinstance(item, dict) and matches(item)
    if isinstance(operand, list):
        return lambda item: rank(item) == rank(operand)
    matches_value = compile_filter({"item": operand}).matches
    return lambda item: matches_value({"item": item})


def _pull_all(document: Document, path: str, operand: Any, _now: Date) -> None:
    if not isinstance(operand, list):
        raise InvalidInput(f"$pullAll takes a list, not {kind(operand)}.")
    if _get(document, path) is not MISSING:
        unwanted = {rank(with_stored_names(item, "update")) for item in operand}
        values = _get_list(document, path, "$pullAll")
        _put(document, path, [item for item in values if rank(item) not in unwanted])


def _pop(document: Document, path: str, operand: Any, _now: Date) -> None:
    if operand not in (1, -1) or isinstance(operand, bool):
        raise InvalidInput("$pop takes 1 (the last) or -1 (the first).")
    if _get(document, path) is not MISSING:
        values = _get_list(document, path, "$pop")
        _put(document, path, values[:-1] if operand == 1 else values[1:])


Operator = Callable[[Document, str, Any, Date], None]
OPERATORS: dict[str, Operator] = {
    "$set": _set,
    "$setOnInsert": _set_on_insert,
    "$unset": _unset,
    "$inc": _increase,
    "$mul": _multiply,
    "$min": _minimum,
    "$max": _maximum,
    "$currentDate": _current_date,
    "$rename": _rename,
    "$push": _push,
    "$addToSet": _add_to_set,
    "$pull": _pull,
    "$pullAll": _pull_all,
    "$pop": _pop,
}


def _items(operand: Any, operator: str, allowed: tuple[str, ...]) -> tuple[list[Any], Document]:
    """What is to be added, and the modifiers beside it."""
    if not (isinstance(operand, dict) and "$each" in operand):
        return [with_stored_names(operand, "update")], {}
    for name in operand:
        if name not in allowed:
            raise InvalidInput(f"{name} in {operator} is not offered by this hub.")
    if not isinstance(operand["$each"], list):
        raise InvalidInput(f"$each takes a list, not {kind(operand['$each'])}.")
    return [with_stored_names(item, "update") for item in operand["$each"]], operand


def _operand(value: Any, operator: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{operator} takes a number, not {kind(value)}.")
    return value


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise InvalidInput(f"{name} takes a whole number.")
    return int(value)


def _number(value: float, path: str) -> int | float:
    if not math.isfinite(value) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        raise InvalidInput(f"{path!r} would become too big a number.")
    return value


def _get_number(document: Document, path: str, operator: str) -> int | float:
    value = _get(document, path)
    if value is MISSING:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{operator} cannot change {path!r}: it is {kind(value)}, not a number.")
    return value


def _get_list(document: Document, path: str, operator: str) -> list[Any]:
    value = _get(document, path)
    if value is MISSING:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f"{operator} cannot change {path!r}: it is {kind(value)}, not a list.")
    return list(value)


def _get(document: Document, path: str) -> Any:
    place = _place(document, path.split("."))
    if place is None:
        return MISSING
    container, name = place
    if isinstance(container, dict):
        return container.get(name, MISSING)
    return container[int(name)] if int(name) < len(container) else MISSING


def _place(document: Document, path: list[str]) -> tuple[Container, str] | None:
    """What holds the field that ``path`` names, and the field's name in it; ``None`` where the way ends before."""
    container: Any = document
    for name in path[:-1]:
        if isinstance(container, dict):
            container = container.get(name)
        elif isinstance(container, list) and name.isdecimal() and int(name) < len(container):
            container = container[int(name)]
        else:
            return None
    if isinstance(container, dict) or (isinstance(container, list) and path[-1].isdecimal()):
        return container, path[-1]
    return None


def _containers(document: Document, path: str) -> Iterator[Any]:
    """What a path leads through, as far as it goes."""
    names = path.split(".")
    for count in range(1, len(names) + 1):
        if place := _place(document, names[:count]):
            yield place[0]


def _put(document: Document, path: str, value: Any) -> None:
    """Set a field, making the objects on the way to it. Raises `InvalidInput` where something else is in the way."""
    names = path.split(".")
    container: Any = document
    for count, name in enumerate(names[:-1], start=1):
        container = _step(container, name, path)
        if not isinstance(container, dict | list):
            raise InvalidInput(f"{path!r} cannot be set: {'.'.join(names[:count])!r} is {kind(container)}.")
    if isinstance(container, dict):
        container[names[-1]] = value
    else:
        _fill(container, names[-1], path)
        container[int(names[-1])] = value


def _step(container: Container, name: str, path: str) -> Any:
    if isinstance(container, dict):
        return container.setdefault(name, {})
    _fill(container, name, path, {})
    return container[int(name)]


def _fill(values: list[Any], name: str, path: str, value: Any = None) -> None:
    """Make a list long enough for the element ``name``."""
    if not name.isdecimal() or len(name) > len(str(2**31)):
        raise InvalidInput(f"{path!r} cannot be set: there is a list where {name!r} should be a field.")
    missing = int(name) + 1 - len(values)
    if missing > MAX_GAP:
        raise InvalidInput(f"{path!r} cannot be set: the list has {len(values)} elements only.")
    if missing > 0:
        values += [None] * (missing - 1) + [value]
