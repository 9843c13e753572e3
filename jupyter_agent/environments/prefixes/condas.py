"""Environments of conda packages: locked and made by a child process, which alone imports conda's libraries."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jupyter_agent import processes
from jupyter_agent.environments.access import condarc
from jupyter_agent.environments.definitions import Kind, this_platform
from jupyter_agent.environments.prefixes.layout import Layout
from jupyter_agent.environments.prefixes.orders import Made, Order
from jupyter_agent.environments.telling import Teller
from jupyter_agent.environments.uv import Uv
from jupyter_agent.environments.work.jobs import BuildJob, ChannelJob, LockJob, Settings, VerifyJob
from jupyter_agent.environments.work.worker import work
from jupyter_agent.errors import Failed, InvalidInput, NewerVersion

USUAL = ("conda-forge",)

LONG = 50_000
"""Bytes of a lock from which on a child reads it."""

READING_S = 300.0

READ = """
import sys
from pathlib import Path
from jupyter_agent.environments.definitions import Definition, Kind, this_platform
from jupyter_agent.environments.given import check
from jupyter_agent.environments.locking.hashes import lock_hash
from jupyter_agent.errors import AgentError
file = Path(sys.argv[2])
text = file.read_text(encoding="utf-8")
try:
    if sys.argv[1] == "check":
        check(Definition(file.name, Kind.LOCK, text))
        print("ok")
    else:
        print("ok", lock_hash(text, this_platform()))
except AgentError as error:
    print(type(error).__name__, " ".join(str(error).split()))
"""
"""Prints ``ok`` and the hash, or the type of an error and its sentence."""

FORMAT = 1
"""Raised when the same file is to be locked anew by a newer version."""


class Condas:
    """Makes them; ``environ`` is the children's environment.

    ``default_channels`` are for files that name none; empty: those that conda is configured to, else conda-forge.
    """

    kind = "conda"
    suffix = ".yml"

    def __init__(self, layout: Layout, *, environ: Mapping[str, str], default_channels: Sequence[str]) -> None:
        self._layout = layout
        self._environ = environ
        self._default_channels = tuple(default_channels)
        self._uv = Uv(environ, cache=layout.cache / "uv")

    def settings(self, *, offline: bool) -> Settings:
        """What every job needs to know."""
        return Settings(self._layout.cache, self._layout.channels, offline, self._defaults())

    def _defaults(self) -> tuple[str, ...]:
        """What conda is configured to now: its files are small, and somebody may have changed them."""
        if self._default_channels:
            return self._default_channels
        with contextlib.suppress(InvalidInput):  # it is raised by who needs these files
            return condarc.read(self._environ).channels or USUAL
        return USUAL

    async def hash_of(self, lock: Path, tag: str) -> str:
        """Over what would be installed on this machine."""
        if (await asyncio.to_thread(lock.stat)).st_size < LONG:
            return await asyncio.to_thread(_hash, lock)
        return await self._read(lock, "hash", tag)

    async def _read(self, lock: Path, what: str, tag: str) -> str:
        """Have a child look at a lock: to load YAML keeps all threads of a process waiting, a long one for seconds."""
        argv = (sys.executable, "-P", "-c", READ, what, str(lock))
        done = await processes.run(
            processes.Command(argv, lock.parent, dict(self._environ)), tag=tag, timeout_s=READING_S
        )
        kind, _, told = (done.output.splitlines() or [""])[-1].partition(" ")
        if not done.exit.ok or kind not in ("ok", "InvalidInput", "NewerVersion"):
            raise Failed(f"The lock could not be read: {done.output.strip()[-500:] or done.exit}")
        if kind != "ok":
            raise (NewerVersion if kind == "NewerVersion" else InvalidInput)(told)
        return told

    async def key(self, order: Order) -> str:
        """Of the definition, and of what is added to it here."""
        digest, channels = await asyncio.to_thread(lambda: (order.definition.digest, self._defaults()))
        extra = order.extra if order.definition.kind is not Kind.LOCK else ()
        asked = [FORMAT, digest, extra, channels, this_platform()]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    async def lock(self, order: Order, scratch: Path) -> Path:
        """A conda-lock.yml; a given one is used as it is."""
        out = scratch / "conda-lock.yml"
        if order.definition.kind is Kind.LOCK:
            await asyncio.to_thread(out.write_text, order.definition.text, encoding="utf-8")
            await self._read(out, "check", order.tag)
        else:
            await self.lock_for(order, (), out)
        return out

    async def lock_for(self, order: Order, platforms: Sequence[str], out: Path) -> None:
        """Lock into ``out`` for these platforms (none: those that the definition names, else this machine's)."""
        settings = self.settings(offline=order.offline)
        job = LockJob(order.definition, order.extra, tuple(platforms), out, order.from_pypi, settings)
        await work(job, environ=self._environ, teller=order.teller, tag=order.tag)

    async def build(self, order: Order, lock: Path, prefix: Path, *, changed: list[str] | None) -> Made:
        """A prefix with what the lock says; packages in the cache are looked at first when they may be changed."""
        if changed:
            clean = ("cache", "clean", *changed)
            await self._uv.run(*clean, cwd=self._layout.folder, say=order.teller.note, tag=order.tag, indexes=False)
        job = BuildJob(lock, prefix, self.settings(offline=order.offline), distrust=changed is not None)
        result = await work(job, environ=self._environ, teller=order.teller, tag=order.tag)
        return Made(**{name: int(result.get(name) or 0) for name in ("packages", "files", "bytes", "own_bytes")})

    async def verify(self, prefix: Path, *, teller: Teller, tag: str) -> list[dict[str, str]]:
        """What is not as the packages say, of any conda prefix: ``path``, ``package``, ``what``."""
        job = VerifyJob(prefix, self.settings(offline=True))
        result = await work(job, environ=self._environ, teller=teller, tag=tag)
        faults: list[dict[str, str]] = result["faults"]
        return faults

    async def channel(
        self,
        requirements: Sequence[str],
        folder: Path,
        *,
        python: bool | Literal["host"],
        offline: bool,
        teller: Teller,
        tag: str,
    ) -> dict[str, Any]:
        """A channel of PyPI's wheels in ``folder``."""
        job = ChannelJob(tuple(requirements), folder, python, self.settings(offline=offline))
        return await work(job, environ=self._environ, teller=teller, tag=tag)


def _hash(lock: Path) -> str:
    from jupyter_agent.environments.locking.hashes import lock_hash  # noqa: PLC0415 - YAML, only for a new lock

    return lock_hash(lock.read_text(encoding="utf-8"), this_platform())
