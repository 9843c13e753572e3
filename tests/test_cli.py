"""The commands against a real agent, as people and programs use them."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.home import AgentClient, Home, running_agent, write_private
from tests.conftest import cli, end_all, ended, make_package, pid_in, printed, start_agent, until

COMMAND = (sys.executable, "-m", "jupyter_agent.cli")

TALKING = """
import pathlib, sys
print('on stdout')
print('on stderr', file=sys.stderr)
pathlib.Path('made.txt').write_text('made by the run')
"""
FAILING = "import sys\nprint('so far')\nsys.exit('the end of it')\n"
SLOW = "import time\nfor n in range(600):\n    print('tick', n, flush=True)\n    time.sleep(0.1)\n"


@pytest.fixture(scope="module")
def shared() -> Iterator[Home]:
    """A home with a running agent, for all tests that leave it running."""
    made = Home(Path(tempfile.mkdtemp(prefix="ja-")) / "home")
    with pytest.MonkeyPatch.context() as environment:
        for name in ("apiurl", "grpcapiurl", "wsapiurl", "jwt", "agentid"):
            environment.delenv(name, raising=False)
        start_agent(made)
        yield made
        end_all(made)
    shutil.rmtree(made.path.parent, ignore_errors=True)


@pytest.fixture
def talking(tmp_path: Path) -> Path:
    return make_package(tmp_path / "talking", {"main.py": TALKING}, openiap={"language": "python"})


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    return make_package(tmp_path / "failing", {"main.py": FAILING}, openiap={"language": "python"})


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    return make_package(tmp_path / "slow", {"main.py": SLOW}, openiap={"language": "python"})


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence with which a command failed."""
    said = [line for line in done.stderr.splitlines() if line.startswith("jupyter-agent: ")]
    assert len(said) == 1, done
    assert "Traceback" not in done.stderr
    return said[0]


def spawn(home: Home, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """A command that is still running."""
    environment = {**os.environ, "JUPYTER_AGENT_HOME": str(home.path)}
    return subprocess.Popen([*COMMAND, *arguments], env=environment, **options)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, home: Home, *arguments: str, **environment: str) -> None:
        ours, theirs = pty.openpty()
        given = {**os.environ, "JUPYTER_AGENT_HOME": str(home.path), "TERM": "xterm", "COLUMNS": "70", **environment}
        given.pop("NO_COLOR", None) if "NO_COLOR" not in environment else None
        self.process = subprocess.Popen([*COMMAND, *arguments], env=given, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._terminal = ours
        self.text = ""

    def read(self) -> bool:
        """Take what is there; whether the terminal is still open."""
        if select.select([self._terminal], [], [], 0.1)[0]:
            try:
                self.text += os.read(self._terminal, 1 << 16).decode()
            except OSError:  # Linux's way to say that the other side is closed
                return False
        return True

    def to_the_end(self) -> str:
        deadline = time.monotonic() + 120
        while self.read():
            assert time.monotonic() < deadline, self.text
        os.close(self._terminal)
        self.process.wait(10)
        return self.text


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    empty: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    sources = ("print('first')", "import time; time.sleep(0.4)", "1 + 1")
    cells = [{**empty, "id": f"cell{number}", "source": source} for number, source in enumerate(sources)]
    path = tmp_path / "three.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


class TestStatus:
    def test_asking_starts_nothing(self, home: Home) -> None:
        done = cli("status", home=home)
        assert done.returncode == 0
        assert "No agent runs" in done.stdout
        assert json.loads(cli("status", "--json", home=home).stdout)["agent"] is None
        assert not home.path.exists()

    def test_of_a_running_agent(self, agent: AgentClient, home: Home) -> None:
        shown = json.loads(cli("status", "--json", home=home).stdout)
        assert {"agent", "hub", "connected", "slug", "queue"} <= set(shown)
        assert shown == {**agent.request("GET", "status")}
        assert str(shown["agent"]["pid"]) in cli("status", home=home).stdout


class TestServe:
    def test_it_says_one_line_when_ready_and_ends_in_order(self, home: Home) -> None:
        serving = spawn(home, "serve", "--json", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert serving.stdout is not None
        about = json.loads(serving.stdout.readline())
        assert about["agent"]["pid"] == serving.pid == pid_in(home.agent_file)
        assert running_agent(home)
        serving.send_signal(signal.SIGINT)
        assert serving.stdout.read() == b""
        assert serving.wait(60) == 0
        serving.stdout.close()
        assert running_agent(home) is None

    def test_a_second_one_is_refused(self, home: Home) -> None:
        start_agent(home)
        done = cli("serve", home=home)
        assert done.returncode == 1
        assert "already" in sentence(done)


class TestRun:
    def test_output_results_and_files(self, shared: Home, talking: Path) -> None:
        done = cli("run", str(talking), home=shared)
        assert done.returncode == 0, done
        assert done.stdout.startswith("on stdout\n")
        assert "on stderr\n" in done.stderr
        made = re.search(r"^  (\S+made\.txt)", done.stdout, re.MULTILINE)
        assert made
        assert Path(made[1]).read_text() == "made by the run"
        assert "\x1b" not in done.stdout + done.stderr

    def test_json_is_one_document_and_all_else_on_stderr(self, shared: Home, talking: Path) -> None:
        done = cli("run", "--json", str(talking), home=shared)
        run = json.loads(done.stdout)
        assert run["state"] == "succeeded"
        assert run == AgentClient(running_agent(shared) or "").request("GET", f"runs/{run['id']}")
        assert "on stdout" in done.stderr

    def test_a_failed_run(self, shared: Home, failing: Path) -> None:
        done = cli("run", str(failing), home=shared)
        assert done.returncode == 1
        assert "the end of it" in sentence(done)
        assert "so far" in done.stdout
        again = cli("run", "--json", str(failing), home=shared)
        assert again.returncode == 1
        assert json.loads(again.stdout)["state"] == "failed"

    def test_what_cannot_be_started_is_json_too(self, shared: Home) -> None:
        done = cli("run", "--json", "./no/such.ipynb", home=shared)
        assert done.returncode == 1
        assert "such.ipynb" in sentence(done)
        assert set(json.loads(done.stdout)) == {"message", "reason"}

    def test_a_bare_name_is_a_packages_and_a_folder_is_hinted_at(
        self, shared: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_package(tmp_path / "unpublished", {"main.py": TALKING}, openiap={"language": "python"})
        monkeypatch.chdir(tmp_path)
        done = cli("run", "unpublished", home=shared)
        assert done.returncode == 1
        assert "./unpublished" in sentence(done)
        done = cli("run", "./unpublished", home=shared)
        assert done.returncode == 0, done

    def test_parameters_reach_the_run(self, shared: Home, tmp_path: Path) -> None:
        program = "import json, os\nprint(json.dumps(json.load(open(os.environ['payloadfile']))))\n"
        folder = make_package(tmp_path / "asks", {"main.py": program}, openiap={"language": "python"})
        done = cli("run", str(folder), "-p", "n=5", "-p", "t='5'", "-p", "u=a=b", "-p", "on=true", home=shared)
        assert json.loads(done.stdout.splitlines()[0]) == {"n": 5, "t": "5", "u": "a=b", "on": True}

    def test_a_time_limit(self, shared: Home, slow: Path) -> None:
        done = cli("run", "--json", str(slow), "--timeout", "1.5", home=shared)
        assert done.returncode == 1
        assert json.loads(done.stdout)["state"] == "timed_out"

    def test_interrupting_cancels_the_run_and_waits_for_its_end(self, shared: Home, slow: Path) -> None:
        agent = start_agent(shared)
        running = spawn(shared, "run", str(slow), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert running.stdout is not None
        assert running.stdout.readline() == b"tick 0\n"
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        with running.stdout, running.stderr:  # not by communicate(): what came with the first line is in the buffer
            out, err = running.stdout.read(), running.stderr.read()
        running.wait(60)
        assert running.returncode == 130, err
        assert b"ancel" in err
        assert b"Traceback" not in err
        ticks = [int(line.split()[1]) for line in out.decode().splitlines() if line.startswith("tick")]
        assert ticks == list(range(1, len(ticks) + 1)), "nothing is shown twice, nothing is left out"
        assert agent.request("GET", "runs")["runs"][0]["state"] == "cancelled"

    def test_an_agent_that_is_killed_meanwhile(self, home: Home, slow: Path) -> None:
        start_agent(home)
        running = spawn(home, "run", "--json", str(slow), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert running.stderr is not None
        while b"tick 3" not in running.stderr.readline():
            pass
        os.kill(pid_in(home.agent_file) or 0, signal.SIGKILL)
        out, err = running.communicate(timeout=60)
        assert running.returncode == 1
        assert json.loads(out).get("state") == "lost", (out, err)
        assert b"Traceback" not in err


class TestTerminal:
    def test_progress_is_drawn_and_taken_away(self, shared: Home, notebook: Path) -> None:
        text = Terminal(shared, "run", str(notebook)).to_the_end()
        assert re.search(r"\r\x1b\[K.*cell [23] of 3.*█", text)
        assert "\x1b[32m✓ succeeded" in text or "✓ succeeded" in text
        shown = [line.rsplit("\r\x1b[K", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")]
        assert "first" in shown
        assert not any("░" in line for line in shown), "no bar is left standing"
        longest = max(re.sub(r"\x1b\[[0-9;]*[mK]", "", part) for part in re.split(r"[\r\n]+", text) if "of 3" in part)
        assert len(longest) < 70

    @pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
    def test_colours_are_not_forced(self, shared: Home, talking: Path, environment: dict[str, str]) -> None:
        assert cli("run", str(talking), home=shared).returncode == 0
        text = Terminal(shared, "runs", "list", **environment).to_the_end()
        assert "succeeded" in text
        assert "\x1b[" not in text

    def test_a_table_fits_the_terminal(self, shared: Home, tmp_path: Path) -> None:
        folder = make_package(tmp_path / ("long-" * 20), {"main.py": FAILING}, openiap={"language": "python"})
        assert cli("run", str(folder), home=shared).returncode == 1
        text = Terminal(shared, "runs", "list", "--package", folder.name).to_the_end()
        lines = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r", "").splitlines()
        assert len(lines) == 2
        assert all(len(line) <= 70 for line in lines)


class TestRuns:
    def test_detached_and_found_again(self, shared: Home, slow: Path, talking: Path) -> None:
        agent = start_agent(shared)
        run_id = cli("run", str(slow), "--detach", home=shared).stdout.strip()
        until(lambda: "tick 2" in printed(agent, run_id))
        other = json.loads(cli("run", "--json", str(talking), home=shared).stdout)["id"]
        listed = json.loads(cli("runs", "list", "--json", home=shared).stdout)
        assert [run["id"] for run in listed[:2]] == [other, run_id]
        only = json.loads(cli("runs", "list", "--json", "--state", "running", "--limit", "1", home=shared).stdout)
        assert [run["id"] for run in only] == [run_id]
        of_one = json.loads(cli("runs", "list", "--json", "--package", "slow", home=shared).stdout)
        assert {run["package"] for run in of_one} == {"slow"}
        assert of_one[0]["id"] == run_id
        table = cli("runs", "list", home=shared).stdout
        assert run_id in table
        assert "running" in table
        assert json.loads(cli("runs", "show", "last", "--json", home=shared).stdout)["id"] == other
        assert run_id in cli("runs", "show", run_id[:-1], home=shared).stdout
        assert run_id in cli("runs", "show", run_id[-8:], home=shared).stdout
        cancelled = cli("runs", "cancel", run_id, "--json", home=shared)
        assert cancelled.returncode == 0
        assert json.loads(cancelled.stdout)["state"] == "cancelled"
        again = cli("runs", "cancel", run_id, home=shared)
        assert again.returncode == 1
        assert "ended already" in sentence(again)

    def test_ids_that_name_no_run_or_several(self, home: Home, talking: Path) -> None:
        start_agent(home)
        assert "no runs yet" in sentence(cli("runs", "show", "last", home=home))
        ids = [json.loads(cli("run", "--json", str(talking), home=home).stdout)["id"] for _ in range(2)]
        shared = ids[0][:4]
        assert ids[1].startswith(shared)
        assert "2 runs" in sentence(cli("runs", "show", shared, home=home))
        assert "no run" in sentence(cli("runs", "show", "zzzzzzzz", home=home))
        for strange in ("../status", "a?b", "a#b", "%2e%2e"):
            assert "no run" in sentence(cli("runs", "show", strange, home=home))

    def test_logs_keep_the_streams_apart(self, shared: Home, talking: Path) -> None:
        run = json.loads(cli("run", "--json", str(talking), home=shared).stdout)
        for more in ([], ["-f"]):
            done = cli("runs", "logs", run["id"], *more, home=shared)
            assert done.returncode == 0
            assert done.stdout == "on stdout\n"
            assert "on stderr\n" in done.stderr
        document = json.loads(cli("runs", "logs", run["id"], "--json", home=shared).stdout)
        assert "".join(c["text"] for c in document["chunks"] if c["stream"] == "stdout") == "on stdout\n"

    def test_following_the_logs_of_a_run_to_its_end(self, shared: Home, slow: Path) -> None:
        agent = start_agent(shared)
        run_id = cli("run", str(slow), "--detach", home=shared).stdout.strip()
        following = spawn(shared, "runs", "logs", "-f", run_id, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert following.stdout is not None
        assert [following.stdout.readline() for _ in range(2)] == [b"tick 0\n", b"tick 1\n"]
        agent.request("POST", f"runs/{run_id}/cancel", {})
        following.stdout.read()
        assert following.wait(60) == 0
        following.stdout.close()

    def test_a_reader_that_has_enough_is_no_error(self, shared: Home, tmp_path: Path) -> None:
        program = "for n in range(200000):\n    print('line', n)\n"
        folder = make_package(tmp_path / "long", {"main.py": program}, openiap={"language": "python"})
        run_id = json.loads(cli("run", "--json", str(folder), home=shared).stdout)["id"]
        reading = spawn(shared, "runs", "logs", run_id, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert reading.stdout is not None
        assert reading.stderr is not None
        assert reading.stdout.readline() == b"line 0\n"
        reading.stdout.close()
        assert reading.stderr.read() == b""
        assert reading.wait(60) != 0
        reading.stderr.close()

    def test_files(self, shared: Home, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run_id = json.loads(cli("run", "--json", str(talking), home=shared).stdout)["id"]
        listed = json.loads(cli("runs", "artifacts", "last", "--json", home=shared).stdout)
        assert [artifact["name"] for artifact in listed] == ["made.txt"]
        assert "made.txt" in cli("runs", "artifacts", run_id, home=shared).stdout
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        assert cli("runs", "artifacts", run_id, "made.txt", home=shared).returncode == 0
        assert Path("made.txt").read_text() == "made by the run"
        assert "exists already" in sentence(cli("runs", "artifacts", run_id, "made.txt", home=shared))
        assert cli("runs", "artifacts", run_id, "made.txt", "-o", "other.txt", home=shared).returncode == 0
        assert cli("runs", "artifacts", run_id, "made.txt", "-o", "-", home=shared).stdout == "made by the run"
        missing = cli("runs", "artifacts", run_id, "no.txt", home=shared)
        assert missing.returncode == 1
        assert "no.txt" in sentence(missing)
        assert sorted(path.name for path in Path().iterdir()) == ["made.txt", "other.txt"]

    def test_what_a_run_says_steers_no_terminal(self, shared: Home, tmp_path: Path) -> None:
        program = "import sys\nsys.exit('\\x1b]0;owned\\x07 the end')\n"
        folder = make_package(tmp_path / "rude", {"main.py": program}, openiap={"language": "python"})
        cli("run", str(folder), home=shared)
        for command in (("runs", "list"), ("runs", "show", "last")):
            done = cli(*command, home=shared)
            assert "the end" in done.stdout
            assert "\x1b" not in done.stdout


class TestPackages:
    def test_packing(self, home: Home, talking: Path, tmp_path: Path) -> None:
        done = cli("package", "pack", str(talking), "-o", str(tmp_path / "t.tgz"), "--json", home=home)
        assert json.loads(done.stdout) == {
            "path": str(tmp_path / "t.tgz"),
            "name": "talking",
            "version": "1.0.0",
            "size": (tmp_path / "t.tgz").stat().st_size,
        }
        assert running_agent(home) is None, "packing needs no agent"
        missing = cli("package", "pack", str(tmp_path / "none"), home=home)
        assert missing.returncode == 1
        assert "none" in sentence(missing)

    def test_publishing_listing_showing_running(self, shared: Home, talking: Path) -> None:
        published = json.loads(cli("package", "publish", str(talking), "--json", home=shared).stdout)
        assert (published["name"], published["version"]) == ("talking", "1.0.0")
        assert "talking" in cli("package", "list", home=shared).stdout
        shown = json.loads(cli("package", "show", "talking", "--json", home=shared).stdout)
        assert shown["id"] == published["id"]
        assert published["id"] in cli("package", "show", published["id"], home=shared).stdout
        assert cli("run", published["id"], home=shared).returncode == 0
        missing = cli("package", "show", "none/such", home=shared)
        assert missing.returncode == 1
        assert "none/such" in sentence(missing)


class TestHub:
    def test_a_user_may_be_added_with_and_without_a_running_hub(self, home: Home) -> None:
        added = cli("hub", "user", "add", "ann", "--password-stdin", home=home, text="a good password\n")
        assert added.returncode == 0, added
        hub = spawn(home, "hub", "--json", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert hub.stdout is not None
        assert {"apiurl", "username", "password", "jwt"} <= set(json.loads(hub.stdout.readline()))
        added = cli("hub", "user", "add", "bob", "--password-stdin", "--admin", home=home, text="another password\n")
        assert added.returncode == 0, added
        hub.send_signal(signal.SIGINT)
        hub.wait(30)
        hub.stdout.close()

    def test_no_password(self, home: Home) -> None:
        refused = cli("hub", "user", "add", "ann", "--password-stdin", home=home, text="")
        assert refused.returncode == 1
        assert "assword" in refused.stderr
        assert "Traceback" not in refused.stderr


class TestDemo:
    def test_it_is_not_published_to_another_openflow_unasked(self, home: Home) -> None:
        status = start_agent(home).request("GET", "status")
        credentials = json.loads((home.hub / "credentials.json").read_text())
        other = Home(home.path.parent / "other")
        other.prepare()
        write_private(other.config_file, json.dumps({"apiurl": status["hub"]["apiurl"], "jwt": credentials["jwt"]}))
        done = cli("demo", "--home", str(other.path), home=home)
        try:
            assert done.returncode == 1
            assert status["hub"]["apiurl"] in sentence(done)
            assert "--here" in done.stderr
            assert AgentClient(running_agent(other) or "").request("GET", "packages") == []
        finally:
            AgentClient(running_agent(other) or "").request("POST", "shutdown", {})
            until(lambda: running_agent(other) is None)


def test_files_of_a_killed_fetch_are_not_left_behind(shared: Home, tmp_path: Path) -> None:
    program = f"with open('big.bin', 'wb') as file:\n    file.truncate({200 << 20})\n"
    folder = make_package(tmp_path / "big", {"main.py": program}, openiap={"language": "python"})
    agent = start_agent(shared)
    run = ended(agent, agent.request("POST", "runs", {"target": str(folder)})["id"])
    target = tmp_path / "there"
    target.mkdir()
    fetching = spawn(shared, "runs", "artifacts", run["id"], "big.bin", "-o", str(target / "big.bin"))
    until(lambda: any(target.iterdir()))
    fetching.send_signal(signal.SIGINT)
    if fetching.wait(30) != 0:
        assert list(target.iterdir()) == []


def test_modules_in_the_folder_one_is_in_do_no_harm(home: Home, tmp_path: Path) -> None:
    for name in ("random", "tornado", "token", "jupyter_agent"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    program = Path(sys.executable).parent / "jupyter-agent"
    if not program.exists():  # the command itself is then started by ``-m``, which is the shell's doing, not ours
        program = tmp_path / "bin" / "jupyter-agent"
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\nimport sys\nfrom jupyter_agent.cli import main\nsys.exit(main())\n")
        program.chmod(0o755)
    environment = {**os.environ, "JUPYTER_AGENT_HOME": str(home.path)}
    done = subprocess.run(
        [program, "package", "list"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [("status", 0), ("logout", 0), ("login ws://127.0.0.1:9 --username ann", 1)],
)
def test_streams_that_are_closed_or_cannot_be_written(home: Home, command: str, code: int) -> None:
    """As daemons and jobs are started, and on a full disk: a sentence at most, and the exit code as ever."""
    for streams, expected in (
        ("<&-", code), (">&-", code), ("--json >&-", code), ("2>&-", code), ("<&- >&- 2>&-", code),
        (">/dev/full", 1), ("--json >/dev/full", 1),
    ):  # fmt: skip
        done = subprocess.run(
            ["sh", "-c", f'"$0" -m jupyter_agent.cli {command} {streams}', sys.executable],
            env={**os.environ, "JUPYTER_AGENT_HOME": str(home.path)}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == expected, (streams, done)
        assert "Traceback" not in done.stderr, (streams, done.stderr)
        assert "Exception" not in done.stderr, (streams, done.stderr)
