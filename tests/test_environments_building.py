"""Builds of conda environments from locks, with real packages, real children and real disks."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import py_compile
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_agent import processes
from jupyter_agent.environments.building.activated import FILE as ACTIVATION
from jupyter_agent.environments.building.activated import activated, read
from jupyter_agent.environments.building.activation import activate
from jupyter_agent.environments.building.archives import OWN
from jupyter_agent.environments.channel.archives import PLACEHOLDER
from jupyter_agent.environments.definitions import this_platform
from jupyter_agent.environments.locking.hashes import lock_hash
from jupyter_agent.environments.prefixes import fingerprints
from jupyter_agent.environments.prefixes.fingerprints import FILE as FINGERPRINT
from jupyter_agent.environments.prefixes.marks import OURS
from jupyter_agent.environments.work.jobs import BuildJob, Job, Settings, VerifyJob
from jupyter_agent.environments.work.worker import work
from jupyter_agent.errors import AgentError, Failed, InvalidInput, NotFound, Unavailable
from jupyter_agent.processes.environment import TAG
from tests.conda_locks import Entry, lock, package, python_of, wheel
from tests.conftest import small_file_system, until

SITE = "site-packages"
SAMPLE = {
    f"{SITE}/sample/__init__.py": "from sample.deep import VALUE\n\ndef main():\n    print('sample', VALUE)\n",
    f"{SITE}/sample/deep/__init__.py": "VALUE = 42\n",
    f"{SITE}/sample/template.py": "this is {{ no }} Python !\n",
    f"{SITE}/sample-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n",
    "share/sample.txt": "text\n",
}
QUIET = ["-P", "-c", "import sample, sys; print(sys.prefix)"]


@dataclass
class Heard:
    """Keeps what is told."""

    notes: list[str] = field(default_factory=list)
    progress: list[tuple[str, float, float | None, str]] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def show_progress(self, phase: str, done: float, total: float | None, detail: str = "") -> None:
        self.progress.append((phase, done, total, detail))

    @property
    def phases(self) -> list[str]:
        return list(dict.fromkeys(phase for phase, *_ in self.progress))


async def do(job: Job, heard: Heard | None = None, *, tag: str = "") -> dict[str, Any]:
    """Have a child do the job, with the environment that the agent's children have."""
    environ = processes.inherited_environment()
    return await work(job, environ=environ, teller=heard or Heard(), tag=tag or f"test-{os.getpid()}-{time.time_ns()}")


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(folder / "cache", folder / "channels", **more)


@dataclass(frozen=True)
class Place:
    """A cache that holds a Python, compiled, and a lock of it with the package ``sample``."""

    folder: Path
    python: Entry
    sample: Entry
    lock: Path

    @property
    def settings(self) -> Settings:
        return settings(self.folder)

    async def build(self, prefix: Path, *entries: Entry, **more: Any) -> dict[str, Any]:
        """Build python and these."""
        file = lock(prefix.parent / f"{prefix.name}.yml", [self.python, *entries])
        return await do(BuildJob(file, prefix, self.settings, **more))


@pytest.fixture(scope="module")
def place(channel: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("building")
    sample = Entry.of(package(folder / "made", "sample", SAMPLE, entry_points=["sample = sample:main"]))
    found = Place(folder, python_of(channel), sample, lock(folder / "conda-lock.yml", [python_of(channel), sample]))
    asyncio.run(do(BuildJob(found.lock, folder / "first", found.settings)))
    return found


def run_program(*argv: Path | str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, env={}).stdout.strip()


def run_in(prefix: Path, *arguments: str) -> str:
    return run_program(prefix / "bin" / "python", *arguments)


def bytecode(prefix: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of each bytecode file, by its path in the prefix."""
    return {file.relative_to(prefix): (file.stat().st_ino, file.stat().st_mtime_ns) for file in prefix.rglob("*.pyc")}


async def faults_of(place: Place, prefix: Path) -> list[tuple[str, str]]:
    found = await do(VerifyJob(prefix, place.settings))
    return [(fault["path"], fault["package"]) for fault in found["faults"]]


async def test_a_second_prefix_shares_all_files_and_their_bytecode(place: Place, tmp_path: Path) -> None:
    heard, prefix = Heard(), tmp_path / "second"
    result = await do(BuildJob(place.lock, prefix, place.settings), heard)
    assert heard.phases == ["download", "link", "check"]  # nothing was compiled again
    before = bytecode(prefix)
    assert run_in(prefix, *QUIET) == str(prefix)
    assert run_program(prefix / "bin" / "sample") == "sample 42"
    assert bytecode(prefix) == before  # importing wrote none
    first = bytecode(place.folder / "first")
    own = [str(path) for path in before if first[path] != before[path]]
    assert [path for path in own if "_sysconfigdata" not in path] == []  # that one holds the prefix
    assert not (prefix / f"lib/python3.11/{SITE}/sample/__pycache__/template.cpython-311.pyc").exists()
    files = [file for file in prefix.rglob("*") if file.is_file() and not file.is_symlink()]
    size = sum(file.stat().st_size for file in files)
    assert abs(result["bytes"] - size) < size / 50
    assert result["packages"] == 2
    assert result["own_bytes"] < size / 20
    assert await faults_of(place, prefix) == []


async def test_what_stands_in_a_prefix_at_the_end(place: Place) -> None:
    prefix = place.folder / "first"
    assert (prefix / "lock" / "conda-lock.yml").read_bytes() == place.lock.read_bytes()
    assert (prefix / "conda-meta" / "history").is_file()
    marker = next(prefix.glob("lib/python*/EXTERNALLY-MANAGED"))
    assert marker.read_text().startswith("[externally-managed]\nError=")
    variables = activated(prefix, {"PATH": "/usr/bin", "OTHER": "1"})
    assert variables["PATH"] == f"{prefix}/bin:/usr/bin"
    assert variables["CONDA_PREFIX"] == str(prefix)
    assert variables["OTHER"] == "1"


async def test_verify_names_every_changed_file_and_its_package(place: Place, tmp_path: Path) -> None:
    prefix = tmp_path / "changed"
    mine = {**SAMPLE, f"{SITE}/sample/other.py": "A = 1\n"}
    entry = Entry.of(package(tmp_path / "made", "sample", mine, version="3.0"))
    await place.build(prefix, entry)
    inside = prefix / "lib" / f"python3.11/{SITE}/sample"
    (inside / "other.py").write_text("A = 2\n")  # as long as before
    (inside / "deep" / "__init__.py").unlink()
    with (prefix / "share" / "sample.txt").open("a") as file:
        file.write("more")
    compiled = inside / "__pycache__" / "__init__.cpython-311.pyc"
    compiled.write_bytes(compiled.read_bytes()[:-1] + b"X")  # in place: the cache's, too
    site = f"lib/python3.11/{SITE}/sample"
    expected = {
        "share/sample.txt",
        f"{site}/deep/__init__.py",
        f"{site}/other.py",
        f"{site}/__pycache__/{compiled.name}",
    }
    assert set(await faults_of(place, prefix)) == {(path, "sample") for path in expected}
    # what was changed in place is in the cache, too: a build that distrusts it does not bring it back
    again = tmp_path / "again"
    await place.build(again, entry, distrust=True)
    assert await faults_of(place, again) == []
    assert run_in(again, "-c", "import sample.other; print(sample.other.A)") == "1"


async def test_records_that_cannot_be_understood_are_faults(place: Place, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    await place.build(prefix, wheel(tmp_path, "other", {"other.py": ""}))
    for number, junk in enumerate(("", "[]", "[" * 100_000, '{"name": "x"}', '{"paths_data": {"paths": [1]}}')):
        (prefix / "conda-meta" / f"junk-{number}-0.json").write_text(junk)
    record = f"lib/python3.11/{SITE}/other-1.0.dist-info/RECORD"
    (prefix / record).unlink()
    found = await faults_of(place, prefix)
    assert [path for path, _ in found] == [*(f"conda-meta/junk-{number}-0.json" for number in range(5)), record]


async def test_after_a_power_cut_the_cache_is_held_against_its_hashes_once(tmp_path: Path) -> None:
    made = package(tmp_path / "made", "data", {"share/data.txt": "right\n"}, noarch="generic")
    job = BuildJob(lock(tmp_path / "l.yml", [Entry.of(made)]), tmp_path / "one", settings(tmp_path))
    await do(job)
    assert list((tmp_path / "cache" / "unsynced").iterdir()) == []
    (tmp_path / "cache" / "pkgs" / "data-1.0-0" / "share" / "data.txt").write_text("holes\n")  # as long as before
    await do(replace(job, prefix=tmp_path / "two"))
    assert (tmp_path / "two" / "share" / "data.txt").read_text() == "holes\n"  # nothing says that it is not trusted
    left = tmp_path / "cache" / "unsynced" / "left"
    left.write_text("another start of the system")
    await do(replace(job, prefix=tmp_path / "three"))
    assert (tmp_path / "three" / "share" / "data.txt").read_text() == "right\n"
    assert not left.exists()


async def test_new_bytecode_is_not_trusted_until_it_is_on_the_disk(place: Place, tmp_path: Path) -> None:
    entry = Entry.of(package(tmp_path / "made", "sample", SAMPLE, version="5.0"))
    await place.build(tmp_path / "one", entry)
    kept = place.settings.cache / "compiled"
    shutil.rmtree(next(kept.glob(f"*/{entry.sha256}")))
    (tmp_path / "one").rename(tmp_path / "seen")
    moved = kept.rename(tmp_path / "compiled")
    kept.touch()  # so that compiling fails, as a cut of the power would end it
    with pytest.raises(AgentError):
        await place.build(tmp_path / "one", entry)
    marks = list((place.settings.cache / "unsynced").iterdir())
    assert [mark.name.endswith(".bytecode") for mark in marks] == [True]
    kept.unlink()
    moved.rename(kept)
    await place.build(tmp_path / "one", entry)
    assert list((place.settings.cache / "unsynced").iterdir()) == []
    assert await faults_of(place, tmp_path / "one") == []


async def test_a_cache_that_misses_a_file_is_healed(place: Place, tmp_path: Path) -> None:
    entry = Entry.of(package(tmp_path / "made", "sample", SAMPLE, version="4.0"))
    await place.build(tmp_path / "one", entry)
    (place.settings.cache / "pkgs" / "sample-4.0-0" / "share" / "sample.txt").unlink()
    shutil.rmtree(next((place.settings.cache / "compiled").glob(f"*/{entry.sha256}")))
    await place.build(tmp_path / "two", entry)
    assert await faults_of(place, tmp_path / "two") == []
    assert len(bytecode(tmp_path / "two")) == len(bytecode(tmp_path / "one"))


async def test_paths_that_no_program_could_use_are_refused(place: Place, tmp_path: Path) -> None:
    for name in ("not-utf-8-\udce9", "a\nb", "x" * 300, "/".join(["x" * 200] * 6)):
        with pytest.raises(InvalidInput, match="The path of the environment"):
            await do(BuildJob(place.lock, tmp_path / name, place.settings))
    with pytest.raises(InvalidInput, match="absolute"):
        await do(BuildJob(place.lock, Path("relative"), place.settings))


@pytest.mark.parametrize("name", ["with spaces and ümläute ☃", "x" * 180])
async def test_prefixes_on_unusual_paths(place: Place, tmp_path: Path, name: str) -> None:
    prefix = tmp_path / name
    await do(BuildJob(place.lock, prefix, place.settings))
    assert run_in(prefix, *QUIET) == str(prefix)
    assert run_program(prefix / "bin" / "sample") == "sample 42"
    assert await faults_of(place, prefix) == []


async def test_another_file_system_takes_copies_whose_bytecode_is_used(place: Place, tmp_path: Path) -> None:
    with small_file_system(tmp_path / "mounted", "size=400m") as folder:
        prefix = folder / "prefix"
        result = await do(BuildJob(place.lock, prefix, place.settings))
        before = bytecode(prefix)
        assert run_in(prefix, *QUIET) == str(prefix)
        assert bytecode(prefix) == before
        assert len(before) == len(bytecode(place.folder / "first"))
        assert result["own_bytes"] == result["bytes"]
        assert await faults_of(place, prefix) == []


async def test_a_full_disk_is_named(place: Place, tmp_path: Path) -> None:
    with small_file_system(tmp_path / "mounted", "size=8m") as folder:
        with pytest.raises(Failed, match="no space left"):
            await do(BuildJob(place.lock, folder / "prefix", place.settings))
        shutil.rmtree(folder / "prefix")
        with pytest.raises(Failed, match="no space left"):
            await do(BuildJob(place.lock, tmp_path / "prefix", settings(folder)))


async def test_a_cache_that_cannot_be_written_is_named(place: Place, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(AgentError, match="cache"):
        await do(BuildJob(place.lock, tmp_path / "prefix", settings(tmp_path)))


async def test_a_lock_for_other_machines_and_none_at_all(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "conda-lock.yml"
    here = place.lock.read_text()
    platform = "linux-64" if "linux-64" in here else "linux-aarch64"
    file.write_text(here.replace(platform, "win-64"))
    with pytest.raises(InvalidInput, match="win-64"):
        await do(BuildJob(file, tmp_path / "prefix", place.settings))
    file.write_text("package: [\n")
    with pytest.raises(InvalidInput, match="cannot be read"):
        await do(BuildJob(file, tmp_path / "prefix", place.settings))
    with pytest.raises(NotFound):
        await do(BuildJob(tmp_path / "none.yml", tmp_path / "prefix", place.settings))


async def test_of_a_lock_with_categories_main_alone_is_installed(place: Place, tmp_path: Path) -> None:
    """As the hash that names the prefix is over those alone."""
    extra = Entry.of(package(tmp_path, "for-tests", {f"{SITE}/for_tests.py": ""}))
    beside = wheel(tmp_path / "wheels", "beside", {"beside.py": ""})
    dev = (replace(extra, category="dev"), replace(beside, category="dev"))
    file = lock(tmp_path / "conda-lock.yml", [place.python, place.sample, *dev])
    assert lock_hash(file.read_text(), this_platform()) == lock_hash(place.lock.read_text(), this_platform())
    assert (await do(BuildJob(file, tmp_path / "prefix", place.settings)))["packages"] == 2
    assert not [*(tmp_path / "prefix").rglob("for_tests.py"), *(tmp_path / "prefix").rglob("beside.py")]


async def test_an_archive_that_was_swapped_cut_or_removed_is_not_installed(tmp_path: Path) -> None:
    file = package(tmp_path / "made", "data", {"share/data.txt": "right\n"}, noarch="generic")
    entry, right = Entry.of(file), file.read_bytes()
    job = BuildJob(lock(tmp_path / "l.yml", [entry]), tmp_path / "prefix", settings(tmp_path))
    other = package(tmp_path / "other", "data", {"share/data.txt": "wrong\n"}, noarch="generic").read_bytes()
    for wrong in (other, right[:-200], b""):
        file.write_bytes(wrong)
        with pytest.raises(Failed, match=r"data-1\.0-0\.conda is not the package that was locked"):
            await do(job)
        assert not (tmp_path / "cache" / "pkgs" / "data-1.0-0").exists()
    file.unlink()
    with pytest.raises(NotFound, match="not there any more"):
        await do(job)
    file.write_bytes(right)
    await do(job)
    file.write_bytes(other)  # it is in the cache: nobody asks for the archive
    (tmp_path / "prefix" / "rest").touch()
    await do(job)
    assert (tmp_path / "prefix" / "share" / "data.txt").read_text() == "right\n"
    assert not (tmp_path / "prefix" / "rest").exists()
    (tmp_path / "cache" / "pkgs" / "data-1.0-0" / "share" / "data.txt").unlink()  # rattler would take the other one
    with pytest.raises(Failed, match="is not the package that was locked"):
        await do(job)
    assert not (tmp_path / "cache" / "pkgs" / "data-1.0-0").exists()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over http."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def test_packages_over_http_are_checked_and_counted(tmp_path: Path) -> None:
    made = tmp_path / "made"
    file = package(made, "data", {"share/data.bin": os.urandom(3_000_000)}, noarch="generic")
    with served(made) as url:
        entry = Entry.of(file, f"{url}/noarch/{file.name}")
        heard = Heard()
        job = BuildJob(lock(tmp_path / "l.yml", [entry]), tmp_path / "prefix", settings(tmp_path))
        await do(job, heard)
        assert any(phase == "download" and "3.0 MB" in detail for phase, *_, detail in heard.progress)
        assert heard.phases == ["download", "link", "check"]
        wrong = replace(job, settings=settings(tmp_path / "other"))
        right = file.read_bytes()
        file.write_bytes(package(tmp_path / "b", "data", {"share/data.bin": b"x"}, noarch="generic").read_bytes())
        with pytest.raises(Failed, match="is not the package that was locked"):
            await do(wrong)
        file.write_bytes(right[:-1000])
        with pytest.raises(AgentError):
            await do(wrong)
        file.unlink()
        with pytest.raises(AgentError, match=r"data-1\.0-0\.conda"):
            await do(wrong)
    with pytest.raises(Unavailable, match="offline"):
        await do(replace(wrong, settings=replace(wrong.settings, offline=True)))
    await do(replace(job, settings=replace(job.settings, offline=True)))  # it is in the cache


@pytest.mark.parametrize("path", ["../outside.txt", "share/../../outside.txt"])
async def test_a_package_cannot_write_outside_of_its_prefix(tmp_path: Path, path: str) -> None:
    file = package(tmp_path / "made", "evil", {"share/a.txt": "a", path: "b"}, noarch="generic")
    job = BuildJob(lock(tmp_path / "l.yml", [Entry.of(file)]), tmp_path / "in" / "prefix", settings(tmp_path))
    with pytest.raises(AgentError):
        await do(job)
    with pytest.raises(AgentError):
        await do(job)
    assert not list(tmp_path.rglob("outside.txt"))  # noqa: ASYNC240 - a test waits


async def test_a_path_longer_than_what_a_package_has_room_for_is_named(tmp_path: Path) -> None:
    data = b"\0" + PLACEHOLDER.encode() + b"/lib\0"
    made = package(tmp_path / "made", "built-in", {"bin/x": data}, noarch=None, prefixed={"bin/x": "binary"})
    job = BuildJob(lock(tmp_path / "l.yml", [Entry.of(made)]), tmp_path / "short", settings(tmp_path))
    await do(job)
    assert (
        (tmp_path / "short" / "bin" / "x").read_bytes().startswith(b"\0" + os.fsencode(tmp_path / "short") + b"/lib\0")
    )
    with pytest.raises(InvalidInput, match="too long"):
        await do(replace(job, prefix=tmp_path / ("x" * 130) / ("y" * 130)))


async def test_nor_by_an_entry_point_or_through_a_link(place: Place, tmp_path: Path) -> None:
    entry = package(tmp_path / "made", "point", {f"{SITE}/point.py": ""}, entry_points=["../../outside = point:main"])
    with pytest.raises(InvalidInput, match=r"point would put '../../outside' where it may not be"):
        await place.build(tmp_path / "in" / "prefix", Entry.of(entry))
    target = tmp_path / "target"
    target.mkdir()
    files = {"share/away/outside.txt": "b"}
    made = package(tmp_path / "made", "away", files, noarch="generic", links={"share/away": str(target)})
    job = BuildJob(lock(tmp_path / "l.yml", [Entry.of(made)]), tmp_path / "in" / "other", settings(tmp_path))
    with pytest.raises(AgentError):
        await do(job)
    assert not any(target.iterdir())
    assert not (tmp_path / "outside").exists()


async def test_nor_where_the_environments_own_files_are(place: Place, tmp_path: Path) -> None:
    assert all(OWN.match(name) for name in {*OURS, FINGERPRINT, ACTIVATION})
    target = tmp_path / "target"
    target.mkdir()
    marker = package(tmp_path / "made", "marker", {"share/a.txt": "a", "./ready": "{}"}, noarch="generic")
    through = package(tmp_path / "made", "through", {"share/b.txt": "a"}, noarch="generic", links={"lock": str(target)})
    for made, path in ((marker, "./ready"), (through, "lock")):
        job = BuildJob(lock(tmp_path / "l.yml", [Entry.of(made)]), tmp_path / "prefix", settings(tmp_path))
        with pytest.raises(InvalidInput, match=f"would put '{path}' where it may not be"):
            await do(job)
        assert not (tmp_path / "prefix" / "ready").exists()
    assert not any(target.iterdir())
    library = next(place.folder.glob("first/lib/python3.*")).name
    managed = package(tmp_path / "made", "managed", {f"lib/{library}/EXTERNALLY-MANAGED": "its own"}, noarch="generic")
    await place.build(tmp_path / "third", Entry.of(managed))
    assert (tmp_path / "third" / "lib" / library / "EXTERNALLY-MANAGED").read_text() == "its own"
    assert await faults_of(place, tmp_path / "third") == []


async def test_bytecode_that_python_writes_anew_is_no_change(place: Place, tmp_path: Path) -> None:
    """A package's bytecode of a source in which the prefix is written cannot be that of the source."""
    source = f"VALUE = {PLACEHOLDER!r}\n"
    (tmp_path / "told.py").write_text(source)
    py_compile.compile(str(tmp_path / "told.py"), str(tmp_path / "told.pyc"), doraise=True)
    stale = (tmp_path / "told.pyc").read_bytes()
    site = next(place.folder.glob("first/lib/python3.*/site-packages")).relative_to(place.folder / "first")
    tag = sys.implementation.cache_tag
    files: dict[str, str | bytes] = {f"{site}/told.py": source, f"{site}/__pycache__/told.{tag}.pyc": stale}
    made = package(tmp_path / "made", "told", files, noarch=None, prefixed={f"{site}/told.py": "text"})
    prefix = tmp_path / "prefix"
    await place.build(prefix, Entry.of(made))
    fingerprints.keep(prefix, fingerprints.taken(prefix))
    assert run_in(prefix, "-P", "-c", "import told; print(told.VALUE)") == str(prefix)
    written = prefix / site / "__pycache__" / f"told.{tag}.pyc"
    assert written.read_bytes() != stale
    assert not fingerprints.looked_at(prefix)
    assert await faults_of(place, prefix) == []
    written.write_bytes(written.read_bytes()[:8])
    assert [path for path, _ in await faults_of(place, prefix)] == [str(written.relative_to(prefix))]


async def test_packages_that_have_the_same_file(place: Place, tmp_path: Path) -> None:
    one = package(tmp_path / "made", "one", {f"{SITE}/same.py": "VALUE = 1\n", f"{SITE}/one.py": ""})
    two = package(tmp_path / "made", "two", {f"{SITE}/same.py": "VALUE = 2\n", f"{SITE}/two.py": ""})
    for name in ("first", "second"):
        prefix = tmp_path / name
        await place.build(prefix, Entry.of(one), Entry.of(two))
        value = (prefix / f"lib/python3.11/{SITE}/same.py").read_text().strip()[-1]
        assert run_in(prefix, "-c", "import same; print(same.VALUE)") == value  # bytecode of the other would lie
        assert await faults_of(place, prefix) == []


async def test_activation_scripts_are_run_once_and_never_hang_a_build(tmp_path: Path) -> None:
    scripts = {
        "a.sh": 'export A_HOME="$CONDA_PREFIX/share a"\nexport PATH="$CONDA_PREFIX/libexec:$PATH"\nunset CONDA_SHLVL\n',
        "b.sh": 'export B_PATH="$CONDA_PREFIX/b${B_PATH:+:$B_PATH}"\nexport MULTI=$(printf "one\\ntwo")\nfalse\n',
        "c.sh": "exit 3\n",
        "e.sh": "export LAST=1\n",
    }
    files = {
        **{f"etc/conda/activate.d/{name}": text for name, text in scripts.items()},
        "etc/conda/env_vars.d/x.json": '{"FROM_PACKAGE": "1", "BOTH": "package"}',
    }
    made = package(tmp_path / "made", "acts", files, noarch="generic")
    file = lock(tmp_path / "l.yml", [Entry.of(made)], variables={"BOTH": "file: ü", "MINE": "x y"})
    heard, prefix = Heard(), tmp_path / "prefix"
    await do(BuildJob(file, prefix, settings(tmp_path)), heard)
    assert heard.notes == ["The activation script c.sh was left out: it ended the shell (exit code 3): exit code 3"]
    base = {"PATH": "/usr/bin", "CONDA_SHLVL": "7"}
    found = activated(prefix, base)
    assert found["PATH"].split(":") == [f"{prefix}/libexec", f"{prefix}/bin", "/usr/bin"]
    wanted = {"A_HOME": f"{prefix}/share a", "B_PATH": f"{prefix}/b", "MULTI": "one\ntwo", "LAST": "1"}
    assert {name: found.get(name) for name in wanted} == wanted
    assert (found["FROM_PACKAGE"], found["BOTH"], found["MINE"]) == ("1", "file: ü", "x y")
    assert "CONDA_SHLVL" not in found
    assert activated(prefix, {**base, "B_PATH": "/mine"})["B_PATH"] == f"{prefix}/b:/mine"
    assert read(prefix).around["B_PATH"] == (f"{prefix}/b:", "")
    (prefix / "etc" / "conda" / "activate.d" / "d.sh").write_text("while true; do sleep 0.1; done\n")
    heard.notes.clear()
    await activate(prefix, {}, note=heard.note, tag=f"hangs-{time.time_ns()}", timeout_s=1)
    assert "The activation script d.sh was left out: it had not ended after 1 s." in heard.notes
    assert activated(prefix, base)["LAST"] == "1"
    assert '"MINE": "x y"' in (prefix / "conda-meta" / "state").read_text()


async def test_the_pip_part_is_what_is_locked_with_shared_bytecode(place: Place, tmp_path: Path) -> None:
    thing = wheel(tmp_path, "thing", {"thing/__init__.py": "VALUE = 7\n"}, requires="not-on-any-index")
    await place.build(tmp_path / "one", thing)
    result = await place.build(tmp_path / "two", thing)
    assert result["packages"] == 2
    inside = f"lib/python3.11/{SITE}/thing"
    for path in (f"{inside}/__init__.py", f"{inside}/__pycache__/__init__.cpython-311.pyc"):
        assert (tmp_path / "one" / path).samefile(tmp_path / "two" / path)
    before = bytecode(tmp_path / "two")
    assert run_in(tmp_path / "two", "-c", "import thing; print(thing.VALUE)") == "7"
    assert bytecode(tmp_path / "two") == before
    source = tmp_path / "one" / inside / "__init__.py"
    source.write_text("VALUE = 8\n")  # in place: uv's cache, too
    assert await faults_of(place, tmp_path / "two") == [(f"{inside}/__init__.py", "thing-1.0")]
    await place.build(tmp_path / "three", thing, distrust=True)
    assert run_in(tmp_path / "three", "-c", "import thing; print(thing.VALUE)") == "7"
    assert await faults_of(place, tmp_path / "three") == []
    wheel(tmp_path, "thing", {"thing/__init__.py": "VALUE = 9\n"})  # the file was swapped
    with pytest.raises(Failed, match=r"(?i)hash"):
        await do(BuildJob(tmp_path / "one.yml", tmp_path / "four", settings(tmp_path / "new")))
    with pytest.raises(InvalidInput, match="no python"):
        await do(BuildJob(lock(tmp_path / "l.yml", [thing]), tmp_path / "five", place.settings))


async def test_two_builders_of_two_hashes_on_one_cold_cache(place: Place, tmp_path: Path) -> None:
    extra = Entry.of(package(tmp_path / "made", "extra", {f"{SITE}/extra.py": "X = 1\n"}))
    locks = [lock(tmp_path / "a.yml", [place.python, place.sample]), lock(tmp_path / "b.yml", [place.python, extra])]
    jobs = [BuildJob(file, tmp_path / file.stem, settings(tmp_path)) for file in locks]
    await asyncio.gather(*(do(job) for job in jobs))
    for job in jobs:
        found = await do(VerifyJob(job.prefix, job.settings))
        assert found["faults"] == []
        before = bytecode(job.prefix)
        run_in(job.prefix, "-c", "import json, email")
        assert bytecode(job.prefix) == before
    assert not list((tmp_path / "cache" / "compiled").rglob(".making-*"))


async def test_a_build_that_was_killed_while_compiling_is_built_again(place: Place, tmp_path: Path) -> None:
    job = BuildJob(place.lock, tmp_path / "prefix", settings(tmp_path))
    tag = f"killed-{time.time_ns()}"
    task = asyncio.ensure_future(do(job, tag=tag))
    compiled = tmp_path / "cache" / "compiled"
    await asyncio.to_thread(until, lambda: list(compiled.rglob("[0-9].pyc")), what="it compiles")
    for process in tagged(tag):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with pytest.raises(Failed, match="SIGKILL"):
        await task
    assert list(compiled.rglob(".making-*"))
    await do(job)
    assert not list(compiled.rglob(".making-*"))
    assert (await do(VerifyJob(job.prefix, job.settings)))["faults"] == []
    assert run_in(job.prefix, *QUIET) == str(job.prefix)


def tagged(tag: str) -> list[psutil.Process]:
    """The living processes with this tag."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(TAG) == tag and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
