"""Makes a channel: wheels fetched, turned into conda packages, indexed, put in its place whole."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from jupyter_agent import processes
from jupyter_agent.environments.channel import archives, dependencies, host, wheels
from jupyter_agent.environments.channel.archives import Archive, Package
from jupyter_agent.environments.channel.fetching import Wanted, fetch
from jupyter_agent.environments.channel.host import Host
from jupyter_agent.environments.channel.repodata import write_index
from jupyter_agent.environments.channel.wheels import Target, Wheel
from jupyter_agent.environments.telling import Teller

FORM = "1"
"""Of what is made of a wheel and an interpreter: another one gives packages of another build, another channel."""


@dataclass(frozen=True)
class Alias:
    """A package under conda's name that needs the one under PyPI's."""

    name: str
    wheel: str


async def make(
    wanted: Wanted, place: Path, *, aliases: Iterable[Alias] = (), python: bool = True, tell: Teller, tag: str
) -> list[Archive]:
    """Make a channel for ``wanted`` at ``place``, which must not exist; its archives."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with scratch(place) as folder:
        own = await host.host(tag=tag)
        asked = Wanted((*wanted.lines, *(["pip"] if python else [])), wanted.constraints, wanted.options)
        files = await fetch(asked, folder, environ=processes.inherited_environment(), tell=tell, tag=tag)
        made = await _made(folder / "channel", files, asked, own, list(aliases), python=python, tell=tell, tag=tag)
        await asyncio.to_thread(_put, folder / "channel", place)
    return [Archive(place / one.subdir / one.file.name, one.record) for one in made]


@contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """A folder beside ``place``, on the same file system, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _put(made: Path, place: Path) -> None:
    made.rename(place)


async def _made(
    folder: Path,
    files: list[Path],
    wanted: Wanted,
    own: Host,
    aliases: list[Alias],
    *,
    python: bool,
    tell: Teller,
    tag: str,
) -> list[Archive]:
    """The channel in ``folder``."""
    for subdir in ("noarch", own.target.subdir):
        (folder / subdir).mkdir(parents=True)
    read = await asyncio.to_thread(lambda: [Wheel.read(file) for file in files])
    pip = next((wheel.file for wheel in read if wheel.name == "pip"), None)
    packages = [await host.package(own, pip=pip, tag=tag, form=FORM)] if python else []
    packages += [*stand_ins(read, wanted, own.target, aliases)]
    made: list[Archive] = []
    total = len(read) + len(packages)
    jobs = [lambda wheel=wheel: _packed(wheel, own.target, folder) for wheel in read]
    jobs += [lambda package=package: archives.write(package, folder / package.subdir) for package in packages]
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="channel") as pool:
        for done in asyncio.as_completed([loop.run_in_executor(pool, job) for job in jobs]):
            made.append(await done)
            tell.show_progress("download", len(made), total, made[-1].file.name)
    made.sort(key=lambda archive: archive.file.name)
    await asyncio.to_thread(write_index, folder, made, subdirs=("noarch", own.target.subdir))
    return made


def _packed(wheel: Wheel, target: Target, folder: Path) -> Archive:
    try:
        package = wheels.package(wheel, target, form=FORM)
        return archives.write(package, folder / package.subdir)
    finally:
        wheel.close()


def stand_ins(read: list[Wheel], wanted: Wanted, target: Target, aliases: Iterable[Alias]) -> Iterator[Package]:
    """The empty packages: extras that are asked for, and conda's names for what PyPI calls otherwise."""
    known = {wheel.name: wheel for wheel in read}
    for name, extra in sorted(_extras(known, wanted, target)):
        wheel = known[name]
        needs = [
            one
            for one in wheel.requirements
            if dependencies.holds(one, target.markers, extra) and not dependencies.holds(one, target.markers)
        ]
        yield _empty(dependencies.extra_name(name, extra), wheel, dependencies.depends(needs))
    for alias in aliases:
        if alias.wheel in known and alias.name not in known:
            yield _empty(alias.name, known[alias.wheel], [])


def _empty(name: str, wheel: Wheel, needs: list[str]) -> Package:
    return Package(
        name=name,
        version=wheel.version,
        build="pypi_0",
        subdir="noarch",
        depends=(f"{wheel.name} =={wheel.version}", *needs),
        noarch="generic",
        summary=f"Stands for {wheel.name} of PyPI",
    )


def _extras(known: dict[str, Wheel], wanted: Wanted, target: Target) -> set[tuple[str, str]]:
    """``(name, extra)`` for the extras that are asked for, and for those that those ask for."""
    found: set[tuple[str, str]] = set()
    waiting = list(wanted.requirements())
    waiting += [
        one for wheel in known.values() for one in wheel.requirements if dependencies.holds(one, target.markers)
    ]
    while waiting:
        requirement = waiting.pop()
        if (wheel := known.get(canonicalize_name(requirement.name))) is None:
            continue
        for extra in requirement.extras:
            key = (wheel.name, canonicalize_name(extra))
            if key not in found:
                found.add(key)
                waiting += [one for one in wheel.requirements if dependencies.holds(one, target.markers, extra)]
    return found
