"""What is read from a Node package and told by npm, and runtimes that other distributions bring."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_agent import processes, runtimes
from jupyter_agent.errors import InvalidInput
from jupyter_agent.runtimes import Task
from jupyter_agent.runtimes.nodejs.npm import Npm, explanation
from jupyter_agent.runtimes.nodejs.plan import planned
from jupyter_agent.runtimes.nodejs.project import DECIDING, Project, too_old
from jupyter_agent.runtimes.nodejs.start import started


async def test_credentials_in_the_address_of_a_registry_stay_in_npms_environment(tmp_path: Path) -> None:
    npm = Npm("npm", {"NPM_REGISTRY": "https://me:p%40ss@registry.invalid/npm"})
    own = await npm._registry(tmp_path / "npmrc", "a test")
    text = (tmp_path / "npmrc").read_text()
    assert text == "registry=https://registry.invalid/npm/\n//registry.invalid/npm/:_auth=${JUPYTER_AGENT_NPM_AUTH}\n"
    assert own["JUPYTER_AGENT_NPM_AUTH"] == "bWU6cEBzcw=="
    assert npm.hide("p@ss and p%40ss of https://a:b@c") == "*** and *** of https://***@c"
    assert "p%40ss" not in npm.registries()
    assert "p%40ss" not in repr(npm)


@pytest.mark.parametrize(
    ("asked", "old"),
    [
        (">=18", False),
        (">= 20.1.1", True),
        ("^22 || >=24", True),
        ("18 || 20", False),
        ("20.x", False),
        ("~20.2", True),
        ("v21", True),
        (">=16 <19", False),
        ("20.1 - 22", False),
        ("21 - 22", True),
        ("*", False),
        ("lts/*", False),
        ("", False),
    ],
)
def test_an_old_node_is_told_by_the_lower_bounds(asked: str, old: bool) -> None:  # noqa: FBT001 - a table's column
    assert too_old(asked, "20.1.0") is old


def test_npms_words_are_made_a_sentence() -> None:
    told = (
        "npm warn deprecated x\nnpm error code ERESOLVE\nnpm error ERESOLVE could not resolve\nnpm error\n"
        "npm error While resolving: p@1.0.0\nnpm error A complete log of this run can be found in: /x\n"
    )
    assert explanation(told) == "ERESOLVE could not resolve While resolving: p@1.0.0"
    assert explanation("npm ERR! code E401\nnpm ERR! Unable to authenticate\n") == "E401: Unable to authenticate"


def test_a_project_that_is_no_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "package-lock.json").write_text("<<<<<<< HEAD")
    with pytest.raises(InvalidInput, match=r"/package-lock\.json is not readable as JSON"):
        Project.read(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


FIELDS = (*DECIDING, "scripts", "engines", "workspaces", "config", "name", "version")


NAMES = st.sampled_from(("start", "prestart", "build", "install", "dep", "../x", "", "packages", "dependencies"))


ABOUT = st.dictionaries(st.sampled_from(FIELDS), JSON | st.dictionaries(NAMES, JSON, max_size=4), max_size=6)


@settings(max_examples=100, deadline=None)
@given(about=ABOUT, lock=JSON | st.dictionaries(NAMES, JSON | st.dictionaries(NAMES, JSON), max_size=4))
def test_whatever_a_package_says_is_planned_or_told(about: dict[str, Any], lock: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "package.json").write_text(json.dumps(about))
        (folder / "package-lock.json").write_text(json.dumps(lock))
        try:
            project = Project.read(folder)
        except InvalidInput:
            return
        for entry in ("main.js", "package.json", "dist/x.ts"):
            plan = planned(project, folder / entry)
            task = Task(folder, folder, folder / entry, {}, {}, "t")
            assert started(project, plan, task, "/node", ()).argv
        assert project.decides_install(dev=True)
        too_old(project.node_wanted, "20.1.0")


FURTHER = """
from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared

class Cobol:
    language = "cobol"
    tools = ()
    def missing(self):
        return None
    async def prepare(self, task, site, run):
        return Prepared(Command(("cat", str(task.entry)), task.folder, task.env))

def broken():
    raise ValueError("this one is broken")
"""


async def test_another_distribution_brings_a_runtime(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    about = installed / "cobol_runtime-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cobol-runtime\nVersion: 1.0\n")
    points = (
        "cobol = cobol_runtime:Cobol\nbasic = cobol_runtime:broken\nfortran = nowhere:X\npython = cobol_runtime:Cobol\n"
    )
    (about / "entry_points.txt").write_text(f"[jupyter_agent.runtimes]\n{points}")
    (installed / "cobol_runtime.py").write_text(FURTHER)
    program = (
        "import logging; logging.basicConfig()\n"
        "from jupyter_agent import runtimes\n"
        "print(type(runtimes.runtime_for('COBOL')).__name__, type(runtimes.runtime_for('python')).__name__)\n"
        "print('cobol' in runtimes.languages(), 'basic' in runtimes.languages())\n"
    )
    command = processes.Command((sys.executable, "-c", program), tmp_path, {**os.environ, "PYTHONPATH": str(installed)})
    done = await processes.run(command, tag="a test", timeout_s=60)
    assert "Cobol Python\nTrue False\n" in done.output
    for name in ("basic", "fortran", "python"):
        assert f"The runtime {name} of " in done.output
    with pytest.raises(InvalidInput):
        runtimes.runtime_for("cobol")
