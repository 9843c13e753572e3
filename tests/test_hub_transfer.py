"""Exporting a hub and importing what was exported, into hubs and over the wire."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_agent.errors import ServerRefused
from jupyter_agent.home import Home
from jupyter_agent.hub.transfer.exporting import export
from jupyter_agent.openflow.client import Credentials
from jupyter_agent.openflow.rights import ADMINS
from tests.hub_peers import hub_on_a_new_home
from tests.openflow_peers import Hub, names_in, running_hub
from tests.transfer_peers import (
    CONTENT,
    answer,
    change,
    command,
    exported_hub,
    part_name,
    refused,
    size_of,
    state_of,
    taken_in,
    told,
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a hub's home, and exports of it as an archive and as a folder."""
    return exported_hub(tmp_path_factory.mktemp("exported"))


# Round trips


@pytest.mark.parametrize("form", ["all.tar.gz", "all"])
async def test_what_comes_out_goes_in_and_comes_out_the_same(exported: Path, tmp_path: Path, form: str) -> None:
    home = tmp_path / "home"
    report = answer(home, "import", exported / form)
    assert report["replaced"] == report["skipped"] == {}
    assert (report["inserted"]["things"], report["inserted"]["things_hist"], report["files"]) == (1, 2, 1)
    answer(home, "export", "--passwords", tmp_path / "back")
    assert told(tmp_path / "back") == told(exported / "all")
    assert answer(home, "import", exported / form)["inserted"] == {}
    with running_hub(Home(home)) as hub:
        async with hub.client(Credentials(username="ann", password="password of ann")) as ann:
            assert (await ann.connected()).username == "ann"
        async with hub.client() as client:
            assert ADMINS in (await client.connected()).principals
            (thing,) = await client.query("things", {})
            assert (thing["_version"], thing["text"], thing["a.b"]) == (1, 'ä\u2028\U0001f600\\"____', [{"c.d": None}])
            (tmp_path / "in").mkdir()
            (package,) = await client.query("agents", {"_type": "package"})
            assert (await client.download(package["fileid"], tmp_path / "in")).read_bytes() == CONTENT
            (index,) = [index for index in await client.get_indexes("things") if index["key"] == {"n": -1}]
            assert index["unique"]
            older = await client.get_document_version("things", thing["_id"], 0)
            assert older is not None
            assert older["n"] == 1


def test_an_archive_is_plain_and_private(exported: Path) -> None:
    assert (exported / "all.tar.gz").stat().st_mode & 0o777 == 0o600
    assert (exported / "all").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in (exported / "all").rglob("*"))
    with tarfile.open(exported / "all.tar.gz") as archive:
        names = [member.name for member in archive.getmembers()]
    assert names[0] == "manifest.json"
    assert sorted(names) == sorted(str(path.relative_to(exported / "all")) for path in (exported / "all").rglob("*")
                                   if path.is_file())  # fmt: skip
    things = next(part for part in json.loads((exported / "all" / "manifest.json").read_text())["parts"]
                  if part["collection"] == "things")  # fmt: skip
    (line,) = (exported / "all" / things["name"]).read_bytes().splitlines()
    assert json.loads(line)["when"] == "2024-01-02T03:04:05.678Z"
    assert names_in(exported) == ["all", "all.tar.gz", "data.bin", "home"]


def test_passwords_come_only_when_asked_for(exported: Path, tmp_path: Path) -> None:
    answer(exported / "home", "export", tmp_path / "without")
    assert not (tmp_path / "without" / "passwords.jsonl").exists()
    assert b"argon2" not in b"".join(path.read_bytes() for path in (tmp_path / "without").rglob("*") if path.is_file())
    report = answer(tmp_path / "home", "import", tmp_path / "without")
    assert report["without_password"] == ["ann"]  # the owner gets one at the first start


async def test_a_hub_is_exported_as_it_was_at_one_moment_while_it_runs(tmp_path: Path) -> None:
    with hub_on_a_new_home() as hub:
        async with hub.client() as client:
            await client.connected()
            (tmp_path / "x").write_bytes(b"content")
            writing = True

            async def pairs(n: int) -> None:
                while writing:
                    await client.insert_many("pairs", [{"n": n}, {"n": n}])
                    file = await client.upload(tmp_path / "x")
                    await client.delete_one("files", file)

            async with asyncio.TaskGroup() as tasks:
                for n in range(4):
                    tasks.create_task(pairs(n))
                for number in range(3):
                    target = tmp_path / f"export {number}"
                    await asyncio.to_thread(answer, hub.home, "export", target)
                    parts = json.loads((target / "manifest.json").read_text())["parts"]
                    assert next((part["lines"] for part in parts if part["collection"] == "pairs"), 0) % 2 == 0
                    assert answer(tmp_path / f"home {number}", "import", target)["skipped"] == {}
                writing = False
        assert not [name for name in names_in(hub.home / "hub") if name.startswith(".")]


# Into a hub that has something


@pytest.fixture
def other(exported: Path, tmp_path: Path) -> Path:
    """A home with a hub that has the same, but for one document."""
    home = tmp_path / "other"
    folder = tmp_path / "changed"
    shutil.copytree(exported / "all", folder)
    change(folder, "things", lambda thing: {**thing, "n": 77})
    taken_in(home, folder)
    return home


def test_what_comes_in_is_counted_as_what_went_out(exported: Path, tmp_path: Path) -> None:
    out = command(exported / "home", "export", tmp_path / "all").stdout
    (documents,) = re.findall(r": (\d+) documents", out)
    for state in ("inserted", "unchanged"):
        assert f"{documents} documents {state}" in command(tmp_path / "new", "import", tmp_path / "all").stdout


def test_what_is_there_otherwise_is_refused_replaced_or_skipped(exported: Path, other: Path, tmp_path: Path) -> None:
    before = state_of(other)
    assert "The hub has another version of things" in refused(other, "import", exported / "all.tar.gz")
    assert state_of(other) == before
    report = answer(other, "import", "--skip", exported / "all.tar.gz")
    assert (report["skipped"], report["inserted"], report["replaced"]) == ({"things": 1}, {}, {})
    assert state_of(other) == before
    report = answer(other, "import", "--replace", exported / "all.tar.gz")
    assert (report["skipped"], report["inserted"], report["replaced"]) == ({}, {}, {"things": 1})
    assert state_of(other) == told(exported / "all")


async def test_users_of_the_same_name_are_the_same(exported: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running_hub(Home(home)) as hub:
        async with hub.client() as client:
            mine = (await client.connected()).id
            await client.insert_one("own", {"n": 1})
        report = answer(home, "import", "--stop", exported / "all.tar.gz")
    assert f"user {hub.ready['username']}" in report["same_names"]
    with running_hub(Home(home)) as hub:
        async with hub.client() as client:
            assert (await client.connected()).id == mine
            (thing,) = await client.query("things", {})
            assert thing["_createdbyid"] == mine
            assert mine in {entry["_id"] for entry in thing["_acl"]}
            assert await client.count("users", {"username": hub.ready["username"]}) == 1


def test_a_hub_that_runs_is_left_alone(exported: Path) -> None:
    with hub_on_a_new_home() as hub:
        assert "is running, and an import needs its store alone" in refused(hub.home, "import", exported / "all")


def test_an_import_that_is_killed_changes_nothing(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    shutil.copytree(exported / "all", folder)
    line = json.loads((folder / part_name(folder, "things")).read_bytes())
    many = [{**line, "_id": f"{n:024}", "n": n} for n in range(10_000)]
    path = folder / part_name(folder, "things")
    path.write_bytes(b"".join(json.dumps(each).encode() + b"\n" for each in many))
    change(folder, "things", lambda thing: thing)
    home = tmp_path / "home"
    answer(home, "import", exported / "all")
    before = state_of(home)
    change(folder, "agents", lambda _: None)
    program = [sys.executable, "-m", "jupyter_agent.hub", "import", "--home", str(home), "--skip", str(folder)]
    found = []
    for wait_for in (0, 1 << 19):  # before it has begun, and among its writes: or, where that is quick, at its end
        process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wal = home / "hub" / "hub.db-wal"
        while process.poll() is None and size_of(wal) < max(1, wait_for):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        found.append(state_of(home))
    taken_in(home, folder, "skip")
    whole = state_of(home)
    assert len(whole[part_name(folder, "things")].splitlines()) == len(many)  # one has the number of another
    assert found[0] == before
    assert found[1] in (before, whole)


# Over the wire


async def test_an_export_goes_into_an_openflow(exported: Path, tmp_path: Path) -> None:
    with hub_on_a_new_home() as hub:
        hub.add_user("ann", "x")
        where = ("--openflow", hub.url, exported / "all.tar.gz")
        report = answer(tmp_path / "home", "import", *where, text=hub.ready["jwt"] + "\n")
        assert (report["documents"], report["files"]) == ({"agents": 2, "things": 1, "workitems": 1}, 1)
        assert report["missing_users"] == ["role readers"]
        assert report["failed"] == []
        credentials = ("--username", hub.ready["username"])
        again = answer(tmp_path / "home", "import", *credentials, *where, text=hub.ready["password"] + "\n")
        assert (again["files"], again["known_files"], again["failed"]) == (0, 1, [])
        async with hub.client() as client:
            mine = (await client.connected()).id
            (file,) = await client.query("files", {})
            (package,) = await client.query("agents", {"_type": "package"})
            (item,) = await client.query("workitems", {})
            assert package["fileid"] == item["files"][0]["_id"] == file["_id"]
            (tmp_path / "in").mkdir()
            assert (await client.download(file["_id"], tmp_path / "in")).read_bytes() == CONTENT
            (thing,) = await client.query("things", {})
            assert (thing["n"], thing["when"], thing["_createdbyid"]) == (2, "2024-01-02T03:04:05.678Z", mine)
            assert mine in {entry["_id"] for entry in thing["_acl"]}
            assert any(index["key"] == {"n": -1} for index in await client.get_indexes("things"))


class LimitedHub(Hub):
    """A hub that answers 30 requests a second, as a server does."""

    def start(self) -> None:
        command = [sys.executable, "-m", "jupyter_agent.hub", "--home", str(self.home), "--json", "--rate-limit", "30"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())


@pytest.mark.parametrize(("typed", "ends"), [(b"wrong\n", 1), (None, 130)])
def test_whoever_sits_there_is_asked_for_the_token_which_is_not_shown(
    exported: Path, tmp_path: Path, typed: bytes | None, ends: int
) -> None:
    where = ("--home", str(tmp_path), "--openflow", "ws://127.0.0.1:9", str(exported / "all"))
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "jupyter_agent.hub", "import", *where]
    process = subprocess.Popen(program, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    said = b""
    asked = False
    with contextlib.suppress(OSError):  # how the end of a terminal is told
        while True:
            if asked and typed is None:
                process.send_signal(signal.SIGINT)  # again and again: one that comes just before it reads is not seen
            if not select.select([ours], [], [], 0.5)[0]:
                continue
            if not (piece := os.read(ours, 1000)):
                break
            said += piece
            if not asked and said.endswith(b"The token for ws://127.0.0.1:9: "):
                asked = True
                os.write(ours, typed or b"")
    os.close(ours)
    assert process.wait() == ends
    assert b"wrong" not in said
    assert b"Traceback" not in said


async def test_an_import_keeps_to_the_rate_of_a_server(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    with hub_on_a_new_home() as hub:
        async with hub.client() as client:
            await client.connected()
            for n in range(25):
                file = await client.upload(tmp_path / "x", filename=f"file {n}")
                await client.insert_one(f"collection {n}", {"n": n, "file": file})
        export(hub.home / "hub", tmp_path / "all", passwords=False, say=print)
    home = Home(tmp_path / "limited")
    home.prepare()
    limited = LimitedHub(home.path)
    limited.start()
    try:
        where = ("--openflow", limited.url, tmp_path / "all")
        report = answer(tmp_path / "home", "import", *where, text=limited.ready["jwt"] + "\n")
        assert (len(report["documents"]), report["files"], report["failed"]) == (25, 25, [])
    finally:
        limited.kill()


async def test_what_an_openflow_refuses_is_told_one_by_one(exported: Path, tmp_path: Path) -> None:
    with hub_on_a_new_home() as hub:
        async with hub.client() as client:
            await client.connected()
            await client.insert_one("agents", {"_type": "agent", "name": "there already", "slug": "a-slug"})
        where = ("--openflow", hub.url, exported / "all")
        done = command(tmp_path / "home", "import", "--json", *where, text=hub.ready["jwt"] + "\n")
        assert done.returncode == 1
        report = json.loads(done.stdout)
        assert report["documents"] == {"agents": 1, "things": 1, "workitems": 1}
        (failed,) = report["failed"]
        assert "E11000" in failed
        assert "1 documents or files could not be brought over" in done.stderr
        said = refused(tmp_path / "home", "import", *where, text="no token\n")
        assert "jwt" in said


# Whatever is in it


ODD = ("$", "\0", "____")
"""What is in no name: it would be an operator, is refused, or stands for a dot."""

NAMES = st.text(max_size=4).filter(lambda name: not any(odd in name for odd in ODD))
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | st.sampled_from(["2024-01-02T03:04:05.678Z", "0001-01-01T00:00:00.000Z", "a.b", "____"])
)  # fmt: skip
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


def test_any_document_comes_back(budgets: dict[str, int]) -> None:
    with hub_on_a_new_home() as hub:

        async def fill(values: list[Any]) -> None:
            async with hub.client() as client:
                await client.connected()
                for name in ("any", "any_hist"):
                    with contextlib.suppress(ServerRefused):  # the first time there is none
                        await client.drop_collection(name)
                await client.insert_many("any", [{"value": value} for value in values])
                for document in await client.query("any", {}, top=5, order_by={"_id": -1}):
                    await client.update_one("any", {**document, "value": 0})

        @settings(
            max_examples=budgets["transfer_examples"], deadline=None, suppress_health_check=[HealthCheck.too_slow]
        )
        @given(values=st.lists(JSON, min_size=20, max_size=60))
        def check(values: list[Any]) -> None:
            asyncio.run(fill(values))
            with tempfile.TemporaryDirectory(prefix="ja-") as name:
                folder = Path(name)
                for target in ("out.tar.gz", "out"):
                    export(hub.home / "hub", folder / target, passwords=True, say=print)
                taken_in(folder / "new", folder / "out.tar.gz")
                export(folder / "new" / "hub", folder / "back", passwords=True, say=print)
                assert told(folder / "back") == told(folder / "out")

        check()
