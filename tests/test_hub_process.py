"""The hub as a process: its command line, files, lock, port, users, and what comes to its port."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from jupyter_agent.home import Home
from jupyter_agent.hub.network import descriptors
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Envelope
from jupyter_agent.openflow.rights import ADMINS
from tests.hub_http import bearer, send
from tests.hub_peers import line
from tests.openflow_peers import Hub

DEADLINE_S = 60


class Process:
    """A hub's process with what it printed."""

    def __init__(self, home: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "jupyter_agent.hub", "--home", str(home), *arguments]
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ready(self) -> str:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line, self.popen.communicate(timeout=DEADLINE_S)[1]
        return line

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Ask it to end; its exit code and its standard error."""
        self.popen.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        _, errors = self.popen.communicate(timeout=DEADLINE_S)
        return self.popen.returncode, errors


@contextlib.contextmanager
def process(home: Path, *arguments: str) -> Iterator[Process]:
    running = Process(home, *arguments)
    try:
        yield running
    finally:
        running.popen.kill()
        running.popen.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A new home's path."""
    return tmp_path / "home"


def stored(home: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "hub" / name).read_text())
    return found


def add_user(home: Path, name: str, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jupyter_agent.hub", "user-add", "--home", str(home), name, *options]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_it_tells_in_one_line_where_it_is(path: Path) -> None:
    with process(path) as hub:
        text = hub.ready()
        assert text.count("\n") == 1
        assert stored(path, "hub.json")["apiurl"] in text
        assert str(path / "hub" / "credentials.json") in text
        assert stored(path, "credentials.json")["password"] not in text
        code, errors = hub.end()
    assert code == 0
    assert "Traceback" not in errors


def test_with_json_it_tells_how_to_sign_in(path: Path) -> None:
    with process(path, "--json") as hub:
        ready = json.loads(hub.ready())
        assert ready == {"apiurl": stored(path, "hub.json")["apiurl"], **stored(path, "credentials.json")}
        assert set(ready) == {"apiurl", "username", "password", "jwt"}
        about = stored(path, "hub.json")
        assert about["pid"] == hub.popen.pid
        assert about["started"] == pytest.approx(psutil.Process(hub.popen.pid).create_time(), abs=0.1)
        parts = urlsplit(ready["apiurl"])
        assert (parts.scheme, parts.hostname, parts.path) == ("ws", "127.0.0.1", "/ws/v2")
        assert ready["username"] == (getpass.getuser() if getpass.getuser() != "root" else "admin")


def test_its_files_are_private(hub: Hub) -> None:
    folder = hub.home / "hub"
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir() if file.is_file()}
    assert {"credentials.json", "hub.db", "hub.json"} <= set(modes)
    assert set(modes.values()) == {0o600}
    assert {stat.S_IMODE(each.stat().st_mode) for each in (hub.home, folder, folder / "files")} == {0o700}


def test_it_listens_on_this_machine_alone(hub: Hub) -> None:
    assert hub.process is not None
    found = psutil.Process(hub.process.pid).net_connections("inet")
    assert {each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


async def test_it_keeps_port_users_and_credentials(path: Path) -> None:
    seen = []
    for number in range(3):
        with process(path, "--json") as hub:
            seen.append(json.loads(hub.ready()))
            async with Client(seen[-1]["apiurl"], Credentials(jwt=seen[0]["jwt"]), version="1") as client:
                assert ADMINS in (await client.connected()).principals
                await client.insert_one("things", {"n": number})
                assert await client.count("things", {}) == number + 1
            assert hub.end()[0] == 0
    assert seen[0] == seen[1] == seen[2]


def test_a_port_that_is_taken(path: Path) -> None:
    with process(path, "--json") as hub:
        port = urlsplit(json.loads(hub.ready())["apiurl"]).port
        assert hub.end()[0] == 0
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with process(path, "--json") as hub:  # it was not asked for: another one will do
            assert urlsplit(json.loads(hub.ready())["apiurl"]).port != port
            assert hub.end()[0] == 0
        with process(path, "--json", "--port", str(port)) as hub:
            code, errors = hub.ended()
        assert code == 1
        assert errors == f"The hub cannot listen on port {port} of 127.0.0.1 (Address already in use).\n"
    with process(path, "--json", "--port", str(port)) as hub:
        assert urlsplit(json.loads(hub.ready())["apiurl"]).port == port


@pytest.mark.parametrize("port", ["-1", "70000"])
def test_what_is_no_port_is_refused(path: Path, port: str) -> None:
    with process(path, "--port", port) as hub:
        code, errors = hub.ended()
    assert code == 1
    assert errors == f"{port} is no port: a port is a number from 1 to 65535, or 0 for any.\n"


def test_a_home_has_one_hub(hub: Hub) -> None:
    with process(hub.home) as second:
        code, errors = second.ended()
    assert code == 1
    assert errors == f"A hub of {hub.home} is running already: use that one, or stop it first.\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_a_clean_end_with_clients(path: Path, number: signal.Signals) -> None:
    with process(path, "--json") as hub:
        ready = json.loads(hub.ready())
        async with line(ready["apiurl"]) as wire:
            await wire.say("signin", pb.SigninRequest(jwt=ready["jwt"]))
            await wire.hear("signinreply")
            hub.popen.send_signal(number)
            with pytest.raises(ConnectionClosed) as closed:
                await wire.hear("nothing")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        code, errors = hub.ended()
    assert code == 0
    assert "Traceback" not in errors
    assert not (path / "hub" / "hub.db-wal").exists()  # the store was closed in order


async def test_it_ends_when_nobody_is_left_and_not_before(path: Path) -> None:
    with process(path, "--json", "--exit-when-idle", "1.5") as hub:
        ready = json.loads(hub.ready())
        async with line(ready["apiurl"]) as wire:
            await wire.say("signin", pb.SigninRequest(jwt=ready["jwt"]))
            await wire.hear("signinreply")
            begun = time.monotonic()
            while time.monotonic() < begun + 2.5:  # longer than it waits for clients
                assert (await wire.ask("count", pb.CountRequest(collectionname="t")))[0] == "countreply"
            assert hub.popen.poll() is None
        assert hub.ended()[0] == 0


def test_it_ends_when_nobody_ever_came(path: Path) -> None:
    with process(path, "--exit-when-idle", "0.2") as hub:
        hub.ready()
        assert hub.ended()[0] == 0


def test_who_started_it_need_not_listen(path: Path) -> None:
    with process(path) as hub:
        assert hub.popen.stdout is not None
        hub.popen.stdout.close()
        deadline = time.monotonic() + DEADLINE_S
        while not (path / "hub" / "hub.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        hub.popen.stdout = open(os.devnull)  # noqa: PTH123, SIM115 - for communicate
        hub.popen.send_signal(signal.SIGTERM)
        assert hub.popen.wait(DEADLINE_S) == 0


# Stores that cannot be used


def ended_with(home: Path) -> str:
    with process(home) as hub:
        code, errors = hub.ended()
    assert code == 1
    assert errors.count("\n") == 1, errors
    return errors


def with_store(home: Path) -> Path:
    made = Home(home)
    made.prepare()
    return made.hub / "hub.db"


def test_a_store_of_a_newer_version_is_refused_untouched(path: Path) -> None:
    store = with_store(path)
    connection = sqlite3.connect(store)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = store.read_bytes()
    assert "hub.db was written by a newer version of jupyter_agent (format 99" in ended_with(path)
    assert store.read_bytes() == before


def test_a_store_that_is_none_is_refused_untouched(path: Path) -> None:
    store = with_store(path)
    store.write_bytes(b"nothing of a database, but long enough to be looked at as one " * 50)
    before = store.read_bytes()
    assert "hub.db is not a database" in ended_with(path)
    assert store.read_bytes() == before


def test_a_store_that_cannot_be_opened_is_said(path: Path) -> None:
    with_store(path).mkdir()
    assert "hub.db cannot be opened for writing (Is a directory)" in ended_with(path)


def test_broken_credentials_are_said(path: Path) -> None:
    with_store(path)
    (path / "hub" / "credentials.json").write_text("{")
    assert "credentials.json is not readable as JSON" in ended_with(path)


def test_a_home_that_takes_no_files_is_said(path: Path) -> None:
    with_store(path)
    (path / "hub" / "hub.json").mkdir()
    assert ended_with(path) == f"The hub cannot write to {path}, or print its answer (Is a directory).\n"


async def test_lost_credentials_are_made_anew_for_the_same_user(path: Path) -> None:
    with process(path, "--json") as hub:
        first = json.loads(hub.ready())
        async with Client(first["apiurl"], Credentials(jwt=first["jwt"]), version="1") as client:
            user = await client.connected()
            (document,) = await client.query("users", {"_id": user.id})
            await client.update_one("users", {**document, "disabled": True})
        hub.end()
    (path / "hub" / "credentials.json").unlink()
    (path / "hub" / "hub.json").write_text("broken")
    with process(path, "--json") as hub:
        second = json.loads(hub.ready())
        assert second["password"] != first["password"]
        credentials = Credentials(username=second["username"], password=second["password"])
        async with Client(second["apiurl"], credentials, version="1") as client:
            again = await client.connected()
    assert (again.id, again.username) == (user.id, user.username)
    assert ADMINS in again.principals


def test_a_token_that_ends_soon_is_renewed(path: Path) -> None:
    with process(path) as hub:
        hub.ready()
        hub.end()
    connection = sqlite3.connect(path / "hub" / "hub.db")
    (key,) = connection.execute("SELECT value FROM settings WHERE name = 'token key'").fetchone()
    connection.close()
    credentials = stored(path, "credentials.json")
    claims = jwt.decode(credentials["jwt"], key, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 365 * 24 * 3600
    for days, renewed in ((29, True), (31, False), (-1, True)):
        old = jwt.encode({**claims, "exp": int(time.time()) + days * 24 * 3600}, key)
        (path / "hub" / "credentials.json").write_text(json.dumps({**credentials, "jwt": old}))
        with process(path) as hub:
            hub.ready()
            hub.end()
        assert (stored(path, "credentials.json")["jwt"] != old) is renewed
        assert stored(path, "credentials.json")["password"] == credentials["password"]


# Users


@pytest.mark.parametrize("running", [True, False])
async def test_users_are_added_with_and_without_a_hub(path: Path, *, running: bool) -> None:
    if running:
        with process(path, "--json") as hub:
            hub.ready()
            added = [add_user(path, "ann", "päss wörd\n"), add_user(path, "boss", "b", "--admin")]
            again = add_user(path, "ann", "another päss wörd\n")
    else:
        added = [add_user(path, "ann", "päss wörd\n"), add_user(path, "boss", "b", "--admin")]
        again = add_user(path, "ann", "another päss wörd\n")
    assert [(each.returncode, each.stderr) for each in added] == [(0, ""), (0, "")], added
    assert added[0].stdout == "The user ann was added.\n"
    assert (again.returncode, again.stdout) == (0, "The user ann has a new password.\n")
    with process(path, "--json") as hub:
        url = json.loads(hub.ready())["apiurl"]
        async with Client(url, Credentials(username="ann", password="another päss wörd"), version="1") as client:
            assert ADMINS not in (await client.connected()).principals
        async with Client(url, Credentials(username="boss", password="b"), version="1") as client:
            assert ADMINS in (await client.connected()).principals


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("ann", "", "A password cannot be empty: write it on standard input, in one line."),
        ("ann", "\nx\n", "A password cannot be empty: write it on standard input, in one line."),
        ("", "x", "'' cannot be a user's name"),
        ("a b", "x", "'a b' cannot be a user's name"),
        ("a/b", "x", "'a/b' cannot be a user's name"),
        ("root", "x", "root is the hub itself and has no password"),
    ],
)
def test_users_that_cannot_be_are_refused(hub: Hub, name: str, text: str, sentence: str) -> None:
    done = add_user(hub.home, name, text)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


# What comes to the port


def address(hub: Hub) -> tuple[str, int]:
    parts = urlsplit(hub.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def http(hub: Hub, request: str) -> str:
    """The head of what the hub answers to the text of a request."""
    with socket.create_connection(address(hub), timeout=DEADLINE_S) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode())
        data = b""
        while b"\r\n\r\n" not in data and (part := connection.recv(65536)):
            data += part
    return data.decode(errors="replace")


def test_http(hub: Hub) -> None:
    host = "%s:%d" % address(hub)  # noqa: UP031
    assert http(hub, f"GET /livenessprobe HTTP/1.1\nHost: {host}\nConnection: close\n\n").startswith("HTTP/1.1 200")
    for target in (
        "/",
        "/ws",
        "/ws/v1",
        "/download/",
        "/rest/v1/",
        "/oidc/.well-known/openid-configuration",
        "/ws/v2/..%2f",
    ):
        assert http(hub, f"GET {target} HTTP/1.1\nHost: {host}\nConnection: close\n\n").startswith("HTTP/1.1 404")
    assert http(hub, f"GET /ws/v2 HTTP/1.1\nHost: {host}\nConnection: close\n\n").startswith("HTTP/1.1 4")


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:{port}", None, 101),
        ("localhost:{port}", None, 101),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}", 101),
        ("evil.example:{port}", None, 403),
        ("127.0.0.1.evil.example:{port}", None, 403),
        ("127.0.0.1", None, 403),
        ("127.0.0.1:1", None, 403),
        ("", None, 403),
        ("127.0.0.1:{port}", "http://evil.example", 403),
        ("127.0.0.1:{port}", "http://127.0.0.1:8888", 403),
        ("127.0.0.1:{port}", "https://127.0.0.1:{port}", 403),
        ("127.0.0.1:{port}", "null", 403),
        ("evil.example:{port}", "http://evil.example:{port}", 403),
    ],
)
def test_only_who_means_the_hub_gets_in(hub: Hub, host: str, origin: str | None, status: int) -> None:
    _, port = address(hub)
    headers = f"Host: {host.format(port=port)}\n"
    headers += f"Origin: {origin.format(port=port)}\n" if origin is not None else ""
    upgrade = "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
    text = http(hub, f"GET /ws/v2 HTTP/1.1\n{headers}{upgrade}{key}\n")
    assert text.startswith(f"HTTP/1.1 {status}"), text
    probe = http(hub, f"GET /livenessprobe HTTP/1.1\n{headers}Connection: close\n\n")
    assert probe.startswith(f"HTTP/1.1 {200 if status == 101 else 403}"), probe


async def test_a_page_of_another_origin_is_refused(hub: Hub) -> None:
    with pytest.raises(InvalidStatus):
        async with line(hub.url, origin="http://evil.example"):
            pass


def test_junk_does_not_harm(hub: Hub) -> None:
    for junk in (b"\x00" * 1000, os.urandom(5000), b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 1000, b"A" * 200_000, b""):
        with contextlib.suppress(OSError), socket.create_connection(address(hub), timeout=DEADLINE_S) as connection:
            connection.sendall(junk)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    assert "200" in http(hub, "GET /livenessprobe HTTP/1.1\nHost: {}:{}\nConnection: close\n\n".format(*address(hub)))


def envelope(seq: int, command: str = "ping") -> bytes:
    record = Envelope(command=command, seq=seq, id=str(seq)).SerializeToString()
    return struct.pack("<I", len(record)) + record


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff" + b"x" * 100,
        struct.pack("<I", 20) + b"\xff" * 20,
        os.urandom(10_000),
        envelope(0) + envelope(0),
        b"".join(envelope(seq) for seq in range(10, 160)),
        struct.pack("<i", -1),
    ],
)
@pytest.mark.parametrize("signed_in", [True, False])
async def test_a_client_that_breaks_the_protocol_is_disconnected(hub: Hub, data: bytes, *, signed_in: bool) -> None:
    async with line(hub.url) as other, line(hub.url) as wire:
        await other.sign_in(hub)
        if signed_in:
            await wire.sign_in(hub)
        with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012
            await wire.socket.send(data)
            await wire.hear("nothing")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1002
        assert (await other.ask("count", pb.CountRequest(collectionname="t")))[0] == "countreply"


async def test_text_frames_and_frames_that_are_too_big_end_the_connection(hub: Hub) -> None:
    async with line(hub.url) as wire:
        await wire.socket.send("text")
        with pytest.raises(ConnectionClosed) as closed:
            await wire.hear("nothing")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1003
    async with line(hub.url) as wire:
        with pytest.raises(ConnectionClosed):  # noqa: PT012
            await wire.socket.send(bytes(161 << 20))
            await wire.hear("nothing")
    assert "200" in http(hub, "GET /livenessprobe HTTP/1.1\nHost: {}:{}\nConnection: close\n\n".format(*address(hub)))


async def test_bytes_may_come_in_any_portions(hub: Hub) -> None:
    async with line(hub.url) as wire:
        data = wire.session.envelope("signin", pb.SigninRequest(jwt=hub.ready["jwt"]))
        data += wire.session.envelope("count", pb.CountRequest(collectionname="t"), id="c")
        for index in range(len(data)):
            await wire.socket.send(data[index : index + 1])
        assert (await wire.hear("signinreply"))[0] == "signinreply"
        assert (await wire.hear("countreply"))[0] == "countreply"


@pytest.mark.parametrize(
    "message",
    [
        pb.QueryRequest(collectionname="users", query="{}"),
        pb.InsertOneRequest(collectionname="t", item="{}"),
        pb.UploadRequest(filename="x"),
        pb.DownloadRequest(id="x"),
        pb.WatchRequest(collectionname="t"),
        pb.RegisterQueueRequest(),
        pb.QueueMessageRequest(queuename="x", data="{}"),
        pb.CustomCommandRequest(command="getclients"),
    ],
)
async def test_nothing_is_done_for_who_is_not_signed_in(hub: Hub, message: Any) -> None:
    command = type(message).DESCRIPTOR.name.removesuffix("Request").lower()
    async with line(hub.url) as wire:
        answer, error = await wire.ask(command, message)
        assert (answer, error.message) == ("error", "Not signed in, and missing jwt")
        answer, error = await wire.ask(command, message, jwt="nonsense")
        assert (answer, error.message) == ("error", "Discard signin due to invalid or expired jwt")


async def test_unknown_commands_and_broken_data_are_errors_and_the_connection_goes_on(hub: Hub) -> None:
    async with line(hub.url) as wire:
        await wire.sign_in(hub)
        answer, error = await wire.ask("nosuchcommand")
        assert (answer, error.message) == ("error", "no such type: openiap.nosuchcommand")
        broken = Envelope(command="query", seq=2, id="q")
        broken.data.value = b"\xff\xff\xff"
        record = broken.SerializeToString()
        wire.session.envelope("noop")
        await wire.socket.send(struct.pack("<I", len(record)) + record)
        answer, error = await wire.hear(rid="q")
        assert (answer, error.message) == ("error", "The data of a query could not be decoded.")
        for command in ("ping", "pong", "noop", "queryreply", "error"):
            await wire.say(command)
        assert (await wire.ask("COUNT", pb.CountRequest(collectionname="t")))[0] == "countreply"


# Limits


@pytest.mark.parametrize(("options", "limit"), [(("--rate-limit",), 30), (("--rate-limit", "7"), 7)])
async def test_with_a_rate_limit_so_many_requests_a_second_are_answered(
    path: Path, options: tuple[str, ...], limit: int
) -> None:
    with process(path, "--json", *options) as hub:
        ready = json.loads(hub.ready())
        async with line(ready["apiurl"]) as wire:
            await wire.say("signin", pb.SigninRequest(jwt=ready["jwt"]))
            await wire.hear("signinreply")
            for _ in range(3 * limit):
                await wire.say("count", pb.CountRequest(collectionname="t"))
            answers = [await wire.hear() for _ in range(3 * limit)]
        refused = [answer.message for command, answer in answers if command == "error"]
        assert refused[0] == f"Rate limit exceeded consumedPoints: {limit + 1}"
        peer, token = Hub(path, ready), bearer(ready["jwt"])
        asked = [send(peer, "POST", "/rest/v1/Count", {}, Authorization=token) for _ in range(3 * limit)]
        assert next(each.sentence for each in asked if each.status == 429) == refused[0]


def test_what_is_no_rate_limit_is_refused(path: Path) -> None:
    with process(path, "--rate-limit=-1") as hub:
        code, errors = hub.ended()
    assert (code, errors) == (1, "A rate limit is a number of requests a second, or 0 for none.\n")


def test_it_may_open_as_many_files_as_it_is_allowed(path: Path) -> None:
    command = [sys.executable, "-m", "jupyter_agent.hub", "--home", str(path)]
    hub = subprocess.Popen(["bash", "-c", 'ulimit -S -n 256; exec "$@"', "bash", *command], stdout=subprocess.PIPE)
    try:
        assert hub.stdout is not None
        assert hub.stdout.readline()
        soft, hard = psutil.Process(hub.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert soft == min(hard, descriptors.MOST)
    finally:
        hub.kill()
        hub.communicate()


def test_clients_leave_room_for_files() -> None:
    assert descriptors.room(1 << 16, 4096) == 4096
    assert descriptors.room(1024, 4096) == 1024 - descriptors.RESERVED
    assert descriptors.room(256, 4096) == 128
    assert descriptors.room(0, 4096) == 16
