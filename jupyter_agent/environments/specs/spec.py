"""What is to be solved: conda_lock's model of it, and what that has no field for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jupyter_agent.environments.definitions import Definition, Kind, this_platform
from jupyter_agent.environments.indexes import without_credentials
from jupyter_agent.environments.requirements import Requirements
from jupyter_agent.environments.specs import environment, explicit, project, pypi
from jupyter_agent.environments.specs.asking import Asking
from jupyter_agent.environments.specs.condalock import Channel, LockSpecification
from jupyter_agent.environments.specs.environment import NO_DEFAULTS, Read
from jupyter_agent.environments.specs.explicit import Explicit
from jupyter_agent.errors import AgentError, InvalidInput


@dataclass(frozen=True)
class Spec:
    """What a definition asks for, by platform.

    ``asked`` is what content hashes are made of; ``conda`` and ``pip`` say the same in the words of who solves it:
    match specs for rattler, requirement lines for uv, nothing lost. ``explicit`` is not to be solved at all.
    """

    asked: LockSpecification
    source: str
    conda: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pip: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pip_options: tuple[str, ...] = ()
    pip_constraints: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    explicit: Mapping[str, tuple[Explicit, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def parse(
    definition: Definition,
    *,
    platforms: Sequence[str] = (),
    extra: Sequence[str] = (),
    default_channels: Sequence[str] = ("conda-forge",),
) -> Spec:
    """What ``definition`` asks for on ``platforms`` (its own, or this machine's, where there are none).

    ``extra`` are conda specs that are added unless they are asked for already (not to an explicit list, which says all
    of it); ``default_channels`` are for a file that names none. Raises ``InvalidInput``, ``NotFound``, each with a
    sentence for who wrote the file, without the credentials that may stand in its URLs.
    """
    wanted = environment.checked_platforms(tuple(platforms), "What is asked for")
    try:
        if definition.kind is Kind.EXPLICIT:
            return _explicit(definition, wanted)
        found = _read(definition, wanted)
        for asking in found.askings:
            asking.add_missing(extra)
        return _spec(definition, found, default_channels)
    except AgentError as error:
        said = without_credentials(str(error))
        if said != str(error):
            raise type(error)(said) from None
        raise


def _read(definition: Definition, platforms: list[str]) -> Read:
    match definition.kind:
        case Kind.CONDA:
            own = environment.platforms_of(definition)
            return environment.read(definition, platforms or own or [this_platform()])
        case Kind.PYPROJECT:
            own = project.platforms_of(definition)
            return project.read(definition, platforms or own or [this_platform()])
        case Kind.REQUIREMENTS:
            return _requirements(definition, platforms or [this_platform()])
        case _:
            raise InvalidInput(f"{definition.name} is a lock: it is used as it is, there is nothing to solve.")


def _requirements(definition: Definition, platforms: Sequence[str]) -> Read:
    """requirements.txt as pip's part of an environment with the Python that would run it without conda."""
    requirements = Requirements.of(definition.text, name=definition.name, files=definition.included)
    found = Read(options=requirements.options, constraints=requirements.constraints)
    for platform in platforms:
        asking = Asking(platform, definition.name)
        asking.add_conda(f"python {project.our_python()}")
        asking.add_conda("pip")
        for line in requirements.lines:
            asking.add_pip(line)
        found.askings.append(asking)
    return found


def _spec(definition: Definition, found: Read, default_channels: Sequence[str]) -> Spec:
    for line in found.constraints:
        pypi.on_platform(line, found.askings[0].platform, definition.name)
    defaults = [name for name in default_channels if name != NO_DEFAULTS]
    if not found.default_channels:
        defaults = [name for name in defaults if name != "defaults"]
    channels = list(dict.fromkeys([*(found.listed or defaults), *found.channels]))
    if not channels:
        raise InvalidInput(f"{definition.name} names no channel: write where packages come from under 'channels:'.")
    return Spec(
        asked=_model(channels, {asking.platform: asking for asking in found.askings}, definition),
        source=definition.name,
        conda={asking.platform: tuple(asking.conda) for asking in found.askings},
        pip={asking.platform: tuple(asking.pip) for asking in found.askings},
        pip_options=found.options,
        pip_constraints=found.constraints,
        variables=found.variables,
        warnings=tuple(found.warnings),
    )


def _model(channels: Sequence[str], askings: Mapping[str, Asking], definition: Definition) -> LockSpecification:
    return LockSpecification(
        dependencies={platform: asking.merged() for platform, asking in askings.items()},
        channels=[_channel(channel) for channel in channels],
        sources=[Path(definition.name)],
    )


def _channel(name: str) -> Channel:
    try:
        return Channel.from_string(name)
    except ValueError as error:  # of a URL's port, of brackets in its host
        raise InvalidInput(f"The channel {name[:100]!r} is no URL ({error}): write https://HOST/CHANNEL.") from error


def _explicit(definition: Definition, platforms: Sequence[str]) -> Spec:
    packages = explicit.read(definition)
    platform = explicit.platform_of(definition, packages)
    if platforms and list(platforms) != [platform]:
        raise InvalidInput(f"{definition.name} is a list for {platform} alone: give one for {', '.join(platforms)}.")
    channels = list(dict.fromkeys(package.channel for package in packages))
    asking = Asking(platform, definition.name, asked=[package.asked for package in packages])
    return replace(
        Spec(asked=_model(channels, {platform: asking}, definition), source=definition.name),
        explicit={platform: packages},
        warnings=tuple(explicit.unheard(definition)),
    )
