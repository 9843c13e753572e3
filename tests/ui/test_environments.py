"""Environments in the page: made, locked, looked at, verified, repaired, removed, and used.

The journeys are in environments.mjs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from jupyter_agent.home import Home
from tests.conftest import end_all, start_agent
from tests.ui.test_page import USER_X_Y, Lab, free_port, travel

NOWHERE = "http://127.0.0.1:9/nowhere"
"""The port of the discard service, which nobody runs: no channel of this address can be reached."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = Home(Path(tempfile.mkdtemp(prefix="ja-")) / "home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("apiurl", "grpcapiurl", "wsapiurl", "jwt", "agentid"):
            patch.delenv(name, raising=False)
        patch.setenv("JUPYTER_AGENT_HOME", str(home.path))
        server = Lab(home, tmp_path_factory.mktemp("environments") / "lab", USER_X_Y, free_port())
        try:
            server.start()
            yield server
        finally:
            server.stop()
            end_all(home)
            shutil.rmtree(home.path.parent, ignore_errors=True)


def writing(lab: Lab, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = lab.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def environment_of(*specs: str, channel: str, more: str = "") -> str:
    wanted = "".join(f"- {spec}\n" for spec in specs)
    return f"name: weather\nchannels: ['{channel}']\ndependencies:\n{wanted}{more}"


def damaging(home: Home) -> None:
    """Take a module away from the only environment there is."""
    (known,) = start_agent(home).request("GET", "environments")
    (module,) = Path(known["path"]).rglob("six.py")
    module.unlink()


def test_an_environment_is_made_from_a_file_looked_at_verified_repaired_and_removed(lab: Lab, tmp_path: Path) -> None:
    actions = {
        "write": lambda: writing(lab, {"pip/requirements.txt": "six==1.16.0\n"}),
        "damage": lambda: damaging(lab.home),
    }
    travel("environment", lab, actions, tmp_path)


def test_a_conda_environment_is_made_step_by_step_and_a_file_runs_in_it(
    lab: Lab, channel: Path, tmp_path: Path
) -> None:
    text = environment_of("python", "pip", channel=channel.as_uri(), more="variables: {RAIN: '1'}\n")
    files = {"weather/environment.yml": text, "where.py": "import sys\nprint(sys.prefix)\n"}
    travel("conda", lab, {"write": lambda: writing(lab, files)}, tmp_path)


def test_what_no_channel_can_give_is_made_from_pypi_or_said(lab: Lab, channel: Path, tmp_path: Path) -> None:
    files = {
        "away/environment.yml": environment_of("python", "six", channel=NOWHERE),
        "impossible/environment.yml": environment_of("no-such-package-anywhere", channel=channel.as_uri()),
    }
    travel("fallback", lab, {"write": lambda: writing(lab, files)}, tmp_path)
    assert "content_hash" in (lab.folder / "away/conda-lock.yml").read_text()
