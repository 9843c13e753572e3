"""The environments of this machine: which there are, and what is in one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jupyter_agent.environments import foreign
from jupyter_agent.environments.building.activated import FILE as ACTIVATION
from jupyter_agent.environments.definitions import this_platform
from jupyter_agent.environments.prefixes.builds import builders
from jupyter_agent.environments.prefixes.contents import ASKED, Package, configured_version, packages
from jupyter_agent.environments.prefixes.environment import Environment
from jupyter_agent.environments.prefixes.holds import Holds
from jupyter_agent.environments.prefixes.layout import Layout, hash_of, state_of
from jupyter_agent.environments.prefixes.marks import READY, TAINTED, Mark
from jupyter_agent.errors import InvalidInput, NotFound

OURS = "jupyter_agent"

SHORTEST_ID = 8

SHOWN = 10
"""Environments named in a sentence."""


@dataclass(frozen=True)
class Known:
    """An environment of this machine.

    ``kind`` is ``conda`` or ``venv``; ``origin`` who made it: ``jupyter_agent``, ``conda``, ``mamba``, ``micromamba``,
    ``pixi``; ``state`` ``ready``, ``building``, ``half-made`` or ``changed``. ``made`` and ``used`` are in ISO 8601,
    empty where not known, as are ``python`` and ``source`` (a file's name); ``used_by`` are runs.
    """

    id: str
    name: str
    kind: str
    origin: str
    path: str
    state: str
    python: str = ""
    packages: int = 0
    bytes: int = 0
    made: str = ""
    used: str = ""
    source: str = ""
    used_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """What is in an environment: ``asked`` is what its file asks for, ``variables`` the names of those it sets."""

    known: Known
    platform: str
    channels: tuple[str, ...]
    asked: tuple[str, ...]
    variables: tuple[str, ...]
    packages: tuple[Package, ...]


def everything(layout: Layout, holds: Holds, environ: Mapping[str, str] | None) -> list[Known]:
    """Ours, then those of other programs. Blocks."""
    users = holds.users()
    building = {name for name, hold in builders(layout).items() if hold.is_alive()}
    ours = [_ours(prefix, users, building=prefix.name in building) for prefix in layout.prefixes()]
    others = [_other(found) for found in foreign.find(environ) if layout.folder not in Path(found.path).parents]
    return [*ours, *others]


def _ours(prefix: Path, users: Mapping[str, list[str]], *, building: bool) -> Known:
    mark = Mark.read(prefix) or Mark.read(prefix, TAINTED) or Mark(kind=_kind(prefix))
    return Known(
        id=prefix.name,
        name=mark.name,
        kind=mark.kind,
        origin=OURS,
        path=str(prefix),
        state=state_of(prefix, building=building),
        python=mark.python or configured_version(prefix),
        packages=mark.packages,
        bytes=mark.bytes,
        made=mark.made,
        used=_used(prefix),
        source=mark.source,
        used_by=tuple(sorted(users.get(prefix.name, ()))),
    )


def _kind(prefix: Path) -> str:
    return "conda" if (prefix / "conda-meta").is_dir() else "venv"


def _used(prefix: Path) -> str:
    for name in (READY, TAINTED):
        try:
            return datetime.fromtimestamp((prefix / name).stat().st_mtime, UTC).isoformat(timespec="seconds")
        except OSError:
            continue
    return ""


def _other(found: foreign.Foreign) -> Known:
    path = str(found.path)
    return Known(path, found.name, "conda", found.origin, path, "ready", python=found.python or "")


def pick(wanted: str, among: list[Known]) -> Known:
    """That of this id (or its beginning), name or path; of several with one name the one that was made last.

    Raises ``NotFound`` that says which there are, ``InvalidInput`` for a beginning that is too short to tell.
    """
    path = os.path.abspath(os.path.expanduser(wanted)) if re.search(r"[/\\~]|^\.", wanted) else ""  # noqa: PTH100, PTH111 - it may be no path
    exact = [each for each in among if wanted == each.id or path in {each.path, str(Path(each.path).resolve())} - {""}]
    if exact:
        return exact[0]
    named = [each for each in among if each.name == wanted and wanted]
    if named:
        return max(named, key=lambda each: (each.state == "ready", each.origin == OURS, each.made))
    begun = [
        each for each in among if len(wanted) >= SHORTEST_ID and each.origin == OURS and each.id.startswith(wanted)
    ]
    if len({each.id.partition(".")[0] for each in begun}) > 1:
        raise InvalidInput(f"{wanted!r} begins more than one environment's id: give more of it.")
    if begun:
        return max(begun, key=lambda each: each.state == "ready")
    raise NotFound(f"There is no environment {wanted[:200]!r}: {_there_is(among)}.")


def elsewhere(wanted: str) -> Known | None:
    """What lies in a folder, given by its path, that may be of no program that is known here; ``None``: nothing."""
    if not os.path.isabs(wanted) or "\0" in wanted:  # noqa: PTH117 - it may be no path
        return None
    path = Path(wanted)
    try:
        if hash_of(path) or not any((path / sign).exists() for sign in ("conda-meta", "pyvenv.cfg")):
            return None
    except OSError:  # too long
        return None
    return Known(wanted, path.name, _kind(path), "folder", wanted, "ready", python=configured_version(path))


def _there_is(among: list[Known]) -> str:
    if not among:
        return "there is none yet on this machine"
    told = [each.name or (each.id[:12] if each.origin == OURS else each.path) for each in among]
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return f"there are {', '.join(told[:SHOWN])}{more}"


def shown(found: Known) -> Shown:
    """What is in it. Blocks: it reads what each package says of itself."""
    prefix = Path(found.path)
    mark = Mark.read(prefix) or Mark.read(prefix, TAINTED) or Mark(kind=found.kind)
    held = tuple(packages(prefix, mark.asked))
    return Shown(
        known=found,
        platform=this_platform(),
        channels=tuple(sorted({package.channel for package in held if package.channel})),
        asked=mark.asked or tuple(package.name for package in held if ASKED in package.why),
        variables=tuple(sorted(_variables(prefix, found))),
        packages=held,
    )


def _variables(prefix: Path, found: Known) -> set[str]:
    if found.state != "ready" or (
        found.kind == "conda" and found.origin == OURS and not (prefix / ACTIVATION).exists()
    ):
        return set()
    return set(Environment("", prefix).variables({})) - {"PATH"}
