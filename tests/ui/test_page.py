"""The front end in a real browser, on a real JupyterLab with a real agent and hub: what a user does and sees.

The journeys themselves are in journeys.mjs; here are the servers they run on and what they ask for on the way.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

import jupyter_agent
from jupyter_agent.home import AgentClient, Home, running_agent
from tests.conftest import end_all, make_package, pid_in, start_agent, until

HERE = Path(__file__).parent
TOKEN = "a-token-of-the-tests"
DEADLINE_S = 280.0

TICKS = "import time\nfor n in range(3000):\n    print('tick', n, flush=True)\n    time.sleep(0.05)\n"
FAILS = "import sys\nprint('reading')\nraise ValueError('no such column: rain')\n"
GREETS = (
    "import json, os\ngiven = json.load(open(os.environ['payloadfile']))\n"
    "print(f\"level={given['level']} region={given['region']!r}\")\n"
)
FLOODS = (
    "import os, sys, time\n"
    "for n in range(60_000):\n    print('line', n, 'x' * 60)\n"
    "sys.stdout.flush()\n"
    "while not os.path.exists({gate!r}):\n    time.sleep(0.05)\n"
    "print('the very end')\n"
)

USER_X_Y = "/user/x%20y/"
"""As JupyterHub gives the base URL of a user named `x y`; Jupyter itself cannot serve one with a bare space."""

Actions = Mapping[str, Callable[[], Any]]


@dataclass
class Lab:
    """A JupyterLab on a home, on a port that it keeps over restarts."""

    home: Home
    folder: Path
    base_url: str
    port: int
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.base_url}"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        names = ("CONFIG_DIR", "RUNTIME_DIR", "DATA_DIR")
        self.environment = {f"JUPYTER_{name}": str(self.folder) for name in names} | {
            "JUPYTERLAB_SETTINGS_DIR": str(self.folder / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(self.folder / "workspaces"),
        }
        news = self.folder / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
        news.parent.mkdir(parents=True, exist_ok=True)
        news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
        (self.folder / "jupyter_server_config.json").write_text(json.dumps(self._config()))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"],
                env={**os.environ, **self.environment, "JUPYTER_AGENT_HOME": str(self.home.path)},
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        until(self._answers, what="JupyterLab is up")

    def _config(self) -> dict[str, Any]:
        return {
            "IdentityProvider": {"token": TOKEN},
            "ServerApp": {
                "base_url": self.base_url,
                "jpserver_extensions": {"jupyter_agent": True, "jupyter_lsp": False},
                "ip": "127.0.0.1",
                "port": self.port,
                "port_retries": 0,
                "root_dir": str(self.folder),
            },
            "LabApp": {"extra_labextensions_path": source_extension(self.folder)},
        }

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)


def source_extension(folder: Path) -> list[str]:
    """Where the front end of a source tree is, for an interpreter in which the package is not installed."""
    if (Path(sys.prefix) / "share/jupyter/labextensions/jupyter-agent/package.json").exists():
        return []
    dist = HERE.parent.parent / "labextension" / "dist"
    assert (dist / "package.json").exists(), "The front end is not built: pip install . (or jlpm build:prod)."
    (folder / "labextensions").mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (folder / "labextensions" / "jupyter-agent").symlink_to(dist)
    return [str(folder / "labextensions")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


StartLab = Callable[..., Lab]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab with one agent, for the journeys that leave both as they are."""
    home = Home(Path(tempfile.mkdtemp(prefix="ja-")) / "home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("apiurl", "grpcapiurl", "wsapiurl", "jwt", "agentid"):
            patch.delenv(name, raising=False)
        patch.setenv("JUPYTER_AGENT_HOME", str(home.path))
        server = Lab(home, tmp_path_factory.mktemp("shared") / "lab", USER_X_Y, free_port())
        try:
            server.start()
            yield server
        finally:
            server.stop()
            end_all(home)
            shutil.rmtree(home.path.parent, ignore_errors=True)


@pytest.fixture
def lab(home: Home, tmp_path: Path) -> Iterator[StartLab]:
    """Starts JupyterLab on the home."""
    started: list[Lab] = []

    def start(base_url: str = "/") -> Lab:
        made = Lab(home, tmp_path / f"lab{len(started)}", base_url, free_port())
        started.append(made)
        made.start()
        return made

    yield start
    for made in started:
        made.stop()


def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert found, "The browser tests need Chromium: install Debian's package chromium."
    return found


def travel(name: str, lab: Lab, actions: Actions, folder: Path) -> None:
    """Run a journey; what it asks for is looked up in ``actions``. Fails with all that it said."""
    assert (HERE / "node_modules").is_dir(), "Run `npm ci` in tests/ui."
    node = subprocess.Popen(
        ["node", str(HERE / "journeys.mjs"), name],
        env={
            **os.environ,
            "JUPYTER_URL": lab.url,
            "TOKEN": TOKEN,
            "CHROMIUM": browser(),
            "PICTURE": str(folder / f"{name}.png"),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert node.stdin
    assert node.stdout
    overdue = threading.Timer(DEADLINE_S, node.kill)
    overdue.start()
    said: list[str] = []
    try:
        for line in node.stdout:
            if line.startswith('{"ask"'):
                node.stdin.write(json.dumps(actions[json.loads(line)["ask"]]()) + "\n")
                node.stdin.flush()
            else:
                said.append(line)
        assert node.wait() == 0, f"{''.join(said)}\nThe page at its end: {folder / f'{name}.png'}"
    finally:
        overdue.cancel()
        node.kill()
        node.stdin.close()
        node.stdout.close()
        node.wait()


def publish(home: Home, folder: Path) -> Callable[[], str]:
    """An action: publish this package to the home's hub; answers its name."""

    def action() -> str:
        client: AgentClient = start_agent(home)
        published: dict[str, str] = client.request("POST", "packages", {"path": str(folder)})
        return published["name"]

    return action


def python_package(folder: Path, code: str) -> Path:
    return make_package(folder, {"main.py": code}, openiap={"language": "python"})


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Where homes lie, one after the other: a prefix cannot be moved to another path."""
    folder = Path(tempfile.mkdtemp(prefix="ja-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def new_home(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home on which nothing was done yet, but that has the environments of the one before."""
    for name in ("apiurl", "grpcapiurl", "wsapiurl", "jwt", "agentid"):
        monkeypatch.delenv(name, raising=False)
    made = Home(place / "home")
    monkeypatch.setenv("JUPYTER_AGENT_HOME", str(made.path))
    yield made
    end_all(made)
    for each in made.path.iterdir():
        if each.is_dir() and each.name != "environments":
            shutil.rmtree(each)
        elif not each.is_dir():
            each.unlink()


@pytest.mark.parametrize("base_url", ["/", USER_X_Y])
def test_the_demo_runs_from_the_panel_to_its_plot(base_url: str, new_home: Home, tmp_path: Path) -> None:
    demo = Path(jupyter_agent.__file__).parent / "demo_package"
    server = Lab(new_home, tmp_path / "lab", base_url, free_port())
    try:
        server.start()
        travel("demo", server, {"publish": publish(new_home, demo)}, tmp_path)
    finally:
        server.stop()


def test_a_run_is_cancelled_from_the_panel(shared: Lab, tmp_path: Path) -> None:
    package = python_package(tmp_path / "ticks", TICKS)
    travel("cancel", shared, {"publish": publish(shared.home, package)}, tmp_path)


def test_the_page_survives_the_end_of_the_agent(home: Home, lab: StartLab, tmp_path: Path) -> None:
    def kill() -> None:
        pid = pid_in(home.agent_file)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(10)

    package = python_package(tmp_path / "ticks", TICKS)
    travel("killed", lab(), {"publish": publish(home, package), "kill": kill}, tmp_path)
    assert running_agent(home)


def test_the_page_survives_a_restart_of_jupyter(home: Home, lab: StartLab, tmp_path: Path) -> None:
    server = lab()
    package = python_package(tmp_path / "ticks", TICKS)
    actions: Actions = {"publish": publish(home, package), "stop": server.stop, "start": server.start}
    travel("restarted", server, actions, tmp_path)


def test_a_failure_is_shown_in_words(shared: Lab, tmp_path: Path) -> None:
    package = python_package(tmp_path / "fails", FAILS)
    travel("failure", shared, {"publish": publish(shared.home, package)}, tmp_path)


def test_parameters_are_typed_in_a_dialog(shared: Lab, tmp_path: Path) -> None:
    package = python_package(tmp_path / "greets", GREETS)
    travel("parameters", shared, {"publish": publish(shared.home, package)}, tmp_path)


def test_much_output_is_followed(shared: Lab, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    package = python_package(tmp_path / "floods", FLOODS.format(gate=str(gate)))
    actions: Actions = {"publish": publish(shared.home, package), "go on": gate.touch}
    travel("flood", shared, actions, tmp_path)


def test_everything_can_be_reached_without_a_mouse(shared: Lab, tmp_path: Path) -> None:
    package = python_package(tmp_path / "prints", "print('done')\n")
    travel("keyboard", shared, {"publish": publish(shared.home, package)}, tmp_path)


def test_the_front_end_has_the_version_of_the_package() -> None:
    package = json.loads((HERE.parent.parent / "labextension" / "package.json").read_text())
    assert package["version"] == jupyter_agent.__version__
