"""A ready environment, as whoever starts a process in it sees it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jupyter_agent.environments.prefixes.layout import python_of

ACTIVATION = "jupyter_agent-activation.json"


@dataclass(frozen=True)
class Environment:
    """A ready environment; ``hash`` is that of its lock, empty for one that others made."""

    hash: str
    prefix: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return python_of(self.prefix)

    def variables(self, base: Mapping[str, str]) -> dict[str, str]:
        """``base`` for a process that lives in this environment."""
        if (self.prefix / ACTIVATION).is_file():
            from jupyter_agent.environments.building.activated import activated  # noqa: PLC0415 - for conda only

            return activated(self.prefix, base)
        if (self.prefix / "conda-meta").is_dir():
            return _with_path(self.prefix, {**base, **_state(self.prefix), **_named(self.prefix)})
        return _with_path(self.prefix, {**base, "VIRTUAL_ENV": str(self.prefix)})


def _with_path(prefix: Path, variables: dict[str, str]) -> dict[str, str]:
    windows = ("", "Library/mingw-w64/bin", "Library/usr/bin", "Library/bin", "Scripts", "bin")
    folders = [str(prefix / name) for name in (windows if os.name == "nt" else ("bin",))]
    return {**variables, "PATH": os.pathsep.join([*folders, variables.get("PATH") or os.defpath])}


def _named(prefix: Path) -> dict[str, str]:
    """What conda's activation says of itself."""
    name = prefix.name if prefix.parent.name == "envs" else str(prefix)
    return {"CONDA_PREFIX": str(prefix), "CONDA_DEFAULT_ENV": name, "CONDA_SHLVL": "1"}


def _state(prefix: Path) -> dict[str, str]:
    """Variables that ``conda env config vars set`` or the environment's file gave it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        plain = json.loads((prefix / "conda-meta" / "state").read_text(encoding="utf-8"))
        return {str(name): str(value) for name, value in plain.get("env_vars", {}).items()}
    return {}
