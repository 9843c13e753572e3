"""The known defects of the two official predecessors, by their numbers: none of them is possible here.

1 to 45 are the agent's, J1 to J16 the Jupyter agent package's. Each has a test of its number, against a real agent and
its hub, or its line in ``ELSEWHERE``. What concerns parts that are not there yet is in ``LATER``.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import socket
import stat
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_agent.errors import AgentError, Failed, ServerRefused, Unavailable
from jupyter_agent.home import AgentClient, Home, RequestFailed, read_json
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.state import new_run_id
from tests.agent_peers import Caller, connected, first_user
from tests.certificates import identity
from tests.conftest import cli, end_all, ended, make_package, pid_in, printed, start_agent, until
from tests.hub_peers import hub_on_a_new_home

LATER = {
    "5": "work items: an item whose result could not be sent",
    "6": "work items: a package that cannot be fetched for one",
    "7": "work items: a retry's error",
    "21": "daemons and their restarts",
    "38": "services of the operating system",
    "J1": "synchronised files",
    "J2": "synchronised files",
    "J3": "synchronised files",
    "J4": "synchronised notebooks",
    "J6": "labs behind the proxy",
}
"""Numbers that concern what is not there yet."""

ELSEWHERE = {
    "J7": "there is no git server, no host and no token in the sources to begin with",
    "J13": "no extension of JupyterLab is switched off or on by us",
    "J15": "every test in this file talks to it as to an OpenFlow agent",
    "J16": "the page's tests use it inside JupyterLab, with Jupyter's users and rights",
}
"""Numbers that cannot apply."""

SECRETS = {"NPM_TOKEN": "npm-secret-1", "oidc_client_secret": "oidc-secret-2", "AWS_SECRET_ACCESS_KEY": "aws-secret-3"}

SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(600)\n"


@dataclass(frozen=True)
class Land:
    """An agent and its hub."""

    home: Home
    agent: AgentClient
    recorded: Path

    def publish(self, folder: Path, program: str, files: dict[str, str] | None = None, **manifest: Any) -> str:
        about = {"openiap": {"language": "python"}, "main": "main.py", **manifest}
        make_package(folder, {about["main"]: program, **(files or {})}, **about)
        return str(self.agent.request("POST", "packages", {"path": str(folder)})["id"])

    def start(self, package: str, **body: Any) -> str:
        return str(self.agent.request("POST", f"packages/{package}/runs", body)["id"])

    def run(self, package: str, **body: Any) -> dict[str, Any]:
        return ended(self.agent, self.start(package, **body))

    def says(self, run: str, text: str) -> None:
        until(lambda: text in printed(self.agent, run), what=f"{run} says {text}")

    def facts(self, package: str, **body: Any) -> Any:
        """The JSON that a program has printed."""
        run = self.run(package, **body)
        assert run["state"] == "succeeded", run["error"]
        return json.loads(printed(self.agent, run["id"]).splitlines()[-1])

    @property
    def queue(self) -> str:
        return str(self.agent.request("GET", "status")["queue"])

    @property
    def document(self) -> dict[str, Any]:
        return {"slug": self.agent.request("GET", "status")["slug"]}


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Land]:
    tools, recorded = tmp_path_factory.mktemp("tools"), tmp_path_factory.mktemp("recorded") / "xvfb"
    (tools / "xvfb-run").write_text(f'#!/bin/sh\necho "$@" >> {recorded}\nshift\nexec "$@"\n')
    (tools / "xvfb-run").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("apiurl", "grpcapiurl", "wsapiurl", "jwt", "agentid"):
            patch.delenv(name, raising=False)
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        patch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        home = Home(tmp_path_factory.mktemp("p") / "home")
        yield Land(home, start_agent(home), recorded)
        end_all(home)


@pytest.fixture
async def caller(land: Land) -> AsyncIterator[Caller]:
    async with connected(land.agent.request("GET", "status")["hub"]["apiurl"], first_user(land.home)) as made:
        yield made


def test_every_number_has_its_place() -> None:
    wanted = {str(n) for n in range(1, 46)} | {f"J{n}" for n in range(1, 17)}
    tested = {name.upper() for test in globals() if (m := re.match(r"test_(j?\d+(?:_j?\d+)*)_[a-z]", test))
              for name in m[1].split("_")}  # fmt: skip
    assert sorted(wanted - tested - set(LATER) - set(ELSEWHERE)) == []
    assert tested & (set(LATER) | set(ELSEWHERE)) == set()


# Wrong results and lost data


def test_1_17_a_signal_is_no_success_and_needs_no_waiting(land: Land, tmp_path: Path) -> None:
    package = land.publish(tmp_path / "p1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    run = land.run(package)
    assert (run["state"], run["signal"]) == ("killed", "SIGKILL")
    assert land.agent.request("POST", f"runs/{run['id']}/cancel", {})["state"] == "killed"


def test_2_j10_an_error_while_preparing_is_no_success(land: Land, tmp_path: Path) -> None:
    package = land.publish(tmp_path / "p2", "print('ran')\n", {"requirements.txt": "no-such-package-of-ours==9\n"})
    run = land.run(package)
    assert run["state"] == "failed"
    assert "no-such-package-of-ours" in run["error"] + printed(land.agent, run["id"], None)
    assert "ran" not in printed(land.agent, run["id"])


def test_3_results_are_where_the_package_writes_them(land: Land, tmp_path: Path) -> None:
    package = land.publish(tmp_path / "p3", "open('result.txt', 'w').write('42')\n")
    run = land.run(package)
    assert [artifact["name"] for artifact in run["artifacts"]] == ["result.txt"]
    land.agent.save(f"runs/{run['id']}/artifacts/result.txt", tmp_path / "got")
    assert (tmp_path / "got").read_text() == "42"


TOGETHER = """
import os, time
name = os.environ["name"]
open(name, "w").close()
print("written", flush=True)
while not os.path.exists(os.environ["go"]):
    time.sleep(0.02)
print("sees", sorted(f for f in os.listdir() if len(f) == 1))
"""


def test_4_runs_at_the_same_time_see_nothing_of_one_another(land: Land, tmp_path: Path) -> None:
    package = land.publish(tmp_path / "p4", TOGETHER)
    runs = [land.start(package, parameters={"name": name, "go": str(tmp_path / "go")}) for name in "ab"]
    for run in runs:
        land.says(run, "written")
    (tmp_path / "go").touch()
    for run, name in zip(runs, "ab", strict=True):
        assert ended(land.agent, run)["state"] == "succeeded"
        assert f"sees ['{name}']" in printed(land.agent, run)
    assert "sees ['c']" in printed(land.agent, land.run(package, parameters={"name": "c", "go": str(tmp_path)})["id"])


async def test_8_the_newest_output_is_kept(land: Land, caller: Caller, tmp_path: Path) -> None:
    program = "for n in range(200_000):\n    print('line', n, 'x' * 40)\nraise ValueError('what is wrong')\n"
    package = await asyncio.to_thread(land.publish, tmp_path / "p8", program)
    await caller.send(land.queue, {"command": "runpackage", "id": package, "stream": "false"}, correlation_id="8")
    run = await asyncio.to_thread(lambda: ended(land.agent, only_run(land, package)))
    assert run["state"] == "failed"
    text = await asyncio.to_thread(printed, land.agent, run["id"], None)
    assert text.startswith("line 0 ")
    assert "line 199999 " in text
    assert text.rstrip().endswith("ValueError: what is wrong")
    assert "what is wrong" in run["error"]


def only_run(land: Land, package: str) -> str:
    """The id of the one run that the package has."""
    (run,) = until(lambda: land.agent.request("GET", f"runs?package={package}")["runs"])
    return str(run["id"])


def test_9_a_failed_installation_is_never_taken_for_one(land: Land, tmp_path: Path) -> None:
    broken = {"requirements.txt": "no-such-package-of-ours==9\n"}
    package = land.publish(tmp_path / "p9", "import six\nprint(six.__version__)\n", broken)
    assert [land.run(package)["state"] for _ in range(2)] == ["failed", "failed"]
    land.publish(tmp_path / "p9", "import six\nprint(six.__version__)\n", {"requirements.txt": "six==1.16.0\n"})
    run = land.run(package)
    assert (run["state"], printed(land.agent, run["id"]).strip()) == ("succeeded", "1.16.0")


async def test_10_a_broken_archive_is_told_and_leaves_nothing(land: Land, caller: Caller, tmp_path: Path) -> None:
    archive = tar(tmp_path / "whole.tgz", {"package/main.py": os.urandom(200_000)})
    (tmp_path / "half.tgz").write_bytes(archive.read_bytes()[:100_000])
    package, fileid = await uploaded(caller, tmp_path / "half.tgz", "p10")
    run = await asyncio.to_thread(land.run, package)
    assert run["state"] == "failed"
    assert "half.tgz" in run["error"]
    assert not (land.home.packages / fileid).exists()


async def test_11_every_name_of_an_archive_is_recognised(land: Land, caller: Caller, tmp_path: Path) -> None:
    for name in ("p.tar.gz", "p.tgz", "p"):
        archive = tar(tmp_path / name, {"main.py": f"print('from {name}')\n".encode()})
        package, _ = await uploaded(caller, archive, name)
        run = await asyncio.to_thread(land.run, package)
        assert f"from {name}" in await asyncio.to_thread(printed, land.agent, run["id"]), run["error"]


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            (source := path.parent / "content").write_bytes(content)
            archive.add(source, name)
    return path


async def uploaded(caller: Caller, archive: Path, name: str) -> tuple[str, str]:
    """A package made by another program: its document's id, its archive's."""
    fileid = await caller.client.upload(archive)
    document = {"_type": "package", "name": name, "id": name, "language": "python", "main": "main.py", "fileid": fileid}
    return str((await caller.client.insert_one("agents", document))["_id"]), fileid


def test_12_a_new_main_counts_at_once(land: Land, tmp_path: Path) -> None:
    package = land.publish(tmp_path / "p12", "print('first')\n")
    assert "first" in printed(land.agent, land.run(package)["id"])
    land.publish(tmp_path / "p12", "print('second')\n", main="other.py")
    assert "second" in printed(land.agent, land.run(package)["id"])


def test_13_a_run_has_the_files_of_one_version(land: Land, tmp_path: Path) -> None:
    program = "a, b = open('a').read(), open('b').read()\nassert a == b, (a, b)\n"
    runs = []
    for version in range(4):
        package = land.publish(tmp_path / "p13", program, {"a": f"{version}", "b": f"{version}"})
        runs += [land.start(package) for _ in range(3)]
    assert {ended(land.agent, run)["state"] for run in runs} == {"succeeded"}


async def test_14_39_changes_of_the_agents_document_count_and_go_again(
    land: Land, caller: Caller, tmp_path: Path
) -> None:
    program = "import json, os\nprint(json.dumps([os.environ.get('GREETING'), os.environ['PATH'] == '/evil']))\n"
    package = await asyncio.to_thread(land.publish, tmp_path / "p14", program)

    async def greeting_is(wanted: str | None) -> None:
        facts: Any = None
        for _ in range(20):
            facts = await asyncio.to_thread(land.facts, package)
            if facts == [wanted, False]:
                return
        raise AssertionError(facts)

    for greeting in ("one", "two", "three"):  # the last of several quick changes counts
        variables = {"GREETING": greeting, "PATH": "/evil"}
        await caller.client.update_document("agents", land.document, {"$set": {"environment": variables}})
    await greeting_is("three")
    await caller.client.update_document("agents", land.document, {"$unset": {"environment": ""}})
    await greeting_is(None)


async def test_15_a_package_changed_by_an_update_operator_is_new(land: Land, caller: Caller, tmp_path: Path) -> None:
    package, _ = await uploaded(caller, tar(tmp_path / "a.tgz", {"main.py": b"print('first')\n"}), "p15")
    assert "first" in printed(land.agent, (await asyncio.to_thread(land.run, package))["id"])
    fileid = await caller.client.upload(tar(tmp_path / "b.tgz", {"main.py": b"print('second')\n"}))
    await caller.client.update_document("agents", {"_id": package}, {"$set": {"fileid": fileid}})
    assert "second" in printed(land.agent, (await asyncio.to_thread(land.run, package))["id"])


# Process control

POLITE = """
import subprocess, sys, textwrap
child = '''
import signal, sys, time
def bye(*_):
    print("the child says goodbye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
print("up", flush=True)
time.sleep(600)
'''
sys.exit(subprocess.call([sys.executable, "-c", child]))
"""


def test_16_children_are_asked_before_they_are_killed(land: Land, tmp_path: Path) -> None:
    run = land.start(land.publish(tmp_path / "p16", POLITE))
    land.says(run, "up")
    land.agent.request("POST", f"runs/{run}/cancel", {})
    assert ended(land.agent, run)["state"] == "cancelled"
    assert "the child says goodbye" in printed(land.agent, run)


DETACHING = """
import os, subprocess, sys
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("grandchild", grandchild.pid, "up", flush=True)
import time; time.sleep(600)
"""


def test_18_grandchildren_that_left_the_group_end_with_the_run(land: Land, tmp_path: Path) -> None:
    run = land.start(land.publish(tmp_path / "p18", DETACHING))
    land.says(run, "up")
    pid = int(printed(land.agent, run).split()[1])
    assert psutil.pid_exists(pid)
    land.agent.request("POST", f"runs/{run}/cancel", {})
    ended(land.agent, run)
    until(lambda: not alive(pid), what="the grandchild is gone")


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def test_19_killall_ends_all_and_counts(land: Land, caller: Caller, tmp_path: Path) -> None:
    package = await asyncio.to_thread(land.publish, tmp_path / "p19", SLEEP)
    runs = [await asyncio.to_thread(land.start, package) for _ in range(2)]
    for run in runs:
        await asyncio.to_thread(land.says, run, "up")
    await caller.send(land.queue, {"command": "killall"}, correlation_id="19")
    answer = await caller.until("killall")
    assert (answer["success"], answer["count"]) == (True, 2)
    for run in runs:
        assert (await asyncio.to_thread(ended, land.agent, run))["state"] == "cancelled"


@pytest.mark.parametrize(("content", "mode"), [("#!/no/such/interpreter\n", 0o755), ("print('x')\n", 0o644)])
def test_20_what_cannot_be_started_fails_and_the_agent_lives(
    land: Land, tmp_path: Path, content: str, mode: int
) -> None:
    folder = make_package(tmp_path / "p20", {"program": content}, main="program", openiap={"language": "exec"})
    (folder / "program").chmod(mode)
    package = land.agent.request("POST", "packages", {"path": str(folder)})["id"]
    run = land.run(package)
    assert run["state"] == "failed"
    assert "program" in run["error"]
    assert land.agent.request("GET", "status")["connected"]


def test_22_time_and_memory_have_limits(land: Land, tmp_path: Path) -> None:
    assert land.run(land.publish(tmp_path / "p22", SLEEP), timeout_s=0.5)["state"] == "timed_out"
    eater = "import time\nheld = []\nwhile True:\n    held.append(bytearray(8 << 20)); time.sleep(0.01)\n"
    run = land.run(land.publish(tmp_path / "p22m", eater), memory_mb=150)
    assert (run["state"], "150 MiB" in run["error"]) == ("killed", True)


def test_23_dependencies_are_linked_not_copied(land: Land, tmp_path: Path) -> None:
    program = (
        "const fs = require('fs'); require('is-number');\n"
        "console.log(JSON.stringify([fs.realpathSync('node_modules/is-number'), process.cwd()]));\n"
    )
    manifest = {"openiap": {"language": "nodejs"}, "dependencies": {"is-number": "7.0.0"}}
    package = land.publish(tmp_path / "p23", program, main="main.js", **manifest)
    modules, cwd = land.facts(package)
    assert Path(modules).is_relative_to(land.home.preparations)
    assert not Path(cwd).exists(), "the run's own copy is gone"
    assert Path(modules).is_dir(), "what was installed stays for the next one"


def test_24_an_environment_is_made_once_wherever_it_lies(land: Land, channel: Path, tmp_path: Path) -> None:
    program = "import json, sys\nprint(json.dumps(sys.prefix))\n"
    asked = f"channels: [{channel.as_uri()}]\ndependencies: [python]\n"
    package = land.publish(tmp_path / "p24", program, {"environment.yml": asked})
    prefix = Path(land.facts(package))
    assert prefix.is_relative_to(land.home.environments)
    marks = {path: path.stat().st_mtime_ns for path in (prefix, prefix / "conda-meta", prefix / "bin" / "python")}
    for _ in range(2):
        run = land.run(package)
        assert json.loads(printed(land.agent, run["id"]).splitlines()[-1]) == str(prefix)
        assert "solve" not in printed(land.agent, run["id"], "agent")
    assert {path: path.stat().st_mtime_ns for path in marks} == marks


def test_25_a_package_has_an_environment_of_its_own(land: Land, tmp_path: Path) -> None:
    program = "import json, sys, six\nprint(json.dumps([sys.prefix, six.__version__]))\n"
    for version in ("1.16.0", "1.15.0"):
        package = land.publish(tmp_path / f"p25-{version}", program, {"requirements.txt": f"six=={version}\n"})
        prefix, found = land.facts(package)
        assert found == version
        assert Path(prefix).is_relative_to(land.home.environments)
        assert prefix != sys.prefix


async def test_26_a_test_run_ends_when_it_was_told_to(land: Land, caller: Caller, tmp_path: Path) -> None:
    ports = [{"portname": f"PORT{n}", "port": 0} for n in range(3)]
    openiap = {"language": "python", "ports": ports}
    package = await asyncio.to_thread(land.publish, tmp_path / "p26", SLEEP, openiap=openiap)
    command = {"command": "testrunpackage", "id": package, "kill_after_seconds": 1}
    await caller.send(land.queue, command, correlation_id="26")
    answer = await caller.until("testrunpackage")
    assert "up" in answer["output"]
    assert (await asyncio.to_thread(ended, land.agent, only_run(land, package)))["state"] in ("cancelled", "timed_out")


def test_27_a_program_runs_in_the_runs_own_copy(land: Land, tmp_path: Path) -> None:
    folder = make_package(
        tmp_path / "p27", {"program": "#!/bin/sh\npwd\n"}, main="program", openiap={"language": "exec"}
    )
    (folder / "program").chmod(0o755)
    run = land.run(land.agent.request("POST", "packages", {"path": str(folder)})["id"])
    assert Path(printed(land.agent, run["id"]).strip()).is_relative_to(land.home.runs)


def test_28_no_virtual_screen_is_started_for_what_needs_none(land: Land, tmp_path: Path) -> None:
    assert land.run(land.publish(tmp_path / "p28", "print('ran')\n"))["state"] == "succeeded"
    assert not land.recorded.exists()


# Security


async def test_29_nobody_unknown_makes_the_agent_run_anything(land: Land, caller: Caller, tmp_path: Path) -> None:
    package = await asyncio.to_thread(land.publish, tmp_path / "p29", "print('ran')\n")
    for data in (
        {"wiq": "any", "packageid": package},
        {"command": "invoke", "wiq": "any", "packageid": package},
        {"command": "", "packageid": package, "payload": {}},
        {"command": "runpackage", "id": package},
    ):
        await caller.send(land.queue, data, correlation_id="29", strip_token=True)
    await caller.until("runpackage", success=False, error="not authenticated")
    assert land.agent.request("GET", f"runs?package={package}")["runs"] == []


async def test_30_a_user_is_not_enough(land: Land, caller: Caller, tmp_path: Path) -> None:
    package = await asyncio.to_thread(land.publish, tmp_path / "p30", SLEEP)
    run = await asyncio.to_thread(land.start, package)
    added = await asyncio.to_thread(
        cli, "hub", "user", "add", "eve", "--password-stdin", home=land.home, text="12345 789\n"
    )
    assert added.returncode == 0, added.stderr
    (agent,) = await caller.client.query("agents", land.document)
    async with connected(
        land.agent.request("GET", "status")["hub"]["apiurl"], Credentials(username="eve", password="12345 789")
    ) as eve:
        with pytest.raises(ServerRefused):
            await eve.send(land.queue, {"command": "killall"}, correlation_id="a")
        reader = {"_id": eve.client.user.id if eve.client.user else "", "name": "eve", "rights": 2}
        await caller.client.update_one("agents", {**agent, "_acl": [*agent["_acl"], reader]})
        for command in ("killall", "kill", "runpackage", "reinstallpackage", "setstreamid", "listprocesses"):
            await eve.send(land.queue, {"command": command, "id": package}, correlation_id=command)
            assert "invoke" in (await eve.until(command))["error"]
    assert land.agent.request("GET", f"runs/{run}")["state"] in ("preparing", "running")
    land.agent.request("POST", f"runs/{run}/cancel", {})


SEEN = "import json, os\nprint(json.dumps(dict(os.environ)))\n"


def test_31_a_payload_steers_no_loader(land: Land, tmp_path: Path) -> None:
    evil = dict.fromkeys(("NODE_OPTIONS", "LD_PRELOAD", "PATH", "PYTHONSTARTUP", "jwt", "apiurl", "Bash_Env"), "/evil")
    seen = land.facts(land.publish(tmp_path / "p31", SEEN), parameters={**evil, "customer": "Acme"})
    assert seen["customer"] == "Acme"
    assert "/evil" not in seen.values()


def test_32_a_package_gets_no_token_and_no_secrets(land: Land, tmp_path: Path) -> None:
    seen = land.facts(land.publish(tmp_path / "p32", SEEN))
    assert "jwt" not in seen
    assert not set(SECRETS.values()) & set(seen.values())


def test_33_j14_nobody_else_reads_tokens_or_files(land: Land, tmp_path: Path) -> None:
    land.run(land.publish(tmp_path / "p33", "open('result.txt', 'w').write('42')\n"))
    reachable = [land.home.path]
    assert stat.S_IMODE(land.home.path.stat().st_mode) == 0o700
    password = (read_json(land.home.hub / "credentials.json") or {})["password"]
    for process in psutil.process_iter(["cmdline"]):
        assert password not in " ".join(process.info["cmdline"] or [])
    for path in (land.home.hub / "credentials.json", land.home.identity_file, land.home.state_file):
        reachable.append(path)
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert all(path.exists() for path in reachable)


async def test_34_certificates_are_verified(tmp_path: Path) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0, ssl=identity(tmp_path, "good"))
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with Client(f"wss://localhost:{port}", Credentials(jwt="t"), version="1") as client:
            with pytest.raises(Unavailable, match="certificate"):
                await client.connected(5)


async def test_35_nothing_from_outside_is_written_outside(land: Land, caller: Caller, tmp_path: Path) -> None:
    (source := tmp_path / "s").write_bytes(b"x")
    (target := tmp_path / "there").mkdir()
    arrived = await caller.client.download(await caller.client.upload(source, filename="../../evil"), target)
    assert arrived.parent == target
    archive = tar(tmp_path / "evil.tgz", {"main.py": b"", "../../evil.py": b"x"})
    package, _ = await uploaded(caller, archive, "p35")
    run = await asyncio.to_thread(land.run, package)
    assert (run["state"], "leads out of the package" in run["error"]) == ("failed", True)
    assert not list(land.home.path.rglob("evil*"))


def test_36_ids_cannot_be_guessed() -> None:
    tails = set()
    for _ in range(50):
        random.seed(1)
        tails.add(new_run_id().rpartition("-")[2])
    assert len(tails) == 50
    assert {len(tail) for tail in tails} == {16}


async def test_37_a_subscriber_of_one_run_hears_of_no_other(land: Land, caller: Caller, tmp_path: Path) -> None:
    package = await asyncio.to_thread(land.publish, tmp_path / "p37", "import os\nprint('I am', os.environ['name'])\n")
    url, user = land.agent.request("GET", "status")["hub"]["apiurl"], first_user(land.home)
    async with connected(url, user) as other:
        for peer, name in ((caller, "one"), (other, "two")):
            command = {"command": "runpackage", "id": package, "payload": {"name": name}}
            await peer.send(land.queue, command, correlation_id=name)
        for peer, name in ((caller, "one"), (other, "two")):
            assert f"I am {name}" in (await peer.until("runpackage", completed=True))["output"]
            assert {event.correlation_id for event in peer.received} == {name}


async def test_40_no_local_port_is_reached_through_the_agent(land: Land, caller: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.5)
        port = listening.getsockname()[1]
        data = {"command": "portdata", "id": "c1", "port": port, "seq": 0, "buf": [71, 69, 84]}
        await caller.send(land.queue, data, correlation_id="40")
        answer = await caller.until("portdata")
        assert answer["success"] is False
        with pytest.raises(TimeoutError):
            listening.accept()


# The network


async def test_41_output_is_sent_in_batches(land: Land, caller: Caller, tmp_path: Path) -> None:
    program = "for n in range(5000):\n    print('line', n, flush=True)\n"
    package = await asyncio.to_thread(land.publish, tmp_path / "p41", program)
    await caller.send(land.queue, {"command": "runpackage", "id": package}, correlation_id="41")
    assert (await caller.until("runpackage", completed=True))["success"] is True
    streamed = [event.data["data"]["data"] for event in caller.received if event.data.get("command") == "stream"]
    lines = b"".join(map(bytes, streamed)).decode().splitlines()
    assert [line for line in lines if line.startswith("line")] == [f"line {n}" for n in range(5000)]
    assert len(streamed) < 100


async def test_42_every_request_ends(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client(f"ws://127.0.0.1:{port}", Credentials(jwt="t"), version="1") as client:
            with pytest.raises(AgentError):
                await client.connected(1)
            with pytest.raises(AgentError):
                async with asyncio.timeout(30):
                    await client.upload(tmp_path / "missing")


async def test_43_a_file_that_came_otherwise_is_not_taken(tmp_path: Path) -> None:
    with hub_on_a_new_home() as hub:
        async with hub.client() as client:
            await client.connected()
            (source := tmp_path / "s").write_bytes(b"content" * 1000)
            fileid = await client.upload(source)
            (stored,) = (hub.home / "hub" / "files").rglob(fileid)
            stored.write_bytes(b"kontent" * 1000)
            (target := tmp_path / "there").mkdir()
            with pytest.raises(Failed):
                await client.download(fileid, target)
            assert list(target.iterdir()) == []


WAITING = """
import os, time
print("up", flush=True)
while not os.path.exists(os.environ["go"]):
    time.sleep(0.02)
print("ends")
"""


async def test_44_45_the_agent_comes_back_and_nothing_is_lost(land: Land, caller: Caller, tmp_path: Path) -> None:
    package = await asyncio.to_thread(land.publish, tmp_path / "p44", WAITING)
    named = Caller(caller.client, "results of 45")
    await caller.client.register_queue(named.queue, named.hear)
    command = {"command": "runpackage", "id": package, "payload": {"go": str(tmp_path / "go")}}
    await named.send(land.queue, command, correlation_id="45")
    await named.until("stream")
    os.kill(pid_in(land.home.hub / "hub.json") or 0, signal.SIGKILL)
    (tmp_path / "go").touch()  # it ends while the hub is away
    end = await named.until("runpackage", completed=True)
    assert (end["success"], "ends" in end["output"]) == (True, True)
    assert land.agent.request("GET", "status")["connected"]


# The Jupyter agent package


def test_j5_the_agent_listens_on_no_port(land: Land) -> None:
    about = read_json(land.home.agent_file) or {}
    process = psutil.Process(about["pid"])
    assert [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    mode = Path(about["socket"]).stat().st_mode
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)


def test_j8_j12_an_agent_that_is_ended_ends_its_own_and_nothing_else(land: Land, home: Home, tmp_path: Path) -> None:
    mine = land.start(land.publish(tmp_path / "pj8", SLEEP))
    land.says(mine, "up")
    other = Land(home, start_agent(home), land.recorded)
    theirs = other.start(other.publish(tmp_path / "pj12", f"import os\nprint(os.getpid(), flush=True)\n{SLEEP}"))
    other.says(theirs, "up")
    child = int(printed(other.agent, theirs).split()[0])
    pid = pid_in(home.agent_file) or 0
    os.kill(pid, signal.SIGTERM)
    until(lambda: not alive(pid) and not alive(child), what="the agent and its run have ended")
    assert land.agent.request("GET", f"runs/{mine}")["state"] == "running"
    land.agent.request("POST", f"runs/{mine}/cancel", {})


def test_j9_the_agent_answers_while_an_environment_is_made(land: Land, tmp_path: Path) -> None:
    requirements = {"requirements.txt": "pandas\nscikit-learn\n"}
    run = land.start(land.publish(tmp_path / "pj9", "print('ran')\n", requirements))
    answered = 0
    while land.agent.request("GET", f"runs/{run}", timeout_s=5)["state"] in ("queued", "preparing") and answered < 200:
        answered += 1
    assert answered > 20
    land.agent.request("POST", f"runs/{run}/cancel", {})


def test_j11_a_program_that_ends_at_once_is_not_started_in_a_loop(home: Home, tmp_path: Path) -> None:
    """The one process that is started again by itself is the hub: each time later."""
    agent = start_agent(home)
    seen = set()
    for _ in range(3):
        pid = until(lambda: pid_in(home.hub / "hub.json"))
        seen.add(pid)
        os.kill(pid, signal.SIGKILL)
        until(lambda: pid_in(home.hub / "hub.json") not in (None, *seen), what="another hub runs")
    until(lambda: agent.request("GET", "status")["connected"])
    with pytest.raises(RequestFailed):
        agent.request("GET", "runs/none")
