"""What the doctor finds, each fault really made; and that a healthy home has none of them."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from jupyter_core.paths import jupyter_config_path

from jupyter_agent import __version__
from jupyter_agent.agent.doctor import channels, jupyter, openflow, places, programs, running
from jupyter_agent.agent.doctor.findings import Case, Finding
from jupyter_agent.agent.mounts import file_system_of, network_file_system, refuse_network
from jupyter_agent.errors import InvalidInput
from jupyter_agent.home import Home, Lock, read_json, write_private
from tests.certificates import identity
from tests.conftest import cli, pid_in, small_file_system, start_agent, until
from tests.openflow_peers import Hub

UNREACHABLE = "http://127.0.0.1:9/simple"


def case(home: Home, **environ: str) -> Case:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return Case(home, {**kept, **environ}, Path(environ.get("TMPDIR", "/tmp")))


def found(module: Any, looked_at: Case, name: str, state: str) -> Finding:
    """The finding of this name and state, which says what to do when it is no good one."""
    findings: list[Finding] = asyncio.run(module.look(looked_at))
    chosen = [finding for finding in findings if (finding.name, finding.state) == (name, state)]
    assert chosen, findings
    assert all(finding.todo for finding in findings if finding.state != "ok")
    assert all(finding.message.rstrip().endswith((".", "!", ")")) for finding in findings), findings
    return chosen[0]


@pytest.fixture
def made(home: Home) -> Home:
    """A home that is there."""
    home.prepare()
    return home


class TestTheCommand:
    def test_with_an_agent_that_is_well(self, home: Home) -> None:
        start_agent(home)
        done = cli("doctor", "--json", home=home)
        told = json.loads(done.stdout)
        by_name = {check["name"]: check for check in told["checks"] if check["state"] != "ok"}
        assert done.returncode == (1 if told["problems"] else 0)
        assert not {"agent", "hub", "permissions", "home", "writing", "databases", "settings"} & set(by_name), by_name
        assert {"state", "message", "todo", "name"} == set(told["checks"][0])
        agent = next(check for check in told["checks"] if check["name"] == "agent")
        assert str(pid_in(home.agent_file)) in agent["message"]

    def test_a_check_that_breaks_spoils_no_other_and_no_home_is_made(self, home: Home) -> None:
        """With a module that a check needs gone, where only ASCII can be printed: it is told, all else looked at."""
        program = (
            "import sys\nsys.modules['websockets'] = None\n"
            "from jupyter_agent.agent.__main__ import main\nsys.exit(main(sys.argv[1:]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, "doctor", "--home", str(home.path)],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 1, done
        assert "jupyter_agent is not whole" in done.stdout
        assert "    -> pip install --force-reinstall" in done.stdout
        for name in ("home", "agent", "Python packages", "server extension"):
            assert re.search(rf"^(ok|warning|PROBLEM) +{name} ", done.stdout, re.MULTILINE), done.stdout
        assert not home.path.exists()


class TestPlaces:
    def test_permissions(self, made: Home) -> None:
        made.path.chmod(0o755)
        assert f"chmod 700 {made.path}" in found(places, case(made), "permissions", "problem").todo
        made.path.chmod(0o700)
        made.config_file.write_text("{}")
        made.config_file.chmod(0o644)
        assert f"chmod 600 {made.config_file}" in found(places, case(made), "permissions", "problem").todo
        made.config_file.chmod(0o600)
        found(places, case(made), "permissions", "ok")

    def test_owner(self, made: Home) -> None:
        if os.geteuid() != 0:  # only root can give a file away, and what is root's there is everywhere
            found(places, case(Home(Path("/usr"))), "owner", "problem")
            return
        os.chown(made.path, 12345, 12345)
        try:
            assert "chown" in found(places, case(made), "owner", "problem").todo
        finally:
            os.chown(made.path, os.geteuid(), os.getegid())

    def test_versions_and_databases(self, made: Home) -> None:
        found(places, case(made), "versions", "ok")
        (made.path / "version").write_text("99\n")
        assert "newer version" in found(places, case(made), "home", "problem").message
        (made.path / "version").write_text("1\n")
        made.state_file.write_bytes(b"SQLite format 3\0" + os.urandom(8000))
        told = found(places, case(made), "databases", "problem").message
        assert "state.db is damaged" in told
        assert "\n" not in told

    def test_an_identity_that_is_broken(self, made: Home) -> None:
        """The agent does not start with it."""
        (made.path / "identity.json").write_text("[]")
        assert "rm " in found(places, case(made), "identity", "problem").todo

    def test_a_home_that_is_a_file_or_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        found(places, case(Home(tmp_path / "file")), "home", "problem")
        found(places, case(Home(tmp_path / "file" / "below")), "home", "problem")

    def test_what_a_restore_left(self, made: Home) -> None:
        (left := made.path.with_name(f"{made.path.name}.restore-1")).mkdir()
        assert str(left) in found(places, case(made), "restore", "warning").message

    def test_a_long_path_is_no_fault(self, tmp_path: Path) -> None:
        assert "lies elsewhere" in found(places, case(Home(tmp_path / ("x" * 120))), "socket", "ok").message

    def test_a_disk_without_room_or_files(self, small_disk: Path) -> None:
        home = Home(small_disk / "home")
        home.prepare()
        assert "It is full" in found(places, case(home), "disk of the home", "problem").message
        assert "TMPDIR" in found(places, case(home, TMPDIR=str(small_disk)), "temporary folder", "problem").todo
        assert "files can be made" in found(places, case(home), "files of the disk of the home", "problem").message
        with contextlib.suppress(OSError):
            (small_disk / "rest").write_bytes(b"x" * (1 << 20))
        assert "Nothing can be written" in found(places, case(home), "writing", "problem").message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with hardly any room."""
    with small_file_system(tmp_path / "small", "size=256k,nr_inodes=200") as folder:
        yield folder


class TestNetworkFileSystems:
    MOUNTS = (
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:50 / /home rw shared:7 master:2 - nfs4 server:/export rw\n"
        "31 30 8:2 / /home/local\\040disk rw - xfs /dev/sdb rw\n"
        "broken line\n"
    )

    def test_the_innermost_mount_counts(self, tmp_path: Path) -> None:
        for folder, kind in (("/home/ann/x", "nfs4"), ("/home/local disk/x", "xfs"), ("/homes", "ext4"), ("/", "ext4")):
            assert file_system_of(Path(folder), self.MOUNTS) == kind
        assert network_file_system(tmp_path) is None

    def test_an_agent_refuses_such_a_home_with_the_way_out(self, tmp_path: Path) -> None:
        mounts = tmp_path / "mountinfo"
        mounts.write_text(f"{self.MOUNTS}40 22 0:51 / {tmp_path} rw - cifs //server/share rw\n")
        with pytest.raises(InvalidInput, match=r"network file system \(cifs\).*JUPYTER_AGENT_HOME"):
            refuse_network(tmp_path / "home", mounts)
        refuse_network(Path("/var/home"), mounts)
        refuse_network(tmp_path, tmp_path / "no such list")


class TestRunning:
    def test_an_agent_that_was_killed(self, home: Home) -> None:
        start_agent(home)
        pid = pid_in(home.agent_file)
        assert pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: pid_in(home.agent_file) is None, what="the agent is gone")
        assert f"(pid {pid}) was killed" in found(running, case(home), "agent", "warning").message

    def test_an_agent_that_does_not_answer_and_a_hub_that_does_not(
        self, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start_agent(home)
        found(running, case(home), "agent", "ok")
        found(running, case(home), "hub", "ok")
        monkeypatch.setattr(running, "ANSWER_S", 0.5)
        for name, file in (("agent", home.agent_file), ("hub", home.hub / "hub.json")):
            pid = pid_in(file)
            assert pid
            os.kill(pid, signal.SIGSTOP)
            try:
                finding = found(running, case(home), name, "problem")
                assert (f"kill {pid}" in finding.todo, "does not answer" in finding.message) == (True, True)
            finally:
                os.kill(pid, signal.SIGCONT)
        (home.path / "agent.sock").unlink()
        assert "its socket is gone" in found(running, case(home), "agent", "problem").message

    def test_files_that_say_nonsense(self, made: Home) -> None:
        made.agent_file.write_text("{ broken")
        assert "Remove" in found(running, case(made), "agent", "problem").todo
        made.agent_file.write_text("{}")
        found(running, case(made), "agent", "warning")
        made.agent_file.unlink()
        (made.hub / "hub.json").write_text("[")
        assert "Remove" in found(running, case(made), "hub", "warning").todo
        with Lock(made.path / "agent.lock", held=""):
            assert "has not told" in found(running, case(made), "agent", "problem").message

    def test_another_program_at_the_hubs_address(self, made: Home) -> None:
        class NoHub(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_error(404)

            def log_message(self, *_: Any) -> None:
                pass

        import psutil

        with http.server.HTTPServer(("127.0.0.1", 0), NoHub) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            about = {"apiurl": f"ws://127.0.0.1:{server.server_port}", "pid": os.getpid(),
                     "started": psutil.Process().create_time()}  # fmt: skip
            (made.hub / "hub.json").write_text(json.dumps(about))
            try:
                assert "something else answers" in found(running, case(made), "hub", "problem").message
            finally:
                (made.hub / "hub.json").unlink()  # else we are ended as the hub
                server.shutdown()

    def test_two_installations(self, made: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in (1, 2):
            about = tmp_path / str(number) / "jupyter_agent-0.0.1.dist-info"
            about.mkdir(parents=True)
            (about / "METADATA").write_text("Metadata-Version: 2.1\nName: jupyter_agent\nVersion: 0.0.1\n")
            monkeypatch.syspath_prepend(about.parent)
        assert "times for this Python" in found(running, case(made), "installation", "warning").message

    def test_the_official_agent_with_the_same_name(self, made: Home, tmp_path: Path) -> None:
        script = tmp_path / "nodeagent" / "dist" / "runagent.js"
        script.parent.mkdir(parents=True)
        script.write_text("setTimeout(() => {}, 60000)")
        made.config_file.write_text(json.dumps({"apiurl": "ws://x", "jwt": "x", "agentid": "y"}))
        node = shutil.which("node")
        assert node
        with subprocess.Popen([node, str(script)]) as official:
            try:
                finding = found(running, case(made), "other agents", "warning")
                assert f"(pid {official.pid})" in finding.message
            finally:
                official.kill()

    def test_a_copy_of_the_home_with_an_agent_of_its_own(self, home: Home, tmp_path: Path) -> None:
        start_agent(home)
        until(home.identity_file.exists, what="the agent has an identity")
        copy = Home(tmp_path / "copy")
        copy.prepare()
        shutil.copy(home.identity_file, copy.identity_file)
        assert str(home.path) in found(running, case(copy), "other agents", "warning").message
        found(running, case(home), "other agents", "ok")

    def test_little_memory(self, made: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(running, "LITTLE_MEMORY", 1 << 60)
        assert "c.Agent.max_runs" in found(running, case(made), "memory", "warning").todo
        monkeypatch.setattr(running, "LEAST_MEMORY", 1 << 60)
        found(running, case(made), "memory", "problem")

    def test_few_open_files(self, made: Home) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            assert "ulimit -n" in found(running, case(made), "open files", "warning").todo
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def own_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Jupyter's folders, with both halves of the extension in them as an installation has them."""
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")  # they come before those of the tests' own environment
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    enabled = tmp_path / "config" / "jupyter_server_config.d" / "jupyter_agent.json"
    enabled.parent.mkdir(parents=True)
    shutil.copy(Path(__file__).parent.parent / "jupyter_agent" / "server" / "jupyter_agent.json", enabled)
    lab = tmp_path / "data" / "labextensions" / "jupyter-agent" / "package.json"
    lab.parent.mkdir(parents=True)
    lab.write_text(json.dumps({"version": __version__}))
    return tmp_path


class TestJupyter:
    def test_both_halves(self, made: Home, own_jupyter: Path) -> None:
        assert "Enabled in" in found(jupyter, case(made), "server extension", "ok").message
        found(jupyter, case(made), "lab extension", "ok")
        own = own_jupyter / "config" / "jupyter_server_config.json"
        own.write_text(json.dumps({"ServerApp": {"jpserver_extensions": {"jupyter_agent": False}}}))
        finding = found(jupyter, case(made), "server extension", "problem")
        assert f"disabled in {own}" in finding.message
        assert "server extension enable" in finding.todo
        own.unlink()
        (own_jupyter / "config" / "jupyter_server_config.d" / "jupyter_agent.json").unlink()
        if not any(
            Path(folder, "jupyter_server_config.d", "jupyter_agent.json").exists() for folder in jupyter_config_path()
        ):
            assert "No configuration" in found(jupyter, case(made), "server extension", "problem").message

    def test_a_lab_extension_of_another_version_or_none_or_disabled(
        self, made: Home, own_jupyter: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lab = own_jupyter / "data" / "labextensions" / "jupyter-agent" / "package.json"
        page = own_jupyter / "config" / "labconfig" / "page_config.json"
        page.parent.mkdir()
        page.write_text(json.dumps({"disabledExtensions": {"jupyter-agent": True}}))
        assert "labextension enable" in found(jupyter, case(made), "lab extension", "problem").todo
        page.unlink()
        lab.write_text(json.dumps({"version": "0.0.1"}))
        assert "version 0.0.1" in found(jupyter, case(made), "lab extension", "problem").message
        lab.unlink()
        monkeypatch.setattr("jupyter_core.paths.ENV_JUPYTER_PATH", [])  # where the tests' own installation has it
        assert "the panel is missing" in found(jupyter, case(made), "lab extension", "problem").message

    def test_a_jupyter_of_another_environment(
        self, made: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "other"], check=True)
        script = tmp_path / "other" / "bin" / "jupyter"
        script.write_text(f"#!{tmp_path}/other/bin/python\n")
        script.chmod(0o755)
        there = case(made, PATH=str(script.parent))
        finding = found(jupyter, there, "jupyter", "problem")
        assert (f"{tmp_path}/other/bin/python -m pip install" in finding.todo) is True
        (about := next((tmp_path / "other").glob("lib/*/site-packages")) / "jupyter_agent-0.0.1.dist-info").mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: jupyter_agent\nVersion: 0.0.1\n")
        assert "with jupyter_agent 0.0.1" in found(jupyter, there, "jupyter", "problem").message
        running_one = tmp_path / "other" / "bin" / "jupyter-server.py"
        running_one.write_text("import time; time.sleep(100)")
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
        script.write_text(f"#!{sys.executable}\n")
        found(jupyter, there, "jupyter", "ok")
        with subprocess.Popen([tmp_path / "other" / "bin" / "python", running_one]) as server:
            (tmp_path / "jpserver-1.json").write_text(json.dumps({"pid": server.pid}))
            try:
                assert f"pid {server.pid}" in found(jupyter, there, "jupyter", "problem").message
            finally:
                server.kill()
        found(jupyter, case(made, PATH=str(tmp_path)), "jupyter", "warning")


class TestPrograms:
    def test_one_that_does_not_work_and_one_that_is_not_there(
        self, made: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = tmp_path / "node"
        broken.write_text("#!/bin/sh\necho there is no node in this node >&2\nexit 3\n")
        broken.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        finding = found(programs, case(made), "node", "problem")
        assert "there is no node in this node" in finding.message
        assert "packages in nodejs" in finding.todo
        missing = found(programs, case(made), "php", "ok")
        assert "packages in php are not run here" in missing.message
        assert "install" in missing.todo


class TestChannels:
    def test_what_is_configured_is_asked(self, made: Home, tmp_path: Path) -> None:
        (tmp_path / ".npmrc").write_text("registry=http://127.0.0.1:9/npm/\n//127.0.0.1:9/npm/:_authToken=secret\n")
        (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {UNREACHABLE}\n")
        settings = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
        for name in ("Python packages", "npm packages"):
            finding = found(channels, case(made, **settings), name, "warning")
            assert "while offline" in finding.message
            assert "secret" not in finding.message
        assert channels.python_index({**settings, "UV_INDEX_URL": "http://other"}) == "http://other"
        assert channels.npm_registry({**settings, "npm_config_registry": "http://other"}) == "http://other"

    def test_an_index_that_refuses_or_is_in_trouble_or_is_silent(
        self, made: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Index(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_error(int(self.path.split("/")[1]))

            def log_message(self, *_: Any) -> None:
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Index) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            base = f"http://ann:secret@127.0.0.1:{server.server_port}"
            for code, state, words in ((401, "warning", "who you are"), (503, "warning", "in trouble"),
                                       (404, "ok", "answers")):  # fmt: skip
                finding = found(channels, case(made, UV_INDEX_URL=f"{base}/{code}"), "Python packages", state)
                assert words in finding.message
                assert "secret" not in finding.message
            server.shutdown()
        monkeypatch.setattr(channels, "ANSWER_S", 0.5)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            assert "in time" in found(channels, case(made, UV_INDEX_URL=url), "Python packages", "warning").message

    def test_a_proxy_that_is_not_there(self, made: Home) -> None:
        proxied = case(made, HTTPS_PROXY="http://ann:secret@127.0.0.1:9", UV_INDEX_URL=UNREACHABLE)
        finding = found(channels, proxied, "proxy", "problem")
        assert "secret" not in finding.message + finding.todo

    def test_a_certificate_of_nobody(self, made: Home, tmp_path: Path) -> None:
        class Index(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
            server.socket = identity(tmp_path, "self-signed").wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            url = f"https://127.0.0.1:{server.server_port}"
            finding = found(channels, case(made, UV_INDEX_URL=url), "Python packages", "problem")
            assert "SSL_CERT_FILE" in finding.todo
            server.shutdown()


class TestOpenFlow:
    def configure(self, home: Home, url: str, token: str) -> None:
        write_private(home.config_file, json.dumps({"apiurl": url, "jwt": token}))

    def test_one_that_is_well(self, made: Home, hub: Hub) -> None:
        self.configure(made, hub.url, hub.ready["jwt"])
        assert hub.ready["username"] in found(openflow, case(made), "openflow", "ok").message
        assert "It is good until" in found(openflow, case(made), "token", "ok").message
        assert "s apart" in found(openflow, case(made), "clock", "ok").message
        found(openflow, case(made, apiurl=hub.url, jwt=hub.ready["jwt"]), "openflow", "warning")

    def test_tokens_that_end_or_have_ended(self, made: Home, hub: Hub) -> None:
        claims = jwt.decode(hub.ready["jwt"], options={"verify_signature": False})
        for left_s, state in ((7 * 24 * 3600, "warning"), (-10, "problem")):
            token = jwt.encode({**claims, "exp": int(time.time()) + left_s}, hub.token_key(), algorithm="HS256")
            self.configure(made, hub.url, token)
            finding = found(openflow, case(made), "token", state)
            assert "jupyter-agent login" in finding.todo
            assert token not in finding.message

    def test_half_a_configuration_and_a_broken_one(self, made: Home) -> None:
        for text, words in (('{"apiurl": "ws://x"}', "no jwt"), ("{", "not readable as JSON"), ("{}", "apiurl")):
            made.config_file.write_text(text)
            assert words in found(openflow, case(made), "openflow", "problem").message
        assert "unset apiurl" in found(openflow, case(made, apiurl="nonsense"), "openflow", "problem").todo

    def test_authorities_that_are_not_there(self, made: Home) -> None:
        """Python says nothing of such a variable, and trusts nobody."""
        told = found(openflow, case(made, SSL_CERT_FILE="/nonexistent/ca.pem"), "certificates", "problem")
        assert "SSL_CERT_FILE is /nonexistent/ca.pem" in told.message

    def test_one_that_is_not_there(self, made: Home) -> None:
        self.configure(made, "ws://127.0.0.1:9", "token")
        assert "nothing answers there" in found(openflow, case(made), "openflow", "problem").message

    def test_settings_that_cannot_be_used(self, made: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
        settings = tmp_path / "jupyter_agent_config.py"
        for text, words in (
            ("c.Agent.max_runs = ", "cannot be read"),
            ("c.Agent.ca_file = '/nonexistent/ca.pem'", "cannot be read"),
            ("c.Agent.ca_file = 5", "should be the path"),
        ):
            settings.write_text(text)
            assert words in found(openflow, case(made), "settings", "problem").message

    def test_certificates(self, made: Home, tmp_path: Path) -> None:
        class Nobody(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

        for name, words in (("self-signed", "c.Agent.ca_file"), ("expired", "is not trusted")):
            with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nobody) as server:
                server.socket = identity(tmp_path, name).wrap_socket(server.socket, server_side=True)
                threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
                self.configure(made, f"wss://127.0.0.1:{server.server_port}", "token")
                finding = found(openflow, case(made), "certificate", "problem")
                assert words in finding.message or "expired" in finding.message
                server.shutdown()

    def test_a_clock_that_is_wrong(self) -> None:
        now = datetime.now(UTC)
        for seconds, state in ((1, "ok"), (-60, "warning"), (3600, "problem")):
            (finding,) = openflow.clock_of(format_datetime(now + timedelta(seconds=seconds)), now, "https://host")
            assert finding.state == state
            assert finding.todo or state == "ok"
        assert openflow.clock_of("nonsense", now, "x") == openflow.clock_of(None, now, "x") == []


def test_a_server_whose_clock_is_wrong(home: Home) -> None:
    """A whole one: what it answers with has another date."""
    home.prepare()

    class Late(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, _timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(UTC) - timedelta(hours=2), usegmt=True)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Late) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        write_private(home.config_file, json.dumps({"apiurl": f"ws://127.0.0.1:{server.server_port}", "jwt": "x"}))
        assert re.search(r"720\d s apart", found(openflow, case(home), "clock", "problem").message)
        server.shutdown()
    assert read_json(home.config_file)
