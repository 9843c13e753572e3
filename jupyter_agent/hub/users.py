"""Users and roles: who signs in, with what, and which roles they have.

A user is a document in ``users``; who is in a role stands in the role's ``members`` alone. Everybody is in *users*.
Passwords are hashed (`passwords`); tokens are signed with a key of this store and hold the user's id only.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time

import jwt

from jupyter_agent.errors import AccessDenied, Conflict, InvalidInput, NotFound, SignInFailed
from jupyter_agent.hub.callers import SYSTEM, Caller, Document, entry, granted
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.hub.data.filters import compile_filter
from jupyter_agent.hub.data.store import Change, Documents, Store
from jupyter_agent.hub.operations import Collection
from jupyter_agent.hub.passwords import REFUSED_S, Passwords
from jupyter_agent.openflow import rights
from jupyter_agent.openflow.rights import Right

SHORT_S = 5 * 60
LONG_S = 365 * 24 * 3600
"""How long a token is valid."""

ROLES = {
    rights.ADMINS: "admins",
    rights.USERS: "users",
    rights.ROBOTS: "robots",
    rights.CUSTOMER_ADMINS: "customer admins",
    rights.RESELLERS: "resellers",
    rights.FILESTORE_USERS: "filestore users",
    rights.FILESTORE_ADMINS: "filestore admins",
    rights.ROBOT_USERS: "robot users",
    rights.ROBOT_ADMINS: "robot admins",
    rights.ROBOT_AGENT_USERS: "robot agent users",
    rights.NODERED_USERS: "nodered users",
    rights.NODERED_ADMINS: "nodered admins",
    rights.NODERED_API_USERS: "nodered api users",
    rights.PERSONAL_NODERED_USERS: "personal nodered users",
    rights.WORKITEM_QUEUE_ADMINS: "workitem queue admins",
    rights.WORKITEM_QUEUE_USERS: "workitem queue users",
}
USERNAME = re.compile(r"[\w.@+-]{1,100}")
MAX_ROLE_NAME = 200
SECRET_FIELDS = ("password", "passwordhash", "newpassword")

ROLE = compile_filter({"_type": "role"})


class Users:
    """The users of a hub: `prepare` before use, `close` after."""

    def __init__(self, store: Store, *, refused_s: float = REFUSED_S) -> None:
        """``refused_s``: how late it is told that credentials are wrong."""
        self._store = store
        self._refused_s = refused_s
        self._passwords = Passwords(refused_s=refused_s)
        self._callers: dict[str, Caller] = {}
        self._key = ""
        self.hub_id = ""
        """Tells this hub from any other, for ever."""
        self._nobody = ""
        store.follow(self._forget)

    async def prepare(self) -> None:
        """Make the well-known roles and the key of tokens, where the store has none."""
        self._key, self.hub_id = await self._store.write(_prepared)
        self._nobody = await self.hashed(secrets.token_hex())

    def close(self) -> None:
        """Let the thread go."""
        self._passwords.close()

    async def by_password(self, username: str, password: str) -> Caller:
        """Raises `SignInFailed`, after the same time for an unknown user as for a wrong password."""
        user, hashed = await self._store.read(lambda documents: _credentials(documents, username))
        is_right = await self._passwords.check(username, hashed or self._nobody, password)
        if not is_right or user is None or user.get("disabled"):
            raise SignInFailed(f"{username} failed logging in using local")
        return await self.caller(user["_id"])

    async def by_token(self, token: str) -> Caller:
        """Raises `SignInFailed` for a token that is not ours, is expired, or whose user is gone."""
        try:
            claims = jwt.decode(token, self._key, algorithms=["HS256"], options={"require": ["exp", "iat"]})
            user = str(claims["data"]["_id"])
        except (jwt.PyJWTError, KeyError, TypeError) as error:
            raise SignInFailed("Discard signin due to invalid or expired jwt") from error
        try:
            return await self.caller(user)
        except SignInFailed:
            await asyncio.sleep(self._refused_s)
            raise

    async def caller(self, user: str) -> Caller:
        """The user with this id as they are now. Raises `SignInFailed` when they are gone or disabled."""
        callers = self._callers
        if (known := callers.get(user)) is not None:
            return known
        found = await self._store.read(lambda documents: as_caller(documents, user))
        if found is None:
            raise SignInFailed(f"Failed resolving token, could not find user by {user}")
        callers[user] = found  # not in the cache of today, if that was emptied meanwhile
        return found

    def token(self, user: str, *, long: bool = False) -> str:
        """A new token for this user."""
        now = int(time.time())
        return jwt.encode({"data": {"_id": user}, "iat": now, "exp": now + (LONG_S if long else SHORT_S)}, self._key)

    def expires(self, token: str) -> float:
        """When a token expires, in seconds since 1970; 0 for what is no token of ours or has expired."""
        try:
            return float(jwt.decode(token, self._key, algorithms=["HS256"], options={"require": ["exp"]})["exp"])
        except jwt.PyJWTError:
            return 0.0

    async def hashed(self, password: object) -> str:
        """Raises `InvalidInput` for what is no password."""
        return await self._passwords.hashed(password)

    async def add(self, username: str, password: str, *, admin: bool) -> None:
        """A new user. Raises `Conflict` when the name is taken, `InvalidInput` for a bad name or password."""
        hashed = await self.hashed(password)

        def job(documents: Documents) -> None:
            item = {"_type": "user", "username": username, "roles": [entry_of_admins()] if admin else []}
            user = Collection(documents, SYSTEM, "users", guard=guard).insert(item)
            documents.set_password(user["_id"], hashed)

        await self._store.write(job)

    async def ensure_first(self, username: str, password: str) -> Caller:
        """The user who owns the home: made where missing, and always an admin, enabled, with this password."""
        user, known = await self._store.read(lambda documents: _credentials(documents, username))
        if user is None:
            await self.add(username, password, admin=True)
        elif known is None or not await self._passwords.is_right(known, password):
            hashed = await self.hashed(password)
            await self._store.write(lambda documents: documents.set_password(user["_id"], hashed))
        return await self.caller(await self._store.write(lambda documents: _promoted(documents, username)))

    def _forget(self, changes: list[Change]) -> None:
        if any(change.collection == "users" for change in changes):
            self._callers = {}


def guard(documents: Documents, caller: Caller, old: Document | None, new: Document | None) -> None:
    """The rules of the collection ``users``: admins alone change it, and no password comes into a document."""
    if not caller.is_admin:
        raise AccessDenied("Access denied: users and roles are changed by admins.")
    if new is None:
        _check_delete(documents, caller, old or {})
        return
    for name in SECRET_FIELDS:
        new.pop(name, None)
    if old is not None and old["_type"] in ("user", "role") and new["_type"] != old["_type"]:
        raise InvalidInput(f"The _type of a {old['_type']} cannot be changed.")
    if new["_type"] == "user":
        _check_user(documents, caller, new)
    elif new["_type"] == "role":
        _check_role(documents, new)


def as_caller(documents: Documents, user: str) -> Caller | None:
    """The user with this id, with all roles; ``None`` when there is no such user or they are disabled."""
    document = documents.get("users", user)
    if document is None or document["_type"] != "user" or document.get("disabled"):
        return None
    name, username = str(document.get("name", "")), str(document.get("username", ""))
    roles = tuple(_roles(documents, user))
    return Caller(user, name, username, str(document.get("email", "")), roles, locked=bool(document.get("dblocked")))


def entry_of_admins() -> Document:
    """The role *admins* as a user's ``roles`` name it."""
    return {"_id": rights.ADMINS, "name": ROLES[rights.ADMINS]}


def _roles(documents: Documents, user: str) -> list[tuple[str, str]]:
    """All roles of a user, also those of the roles they are in."""
    roles = list(documents.find("users", ROLE))
    found = {user: "", rights.USERS: ROLES[rights.USERS]}
    grown = True
    while grown:
        more = {
            role["_id"]: str(role.get("name", ""))
            for role in roles
            if role["_id"] not in found and any(member["_id"] in found for member in role.get("members", []))
        }
        found |= more
        grown = bool(more)
    return [(role, name) for role, name in found.items() if role != user]


def _credentials(documents: Documents, username: str) -> tuple[Document | None, str | None]:
    wanted = compile_filter({"_type": "user", "username": {"$eq": username}})
    user = next(documents.find("users", wanted), None)
    return user, documents.password(user["_id"]) if user else None


def _promoted(documents: Documents, username: str) -> str:
    """Make a user an enabled admin, whatever was done to them; their id."""
    user, _ = _credentials(documents, username)
    if user is None:
        raise NotFound(f"There is no user {username}.")
    caller = as_caller(documents, user["_id"])
    if caller is None or not caller.is_admin or caller.locked:
        user.pop("disabled", None)
        user.pop("dblocked", None)
        roles = [role for role in documents.find("users", ROLE) if user["_id"] in _ids(role["members"], "members")]
        users = Collection(documents, SYSTEM, "users", guard=guard)
        users.update_one({**user, "roles": [{"_id": role["_id"]} for role in roles] + [entry_of_admins()]})
    return str(user["_id"])


def _prepared(documents: Documents) -> tuple[str, str]:
    users = Collection(documents, SYSTEM, "users", guard=guard)
    for role, name in ROLES.items():
        if documents.get("users", role) is None:
            acl = [entry(rights.USERS, ROLES[rights.USERS], Right.READ)]
            users.insert({"_id": role, "_type": "role", "name": name, "members": [], "_acl": acl})
    if documents.get("users", rights.ROOT) is None:
        users.insert({"_id": rights.ROOT, "_type": "user", "name": "root", "username": "root"})
    return documents.setting("token key", lambda: secrets.token_hex(32)), documents.setting("hub id", new_id)


def _check_user(documents: Documents, caller: Caller, user: Document) -> None:
    username = user.get("username")
    if not isinstance(username, str) or not USERNAME.fullmatch(username):
        raise InvalidInput(
            f"{username!r} cannot be a user's name: use up to 100 letters, digits and the characters . _ @ + -"
        )
    user["name"] = name = str(user.get("name") or username)
    if "roles" in user:
        _set_roles(documents, caller, user, user.pop("roles"))
    if user["_id"] != rights.ROOT:
        user["_acl"] = granted(user["_acl"], user["_id"], name, Right.READ)


def _set_roles(documents: Documents, caller: Caller, user: Document, roles: object) -> None:
    """Make the user a member of exactly these roles."""
    wanted = _ids(roles, "roles") - {rights.USERS}
    for role in list(documents.find("users", ROLE)):
        members = [member for member in role["members"] if member["_id"] != user["_id"]]
        if role["_id"] in wanted:
            members.append({"_id": user["_id"], "name": user["name"]})
            wanted.discard(role["_id"])
        if {member["_id"] for member in members} != {member["_id"] for member in role["members"]}:
            Collection(documents, caller, "users").update_one({**role, "members": members})
    if wanted:
        raise NotFound(f"There is no role with the id {min(wanted)}.")


def _check_role(documents: Documents, role: Document) -> None:
    """A role has a name of its own, and members."""
    name = role.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_ROLE_NAME:
        raise InvalidInput(f"A role needs a name of up to {MAX_ROLE_NAME} characters.")
    same = compile_filter({"_type": "role", "name": {"$eq": name}, "_id": {"$ne": role["_id"]}})
    if next(documents.find("users", same), None) is not None:
        raise Conflict(f"E11000 duplicate key error: users has a role with the name {name} already.")
    _ids(role.setdefault("members", []), "members")


def _ids(values: object, what: str) -> set[str]:
    if not isinstance(values, list) or not all(isinstance(each, dict) and isinstance(each.get("_id"), str)
                                               for each in values):  # fmt: skip
        raise InvalidInput(f'{what} must be a list of objects like {{"_id": "...", "name": "..."}}.')
    return {each["_id"] for each in values}


def _check_delete(documents: Documents, caller: Caller, old: Document) -> None:
    if old["_id"] in ROLES or old["_id"] == rights.ROOT:
        raise AccessDenied(f"Access denied: {old.get('name')} is needed by the hub and cannot be deleted.")
    documents.set_password(old["_id"], None)
    for role in list(documents.find("users", ROLE)):
        members = [member for member in role["members"] if member["_id"] != old["_id"]]
        if len(members) < len(role["members"]):
            Collection(documents, caller, "users").update_one({**role, "members": members})
