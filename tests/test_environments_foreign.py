"""Environments that conda, mamba, micromamba and pixi made: found without these programs, and usable as they are."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from jupyter_agent.environments import foreign
from jupyter_agent.environments.foreign import Foreign
from jupyter_agent.environments.foreign_activation import activation
from tests.environment_peers import Listener


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (made := tmp_path / "home").mkdir()
    return made


def make(path: Path, *packages: str, python: bool = True) -> Path:
    """A prefix as these programs make one, as far as it is looked at."""
    (path / "conda-meta").mkdir(parents=True)
    (path / "conda-meta" / "history").touch()
    names = (*packages, "python-3.11.7-h1_0") if python else packages
    for name in names:
        (path / "conda-meta" / f"{name}.json").write_text("{}")
    if python:
        (path / "bin").mkdir()
        (path / "bin" / "python").symlink_to(sys.executable)
    return path


def find(home: Path, *, folders: Iterable[Path] = (), **variables: str) -> dict[str, Foreign]:
    """By path, those below the test's own folder: the machine may have some, too."""
    found = foreign.find({"HOME": str(home), **variables}, folders=folders)
    ours = [one for one in found if home.parent in one.path.parents]
    assert len({one.path for one in ours}) == len(ours)
    return {str(one.path.relative_to(home.parent)): one for one in ours}


def test_where_installers_put_them(home: Path) -> None:
    make(home / "miniforge3", "conda-24.1.0-py311_0", "mamba-1.5.1-py311_0")
    make(home / "miniforge3/envs/data")
    make(home / "miniforge3/envs/r only", "r-base-4.3.1-h1_0", python=False)
    make(home / "mambaforge", "mamba-2.0.0-py311_0")
    make(home / "mambaforge/envs/m")
    make(home / "micromamba/envs/small")
    found = find(home)
    assert {path: (one.name, one.origin, one.python) for path, one in found.items()} == {
        "home/miniforge3": ("base", "conda", "3.11.7"),
        "home/miniforge3/envs/data": ("data", "conda", "3.11.7"),
        "home/miniforge3/envs/r only": ("r only", "conda", None),
        "home/mambaforge": ("base", "mamba", "3.11.7"),
        "home/mambaforge/envs/m": ("m", "mamba", "3.11.7"),
        "home/micromamba/envs/small": ("small", "micromamba", "3.11.7"),
    }


def test_where_variables_and_registers_point(home: Path) -> None:
    place = home.parent
    make(place / "root", "conda-24.1.0-py311_0")
    make(place / "root/envs/a")
    make(place / "mm/envs/b")
    make(place / "active")
    make(place / "registered")
    make(place / "more/c")
    make(place / "condarc/d")
    make(home / ".conda/envs/e")
    (home / ".conda/environments.txt").write_text(
        f"{place / 'registered'}\n{place / 'gone'}\n{place / 'root/envs/a'}\n"
    )
    (home / ".condarc").write_text(f"envs_dirs: [{place / 'condarc'}]\n")
    variables = {
        "CONDA_EXE": str(place / "root/bin/conda"),
        "CONDA_PREFIX": str(place / "active"),
        "MAMBA_ROOT_PREFIX": str(place / "mm"),
        "CONDA_ENVS_PATH": str(place / "more"),
    }
    found = find(home, folders=(), **variables)
    assert set(found) == {
        *("root", "root/envs/a", "mm/envs/b", "active", "registered", "more/c", "condarc/d", "home/.conda/envs/e"),
    }
    assert found["mm/envs/b"].origin == "micromamba"


def test_pixis(home: Path) -> None:
    make(home / ".pixi/envs/tool")
    project = home / "work" / "project"
    for name in ("default", "gpu"):
        prefix = make(project / ".pixi/envs" / name)
        note = {"manifest_path": str(project / "pixi.toml"), "environment_name": name}
        (prefix / "conda-meta" / "pixi").write_text(json.dumps(note))
    make(home / "elsewhere/.pixi/envs/default")
    (home / ".pixi/workspaces.toml").write_text(f'[named]\nx = "{home / "elsewhere"}"\n')
    make(home.parent / "detached/third-123/envs/default")
    (home / ".pixi/config.toml").write_text(f'detached-environments = "{home.parent / "detached"}"\n')
    known = {"home/.pixi/envs/tool", "home/elsewhere/.pixi/envs/default", "detached/third-123/envs/default"}
    assert set(find(home)) == known
    for folder in (project, project / "notebooks" / "deep", home / "work"):
        found = find(home, folders=[folder])
        names = {one.name for path, one in found.items() if path not in known}
        assert names == {"project", "project:gpu"}, folder
    assert all(one.origin == "pixi" for one in found.values())
    # activated: pixi says so in the environment
    assert find(home, CONDA_PREFIX=str(project / ".pixi/envs/gpu"))["home/work/project/.pixi/envs/gpu"].origin == "pixi"


def test_what_is_broken_is_passed_over(home: Path) -> None:
    envs = home / "miniconda3" / "envs"
    make(envs / "whole")
    make(envs / "without its python").joinpath("bin/python").unlink()
    (envs / "empty").mkdir()
    (envs / "half-made/conda-meta").mkdir(parents=True)
    (envs / "a file").touch()
    (envs / "to nowhere").symlink_to(home / "nowhere")
    (envs / "round").symlink_to(envs / "round")
    (envs / "twice").symlink_to(envs / "whole")
    (envs / "odd").mkdir()
    (envs / "odd/conda-meta").touch()
    (home / ".conda").mkdir()
    (home / ".conda" / "environments.txt").write_text(f"/a\0b\n{envs / 'round'}\nrelative\n{'x' * 5000}\n")
    (home / ".pixi").mkdir()
    os.mkfifo(home / ".pixi" / "workspaces.toml")
    (home / ".condarc").write_text("envs_dirs: {")
    (home / ".pixi" / "config.toml").write_text("a = [")
    assert [one.name for one in find(home, CONDA_EXE="conda", MAMBA_ROOT_PREFIX="/nowhere\0").values()] in (
        ["twice"],
        ["whole"],
    )


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_is_passed_over(home: Path) -> None:
    os.chown(make(home / "miniconda3/envs/theirs"), 12345, 12345)
    make(home / "miniconda3/envs/mine")
    assert [one.name for one in find(home).values()] == ["mine"]


async def test_activation_is_computed_once_for_each_state(home: Path) -> None:
    prefix = make(home / "miniconda3/envs/data")
    (scripts := prefix / "etc/conda/activate.d").mkdir(parents=True)
    runs = home / "runs"
    (scripts / "gdal.sh").write_text(f'echo run >> {runs}\nexport GDAL_DATA="$CONDA_PREFIX/share/gdal"\n')
    (prefix / "conda-meta/state").write_text(json.dumps({"env_vars": {"MINE": "1"}}))
    before = _entries(prefix)
    listener = Listener()

    async def variables() -> dict[str, str]:
        found = await activation(prefix, cache=home / "cache", note=listener.note, tag="foreign")
        return found.applied({"PATH": "/usr/bin"})

    first = await variables()
    assert first["GDAL_DATA"] == f"{prefix}/share/gdal"
    assert first["MINE"] == "1"
    assert first["CONDA_PREFIX"] == str(prefix)
    assert first["PATH"] == f"{prefix}/bin:/usr/bin"
    count = runs.read_text().count("run")
    assert await variables() == first
    assert runs.read_text().count("run") == count
    assert _entries(prefix) == before
    (scripts / "more.sh").write_text("export MORE=2\n")
    assert (await variables())["MORE"] == "2"
    assert runs.read_text().count("run") > count
    next((home / "cache").iterdir()).write_text("{")
    assert (await variables())["MORE"] == "2"
    assert not listener.notes


def _entries(prefix: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in prefix.rglob("*"))
