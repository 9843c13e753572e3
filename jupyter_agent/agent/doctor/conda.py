"""conda environments: whether their channels are reached, and whether they take as little of the disk as they can."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from jupyter_agent.agent.doctor.findings import Case, Finding, ok, problem, warning
from jupyter_agent.environments import foreign
from jupyter_agent.environments.access import Access
from jupyter_agent.environments.work.jobs import Settings
from jupyter_agent.errors import AgentError

CHANNELS = ("conda-forge",)
"""For files that name none."""

LITTLE_BYTES = 2 << 30
FALLBACK = (
    'Mend that, or have environments made from PyPI: `--channel-from-pypi`, or c.Agent.channel_fallback = "pypi". '
    "What is made already goes on."
)


async def look(case: Case) -> list[Finding]:
    """All of it; what is asked of the network answers within seconds."""
    reached, disk, others = await asyncio.gather(
        _channels(case),
        asyncio.to_thread(lambda: list(_disk(case.home.path / "environments"))),
        asyncio.to_thread(_others, case),
    )
    return [*reached, *disk, others]


async def _channels(case: Case) -> list[Finding]:
    name = "conda channels"
    store = case.home.path / "environments"
    try:
        access = Access.read(Settings(cache=store / "cache", channels=store / "channels"), case.environ)
        urls = access.urls(CHANNELS)
    except AgentError as error:
        return [problem(name, str(error), "Correct that file: until then no environment can be made with conda.")]
    notes = [warning(name, note, "Correct conda's configuration.") for note in access.notes]
    if access.offline:
        return [*notes, ok(name, "conda is configured to be offline: what is in the cache is used.")]
    faults = await access.faults(urls)
    if not faults:
        return [*notes, ok(name, f"{_listed(urls)} {'answers' if len(urls) == 1 else 'answer'}.")]
    said = "; ".join(f"{url}: {answer.said}" for url, answer in faults.items())
    return [*notes, warning(name, f"New conda environments cannot be made ({said}).", FALLBACK)]


def _listed(urls: list[str]) -> str:
    return ", ".join(urls)


def _disk(store: Path) -> Iterator[Finding]:
    cache = _first_that_exists(store / "cache")
    if cache.stat().st_dev != _first_that_exists(store.parent).stat().st_dev:  # that of the home is looked at already
        free = shutil.disk_usage(cache).free
        said = f"{free / (1 << 30):.1f} GiB free"
        if free < LITTLE_BYTES:
            yield warning("packages", f"The disk of {cache} is nearly full: {said}.", "jupyter-agent env gc")
        else:
            yield ok("packages", f"{said} on the disk of {cache}.")
    if store.is_dir():
        yield _links(cache, store)


def _links(cache: Path, store: Path) -> Finding:
    """Whether a file of the cache can be linked into an environment: tried, for no system tells."""
    name = f".trash.{secrets.token_hex(4)}"  # which the store's own gc removes, should we be ended here
    try:
        (cache / name).touch()
        os.link(cache / name, store / f"{name}.link")
    except OSError as error:
        return warning(
            "hard links",
            f"Files of {cache} cannot be linked into {store} ({error.strerror}): no file is shared.",
            "Have both on one file system that knows hard links.",
        )
    finally:
        for made in (cache / name, store / f"{name}.link"):
            with contextlib.suppress(OSError):
                made.unlink(missing_ok=True)
    return ok("hard links", "Environments share the files of their packages.")


def _others(case: Case) -> Finding:
    found = foreign.find(case.environ)
    if not found:
        return ok("conda", "No conda, mamba, micromamba or pixi is needed; no environment of theirs was found.")
    counts = {origin: sum(one.origin == origin for one in found) for origin in ("conda", "mamba", "micromamba", "pixi")}
    said = ", ".join(f"{count} of {origin}" for origin, count in counts.items() if count)
    return ok("conda", f"Environments of other programs can be used as they are: {said}. None of these is needed.")


def _first_that_exists(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())
