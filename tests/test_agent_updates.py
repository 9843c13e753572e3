"""Packages that change in OpenFlow while an agent has them: a real agent, a real hub, packages published for real."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.agent.agent import Agent
from jupyter_agent.home import AgentClient, Home, RequestFailed, read_json
from jupyter_agent.openflow.client import Client
from tests.agent_peers import first_user
from tests.conftest import cli, end_all, ended, make_package, pid_in, printed, start_agent, until


@contextmanager
def running(settings: str, **environment: str) -> Iterator[tuple[Home, AgentClient]]:
    """An agent on a home of its own with these settings."""
    folder = Path(tempfile.mkdtemp(prefix="ja-"))
    (folder / "config").mkdir()
    (folder / "config/jupyter_agent_config.py").write_text(settings)
    wanted = {"JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_AGENT_HOME": str(folder / "home"), **environment}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("apiurl", "grpcapiurl", "wsapiurl", "jwt", "agentid"):
            patch.delenv(name, raising=False)
        for name, value in wanted.items():
            patch.setenv(name, value)
        home = Home(folder / "home")
        try:
            yield home, start_agent(home)
        finally:
            end_all(home)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def draining() -> Iterator[tuple[Home, AgentClient]]:
    with running("") as made:
        yield made


@pytest.fixture(scope="module")
def killing() -> Iterator[tuple[Home, AgentClient]]:
    """As in a container: the server's own variable says what is to be done. One run at a time, small packages only."""
    settings = "c.Agent.max_runs = 1\nc.Agent.max_package_files = 50\nc.Agent.max_package_mb = 3\n"
    with running(settings, killonpackageupdate="true") as made:
        yield made


class Package:
    """A package of shell scripts that is published again and again."""

    def __init__(self, agent: AgentClient, home: Home, folder: Path) -> None:
        self.agent, self.home, self.folder = agent, home, folder
        self.go_on = folder.parent / f"{folder.name}.go"
        self.id = self.fileid = ""

    def publish(self, text: str, *, waits: bool = False) -> str:
        """Publish a version that prints its text, and may wait to be let go; the id of its archive."""
        waiting = f"while [ ! -e '{self.go_on}' ]; do sleep 0.05; done\n" if waits else ""
        make_package(self.folder, {"main.sh": f"echo {text}\n{waiting}"}, openiap={"language": "shell"})
        found = self.agent.request("POST", "packages", {"path": str(self.folder)})
        self.id, self.fileid = found["id"], found["fileid"]
        return self.fileid

    def start(self) -> str:
        run: str = self.agent.request("POST", f"packages/{self.id}/runs", {})["id"]
        return run

    def started(self) -> str:
        """A run that has printed its text, and waits."""
        run = self.start()
        until(lambda: printed(self.agent, run), what="the run prints")
        return run

    def run(self) -> str:
        """What a run of it prints, to its end."""
        run = self.start()
        found = ended(self.agent, run)
        assert found["state"] == "succeeded", found["error"]
        return printed(self.agent, run).strip()

    def has(self, *fileids: str) -> bool:
        """Whether these are the versions of it that are here."""
        here = {
            path.stem
            for path in self.home.packages.glob("[!.]*.json")
            if (read_json(path) or {}).get("package") == self.id and (self.home.packages / path.stem).is_dir()
        }
        return here == set(fileids)

    def until_it_has(self, *fileids: str) -> None:
        until(lambda: self.has(*fileids), what=f"of {self.folder.name} there is {fileids}")


@pytest.fixture
def package(draining: tuple[Home, AgentClient], tmp_path: Path) -> Package:
    home, agent = draining
    return Package(agent, home, tmp_path / f"p{os.urandom(4).hex()}")


@pytest.fixture
def killed(killing: tuple[Home, AgentClient], tmp_path: Path) -> Package:
    home, agent = killing
    return Package(agent, home, tmp_path / f"p{os.urandom(4).hex()}")


@pytest.fixture
async def client(draining: tuple[Home, AgentClient]) -> AsyncIterator[Client]:
    """The hub's owner, beside the agent."""
    home, agent = draining
    url = agent.request("GET", "status")["hub"]["apiurl"]
    async with Client(url, first_user(home), version="1", requests_per_s=None) as entered:
        await entered.connected(30)
        yield entered


def test_a_new_version_is_fetched_before_anybody_runs_it_and_the_old_one_goes(package: Package) -> None:
    first = package.publish("one")
    assert package.run() == "one"
    package.until_it_has(first)
    package.until_it_has(package.publish("two"))
    assert package.run() == "two"


def test_of_packages_that_never_ran_here_nothing_is_fetched(package: Package) -> None:
    known = Package(package.agent, package.home, package.folder.with_name("known"))
    known.publish("one")
    known.run()
    package.publish("one")
    package.publish("two")
    known.until_it_has(known.publish("two"))  # what came before was looked at by then
    assert package.has()


async def test_changes_in_every_form_and_however_quick_are_followed(package: Package, client: Client) -> None:
    await asyncio.to_thread(package.publish, "one")
    await asyncio.to_thread(package.run)
    archives = []
    for text in ("two", "three", "four"):
        make_package(package.folder, {"main.sh": f"echo {text}\n"}, openiap={"language": "shell"})
        packed = package.folder.parent / f"{text}.tgz"
        await asyncio.to_thread(pack_to, package.folder, packed)
        archives.append(await client.upload(packed))
    for fileid in archives:  # as an operator does, which is an event of another kind
        await client.update_document("agents", {"_id": package.id}, {"$set": {"fileid": fileid}})
    await asyncio.to_thread(package.until_it_has, archives[-1])
    assert await asyncio.to_thread(package.run) == "four"
    [document] = await client.query("agents", {"_id": package.id})
    for fileid in reversed(archives):
        await client.update_one("agents", {**document, "fileid": fileid})
    await asyncio.to_thread(package.until_it_has, archives[0])
    assert await asyncio.to_thread(package.run) == "two"


def pack_to(folder: Path, target: Path) -> None:
    from jupyter_agent.packages import pack

    pack(folder, target)


def test_a_run_goes_on_with_its_own_version_which_stays_as_long(package: Package) -> None:
    first = package.publish("one", waits=True)
    run = package.started()
    second = package.publish("two")
    package.until_it_has(first, second)
    assert package.run() == "two"
    assert package.has(first, second)
    package.go_on.touch()
    assert ended(package.agent, run)["state"] == "succeeded"
    package.until_it_has(second)


def test_published_again_and_again_while_runs_start_each_has_one_version_whole(package: Package) -> None:
    files = ("one.txt", "two.txt", "three.txt")

    def publish(number: int) -> None:
        contents = {"main.sh": f"cat {' '.join(files)}\n", **dict.fromkeys(files, f"{number} " + "x" * 50_000 + "\n")}
        make_package(package.folder, contents, openiap={"language": "shell"})
        package.id = package.agent.request("POST", "packages", {"path": str(package.folder)})["id"]

    def publish_all() -> None:
        for number in range(1, 9):
            publish(number)

    publish(0)
    with ThreadPoolExecutor(4) as pool:
        publishing = pool.submit(publish_all)
        runs = []
        while not publishing.done():
            runs += list(pool.map(lambda _: package.start(), range(3)))
        publishing.result()
    for run in runs:
        found = ended(package.agent, run)
        assert found["state"] == "succeeded", found["error"]
        assert len({line.split()[0] for line in printed(package.agent, run).splitlines()}) == 1
    assert len(runs) > 3


def test_a_package_that_is_removed_is_removed_here(package: Package) -> None:
    first = package.publish("one", waits=True)
    run = package.started()
    package.agent.request("DELETE", f"packages/{package.id}")
    package.go_on.touch()
    assert ended(package.agent, run)["state"] == "succeeded"
    until(lambda: not (package.home.packages / first).exists(), what="its files are removed")


def test_where_it_is_set_so_runs_of_the_old_version_are_ended(killed: Package) -> None:
    killed.publish("one", waits=True)
    run, waiting = killed.started(), killed.start()
    second = killed.publish("two")
    found = ended(killed.agent, run)
    assert found["state"] == "cancelled"
    assert found["error"] == "The run was cancelled by the update of its package (Agent.on_package_update)."
    assert ended(killed.agent, waiting)["state"] == "succeeded"  # it had not begun, and took the new version
    assert printed(killed.agent, waiting).strip() == "two"
    killed.until_it_has(second)
    assert killed.run() == "two"


def test_where_it_is_set_so_runs_of_a_removed_package_are_ended(killed: Package) -> None:
    killed.publish("one", waits=True)
    run = killed.started()
    killed.agent.request("DELETE", f"packages/{killed.id}")
    assert ended(killed.agent, run)["error"].startswith("The run was cancelled by the removal of its package")


async def test_a_version_that_nobody_can_use_ends_no_run(killed: Package, killing: tuple[Home, AgentClient]) -> None:
    home, agent = killing
    await asyncio.to_thread(killed.publish, "one", waits=True)
    run = await asyncio.to_thread(killed.started)
    broken = killed.folder.parent / "broken.tgz"
    broken.write_bytes(b"no archive")
    url = agent.request("GET", "status")["hub"]["apiurl"]
    async with Client(url, first_user(home), version="1", requests_per_s=None) as client:
        fileid = await client.upload(broken)
        await client.update_document("agents", {"_id": killed.id}, {"$set": {"fileid": fileid}})
        log = home.logs / "agent.log"
        await asyncio.to_thread(
            until, lambda: "cannot be used: broken.tgz is not a readable archive" in log.read_text()
        )
    killed.go_on.touch()
    assert (await asyncio.to_thread(ended, agent, run))["state"] == "succeeded"
    found = await asyncio.to_thread(lambda: ended(agent, killed.start()))
    assert (found["state"], found["error"]) == (
        "failed",
        "broken.tgz is not a readable archive: it is neither a gzipped tar (.tgz) nor a zip.",
    )


async def test_what_happened_while_the_agent_was_away_is_found_and_told(
    package: Package, client: Client, draining: tuple[Home, AgentClient]
) -> None:
    home, agent = draining
    gone = Package(agent, home, package.folder.with_name("gone"))
    for each in (package, gone):
        await asyncio.to_thread(each.publish, "one")
        await asyncio.to_thread(each.run)
    heard = Heard(agent)
    pid = pid_in(home.agent_file)
    assert pid
    os.kill(pid, signal.SIGSTOP)  # it cannot come back before everything has happened
    try:
        [connection] = [
            c for c in await client.custom_command("getclients") if c["agent"] == "jupyter_agent" and c["queues"]
        ]
        await client.custom_command("killwebsocketclient", id=connection["id"])
        packed = package.folder.parent / "two.tgz"
        make_package(package.folder, {"main.sh": "echo two\n"}, openiap={"language": "shell"})
        await asyncio.to_thread(pack_to, package.folder, packed)
        fileid = await client.upload(packed)
        await client.update_document("agents", {"_id": package.id}, {"$set": {"fileid": fileid}})
        await client.delete_package(gone.id)
    finally:
        os.kill(pid, signal.SIGCONT)
    await asyncio.to_thread(package.until_it_has, fileid)
    await asyncio.to_thread(gone.until_it_has)
    await asyncio.to_thread(until, lambda: {(package.id, "replace"), (gone.id, "delete")} <= heard.packages)


class Heard:
    """What the agent tells its faces of packages."""

    def __init__(self, agent: AgentClient) -> None:
        self.packages: set[tuple[str, str]] = set()
        self._lines = agent.lines("events")
        next(self._lines)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for line in self._lines:
                if line.get("event") == "package":
                    self.packages.add((line["id"], line["operation"]))
        except Exception:  # noqa: BLE001, S110 - the agent ended
            pass


def test_an_agent_that_starts_brings_what_it_has_up_to_date() -> None:
    with running("") as (home, agent):
        package = Package(agent, home, home.path.parent / "p")
        known = Package(agent, home, home.path.parent / "known")
        first, same = package.publish("one"), known.publish("same")
        package.run()
        known.run()
        agent.request("POST", "shutdown", {})
        until(lambda: pid_in(home.agent_file) is None, what="the agent ends")
        half, nobodys = home.packages / ".half", home.packages / "5f0123456789abcdef012345"
        half.mkdir()
        nobodys.mkdir()
        (home.packages / f"{same}.json").unlink()  # as an earlier release left it
        url = (read_json(home.hub / "hub.json") or {})["apiurl"]
        second = asyncio.run(republished(url, home, package))
        package.agent = start_agent(home)
        package.until_it_has(second)
        for path in (home.packages / first, half, nobodys):
            until(lambda path=path: not path.exists(), what=f"{path} goes")  # type: ignore[misc]
        assert (home.packages / same).is_dir()
        known.agent = package.agent
        assert known.run() == "same"
        assert known.has(same)


async def republished(url: str, home: Home, package: Package) -> str:
    from jupyter_agent.packages import publish

    make_package(package.folder, {"main.sh": "echo two\n"}, openiap={"language": "shell"})
    async with Client(url, first_user(home), version="1", requests_per_s=None) as client:
        return (await publish(client, package.folder, who="ann")).fileid


def test_who_is_asked_what_becomes_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(**settings: Any) -> str:
        nothing: Any = lambda *_: None  # noqa: E731
        made = Agent(Home(Path("/nowhere")), on_status=nothing, on_run=nothing, on_package=nothing, **settings)
        return str(made.on_package_update)

    monkeypatch.delenv("killonpackageupdate", raising=False)
    assert chosen() == "drain"
    monkeypatch.setenv("killonpackageupdate", "true")
    assert chosen() == "kill"
    assert chosen(on_package_update="drain") == "drain"
    monkeypatch.setenv("killonpackageupdate", "false")
    assert chosen() == "drain"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({f"{number}.txt": "" for number in range(60)}, "holds more than 50 files"),
        ({"large.txt": "x" * (4 << 20)}, "holds more than 3 MiB"),
    ],
)
def test_the_limits_of_packages_are_the_settings(killed: Package, files: dict[str, str], sentence: str) -> None:
    folder = make_package(killed.folder, {"main.sh": "true\n", **files}, openiap={"language": "shell"})
    for path, body in (("packages", {"path": str(folder)}), ("runs", {"target": str(folder)})):
        try:
            told = ended(killed.agent, killed.agent.request("POST", path, body)["id"])["error"]
        except RequestFailed as error:
            told = str(error)
        assert sentence in told


# What the faces offer


def test_a_package_is_prepared_without_being_run(package: Package) -> None:
    fileid = package.publish("one")
    run = package.agent.request("POST", f"packages/{package.id}/prepare", {})
    assert run["kind"] == "prepare"
    found = ended(package.agent, run["id"])
    assert found["state"] == "succeeded", found["error"]
    assert printed(package.agent, run["id"]) == ""
    package.until_it_has(fileid)


def test_a_package_is_installed_anew_and_its_runs_are_ended(package: Package) -> None:
    fileid = package.publish("one", waits=True)
    run = package.started()
    (package.home.packages / fileid / "main.sh").write_text("echo spoiled\n")
    assert package.agent.request("POST", f"packages/{package.id}/reinstall", {}) == {"cancelled": 1}
    found = package.agent.request("GET", f"runs/{run}")
    assert (found["state"], found["error"].endswith("for the package to be installed anew.")) == ("cancelled", True)
    assert package.has()
    package.go_on.touch()
    assert package.run() == "one"


def test_packages_are_prepared_and_installed_anew_from_the_command_line(package: Package) -> None:
    fileid = package.publish("one")
    done = cli("package", "prepare", package.folder.name, "--json", home=package.home)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["kind"], told["state"]) == ("prepare", "succeeded")
    assert package.has(fileid)
    done = cli("package", "reinstall", package.id, home=package.home)
    assert (done.returncode, done.stdout) == (
        0,
        f"{package.id} is fetched and prepared anew at its next run (0 runs of it ended).\n",
    )
    assert package.has()
    for command in ("prepare", "reinstall", "remove"):
        done = cli("package", command, "no-such-package", home=package.home)
        assert done.returncode == 1
        assert "There is no package 'no-such-package' on OpenFlow" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_name_that_several_packages_have_is_not_removed(package: Package) -> None:
    package.publish("one")
    url = package.agent.request("GET", "status")["hub"]["apiurl"]
    twin = asyncio.run(twin_of(url, package))
    done = cli("package", "remove", package.folder.name, home=package.home)
    assert done.returncode == 1
    assert f"There are several packages named {package.folder.name}" in done.stderr
    for wanted in (package.id, twin):
        done = cli("package", "remove", wanted, "--json", home=package.home)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["removed"] is True
    assert cli("package", "remove", package.folder.name, home=package.home).returncode == 1


async def twin_of(url: str, package: Package) -> str:
    async with Client(url, first_user(package.home), version="1", requests_per_s=None) as client:
        [document] = await client.query("agents", {"_id": package.id})
        mine = {key: value for key, value in document.items() if not key.startswith("_")}
        twin: str = (await client.insert_one("agents", {**mine, "_type": "package", "fileid": ""}))["_id"]
        return twin


async def test_thousands_of_packages_are_listed(client: Client, draining: tuple[Home, AgentClient]) -> None:
    made = [{"_type": "package", "id": f"many{n}", "name": "many", "fileid": ""} for n in range(2100)]
    await client.insert_many("agents", made)
    found = await asyncio.to_thread(draining[1].request, "GET", "packages")
    assert len({entry["id"] for entry in found if entry["name"] == "many"}) == 2100
    await client.delete_many("agents", {"name": "many"})
