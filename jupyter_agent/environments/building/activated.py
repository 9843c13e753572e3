"""The variables of an activated environment, computed when it was built; for whoever starts a process in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE = "jupyter_agent-activation.json"


@dataclass(frozen=True)
class Activation:
    """What activating changes.

    ``path`` are folders before the PATH. ``set`` holds variables and their values, ``unset`` the names of those that
    go. ``around`` are texts before and after the value of a variable that was set already (``LD_LIBRARY_PATH``); one
    that was not takes its value of ``set``.
    """

    path: tuple[str, ...]
    set: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    around: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def applied(self, base: Mapping[str, str]) -> dict[str, str]:
        """``base`` for a process that lives in the environment."""
        variables = {name: value for name, value in base.items() if name not in self.unset}
        variables |= self.set
        for name, (before, after) in self.around.items():
            if base.get(name):
                variables[name] = f"{before}{base[name]}{after}"
        variables["PATH"] = os.pathsep.join([*self.path, base.get("PATH") or os.defpath])
        return variables

    def to_json(self) -> str:
        """Its text in the prefix."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def read(prefix: Path) -> Activation:
    """Of an environment that was built here. Raises ``OSError`` or ``ValueError`` when there is no such file."""
    plain = json.loads((prefix / FILE).read_text(encoding="utf-8"))
    around = {name: (before, after) for name, (before, after) in plain["around"].items()}
    return Activation(tuple(plain["path"]), plain["set"], tuple(plain["unset"]), around)


def plain(prefix: Path, variables: Mapping[str, str] | None = None) -> Activation:
    """Of any conda prefix, without its scripts: the folders of its programs, and what names it."""
    named = {"CONDA_PREFIX": str(prefix), "CONDA_DEFAULT_ENV": str(prefix), "CONDA_SHLVL": "1"}
    return Activation(tuple(map(str, folders(prefix))), {**(variables or {}), **named})


def folders(prefix: Path) -> list[Path]:
    """Where conda puts programs."""
    if os.name != "nt":
        return [prefix / "bin"]
    library = prefix / "Library"
    inside = (
        library / "mingw-w64" / "bin",
        library / "usr" / "bin",
        library / "bin",
        prefix / "Scripts",
        prefix / "bin",
    )
    return [prefix, *inside]


def activated(prefix: Path, base: Mapping[str, str]) -> dict[str, str]:
    """``base`` for a process in the environment at ``prefix``."""
    return read(prefix).applied(base)
