"""The text of a conda-lock.yml (version 1), by conda_lock's own models: the same bytes for the same packages.

These models and the content hash are conda_lock's internals; in this package they are used here alone.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rattler import RepoDataRecord  # noqa: TID251 - this is environments/

from jupyter_agent.environments.access.credentials import parted
from jupyter_agent.environments.locking.hashes import VARIABLES
from jupyter_agent.environments.locking.machines import FILE
from jupyter_agent.environments.locking.solving import dependencies_of
from jupyter_agent.environments.locking.wheels import Wheel, without_secrets
from jupyter_agent.environments.specs import Spec
from jupyter_agent.errors import Failed

with warnings.catch_warnings():  # of its own old parts, about which nobody who uses us can do anything
    warnings.simplefilter("ignore")
    from conda_lock.content_hash import compute_content_hashes  # noqa: TID251 - this is environments/
    from conda_lock.lockfile.v2prelim.models import (  # noqa: TID251 - the same
        HashModel,
        LockedDependency,
        Lockfile,
        LockMeta,
    )
    from conda_lock.models.channel import Channel  # noqa: TID251 - the same
    from conda_lock.virtual_package import FakeRepoData, VirtualPackage  # noqa: TID251 - the same

MACHINES = "jupyter_agent.virtual_packages"
"""Key of ``custom_metadata``: by platform, the virtual packages that it needs beyond those locks are made for."""

HEADER = """\
# Made by jupyter_agent in conda-lock's format; conda-lock, micromamba and py-rattler read it. Do not edit it:
# change what it was made from, and lock again (jupyter-agent env lock FILE).
"""

MAIN = "main"
"""The one category: what is only for a project's development is not asked for (``specs``), so it is not locked."""


@dataclass(frozen=True)
class Locked:
    """What one platform gets. ``beyond``: what it needs of a machine that not every one has."""

    platform: str
    records: Sequence[RepoDataRecord]
    wheels: Sequence[Wheel] = ()
    beyond: Mapping[str, str] = field(default_factory=dict)


def text(spec: Spec, locked: Sequence[Locked], *, channels: Sequence[str] | None = None) -> str:
    """The lock; ``channels`` are those it was solved against where they are not the file's.

    Raises ``Failed`` when a record has no md5, which conda_lock's form requires.
    """
    used = [Channel(url=url, used_env_vars=()) for url in channels] if channels is not None else None
    lock = Lockfile(
        package=[package for one in locked for package in _packages(one)],
        metadata=LockMeta(
            content_hash=dict(sorted(content_hashes(spec).items())),
            channels=used or [_public(channel) for channel in spec.asked.channels],
            platforms=sorted(one.platform for one in locked),
            sources=[spec.source],
            custom_metadata=_custom(spec, locked) or None,
        ),
    )
    lock.alphasort_inplace()
    output = lock.to_v1().dict_for_output()
    return HEADER + yaml.dump(output, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=200)


def content_hashes(spec: Spec) -> dict[str, str]:
    """conda_lock's hash of what is asked for, by platform: with the virtual packages that locks are made for.

    Without passwords: a lock is shown to others, and a short one could be guessed by its hash.
    """
    with tempfile.TemporaryDirectory(prefix="jupyter-agent-lock-") as folder:
        repodata = FakeRepoData(base_path=Path(folder))
        subdirs = yaml.safe_load(FILE.read_text(encoding="utf-8"))["subdirs"]
        for platform, one in subdirs.items():
            for name, told in one["packages"].items():
                version, _, build = told.partition(" ")
                package = VirtualPackage(name=name, version=version, build_string=build)
                repodata.add_package(package, subdirs=[platform])
        repodata.write()
        channels = [channel if channel.used_env_vars else _public(channel) for channel in spec.asked.channels]
        asked = spec.asked.model_copy(update={"channels": channels})
        found: dict[str, str] = compute_content_hashes(asked, repodata)
        return found


def _public(channel: Channel) -> Channel:
    """Without user, password and token, also where those are variables: nobody else has them."""
    if "://" not in channel.url:
        return channel
    return Channel(url=parted(channel.url)[0], used_env_vars=())


def _custom(spec: Spec, locked: Sequence[Locked]) -> dict[str, str]:
    beyond = {one.platform: dict(one.beyond) for one in locked if one.beyond}
    told = {MACHINES: beyond, VARIABLES: dict(spec.variables)}
    return {key: json.dumps(value, sort_keys=True, ensure_ascii=False) for key, value in told.items() if value}


def _packages(one: Locked) -> list[LockedDependency]:
    found = [_conda(record, one.platform) for record in one.records]
    return [*found, *(_pip(wheel, one.platform) for wheel in one.wheels)]


def _conda(record: RepoDataRecord, platform: str) -> LockedDependency:
    name = record.name.normalized
    if record.md5 is None:
        raise Failed(f"The channel does not say the md5 of {name} ({record.file_name}): it cannot be locked.")
    return LockedDependency(
        name=name,
        version=str(record.version),
        manager="conda",
        platform=platform,
        dependencies=dependencies_of(record),
        url=without_secrets(str(record.url)),
        hash=HashModel(md5=record.md5.hex(), sha256=record.sha256.hex() if record.sha256 else None),
        build=str(record.build),
        categories={MAIN},
    )


def _pip(wheel: Wheel, platform: str) -> LockedDependency:
    return LockedDependency(
        name=wheel.name,
        version=wheel.version,
        manager="pip",
        platform=platform,
        dependencies=dict.fromkeys(wheel.dependencies, "*"),
        url=wheel.url,
        hash=HashModel(sha256=wheel.sha256),
        categories={MAIN},
    )
