"""What somebody wants in a channel: requirements, files with requirements or conda specs, wheels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from jupyter_agent.environments.channel.fetching import Wanted
from jupyter_agent.environments.channel.host import Host
from jupyter_agent.environments.channel.making import Alias
from jupyter_agent.environments.definitions import Definition, Kind
from jupyter_agent.errors import InvalidInput, NotFound

FILE = re.compile(r"[^\s@<>=!~;\[\]]+\.(txt|in|ya?ml|toml|lock)", re.IGNORECASE)


@dataclass(frozen=True)
class Asking:
    """What is asked for in all."""

    wanted: Wanted
    aliases: tuple[Alias, ...] = ()
    empty: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def adding(self, other: Asking) -> Asking:
        """Both."""
        wanted = Wanted(
            (*self.wanted.lines, *other.wanted.lines),
            (*self.wanted.constraints, *other.wanted.constraints),
            (*self.wanted.options, *other.wanted.options),
        )
        return Asking(
            wanted,
            tuple(dict.fromkeys((*self.aliases, *other.aliases))),
            tuple(dict.fromkeys((*self.empty, *other.empty))),
            (*self.notes, *other.notes),
        )


def asked_for(requirements: Iterable[str], own: Host, *, pip: bool) -> Asking:
    """All of it; ``pip``: with pip, too. Raises ``InvalidInput``, ``NotFound``."""
    found = Asking(Wanted(("pip",) if pip else ()))
    for one in requirements:
        found = found.adding(_one(one.strip(), own))
    found.wanted.requirements()
    if not found.wanted.lines:
        raise InvalidInput("Nothing is asked for: name requirements, or files that hold some.")
    return found


def _one(text: str, own: Host) -> Asking:
    if text.endswith(".whl") and "://" not in text and "@" not in text:
        return _wheel(Path(text))
    if FILE.fullmatch(text) or (text.startswith(("/", "./", "../")) and "://" not in text):
        return _file(Path(text), own)
    if text.startswith("-"):
        raise InvalidInput(f"{text[:100]!r} is an option: write it into a requirements.txt, and name that file.")
    return Asking(Wanted((text,)))


def _wheel(file: Path) -> Asking:
    try:
        name, *_ = parse_wheel_filename(file.name)
    except InvalidWheelFilename as error:
        raise InvalidInput(f"{file.name} is not named as a wheel is: name-version-python-abi-platform.whl.") from error
    if not file.is_file():
        raise NotFound(f"There is no wheel {file}.")
    return Asking(Wanted((f"{name} @ {file.absolute().as_uri()}",)))


def _file(file: Path, own: Host) -> Asking:
    definition = Definition.read(file)
    if not definition.conda():
        found = definition.requirements()
        return Asking(Wanted(found.lines, found.constraints, found.options))
    if definition.kind in (Kind.LOCK, Kind.EXPLICIT):
        raise InvalidInput(
            f"{file.name} names packages of a channel that exists: a channel is made from requirements, or from an "
            "environment.yml."
        )
    return _conda_file(definition, own)


def _conda_file(definition: Definition, own: Host) -> Asking:
    from jupyter_agent.environments.channel.translation import translate  # noqa: PLC0415 - loads rattler
    from jupyter_agent.environments.specs import parse  # noqa: PLC0415 - loads conda_lock

    spec = parse(definition, platforms=(own.target.subdir,))
    asked = translate(spec.conda.get(own.target.subdir, ()), python=own.version)
    lines = (*(one.line() for one in asked.asked), *spec.pip.get(own.target.subdir, ()))
    aliases = tuple({Alias(one.name, one.project): None for one in asked.asked if one.name != one.project})
    return Asking(Wanted(lines, spec.pip_constraints, spec.pip_options), aliases, asked.empty, asked.notes)
