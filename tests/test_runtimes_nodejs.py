"""Node packages, installed from a real registry by npm and run by node, as the agent runs them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_agent import processes
from jupyter_agent.environments import Environments
from jupyter_agent.home import Home
from jupyter_agent.packages import Manifest, Preparations, entry_point
from jupyter_agent.processes.environment import TAG
from jupyter_agent.runs import Limits, OutputLog, Prepared, Run, Supervisor
from jupyter_agent.runtimes import Site, Spares, Task
from jupyter_agent.runtimes.nodejs import NodeJs
from jupyter_agent.state import RunRow, RunState, State, new_run_id, now
from tests.conftest import ended, make_package, printed, start_agent, until
from tests.npm_registry import Registry

TOKEN = "npm_s3cr3tT0ken"
INSTALLING = "Installing what the package needs (npm)"
USES_DEP = "console.log(require('dep'))\n"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    """The one that npm uses, with a cache and a user's settings of their own."""
    with Registry() as running:
        running.add("dep", {"index.js": "module.exports = 'dep 1'"})
        running.add("other", {"index.js": "module.exports = 'other 1'"})
        user = tmp_path / "npmrc"
        user.write_text(f"registry={running.url}\n")
        for name, value in (("userconfig", str(user)), ("cache", str(tmp_path / "npm-cache"))):
            monkeypatch.setenv(f"npm_config_{name}", value)
        for name in ("NPM_REGISTRY", "NPM_TOKEN", "npm_config_registry"):
            monkeypatch.delenv(name, raising=False)
        yield running


class Runner:
    """Runs packages as the agent does: in a private copy, prepared by the runtime."""

    def __init__(self, supervisor: Supervisor, folder: Path, spares: Spares | None = None) -> None:
        self.supervisor = supervisor
        self.preparations = folder / "preparations"
        self.site = Site(Environments(folder / "environments"), Preparations(self.preparations), spares=spares)

    async def start(self, package: Path, *, source: str = "", **env: str) -> Run:
        row = RunRow(id=new_run_id(), state=RunState.QUEUED, language="nodejs", created=now(), package=package.name)

        async def prepare(run: Run) -> Prepared:
            work = run.folder / "work"
            await asyncio.to_thread(partial(shutil.copytree, package, work, symlinks=True))
            manifest = Manifest.read(work)
            task = Task(
                folder=work,
                run_folder=run.folder,
                entry=entry_point(work, manifest),
                parameters={},
                env={**processes.inherited_environment(builders=False), **env},
                tag=run.row.id,
                manifest=manifest,
                source=source,
            )
            return (await NodeJs().prepare(task, self.site, run)).with_workdir(work)

        return await self.supervisor.submit(row, prepare, limits=Limits(grace_s=8))

    async def run(self, package: Path, **given: str) -> RunRow:
        return await (await self.start(package, **given)).wait()

    async def output_of(self, package: Path, **given: str) -> str:
        row = await self.run(package, **given)
        assert row.state is RunState.SUCCEEDED, (row.error, self.log(row))
        return self.log(row, "stdout")

    @staticmethod
    def log(row: RunRow, *streams: str) -> str:
        chunks = OutputLog(Path(row.folder) / "output").read(0, 1 << 24).chunks
        return "".join(chunk["text"] for chunk in chunks if not streams or chunk["stream"] in streams)

    def made(self) -> list[str]:
        if not self.preparations.exists():
            return []
        return sorted(path.name for path in self.preparations.iterdir() if path.is_dir())


@pytest.fixture
async def runner(tmp_path: Path, registry: Registry) -> AsyncIterator[Runner]:
    async with State(tmp_path / "state.db") as state:
        supervisor = Supervisor(state=state, folder=tmp_path / "runs", max_runs=2, keep_runs=50)
        async with supervisor:
            yield Runner(supervisor, tmp_path)


def package(folder: Path, program: str = USES_DEP, files: dict[str, str] | None = None, **fields: Any) -> Path:
    fields = {"main": "main.js", "openiap": {"language": "nodejs"}, "dependencies": {"dep": "1.0.0"}, **fields}
    return make_package(folder, {"main.js": program, **(files or {})}, **fields)


async def test_what_a_package_needs_is_installed_once_and_never_copied(
    runner: Runner, registry: Registry, tmp_path: Path
) -> None:
    program = (
        "const fs = require('fs'), before = fs.existsSync('node_modules/.cache');\n"
        "fs.mkdirSync('node_modules/.cache'); fs.writeFileSync('node_modules/.cache/x', 'x');\n"
        "if (process.env.APP_ROOT_PATH !== process.cwd()) throw new Error(process.env.APP_ROOT_PATH);\n"
        "console.log(require('dep'), fs.lstatSync('node_modules/dep').isSymbolicLink(), before);\n"
    )
    first = package(tmp_path / "first", program, {"package-lock.json": registry.lock("dep")})
    row = await runner.run(first)
    assert runner.log(row, "stdout") == "dep 1 true false\n", (row.error, runner.log(row))
    assert INSTALLING in runner.log(row, "agent")
    asked = len(registry.asked)
    row = await runner.run(first)
    assert runner.log(row, "stdout") == "dep 1 true false\n", row.error
    assert INSTALLING not in runner.log(row)
    assert row.artifacts == []
    next_version = package(tmp_path / "next", program, {"package-lock.json": registry.lock("dep")}, version="2.0.0")
    assert await runner.output_of(next_version) == "dep 1 true false\n"
    assert (len(registry.asked), len(runner.made())) == (asked, 1)


async def test_other_dependencies_are_another_preparation(runner: Runner, registry: Registry, tmp_path: Path) -> None:
    registry.add("dep", {"index.js": "module.exports = 'dep 2'"}, version="2.0.0")
    assert await runner.output_of(package(tmp_path / "p")) == "dep 1\n"
    assert await runner.output_of(package(tmp_path / "p", dependencies={"dep": "2.0.0"})) == "dep 2\n"
    assert len(runner.made()) == 2


async def test_a_lock_that_does_not_fit_is_told_and_passed_over(
    runner: Runner, registry: Registry, tmp_path: Path
) -> None:
    stale = package(
        tmp_path / "p",
        "console.log(require('dep'), require('other'))",
        {"package-lock.json": registry.lock("dep")},
        dependencies={"dep": "1.0.0", "other": "1.0.0"},
    )
    row = await runner.run(stale)
    assert runner.log(row, "stdout") == "dep 1 other 1\n", row.error
    assert "The lock file does not fit package.json" in runner.log(row, "agent")


async def test_a_failed_install_is_never_taken_for_installed(
    runner: Runner, registry: Registry, tmp_path: Path
) -> None:
    folder = package(tmp_path / "p", "console.log(require('late'))", dependencies={"late": "1.0.0"})
    row = await runner.run(folder)
    assert row.state is RunState.FAILED
    assert (row.error or "").startswith("npm install failed (exit code 1): E404")
    assert "late" in (row.error or "")
    assert (row.started, runner.made()) == (None, [])
    registry.add("late", {"index.js": "module.exports = 'here now'"})
    assert await runner.output_of(folder) == "here now\n"


FULL = "npm warn tar TAR_ENTRY_ERROR ENOSPC: no space left on device, write"
FULL_DISK = """
const fs = require('fs');
const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
for (const name of ['write', 'writev']) {
  const real = fs[name];
  fs[name] = (fd, data, ...rest) => {
    const to = fs.readlinkSync(`/proc/self/fd/${fd}`);
    return to.endsWith('node_modules/dep/index.js') ? rest.at(-1)(full) : real(fd, data, ...rest);
  };
}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the disk is made to look full by way of /proc")
async def test_an_install_that_could_not_write_all_is_none(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """npm only warns when the disk is full, and ends with 0."""
    folder = package(tmp_path / "p")
    (folder / ".npmrc").write_text("loglevel=silent\n")
    (tmp_path / "full.cjs").write_text(FULL_DISK)
    (tmp_path / "npm").write_text(
        f'#!/bin/sh\nNODE_OPTIONS="--require {tmp_path}/full.cjs" exec {shutil.which("npm")} "$@"\n'
    )
    (tmp_path / "npm").chmod(0o755)
    with monkeypatch.context() as changed:
        changed.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        row = await runner.run(folder)
    assert row.error == "npm install failed, though it ended as if it had not: " + FULL
    assert runner.made() == []
    assert await runner.output_of(folder) == "dep 1\n"


async def test_a_script_of_a_dependency_that_fails_is_the_runs_error(
    runner: Runner, registry: Registry, tmp_path: Path
) -> None:
    registry.add(
        "broken", {"fail.js": "console.error('no compiler here'); process.exit(3)"}, scripts={"install": "node fail.js"}
    )
    row = await runner.run(package(tmp_path / "p", dependencies={"broken": "1.0.0"}))
    assert (row.state, runner.made()) == (RunState.FAILED, [])
    assert "no compiler here" in (row.error or "")


async def test_without_a_network_what_was_fetched_once_is_enough(
    runner: Runner, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    lock = {"package-lock.json": registry.lock("dep", "other")}
    both = {"dep": "1.0.0", "other": "1.0.0"}
    await runner.output_of(package(tmp_path / "first", "", lock, dependencies=both))
    await runner.output_of(package(tmp_path / "second", "", dependencies=both))
    registry.__exit__()
    locked = package(tmp_path / "third", USES_DEP, {"package-lock.json": registry.lock("dep")})
    assert await runner.output_of(locked) == "dep 1\n"
    assert await runner.output_of(package(tmp_path / "fourth", dependencies={"dep": "1.0.0"})) == "dep 1\n"
    assert len(runner.made()) == 4
    registry.__enter__()


@pytest.mark.parametrize("way", ["container", "user", "package"])
async def test_a_private_registry_is_used_and_its_token_is_nowhere(
    runner: Runner, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    registry.token = TOKEN
    tell = "console.log('told', process.env.NPM_TOKEN)"
    registry.add(
        "private", {"index.js": "module.exports = 'mine'", "tell.js": tell}, scripts={"install": "node tell.js"}
    )
    files = {}
    place = f"//127.0.0.1:{registry.port}/:_authToken"
    if way == "user":
        settings = tmp_path / "npmrc"
        settings.write_text(f"registry={registry.url}\n{place}={TOKEN}\n")
    else:
        monkeypatch.setenv("NPM_TOKEN", TOKEN)
        (tmp_path / "npmrc").write_text("")
    if way == "container":
        monkeypatch.setenv("NPM_REGISTRY", registry.url)
    if way == "package":
        files = {".npmrc": f"registry={registry.url}\n{place}=${{NPM_TOKEN}}\n"}
    folder = package(
        tmp_path / "p",
        "console.log(require('private'), process.env.NPM_TOKEN)",
        files,
        dependencies={"private": "1.0.0"},
    )
    row = await runner.run(folder)
    assert runner.log(row, "stdout") == "mine undefined\n", row.error
    registry.token = "another"
    failed = await runner.run(package(tmp_path / "q", "", files, dependencies={"dep": "1.0.0"}))
    assert failed.state is RunState.FAILED
    assert "401" in (failed.error or "")
    for written in (runner.preparations, tmp_path / "runs"):
        for path in written.rglob("*"):
            assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    assert TOKEN not in f"{failed.error}"


@pytest.mark.parametrize(
    ("start", "state", "exit_code", "signal"),
    [
        ("node main.js 7", RunState.FAILED, 7, None),
        ("node main.js SIGTERM", RunState.KILLED, None, "SIGTERM"),
        ("true && node main.js 9", RunState.FAILED, 9, None),
        ("npm run other", RunState.KILLED, None, "SIGUSR2"),
    ],
)
async def test_how_a_start_script_ends_is_how_its_program_ended(  # noqa: PLR0917 - a table's columns
    runner: Runner, tmp_path: Path, start: str, state: RunState, exit_code: int | None, signal: str | None
) -> None:
    program = (
        "const how = process.argv[2]; setTimeout(() => {}, 60000);\n"
        "how > 0 ? process.exit(how) : process.kill(process.pid, how);\n"
    )
    scripts = {"start": start, "other": "node main.js SIGUSR2"}
    row = await runner.run(package(tmp_path / "p", program, dependencies={}, scripts=scripts))
    assert (row.state, row.exit_code, row.signal) == (state, exit_code, signal), row.error


@pytest.mark.parametrize("start", ["node main.js", "node main.js; exit $?"])
async def test_a_cancelled_program_is_told_and_may_say_goodbye(runner: Runner, tmp_path: Path, start: str) -> None:
    program = (
        "process.on('SIGTERM', () => { console.log('goodbye'); process.exit(0) });\n"
        "setInterval(() => {}, 1000); console.log('begun');\n"
    )
    run = await runner.start(package(tmp_path / "p", program, dependencies={}, scripts={"start": start}))
    async with asyncio.timeout(60):
        while "begun" not in runner.log(run.row):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.02)
    await runner.supervisor.cancel(run.row.id, who="me")
    row = await run.wait()
    assert row.state is RunState.CANCELLED
    assert "goodbye" in runner.log(row, "stdout")


async def test_start_scripts_run_as_npm_runs_them(runner: Runner, registry: Registry, tmp_path: Path) -> None:
    registry.add(
        "tool", {"cli.js": "#!/usr/bin/env node\nconsole.log('tool', ...process.argv.slice(2))"}, bin={"tool": "cli.js"}
    )
    scripts = {
        "prestart": "echo before $npm_lifecycle_event",
        "start": "tool 'a b' $npm_package_name@$npm_package_version $npm_package_config_port",
        "poststart": "echo after $npm_lifecycle_event",
    }
    folder = package(tmp_path / "p", "", dependencies={"tool": "1.0.0"}, scripts=scripts, config={"port": 80})
    assert await runner.output_of(folder) == "before prestart\ntool a b p@1.0.0 80\nafter poststart\n"
    plain = package(tmp_path / "q", "", dependencies={"tool": "1.0.0"}, scripts={"start": "tool 'c d'"})
    assert await runner.output_of(plain) == "tool c d\n"


COMPILER = (
    "#!/usr/bin/env node\nconst fs = require('fs'); fs.mkdirSync('dist', { recursive: true });\n"
    "console.log('compiling');\n"
    "fs.writeFileSync('dist/main.js', fs.readFileSync('src/main.ts', 'utf8').replace(': string', ''));\n"
)


@pytest.mark.parametrize("start", [None, "node dist/main.js"])
async def test_typescript_is_built_once_by_the_packages_own_tools(
    runner: Runner, registry: Registry, tmp_path: Path, start: str | None
) -> None:
    registry.add("compiler", {"cli.js": COMPILER}, bin={"compiler": "cli.js"})
    folder = make_package(
        tmp_path / "p",
        {"src/main.ts": "const text: string = require('dep'); console.log(text)", "tsconfig.json": "{}"},
        main="dist/main.js",
        scripts={
            "build": "compiler",
            "prestart": "npm run build",
            "prepare": "husky",
            **({"start": start} if start else {}),
        },
        openiap={"language": "nodejs", "typescript": True},
        dependencies={"dep": "1.0.0"},
        devDependencies={"compiler": "1.0.0"},
    )
    row = await runner.run(folder, source="file1")
    assert runner.log(row, "stdout") == "dep 1\n", (row.error, runner.log(row))
    assert "compiling" in runner.log(row, "agent")
    row = await runner.run(folder, source="file1")
    assert runner.log(row) == "dep 1\n"
    assert row.artifacts == []
    await runner.site.preparations.forget("file1")
    assert "compiling" in runner.log(await runner.run(folder, source="file1"), "agent")


async def test_a_build_that_fails_tells_why(runner: Runner, tmp_path: Path) -> None:
    folder = make_package(
        tmp_path / "p",
        {"tsconfig.json": "{}", "b.js": "console.log('src/main.ts(3,1): error TS2322: no'); process.exit(2)"},
        main="dist/main.js",
        scripts={"build": "node b.js"},
        openiap={"language": "nodejs"},
    )
    row = await runner.run(folder)
    assert row.error == "npm run build failed (exit code 2): src/main.ts(3,1): error TS2322: no"
    assert runner.made() == []


async def test_typescript_without_tools_of_its_own_is_run_by_tsx(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("userconfig", "cache"):
        monkeypatch.delenv(f"npm_config_{name}")
    program = "enum Colour { Red = 'red' }\nconst text: string = Colour.Red;\nconsole.log(text)\nprocess.exit(5)"
    folder = make_package(tmp_path / "p", {"main.ts": program}, main="main.ts", openiap={"language": "nodejs"})
    row = await runner.run(folder)
    assert (row.exit_code, runner.log(row, "stdout")) == (5, "red\n"), (row.error, runner.log(row))


async def test_parts_of_the_package_itself_are_the_runs_own(runner: Runner, registry: Registry, tmp_path: Path) -> None:
    part = "module.exports = [require('dep'), __dirname.split('/').slice(-3).join('/')].join(' ')"
    program = "console.log(require('part')); console.log(require('near'))"
    folder = package(
        tmp_path / "p",
        program,
        {
            "packages/part/package.json": json.dumps(
                {"name": "part", "version": "1.0.0", "dependencies": {"dep": "1.0.0"}}
            ),
            "packages/part/index.js": part,
            "near/package.json": json.dumps({"name": "near", "version": "1.0.0"}),
            "near/index.js": part.replace("-3", "-2"),
        },
        workspaces=["packages/*"],
        dependencies={"near": "file:near"},
    )
    assert await runner.output_of(folder) == "dep 1 work/packages/part\ndep 1 work/near\n"


async def test_what_the_packages_own_scripts_make_is_in_every_run(runner: Runner, tmp_path: Path) -> None:
    scripts = {"postinstall": "echo made > made.txt", "prepare": "exit 1"}
    program = "console.log(require('dep'), require('fs').readFileSync('made.txt', 'utf8').trim())"
    folder = package(tmp_path / "p", program, scripts=scripts)
    for _ in range(2):
        assert await runner.output_of(folder) == "dep 1 made\n"
    assert len(runner.made()) == 1


async def test_a_package_that_brings_its_modules_needs_no_npm(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "bin"
    own.mkdir()
    (own / "node").symlink_to(str(shutil.which("node")))
    monkeypatch.setenv("PATH", str(own))
    files = {"node_modules/dep/package.json": "{}", "node_modules/dep/index.js": "module.exports = 'brought'"}
    assert await runner.output_of(package(tmp_path / "p", USES_DEP, files)) == "brought\n"
    assert await runner.output_of(package(tmp_path / "q", "console.log(1)", dependencies={})) == "1\n"
    row = await runner.run(package(tmp_path / "r"))
    assert row.error == "There is no npm on the agent's PATH: install npm, which fetches what Node packages need."


def test_without_node_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert NodeJs().missing() == "There is no node on the agent's PATH: install Node.js."


async def test_a_cancellation_ends_npm_and_leaves_nothing(runner: Runner, registry: Registry, tmp_path: Path) -> None:
    registry.stalls.add("slow")
    run = await runner.start(package(tmp_path / "p", "", dependencies={"slow": "1.0.0"}))
    assert await asyncio.to_thread(registry.stalled.wait, 60)
    await runner.supervisor.cancel(run.row.id, who="me")
    assert (await run.wait()).state is RunState.CANCELLED
    assert runner.made() == []
    assert not [process.pid for process in psutil.process_iter() if tag_of(process) == run.row.id]


def tag_of(process: psutil.Process) -> str:
    try:
        return process.environ().get(TAG, "")
    except psutil.Error:
        return ""


async def test_two_runs_that_need_the_same_install_it_once(runner: Runner, tmp_path: Path) -> None:
    folder = package(tmp_path / "p")
    rows = await asyncio.gather(runner.run(folder), runner.run(folder))
    assert [(row.error, runner.log(row, "stdout")) for row in rows] == [(None, "dep 1\n")] * 2
    assert sum(INSTALLING in runner.log(row) for row in rows) == 1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"engines": {"node": ">=99"}}, "The package needs Node.js >=99 (engines in its package.json), this is"),
        ({"dependencies": ["dep"]}, '"dependencies" in package.json should be an object: mend it.'),
    ],
)
async def test_what_cannot_be_is_told(runner: Runner, tmp_path: Path, fields: dict[str, Any], sentence: str) -> None:
    row = await runner.run(package(tmp_path / "p", **fields))
    assert (row.state, runner.made()) == (RunState.FAILED, [])
    assert (row.error or "").startswith(sentence)


SEEN = """
const seen = {
  argv: process.argv.slice(1), execArgv: process.execArgv, cwd: process.cwd(), main: FILE,
  env: Object.keys(process.env).sort(), jwt: process.env.jwt, tz: new Date(0).getHours(),
  stdin: require('fs').readFileSync(0).length, tty: process.stdin.isTTY, out: process.stdout.constructor.name,
  globals: Object.getOwnPropertyNames(globalThis).sort(), cached: Object.keys(require.cache).length,
  listeners: process.eventNames().map(String).sort(), code: process.exitCode,
  child: require('child_process').execSync('echo $jwt $JUPYTER_AGENT_RUN; pwd').toString(),
};
console.log(JSON.stringify(seen));
console.error('to stderr');
process.on('exit', () => console.log('at the end'));
"""
OF_COMMONJS = SEEN.replace(
    "FILE", "[require.main === module, module.parent ?? null, module.paths.length, __filename, module.id]"
)
OF_A_MODULE = (
    "import { createRequire } from 'module';\nconst require = createRequire(import.meta.url);\n"
    + SEEN.replace("FILE", "import.meta.url")
)


@pytest.fixture
async def quick(tmp_path: Path, registry: Registry) -> AsyncIterator[Runner]:
    """One that keeps a node ready."""
    async with State(tmp_path / "state.db") as state, Spares() as spares:
        supervisor = Supervisor(state=state, folder=tmp_path / "runs", max_runs=2, keep_runs=50)
        async with supervisor:
            yield Runner(supervisor, tmp_path, spares)


def spares_of(parent: int) -> list[psutil.Process]:
    """The nodes that the process keeps ready, once they wait."""
    return [child for child in psutil.Process(parent).children() if is_spare(child)]


def is_spare(process: psutil.Process) -> bool:
    try:
        return "spare.cjs" in " ".join(process.cmdline()) and process.status() == psutil.STATUS_SLEEPING
    except psutil.NoSuchProcess:  # it has ended meanwhile
        return False


async def a_spare() -> psutil.Process:
    return await asyncio.to_thread(lambda: until(lambda: spares_of(os.getpid()), what="a node is ready")[0])


@pytest.mark.parametrize(("name", "program"), [("main.js", OF_COMMONJS), ("main.mjs", OF_A_MODULE)])
@pytest.mark.skipif(sys.platform != "linux", reason="a node is kept ready on Linux only")
async def test_a_node_that_was_ready_is_as_one_started_anew(
    quick: Runner, tmp_path: Path, name: str, program: str
) -> None:
    folder = make_package(tmp_path / "p", {name: program}, main=name, openiap={"language": "nodejs"})
    told = []
    for number in range(2):
        ready = None if number == 0 else await a_spare()
        row = await quick.run(folder, jwt="t0ken", TZ="Asia/Tokyo")
        assert row.state is RunState.SUCCEEDED, (row.error, quick.log(row))
        assert ready is None or row.pid == ready.pid
        assert (row.artifacts, quick.log(row, "stderr")) == ([], "to stderr\n")
        told.append(quick.log(row, "stdout").replace(row.folder, "FOLDER").replace(row.id, "RUN"))
    cold, warm = told
    assert warm == cold
    assert "t0ken RUN" in warm
    assert warm.endswith("at the end\n")


@pytest.mark.parametrize(
    ("program", "state", "exit_code", "signal"),
    [
        ("process.exit(7)", RunState.FAILED, 7, None),
        ("process.kill(process.pid, 'SIGKILL')", RunState.KILLED, None, "SIGKILL"),
        ("throw new Error('no luck')", RunState.FAILED, 1, None),
        ("require('nowhere')", RunState.FAILED, 1, None),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="a node is kept ready on Linux only")
async def test_a_node_that_was_ready_ends_as_its_program_does(  # noqa: PLR0917 - a table's columns
    quick: Runner, tmp_path: Path, program: str, state: RunState, exit_code: int | None, signal: str | None
) -> None:
    folder = package(tmp_path / "p", program, dependencies={})
    await quick.run(folder)
    ready = await a_spare()
    row = await quick.run(folder)
    assert (row.pid, row.state, row.exit_code, row.signal) == (ready.pid, state, exit_code, signal), row.error


@pytest.mark.skipif(sys.platform != "linux", reason="a node is kept ready on Linux only")
async def test_what_a_node_that_was_ready_starts_ends_with_its_run(quick: Runner, tmp_path: Path) -> None:
    detached = "const child = spawn('sleep', ['600'], { detached: true, stdio: 'ignore', env: {} });"
    program = f"const {{ spawn }} = require('child_process'); {detached} child.unref(); console.log(child.pid);"
    folder = package(tmp_path / "p", program, dependencies={})
    for _ in range(2):
        row = await quick.run(folder)
        left = int(quick.log(row, "stdout"))
        assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE
        await a_spare()


@pytest.mark.skipif(sys.platform != "linux", reason="a node is kept ready on Linux only")
async def test_a_node_that_was_ready_is_used_only_where_it_fits(quick: Runner, tmp_path: Path) -> None:
    folder = package(tmp_path / "p", "console.log(new Date(0).getHours())", dependencies={})
    await quick.run(folder, TZ="UTC")
    ready = await a_spare()
    row = await quick.run(folder, TZ="Asia/Tokyo")
    assert (row.pid != ready.pid, quick.log(row, "stdout")) == (True, "9\n")
    assert not ready.is_running()
    (await a_spare()).kill()
    row = await quick.run(folder, TZ="Asia/Tokyo")
    assert quick.log(row, "stdout") == "9\n", row.error
    await a_spare()
    row = await quick.run(folder, TZ="Asia/Tokyo", long="x" * 60_000)
    assert quick.log(row, "stdout") == "9\n", row.error


@pytest.mark.skipif(sys.platform != "linux", reason="a node is kept ready on Linux only")
def test_a_node_that_is_ready_ends_with_its_agent(home: Home, tmp_path: Path) -> None:
    """So does one that a run has got, with all that it started."""
    agent = start_agent(home)
    program = (
        "const { spawn } = require('child_process');\n"
        "const child = spawn('sleep', ['600'], { detached: true, stdio: 'ignore', env: {} });\n"
        "child.unref(); console.log(child.pid); setTimeout(() => {}, process.argv.length > 2 ? 1e6 : 1);\n"
    )
    quick, endless = (
        package(tmp_path / name, program, dependencies={}, scripts={"start": f"node main.js {more}"})
        for name, more in (("quick", ""), ("endless", "on"))
    )
    pid = agent.request("GET", "status")["agent"]["pid"]
    run = ended(agent, agent.request("POST", "runs", {"target": str(quick)})["id"])
    assert run["state"] == "succeeded", run["error"]
    (taken,) = until(lambda: spares_of(pid), what="a node is ready")
    run = agent.request("POST", "runs", {"target": str(endless)})
    child = psutil.Process(int(until(lambda: printed(agent, run["id"]), what="it has printed a pid")))
    (ready,) = until(lambda: [each for each in spares_of(pid) if each != taken], what="another node is ready")
    assert child.ppid() == taken.pid
    psutil.Process(pid).kill()
    for process in (ready, taken, child):
        until(partial(has_ended, process), what=f"{process} ends, too")


def has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
