"""Making a prefix: where, out of which cache, and when it is ready. Its hash's lock is held meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jupyter_agent import processes
from jupyter_agent.environments.building.syncing import sync_all
from jupyter_agent.environments.prefixes import checks, fingerprints
from jupyter_agent.environments.prefixes.contents import configured_version
from jupyter_agent.environments.prefixes.holds import Hold, Holds
from jupyter_agent.environments.prefixes.layout import Layout, state_of
from jupyter_agent.environments.prefixes.living import lived_in
from jupyter_agent.environments.prefixes.marks import OURS, Mark, clear, write_whole
from jupyter_agent.environments.prefixes.orders import Locked, Made, Maker, Order
from jupyter_agent.errors import InvalidInput, Unavailable
from jupyter_agent.waiting import to_its_end

TRIES = 3
"""So often one is made anew in which a file may be linked that was changed meanwhile."""


class Builds:
    """Makes prefixes in a store."""

    def __init__(self, layout: Layout, holds: Holds) -> None:
        self._layout = layout
        self._holds = holds

    async def build(self, order: Order, maker: Maker, locked: Locked) -> None:
        """Make a prefix of this hash; nothing is left of one that could not be."""
        if any(state_of(prefix) == "changed" for prefix in self._layout.generations(locked.hash)):
            order.teller.note("The environment is not as it was made: it is made anew")
        prefix = await to_its_end(partial(room_for, self._layout, self._holds, locked.hash))
        with ExitStack() as stack:
            await to_its_end(partial(_begin, self._layout, prefix, order.tag, stack))
            try:
                await self._try(order, maker, locked, prefix)
            except BaseException:
                await to_its_end(partial(self._layout.delete, prefix))
                raise

    async def _try(self, order: Order, maker: Maker, locked: Locked, prefix: Path) -> None:
        for _ in range(TRIES):
            if await self._tried(order, maker, locked, prefix):
                return
        raise Unavailable("Files of this environment are changed while it is made: end what does so first.")

    async def _tried(self, order: Order, maker: Maker, locked: Locked, prefix: Path) -> bool:
        """Make it; whether nothing was changed meanwhile that the cache may share with it."""
        suspicion = self._layout.suspicion
        distrusted = await asyncio.to_thread(checks.distrusted, self._layout)
        changed = sorted({name for each in distrusted.values() for name in each.names}) if distrusted else None
        made = await maker.build(order, locked.file, prefix, changed=changed)
        if self._layout.suspicion != suspicion:
            await to_its_end(partial(self._layout.delete, prefix))
            return False
        await to_its_end(partial(checks.trust, self._layout, locked.hash, distrusted))
        await to_its_end(partial(finish, prefix, made, locked, suspicion))
        return True


def finish(prefix: Path, made: Made, locked: Locked, suspicion: str) -> None:
    """Write down what lies in a prefix that was made, have it on the disk, and mark it as ready. Blocks."""
    if taken := sorted(name for name in OURS if os.path.lexists(prefix / name)):
        raise InvalidInput(f"A package puts a file where the environment's own is: {taken[0]}.")
    entries = fingerprints.taken(prefix)
    fingerprints.keep(prefix, entries)
    clear(prefix, suspicion)
    sizes = [int(seen.split()[0]) for seen in entries.values() if seen[0].isdecimal()]
    mark = Mark(
        kind=locked.kind,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        name=locked.name,
        source=locked.source,
        asked=locked.asked,
        python=configured_version(prefix),
        packages=made.packages,
        files=made.files or len(sizes),
        bytes=made.bytes or sum(sizes),
        own_bytes=made.own_bytes,
        prefix=str(prefix),
    )
    if locked.kind == "venv":
        sync_all(prefix)  # the builder of the other kind has done so
    mark.write(prefix, durable=True)


def room_for(layout: Layout, holds: Holds, hash_: str) -> Path:
    """Where a prefix of this hash can be made; what is broken and not used there is removed. Blocks."""
    broken = [prefix for prefix in layout.generations(hash_) if prefix.exists()]
    for prefix in broken:
        if state_of(prefix) == "half-made":
            end_builder(layout, prefix)
    used = {*holds.users(), *(prefix.name for prefix in lived_in(broken))} if broken else set()
    for prefix in layout.generations(hash_):
        if prefix.name in used:
            continue
        if prefix.exists():
            layout.delete(prefix)
        return prefix
    raise Unavailable("This environment was changed again and again by runs that still use it: end them first.")


# Who makes what


def _begin(layout: Layout, prefix: Path, tag: str, stack: ExitStack) -> None:
    """Until the stack is closed others see that this one is being made, and the cache is left alone."""
    layout.prepare()
    record = layout.building / prefix.name
    hold = Hold(tag, os.getpid(), processes.process_started(os.getpid()), (prefix.name,))
    write_whole(record, hold.text())
    stack.callback(partial(record.unlink, missing_ok=True))
    stack.enter_context(cache_in_use(layout))


def builders(layout: Layout) -> dict[str, Hold]:
    """Names of prefixes to who makes them, or was making them when it was killed."""
    with contextlib.suppress(OSError):
        found = {file.name: Hold.read(file) for file in layout.building.iterdir() if not file.name.startswith(".")}
        return {name: hold for name, hold in found.items() if hold is not None}
    return {}


def end_builder(layout: Layout, prefix: Path) -> None:
    """End what is left of a builder that was killed: it must not go on in a place where another one begins. Blocks."""
    record = layout.building / prefix.name
    hold = Hold.read(record)
    if hold is not None and not hold.is_alive():
        processes.kill_leftovers(hold.tag)
    record.unlink(missing_ok=True)


@contextlib.contextmanager
def cache_in_use(layout: Layout, *, alone: bool = False) -> Iterator[bool]:
    """Have nothing removed from the cache meanwhile; ``alone`` is for who removes: whether nobody uses it now."""
    descriptor = os.open(layout.folder / ".cache.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX | fcntl.LOCK_NB) if alone else fcntl.LOCK_SH)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
