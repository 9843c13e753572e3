"""A ``BuildJob``: the phases one after the other, and what of them can be done at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_agent.environments.building import activation, archives, compiling, syncing
from jupyter_agent.environments.building.archives import Archive
from jupyter_agent.environments.building.compiled import Manifest, Sources, Store, of_conda, of_wheel
from jupyter_agent.environments.building.installing import Reporter, check_folder, install_all
from jupyter_agent.environments.building.locked import Locked, read
from jupyter_agent.environments.work.jobs import BuildJob
from jupyter_agent.environments.work.telling import Tell
from jupyter_agent.errors import AgentError, Failed, InvalidInput, Unavailable
from jupyter_agent.home import Lock
from jupyter_agent.processes.environment import TAG
from jupyter_agent.waiting import holding

LONGEST_PATH = 1024
"""Bytes of a prefix's path: its files' paths are to stay under the 4,096 that a system takes."""

MANAGED = """[externally-managed]
Error=This environment is shared by all runs that ask for the same packages and is never changed: add what is missing
 to its environment.yml.
"""

SHOWN = 3
"""Faults that a sentence names."""


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
        self._prefix = job.prefix
        self._tell = tell
        self._job = job
        self._cache = job.settings.cache
        self._packages = self._cache / "pkgs"
        self._compiled = self._cache / "compiled"
        self._tag = os.environ.get(TAG, "")
        self._locked: Locked = read(job.lock)
        self._archives = {
            archive.name: archive
            for archive in (archives.archive_of(record, self._packages) for record in self._locked.records)
        }
        self._unsynced = syncing.Unsynced(self._cache, _digest(job.prefix))
        self._run_python = partial(compiling.run_python, tag=self._tag, cwd=job.prefix)

    async def run(self) -> dict[str, Any]:
        """All phases."""
        check_folder(self._packages)
        await asyncio.to_thread(_remove, self._prefix)
        distrust = self._job.distrust or self._unsynced.doubtful()
        fresh = [archive for archive in self._archives.values() if not archive.is_checked()]
        with self._unsynced.until_synced() if fresh or self._locked.wheels else contextlib.nullcontext():
            result = await self._make(fresh, distrust)
            syncing.sync_all(self._prefix, self._cache)
        if distrust:
            self._unsynced.forget()
        return result

    async def _make(self, fresh: list[Archive], distrust: bool) -> dict[str, Any]:  # noqa: FBT001 - the job's own word
        standing = await asyncio.to_thread(archives.check_all, fresh)
        store = self._known_store()
        digests = {archive.name: archive.digest for archive in self._archives.values()}
        linker = compiling.Linker(store, digests, self._prefix, distrust=distrust)
        try:
            await self._install(linker, {archive.name for archive in fresh}, distrust)
        finally:
            linker.finish()
        renewed = await asyncio.to_thread(self._admit_all, standing)
        if "python" in self._archives:
            await self._python_parts(store, linker, distrust)
        elif self._locked.wheels:
            raise InvalidInput("The lock has a pip part but no python: add python to the environment's dependencies.")
        await self._finish(renewed, distrust)
        return await asyncio.to_thread(self._sizes)

    async def _install(self, linker: compiling.Linker, fresh: set[str], distrust: bool) -> None:  # noqa: FBT001
        remote = [archive for archive in self._archives.values() if archive.path is None]
        absent = [archive for archive in remote if archive.name in fresh]
        if absent and self._job.settings.offline:
            names = ", ".join(archive.name for archive in absent[:10])
            raise Unavailable(f"Nothing is fetched offline, and {len(absent)} packages are not in the cache: {names}.")
        reporter = Reporter(self._tell, len(self._archives), admit=self._admit, linked=linker.take)
        self._prefix.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        await install_all(
            self._locked.records,
            self._prefix,
            packages=self._packages,
            distrust=distrust,
            reporter=reporter,
            client=self._client() if absent or (remote and distrust) else None,
        )

    def _client(self) -> Any:
        from jupyter_agent.environments.access import Access  # noqa: PLC0415 - most builds fetch nothing

        return Access.read(self._job.settings).client()

    def _admit(self, name: str) -> None:
        """Look where the files of an extracted package would go, before the first is linked.

        rattler waits for this, but takes no answer: the end of the process is the only way to stop it.
        """
        archive = self._archives.get(name)
        if archive is None or archive.is_checked():
            return
        try:
            archive.check_paths()
        except AgentError as error:
            self._tell.fail(type(error).__name__, str(error))
            os._exit(0)
        except (OSError, ValueError):
            return  # rattler says what is wrong with it

    def _admit_all(self, standing: dict[Archive, tuple[int, ...]]) -> frozenset[str]:
        """Mark what was extracted just now, once it is known that it came from the archive that was locked.

        The names of those packages. An archive may have been replaced while it was extracted, or have been extracted
        anew as files were missing in the cache: then it is looked at again.
        """
        renewed = [archive for archive in self._archives.values() if not archive.is_checked()]
        doubtful = [archive for archive in renewed if archive.path and standing.get(archive) != _standing(archive)]
        try:
            archives.check_all(doubtful)
        except AgentError:
            for archive in doubtful:
                shutil.rmtree(archive.folder, ignore_errors=True)
            raise
        for archive in renewed:
            archive.mark()
        return frozenset(archive.name for archive in renewed)

    def _known_store(self) -> Store | None:
        python = self._archives.get("python")
        return None if python is None else Store.known(self._compiled, python.digest)

    async def _python_parts(self, store: Store | None, linker: compiling.Linker, distrust: bool) -> None:  # noqa: FBT001
        """The pip part, and bytecode of what has none yet."""
        run = self._run_python
        if store is None:
            if not self._is_new_enough() and not self._locked.wheels:
                return
            store = Store(self._compiled, await compiling.ask(self._prefix, run))
        wheels: dict[str, list[str]] = {}
        if self._locked.wheels:
            wheels = await self._install_wheels(store, distrust)
        if not self._is_new_enough():
            return
        missing = [self._sources(store, name) for name in sorted(linker.missing)]
        missing += self._wheel_sources(store, wheels, linker.manifests)
        if any(sources.shared or sources.local for sources in missing):
            await self._compile(store, missing, linker.manifests)
        local = [path for manifest in linker.manifests for path in manifest.local]
        await compiling.compile_locally(store, local, self._prefix, run)
        compiling.unlink_doubtful(store, linker.manifests, self._prefix)
        store.remember(self._compiled, self._archives["python"].digest)

    def _is_new_enough(self) -> bool:
        record = next(record for record in self._locked.records if record.name.normalized == "python")
        parts = str(record.version).split(".")[:2]
        return tuple(int(part) if part.isdigit() else 0 for part in parts) >= compiling.OLDEST

    async def _install_wheels(self, store: Store, distrust: bool) -> dict[str, list[str]]:  # noqa: FBT001 - as above
        from jupyter_agent.environments.building import wheels  # noqa: PLC0415 - most locks have none

        found = await wheels.install(
            self._locked.wheels,
            self._prefix,
            site=store.python.site,
            environ=os.environ,
            cache=self._cache / "uv",
            offline=self._job.settings.offline,
            distrust=distrust,
            teller=self._tell,
            tag=self._tag,
        )
        return {wheel.sha256: [entry.path for entry in entries] for wheel, entries in found.items()}

    def _wheel_sources(self, store: Store, wheels: dict[str, list[str]], manifests: list[Manifest]) -> list[Sources]:
        linked = {digest: store.link(digest, self._prefix) for digest in wheels}
        manifests.extend(manifest for manifest in linked.values() if manifest is not None)
        return [of_wheel(wheels[d], d, self._prefix, store.python) for d, found in linked.items() if found is None]

    def _sources(self, store: Store, name: str) -> Sources:
        archive = self._archives[name]
        file = self._prefix / "conda-meta" / f"{Path(archive.folder).name}.json"
        return of_conda(json.loads(file.read_bytes()), archive.digest, store.python)

    async def _compile(self, store: Store, missing: list[Sources], manifests: list[Manifest]) -> None:
        def told(done: int, total: int) -> None:
            self._tell.show_progress("compile", done, total)

        for sources in missing:
            store.drop(sources.digest)
        await compiling.make(store, missing, self._prefix, run=self._run_python, told=told)
        made = [store.link(sources.digest, self._prefix) for sources in missing]
        manifests.extend(manifest for manifest in made if manifest is not None)

    async def _finish(self, renewed: frozenset[str], distrust: bool) -> None:  # noqa: FBT001 - as above
        await activation.activate(self._prefix, self._locked.variables, note=self._tell.note, tag=self._tag)
        (self._prefix / "conda-meta" / "history").touch()
        copy = self._prefix / "lock" / "conda-lock.yml"
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(self._job.lock, copy)
        for library in self._prefix.glob("lib/python*"):
            (library / "EXTERNALLY-MANAGED").write_text(MANAGED)
        await asyncio.to_thread(self._check, renewed, distrust)

    def _check(self, renewed: frozenset[str], distrust: bool) -> None:  # noqa: FBT001 - as above
        """Every file of what was extracted in this build, or of all when the cache is not trusted.

        What was in the cache was looked at when it came there, and rattler has looked that no file is missing: of
        those it is enough that each is recorded as installed.
        """
        total = len(self._archives)
        meta = {name.removesuffix(".json") for name in os.listdir(self._prefix / "conda-meta")}  # noqa: PTH208
        absent = [archive.name for archive in self._archives.values() if Path(archive.folder).name not in meta]
        if absent:
            raise Failed(f"These packages are not in the environment after their installation: {', '.join(absent)}.")
        if renewed or distrust:
            from jupyter_agent.environments.building.verifying import conda_faults  # noqa: PLC0415 - not in warm builds

            def told(done: int, _total: int) -> None:
                self._tell.show_progress("check", min(done, total), total)

            faults = conda_faults(self._prefix, only=None if distrust else renewed, told=told)
            if faults:
                shown = "; ".join(f"{fault.path} of {fault.package} {fault.what}" for fault in faults[:SHOWN])
                raise Failed(f"{len(faults)} files of the environment are not as their packages have them: {shown}.")
        self._tell.show_progress("check", total, total)

    def _sizes(self) -> dict[str, Any]:
        files = size = own = 0
        for folder, _, names in os.walk(self._prefix):
            for name in names:
                state = os.lstat(f"{folder}/{name}")
                files += 1
                size += state.st_size
                own += state.st_size if state.st_nlink == 1 else 0
        packages = len(self._archives) + len(self._locked.wheels)
        return {"packages": packages, "files": files, "bytes": size, "own_bytes": own}


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
