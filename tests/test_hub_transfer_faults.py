"""Exports that somebody broke or that were broken off: refused in a sentence, and nothing is changed."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.errors import AgentError, Failed
from jupyter_agent.home import Home
from jupyter_agent.hub.transfer.disk import scratch
from jupyter_agent.hub.transfer.exporting import export
from jupyter_agent.hub.transfer.opening import open_export
from tests.openflow_peers import names_in, running_hub
from tests.transfer_peers import change, exported_hub, part_name, refused, state_of, taken_in


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a hub's home, and exports of it as an archive and as a folder."""
    return exported_hub(tmp_path_factory.mktemp("exported"))


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
