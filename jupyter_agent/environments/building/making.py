"""A ``BuildJob``: what is locked is installed by rattler, then completed (``completing``)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import queue
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_agent.environments.building import archives
from jupyter_agent.environments.building.archives import Archive
from jupyter_agent.environments.building.installing import Reporter, check_folder, install_all
from jupyter_agent.environments.building.locked import Locked, read
from jupyter_agent.environments.building.unsynced import Unsynced
from jupyter_agent.environments.work.jobs import BuildJob
from jupyter_agent.environments.work.telling import Tell
from jupyter_agent.errors import AgentError, Failed, InvalidInput, Unavailable
from jupyter_agent.home import Lock
from jupyter_agent.waiting import holding

LONGEST_PATH = 1024
"""Bytes of a prefix's path: its files' paths are to stay under the 4,096 that a system takes."""

NAMED = 10
"""Packages that a sentence names."""


async def run(job: BuildJob, tell: Tell) -> dict[str, Any]:
    """Make the prefix; ``{"packages", "files", "bytes", "own_bytes"}``, of which ``own_bytes`` are not hard links.

    What is in the place of the prefix is removed first. All is on the disk when this returns. When it raises, what is
    there is half-made.
    """
    _check_place(job.prefix)
    try:
        with _named(job) as lock:
            async with holding(lock, on_wait=lambda: tell.note("Another process still works there: waiting for it")):
                return await Build(job, tell).run()
    except OSError as error:
        raise _explained(error) from error


class Build:
    """One build."""

    def __init__(self, job: BuildJob, tell: Tell) -> None:
        self._job = job
        self._tell = tell
        self._prefix = job.prefix
        self._locked: Locked = read(job.lock)
        packages = job.settings.cache / "pkgs"
        found = (archives.archive_of(record, packages) for record in self._locked.records)
        self._archives = {archive.name: archive for archive in found}
        self._packages = packages
        self._seen: dict[str, archives.Seen] = {}
        self._linked: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    async def run(self) -> dict[str, Any]:
        """All phases."""
        check_folder(self._packages)
        await asyncio.to_thread(_remove, self._prefix)
        unsynced = Unsynced(self._job.settings.cache, _digest(self._prefix))
        distrust = self._job.distrust or unsynced.doubtful()
        self._seen = {name: seen for name, archive in self._archives.items() if (seen := archive.seen())}
        fresh = [archive for name, archive in self._archives.items() if name not in self._seen]
        with unsynced.until_synced() if fresh or self._locked.wheels else contextlib.nullcontext():
            result = await self._make(fresh, distrust=distrust)
        if distrust:
            unsynced.forget()
        return result

    async def _make(self, fresh: list[Archive], *, distrust: bool) -> dict[str, Any]:
        standing = await asyncio.to_thread(archives.check_all, fresh)
        self._check_offline(fresh)
        installing = asyncio.ensure_future(self._install(fetches=bool(fresh) or distrust, distrust=distrust))
        try:
            await asyncio.sleep(0)
            from jupyter_agent.environments.building.completing import Completion  # noqa: PLC0415 - rattler works now

            completion = Completion(
                self._job,
                self._tell,
                self._locked,
                self._archives,
                self._linked,
                unsynced=Unsynced(self._job.settings.cache, f"{_digest(self._prefix)}.bytecode"),
                distrust=distrust,
            )
            await installing
        finally:
            self._linked.put(None)
        renewed = await asyncio.to_thread(self._admit_all, standing)
        return await completion.run(self._seen, renewed)

    def _check_offline(self, fresh: list[Archive]) -> None:
        absent = [archive.name for archive in fresh if archive.path is None]
        if absent and self._job.settings.offline:
            more = ", ..." if len(absent) > NAMED else ""
            raise Unavailable(
                f"Nothing is fetched offline, and {len(absent)} packages are not in the cache: "
                f"{', '.join(absent[:NAMED])}{more}."
            )

    async def _install(self, *, fetches: bool, distrust: bool) -> None:
        is_remote = any(archive.path is None for archive in self._archives.values())
        reporter = Reporter(self._tell, len(self._archives), admit=self._admit, linked=self._linked.put)
        await install_all(
            self._locked.records,
            self._prefix,
            packages=self._packages,
            distrust=distrust,
            reporter=reporter,
            client=self._client() if is_remote and fetches else None,
        )

    def _client(self) -> Any:
        from jupyter_agent.environments.access import Access  # noqa: PLC0415 - most builds fetch nothing

        access = Access.read(self._job.settings)
        for note in access.notes:
            self._tell.note(note)
        return access.client([archive.url for archive in self._archives.values() if archive.path is None])

    def _admit(self, name: str) -> None:
        """Look where the files of an extracted package would go, before the first is linked.

        rattler waits for this, but takes no answer: the end of the process is the only way to stop it.
        """
        archive = self._archives.get(name)
        if archive is None or archive.seen():
            return
        try:
            archive.check_paths()
        except AgentError as error:
            self._give_up(error)
        except OSError:
            return  # rattler says what is wrong with it
        except Exception as error:  # noqa: BLE001 - nothing may come back to rattler, which would go on
            self._give_up(InvalidInput(f"The package {name} has no list of files that can be understood ({error})."))

    def _give_up(self, error: AgentError) -> None:
        try:
            self._tell.fail(type(error).__name__, str(error))
        finally:
            os._exit(0)

    def _admit_all(self, standing: dict[Archive, tuple[int, ...]]) -> frozenset[str]:
        """Mark what was extracted just now, once it is known that it came from the archive that was locked.

        The names of those packages. An archive may have been replaced while it was extracted, or have been extracted
        anew as files were missing in the cache: then it is looked at again.
        """
        renewed = [archive for archive in self._archives.values() if not archive.seen()]
        doubtful = [archive for archive in renewed if archive.path and standing.get(archive) != _standing(archive)]
        try:
            archives.check_all(doubtful)
        except AgentError:
            for archive in doubtful:
                shutil.rmtree(archive.folder, ignore_errors=True)
            raise
        for archive in renewed:
            self._seen[archive.name] = archive.mark(archive.record(self._prefix))
        return frozenset(archive.name for archive in renewed)


def _remove(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _check_place(prefix: Path) -> None:
    if not prefix.is_absolute():
        raise InvalidInput(f"The prefix {prefix} is not an absolute path.")
    if len(os.fsencode(prefix)) > LONGEST_PATH:
        raise InvalidInput(
            f"The path of the environment is too long ({len(os.fsencode(prefix))} bytes): use a shorter one."
        )
    try:
        str(prefix).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("The path of the environment is not UTF-8: use a home whose path is.") from error
    if "\n" in str(prefix):
        raise InvalidInput("The path of the environment has a line break in it, which programs in it cannot have.")


@contextlib.contextmanager
def _named(job: BuildJob) -> Iterator[Lock]:
    """The lock of this prefix among children: one whose parent was killed may not be gone yet when the next begins."""
    folder = job.settings.cache / "building"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / f"{_digest(job.prefix)}.lock"
    yield Lock(file, held=str(job.prefix))


def _digest(prefix: Path) -> str:
    return hashlib.sha256(os.fsencode(prefix)).hexdigest()[:16]


def _standing(archive: Archive) -> tuple[int, ...] | None:
    try:
        return archives.standing(archive)
    except OSError:
        return None


def _explained(error: OSError) -> AgentError:
    """A failure of the disk, in one sentence."""
    place = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failed(f"There is no space left for the environment{place}: free some, or run `jupyter-agent env gc`.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Failed(f"The environment or the cache cannot be written{place}: make their folders writable.")
    if error.errno == errno.ENAMETOOLONG:
        return InvalidInput("The path of the environment is too long: use a home with a shorter path.")
    return Failed(f"The environment could not be made ({error.strerror or error}{place}).")
