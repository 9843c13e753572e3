"""Environments, locks and channels, made as runs: what can be asked for, checked first, and kept to be asked for again.

Each kind of work is a small value that says what it is called, whether it can be done, and does it. How an environment
is made is the business of ``environments``; how a run goes that of ``runs``.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

from jupyter_agent.environments import Environments
from jupyter_agent.environments.definitions import Definition, Kind
from jupyter_agent.environments.reading import load_yaml
from jupyter_agent.environments.requirements import Requirements
from jupyter_agent.environments.templates import templates
from jupyter_agent.errors import Conflict, InvalidInput, NoChannel, NotFound
from jupyter_agent.runs import Limits, Prepared, PrepareFn, Run, Supervisor
from jupyter_agent.state import RunRow, RunState, new_run_id, now

KIND = "environment"
"""Of the runs that this module starts."""

LOCK_FILE = "conda-lock.yml"

OURS = "jupyter_agent"
"""Who made an environment of ours."""

OPTION = "--channel-from-pypi"

OFFER = f"PyPI can stand in: give {OPTION} (over REST `from_pypi`), or set c.Agent.channel_fallback = 'pypi' for good."

MOST_LOOKED_AT = 1 << 16
"""Bytes of a file that is to be replaced in which it has to show that it is a lock."""


@contextlib.contextmanager
def offering() -> Iterator[None]:
    """Add to the sentence of a ``NoChannel`` what can be done about it, unless that has been said."""
    try:
        yield
    except NoChannel as error:
        if OPTION in str(error):
            raise
        raise NoChannel(f"{error} {OFFER}") from error


class Work(Protocol):
    """Something that is made of, or done to, environments; a frozen dataclass of JSON's values."""

    name: ClassVar[str]

    makes: ClassVar[str]
    """The row's ``language``: ``environment``, ``lock`` or ``channel``."""

    @property
    def title(self) -> str:
        """What the run is called."""

    @property
    def path(self) -> str | None:
        """The file or folder it is about."""

    async def check(self, environments: Environments) -> None:
        """Raise ``InvalidInput``, ``NotFound`` or ``Conflict`` for what cannot be done; changes nothing."""

    async def make(self, environments: Environments, run: Run) -> Prepared:
        """Do it; the results are the run's."""


@dataclass(frozen=True)
class Create:
    """An environment of the file at an absolute path, or of a ``text`` that a file called ``called`` would hold.

    A template is a file that is ``called`` otherwise.
    """

    name: ClassVar[str] = "create"
    makes: ClassVar[str] = "environment"

    file: str = ""
    called: str = ""
    text: str = ""
    from_pypi: bool | None = None
    offline: bool | None = None

    @property
    def title(self) -> str:
        """What it is called."""
        return self.called or Path(self.file).name

    @property
    def path(self) -> str | None:
        """The file's."""
        return self.file or None

    def definition(self) -> Definition:
        """What the environment is to hold. Blocks. Raises ``InvalidInput``, ``NotFound``."""
        if self.file:
            return definition_at(self.file)
        return looked_at(Definition.of(self.called, self.text))

    async def check(self, environments: Environments) -> None:  # noqa: ARG002 - as others need
        """Read it."""
        await asyncio.to_thread(self.definition)

    async def make(self, environments: Environments, run: Run) -> Prepared:
        """Make it unless it is there."""
        made = await environments.ensure(
            await asyncio.to_thread(self.definition),
            teller=run,
            tag=run.tag,
            from_pypi=self.from_pypi,
            offline=self.offline,
        )
        return Prepared(None, environment=made.hash, results={"environment": made.hash, "prefix": str(made.prefix)})


@dataclass(frozen=True)
class LockUp:
    """A ``conda-lock.yml`` of the file at an absolute path; ``output`` is where, if not beside the file."""

    name: ClassVar[str] = "lock"
    makes: ClassVar[str] = "lock"

    file: str
    output: str = ""
    platforms: tuple[str, ...] = ()
    from_pypi: bool | None = None
    offline: bool | None = None

    @property
    def title(self) -> str:
        """The file's name."""
        return Path(self.file).name

    @property
    def path(self) -> str | None:
        """The file's."""
        return self.file

    @property
    def target(self) -> Path:
        """Where the lock is written."""
        return Path(self.output) if self.output else Path(self.file).parent / LOCK_FILE

    async def check(self, environments: Environments) -> None:  # noqa: ARG002 - as others need
        """Read it, and look at what is in its place."""
        await asyncio.to_thread(self._definition)

    def _definition(self) -> Definition:
        definition = definition_at(self.file)
        if definition.kind in (Kind.LOCK, Kind.EXPLICIT):
            raise InvalidInput(f"{definition.name} is a lock already: `env create` makes an environment of it.")
        check_lock_target(self.target)
        return definition

    async def make(self, environments: Environments, run: Run) -> Prepared:
        """Lock it; a lock that would be the same stays untouched."""
        lock = await environments.lock(
            await asyncio.to_thread(self._definition),
            out=self.target,
            platforms=self.platforms,
            teller=run,
            tag=run.tag,
            from_pypi=self.from_pypi,
            offline=self.offline,
        )
        return Prepared(None, results={"lock": str(lock)})


@dataclass(frozen=True)
class BuildChannel:
    """A conda channel in ``folder``, of our Python and of what requirements ask for; a path among them is a file's."""

    name: ClassVar[str] = "channel"
    makes: ClassVar[str] = "channel"

    requirements: tuple[str, ...]
    folder: str

    @property
    def title(self) -> str:
        """The channel's name."""
        return f"channel {Path(self.folder).name}"

    @property
    def path(self) -> str | None:
        """The folder."""
        return self.folder

    def lines(self) -> tuple[str, ...]:
        """The requirements, and the paths of files that hold some. Blocks. Raises ``InvalidInput``, ``NotFound``."""
        found = [line for each in self.requirements for line in _lines_of(each)]
        if not found:
            raise InvalidInput("Nothing is asked for: name at least one requirement, such as pandas.")
        return tuple(found)

    async def check(self, environments: Environments) -> None:  # noqa: ARG002 - as others need
        """Read the files, and look at what is in the channel's place."""
        await asyncio.to_thread(self.lines)
        await asyncio.to_thread(check_channel_folder, Path(self.folder))

    async def make(self, environments: Environments, run: Run) -> Prepared:
        """Make it."""
        lines = await asyncio.to_thread(self.lines)
        made = await environments.build_channel(lines, Path(self.folder), teller=run, tag=run.tag)
        return Prepared(None, results={"channel": str(made["url"]), "folder": str(made["folder"])})


@dataclass(frozen=True)
class Repair:
    """The environment with this id, made whole."""

    name: ClassVar[str] = "repair"
    makes: ClassVar[str] = "environment"

    environment: str

    @property
    def title(self) -> str:
        """What it is called."""
        return f"repair of {self.environment[:12]}"

    @property
    def path(self) -> str | None:
        """Of none."""
        return None

    async def check(self, environments: Environments) -> None:
        """Find it. Raises ``NotFound``, ``InvalidInput`` for one that others made."""
        found = (await environments.show(self.environment)).known
        if found.origin != OURS:
            raise InvalidInput(f"{found.path} was made by {found.origin}: use that program to repair it.")

    async def make(self, environments: Environments, run: Run) -> Prepared:
        """Mend it."""
        made = await environments.repair(self.environment, teller=run, tag=run.tag)
        return Prepared(None, environment=made.hash, results={"environment": made.hash, "prefix": str(made.prefix)})


AnyWork = Create | LockUp | BuildChannel | Repair

WORKS: Mapping[str, type[AnyWork]] = {kind.name: kind for kind in (Create, LockUp, BuildChannel, Repair)}


class Makings:
    """Starts these works as runs, and starts them again."""

    def __init__(self, *, environments: Environments, supervisor: Supervisor, limits: Limits) -> None:
        self._environments = environments
        self._supervisor = supervisor
        self._limits = limits

    async def start(self, work: Work, *, who: str, trigger: str, rerun_of: str | None = None) -> Run:
        """The run, on disk before this returns. Raises what is wrong with the work; nothing is left then."""
        await work.check(self._environments)
        row = RunRow(
            id=new_run_id(),
            kind=KIND,
            state=RunState.QUEUED,
            package=work.title,
            path=work.path,
            language=work.makes,
            trigger=trigger,
            who=who,
            rerun_of=rerun_of,
            created=now(),
        )
        stored = {KIND: {"work": work.name, **dataclasses.asdict(work)}}  # type: ignore[call-overload]  # a protocol's classes are dataclasses
        return await self._supervisor.submit(row, partial(self._make, work), limits=self._limits, request=stored)

    async def again(
        self, row: RunRow, stored: Mapping[str, Any] | None, *, who: str, trigger: str, **changes: bool
    ) -> Run:
        """The same work once more; ``changes`` are of what may be fetched for it.

        Raises ``Conflict`` when what it was is not known any more.
        """
        work = _restored(row, stored)
        fitting = {name: value for name, value in changes.items() if hasattr(work, name)}
        changed = dataclasses.replace(work, **fitting)  # type: ignore[arg-type]  # fields by name
        return await self.start(changed, who=who, trigger=trigger, rerun_of=row.id)

    def resumed(self, row: RunRow, stored: Mapping[str, Any] | None) -> tuple[PrepareFn, Limits]:
        """How a run that an earlier agent took in goes on. Raises ``Conflict``."""
        return partial(self._make, _restored(row, stored)), self._limits

    async def _make(self, work: Work, run: Run) -> Prepared:
        with offering():
            return await work.make(self._environments, run)


def _restored(row: RunRow, stored: Mapping[str, Any] | None) -> AnyWork:
    known = dict((stored or {}).get(KIND) or {})
    kind = WORKS.get(str(known.pop("work", "")))
    if kind is None:
        raise Conflict(f"Run {row.id} cannot be repeated: what it was to make is not known any more.")
    fields = {field.name for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
    return kind(**{name: value for name, value in values.items() if name in fields})


def definition_at(path: str) -> Definition:
    """The file at an absolute path. Blocks. Raises ``InvalidInput`` for what is no such file, ``NotFound``."""
    return looked_at(Definition.read(absolute(path, "the file")))


def looked_at(definition: Definition) -> Definition:
    """The same, if it is of the form of its kind, so that what is not is refused at once. Raises ``InvalidInput``."""
    if definition.kind is Kind.CONDA and not isinstance(
        load_yaml(definition.text, definition.name, duplicates=True), dict
    ):
        raise InvalidInput(f"{definition.name} is no environment.yml: it should have `dependencies:` with a list.")
    return definition


def absolute(path: str, what: str) -> Path:
    """The path, if it is one from the root of the file system or of a home. Raises ``InvalidInput``."""
    found = expanded(path)
    if "\0" in path or not os.path.isabs(found):  # noqa: PTH117 - a string that may be no path at all
        raise InvalidInput(f"The path of {what} should be absolute, not {path[:200]!r}.")
    return Path(found)


def expanded(text: str) -> str:
    """A path below the user's home folder in full: Jupyter tells its pages ``~/...``. All else stays as it is."""
    return os.path.expanduser(text) if text.startswith("~/") else text  # noqa: PTH111 - it may be no path at all


def template(name: str) -> str:
    """The path of the file of a template. Raises ``NotFound`` naming those there are."""
    found = templates()
    if name not in found:
        raise NotFound(f"There is no template {name[:200]!r}: there are {', '.join(sorted(found)) or 'none here'}.")
    return str(found[name])


def check_lock_target(target: Path) -> None:
    """Raise for a place in which no lock may be written: what is there and is none is not replaced."""
    absolute(str(target), "the lock")
    try:
        if not target.parent.is_dir():
            raise NotFound(f"There is no folder {target.parent} to write the lock into.")
        if not stat.S_ISREG(target.stat().st_mode):
            raise InvalidInput(f"No lock can be written to {target}: something that is no file is there.")
        with target.open("rb") as file:
            head = file.read(MOST_LOOKED_AT)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidInput(f"No lock can be written to {target} ({error.strerror}).") from error
    if head.strip() and b"content_hash:" not in head:
        raise Conflict(f"{target} exists and is no lock: name another file for it.")


def check_channel_folder(folder: Path) -> None:
    """Raise for a place in which no channel may be made: what is there and is none stays as it is."""
    absolute(str(folder), "the channel's folder")
    try:
        if not folder.exists():
            return
        if not folder.is_dir():
            raise InvalidInput(f"{folder} is no folder: name another one for the channel.")
        empty = not any(folder.iterdir())
    except OSError as error:
        raise InvalidInput(f"No channel can be made in {folder} ({error.strerror}).") from error
    if not empty and not any(folder.glob("*/repodata.json")):
        raise Conflict(f"{folder} holds something that is no channel: name another folder, or an empty one.")


def _lines_of(requirement: str) -> tuple[str, ...]:
    """A requirement's lines; the path of a file or wheel as it is: options and constraints stand in files."""
    if not os.path.isabs(requirement):  # noqa: PTH117 - a string that may be no path at all
        return Requirements.of(requirement).lines
    if not requirement.endswith(".whl"):
        definition_at(requirement)  # what is wrong with it is told at once
    return (requirement,)
