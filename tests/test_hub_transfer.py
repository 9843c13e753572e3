"""Exporting a hub and importing what was exported, into hubs and over the wire; and exports that somebody broke."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_agent.errors import AgentError, Failed, ServerRefused
from jupyter_agent.home import Home
from jupyter_agent.hub.data.store import Store
from jupyter_agent.hub.transfer.disk import scratch
from jupyter_agent.hub.transfer.exporting import export
from jupyter_agent.hub.transfer.importing import Report, Rule, import_export
from jupyter_agent.hub.transfer.opening import open_export
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.openflow.rights import ADMINS
from tests.hub_peers import hub_on_a_new_home
from tests.openflow_peers import Hub, names_in, running_hub

CONTENT = b"0123456789abcdef" * 20_000


def command(home: Path, name: str, *options: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """What the command line does."""
    program = [sys.executable, "-m", "jupyter_agent.hub", name, "--home", str(home), *map(str, options)]
    return subprocess.run(program, input=text, capture_output=True, text=True, timeout=120, check=False)


def answer(home: Path, name: str, *options: str | Path, text: str = "") -> dict[str, Any]:
    done = command(home, name, "--json", *options, text=text)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(home: Path, name: str, *options: str | Path, text: str = "") -> str:
    """The one sentence of an error."""
    done = command(home, name, *options, text=text)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.stderr.strip()


def taken_in(home: Path, source: Path, rule: Rule = "refuse") -> Report:
    """An import without a process of its own."""
    home.joinpath("hub").mkdir(parents=True, exist_ok=True)

    async def make() -> None:
        async with Store(home / "hub" / "hub.db"):
            pass

    asyncio.run(make())
    with scratch(home / "hub") as folder:
        found = open_export(source, folder, print)
        return import_export(home / "hub", found, rule=rule, say=print)


def state_of(home: Path) -> dict[str, Any]:
    """All that is in a hub."""
    with tempfile.TemporaryDirectory(prefix="ja-") as folder:
        export(home / "hub", Path(folder) / "state", passwords=True, say=print)
        return told(Path(folder) / "state")


def told(folder: Path) -> dict[str, Any]:
    """All that is in an export, but for when it was made."""
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {**files, "manifest.json": {**manifest, "created": ""}}


async def filled(client: Client, folder: Path) -> str:
    """Something of everything; the id of a file."""
    (folder / "data.bin").write_bytes(CONTENT)
    file = await client.upload(folder / "data.bin", metadata={"a.b": {"when": "2024-01-02T03:04:05.678Z"}})
    await client.insert_one("agents", {"_type": "package", "name": "p", "fileid": file})
    await client.insert_one("agents", {"_type": "agent", "name": "a", "slug": "a-slug"})
    made = await client.insert_one("things", {"n": 1, "a.b": [{"c.d": None}], "when": "2024-01-02T03:04:05.678Z"})
    await client.update_one("things", {**made, "n": 2, "text": 'ä\u2028\U0001f600\\"____'})
    gone = await client.insert_one("things", {"n": 3})
    await client.delete_one("things", gone["_id"])
    await client.create_index("things", {"n": -1}, options={"unique": True})
    item = {"_type": "workitem", "name": "i", "state": "new", "files": [{"_id": file, "filename": "data.bin"}]}
    await client.insert_one("workitems", item)
    await client.insert_one("users", {"_type": "role", "name": "readers", "members": []})
    return file


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a hub's home, and exports of it as an archive and as a folder."""
    folder = tmp_path_factory.mktemp("exported")
    with running_hub(Home(folder / "home")) as hub:
        hub.add_user("ann", "password of ann")

        async def fill() -> None:
            async with hub.client() as client:
                await client.connected()
                await filled(client, folder)

        asyncio.run(fill())
        answer(hub.home, "export", "--passwords", folder / "all.tar.gz")
        answer(hub.home, "export", "--passwords", folder / "all")
    return folder


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


def change(folder: Path, part: str, edit: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Edit the documents of a part, and put the manifest right."""
    manifest = json.loads((folder / "manifest.json").read_text())
    told_of = next(each for each in manifest["parts"] if part in (each["collection"], each["name"]))
    path = folder / told_of["name"]
    edited = [edit(json.loads(line)) for line in path.read_bytes().splitlines()]
    data = b"".join(json.dumps(each).encode() + b"\n" for each in edited if each is not None)
    path.write_bytes(data)
    lines = sum(each is not None for each in edited)
    told_of |= {"bytes": len(data), "lines": lines, "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


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


def size_of(path: Path) -> int:
    """Bytes, 0 where there is no such file: another process may remove it at any moment."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def part_name(folder: Path, collection: str) -> str:
    parts = json.loads((folder / "manifest.json").read_text())["parts"]
    return str(next(part["name"] for part in parts if part["collection"] == collection))


# What somebody broke


def cut(folder: Path) -> None:
    path = folder / part_name(folder, "things")
    path.write_bytes(path.read_bytes()[:-10])


def flip(folder: Path) -> None:
    (path,) = (folder / "files").iterdir()
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


def link(folder: Path) -> None:
    (path,) = (folder / "files").iterdir()
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def link_folder(folder: Path) -> None:
    (folder / "files").rename(folder.parent / "elsewhere files")
    (folder / "files").symlink_to(folder.parent / "elsewhere files")


def manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rename_part(folder: Path, name: str) -> None:
    parts = json.loads((folder / "manifest.json").read_text())["parts"]
    parts[0]["name"] = name
    manifest(folder, parts=parts)


def twice(folder: Path) -> None:
    path = folder / part_name(folder, "things")
    path.write_bytes(path.read_bytes() * 2)
    change(folder, "things", lambda thing: thing)


def not_json(folder: Path) -> None:
    path = folder / part_name(folder, "things")
    data = b'{"_id": "x", "n": NaN}\n'
    path.write_bytes(data)
    parts = json.loads((folder / "manifest.json").read_text())["parts"]
    (part,) = [part for part in parts if part["collection"] == "things"]
    part |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest(folder, parts=parts)


def contents(folder: Path, **changes: Any) -> None:
    change(folder, "contents.jsonl", lambda content: {**content, **changes})


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut off": (cut, "is not as it was written"),
    "another content": (flip, "the content of the file .* is not as it was written"),
    "a link": (link, "cannot be read"),
    "a folder that is a link": (link_folder, "files is a link"),
    "no content": (lambda folder: shutil.rmtree(folder / "files"), "is missing"),
    "no part": (lambda folder: (folder / part_name(folder, "users")).unlink(), "is missing"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
    "a manifest of something": (lambda folder: manifest(folder, format="x"), "no export of a hub"),
    "a manifest of no version": (lambda folder: manifest(folder, version="1"), "does not say its version"),
    "a manifest of tomorrow": (lambda folder: manifest(folder, version=2), "newer version of jupyter_agent"),
    "a manifest that is no JSON": (lambda folder: (folder / "manifest.json").write_text("{"), "manifest is not JSON"),
    "a manifest without parts": (lambda folder: manifest(folder, parts=[]), "does not name contents.jsonl"),
    "a manifest of odd parts": (lambda folder: manifest(folder, parts=[1]), "manifest is incomplete"),
    "more files": (lambda folder: manifest(folder, files=5), "tells of other files"),
    "a way out": (lambda folder: rename_part(folder, "collections/../../../x"), "manifest is incomplete"),
    "a part twice": (lambda folder: rename_part(folder, "contents.jsonl"), "names a part twice"),
    "an id that is a path": (lambda folder: contents(folder, id="../../x"), "cannot be understood"),
    "a size that is none": (lambda folder: contents(folder, bytes=-1), "cannot be understood"),
    "no JSON": (not_json, "cannot be understood"),
    "an id twice": (twice, "holds the id .* twice"),
    "no id": (lambda folder: change(folder, "things", lambda thing: {**thing, "_id": 7}), "its _id must be"),
    "a type of a number": (lambda folder: change(folder, "things", lambda thing: {**thing, "_type": 7}), "its _type"),
    "rights of a text": (lambda folder: change(folder, "things", lambda thing: {**thing, "_acl": "x"}), "_acl must be"),
    "a user's password": (
        lambda folder: change(folder, "users", lambda user: {**user, "password": "x"}), "holds no password",
    ),
    "a hash that is none": (
        lambda folder: change(folder, "passwords.jsonl", lambda one: {**one, "hash": "x"}), "is no hash of a password",
    ),
    "a file of another length": (
        lambda folder: change(folder, "fs.files", lambda file: {**file, "length": 7}), "is not where it should be",
    ),
    "a file without a document": (
        lambda folder: change(folder, "fs.files", lambda _: None), "contents of files that have no document",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_broken_is_refused_and_changes_nothing(
    exported: Path, tmp_path: Path, fresh: tuple[Path, dict[str, Any]], fault: str
) -> None:
    home, before = fresh
    folder = tmp_path / "export"
    shutil.copytree(exported / "all", folder)
    damage, sentence = BROKEN[fault]
    damage(folder)
    with pytest.raises(AgentError, match=sentence):
        taken_in(home, folder)
    assert state_of(home) == before
    assert not [name for name in names_in(home / "hub" / "files") if name.endswith(".part")]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A home with an empty hub, and its state."""
    folder = tmp_path_factory.mktemp("fresh")
    home = folder / "home"
    with running_hub(Home(home)):
        pass
    return home, state_of(home)


def packed(members: list[tuple[tarfile.TarInfo, bytes]], path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            info.size = info.size or len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def entry(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def members_of(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(path) as archive:
        found = []
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            found.append((member, file.read()))
        return found


def bomb(path: Path) -> Path:
    """A header that says it is eight gigabytes long, which it is, of zeros."""
    info = entry("pax", type=tarfile.XHDTYPE, size=(1 << 33) - 1)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.write(bytes(64 << 20))
    return path


def huge(source: Path, path: Path) -> Path:
    """A manifest that promises more than any disk has."""
    (first, data), *rest = members_of(source)
    about = json.loads(data)
    about["parts"][0]["bytes"] = 1 << 60
    first.size = 0
    return packed([(first, json.dumps(about).encode()), *rest], path)


def test_archives_that_are_no_exports_are_refused(
    exported: Path, tmp_path: Path, fresh: tuple[Path, dict[str, Any]]
) -> None:
    home, before = fresh
    good = members_of(exported / "all.tar.gz")
    first = good[0]
    whole = (exported / "all.tar.gz").read_bytes()
    (tmp_path / "text.tar.gz").write_text("no archive at all")
    (tmp_path / "empty.tar.gz").write_bytes(b"")
    for number, length in enumerate((10, 100, len(whole) // 2, len(whole) - 10)):
        (tmp_path / f"cut{number}.tar.gz").write_bytes(whole[:length])
    symlink = entry("collections/0001.jsonl", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    fifo = entry("collections/0001.jsonl", type=tarfile.FIFOTYPE)
    bad = [
        tmp_path / "text.tar.gz",
        tmp_path / "empty.tar.gz",
        *(tmp_path / f"cut{number}.tar.gz" for number in range(4)),
        packed([(entry("../../evil"), b"x")], tmp_path / "a.tar.gz"),
        packed([first, (entry("/etc/evil"), b"x")], tmp_path / "b.tar.gz"),
        packed([first, (symlink, b"")], tmp_path / "c.tar.gz"),
        packed([first, (fifo, b"")], tmp_path / "d.tar.gz"),
        packed([*good, (entry("more"), b"x")], tmp_path / "e.tar.gz"),
        packed([*good[:-1]], tmp_path / "f.tar.gz"),
        packed([first, *reversed(good[1:])], tmp_path / "g.tar.gz"),
        bomb(tmp_path / "h.tar.gz"),
        huge(exported / "all.tar.gz", tmp_path / "i.tar.gz"),
    ]
    for path in bad:
        with pytest.raises(AgentError, match=r"damaged|no export|free some space"):
            taken_in(home, path)
    assert "no export" in refused(home, "import", bad[0])
    assert state_of(home) == before
    assert not (tmp_path.parent / "evil").exists()


def test_what_cannot_be_done_is_said(exported: Path, tmp_path: Path) -> None:
    home = exported / "home"
    assert "is there already" in refused(home, "export", exported / "all")
    assert "There is no folder" in refused(home, "export", tmp_path / "no" / "such.tar.gz")
    assert "neither an archive in .tar.gz nor" in refused(home, "export", tmp_path / "x.zip")
    assert "nothing to export" in refused(tmp_path / "nobody", "export", tmp_path / "x.tar.gz")
    assert "There is no" in refused(home, "import", tmp_path / "nothing.tar.gz")
    assert "give its --openflow URL" in refused(home, "import", "--username", "x", exported / "all")
    nobody = ("--openflow", "ws://127.0.0.1:9", exported / "all")
    assert "nothing answers there" in refused(tmp_path / "nobody", "import", *nobody, text="token\n")
    assert "do not apply" in refused(home, "import", "--openflow", "ws://x", "--skip", exported / "all")
    shutil.copytree(home, tmp_path / "copy")
    (damaged,) = (tmp_path / "copy" / "hub" / "files").iterdir()
    damaged.write_bytes(b"x")
    for sentence in ("is damaged", "is missing"):
        with pytest.raises(AgentError, match=sentence):
            export(tmp_path / "copy" / "hub", tmp_path / "x.tar.gz", passwords=True, say=print)
        damaged.unlink(missing_ok=True)
    assert names_in(tmp_path) == ["copy", "nobody"]


def test_what_a_kill_left_behind_is_removed(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported / "home" / "hub", tmp_path / "hub")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for folder in (tmp_path, tmp_path / "hub"):
        (folder / f".hub-transfer-{process.pid}-0a1b2c3d").mkdir()
        (folder / f".hub-transfer-{process.pid}-0a1b2c3d" / "secret").write_text("x")
    export(tmp_path / "hub", tmp_path / "all", passwords=True, say=print)
    assert names_in(tmp_path) == ["all", "hub"]
    assert not [name for name in names_in(tmp_path / "hub") if name.startswith(".")]


@pytest.mark.parametrize("stage", ["things: 0", "reading", "packing", "unpacking", "checking"])
def test_one_may_break_off_at_any_stage_and_nothing_is_left(exported: Path, tmp_path: Path, stage: str) -> None:
    """Also in the midst of a file: each tells of itself as it is read."""
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if stage in text and said.count(text) > (1 if text.startswith("files: ") else 0):
            raise Failed("It was stopped.")

    def go() -> None:
        export(exported / "home" / "hub", tmp_path / "x.tar.gz", passwords=True, say=say)
        with scratch(tmp_path) as folder:
            open_export(exported / "all.tar.gz", folder, say)

    with pytest.raises(Failed, match="stopped"):
        go()
    assert names_in(tmp_path) in ([], ["x.tar.gz"])
    assert not [name for name in names_in(exported / "home" / "hub") if name.startswith(".")]


def test_an_interrupt_ends_an_export_without_a_word(exported: Path, tmp_path: Path) -> None:
    home = exported / "home"
    program = [sys.executable, "-m", "jupyter_agent.hub", "export", "--home", str(home), str(tmp_path / "x.tar.gz")]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not names_in(tmp_path):
        pass
    process.send_signal(signal.SIGINT)
    told_of = process.communicate(timeout=60)
    assert (process.returncode, *told_of) in ((130, b"", b""), (0, told_of[0], b""))
    assert names_in(tmp_path) in ([], ["x.tar.gz"])


@pytest.mark.parametrize(("version", "sentence"), [(1, "older version of jupyter_agent"), (99, "newer version")])
def test_a_store_of_another_version_is_left_alone(exported: Path, tmp_path: Path, version: int, sentence: str) -> None:
    shutil.copytree(exported / "home" / "hub", tmp_path / "hub")
    with contextlib.closing(sqlite3.connect(tmp_path / "hub" / "hub.db")) as store:
        store.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(AgentError, match=sentence):
        export(tmp_path / "hub", tmp_path / "all", passwords=True, say=print)
    assert names_in(tmp_path) == ["hub"]


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
    with contextlib.suppress(OSError):  # how the end of a terminal is told
        while piece := os.read(ours, 1000):
            said += piece
            if said.endswith(b"The token for ws://127.0.0.1:9: "):
                os.write(ours, typed) if typed else process.send_signal(signal.SIGINT)
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
