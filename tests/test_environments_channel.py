"""The channel made from PyPI: real wheels, real archives, real environments installed from it by rattler."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rattler.index import index_fs

from jupyter_agent.environments.channel import archives, elf, host, run, wheels
from jupyter_agent.environments.channel.archives import PLACEHOLDER, Package
from jupyter_agent.environments.channel.making import FORM
from jupyter_agent.environments.channel.repodata import write_index
from jupyter_agent.environments.channel.wheels import Wheel
from jupyter_agent.environments.work.jobs import ChannelJob, Settings
from jupyter_agent.errors import Conflict, Failed, InvalidInput, NotFound, Unavailable
from tests.channels import Silent, contents, installed, pip_wheel_in, recorded, records, wheel
from tests.conftest import small_file_system

TAG = "tests-of-the-channel"

DEBIANS = Path("/usr/bin/python3")

CHECK = """
import importlib, json, os, pathlib, site, sys, sysconfig
failed = {}
for file in sorted((pathlib.Path(os.__file__).parent / "lib-dynload").glob("*.so")):
    try:
        importlib.import_module(file.name.split(".")[0])
    except BaseException as error:
        failed[file.name] = repr(error)
import bz2, ctypes, ensurepip, lzma, sqlite3, ssl, venv, zlib
ssl.create_default_context()
sqlite3.connect(":memory:").execute("select 1")
variables = ("prefix", "exec_prefix", "BINDIR", "LIBDIR", "LIBDEST", "INCLUDEPY", "LIBPL", "DESTSHARED")
places = [*sysconfig.get_paths().values(), *map(str, map(sysconfig.get_config_var, variables))]
places += [*site.getsitepackages(), *sys.path]
print(json.dumps({"failed": failed, "places": places, "prefix": sys.prefix, "path": sys.path}))
"""


def environment_of_nothing() -> dict[str, str]:
    """No variable that could help an interpreter find another one's parts."""
    return {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}


def debians_is_here() -> bool:
    """Whether the system has a Python with Debian's changes."""
    return DEBIANS.exists() and Path("/usr/lib/python3/dist-packages").is_dir()


def names_in(place: Path) -> list[str]:
    """The names of what lies in a folder."""
    return sorted(path.name for path in place.iterdir())


def said(*argv: str | Path, cwd: Path = Path("/")) -> str:
    """What a program prints; it has to succeed."""
    done = subprocess.run(argv, cwd=cwd, env=environment_of_nothing(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_sound(prefix: Path) -> Path:
    """Hold a prefix's Python to what it must find and have: its own parts, and nothing else's. Its program."""
    python = prefix / "bin" / "python"
    told = json.loads(said(python, "-I", "-c", CHECK).splitlines()[-1])
    assert told["failed"] == {}
    assert told["prefix"] == str(prefix)
    assert [
        place
        for place in told["places"]
        if not os.path.realpath(place).startswith(f"{prefix}/") and place != str(prefix)
    ] == []
    assert not any("dist-packages" in place for place in told["path"])
    return python


def does_all(prefix: Path, scratch: Path) -> None:
    """Hold it to virtual environments and pip as well."""
    python = is_sound(prefix)
    own = scratch / "venv"
    said(python, "-m", "venv", own)
    file = wheel(scratch / "wheels", "brought", files={"brought.py": b"value = 3\n"})
    if not list(prefix.glob("lib/python3*/site-packages/pip")):
        said(python, "-m", "ensurepip")
    for there in (prefix, own):
        program = there / "bin" / "python"
        said(program, "-m", "pip", "install", "--root-user-action", "ignore", "--no-index", "--no-cache-dir", file)
        assert said(program, "-c", "import brought; print(brought.__file__)").startswith(str(there))


async def python_at(program: str, folder: Path, *, pip: Path | None = None) -> Path:
    """An environment of the interpreter ``program`` alone, by way of a channel."""
    found = await host.host(program, tag=TAG)
    package = await host.package(found, pip=pip, tag=TAG, form=FORM)
    (folder / "channel" / package.subdir).mkdir(parents=True)
    archive = archives.write(package, folder / "channel" / package.subdir, level=1)
    write_index(folder / "channel", [archive], subdirs=("noarch", package.subdir))
    await installed([folder / "channel"], ["python"], folder / "prefix", cache=folder / "cache")
    return folder / "prefix"


@pytest.fixture(scope="module")
def prefix(channel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with all that the channel holds, at a path with a space."""
    folder = tmp_path_factory.mktemp("installed")
    specs = ["python", "pip", "ipykernel", "numpy", "pandas", "papermill", "python_abi 3.* *_cp3*"]
    asyncio.run(installed([channel], specs, folder / "a prefix", cache=folder / "cache"))
    return folder / "a prefix"


@pytest.fixture(scope="module")
def pip_wheel(channel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pip's wheel, made anew from the channel's package."""
    return pip_wheel_in(tmp_path_factory.mktemp("pip"), channel)


class TestTheChannel:
    def test_it_holds_what_was_asked_for_and_what_that_needs(self, channel: Path) -> None:
        found = records(channel)
        assert {"python", "ipykernel", "numpy", "pandas", "papermill", "pip", "traitlets"} <= set(found)
        assert any(need.startswith("__glibc >=") for need in found["python"]["depends"])
        assert found["python"]["constrains"] == [f"python_abi 3.{sys.version_info[1]}.* *_cp3{sys.version_info[1]}"]
        assert "same operating system only" in (channel / "README.md").read_text()

    async def test_rattlers_own_indexer_says_the_same(self, channel: Path, tmp_path: Path) -> None:
        again = tmp_path / "again"
        shutil.copytree(channel, again)
        for file in again.rglob("repodata*"):
            file.unlink()
        await index_fs(again)
        theirs, ours = records(again), records(channel)
        assert set(theirs) == set(ours)
        for name, record in theirs.items():
            said_there = {key: value for key, value in record.items() if value and key != "indexed_timestamp"}
            assert {key: ours[name].get(key) for key in said_there} == said_there

    def test_every_archive_is_what_its_own_papers_and_the_index_say(self, channel: Path) -> None:
        for record in records(channel).values():
            archive = channel / record["subdir"] / record["fn"]
            data = archive.read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (record["size"], record["sha256"])
            assert hashlib.md5(data, usedforsecurity=False).hexdigest() == record["md5"]
            papers = {path: content for path, (_, content) in contents(archive, "info").items()}
            held = contents(archive, "pkg")
            listed = json.loads(papers["info/paths.json"])["paths"]
            assert {path["_path"] for path in listed} == set(held) == set(papers["info/files"].decode().splitlines())
            for path in listed:
                member, content = held[path["_path"]]
                assert path["path_type"] == ("softlink" if member.issym() else "hardlink")
                assert path["sha256"] == hashlib.sha256(content).hexdigest()
                assert ("prefix_placeholder" in path) == (PLACEHOLDER.encode() in content)
            assert json.loads(papers["info/index.json"])["depends"] == record["depends"]


class TestItsPython:
    def test_it_does_all_that_an_environments_python_must_do(self, prefix: Path, tmp_path: Path) -> None:
        does_all(prefix, tmp_path)

    def test_what_is_installed_is_seen_and_works(self, prefix: Path) -> None:
        python = prefix / "bin" / "python"
        assert said(prefix / "bin" / "papermill", "--version")
        assert "No broken requirements" in said(python, "-m", "pip", "check")
        assert said(python, "-c", "import numpy, pandas; print(pandas.Series(numpy.ones(3)).sum())").strip() == "3.0"

    def test_nothing_names_where_it_was_made(self, prefix: Path) -> None:
        built_in = sys.base_prefix.encode()
        for file in [*prefix.glob("lib/python3*/_sysconfigdata*.py"), *prefix.glob("bin/*")]:
            data = file.read_bytes() if file.is_file() else b""
            assert PLACEHOLDER.encode() not in data
            assert b" " + built_in not in data
            assert b"'" + built_in not in data

    async def test_debians_own_python_is_taken_without_what_debian_put_in(
        self, tmp_path: Path, pip_wheel: Path
    ) -> None:
        if not debians_is_here():
            pytest.skip("the system has no Python of Debian's")
        prefix = await python_at(str(DEBIANS), tmp_path / "debian", pip=pip_wheel)
        does_all(prefix, tmp_path)
        library = next(prefix.glob("lib/python3*"))
        assert not (library / "EXTERNALLY-MANAGED").exists()
        assert not (library / "sitecustomize.py").exists()
        lines = said(prefix / "bin" / "python", "-X", "frozen_modules=off", "-c", "import sys; print(*sys.path)")
        assert "dist-packages" not in lines
        assert pip_wheel.name.split("-")[1] in said(tmp_path / "venv" / "bin" / "python", "-m", "pip", "--version")

    async def test_a_conda_python_gives_the_same_package_as_the_one_it_was_made_of(
        self, prefix: Path, channel: Path
    ) -> None:
        found = await host.host(str(prefix / "bin" / "python"), tag=TAG)
        package = await host.package(found, pip=None, tag=TAG, form=FORM)
        assert found.prefix == prefix
        assert package.build == records(channel)["python"]["build"]

    async def test_of_a_virtual_environment_it_is_the_one_below(self, prefix: Path, tmp_path: Path) -> None:
        said(prefix / "bin" / "python", "-m", "venv", "--without-pip", tmp_path / "venv")
        found = await host.host(str(tmp_path / "venv" / "bin" / "python"), tag=TAG)
        assert (found.prefix, found.program.parent) == (prefix, prefix / "bin")

    async def test_one_built_for_another_place_is_relocatable_too(self, prefix: Path, tmp_path: Path) -> None:
        """python-build-standalone builds for /install, and its program names libpython by ``$ORIGIN``."""
        moved = tmp_path / "moved"
        shutil.copytree(prefix, moved, symlinks=True)
        shutil.rmtree(moved / "conda-meta")
        for file in moved.glob("lib/python3*/_sysconfigdata*.py"):
            file.write_text(file.read_text().replace(str(prefix), "/install"))
        library = next(moved.glob("lib/python3*"))
        (library / "EXTERNALLY-MANAGED").write_text("[externally-managed]\n")
        is_sound(await python_at(str(moved / "bin" / "python"), tmp_path / "again"))
        text = next((tmp_path / "again" / "prefix").glob("lib/python3*/_sysconfigdata*.py")).read_text()
        assert "'/install" not in text
        assert "/usr/bin/install -c" in text or "install" in text

    async def test_a_program_that_has_libpython_in_the_systems_folders_gets_its_own(
        self, prefix: Path, tmp_path: Path
    ) -> None:
        """Docker's official images have no search path in the program."""
        found = await host.host(str(prefix / "bin" / "python"), tag=TAG)
        program = found.program.read_bytes()
        if not any(name.startswith("libpython") for name in elf.dynamic(program).needed):
            pytest.skip("this Python has no libpython of its own")
        bare = tmp_path / "bare"
        shutil.copytree(prefix, bare, symlinks=True)
        copied = bare / "bin" / found.program.name
        copied.unlink()
        copied.write_bytes(elf.with_path(program, "") or b"")
        copied.chmod(0o755)
        there = replace(found, program=copied, prefix=bare, stdlib=bare / found.stdlib.relative_to(prefix))
        there = replace(there, modules=bare / found.modules.relative_to(prefix), include=bare / "include" / "none")
        package = await host.package(there, pip=None, tag=TAG, form=FORM)
        (tmp_path / "channel" / package.subdir).mkdir(parents=True)
        archive = archives.write(package, tmp_path / "channel" / package.subdir, level=1)
        write_index(tmp_path / "channel", [archive], subdirs=("noarch", package.subdir))
        await installed([tmp_path / "channel"], ["python"], tmp_path / "prefix", cache=tmp_path / "cache")
        maps = said(tmp_path / "prefix" / "bin" / "python", "-c", "print(open('/proc/self/maps').read())")
        assert str(tmp_path / "prefix" / "lib" / "libpython") in maps

    async def test_what_is_no_cpython_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="does not say what it is"):
            await host.host("/bin/echo", tag=TAG)


class TestWheels:
    async def test_all_schemes_scripts_and_entry_points_are_there_in_an_environment(
        self, channel: Path, tmp_path: Path
    ) -> None:
        data = {
            "full/__init__.py": b"def main():\n    print('it runs')\n",
            "full-1.0.data/scripts/plain.py": b"#!python\nimport sys; print(sys.executable)\n",
            "full-1.0.data/scripts/shell": b"#!/bin/sh\necho shell\n",
            "full-1.0.data/data/etc/full.cfg": b"data",
            "full-1.0.data/headers/full.h": b"/* */",
            "full-1.0.data/purelib/pure.py": b"value = 1\n",
            "full-1.0.data/platlib/plat.py": b"value = 2\n",
        }
        version = "{}{}".format(*sys.version_info[:2])
        machine = os.uname().machine
        points = "[console_scripts]\nFull-Run = full:main\n[gui_scripts]\nwin = full:main [gui]\n[other]\nx = y\n"
        compiled = wheel(
            tmp_path / "w",
            "full",
            files=data,
            entry_points=points,
            tag=f"cp{version}-cp{version}-manylinux_2_17_{machine}",
        )
        pure = wheel(tmp_path / "w", "simple", entry_points="[console_scripts]\nsimple-run=simple:value.bit_length\n")
        job = ChannelJob((str(compiled), str(pure)), tmp_path / "made", python=False, settings=settings(tmp_path))
        told = await run(job, Silent())
        assert sorted(package["name"] for package in told["packages"]) == ["full", "simple"]
        assert "__glibc >=2.17" in records(tmp_path / "made")["full"]["depends"]
        prefix = tmp_path / "a prefix"
        await installed([tmp_path / "made", channel], ["full", "simple"], prefix, cache=tmp_path / "cache")
        assert said(prefix / "bin" / "Full-Run").strip() == said(prefix / "bin" / "win").strip() == "it runs"
        assert said(prefix / "bin" / "plain.py").strip() == str(prefix / "bin" / "python")
        assert said(prefix / "bin" / "shell").strip() == "shell"
        assert (prefix / "etc" / "full.cfg").read_text() == "data"
        assert list(prefix.glob("include/python3*/full/full.h"))
        assert (
            said(prefix / "bin" / "python", "-c", "import pure, plat, simple; print(pure.value + plat.value)").strip()
            == "3"
        )
        seen = said(
            prefix / "bin" / "python",
            "-c",
            "from importlib.metadata import distribution as of\n"
            "print(of('full').version, all(file.locate().exists() for file in of('full').files))",
        )
        assert seen.strip() == "1.0 True"

    def test_what_a_wheel_needs_is_said_in_condas_words(self, tmp_path: Path) -> None:
        metadata = (
            "Requires-Python: >=3.8,!=3.9.*\n"
            "Provides-Extra: more\n"
            "Requires-Dist: Under_Score.Name (>=1.0,~=1.2)\n"
            "Requires-Dist: other[fast]==2.*; python_version >= '3'\n"
            "Requires-Dist: never; sys_platform == 'win32'\n"
            "Requires-Dist: later; extra == 'more'\n"
        )
        file = wheel(tmp_path, metadata=metadata)
        package = packaged(file)
        assert set(package.depends) == {
            "under-score-name >=1.0,~=1.2",
            "other 2.*",
            "other-extra-fast",
            "python !=3.9.*,>=3.8",
        }

    def test_one_for_the_stable_abi_asks_for_this_python(self, tmp_path: Path) -> None:
        package = packaged(wheel(tmp_path, tag=f"cp38-abi3-manylinux2014_{os.uname().machine}"))
        assert package.noarch is None
        assert f"python 3.{sys.version_info[1]}.*" in package.depends
        assert "__glibc >=2.17" in package.depends
        assert any(file.path.startswith(f"lib/python3.{sys.version_info[1]}/site-packages/") for file in package.files)

    @pytest.mark.parametrize(
        ("name", "spoil"),
        [
            ("leads out", {"files": {"../../evil.py": b"x"}}),
            ("leads out", {"files": {"thing/./x.py": b"x"}}),
            ("absolute path", {"files": {"/etc/evil": b"x"}}),
            ("absolute path", {"files": {"thing\\..\\..\\evil.py": b"x"}}),
            ("absolute path", {"files": {"C:/evil.py": b"x"}}),
            ("case alone", {"files": {"thing/a.py": b"x", "thing/A.py": b"y"}}),
            ("in it twice", {"extra_members": [("thing/__init__.py", b"other")]}),
            ("cannot be shown", {"files": {"thing/a\nb.py": b"x"}}),
            ("no hash of", {"extra_members": [("thing/more.py", b"x")]}),
            ("no hash of", {"record": lambda text: text.replace("sha256=", "md5=")}),
            ("no hash of", {"record": lambda _: ""}),
            (
                "not what its RECORD says",
                {"record": lambda text: recorded("thing/__init__.py", b"other") + text.partition("\n")[2]},
            ),
            ("METADATA is about", {"metadata": "", "name_inside": "other"}),
            ("belongs to the environment", {"files": {"thing-1.0.data/data/conda-meta/history": b"x"}}),
            ("is none", {"entry_points": "[console_scripts]\n../../evil = thing:main\n"}),
            ("is none", {"entry_points": "[console_scripts]\nfine = thing:main;import os\n"}),
            ("cannot be read", {"entry_points": "[console_scripts\nfine = thing:main\n"}),
            ("no scheme", {"files": {"thing-1.0.data/elsewhere/x": b"x"}}),
            ("would both be", {"files": {"thing/a.py": b"x", "thing-1.0.data/purelib/thing/a.py": b"y"}}),
            ("no honest wheel", {"files": {"thing/zeros": bytes(1 << 20)}, "bomb": True}),
            ("several .dist-info", {"files": {"other-1.0.dist-info/METADATA": b"x"}}),
            ("Requires-Python", {"metadata": "Requires-Python: newest\n"}),
            ("no requirement", {"metadata": "Requires-Dist: ???\n"}),
        ],
    )
    def test_one_that_means_harm_or_is_broken_is_refused_in_a_sentence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, spoil: dict[str, Any]
    ) -> None:
        if spoil.pop("bomb", False):
            monkeypatch.setattr(wheels, "MOST_BYTES", 1 << 16)  # so that a megabyte is a bomb
        inside = spoil.pop("name_inside", None)
        file = wheel(tmp_path / "w", **spoil)
        if inside:
            file = renamed_inside(file, inside)
        with pytest.raises(InvalidInput, match=name) as told:
            archives.write(packaged(file), folder(tmp_path / "out"))
        assert "\n" not in str(told.value)

    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
    def test_a_link_or_a_device_in_one_is_refused(self, tmp_path: Path, kind: int) -> None:
        member = zipfile.ZipInfo("thing/link")
        member.external_attr = (kind | 0o777) << 16
        file = wheel(
            tmp_path,
            extra_members=[(member, b"/etc/passwd")],
            record=lambda text: text + recorded("thing/link", b"/etc/passwd"),
        )
        with pytest.raises(InvalidInput, match="no plain file"):
            packaged(file)

    def test_one_that_was_cut_short_or_is_none_is_refused(self, tmp_path: Path) -> None:
        file = wheel(tmp_path)
        whole = file.read_bytes()
        for data in (b"", b"PK", whole[: len(whole) // 2], os.urandom(1000)):
            file.write_bytes(data)
            with pytest.raises(InvalidInput, match=r"The wheel .* is not used"):
                packaged(file)

    def test_one_whose_contents_were_damaged_is_refused_and_nothing_is_left(self, tmp_path: Path) -> None:
        file = wheel(tmp_path / "w", files={"thing/a.bin": os.urandom(5000)})
        data = bytearray(file.read_bytes())
        data[1000] ^= 255
        file.write_bytes(data)
        with pytest.raises(InvalidInput, match=r"damaged|cannot be"):
            archives.write(packaged(file), folder(tmp_path / "out"))


class TestMaking:
    async def test_the_same_wheels_give_the_same_bytes(self, tmp_path: Path) -> None:
        files = [wheel(tmp_path / "w", name, metadata="Provides-Extra: x\n") for name in ("one", "two")]
        made = []
        for place in ("first", "second"):
            asked = (f"one[x] @ {files[0].as_uri()}", str(files[1]))
            await run(ChannelJob(asked, tmp_path / place, python=False, settings=settings(tmp_path)), Silent())
            made.append(
                {
                    path.relative_to(tmp_path / place): path.read_bytes()
                    for path in (tmp_path / place).rglob("*")
                    if path.is_file()
                }
            )
        assert made[0] == made[1]
        assert "one-extra-x" in records(tmp_path / "first")

    async def test_one_made_again_takes_the_place_of_the_one_before_and_of_nothing_else(self, tmp_path: Path) -> None:
        files = [wheel(tmp_path / "w", name) for name in ("one", "two")]
        for file in files:
            await run(ChannelJob((str(file),), tmp_path / "made", python=False, settings=settings(tmp_path)), Silent())
        assert set(records(tmp_path / "made")) == {"two"}
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years of work")
        with pytest.raises(Conflict, match="holds something else"):
            await run(
                ChannelJob((str(files[0]),), tmp_path / "mine", python=False, settings=settings(tmp_path)), Silent()
            )
        assert names_in(tmp_path / "mine") == ["thesis.txt"]
        assert not [name for name in names_in(tmp_path) if name.startswith(".channel-")]

    @pytest.mark.parametrize(
        ("asked", "kind", "why"),
        [
            ((), InvalidInput, "Nothing is asked for"),
            (("--index-url=http://x",), InvalidInput, "is an option"),
            (("not a requirement",), InvalidInput, "no requirement"),
            (("x @ https://example.org/x.tar.gz",), InvalidInput, "no wheel"),
            (("/nowhere/requirements.txt",), NotFound, "requirements.txt"),
            (("/nowhere/x-1-py3-none-any.whl",), NotFound, "no wheel"),
            (("/nowhere/x.whl",), InvalidInput, "not named as a wheel"),
        ],
    )
    async def test_what_cannot_be_asked_for_is_told_in_a_sentence(
        self, tmp_path: Path, asked: tuple[str, ...], kind: type[Exception], why: str
    ) -> None:
        with pytest.raises(kind, match=why):
            await run(ChannelJob(asked, tmp_path / "made", python=False, settings=settings(tmp_path)), Silent())
        assert names_in(tmp_path) == []

    async def test_files_with_requirements_and_with_condas_words_are_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shelf(tmp_path / "w", monkeypatch, wheel(tmp_path / "w", "msgpack"), wheel(tmp_path / "w", "plain", "2.0"))
        (tmp_path / "environment.yml").write_text("channels: [nodefaults]\ndependencies: [msgpack-python=1.0, zlib]\n")
        (tmp_path / "requirements.txt").write_text("plain>=1  # a comment\n")
        asked = tuple(str(tmp_path / name) for name in ("environment.yml", "requirements.txt"))
        await run(ChannelJob(asked, tmp_path / "made", python=False, settings=settings(tmp_path)), Silent())
        assert set(records(tmp_path / "made")) == {"msgpack", "msgpack-python", "plain", "zlib"}

    async def test_a_full_disk_is_told_and_nothing_is_left(self, tmp_path: Path) -> None:
        file = wheel(tmp_path / "w", files={"thing/large.bin": os.urandom(6 << 20)})
        with small_file_system(tmp_path / "small", "size=8m") as place:
            with pytest.raises(Failed, match=r"No space left|could not fetch"):
                await run(ChannelJob((str(file),), place / "made", python=False, settings=settings(tmp_path)), Silent())
            assert names_in(place) == []

    async def test_offline_only_folders_of_this_machine_are_looked_at(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = wheel(tmp_path / "w", "at_hand")
        monkeypatch.setenv("PIP_FIND_LINKS", f"{file.parent} https://example.invalid/wheels")
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        offline = replace(settings(tmp_path), offline=True)
        await run(ChannelJob(("at-hand",), tmp_path / "made", python=False, settings=offline), Silent())
        assert set(records(tmp_path / "made")) == {"at-hand"}
        with pytest.raises(Unavailable, match="is offline"):
            await run(ChannelJob(("six",), tmp_path / "other", python=False, settings=offline), Silent())

    async def test_a_wheel_cannot_take_the_place_of_the_interpreter(self, tmp_path: Path) -> None:
        file = wheel(tmp_path / "w", "python")
        with pytest.raises(InvalidInput, match="that of the interpreter itself"):
            await run(ChannelJob((str(file),), tmp_path / "made", python=False, settings=settings(tmp_path)), Silent())

    def test_memory_does_not_grow_with_a_file(self, tmp_path: Path) -> None:
        """Contents are streamed: 300 MB go through with a small part of it in memory."""
        program = (
            "import io, resource, sys; from pathlib import Path\n"
            "from jupyter_agent.environments.channel.archives import File, Package, write\n"
            "class Zeros(io.RawIOBase):\n"
            "    def __init__(self): self.left = 300 << 20\n"
            "    def read(self, size=-1):\n"
            "        size = min(self.left, size); self.left -= size; return bytes(size)\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "write(Package('big', '1', '0', 'noarch', files=(File('big', 300 << 20, Zeros),)), Path(sys.argv[1]))\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
        )
        assert int(done.stdout) < 60_000  # KiB


def settings(folder: Path) -> Settings:
    return Settings(cache=folder / "cache", channels=folder / "channels")


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def shelf(place: Path, monkeypatch: pytest.MonkeyPatch, *wheels_there: Path) -> None:
    """pip sees these wheels alone, by the user's own configuration."""
    assert all(file.parent == place for file in wheels_there)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


def packaged(file: Path) -> Package:
    """The conda package of a wheel for this machine."""
    target = asyncio.run(host.host(tag=TAG)).target
    return wheels.package(Wheel.read(file), target, form=FORM)


def renamed_inside(file: Path, name: str) -> Path:
    """The same wheel, whose METADATA is about another."""
    with zipfile.ZipFile(file) as archive:
        held = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in held.items():
            archive.writestr(member, data.replace(b"Name: thing", f"Name: {name}".encode()))
    return file
