"""Signing in to an OpenFlow and out again: the hub of another home, and servers that are none to trust."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import re
import signal
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest

from jupyter_agent.agent import login
from jupyter_agent.errors import AgentError, Failed, InvalidInput, TimedOut, Unavailable
from jupyter_agent.home import Home, read_json
from tests.certificates import authority, identity
from tests.conftest import cli, start_agent, until
from tests.openflow_peers import Hub
from tests.test_cli import Terminal
from tests.test_hub_login import Browser

PASSWORD = "the password of ann"


@pytest.fixture(scope="module")
def openflow(hub: Hub) -> Hub:
    """The hub of another home, as a real OpenFlow."""
    hub.add_user("ann", PASSWORD)
    return hub


def by_password(home: Home, hub: Hub, *more: str, text: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    return cli("login", hub.url, "--username", "ann", *more, home=home, text=f"{text}\n")


def config(home: Home) -> dict[str, Any]:
    return read_json(home.config_file) or {}


class TestByPassword:
    def test_the_token_is_long_and_the_files_mode_private(self, openflow: Hub, home: Home) -> None:
        done = by_password(home, openflow, "--json")
        assert done.returncode == 0, done
        told = json.loads(done.stdout)
        assert (told["apiurl"], told["user"], told["agent"]["running"]) == (openflow.url, "ann", False)
        assert stat.S_IMODE(home.config_file.stat().st_mode) == 0o600
        assert set(config(home)) == {"apiurl", "jwt"}
        claims = jwt.decode(config(home)["jwt"], options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] > 300 * 24 * 3600
        assert PASSWORD not in done.stdout + done.stderr
        assert config(home)["jwt"] not in done.stdout + done.stderr

    def test_a_running_agent_switches_and_back(self, openflow: Hub, home: Home) -> None:
        agent = start_agent(home)
        own = agent.request("GET", "status")["openflow"]["url"]
        done = by_password(home, openflow)
        assert "The running agent uses" in done.stdout
        assert done.returncode == 0
        status = agent.request("GET", "status")
        assert (status["openflow"]["url"], status["openflow"]["user"]) == (openflow.url, "ann")
        again = by_password(home, openflow, "--json")  # a new token for the same address
        assert json.loads(again.stdout)["agent"]["connected"]
        out = cli("logout", "--json", home=home)
        assert out.returncode == 0, out
        assert json.loads(out.stdout)["apiurl"] == openflow.url
        assert not home.config_file.exists()
        status = agent.request("GET", "status")
        assert status["openflow"]["embedded"]
        assert status["connected"]
        assert own.startswith("ws://127.0.0.1")
        none_needed = cli("login", own, home=home)
        assert none_needed.returncode == 1
        assert "embedded hub of this home itself" in none_needed.stderr

    def test_on_a_terminal_the_password_is_asked_for_and_not_shown(self, openflow: Hub, home: Home) -> None:
        terminal = Terminal(home, "login", openflow.url, "--username", "ann")
        until(lambda: terminal.read() and "The password of ann" in terminal.text, what="the password is asked for")
        os.write(terminal._terminal, f"{PASSWORD}\n".encode())
        said = terminal.to_the_end()
        assert "Signed in to" in said
        assert PASSWORD not in said

    def test_what_is_wrong_is_told_before_anything_is_written(self, openflow: Hub, home: Home) -> None:
        url = openflow.url
        lines = (
            (("login", url, "--username", "ann"), "\n", "password is missing"),
            (("login", "ws://127.0.0.1:9", "--username", "ann"), "x\n", "nothing answers there"),
            (("login", "ws://127.0.0.1:9"), "", "cannot be reached"),
            (("login", "ws://ann:secret@host"), "", "must not hold a user or password"),
            (("login",), "", "Name the address"),
            (("login", url, "--username", "ann", "--adopt"), "x\n", "does not go with it"),
        )
        with ThreadPoolExecutor(4) as threads:
            for done, (_, _, sentence) in zip(
                threads.map(lambda line: cli(*line[0], home=home, text=line[1]), lines), lines, strict=True
            ):
                assert done.returncode == 1, done
                assert sentence in done.stderr
                assert "Traceback" not in done.stderr
                assert "secret" not in done.stderr
        refused = cli("login", openflow.url, "--username", "ann", "--json", home=home, text="wrong\n")
        assert json.loads(refused.stdout)["reason"] == "SignInFailed"
        assert "refused user 'ann'" in refused.stderr
        assert not home.config_file.exists()

    def test_variables_that_win_are_named(self, openflow: Hub, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("apiurl", "ws://127.0.0.1:9")
        done = by_password(home, openflow, "--json")
        assert "The environment variable apiurl comes first" in done.stderr
        assert json.loads(done.stdout)["environment"] == "apiurl"
        out = cli("logout", home=home)
        assert "unset it, too" in out.stderr

    def test_what_else_is_configured_stays(self, openflow: Hub, home: Home) -> None:
        home.prepare()
        home.config_file.write_text(json.dumps({"apiurl": "ws://elsewhere", "jwt": "x", "agentid": "y", "mine": 1}))
        by_password(home, openflow)
        assert (config(home)["mine"], "agentid" in config(home)) == (1, False)
        home.config_file.write_text(json.dumps({**config(home), "agentid": "z"}))
        by_password(home, openflow)
        assert config(home)["agentid"] == "z"
        home.config_file.write_text("{ broken")
        assert by_password(home, openflow).returncode == 0
        assert config(home)["apiurl"] == openflow.url


def test_logging_out_of_nothing_is_fine(home: Home) -> None:
    done = cli("logout", home=home)
    assert (done.returncode, "the embedded hub is used" in done.stdout) == (0, True)
    assert not home.path.exists()


class TestByBrowser:
    def test_the_address_is_shown_and_the_token_fetched(self, openflow: Hub, home: Home) -> None:
        with waiting(openflow.url, home) as (process, key):
            page = Browser(openflow).post(key=key, username="ann", password=PASSWORD)
            assert page.status == 200
            out, _err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert json.loads(out)["user"] == "ann"
        assert config(home)["apiurl"] == openflow.url
        assert stat.S_IMODE(home.config_file.stat().st_mode) == 0o600

    def test_it_can_be_broken_off(self, openflow: Hub, home: Home) -> None:
        with waiting(openflow.url, home) as (process, _key):
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, "")
        assert "Traceback" not in err
        assert not home.config_file.exists()

    def test_a_browser_is_opened_where_that_is_wanted(self, openflow: Hub, home: Home, tmp_path: Path) -> None:
        browser, seen = tmp_path / "browser", tmp_path / "seen"
        browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
        browser.chmod(0o755)
        with waiting(openflow.url, home, "--browser", BROWSER=f"{browser} %s") as (_process, key):
            until(seen.exists, what="the browser is opened")
            assert key in until(seen.read_text)
        seen.unlink()
        with waiting(openflow.url, home, BROWSER=f"{browser} %s"):
            pass
        assert not seen.exists()

    async def test_keys_cannot_be_guessed(self, openflow: Hub) -> None:
        """The predecessor made them from a generator that can be computed."""
        keys: set[str] = set()
        for _ in range(5):
            with pytest.raises(TimedOut, match="Nobody signed in"):
                await login.by_browser(
                    openflow.url, ca_file=None, show=lambda _place, key: keys.add(key), patience_s=0.01
                )
        assert len(keys) == 5
        assert all(re.fullmatch(r"[\w-]{43}", key, re.ASCII) for key in keys)
        assert len({key[:4] for key in keys}) == 5


@contextlib.contextmanager
def waiting(url: str, home: Home, *more: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A login that waits for somebody to open a page, and the page's key."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyter_agent.cli", "login", url, "--json", *more],
        env={**os.environ, "JUPYTER_AGENT_HOME": str(home.path), **environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        text = ""
        while not (found := re.search(r"(http://[\d.:]+)/login\?key=([\w-]+)\n", text)):
            line = process.stderr.readline()
            assert line, text
            text += line
        while "Ctrl-C" not in text:
            text += process.stderr.readline()
        yield process, found[2]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


class Answers(http.server.BaseHTTPRequestHandler):
    """A server that answers as a test says: a list of (status, body, headers), the last for ever."""

    script: list[tuple[int, str, dict[str, str]]]

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer()

    def _answer(self) -> None:
        status, body, headers = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        pass


Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server with a script; its address."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(*script: tuple[int, str, dict[str, str]], context: ssl.SSLContext | None = None) -> str:
        handler = type("Scripted", (Answers,), {"script": list(script)})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"{'wss' if context else 'ws'}://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


OK: tuple[int, str, dict[str, str]] = (200, '{"message": "ok"}', {})


class TestOtherServers:
    async def asked(self, url: str, *, patience_s: float = 8, ca_file: Path | None = None) -> str:
        return await login.by_browser(url, ca_file=ca_file, show=lambda *_: None, patience_s=patience_s, poll_s=0.1)

    async def test_what_they_answer_instead_is_told(self, serve: Serve) -> None:
        for script, kind, sentence in (
            ([(404, "", {})], InvalidInput, "offers no sign-in by browser"),
            ([(200, "<html>", {})], InvalidInput, "offers no sign-in by browser"),
            ([(200, "[1]", {})], InvalidInput, "offers no sign-in by browser"),
            ([(500, '{"message": "Illegal key"}', {})], Failed, "Illegal key"),
            ([(301, "", {"Location": "https://other.example/x?secret=1"})], InvalidInput, "at https://other.example:"),
            ([(503, "", {})], Unavailable, "HTTP 503"),
            ([OK, (500, "no", {})], Failed, "no"),
        ):
            with pytest.raises(kind, match=sentence) as refusal:
                await self.asked(serve(*script))
            assert "secret" not in str(refusal.value)

    async def test_a_server_that_is_away_for_a_moment_is_waited_for(self, serve: Serve) -> None:
        url = serve(OK, (503, "", {}), (200, '{"jwt": ""}', {}), (200, '{"jwt": "a token"}', {}))
        assert await self.asked(url, patience_s=30) == "a token"

    async def test_certificates_are_verified(self, serve: Serve, tmp_path: Path) -> None:
        """The predecessor verified none, neither here nor in its client."""

        async def refused(certificate: str, sentence: str) -> None:
            url = serve(OK, context=identity(tmp_path, certificate))
            known = None if certificate in ("good", "self-signed") else authority(tmp_path)
            with pytest.raises(AgentError, match=sentence):
                await self.asked(url, ca_file=known)
            with pytest.raises(AgentError, match=sentence):
                await login.tried(url, "a token", ca_file=known)

        await asyncio.gather(
            refused("expired", "has expired"),
            refused("early", "is not valid yet"),
            refused("other", "made for another host name"),
            refused("self-signed", "self-signed"),
            refused("good", "is not trusted"),
        )
        trusted = serve(OK, (200, '{"jwt": "t"}', {}), context=identity(tmp_path, "good"))
        assert await self.asked(trusted, ca_file=authority(tmp_path)) == "t"


class TestAdopt:
    @pytest.fixture
    def official(self, openflow: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """What the official agent has written."""
        monkeypatch.setenv("HOME", str(tmp_path))
        file = tmp_path / ".openiap" / "config.json"
        file.parent.mkdir()
        file.write_text(json.dumps({"apiurl": openflow.url, "jwt": openflow.ready["jwt"], "agentid": "b" * 24}))
        return file

    def test_it_is_taken_over_and_stays_as_it_is(self, openflow: Hub, official: Path, home: Home) -> None:
        before = (official.read_bytes(), official.stat().st_mtime_ns)
        done = cli("login", "--adopt", home=home)
        assert done.returncode == 0, done
        assert config(home) == {"apiurl": openflow.url, "jwt": openflow.ready["jwt"], "agentid": "b" * 24}
        assert "or both answer" in done.stdout
        assert (official.read_bytes(), official.stat().st_mtime_ns) == before
        elsewhere = cli("login", "wss://other.example", "--adopt", home=home)
        assert "not to wss://other.example" in elsewhere.stderr

    def test_a_token_that_ended_is_told(self, openflow: Hub, official: Path, home: Home) -> None:
        claims = jwt.decode(openflow.ready["jwt"], options={"verify_signature": False})
        ended = jwt.encode({**claims, "exp": int(time.time()) - 10}, openflow.token_key(), algorithm="HS256")
        official.write_text(json.dumps({"apiurl": openflow.url, "jwt": ended}))
        done = cli("login", "--adopt", home=home)
        assert done.returncode == 1
        assert "refused the token" in done.stderr
        assert ended not in done.stderr
        for text, sentence in (("{}", "holds no apiurl and jwt"), ("[", "not readable as JSON")):
            official.write_text(text)
            assert sentence in cli("login", "--adopt", home=home).stderr
        official.unlink()
        assert "official agent of this user is not signed in" in cli("login", "--adopt", home=home).stderr
        assert not home.config_file.exists()


@pytest.mark.parametrize(
    ("url", "web"),
    [
        ("wss://app.example.com", "https://app.example.com"),
        ("wss://app.example.com/ws/v2", "https://app.example.com"),
        ("ws://host:3000", "http://host:3000"),
        ("https://grpc.app.example.com", "https://app.example.com"),
        ("grpc://grpc.app.example.com:443", "https://app.example.com"),
        ("ws://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_where_the_pages_are(url: str, web: str) -> None:
    assert login.web_address(url) == web


def test_a_plain_grpc_address_does_not_tell_where_the_pages_are() -> None:
    with pytest.raises(InvalidInput, match="--username"):
        login.web_address("grpc://host:50051")
