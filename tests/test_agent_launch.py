"""What is run, and the copy it works in: odd files, odd paths, odd documents."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest

from jupyter_agent.agent.requests import MAX_SHOWN, abridged
from jupyter_agent.agent.variables import harmless
from jupyter_agent.folders import BrokenOff, copy_tree
from jupyter_agent.home import AgentClient, Home, RequestFailed
from tests.agent_peers import connected, first_user
from tests.conftest import ended, make_package, printed, start_agent


def copy(source: Path, target: Path, without: Path | None = None) -> list[str]:
    copy_tree(source, target, without=without or target.parent, broken_off=threading.Event())
    return sorted(str(path.relative_to(target)) for path in target.rglob("*"))


def test_a_copy_holds_files_folders_and_links_only(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a b\n").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (source / "a b\n" / "ü").write_text("text")
    (source / "loop").symlink_to(source)
    (source / "nowhere").symlink_to("/nowhere/at/all")
    os.mkfifo(source / "pipe")
    assert copy(source, tmp_path / "home" / "work") == ["a b\n", "a b\n/ü", "loop", "nowhere"]
    assert (tmp_path / "home" / "work" / "loop").is_symlink()


def test_the_home_is_not_copied_into_itself(tmp_path: Path) -> None:
    home = tmp_path / "folder" / "home"
    (home / "runs").mkdir(parents=True)
    (tmp_path / "folder" / "main.py").touch()
    assert copy(tmp_path / "folder", home / "runs" / "work", home) == ["main.py"]


def test_a_copy_can_be_broken_off(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x").touch()
    broken_off = threading.Event()
    broken_off.set()
    with pytest.raises(BrokenOff):
        copy_tree(tmp_path / "source", tmp_path / "target", without=tmp_path, broken_off=broken_off)


def test_an_isolated_run_beside_its_home_and_a_fifo(agent: AgentClient, home: Home) -> None:
    folder = home.path.parent  # the home lies in the folder of the program
    (folder / "main.py").write_text("import os\nprint(sorted(os.listdir()))\nopen('made', 'w').write('x')\n")
    os.mkfifo(folder / "pipe")
    run = ended(agent, agent.request("POST", "runs", {"target": str(folder / "main.py"), "isolated": True})["id"])
    assert run["state"] == "succeeded", run["error"]
    assert "['main.py']" in printed(agent, run["id"])
    assert [artifact["name"] for artifact in run["artifacts"]] == ["made"]
    assert not (folder / "made").exists()


def test_odd_paths(agent: AgentClient, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    for target, status in (
        (tmp_path / "pipe.py", 400),
        (tmp_path / "loop.py", 404),
        (tmp_path / ("x" * 300), 404),
        ("/" + "x/" * 3000, 404),
        (f"{tmp_path}/a\0.py", 404),
        (tmp_path, 400),
        ("/dev/null", 400),
    ):
        with pytest.raises(RequestFailed) as refusal:
            agent.request("POST", "runs", {"target": str(target)})
        assert refusal.value.status in (status, 404), (target, refusal.value)
        assert refusal.value.status < 500
    odd = tmp_path / "a b\n'ü$(x)"
    odd.mkdir()
    (odd / "-p 100%.py").write_text("print('ran')\n")
    run = ended(agent, agent.request("POST", "runs", {"target": str(odd / "-p 100%.py")})["id"])
    assert run["state"] == "succeeded", run["error"]
    assert agent.request("GET", "runs")["runs"][0]["path"] == str(odd / "-p 100%.py")


def test_numbers_without_end(agent: AgentClient, tmp_path: Path) -> None:
    folder = make_package(tmp_path / "quick", {"main.py": "print(1)"}, openiap={"language": "python"})
    run = agent.request("POST", "runs", {"target": str(folder), "timeout_s": 1e300, "memory_mb": 1 << 40})
    assert ended(agent, run["id"])["state"] == "succeeded"
    for path in ("runs?limit=", f"runs/{run['id']}/output?offset=", f"runs/{run['id']}/stream?offset="):
        with pytest.raises(RequestFailed) as refusal:
            agent.request("GET", path + "9" * 5000)
        assert refusal.value.status == 400


@pytest.mark.parametrize("name", ["SSLKEYLOGFILE", "sslkeylogfile", "LOCPATH", "a\0b", "", "1a", "ä", "LD_x", "R_LIBS"])
def test_names_that_are_no_variables_or_steer(name: str) -> None:
    assert harmless({name: "x", "r_squared": 1}, {}) == {"r_squared": "1"}


def test_a_row_holds_the_beginning_of_large_parameters() -> None:
    small = {"a": "x" * 5000, "b": [1, 2]}
    assert abridged(small) == small
    large = {"a": "x" * MAX_SHOWN, "b": list(range(MAX_SHOWN)), "c": 3}
    shown = abridged(large)
    assert shown["a"].endswith(f"x … ({MAX_SHOWN} characters)")
    assert shown["b"].startswith("[0, 1, ")
    assert shown["c"] == 3
    assert len(json.dumps(shown)) < MAX_SHOWN
    many = abridged({f"name {number}": "x" * 10 for number in range(100_000)})
    assert len(json.dumps(many)) < MAX_SHOWN
    assert len(json.dumps(abridged({"n" * MAX_SHOWN * 2: 1}))) < MAX_SHOWN * 3


def test_a_package_published_again_while_its_run_waits(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive that the run was to have is gone from the server before it was ever fetched."""
    (tmp_path / "jupyter_agent_config.py").write_text("c.Agent.max_runs = 1\n")
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    agent = start_agent(home)
    gate = make_package(
        tmp_path / "gate",
        {"main.py": f"import os, time\nwhile not os.path.exists({str(tmp_path / 'open')!r}):\n    time.sleep(0.05)\n"},
        openiap={"language": "python"},
    )
    first = agent.request("POST", "runs", {"target": str(gate)})
    folder = make_package(tmp_path / "edition", {"main.py": "print('first')"}, openiap={"language": "python"})
    agent.request("POST", "packages", {"path": str(folder)})
    waiting = agent.request("POST", "packages/edition/runs", {})
    (folder / "main.py").write_text("print('second')")
    newest = agent.request("POST", "packages", {"path": str(folder)})
    (tmp_path / "open").touch()
    assert ended(agent, first["id"])["state"] == "succeeded"
    run = ended(agent, waiting["id"])
    assert run["state"] == "succeeded", run["error"]
    assert printed(agent, run["id"]) == "second\n"
    assert [path.name for path in home.packages.iterdir() if path.is_dir()] == [newest["fileid"]]


STEERING = (
    *("BASH_ENV", "CARGO_HOME", "CARGO_BUILD_RUSTC_WRAPPER", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN"),
    *("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "MAVEN_OPTS", "GRADLE_OPTS"),
    *("PHPRC", "PHP_INI_SCAN_DIR", "COMPOSER_HOME", "PSModulePath", "POWERSHELL_UPDATECHECK"),
    *("DOTNET_STARTUP_HOOKS", "CORECLR_PROFILER", "NUGET_PACKAGES", "MSBuildSDKsPath"),
    *("SHELLOPTS", "APP_ROOT_PATH", "GEM_HOME", "BUNDLE_GEMFILE", "LUA_INIT", "JULIA_LOAD_PATH", "QT_PLUGIN_PATH"),
)


def test_no_payload_steers_a_tool() -> None:
    assert harmless({**dict.fromkeys(STEERING, "x"), "RUST_LOG": "debug", "bundle_id": "7"}, {}) == {
        "RUST_LOG": "debug",
        "bundle_id": "7",
    }


async def test_a_package_whose_id_is_a_path_runs_no_file(agent: AgentClient, home: Home, tmp_path: Path) -> None:
    (file := tmp_path / "mine.py").write_text("print('mine')\n")
    url = agent.request("GET", "status")["hub"]["apiurl"]
    async with connected(url, first_user(home)) as caller:
        document = {"_id": str(file), "_type": "package", "name": "trick", "language": "python", "fileid": ""}
        await caller.client.insert_one("agents", document)
    with pytest.raises(RequestFailed, match="publish it anew"):
        await asyncio.to_thread(agent.request, "POST", "packages/trick/runs", {})
    assert agent.request("GET", "runs")["runs"] == []
