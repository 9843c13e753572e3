"""What of the environment a child needs to reach channels, beside what every child may have."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from jupyter_agent.environments.access import condarc
from jupyter_agent.environments.reading import read_text
from jupyter_agent.errors import AgentError

PREFIXES = ("CONDA_", "MAMBA_", "RATTLER_", "PIXI_")
NAMES = ("CONDARC", "NETRC", "BINSTAR_CONFIG_DIR")
OF_ANOTHER = (
    "CONDA_SHLVL",
    "CONDA_DEFAULT_ENV",
    "CONDA_PYTHON_EXE",
    "CONDA_PROMPT_MODIFIER",
    "CONDA_PREFIX",
    "CONDA_EXE",
)
"""They speak of the environment that we were started in; with them a builder would work on that one."""


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings of conda's, rattler's and pixi's own, and the variables that conda's files name (``${TOKEN}``).

    An activated environment and the installation that it belongs to count when they have a ``.condarc``.
    """
    wanted = {name for name in environ if name.startswith(PREFIXES) or name in NAMES} - set(OF_ANOTHER)
    found = {name: environ[name] for name in wanted}
    files = condarc.files(environ)
    for name, up in (("CONDA_PREFIX", 0), ("CONDA_EXE", 2)):
        root = [Path(environ[name]), *Path(environ[name]).parents][up:][:1] if environ.get(name) else []
        if any(place in file.parents for place in root for file in files):
            found[name] = environ[name]
    for file in files:
        with contextlib.suppress(AgentError):
            text = read_text(file, most_bytes=condarc.MOST_BYTES)
            named = {match[1] or match[2] for match in condarc.VARIABLE.finditer(text)}
            found |= {name: environ[name] for name in named & environ.keys()}
    return found
