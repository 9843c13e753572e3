"""Makes a channel out of wheels and an interpreter: conda packages, their index, and a README with its limits."""

from __future__ import annotations

import asyncio
import functools
import os
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jupyter_agent.environments.channel import archives, dependencies, host, wheels
from jupyter_agent.environments.channel.archives import Archive, Package
from jupyter_agent.environments.channel.fetching import Wanted
from jupyter_agent.environments.channel.host import Host
from jupyter_agent.environments.channel.repodata import write_index
from jupyter_agent.environments.channel.wheels import Target, Wheel
from jupyter_agent.environments.telling import Teller

FORM = "1"
"""Of what is made of a wheel and an interpreter: another one gives packages of another build, another channel."""


OURS = ("python", "python-abi")
"""Packages of the channel that come from no wheel."""


@dataclass(frozen=True)
class Alias:
    """A package under conda's ``name`` that needs what PyPI calls ``requirement`` (``torch``, ``black[jupyter]``)."""

    name: str
    requirement: str


@dataclass(frozen=True)
class Order:
    """What a channel is to hold: the wheels in ``files``, and packages in which there is nothing.

    ``empty`` are ``(name, version)``. ``python``: the interpreter ``own``, too.
    """

    own: Host
    files: tuple[Path, ...]
    wanted: Wanted
    aliases: tuple[Alias, ...] = ()
    empty: tuple[tuple[str, str], ...] = ()
    python: bool = True


async def make(order: Order, folder: Path, *, tell: Teller, tag: str) -> list[Archive]:
    """Make the channel in the new ``folder``, all of it on disk when this returns; its archives.

    Raises ``InvalidInput`` for a wheel that is broken or means harm.
    """
    subdirs = ("noarch", order.own.target.subdir)
    for subdir in subdirs:
        (folder / subdir).mkdir(parents=True)
    read = await asyncio.to_thread(lambda: [Wheel.read(file) for file in order.files])
    for wheel in read:
        if wheel.name in OURS:
            raise wheels.refused(wheel.file, "its name is that of the interpreter itself")
    packages = [*stand_ins(read, order)]
    if order.python:
        pip = next((wheel.file for wheel in read if wheel.name == "pip"), None)
        packages.append(await host.package(order.own, pip=pip, tag=tag, form=FORM))
    made = await _packed(read, packages, order.own.target, folder, tell=tell)
    await asyncio.to_thread(_finish, folder, made, subdirs, order.own)
    return made


async def _packed(
    read: list[Wheel], packages: list[Package], target: Target, folder: Path, *, tell: Teller
) -> list[Archive]:
    """The archives, written by several threads: zstd, hashes and the disk let each other work."""
    jobs = [functools.partial(_pack, wheel, target, folder) for wheel in read]
    jobs += [functools.partial(archives.write, package, folder / package.subdir) for package in reversed(packages)]
    made: list[Archive] = []
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="channel")
    try:
        for done in asyncio.as_completed([loop.run_in_executor(pool, job) for job in reversed(jobs)]):
            made.append(await done)
            tell.show_progress("download", len(made), len(jobs), made[-1].file.name)
    finally:
        pool.shutdown(cancel_futures=True)
    return sorted(made, key=lambda archive: archive.file.name)


def _finish(folder: Path, made: list[Archive], subdirs: tuple[str, ...], own: Host) -> None:
    write_index(folder, made, subdirs=subdirs)
    (folder / "README.md").write_text(readme(own), encoding="utf-8")
    for place in (folder, *(folder / subdir for subdir in subdirs)):
        for entry in place.iterdir():
            synced(entry)
        synced(place)


def synced(path: Path) -> None:
    """Have a file, or a folder's list of files, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def limits(own: Host) -> str:
    """What such a channel is right for, in a sentence."""
    libc = f", glibc {own.glibc} or newer" if own.glibc else ""
    return (
        f"It is for machines of the same operating system only ({system_name()}, {own.target.subdir}{libc}, with the "
        f"system's libraries that this Python {own.version} uses)."
    )


def system_name() -> str:
    """``Debian GNU/Linux 12 (bookworm)``."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def readme(own: Host) -> str:
    """What stands in the channel's own folder."""
    return (
        "# A conda channel made from PyPI\n\n"
        f"Made by jupyter_agent from CPython {own.version} and from wheels of PyPI. {limits(own)}\n\n"
        "Packages have PyPI's names, and conda's where a file asked for those. What depends on the system, the Python "
        "version or the kind of machine was decided for the machine on which the channel was made.\n\n"
        "It is used by its URL, `file:///...` of this folder, in the `channels` of an environment.yml.\n"
    )


def _pack(wheel: Wheel, target: Target, folder: Path) -> Archive:
    try:
        package = wheels.package(wheel, target, form=FORM)
        return archives.write(package, folder / package.subdir)
    finally:
        wheel.close()


def stand_ins(read: list[Wheel], order: Order) -> Iterator[Package]:
    """The empty packages: extras that are asked for, conda's names, and what comes with wheels or the system."""
    known = {wheel.name: wheel for wheel in read}
    target = order.own.target
    for name, extra in sorted(_extras(known, order)):
        wheel = known[name]
        needs = [one for one in wheel.requirements if _only_with(one, target, extra)]
        yield _empty(
            dependencies.extra_name(name, extra), wheel.version, [_exactly(wheel), *dependencies.depends(needs)]
        )
    for alias in order.aliases:
        requirement = Requirement(alias.requirement)
        found = known.get(canonicalize_name(requirement.name))
        if found and alias.name not in known:
            extras = [dependencies.extra_name(found.name, extra) for extra in sorted(requirement.extras)]
            yield _empty(alias.name, found.version, [_exactly(found), *extras])
    for name, version in order.empty:
        if name not in known:
            yield _empty(name, version, [])
    if order.python:
        short = target.python.replace(".", "")
        yield _empty("python_abi", target.python, [f"python {target.python}.*"], build=f"0_cp{short}")


def _only_with(requirement: Requirement, target: Target, extra: str) -> bool:
    counts = dependencies.holds(requirement, target.markers, extra)
    return counts and not dependencies.holds(requirement, target.markers)


def _exactly(wheel: Wheel) -> str:
    return f"{wheel.name} =={wheel.version}"


def _empty(name: str, version: str, needs: list[str], *, build: str = "pypi_0") -> Package:
    told = "Empty: it stands for what it needs, or for what wheels and the system bring along"
    return Package(name, version, build, "noarch", depends=tuple(needs), noarch="generic", summary=told)


def _extras(known: dict[str, Wheel], order: Order) -> set[tuple[str, str]]:
    """``(name, extra)`` for the extras that are asked for, and for those that those ask for."""
    markers = order.own.target.markers
    found: set[tuple[str, str]] = set()
    waiting = [*order.wanted.requirements(), *(Requirement(alias.requirement) for alias in order.aliases)]
    waiting += [one for wheel in known.values() for one in wheel.requirements if dependencies.holds(one, markers)]
    while waiting:
        requirement = waiting.pop()
        if (wheel := known.get(canonicalize_name(requirement.name))) is None:
            continue
        for extra in map(canonicalize_name, requirement.extras):
            if (wheel.name, extra) not in found:
                found.add((wheel.name, extra))
                waiting += [one for one in wheel.requirements if dependencies.holds(one, markers, extra)]
    return found
