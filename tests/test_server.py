"""The gate, in a real Jupyter server: who gets in, what passes, and that it costs nothing before it is used."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from jupyter_agent.home import AgentClient, Home, running_agent
from tests.conftest import end_all, ended, make_package, pid_in, printed, start_agent, until
from tests.test_server_events import connections

TOKEN = "a-token-of-the-tests"
XSRF = "5f" * 16
SLOW = "import time\nfor n in range(600):\n    print('tick', n, flush=True)\n    time.sleep(0.1)\n"
HELLO = "print('hello')\nopen('page.html', 'w').write('<script>document.title = 1</script>')\n"

EXTENSIONS = 'c.ServerApp.jpserver_extensions = {"jupyter_agent": True, "jupyterlab": False, "jupyter_lsp": False}\n'
READ_ONLY = """
from jupyter_server.auth import Authorizer
class ReadOnly(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        return resource != "jupyter_agent" or action == "read"
c.ServerApp.authorizer_class = ReadOnly
"""
NAMED = """
from jupyter_server.auth import IdentityProvider, User
class Named(IdentityProvider):
    async def get_user(self, handler):
        return User(username={name!r}) if self.is_token_authenticated(handler) else None
    def is_token_authenticated(self, handler):
        return "Authorization" in handler.request.headers
c.ServerApp.identity_provider_class = Named
"""


@dataclass(frozen=True)
class Jupyter:
    """A running Jupyter server with the extension."""

    process: subprocess.Popen[bytes]
    root: str
    log: Path

    @property
    def api(self) -> str:
        return f"{self.root}jupyter-agent/api/v1/"

    def client(self, **options: Any) -> httpx.Client:
        """A client with the token, as a script has it."""
        return httpx.Client(base_url=self.api, headers={"Authorization": f"token {TOKEN}"}, timeout=60, **options)

    @contextlib.contextmanager
    def browser(self) -> Iterator[httpx.Client]:
        """A client with the cookies of somebody who has signed in, and nothing else."""
        with httpx.Client(base_url=self.api, timeout=60) as client:
            assert client.get(f"{self.root}api/me", params={"token": TOKEN}).status_code == 200
            assert client.cookies
            yield client

    @contextlib.contextmanager
    def events(self) -> Iterator[Callable[[str], dict[str, Any]]]:
        """What a page hears; the function waits for the next event of a kind (``run``, ``status``, ``package``)."""
        url = f"{self.root.replace('http', 'ws', 1)}api/events/subscribe"
        with connect(url, additional_headers={"Authorization": f"token {TOKEN}"}, max_size=None) as socket:

            def following(noun: str) -> dict[str, Any]:
                while True:
                    event: dict[str, Any] = json.loads(socket.recv(timeout=60))
                    if event["schema_id"] == f"https://schema.jupyter.org/jupyter_agent/{noun}/v1":
                        return event

            yield following

    def stop(self) -> None:
        """End it in order; one that does not end is an error, and is killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()


Start = Callable[..., Jupyter]


@contextlib.contextmanager
def servers(home: Home, folder: Path) -> Iterator[Start]:
    """Starts Jupyter servers on a home; ``config`` is Python, ``base_url`` as it is configured."""
    started: list[Jupyter] = []

    def start(*, config: str = "", base_url: str = "/") -> Jupyter:
        started.append(start_jupyter(home, folder / f"jupyter{len(started)}", config, base_url))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop()


def start_jupyter(home: Home, folder: Path, config: str, base_url: str) -> Jupyter:
    """A Jupyter server with files of its own, once it answers."""
    folder.mkdir()
    (folder / "jupyter_server_config.py").write_text(EXTENSIONS + config)
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "HOME")
    command = [
        *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--port=0"),
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={folder}",
        f"--ServerApp.base_url={base_url}",
    ]
    environment = {**os.environ, "JUPYTER_AGENT_HOME": str(home.path), **dict.fromkeys(names, str(folder))}
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)

    def url() -> str | None:
        assert process.poll() is None, log.read_text()
        for file in folder.glob("jpserver-*.json"):
            with contextlib.suppress(ValueError, httpx.TransportError):
                found = str(json.loads(file.read_text())["url"])
                return found if httpx.get(f"{found}api").status_code == 200 else None
        return None

    return Jupyter(process, until(url, what="Jupyter is up"), log)


@pytest.fixture
def jupyter(home: Home, tmp_path: Path) -> Iterator[Start]:
    """Starts Jupyter servers on the home."""
    with servers(home, tmp_path) as start:
        yield start


@pytest.fixture(scope="class")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Jupyter, Home]]:
    """A Jupyter server and its home for all tests of a class that leave both as they are."""
    home = Home(Path(tempfile.mkdtemp(prefix="ja-")) / "home")
    with pytest.MonkeyPatch.context() as environment:
        for name in ("apiurl", "grpcapiurl", "wsapiurl", "jwt", "agentid"):
            environment.delenv(name, raising=False)
        with servers(home, tmp_path_factory.mktemp("shared")) as start:
            yield start(), home
        end_all(home)
    shutil.rmtree(home.path.parent, ignore_errors=True)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_package(tmp_path / "hello", {"main.py": HELLO}, openiap={"language": "python"})


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    return make_package(tmp_path / "slow", {"main.py": SLOW}, openiap={"language": "python"})


def get_runs(server: Jupyter) -> int:
    with server.client() as client:
        return client.get("runs").status_code


def follow(server: Jupyter, run_id: str) -> list[dict[str, Any]]:
    """All lines of a run's stream, until it ends."""
    with server.client() as client, client.stream("GET", f"runs/{run_id}/stream", timeout=120) as stream:
        return [json.loads(line) for line in stream.iter_lines() if line.strip()]


class TestWithoutAnAgent:
    """What is decided before anything is forwarded."""

    def test_loading_and_asking_for_the_status_start_nothing(self, shared: tuple[Jupyter, Home]) -> None:
        server, home = shared
        with server.client() as client:
            status = client.get("status").json()
        assert status["agent"] is None
        assert status["connected"] is False
        assert status["runs"] == {"active": 0, "queued": 0}
        assert not home.path.exists()
        assert "Traceback" not in server.log.read_text()

    def test_without_a_token_nobody_gets_in(self, shared: tuple[Jupyter, Home]) -> None:
        server, home = shared
        for method, path in (
            ("GET", "status"),
            ("POST", "start"),
            ("GET", "runs"),
            ("POST", "runs"),
            ("GET", "runs/x/artifacts/output.html"),
            ("GET", "no/such/path"),
        ):
            answer = httpx.request(method, server.api + path)
            assert answer.status_code == 403, (method, path)
            assert set(answer.json()) >= {"message", "reason"}
        assert running_agent(home) is None

    def test_a_post_needs_more_than_the_cookie(self, shared: tuple[Jupyter, Home]) -> None:
        server, home = shared
        with server.browser() as browser:
            assert browser.get("status", headers={"Referer": server.root}).status_code == 200
            assert browser.post("start").status_code == 403
            assert browser.post("runs", json={"target": "x"}).status_code == 403
            browser.cookies.set("_xsrf", XSRF)
            elsewhere = {"X-XSRFToken": XSRF, "Origin": "http://elsewhere.example"}
            assert browser.post("start", headers=elsewhere).status_code in (403, 404)
        assert running_agent(home) is None

    def test_a_foreign_host_name_is_refused(self, shared: tuple[Jupyter, Home]) -> None:
        server, _home = shared
        with server.client() as client:
            assert client.get("status", headers={"Host": "rebound.example"}).status_code == 403

    def test_an_authorizer_is_asked(self, jupyter: Start, home: Home) -> None:
        server = jupyter(config=READ_ONLY)
        with server.client() as client:
            assert client.get("status").status_code == 200
            for method, path in (
                *(("POST", each) for each in ("start", "packages", "runs", "runs/x/cancel", "agents/x/cancel")),
                ("DELETE", "packages/x"),
            ):
                answer = client.request(method, path, json={})
                assert answer.status_code == 403
                assert "jupyter_agent" in answer.json()["message"]
        assert running_agent(home) is None

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("POST", "shutdown", 404),
            ("GET", "shutdown", 404),
            ("GET", "", 404),
            ("GET", "runs/a/b/c", 404),
            ("GET", "runs/../shutdown", 404),
            ("GET", "runs/%2e%2e/output", 404),
            ("POST", "status", 405),
            ("GET", "start", 405),
            ("POST", "runs/x", 405),
            ("GET", "runs/x/cancel", 405),
            ("DELETE", "runs/x", 405),
        ],
    )
    def test_only_known_paths_are_forwarded(
        self, shared: tuple[Jupyter, Home], method: str, path: str, status: int
    ) -> None:
        server, home = shared
        target = httpx.URL(server.api).copy_with(raw_path=httpx.URL(server.api).raw_path + path.encode())
        answer = httpx.request(method, target, headers={"Authorization": f"token {TOKEN}"})
        assert answer.status_code == status
        assert "message" in answer.json()
        assert running_agent(home) is None

    def test_a_body_over_the_limit_is_refused(self, shared: tuple[Jupyter, Home]) -> None:
        server, home = shared
        with server.client() as client:
            answer = client.post("runs", content=b" " * ((16 << 20) + 1))
        assert answer.status_code == 413
        assert running_agent(home) is None

    def test_an_agent_that_cannot_start_is_503_with_its_sentence(self, jupyter: Start, home: Home) -> None:
        home.prepare()
        (home.path / "version").write_text("99\n")
        server = jupyter()
        with server.client() as client:
            for answer in (client.get("status"), client.post("start"), client.get("runs"), client.post("runs")):
                assert answer.status_code == 503
                assert answer.json()["reason"] == "NewerVersion"
                assert "upgrade" in answer.json()["message"]

    def test_the_extension_is_listed_as_enabled_and_sound(self, tmp_path: Path) -> None:
        configured = tmp_path / "jupyter_server_config.d"
        configured.mkdir()
        shipped = Path(__file__).parent.parent / "jupyter_agent" / "server" / "jupyter_agent.json"
        (configured / "jupyter_agent.json").write_text(shipped.read_text())
        listed = subprocess.run(
            [sys.executable, "-m", "jupyter_server.extension.serverextension", "list"],
            env={**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        ours = [line for line in (listed.stdout + listed.stderr).splitlines() if "jupyter_agent" in line]
        assert any("enabled" in line for line in ours), listed
        assert any("OK" in line for line in ours), listed

    def test_importing_it_brings_nothing_of_the_agent(self) -> None:
        program = f"""
import sys
sys.path[:] = {sys.path!r}
import jupyter_server.serverapp, jupyter_server.extension.application
before = set(sys.modules)
import jupyter_agent.server.app
print("\\n".join(sorted(set(sys.modules) - before)))
"""
        done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
        ours = {name for name in done.stdout.split() if name.startswith("jupyter_agent")}
        assert {name for name in ours if not name.startswith("jupyter_agent.server")} == {
            "jupyter_agent",
            "jupyter_agent.errors",
            "jupyter_agent.home",
        }
        assert {name.split(".")[0] for name in done.stdout.split()} <= {"jupyter_agent", *sys.stdlib_module_names}


class TestForwarding:
    """Requests, answers and streams."""

    def test_a_package_from_publishing_to_its_files(self, shared: tuple[Jupyter, Home], package: Path) -> None:
        server, home = shared
        with server.client() as client:
            started = client.post("start")
            assert started.status_code == 200
            assert started.json()["agent"]["pid"] == pid_in(home.agent_file)
            published = client.post("packages", json={"path": str(package)})
            assert published.status_code == 201, published.text
            run = client.post("packages/hello/runs", json={})
            assert run.status_code == 202, run.text
            lines = follow(server, run.json()["id"])
            assert "hello" in "".join(line["text"] for line in lines if line.get("stream") == "stdout")
            assert lines[-1]["run"]["state"] == "succeeded"
            assert [entry["name"] for entry in client.get("packages").json()] == ["hello"]
            assert client.get("runs", params={"limit": 1}).json()["runs"][0]["id"] == run.json()["id"]
            missing = client.get("runs/none")
            assert (missing.status_code, missing.json()["reason"]) == (404, "NotFound")
            for path in ("runs/<script>", "agents/<script>", "nothing/<script>"):
                refused = client.get(path)
                assert (refused.status_code, refused.headers["Content-Type"].partition(";")[0]) == (
                    404, "application/json",
                ), path  # fmt: skip

    def test_keys_deletions_and_other_agents_pass(self, shared: tuple[Jupyter, Home], package: Path) -> None:
        server, home = shared
        with server.client() as client, server.browser() as browser:
            published = client.post("packages", json={"path": str(package)}).json()["id"]
            key = {"Idempotency-Key": "once"}
            first, again = [client.post(f"packages/{published}/runs", json={}, headers=key).json() for _ in range(2)]
            assert (first["id"], first["key"]) == (again["id"], "once")
            ended(start_agent(home), first["id"])
            repeated = client.post(f"runs/{first['id']}/rerun", json={})
            assert (repeated.status_code, repeated.json()["rerun_of"]) == (202, first["id"])
            own = client.get("status").json()["slug"]
            assert own in [agent["slug"] for agent in client.get("agents").json()]
            assert client.get(f"agents/{own}/runs").status_code == 200
            described = client.get("openapi.yaml")
            assert described.text.startswith("openapi: 3")
            assert "html" not in described.headers["Content-Type"]
            assert browser.delete(f"packages/{published}").status_code == 403
            ended(start_agent(home), repeated.json()["id"])
            removed = client.delete(f"packages/{published}")
            assert (removed.status_code, removed.content) == (204, b"")
            assert client.get(f"packages/{published}").status_code == 404

    def test_what_runs_made_is_shown_in_a_sandbox(self, shared: tuple[Jupyter, Home], package: Path) -> None:
        server, home = shared
        agent = start_agent(home)
        run = ended(agent, agent.request("POST", "runs", {"target": str(package)})["id"])
        with server.browser() as browser:
            page = browser.get(f"runs/{run['id']}/artifacts/page.html", headers={"Referer": server.root})
        assert page.status_code == 200
        assert page.headers["Content-Type"].startswith("text/html")
        assert page.text.startswith("<script>")
        policies = [policy.strip().split() for policy in page.headers["Content-Security-Policy"].split(";")]
        sandbox = next(policy for policy in policies if policy[0] == "sandbox")
        assert "allow-scripts" in sandbox
        assert "allow-same-origin" not in sandbox
        assert page.headers["X-Content-Type-Options"] == "nosniff"

    def test_the_user_is_jupyters_word_alone(self, jupyter: Start, package: Path) -> None:
        server = jupyter(config=NAMED.format(name="Zoë\r\nX-Other: 1"))
        with server.client() as client:
            spoofed = {"X-Jupyter-Agent-User": "root", "x-jupyter-agent-user": "root"}
            run = client.post("runs", json={"target": str(package)}, headers=spoofed)
        assert run.status_code == 202, run.text
        who = run.json()["who"]
        assert who.startswith("Zo")
        assert "root" not in who

    def test_it_works_below_a_base_url_that_needs_quoting(self, jupyter: Start, slow: Path) -> None:
        server = jupyter(base_url="/user/x%20y/")
        assert "/user/x%20y/" in server.root
        with server.events() as following, server.client() as client:
            assert client.post("start").status_code == 200
            run = client.post("runs", json={"target": str(slow)}).json()
            assert following("run")["run"]["id"]
            assert client.post(f"runs/{run['id']}/cancel", json={}).status_code == 200
            assert follow(server, run["id"])[-1]["run"]["state"] == "cancelled"

    def test_the_home_may_be_a_setting(self, jupyter: Start, home: Home) -> None:
        other = Home(home.path.parent / "other")
        strict = "c.ServerApp.allow_unauthenticated_access = False\n"
        server = jupyter(config=f"c.JupyterAgent.home = {str(other.path)!r}\n{strict}")
        try:
            with server.client() as client:
                assert client.post("start").json()["agent"]["home"] == str(other.path)
            assert httpx.get(f"{server.api}status").status_code == 403
        finally:
            end_all(other)
        assert not home.path.exists()

    def test_many_who_ask_at_once_start_one_agent(self, jupyter: Start, home: Home) -> None:
        servers = [jupyter(), jupyter()]
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda number: get_runs(servers[number % 2]), range(8)))
        assert statuses == [200] * 8
        listening = [line for line in (home.logs / "agent.log").read_text().splitlines() if "listens on" in line]
        assert len(listening) == 1

    def test_a_reader_that_goes_away_ends_the_agents_side(self, shared: tuple[Jupyter, Home], slow: Path) -> None:
        server, home = shared
        agent = start_agent(home)
        run = agent.request("POST", "runs", {"target": str(slow)})
        with server.client() as client:
            client.get("status")
            until(lambda: connections(agent) == 1, what="the events' bridge")
            with client.stream("GET", f"runs/{run['id']}/stream") as stream:
                lines = stream.iter_lines()  # kept: an iterator that is let go closes the answer
                assert next(lines)
                until(lambda: connections(agent) == 2)
            until(lambda: connections(agent) == 1, what="the stream was ended at the agent, too")
        agent.request("POST", f"runs/{run['id']}/cancel", {})

    def test_a_slow_reader_fills_nobodys_memory(self, shared: tuple[Jupyter, Home], tmp_path: Path) -> None:
        server, home = shared
        size = 300 << 20
        program = f"with open('big.bin', 'wb') as file:\n    file.truncate({size})\n"
        folder = make_package(tmp_path / "big", {"main.py": program}, openiap={"language": "python"})
        agent = start_agent(home)
        run = ended(agent, agent.request("POST", "runs", {"target": str(folder)})["id"])
        processes = [psutil.Process(server.process.pid), psutil.Process(agent.request("GET", "status")["agent"]["pid"])]
        url = f"runs/{run['id']}/artifacts/big.bin"
        with server.client() as client, client.stream("GET", url) as stream:
            assert stream.headers["Content-Length"] == str(size)
            before = [process.memory_info().rss for process in processes]
            pieces = stream.iter_raw()
            read = len(next(pieces))
            settled(lambda: processes[1].io_counters().read_chars, step=1 << 20)
            grown = [process.memory_info().rss - rss for process, rss in zip(processes, before, strict=True)]
            assert max(grown) < 60 << 20, grown
            read += sum(map(len, pieces))
        assert read == size

    def test_an_agent_that_ends_within_an_answer_does_not_look_finished(
        self, jupyter: Start, home: Home, slow: Path
    ) -> None:
        agent = start_agent(home)
        run = agent.request("POST", "runs", {"target": str(slow)})
        until(lambda: "tick" in printed(agent, run["id"]))
        server = jupyter()
        with server.client() as client, client.stream("GET", f"runs/{run['id']}/stream") as stream:
            lines = stream.iter_lines()
            assert next(lines)
            os.kill(pid_in(home.agent_file) or 0, signal.SIGKILL)
            with pytest.raises(httpx.RemoteProtocolError):
                for _ in lines:
                    pass
        assert "Traceback" not in server.log.read_text()


def settled(value: Callable[[], int], *, step: int) -> None:
    """Wait until a number grows by less than ``step`` a second."""
    seen, since = value(), time.monotonic()

    def slow_enough() -> bool:
        nonlocal seen, since
        if time.monotonic() - since < 1:
            return False
        grown, seen, since = value() - seen, value(), time.monotonic()
        return grown < step

    until(slow_enough, what="it has come to rest")


class TestEvents:
    """What pages hear."""

    def test_a_page_hears_of_runs_and_packages(self, shared: tuple[Jupyter, Home], package: Path) -> None:
        server, _home = shared
        with server.events() as following, server.client() as client:
            client.post("start")
            while following("status")["status"]["agent"] is None:
                pass
            until(lambda: client.get("status").json()["connected"])
            published = client.post("packages", json={"path": str(package)}).json()
            assert following("package")["id"] == published["id"]
            run = client.post("packages/hello/runs", json={}).json()
            states = []
            while "succeeded" not in states:
                heard = following("run")["run"]
                assert heard["id"] == run["id"]
                states.append(heard["state"])
            assert states.index("succeeded") == len(states) - 1

    def test_a_killed_agent_and_the_next_one(self, jupyter: Start, home: Home, slow: Path) -> None:
        agent = start_agent(home)
        run = agent.request("POST", "runs", {"target": str(slow)})
        server = jupyter()
        with server.events() as following, server.client() as client:
            assert client.get("status").json()["agent"]
            pid = pid_in(home.agent_file)
            while (following("status")["status"]["agent"] or {}).get("pid") != pid:
                pass
            os.kill(pid or 0, signal.SIGKILL)
            while following("status")["status"]["agent"] is not None:
                pass
            assert client.get("status").json()["agent"] is None, "asking for the status starts no agent"
            start_agent(home)
            while (following("status")["status"]["agent"] or {}).get("pid") in (None, pid):
                pass
            heard = following("run")["run"]
            assert (heard["id"], heard["state"]) == (run["id"], "lost"), "what happened meanwhile is told"

    def test_two_servers_are_faces_of_one_agent(self, jupyter: Start, slow: Path) -> None:
        one, two = jupyter(), jupyter()
        with two.events() as following, one.client() as first, two.client() as second:
            second.post("start")
            run = first.post("runs", json={"target": str(slow)}).json()
            while following("run")["run"]["id"] != run["id"]:
                pass
            assert [entry["id"] for entry in second.get("runs").json()["runs"]] == [run["id"]]
            second.post(f"runs/{run['id']}/cancel", json={})
            assert follow(one, run["id"])[-1]["run"]["state"] == "cancelled"

    def test_a_run_goes_on_while_jupyter_is_restarted(self, jupyter: Start, home: Home, slow: Path) -> None:
        first = jupyter()
        with first.client() as client:
            run = client.post("runs", json={"target": str(slow)}).json()
        agent = AgentClient(running_agent(home) or "")
        until(lambda: "tick 1" in printed(agent, run["id"]))
        first.stop()
        second = jupyter()
        with second.client() as client:
            assert client.get("status").json()["runs"]["active"] == 1
            with client.stream("GET", f"runs/{run['id']}/stream") as stream:
                text = ""
                for line in stream.iter_lines():
                    text += json.loads(line).get("text", "")
                    if "tick 20" in text:
                        break
            assert "tick 0" in text, "the output is all there"
            client.post(f"runs/{run['id']}/cancel", json={})
        assert follow(second, run["id"])[-1]["run"]["state"] == "cancelled"
