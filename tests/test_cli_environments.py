"""``env``, and the options of ``run`` that are about environments, by the command line as users have it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.cli.completion import next_words
from jupyter_agent.home import Home
from tests.agent_peers import agent_of
from tests.conftest import cli
from tests.openflow_peers import Hub


@pytest.fixture(scope="module")
def home(hub: Hub) -> Iterator[Home]:
    with agent_of(hub) as (made, _):
        yield made


def told(home: Home, *arguments: str, code: int = 0) -> Any:
    """The one JSON document."""
    done = cli(*arguments, "--json", home=home)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    assert (done.returncode, done.stdout) == (code, ""), done
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_the_life_of_an_environment(home: Home, channel: Path, tmp_path: Path) -> None:
    file = tmp_path / "environment.yml"
    file.write_text(f"channels: [{channel.as_uri()}]\ndependencies: [python, packaging]\n")
    made = told(home, "env", "create", str(file))
    assert (made["kind"], made["state"]) == ("environment", "succeeded")
    id_, prefix = made["results"]["environment"], made["results"]["prefix"]
    again = cli("env", "create", str(file), home=home)
    assert again.returncode == 0
    assert id_ in again.stdout
    assert prefix in again.stdout
    assert id_ in [each["id"] for each in told(home, "env", "list")]
    listed = cli("env", "list", home=home).stdout
    assert id_[:12] in listed
    assert "environment.yml" in listed
    shown = told(home, "env", "show", id_[:12])
    assert {"python", "packaging"} <= {package["name"] for package in shown["packages_list"]}
    assert "packaging" in cli("env", "show", id_, home=home).stdout
    assert told(home, "env", "verify", id_) == [{"id": id_, "ok": True, "faults": []}]
    words = [word.text for word in next_words(["env", "show", id_[:6]], home)]
    assert words == [id_]
    (tags,) = Path(prefix).glob("lib/python*/site-packages/packaging/tags.py")
    text = tags.read_bytes()
    tags.unlink()
    tags.write_bytes(text + b"# changed\n")
    broken = cli("env", "verify", home=home)
    assert broken.returncode == 1
    assert "packaging/tags.py" in broken.stdout
    assert told(home, "env", "repair", id_[:12])["state"] == "succeeded"
    assert told(home, "env", "verify", id_)[0]["ok"]
    assert told(home, "env", "gc", "--days", "0", "--dry-run")["removed"]
    assert told(home, "env", "gc")["removed"] == [], "it was used a moment ago"
    gone = told(home, "env", "remove", id_)
    assert gone == {"id": id_, "path": prefix, "removed": True}
    assert not Path(prefix).exists()
    refused(cli("env", "show", id_, home=home), "environment")


def test_a_lock_and_where_a_script_runs(home: Home, channel: Path, tmp_path: Path) -> None:
    file = tmp_path / "conda.yml"
    file.write_text(f"channels: [{channel.as_uri()}]\ndependencies: [python]\n")
    out = tmp_path / "my-lock.yml"
    assert told(home, "env", "lock", str(file), "-o", str(out))["results"] == {"lock": str(out)}
    (tmp_path / "here.py").write_text("import sys; print(sys.prefix)")
    run = told(home, "run", str(tmp_path / "here.py"), "--env", str(out))
    assert run["state"] == "succeeded"
    assert told(home, "run", str(tmp_path / "here.py"), "--env", run["environment"][:10])["state"] == "succeeded"
    refused(cli("run", str(tmp_path / "here.py"), "--env", "no-such-one", home=home), "no-such-one")
    refused(cli("env", "lock", str(file), "-o", str(tmp_path / "here.py"), home=home), "is no lock")


def test_a_template_and_a_requirements_file(home: Home, tmp_path: Path) -> None:
    refused(cli("env", "create", "--template", "nothing", home=home), "minimal", "data-science")
    (tmp_path / "requirements.txt").write_text("six==1.16.0\n")
    made = told(home, "env", "create", str(tmp_path / "requirements.txt"))
    shown = told(home, "env", "show", made["results"]["environment"])
    assert (shown["kind"], [p["name"] for p in shown["packages_list"]]) == ("venv", ["six"])


def test_a_channel_of_its_own(home: Home, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("six\n")
    done = told(
        home,
        "env",
        "channel",
        "build",
        "-o",
        str(tmp_path / "made"),
        str(tmp_path / "requirements.txt"),
        "--python",
        "host",
    )
    assert done["results"] == {"channel": (tmp_path / "made").as_uri(), "folder": str(tmp_path / "made")}
    assert list((tmp_path / "made").glob("*/repodata.json"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").touch()
    refused(cli("env", "channel", "build", "-o", str(tmp_path / "other"), "six", home=home), "no channel")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("env",), 2),
        (("env", "create"), 2),
        (("env", "create", "a.yml", "--template", "minimal"), 2),
        (("env", "create", "/no/environment.yml"), 1),
        (("env", "create", "/etc"), 1),
        (("env", "create", "/dev/null"), 1),
        (("env", "lock", "x.yml", "--platform", "linux"), 2),
        (("env", "lock", "/no.yml"), 1),
        (("env", "show", "nothing-like-it"), 1),
        (("env", "show", " "), 2),
        (("env", "verify", "nothing"), 1),
        (("env", "repair", "nothing"), 1),
        (("env", "remove", "/etc"), 1),
        (("env", "gc", "--days", "-1"), 2),
        (("env", "gc", "--days", "nan"), 2),
        (("env", "channel", "build"), 2),
        (("env", "channel", "build", "-e ."), 1),
        (("env", "channel", "build", "six", "--python", "3.12"), 2),
        (("run", "x", "--env", ""), 2),
        (("run", "x", "--agent", "y", "--env", "z"), 1),
        (("run", "x", "--agent", "y", "--offline"), 1),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(home: Home, arguments: tuple[str, ...], code: int) -> None:
    refused(cli(*arguments, home=home), code=code)
