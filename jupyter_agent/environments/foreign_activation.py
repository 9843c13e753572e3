"""Activating environments that others made: computed once for each state that one is in, and kept by us.

Nothing is written into such a prefix. Its state is told by what conda, mamba, micromamba and pixi all touch when they
change one: its history, its packages, its scripts and its variables.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jupyter_agent.environments.building.activated import Activation
from jupyter_agent.home import write_private

WATCHED = ("conda-meta", "conda-meta/history", "conda-meta/state", "etc/conda/activate.d", "etc/conda/env_vars.d")
SCRIPTS = ("etc/conda/activate.d", "etc/conda/env_vars.d")


async def activation(prefix: Path, *, cache: Path, note: Callable[[str], None], tag: str) -> Activation:
    """What activating the environment changes. ``cache`` is a folder of ours.

    Its packages' own scripts are run once in a clean shell marked with ``tag``; one that fails is named by ``note``.
    """
    state = await asyncio.to_thread(_state, prefix)
    file = cache / f"{hashlib.sha256(os.fsencode(prefix)).hexdigest()}.json"
    known = await asyncio.to_thread(_known, file, state)
    if known is not None:
        return known
    from jupyter_agent.environments.building.activation import computed  # noqa: PLC0415 - once for each state

    variables = await asyncio.to_thread(_variables, prefix)
    found = await computed(prefix, variables, note=note, tag=tag)
    await asyncio.to_thread(_keep, file, {"state": state, "activation": asdict(found)})
    return found


def _state(prefix: Path) -> list[list[Any]]:
    watched = [prefix / name for name in WATCHED]
    watched += sorted(file for name in SCRIPTS for file in (prefix / name).glob("*"))
    return [[str(path), *_stamp(path)] for path in watched]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def _known(file: Path, state: list[list[Any]]) -> Activation | None:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["state"] != state:
            return None
        plain = kept["activation"]
        around = {name: (before, after) for name, (before, after) in plain["around"].items()}
        return Activation(tuple(plain["path"]), plain["set"], tuple(plain["unset"]), around)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _variables(prefix: Path) -> dict[str, str]:
    """Those that ``conda env config vars set`` or its file gave it."""
    try:
        plain = json.loads((prefix / "conda-meta" / "state").read_text(encoding="utf-8"))
        return {str(name): str(value) for name, value in plain["env_vars"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _keep(file: Path, plain: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(file, json.dumps(plain))
