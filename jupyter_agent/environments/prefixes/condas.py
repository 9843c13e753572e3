"""Environments of conda packages: locked and made by a child process, which alone imports conda's libraries."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jupyter_agent.environments import given
from jupyter_agent.environments.definitions import Kind, this_platform
from jupyter_agent.environments.prefixes.layout import Layout
from jupyter_agent.environments.prefixes.orders import Made, Order
from jupyter_agent.environments.telling import Teller
from jupyter_agent.environments.uv import Uv
from jupyter_agent.environments.work.jobs import BuildJob, ChannelJob, LockJob, Settings, VerifyJob
from jupyter_agent.environments.work.worker import work

FORMAT = 1
"""Raised when the same file is to be locked anew by a newer version."""


class Condas:
    """Makes them; ``environ`` is the children's environment, ``default_channels`` are for files that name none."""

    kind = "conda"
    suffix = ".yml"

    def __init__(self, layout: Layout, *, environ: Mapping[str, str], default_channels: Sequence[str]) -> None:
        self._layout = layout
        self._environ = environ
        self._default_channels = tuple(default_channels)
        self._uv = Uv(environ, cache=layout.cache / "uv")

    def settings(self, *, offline: bool) -> Settings:
        """What every job needs to know."""
        return Settings(self._layout.cache, self._layout.channels, offline, self._default_channels)

    def hash_of(self, text: str) -> str:
        """Over what would be installed on this machine."""
        from jupyter_agent.environments.locking.hashes import lock_hash  # noqa: PLC0415 - YAML, only for a new lock

        return lock_hash(text, this_platform())

    async def key(self, order: Order) -> str:
        """Of the definition, and of what is added to it here."""
        digest = await asyncio.to_thread(lambda: order.definition.digest)
        extra = order.extra if order.definition.kind is not Kind.LOCK else ()
        asked = [FORMAT, digest, extra, self._default_channels, this_platform()]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    async def lock(self, order: Order, scratch: Path) -> str:
        """The text of a conda-lock.yml; a given one is used as it is."""
        if order.definition.kind is Kind.LOCK:
            await asyncio.to_thread(given.check, order.definition)
            return order.definition.text
        return await self.lock_for(order, (), scratch / "conda-lock.yml")

    async def lock_for(self, order: Order, platforms: Sequence[str], out: Path) -> str:
        """Lock for these platforms (none: those that the definition names, else this machine's)."""
        settings = self.settings(offline=order.offline)
        job = LockJob(order.definition, order.extra, tuple(platforms), out, order.from_pypi, settings)
        await work(job, environ=self._environ, teller=order.teller, tag=order.tag)
        return await asyncio.to_thread(out.read_text, encoding="utf-8")

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
