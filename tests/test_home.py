"""The home: private, versioned, locked; and the client for its socket."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import threading
from pathlib import Path

import pytest

from jupyter_agent.errors import Conflict, InvalidInput, NewerVersion, Unavailable
from jupyter_agent.home import (
    AgentClient,
    Home,
    Lock,
    answering_agent,
    failure,
    read_json,
    running_agent,
    socket_path,
    write_private,
)


def test_a_home_is_made_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "home")
    home.prepare()
    home.prepare()
    assert home.path.stat().st_mode & 0o777 == 0o700
    assert running_agent(home) is None


def test_a_newer_home_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    (tmp_path / "version").write_text("2")
    with pytest.raises(NewerVersion, match="JUPYTER_AGENT_HOME"):
        home.prepare()


@pytest.mark.parametrize("text", ["", "x", "\xff"])
def test_a_home_with_a_broken_version_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "version").write_text(text, encoding="latin-1")
    with pytest.raises(InvalidInput):
        Home(tmp_path).prepare()


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="JUPYTER_AGENT_HOME"):
        Home(tmp_path / "file" / "home").prepare()


def test_where_the_home_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JUPYTER_AGENT_HOME", raising=False)
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    assert Home.find().path == tmp_path / "agent"
    monkeypatch.setenv("JUPYTER_AGENT_HOME", str(tmp_path / "other"))
    assert Home.find().path == tmp_path / "other"
    assert Home.find(tmp_path / "given").path == tmp_path / "given"


def test_jupyters_own_rule_for_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_core.paths import jupyter_data_dir

    from jupyter_agent.home import jupyter_data_folder

    for name in ("JUPYTER_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert str(jupyter_data_folder()) == jupyter_data_dir()


def test_a_written_file_is_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_private(path, '{"a": 1}')
    assert read_json(path) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]
    assert read_json(tmp_path / "none") is None


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def hold(path: str, ready: str) -> None:
    lock = Lock(Path(path), held="")
    lock.acquire()
    Path(ready).touch()
    os.read(0, 1)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    from tests.conftest import until

    path, ready = tmp_path / "lock", tmp_path / "ready"
    context = multiprocessing.get_context("spawn")
    holder = context.Process(target=hold, args=(str(path), str(ready)))
    holder.start()
    try:
        until(ready.exists)
        with pytest.raises(Conflict, match="held elsewhere"), Lock(path, held="held elsewhere"):
            pass
    finally:
        holder.kill()
        holder.join()
    with Lock(path, held="held elsewhere"):
        pass


def test_a_socket_path_fits(tmp_path: Path) -> None:
    assert socket_path(Home(Path("/h"))) == Path("/h/agent.sock")
    path = socket_path(Home(tmp_path / ("x" * 120)))
    assert len(os.fsencode(path)) <= 100
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.parent.rmdir()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        AgentClient(str(tmp_path / "no.sock")).request("GET", "status")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"])
def test_one_that_is_being_killed_is_no_agent(tmp_path: Path, answer: bytes) -> None:
    """Its socket takes connections for a moment longer, and closes them without an answer."""
    home = Home(tmp_path / "home")
    home.prepare()
    path = str(socket_path(home))
    write_private(home.agent_file, json.dumps({"socket": path}))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            for _ in range(2):
                connection = listening.accept()[0]
                with connection:
                    connection.sendall(answer) if connection.recv(1) else None

        thread = threading.Thread(target=serve)
        thread.start()
        assert answering_agent(home) == (path if answer else None)
        thread.join()
        assert running_agent(home) == path


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"message": "No.", "reason": null}'])
def test_any_answer_makes_an_error(data: bytes) -> None:
    assert failure(500, data).status == 500


def test_a_folder_of_something_else_is_no_home(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(InvalidInput, match=r"thesis\.docx"):
        Home(tmp_path).prepare()
    assert running_agent(Home(tmp_path)) is None
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.docx"]


def test_a_home_may_be_prepared_with_settings(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "lost+found").mkdir()
    Home(tmp_path).prepare()
    assert (tmp_path / "version").read_text() == "1\n"


def test_half_a_file_is_none(tmp_path: Path) -> None:
    """An agent that is killed in the middle of an answer has not given it."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def answer() -> None:
            for _ in range(2):
                connection, _peer = server.accept()
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[")
                connection.close()

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(Unavailable):
            AgentClient(path).save("runs/x/artifacts/y", tmp_path / "y")
        with pytest.raises(Unavailable):
            AgentClient(path).request("GET", "status")
        answering.join()
