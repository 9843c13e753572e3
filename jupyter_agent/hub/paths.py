"""The paths of watches: JSONPath on ``{"a": <document>}``, compiled to functions where that is possible.

`python-jsonpath` reads every path. The usual ones, names and filters of comparisons, become plain functions, which are
some hundred times quicker than evaluating the path: a change is looked at by every watch of its collection. Whatever
has no such form is evaluated by `python-jsonpath` itself. Both say the same.

A path comes from a client and must not hold up the hub: regular expressions are refused, and so is what takes longer
than in proportion to the document (one descent into a document's depths is the most).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jsonpath
from jsonpath import filter as expressions
from jsonpath import selectors
from jsonpath.segments import JSONPathChildSegment, JSONPathRecursiveDescentSegment

from jupyter_agent.errors import InvalidInput

MAX_PATHS = 50
MAX_PATH = 1000
MAX_TOGETHER = 5000
"""Characters of one expression, and of all of a watch: to read more would hold up the event loop."""

MAX_NESTING = 150
MAX_CHOICES = 64
"""Ways through a document that a path may name: the product of the lengths of its lists of selectors."""

QUOTED = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")""", re.DOTALL)

Value = Any
Test = Callable[[Value], bool]
Query = Callable[[Value], Value]
Step = Callable[[Value], Iterable[Value]]
Path = jsonpath.JSONPath | jsonpath.CompoundJSONPath

MISSING: Any = expressions.UNDEFINED
"""The value of a query that finds nothing."""


@dataclass(frozen=True)
class Wanted:
    """Which documents a watch is about.

    ``matches`` takes the document as JSON values. ``types`` holds the only values of ``_type`` that can match, where
    the paths say so. ``is_quick``: the time a match takes does not grow with the document.
    """

    matches: Test
    types: frozenset[str] | None = None
    is_quick: bool = True


EVERYTHING = Wanted(lambda _document: True)


def compile_paths(paths: Sequence[str]) -> Wanted:
    """What any of ``paths`` matches; everything where there are none.

    Raises `InvalidInput` for what is no JSONPath expression, and for what takes too long.
    """
    if len(paths) > MAX_PATHS:
        raise InvalidInput(f"A watch can have {MAX_PATHS} paths, not {len(paths)}.")
    if sum(map(len, paths)) > MAX_TOGETHER:
        raise InvalidInput(f"The paths of a watch can have {MAX_TOGETHER} characters together.")
    each = [_compiled(path) for path in dict.fromkeys(paths) if path.strip()]
    if len(each) <= 1:
        return each[0] if each else EVERYTHING
    tests = [wanted.matches for wanted in each]
    types = [wanted.types for wanted in each if wanted.types is not None]
    return Wanted(
        lambda document: any(test(document) for test in tests),
        frozenset().union(*types) if len(types) == len(each) else None,
        all(wanted.is_quick for wanted in each),
    )


def parse(path: str) -> Path:
    """The expression as `python-jsonpath` reads it. Raises `InvalidInput`."""
    if len(path) > MAX_PATH:
        raise InvalidInput(f"A path of a watch can have {MAX_PATH} characters, not {len(path)}.")
    try:
        read = ENVIRONMENT.compile(_standard(path))
    except Exception as error:  # whatever a parser raises on a client's text, it says the same
        raise InvalidInput(f"The path {path!r} of the watch cannot be understood.") from error
    _check(read, path)
    return read


def _compiled(path: str) -> Wanted:
    read = parse(path)
    try:
        return _translated(read) if isinstance(read, jsonpath.JSONPath) else Wanted(_evaluated(read), is_quick=False)
    except _NoFormError:
        return Wanted(_evaluated(read), is_quick=False)


def _evaluated(path: Path) -> Test:
    """A test by `python-jsonpath`."""

    def matches(document: Value) -> bool:
        try:
            return path.match({"a": document}) is not None
        except (jsonpath.JSONPathError, RecursionError):  # such as too deep for it
            return False

    return matches


def _standard(path: str) -> str:
    """OpenFlow's form of JSONPath as RFC 9535 has it: ``$.[?()]`` is ``$[?()]``, ``===`` is ``==``."""
    parts = QUOTED.split(path)
    for index in range(0, len(parts), 2):  # those between the quoted ones
        if "=~" in parts[index]:
            raise InvalidInput("The operator =~ in the path of a watch is not offered by this hub.")
        parts[index] = re.sub(r"(?<!\.)\.\[", "[", parts[index]).replace("!==", "!=").replace("===", "==")
    return "".join(parts)


def _environment() -> jsonpath.JSONPathEnvironment:
    environment = jsonpath.JSONPathEnvironment()
    for name in ("match", "search"):  # they would run a client's regular expressions
        environment.function_extensions.pop(name, None)
    return environment


ENVIRONMENT = _environment()


# What a path costs


def _check(path: Path, text: str) -> None:
    """Raises `InvalidInput` for a path whose evaluation could take longer than in proportion to the document."""
    choices = descents = 1
    for segment, nesting, is_absolute in _segments(path, 0):
        choices *= len(segment.selectors)
        descends = isinstance(segment, JSONPathRecursiveDescentSegment)
        descents += descends
        if choices > MAX_CHOICES or descents > 2 or nesting > MAX_NESTING:  # noqa: PLR2004 - one, and the start
            raise InvalidInput(f"The path {text[:100]!r} of the watch would take too long: make it simpler.")
        if is_absolute and (descends or not all(isinstance(each, SINGULAR) for each in segment.selectors)):
            raise InvalidInput(
                f"In the path {text[:100]!r} of the watch a filter's query that begins with $ must be a plain one."
            )


def _segments(path: Path, nesting: int, *, is_absolute: bool = False) -> Iterator[tuple[Any, int, bool]]:
    """The segments of a path and of the queries inside it."""
    if isinstance(path, jsonpath.CompoundJSONPath):
        for each in (path.path, *(part for _, part in path.paths)):
            yield from _segments(each, nesting)
        return
    for segment in path.segments:
        yield segment, nesting, is_absolute
        for selector in segment.selectors:
            if isinstance(selector, selectors.SingularQuerySelector):
                yield from _segments(selector.query, nesting + 1)
            elif isinstance(selector, selectors.Filter | selectors.KeysFilter):
                yield from _inside(selector.expression, nesting + 1)


def _inside(expression: expressions.BaseExpression, nesting: int) -> Iterator[tuple[Any, int, bool]]:
    if nesting > MAX_NESTING:
        raise InvalidInput(f"The path of a watch is nested deeper than {MAX_NESTING} levels.")
    if isinstance(expression, expressions.FilterQuery):
        is_absolute = not isinstance(expression, expressions.RelativeFilterQuery)
        yield from _segments(expression.path, nesting, is_absolute=is_absolute)
        return
    for child in expression.children():
        yield from _inside(child, nesting + 1)


SINGULAR = (selectors.NameSelector, selectors.IndexSelector)


# Translation


class _NoFormError(Exception):
    """A path has no plain function that says the same."""


def _translated(path: jsonpath.JSONPath) -> Wanted:
    """Raises `_NoFormError`."""
    chosen = [_only_selector(segment) for segment in path.segments]
    if len(chosen) == 1 and isinstance(chosen[0], selectors.Filter):  # $[?...]: the document is all there is
        expression = chosen[0].expression.expression
        return Wanted(_condition(expression), _types(expression), _is_quick(expression))
    steps = [_step(selector) for selector in chosen]
    return Wanted(lambda document: _finds({"a": document}, steps), is_quick=all(map(_is_singular, chosen)))


def _finds(start: Value, steps: Sequence[Step]) -> bool:
    values: Iterable[Value] = (start,)
    for step in steps:
        values = [found for value in values for found in step(value)]
    return any(True for _ in values)


def _only_selector(segment: Any) -> selectors.JSONPathSelector:
    if not isinstance(segment, JSONPathChildSegment) or len(segment.selectors) != 1:
        raise _NoFormError
    return segment.selectors[0]


def _step(selector: selectors.JSONPathSelector) -> Step:
    if isinstance(selector, selectors.WildcardSelector):
        return _children
    if isinstance(selector, selectors.Filter):
        test = _condition(selector.expression.expression)
        return lambda value: [child for child in _children(value) if test(child)]
    get = _getter(selector)
    return lambda value: [found] if (found := get(value)) is not MISSING else []


def _children(value: Value) -> Iterable[Value]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _getter(selector: selectors.JSONPathSelector) -> Query:
    if isinstance(selector, selectors.NameSelector):
        name = selector.name
        return lambda value: value.get(name, MISSING) if isinstance(value, dict) else MISSING
    if isinstance(selector, selectors.IndexSelector):
        return _indexed(selector.index)
    raise _NoFormError


def _indexed(index: int) -> Query:
    name = str(index)

    def get(value: Value) -> Value:
        if isinstance(value, dict):  # python-jsonpath takes a number for a name there
            return value.get(name, MISSING)
        if isinstance(value, list) and -len(value) <= index < len(value):
            return value[index]
        return MISSING

    return get


def _condition(expression: expressions.BaseExpression) -> Test:
    """The test that an expression makes of a value, where it stands for true or false."""
    if isinstance(expression, expressions.InfixExpression):
        if expression.logical:
            return _logical(expression.operator, _condition(expression.left), _condition(expression.right))
        return _comparison(expression)
    if isinstance(expression, expressions.PrefixExpression) and expression.operator == "!":
        test = _condition(expression.right)
        return lambda value: not test(value)
    if isinstance(expression, expressions.RelativeFilterQuery):
        if not expression.path.segments:
            return lambda value: isinstance(value, dict | list) or ENVIRONMENT.is_truthy(value)
        query = _query(expression)
        return lambda value: query(value) is not MISSING
    raise _NoFormError


def _logical(operator: str, left: Test, right: Test) -> Test:
    if operator == "&&":
        return lambda value: left(value) and right(value)
    return lambda value: left(value) or right(value)


def _comparison(expression: expressions.InfixExpression) -> Test:
    if (compare := COMPARISONS.get(expression.operator)) is None:
        raise _NoFormError
    left, right = _query(expression.left), _query(expression.right)
    if expression.operator == "==" and isinstance(expression.right, expressions.StringLiteral):
        text = expression.right.value
        return lambda value: bool(left(value) == text)
    return lambda value: compare(left(value), right(value))


def _query(expression: expressions.BaseExpression) -> Query:
    """The value that an expression has in a comparison."""
    if isinstance(expression, LITERALS):
        constant = expression.value
        return lambda _value: constant
    if isinstance(expression, expressions.Nil):
        return lambda _value: None
    if isinstance(expression, expressions.Undefined):
        return lambda _value: MISSING
    if isinstance(expression, expressions.RelativeFilterQuery):
        return _chain([_getter(_only_selector(segment)) for segment in expression.path.segments])
    raise _NoFormError


def _chain(getters: Sequence[Query]) -> Query:
    if len(getters) == 1:
        return getters[0]

    def get(value: Value) -> Value:
        for each in getters:
            value = each(value)
        return value

    return get


def _equal(left: Value, right: Value) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):  # True is 1 in Python
        return isinstance(left, bool) and isinstance(right, bool) and left == right
    return bool(left == right)


def _less(left: Value, right: Value) -> bool:
    if isinstance(left, str):
        return isinstance(right, str) and left < right
    return isinstance(left, int | float) and isinstance(right, int | float) and left < right


COMPARISONS: dict[str, Callable[[Value, Value], bool]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<": _less,
    ">": lambda left, right: _less(right, left),
    "<=": lambda left, right: _less(left, right) or _equal(left, right),
    ">=": lambda left, right: _less(right, left) or _equal(left, right),
}
LITERALS = (
    expressions.StringLiteral,
    expressions.IntegerLiteral,
    expressions.FloatLiteral,
    expressions.BooleanLiteral,
)


# What is known of a path


def _is_singular(selector: selectors.JSONPathSelector) -> bool:
    return isinstance(selector, SINGULAR)


def _is_quick(expression: expressions.BaseExpression) -> bool:
    """Whether no two parts of a document are compared: that takes longer the bigger they are."""
    children = expression.children() if not isinstance(expression, expressions.FilterQuery) else []
    queries = sum(isinstance(child, expressions.FilterQuery) for child in children)
    logical = isinstance(expression, expressions.InfixExpression) and expression.logical
    return (logical or queries < 2) and all(map(_is_quick, children))  # noqa: PLR2004 - two of them


def _types(expression: expressions.BaseExpression) -> frozenset[str] | None:
    """The values that ``_type`` must have for this to be true, ``None`` for any."""
    if not isinstance(expression, expressions.InfixExpression):
        return None
    if expression.operator == "==":
        return _type_in(expression.left, expression.right) or _type_in(expression.right, expression.left)
    left, right = _types(expression.left), _types(expression.right)
    if expression.operator == "&&":
        return right if left is None else left if right is None else left & right
    return left | right if expression.operator == "||" and left is not None and right is not None else None


def _type_in(query: expressions.BaseExpression, literal: expressions.BaseExpression) -> frozenset[str] | None:
    if not isinstance(query, expressions.RelativeFilterQuery) or not isinstance(literal, expressions.StringLiteral):
        return None
    segments = query.path.segments
    chosen = segments[0].selectors[0] if len(segments) == 1 and len(segments[0].selectors) == 1 else None
    is_type = isinstance(chosen, selectors.NameSelector) and chosen.name == "_type"
    is_child = bool(segments) and isinstance(segments[0], JSONPathChildSegment)
    return frozenset({literal.value}) if is_type and is_child else None
