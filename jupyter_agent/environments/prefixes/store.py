"""The store: environments by what they are made of, each made once at its own path and never changed.

What a file asks for is locked once (``locks/<key>``), a lock is made once into ``<hash>/``, and that counts when its
marker is there, which is written last. Whoever uses one holds it; after its use it is looked at, and made anew when it
was changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jupyter_agent import processes
from jupyter_agent.environments import foreign_activation
from jupyter_agent.environments.access.inheriting import inherited
from jupyter_agent.environments.definitions import Definition, Kind
from jupyter_agent.environments.prefixes import checks, collecting, known, locks
from jupyter_agent.environments.prefixes.builds import Builds, cache_in_use
from jupyter_agent.environments.prefixes.checks import Checks
from jupyter_agent.environments.prefixes.collecting import Collected, Removed
from jupyter_agent.environments.prefixes.condas import Condas
from jupyter_agent.environments.prefixes.environment import Environment
from jupyter_agent.environments.prefixes.fingerprints import Changes
from jupyter_agent.environments.prefixes.holds import Holds
from jupyter_agent.environments.prefixes.known import Known, Shown
from jupyter_agent.environments.prefixes.layout import Layout, hash_of, python_of, state_of
from jupyter_agent.environments.prefixes.locks import Locks
from jupyter_agent.environments.prefixes.marks import READY, cleared_of
from jupyter_agent.environments.prefixes.orders import Locked, Maker, Order
from jupyter_agent.environments.prefixes.venvs import Venvs
from jupyter_agent.environments.prefixes.verifying import Fault, Verifier
from jupyter_agent.environments.telling import Teller
from jupyter_agent.errors import Conflict, InvalidInput, Unavailable
from jupyter_agent.waiting import holding, to_its_end


class Environments:
    """The environments in a folder; many tasks and processes may ask for them at once."""

    def __init__(
        self,
        folder: Path,
        *,
        python: str = sys.executable,
        environ: Mapping[str, str] | None = None,
        fallback: bool = False,
        offline: bool = False,
        default_channels: Sequence[str] = ("conda-forge",),
    ) -> None:
        """``python`` is the interpreter for files that need no conda; ``environ`` is what builders may see of the
        environment, ``None``: what children of this process inherit. ``fallback``: a channel made from PyPI stands in
        when none can be reached. ``default_channels`` are for files that name none.
        """  # noqa: D205 - one sentence each
        self._seen = os.environ if environ is None else environ
        environ = _builders_environment() if environ is None else environ
        self._layout = Layout(folder)
        self._locks = Locks(self._layout.locks)
        self._holds = Holds(self._layout.held)
        self._checks = Checks(self._layout)
        self._condas = Condas(self._layout, environ=environ, default_channels=default_channels)
        self._venvs = Venvs(self._layout.folder, python=python, environ=environ)
        self._builds = Builds(self._layout, self._holds)
        self._verifier = Verifier(self._layout, self._condas)
        self._fallback = fallback
        self._offline = offline
        self._begun = False

    # -- Using them

    async def ensure(
        self,
        definition: Definition,
        *,
        extra: Sequence[str] = (),
        teller: Teller,
        tag: str,
        from_pypi: bool | None = None,
        offline: bool | None = None,
    ) -> Environment:
        """The environment that a file asks for, made unless it is there; ``teller`` hears how that goes.

        ``extra`` are requirements of ours; ``tag`` marks the processes, and holds it until ``release``. ``from_pypi``
        and ``offline``: ``None`` leaves it to the setting. Raises an ``AgentError`` that explains why there is none.
        """
        order = self._order(definition, extra, teller, tag, from_pypi=from_pypi, offline=offline)
        maker = self._maker(definition)
        with _told():
            key = await maker.key(order)
            locked = await asyncio.to_thread(self._locks.known, key, maker)
            if locked is not None and (found := await self._ready(locked.hash, tag)) is not None:
                return found
            await self._begin()
            return await self._made(order, maker, key)

    async def release(self, tag: str) -> list[str]:
        """A run is over: what it used is looked at, and held until then. A sentence for each that was changed."""
        names = sorted(await asyncio.to_thread(self._holds.names, tag))
        found = await asyncio.gather(*(self._checks.check(name) for name in names))
        await asyncio.to_thread(self._holds.drop, tag)
        changed = [(name, changes) for name, changes in zip(names, found, strict=True) if changes]
        for name, _ in changed:
            await self._discard_changed(self._layout.folder / name)
        return [
            f"The environment {name[:12]} was changed while it was used ({changes}): it is made anew at its next use."
            for name, changes in changed
        ]

    async def taint(self, wanted: str) -> None:
        """Have an environment made anew at its next use. Raises ``NotFound``."""
        prefix = await self._own(wanted)
        await to_its_end(partial(checks.taint, self._layout, prefix, Changes()))
        await self._discard_changed(prefix)

    async def find(self, wanted: str, *, tag: str | None = None) -> Environment:
        """That of this id (8 characters of it will do), name or path, ours or one that others made on this machine.

        With a ``tag`` it is held as one of ``ensure``. Raises ``NotFound`` with what there is, ``Conflict`` for one
        that is not ready.
        """
        found = await asyncio.to_thread(known.elsewhere, wanted) or known.pick(wanted, await self.list())
        prefix = Path(found.path)
        if found.origin != known.OURS:
            return await self._foreign(prefix, tag or _own_tag())
        if (ready := await self._ready(hash_of(prefix), tag)) is not None:
            return ready
        raise Conflict(f"The environment {found.id[:12]} is {state_of(prefix)}: repair it first.")

    async def _foreign(self, prefix: Path, tag: str) -> Environment:
        """One that others made, with what activating it changes, which is computed once."""
        if not (prefix / "conda-meta").is_dir():
            return Environment("", prefix)
        with _told():
            await asyncio.to_thread(self._layout.prepare)
            cache = self._layout.cache / "foreign"
            activation = await foreign_activation.activation(prefix, cache=cache, note=logging.info, tag=tag)
        return Environment("", prefix, activation)

    # -- Locks and channels

    async def lock(
        self,
        definition: Definition,
        *,
        out: Path,
        platforms: Sequence[str] = (),
        extra: Sequence[str] = (),
        teller: Teller,
        tag: str,
        from_pypi: bool | None = None,
        offline: bool | None = None,
    ) -> Path:
        """Lock what a file asks for into a ``conda-lock.yml`` at ``out``, for these platforms (none: its own).

        It is replaced in one moment, and left alone when it says the same already.
        """
        order = self._order(definition, extra, teller, tag, from_pypi=from_pypi, offline=offline)
        if definition.kind is Kind.LOCK:
            raise InvalidInput(f"{definition.name} is a lock already: lock the file that it was made from.")
        with _told():
            await self._begin()
            async with self._scratch(locks.key_of_file(out), teller) as scratch:
                target = scratch / "conda-lock.yml"
                await asyncio.to_thread(locks.copy_known, out, target)
                async with self._cache():
                    await self._condas.lock_for(order, platforms, target)
                    await asyncio.to_thread(self._locks.remember, out)
                await to_its_end(partial(locks.write_beside, out, target))
        return out

    async def build_channel(
        self,
        requirements: Sequence[str],
        folder: Path,
        *,
        teller: Teller,
        tag: str,
        python: bool | Literal["host"] = "host",
        offline: bool | None = None,
    ) -> dict[str, Any]:
        """A conda channel in ``folder`` from PyPI's wheels: ``{"folder", "url", "packages"}``."""
        with _told():
            await self._begin()
            async with self._cache():
                return await self._condas.channel(
                    requirements, folder, python=python, teller=teller, tag=tag, offline=self._setting(offline)
                )

    # -- Looking after them

    async def show(self, wanted: str) -> Shown:
        """What is in one, why, and how large it is. Raises ``NotFound``."""
        found = known.pick(wanted, await self.list())
        return await asyncio.to_thread(known.shown, found)

    async def verify(self, wanted: str, *, teller: Teller | None = None, tag: str = "") -> list[Fault]:
        """What is not as its packages say; one of ours in which there is anything is made anew at its next use.

        Raises ``NotFound``, ``Conflict`` while it is being made.
        """
        found = known.pick(wanted, await self.list())
        prefix = Path(found.path)
        if found.state == "building":
            raise Conflict(f"The environment {found.id[:12]} is being made: wait for that.")
        tag = tag or _own_tag()
        async with self._held(prefix, tag, ours=found.origin == known.OURS):
            faults = await self._verifier.faults(prefix, ours=found.origin == known.OURS, teller=teller, tag=tag)
        if faults and found.origin == known.OURS:
            await self._checks.check(prefix.name)  # finds out what others may share
            changes = Changes(modified=tuple(fault.path for fault in faults if not fault.is_absence()))
            await to_its_end(partial(checks.taint, self._layout, prefix, changes))
        return faults

    async def repair(self, wanted: str, *, teller: Teller, tag: str, offline: bool | None = None) -> Environment:
        """Make one of ours anew from its lock, unless nothing is wrong with it."""
        prefix = await self._own(wanted)
        hash_ = hash_of(prefix)
        with _told():
            await self._begin()
            if (prefix / READY).is_file() and not await self.verify(prefix.name, teller=teller, tag=tag):
                teller.note("Every file is as its packages say: nothing is to be repaired")
                return await self._ready(hash_, tag) or Environment(hash_, prefix)
            maker: Maker = self._condas if await asyncio.to_thread(self._locks.is_conda, prefix) else self._venvs
            locked, definition = await locks.for_repair(self._locks, prefix, maker, tag)
            order = self._order(definition, (), teller, tag, from_pypi=None, offline=offline)
            return await self._built(order, maker, locked)

    async def remove(self, wanted: str) -> None:
        """Remove one of ours. Raises ``Conflict`` while it is used, ``InvalidInput`` for one that others made."""
        prefix = await self._own(wanted)
        if used := await to_its_end(partial(collecting.remove, self._layout, self._holds, prefix)):
            raise Conflict(f"The environment {prefix.name[:12]} is in use ({used}): end that first.")

    async def gc(self, *, days: float, dry_run: bool = False) -> Collected:
        """Remove what nothing used for so many days, what is broken, and what nothing refers to any more.

        Never what lives: held by a run, with a process of this machine in it, being made. ``dry_run``: only tell.
        """
        with _told():
            await asyncio.to_thread(self._layout.prepare)
            found = await to_its_end(
                partial(collecting.collect, self._layout, self._holds, self._locks, days=days, dry_run=dry_run)
            )
            wheels = await self._collect_wheels(dry_run=dry_run)
            if not dry_run:
                await self.sweep()
        return Collected((*found.removed, *wheels))

    async def _collect_wheels(self, *, dry_run: bool) -> tuple[Removed, ...]:
        async with self._cache(alone=True) as alone:
            unused = await asyncio.to_thread(collecting.unused_wheels, self._layout) if alone else {}
            if unused and not dry_run:
                await self._venvs.forget(sorted(unused), tag=_own_tag())
        return tuple(removed for each in unused.values() for removed in each)

    async def sweep(self) -> None:
        """Remove what an earlier process left half-made or half-removed; what it left in use is suspected."""
        with _told():
            await to_its_end(partial(collecting.sweep, self._layout, self._holds))
        self._begun = True

    # -- Making them

    def _order(
        self,
        definition: Definition,
        extra: Sequence[str],
        teller: Teller,
        tag: str,
        *,
        from_pypi: bool | None,
        offline: bool | None,
    ) -> Order:
        stand_in = self._fallback if from_pypi is None else from_pypi
        return Order(definition, tuple(extra), teller, tag, from_pypi=stand_in, offline=self._setting(offline))

    def _setting(self, offline: bool | None) -> bool:  # noqa: FBT001 - the value itself
        return self._offline if offline is None else offline

    def _maker(self, definition: Definition) -> Maker:
        return self._condas if definition.conda() else self._venvs

    async def _begin(self) -> None:
        """Make the folders, and once clear up what an earlier process left."""
        await asyncio.to_thread(self._layout.prepare)
        if not self._begun:
            await self.sweep()

    async def _ready(self, hash_: str, tag: str | None) -> Environment | None:
        """The prefix of this hash that is ready, held and as it was made; ``None``: there is none."""
        waited = False
        while (found := await asyncio.to_thread(self._taken, hash_, tag)) is not None:
            prefix, clear = found
            if not waited and self._checks.is_under_way(prefix.name):
                waited = True
                await self._checks.finished(prefix.name)
            elif clear or not await self._checks.check(prefix.name):
                return Environment(hash_, prefix)
            elif tag is not None:
                await asyncio.to_thread(self._holds.let_go, tag, prefix.name)
        return None

    def _taken(self, hash_: str, tag: str | None) -> tuple[Path, bool] | None:
        """A ready prefix, held from now on, and whether it need not be looked at.

        It is held before it is looked for once more: whoever removes one takes the marker away before it looks who
        holds it.
        """
        for prefix in self._layout.generations(hash_):
            if not (prefix / READY).is_file() or _without_interpreter(prefix):
                continue
            if tag is not None:
                self._holds.take(tag, prefix.name)
            with contextlib.suppress(OSError):
                os.utime(prefix / READY)  # when it was last used
                return prefix, cleared_of(prefix) == self._layout.suspicion
        return None

    async def _made(self, order: Order, maker: Maker, key: str) -> Environment:
        async with self._scratch(key, order.teller) as scratch:
            locked = await asyncio.to_thread(self._locks.known, key, maker)
            if locked is not None and (found := await self._ready(locked.hash, order.tag)) is not None:
                return found
            if locked is None or await asyncio.to_thread(locks.is_gone, locked.file):
                if locked is not None and locked.from_pypi:  # as it was made before, it may be again
                    order = dataclasses.replace(order, from_pypi=True)
                async with self._cache():
                    lock = await maker.lock(order, scratch)
                    hash_ = await maker.hash_of(lock, order.tag)
                    locked = await to_its_end(partial(self._locks.keep, key, maker, order, lock, hash_))
            return await self._built(order, maker, locked)

    async def _built(self, order: Order, maker: Maker, locked: Locked) -> Environment:
        async with self._alone(locked.hash, order.teller):
            found = await self._ready(locked.hash, order.tag)
            if found is None:
                await self._builds.build(order, maker, locked)
                found = await self._ready(locked.hash, order.tag)
        if found is None:
            raise Unavailable("The environment was changed in the moment it was made: try again.")
        return found

    def _alone(self, name: str, teller: Teller) -> contextlib.AbstractAsyncContextManager[None]:
        """Hold the lock of this hash or key."""
        return holding(
            self._layout.lock(name),
            on_wait=lambda: teller.note("Another run is making this environment: waiting for it"),
        )

    @contextlib.asynccontextmanager
    async def _held(self, prefix: Path, tag: str, *, ours: bool) -> AsyncIterator[None]:
        """It is not removed meanwhile; whoever holds it for a run goes on to."""
        before = await asyncio.to_thread(self._holds.names, tag)
        if not ours or prefix.name in before:
            yield
            return
        await asyncio.to_thread(self._layout.prepare)
        await asyncio.to_thread(self._holds.take, tag, prefix.name)
        try:
            yield
        finally:
            await to_its_end(partial(self._holds.let_go, tag, prefix.name))

    @contextlib.asynccontextmanager
    async def _cache(self, *, alone: bool = False) -> AsyncIterator[bool]:
        """Nothing is collected meanwhile of what may be about to be referred to; as ``cache_in_use``."""
        with contextlib.ExitStack() as stack:
            yield await to_its_end(partial(stack.enter_context, cache_in_use(self._layout, alone=alone)))

    @contextlib.asynccontextmanager
    async def _scratch(self, key: str, teller: Teller) -> AsyncIterator[Path]:
        """Alone with this key, an empty folder."""
        scratch = self._layout.folder / f".{key}"
        async with self._alone(key, teller):
            try:
                yield await to_its_end(partial(_emptied, self._layout, scratch))
            finally:
                await to_its_end(partial(self._layout.delete, scratch))

    # -- Ours

    async def _own(self, wanted: str) -> Path:
        found = known.pick(wanted, await self.list())
        if found.origin != known.OURS:
            raise InvalidInput(f"{found.path} was made by {found.origin}: use that program to change it.")
        return Path(found.path)

    async def _discard_changed(self, prefix: Path) -> None:
        """Remove one that was changed when nothing uses it any more; else the next who comes does."""
        with contextlib.suppress(Conflict, OSError):
            await to_its_end(partial(collecting.remove_changed, self._layout, self._holds, prefix))

    # -- Last, as its name hides the type's

    async def list(self) -> list[Known]:
        """All on this machine: ours, and those that conda, mamba, micromamba and pixi know of."""
        return await asyncio.to_thread(known.everything, self._layout, self._holds, self._seen)


def _without_interpreter(prefix: Path) -> bool:
    """Whether the interpreter is gone that a venv is of; a conda environment need not have one."""
    return not python_of(prefix).exists() and not (prefix / "conda-meta").is_dir()


def _own_tag() -> str:
    """Of what no run asked for: processes that carry one tag end together."""
    return f"environments-{secrets.token_hex(8)}"


def _emptied(layout: Layout, folder: Path) -> Path:
    layout.delete(folder)
    folder.mkdir(mode=0o700)
    return folder


def _builders_environment() -> dict[str, str]:
    """What our children inherit, and the settings of conda's programs."""
    return {**inherited(os.environ), **processes.inherited_environment()}


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What the system refuses is told in a sentence."""
    try:
        yield
    except OSError as error:
        named = f" ({error.filename})" if error.filename else ""
        raise Unavailable(
            f"The environments' folder cannot be used: {error.strerror or error}{named}. "
            "Free some space or mend the folder, then try again."
        ) from error
