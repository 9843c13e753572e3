"""Signing in with a browser: programs that wait for a token, and who is signed in in which browser.

A program names a key, a user opens the page of that key and signs in, and the program fetches a token for it, once.
Kept in memory alone: after a restart one signs in again. No token is kept, it is made when it is fetched.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from jupyter_agent.errors import Conflict, InvalidInput, Unavailable

KEY = re.compile(r"[\w.~-]{16,200}", re.ASCII)
WAITING_S = 15 * 60
SESSION_S = 60 * 60
MAX_WAITING = 500
MAX_USED = 20_000
MAX_SESSIONS = 1000


class IllegalKey(Conflict):
    """The key is not known, or was used already."""

    def __init__(self) -> None:
        super().__init__("Illegal key")


@dataclass
class Waiting:
    """A program that waits; ``user`` is who has signed in for it."""

    until_s: float
    user: str = ""


@dataclass(frozen=True)
class Session:
    """A browser in which a user is signed in."""

    until_s: float
    user: str


class Logins:
    """Who waits, and who is signed in."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: OrderedDict[str, Waiting] = OrderedDict()
        self._used: OrderedDict[str, None] = OrderedDict()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def ask(self, key: str) -> None:
        """A program waits for somebody to sign in for this key.

        Raises `IllegalKey` for one that was there already, `InvalidInput` for one that could be guessed, and
        `Unavailable` when too many wait.
        """
        if not KEY.fullmatch(key):
            raise InvalidInput("A key must have 16 to 200 random letters and digits.")
        self._forget_old()
        if key in self._waiting or key in self._used:
            raise IllegalKey
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable("Too many programs wait for somebody to sign in: try again in some minutes.")
        self._waiting[key] = Waiting(self._clock() + WAITING_S)

    def check(self, key: str) -> None:
        """Raises `IllegalKey` unless somebody may sign in for this key."""
        self._forget_old()
        if key not in self._waiting or self._waiting[key].user:
            raise IllegalKey

    def grant(self, key: str, user: str) -> None:
        """This user has signed in for the key. Raises `IllegalKey`."""
        self.check(key)
        self._waiting[key].user = user

    def collect(self, key: str) -> str:
        """Who has signed in for the key, which is used up by that; empty while nobody has. Raises `IllegalKey`."""
        self._forget_old()
        if key not in self._waiting:
            raise IllegalKey
        if user := self._waiting[key].user:
            del self._waiting[key]
            self._use(key)
        return user

    def open_session(self, user: str) -> str:
        """A session of this user; what the browser is to keep secret."""
        session = secrets.token_urlsafe(32)
        self._sessions[session] = Session(self._clock() + SESSION_S, user)
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def user_of(self, session: str) -> str:
        """Whose session it is, empty for none."""
        found = self._sessions.get(session)
        return found.user if found is not None and found.until_s > self._clock() else ""

    def close_session(self, session: str) -> None:
        """Sign out."""
        self._sessions.pop(session, None)

    def _forget_old(self) -> None:
        now = self._clock()
        while self._waiting and next(iter(self._waiting.values())).until_s <= now:
            self._use(self._waiting.popitem(last=False)[0])

    def _use(self, key: str) -> None:
        self._used[key] = None
        while len(self._used) > MAX_USED:
            self._used.popitem(last=False)
