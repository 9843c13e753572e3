"""Packages that change in OpenFlow: their new versions are fetched, the runs of old ones drained or ended.

Only packages of which something is on this machine concern it; of all others there may be any number. What a change
was does not matter: each time the package is read again, so that none is lost by coming too soon after another, while
the agent was away, or in a form that was not expected. Refuses to know how versions are kept (``packages/versions.py``)
and how a run ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from jupyter_agent.agent.link import Link
from jupyter_agent.errors import AgentError, Unavailable
from jupyter_agent.packages import Versions
from jupyter_agent.runs import Supervisor
from jupyter_agent.state import RunRow, RunState

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 600.0
"""Servers lose events without telling (protocol §10): so often everything that is here is compared."""

RETRY_S = 30.0
"""After this long what could not be done is tried again, unless the connection is made anew before."""

AT_ONCE = 2
"""New versions that are fetched at the same time."""

PAGE = 200
"""Packages that one query asks for."""

WANTED = {"_id": 1, "name": 1, "version": 1, "fileid": 1, "repo": 1}
"""What is read of a package's document."""


class Updates:
    """Follows the packages of which something is here.

    ``kill``: the runs of an old version are ended when the new one is here; else they go on to their end. ``keep_days``
    is how long versions stay that nothing uses. ``tell`` gets the id and operation of each package
    whose change was missed and found later.
    """

    def __init__(
        self,
        *,
        link: Link,
        supervisor: Supervisor,
        versions: Versions,
        kill: bool,
        keep_days: float,
        tell: Callable[[str, str], None],
    ) -> None:
        self._link = link
        self._supervisor = supervisor
        self._versions = versions
        self._kill = kill
        self._keep_days = keep_days
        self._tell = tell
        self._changed: set[str] = set()
        self._busy: set[str] = set()
        self._news = asyncio.Event()
        self._connected = asyncio.Event()
        self._compare = False
        self._fetching = asyncio.Semaphore(AT_ONCE)

    def on_package(self, package: str, operation: str) -> None:  # noqa: ARG002 - whatever it was, it is read again
        """A package changed in OpenFlow."""
        if package in self._versions.packages.values():
            self._note(package)

    def on_ready(self) -> None:
        """There is a connection, perhaps another one: what happened in between was told to nobody."""
        if (endpoint := self._link.endpoint) is not None:
            self._versions.openflow = "hub" if endpoint.embedded else endpoint.url
        self._compare = True
        self._connected.set()
        self._news.set()

    def on_run(self, row: RunRow) -> None:
        """A run changed: the last one of an old version takes that with it."""
        if row.ended and row.fileid and not self._versions.is_current(row.fileid):
            self._news.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S if self._compare else LOOK_AGAIN_S):
                        await self._news.wait()
                missed = self._compare or not self._news.is_set()
                self._news.clear()
                if missed:
                    self._compare = False
                    what = "The packages on this machine could not be compared with those in OpenFlow"
                    self._compare = not await self._attempt(self._compare_all(), what) or self._compare
                for package in self._changed - self._busy:
                    self._changed.discard(package)
                    self._busy.add(package)
                    tasks.create_task(self._follow(package))
                await self._attempt(self._tidy(), "Old versions of packages could not be removed")

    def _note(self, package: str) -> None:
        self._changed.add(package)
        self._news.set()

    async def _attempt(self, work: Coroutine[Any, Any, None], what: str) -> bool:
        """Whether it could be done; a failure is logged, and it is tried again on another occasion."""
        try:
            await work
        except AgentError as error:
            log.warning("%s: %s", what, error)
        except Exception:
            log.exception("%s", what)
        else:
            return True
        return False

    async def _compare_all(self) -> None:
        """Find what changed while nobody told."""
        client = await self._link.client()
        held = self._versions.comparable()
        current: dict[str, str] = {}
        for fileids in _pages(sorted(held)):
            ids = sorted({held[fileid] for fileid in fileids if held[fileid]})
            query = {"_type": "package", "$or": [{"_id": {"$in": ids}}, {"fileid": {"$in": fileids}}]}
            for document in await client.query("agents", query, projection=WANTED, top=2 * PAGE):
                current[str(document["_id"])] = str(document.get("fileid") or "")
        self._versions.adopt({fileid: package for package, fileid in current.items()})
        self._versions.supersede("", None)  # what belongs to nobody any more
        for package in {*held.values()} - {""}:
            if self._versions.is_outdated(package, current.get(package)):
                self._tell(package, "replace" if package in current else "delete")
                self._note(package)

    async def _follow(self, package: str) -> None:
        self._connected.clear()
        try:
            await self._bring_up_to_date(package)
        except Unavailable as error:
            log.warning("The new version of package %s could not be fetched, which is tried again: %s", package, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await self._connected.wait()
            self._changed.add(package)
        except Exception:
            log.exception("The change of package %s could not be followed", package)
        finally:
            self._busy.discard(package)
            self._news.set()

    async def _bring_up_to_date(self, package: str) -> None:
        """Fetch what the package is now, then let go of what it was."""
        client = await self._link.client()
        found = await client.query("agents", {"_type": "package", "_id": package}, projection=WANTED, top=1)
        document = found[0] if found else None
        current = str(document.get("fileid") or "") if document else None
        usable = document is None or await self._fetched(document, current or "")
        old = self._versions.supersede(package, current)
        if self._kill and usable:
            await self._end_runs(package, old, "update" if document else "removal")

    async def _fetched(self, document: dict[str, Any], fileid: str) -> bool:
        """Whether the package's version is here. One that nobody can use ends no run of the version before."""
        if self._versions.is_current(fileid):
            return True
        try:
            async with self._fetching, self._versions.take(self._link.client, document):
                return True
        except Unavailable:
            raise
        except AgentError as error:
            log.warning("The new version of package %s cannot be used: %s", document.get("name"), error)
            return False

    async def _end_runs(self, package: str, old: list[str], why: str) -> None:
        """End the runs that have begun with an old version; those that wait take the new one when their turn comes."""
        for run in self._supervisor.live_of(package):
            if run.row.fileid in old and run.row.state is not RunState.QUEUED:
                await self._supervisor.cancel(run.row.id, who=f"the {why} of its package (Agent.on_package_update)")

    async def _tidy(self) -> None:
        in_use = {run.row.fileid for run in self._supervisor.live_runs() if run.row.fileid}
        await self._versions.tidy(in_use, keep_days=self._keep_days)


def _pages(values: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), PAGE):
        yield values[start : start + PAGE]
