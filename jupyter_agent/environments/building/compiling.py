"""The bytecode of a build: what is kept is linked while rattler goes on, what is missing is made, kept and linked."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import queue
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

from jupyter_agent.environments.building import bytecode
from jupyter_agent.environments.building.compiled import Manifest, Python, Sources, Store
from jupyter_agent.errors import Failed
from jupyter_agent.home import Lock

OLDEST = (3, 7)
"""The first Python whose bytecode is as PEP 552 has it; older ones compile what they import."""

TIMEOUT_S = 3600.0

LONGEST = 400
"""Characters of what an interpreter said that did not work."""


class Linker:
    """Links kept bytecode in a thread, package by package, while others are still installed.

    Their names come by the queue, at last ``None``. ``missing`` are those for which there is none; ``local`` are
    sources that are yet to be compiled for this prefix alone.
    """

    def __init__(
        self,
        store: Store | None,
        digests: Mapping[str, str],
        prefix: Path,
        names: queue.SimpleQueue[str | None],
        *,
        distrust: bool,
    ) -> None:
        self.missing: set[str] = set()
        self.local: list[str] = []
        self.manifests: list[Manifest] = []
        self._store = store
        self._digests = digests
        self._prefix = prefix
        self._distrust = distrust
        self._names = names
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="link bytecode")
        self._thread.start()

    def finish(self) -> None:
        """Wait until all is linked. Raises what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while (name := self._names.get()) is not None:
                self._link(name)
        except BaseException as error:  # noqa: BLE001 - raised again in `finish`
            self._error = error

    def _link(self, name: str) -> None:
        store, digest = self._store, self._digests.get(name, "")
        if store is not None and self._distrust and store.manifest(digest) is not None and store.changed(digest):
            store.drop(digest)
        manifest = None if store is None else store.link(digest, self._prefix)
        if store is None or manifest is None:
            self.missing.add(name)
            return
        self.manifests.append(manifest)
        if store.python.magic == importlib.util.MAGIC_NUMBER.hex():  # our own bytecode is the same: at once
            _compile_here(store, manifest.local, self._prefix)
        else:
            self.local += manifest.local


async def ask(prefix: Path, run: Run) -> Python:
    """What the environment's interpreter says of its bytecode. Raises ``Failed``."""
    said = await run((str(interpreter(prefix)), "-I", "-S", "-B", bytecode.__file__), None)
    with contextlib.suppress(ValueError, TypeError, IndexError):
        return Python(**json.loads(said.splitlines()[-1]))
    raise Failed(f"The environment's Python does not work: it said {said[-LONGEST:].strip()!r}.")


Run = Callable[[tuple[str, ...], Callable[[str], None] | None], Coroutine[Any, Any, str]]
"""Runs the environment's interpreter: its words, and who hears its lines; gives what it said."""


def interpreter(prefix: Path) -> Path:
    """Where conda has a prefix's Python."""
    return prefix / "python.exe" if os.name == "nt" else prefix / "bin" / "python"


async def run_python(argv: tuple[str, ...], on_line: Callable[[str], None] | None, *, tag: str, cwd: Path) -> str:
    """Run an environment's interpreter to its end; what it said. Raises ``Failed`` when it failed."""
    from jupyter_agent import processes  # noqa: PLC0415 - most builds start nothing, and are waited for

    command = processes.Command(argv, cwd, {"PATH": os.defpath})
    heard = None if on_line is None else lambda _stream, line: on_line(line)
    done = await processes.run(command, tag=tag, on_line=heard, timeout_s=TIMEOUT_S)
    if not done.exit.ok:
        last = done.output.strip()[-LONGEST:] or str(done.exit)
        if os.strerror(errno.ENOSPC) in last:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise Failed(f"The environment's Python does not work ({done.exit}): {last}")
    return done.output


async def make(
    store: Store, wanted: Iterable[Sources], prefix: Path, *, run: Run, told: Callable[[int, int], None]
) -> None:
    """Compile what can be shared of these packages, by as many processes as there are processors, and keep it.

    ``told(done, total)`` hears how many files are compiled.
    """
    packages = [sources for sources in wanted if sources.shared or sources.local]
    store.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_left(store.folder)
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=store.folder))
    try:
        with Lock(work / "lock", held="a new folder"):
            sums = await _compile(packages, work, prefix, run=run, told=told)
            for number, sources in enumerate(packages):
                _keep(store, sources, work / str(number), sums.get(number, {}))
    finally:
        shutil.rmtree(work, ignore_errors=True)


async def _compile(
    packages: list[Sources], work: Path, prefix: Path, *, run: Run, told: Callable[[int, int], None]
) -> dict[int, dict[str, str]]:
    """Write the bytecode of package ``n`` to ``work/n/<number>.pyc``; its sha256s by package and number."""
    jobs = _jobs(packages, work)
    total = sum(len(job) for job in jobs)
    done = 0

    def heard(line: str) -> None:
        nonlocal done
        done += int(line) if line.isdigit() else 0
        told(min(done, total), total)

    told(0, total)
    argv = (str(interpreter(prefix)), "-I", "-S", "-B", bytecode.__file__)
    files = [work / f"{place}.json" for place in range(len(jobs))]
    for file, job in zip(files, jobs, strict=True):
        file.write_text(json.dumps(job), encoding="utf-8")
    if files:
        await run((*argv, *map(str, files)), heard)
    told(total, total)
    sums: dict[int, dict[str, str]] = {}
    for place in range(len(jobs)):
        for name, digest in json.loads((work / f"{place}.json.done").read_bytes()).items():
            package, _, number = name.partition("/")
            sums.setdefault(int(package), {})[number] = digest
    return sums


def _jobs(packages: list[Sources], work: Path) -> list[list[list[str | int]]]:
    """The sources shared out by size, the largest first."""
    entries: list[list[str | int]] = []
    for place, sources in enumerate(packages):
        (work / str(place)).mkdir()
        for number, source in enumerate(sources.shared):
            state = os.stat(source.file)  # noqa: PTH116 - thousands
            target = f"{work}/{place}/{number}.pyc"
            entries.append([f"{place}/{number}", source.file, source.path, target, int(state.st_mtime), state.st_size])
    entries.sort(key=lambda entry: -int(entry[-1]))
    count = max(1, min(os.cpu_count() or 1, 8, len(entries)))
    return [entries[start::count] for start in range(count)] if entries else []


def _keep(store: Store, sources: Sources, made: Path, sums: Mapping[str, str]) -> None:
    numbers = sorted(map(int, sums))
    files = [sources.shared[number] for number in numbers]
    mtimes = [int(os.stat(source.file).st_mtime) for source in files]  # noqa: PTH116 - thousands
    size = sum((made / f"{number}.pyc").stat().st_size for number in numbers)
    manifest = Manifest([source.path for source in files], mtimes, list(sources.local), numbers, size)
    store.keep(made, sources.digest, manifest, sums)


def _remove_left(folder: Path) -> None:
    """What builders left behind that were killed: nobody holds its lock."""
    for left in folder.glob(".making-*"):
        with contextlib.suppress(Exception), Lock(left / "lock", held="a living builder's"):
            shutil.rmtree(left, ignore_errors=True)


async def compile_locally(store: Store, paths: Iterable[str], prefix: Path, run: Run) -> None:
    """Compile sources that hold the prefix, for this prefix alone."""
    job = _local_job(store, paths, prefix)
    if not job:
        return
    with tempfile.TemporaryDirectory(prefix=".compiling-", dir=prefix) as folder:  # a kill leaves it in what is removed
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job), encoding="utf-8")
        await run((str(interpreter(prefix)), "-I", "-S", "-B", bytecode.__file__, str(file)), None)


def _compile_here(store: Store, paths: Iterable[str], prefix: Path) -> None:
    for _, source, shown, target, mtime, size in _local_job(store, paths, prefix):
        if (found := bytecode.compiled(str(source), str(shown), int(mtime), int(size))) is not None:
            Path(str(target)).write_bytes(found)


def _local_job(store: Store, paths: Iterable[str], prefix: Path) -> list[list[str | int]]:
    job: list[list[str | int]] = []
    for path in paths:
        source, target = prefix / path, prefix / store.python.target(path)
        with contextlib.suppress(FileNotFoundError):
            state = source.stat()
            target.parent.mkdir(exist_ok=True)
            target.unlink(missing_ok=True)  # another package's may be shared with the cache
            job.append([path, str(source), str(source), str(target), int(state.st_mtime), state.st_size])
    return job


def unlink_doubtful(store: Store, manifests: Iterable[Manifest], prefix: Path) -> None:
    """Take away bytecode of files that more than one package has: times may be equal where contents are not."""
    count = Counter(source for manifest in manifests for source in (*manifest.sources, *manifest.local))
    for source, times in count.items():
        if times > 1:
            with contextlib.suppress(FileNotFoundError):
                (prefix / store.python.target(source)).unlink()
