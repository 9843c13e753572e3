"""Environments as the agent makes them for packages and files, and as runs of their own; real ones, from a channel."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from jupyter_agent.agent.environments import (
    OFFER,
    WORKS,
    BuildChannel,
    Create,
    LockUp,
    Repair,
    check_lock_target,
    offering,
)
from jupyter_agent.agent.requests import RunRequest, restored
from jupyter_agent.agent.senders import Sender
from jupyter_agent.errors import AccessDenied, InvalidInput, NoChannel
from jupyter_agent.home import AgentClient, Home, RequestFailed
from jupyter_agent.openflow.signin import User
from jupyter_agent.runs import Limits
from jupyter_agent.state import RunRow
from tests.agent_peers import agent_of, published
from tests.conftest import end_all, ended, make_package, pid_in, printed, start_agent, until
from tests.openflow_peers import Hub

NOWHERE = "http://127.0.0.1:9/nowhere"
PREFIX = "import json, os, sys\nprint(json.dumps([sys.prefix, os.environ.get('CONDA_PREFIX')]))\n"


@pytest.fixture(scope="module")
def place(hub: Hub) -> Iterator[tuple[Home, AgentClient]]:
    with agent_of(hub) as made:
        yield made


@pytest.fixture
def agent(place: tuple[Home, AgentClient]) -> AgentClient:
    return place[1]


def asked(channel: str, *packages: str) -> str:
    return yaml.safe_dump({"channels": [channel], "dependencies": list(packages)})


def made(agent: AgentClient, path: str, **body: Any) -> dict[str, Any]:
    run = agent.request("POST", path, body)
    assert (run["kind"], run["state"] in ("queued", "preparing")) == ("environment", True)
    return ended(agent, run["id"], deadline_s=300)


def run(agent: AgentClient, target: object, **body: Any) -> dict[str, Any]:
    return ended(agent, agent.request("POST", "runs", {"target": str(target), **body})["id"], deadline_s=300)


def told(agent: AgentClient, run: dict[str, Any]) -> Any:
    assert run["state"] == "succeeded", (run["error"], printed(agent, run["id"], None))
    return json.loads(printed(agent, run["id"]).splitlines()[-1])


def notebook(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def removable(agent: AgentClient) -> list[str]:
    return [each["id"] for each in agent.request("POST", "environments/gc", {"dry_run": True})["removed"]]


def test_an_environment_is_made_by_a_run_and_known_from_then_on(agent: AgentClient, channel: Path) -> None:
    text = asked(channel.as_uri(), "python")
    phases: set[str] = set()
    started = agent.request("POST", "environments", {"name": "environment.yml", "text": text})
    for line in agent.lines(f"runs/{started['id']}/stream"):
        phases.add(((line.get("run") or {}).get("progress") or {}).get("phase") or "")
    done = agent.request("GET", f"runs/{started['id']}")
    assert (done["state"], done["error"], done["language"]) == ("succeeded", None, "environment")
    assert phases & {"solve", "download", "link", "compile", "check"}
    assert done["progress"] is None, "that was the way; it is done"
    id_, prefix = done["results"]["environment"], Path(done["results"]["prefix"])
    assert (done["environment"], prefix.name) == (id_, id_)
    assert (prefix / "bin" / "python").exists()
    (known,) = [each for each in agent.request("GET", "environments") if each["id"] == id_]
    assert (known["kind"], known["origin"], known["state"], known["path"]) == (
        "conda", "jupyter_agent", "ready", str(prefix)
    )  # fmt: skip
    shown = agent.request("GET", f"environments/{id_[:12]}")
    assert "python" in [package["name"] for package in shown["packages_list"]]
    assert agent.request("POST", f"environments/{id_}/verify", {}) == {"id": id_, "ok": True, "faults": []}
    again = ended(agent, agent.request("POST", f"runs/{done['id']}/rerun", {})["id"])
    assert (again["rerun_of"], again["results"]) == (done["id"], done["results"])


def test_a_package_and_a_notebook_run_in_what_their_file_asks_for(
    agent: AgentClient, channel: Path, tmp_path: Path
) -> None:
    text = asked(channel.as_uri(), "python", "ipykernel")
    package = make_package(
        tmp_path / "script", {"main.py": PREFIX, "environment.yml": text}, openiap={"language": "python"}
    )
    alone = made(agent, "environments", name="environment.yml", text=text)
    first = run(agent, package)
    assert "Solved" not in printed(agent, first["id"], "agent"), "all that is needed was asked for"
    prefix, active = told(agent, first)
    assert alone["results"]["environment"] == first["environment"]
    assert (Path(prefix).name, active) == (first["environment"], prefix)
    before = time.monotonic()
    assert told(agent, run(agent, package)) == [prefix, prefix]
    assert time.monotonic() - before < 30
    path = notebook(tmp_path / "report.ipynb", PREFIX)
    (tmp_path / "environment.yml").write_text(text)
    shown = run(agent, path)
    assert shown["environment"] == first["environment"], "what asks for the same is the same"
    assert (shown["progress"] or {}).get("label") == "cell 1 of 1", "the phases have given way"


def test_a_run_in_an_environment_that_is_named(agent: AgentClient, channel: Path, tmp_path: Path) -> None:
    file = tmp_path / "named.yml"
    file.write_text(asked(channel.as_uri(), "python", "ipykernel"))
    id_ = made(agent, "environments", file=str(file))["results"]["environment"]
    script = tmp_path / "place.py"
    script.write_text(PREFIX)
    for wanted in (id_, id_[:10], str(file), agent.request("GET", f"environments/{id_}")["path"]):
        found = run(agent, script, environment=wanted)
        assert Path(told(agent, found)[0]).name == id_, wanted
        again = ended(agent, agent.request("POST", f"runs/{found['id']}/rerun", {})["id"])
        assert again["environment"] == found["environment"]
    assert run(agent, notebook(tmp_path / "n.ipynb", PREFIX), environment=id_)["state"] == "succeeded"
    (tmp_path / "elsewhere").symlink_to(agent.request("GET", f"environments/{id_}")["path"])
    found = run(agent, script, environment=str(tmp_path / "elsewhere"))
    assert told(agent, found)[0] == str(tmp_path / "elsewhere"), "one that no program knows of, as it is"
    for wanted, status in (("nothing-like-it", 404), (str(tmp_path), 404), (str(tmp_path / "place.py"), 400)):
        with pytest.raises(RequestFailed) as refusal:
            agent.request("POST", "runs", {"target": str(script), "environment": wanted})
        assert refusal.value.status == status, refusal.value
    shell = make_package(tmp_path / "shell", {"main.sh": "true"}, openiap={"language": "shell"})
    with pytest.raises(RequestFailed, match="only notebooks and Python"):
        agent.request("POST", "runs", {"target": str(shell), "environment": id_})


def test_a_lock_is_made_beside_the_file_and_used(agent: AgentClient, channel: Path, tmp_path: Path) -> None:
    file = tmp_path / "environment.yml"
    file.write_text(asked(channel.as_uri(), "python"))
    done = made(agent, "environments/lock", file=str(file))
    assert done["results"] == {"lock": str(tmp_path / "conda-lock.yml")}, done["error"]
    lock = tmp_path / "conda-lock.yml"
    before = (lock.read_bytes(), lock.stat().st_mtime_ns)
    assert made(agent, "environments/lock", file=str(file))["state"] == "succeeded"
    assert (lock.read_bytes(), lock.stat().st_mtime_ns) == before
    script = tmp_path / "place.py"
    script.write_text(PREFIX)
    found = run(agent, script)
    assert Path(told(agent, found)[0]).name == found["environment"]
    failed = run(agent, notebook(tmp_path / "report.ipynb", "1"))
    assert failed["state"] == "failed"
    assert failed["error"].startswith("A notebook needs ipykernel in its environment, and conda-lock.yml has none")
    (tmp_path / "precious.yml").write_text("years: of work\n")
    for body, status in (
        ({"file": str(lock)}, 400),
        ({"file": str(file), "output": str(tmp_path / "precious.yml")}, 409),
        ({"file": str(file), "output": str(file)}, 409),
        ({"file": str(file), "output": str(tmp_path)}, 400),
        ({"file": str(file), "output": str(tmp_path / "no" / "lock.yml")}, 404),
    ):
        with pytest.raises(RequestFailed) as refusal:
            agent.request("POST", "environments/lock", body)
        assert refusal.value.status == status, refusal.value
    assert (tmp_path / "precious.yml").read_text() == "years: of work\n"


def test_where_no_channel_can_be_reached_it_is_said_what_can_be_done(agent: AgentClient, tmp_path: Path) -> None:
    file = tmp_path / "environment.yml"
    file.write_text(asked(NOWHERE, "python", "six"))
    failed = made(agent, "environments", file=str(file))
    assert failed["state"] == "failed"
    assert "--channel-from-pypi" in failed["error"]
    assert "channel_fallback" in failed["error"]
    assert failed["error"].count("--channel-from-pypi") == 1
    script = tmp_path / "place.py"
    script.write_text("import json, six, sys\nprint(json.dumps([sys.prefix, six.__version__]))")
    assert "--channel-from-pypi" in run(agent, script)["error"]
    done = ended(agent, agent.request("POST", f"runs/{failed['id']}/rerun", {"from_pypi": True})["id"], deadline_s=300)
    assert done["state"] == "succeeded", done["error"]
    assert "PyPI" in printed(agent, done["id"], "agent")
    found = run(agent, script, from_pypi=True)
    assert Path(told(agent, found)[0]).name == done["results"]["environment"]


def test_the_settings_hold_where_nothing_else_was_said(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    settings = {"conda_channels": [NOWHERE], "channel_fallback": "pypi", "keep_environments_days": 0}
    (tmp_path / "jupyter_agent_config.json").write_text(json.dumps({"Agent": settings}))
    with agent_of(hub) as (_, agent):
        asks = {"name": "environment.yml", "text": "dependencies: [python]"}
        failed = made(agent, "environments", **asks, from_pypi=False)
        assert NOWHERE in failed["error"]
        failed = made(agent, "environments", **asks, offline=True)
        assert failed["state"] == "failed"
        done = made(agent, "environments", **asks)
        assert done["state"] == "succeeded", done["error"]
        assert made(agent, "environments", **asks, offline=True)["results"] == done["results"]
        until(lambda: done["environment"] in removable(agent), what="nothing uses it any more")


def test_a_package_that_changes_its_environment_is_told_of_and_it_is_made_anew(
    agent: AgentClient, channel: Path, tmp_path: Path
) -> None:
    vandal = f"{PREFIX}import json.tool\nopen(json.tool.__file__, 'a').write('# changed')\n"
    text = asked(channel.as_uri(), "python", "packaging")
    package = make_package(
        tmp_path / "vandal", {"main.py": vandal, "environment.yml": text}, openiap={"language": "python"}
    )
    done = run(agent, package)
    prefix = Path(told(agent, done)[0])
    warned = until(lambda: agent.request("GET", f"runs/{done['id']}")["warning"], what="the run is told of")
    assert "json/tool.py" in warned
    (package / "main.py").write_text(PREFIX)
    assert Path(told(agent, run(agent, package))[0]).is_relative_to(prefix.parent)
    verified = agent.request("POST", f"environments/{done['environment']}/verify", {})
    assert verified["ok"], verified


def test_what_is_ended_leaves_nothing_half_made(hub: Hub, channel: Path) -> None:
    text = asked(channel.as_uri(), "python", "numpy")
    with agent_of(hub) as (home, agent):
        cancelled = agent.request("POST", "environments", {"name": "environment.yml", "text": text})
        until(lambda: agent.request("GET", f"runs/{cancelled['id']}")["progress"])
        agent.request("POST", f"runs/{cancelled['id']}/cancel")
        assert ended(agent, cancelled["id"])["state"] == "cancelled"
        lost = agent.request("POST", "environments", {"name": "environment.yml", "text": text})
        until(lambda: agent.request("GET", f"runs/{lost['id']}")["progress"])
        os.kill(pid_in(home.agent_file) or 0, signal.SIGKILL)
        until(lambda: pid_in(home.agent_file) is None)
        later = start_agent(home)
        assert later.request("GET", f"runs/{lost['id']}")["state"] == "lost"
        done = ended(later, later.request("POST", f"runs/{lost['id']}/rerun", {})["id"], deadline_s=300)
        assert done["state"] == "succeeded", done["error"]
        assert later.request("POST", f"environments/{done['environment']}/verify", {})["ok"]
        states = [each["state"] for each in later.request("GET", "environments") if each["origin"] == "jupyter_agent"]
        assert states == ["ready"]
        end_all(home)


def test_what_was_in_use_when_the_agent_was_killed_is_looked_at_before_its_next_use(hub: Hub, tmp_path: Path) -> None:
    """A run changes its environment, and nobody is left to see it."""
    code = f"{PREFIX}import json.tool\n__import__('pathlib').Path(sys.prefix, 'lib', 'mark').write_text('x')\n"
    with agent_of(hub) as (home, agent):
        package = published(agent, tmp_path / "marks", f"{code}import time\nprint('up', flush=True)\ntime.sleep(600)\n")
        started = agent.request("POST", f"packages/{package}/runs", {})
        until(lambda: "up" in printed(agent, started["id"]))
        marked = Path(json.loads(printed(agent, started["id"]).splitlines()[0])[0]) / "lib" / "mark"
        assert marked.exists()
        os.kill(pid_in(home.agent_file) or 0, signal.SIGKILL)
        until(lambda: pid_in(home.agent_file) is None)
        later = start_agent(home)
        published(later, tmp_path / "marks", PREFIX)
        found = ended(later, later.request("POST", f"packages/{package}/runs", {})["id"])
        assert not (Path(told(later, found)[0]) / "lib" / "mark").exists()


def test_an_environment_in_use_stays(agent: AgentClient, tmp_path: Path) -> None:
    package = published(agent, tmp_path / "sleeper", "import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    started = agent.request("POST", f"packages/{package}/runs", {})
    until(lambda: "up" in printed(agent, started["id"]))
    used = agent.request("GET", f"runs/{started['id']}")["environment"]
    (known,) = [each for each in agent.request("GET", "environments") if each["id"] == used]
    assert (known["kind"], known["used_by"]) == ("venv", [started["id"]])
    assert used not in [each["id"] for each in agent.request("POST", "environments/gc", {"days": 0})["removed"]]
    with pytest.raises(RequestFailed) as refusal:
        agent.request("DELETE", f"environments/{used}")
    assert refusal.value.status == 409
    agent.request("POST", f"runs/{started['id']}/cancel")
    ended(agent, started["id"])
    until(lambda: not [e for e in agent.request("GET", "environments") if e["id"] == used and e["used_by"]])
    listed = agent.request("POST", "environments/gc", {"days": 0, "dry_run": True})
    assert used in [each["id"] for each in listed["removed"]]
    agent.request("DELETE", f"environments/{used}")
    assert used not in [each["id"] for each in agent.request("GET", "environments")]


def test_a_path_that_is_too_long_names_no_environment(agent: AgentClient, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print(1)")
    with pytest.raises(RequestFailed, match="There is no environment") as refused:
        run(agent, script, environment="/" + "a" * 4000)
    assert refused.value.status == 404


def test_a_path_below_the_home_folder_may_begin_with_a_tilde(agent: AgentClient) -> None:
    for method, end, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/verify", {}),
        ("POST", "/repair", {}),
    ):
        with pytest.raises(RequestFailed, match=f"There is no environment '{Path.home()}/no-environment'"):
            agent.request(method, f"environments/~%2Fno-environment{end}", body)


def test_what_cannot_be_read_is_not_replaced_by_a_lock() -> None:
    with pytest.raises(InvalidInput, match=r"No lock can be written to /proc/self/mem \(Input/output error\)"):
        check_lock_target(Path("/proc/self/mem"))


def test_reinstalling_a_package_makes_its_environment_anew(agent: AgentClient, tmp_path: Path) -> None:
    package = published(agent, tmp_path / "again", PREFIX)
    (tmp_path / "again" / "requirements.txt").write_text("six==1.15.0\n")
    agent.request("POST", "packages", {"path": str(tmp_path / "again")})
    first = ended(agent, agent.request("POST", f"packages/{package}/runs", {})["id"])
    marker = Path(told(agent, first)[0]) / "lib" / "mark"
    marker.write_text("by hand")
    assert agent.request("POST", f"packages/{package}/reinstall", {}) == {"cancelled": 0}
    second = ended(agent, agent.request("POST", f"packages/{package}/runs", {})["id"])
    assert not (Path(told(agent, second)[0]) / "lib" / "mark").exists()


def test_nobody_else_names_an_environment() -> None:
    sender = Sender(User(id="1", name="a", username="a", email="", roles=()), "token")
    with pytest.raises(AccessDenied):
        RunRequest(target="x", who="a", trigger="queue", sender=sender, environment="/etc").check()


def test_what_a_run_was_made_in_is_kept_with_it() -> None:
    request = RunRequest(target="/x.py", who="me", trigger="cli", environment="abc", from_pypi=True, offline=False)
    row = RunRow(id="1", path="/x.py", who="me", trigger="cli")
    assert restored(row, request.stored(Limits())) == RunRequest(
        target="/x.py", who="me", trigger="cli", environment="abc", from_pypi=True, offline=False, limits=Limits()
    )
    plain = RunRequest(target="/x.py", who="me", trigger="cli")
    assert "environment" not in plain.stored(Limits())


def test_the_offer_is_made_once() -> None:
    with pytest.raises(NoChannel) as first, offering(), offering():
        raise NoChannel("No channel can be reached.")
    assert str(first.value) == f"No channel can be reached. {OFFER}"


def test_each_work_has_its_name() -> None:
    works = (Create(file="/a"), LockUp("/a"), BuildChannel(("six",), "/c"), Repair("abc"))
    assert {work.name: type(work) for work in works} == dict(WORKS)
