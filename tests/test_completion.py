"""Completion in the shells themselves: what is typed, and what the Tab key makes of it."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_agent.cli.completion import next_words
from jupyter_agent.cli.parser import make_parser
from jupyter_agent.home import AgentClient, Home, running_agent
from tests.conftest import cli, end_all, ended, make_package, start_agent
from tests.test_readme import commands

DEADLINE_S = 60
TAB = "\t"
SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
SET_UP = {
    "bash": 'bind "set bell-style none"; eval "$(jupyter-agent completion bash)"; PS1=; echo re""ady\n',
    "zsh": 'autoload -U compinit; compinit -u -D; eval "$(jupyter-agent completion zsh)"; PS1=; echo re""ady\n',
    "fish": 'jupyter-agent completion fish | source; echo re""ady\n',
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command, as an installation has it."""
    folder = tmp_path_factory.mktemp("bin")
    for name, words in (("jupyter-agent", ""), ("jupyter", "shift")):
        script = folder / name
        script.write_text(f'#!/bin/sh\n{words}\nexec {sys.executable} -m jupyter_agent.cli "$@"\n')
        script.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Home, str]]:
    """A home with a running agent that knows a package and a run; the run's id."""
    made = Home(Path(tempfile.mkdtemp(prefix="ja-")) / "home")
    with pytest.MonkeyPatch.context() as environment:
        for name in ("apiurl", "grpcapiurl", "wsapiurl", "jwt", "agentid"):
            environment.delenv(name, raising=False)
        agent = start_agent(made)
        folder = made.path.parent / "quiet-report"
        make_package(folder, {"main.py": "print(1)"}, openiap={"language": "python"})
        agent.request("POST", "packages", {"path": str(folder)})
        run = agent.request("POST", "runs", {"target": str(folder)})
        ended(agent, run["id"])
        yield made, run["id"]
        end_all(made)
    shutil.rmtree(made.path.parent, ignore_errors=True)


class Shell:
    """A shell on a terminal, with our completion."""

    def __init__(self, name: str, path: Path, home: Home, folder: Path) -> None:
        ours, theirs = pty.openpty()
        environment = {
            "PATH": f"{path}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "dumb" if name != "fish" else "xterm",
            "LANG": "C.UTF-8",
            "JUPYTER_AGENT_HOME": str(home.path),
            "COLUMNS": "200",
        }
        self.process = subprocess.Popen(
            SHELLS[name],
            env=environment,
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._terminal = ours
        self.text = ""
        self.type(SET_UP[name])
        self.until("ready")

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def until(self, wanted: str) -> str:
        deadline = time.monotonic() + DEADLINE_S
        while not (found := re.search(wanted, self.text)):
            assert time.monotonic() < deadline, self.text
            if select.select([self._terminal], [], [], 0.1)[0]:
                data = os.read(self._terminal, 1 << 16).decode(errors="replace")
                self.text += data
                if "\x1b[c" in data or "\x1b[0c" in data:  # fish asks what terminal it is on
                    self.type("\x1b[?62c")
        seen, self.text = self.text[: found.end()], self.text[found.end() :]
        return seen

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.fixture(params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest, path: Path, shared: tuple[Home, str], tmp_path: Path) -> Iterator[Shell]:
    assert shutil.which(request.param), f"The tests of completion need {request.param}: install Debian's package of it."
    opened = Shell(request.param, path, shared[0], tmp_path)
    yield opened
    opened.close()


def test_the_tab_key(shell: Shell, shared: tuple[Home, str]) -> None:
    """Commands, options, states, the ids of runs, names of packages: each typed in part and completed."""
    run = shared[1]
    for begun, completed in (
        ("jupyter-agent compl", "completion "),
        ("jupyter-agent runs list --pack", "--package "),
        ("jupyter-agent runs list --state cancel", "cancelled "),
        (f"jupyter-agent runs show {run[:-3]}", re.escape(run)),
        ("jupyter-agent package show qui", "quiet-report "),
    ):
        shell.type(f"echo {TAB}\x15{begun}{TAB}")
        shell.until(completed)
        shell.type("\x15")


def test_fish_completes_with_what_it_is(path: Path, shared: tuple[Home, str], tmp_path: Path) -> None:
    assert shutil.which("fish"), "The tests of completion need fish: install Debian's package of it."
    home, run = shared

    def asked(line: str) -> str:
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"jupyter-agent completion fish | source; complete -C '{line}'"],
            env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}", "JUPYTER_AGENT_HOME": str(home.path)},
            cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S, check=True,
        )  # fmt: skip
        return done.stdout

    (tmp_path / "a-package").mkdir()
    assert "backup\twrite the whole home into a file" in asked("jupyter-agent ba")
    assert f"{run}\tquiet-report, succeeded" in asked("jupyter-agent runs logs ")
    assert "a-package/" in asked("jupyter-agent package pack a-")


def test_bash_completes_under_jupyter_too(path: Path, shared: tuple[Home, str]) -> None:
    script = (
        'eval "$(jupyter-agent completion bash)"; COMP_WORDS=(jupyter agent package show ""); COMP_CWORD=4; '
        '_jupyter_agent_of_jupyter jupyter; printf "%s\\n" "${COMPREPLY[@]}"; complete -p jupyter'
    )
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}", "JUPYTER_AGENT_HOME": str(shared[0].path)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "quiet-report", "complete -o default -F _jupyter_agent_of_jupyter jupyter",
    ]  # fmt: skip


def test_every_command_is_found_word_by_word() -> None:
    nowhere = Home(Path("/nonexistent/home"))
    for words in commands(make_parser()):
        for count in range(len(words)):
            found = [word.text for word in next_words([*words[:count], words[count][:2]], nowhere)]
            assert words[count] in found, words
        options = [word.text for word in next_words([*words, "--"], nowhere)]
        assert {"--home", "--json"} <= set(options), words
        assert "--for" not in options


def test_without_an_agent_nothing_is_started_and_what_is_known_is_told(home: Home) -> None:
    done = cli("completion", "bash", "--for", "runs", "show", "", home=home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not home.path.exists()
    assert "--home" in cli("completion", "bash", "--for", "runs", "show", "--h", home=home).stdout


def test_the_home_on_the_line_counts(home: Home, shared: tuple[Home, str]) -> None:
    words = ["--home", str(shared[0].path), "runs", "show", ""]
    assert [word.text for word in next_words(words, home)][:2] == ["last", shared[1]]


def test_an_agent_that_does_not_answer_is_not_waited_for(shared: tuple[Home, str]) -> None:
    """One that is stopped: its socket still takes connections."""
    import psutil

    home = shared[0]
    socket = running_agent(home)
    assert socket
    agent = psutil.Process(AgentClient(socket).request("GET", "status")["agent"]["pid"])
    agent.suspend()
    try:
        assert next_words(["package", "show", ""], home) == []
    finally:
        agent.resume()
    assert [word.text for word in next_words(["package", "show", ""], home)] == ["quiet-report"]
