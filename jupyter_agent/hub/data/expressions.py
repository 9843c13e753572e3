"""Expressions of aggregates: what a stage computes from a document.

Offered are paths (``"$a.b"``), documents, arrays, constants, ``$literal``, ``$ifNull`` and ``$size``. Where there is
nothing the value is `MISSING`, which is not null: a document leaves the field out, an array has null in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import DOT, kind, with_stored_names

Document = dict[str, Any]
Expression = Callable[[Document], Any]

MAX_PATH = 1000
"""Characters of a path."""

MISSING: Any = object()
"""The value of what is not there."""


def compile_expression(value: Any) -> Expression:
    """Raises `InvalidInput` for what is no expression, naming an operator that is not offered."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return _array([compile_expression(item) for item in value])
    if isinstance(value, dict):
        return _operator(value) if is_operator(value) else _document(value)
    return _constant(value)


def is_operator(value: Any) -> bool:
    """Whether this is an object whose first name is an operator's."""
    return isinstance(value, dict) and next(iter(value), "").startswith("$")


def compile_path(path: object, what: str) -> list[str]:
    """The names in a path. Raises `InvalidInput` for what is none; ``what`` says where it stands."""
    if not isinstance(path, str):
        raise InvalidInput(f"{what} takes a path as a text, not {kind(path)}.")
    if len(path) > MAX_PATH:
        raise InvalidInput(f"A path can have {MAX_PATH} characters, not {len(path)}.")
    names = path.split(".")
    if "" in names or any(name.startswith("$") or "\0" in name for name in names):
        raise InvalidInput(f"{what} cannot name {path!r}: a path is names with dots between them.")
    return names


def value_at(document: Document, names: list[str]) -> Any:
    """What a path leads to: of a list, the list of what it leads to in each of its objects."""
    value: Any = document
    for index, name in enumerate(names):
        if isinstance(value, list):
            found = (value_at(item, names[index:]) for item in value if isinstance(item, dict))
            return [item for item in found if item is not MISSING]
        if not isinstance(value, dict):
            return MISSING
        value = value.get(name, MISSING)
    return value


def _text(value: str) -> Expression:
    if value.startswith("$$"):
        raise InvalidInput(f"The variable {value} is not offered by this hub.")
    if not value.startswith("$"):
        return _constant(value)
    names = compile_path(value[1:], "An expression")
    return lambda document: value_at(document, names)


def _constant(value: Any) -> Expression:
    return lambda _document: value


def _array(items: list[Expression]) -> Expression:
    def evaluate(document: Document) -> list[Any]:
        return [None if value is MISSING else value for value in (item(document) for item in items)]

    return evaluate


def _document(value: Document) -> Expression:
    for name in value:
        if "." in name or name.startswith("$") or not name:
            raise InvalidInput(f"A document in an expression cannot have the name {name!r} (a dot is stored as {DOT}).")
    fields = {name: compile_expression(item) for name, item in value.items()}

    def evaluate(document: Document) -> Document:
        found = ((name, field(document)) for name, field in fields.items())
        return {name: item for name, item in found if item is not MISSING}

    return evaluate


def _operator(value: Document) -> Expression:
    name = next(iter(value))
    if name not in OPERATORS:
        raise InvalidInput(f"The expression operator {name} is not offered by this hub.")
    if len(value) > 1:
        raise InvalidInput(f"An expression has one operator: {', '.join(value)} stand side by side.")
    return OPERATORS[name](value[name])


def _literal(operand: Any) -> Expression:
    return _constant(with_stored_names(operand, "aggregates"))


def _if_null(operand: Any) -> Expression:
    if not isinstance(operand, list) or len(operand) < 2:  # noqa: PLR2004 - a value and what stands in for it
        raise InvalidInput("$ifNull takes a list of two or more expressions.")
    *first, last = [compile_expression(item) for item in operand]

    def evaluate(document: Document) -> Any:
        for expression in first:
            value = expression(document)
            if value is not None and value is not MISSING:
                return value
        return last(document)

    return evaluate


def _size(operand: Any) -> Expression:
    if isinstance(operand, list) and len(operand) != 1:
        raise InvalidInput(f"$size takes one expression, not {len(operand)}.")
    inner = compile_expression(operand[0] if isinstance(operand, list) else operand)

    def evaluate(document: Document) -> int:
        value = inner(document)
        if not isinstance(value, list):
            what = "a field that is missing" if value is MISSING else kind(value)
            raise InvalidInput(f"$size takes a list, not {what}: {{$ifNull: [..., []]}} gives a list in any case.")
        return len(value)

    return evaluate


OPERATORS: dict[str, Callable[[Any], Expression]] = {"$literal": _literal, "$ifNull": _if_null, "$size": _size}
