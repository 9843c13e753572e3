"""The command line itself: what is understood, what is refused, what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_agent.cli.parser import parse

OWN = ("jupyter_agent", "jupyter_agent.cli", "jupyter_agent.errors", "jupyter_agent.home", "jupyter_agent.processes")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "run",
        "run x -p",
        "run x -p a",
        "run x -p =1",
        "run x --timeout 0",
        "run x --timeout nan",
        "run x --timeout soon",
        "run x --memory -1",
        "run x --memory 1.5",
        "runs",
        "runs show",
        "runs list --limit 0",
        "runs list extra",
        "package publish",
        "hub --port 0",
        "hub --port 65536",
        "hub user",
        "hub user add",
        "hub user add ann",
        "login --username=",
        "status --home=",
        "agents",
        "completion tcsh",
    ],
)
def test_what_cannot_be_understood_is_one_sentence_and_exit_code_2(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse(line.split())
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("jupyter-agent: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    "line",
    [["run", ""], ["runs", "show", " "], ["package", "prepare", ""], ["backup", ""], ["restore", "--home", "", "f"]],
)
def test_a_name_that_is_empty_is_a_variable_that_was_not_set(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Taken for none at all it would mean another home, or all packages."""
    with pytest.raises(SystemExit) as end:
        parse(line)
    assert end.value.code == 2
    assert "a name is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", ["--home H --json runs list", "runs --home H --json list", "runs list --json --home H"]
)
def test_options_of_all_commands_may_stand_anywhere(line: str) -> None:
    given = parse(line.split())
    assert (given.home, given.json, given.action) == ("H", True, "runs:list_runs")


def test_without_them_they_have_their_defaults() -> None:
    given = parse(["runs", "list"])
    assert (given.home, given.json, given.limit, given.state) == (None, False, 50, None)


def test_parameters_keep_what_follows_the_first_equals_sign() -> None:
    assert parse(["run", "x", "-p", "a=b=c", "-p", "d="]).parameters == [("a", "b=c"), ("d", "")]


def test_the_hub_is_a_command_with_and_without_more() -> None:
    assert parse(["hub", "--port", "5"]).action == "hub:serve"
    assert parse(["hub", "user", "add", "ann", "--password-stdin", "--admin"]).action == "hub:add_user"


def test_every_action_exists() -> None:
    """Each ``action`` names a function of a module of the CLI."""
    folder = Path(__file__).parent.parent / "jupyter_agent" / "cli"
    source = (folder / "parser.py").read_text()
    actions = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.count(":") == 1
        if node.value.replace(":", "").replace("_", "").isalpha() and node.value.islower()
    ]
    assert len(actions) >= 14
    for action in actions:
        module, function = action.split(":")
        assert f"\ndef {function}(" in (folder / f"{module}.py").read_text(), action


def test_only_the_standard_library_is_imported_to_talk_to_a_running_agent() -> None:
    program = """
import sys
before = set(sys.modules)
from jupyter_agent import cli
import jupyter_agent.cli.runs, jupyter_agent.cli.run, jupyter_agent.cli.packages, jupyter_agent.cli.agent
import jupyter_agent.cli.demo, jupyter_agent.cli.hub, jupyter_agent.cli.home, jupyter_agent.cli.completion
cli.parser.make_parser()
print("\\n".join(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-I", "-c", _with_path(program)], capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    assert "jupyter_agent.cli.runs" in imported
    foreign = [name for name in imported if name.split(".")[0] not in (*sys.stdlib_module_names, "jupyter_agent")]
    assert foreign == []
    ours = [name for name in imported if name.startswith("jupyter_agent") and not name.startswith("jupyter_agent.cli.")]
    assert set(ours) <= set(OWN)


def _with_path(program: str) -> str:
    """Isolated mode forgets where the package is, in a source tree."""
    return f"import sys; sys.path[:] = {sys.path!r}\n{program}"
