"""The other implementations: mingo in a Node process that lives as long as the tests, and mongomock."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import mongomock

from jupyter_agent.hub.data.documents import EPOCH, MILLISECOND, Date

HERE = Path(__file__).parent
NAIVE = EPOCH.replace(tzinfo=None)


class Refused(Exception):
    """The other implementation raised an error."""


class Mingo:
    """Asks the child one question at a time."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def ask(self, what: str, **about: Any) -> Any:
        """Raises `Refused`."""
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(
            json.dumps({"ask": what, "about": about}, default=lambda date: {"$date": date.ms}) + "\n"
        )
        self._child.stdin.flush()
        answer = json.loads(self._child.stdout.readline())
        if "error" in answer:
            raise Refused(answer["error"])
        return restored(answer["result"])


UNDEFINED = "undefined"


def restored(value: Any) -> Any:
    """Dates as ours are."""
    if isinstance(value, list):
        return [restored(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {"$date"}:
            return Date(value["$date"])
        return UNDEFINED if value.keys() == {"$undefined"} else {name: restored(item) for name, item in value.items()}
    return value


@contextlib.contextmanager
def mingo() -> Iterator[Mingo]:
    """A child that answers; what it needs is installed when it is not there."""
    if not (HERE / "node_modules" / "mingo").is_dir():
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=HERE, check=True)
    command = ["node", str(HERE / "mingo.mjs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield Mingo(child)
        finally:
            child.kill()


class Mongomock:
    """The second vote. Raises `Refused` for whatever it cannot do."""

    def _collection(self, documents: list[Any]) -> Any:
        collection = mongomock.MongoClient().db.c
        if documents:
            collection.insert_many([_native(each) for each in documents])
        return collection

    def find(self, documents: list[Any], query: Any) -> list[str]:
        with _refusing():
            return [each["_id"] for each in self._collection(documents).find(_native(query))]

    def page(self, documents: list[Any], order: dict[str, int], skip: int, limit: int, projection: Any) -> list[Any]:
        with _refusing():
            found = self._collection(documents).find({}, projection).sort(list(order.items())).skip(skip).limit(limit)
            return [_ours(each) for each in found]

    def update(self, document: Any, change: Any) -> Any:
        with _refusing():
            collection = self._collection([document])
            collection.update_many({}, _native(change))
            return _ours(collection.find_one())

    def aggregate(self, documents: list[Any], other: list[Any], stages: Any) -> list[Any]:
        with _refusing():
            collection = self._collection(documents)
            if other:
                collection.database.other.insert_many([_native(each) for each in other])
            return [_ours(each) for each in collection.aggregate(_native(stages))]

    def distinct(self, documents: list[Any], field: str) -> list[Any]:
        with _refusing():
            return [_ours(each) for each in self._collection(documents).distinct(field)]


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # it crashes in many ways
        raise Refused(str(error)) from error


def _native(value: Any) -> Any:
    if isinstance(value, Date):
        return NAIVE + value.ms * MILLISECOND  # with a zone it crashes
    if isinstance(value, list):
        return [_native(item) for item in value]
    return {name: _native(item) for name, item in value.items()} if isinstance(value, dict) else value


def _ours(value: Any) -> Any:
    if isinstance(value, datetime):
        return Date((value.replace(tzinfo=None) - NAIVE) // MILLISECOND)
    if isinstance(value, list):
        return [_ours(item) for item in value]
    return {name: _ours(item) for name, item in value.items()} if isinstance(value, dict) else value
