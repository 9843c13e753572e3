"""Every file of a prefix against what its packages say of it: existence, size, sha256 where they have it."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_agent.environments.building import bytecode
from jupyter_agent.environments.building.compiled import SUMS, Store
from jupyter_agent.environments.telling import Teller
from jupyter_agent.environments.work.jobs import VerifyJob
from jupyter_agent.errors import NotFound

if TYPE_CHECKING:
    from jupyter_agent.environments.building.wheels import Entry

MISSING = "is missing"
CHANGED = "is not what its package has (sha256)"
RESIZED = "is not what its package has (size)"
NO_LINK = "is not the link that its package has"
UNREADABLE = "cannot be read"
UNKNOWN = "cannot be understood"
RECOMPILED = "is not the bytecode that was compiled"

THREADS = 2
"""They hash: Python lets go of its lock for that."""


@dataclass(frozen=True)
class Fault:
    """A file that is not as it should be; ``path`` is relative to the prefix."""

    path: str
    package: str
    what: str


async def run(job: VerifyJob, tell: Teller) -> dict[str, Any]:
    """Do a ``VerifyJob``; ``{"faults": [{"path", "package", "what"}]}``."""
    if not (job.prefix / "conda-meta").is_dir():
        raise NotFound(f"{job.prefix} is no conda environment: it has no folder conda-meta.")

    def told(done: int, total: int) -> None:
        tell.show_progress("check", done, total)

    faults = await asyncio.to_thread(all_faults, job.prefix, job.settings.cache, told=told)
    return {"faults": [asdict(fault) for fault in faults]}


def all_faults(
    prefix: Path, cache: Path, *, told: Callable[[int, int], None] = lambda _done, _total: None
) -> list[Fault]:
    """Of conda's packages, the pip part, and the bytecode that is shared."""
    return [*conda_faults(prefix, told=told), *_pip_faults(prefix), *_bytecode_faults(prefix, cache)]


def conda_faults(
    prefix: Path,
    *,
    only: frozenset[str] | None = None,
    told: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Fault]:
    """Of packages installed by conda or rattler, each with its record in conda-meta; ``only`` these names."""
    records = sorted((prefix / "conda-meta").glob("*.json"))
    faults: list[Fault] = []
    with ThreadPoolExecutor(THREADS) as threads:
        for done, found in enumerate(threads.map(lambda file: list(_package_faults(file, prefix, only)), records), 1):
            faults += found
            told(done, len(records))
    return faults


def _package_faults(file: Path, prefix: Path, only: frozenset[str] | None) -> Iterator[Fault]:
    record = _record(file)
    name = str(record.get("name") or file.stem)
    paths = record.get("paths_data")
    entries = paths.get("paths") if isinstance(paths, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "_path" in entry for entry in entries):
        yield Fault(f"conda-meta/{file.name}", name, UNKNOWN)
    elif only is None or name in only:
        for entry in entries:
            if what := _fault(f"{prefix}/{entry['_path']}", entry):
                yield Fault(str(entry["_path"]), name, what)


def _record(file: Path) -> dict[str, Any]:
    """A file of conda-meta; empty when it is none that can be understood."""
    try:
        record = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _fault(path: str, entry: dict[str, Any]) -> str | None:
    """What is wrong with a file, by its entry in conda-meta."""
    kind = entry.get("path_type")
    if kind in ("directory", "pyc_file"):
        return None if kind == "pyc_file" or os.path.isdir(path) else MISSING  # noqa: PTH112 - as below
    try:
        if kind == "softlink":
            os.readlink(path)  # noqa: PTH115 - thousands
            return None
        wanted = entry.get("sha256_in_prefix") or ("" if entry.get("prefix_placeholder") else entry.get("sha256"))
        size = None if entry.get("prefix_placeholder") else entry.get("size_in_bytes")
        found = os.stat(path).st_size  # noqa: PTH116 - as above
        if size is not None and found != size:
            return None if bytecode.is_rewritten(path) else RESIZED
        return CHANGED if wanted and _sha256(path) != wanted and not bytecode.is_rewritten(path) else None
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError:
        return NO_LINK if kind == "softlink" else UNREADABLE


def _sha256(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - as above
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pip_faults(prefix: Path) -> Iterator[Fault]:
    from jupyter_agent.environments.building.wheels import by_uv, entries  # noqa: PLC0415 - not every build needs it

    for place in by_uv(prefix):
        name = place.name.removesuffix(".dist-info")
        try:
            files = list(entries(place, place.parent.relative_to(prefix).as_posix()))
        except (OSError, ValueError, csv.Error):
            yield Fault((place / "RECORD").relative_to(prefix).as_posix(), name, UNKNOWN)
            continue
        for entry in files:
            if what := _wheel_fault(entry, prefix):
                yield Fault(entry.path, name, what)


def _wheel_fault(entry: Entry, prefix: Path) -> str | None:
    try:
        return CHANGED if entry.is_changed(prefix) else None
    except FileNotFoundError:
        return MISSING
    except OSError:
        return UNREADABLE


def _bytecode_faults(prefix: Path, cache: Path) -> Iterator[Fault]:
    """Of bytecode that is the very file of the store: one that was changed in place, here or in another prefix."""
    for file in sorted((prefix / "conda-meta").glob("python-*.json")):
        record = _record(file)
        store = Store.known(cache / "compiled", str(record.get("sha256") or record.get("md5")))
        if store is not None:
            for other in sorted((prefix / "conda-meta").glob("*.json")):
                yield from _changed_bytecode(store, _record(other), prefix)


def _changed_bytecode(store: Store, record: dict[str, Any], prefix: Path) -> Iterator[Fault]:
    digest = str(record.get("sha256") or record.get("md5"))
    manifest = store.manifest(digest)
    if manifest is None:
        return
    try:
        sums = json.loads((store.folder / digest / SUMS).read_bytes())
    except (OSError, ValueError):
        return
    for number, source in zip(manifest.numbers, manifest.sources, strict=True):
        target = store.python.target(source)
        try:
            is_shared = (prefix / target).samefile(store.folder / digest / f"{number}.pyc")
        except OSError:
            continue
        if is_shared and _sha256(f"{prefix}/{target}") != sums.get(str(number)):
            yield Fault(target, str(record.get("name")), RECOMPILED)
