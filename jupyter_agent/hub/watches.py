"""Watches: who is told of which changes.

A watch is a collection and JSONPath expressions on ``{"a": <document>}``; no expression means every document. Watchers
are told after the commit, in the order of the commits, what they may read at that moment.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jsonpath
import orjson

from jupyter_agent.errors import AgentError, InvalidInput
from jupyter_agent.hub.data.documents import new_id, wire
from jupyter_agent.hub.data.store import Change, Store
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.hub.users import Users
from jupyter_agent.openflow.proto.openiap_pb2 import WatchEvent
from jupyter_agent.openflow.rights import Right

LOG = logging.getLogger(__name__)

MAX_PATHS = 50
MAX_PATH = 1000
"""Characters of one expression."""

MAX_WATCHES = 1000
"""Of one connection."""

QUOTED = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")""", re.DOTALL)


@dataclass(frozen=True)
class Watch:
    """One watch of one connection."""

    id: str
    connection: Connection
    collection: str
    paths: tuple[jsonpath.CompoundJSONPath | jsonpath.JSONPath, ...]


class Watches:
    """The watches of a hub; `run` tells the watchers and belongs in a task."""

    def __init__(self, store: Store, users: Users) -> None:
        self._users = users
        self._watches: dict[str, list[Watch]] = {}
        self._changes: asyncio.Queue[Change] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watches")
        store.follow(self._follow)

    def add(self, connection: Connection, collection: str, paths: Sequence[str]) -> str:
        """The new watch's id. Raises `InvalidInput` for an expression that cannot be understood."""
        if sum(watch.connection is connection for each in self._watches.values() for watch in each) >= MAX_WATCHES:
            raise InvalidInput(f"A connection can have {MAX_WATCHES} watches.")
        watch = Watch(new_id(), connection, collection, compile_paths(paths))
        self._watches.setdefault(collection, []).append(watch)
        return watch.id

    def remove(self, connection: Connection, id: str | None = None) -> None:  # noqa: A002 - what OpenFlow calls it
        """Forget one watch of a connection, or all of them."""
        for collection, watches in list(self._watches.items()):
            kept = [each for each in watches if each.connection is not connection or id not in (None, each.id)]
            self._watches[collection] = kept
            if not kept:
                del self._watches[collection]

    async def run(self) -> None:
        """Tell watchers of changes, for ever."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                batch = [await self._changes.get()]
                while not self._changes.empty():
                    batch.append(self._changes.get_nowait())
                work = [(change, tuple(self._watches.get(change.collection, ()))) for change in batch]
                try:
                    for change, text, watches in await loop.run_in_executor(self._thread, _matches, work):
                        await self._tell(change, text, watches)
                except Exception:  # one odd document must not silence all watches for ever
                    LOG.exception("watchers could not be told of %d changes", len(batch))
        finally:
            self._thread.shutdown(wait=False)

    def _follow(self, changes: list[Change]) -> None:
        for change in changes:
            if change.collection in self._watches:
                self._changes.put_nowait(change)

    async def _tell(self, change: Change, text: str, watches: list[Watch]) -> None:
        for watch in watches:
            if await self._may_know(watch, change):
                event = WatchEvent(id=watch.id, operation=change.operation, document=text)
                watch.connection.push("watchevent", event)

    async def _may_know(self, watch: Watch, change: Change) -> bool:
        if watch.connection.user is None:
            return False
        try:
            caller = await self._users.caller(watch.connection.user)
        except AgentError:
            return False
        return caller.may(change.collection, change.document, Right.READ)


def compile_paths(paths: Sequence[str]) -> tuple[jsonpath.CompoundJSONPath | jsonpath.JSONPath, ...]:
    """Raises `InvalidInput` for what is no JSONPath expression."""
    if len(paths) > MAX_PATHS:
        raise InvalidInput(f"A watch can have {MAX_PATHS} paths, not {len(paths)}.")
    return tuple(_compiled(path) for path in paths)


def _compiled(path: str) -> jsonpath.CompoundJSONPath | jsonpath.JSONPath:
    if len(path) > MAX_PATH:
        raise InvalidInput(f"A path of a watch can have {MAX_PATH} characters, not {len(path)}.")
    try:
        return ENVIRONMENT.compile(_standard(path))
    except (jsonpath.JSONPathError, RecursionError, ValueError) as error:
        raise InvalidInput(f"The path {path!r} of the watch cannot be understood.") from error


def _standard(path: str) -> str:
    """OpenFlow's form of JSONPath as RFC 9535 has it: ``$.[?()]`` is ``$[?()]``, ``===`` is ``==``."""
    parts = QUOTED.split(path)
    for index in range(0, len(parts), 2):  # those between the quoted ones
        if "=~" in parts[index]:
            raise InvalidInput("The operator =~ in the path of a watch is not offered by this hub.")
        parts[index] = re.sub(r"(?<!\.)\.\[", "[", parts[index]).replace("===", "==").replace("!==", "!=")
    return "".join(parts)


def _environment() -> jsonpath.JSONPathEnvironment:
    environment = jsonpath.JSONPathEnvironment()
    for name in ("match", "search"):  # they would run a client's regular expressions
        environment.function_extensions.pop(name, None)
    return environment


ENVIRONMENT = _environment()


def _matches(work: list[tuple[Change, tuple[Watch, ...]]]) -> list[tuple[Change, str, list[Watch]]]:
    """In a thread: each change with its document as JSON text and those of its watches that it matches."""
    found = []
    for change, watches in work:
        text = wire(change.document)
        subject: dict[str, Any] = {"a": orjson.loads(text)}
        found.append((change, text, [watch for watch in watches if _is_met(watch, subject)]))
    return found


def _is_met(watch: Watch, subject: dict[str, Any]) -> bool:
    try:
        return not watch.paths or any(path.match(subject) is not None for path in watch.paths)
    except (jsonpath.JSONPathError, RecursionError):  # such as too deep for it
        return False
