"""What is asked for, put together platform by platform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from packaging.utils import canonicalize_name

from jupyter_agent.environments.specs import pypi
from jupyter_agent.environments.specs.condalock import Dependency, VersionedDependency
from jupyter_agent.environments.specs.matchspecs import wanted


@dataclass
class Asking:
    """For one platform: conda's part, pip's part, and channels in the order in which they are named."""

    platform: str
    where: str
    conda: list[str] = field(default_factory=list)
    pip: list[str] = field(default_factory=list)
    asked: list[Dependency] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)

    def add_conda(self, text: object) -> None:
        """A dependency of conda's. Raises ``InvalidInput``."""
        found = wanted(text, self.where)
        self.conda.append(found.words)
        self.asked.append(found.asked)
        if found.channel and found.channel not in self.channels:
            self.channels.append(found.channel)

    def add_pip(self, line: str) -> None:
        """A requirement line, unless it is for other platforms. Raises ``InvalidInput``."""
        dependency = pypi.on_platform(line, self.platform, self.where)
        if dependency is not None:
            self.pip.append(line)
            self.asked.append(dependency)

    def add_missing(self, specs: Sequence[str]) -> None:
        """Those of ``specs`` that nothing asks for yet, be it of conda or of pip."""
        for spec in specs:
            if not self.asks_for(wanted(spec, self.where).asked.name):
                self.add_conda(spec)

    def asks_for(self, name: str, *, manager: str = "") -> bool:
        """Whether something of that name is asked for, of ``manager`` where one is given."""
        wanted_name = canonicalize_name(name)
        return any(
            pypi.name_of(dependency) == wanted_name and manager in ("", dependency.manager) for dependency in self.asked
        )

    def merged(self) -> list[Dependency]:
        """One dependency of each name and manager: conda takes what is said in two lines together."""
        found: dict[tuple[str, str], Dependency] = {}
        for dependency in self.asked:
            key = (dependency.manager, dependency.name)
            found[key] = _together(found[key], dependency) if key in found else dependency
        return list(found.values())


def _together(first: Dependency, second: Dependency) -> Dependency:
    if not isinstance(first, VersionedDependency) or not isinstance(second, VersionedDependency):
        return second
    versions = [version for version in (first.version, second.version) if version not in ("", "*")]
    update = {
        "version": ",".join(dict.fromkeys(versions)) or second.version,
        "build": second.build or first.build,
        "conda_channel": second.conda_channel or first.conda_channel,
        "extras": sorted({*first.extras, *second.extras}),
    }
    return second.model_copy(update=update)
