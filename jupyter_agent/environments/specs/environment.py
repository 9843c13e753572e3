"""environment.yml: what conda reads of it, and the selectors and sections that conda_lock adds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jupyter_agent.environments.definitions import Definition
from jupyter_agent.environments.reading import load_yaml
from jupyter_agent.environments.requirements import Requirements
from jupyter_agent.environments.specs.asking import Asking
from jupyter_agent.environments.specs.matchspecs import PLATFORMS, check_channel, wanted
from jupyter_agent.environments.specs.selectors import selected
from jupyter_agent.errors import InvalidInput

KNOWN = ("channels", "dependencies", "platforms", "variables", "pip-repositories")

NOT_HEARD = ("name", "prefix", "category", "allow-pypi-requests")
"""Keys that say nothing about what an environment holds."""

NO_DEFAULTS = "nodefaults"


@dataclass
class Read:
    """A file as it was read: what is asked for on each platform, and what holds for all.

    ``listed`` are the channels that it lists, ``channels`` those and the ones that stand before a package's name.
    """

    askings: list[Asking] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    options: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    default_channels: bool = True


def read(definition: Definition, platforms: Sequence[str]) -> Read:
    """What an environment.yml asks for on each platform. Raises ``InvalidInput``, ``NotFound``."""
    found = Read()
    for platform in platforms:
        _read_on(definition, platform, found)
    return found


def platforms_of(definition: Definition) -> list[str]:
    """Those that a file names for itself. Raises ``InvalidInput``."""
    value = _mapping(load_yaml(definition.text, definition.name, duplicates=True), definition.name)
    return checked_platforms(value.get("platforms"), definition.name)


def checked_platforms(value: object, name: str) -> list[str]:
    """A list of conda's platforms, each once; none for nothing. Raises ``InvalidInput``."""
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise InvalidInput(f"{name}: 'platforms' is no list: write platforms: [linux-64, osx-arm64].")
    for platform in value:
        if not isinstance(platform, str) or platform not in PLATFORMS:
            raise InvalidInput(
                f"{name} has the platform {str(platform)[:60]!r}, which conda does not know: write linux-64, "
                "linux-aarch64, osx-arm64, osx-64 or win-64."
            )
    return list(dict.fromkeys(value))


def _read_on(definition: Definition, platform: str, found: Read) -> None:
    name = definition.name
    text = selected(definition.text, platform, name)
    value = _mapping(load_yaml(text, name), name)
    asking = Asking(platform, name)
    first = not found.askings
    pip = _dependencies(value, asking)
    requirements = Requirements.of("\n".join(pip), name=name, files=definition.included)
    for line in requirements.lines:
        asking.add_pip(line)
    if requirements.lines and not asking.asks_for("pip", manager="conda"):
        asking.add_conda("pip *")
    elif requirements.lines:  # conda_lock adds it all the same, and its content hash is over that
        asking.asked.append(wanted("pip *", name).asked)
    channels, default = _channels(value, name)
    _merge(found.listed, channels)
    _merge(found.channels, [*channels, *asking.channels])
    found.default_channels = found.default_channels and default
    options = (*requirements.options, *_repositories(value, name))
    found.options = tuple(dict.fromkeys((*found.options, *options)))
    found.constraints = tuple(dict.fromkeys((*found.constraints, *requirements.constraints)))
    variables = _variables(text, value, name)
    if not first and variables != found.variables:
        raise InvalidInput(f"{name}: 'variables' are not the same on all platforms: lock one platform at a time.")
    found.variables = variables
    found.askings.append(asking)
    _merge(found.warnings, _unknown(value, name))


def _merge(into: list[str], more: Sequence[str]) -> None:
    into.extend(each for each in dict.fromkeys(more) if each not in into)


def _mapping(value: object, name: str) -> dict[Any, Any]:
    if value is None:
        raise InvalidInput(f"{name} is empty: write what it is to hold under 'dependencies:'.")
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else f"one value ({str(value)[:40]!r})"
        raise InvalidInput(f"{name} is {kind}: write 'channels:' and 'dependencies:', each with a list below.")
    return value


def _dependencies(value: dict[Any, Any], asking: Asking) -> list[str]:
    """Adds conda's dependencies to ``asking``; returns the lines for pip."""
    listed = value.get("dependencies")
    if not listed and not isinstance(listed, (int, float, str)):
        raise InvalidInput(f"{asking.where} asks for nothing: write what it is to hold under 'dependencies:'.")
    if not isinstance(listed, list):
        raise InvalidInput(f"{asking.where}: 'dependencies' is no list: write each on a line that begins with '- '.")
    pip: list[str] = []
    for dependency in listed:
        if isinstance(dependency, dict):
            pip.extend(_pip(dependency, asking.where))
        else:
            asking.add_conda(dependency)
    return pip


def _pip(section: dict[Any, Any], where: str) -> list[str]:
    """The lines of a section of dependencies. Raises ``InvalidInput`` for one that is not pip's."""
    if set(section) != {"pip"}:
        named = ", ".join(sorted(str(key)[:40] for key in section if key != "pip"))
        raise InvalidInput(
            f"{where} has {named or 'nothing'!r} with a colon among the dependencies: only 'pip:' has a list of its "
            "own; write packages without a colon."
        )
    lines = section["pip"]
    if lines is None:
        return []
    if not isinstance(lines, list):
        raise InvalidInput(f"{where}: 'pip' is no list: write each requirement on a line that begins with '- '.")
    return [_pip_line(line, where) for line in lines]


def _pip_line(line: object, where: str) -> str:
    if not isinstance(line, str):
        raise InvalidInput(f"{where} asks pip for {str(line)[:60]!r}, which is no text: put it in quotes.")
    found = line.strip().replace("\t", " ")
    if not found:
        raise InvalidInput(f"{where} has an empty line for pip: name a package, or remove the line.")
    if not found.isprintable() or found.endswith("\\"):
        raise InvalidInput(f"{where} asks pip for {found[:100]!r}, which is more than one line: one each.")
    return found


def _channels(value: dict[Any, Any], name: str) -> tuple[list[str], bool]:
    """The channels, and whether conda's own defaults may be added."""
    listed = value.get("channels")
    if listed is None:
        return [], True
    if not isinstance(listed, list):
        raise InvalidInput(f"{name}: 'channels' is no list: write each on a line that begins with '- '.")
    channels = [check_channel(channel, name) for channel in listed]
    return [channel for channel in channels if channel != NO_DEFAULTS], NO_DEFAULTS not in channels


def _repositories(value: dict[Any, Any], name: str) -> list[str]:
    listed = value.get("pip-repositories") or []
    if not isinstance(listed, list) or not all(
        isinstance(url, str) and re.fullmatch(r"https?://\S+", url) for url in listed
    ):
        raise InvalidInput(
            f"{name}: 'pip-repositories' is no list of URLs: write each on a line that begins with '- '."
        )
    return [f"--extra-index-url {url}" for url in listed]


def _variables(text: str, value: dict[Any, Any], name: str) -> dict[str, str]:
    """The variables, each as it is written: ``yes`` and ``1.10`` stay what they are."""
    listed = value.get("variables")
    if listed is None:
        return {}
    if not isinstance(listed, dict):
        raise InvalidInput(f"{name}: 'variables' is no mapping: write NAME: value, each on a line of its own.")
    written = load_yaml(text, name, plain=True).get("variables")
    for key, said in written.items():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise InvalidInput(f"{name} has the variable {str(key)[:60]!r}: names are letters, digits and '_'.")
        if not isinstance(said, str):
            raise InvalidInput(f"{name}: the variable {key} is no text: write {key}: 'value'.")
    return {key: "" if listed.get(key, said) is None else said for key, said in written.items()}


def _unknown(value: dict[Any, Any], name: str) -> list[str]:
    keys = [str(key)[:60] for key in value if key not in (*KNOWN, *NOT_HEARD)]
    return [f"{name}: {key!r} is not known and not heard." for key in keys]
