"""Bringing an export into a hub that does not run: in one transaction, so all of it or nothing.

A document that the hub has already, just so, is left: an import may be done again. One that it has otherwise is
refused, replaced or skipped, as the `Rule` says. A user or role of the same name is the same: the hub's own stays, and
its id takes the place of the other in all that is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jupyter_agent.errors import AgentError, Conflict, InvalidInput
from jupyter_agent.home import read_json, sync, write_private
from jupyter_agent.hub.accounts import os_user
from jupyter_agent.hub.callers import Document, checked_acl, security
from jupyter_agent.hub.data.documents import Date, new_id, parse_object
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.moving import Filling, filling, renamed, same
from jupyter_agent.hub.files import COLLECTION as FILES_COLLECTION
from jupyter_agent.hub.operations import collection_name
from jupyter_agent.hub.transfer.disk import Say, Told, hash_of, lines_of, plain, private
from jupyter_agent.hub.transfer.layout import FILES, PASSWORDS, Part, broken
from jupyter_agent.hub.transfer.opening import Content, Export
from jupyter_agent.hub.users import ROLES, SECRET_FIELDS, USERNAME
from jupyter_agent.openflow import rights

Rule = Literal["refuse", "replace", "skip"]
USERS = "users"
HISTORY = "_hist"
TELL = 500
MAX_ID = 200


@dataclass
class Report:
    """What an import did, by collection. ``same_names``: users and roles that the hub has under another id."""

    inserted: Counter[str] = field(default_factory=Counter)
    replaced: Counter[str] = field(default_factory=Counter)
    unchanged: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    files: int = 0
    same_names: list[str] = field(default_factory=list)
    without_password: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        counts = ("inserted", "replaced", "unchanged", "skipped")
        return {name: dict(sorted(getattr(self, name).items())) for name in counts} | {
            "files": self.files,
            "same_names": self.same_names,
            "without_password": self.without_password,
        }


def import_export(hub: Path, export: Export, *, rule: Rule, say: Say) -> Report:
    """Import into the store in this folder, whose lock the caller holds and which has this program's version.

    Raises `InvalidInput` for a document that cannot be, `Conflict` for one that the hub has otherwise, `Unavailable`
    when the disk is full: nothing was changed then.
    """
    placed = _Placed(hub / "files", export, say)
    try:
        with filling(hub / "hub.db") as store:
            work = _Import(store, export, rule, say)
            work.run(placed)
            sync(hub / "files")
    except BaseException:
        placed.take_back()
        raise
    credentials = read_json(hub / "credentials.json") or {}
    if work.was_fresh and credentials:  # the owner may have another id now, for which this token is not
        write_private(hub / "credentials.json", json.dumps({**credentials, "jwt": ""}))
    owner = credentials.get("username") or os_user()  # whose password is set at each start
    work.report.without_password = [name for name in work.report.without_password if name != owner]
    return work.report


class _Placed:
    """The contents that were put among those of the hub."""

    def __init__(self, folder: Path, export: Export, say: Say) -> None:
        self._folder = folder
        self._export = export
        self._say = say
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._last = ""

    def place(self, content: Content) -> bool:
        """Put a content where it belongs, unless it is there. Raises `Conflict` when another is."""
        path = self._folder / content.id
        tell = partial(self._say, f"files: {content.id}")
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size != content.bytes or not stat.S_ISREG(path.lstat().st_mode):
                raise Conflict(f"The hub has another file with the id {content.id}.")
            with path.open("rb") as present:
                if hash_of(Told(present, tell)) != (content.bytes, content.sha256):
                    raise Conflict(f"The hub has another file with the id {content.id}.")
            return False
        part = self._folder / f"{content.id}.part"
        part.unlink(missing_ok=True)
        with plain(self._export.folder / FILES, content.id) as source, private(part) as copy:
            if hash_of(Told(source, tell), copy) != (content.bytes, content.sha256):
                raise broken(f"the content of the file {content.id} is not as it was written")
            copy.flush()
            os.fsync(copy.fileno())
        part.rename(path)
        return True

    def take_back(self) -> None:
        """What no document knows goes at the hub's next start; half of a content goes now."""
        for part in self._folder.glob("*.part"):
            part.unlink(missing_ok=True)


class _Import:
    """One import under way."""

    def __init__(self, store: Filling, export: Export, rule: Rule, say: Say) -> None:
        self._store = store
        self._export = export
        self._rule = rule
        self._say = say
        self.report = Report()
        self.was_fresh = _is_fresh(store)
        self._same: dict[str, str] = {}
        self._kept: set[str] = set()

    def run(self, placed: _Placed) -> None:
        """All of it."""
        if self.was_fresh:
            self._store.empty(USERS)
            self._store.empty(USERS + HISTORY)
        elif users := self._export.manifest.part(USERS):
            self._same = dict(self._pairs(users))
        parts = self._export.manifest.collections
        for part in sorted(parts, key=lambda part: part.collection.endswith(HISTORY)):
            self._collection(part, placed)
        for part in parts:
            if part.indexes:
                self._store.add_indexes(part.collection, part.indexes)
        self._passwords()

    def _pairs(self, users: Part) -> Iterator[tuple[str, str]]:
        """The ids of users and roles in the export, and of those here that have the same name."""
        for document in self._documents(users):
            kind, name = document["_type"], _name(document)
            if kind not in ("user", "role") or self._store.documents.get(USERS, document["_id"]) is not None:
                continue
            wanted = compile_filter({"_type": kind, "username" if kind == "user" else "name": {"$eq": name}})
            found = next(self._store.documents.find(USERS, wanted), None)
            if found is not None:
                self.report.same_names.append(f"{kind} {name}")
                yield document["_id"], found["_id"]

    def _collection(self, part: Part, placed: _Placed) -> None:
        contents = self._export.contents() if part.collection == FILES_COLLECTION else None
        for count, document in enumerate(self._documents(part)):
            if not self._store.is_new(part.collection, document["_id"]):
                raise broken(f"{part.name} ({part.collection}) holds the id {document['_id']} twice")
            if part.collection == USERS and document["_id"] in self._same:
                self.report.skipped[USERS] += 1
                continue
            if self._same:
                document = renamed(document, lambda text: self._same.get(text, text))  # noqa: PLW2901 - the same one
            content = _content_of(document, contents) if contents is not None else None
            if self._put(part.collection, document) and content is not None:
                self.report.files += placed.place(content)
            if count % TELL == 0:
                self._say(f"{part.collection}: {count} of {part.lines}")
        if contents is not None and next(contents, None) is not None:
            raise broken("it holds contents of files that have no document")

    def _put(self, collection: str, document: Document) -> bool:
        """Whether the document came in, or was there just so."""
        old = self._store.documents.get(collection, document["_id"])
        if old is None and collection.endswith(HISTORY):
            old = self._version(collection, document)
        if old is None:
            try:
                self._store.insert(collection, document)
            except Conflict:
                if self._rule != "skip":
                    raise
                self.report.skipped[collection] += 1
                return False
            self.report.inserted[collection] += 1
            return True
        if same(old, document):
            self.report.unchanged[collection] += 1
            return True
        if collection.endswith(HISTORY):
            return self._put_version(collection, document)
        return self._resolve(collection, old, document)

    def _resolve(self, collection: str, old: Document, new: Document) -> bool:
        needed = collection == USERS and (new["_id"] in ROLES or new["_id"] == rights.ROOT)
        if self._rule == "skip" or (needed and self._rule == "refuse"):  # every hub has these
            self.report.skipped[collection] += 1
            self._kept.add(new["_id"])
            return False
        if self._rule == "refuse":
            raise Conflict(
                f"The hub has another version of {collection} {new['_id']} ({_name(new)}): say --replace to take the "
                "export's, or --skip to keep the hub's. Nothing was changed."
            )
        if collection == FILES_COLLECTION and old.get("length") != new.get("length"):
            raise Conflict(f"The hub has another file with the id {new['_id']}. Nothing was changed.")
        self._store.replace(collection, old, new)
        self.report.replaced[collection] += 1
        return True

    def _version(self, collection: str, document: Document) -> Document | None:
        """The same version of the same document, whatever the id of its row."""
        key = {name: {"$eq": document.get(name)} for name in ("id", "_version")}
        return next(self._store.documents.find(collection, compile_filter(key)), None)

    def _put_version(self, collection: str, document: Document) -> bool:
        """A version of a document that is not here, or is here under another id."""
        if self._version(collection, document) is not None:
            self.report.skipped[collection] += 1
            return False
        self._store.insert(collection, {**document, "_id": new_id()})
        self.report.inserted[collection] += 1
        return True

    def _passwords(self) -> None:
        part = self._export.manifest.part(PASSWORDS)
        for number, line in lines_of(self._export.folder, part) if part else ():
            found = _object(line, f"line {number} of {PASSWORDS}")
            id_, hashed = found.get("id"), found.get("hash")
            if not isinstance(id_, str) or not isinstance(hashed, str) or not hashed.startswith("$argon2id$"):
                raise broken(f"line {number} of {PASSWORDS} is no hash of a password")
            if id_ not in self._same and id_ not in self._kept:
                self._store.documents.set_password(id_, hashed)
        for user in self._store.documents.find(USERS, compile_filter({"_type": "user"})):
            if user["_id"] != rights.ROOT and self._store.documents.password(user["_id"]) is None:
                self.report.without_password.append(str(user.get("username")))

    def _documents(self, part: Part) -> Iterator[Document]:
        if collection_name(part.collection) != part.collection:
            raise broken(f"{part.collection!r} is not the name of a collection")
        for number, line in lines_of(self._export.folder, part):
            where = f"line {number} of {part.name} ({part.collection})"
            document = _object(line, where)
            try:
                _check(part.collection, document)
            except AgentError as error:
                raise InvalidInput(f"The export has a document that cannot be, {where}: {error}") from error
            yield document


def _is_fresh(store: Filling) -> bool:
    """Whether there is nothing in the hub but what it makes itself at its first start."""
    counts = store.counts()
    if any(count for name, count in counts.items() if name not in (USERS, USERS + HISTORY)):
        return False
    users = [document["_id"] for document in store.documents.find(USERS, compile_filter({}))]
    others = [id_ for id_ in users if id_ not in ROLES and id_ != rights.ROOT]
    return len(others) <= 1


def _content_of(document: Document, contents: Iterator[Content]) -> Content:
    """The content that belongs to the document of a file: they stand in the same order."""
    content = next(contents, None)
    if content is None or (content.id, content.bytes) != (document["_id"], document["length"]):
        raise broken(f"the content of the file {document['_id']} is not where it should be")
    if document.get("sha256", content.sha256) != content.sha256:
        raise broken(f"the file {document['_id']} has another content than its document says")
    return content


def _object(line: bytes, where: str) -> Document:
    try:
        return parse_object(line.decode(), where, names=True)
    except (AgentError, UnicodeDecodeError) as error:
        raise broken(f"{where} cannot be understood ({error})") from error


def _check(collection: str, document: Document) -> None:
    """Raises `InvalidInput` for what no client could have stored."""
    id_ = document.get("_id")
    if not isinstance(id_, str) or not 0 < len(id_) <= MAX_ID or "\0" in id_:
        raise InvalidInput(f"its _id must be a text of at most {MAX_ID} characters.")
    if collection.endswith(HISTORY):
        return
    owner = security(collection, document)
    kind = owner.get("_type")
    if not isinstance(kind, str) or kind != kind.lower():
        raise InvalidInput("its _type must be a text of small letters.")
    checked_acl(owner.get("_acl"))
    version = owner.get("_version", 0)
    if not isinstance(version, int) or isinstance(version, bool):
        raise InvalidInput("its _version must be a whole number.")
    if collection == USERS:
        _check_user(document)
    elif collection == FILES_COLLECTION:
        _check_file(document)


def _check_user(document: Document) -> None:
    if any(name in document for name in SECRET_FIELDS):
        raise InvalidInput("a user's document holds no password.")
    if document["_type"] == "user" and not USERNAME.fullmatch(str(document.get("username"))):
        raise InvalidInput(f"{document.get('username')!r} cannot be a user's name.")
    members = document.get("members", [])
    if not isinstance(members, list) or not all(isinstance(each, dict) and isinstance(each.get("_id"), str)
                                                for each in members):  # fmt: skip
        raise InvalidInput("the members of a role must be a list of objects with an _id.")


def _check_file(document: Document) -> None:
    sound = (
        isinstance(document.get("filename"), str)
        and isinstance(document.get("length"), int)
        and isinstance(document.get("uploadDate"), Date)
    )
    if not sound:
        raise InvalidInput("a file needs a filename, a length and an uploadDate.")


def _name(document: Document) -> str:
    return str(document.get("username") or document.get("name") or document.get("_id"))
