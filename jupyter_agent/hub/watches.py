"""Watches: who is told of which changes.

A watch is a collection and JSONPath expressions on ``{"a": <document>}``; no expression means every document. Watchers
are told after the commit, in the order of the commits, what they may read at that moment. As in OpenFlow, the document
of a deletion comes from the history: a collection that keeps none tells of no deletion.

Watches with the same paths are one question to a change, and questions that ask for a ``_type`` are put to changes of
that type alone. What takes longer the bigger a document is has a lane of its own, so that it delays nobody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import orjson

from jupyter_agent.errors import AgentError, InvalidInput
from jupyter_agent.hub.callers import Document, security
from jupyter_agent.hub.data.documents import new_id, wire
from jupyter_agent.hub.data.store import WITHOUT_HISTORY, Change, Store
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.hub.paths import EVERYTHING, Wanted, compile_paths
from jupyter_agent.hub.users import Users
from jupyter_agent.openflow.proto.openiap_pb2 import WatchEvent
from jupyter_agent.openflow.rights import Right

LOG = logging.getLogger(__name__)

MAX_WATCHES = 1000
"""Of one connection."""

MAX_BEHIND = 500_000
MAX_BEHIND_BYTES = 256 << 20
"""News that may wait in a lane. A watcher that would miss one is disconnected: it reads anew when it is back."""

MAX_UNSENT = 256 << 20
LOOK_EVERY = 32 << 20
"""Bytes of events that may wait for all watchers together, and after how many it is looked. The slowest has to go."""

TRY_AGAIN = 1013
BATCH = 100
"""Changes that are prepared at once."""

TURN = 50
TURN_BYTES = 8 << 20
"""Events, and bytes of them, that are sent before others get their turn in the event loop."""


@dataclass(frozen=True, eq=False)
class Watch:
    """One watch of one connection; ``user`` is whose rights count, ``None`` for whoever is signed in on it.

    It is told of changes whose number is higher than ``since``.
    """

    id: str
    connection: Connection
    user: str | None
    since: int
    question: Question


@dataclass(eq=False)
class Question:
    """What watches of a collection with the same paths want to know."""

    collection: str
    paths: tuple[str, ...]
    wanted: Wanted
    watches: dict[str, Watch] = field(default_factory=dict)


class _Questions:
    """The questions about one collection, found by the ``_type`` that they ask for."""

    def __init__(self) -> None:
        self._by_paths: dict[tuple[str, ...], Question] = {}
        self._by_type: dict[str | None, dict[tuple[str, ...], Question]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_paths)

    def get(self, paths: tuple[str, ...]) -> Question | None:
        """The question with these paths."""
        return self._by_paths.get(paths)

    def add(self, question: Question) -> None:
        """A new question."""
        self._by_paths[question.paths] = question
        for each in _types(question):
            self._by_type.setdefault(each, {})[question.paths] = question

    def remove(self, question: Question) -> None:
        """Nobody asks it any more."""
        del self._by_paths[question.paths]
        for each in _types(question):
            del self._by_type[each][question.paths]
            if not self._by_type[each]:
                del self._by_type[each]

    def about(self, type_: object) -> Iterator[Question]:
        """Those that a document of this ``_type`` may answer."""
        yield from self._by_type.get(None, {}).values()
        if isinstance(type_, str):
            yield from self._by_type.get(type_, {}).values()


@dataclass(frozen=True, eq=False)
class _News:
    """A change as watchers are told of it; ``guarded`` is the part of the document that says who may read it."""

    number: int
    change: str
    collection: str
    guarded: Document
    text: str
    questions: tuple[Question, ...]


class _Lane:
    """News on their way to watchers, in order."""

    def __init__(self) -> None:
        self._news: asyncio.Queue[_News] = asyncio.Queue()
        self._bytes = 0

    def put(self, news: _News) -> None:
        """Let it wait."""
        self._news.put_nowait(news)
        self._bytes += len(news.text)

    async def get(self) -> _News:
        """The next one."""
        news = await self._news.get()
        self._bytes -= len(news.text)
        return news

    @property
    def is_too_long(self) -> bool:
        """Whether too much waits."""
        return self._news.qsize() > MAX_BEHIND or self._bytes > MAX_BEHIND_BYTES

    def clear(self) -> None:
        """Drop what waits."""
        while not self._news.empty():
            self._news.get_nowait()
        self._bytes = 0


class Watches:
    """The watches of a hub; `run` tells the watchers and belongs in a task."""

    def __init__(self, store: Store, users: Users) -> None:
        self._users = users
        self._collections: dict[str, _Questions] = {}
        self._of: dict[Connection, dict[str, Watch]] = {}
        self._changes: asyncio.Queue[tuple[int, list[Change]]] = asyncio.Queue()
        """What jobs changed, with the number of the first change."""
        self._last = self._pushed = 0
        """The number of the newest change."""
        self._quick, self._slow = _Lane(), _Lane()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watches")
        self._slow_thread = ThreadPoolExecutor(1, thread_name_prefix="slow-watches")
        store.follow(self._follow)

    def add(self, connection: Connection, collection: str, paths: Sequence[str], *, user: str | None = None) -> str:
        """The new watch's id. Raises `InvalidInput` for an expression that cannot be understood."""
        mine = self._of.get(connection, {})
        if len(mine) >= MAX_WATCHES:
            raise InvalidInput(f"A connection can have {MAX_WATCHES} watches.")
        question = self._question(collection, tuple(paths))
        watch = Watch(new_id(), connection, user, self._last, question)
        question.watches[watch.id] = watch
        self._of.setdefault(connection, mine)[watch.id] = watch
        return watch.id

    def remove(self, connection: Connection, id: str | None = None) -> None:  # noqa: A002 - what OpenFlow calls it
        """Forget one watch of a connection, or all of them."""
        mine = self._of.get(connection, {})
        for each in list(mine) if id is None else [id]:
            if (watch := mine.pop(each, None)) is not None:
                self._forget(watch)
        if not mine:
            self._of.pop(connection, None)

    async def run(self) -> None:
        """Tell watchers of changes, for ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._prepare())
                tasks.create_task(self._serve_quick())
                tasks.create_task(self._serve_slow())
        finally:
            self._thread.shutdown(wait=False)
            self._slow_thread.shutdown(wait=False)

    def _question(self, collection: str, paths: tuple[str, ...]) -> Question:
        questions = self._collections.get(collection)
        known = questions.get(paths) if questions is not None else None
        if known is not None:
            return known
        made = Question(collection, paths, compile_paths(paths))
        self._collections.setdefault(collection, _Questions()).add(made)
        return made

    def _forget(self, watch: Watch) -> None:
        question = watch.question
        del question.watches[watch.id]
        if not question.watches:
            questions = self._collections[question.collection]
            questions.remove(question)
            if not questions:
                del self._collections[question.collection]

    def _follow(self, changes: list[Change]) -> None:
        if any(change.collection in self._collections for change in changes):
            self._changes.put_nowait((self._last + 1, changes))
        self._last += len(changes)

    def _asked(self, change: Change) -> tuple[Question, ...]:
        questions = self._collections.get(change.collection)
        if questions is None or (change.operation == "delete" and not _has_history(change.collection)):
            return ()
        return tuple(questions.about(change.document.get("_type")))

    async def _prepare(self) -> None:
        """Turn changes into news, at the pace at which they are written."""
        loop = asyncio.get_running_loop()
        while True:
            first, changes = await self._changes.get()
            numbered = list(enumerate(changes, first))
            while not self._changes.empty() and len(numbered) < BATCH:
                first, changes = self._changes.get_nowait()
                numbered += enumerate(changes, first)
            for start in range(0, len(numbered), BATCH):
                work = [(number, change, self._asked(change)) for number, change in numbered[start : start + BATCH]]
                try:
                    found = await loop.run_in_executor(self._thread, _news, work)
                except Exception:  # one odd document must not silence all watches for ever
                    LOG.exception("watchers could not be told of %d changes", len(work))
                    continue
                for quick, slow in found:
                    self._put(self._quick, quick)
                    self._put(self._slow, slow)

    def _put(self, lane: _Lane, news: _News) -> None:
        if news.questions:
            lane.put(news)
        if lane.is_too_long:  # whoever would miss one is sent away
            lane.clear()
            for connection, watches in self._of.items():
                if any(watch.question.wanted.is_quick == (lane is self._quick) for watch in watches.values()):
                    LOG.warning("%r is closed: its watches are too far behind", connection)
                    connection.close(TRY_AGAIN, "too slow")

    async def _serve_quick(self) -> None:
        while True:
            await self._try_to_tell(await self._quick.get())

    async def _serve_slow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            news = await self._slow.get()
            try:
                answered = await loop.run_in_executor(self._slow_thread, _answered, news)
            except Exception:
                LOG.exception("watchers could not be told of a change in %s", news.collection)
                continue
            await self._try_to_tell(answered)

    async def _try_to_tell(self, news: _News) -> None:
        try:
            await self._tell(news)
        except Exception:
            LOG.exception("watchers could not be told of a change in %s", news.collection)

    async def _tell(self, news: _News) -> None:
        may_know: dict[str | None, bool] = {None: False}
        sent = sent_bytes = 0
        for watch in [each for question in news.questions for each in question.watches.values()]:
            if watch.since >= news.number:
                continue
            user = watch.user or watch.connection.user
            if user not in may_know:
                may_know[user] = await self._may_know(user or "", news)
            if not may_know[user]:
                continue
            event = WatchEvent(id=watch.id, operation=news.change, document=news.text)
            watch.connection.push("watchevent", event)
            sent, sent_bytes = sent + 1, sent_bytes + len(news.text)
            self._relieve(len(news.text))
            if sent >= TURN or sent_bytes >= TURN_BYTES:
                sent = sent_bytes = 0
                await asyncio.sleep(0)

    def _relieve(self, pushed: int) -> None:
        """Send the slowest watchers away when too much waits for all of them together."""
        self._pushed += pushed
        if self._pushed < LOOK_EVERY:
            return
        self._pushed = 0
        slowest = sorted((each for each in self._of if not each.is_closed), key=lambda each: each.unsent)
        together = sum(each.unsent for each in slowest)
        while together > MAX_UNSENT:
            connection = slowest.pop()
            together -= connection.unsent
            LOG.warning("%r is closed: too many events wait for it and for others", connection)
            connection.close(TRY_AGAIN, "too slow")

    async def _may_know(self, user: str, news: _News) -> bool:
        try:
            caller = await self._users.caller(user)
        except AgentError:
            return False
        return caller.may(news.collection, news.guarded, Right.READ)


def _has_history(collection: str) -> bool:
    return collection not in WITHOUT_HISTORY and not collection.endswith(".files")


def _types(question: Question) -> Iterable[str | None]:
    return (None,) if question.wanted.types is None else question.wanted.types


def _news(work: list[tuple[int, Change, tuple[Question, ...]]]) -> list[tuple[_News, _News]]:
    """In a thread: each change as news for the quick questions that it answers, and for all slow ones."""
    found = []
    for number, change, questions in work:
        if not questions:
            continue
        text = wire(change.document)
        guarded = _guarded(change)
        quick = _News(number, change.operation, change.collection, guarded, text,
                      tuple(each for each in questions if each.wanted.is_quick))  # fmt: skip
        slow = replace(quick, questions=tuple(each for each in questions if not each.wanted.is_quick))
        found.append((_answered(quick), slow))
    return found


def _answered(news: _News) -> _News:
    """In a thread: news for those questions alone that they answer."""
    if all(each.wanted is EVERYTHING for each in news.questions):
        return news
    document = orjson.loads(news.text)
    return replace(news, questions=tuple(each for each in news.questions if _is_met(each, document)))


def _is_met(question: Question, document: Document) -> bool:
    try:
        return question.wanted.matches(document)
    except Exception:  # one odd question must not keep the answer from the others
        LOG.exception("the paths %s of a watch failed", question.paths)
        return False


def _guarded(change: Change) -> Document:
    acl = security(change.collection, change.document).get("_acl")
    return {"metadata": {"_acl": acl}} if change.collection.endswith(".files") else {"_acl": acl}
