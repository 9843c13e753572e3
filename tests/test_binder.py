"""``binder/``: its steps as repo2docker takes them, in an environment made for them, on a copy of the project."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_agent.home import Home
from tests.conftest import end_all, until
from tests.environment_peers import built, locked

ROOT = Path(__file__).parents[1]
STEP_S = 600
TOKEN = "only-for-this-test"
NOT_THERE = ("CONDA_", "VIRTUAL_ENV", "JUPYTER", "PYTHON", "MAMBA_", "PIXI_")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a Binder fetches it: without what is built or installed."""
    target = tmp_path_factory.mktemp("binder") / "project"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def prefix(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment of ``binder/environment.yml``; one that pip may change, as a Binder's."""
    store = tmp_path_factory.mktemp("store")
    lock = locked(project / "binder" / "environment.yml", store, from_pypi=True)
    made = built(lock, store / "prefix", store)
    for marker in made.glob("lib/python*/EXTERNALLY-MANAGED"):
        marker.unlink()
    return made


@pytest.fixture(scope="module")
def environ(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """What a step sees: the environment is active, and it has a home of its own."""
    folder = tmp_path_factory.mktemp("home")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_THERE)}
    yield {
        **inherited,
        "HOME": str(folder),
        "CONDA_PREFIX": str(prefix),
        "PATH": f"{prefix / 'bin'}{os.pathsep}{os.defpath}{os.pathsep}{node()}",
    }
    end_all(Home(folder / ".local" / "share" / "jupyter" / "agent"))


def node() -> str:
    """The folder of Node.js: what is on the machine, as on a Binder."""
    found = shutil.which("node")
    return str(Path(found).parent) if found else ""


def test_the_steps_of_a_binder(project: Path, environ: Mapping[str, str]) -> None:
    step = [project / "binder" / "postBuild"]
    done = subprocess.run(step, cwd=project, env=environ, capture_output=True, text=True, timeout=STEP_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    port = free_port()
    serve = ["jupyter", "lab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
    with (project.parent / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [project / "binder" / "start", *serve, f"--IdentityProvider.token={TOKEN}"],
            cwd=project,
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        packages = until(lambda: answer(port, "packages"), deadline_s=120, what="the demo is there")
        assert [package["name"] for package in packages] == ["seattle-weather"]
        assert answer(port, "status")["connected"]
        environments = answer(port, "environments")
        assert "ready" in [found["state"] for found in environments if found["origin"] == "jupyter_agent"]
    finally:
        for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
            process.terminate()
        server.wait(60)


def answer(port: int, path: str) -> Any:
    """What the server's API says; ``None`` while it does not answer."""
    url = f"http://127.0.0.1:{port}/jupyter-agent/api/v1/{path}"
    request = urllib.request.Request(url, headers={"Authorization": f"token {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - http
            return json.load(response)
    except OSError:
        return None


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
