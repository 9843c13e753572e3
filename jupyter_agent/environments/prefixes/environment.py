"""A ready environment, as whoever starts a process in it sees it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_agent.environments.building import activated
from jupyter_agent.environments.building.activated import Activation
from jupyter_agent.environments.prefixes.layout import python_of


@dataclass(frozen=True)
class Environment:
    """A ready environment; ``hash`` is that of its lock, empty for one that others made.

    ``activation`` is what activating one of those changes, where it was computed.
    """

    hash: str
    prefix: Path
    activation: Activation | None = field(default=None, compare=False, repr=False)

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return python_of(self.prefix)

    def variables(self, base: Mapping[str, str]) -> dict[str, str]:
        """``base`` for a process that lives in this environment."""
        if self.activation is not None:
            return self.activation.applied(base)
        if (self.prefix / activated.FILE).is_file():
            return activated.activated(self.prefix, base)
        if (self.prefix / "conda-meta").is_dir():
            return activated.plain(self.prefix, _state(self.prefix)).applied(base)
        path = os.pathsep.join([str(python_of(self.prefix).parent), base.get("PATH") or os.defpath])
        return {**base, "VIRTUAL_ENV": str(self.prefix), "PATH": path}


def _state(prefix: Path) -> dict[str, str]:
    """Variables that ``conda env config vars set`` or the environment's file gave it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        plain = json.loads((prefix / "conda-meta" / "state").read_text(encoding="utf-8"))
        return {str(name): str(value) for name, value in plain.get("env_vars", {}).items()}
    return {}
