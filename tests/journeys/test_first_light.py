"""The whole way: packed, published over the wire, fetched, run in an environment of its own, results shown."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from jupyter_agent.home import Home
from tests.conftest import cli, make_package, start_agent


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_package(
        tmp_path / "greeting",
        {"main.py": "import six, sys\nprint('six', six.__version__)\nopen('made.txt', 'w').write('by the run')\n",
         "requirements.txt": "six==1.16.0\n"},
        openiap={"language": "python"},
    )  # fmt: skip


def test_the_demo_is_one_command(home: Home) -> None:
    done = cli("demo", "--json", home=home)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["state"] == "succeeded"
    assert run["results"], "the notebook names its results"
    kinds = {found["id"]: found["kind"] for found in json.loads(cli("env", "list", "--json", home=home).stdout)}
    assert kinds[run["environment"]] == "conda"
    names = [artifact["name"] for artifact in run["artifacts"]]
    assert "output.ipynb" in names
    saved = cli("runs", "artifacts", run["id"], "output.ipynb", "-o", str(home.path.parent / "o.ipynb"), home=home)
    assert saved.returncode == 0, saved.stderr
    notebook = nbformat.read(home.path.parent / "o.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs), "its plots are in the output notebook"
    again = cli("demo", home=home)
    assert again.returncode == 0, again.stderr
    for name in run["results"]:
        assert name in again.stdout
    assert "output.ipynb" in again.stdout
    assert ".html" in again.stdout


def test_a_package_from_its_folder_to_its_artifacts(home: Home, package: Path) -> None:
    published = json.loads(cli("package", "publish", str(package), "--json", home=home).stdout)
    assert set(published) == {"id", "fileid", "name", "version"}
    listed = json.loads(cli("package", "list", "--json", home=home).stdout)
    assert [entry["name"] for entry in listed] == ["greeting"]
    ran = cli("run", "greeting", "--json", home=home)
    assert ran.returncode == 0, ran.stderr
    run = json.loads(ran.stdout)
    assert {
        "id",
        "state",
        "package",
        "exit_code",
        "signal",
        "results",
        "artifacts",
        "error",
        "started",
        "ended",
    } <= set(run)
    assert (run["state"], run["exit_code"], run["signal"]) == ("succeeded", 0, None)
    assert "made.txt" in [artifact["name"] for artifact in run["artifacts"]]
    assert "six 1.16.0" in cli("runs", "logs", run["id"], home=home).stdout
    shown = json.loads(cli("runs", "show", run["id"], "--json", home=home).stdout)
    assert shown["id"] == run["id"]
    assert [entry["id"] for entry in json.loads(cli("runs", "list", "--json", home=home).stdout)] == [run["id"]]
    status = json.loads(cli("status", "--json", home=home).stdout)
    assert {"agent", "hub", "connected", "slug", "queue"} <= set(status)
    assert status["queue"] == f"{status['slug']}agent"


def test_publishing_again_replaces_the_archive(home: Home, package: Path) -> None:
    first = json.loads(cli("package", "publish", str(package), "--json", home=home).stdout)
    (package / "main.py").write_text("print('the second edition')\n")
    second = json.loads(cli("package", "publish", str(package), "--json", home=home).stdout)
    assert second["id"] == first["id"]
    assert second["fileid"] != first["fileid"]
    ran = json.loads(cli("run", "greeting", "--json", home=home).stdout)
    assert "the second edition" in cli("runs", "logs", ran["id"], home=home).stdout
    files = [path.name for path in (home.hub / "files").iterdir()]
    assert files == [second["fileid"]], "the old archive is gone from the hub"


def test_a_notebook_of_ones_own_with_parameters(home: Home, tmp_path: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell("region = 'US'\nlevel = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("from pathlib import Path\nprint(region, level + 1, Path('beside.txt').read_text())"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "report.ipynb")
    (tmp_path / "beside.txt").write_text("side file")
    ran = cli("run", str(tmp_path / "report.ipynb"), "-p", "region=EU", "-p", "level=41", "--json", home=home)
    assert ran.returncode == 0, ran.stderr
    run = json.loads(ran.stdout)
    assert run["parameters"] == {"region": "EU", "level": 41}
    assert "EU 42 side file" in cli("runs", "logs", run["id"], home=home).stdout


def test_a_home_with_a_long_path_works(home: Home) -> None:
    deep = Home(home.path / ("d" * 60) / ("e" * 60))
    try:
        assert start_agent(deep).request("GET", "status")["connected"]
    finally:
        from tests.conftest import end_all

        end_all(deep)
