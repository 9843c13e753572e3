"""Manifests, packing and unpacking: real files, broken archives, and the way there and back."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_agent.errors import Conflict, InvalidInput, NotFound
from jupyter_agent.packages import Bounds, Manifest, entry_point, pack, package_root, unpack
from tests.conftest import BUDGETS


def package(folder: Path, contents: dict[str, str | bytes] | None = None, /, **fields: Any) -> Path:
    """A package folder; ``fields`` go into its package.json (``None`` removes one)."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"name": "sample", "version": "1.2.3", "openiap": {"language": "python"}, **fields}
    known = {key: value for key, value in manifest.items() if value is not None}
    for name, content in {"package.json": json.dumps(known), "main.py": "print('hello')\n", **(contents or {})}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return [member.name for member in tar]


# Manifests


def test_a_manifest_is_read_and_unknown_fields_are_ignored(tmp_path: Path) -> None:
    folder = package(
        tmp_path,
        name="@me/sales",
        author={"name": "Ann", "email": "ann@example.org"},
        dependencies={"x": "1"},
        openiap={"language": "Python", "daemon": True, "new": 1, "ports": [{"name": "web", "port": 8080, "web": True}]},
    )
    manifest = Manifest.read(folder)
    assert manifest.language == "python"
    assert manifest.author == "Ann <ann@example.org>"
    assert manifest.daemon
    assert manifest.ports[0].portname == "web"
    assert manifest.archive_name == "me-sales-1.2.3.tgz"
    assert manifest.section["new"] == 1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": None}, '"name" is missing: give it a name like "my-package" or "@me/my-package".'),
        ({"name": "../up"}, '"name" is "../up": give it a name like'),
        ({"name": "a/b/c"}, '"name" is "a/b/c": give it a name like'),
        ({"version": None}, '"version" is missing: give it a version like "1.0.0".'),
        ({"version": "1/2"}, '"version" is "1/2": give it a version like "1.0.0".'),
        ({"version": 1.0}, '"version" is 1.0: give it a version like "1.0.0".'),
        ({"main": 3}, '"main" is 3: give it the path of the file to start'),
        ({"openiap": []}, '"openiap" is []: give it an object like {"language": "python"}.'),
        ({"openiap": {"language": 3}}, '"openiap.language" is 3: give it a language like'),
        ({"openiap": {"daemon": "perhaps"}}, '"openiap.daemon" is "perhaps": give it true or false.'),
        ({"openiap": {"ports": {}}}, '"openiap.ports" is {}: give it a list like'),
        (
            {"openiap": {"ports": [{"port": 70000}]}},
            '"openiap.ports.0.port" is 70000: give it a number from 0 to 65535.',
        ),
        ({"files": "dist"}, '"files" is "dist": give it a list of paths'),
        ({"scripts": "x"}, '"scripts" is "x": give it an object like'),
    ],
)
def test_each_fault_of_a_manifest_is_one_sentence(tmp_path: Path, fields: dict[str, Any], sentence: str) -> None:
    folder = package(tmp_path, **fields)
    with pytest.raises(InvalidInput) as caught:
        Manifest.read(folder)
    assert str(caught.value).startswith(f"{folder / 'package.json'}: {sentence}")
    assert str(caught.value).count(str(folder)) == 1


def test_two_faults_are_two_sentences(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r'"name" is missing: .*\. .*"version" is missing: .*\.$'):
        Manifest.read(package(tmp_path, name=None, version=None))


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"\xff\xfe{}", b"[" * 100_000, b'{"name": "a", "version": "1", "openiap": }']
)
def test_a_broken_package_json_is_told(tmp_path: Path, text: bytes) -> None:
    folder = package(tmp_path, {"package.json": text})
    with pytest.raises(InvalidInput, match=r"package\.json (is not readable as JSON|should hold a JSON object)"):
        Manifest.read(folder)


@pytest.mark.parametrize("name", ["package.json", "package.openiap.json"])
def test_a_manifest_that_would_fill_the_memory_is_not_read(tmp_path: Path, name: str) -> None:
    folder = package(tmp_path)
    with (folder / name).open("ab") as file:
        file.truncate(3 << 30)
    with pytest.raises(InvalidInput, match=r"\.json has 3221225472 bytes, which is no manifest: mend it\.$"):
        Manifest.read(folder)


def test_a_folder_without_package_json_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"is not a package: add a package\.json"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("files", "main", "language"),
    [
        ({}, "main.py", "python"),
        ({"x.ipynb": "{}"}, "x.ipynb", "notebook"),
        ({}, None, "python"),
        ({"index.js": ""}, None, "nodejs"),
        ({"run.ps1": ""}, "run.ps1", "powershell"),
    ],
)
def test_the_language_is_told_from_the_entry(
    tmp_path: Path, files: dict[str, str | bytes], main: str | None, language: str
) -> None:
    assert Manifest.read(package(tmp_path, files, main=main, openiap=None)).language == language


def test_a_language_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    folder = package(tmp_path, openiap={})
    (folder / "main.py").unlink()
    with pytest.raises(InvalidInput, match=r'"openiap\.language" is missing and cannot be told'):
        Manifest.read(folder)


def test_package_openiap_json_counts_before_package_json(tmp_path: Path) -> None:
    other = json.dumps({"name": "other", "version": "2", "openiap": {"language": "python"}})
    assert Manifest.read(package(tmp_path, {"package.openiap.json": other})).name == "other"


def test_the_document_fills_what_an_archive_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text("")
    document: dict[str, object] = {
        "_id": "1",
        "name": "Old tool (2)",
        "language": "python",
        "main": "run.py",
        "version": None,
        "ports": [],
    }
    manifest = Manifest.read(tmp_path, document)
    assert (manifest.name, manifest.language, manifest.version) == ("Old-tool-2", "python", "0.0.0")
    assert entry_point(tmp_path, manifest) == tmp_path / "run.py"


def test_faults_that_concern_publishing_alone_hinder_no_run(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    faulty = {"name": "My Package!", "version": 1, "description": 3, "files": "x", "main": "main.py"}
    (tmp_path / "package.json").write_text(json.dumps(faulty))
    document = {"name": "My Package!", "version": "first try", "description": None, "language": "python"}
    assert Manifest.read(tmp_path, document).name == "My-Package"
    with pytest.raises(InvalidInput, match='"name" is "My Package!"'):
        Manifest.read(tmp_path)


# Packing


def test_what_the_build_makes_need_not_be_packed(tmp_path: Path) -> None:
    folder = package(
        tmp_path / "p", {"src/x.ts": "", "tsconfig.json": "{}"}, openiap={"language": "nodejs"}, main="dist/x.js"
    )
    packed = [name.removeprefix("package/") for name in names(pack(folder, tmp_path))]
    assert packed == ["main.py", "package.json", "src/x.ts", "tsconfig.json"]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    contents: dict[str, str | bytes] = {"data/a.csv": "1,2\n", "b.txt": "b", "é/ü.txt": "u"}
    first = package(tmp_path / "first", contents)
    second = package(tmp_path / "second", dict(reversed(contents.items())))
    os.utime(second / "b.txt", (1, 1))
    (second / "b.txt").chmod(0o600)
    one, two = pack(first, tmp_path / "1.tgz"), pack(second, tmp_path / "2.tgz")
    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(member.uid, member.gid, member.uname, member.mode) for member in members} == {(0, 0, "", 0o644)}


def test_what_is_left_out(tmp_path: Path) -> None:
    folder = package(
        tmp_path / "p",
        {
            ".gitignore": "*.log\nbuild/\n!keep.log\n",
            "a.log": "",
            "keep.log": "",
            "build/x": "",
            "sub/.npmignore": "!a.log\nsecret.txt\n",
            "sub/a.log": "",
            "sub/secret.txt": "",
            ".env": "PASSWORD=1",
            ".env.local": "PASSWORD=1",
            ".env.example": "PASSWORD=",
            "sub/.env": "PASSWORD=1",
            "node_modules/x/index.js": "",
            "__pycache__/main.cpython-311.pyc": "",
            ".ipynb_checkpoints/x-checkpoint.ipynb": "",
            ".git/config": "",
            "my-env/pyvenv.cfg": "",
            "my-env/bin/python": "",
            "sample-1.0.0.tgz": "",
            "other.tgz": "",
        },
    )
    packed = [name.removeprefix("package/") for name in names(pack(folder, tmp_path))]
    assert packed == [".env.example", "keep.log", "main.py", "other.tgz", "package.json", "sub/a.log"]


def test_a_files_list_chooses_and_the_roots_ignore_file_does_not_count(tmp_path: Path) -> None:
    folder = package(
        tmp_path / "p",
        {".gitignore": "dist\n", "dist/x.py": "", "dist/y.map": "", "src/x.py": "", "README.md": "", "deep/dist/z": ""},
        files=["./dist", "!*.map"],
        main="dist/x.py",
    )
    packed = [name.removeprefix("package/") for name in names(pack(folder, tmp_path))]
    assert packed == ["README.md", "dist/x.py", "package.json"]


def test_main_and_the_manifest_are_packed_whatever_is_ignored(tmp_path: Path) -> None:
    folder = package(tmp_path / "p", {".npmignore": "*\n"})
    assert names(pack(folder, tmp_path)) == ["package/main.py", "package/package.json"]


def test_package_openiap_json_becomes_package_json(tmp_path: Path) -> None:
    other = json.dumps({"name": "other", "version": "2", "openiap": {"language": "python"}})
    archive = pack(package(tmp_path / "p", {"package.openiap.json": other}), tmp_path)
    assert archive.name == "other-2.tgz"
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/package.json").read_text() == other
    assert not (tmp_path / "out/package.openiap.json").exists()


def test_packing_into_the_folder_itself_packs_no_earlier_archive(tmp_path: Path) -> None:
    folder = package(tmp_path)
    first = pack(folder, folder).read_bytes()
    assert pack(folder, folder).read_bytes() == first
    assert pack(folder, folder / "named.tgz").read_bytes() == first
    assert pack(folder, folder / "named.tgz").read_bytes() == first


def test_a_link_within_is_packed_as_the_file(tmp_path: Path) -> None:
    folder = package(tmp_path / "p", {"data/a.csv": "1,2\n"})
    (folder / "latest.csv").symlink_to("data/a.csv")
    unpack(pack(folder, tmp_path), tmp_path / "out")
    assert (tmp_path / "out/latest.csv").read_text() == "1,2\n"
    assert not (tmp_path / "out/latest.csv").is_symlink()


def _link(target: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "link").symlink_to(target)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_link("/etc/passwd"), "is a link that leads out of the package"),
        (_link("../outside"), "is a link that leads out of the package"),
        (_link("gone"), "is a link to nothing"),
        (_link("."), "is neither a file nor a link to one"),
        (lambda folder: os.mkfifo(folder / "pipe"), "is neither a file nor a link to one"),
        (lambda folder: (folder / "a\\b").write_text(""), "has characters that file names should not have; rename it"),
        (lambda folder: (folder / "a\nb").write_text(""), "has characters that file names should not have"),
        (lambda folder: open(os.fsencode(folder) + b"/\xff", "w").close(), "is not UTF-8; rename it"),  # noqa: PTH123
        (lambda folder: (folder / "MAIN.py").write_text(""), "which are one name on some systems; rename it"),
        (lambda folder: (folder / "C:x").write_text(""), "leads out of the package; rename it"),
    ],
)
def test_what_no_archive_should_hold_is_refused(tmp_path: Path, spoil: Callable[[Path], object], sentence: str) -> None:
    (tmp_path / "outside").write_text("")
    folder = package(tmp_path / "p")
    spoil(folder)
    (tmp_path / "target").mkdir()
    with pytest.raises(InvalidInput) as caught:
        pack(folder, tmp_path / "target")
    assert sentence in str(caught.value)
    assert list((tmp_path / "target").iterdir()) == []


def test_a_folder_that_is_too_big_is_refused(tmp_path: Path) -> None:
    folder = package(tmp_path / "p", {"data.bin": b"x" * 3_000_000})
    with pytest.raises(InvalidInput, match=r"holds more than 2 MiB: leave out"):
        pack(folder, tmp_path, bounds=Bounds(total_bytes=2 << 20))
    with pytest.raises(InvalidInput, match=r"holds more than 2 files: leave out"):
        pack(folder, tmp_path, bounds=Bounds(files=2))
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


# There and back

NAME = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/\\:~"), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))
TREE = st.dictionaries(st.lists(NAME, min_size=1, max_size=4).map("/".join), st.binary(max_size=2000), max_size=12)


@settings(max_examples=BUDGETS["archive_examples"] // 10, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(TREE, st.data())
def test_what_is_packed_is_unpacked(tree: dict[str, bytes], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = package(Path(scratch) / "p")
        for name, content in tree.items():
            path = folder / "data" / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue  # "a" and "a/b" in one tree
            if data.draw(st.booleans()):
                path.chmod(0o755)
        try:
            archive = pack(folder, Path(scratch))
        except InvalidInput as error:
            assert "one name on some systems" in str(error)  # noqa: PT017 - the one reason that such a tree may have
            return
        out = Path(scratch) / "out"
        unpack(archive, out)
        kept = {name.removeprefix("package/") for name in names(archive)}
        found = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
        assert set(found) == kept
        for name, path in found.items():
            assert path.read_bytes() == (folder / name).read_bytes()
            assert stat.S_IMODE(path.stat().st_mode) == (0o755 if os.access(folder / name, os.X_OK) else 0o644)
        again = pack(out, Path(scratch) / "again.tgz")
        assert again.read_bytes() == archive.read_bytes()


# Unpacking


def tgz(path: Path, *entries: tarfile.TarInfo | tuple[str, bytes] | tuple[str, bytes, int]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            info.mode = entry[2] if len(entry) > 2 else 0o644
            tar.addfile(info, io.BytesIO(entry[1]))
    return path


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


GOOD: tuple[tuple[str, bytes], ...] = (("package/package.json", b"{}"), ("package/main.py", b"print()"))


@pytest.mark.parametrize("top", ["package/", "", "./", "./package/", "repo-1a2b3c/"])
@pytest.mark.parametrize("suffix", [".tgz", ".tar.gz", ".zip", ""])
def test_archives_of_other_makers(tmp_path: Path, top: str, suffix: str) -> None:
    archive = tmp_path / f"x{suffix}"
    contents = [(f"{top}package.json", b"{}"), (f"{top}sub/x.py", b"x")]
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in contents:
                zipped.writestr(name, content)
    else:
        tgz(archive, *contents)
    unpack(archive, tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*")) == [
        "package.json",
        "sub",
        "sub/x.py",
    ]


@pytest.mark.parametrize(
    ("stored", "system", "meant"),
    [
        ("sub/\u00fc\u65e5.txt".encode(), 3, "sub/\u00fc\u65e5.txt"),  # Linux' zip
        ("sub/\u00fc.txt".encode("cp437"), 0, "sub/\u00fc.txt"),
        (b"sub\\a.txt", 0, "sub/a.txt"),  # Compress-Archive
    ],
)
def test_names_in_a_zip_that_does_not_say_how_they_are_written(
    tmp_path: Path, stored: bytes, system: int, meant: str
) -> None:
    archive = tmp_path / "x.zip"
    stand_in = "#" * len(stored)
    with zipfile.ZipFile(archive, "w") as zipped:
        for name in ("package.json", stand_in):
            info = zipfile.ZipInfo(name)
            info.create_system = system
            zipped.writestr(info, "{}")
    archive.write_bytes(archive.read_bytes().replace(stand_in.encode(), stored))
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / meant).is_file()


def test_a_package_among_other_folders_is_found(tmp_path: Path) -> None:
    unpack(tgz(tmp_path / "x.tgz", ("a/notes.txt", b""), ("b/main.py", b"")), tmp_path / "out")
    assert package_root(tmp_path / "out") == tmp_path / "out"
    assert (tmp_path / "out/main.py").is_file()


def test_a_file_that_is_called_like_a_sparse_one_is_none(tmp_path: Path) -> None:
    unpack(tgz(tmp_path / "x.tgz", *GOOD, ("package/GNU.sparse.txt", b"")), tmp_path / "out")
    assert (tmp_path / "out/GNU.sparse.txt").is_file()


def test_modes_are_plain(tmp_path: Path) -> None:
    archive = tgz(tmp_path / "x.tgz", ("package/main.py", b"", 0o1777), ("package/a", b"", 0o000))
    unpack(archive, tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out/main.py").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "out/a").stat().st_mode) == 0o644


def test_links_within_are_kept(tmp_path: Path) -> None:
    archive = tgz(
        tmp_path / "x.tgz",
        ("package/main.py", b"print()"),
        ("package/data/1.csv", b"1"),
        member("package/latest", tarfile.SYMTYPE, "data/1.csv"),
        member("package/data/up", tarfile.SYMTYPE, "../main.py"),
        member("package/same.py", tarfile.LNKTYPE, "package/main.py"),
    )
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/latest").read_text() == "1"
    assert (tmp_path / "out/data/up").read_text() == "print()"
    assert (tmp_path / "out/same.py").read_text() == "print()"


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([("../evil", b"")], "leads out of the package"),
        ([("package/../../evil", b"")], "leads out of the package"),
        ([("package/a/../b", b"")], "leads out of the package"),
        ([("/etc/evil", b"")], "leads out of the package"),
        ([("C:/evil", b"")], "leads out of the package"),
        ([("c:evil", b"")], "leads out of the package"),
        ([("package\\..\\evil", b"")], "characters that file names should not have"),
        ([("package/a\nb", b"")], "characters that file names should not have"),
        ([("package/" + "n" * 300, b"")], "a name that is too long"),
        ([("package/" + "n/" * 2000, b"")], "a name that is too long"),
        ([("package/a", b"1"), ("package/a", b"2")], "twice"),
        ([("package/a", b"1"), ("package/./a", b"2")], "twice"),
        ([("package/a", b"1"), ("package/A", b"2")], "one name on some systems"),
        ([("package/d/x", b"1"), ("package/D/y", b"2")], "one name on some systems"),
        ([("package/\u00e9", b"1"), ("package/e\u0301", b"2")], "one name on some systems"),
        ([("package/a", b"1"), ("package/a/b", b"2")], "which is no folder"),
        ([member("package/x", tarfile.SYMTYPE, "/etc/passwd")], "outside the package"),
        ([member("package/x", tarfile.SYMTYPE, "../../x")], "outside the package"),
        ([member("package/x", tarfile.SYMTYPE, "..")], "outside the package"),  # out of the folder that is taken off
        ([member("package/x", tarfile.SYMTYPE, "")], "outside the package"),
        ([member("package/x", tarfile.SYMTYPE, "main.py/../../../x")], "outside the package"),
        ([member("package/d", tarfile.SYMTYPE, "."), member("package/e", tarfile.SYMTYPE, "d/../x")], "outside"),
        ([member("package/d", tarfile.SYMTYPE, "."), ("package/d/x", b"")], "which is no folder"),
        ([member("package/x", tarfile.LNKTYPE, "/etc/passwd")], "leads out of the package"),
        ([member("package/x", tarfile.LNKTYPE, "package/gone")], "which is no file before it"),
        ([member("package/x", tarfile.LNKTYPE, "../x")], "leads out of the package"),
        ([("package/x", b"", 0o4755)], "is to run as another user"),
        ([("package/x", b"", 0o2755)], "is to run as another user"),
        ([member("package/x", tarfile.CHRTYPE)], "is no file, folder or link"),
        ([member("package/x", tarfile.BLKTYPE)], "is no file, folder or link"),
        ([member("package/x", tarfile.FIFOTYPE)], "is no file, folder or link"),
        ([member("package/x", b"Q")], "is no file, folder or link"),
    ],
)
def test_dangerous_archives_are_refused(tmp_path: Path, entries: list[Any], sentence: str) -> None:
    inside = tmp_path / "packages"
    inside.mkdir()
    archive = tgz(inside / "evil.tgz", *GOOD, *entries)
    with pytest.raises(InvalidInput) as caught:
        unpack(archive, inside / "out")
    assert str(caught.value).startswith("evil.tgz cannot be unpacked: it ")
    assert sentence in str(caught.value)
    assert [path.name for path in inside.iterdir()] == ["evil.tgz"]
    assert [path.name for path in tmp_path.iterdir()] == ["packages"]


def test_a_link_to_beside_the_package_is_refused_only_in_the_package(tmp_path: Path) -> None:
    archive = tgz(tmp_path / "x.tgz", *GOOD, ("secret", b"s"), member("package/x", tarfile.SYMTYPE, "../secret"))
    with pytest.raises(InvalidInput, match="outside the package"):
        unpack(archive, tmp_path / "out")


def test_zip_archives_are_held_to_the_same(tmp_path: Path) -> None:
    for number, name in enumerate(["../evil", "/evil", "C:/evil", "a\\b"]):
        archive = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.writestr("package.json", "{}")
            zipped.writestr(name, "x")
        with pytest.raises(InvalidInput, match="cannot be unpacked: it holds"):
            unpack(archive, tmp_path / "out")
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as zipped:
        zipped.writestr("package.json", "{}")
        zipped.writestr(link, "../../etc/passwd")
    with pytest.raises(InvalidInput, match="outside the package"):
        unpack(tmp_path / "link.zip", tmp_path / "out")


def _tar_bytes(*entries: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _with_header(change: Callable[[bytearray], None]) -> bytes:
    data = bytearray(_tar_bytes(*GOOD))
    change(data)
    return gzip.compress(bytes(data))


def _negative_size(data: bytearray) -> None:
    header = tarfile.TarInfo("package/b")
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 10 + b"\xfe\x00"  # base 256: -512
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    data[1024:1536] = block


WHOLE = gzip.compress(_tar_bytes(*GOOD, ("package/data", random.Random(1).randbytes(5000))))  # noqa: S311 - not for secrets


@pytest.mark.parametrize(
    "data",
    {
        "empty": b"",
        "text": b"<html>404 not found</html>",
        "only the magic": b"\x1f\x8b",
        "cut in the header": WHOLE[:8],
        "cut in the middle": WHOLE[: len(WHOLE) // 2],
        "check sum cut off": WHOLE[:-4],
        "wrong check sum": WHOLE[:-8] + b"\0\0\0\0" + WHOLE[-4:],
        "one bit": WHOLE[:2000] + bytes([WHOLE[2000] ^ 1]) + WHOLE[2001:],
        "rubbish behind": WHOLE + b"rubbish",
        "gzip of text": gzip.compress(b"hello " * 1000),
        "gzip of nothing": gzip.compress(b""),
        "gzip of zeros": gzip.compress(bytes(10240)),
        "tar cut in a file": gzip.compress(_tar_bytes(*GOOD, ("package/x", bytes(4000)))[:3000]),
        "tar cut in a header": gzip.compress(_tar_bytes(*GOOD)[:1200]),
        "second header damaged": _with_header(lambda data: data.__setitem__(slice(1030, 1034), b"evil")),
        "negative size": _with_header(_negative_size),
        "zip cut": b"PK\x03\x04" + b"x" * 100,
        "zip without entries": b"PK\x05\x06" + bytes(18),
        "zip in gzip": gzip.compress(b"PK\x05\x06" + bytes(18)),
    }.items(),
    ids=lambda item: item[0],
)
def test_broken_archives_are_told_and_leave_nothing(tmp_path: Path, data: tuple[str, bytes]) -> None:
    archive = tmp_path / "broken.tgz"
    archive.write_bytes(data[1])
    with pytest.raises(InvalidInput, match=r"^broken\.tgz (is not a readable archive|cannot be unpacked): .*\.$"):
        unpack(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.tgz"]


def test_bombs_are_refused(tmp_path: Path) -> None:
    archive = tgz(tmp_path / "bomb.tgz", *GOOD, ("package/zeros", bytes(40 << 20)))
    with pytest.raises(InvalidInput, match="unpacks to more than 20 MiB"):
        unpack(archive, tmp_path / "out", bounds=Bounds(total_bytes=20 << 20))
    with pytest.raises(InvalidInput, match="unpacks to more than 200 times its size"):
        unpack(archive, tmp_path / "out", bounds=Bounds(ratio_from_bytes=20 << 20))
    many = tgz(tmp_path / "many.tgz", *[(f"package/{number}", b"") for number in range(50)])
    with pytest.raises(InvalidInput, match="holds more than 40 files"):
        unpack(many, tmp_path / "out", bounds=Bounds(files=40))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("zeros", bytes(40 << 20))
    with pytest.raises(InvalidInput, match="unpacks to more than 20 MiB"):
        unpack(tmp_path / "bomb.zip", tmp_path / "out", bounds=Bounds(total_bytes=20 << 20))
    assert not (tmp_path / "out").exists()


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.tgz"
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 40 << 20
    archive.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(40 << 20), 1))
    with pytest.raises(InvalidInput, match="is not a readable archive: it has a header of"):
        unpack(archive, tmp_path / "out")


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    archive = tgz(tmp_path / "x.tgz", *GOOD)
    (tmp_path / "out").mkdir()
    unpack(archive, tmp_path / "out")
    (tmp_path / "out/mine").write_text("")
    with pytest.raises(Conflict, match="is there already: remove it first"):
        unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/mine").exists()


def test_an_archive_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no archive"):
        unpack(tmp_path / "gone.tgz", tmp_path / "out")
