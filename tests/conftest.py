"""What all tests share: real homes, hubs and agents, and the rule that no test is skipped without a known reason."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_agent import processes
from jupyter_agent.errors import AgentError
from jupyter_agent.home import AgentClient, Home, ensure_agent, read_json, running_agent
from jupyter_agent.openflow.client import Client
from tests.channels import channel_in
from tests.hub_peers import hub_on_a_new_home, user_of
from tests.openflow_peers import Hub

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell in the background starts what it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else children could not be interrupted

TESTS = Path(__file__).parent
PROMISES = tomllib.loads((TESTS / "promises.toml").read_text())
BUDGETS: dict[str, int] = tomllib.loads((TESTS / "budgets.toml").read_text())
"""Counts of the long suites; ``JUPYTER_AGENT_BUDGET`` (``name=count``) replaces one of them."""
if given := os.environ.get("JUPYTER_AGENT_BUDGET"):
    BUDGETS[given.partition("=")[0]] = int(given.partition("=")[2])
DEADLINE_S = 60.0


@pytest.fixture(scope="session")
def budgets() -> dict[str, int]:
    """How often the long suites go round."""
    return BUDGETS


def until(condition: Callable[[], Any], *, deadline_s: float = DEADLINE_S, what: str = "") -> Any:
    """Wait until ``condition()`` is true and give what it gave."""
    end = time.monotonic() + deadline_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"This did not come about within {deadline_s:.0f} s: {what or condition}")
        time.sleep(0.02)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A new home, on a short path (a socket's path is limited); whatever runs on it is ended afterwards."""
    for name in ("apiurl", "grpcapiurl", "wsapiurl", "jwt", "agentid"):
        monkeypatch.delenv(name, raising=False)
    made = Home(Path(tempfile.mkdtemp(prefix="ja-")) / "home")
    monkeypatch.setenv("JUPYTER_AGENT_HOME", str(made.path))
    yield made
    end_all(made)
    shutil.rmtree(made.path.parent, ignore_errors=True)


@pytest.fixture(scope="session")
def channel(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A conda channel made from PyPI, the same for all workers: python, ipykernel, numpy, pandas, papermill, pip."""
    own = tmp_path_factory.getbasetemp()
    return channel_in((own if worker_id == "master" else own.parent) / "channel-from-pypi")


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """A hub for a module of tests."""
    with hub_on_a_new_home() as running:
        yield running


@pytest.fixture
async def client(hub: Hub) -> AsyncIterator[Client]:
    """The hub's first user, who is an admin."""
    async with hub.client() as entered:
        await entered.connected()
        yield entered


@pytest.fixture
async def ann(hub: Hub) -> AsyncIterator[Client]:
    """A user who is no admin."""
    async with user_of(hub, "ann") as entered:
        yield entered


@pytest.fixture
async def bob(hub: Hub) -> AsyncIterator[Client]:
    """Another one."""
    async with user_of(hub, "bob") as entered:
        yield entered


@pytest.fixture
def agent(home: Home) -> AgentClient:
    """A running agent on a new home, connected to its embedded hub."""
    return start_agent(home)


def start_agent(home: Home) -> AgentClient:
    """The home's agent, started when none runs, once it is connected."""
    client = AgentClient(ensure_agent(home, processes.spawn_detached))
    until(lambda: client.request("GET", "status")["connected"], what="the agent is connected")
    return client


def pid_in(path: Path) -> int | None:
    """The pid in ``agent.json`` or ``hub.json``, if that process runs."""
    stored = read_json(path)
    if stored and processes.is_alive(stored["pid"], stored["started"]):
        return int(stored["pid"])
    return None


def end_all(home: Home) -> None:
    """End the home's agent and hub, in order if they will."""
    with contextlib.suppress(AgentError, OSError):
        if path := running_agent(home):
            AgentClient(path).request("POST", "shutdown", {})
            until(lambda: running_agent(home) is None, deadline_s=20)
    for file in (home.agent_file, home.hub / "hub.json"):
        with contextlib.suppress(AgentError, ProcessLookupError, KeyError):
            if (pid := pid_in(file)) is not None:
                os.kill(pid, signal.SIGTERM)
                with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
                    psutil.Process(pid).wait(10)


def ended(client: AgentClient, run_id: str, *, deadline_s: float = DEADLINE_S * 2) -> dict[str, Any]:
    """The run once it has ended."""

    def over() -> dict[str, Any] | None:
        run: dict[str, Any] = client.request("GET", f"runs/{run_id}")
        return run if run["ended"] else None

    found: dict[str, Any] = until(over, deadline_s=deadline_s, what=f"run {run_id} ends")
    return found


def printed(client: AgentClient, run_id: str, stream: str | None = "stdout") -> str:
    """What the run has printed so far."""
    text, offset = "", 0
    while True:
        page = client.request("GET", f"runs/{run_id}/output?offset={offset}")
        text += "".join(chunk["text"] for chunk in page["chunks"] if stream in (None, chunk["stream"]))
        if not page["chunks"]:
            return text
        offset = page["next"]


@contextlib.contextmanager
def small_file_system(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own that is soon full, mounted at a new folder; ``options`` are tmpfs's."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:  # one that is left mounted fails every later session, which cleans up after this one
        subprocess.run(["umount", "-l", folder], check=True)


def make_package(folder: Path, files: dict[str, str], **manifest: Any) -> Path:
    """A package's folder with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"name": folder.name, "version": "1.0.0", **manifest}
    for name, text in {"package.json": json.dumps(about), **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def cli(
    *arguments: str, home: Home, text: str | None = None, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run ``jupyter-agent`` as a user does."""
    program = Path(sys.executable).parent / "jupyter-agent"
    command = [str(program)] if program.exists() else [sys.executable, "-m", "jupyter_agent.cli"]
    return subprocess.run(
        [*command, *arguments],
        env={**os.environ, "JUPYTER_AGENT_HOME": str(home.path)},
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which something was skipped for a reason that is not in ``promises.toml``."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    allowed = [(skip["test"], skip["reason"]) for skip in PROMISES.get("skip", [])]
    for report in reporter.stats.get("skipped", []):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not any(report.nodeid.startswith(test) and why in reason for test, why in allowed):
            reporter.write_line(f"{report.nodeid} was skipped without an allowed reason: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
