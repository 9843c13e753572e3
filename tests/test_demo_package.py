"""The demo's package, as it lies in the repository: what can be told without running it."""

from __future__ import annotations

import ast
import json
import tarfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

import jupyter_agent
from jupyter_agent.packages import Manifest, entry_point, pack

FOLDER = Path(jupyter_agent.__file__).parent / "demo_package"
RESULT_TYPE = "application/vnd.jupyter-agent+json"


@pytest.fixture(scope="module")
def notebook() -> Any:
    text = entry_point(FOLDER, Manifest.read(FOLDER)).read_text(encoding="utf-8")
    return nbformat.reads(text, as_version=nbformat.NO_CONVERT)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def plain_python(cell: Any) -> ast.Module:
    return ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith("%")))


def test_the_manifest_names_the_notebook() -> None:
    manifest = Manifest.read(FOLDER)
    assert manifest.name == "seattle-weather"
    assert manifest.language == "notebook"
    assert manifest.description
    assert entry_point(FOLDER, manifest) == FOLDER / "seattle_weather.ipynb"


def test_the_archive_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    with tarfile.open(pack(FOLDER, tmp_path)) as archive:
        names = {member.name for member in archive}
    assert names == {f"package/{name}" for name in ("environment.yml", "package.json", "seattle_weather.ipynb")}


def test_the_notebook_is_valid_and_bare(notebook: Any) -> None:
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(notebook))
    assert notebook.metadata.language_info.name == "python"


def test_cells_keep_names_that_a_difference_can_be_read_by(notebook: Any) -> None:
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert {"parameters", "load", "fit", "results", "conclusion"} <= set(ids)


def test_the_parameters_are_plain_values_in_one_tagged_cell(notebook: Any) -> None:
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert [cell.id for cell in tagged] == ["parameters"]
    assert notebook.cells.index(tagged[0]) < notebook.cells.index(code_cells(notebook)[1])
    values = {}
    for statement in plain_python(tagged[0]).body:
        assert isinstance(statement, ast.Assign)
        assert isinstance(statement.targets[0], ast.Name)
        values[statement.targets[0].id] = ast.literal_eval(statement.value)
    assert values["test_year"] == 2015


def test_everything_imported_is_required_with_a_lower_bound(notebook: Any) -> None:
    environment = yaml.safe_load((FOLDER / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"][0] == "conda-forge"
    required = {each.name: each for each in map(Requirement, environment["dependencies"])}
    assert all(">=" in str(each.specifier) for each in required.values())
    imported = {
        name.split(".")[0]
        for cell in code_cells(notebook)
        for node in ast.walk(plain_python(cell))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    conda_only = {"matplotlib": "matplotlib-base"}  # without a window system, which no kernel needs
    needed = {conda_only.get(name, name) for name in imported - {"logging"}}
    assert needed | {"python", "ipykernel"} == set(required)


def test_named_results_are_displayed(notebook: Any) -> None:
    assert [cell.id for cell in code_cells(notebook) if RESULT_TYPE in cell.source] == ["results"]


def test_the_file_is_written_as_jupyter_writes_it() -> None:
    text = (FOLDER / "seattle_weather.ipynb").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False, sort_keys=False) + "\n"
