"""A lock from what is asked for: conda's part and pip's for every platform."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version
from rattler import RepoDataRecord  # noqa: TID251 - this is environments/
from rattler.exceptions import SolverError  # noqa: TID251 - the same

from jupyter_agent.environments.access import Access
from jupyter_agent.environments.channel import stand_in, stand_in_words
from jupyter_agent.environments.definitions import this_platform
from jupyter_agent.environments.locking import writing
from jupyter_agent.environments.locking.explicit import Packages
from jupyter_agent.environments.locking.machines import Machine
from jupyter_agent.environments.locking.pipping import Resolver
from jupyter_agent.environments.locking.solving import Solver, of_python
from jupyter_agent.environments.locking.wheels import Wheel
from jupyter_agent.environments.locking.writing import Locked
from jupyter_agent.environments.specs import Spec, parse
from jupyter_agent.environments.telling import Teller
from jupyter_agent.environments.uv import Uv
from jupyter_agent.environments.work.jobs import LockJob
from jupyter_agent.errors import AgentError, Failed, InvalidInput, NoChannel
from jupyter_agent.home import sync


async def run(job: LockJob, tell: Teller) -> dict[str, Any]:
    """Write the lock into ``job.out``, which stays untouched when it says the same already."""
    access = Access.read(job.settings)
    spec = parse(
        job.definition,
        platforms=job.platforms,
        extra=job.extra,
        default_channels=job.settings.default_channels,
    )
    for warning in spec.warnings:
        tell.note(warning)
    text = await lock(spec, access=access, job=job, tell=tell)
    access.keep_indexes(spec.pip_options)
    changed = await asyncio.to_thread(_written, job.out, text)
    return {"lock": str(job.out), "changed": changed, "platforms": sorted(spec.asked.platforms)}


async def lock(spec: Spec, *, access: Access, job: LockJob, tell: Teller) -> str:
    """The text of a conda-lock.yml for ``spec``, the same for the same channels and indexes.

    Raises ``InvalidInput`` when there is no solution, with the reason in plain words, ``NoChannel`` or ``Unavailable``
    when what is needed cannot be reached, and what ``access`` raises else.
    """
    for note in access.notes:
        tell.note(note)
    spec = with_python(spec)
    channels = [channel.env_replaced_url() for channel in spec.asked.channels]
    try:
        if not spec.explicit:
            await access.check(access.channels(channels))
        return await _Locking(spec, channels, access, tell).text()
    except NoChannel as error:
        here = this_platform()
        if not job.from_pypi or spec.explicit:
            raise
        if others := sorted(set(spec.asked.platforms) - {here}):
            raise InvalidInput(
                f"{error} A channel made from PyPI can stand in for this kind of machine alone ({here}), not for "
                f"{', '.join(others)}: lock it for {here} only."
            ) from error
        tell.note(f"{error} A channel made from PyPI stands in.")
        url = await stand_in(spec, here, settings=access.settings, tell=tell)
        words = tuple(stand_in_words(spec.conda[here]))
        return await _Locking(replace(spec, conda={here: words}), [url], access, tell, standing_in=True).text()


def with_python(spec: Spec) -> Spec:
    """The same, with Python where it has a part for pip but asks for none."""
    words = {
        platform: (*asked, "python") if spec.pip.get(platform) and "python" not in _names(spec, platform) else asked
        for platform, asked in spec.conda.items()
    }
    return replace(spec, conda=words)


def _names(spec: Spec, platform: str) -> set[str]:
    return {one.name for one in spec.asked.dependencies[platform] if one.manager == "conda"}


@dataclass(frozen=True)
class _Locking:
    """One lock; ``channels`` are names or URLs."""

    spec: Spec
    channels: Sequence[str]
    access: Access
    tell: Teller
    standing_in: bool = False

    async def text(self) -> str:
        """The lock's text."""
        solver = Solver(self.spec.source, self.access.channels(self.channels), self.access.gateway(), self.access)
        packages = Packages(solver, self.access, self.tell)
        uv = Uv({**os.environ, **self.access.variables}, cache=self.access.settings.cache / "uv", sharing=True)
        resolver = Resolver(self.spec, uv, self.access.offline)
        one = _Platforms(self.spec, solver, packages, resolver, self.tell)
        found = await one.locked(sorted(self.spec.asked.platforms))
        return writing.text(self.spec, found, channels=self.channels if self.standing_in else None)


@dataclass
class _Platforms:
    """Locks each platform by itself, all at once."""

    spec: Spec
    solver: Solver
    packages: Packages
    resolver: Resolver
    tell: Teller
    done: int = 0

    async def locked(self, platforms: Sequence[str]) -> list[Locked]:
        """In their order. Raises what the first of them that fails raises."""
        self.tell.show_progress("solve", 0, len(platforms), "")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._tried(platform, len(platforms))) for platform in platforms]
        results = [task.result() for task in tasks]
        if error := next((result for result in results if isinstance(result, AgentError)), None):
            raise error
        return [result for result in results if isinstance(result, Locked)]

    async def _tried(self, platform: str, total: int) -> Locked | AgentError:
        try:
            found = await self._locked(platform)
        except AgentError as error:
            return error
        self.done += 1
        self.tell.show_progress("solve", self.done, total, platform)
        count = len(found.records) + len(found.wheels)
        self.tell.note(f"Solved for {platform}: {count} package{'s' if count != 1 else ''}")
        return found

    async def _locked(self, platform: str) -> Locked:
        if self.spec.explicit:
            return Locked(platform, await self.packages.listed(self.spec.explicit[platform], platform))
        machines = Machine.usual(platform).and_newer(os.environ)
        records, left = await self._solved(machines)
        records = await self.packages.hashed(records)
        wheels = await self._resolved(records, left)
        beyond = machines[0].lacks(records, [wheel.url for wheel in wheels])
        if beyond:
            told = ", ".join(f"{name} {asked}" for name, asked in beyond.items())
            self.tell.note(f"For {platform} this needs what not every machine has: {told}")
        return Locked(platform, records, wheels, beyond)

    async def _solved(self, machines: Sequence[Machine]) -> tuple[list[RepoDataRecord], Sequence[Machine]]:
        """Conda's part, for the first machine for which there is a solution, and the machines from that one on."""
        words = self.spec.conda[machines[0].platform]
        for place, machine in enumerate(machines):
            try:
                return await self.solver.solved(words, machine), machines[place:]
            except SolverError as error:
                failed = error
        raise await self.solver.explained(failed, words, machines[0].platform) from failed

    async def _resolved(self, records: Sequence[RepoDataRecord], machines: Sequence[Machine]) -> list[Wheel]:
        """The part for pip, in the same way."""
        if not self.spec.pip.get(machines[0].platform):
            return []
        python, conda = _python_of(records, self.spec.source), of_python(records)
        *tries, last = [(machine, stubs) for machine in machines for stubs in (False, True)]
        for machine, stubs in tries:
            with contextlib.suppress(InvalidInput):
                return await self.resolver.resolved(machine, python, conda, stubs=stubs)
        return await self.resolver.resolved(last[0], python, conda, stubs=last[1])


def _python_of(records: Sequence[RepoDataRecord], source: str) -> str:
    """The version of Python among them. Raises ``InvalidInput``."""
    for record in records:
        if record.name.normalized == "python":
            with contextlib.suppress(InvalidVersion):
                return ".".join(map(str, Version(str(record.version)).release))
    raise InvalidInput(f"{source} has a part for pip, but no Python that pip knows: ask for python.")


def _written(file: Path, text: str) -> bool:
    """Write ``text`` in one moment and for good, unless it is there already; whether it was not."""
    place = file.resolve()
    with contextlib.suppress(OSError, UnicodeError):
        if place.read_text(encoding="utf-8") == text:
            return False
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(place)
    except OSError as error:
        raise Failed(f"The lock cannot be written to {file}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    sync(place.parent)
    return True
