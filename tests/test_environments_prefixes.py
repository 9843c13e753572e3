"""The store of environments: who uses them, what becomes of those that are changed, and what may go."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from jupyter_agent.environments import Environment, Environments
from jupyter_agent.environments.definitions import Definition
from jupyter_agent.environments.prefixes import checks, fingerprints
from jupyter_agent.environments.prefixes.living import lived_in
from jupyter_agent.errors import Conflict, InvalidInput, NotFound, Unavailable
from tests.conda_locks import Entry, lock, package
from tests.test_environments import ENV, Told, ask, ensure, folders, until, wheel

ROOT = Path(__file__).parents[1]

RUNS = [f"run {number} of {os.getpid()}" for number in range(10)]
"""Tags: what carries one is ended with it, wherever it is on this machine."""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    wheels = tmp_path / "wheels"
    for name, version in (("alpha", "1.0"), ("alpha", "2.0"), ("gamma", "1.0")):
        wheel(wheels, name, version)
    wheel(wheels, "beta", requires="alpha<2")
    links = " ".join(str(wheels / name) for name in ("alpha", "beta", "gamma"))
    known = {name: os.environ[name] for name in ("PATH", "HOME")}
    return {**known, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": links, "PIP_CONFIG_FILE": os.devnull}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "environments"


@pytest.fixture
def environments(store: Path, environ: dict[str, str]) -> Environments:
    return Environments(store, environ=environ)


def started(*argv: str | Path, environ: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A program that finds these tests, wherever they are."""
    environ = {**(os.environ if environ is None else environ), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environ, cwd="/")


def open_to_others(store: Path) -> set[str]:
    return {path.name for path in store.iterdir() if path.stat().st_mode & 0o077 and path.is_dir()}


def module(environment: Environment, name: str = "alpha") -> Path:
    return next(environment.prefix.glob(f"lib/python*/site-packages/{name}.py"))


def site(environment: Environment) -> Path:
    return next(environment.prefix.glob("lib/python*/site-packages"))


def edit(file: Path, text: str = "version = 'edited'\n") -> None:
    """In place: whoever shares the inode sees it."""
    with file.open("a") as opened:
        opened.write(text)


# Ready ones


async def test_a_ready_environment_takes_a_few_accesses_to_files(environments: Environments, store: Path) -> None:
    made = await ensure(environments, "beta", tag=RUNS[1])
    started = psutil.Process().children(recursive=True)
    said: list[str] = []
    assert await ensure(environments, "beta", say=said.append, tag=RUNS[2]) == made
    assert said == []
    assert psutil.Process().children(recursive=True) == started
    [known] = await environments.list()
    assert (known.id, known.kind, known.origin, known.state) == (made.hash, "venv", "jupyter_agent", "ready")
    assert known.used_by == (RUNS[1], RUNS[2])
    assert (known.packages, known.source, known.path) == (2, "requirements.txt", str(made.prefix))
    assert known.python == sys.version.split()[0]
    assert await environments.release(RUNS[1]) == []
    assert await environments.release(RUNS[2]) == []
    assert (await environments.list())[0].used_by == ()
    assert open_to_others(store) <= {made.hash}


def test_the_agent_loads_none_of_condas_libraries(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys
from pathlib import Path
from jupyter_agent.environments import Environments
from jupyter_agent.environments.definitions import Definition
from tests.test_environments import Told
environments = Environments(Path(sys.argv[1]))
text = 'channels: [file:///nowhere]\\ndependencies: [python]'
try:
    asyncio.run(environments.ensure(Definition.of('environment.yml', text), teller=Told(), tag=str(os.getpid()), offline=True))
except Exception as error:
    print(type(error).__name__)
asyncio.run(environments.list())
print(sorted({name.partition('.')[0] for name in sys.modules} & {'rattler', 'conda_lock', 'pydantic', 'conda_package_streaming'}))
"""  # noqa: E501 - a program
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["NotFound", "[]"]


async def test_an_earlier_versions_environment_goes_on_being_used(environments: Environments, store: Path) -> None:
    made = await ensure(environments, "alpha")
    await environments.release(ENV)
    for name in (".fingerprint", ".trust"):
        (made.prefix / name).unlink()
    (made.prefix / "ready").write_text("")
    for words in (store / "locks").glob("*.json"):
        words.unlink()
    for folder in ("held", "building", "distrust", "channels"):
        shutil.rmtree(store / folder)
    said: list[str] = []
    again = Environments(store, environ={"PATH": os.environ["PATH"]})
    assert await ensure(again, "alpha", say=said.append) == made
    assert said == []
    edit(module(made))
    [sentence] = await again.release(ENV)
    assert "alpha.py was changed" in sentence


# Changed ones


def changed_in_place(made: Environment) -> None:
    edit(module(made))


def deleted(made: Environment) -> None:
    module(made).unlink()


def added(made: Environment) -> None:
    (site(made) / "more.py").write_text("")


def made_unreadable(made: Environment) -> None:
    module(made).chmod(0o600)


def replaced(made: Environment) -> None:
    module(made).unlink()
    module_text = site(made) / "alpha.py"
    module_text.write_text("version = '2.0'")


def pointed_elsewhere(made: Environment) -> None:
    made.python.unlink()
    made.python.symlink_to("/bin/false")


def pip_installed(made: Environment) -> None:
    links = made.prefix.parent.parent / "wheels" / "gamma"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(made.python), "install", "--break-system-packages"),
            *("--no-index", "--find-links", str(links), "--quiet", "--disable-pip-version-check", "gamma"),
        ],
        check=True,
    )


@pytest.mark.parametrize(
    "change", [changed_in_place, deleted, added, made_unreadable, replaced, pointed_elsewhere, pip_installed]
)
async def test_an_environment_that_a_run_changes_is_made_anew(
    environments: Environments, change: Callable[[Environment], None]
) -> None:
    made = await ensure(environments, "alpha", tag=RUNS[1])
    change(made)
    [sentence] = await environments.release(RUNS[1])
    assert sentence.startswith(f"The environment {made.hash[:12]} was changed while it was used (")
    assert sentence.endswith("): it is made anew at its next use.")
    again = await ensure(environments, "alpha", tag=RUNS[2])
    assert again == made
    assert ask(again.python, "import alpha; print(alpha.version)") == "2.0"
    assert sorted(path.name for path in site(again).glob("[agm]*.py")) == ["alpha.py"]
    assert await environments.verify(made.hash) == []
    assert await environments.release(RUNS[2]) == []


async def test_bytecode_of_modules_that_are_imported_is_no_change(environments: Environments) -> None:
    made = await ensure(environments, "alpha")
    with started(made.python, "-c", "import alpha", environ={}):
        pass
    assert list(site(made).glob("__pycache__/alpha*.pyc"))
    assert await environments.release(ENV) == []


async def test_a_file_that_is_changed_in_place_is_changed_wherever_it_is_shared(environments: Environments) -> None:
    one = await ensure(environments, "beta", tag=RUNS[1])
    other = await ensure(environments, "alpha<2\ngamma", tag=RUNS[2])
    unconcerned = await ensure(environments, "gamma", tag=RUNS[3])
    for tag in (RUNS[2], RUNS[3]):
        assert await environments.release(tag) == []
    assert module(one).stat().st_ino == module(other).stat().st_ino
    inode = module(unconcerned, "gamma").stat().st_ino
    edit(module(one))
    late = await ensure(environments, "alpha<2", tag=RUNS[4])  # linked to what was changed, before anybody knows
    assert ask(late.python, "import alpha; print(alpha.version)") == "edited"
    assert len(await environments.release(RUNS[1])) == 1
    assert len(await environments.release(RUNS[4])) == 1
    for text in ("beta", "alpha<2\ngamma", "alpha<2", "gamma"):
        made = await ensure(environments, text, tag=RUNS[5])
        assert "edited" not in module(made, "gamma" if text == "gamma" else "alpha").read_text()
    assert module(unconcerned, "gamma").stat().st_ino == inode
    assert await environments.release(RUNS[5]) == []


async def test_one_that_was_changed_while_others_use_it_is_made_anew_beside_it(
    environments: Environments, store: Path
) -> None:
    made = await ensure(environments, "alpha", tag=RUNS[1])
    assert await ensure(environments, "alpha", tag=RUNS[2]) == made
    edit(module(made))
    assert len(await environments.release(RUNS[1])) == 1
    again = await ensure(environments, "alpha", tag=RUNS[3])
    assert (again.hash, again.prefix) == (made.hash, store / f"{made.hash}.1")
    assert ask(again.python, "import alpha, sys; print(alpha.version, sys.prefix)") == f"2.0 {again.prefix}"
    assert {known.id: known.state for known in await environments.list()} == {
        made.hash: "changed",
        f"{made.hash}.1": "ready",
    }
    assert len(await environments.release(RUNS[2])) == 1
    assert folders(store) == {f"{made.hash}.1"}
    assert await ensure(environments, "alpha", tag=RUNS[4]) == again


async def test_whoever_comes_meanwhile_waits_for_the_look_at_it(environments: Environments) -> None:
    made = await ensure(environments, "alpha", tag=RUNS[1])
    edit(module(made))
    looking = asyncio.create_task(environments.release(RUNS[1]))
    while not environments._checks.is_under_way(made.hash):  # noqa: ASYNC110 - for a moment only
        await asyncio.sleep(0)
    again = await ensure(environments, "alpha", tag=RUNS[2])
    assert "edited" not in module(again).read_text()
    assert len(await looking) == 1


async def test_what_was_in_use_when_its_agent_was_killed_is_looked_at(
    environments: Environments, store: Path, environ: dict[str, str]
) -> None:
    code = """
import asyncio, sys, time
from pathlib import Path
from jupyter_agent.environments import Environments
from tests.conda_locks import Entry, lock, package
from tests.test_environments import ENV, Told, wanted
made = asyncio.run(Environments(Path(sys.argv[1])).ensure(wanted('alpha'), teller=Told(), tag=sys.argv[2]))
print(made.prefix, flush=True)
time.sleep(600)
"""
    with started(sys.executable, "-c", code, store, RUNS[9], environ=environ) as agent:
        assert agent.stdout is not None
        while not (line := agent.stdout.readline()).startswith(str(store)):
            assert line
        prefix = Path(line.strip())
        assert (await environments.list())[0].used_by == (RUNS[9],)
        edit(module(Environment("", prefix)))
        agent.kill()
    await environments.sweep()
    assert (await environments.list())[0].used_by == ()
    again = await ensure(environments, "alpha", tag=RUNS[2])
    assert "edited" not in module(again).read_text()
    assert len(await environments.release(RUNS[9])) <= 1
    assert await environments.release(RUNS[9]) == []


async def test_what_could_not_be_written_down_is_looked_at_again(environments: Environments, store: Path) -> None:
    made = await ensure(environments, "alpha", tag=RUNS[1])
    edit(module(made))
    (store / "distrust").rmdir()
    (store / "distrust").write_text("no folder: nothing can be written here")
    with pytest.raises(OSError, match="distrust"):
        await environments.release(RUNS[1])
    (store / "distrust").unlink()
    again = await ensure(environments, "alpha", tag=RUNS[2])
    assert "edited" not in module(again).read_text()
    assert len(await environments.release(RUNS[1])) == 1


async def test_others_are_suspected_though_that_was_broken_off_before(environments: Environments, store: Path) -> None:
    made = await ensure(environments, "alpha", tag=RUNS[1])
    edit(module(made))
    assert len(await environments.release(RUNS[1])) == 1
    other = await ensure(environments, "alpha", tag=RUNS[1])
    inode = module(other).stat().st_ino
    edit(module(other))
    layout = environments._layout
    found = fingerprints.looked_at(other.prefix)
    checks.taint(layout, other.prefix, found)
    (other.prefix / "tainted").rename(other.prefix / "ready")  # as a kill leaves it
    (store / "suspicion").unlink()
    checks.taint(layout, other.prefix, found)
    assert layout.suspicion
    assert str(inode) in (store / "changed-files").read_text()


async def test_one_that_was_moved_is_made_anew(store: Path, environ: dict[str, str], tmp_path: Path) -> None:
    made = await ensure(Environments(store, environ=environ), "alpha", tag=RUNS[1])
    store.rename(tmp_path / "elsewhere")  # noqa: ASYNC240 - a test waits
    moved = Environments(tmp_path / "elsewhere", environ=environ)
    with pytest.raises(Conflict, match="is changed: repair it first"):
        await moved.find(made.hash)
    again = await ensure(moved, "alpha", tag=RUNS[2])
    assert str(again.prefix) in (again.prefix / "bin" / "activate").read_text()
    assert await moved.release(RUNS[2]) == []
    store.symlink_to(tmp_path / "elsewhere")  # noqa: ASYNC240 - a test waits; another name of the same place
    same = await ensure(Environments(store, environ=environ), "alpha", tag=RUNS[3])
    assert str(again.prefix) in (same.prefix / "bin" / "activate").read_text()


async def test_taint(environments: Environments) -> None:
    made = await ensure(environments, "alpha")
    await environments.release(ENV)
    await environments.taint(made.hash)
    assert folders(made.prefix.parent) == set()
    assert await ensure(environments, "alpha") == made
    with pytest.raises(NotFound, match="There is no environment 'nobody'"):
        await environments.taint("nobody")


# What is there


async def test_environments_are_found_by_id_name_and_path(environments: Environments, store: Path) -> None:
    with pytest.raises(NotFound, match=r"there is none yet on this machine|there are "):
        await environments.find("nobody")
    made = await ensure(environments, "beta")
    assert await environments.find(made.hash) == made
    assert await environments.find(made.hash[:8], tag=RUNS[2]) == made
    assert await environments.find(str(made.prefix)) == made
    assert RUNS[2] in (await environments.list())[0].used_by
    for unknown in (made.hash[:7], "", "\x00", "/nowhere", "~", "x" * 5000):
        with pytest.raises(NotFound, match="There is no environment"):
            await environments.find(unknown)
    other = store.parent / "by hand"
    (other / "conda-meta").mkdir(parents=True)
    (other / "conda-meta" / "state").write_text('{"env_vars": {"COLOUR": "blue"}}')
    found = await environments.find(str(other))
    variables = found.variables({"PATH": "/bin", "jwt": "x"})
    assert (found.hash, found.prefix, variables["COLOUR"], variables["jwt"]) == ("", other, "blue", "x")
    assert (variables["CONDA_PREFIX"], variables["PATH"]) == (str(other), f"{other}/bin:/bin")
    (made.prefix / "ready").unlink()
    with pytest.raises(Conflict, match="is half-made: repair it first"):
        await environments.find(made.hash)


async def test_what_is_in_one_and_why(environments: Environments) -> None:
    made = await ensure(environments, "beta\n")
    shown = await environments.show(made.hash)
    assert [(each.name, each.version, each.manager, each.why) for each in shown.packages] == [
        ("alpha", "1.0", "pip", ("beta",)),
        ("beta", "1.0", "pip", ("asked for",)),
    ]
    assert (shown.asked, shown.variables, shown.known.id) == (("beta",), ("VIRTUAL_ENV",), made.hash)


async def test_verify_and_repair(environments: Environments, store: Path) -> None:
    made = await ensure(environments, "beta")
    assert await environments.verify(made.hash) == []
    said: list[str] = []
    assert await environments.repair(made.hash, teller=Told(said.append), tag=RUNS[8]) == made
    assert said == ["Every file is as its packages say: nothing is to be repaired"]
    for tag in (ENV, RUNS[8]):
        await environments.release(tag)
    file = module(made)
    was = file.stat()
    file.write_text(file.read_text().replace("1.0", "9.9"))
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))  # which no look at sizes and times can see
    [fault] = await environments.verify(made.hash)
    assert (fault.package, fault.what, fault.path.endswith("alpha.py")) == (
        "alpha",
        "is not what its package has (sha256)",
        True,
    )
    assert (await environments.list())[0].state == "changed"
    again = await environments.repair(made.hash, teller=Told(said.append), tag=RUNS[8])
    assert ask(again.python, "import alpha; print(alpha.version)") == "1.0"
    await environments.release(RUNS[8])
    (again.prefix / "ready").unlink()
    module(again).unlink()
    assert [fault.what for fault in await environments.verify(made.hash)] == [
        "is half-made: it is made anew at its next use"
    ]
    assert await environments.repair(made.hash, teller=Told(said.append), tag=RUNS[8]) == made
    assert ask(made.python, "import alpha; print(alpha.version)") == "1.0"


async def test_what_nobody_knows_how_to_make_is_not_repaired(environments: Environments, store: Path) -> None:
    made = await ensure(environments, "alpha")
    shutil.rmtree(store / "locks")
    shutil.rmtree(made.prefix / "lock")
    (made.prefix / "ready").unlink()
    with pytest.raises(NotFound, match="It is not known any more what"):
        await environments.repair(made.hash, teller=Told(), tag=RUNS[8])


# What may go


async def test_what_nothing_uses_is_collected(environments: Environments, store: Path) -> None:
    used = await ensure(environments, "alpha", tag=RUNS[1])
    lived = await ensure(environments, "beta", tag=RUNS[2])
    await ensure(environments, "gamma", tag=RUNS[2])
    await environments.release(RUNS[2])
    (store / f".trash.{used.hash}.1").mkdir()
    (store / ("f" * 64) / "lib").mkdir(parents=True)
    (store / "cache" / "archive-v0").mkdir()
    with started(lived.python, "-c", "import time; time.sleep(600)") as living:
        await until(lambda: lived_in([lived.prefix]))
        assert lived_in([used.prefix, lived.prefix]) == {lived.prefix: living.pid}
        with pytest.raises(Conflict, match=f"is in use \\(by process {living.pid}\\)"):
            await environments.remove(lived.hash)
        with pytest.raises(Conflict, match=f"is in use .by {RUNS[1]}."):
            await environments.remove(used.hash)
        would = await environments.gc(days=0, dry_run=True)
        before = folders(store)
        removed = await environments.gc(days=0)
        living.kill()
    assert {used.hash, lived.hash} < before
    assert folders(store) == {used.hash, lived.hash}
    assert [each.path for each in would.removed if len(each.id) == 64] == [
        each.path for each in removed.removed if len(each.id) == 64
    ]
    assert {each.id for each in removed.removed if len(each.id) < 64} == {"cache", "lock", "wheel"}
    assert removed.bytes == sum(each.bytes for each in removed.removed) > 0
    assert len(list((store / "locks").glob("*.txt"))) == 2
    assert await ensure(environments, "alpha", tag=RUNS[3]) == used
    gone = await environments.gc(days=0)
    assert [each.id for each in gone.removed if len(each.id) == 64] == [lived.hash]
    await ensure(environments, "beta", tag=RUNS[4])


async def test_what_was_used_lately_stays(environments: Environments, store: Path) -> None:
    made = await ensure(environments, "alpha", tag=RUNS[1])
    await environments.release(RUNS[1])
    assert (await environments.gc(days=1)).removed == ()
    old = time.time() - 2 * 86400
    os.utime(made.prefix / "ready", (old, old))
    assert await ensure(environments, "alpha", tag=RUNS[2]) == made
    await environments.release(RUNS[2])
    assert (await environments.gc(days=1)).removed == ()
    os.utime(made.prefix / "ready", (old, old))
    assert [each.id for each in (await environments.gc(days=1)).removed] == [made.hash, "wheel"]
    assert folders(store) == set()
    assert len(list((store / "locks").glob("*.txt"))) == 1  # it was asked for lately


async def test_channels_from_pypi_stay_as_long_as_something_may_refer_to_them(
    environments: Environments, store: Path, tmp_path: Path
) -> None:
    await environments.sweep()
    channels, old = store / "channels", time.time() - 3 * 86400
    for name in ("referred", "asked", "fresh", "old", "requests"):
        (channels / name).mkdir()
        os.utime(channels / name, (old, time.time() if name == "fresh" else old))
    (channels / "requests" / "1.json").write_text('{"channel": "asked"}')
    lock = tmp_path / "conda-lock.yml"
    lock.write_text(f"url: file://{channels}/referred/noarch/x.conda")
    environments._locks.remember(lock)
    would = await environments.gc(days=1, dry_run=True)
    assert [Path(each.path).name for each in would.removed] == ["old"]
    assert len({path.name for path in channels.iterdir()}) == 5
    await environments.gc(days=1)
    assert {path.name for path in channels.iterdir()} == {"referred", "asked", "fresh", "requests"}
    lock.unlink()
    await environments.gc(days=1)
    assert {path.name for path in channels.iterdir()} == {"asked", "fresh", "requests"}


async def test_one_is_removed(environments: Environments, store: Path) -> None:
    made = await ensure(environments, "alpha")
    await environments.release(ENV)
    with environments._layout.lock(made.hash), pytest.raises(Conflict, match="is being made or removed"):
        await environments.remove(made.hash)
    await environments.remove(made.hash[:10])
    assert folders(store) == set()
    with pytest.raises(NotFound):
        await environments.remove(made.hash)


async def test_what_was_left_half_done_is_swept(store: Path, environ: dict[str, str], tmp_path: Path) -> None:
    environments = Environments(store, environ=environ)
    made = await ensure(environments, "alpha")
    half, scratch, trash = store / ("e" * 64), store / f".{'d' * 64}", store / ".trash.x.1"
    for folder in (half, scratch, trash):
        (folder / "deep").mkdir(parents=True)
    (trash / "deep").chmod(0o500)
    (store / "held" / "broken").write_text("{")
    (store / "building" / half.name).write_text(json.dumps({"tag": "gone", "pid": 1, "started": 1.0, "names": []}))
    with environments._layout.lock(half.name):
        await Environments(store, environ=environ).sweep()
        assert half.exists()  # somebody is making it
    await Environments(store, environ=environ).sweep()
    assert folders(store) == {made.hash}
    assert list((store / "building").iterdir()) == []


KILLED = """
import asyncio, sys
from pathlib import Path
from jupyter_agent.environments import Environments
from tests.conda_locks import Entry, lock, package
from tests.test_environments import ENV, Told, wanted

async def go() -> None:
    environments = Environments(Path(sys.argv[1]))
    for number in range(1000):
        made = await environments.ensure(wanted('beta'), teller=Told(), tag=sys.argv[2])
        await environments.release(sys.argv[2])
        print('made', flush=True)
        await [environments.taint, environments.remove][number % 2](made.hash)
        await environments.gc(days=0)

asyncio.run(go())
"""


async def test_kills_leave_what_verifies_or_is_made_anew(store: Path, environ: dict[str, str]) -> None:
    for number in range(6):
        with started(sys.executable, "-c", KILLED, store, RUNS[1], environ=environ) as victim:
            assert victim.stdout is not None
            while "made" not in victim.stdout.readline():
                assert victim.poll() is None
            await asyncio.sleep(0.07 * number)  # another moment each time, wherever that is
            victim.send_signal(signal.SIGKILL)
        environments = Environments(store, environ=environ)
        for known in await environments.list():
            if known.state == "ready":
                assert await environments.verify(known.id) == []
        made = await ensure(environments, "beta", tag=RUNS[7])
        assert ask(made.python, "import alpha, beta; print(alpha.version)") == "1.0"
        assert await environments.verify(made.prefix.name) == []
        assert await environments.release(RUNS[7]) == []
        await environments.sweep()  # as the next agent does at its start
        assert folders(store) == {made.prefix.name}


async def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="The environments' folder cannot be used"):
        await ensure(Environments(tmp_path / "file" / "environments", environ=environ), "")


async def test_what_others_made_is_left_alone(environments: Environments, tmp_path: Path) -> None:
    with pytest.raises((InvalidInput, NotFound)):
        await environments.remove(sys.prefix)


# conda's


def definition(channel: Path, *packages: str, name: str = "mine") -> Definition:
    listed = "".join(f"\n- {package}" for package in packages)
    text = f"name: {name}\nchannels: ['{channel.as_uri()}', nodefaults]\ndependencies:{listed}\n"
    return Definition.of("environment.yml", text)


@pytest.mark.timeout(600)
async def test_conda_environments_from_their_file_to_their_end(channel: Path, tmp_path: Path) -> None:
    store = tmp_path / "environments"
    environments = Environments(store)
    asked = definition(channel, "python", "pip", "attrs")
    said: list[str] = []
    made = await ensure(environments, asked, extra=["packaging"], say=said.append, tag=RUNS[1])
    other = await ensure(environments, definition(channel, "attrs", name="other"), tag=RUNS[2])
    assert ask(made.python, "import attr, packaging, sys; print(sys.prefix)") == str(made.prefix)
    assert made.variables({"PATH": "/bin"})["CONDA_PREFIX"] == str(made.prefix)
    ask(made.python, "import json, attr, pip")
    assert await environments.release(RUNS[1]) == []
    said.clear()
    again = await ensure(
        environments, definition(channel, "python", "pip", "attrs", name="third"), extra=["packaging"], say=said.append
    )
    assert (again, said) == (made, [])
    await environments.release(ENV)
    shown = await environments.show("mine")
    why = {package.name: package.why for package in shown.packages}
    assert "asked for" in why["attrs"]
    assert "attrs" in why["python"]
    assert (shown.asked, shown.channels) == (("python", "pip", "attrs"), (channel.as_uri(),))

    file = next(made.prefix.glob("lib/python*/site-packages/attr/__init__.py"))
    assert file.stat().st_ino == next(other.prefix.glob("lib/python*/site-packages/attr/__init__.py")).stat().st_ino
    await environments.find("mine", tag=RUNS[3])
    edit(file, "edited = True\n")
    assert len(await environments.release(RUNS[3])) == 1
    assert len(await environments.release(RUNS[2])) == 1
    for wanted_again in (definition(channel, "attrs"), asked):
        rebuilt = await ensure(environments, wanted_again, extra=["packaging"] if wanted_again is asked else [])
        assert ask(rebuilt.python, "import attr; print(hasattr(attr, 'edited'))") == "False"
        assert await environments.verify(rebuilt.prefix.name) == []
    assert await environments.release(ENV) == []

    packages = {path.name for path in (store / "cache/pkgs").glob("packaging-*")}
    await environments.remove("mine")
    removed = await environments.gc(days=0)
    assert packages
    assert {path.name for path in (store / "cache/pkgs").iterdir()} <= {".cache.lock"}  # rattler's own
    assert {each.id for each in removed.removed if len(each.id) < 64} == {"lock", "package", "bytecode"}
    assert folders(store) == set()


@pytest.mark.timeout(600)
async def test_two_processes_at_one_hash_and_two_hashes_on_a_cold_cache(channel: Path, tmp_path: Path) -> None:
    store = tmp_path / "environments"
    code = """
import asyncio, os, sys
from pathlib import Path
from jupyter_agent.environments import Environments
from jupyter_agent.environments.definitions import Definition
from tests.test_environments import Told
made = Environments(Path(sys.argv[1])).ensure(
    Definition.of('environment.yml', sys.argv[2]), teller=Told(), tag=str(os.getpid())
)
print(asyncio.run(made).prefix)
"""
    texts = [definition(channel, *names).text for names in (("attrs",), ("attrs",), ("packaging",))]
    others = [started(sys.executable, "-c", code, store, text) for text in texts]
    said = [(await asyncio.to_thread(each.communicate))[0].splitlines() for each in others]
    assert [each.returncode for each in others] == [0, 0, 0]
    assert said[0][-1] == said[1][-1] != said[2][-1]
    assert sum(line.startswith("Another run is making this environment") for line in said[0] + said[1]) == 1
    environments = Environments(store)
    for known in await environments.list():
        if known.origin == "jupyter_agent":
            assert await environments.verify(known.id) == []
    assert folders(store) == {Path(said[0][-1]).name, Path(said[2][-1]).name}


async def test_an_environment_need_not_have_a_python(tmp_path: Path) -> None:
    made = package(tmp_path / "made", "data", {"share/data.txt": "right\n"}, noarch="generic")
    file = lock(tmp_path / "conda-lock.yml", [Entry.of(made)])
    environments = Environments(tmp_path / "environments")
    first = await environments.ensure(Definition.read(file), teller=Told(), tag=RUNS[1])
    assert (first.prefix / "share" / "data.txt").read_text() == "right\n"
    assert await environments.release(RUNS[1]) == []
    assert await environments.ensure(Definition.read(file), teller=Told(), tag=RUNS[2]) == first
    ours = [known for known in await environments.list() if known.origin == "jupyter_agent"]
    assert [(known.state, known.python) for known in ours] == [("ready", "")]
    assert await environments.verify(first.hash) == []


async def test_one_in_use_that_lost_its_marker_is_left_to_who_uses_it(environments: Environments, store: Path) -> None:
    made = await ensure(environments, "alpha", tag=RUNS[1])
    (made.prefix / "ready").unlink()
    await environments.sweep()
    again = await ensure(environments, "alpha", tag=RUNS[2])
    assert again.prefix == store / f"{made.hash}.1"
    assert ask(made.python, "import alpha; print(alpha.version)") == "2.0"
    await environments.release(RUNS[1])
    await environments.sweep()
    assert folders(store) == {again.prefix.name}


@pytest.mark.timeout(600)
async def test_a_lock_is_written_once_and_used_as_it_is_given(channel: Path, tmp_path: Path) -> None:
    environments = Environments(tmp_path / "environments")
    asked = definition(channel, "attrs")
    out = tmp_path / "conda-lock.yml"
    assert await environments.lock(asked, out=out, teller=Told(), tag=RUNS[6]) == out
    first = (out.read_bytes(), out.stat().st_ino, out.stat().st_mode & 0o777)
    assert first[2] == 0o644
    await environments.lock(asked, out=out, teller=Told(), tag=RUNS[6])
    assert (out.read_bytes(), out.stat().st_ino) == first[:2]
    with pytest.raises(InvalidInput, match="is a lock already"):
        await environments.lock(Definition.read(out), out=out, teller=Told(), tag=RUNS[6])
    given = await ensure(environments, Definition.read(out))
    assert given == await ensure(environments, asked)
    with pytest.raises(InvalidInput):
        await ensure(environments, Definition.of("conda-lock.yml", "version: 1\n"))
    with pytest.raises(InvalidInput, match="cannot be written"):
        await environments.lock(asked, out=tmp_path / "gone" / "conda-lock.yml", teller=Told(), tag=RUNS[6])
