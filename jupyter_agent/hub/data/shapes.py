"""What ``$project``, ``$addFields`` and ``$unset`` do to a document, and the projection of a query.

A tree of names says what becomes of each field: kept, left out, or computed by an expression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data.documents import kind
from jupyter_agent.hub.data.expressions import (
    MISSING,
    Document,
    Expression,
    compile_expression,
    compile_path,
    is_operator,
)

Shape = Callable[[Document], Document]
"""Gives a new document; those it gets are left as they are."""

Tree = dict[str, Any]
"""By name: ``None`` for the field itself, an `Expression` for what is computed, or a `Tree` of what is in it."""


def projection_of(value: Mapping[str, Any]) -> Shape:
    """A projection out of what the client sent: an object of paths and 1 or 0, all the same but for ``_id``.

    As in MongoDB any number but 0 is a 1. Raises `InvalidInput`.
    """
    for path, choice in _leaves(dict(value), "The projection"):
        if not isinstance(choice, int | float):
            raise InvalidInput(f"The projection of {path!r} must be 1 or 0.")
    return _chosen(dict(value), "The projection") if value else _same


def project(value: Any) -> Shape:
    """The stage ``$project``. Raises `InvalidInput`."""
    if not isinstance(value, dict) or not value:
        raise InvalidInput(f"$project takes an object of at least one field, not {kind(value)}.")
    return _chosen(value, "$project")


def add_fields(value: Any, what: str = "$addFields") -> Shape:
    """The stages ``$addFields`` and ``$set``. Raises `InvalidInput`."""
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} takes an object of fields, not {kind(value)}.")
    tree: Tree = {}
    for path, item in _leaves(value, what):
        _plant(tree, path, compile_expression(item), what)
    return lambda document: _computed(document, tree, document)


def unset(value: Any) -> Shape:
    """The stage ``$unset``. Raises `InvalidInput`."""
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not paths:
        raise InvalidInput(f"$unset takes a field's name or a list of names, not {kind(value)}.")
    tree = _tree(paths, "$unset")
    return lambda document: _without(document, tree)


def put(document: Document, path: list[str], value: Any) -> Document:
    """A document with this value at a path, as ``$addFields`` puts it there."""

    def constant(_document: Document) -> Any:
        return value

    tree: Any = constant
    for name in reversed(path):
        tree = {name: tree}
    new: Document = _computed(document, tree, document)
    return new


def _same(document: Document) -> Document:
    return document


def _chosen(value: Document, what: str) -> Shape:
    leaves = [(path, _choice(item)) for path, item in _leaves(value, what)]
    choices = {bool(choice) for path, choice in leaves if path != "_id" and isinstance(choice, bool | int | float)}
    computed = [(path, choice) for path, choice in leaves if not isinstance(choice, bool | int | float)]
    if len(choices) > 1 or (computed and False in choices):
        raise InvalidInput(f"{what} either includes fields or excludes fields, not both.")
    id_choice = next((choice for path, choice in leaves if path == "_id"), None)
    including = choices.pop() if choices else bool(computed or id_choice)
    if not including:
        tree = _tree((path for path, choice in leaves if not choice), what)
        return lambda document: _without(document, tree)
    kept = _tree((path for path, choice in leaves if choice and isinstance(choice, bool | int | float)), what)
    added: Tree = {}
    for path, expression in computed:
        _plant(added, path, expression, what)
    _refuse_collisions(kept, added, what)
    if id_choice is None:
        kept = {"_id": None, **kept}
    return lambda document: _shaped(document, kept, added, document)


def _choice(item: Any) -> Any:
    """True or false for a field that is kept or left out, else the expression."""
    return bool(item) if isinstance(item, bool | int | float) else compile_expression(item)


def _leaves(value: Document, what: str, path: str = "") -> Iterable[tuple[str, Any]]:
    """The paths in a specification, in which an object means what is in the field."""
    for name, item in value.items():
        compile_path(name, what)
        if isinstance(item, dict) and not is_operator(item):
            if not item:
                raise InvalidInput(
                    f"{what} has an empty object at {path + name!r}: {{$literal: {{}}}} is one as a value."
                )
            yield from _leaves(item, what, f"{path}{name}.")
        else:
            yield path + name, item


def _tree(paths: Iterable[Any], what: str) -> Tree:
    tree: Tree = {}
    for path in paths:
        _plant(tree, path, None, what)
    return tree


def _plant(tree: Tree, path: Any, leaf: Expression | None, what: str) -> None:
    *way, last = compile_path(path, what)
    branch = tree
    for name in way:
        branch = branch.setdefault(name, {})
        if not isinstance(branch, dict):
            raise _collision(path, what)
    if last in branch:
        raise _collision(path, what)
    branch[last] = leaf


def _collision(path: str, what: str) -> InvalidInput:
    return InvalidInput(f"{what} names {path!r} twice, or something in it and the whole.")


def _refuse_collisions(kept: Tree, added: Tree, what: str) -> None:
    for name in kept.keys() & added.keys():
        if not (isinstance(kept[name], dict) and isinstance(added[name], dict)):
            raise _collision(name, what)
        _refuse_collisions(kept[name], added[name], what)


def _shaped(value: Any, kept: Tree, added: Tree, document: Document) -> Any:
    """What is kept of ``value``, and what is added, computed from ``document``."""
    if isinstance(value, list):
        return [_shaped(item, kept, added, document) for item in value if added or isinstance(item, dict | list)]
    shown: Document = {}
    for name, item in value.items() if isinstance(value, dict) else ():
        if name in kept and kept[name] is None:
            shown[name] = item
        elif isinstance(item, dict | list) and (name in kept or isinstance(added.get(name), dict)):
            shown[name] = _shaped(item, kept.get(name, {}), added.get(name, {}), document)
    return _computed(shown, {name: leaf for name, leaf in added.items() if name not in shown}, document)


def _without(value: Any, tree: Tree) -> Any:
    if isinstance(value, list):
        return [_without(item, tree) for item in value]
    if not isinstance(value, dict):
        return value
    shown = {}
    for name, item in value.items():
        if name not in tree:
            shown[name] = item
        elif (branch := tree[name]) is not None:
            shown[name] = _without(item, branch)
    return shown


def _computed(value: Any, tree: Tree, document: Document) -> Any:
    """``value`` with the fields of ``tree``, computed from ``document``; what is no object becomes one."""
    if isinstance(value, list):
        return [_computed(item, tree, document) for item in value]
    shown = dict(value) if isinstance(value, dict) else {}
    for name, branch in tree.items():
        if isinstance(branch, dict):
            shown[name] = _computed(shown.get(name, MISSING), branch, document)
        elif (item := branch(document)) is MISSING:
            shown.pop(name, None)
        else:
            shown[name] = item
    return shown


MAX_WEIGHT = 16 << 20
"""Bytes, about, of a document between two stages, as in MongoDB."""

MAX_DEPTH = 200
"""Levels of nesting between two stages; what comes out has to be written as JSON, which ends at 254."""


def weigh(value: Any) -> int:
    """About the bytes of a value. Raises `InvalidInput` for what is too big or too deep to go on with.

    A few stages can make a small document grow beyond all bounds (``{a: ["$a", "$a"]}``): it stops at the limit.
    """
    weight, waiting = 0, [([value], 0)]
    while waiting:
        items, depth = waiting.pop()
        for item in items:
            if isinstance(item, dict | list):
                weight += 32
                if depth >= MAX_DEPTH:
                    raise InvalidInput(f"The aggregate makes documents that are nested deeper than {MAX_DEPTH} levels.")
                waiting.append((list(item.values()) if isinstance(item, dict) else item, depth + 1))
                weight += sum(map(len, item)) if isinstance(item, dict) else 0
            else:
                weight += 8 + len(item) if isinstance(item, str) else 8
        if weight > MAX_WEIGHT:
            raise InvalidInput(f"The aggregate makes a document of more than {MAX_WEIGHT >> 20} MiB.")
    return weight
