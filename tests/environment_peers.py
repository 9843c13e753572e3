"""Environments for tests: who is told how it goes, a store's folder, a lock and a prefix from a file."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_agent import processes
from jupyter_agent.environments.definitions import Definition
from jupyter_agent.environments.work.jobs import BuildJob, LockJob, Settings, VerifyJob
from jupyter_agent.environments.work.worker import work

NAMES = """\
channels: [{channel}, nodefaults]
dependencies: [{names}]
"""


@dataclass
class Listener:
    """Hears what is said while an environment is made, and keeps it; the last figures of each phase."""

    notes: list[str] = field(default_factory=list)
    phases: dict[str, tuple[float, float | None, str]] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Keep a line."""
        self.notes.append(text)

    def show_progress(self, phase: str, done: float, total: float | None, detail: str = "") -> None:
        """Keep how far it is."""
        self.phases[phase] = (done, total, detail)


def environment_file(folder: Path, channel: Path, *names: str) -> Path:
    """An ``environment.yml`` that asks a channel for these packages."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "environment.yml"
    file.write_text(NAMES.format(channel=channel.as_uri(), names=", ".join(f'"{name}"' for name in names)))
    return file


def settings_in(store: Path) -> Settings:
    """A store's own folders."""
    return Settings(cache=store / "cache", channels=store / "channels")


def locked(file: Path, store: Path, *, from_pypi: bool = False, tag: str = "lock") -> Path:
    """The ``conda-lock.yml`` of a file, for this machine."""
    out = store / f"{file.parent.name}.lock" / "conda-lock.yml"
    out.parent.mkdir(parents=True, exist_ok=True)
    job = LockJob(Definition.read(file), (), (), out, from_pypi, settings_in(store))
    asyncio.run(work(job, environ=processes.inherited_environment(), teller=Listener(), tag=f"{store}-{tag}"))
    return out


def built(lock: Path, prefix: Path, store: Path, *, tag: str = "build") -> Path:
    """The prefix that a lock describes."""
    job = BuildJob(lock, prefix, settings_in(store))
    asyncio.run(work(job, environ=processes.inherited_environment(), teller=Listener(), tag=f"{store}-{tag}"))
    return prefix


def faults(prefix: Path, store: Path) -> list[dict[str, str]]:
    """What is wrong with the files of a prefix."""
    job = VerifyJob(prefix, settings_in(store))
    found = asyncio.run(work(job, environ=processes.inherited_environment(), teller=Listener(), tag=f"{store}-verify"))
    return list(found["faults"])
