"""uv resolves pip's part of an environment for a machine that may be another than this one."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from packaging.utils import canonicalize_name

from jupyter_agent.environments.indexes import without_credentials
from jupyter_agent.environments.locking import wheels
from jupyter_agent.environments.locking.machines import Machine
from jupyter_agent.environments.locking.wheels import Wheel
from jupyter_agent.environments.requirements import hashes_of
from jupyter_agent.environments.specs import Spec
from jupyter_agent.environments.uv import Uv, UvFailed
from jupyter_agent.errors import InvalidInput, Unavailable
from jupyter_agent.processes.environment import TAG

NEVER = re.compile(r"--(no-binary|only-binary)\b")
"""Options that say what is to be built: nothing is, so that a lock can name a file and its hash."""


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

STUBS = "conda-packages"
"""Folder of the wheels that stand for what conda installs."""

REPOSITORY = re.compile(r"(^|@\s*)(git|hg|svn|bzr)\+\w+://")


@dataclass(frozen=True)
class Resolver:
    """Resolves what ``spec`` asks of pip."""

    spec: Spec
    uv: Uv
    offline: bool
    one_at_a_time: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """An end of one uv ends all that carries the run's tag; and what one has fetched the next finds."""

    async def resolved(self, machine: Machine, python: str, conda: Mapping[str, str], *, stubs: bool) -> list[Wheel]:
        """The wheels beside ``conda``'s Python packages (name to version) under ``python``, sorted by name.

        ``stubs``: wheels that hold nothing stand in for those packages, so that it does not matter whether an index
        has them, too; their extras are nothing then. Raises ``InvalidInput`` with uv's explanation when there is no
        solution, ``Unavailable`` when no index answers.
        """
        self._check(machine.platform)
        fixed = wheels.constraints(conda)
        with tempfile.TemporaryDirectory(prefix="jupyter-agent-lock-") as scratch:
            folder = Path(scratch)
            self._write(folder, machine.platform, fixed)
            if stubs:
                wheels.write_stubs(folder / STUBS, fixed)
            await self._compile(folder, machine, python)
            pylock = (folder / "pylock.toml").read_text(encoding="utf-8")
            found = wheels.chosen(
                pylock,
                tags=machine.wheel_tags(python),
                without=fixed,
                source=self.spec.source,
                folder=folder,
                hashes=hashes_of((*self.spec.pip[machine.platform], *self.spec.pip_constraints)),  # uv forgets them
            )
            return await self._with_dependencies(found, folder, machine, python)

    def _check(self, platform: str) -> None:
        """Raise ``InvalidInput`` for what uv would fetch from a repository, only for us to refuse it."""
        for line in self.spec.pip[platform]:
            if REPOSITORY.search(line):
                raise InvalidInput(
                    f"{self.spec.source} asks pip for {without_credentials(line)[:200]!r}, which comes from a "
                    "repository: only wheels with a hash can be locked, so give the URL of a wheel or a package's name."
                )

    def _write(self, folder: Path, platform: str, fixed: Mapping[str, str]) -> None:
        """What uv reads, in a folder for us alone: options may hold credentials."""
        options = [option for option in self.spec.pip_options if not NEVER.match(option)]
        for name, lines in {
            "requirements.in": (*options, *self.spec.pip[platform]),
            "constraints.txt": (*self.spec.pip_constraints, *(f"{name}=={one}" for name, one in fixed.items())),
        }.items():
            (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    async def _compile(self, folder: Path, machine: Machine, python: str, *more: str, out: str = "pylock.toml") -> None:
        arguments = (
            *("pip", "compile", "requirements.in", "--constraints", "constraints.txt", "--output-file", out),
            *("--python", sys.executable, "--python-version", python, "--python-platform", machine.uv_platform()),
            *("--only-binary", ":all:", "--no-header", *more),
            *(("--offline",) if self.offline and "--offline" not in more else ()),
            *(("--find-links", STUBS) if (folder / STUBS).exists() else ()),
        )
        tag = os.environ.get(TAG) or uuid.uuid4().hex
        try:
            variables = machine.uv_variables()
            async with self.one_at_a_time:
                await self.uv.run(*arguments, cwd=folder, say=_silent, tag=tag, variables=variables)
        except UvFailed as error:
            raise self._told(error, machine, python) from error

    def _told(self, error: UvFailed, machine: Machine, python: str) -> InvalidInput | Unavailable:
        where = f"for {machine.platform} with Python {python}"
        if error.network:
            return Unavailable(
                f"The pip part of {self.spec.source} cannot be locked {where}, for an index does not answer: "
                f"{error.explanation}"
            )
        return InvalidInput(f"The pip part of {self.spec.source} has no solution {where}: {error.explanation}")

    async def _with_dependencies(
        self, found: Sequence[Wheel], folder: Path, machine: Machine, python: str
    ) -> list[Wheel]:
        """The same with the names that each needs, which a pylock.toml does not say but a requirements.txt does."""
        asked = ("--annotation-style", "line")
        try:  # all of it was just fetched: asking the indexes once more would take longer than all the rest
            await self._compile(folder, machine, python, *asked, "--offline", out="annotated.txt")
        except (InvalidInput, Unavailable):
            await self._compile(folder, machine, python, *asked, out="annotated.txt")
        needed = _needed((folder / "annotated.txt").read_text(encoding="utf-8"))
        return [replace(wheel, dependencies=tuple(sorted(needed.get(wheel.name, ())))) for wheel in found]


def _needed(annotated: str) -> dict[str, set[str]]:
    """``{name: names that it needs}`` by lines like ``idna==3.20  # via requests, -r requirements.in``."""
    found: dict[str, set[str]] = {}
    for line in annotated.splitlines():
        asked, _, via = line.partition("# via ")
        for name in NAME.findall(asked)[:1]:
            parents = [parent.strip() for parent in via.split(",")]
            for parent in parents:
                if NAME.fullmatch(parent):
                    found.setdefault(str(canonicalize_name(parent)), set()).add(str(canonicalize_name(name)))
    return found


def _silent(text: str) -> None:
    """Its news are of no interest here: it resolves within seconds."""
    del text
