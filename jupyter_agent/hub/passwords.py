"""Passwords: hashing them, and checking them no faster than somebody who tries them all should like.

Hashing takes memory and a core, so one thread does it and few may wait for it. A wrong password is told late, and for
each name only a few may be told at a time: whoever guesses gets some guesses a second and no more, over however many
connections. What was right a short while ago is known without hashing again, so that many clients of one user come in
at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import argon2

from jupyter_agent.errors import InvalidInput, Unavailable

REFUSED_S = 1.0
"""Between a wrong password and the word of it; the real server waits as long."""

MAX_HASHING = 64
"""Passwords that may wait for the thread."""

MAX_GUESSES = 8
"""Checks of one name that may be under way, the time after a wrong one included."""

REMEMBERED_S = 300
MAX_REMEMBERED = 1000

# OWASP's choice of least memory; the library's default would take 64 MiB for each sign-in.
HASHER = argon2.PasswordHasher(time_cost=5, memory_cost=7 << 10, parallelism=1)


class Passwords:
    """Hashes and checks; `close` after use."""

    def __init__(self, *, refused_s: float = REFUSED_S) -> None:
        self._refused_s = refused_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="passwords")
        self._hashing = 0
        self._guesses: Counter[str] = Counter()
        self._key = secrets.token_bytes(32)
        self._checks: dict[bytes, asyncio.Future[bool]] = {}
        self._right: OrderedDict[bytes, float] = OrderedDict()

    def close(self) -> None:
        """Let the thread go, and who waits for it."""
        for check in list(self._checks.values()):
            check.cancel()
        self._thread.shutdown()

    async def hashed(self, password: object) -> str:
        """Raises `InvalidInput` for what is no password, `Unavailable` when too many wait."""
        if not isinstance(password, str) or not password:
            raise InvalidInput("A password cannot be empty.")
        return str(await self._in_thread(_hash, password))

    async def is_right(self, hashed: str, password: str) -> bool:
        """Whether this is the password that was hashed."""
        return bool(await self._in_thread(_verify, hashed, password))

    async def check(self, name: str, hashed: str, password: str) -> bool:
        """The same for somebody who signs in under this name: a wrong one is told late.

        Raises `Unavailable` when too much of it is under way already.
        """
        mark = self._mark(name, hashed, password)
        if self._right.get(mark, 0) > time.monotonic():
            return True
        if mark in self._checks:  # the same, at the same time: one answer does for both
            return await asyncio.shield(self._checks[mark])
        if self._guesses[name] >= MAX_GUESSES:
            raise Unavailable(f"Too many sign-ins as {name[:100]} are being checked: try again in a few seconds.")
        return await self._checked(mark, name, hashed, password)

    def _mark(self, *texts: str) -> bytes:
        """What stands for these texts in memory; without the key nobody can tell which they were."""
        return hmac.digest(self._key, b"".join(hashlib.sha256(_bytes(text)).digest() for text in texts), "sha256")

    async def _checked(self, mark: bytes, name: str, hashed: str, password: str) -> bool:
        self._guesses[name] += 1
        check = asyncio.ensure_future(self._guess(hashed, password))  # not this task's own: others wait for it, too
        self._checks[mark] = check
        check.add_done_callback(lambda done: self._done(mark, name, done))
        return await asyncio.shield(check)

    async def _guess(self, hashed: str, password: str) -> bool:
        if await self.is_right(hashed, password):
            return True
        await asyncio.sleep(self._refused_s)
        return False

    def _done(self, mark: bytes, name: str, check: asyncio.Future[bool]) -> None:
        del self._checks[mark]
        self._guesses[name] -= 1
        self._guesses += Counter()  # forgets the names that are back at 0
        if not check.cancelled() and check.exception() is None and check.result():
            self._right[mark] = time.monotonic() + REMEMBERED_S
            if len(self._right) > MAX_REMEMBERED:
                self._right.popitem(last=False)

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        if self._hashing >= MAX_HASHING:
            raise Unavailable("Too many passwords are being checked: try again in a moment.")
        self._hashing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        finally:
            self._hashing -= 1


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _hash(password: str) -> str:
    return HASHER.hash(_bytes(password))


def _verify(hashed: str, password: str) -> bool:
    try:
        return HASHER.verify(hashed, _bytes(password))
    except argon2.exceptions.VerificationError:
        return False
