"""The collection ``agents``: agents and packages, their rules, and how an agent registers."""

from __future__ import annotations

import re
import secrets
from typing import Any

from jupyter_agent.errors import AccessDenied, InvalidInput
from jupyter_agent.hub import files
from jupyter_agent.hub.callers import Caller, Document, granted
from jupyter_agent.hub.data.documents import Date
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.store import Documents
from jupyter_agent.hub.operations import Collection
from jupyter_agent.openflow.rights import Right

COLLECTION = "agents"
SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
WITHOUT_FILE = ("", "local", None)

TAKEN = (
    "hostname", "os", "arch", "username", "version", "chrome", "chromium", "docker", "assistant", "daemon", "languages",
)  # fmt: skip
"""What an agent that is known already may say about itself when it registers."""


def guard(documents: Documents, caller: Caller, old: Document | None, new: Document | None) -> None:
    """The rules of the collection. What an old document says counts only if it was of the same type."""
    if new is None:
        return
    before = old if old is not None and old["_type"] == new["_type"] else {}
    if new["_type"] == "agent":
        _check_agent(documents, caller, before, new)
    elif new["_type"] == "package":
        _check_package(documents, caller, before, new)


def register(documents: Documents, caller: Caller, id: str, data: Document) -> Document:  # noqa: A002
    """The document of an agent that registers: the one with this id, or of its host and user, or a new one.

    Raises `AccessDenied` when the id is another's.
    """
    agents = Collection(documents, caller, COLLECTION, guard=guard)
    known = documents.get(COLLECTION, id) if id else _of_host(documents, caller, data)
    if known is None:
        return agents.insert(_new(caller, id, data))
    if known["_type"] != "agent":
        raise AccessDenied(f"item {id} not found in {COLLECTION} or Access Denied")
    taken = {name: data[name] for name in TAKEN if name in data}
    return agents.update_one({**known, **taken, "lastseen": Date.now()})


def delete_package(documents: Documents, caller: Caller, id: str) -> None:  # noqa: A002 - what OpenFlow calls it
    """Delete this package, and its file where nothing else needs it and the caller may.

    Raises `AccessDenied` when there is no such package, or the caller may not delete it.
    """
    package = documents.get(COLLECTION, id)
    if package is None or package["_type"] != "package" or not caller.may(COLLECTION, package, Right.READ):
        raise AccessDenied(f"item {id} not found in {COLLECTION} or Access Denied")
    Collection(documents, caller, COLLECTION, guard=guard).delete_one(id)
    fileid = package.get("fileid")
    file = documents.get(files.COLLECTION, fileid) if isinstance(fileid, str) else None
    if file is None or files.user_of(documents, file) is not None:
        return
    if caller.may(files.COLLECTION, file, Right.READ | Right.DELETE):
        Collection(documents, caller, files.COLLECTION, guard=files.guard).delete_one(file["_id"])


def runs_as_another(caller: Caller, agent: Document) -> str | None:
    """The id of the user whose token this agent is to use, where it is not the caller's."""
    runas = agent.get("runas")
    return runas if isinstance(runas, str) and runas and runas != caller.id else None


def _of_host(documents: Documents, caller: Caller, data: Document) -> Document | None:
    host = {"_type": "agent", "hostname": {"$eq": data.get("hostname")}, "username": {"$eq": data.get("username")}}
    if not data.get("hostname") or not data.get("username"):
        return None
    found = [each for each in documents.find(COLLECTION, compile_filter(host))
             if caller.may(COLLECTION, each, Right.READ | Right.UPDATE)]  # fmt: skip
    # What another user made and named after this host would give the agent its environment and its schedules.
    return next((each for each in found if caller.id in (each.get("_createdbyid"), each.get("runas"))), None)


def _new(caller: Caller, id: str, data: Document) -> Document:  # noqa: A002
    host, user = str(data.get("hostname") or "unknown"), str(data.get("username") or caller.username)
    return {
        "name": f"{host} / {user}",
        "slug": _slug(user),
        "runas": caller.id,
        "runasname": caller.name,
        "lastseen": Date.now(),
        **{name: value for name, value in data.items() if not name.startswith("_") or name == "_acl"},
        "_type": "agent",
        "_id": id,
    }


def _slug(user: str) -> str:
    """A name for queues and hosts that nobody else has."""
    readable = re.sub(r"[^a-z0-9]+", "-", user.lower()).strip("-")[:40].strip("-")
    return f"{readable or 'agent'}-{secrets.token_hex(4)}"


def _check_agent(documents: Documents, caller: Caller, old: Document, new: Document) -> None:
    slug, runas = new.get("slug"), new.get("runas")
    if not isinstance(slug, str) or not SLUG.fullmatch(slug):
        raise InvalidInput(f"An agent needs a slug of small letters, digits and hyphens, not {slug!r}.")
    if old and slug != old.get("slug") and not caller.is_admin:
        raise AccessDenied("Access denied: only admins may change the slug of an agent.")
    if runas in (None, ""):
        return
    if runas not in (caller.id, old.get("runas")) and not caller.is_admin:
        raise AccessDenied("Access denied: only admins may make an agent run as another user.")
    user = documents.get("users", runas) if isinstance(runas, str) else None
    if user is None or user["_type"] != "user":
        raise InvalidInput(f"An agent cannot run as {runas!r}: there is no such user.")
    needed = Right.READ | Right.UPDATE | Right.INVOKE
    new["_acl"] = granted(new["_acl"], str(runas), str(user.get("name", "")), needed)


def _check_package(documents: Documents, caller: Caller, old: Document, new: Document) -> None:
    """A package gives those who may read it its file: so its file must be one that the caller may have."""
    fileid: Any = new.get("fileid")
    if fileid in WITHOUT_FILE:
        return
    if not isinstance(fileid, str):
        raise InvalidInput("The fileid of a package must be a text.")
    if fileid != old.get("fileid"):
        files.readable(documents, caller, fileid)
    if old:
        files.share(documents, caller, fileid, new["_acl"])
