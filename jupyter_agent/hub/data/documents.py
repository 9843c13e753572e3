"""Documents: JSON text of the wire, values in memory, text in the store, and the ways between them.

In memory a document is a plain dict; dates are `Date`. It knows what may be in a document and refuses to know what
any field means.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

import orjson

from jupyter_agent.errors import InvalidInput

MAX_DEPTH = 100
"""Levels of nesting, as in MongoDB."""

MAX_SIZE = 16 << 20
"""Bytes of a stored document, as in MongoDB."""

DOT = "____"
"""What stands in a stored name for a dot, which would be taken for a path (as OpenFlow does it)."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
FIRST_MS = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MILLISECOND
LAST_MS = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MILLISECOND
# OpenFlow's rule: a text is a date only when its seconds have a fraction. (Python's parser takes more, by version.)
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d\.\d{1,9}(?:Z|[+-]\d\d:?\d\d)?", re.ASCII)
ISO_LENGTHS = range(len("2024-01-02T03:04:05.6"), len("2024-01-02T03:04:05.678901234+00:00") + 1)


@dataclass(frozen=True, slots=True)
class Date:
    """A moment, in milliseconds since 1970 in UTC. It is equal, lower or higher only to another date."""

    ms: int

    @classmethod
    def now(cls) -> Date:
        """This moment."""
        return cls(time.time_ns() // 1_000_000)

    def __str__(self) -> str:
        return _iso(self.ms)

    # The matcher compares values of any type with one another: that must be false, not an error.
    def __lt__(self, other: object) -> bool:
        return isinstance(other, Date) and self.ms < other.ms

    def __le__(self, other: object) -> bool:
        return isinstance(other, Date) and self.ms <= other.ms

    def __gt__(self, other: object) -> bool:
        return isinstance(other, Date) and self.ms > other.ms

    def __ge__(self, other: object) -> bool:
        return isinstance(other, Date) and self.ms >= other.ms

    def __deepcopy__(self, memo: dict[int, Any]) -> Date:
        return self


@lru_cache(maxsize=10_000)
def _iso(ms: int) -> str:
    """The documents of one answer share many moments: of creation and change, of days."""
    return (EPOCH + ms * MILLISECOND).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def new_id() -> str:
    """24 hexadecimal digits that begin with the time, like an ObjectId's; the rest cannot be guessed."""
    return f"{int(time.time()):08x}{secrets.token_hex(8)}"


def parse(text: str, what: str, *, names: bool = False) -> Any:
    """The value in JSON text from a client, with its dates; ``what`` names it in errors.

    ``names`` is for documents: names with dots get their stored form. In a query a dot makes a path.
    Raises `InvalidInput`.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"The {what} is not valid JSON: {error}.") from error
    value = _taken(value, what, MAX_DEPTH, names=names)
    if _holds_long_number(text):
        _refuse_rounding(text, what)
    return value


def parse_object(text: str, what: str, *, names: bool = False) -> dict[str, Any]:
    """Like `parse`, for what has to be a JSON object; no text at all is an empty one."""
    value = parse(text, what, names=names) if text.strip() else {}
    if not isinstance(value, dict):
        raise InvalidInput(f"The {what} must be a JSON object, not {kind(value)}.")
    return value


def with_stored_names(value: Any, what: str) -> Any:
    """A value out of a query or an update as part of a document: names with dots get their stored form."""
    return _taken(copied(value), what, MAX_DEPTH, names=True)


def wire(value: Any) -> str:
    """JSON text for a client: dates in ISO 8601 with milliseconds, dots back in names."""
    data = orjson.dumps(value, default=str, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    if DOT.encode() in data:
        data = orjson.dumps(_shown(value), default=str, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    return data.decode()


def stored(document: dict[str, Any]) -> str:
    """The text that is stored. Raises `InvalidInput` when the document cannot be."""
    try:
        data = orjson.dumps(document, default=_marked, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except TypeError as error:
        raise InvalidInput(f"The document cannot be stored: {error}.") from error
    if len(data) > MAX_SIZE:
        raise InvalidInput(f"A document of {len(data) >> 20} MiB is too big: at most {MAX_SIZE >> 20} can be stored.")
    return data.decode()


def restored(text: str) -> dict[str, Any]:
    """The document in a stored text."""
    document: dict[str, Any] = orjson.loads(text)
    if '"$date"' in text:
        _unmark(document.items(), document)
    return document


def copied(value: Any) -> Any:
    """A copy that shares no object and no list; several times as quick as `copy.deepcopy`."""
    if type(value) is dict:
        return {name: copied(item) if type(item) in CONTAINERS else item for name, item in value.items()}
    return [copied(item) if type(item) in CONTAINERS else item for item in value] if type(value) is list else value


CONTAINERS = frozenset({dict, list})


def kind(value: object) -> str:
    """What to call a value in a sentence."""
    return KINDS.get(type(value), "a date")


KINDS: dict[type, str] = {
    dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number",
    type(None): "null",
}  # fmt: skip


def _taken(value: Any, what: str, levels: int, *, names: bool) -> Any:
    """A value of JSON with its dates and names, made of the same objects and lists where it can be."""
    if isinstance(value, str):
        return _date(value)
    if not isinstance(value, dict | list):
        return value
    if levels == 0:
        raise InvalidInput(f"The {what} is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, dict) and _has_odd_names(value, names=names):
        value = _renamed(value, what, names=names)
    for place, item in value.items() if isinstance(value, dict) else enumerate(value):
        if type(item) is str:
            if len(item) in ISO_LENGTHS and item[10] == "T":
                value[place] = _date(item)
        elif type(item) is dict or type(item) is list:
            value[place] = _taken(item, what, levels - 1, names=names)
    return value


def _has_odd_names(value: dict[str, Any], *, names: bool) -> bool:
    joined = "\n".join(value)
    return "$" in joined or "\0" in joined or (names and ("." in joined or DOT in joined))


def _renamed(value: dict[str, Any], what: str, *, names: bool) -> dict[str, Any]:
    if "$date" in value:  # that is how dates are stored
        raise InvalidInput(f'A date in the {what} is written as text, like "2024-01-02T03:04:05.678Z".')
    return {_name(name, what, names=names): item for name, item in value.items() if not name.startswith("$$")}


def _name(name: str, what: str, *, names: bool) -> str:
    """A name as it is stored. Raises `InvalidInput` for one that would come back as another."""
    if "\0" in name:
        raise InvalidInput(f"A name in the {what} holds a NUL character.")
    if not names:
        return name
    kept = name.replace(".", DOT)
    if kept.replace(DOT, ".") != name:
        raise InvalidInput(
            f"The name {name[:60]!r} in the {what} cannot be stored: {DOT} stands for a dot, so it would come back "
            f"as {kept.replace(DOT, '.')[:60]!r}."
        )
    return kept


def _date(text: str) -> Date | str:
    if not ISO_DATE.fullmatch(text):
        return text
    try:
        moment = datetime.fromisoformat(text)
        ms = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // MILLISECOND
    except (ValueError, OverflowError):
        return text
    return Date(ms) if FIRST_MS <= ms <= LAST_MS else text


LONG_NUMBER = re.compile(r"[0-9]{19}")
SLICE = 64 << 10


def _holds_long_number(text: str) -> bool:
    """Looked for in slices, between which other threads have their turn: 16 ns a character hold up everybody."""
    return any(LONG_NUMBER.search(text, at, at + SLICE + 18) for at in range(0, len(text), SLICE))


def _refuse_rounding(text: str, what: str) -> None:
    """Raise `InvalidInput` for a whole number of more than 64 bits that would come back as another.

    JavaScript writes numbers up to 1e21 without an exponent, with zeros for the digits that it does not know: those
    come back as they were.
    """

    def whole(digits: str) -> float:
        nearest = float(digits)
        is_small = len(digits) < len(str(2**63)) or -(2**63) <= int(digits) < 2**64
        if not is_small and Decimal(digits) not in (Decimal(nearest), Decimal(repr(nearest))):
            raise InvalidInput(f"The number {digits[:40]} in the {what} has more than 64 bits: send it as a text.")
        return nearest

    json.loads(text, parse_int=whole)


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.replace(DOT, "."): _shown(item) for name, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value


def _marked(value: object) -> dict[str, int]:
    if isinstance(value, Date):
        return {"$date": value.ms}
    raise TypeError(f"it holds a {type(value).__name__}")


def _unmark(items: Iterable[tuple[Any, Any]], within: Any) -> None:
    """Put dates where they are marked. It is done in place, since every document that is read goes through it."""
    for place, item in items:
        if type(item) is dict:
            if len(item) == 1 and "$date" in item:
                within[place] = Date(item["$date"])
            else:
                _unmark(item.items(), item)
        elif type(item) is list:
            _unmark(enumerate(item), item)
