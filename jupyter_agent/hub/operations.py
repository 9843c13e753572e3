"""What the database commands do to documents: rights, the fields the server owns, versions.

Each runs inside one job of the store (`Documents`), so each is one transaction. A collection with rules of its own has
a guard.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import orjson

from jupyter_agent.errors import AccessDenied, InvalidInput
from jupyter_agent.hub.callers import Caller, Document, checked_acl, owned, security
from jupyter_agent.hub.data.aggregates import Pipeline
from jupyter_agent.hub.data.documents import Date, new_id, wire
from jupyter_agent.hub.data.filters import Filter, compile_filter
from jupyter_agent.hub.data.results import Order, Projection, Rank, distinct, page, rank
from jupyter_agent.hub.data.store import Documents
from jupyter_agent.hub.data.tables import HISTORY
from jupyter_agent.hub.data.updates import updated
from jupyter_agent.openflow.rights import Right

T = TypeVar("T")

Identity = tuple[Rank, ...]
"""What tells documents apart: the values of some of their fields."""

Guard = Callable[[Documents, Caller, Document | None, Document | None], None]
"""Rules of one collection, called with the old and the new document (``None``: there is none) before it is written.

It may change the new document, and raises `AgentError` for what may not be.
"""

TOP = 500
"""How many documents a query returns when it does not say."""

MAX_RESULT = 128 << 20
"""Bytes of a query's result."""

MAX_ITEMS = 10_000
"""Documents in one command that inserts."""

AT_ONCE = 500
"""Items that are looked for at once, where many are inserted or updated."""

WORTH_IT = 5
"""How many of them make that worth it."""

MAX_HOLD_S = 10
"""How long one command may write: nobody else can meanwhile."""

STAMPS = ("_created", "_createdby", "_createdbyid", "_modified", "_modifiedby", "_modifiedbyid", "_version")
COLLECTION = re.compile(r"[^\0$]{1,120}")
ALL = compile_filter({})


def collection_name(given: str) -> str:
    """The collection that a client means. Raises `InvalidInput` for what is no name of one."""
    name = given.strip()
    if not COLLECTION.fullmatch(name) or name.startswith("system.") or name.endswith(".chunks"):
        raise InvalidInput(
            f"{given[:60]!r} is not the name of a collection." if name else "The collectionname is missing."
        )
    return "fs.files" if name == "files" else name


class Collection:
    """A collection as one caller sees it in one job of the store.

    With ``view`` the caller reads what that other one may read as well, and no more than themselves. A history is for
    reading alone: who may read a version of a document by its ``_acl``, and the document as it is now where it still
    is, may read that version.
    """

    def __init__(
        self, documents: Documents, caller: Caller, name: str, *, guard: Guard | None = None, view: Caller | None = None
    ) -> None:
        self._documents = documents
        self._caller = caller
        self._view = view
        self._name = name
        self._guard = guard
        self._until = time.monotonic() + MAX_HOLD_S
        self._shown_now: dict[str, bool] = {}

    def query(
        self, wanted: Filter, *, order: Order = (), skip: int = 0, top: int = 0, projection: Projection | None = None
    ) -> str:
        """A JSON array of the documents that match and that the caller may read."""
        if skip < 0 or top < 0:
            raise InvalidInput("top and skip cannot be negative.")
        last = skip + (top or TOP)
        ordered = self._documents.in_order(self._name, wanted, order) if order else None
        found: Iterable[Document]
        if order and ordered is None:
            found = page(self.readable(wanted), order, skip, last - skip)
        else:  # one by one: those that are too much together are never all in memory
            found = islice(self.readable(wanted) if ordered is None else self._only_readable(ordered), skip, last)
        shown = projection if projection is not None and not self._holds_files else _as_it_is
        return _array(shown(document) for document in found)

    def count(self, wanted: Filter) -> int:
        """How many documents match that the caller may read."""
        if not wanted.query and self._caller.is_admin and self._view is None:
            return self._documents.count(self._name)
        return sum(1 for _ in self.readable(wanted))

    def aggregate(self, pipeline: Pipeline) -> str:
        """A JSON array of what a pipeline makes of the documents that the caller may read, here and elsewhere."""

        def lookup(name: str) -> Iterator[Document]:
            return Collection(self._documents, self._caller, collection_name(name), view=self._view).readable(ALL)

        return _array(pipeline.run(self.readable(pipeline.first or ALL), lookup))

    def distinct(self, field: str, wanted: Filter) -> list[str]:
        """The different values of a field: texts and dates as they are, others as JSON."""
        values = distinct(self.readable(wanted), field)
        return [str(value) if isinstance(value, str | Date) else wire(value) for value in values]

    def version(self, id: str, version: int) -> Document:  # noqa: A002 - what OpenFlow calls it
        """A document as it was in this version, also when it is deleted. Raises `AccessDenied`."""
        now = self._documents.get(self._name, id)
        if now is not None and self._security(now).get("_version") == version and self._may(now, Right.READ):
            return now
        history = Collection(self._documents, self._caller, self._name + HISTORY)
        kept = list(history.readable(compile_filter({"id": {"$eq": id}, "_version": version})))
        if not kept:
            raise AccessDenied(f"item {id} not found in {self._name} or Access Denied")
        item: Document = kept[-1]["item"]
        return item

    def readable(self, wanted: Filter) -> Iterator[Document]:
        """The documents that match and that the caller may read."""
        return self._only_readable(self._documents.find(self._name, wanted))

    def insert(self, item: Document) -> Document:
        """Insert a document; the id is made where it has none. Raises `Conflict` when the id is taken."""
        new = {"_id": _id(item), **{name: value for name, value in item.items() if name != "_id"}}
        owner = self._security(new)
        owner["_acl"] = owned(checked_acl(owner.get("_acl") or []), self._caller)
        now, name, id = Date.now(), self._caller.name, self._caller.id  # noqa: A001 - what OpenFlow calls it
        owner |= dict(zip(STAMPS, (now, name, id, now, name, id, 0), strict=True))
        self._check(None, new)
        self._documents.insert(self._name, new)
        return new

    def insert_many(self, items: Sequence[Document]) -> list[Document]:
        """Insert them all, or none. Raises `InvalidInput` for too many."""
        check_number(items)
        return [self.insert(item) for item in self._in_time(items)]

    def update_one(self, item: Document) -> Document:
        """Replace a document by its ``_id``; fields that begin with ``_`` stay where ``item`` leaves them out."""
        old = self._writable(item.get("_id"))
        new = _merged(old, item)
        if self._holds_files:
            new["metadata"] = _merged(old["metadata"], self._security(item))
        self._restore(old, new)
        self._check(old, new)
        if _same(old, new):
            return old
        self._stamp(new)
        if "_version" in new:
            new["_version"] += 1
        self._documents.replace(self._name, old, new)
        return new

    def updatable(self, wanted: Filter) -> list[str]:
        """The ids of those that match and that the caller may update."""
        return self._ids_of(wanted, Right.READ | Right.UPDATE)

    def update_document(self, wanted: Filter, update: Document, ids: Iterable[str]) -> tuple[int, int]:
        """Apply update operators to those of these that match, still, and that the caller may update.

        How many matched, and how many were changed.
        """
        matched = changed = 0
        for id in self._in_time(ids):  # noqa: A001 - what OpenFlow calls it
            old = self._documents.get(self._name, id)
            if old is not None and wanted.matches(old) and self._may(old, Right.READ | Right.UPDATE):
                matched += 1
                changed += self._update(old, update)
        return matched, changed

    def insert_or_update(self, names: str, item: Document) -> Document:
        """Update the one document that has the same values in the fields ``names`` (``_id`` if empty), or insert.

        Raises `InvalidInput` when several have.
        """
        fields = unique_fields(names)
        return self._put(fields, item, self._ids_like(fields, item))

    def insert_or_update_many(self, names: str, items: Sequence[Document]) -> list[Document]:
        """The same for each of the items, in their order: all, or none. Raises `InvalidInput` for too many."""
        check_number(items)
        fields = unique_fields(names)
        written: list[Document] = []
        for begin in range(0, len(items), AT_ONCE):
            some = items[begin : begin + AT_ONCE]
            known = self._ids_by_identity(fields, some)
            for item in self._in_time(some):
                ids = self._ids_like(fields, item) if known is None else known.setdefault(_identity(fields, item), [])
                written.append(self._put(fields, item, ids))
                ids[:] = [written[-1]["_id"]]
        return written

    def delete_one(self, id: str) -> int:  # noqa: A002 - what OpenFlow calls it
        """Delete a document: 1, as the real server says also when there is none that the caller may read.

        Of files, 0 then.
        """
        self._check_history()
        old = self._documents.get(self._name, id)
        if old is None or not self._may(old, Right.READ):
            return 0 if self._holds_files else 1
        if not self._may(old, Right.DELETE):
            raise AccessDenied(f"Access denied: you may not delete {id} in {self._name}.")
        self._delete(old)
        return 1

    def deletable(self, wanted: Filter) -> list[str]:
        """The ids of those that match and that the caller may delete."""
        self._check_history()
        return self._ids_of(wanted, Right.READ | Right.DELETE)

    def delete_many(self, wanted: Filter, ids: Iterable[str]) -> int:
        """Delete those of these that match, still, and that the caller may delete; their number."""
        self._check_history()
        deleted = 0
        for id in self._in_time(ids):  # noqa: A001 - what OpenFlow calls it
            old = self._documents.get(self._name, id)
            if old is not None and wanted.matches(old) and self._may(old, Right.READ | Right.DELETE):
                self._delete(old)
                deleted += 1
        return deleted

    def with_password(self, user: Document, hashed: str | None) -> Document:
        """Set a user's password, where one is given; the user."""
        if hashed is not None and user["_type"] == "user":
            self._documents.set_password(user["_id"], hashed)
        return user

    @property
    def _holds_files(self) -> bool:
        return self._name.endswith(".files")

    @property
    def _is_history(self) -> bool:
        return self._name.endswith(HISTORY)

    def _only_readable(self, documents: Iterator[Document]) -> Iterator[Document]:
        return (each for each in documents if self._may(each, Right.READ))

    def _may(self, document: Document, right: Right) -> bool:
        viewers = (self._caller,) if self._view is None else (self._caller, self._view)
        if not all(viewer.may(self._name, document, right) for viewer in viewers):
            return False
        return not self._is_history or all(viewer.is_admin or self._may_now(viewer, document) for viewer in viewers)

    def _may_now(self, viewer: Caller, version: Document) -> bool:
        """Whether they may read the document of a version as it is now, where it still is."""
        key = f"{viewer.id} {version.get('id')}"
        if key not in self._shown_now:
            collection = self._name.removesuffix(HISTORY)
            now = self._documents.get(collection, str(version.get("id")))
            self._shown_now[key] = now is None or viewer.may(collection, now, Right.READ)
        return self._shown_now[key]

    def _ids_of(self, wanted: Filter, right: Right) -> list[str]:
        return [each["_id"] for each in self._documents.find(self._name, wanted) if self._may(each, right)]

    def _in_time(self, items: Iterable[T]) -> Iterator[T]:
        """Pass them on for as long as a command may write. Raises `InvalidInput`, which undoes it all."""
        for item in items:
            if time.monotonic() > self._until:
                raise InvalidInput(
                    f"This takes longer than {MAX_HOLD_S} s, in which nobody else could write: do it in smaller parts. "
                    "Nothing was changed."
                )
            yield item

    def _check_history(self) -> None:
        if self._is_history:
            raise AccessDenied(f"Access denied: {self._name} is a history, which cannot be changed.")

    def _put(self, fields: list[str], item: Document, ids: list[str]) -> Document:
        if len(ids) > 1:
            raise InvalidInput(f"More than one document has the same {', '.join(fields)}: none was changed.")
        return self.update_one({**item, "_id": ids[0]}) if ids else self.insert(item)

    def _ids_like(self, fields: list[str], item: Document) -> list[str]:
        """The ids of documents with the same values in these fields: two are enough to know that they are too many."""
        if fields == ["_id"] and not item.get("_id"):
            return []
        same = compile_filter({field: {"$eq": _sought(field, item)} for field in fields})
        return [document["_id"] for document in islice(self.readable(same), 2)]

    def _ids_by_identity(self, fields: list[str], items: Sequence[Document]) -> dict[Identity | None, list[str]] | None:
        """The same for many items by one look at the collection; ``None`` where each has to be looked for by itself."""
        if len(items) < WORTH_IT or fields == ["_id"] or None in {_identity(fields, item) for item in items}:
            return None
        sought = {field: {"$in": list({rank(_sought(field, item)): _sought(field, item) for item in items}.values())}
                  for field in fields}  # fmt: skip
        found: dict[Identity | None, list[str]] = {}
        for document in self._in_time(self.readable(compile_filter(sought))):
            found.setdefault(_identity(fields, document), []).append(document["_id"])
        return None if None in found else found

    def _writable(self, id: object) -> Document:  # noqa: A002 - what OpenFlow calls it
        if not isinstance(id, str) or not id:
            raise InvalidInput("The item has no _id: updateone needs the _id of the document that it replaces.")
        old = self._documents.get(self._name, id)
        if old is None or not self._may(old, Right.READ):
            raise AccessDenied(f"item {id} not found in {self._name} or Access Denied")
        if not self._may(old, Right.UPDATE):
            raise AccessDenied(f"Access denied: you may not update {id} in {self._name}.")
        return old

    def _update(self, old: Document, update: Document) -> bool:
        new = updated(old, update, Date.now())
        if new.get("_id") != old["_id"]:
            raise InvalidInput("The _id of a document cannot be changed.")
        self._restore(old, new)
        self._security(new)["_type"] = self._security(old)["_type"]
        self._check(old, new)
        if _same(old, new):
            return False
        self._stamp(new)
        self._documents.replace(self._name, old, new, "update")
        return True

    def _delete(self, old: Document) -> None:
        if self._guard is not None:
            self._guard(self._documents, self._caller, old, None)
        by = {"_deleted": Date.now(), "_deletedby": self._caller.name, "_deletedbyid": self._caller.id}
        self._documents.delete(self._name, old, **by)

    def _check(self, old: Document | None, new: Document) -> None:
        self._check_history()
        owner = self._security(new)
        owner["_type"] = _type(owner.get("_type") or "unknown")
        owner["_acl"] = checked_acl(owner.get("_acl") or owned([], self._caller))
        if "_encrypt" in owner:
            raise InvalidInput("This hub does not encrypt fields (_encrypt): nothing was stored.")
        if self._guard is not None:
            self._guard(self._documents, self._caller, old, new)

    def _security(self, document: Document) -> Document:
        if self._holds_files and not isinstance(document.get("metadata"), dict):
            raise InvalidInput("The metadata of a file must be an object.")
        return security(self._name, document)

    def _restore(self, old: Document, new: Document) -> None:
        """Put back what only the server may change."""
        before, owner = self._security(old), self._security(new)
        for name in STAMPS:
            owner.pop(name, None)
            if name in before:
                owner[name] = before[name]

    def _stamp(self, new: Document) -> None:
        caller = self._caller
        self._security(new).update(_modified=Date.now(), _modifiedby=caller.name, _modifiedbyid=caller.id)


def check_number(items: Sequence[Document]) -> None:
    """Raises `InvalidInput` for more than are taken in one command."""
    if len(items) > MAX_ITEMS:
        raise InvalidInput(f"{len(items)} items are too many for one command: send up to {MAX_ITEMS} at a time.")


def unique_fields(names: str) -> list[str]:
    """The fields that tell documents apart, ``_id`` where none are named. Raises `InvalidInput`."""
    fields = [name.strip() for name in names.split(",") if name.strip()] or ["_id"]
    for field in fields:
        if "." in field:
            raise InvalidInput(f"{field!r} cannot tell documents apart: uniqeness names fields of the document itself.")
    return fields


def _sought(field: str, item: Document) -> Any:
    """The value by which a document like ``item`` is found: types are stored in small letters."""
    value = item.get(field)
    return value.lower() if field == "_type" and isinstance(value, str) else value


def _identity(fields: list[str], item: Document) -> Identity | None:
    """``None`` when there is a value that could be equal to others than itself alone."""
    values = [_sought(field, item) for field in fields]
    if any(
        isinstance(value, list | dict) or (isinstance(value, str) and value.startswith("__REGEXP ")) for value in values
    ):
        return None
    return tuple(rank(value) for value in values)


def _array(documents: Iterable[Document]) -> str:
    """JSON for a client. Raises `InvalidInput` when it is too long."""
    texts, size = [], 0
    for document in documents:
        texts.append(wire(document))
        size += len(texts[-1])
        if size > MAX_RESULT:
            raise InvalidInput(f"The result is bigger than {MAX_RESULT >> 20} MiB: ask for fewer documents with top.")
    return f"[{','.join(texts)}]"


def _as_it_is(document: Document) -> Document:
    return document


def _merged(old: Document, item: Document) -> Document:
    """``item`` with what it leaves out of the fields that begin with ``_``; a null in one of these removes it."""
    kept = {name: value for name, value in old.items() if name.startswith("_")}
    return {name: value for name, value in (kept | item).items() if value is not None or not name.startswith("_")}


def _id(item: Document) -> str:
    id = item.get("_id") or new_id()  # noqa: A001 - what OpenFlow calls it
    if not isinstance(id, str) or len(id) > 200 or "\0" in id:  # noqa: PLR2004 - ids are short
        raise InvalidInput("An _id must be a text of at most 200 characters.")
    return id


def _type(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidInput("_type must be a text.")
    return value.lower()


def _same(old: Document, new: Document) -> bool:
    return _sorted(old) == _sorted(new)


def _sorted(document: Document) -> bytes:
    return orjson.dumps(document, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS)
