"""Environments of this machine that conda, mamba, micromamba and pixi made, found without any of them.

Quick, and for the parent: folders are looked into where these programs have them by their own documentation, where
the environment points, and where their own registers name one; no tree is walked. What is broken, half-made or
another user's is passed over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

Origin = Literal["conda", "mamba", "micromamba", "pixi"]

MOST = 500
"""Entries of one folder that are looked at, and lines of one register."""

MOST_BYTES = 1_000_000
PYTHON = re.compile(r"python-(\d[^-]*)-[^-]+\.json")
OF_ROOTS = re.compile(r"(conda|mamba)-\d[^-]*-[^-]+\.json")

IN_HOME = (
    "miniconda3", "miniforge3", "mambaforge", "anaconda3", "miniconda", "anaconda", "miniforge", "micromamba", "mamba",
    "opt/miniconda3", "opt/anaconda3", "opt/miniforge3", ".local/share/mamba", ".local/share/micromamba",
    "AppData/Local/miniconda3", "AppData/Local/miniforge3", "AppData/Local/anaconda3", "AppData/Roaming/mamba",
)  # fmt: skip
IN_SYSTEM = (
    "/opt/conda", "/opt/miniconda3", "/opt/miniforge3", "/opt/anaconda3", "/opt/mambaforge", "/opt/miniconda",
    "/usr/local/miniconda3", "/usr/local/miniforge3", "/usr/local/anaconda3", "/usr/share/miniconda",
    "/opt/homebrew/Caskroom/miniforge/base", "/opt/homebrew/Caskroom/miniconda/base",
    "/usr/local/Caskroom/miniforge/base", "/usr/local/Caskroom/miniconda/base", "C:/ProgramData/miniconda3",
    "C:/ProgramData/anaconda3", "C:/ProgramData/miniforge3",
)  # fmt: skip
"""Where their installers put them when nobody says otherwise."""


@dataclass(frozen=True)
class Foreign:
    """An environment that others made. ``python`` is a version, ``None`` where there is none in it."""

    name: str
    path: Path
    origin: Origin
    python: str | None


def find(environ: Mapping[str, str] | None = None, *, folders: Iterable[Path] = ()) -> list[Foreign]:
    """All that there are, each once: first those of pixi, then root by root.

    ``folders`` are working folders: pixi's environments of the projects that they are, lie in or have directly below
    them are found. Blocks for some milliseconds.
    """
    environ = os.environ if environ is None else environ
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or Path.home())
    found: dict[Path, Foreign] = {}
    for path, origin, name in (*_of_pixi(environ, home, folders), *_of_conda(environ, home)):
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # the last: links that go round
            real = path.resolve()
            if real not in found and (environment := _look(path, origin, name)) is not None:
                found[real] = environment
    return list(found.values())


def _look(path: Path, origin: Origin, name: str) -> Foreign | None:
    """The environment in a folder; ``None`` when none that can be used is there."""
    meta = path / "conda-meta"
    if not meta.is_dir() or not _is_ours_or_the_systems(path):
        return None
    names = [entry.name for entry in os.scandir(meta)]
    packages = [each for each in names if each.endswith(".json")]
    if not packages and "history" not in names:
        return None
    python = next((match[1] for each in packages if (match := PYTHON.fullmatch(each))), None)
    if python is not None and not _python(path).exists():
        return None
    if "pixi" in names:
        origin, name = "pixi", _named_by_pixi(meta / "pixi") or name
    return Foreign(name, path, origin, python)


def _is_ours_or_the_systems(path: Path) -> bool:
    """Whether nobody but this user and the administrator made it: what runs from it runs as this user."""
    return sys.platform == "win32" or path.stat().st_uid in (os.getuid(), 0)


def _python(path: Path) -> Path:
    return path / "python.exe" if sys.platform == "win32" else path / "bin" / "python"


def _of_conda(environ: Mapping[str, str], home: Path) -> Iterator[tuple[Path, Origin, str]]:
    roots = dict.fromkeys(_roots(environ, home))
    for root in roots:
        origin = _origin(root)
        yield root, origin, "base"
        for path in _inside(root / "envs"):
            yield path, origin, path.name
    for folder in _envs_folders(environ, home):
        for path in _inside(folder):
            yield path, "conda", path.name
    given = environ.get("CONDA_PREFIX")
    for path in [*([Path(given)] if given else []), *_registered(home / ".conda" / "environments.txt")]:
        root = path.parent.parent if path.parent.name == "envs" else path
        yield path, _origin(root), "base" if _is_root(path) else path.name


def _roots(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    """Where a conda, mamba or micromamba may be installed, or have its environments."""
    for name in ("MAMBA_ROOT_PREFIX", "CONDA_ROOT"):
        if environ.get(name):
            yield Path(environ[name])
    for name in ("CONDA_EXE", "MAMBA_EXE", "CONDA_PYTHON_EXE"):
        program = Path(environ.get(name) or "")
        if program.parent.name.lower() in ("bin", "scripts", "condabin"):
            yield program.parent.parent
    yield from (home / name for name in IN_HOME)
    yield from map(Path, IN_SYSTEM)


def _origin(root: Path) -> Origin:
    """Which program has its environments below a root: conda where both are, micromamba where none is installed."""
    try:
        names = {match[1] for entry in os.scandir(root / "conda-meta") if (match := OF_ROOTS.fullmatch(entry.name))}
    except (OSError, ValueError):  # the latter for what no path can have in it
        names = set()
    if "conda" in names or not os.path.isdir(root / "envs"):  # noqa: PTH112 - never raises
        return "conda"
    return "mamba" if "mamba" in names else "micromamba"


def _is_root(path: Path) -> bool:
    return (path / "envs").is_dir() and (path / "condabin").is_dir()


def _envs_folders(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    yield home / ".conda" / "envs"
    for name in ("CONDA_ENVS_PATH", "CONDA_ENVS_DIRS"):
        yield from (Path(part).expanduser() for part in re.split(f"[,{os.pathsep}]", environ.get(name, "")) if part)
    from jupyter_agent.environments.access import condarc  # noqa: PLC0415 - reads YAML
    from jupyter_agent.errors import AgentError  # noqa: PLC0415 - the same

    with contextlib.suppress(AgentError):  # a broken file is told of where a channel is needed, and by the doctor
        yield from (Path(part).expanduser() for part in condarc.read(environ).envs)


def _registered(file: Path) -> list[Path]:
    """The environments that a register of conda's lists, one a line."""
    lines = [line.strip() for line in _text(file).splitlines()[:MOST]]
    return [Path(line) for line in lines if line and os.path.isdir(line) and os.path.isabs(line)]  # noqa: PTH112, PTH117 - never raise


def _of_pixi(environ: Mapping[str, str], home: Path, folders: Iterable[Path]) -> Iterator[tuple[Path, Origin, str]]:
    own = Path(environ.get("PIXI_HOME") or home / ".pixi")
    for path in _inside(own / "envs"):
        yield path, "pixi", path.name
    projects = [Path(environ["PIXI_PROJECT_ROOT"])] if environ.get("PIXI_PROJECT_ROOT") else []
    for folder in folders:
        projects += [folder, *(above for above in folder.parents if above not in home.parents), *_inside(folder)]
    projects += _workspaces(_toml(own / "workspaces.toml"))
    for project in dict.fromkeys(projects):
        for path in _inside(project / ".pixi" / "envs") if project != home else ():
            yield path, "pixi", _project_name(project.name, path.name)
    for folder in _detached(environ, own, home):
        for project in _inside(folder):
            for path in _inside(project / "envs"):
                yield path, "pixi", _project_name(project.name, path.name)


def _workspaces(register: Mapping[str, Any]) -> list[Path]:
    """The folders that pixi's register of workspaces names, in whichever table."""
    values = [register, *(table for table in register.values() if isinstance(table, dict))]
    texts = [value for table in values for value in table.values() if isinstance(value, str)]
    paths = [Path(text) for text in islice(texts, MOST) if Path(text).is_absolute()]
    return [path.parent if path.suffix == ".toml" else path for path in paths]


def _detached(environ: Mapping[str, str], own: Path, home: Path) -> Iterator[Path]:
    """Where pixi has environments when they are to lie in no project (``detached-environments``)."""
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pixi" / "config.toml"
    for file in (Path("/etc/pixi/config.toml"), config, own / "config.toml"):
        given = _toml(file).get("detached-environments")
        if given is True:
            yield _cache(environ, home) / "envs"
        elif isinstance(given, str):
            yield Path(given).expanduser()


def _cache(environ: Mapping[str, str], home: Path) -> Path:
    for name in ("PIXI_CACHE_DIR", "RATTLER_CACHE_DIR"):
        if environ.get(name):
            return Path(environ[name])
    general = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    return general / "pixi" if (general / "pixi").is_dir() else general / "rattler" / "cache"


def _named_by_pixi(file: Path) -> str:
    """What pixi's own note in an environment calls it: the project's folder, and the environment unless the default."""
    try:
        plain = json.loads(_text(file))
        manifest, name = Path(plain["manifest_path"]), str(plain["environment_name"])
    except (ValueError, KeyError, TypeError):
        return ""
    return "" if manifest.name == "pixi-global.toml" else _project_name(manifest.parent.name, name)


def _project_name(project: str, environment: str) -> str:
    return project if environment == "default" else f"{project}:{environment}"


def _inside(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none when it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.path for entry in islice(entries, MOST))
        return [Path(name) for name in names if os.path.isdir(name)]  # noqa: PTH112 - never raises, as for links that go round
    except (OSError, ValueError):
        return []


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(file))
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def _text(file: Path) -> str:
    """The text of a small file, "" where there is none that can be read."""
    try:
        if not file.is_file():
            return ""
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(MOST_BYTES)
    except (OSError, ValueError):
        return ""
