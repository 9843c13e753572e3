"""Conda's part for one platform: solved by rattler, explained where there is no solution."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rattler import Channel, ChannelPriority, Gateway, MatchSpec, RepoDataRecord, Subdir, solve  # noqa: TID251 - environments/
from rattler.exceptions import (  # noqa: TID251 - the same
    GatewayError,
    InvalidMatchSpecError,
    PackageNameMatcherParseError,
    SolverError,
)

from jupyter_agent.environments.access import Access, translated
from jupyter_agent.environments.indexes import without_credentials
from jupyter_agent.environments.locking import explaining
from jupyter_agent.environments.locking.machines import Machine
from jupyter_agent.errors import InvalidInput

CHANNEL = re.compile(r"""^([^\s\[]+)::|\bchannel=["']?([^"'\],]+)["']?""")
"""A spec's channel, in front of it or between its brackets."""


@dataclass(frozen=True)
class Solver:
    """Solves against ``channels``, which are those of the file ``source``."""

    source: str
    channels: Sequence[Channel]
    gateway: Gateway
    access: Access

    async def solved(self, words: Sequence[str], machine: Machine) -> list[RepoDataRecord]:
        """The records, sorted by name. Raises ``SolverError`` as rattler does, and ``AgentError`` for the rest."""
        specs = [self._match_spec(word) for word in words]
        try:
            found = await solve(
                list(self.channels),
                specs,
                gateway=self.gateway,
                platforms=_folders(machine.platform),
                virtual_packages=machine.virtual_packages(),
                channel_priority=ChannelPriority.Strict,
            )
        except GatewayError as error:
            raise translated(error, channels=self.channels) from error
        return sorted(found, key=lambda record: record.name.normalized)

    async def explained(self, error: SolverError, words: Sequence[str], platform: str) -> InvalidInput:
        """Why there is no solution: a package that is not there, a version that is not, or the solver's own tree."""
        channels = [channel_name(channel) for channel in self.channels]
        specs = [self._match_spec(word) for word in words]
        names = await self._names(platform)
        missing = sorted(
            {name for spec in specs if (name := _name(spec)) and not name.startswith("__") and name not in names}
        )
        if missing and names:
            text = explaining.missing(missing, names, source=self.source, platform=platform, channels=channels)
            return InvalidInput(text)
        if found := explaining.NO_CANDIDATES.search(str(error)):
            versions = await self._versions(found[1], platform)
            spec = f"{found[1]} {found[2]}".removesuffix(" *")
            if versions:
                return InvalidInput(
                    explaining.no_version(spec, found[1], versions, source=self.source, platform=platform)
                )
        return InvalidInput(explaining.unsolvable(self.source, platform, str(error), channels))

    async def records(self, names: Sequence[str], platform: str, channels: Sequence[Channel]) -> list[RepoDataRecord]:
        """All records of these names. Raises ``AgentError`` when the channel cannot be read."""
        try:
            found = await self.gateway.query(list(channels), _folders(platform), names, recursive=False)
        except GatewayError as error:
            raise translated(error, channels=channels) from error
        return [record for one in found for record in one]

    async def _names(self, platform: str) -> set[str]:
        try:
            found = await self.gateway.names(list(self.channels), _folders(platform))
        except GatewayError:
            return set()
        return {name.normalized for name in found}

    async def _versions(self, name: str, platform: str) -> list[str]:
        """The versions of a package that there are, oldest first."""
        records = await self.records([name], platform, self.channels)
        by_version = {str(record.version): record.version for record in records}
        return sorted(by_version, key=lambda text: by_version[text])

    def _match_spec(self, word: str) -> MatchSpec:
        """A spec whose channel, where it names one, is the one that this machine is configured to."""
        named = CHANNEL.search(word)
        try:
            if named is not None:
                found = self.access.channels([named[1] or named[2]])[0]  # defaults are several: the first has most
                url = str(found.base_url).rstrip("/")
                return MatchSpec(
                    CHANNEL.sub(f"{url}::" if named[1] else f'channel="{url}"', word, count=1), strict=False
                )
            return MatchSpec(word, strict=False)
        except (InvalidMatchSpecError, PackageNameMatcherParseError) as error:
            reason = " ".join(str(error).split())
            raise InvalidInput(f"{self.source} asks for {word[:200]!r}, which cannot be read ({reason}).") from error


def _folders(platform: str) -> list[Subdir]:
    """The folders of a channel in which packages for ``platform`` lie."""
    return [Subdir(platform), Subdir("noarch")]


def channel_name(channel: Channel) -> str:
    """What people call it: ``conda-forge``, or its URL."""
    url = str(channel.base_url).rstrip("/")
    return without_credentials(url.removeprefix("https://conda.anaconda.org/"))


def _name(spec: MatchSpec) -> str:
    """The one name that a spec is for; empty for a pattern."""
    name = spec.name.as_package_name()
    return name.normalized if name is not None else ""


def dependencies_of(record: RepoDataRecord) -> dict[str, str]:
    """``{name: version and build}``, as a lock has them; of two specs for one name both."""
    found: dict[str, str] = {}
    for depends in sorted(record.depends):
        name, _, rest = re.sub(r"\s*;.*$|\[.*$", "", depends).strip().partition(" ")
        known = found.get(name)
        rest = rest.strip() or "*"
        found[name] = (
            rest if known in (None, "*", rest) else f"{known},{rest}" if " " not in f"{known}{rest}" else str(known)
        )
    return found


def of_python(records: Sequence[RepoDataRecord]) -> Mapping[str, str]:
    """``{conda name: version}`` of what installs Python packages: those that need Python themselves."""
    return {
        record.name.normalized: str(record.version)
        for record in records
        if record.name.normalized not in ("python", "python_abi")
        and any(re.match(r"(python|python_abi|pypy)\b(?!-)", depends) for depends in record.depends)
    }
