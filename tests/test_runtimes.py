"""Runtimes: packages and files run for real, by the supervisor, in environments made for them."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from jupyter_agent import processes, runtimes
from jupyter_agent.environments import Environments
from jupyter_agent.environments.definitions import Definition, Kind
from jupyter_agent.errors import InvalidInput
from jupyter_agent.packages import Preparations
from jupyter_agent.runs import Limits, OutputLog, Run, Supervisor
from jupyter_agent.runtimes import Site, Task, runtime_for
from jupyter_agent.runtimes.notebook import spec_file
from jupyter_agent.runtimes.places import IPYKERNEL, _asks_for
from jupyter_agent.state import RunRow, RunState, State, new_run_id, now

SIX = "six==1.16.0\n"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Shared by the tests: what one has made, the next one uses."""
    folder = tmp_path_factory.mktemp("site")
    return Site(Environments(folder / "environments"), Preparations(folder / "preparations"))


class Runner:
    """Runs what a runtime plans, as the agent does."""

    def __init__(self, state: State, supervisor: Supervisor, site: Site) -> None:
        self.state = state
        self.supervisor = supervisor
        self.site = site

    async def start(self, folder: Path, entry: str, parameters: dict[str, Any] | None = None, **fields: Any) -> Run:
        language = "notebook" if entry.endswith(".ipynb") else "python"
        row = RunRow(id=new_run_id(), state=RunState.QUEUED, language=language, created=now(), package="sample")
        environ = {**processes.inherited_environment(), "jwt": "t0ken", **fields.pop("env", {})}

        async def prepare(run: Run) -> Any:
            task = Task(
                folder=folder,
                run_folder=run.folder,
                entry=folder / entry,
                parameters=parameters or {},
                env=environ,
                tag=run.row.id,
                **fields,
            )
            return await runtime_for(language).prepare(task, self.site, run)

        return await self.supervisor.submit(row, prepare, limits=Limits(grace_s=8))

    async def run(self, folder: Path, entry: str, parameters: dict[str, Any] | None = None, **fields: Any) -> RunRow:
        return await (await self.start(folder, entry, parameters, **fields)).wait()

    def output(self, row: RunRow, stream: str = "stdout") -> str:
        log = OutputLog(Path(row.folder) / "output").read(0, 1 << 24).chunks
        return "".join(chunk["text"] for chunk in log if chunk["stream"] == stream)


@pytest.fixture
async def runner(tmp_path: Path, site: Site) -> AsyncIterator[Runner]:
    async with State(tmp_path / "state.db") as state:
        supervisor = Supervisor(
            state=state, folder=tmp_path / "runs", max_runs=2, keep_runs=10, recover=runtimes.recover
        )
        async with supervisor:
            yield Runner(state, supervisor, site)


def files(folder: Path, **contents: str) -> Path:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name.replace("_", ".")).write_text(content)
    return folder


def notebook(path: Path, *sources: str, **metadata: Any) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)


async def test_a_script_runs_in_the_environment_of_its_requirements(runner: Runner, tmp_path: Path) -> None:
    code = "import os, six, sys\nprint(six.__version__, os.getcwd(), os.environ['VIRTUAL_ENV'], sys.prefix)"
    folder = files(tmp_path / "package", main_py=code, requirements_txt=SIX)
    row = await runner.run(folder, "main.py")
    assert row.state is RunState.SUCCEEDED, row.error
    version, cwd, virtual, actual = runner.output(row).split()
    assert (version, cwd, virtual) == ("1.16.0", str(folder), actual)
    assert Path(actual).name == row.environment
    assert "Making an environment (1 package)" in runner.output(row, "agent")


async def test_a_script_without_requirements_sees_none_of_ours(runner: Runner, tmp_path: Path) -> None:
    folder = files(tmp_path / "package", main_py="import tornado")
    row = await runner.run(folder, "main.py")
    assert (row.state, row.error) == (RunState.FAILED, "ModuleNotFoundError: No module named 'tornado'")


async def test_what_a_script_prints_is_seen_at_once(runner: Runner, tmp_path: Path) -> None:
    folder = files(tmp_path / "package", main_py="import time\nprint('begun')\ntime.sleep(600)")
    run = await runner.start(folder, "main.py")
    async with asyncio.timeout(60):
        while run.output.size == 0 or "begun" not in runner.output(run.row):  # noqa: ASYNC110 - seen by others
            await asyncio.sleep(0.02)
    row = await runner.supervisor.cancel(run.row.id, who="me")
    assert (await run.wait()).state is RunState.CANCELLED
    assert row.id == run.row.id


async def test_a_single_file_runs_in_our_own_interpreter(runner: Runner, tmp_path: Path) -> None:
    folder = files(tmp_path / "folder", main_py="import sys; print(sys.executable)")
    row = await runner.run(folder, "main.py", own_interpreter=True)
    assert (row.state, row.environment) == (RunState.SUCCEEDED, None)
    assert runner.output(row).strip() == sys.executable
    (folder / "requirements.txt").write_text(SIX)
    row = await runner.run(folder, "main.py", own_interpreter=True)
    assert row.environment is not None
    assert runner.output(row).strip().endswith(f"{row.environment}/bin/python")


async def test_a_notebook_runs_in_a_kernel_of_its_environment(runner: Runner, tmp_path: Path) -> None:
    folder = files(tmp_path / "package", requirements_txt=SIX)
    for name in ("nbclient", "nbformat", "traitlets"):
        (folder / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    notebook(
        folder / "main.ipynb",
        "import os, six, sys\nprint(six.__version__, os.getcwd(), sys.prefix)",
        "print(os.environ['jwt'], os.environ['PYTHONHASHSEED'])",
        "from pathlib import Path\nPath('made.txt').write_text('x')",
        "display({'application/vnd.jupyter-agent+json': {'result': {'rows': rows}}}, raw=True)",
    )
    row = await runner.run(folder, "main.ipynb", {"rows": [1, 2]}, env={"PYTHONHASHSEED": "7"})
    assert row.state is RunState.SUCCEEDED, (row.error, runner.output(row, "stderr"))
    version, cwd, prefix, jwt, seed = runner.output(row).split()[:5]
    assert (version, cwd, Path(prefix).name, jwt, seed) == ("1.16.0", str(folder), row.environment, "t0ken", "7")
    assert row.results == {"rows": [1, 2]}
    assert row.progress == {"done": 5, "total": 5, "label": "cell 5 of 5"}
    assert [artifact["name"] for artifact in row.artifacts] == ["output.ipynb"]
    spec = spec_file(Path(row.folder))
    assert "t0ken" not in spec.read_text()
    assert stat.S_IMODE(spec.stat().st_mode) == 0o600


async def test_a_notebook_that_fails_says_where(runner: Runner, tmp_path: Path) -> None:
    folder = files(tmp_path / "folder")
    notebook(folder / "n.ipynb", "1", "raise ValueError('no such year')")
    row = await runner.run(folder, "n.ipynb", own_interpreter=True)
    assert (row.state, row.error) == (RunState.FAILED, "ValueError: no such year (cell 2 of 2)")
    assert [artifact["name"] for artifact in row.artifacts] == ["output.ipynb"]


async def test_a_kernel_that_dies_is_a_verdict_of_its_own(runner: Runner, tmp_path: Path) -> None:
    folder = files(tmp_path / "folder")
    notebook(folder / "n.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    row = await runner.run(folder, "n.ipynb", own_interpreter=True)
    assert row.state is RunState.KERNEL_DIED
    assert row.error == "The kernel died in cell 1 of 1 (signal SIGSEGV)."


async def test_a_cancelled_notebook_leaves_what_it_did(runner: Runner, tmp_path: Path) -> None:
    folder = files(tmp_path / "folder")
    notebook(folder / "n.ipynb", "print('begun', flush=True)\nimport time\ntime.sleep(600)")
    run = await runner.start(folder, "n.ipynb", own_interpreter=True)
    async with asyncio.timeout(60):
        while "begun" not in runner.output(run.row):  # noqa: ASYNC110 - seen by others
            await asyncio.sleep(0.02)
    await runner.supervisor.cancel(run.row.id, who="me")
    row = await run.wait()
    assert row.state is RunState.CANCELLED
    found = nbformat.read(Path(row.folder) / "output.ipynb", as_version=4)
    assert found.cells[0].outputs[0].text == "begun\n"


async def test_a_killed_child_is_rescued(runner: Runner, tmp_path: Path) -> None:
    folder = files(tmp_path / "folder")
    notebook(folder / "n.ipynb", "import os, time\nprint(os.getppid(), flush=True)\ntime.sleep(600)")
    run = await runner.start(folder, "n.ipynb", own_interpreter=True)
    async with asyncio.timeout(60):
        while not runner.output(run.row).strip():  # noqa: ASYNC110 - seen by others
            await asyncio.sleep(0.02)
    os.kill(int(runner.output(run.row)), signal.SIGKILL)
    row = await run.wait()
    assert row.state is RunState.KILLED
    assert [artifact["name"] for artifact in row.artifacts] == ["output.ipynb"]
    found = nbformat.read(Path(row.folder) / "output.ipynb", as_version=4)
    assert found.cells[0].outputs[0].text == runner.output(row)


def started(command: processes.Command) -> subprocess.Popen[str]:
    return subprocess.Popen(command.argv, env=dict(command.env), stdout=subprocess.PIPE, text=True)


async def test_what_a_gone_agent_left_is_recovered(site: Site, tmp_path: Path) -> None:
    folder = files(tmp_path / "folder")
    run_folder = files(tmp_path / "run")
    notebook(folder / "n.ipynb", "import os, time\nprint(os.getppid(), flush=True)\ntime.sleep(600)")

    class Silent:
        def note(self, text: str) -> None:
            """Nobody listens."""

        def show_progress(self, phase: str, done: float, total: float | None, detail: str = "") -> None:
            """Nobody looks."""

    task = Task(folder, run_folder, folder / "n.ipynb", {}, dict(os.environ), "t", own_interpreter=True)
    prepared = await runtime_for("notebook").prepare(task, site, Silent())
    row = RunRow(id="1", state=RunState.LOST, language="notebook", created=now(), folder=str(run_folder))
    await runtimes.recover(row)  # it was killed before it began
    assert not (run_folder / "output.ipynb").exists()
    assert prepared.command
    child = started(prepared.command)
    assert child.stdout
    printed = await asyncio.to_thread(child.stdout.readline)
    child.kill()
    child.communicate()
    await runtimes.recover(row)
    found = nbformat.read(run_folder / "output.ipynb", as_version=4)
    assert found.cells[0].outputs[0].text == printed
    await runtimes.recover(RunRow(id="2", state=RunState.LOST, created=now(), folder=str(folder)))


@pytest.mark.parametrize(
    ("contents", "entry", "sentence"),
    [
        ({"n_ipynb": "{"}, "n.ipynb", "n.ipynb is not a readable notebook"),
        ({"n_ipynb": '{"nbformat": 4, "cells": [], "metadata": {"kernelspec": {"language": "R"}}}'}, "n.ipynb", "in r"),
        ({"main_py": "", "environment_yml": "- a list"}, "main.py", "environment.yml"),
        ({"main_py": "", "requirements_txt": "-e ."}, "main.py", "requirements.txt asks for '-e .'"),
    ],
)
async def test_what_cannot_be_run_is_told_before_anything_is_made(
    runner: Runner, tmp_path: Path, contents: dict[str, str], entry: str, sentence: str
) -> None:
    row = await runner.run(files(tmp_path / "package", **contents), entry)
    assert row.state is RunState.FAILED
    assert sentence in (row.error or "")
    assert row.started is None
    assert "environment (" not in runner.output(row, "agent")


async def test_a_parameter_that_is_no_name_is_told(runner: Runner, tmp_path: Path) -> None:
    folder = files(tmp_path / "folder")
    notebook(folder / "n.ipynb", "1")
    row = await runner.run(folder, "n.ipynb", {"a b": 1}, own_interpreter=True)
    assert row.error == "The parameter 'a b' cannot be a variable: use letters, digits and underscores."


def test_an_unknown_language_is_told() -> None:
    with pytest.raises(InvalidInput, match=r"^Packages in cobol cannot be run here: there are dotnet, exec, .*\.$"):
        runtime_for("cobol")
    assert {"notebook", "python"} <= set(runtimes.certain_languages()) <= set(runtimes.languages())


@pytest.mark.parametrize(
    ("line", "seen"),
    [("- ipykernel", True), ("  - ipykernel=6.29 # a comment", True), ("  - 'ipykernel >=6'", True),
     ("- conda-forge::ipykernel", True), ("- conda-forge/linux-64::ipykernel", True), ("- ipykernel-extra", False),
     ("- ipykernel.extra", False), ("- my-ipykernel", False), ("- ipykernel  # [win]", False),
     ("# - ipykernel", False), ("\n" * 900_000, False)],
)  # fmt: skip
def test_what_is_asked_for_is_not_asked_for_again(line: str, seen: bool) -> None:  # noqa: FBT001 - a parameter
    definition = Definition("environment.yml", Kind.CONDA, f"dependencies:\n- python\n{line}\n")
    assert _asks_for(definition, IPYKERNEL) is seen
    assert not _asks_for(Definition("requirements.txt", Kind.REQUIREMENTS, "- ipykernel"), IPYKERNEL)
