"""What comes after rattler: the pip part, bytecode, activation, the check; and all of it on the disk.

It is loaded while rattler works.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_agent.environments.building import activation, compiling
from jupyter_agent.environments.building.archives import Archive, Seen
from jupyter_agent.environments.building.compiled import Sources, Store, of_conda, of_wheel
from jupyter_agent.environments.building.locked import Locked
from jupyter_agent.environments.building.syncing import sync_all
from jupyter_agent.environments.building.unsynced import Unsynced
from jupyter_agent.environments.telling import Teller
from jupyter_agent.environments.work.jobs import BuildJob
from jupyter_agent.errors import Failed, InvalidInput
from jupyter_agent.processes.environment import TAG

MANAGED = """[externally-managed]
Error=This environment is shared by all runs that ask for the same packages and is never changed: add what is missing
 to its environment.yml.
"""

SHOWN = 3
"""Faults that a sentence names."""


class Completion:
    """Of one build. Made while rattler links: names of linked packages come by the queue, at last ``None``."""

    def __init__(
        self,
        job: BuildJob,
        teller: Teller,
        locked: Locked,
        archives: Mapping[str, Archive],
        linked: queue.SimpleQueue[str | None],
        *,
        unsynced: Unsynced,
        distrust: bool,
    ) -> None:
        """``unsynced`` says of new bytecode that it is not on the disk yet."""
        self._job = job
        self._unsynced = unsynced
        self._prefix = job.prefix
        self._teller = teller
        self._locked = locked
        self._archives = archives
        self._distrust = distrust
        self._cache = job.settings.cache
        self._compiled = self._cache / "compiled"
        self._tag = os.environ.get(TAG, "")
        self._run_python = partial(compiling.run_python, tag=self._tag, cwd=job.prefix)
        self._wheel_sizes: list[int] = []
        self._writing = contextlib.ExitStack()
        python = archives.get("python")
        self._store = None if python is None else Store.known(self._compiled, python.digest)
        digests = {archive.name: archive.digest for archive in archives.values()}
        self._linker = compiling.Linker(self._store, digests, job.prefix, linked, distrust=distrust)

    async def run(self, seen: Mapping[str, Seen], renewed: frozenset[str]) -> dict[str, Any]:
        """All of it, once rattler is done; ``seen`` is known of its packages, ``renewed`` were extracted just now."""
        with self._writing:
            await asyncio.to_thread(self._linker.finish)
            if "python" in self._archives:
                await self._python_parts()
            elif self._locked.wheels:
                raise InvalidInput("The lock has a pip part but no python: add python to the dependencies.")
            await activation.activate(self._prefix, self._locked.variables, note=self._teller.note, tag=self._tag)
            await asyncio.to_thread(self._write_own)
            await asyncio.to_thread(self._check, renewed)
            await asyncio.to_thread(sync_all, self._prefix, self._cache)
        return self._sizes(list(seen.values()))

    async def _python_parts(self) -> None:
        """The pip part, and bytecode of what has none yet."""
        if self._store is None:
            if not self._is_new_enough() and not self._locked.wheels:
                return
            self._store = Store(self._compiled, await compiling.ask(self._prefix, self._run_python))
        store, linker = self._store, self._linker
        wheels = await self._install_wheels(store) if self._locked.wheels else {}
        if not self._is_new_enough():
            return
        missing = [self._sources(store, name) for name in sorted(linker.missing)]
        missing += self._wheel_sources(store, wheels)
        if any(sources.shared or sources.local for sources in missing):
            await self._compile(store, missing)
        await compiling.compile_locally(store, linker.local, self._prefix, self._run_python)
        compiling.unlink_doubtful(store, linker.manifests, self._prefix)
        if missing:
            store.remember(self._compiled, self._archives["python"].digest)

    def _is_new_enough(self) -> bool:
        record = next(record for record in self._locked.records if record.name.normalized == "python")
        parts = str(record.version).split(".")[:2]
        return tuple(int(part) if part.isdigit() else 0 for part in parts) >= compiling.OLDEST

    async def _install_wheels(self, store: Store) -> dict[str, list[str]]:
        from jupyter_agent.environments.access import Access  # noqa: PLC0415 - most locks have no pip part
        from jupyter_agent.environments.building import wheels  # noqa: PLC0415 - the same

        access = Access.read(self._job.settings)
        found = await wheels.install(
            self._locked.wheels,
            self._prefix,
            site=store.python.site,
            environ={**os.environ, **access.variables},
            cache=self._cache / "uv",
            offline=self._job.settings.offline,
            distrust=self._distrust,
            teller=self._teller,
            tag=self._tag,
        )
        self._wheel_sizes = [int(entry.size or 0) for entries in found.values() for entry in entries]
        return {wheel.sha256: [entry.path for entry in entries] for wheel, entries in found.items()}

    def _wheel_sources(self, store: Store, wheels: dict[str, list[str]]) -> list[Sources]:
        linked = {digest: store.link(digest, self._prefix) for digest in wheels}
        self._linker.manifests.extend(manifest for manifest in linked.values() if manifest is not None)
        return [of_wheel(wheels[d], d, self._prefix, store.python) for d, found in linked.items() if found is None]

    def _sources(self, store: Store, name: str) -> Sources:
        archive = self._archives[name]
        return of_conda(archive.record(self._prefix), archive.digest, store.python)

    async def _compile(self, store: Store, missing: list[Sources]) -> None:
        def told(done: int, total: int) -> None:
            self._teller.show_progress("compile", done, total)

        await asyncio.to_thread(self._writing.enter_context, self._unsynced.until_synced())
        for sources in missing:
            store.drop(sources.digest)
        await compiling.make(store, missing, self._prefix, run=self._run_python, told=told)
        for sources in missing:
            if manifest := store.link(sources.digest, self._prefix):
                self._linker.manifests.append(manifest)
                self._linker.local += manifest.local

    def _write_own(self) -> None:
        (self._prefix / "conda-meta" / "history").touch()
        copy = self._prefix / "lock" / "conda-lock.yml"
        copy.parent.mkdir()
        shutil.copyfile(self._job.lock, copy)
        for library in self._prefix.glob("lib/python*"):
            if library.is_dir() and not library.is_symlink():
                with (
                    contextlib.suppress(FileExistsError),  # the package's own, which others may share
                    (library / "EXTERNALLY-MANAGED").open("x") as file,
                ):
                    file.write(MANAGED)

    def _check(self, renewed: frozenset[str]) -> None:
        """Every file of what was extracted in this build, or of all when the cache is not trusted.

        What was in the cache was looked at when it came there, and rattler has looked that no file is missing: of
        those it is enough that each is recorded as installed.
        """
        total = len(self._archives)
        meta = {name.removesuffix(".json") for name in os.listdir(self._prefix / "conda-meta")}  # noqa: PTH208
        absent = [archive.name for archive in self._archives.values() if Path(archive.folder).name not in meta]
        if absent:
            raise Failed(f"These packages are not in the environment after their installation: {', '.join(absent)}.")
        if renewed or self._distrust:
            from jupyter_agent.environments.building.verifying import conda_faults  # noqa: PLC0415 - not in warm builds

            def told(done: int, _total: int) -> None:
                self._teller.show_progress("check", min(done, total), total)

            faults = conda_faults(self._prefix, only=None if self._distrust else renewed, told=told)
            if faults:
                shown = "; ".join(f"{fault.path} of {fault.package} {fault.what}" for fault in faults[:SHOWN])
                raise Failed(f"{len(faults)} files of the environment are not as their packages have them: {shown}.")
        self._teller.show_progress("check", total, total)

    def _sizes(self, seen: list[Seen]) -> dict[str, Any]:
        """Sums of what is known of each package: to look at each of the files takes a fifth of a build."""
        manifests = self._linker.manifests
        meta = [entry.stat().st_size for entry in os.scandir(self._prefix / "conda-meta")]
        size = sum(found.bytes for found in seen) + sum(made.bytes for made in manifests)
        size += sum(meta) + sum(self._wheel_sizes)
        sample = next((found.sample for found in seen if found.sample), None)
        is_shared = sample is not None and (self._prefix / sample).stat().st_nlink > 1
        files = sum(found.files for found in seen) + sum(len(made.sources) for made in manifests)
        return {
            "packages": len(self._archives) + len(self._locked.wheels),
            "files": files + len(meta) + len(self._wheel_sizes),
            "bytes": size,
            "own_bytes": sum(found.own_bytes for found in seen) + sum(meta) if is_shared else size,
        }
