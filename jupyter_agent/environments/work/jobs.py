"""What a child process is asked to do: values, and their form in a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jupyter_agent.environments.definitions import Definition


@dataclass(frozen=True)
class Settings:
    """What all jobs need to know.

    ``cache`` holds ``pkgs`` (conda packages), ``repodata``, ``uv`` and ``compiled``; ``channels`` the channels made
    from PyPI. ``offline``: nothing is fetched from a network. ``default_channels`` are for files that name none.
    """

    cache: Path
    channels: Path
    offline: bool = False
    default_channels: tuple[str, ...] = ("conda-forge",)


@dataclass(frozen=True)
class LockJob:
    """Lock ``definition`` with ``extra`` conda specs for ``platforms`` (none: its own) into the file ``out``.

    ``from_pypi``: a channel made from PyPI stands in when none of its channels can be reached.
    """

    definition: Definition
    extra: tuple[str, ...]
    platforms: tuple[str, ...]
    out: Path
    from_pypi: bool
    settings: Settings


@dataclass(frozen=True)
class BuildJob:
    """Make what the ``lock`` (a conda-lock.yml) holds for this machine at ``prefix``, an absolute path.

    ``distrust``: packages in the cache were changed, or may have been: each file is held against its sha256 first.
    """

    lock: Path
    prefix: Path
    settings: Settings
    distrust: bool = False


@dataclass(frozen=True)
class ChannelJob:
    """Make a channel in ``folder`` from PyPI's wheels for ``requirements``.

    ``python``: whether the running CPython goes into it; ``"host"`` says so in the command's own word.
    """

    requirements: tuple[str, ...]
    folder: Path
    python: bool | Literal["host"]
    settings: Settings


@dataclass(frozen=True)
class VerifyJob:
    """Hold every file of ``prefix`` against what its packages say of it."""

    prefix: Path
    settings: Settings


Job = LockJob | BuildJob | ChannelJob | VerifyJob

KINDS: dict[str, type[Job]] = {kind.__name__: kind for kind in (LockJob, BuildJob, ChannelJob, VerifyJob)}


def to_json(job: Job) -> str:
    """The job as text for its child."""
    return json.dumps({"job": type(job).__name__, **_plain(job)})


def from_json(text: str) -> Job:
    """The job that a parent wrote. Raises ``ValueError``, ``KeyError`` or ``TypeError`` when it is none."""
    plain = json.loads(text)
    kind = KINDS[plain.pop("job")]
    return kind(**{name: _value(name, value) for name, value in plain.items()})


PATHS = ("cache", "channels", "out", "lock", "prefix", "folder")


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return dict(value)
    return str(value) if isinstance(value, Path) else value


def _value(name: str, plain: Any) -> Any:
    if name == "definition":
        return _definition(plain)
    if name == "settings":
        return Settings(**{inner: _value(inner, value) for inner, value in plain.items()})
    if name in PATHS:
        return Path(plain)
    return tuple(plain) if isinstance(plain, list) else plain


def _definition(plain: dict[str, Any]) -> Definition:
    from jupyter_agent.environments.definitions import Definition, Kind  # noqa: PLC0415 - only a LockJob pays for it

    return Definition(**{**plain, "kind": Kind(plain["kind"])})
