"""A home in one file and back: while it is used, whoever made the file, and whenever it is broken off."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent import processes
from jupyter_agent.agent.backup import restoring, swapping
from jupyter_agent.agent.backup.opening import open_backup
from jupyter_agent.agent.backup.restoring import AWAY, restore
from jupyter_agent.agent.backup.taking import Taken, back_up
from jupyter_agent.errors import AgentError, Conflict, InvalidInput, NewerVersion
from jupyter_agent.home import Home, Lock, ensure_agent, read_json
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.state import RunRow, RunState, State
from tests.conftest import cli, end_all, ended, make_package, pid_in, printed, small_file_system, start_agent, until

SLOW = "import time\nprint('begun', flush=True)\ntime.sleep(30)\n"
QUICK = "import pathlib\nprint('quick')\npathlib.Path('made.txt').write_text('made by the run')\n"
ODD = [
    "with\nline end",
    "back\\slash",
    "Case",
    "case",
    "ünï",
    "-rf",
    "sp ace",
    b"\xff\xfe".decode("utf-8", "surrogateescape"),
]


def silent(_text: str) -> None:
    """Nobody listens."""


def backed_up(home: Home, target: Path, **options: Any) -> Taken:
    return back_up(home, target, **{"everything": False, "force": False, "say": silent, **options})


def brought_back(home: Home, source: Path, *, stop: bool = False) -> Path | None:
    return restore(home, source, stop=stop, say=silent, tell=silent).before


def small_home(folder: Path, word: str) -> Home:
    """A home with a run of odd files, a store and secrets, without anybody who uses it."""
    home = Home(folder)
    home.prepare()
    home.config_file.write_text(json.dumps({"apiurl": "ws://127.0.0.1:9", "jwt": word}))
    home.config_file.chmod(0o600)
    asyncio.run(with_a_run(home, word))
    return home


async def with_a_run(home: Home, word: str) -> None:
    row = RunRow(id=f"20260101-000000-000000-{word:>016}".replace(" ", "0"), created="2026-01-01T00:00:00.000+00:00")
    run = home.runs / "2026-01" / row.id
    run.mkdir(parents=True)
    for name in ODD:
        (run / name).write_text(word)
    (run / "program").write_text(word * 50_000)
    (run / "program").chmod(0o755)
    (run / "to program").symlink_to("program")
    os.mkfifo(run / "pipe")
    async with State(home.state_file) as state:
        await state.insert(RunRow(**{
            **row.__dict__, "state": RunState.SUCCEEDED, "ended": row.created, "folder": str(run), "package": word,
        }))  # fmt: skip


def tree(folder: Path) -> dict[str, Any]:
    """All that a backup is to bring back of a home: contents, modes and links, by name."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = os.fsdecode(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file() and path.suffix != ".db" and path.name != swapping.MARK:
            found[name] = (hashlib.sha256(path.read_bytes()).hexdigest(), stat.S_IMODE(path.stat().st_mode))
    return found


def word_of(home: Home) -> str:
    """Which home it is, told by everything in it."""
    with contextlib.closing(sqlite3.connect(home.state_file)) as state:
        assert state.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((word, row),) = state.execute("SELECT package, row FROM runs").fetchall()
    assert (read_json(home.config_file) or {})["jwt"] == word
    assert (Path(json.loads(row)["folder"]) / "program").read_text() == word * 50_000
    return str(word)


class TestRoundTrip:
    def test_odd_names_modes_and_links(self, tmp_path: Path) -> None:
        home = small_home(tmp_path / "home", "one")
        taken = backed_up(home, tmp_path / "all.backup")
        assert taken.manifest.left_out == ()
        assert brought_back(Home(tmp_path / "new"), taken.path) is None
        assert tree(tmp_path / "new") == tree(home.path)
        assert word_of(Home(tmp_path / "new")) == "one"
        assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new", tmp_path / "new" / "hub")} == {0o700}
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_what_can_be_made_anew_stays_out_unless_it_is_asked_for(self, tmp_path: Path) -> None:
        home = small_home(tmp_path / "home", "one")
        (home.environments / "abc" / "bin").mkdir(parents=True)
        (home.environments / "abc" / "bin" / "python").symlink_to(sys.executable)
        (home.packages / "id").mkdir()
        (home.packages / "id" / "main.py").write_text("print(1)")
        backed_up(home, tmp_path / "small.backup")
        backed_up(home, tmp_path / "all.backup", everything=True)
        for name, there in (("small", False), ("all", True)):
            brought_back(Home(tmp_path / name), tmp_path / f"{name}.backup")
            assert (tmp_path / name / "packages" / "id" / "main.py").exists() == there
            assert (tmp_path / name / "environments" / "abc" / "bin" / "python").is_symlink() == there

    def test_of_environments_their_locks_stay(self, tmp_path: Path) -> None:
        home = small_home(tmp_path / "home", "one")
        for name in (
            "locks/key.yml",
            "cache/pkgs/six.conda",
            "channels/key/noarch/six.conda",
            "held/run",
            "building/x",
        ):
            (home.environments / name).parent.mkdir(parents=True)
            (home.environments / name).write_text(name)
        backed_up(home, tmp_path / "small.backup")
        backed_up(home, tmp_path / "all.backup", everything=True)
        kept = {"small": ["locks/key.yml"], "all": ["channels/key/noarch/six.conda", "locks/key.yml"]}
        for name, expected in kept.items():
            brought_back(Home(tmp_path / name), tmp_path / f"{name}.backup")
            folder = tmp_path / name / "environments"
            assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == expected

    def test_what_leads_out_of_the_home_is_told_and_left(self, tmp_path: Path) -> None:
        home = small_home(tmp_path / "home", "one")
        (home.runs / "2026-01" / "link").symlink_to("/etc/passwd")
        (home.logs / "up").symlink_to("../../..")
        (run,) = (path for path in (home.runs / "2026-01").iterdir() if path.is_dir())
        (run / "out").symlink_to("../../../hub/credentials.json")
        left = backed_up(home, tmp_path / "x.backup").manifest.left_out
        assert sorted(sentence.split("'")[1] for sentence in left) == ["logs/up", f"runs/2026-01/{run.name}/out"]
        brought_back(Home(tmp_path / "new"), tmp_path / "x.backup")
        assert not (tmp_path / "new" / "logs" / "up").is_symlink()

    def test_while_everything_is_used(self, home: Home, tmp_path: Path) -> None:
        """Writers, uploads, deletions and runs go on; what comes back is whole, and the original is left alone."""
        agent = start_agent(home)
        quick = make_package(tmp_path / "quick", {"main.py": QUICK}, openiap={"language": "python"})
        slow = make_package(tmp_path / "slow", {"main.py": SLOW}, openiap={"language": "python"})
        agent.request("POST", "packages", {"path": str(quick)})
        done = ended(agent, agent.request("POST", "runs", {"target": "quick"})["id"])
        going = agent.request("POST", "runs", {"target": str(slow)})["id"]
        until(lambda: "begun" in printed(agent, going), what="the slow run is under way")
        target = tmp_path / "all.backup"
        with writing(home) as written:
            until(lambda: len(written) > 20, what="documents are written")
            sure = set(written)
            said = cli("backup", "--json", str(target), home=home)
        assert said.returncode == 0, said
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert json.loads(said.stdout)["left_out"] == []
        assert agent.request("GET", f"runs/{going}")["state"] == "running"
        other = Home(tmp_path / "h")
        try:
            restored = cli("restore", str(target), "--home", str(other.path), home=home)
            assert restored.returncode == 0, restored
            assert "must not run at once" in restored.stdout
            again = start_agent(other)
            found = again.request("GET", f"runs/{done['id']}")
            assert found == {**done, "output_size": found["output_size"]}
            assert "quick" in printed(again, done["id"])
            assert (other.runs / done["created"][:7] / done["id"] / "artifacts" / "made.txt").exists() or any(
                path.read_text() == "made by the run" for path in other.runs.rglob("made.txt")
            )
            lost = again.request("GET", f"runs/{going}")
            assert (lost["state"], lost["error"]) == ("lost", AWAY)
            assert ended(again, again.request("POST", "runs", {"target": "quick"})["id"])["state"] == "succeeded"
            assert agent.request("GET", f"runs/{going}")["state"] == "running"
            assert pid_in(other.hub / "hub.json") != pid_in(home.hub / "hub.json")
            assert sure <= hub_is_whole(other)
        finally:
            agent.request("POST", f"runs/{going}/cancel", {})
            end_all(other)


@contextlib.contextmanager
def writing(home: Home) -> Iterator[set[str]]:
    """Somebody writes into the hub all the while: documents, files, and files that are deleted again."""
    written: set[str] = set()
    stop = threading.Event()
    hub = read_json(home.hub / "hub.json") or {}
    owner = read_json(home.hub / "credentials.json") or {}

    async def write() -> None:
        file = home.path.parent / "file"
        async with Client(hub["apiurl"], Credentials(jwt=owner["jwt"]), version="1", requests_per_s=None) as client:
            while not stop.is_set():
                written.add((await client.insert_one("things", {"name": "x" * 1000}))["_id"])
                file.write_bytes(os.urandom(50_000))
                uploaded = await client.upload(file)
                if random.random() < 0.5:  # noqa: S311 - which of them is all the same
                    await client.delete_one("fs.files", uploaded)

    thread = threading.Thread(target=lambda: asyncio.run(write()))
    thread.start()
    try:
        yield written
    finally:
        stop.set()
        thread.join()


def hub_is_whole(home: Home) -> set[str]:
    """The ids of the things in a running hub, all of whose files have their contents."""

    async def look() -> set[str]:
        hub = read_json(home.hub / "hub.json") or {}
        owner = read_json(home.hub / "credentials.json") or {}
        async with Client(hub["apiurl"], Credentials(jwt=owner["jwt"]), version="1", requests_per_s=None) as client:
            files = await client.query("fs.files", {}, top=10_000)
            for file in files:
                data = (home.hub / "files" / file["_id"]).read_bytes()
                assert (len(data), hashlib.sha256(data).hexdigest()) == (file["length"], file["sha256"])
            assert len(files) > 3
            return {thing["_id"] for thing in await client.query("things", {}, top=100_000)}

    return asyncio.run(look())


class TestInPlace:
    def test_agent_and_hub_are_ended_in_order_and_started_again(self, home: Home, tmp_path: Path) -> None:
        agent = start_agent(home)
        slow = make_package(tmp_path / "slow", {"main.py": SLOW}, openiap={"language": "python"})
        target = tmp_path / "x.backup"
        assert cli("backup", str(target), home=home).returncode == 0
        going = agent.request("POST", "runs", {"target": str(slow)})["id"]
        until(lambda: "begun" in printed(agent, going), what="the run is under way")
        before = (pid_in(home.agent_file), pid_in(home.hub / "hub.json"))
        refused = cli("restore", str(target), home=home)
        assert refused.returncode == 1
        assert "1 run is under way" in refused.stderr
        assert (pid_in(home.agent_file), pid_in(home.hub / "hub.json")) == before
        done = cli("restore", "--json", "--stop", str(target), home=home)
        assert done.returncode == 0, done
        told = json.loads(done.stdout)
        assert told["restarted"] == ["agent", "hub"]
        kept = Path(told["before"])
        assert kept.parent == home.path.parent
        assert (kept / "state.db").exists()
        again = start_agent(home)
        assert pid_in(home.agent_file) not in (None, before[0])
        assert again.request("GET", "runs")["runs"] == []
        (home.path / "agent.sock").unlink()  # one that cannot be asked to end is ended all the same
        done = cli("restore", str(target), home=home)
        assert done.returncode == 0, done
        assert "The agent runs again." in done.stdout

    def test_what_ran_runs_again_also_when_the_restore_fails(
        self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        small_home(home.path, "one")
        backed_up(home, tmp_path / "x.backup")
        ensure_agent(home, processes.spawn_detached)
        before = pid_in(home.agent_file)
        monkeypatch.setattr(restoring, "END_S", 0.5)
        with Lock(home.hub / "lock", held=""), pytest.raises(Conflict, match=r"The hub of .* does not end"):
            brought_back(home, tmp_path / "x.backup")
        assert pid_in(home.agent_file) not in (None, before)
        assert word_of(home) == "one"
        assert not list(home.path.parent.glob("*.before-*"))


class TestRefused:
    def test_a_file_that_is_there_is_kept_unless_it_is_to_go(self, tmp_path: Path) -> None:
        home = small_home(tmp_path / "home", "one")
        target = tmp_path / "x.backup"
        target.write_text("mine")
        with pytest.raises(Conflict, match="is there already"):
            backed_up(home, target)
        assert target.read_text() == "mine"
        backed_up(home, target, force=True)
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert brought_back(Home(tmp_path / "new"), target) is None

    def test_places_that_cannot_be(self, tmp_path: Path) -> None:
        home = small_home(tmp_path / "home", "one")
        for target, sentence in (
            (tmp_path / "no" / "x", "There is no folder"),
            (tmp_path, "is a folder"),
            (Path("/dev/null"), "is a device"),
            (home.path / "x", "lies in the home"),
        ):
            with pytest.raises(InvalidInput, match=sentence):
                backed_up(home, target, force=True)
        with pytest.raises(AgentError, match="nothing to back up"):
            backed_up(Home(tmp_path / "nobody"), tmp_path / "x")
        backed_up(home, tmp_path / "x")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").write_text("mine")
        with pytest.raises(InvalidInput, match=r"thesis\.tex lies in it"):
            brought_back(Home(tmp_path / "mine"), tmp_path / "x")
        with pytest.raises(AgentError, match="There is no file"):
            brought_back(home, tmp_path / "nothing")
        assert word_of(home) == "one"

    def test_a_database_that_is_damaged_is_told(self, tmp_path: Path) -> None:
        home = small_home(tmp_path / "home", "one")
        data = bytearray(home.state_file.read_bytes())
        data[4096:8192] = os.urandom(4096)
        home.state_file.write_bytes(data)
        with pytest.raises(AgentError, match=r"state\.db cannot be backed up"):
            backed_up(home, tmp_path / "x")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
        assert not [path for path in home.path.iterdir() if path.name.startswith(".")]


def repacked(source: Path, target: Path, change: Callable[[dict[str, Any]], None], **extra: bytes) -> Path:
    """The backup with another manifest (or head), and with more in it."""
    with tarfile.open(source) as archive, tarfile.open(target, "w:gz") as made:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            data = file.read()
            if member.name == extra.get("part", b"manifest.json").decode():
                found = json.loads(data)
                change(found)
                data = json.dumps(found).encode()
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return target


def entry(manifest: dict[str, Any], path: str) -> dict[str, Any]:
    (found,) = (each for each in manifest["entries"] if each["path"] == path)
    return dict(found)


def named(path: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """The entry of config.json with another path, or other fields."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["entries"] = [
            {**each, "path": path, **changes} if each["path"] == "config.json" else each for each in manifest["entries"]
        ]

    return change


def added(**fields: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        manifest["entries"].append({**entry(manifest, "logs"), **fields})

    return change


HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "a way up": named("../evil"),
    "a way up inside": named("runs/../../evil"),
    "an absolute path": named("/tmp/evil"),
    "a path of nothing": named(""),
    "a path with an empty step": named("runs//x"),
    "a path with a zero": named("run\0s"),
    "a name that is too long": named("x" * 300),
    "a file below a file": named("version/x"),
    "a file below nothing": named("no/such/folder"),
    "a file of a process": named("agent.json"),
    "the lock of the hub": named("hub/lock"),
    "a content twice": lambda manifest: manifest["entries"].append({**entry(manifest, "version"), "path": "twice"}),
    "a path twice": lambda manifest: manifest["entries"].append(entry(manifest, "version")),
    "a content that is not there": named("config.json", content=10**6),
    "another hash": named("config.json", sha256="0" * 64),
    "no hash": named("config.json", sha256="x"),
    "more bytes than there are": named("config.json", bytes=10**9),
    "a negative size": named("config.json", bytes=-1),
    "a link out": added(path="logs/x", kind="link", target="../../x"),
    "a link to a root": added(path="logs/x", kind="link", target="/etc"),
    "a link in place of a folder": added(path="environments", kind="link", target="/etc"),
    "a link in place of an environment": added(path="environments/x", kind="link", target="/etc"),
    "a link around a corner": added(path="logs/x", kind="link", target="a/../../.."),
    "a device": added(path="logs/x", kind="device"),
    "a home without a version": lambda manifest: manifest.update(
        entries=[each for each in manifest["entries"] if each["path"] != "version"]
    ),
    "no entries": lambda manifest: manifest.pop("entries"),
    "entries of another kind": lambda manifest: manifest.update(entries=[1]),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a small home."""
    folder = tmp_path_factory.mktemp("good")
    return backed_up(small_home(folder / "home", "one"), folder / "good.backup").path


@pytest.fixture
def two(tmp_path: Path) -> Home:
    """Another home, which is to stay as it is."""
    return small_home(tmp_path / "two", "two")


class TestHostile:
    @pytest.mark.parametrize("fault", HOSTILE)
    def test_a_manifest_that_lies(self, good: Path, tmp_path: Path, two: Home, fault: str) -> None:
        before = tree(two.path)
        with pytest.raises(InvalidInput, match=r"damaged: .* Nothing was changed\."):
            brought_back(two, repacked(good, tmp_path / "evil.backup", HOSTILE[fault]))
        assert tree(two.path) == before
        assert word_of(two) == "two"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.backup", "two"]

    def test_modes_that_give_more_than_they_should(self, good: Path, tmp_path: Path) -> None:
        evil = repacked(good, tmp_path / "evil.backup", named("config.json", mode=0o6777))
        brought_back(Home(tmp_path / "new"), evil)
        assert stat.S_IMODE((tmp_path / "new" / "config.json").stat().st_mode) == 0o600

    @pytest.mark.parametrize("part", ["version", "home_format"])
    def test_one_of_a_newer_version(self, good: Path, tmp_path: Path, two: Home, part: str) -> None:
        newer = repacked(good, tmp_path / "x", lambda head: head.update({part: 99}), part=b"head.json")
        with pytest.raises(NewerVersion, match="newer version"):
            brought_back(two, newer)
        assert word_of(two) == "two"

    def test_a_database_of_a_newer_version(self, tmp_path: Path, two: Home) -> None:
        home = small_home(tmp_path / "home", "one")
        with contextlib.closing(sqlite3.connect(home.state_file)) as state:
            state.execute("PRAGMA user_version = 99")
        backed_up(home, tmp_path / "x")
        with pytest.raises(NewerVersion, match="newer version"):
            brought_back(two, tmp_path / "x")
        assert word_of(two) == "two"

    def test_files_that_are_no_backup(self, good: Path, tmp_path: Path, two: Home) -> None:
        (tmp_path / "text").write_text("no archive")
        (tmp_path / "empty").touch()
        with gzip.open(tmp_path / "bomb", "wb", compresslevel=1) as bomb:
            info = tarfile.TarInfo("pax")
            info.type, info.size = tarfile.XHDTYPE, (1 << 33) - 1
            bomb.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(64 << 20))
        with tarfile.open(tmp_path / "other", "w:gz") as other:
            other.addfile(tarfile.TarInfo("../../evil"), io.BytesIO())
        for name in ("text", "empty", "bomb", "other"):
            with pytest.raises(InvalidInput, match="Nothing was changed"):
                brought_back(two, tmp_path / name)
        promise = repacked(good, tmp_path / "promise", lambda head: head.update(size=1 << 60), part=b"head.json")
        with pytest.raises(AgentError, match="free some space"):
            brought_back(two, promise)
        more = repacked(good, tmp_path / "more", lambda head: head.update(size=10), part=b"head.json")
        with pytest.raises(InvalidInput, match="more than its head says"):
            brought_back(two, more)
        assert word_of(two) == "two"

    def test_bytes_that_are_others_are_refused_or_change_nothing(self, good: Path, tmp_path: Path) -> None:
        """Cut anywhere, or with a byte changed anywhere: an error, or (in gzip's own words) the same home."""
        whole = good.read_bytes()
        chosen = random.Random(os.environ.get("JUPYTER_AGENT_SEED", "7"))  # noqa: S311 - no secret
        refusals = 0
        for number in range(40):
            data = bytearray(whole)
            if number % 2:
                del data[chosen.randrange(len(data)) :]
            else:
                data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
            (tmp_path / "x").write_bytes(data)
            folder = tmp_path / str(number)
            folder.mkdir()
            try:
                open_backup(tmp_path / "x", folder / "home", silent)
            except InvalidInput:
                refusals += 1
            else:
                assert (folder / "home" / "version").read_text() == "1\n"
            shutil.rmtree(folder)
        assert refusals >= 35


class TestBrokenOff:
    def test_kill_9_at_any_moment_leaves_one_home_or_the_other(self, tmp_path: Path, budgets: dict[str, int]) -> None:
        home = small_home(tmp_path / "home", "one")
        backed_up(home, tmp_path / "one.backup")
        backed_up(small_home(tmp_path / "other", "two"), tmp_path / "two.backup")
        shutil.rmtree(tmp_path / "other")
        begun = time.monotonic()
        assert cli("restore", str(tmp_path / "one.backup"), home=home).returncode == 0
        took = time.monotonic() - begun
        chosen = random.Random(os.environ.get("JUPYTER_AGENT_SEED", "7"))  # noqa: S311 - no secret
        for _ in range(budgets["restore_kills"]):
            now = word_of(home)
            wanted = "two" if now == "one" else "one"
            killed(home, tmp_path / f"{wanted}.backup", after_s=chosen.uniform(0.3, 1.1) * took)
            assert word_of(home) in (now, wanted)
        done = cli("restore", str(tmp_path / "two.backup"), home=home)
        assert done.returncode == 0, done
        assert word_of(home) == "two"
        assert swapping.left_behind(home.path) == []
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    @pytest.mark.parametrize("moment", ["before the exchange", "after the exchange", "between two renames"])
    def test_what_is_left_is_told_and_put_right(self, good: Path, tmp_path: Path, moment: str) -> None:
        home = small_home(tmp_path / "home", "two")
        open_backup(good, tmp_path / "home.restore-7", silent)
        swapping.mark(tmp_path / "home.restore-7", "7", {})
        if moment == "after the exchange":
            assert swapping.exchange(tmp_path / "home.restore-7", home.path)
        elif moment == "between two renames":
            home.path.rename(tmp_path / "home.before-7")
        assert swapping.left_behind(home.path)
        said = swapping.go_on(home.path) or ""
        assert swapping.left_behind(home.path) == []
        assert swapping.go_on(home.path) is None
        new = json.loads(home.config_file.read_text())["jwt"] == "one"
        assert new == (moment != "before the exchange")
        assert {"before the exchange": "before it changed anything", "after the exchange": "had been done"}.get(
            moment, "was completed"
        ) in said
        assert (tmp_path / "home.before-7").exists() == new

    def test_where_folders_cannot_be_exchanged_two_steps_do(self, good: Path, tmp_path: Path) -> None:
        program = (
            "import ctypes, sys\nfrom pathlib import Path\nfrom jupyter_agent.agent.backup import swapping\n"
            "class Old:\n    pass\nctypes.CDLL = lambda *_a, **_k: Old()\n"
            "print(swapping.put_in_place(Path(sys.argv[1]), Path(sys.argv[2]), 'id'))\n"
        )
        home = small_home(tmp_path / "home", "two")
        open_backup(good, tmp_path / "new", silent)
        swapping.mark(tmp_path / "new", "id", {})
        command = [sys.executable, "-c", program, str(tmp_path / "new"), str(home.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(tmp_path / "home.before-id")
        assert (read_json(home.config_file) or {})["jwt"] == "one"
        assert json.loads((tmp_path / "home.before-id" / "config.json").read_text())["jwt"] == "two"

    def test_a_backup_that_was_killed_leaves_nothing_that_stays(self, tmp_path: Path) -> None:
        home = small_home(tmp_path / "home", "one")
        (home.runs / "2026-01").mkdir(exist_ok=True)
        (home.logs / "big.log").write_bytes(os.urandom(30 << 20))
        target = tmp_path / "x.backup"
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter_agent.agent", "backup", "--home", str(home.path), str(target)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(lambda: list(tmp_path.glob(".hub-transfer-*/finished")), what="it is being packed")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not target.exists()
        backed_up(home, target)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "x.backup"]
        assert not [path for path in home.path.iterdir() if path.name.startswith(".")]

    def test_two_at_once(self, good: Path, two: Home) -> None:
        descriptor = os.open(two.path.parent, os.O_RDONLY)
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with pytest.raises(Conflict, match="Another restore is under way"):
                brought_back(two, good)
        finally:
            os.close(descriptor)


def killed(home: Home, source: Path, *, after_s: float) -> None:
    """Restore, and be killed so long after the beginning, unless it is done by then."""
    command = [sys.executable, "-m", "jupyter_agent.agent", "restore", "--home", str(home.path), str(source)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after_s)
    process.kill()
    process.wait()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    with small_file_system(tmp_path / "small", "size=30m") as folder:
        yield folder


def test_on_a_full_disk_nothing_is_lost_and_nothing_is_left(small_disk: Path, tmp_path: Path) -> None:
    home = small_home(tmp_path / "home", "one")
    (home.logs / "big.log").write_bytes(os.urandom(40 << 20))
    with pytest.raises(AgentError, match="is full: free some space"):
        backed_up(home, small_disk / "x.backup")
    assert list(small_disk.iterdir()) == []
    backed_up(home, tmp_path / "x.backup")
    there = small_home(small_disk / "home", "two")
    with pytest.raises(AgentError, match="free some space"):
        brought_back(there, tmp_path / "x.backup")
    assert word_of(there) == "two"
    assert [path.name for path in small_disk.iterdir()] == ["home"]
    (small_disk / "version").write_text("1\n")
    with pytest.raises(InvalidInput, match="where a file system is mounted"):
        brought_back(Home(small_disk), tmp_path / "x.backup")


def test_the_command_says_what_it_holds(tmp_path: Path, home: Home) -> None:
    small_home(home.path, "one")
    done = cli("backup", str(tmp_path / "x.backup"), home=home)
    assert "tokens and passwords" in done.stdout
    assert not (home.path / "agent.json").exists()


def test_where_only_ascii_can_be_printed(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    odd = small_home(home.path.parent / "h\u00e4user", "one")
    (odd.logs / "\u00fcp").symlink_to("/")
    done = cli("backup", "--json", str(tmp_path / "\u00e4.backup"), home=odd)
    assert json.loads(done.stdout)["path"] == str(tmp_path / "\u00e4.backup")
    assert "leads out of its folder" in done.stderr
    assert "\u00fcp" in json.loads(done.stdout)["left_out"][0]
    assert cli("restore", str(tmp_path / "\u00e4.backup"), home=odd).returncode == 0
