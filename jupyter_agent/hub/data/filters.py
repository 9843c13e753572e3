"""Queries as clients write them: which documents match, and which SQL leaves out most of those that do not.

`mgqpy` decides whether a document matches. Three things are added to it: regular expressions go through RE2, whose time
grows with the text alone, whatever the pattern (Python's `re` can be made to stand still); ``$type``; and what is
higher or lower than an object or a list, since `mgqpy` knows no dates in them. All three are values that are equal to
what they stand for, which is all that `mgqpy` asks of a value.

The SQL is an accelerator only: it finds at least the documents that match, so a gap in it costs time, never a result.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import mgqpy
import re2

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.data import sql
from jupyter_agent.hub.data.documents import Date, kind, parse_object
from jupyter_agent.hub.data.expressions import MAX_PATH
from jupyter_agent.hub.data.results import rank

MAX_PATTERN = 1000
"""Characters of a regular expression."""

MAX_PROGRAM = 2500
"""Steps of a compiled regular expression; ``.{300}`` has 2700."""

MAX_WORK = 1_000_000_000
"""Steps times characters of a text: some seconds in a thread, at the worst."""

MAX_KEPT = 2000
"""Characters of a query that is kept compiled."""

REGEXP = re.compile(r"__REGEXP /(?P<pattern>.*)/(?P<flags>[a-z]*)", re.DOTALL)


@dataclass(frozen=True)
class Filter:
    """A compiled query: ``matches`` decides, ``where`` and ``parameters`` are the SQL for a superset."""

    matches: Callable[[dict[str, Any]], bool]
    where: str
    parameters: tuple[Any, ...]
    query: dict[str, Any]

    @property
    def id(self) -> str | None:
        """The id of the only document that can match, ``None`` where several may."""
        found = self.query.get("_id")
        return found if isinstance(found, str) else None

    def condition(self, scalars: frozenset[str]) -> tuple[str, list[Any]]:
        """The same SQL for a collection where no document has a list at these paths: plainer, so more can use it."""
        return sql.superset(self.query, scalars) if scalars else (self.where, list(self.parameters))


def compile_filter(query: object) -> Filter:
    """Raises `InvalidInput` for what is no query, naming an operator that is not offered."""
    if isinstance(query, dict) and len(query) == 1 and _is_plain_id(query.get("_id")):
        return Filter(partial(_has_id, query["_id"]), "id = ?", (query["_id"],), query)
    rewritten = _query(query)
    try:
        matcher = mgqpy.Query(rewritten)
    except mgqpy.InvalidQuery as error:
        raise InvalidInput(f"The query cannot be understood: {str(error).removeprefix('query.')}.") from error
    where, parameters = sql.superset(rewritten)
    return Filter(matcher.test, where, tuple(parameters), rewritten)


def compile_text(text: str) -> Filter:
    """The same from JSON text. What is asked again and again is compiled once."""
    return _kept(text) if len(text) <= MAX_KEPT else compile_filter(parse_object(text, "query"))


@lru_cache(maxsize=500)
def _kept(text: str) -> Filter:
    return compile_filter(parse_object(text, "query"))


def _is_plain_id(value: Any) -> bool:
    return isinstance(value, str) and not value.startswith("__REGEXP ")


def _has_id(id: str, document: dict[str, Any]) -> bool:  # noqa: A002 - what OpenFlow calls it
    """What ``{"_id": id}`` matches, the commonest of queries; ids are texts, but not in what is no whole document."""
    found = document.get("_id")
    return found == id if isinstance(found, str) else isinstance(found, list) and id in found


class Matching:
    """Equal to every text in which a regular expression is found."""

    def __init__(self, pattern: str, flags: str) -> None:
        self._regexp = _regexp(pattern, flags)
        self._longest = MAX_WORK // self._regexp.programsize

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return False
        if len(other) > self._longest:
            raise InvalidInput(f"The regular expression is too costly for a text of {len(other)} characters.")
        return self._regexp.search(other) is not None

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Matching:
        return self


class Compared:
    """Equal to every value of the same type that is higher, or lower, than an object or a list."""

    def __init__(self, compare: Callable[[Any, Any], bool], operand: dict[str, Any] | list[Any]) -> None:
        self._compare = compare
        self._type = type(operand)
        self._rank = rank(operand)

    def __eq__(self, other: object) -> bool:
        return type(other) is self._type and self._compare(rank(other), self._rank)

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Compared:
        return self


class _Seen:
    """Equal to nothing; keeps what it was compared with."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def __eq__(self, other: object) -> bool:
        self.values.append(other)
        return False

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Seen:
        return self


def compared(path: str) -> Callable[[dict[str, Any]], list[Any]]:
    """The values that an equality on this field of a document is decided by: each of them would match.

    The function that is returned must not be used by two threads at once.
    """
    seen = _Seen()
    look = mgqpy.Query({path: {"$eq": seen}}).test
    matches_null = mgqpy.Query({path: None}).test

    def values(document: dict[str, Any]) -> list[Any]:
        seen.values = [None] if matches_null(document) else []
        look(document)
        return seen.values

    return values


class OfType:
    """Equal to every value of one of these BSON types."""

    def __init__(self, names: Iterable[object]) -> None:
        self._names = frozenset(_type_name(name) for name in names)
        if not self._names:
            raise InvalidInput("$type takes a type or a list of at least one.")

    def __eq__(self, other: object) -> bool:
        return not self._names.isdisjoint(_types(other))

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> OfType:
        return self


TYPES = {
    1: "double", 2: "string", 3: "object", 4: "array", 5: "binData", 6: "undefined", 7: "objectId", 8: "bool",
    9: "date", 10: "null", 11: "regex", 13: "javascript", 16: "int", 17: "timestamp", 18: "long", 19: "decimal",
    -1: "minKey", 127: "maxKey",
}  # fmt: skip
TYPE_NAMES = frozenset({*TYPES.values(), "number"})
SIMPLE_TYPES: dict[type, tuple[str, ...]] = {
    str: ("string",), dict: ("object",), list: ("array",), bool: ("bool",), type(None): ("null",), Date: ("date",),
}  # fmt: skip


def _type_name(given: object) -> str:
    name = TYPES.get(int(given)) if isinstance(given, int | float) and not isinstance(given, bool) else given
    if not isinstance(name, str) or name not in TYPE_NAMES:
        raise InvalidInput(f"$type does not know {given!r}.")
    return name


def _types(value: object) -> tuple[str, ...]:
    if (names := SIMPLE_TYPES.get(type(value))) is not None:
        return names
    if isinstance(value, int | float):  # as the Node driver stores JavaScript's numbers
        return ("number", "int" if value == int(value) and -(2**31) <= value < 2**31 else "double")
    return ()


def _regexp(pattern: object, flags: object) -> Any:
    if not isinstance(pattern, str) or not isinstance(flags, str):
        raise InvalidInput("A regular expression and its options must be texts.")
    if len(pattern) > MAX_PATTERN:
        raise InvalidInput(f"A regular expression may have {MAX_PATTERN} characters, this one has {len(pattern)}.")
    if unknown := set(flags) - set("imsguy"):
        raise InvalidInput(f"The regular expression's option {min(unknown)!r} is not offered by this hub.")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 2 << 20
    inner = "".join(sorted(set(flags) & set("ims")))
    portable = ESCAPE.sub(_escape, pattern)
    try:
        regexp = re2.compile(f"(?{inner}){portable}" if inner else portable, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
        raise InvalidInput(f"The regular expression /{pattern}/ is not offered by this hub: {reason}.") from error
    if regexp.programsize > MAX_PROGRAM:
        raise InvalidInput(f"The regular expression /{pattern}/ is not offered by this hub: it is too costly.")
    return regexp


HEX = "[0-9a-fA-F]"
ESCAPE = re.compile(
    rf"\\u(?P<high>[dD][89abAB]{HEX}{{2}})\\u(?P<low>[dD][c-fC-F]{HEX}{{2}})|\\u(?P<code>{HEX}{{4}})|\\(?P<any>.)",
    re.DOTALL,
)


def _escape(found: re.Match[str]) -> str:
    """What RE2 writes for an escape of JavaScript's: characters by their number, and those that need none."""
    if found["high"]:
        code = 0x10000 + ((int(found["high"], 16) - 0xD800) << 10) + int(found["low"], 16) - 0xDC00
        return f"\\x{{{code:x}}}"
    if found["code"]:
        return f"\\x{{{found['code']}}}"
    return found["any"] if not found["any"].isascii() else found[0]


def _query(query: object) -> dict[str, Any]:
    if not isinstance(query, dict):
        raise InvalidInput(f"A query must be a JSON object, not {kind(query)}.")
    rewritten: dict[str, Any] = {}
    for name, value in query.items():
        if name in LOGICAL:
            rewritten[name] = [_query(child) for child in _list(name, value)]
        elif name.startswith("$"):
            if name != "$comment":
                raise _not_offered(name)
        elif len(name) > MAX_PATH:
            raise InvalidInput(f"A path can have {MAX_PATH} characters, not {len(name)}.")
        else:
            rewritten[name] = _condition(value)
    return rewritten


def _condition(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    return _expression(value) if _is_expression(value) else value


def _text(value: str) -> Any:
    found = REGEXP.fullmatch(value) if value.startswith("__REGEXP ") else None
    return Matching(found["pattern"], found["flags"]) if found else value


def _expression(value: dict[str, Any]) -> dict[str, Any]:
    rewritten: dict[str, Any] = {}
    specials: list[Matching | OfType | Compared] = []
    for name, operand in value.items():
        if name not in OPERATORS:
            raise _not_offered(name)
        if name in RANGES and isinstance(operand, dict | list):
            specials.append(Compared(RANGES[name], operand))
        elif name not in SPECIAL:
            rewritten[name] = OPERATORS[name](operand)
    if "$regex" in value:
        specials.append(_regex_condition(value["$regex"], value.get("$options", "")))
    elif "$options" in value:
        raise InvalidInput("$options needs $regex beside it.")
    if "$type" in value:
        specials.append(OfType(value["$type"] if isinstance(value["$type"], list) else [value["$type"]]))
    for special in specials:
        _add(rewritten, special)
    return rewritten


def _regex_condition(pattern: object, options: object) -> Matching:
    found = REGEXP.fullmatch(pattern) if isinstance(pattern, str) else None
    if found:
        return Matching(found["pattern"], found["flags"])
    return Matching(pattern, options)  # type: ignore[arg-type] # what is no text is refused there


def _add(expression: dict[str, Any], special: Matching | OfType | Compared) -> None:
    """Ask for ``special`` too, in an operator that the expression does not use for itself."""
    for name, operand in (("$eq", special), ("$in", [special]), ("$all", [special])):
        if name not in expression:
            expression[name] = operand
            return
    raise InvalidInput("Too many conditions on one field: put them side by side in an $and.")


def _elements(name: str, value: object) -> list[Any]:
    return [_condition(item) for item in _list(name, value)]


def _list(name: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput(f"{name} takes a list, not {kind(value)}.")
    return value


def _element_match(value: Any) -> Any:
    if _is_expression(value) and next(iter(value)) not in LOGICAL:
        return _expression(value)
    return _query(value)


def _negated(value: Any) -> dict[str, Any]:
    condition = _condition(value)
    if isinstance(condition, Matching):
        return {"$eq": condition}
    if not _is_expression(condition):
        raise InvalidInput("$not takes an operator or a regular expression.")
    return condition  # type: ignore[no-any-return] # an expression is a dict


def _equal(value: Any) -> Any:
    return _text(value) if isinstance(value, str) else value


def _as_it_is(value: Any) -> Any:
    return value


def _is_expression(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and next(iter(value)).startswith("$")


def _not_offered(name: str) -> InvalidInput:
    return InvalidInput(f"The query operator {name} is not offered by this hub.")


LOGICAL = frozenset({"$and", "$or", "$nor"})
RANGES: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
SPECIAL = frozenset({"$regex", "$options", "$type"})
OPERATORS: dict[str, Callable[[Any], Any]] = {
    "$eq": _equal,
    "$ne": _equal,
    "$gt": _as_it_is,
    "$gte": _as_it_is,
    "$lt": _as_it_is,
    "$lte": _as_it_is,
    "$in": partial(_elements, "$in"),
    "$nin": partial(_elements, "$nin"),
    "$all": partial(_elements, "$all"),
    "$exists": _as_it_is,
    "$not": _negated,
    "$elemMatch": _element_match,
    "$size": _as_it_is,
    "$mod": _as_it_is,
    "$regex": _as_it_is,
    "$options": _as_it_is,
    "$type": _as_it_is,
}
