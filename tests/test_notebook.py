"""Notebooks in their child process: real kernels, what they print, how they end, what is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from jupyter_agent.errors import InvalidInput, NotFound
from jupyter_agent.notebook import KernelSpec, Spec, check_parameters, outputs, read_notebook
from jupyter_agent.notebook.journal import Journal, to_json
from jupyter_agent.notebook.parameters import inject

KERNEL = (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--HistoryManager.hist_file=:memory:")
RESULT = "display({{{2!r}: {{'result': {{{0!r}: {1}}}}}, 'text/plain': '{0}'}}, raw=True)"


def code(source: str, *tags: str) -> Any:
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


def result(name: str, value: str) -> Any:
    return code(RESULT.format(name, value, outputs.RESULT_TYPE))


def write(path: Path, *cells: Any, **metadata: Any) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells), metadata=metadata), path)
    return path


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: str
    stderr: str
    folder: Path

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def results(self) -> dict[str, Any]:
        return {event["name"]: event["value"] for event in self.of("result")}

    @property
    def notebook(self) -> Any:
        return nbformat.read(self.folder / "output.ipynb", as_version=4)


def prepared(folder: Path, *cells: Any, notebook: Path | None = None, **fields: Any) -> list[str]:
    """The command that executes the cells, its files in ``folder``."""
    (folder / "work").mkdir(exist_ok=True)
    spec = Spec(
        notebook=notebook or write(folder / "work/input.ipynb", *cells),
        output=folder / "output.ipynb",
        events=folder / "events.jsonl",
        cwd=folder / "work",
        **{"kernel": KernelSpec(KERNEL), **fields},
    )
    spec.write(folder / "spec.json")
    return [sys.executable, "-P", "-m", "jupyter_agent.notebook", str(folder / "spec.json")]


def execute(folder: Path, *cells: Any, **fields: Any) -> Outcome:
    command = prepared(folder, *cells, **fields)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=folder / "work")
    return Outcome(done.returncode, done.stdout, done.stderr, folder)


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return value


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """Starts a child and waits until its kernel printed its pid; both are ended afterwards."""
    children: list[subprocess.Popen[str]] = []
    kernels: list[int] = []

    def start(*cells: Any, **fields: Any) -> tuple[subprocess.Popen[str], int]:
        command = prepared(tmp_path, code("import os, time\nprint(os.getpid(), flush=True)"), *cells, **fields)
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout
        kernels.append(int(child.stdout.readline()))
        return child, kernels[-1]

    yield start
    for child in children:
        child.kill()
        child.communicate()
    for pid in kernels:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_notebook_goes_the_whole_way(tmp_path: Path) -> None:
    outcome = execute(
        tmp_path,
        nbformat.v4.new_markdown_cell("# Sales"),
        code("year = 2012\nname = 'x'", "parameters"),
        code("import sys\nprint('year', year)\nprint('careful', file=sys.stderr)"),
        code(""),
        result("year", "year"),
        result("year", "[year, None, float('inf')]"),
        code("name"),
        parameters={"year": 2015, "name": "a \"quoted\" \\ 'text'\n${x} é"},
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.splitlines() == ["year 2015", "year", "year", repr("a \"quoted\" \\ 'text'\n${x} é")]
    assert outcome.stderr == "careful\n"
    assert outcome.results == {"year": [2015, None, None]}
    assert [(event["done"], event["label"]) for event in outcome.of("progress")] == [
        (done, f"cell {number} of 6") for number in range(1, 7) for done in (number - 1, number)
    ]
    assert outcome.of("artifact") == [{"event": "artifact", "path": "output.ipynb"}]
    assert outcome.events[-1]["event"] == "artifact"
    cells = outcome.notebook.cells
    assert cells[2].metadata.tags == ["injected-parameters"]
    assert [cell.execution_count for cell in cells if cell.cell_type == "code"] == [1, 2, 3, None, 4, 5, 6]
    assert outcome.notebook.metadata.language_info.name == "python"
    nbformat.validate(outcome.notebook)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "output.ipynb", "spec.json", "work"]


def test_a_failing_cell_ends_it_with_its_error(tmp_path: Path) -> None:
    outcome = execute(tmp_path, code("print('before')"), code("{}['x']"), code("print('after')"))
    assert outcome.code == 1
    assert outcome.stdout == "before\n"
    assert "KeyError" in outcome.stderr
    assert "\x1b[" in outcome.stderr  # the colours of the traceback
    assert outcome.of("error") == [{"event": "error", "text": "KeyError: 'x' (cell 2 of 3)"}]
    assert outcome.notebook.cells[0].outputs[0].text == "before\n"
    assert outcome.notebook.cells[1].outputs[0].ename == "KeyError"
    assert outcome.notebook.cells[2].execution_count is None


def test_outputs_of_an_earlier_run_are_not_taken_over(tmp_path: Path) -> None:
    old = code("1/0")
    stale = code("print('never')")
    for cell in (old, stale):
        cell.outputs = [nbformat.v4.new_output("stream", text="stale")]
        cell.execution_count = 7
    outcome = execute(tmp_path, old, stale)
    assert "stale" not in (tmp_path / "output.ipynb").read_text()
    assert outcome.notebook.cells[1].execution_count is None


def test_tags_that_skip_a_cell_or_expect_an_error_count(tmp_path: Path) -> None:
    outcome = execute(
        tmp_path, code("1/0", "raises-exception"), code("1/0", "skip-execution"), code("print('reached')")
    )
    assert (outcome.code, outcome.stdout) == (0, "reached\n")
    assert outcome.of("progress")[-1]["total"] == 2


@pytest.mark.parametrize(("call", "expected"), [("sys.exit()", 0), ("sys.exit(0)", 0), ("sys.exit(3)", 1)])
def test_a_notebook_may_end_itself(tmp_path: Path, call: str, expected: int) -> None:
    outcome = execute(tmp_path, code(f"import sys\nprint('last')\n{call}"), code("print('never')"))
    assert (outcome.code, outcome.stdout) == (expected, "last\n")
    assert bool(outcome.of("error")) == bool(expected)


def test_a_kernel_that_dies_is_told(tmp_path: Path) -> None:
    outcome = execute(tmp_path, code("print('before')"), code("import os\nos.kill(os.getpid(), 9)"), code("1"))
    assert outcome.code == 2
    sentence = "The kernel died in cell 2 of 3 (signal SIGKILL; perhaps it ran out of memory)."
    assert outcome.of("kernel_died")
    assert outcome.of("error") == [{"event": "error", "text": sentence}]
    assert outcome.stderr.splitlines()[-1] == sentence
    assert outcome.notebook.cells[0].outputs[0].text == "before\n"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("/nowhere/python", "-f", "{connection_file}"), "The kernel could not be started: "),
        ((sys.executable, "-c", "raise SystemExit(3)"), "The kernel ended before it was ready (exit code 3)."),
        ((sys.executable, "-c", "import time; time.sleep(60)"), "The kernel was not ready within 1 s."),
    ],
)
def test_a_kernel_that_does_not_start_is_told(tmp_path: Path, argv: tuple[str, ...], sentence: str) -> None:
    outcome = execute(tmp_path, code("1"), kernel=KernelSpec(argv), kernel_timeout_s=1)
    assert outcome.code == 2
    assert outcome.of("kernel_died")
    assert outcome.of("error")[0]["text"].startswith(sentence)
    assert outcome.stderr.splitlines()[-1].startswith(sentence)
    assert not list(tmp_path.glob("k*"))


def test_the_parameters_cell_is_replaced_or_made(tmp_path: Path) -> None:
    first = execute(tmp_path, code("print(x)"), parameters={"x": 1})
    assert first.notebook.cells[0].metadata.tags == ["injected-parameters"]
    again = tmp_path / "again"
    again.mkdir()
    second = execute(again, notebook=tmp_path / "output.ipynb", parameters={"x": 2})
    assert second.stdout == "2\n"
    assert len(second.notebook.cells) == 2


def test_a_parameter_that_the_notebook_does_not_have_is_warned_of(tmp_path: Path) -> None:
    outcome = execute(tmp_path, code("year = 2012", "parameters"), code("print(year)"), parameters={"yaer": 2015})
    assert (outcome.code, outcome.stdout) == (0, "2012\n")
    assert outcome.stderr == "The notebook's cell of parameters does not set 'yaer'.\n"


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1.5, float("nan"), "", "a\\", '"""', "é\u2028😀", [1, [2, {}]], {"a b": {"c": [None, False]}}],
)
def test_parameters_become_what_they_were(value: object) -> None:
    notebook = nbformat.v4.new_notebook()
    inject(notebook, {"value": value}, language="python")
    names: dict[str, object] = {}
    exec(notebook.cells[0].source, names)  # noqa: S102 - what the kernel would do
    assert names["value"] == value or (value != value and names["value"] != names["value"])  # noqa: PLR0124 - NaN


@pytest.mark.parametrize("name", ["", "a b", "class", "x=1\nimport os", "x;y", "1x", "é"])
def test_a_name_that_would_become_code_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be a variable"):
        check_parameters({name: 1})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a readable notebook"),
        (b"print('a script')", "is not a readable notebook"),
        (b"\xff\xfe", "is not a readable notebook"),
        (b"[" * 100_000, "is not a readable notebook"),
        (b"[]", 'it has no "nbformat"'),
        (b'{"cells": []}', 'it has no "nbformat"'),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "is not a valid notebook"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 3}', "is not a valid notebook"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{}]}', "is not a valid notebook"),
        (b'{"nbformat": 99, "nbformat_minor": 0, "metadata": {}, "cells": []}', "is not a valid notebook"),
    ],
)
def test_what_is_no_notebook_is_told(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bad.ipynb"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^bad\.ipynb ") as caught:
        outputs.load(path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def _mutations(value: Any, dice: random.Random) -> Any:
    """The value with one thing in it replaced or missing."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(sorted(value))
        if dice.random() < 0.2:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: _mutations(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.9:
        index = dice.randrange(len(value))
        return [*value[:index], _mutations(value[index], dice), *value[index + 1 :]]
    return dice.choice([None, 0, -1, True, "", "parameters", [], {}, [None], {"a": 1}, 4, 3, 1e308, "\ud800"])


def test_whatever_is_in_the_file_it_is_a_notebook_or_a_sentence(tmp_path: Path) -> None:
    first = code("x = 1", "parameters")
    second = code("print(x)", "a", "b")
    second.outputs = [
        nbformat.v4.new_output("stream", text="x"),
        nbformat.v4.new_output("display_data", data={"text/plain": "1"}),
    ]
    whole = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("#"), first, second])
    whole.metadata = {"kernelspec": {"name": "python3", "language": "python"}, "language_info": {"name": "python"}}
    dice = random.Random(3)  # noqa: S311 - not for secrets
    path, saved = tmp_path / "some.ipynb", 0
    for _ in range(600):
        content = json.loads(json.dumps(whole))
        for _ in range(dice.randint(1, 3)):
            content = _mutations(content, dice)
        path.write_text(json.dumps(content))
        try:
            notebook = outputs.load(path, language="python")
        except InvalidInput as error:
            assert "\n" not in str(error)  # noqa: PT017 - most are refused, some are not
            continue
        inject(notebook, {"x": 2}, language="python")
        outputs.save(notebook, tmp_path / "output.ipynb")
        saved += 1
    assert saved > 50


def test_old_notebooks_are_understood(tmp_path: Path) -> None:
    cell = {"cell_type": "code", "language": "python", "input": ["a\n", "b"], "outputs": [], "collapsed": False}
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": [cell], "metadata": {}}]}
    (tmp_path / "old.ipynb").write_text(json.dumps({**old, "metadata": {"name": ""}}))
    assert outputs.load(tmp_path / "old.ipynb").cells[0].source == "a\nb"


def test_a_bad_notebook_ends_the_child_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.ipynb").write_text("{}")
    outcome = execute(tmp_path, notebook=tmp_path / "bad.ipynb")
    assert (outcome.code, outcome.stderr) == (2, 'bad.ipynb is not a notebook: it has no "nbformat".\n')
    assert outcome.of("error")
    assert not outcome.of("kernel_died")
    with pytest.raises(NotFound, match=r"There is no notebook .*gone\.ipynb\."):
        read_notebook(tmp_path / "gone.ipynb")


def test_a_notebook_in_another_language_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "r.ipynb", kernelspec={"name": "ir", "language": "R", "display_name": "R"})
    with pytest.raises(InvalidInput, match=r"r\.ipynb is written in r, but its kernel would run python\."):
        read_notebook(path, language="python")


def test_asking_for_input_fails_at_once(tmp_path: Path) -> None:
    outcome = execute(tmp_path, code("input('Name? ')"))
    assert outcome.code == 1
    assert outcome.of("error")[0]["text"].startswith("StdinNotImplementedError: ")


def test_displays_are_cleared_updated_and_overwritten(tmp_path: Path) -> None:
    outcome = execute(
        tmp_path,
        code("from IPython.display import clear_output\nprint('gone')\nclear_output()\nprint('kept')"),
        code("print('gone')\nclear_output(wait=True)\nprint('new')"),
        code("handle = display('first', display_id=True)"),
        code("handle.update('second')"),
        code("for i in range(100):\n    print(f'\\r{i} %', end='')\nprint()\nprint('a\\r\\nb')"),
    )
    assert outcome.code == 0, outcome.stderr
    cells = outcome.notebook.cells
    assert [output.text for output in cells[0].outputs] == ["kept\n"]
    assert [output.text for output in cells[1].outputs] == ["new\n"]
    assert cells[2].outputs[0].data["text/plain"] == "'second'"
    assert cells[4].outputs[0].text == "99 %\na\r\nb\n"
    assert recovered(tmp_path) == [cell.outputs for cell in cells]


def recovered(folder: Path) -> list[Any]:
    """The outputs of the notebook made of the journal alone."""
    target = folder / "recovered.ipynb"
    command = [sys.executable, "-P", "-m", "jupyter_agent.notebook.recover"]
    files = [str(folder / "events.jsonl"), str(folder / "work/input.ipynb"), str(target)]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(target, as_version=4)
    nbformat.validate(notebook)
    return [cell.get("outputs", []) for cell in notebook.cells]


def test_no_output_is_lost_however_many_there_are(tmp_path: Path) -> None:
    outcome = execute(tmp_path, code("for i in range(4000):\n    display(i)"), code("print('x' * 20_000_000)"))
    assert outcome.code == 0, outcome.stderr
    assert [int(output.data["text/plain"]) for output in outcome.notebook.cells[0].outputs] == list(range(4000))
    assert len(outcome.stdout) > 20_000_000
    assert recovered(tmp_path) == [cell.outputs for cell in outcome.notebook.cells]


def test_modules_in_the_working_folder_do_not_reach_the_child(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    for name in ("json", "zmq", "nbclient", "asyncio", "nbformat", "jupyter_client"):
        (tmp_path / f"work/{name}.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "work/mine.py").write_text("value = 3\n")
    for path in (tmp_path / "work").glob("*.py"):
        if path.stem in ("zmq", "asyncio", "json"):
            path.unlink()  # these the kernel itself would take from there
    outcome = execute(tmp_path, code("import mine\nprint(mine.value)"))
    assert (outcome.code, outcome.stdout) == (0, "3\n"), outcome.stderr


def test_a_long_path_is_no_hindrance(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / ("longer" * 20)
    folder.mkdir(parents=True)
    outcome = execute(folder, code("print(1)"))
    assert (outcome.code, outcome.stdout) == (0, "1\n"), outcome.stderr


def test_a_display_of_our_type_in_another_shape_is_told(tmp_path: Path) -> None:
    outcome = execute(tmp_path, code("display({'application/vnd.jupyter-agent+json': [1]}, raw=True)"))
    assert outcome.code == 0
    assert 'is not of the form {"result": {name: value}}' in outcome.stderr


def test_stopping_interrupts_and_writes_what_there_is(started: Callable[..., Any], tmp_path: Path) -> None:
    child, kernel = started(code("print('begun', flush=True)\ntime.sleep(600)"), code("print('never')"))
    assert child.stdout.readline() == "begun\n"
    child.terminate()
    assert child.wait(30) == 143
    assert not psutil.pid_exists(kernel)
    notebook = nbformat.read(tmp_path / "output.ipynb", as_version=4)
    assert notebook.cells[1].outputs[0].text == "begun\n"
    assert notebook.cells[1].outputs[1].ename == "KeyboardInterrupt"
    assert not notebook.cells[2].outputs
    assert not Outcome(143, "", "", tmp_path).of("error")


def test_a_cell_that_will_not_be_interrupted_is_killed(started: Callable[..., Any], tmp_path: Path) -> None:
    stubborn = (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('begun', flush=True)\ntime.sleep(600)"
    )
    child, kernel = started(code(stubborn))
    assert child.stdout.readline() == "begun\n"
    child.terminate()
    assert child.wait(30) == 143
    assert not psutil.pid_exists(kernel)
    assert nbformat.read(tmp_path / "output.ipynb", as_version=4).cells[1].outputs[0].text == "begun\n"


def test_a_killed_child_takes_its_kernel_along_and_can_be_recovered(
    started: Callable[..., Any], tmp_path: Path
) -> None:
    child, kernel = started(
        code("print(x)\nprint('begun', flush=True)\ntime.sleep(600)"), code("1"), parameters={"x": "given"}
    )
    assert [child.stdout.readline(), child.stdout.readline()] == ["given\n", "begun\n"]
    until(lambda: "begun" in (tmp_path / "events.jsonl").read_text(), "the journal has the output")
    child.kill()
    child.wait()
    until(lambda: not psutil.pid_exists(kernel), "the kernel ended")
    assert not (tmp_path / "output.ipynb").exists()
    found = recovered(tmp_path)
    assert found[0] == []  # the injected parameters
    assert found[2][0].text == "given\nbegun\n"
    assert found[3] == []


def test_a_journal_cut_off_in_a_line_is_recovered(tmp_path: Path) -> None:
    execute(tmp_path, code("print('one')"), code("print('two')"))
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
    cut = next(number for number, line in enumerate(lines) if b'"two' in line)
    (tmp_path / "events.jsonl").write_bytes(b"".join(lines[:cut]) + lines[cut][:40])
    assert [[output.text for output in cell] for cell in recovered(tmp_path)] == [["one\n"], []]


def test_recovering_without_a_journal_is_told(tmp_path: Path) -> None:
    write(tmp_path / "input.ipynb")
    command = [sys.executable, "-P", "-m", "jupyter_agent.notebook.recover"]
    files = [str(tmp_path / name) for name in ("events.jsonl", "input.ipynb", "output.ipynb")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"There is no journal {files[0]}.\n")
    assert not (tmp_path / "output.ipynb").exists()


def test_a_full_disk_ends_the_journal_but_not_the_notebook(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    command = prepared(tmp_path, code("print('done')"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert done.stderr == "The journal of this run cannot be written: No space left on device.\n"


def test_an_output_notebook_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    command = prepared(tmp_path, code("print('x' * 100_000)"))
    limited = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *command]  # files of at most 64 KiB
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "The output notebook could not be written: File too large." in done.stderr
    assert not list(tmp_path.glob("*output.ipynb*"))


def test_the_journal_is_strict_json(tmp_path: Path) -> None:
    with Journal(tmp_path / "events.jsonl") as journal:
        journal.add("result", name="x", value={"a": [float("nan"), 1.5], "b": "\ud800"})
        journal.error("first line\nsecond line")
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(lines[0], parse_constant=pytest.fail)["value"] == {"a": [None, 1.5], "b": "\ud800"}
    assert json.loads(lines[1])["text"] == "first line"
    assert to_json((1, float("-inf"))) == "[1, null]"


def test_a_page_is_made_that_fetches_nothing(tmp_path: Path) -> None:
    picture = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
    cell = code("plot()")
    cell.outputs = [nbformat.v4.new_output("display_data", data=picture)]
    text = nbformat.v4.new_markdown_cell("# Rain & snow\n\n$x^2$")
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2, "version_minor": 0}}
    write(tmp_path / "output.ipynb", text, cell, widgets=widgets)
    command = [sys.executable, "-P", "-m", "jupyter_agent.notebook.html"]
    files = [str(tmp_path / "output.ipynb"), str(tmp_path / "page.html")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "page.html").read_text()
    assert "data:image/png;base64,iVBORw0KGgo=" in page
    assert "<title>Rain &amp; snow</title>" in page
    assert not [piece for piece in page.split('src="')[1:] if not piece.startswith("data:")]
    assert "<link" not in page
    assert "@import" not in page
    (tmp_path / "output.ipynb").write_text("{}")
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, 'output.ipynb is not a notebook: it has no "nbformat".\n')
