"""``run`` and ``runs``: what is asked for with a key, tried again, run again; by the command line as users have it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.home import Home
from tests.agent_peers import agent_of
from tests.conftest import cli
from tests.openflow_peers import Hub

LATER = """
import pathlib, sys
seen = pathlib.Path(sys.argv[0]).resolve().parent / "seen"
print("attempt", len(seen.read_text()) if seen.exists() else 0)
with seen.open("a") as file:
    file.write("x")
sys.exit(0 if len(seen.read_text()) == 2 else 4)
"""


@pytest.fixture(scope="module")
def home(hub: Hub) -> Iterator[Home]:
    with agent_of(hub) as (made, _):
        yield made


def run(home: Home, *arguments: str, code: int = 0) -> Any:
    done = cli(*arguments, "--json", home=home)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_a_run_with_a_key_is_one_run(home: Home, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("print('hello')")
    (tmp_path / "other.py").write_text("print('other')")
    first, again = [run(home, "run", str(tmp_path / "hello.py"), "--key", "mine") for _ in range(2)]
    assert (first["id"], first["key"]) == (again["id"], "mine")
    other = cli("run", str(tmp_path / "other.py"), "--key", "mine", home=home)
    assert (other.returncode, other.stdout) == (1, "")
    assert "mine" in other.stderr


def test_a_run_that_fails_is_tried_again(home: Home, tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text(LATER)
    done = run(home, "run", str(tmp_path / "later.py"), "--retries", "2", "--priority", "-5", "--retry-delay", "0.2")
    assert (done["state"], done["attempt"], done["retries"], done["priority"]) == ("succeeded", 2, 2, -5)
    shown = cli("runs", "show", done["id"], home=home).stdout
    assert "2 of 3" in shown
    assert "-5" in shown


def test_a_run_is_run_again(home: Home, tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text("import json, os\nprint(json.load(open(os.environ['payloadfile'])))")
    first = run(home, "run", str(tmp_path / "echo.py"), "-p", "n=7")
    second = run(home, "runs", "rerun", first["id"][-8:])
    assert (second["rerun_of"], second["parameters"], second["state"]) == (first["id"], {"n": 7}, "succeeded")
    detached = cli("runs", "rerun", "last", "--detach", home=home)
    assert run(home, "runs", "show", detached.stdout.strip())["rerun_of"] == second["id"]
    (tmp_path / "echo.py").unlink()
    gone = cli("runs", "rerun", first["id"], home=home)
    assert (gone.returncode, "There is no file" in gone.stderr) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [("--retries", "x"), ("--retries", "-1"), ("--priority", "1.5"), ("--retry-delay", "x"), ("--agent", " ")],
)
def test_options_that_make_no_sense(home: Home, arguments: tuple[str, ...]) -> None:
    done = cli("run", "x", *arguments, home=home)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("--retries", "101"), ("--priority", "1001"), ("--key", "k" * 201)])
def test_options_beyond_their_bounds(home: Home, arguments: tuple[str, ...]) -> None:
    done = cli("run", "/tmp", *arguments, home=home)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
