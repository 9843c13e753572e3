"""The users of a hub from the command line: in its store when it does not run, else through it, as the home's owner."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from jupyter_agent.errors import Conflict, InvalidInput, NotFound, ServerRefused, Unavailable
from jupyter_agent.home import Home, Lock, read_json
from jupyter_agent.hub.callers import SYSTEM, Document
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.store import Documents, Store
from jupyter_agent.hub.operations import Collection
from jupyter_agent.hub.users import USERNAME, Users, entry_of_admins, guard
from jupyter_agent.openflow import rights

CONNECT_S = 20
MANY = 500
ACCOUNTS = {"_type": {"$in": ["user", "role"]}}


@dataclass(frozen=True)
class Account:
    """A user as a list of users shows one; ``roles`` are names."""

    username: str
    id: str
    roles: tuple[str, ...]
    disabled: bool

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Accounts(Protocol):
    """The documents of users and roles, read and written with the rights of an admin."""

    async def documents(self) -> list[Document]:
        """All users and roles."""

    async def save(self, user: Document) -> None:
        """Insert a user, or replace the one with its ``_id``; ``newpassword`` is the password."""

    async def delete(self, user: str) -> None:
        """Delete the user with this id."""


async def add(accounts: Accounts, name: str, password: str, *, admin: bool) -> bool:
    """Add a user, or give the one of this name a new password; true for a new one. ``admin`` makes an admin.

    Raises `InvalidInput` for a name or a password that cannot be.
    """
    if not password:
        raise InvalidInput("A password cannot be empty: write it on standard input, in one line.")
    if not USERNAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be a user's name: use up to 100 letters, digits and the characters . _ @ + -"
        )
    documents = await accounts.documents()
    user = _user(documents, name)
    if user is not None and user["_id"] == rights.ROOT:
        raise InvalidInput("root is the hub itself and has no password: take another name.")
    item: Document = dict(user) if user is not None else {"_type": "user", "username": name}
    if admin:
        roles = {role["_id"] for role in _roles(documents, item.get("_id"))} | {rights.ADMINS}
        item["roles"] = [entry_of_admins() if role == rights.ADMINS else {"_id": role} for role in sorted(roles)]
    await accounts.save({**item, "newpassword": password})
    return user is None


async def listed(accounts: Accounts) -> list[Account]:
    """All users but root, by name."""
    documents = await accounts.documents()
    users = [each for each in documents if each["_type"] == "user" and each["_id"] != rights.ROOT]
    found = [
        Account(
            str(user.get("username")),
            user["_id"],
            tuple(sorted(str(role.get("name")) for role in _roles(documents, user["_id"]))),
            bool(user.get("disabled")),
        )
        for user in users
    ]
    return sorted(found, key=lambda account: account.username)


async def remove(accounts: Accounts, name: str) -> None:
    """Delete a user; what they made stays. Raises `NotFound`."""
    user = _user(await accounts.documents(), name)
    if user is None:
        raise NotFound(f"There is no user named {name}.")
    if user["_id"] == rights.ROOT:
        raise InvalidInput("root is the hub itself and cannot be removed.")
    await accounts.delete(user["_id"])


@asynccontextmanager
async def accounts_of(home: Home, lock: Lock) -> AsyncIterator[Accounts]:
    """The users of the hub of this home: itself where ``lock``, the hub's, is free, else through the hub that runs."""
    try:
        lock.acquire()
    except Conflict:
        async with _over_the_wire(home) as accounts:
            yield accounts
        return
    try:
        async with Store(home.hub / "hub.db") as store:
            users = Users(store)
            try:
                await users.prepare()
                yield _Stored(store, users)
            finally:
                users.close()
    finally:
        lock.release()


class _Stored:
    """In the store."""

    def __init__(self, store: Store, users: Users) -> None:
        self._store = store
        self._users = users

    async def documents(self) -> list[Document]:
        return await self._store.read(lambda documents: list(documents.find("users", compile_filter(ACCOUNTS))))

    async def save(self, user: Document) -> None:
        hashed = await self._users.hashed(user.pop("newpassword"))

        def job(users: Collection) -> None:
            users.with_password(users.update_one(user) if "_id" in user else users.insert(user), hashed)

        await self._write(job)

    async def delete(self, user: str) -> None:
        await self._write(lambda users: users.delete_one(user))

    async def _write(self, job: Callable[[Collection], Any]) -> None:
        def run(documents: Documents) -> None:
            job(Collection(documents, SYSTEM, "users", guard=guard))

        await self._store.write(run)


class _Wire:
    """Through a running hub."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def documents(self) -> list[Document]:
        found: list[Document] = []
        while page := await self._client.query("users", ACCOUNTS, order_by={"_id": 1}, top=MANY, skip=len(found)):
            found += page
        return found

    async def save(self, user: Document) -> None:
        try:
            if "_id" in user:
                await self._client.update_one("users", user)
            else:
                await self._client.insert_one("users", user)
        except ServerRefused as error:
            raise InvalidInput(str(error)) from error

    async def delete(self, user: str) -> None:
        await self._client.delete_one("users", user)


@asynccontextmanager
async def _over_the_wire(home: Home) -> AsyncIterator[Accounts]:
    from jupyter_agent.openflow.client import Client, Credentials  # noqa: PLC0415 - a hub that serves needs no client

    url = str((read_json(home.hub / "hub.json") or {}).get("apiurl") or "")
    owner = read_json(home.hub / "credentials.json") or {}
    if not url:
        raise Unavailable("The hub is starting: try again in a moment.")
    credentials = Credentials(username=str(owner.get("username")), password=str(owner.get("password")))
    async with Client(url, credentials, version="") as client:
        await client.connected(CONNECT_S)
        yield _Wire(client)


def _user(documents: list[Document], name: str) -> Document | None:
    """The user of this name; names of users differ by more than case."""
    wanted = name.lower()
    users = (each for each in documents if each["_type"] == "user")
    return next((each for each in users if str(each.get("username")).lower() == wanted), None)


def _roles(documents: list[Document], user: object) -> list[Document]:
    """The roles that name a user as a member."""
    roles = (each for each in documents if each["_type"] == "role")
    return [role for role in roles if any(member.get("_id") == user for member in role.get("members", []))]


def os_user() -> str:
    """The name of who runs this, if it can be a user's name here."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        return "admin"
    return name if USERNAME.fullmatch(name) and name != "root" else "admin"
