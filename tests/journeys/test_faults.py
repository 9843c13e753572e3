"""What goes wrong: one clear message, an exit code that is not 0, and nothing half-made left behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from jupyter_agent.home import AgentClient, Home, RequestFailed, running_agent, write_private
from tests.conftest import cli, ended, make_package, pid_in, printed, start_agent, until

SLOW = "import time, sys\nfor n in range(600):\n    print('tick', n, flush=True)\n    time.sleep(0.1)\n"
FAMILY = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)
print('started', flush=True)
time.sleep(600)
"""


def one_sentence(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("jupyter-agent: ")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def descendants_of(run_id: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("JUPYTER_AGENT_RUN") == run_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_an_unknown_package(agent: AgentClient, home: Home) -> None:
    done = cli("run", "no-such-package", home=home)
    assert done.returncode == 1
    assert "no-such-package" in one_sentence(done.stderr)
    assert agent.request("GET", "runs")["runs"] == []


@pytest.mark.parametrize(
    ("files", "manifest", "word"),
    [
        ({}, {"openiap": {"language": "python"}}, "main.py"),
        ({"main.py": ""}, {"openiap": {"language": "cobol"}, "main": "main.py"}, "cobol"),
        ({"x.py": ""}, {"openiap": {"language": "python"}, "main": "../x.py"}, "main"),
    ],
)
def test_a_package_that_cannot_run(
    home: Home, tmp_path: Path, files: dict[str, str], manifest: dict[str, object], word: str
) -> None:
    start_agent(home)
    folder = make_package(tmp_path / "broken", files, **manifest)
    done = cli("package", "publish", str(folder), home=home)
    if done.returncode == 0:
        done = cli("run", "broken", home=home)
    assert done.returncode == 1
    assert word in one_sentence(done.stderr)


def test_a_missing_folder_and_a_broken_manifest(agent: AgentClient, home: Home, tmp_path: Path) -> None:
    assert "nowhere" in one_sentence(cli("package", "publish", str(tmp_path / "nowhere"), home=home).stderr)
    (tmp_path / "package.json").write_text("{")
    done = cli("package", "publish", str(tmp_path), home=home)
    assert done.returncode == 1
    assert "package.json" in one_sentence(done.stderr)
    assert agent.request("GET", "packages") == []
    assert list((home.hub / "files").iterdir()) == []


def test_a_broken_archive(agent: AgentClient, home: Home, tmp_path: Path) -> None:
    folder = make_package(tmp_path / "cut", {"main.py": "print(1)"}, openiap={"language": "python"})
    published = agent.request("POST", "packages", {"path": str(folder)})
    archive = home.hub / "files" / published["fileid"]
    archive.write_bytes(os.urandom(archive.stat().st_size))  # damaged on the server's disk, its length unchanged
    run = ended(agent, agent.request("POST", "packages/cut/runs", {})["id"])
    assert run["state"] == "failed"
    assert "archive" in run["error"]
    assert [path for path in home.packages.iterdir() if path.suffix != ".lock"] == []


def test_a_bad_token_in_config_json(home: Home) -> None:
    hub = start_agent(home).request("GET", "status")["hub"]["apiurl"]
    other = Home(home.path.parent / "other")
    other.prepare()
    write_private(other.config_file, json.dumps({"apiurl": hub, "jwt": "not.a.token"}))
    done = cli("run", "anything", home=other)
    try:
        assert done.returncode == 1
        assert str(other.config_file) in one_sentence(done.stderr)
        assert "not.a.token" not in done.stderr
        status = json.loads(cli("status", "--json", home=other).stdout)
        assert status["connected"] is False
        assert status["error"]
        assert "not.a.token" not in (other.logs / "agent.log").read_text()
    finally:
        AgentClient(running_agent(other) or "").request("POST", "shutdown", {})


def test_half_a_configuration(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("apiurl", "wss://127.0.0.1:1/")
    done = cli("run", "anything", home=home)
    assert done.returncode == 1
    assert "jwt" in one_sentence(done.stderr)


def test_a_home_of_a_newer_version(home: Home) -> None:
    home.prepare()
    (home.path / "version").write_text("99\n")
    before = sorted(home.path.rglob("*"))
    for command in (["status"], ["runs", "list"], ["run", "x"], ["demo"], ["hub"]):
        done = cli(*command, home=home)
        assert done.returncode == 1
        assert "newer version" in done.stderr
        assert "Traceback" not in done.stderr
    assert sorted(home.path.rglob("*")) == before


def test_a_database_of_a_newer_version(home: Home) -> None:
    import sqlite3

    start_agent(home).request("POST", "shutdown", {})
    until(lambda: running_agent(home) is None)
    with sqlite3.connect(home.state_file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    done = cli("runs", "list", home=home)
    assert done.returncode == 1
    assert "newer version" in one_sentence(done.stderr)


def test_the_hub_is_killed_in_the_middle_of_a_run(agent: AgentClient, home: Home, tmp_path: Path) -> None:
    folder = make_package(tmp_path / "slow", {"main.py": SLOW.replace("600", "30")}, openiap={"language": "python"})
    agent.request("POST", "packages", {"path": str(folder)})
    run = agent.request("POST", "packages/slow/runs", {})
    until(lambda: "tick 2" in printed(agent, run["id"]))
    hub = pid_in(home.hub / "hub.json")
    assert hub is not None
    os.kill(hub, signal.SIGKILL)
    run = ended(agent, run["id"])
    assert run["state"] == "succeeded"
    assert "tick 29" in printed(agent, run["id"])
    until(lambda: agent.request("GET", "status")["connected"], what="a new hub was started and found")
    assert [entry["name"] for entry in agent.request("GET", "packages")] == ["slow"]


def test_the_agent_is_killed(home: Home, tmp_path: Path) -> None:
    folder = make_package(tmp_path / "family", {"main.py": FAMILY}, openiap={"language": "python"})
    for _ in range(2):
        agent = start_agent(home)
        run = agent.request("POST", "runs", {"target": str(folder)})
        until(lambda: "started" in printed(agent, run["id"]), what="the run has started")  # noqa: B023 - called at once
        assert len(descendants_of(run["id"])) == 2
        pid = pid_in(home.agent_file)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: not descendants_of(run["id"]), what="its children are gone, without another agent")  # noqa: B023
        found = start_agent(home).request("GET", f"runs/{run['id']}")
        assert found["state"] == "lost"
        assert "agent" in found["error"]
        assert found["ended"]


def test_the_agent_ends_in_order_with_its_children(home: Home, tmp_path: Path) -> None:
    folder = make_package(tmp_path / "family", {"main.py": FAMILY}, openiap={"language": "python"})
    agent = start_agent(home)
    run = agent.request("POST", "runs", {"target": str(folder)})
    until(lambda: "started" in printed(agent, run["id"]))
    pid = agent.request("GET", "status")["agent"]["pid"]
    agent.request("POST", "shutdown", {})
    until(lambda: not psutil.pid_exists(pid))
    assert not descendants_of(run["id"])
    assert start_agent(home).request("GET", f"runs/{run['id']}")["state"] == "lost"


def test_a_second_agent_on_one_home_is_refused(agent: AgentClient, home: Home) -> None:
    done = cli("serve", home=home, timeout_s=30)
    assert done.returncode == 1
    assert "already" in done.stderr


def test_cancel_ends_the_whole_tree(agent: AgentClient, home: Home, tmp_path: Path) -> None:
    folder = make_package(tmp_path / "family", {"main.py": FAMILY}, openiap={"language": "python"})
    run = agent.request("POST", "runs", {"target": str(folder)})
    until(lambda: "started" in printed(agent, run["id"]))
    assert cli("runs", "cancel", run["id"], home=home).returncode == 0
    assert ended(agent, run["id"])["state"] == "cancelled"
    until(lambda: not descendants_of(run["id"]))


def test_a_full_disk_in_a_run(agent: AgentClient, tmp_path: Path) -> None:
    program = "open('/dev/full', 'w').write('x' * 100000)\n"
    folder = make_package(tmp_path / "full", {"main.py": program}, openiap={"language": "python"})
    run = ended(agent, agent.request("POST", "runs", {"target": str(folder)})["id"])
    assert run["state"] == "failed"
    assert "No space left" in run["error"]


def test_unknown_routes_bodies_and_numbers_are_answered_in_one_sentence(agent: AgentClient) -> None:
    for method, path, body in (
        ("GET", "nothing/here", None),
        ("GET", "runs/none", None),
        ("GET", "runs?state=happy", None),
        ("GET", "runs?limit=-1", None),
        ("POST", "runs", {"target": 5}),
        ("POST", "runs", {"target": "x", "surprise": True}),
        ("POST", "runs", {}),
        ("POST", "packages", {"path": "/nowhere/at/all"}),
        ("POST", "packages", {"path": "relative"}),
    ):
        with pytest.raises(RequestFailed) as refusal:
            agent.request(method, path, body)
        assert refusal.value.status in (400, 404), (path, refusal.value)
        assert str(refusal.value).endswith(".")
        assert "\n" not in str(refusal.value)


def test_the_home_is_private(agent: AgentClient, home: Home) -> None:
    for path in [home.path, *home.path.rglob("*")]:
        if not path.is_symlink() and "environments" not in path.parts:
            mode = path.stat().st_mode & 0o077
            assert not mode or (home.path.stat().st_mode & 0o077) == 0, path
    assert (home.path.stat().st_mode & 0o777) == 0o700
    assert ((home.hub / "credentials.json").stat().st_mode & 0o777) == 0o600
