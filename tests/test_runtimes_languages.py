"""Runtimes of further languages: real packages of each, built and run for real where the tools are here."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_agent import runtimes
from jupyter_agent.environments import Environments
from jupyter_agent.errors import Failed, InvalidInput, NotFound, Unavailable
from jupyter_agent.packages import Preparations, platform_name
from jupyter_agent.runs import Supervisor
from jupyter_agent.runtimes import Site, Tools, runtime_for
from jupyter_agent.runtimes.binaries import check_program, first_line
from jupyter_agent.runtimes.java import source_root
from jupyter_agent.runtimes.rust import Binary, choose, options_of
from jupyter_agent.runtimes.sources import digest
from jupyter_agent.state import RunRow, RunState, State
from tests.conftest import make_package
from tests.runtime_peers import Recorder, Runner, compiled, elf, jar, tool, until

PACKAGES = Path(__file__).parent / "packages"
AWKWARD = 'it\'s a "wörk" $HOME `folder`'
HERE = ("shell", "exec", "php", "rust", "java")
"""Languages that run for real in every test run (tests/run.sh installs what they need)."""


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A home with an awkward name, which all that is made of packages lies in; shared, as a build takes its time."""
    folder = Path(tempfile.mkdtemp(prefix="ja-")) / AWKWARD
    folder.mkdir()
    yield folder
    shutil.rmtree(folder.parent, ignore_errors=True)


@pytest.fixture(scope="session")
def preparations(home: Path) -> Preparations:
    """Shared by the tests: what one has built, the next one uses."""
    return Preparations(home / "preparations")


@pytest.fixture
def site(home: Path, preparations: Preparations) -> Site:
    return Site(Environments(home / "environments"), preparations)


@pytest.fixture
async def runner(home: Path, site: Site) -> AsyncIterator[Runner]:
    folder = Path(tempfile.mkdtemp(dir=home))
    async with State(folder / "state.db") as state:
        supervisor = Supervisor(state=state, folder=folder / "runs", max_runs=2, keep_runs=10, recover=runtimes.recover)
        async with supervisor:
            yield Runner(supervisor, site)


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(tmp_path / "bin", monkeypatch)


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with no program at all."""
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "none"))


def told(row: RunRow) -> str:
    return row.error or ""


# -- Every language


@pytest.mark.parametrize("language", HERE)
async def test_a_package_of_each_language_runs_in_its_own_copy(runner: Runner, language: str) -> None:
    await greets(runner, language)


async def test_a_powershell_package_runs(runner: Runner) -> None:
    tool("pwsh")
    await greets(runner, "powershell")


async def test_a_dotnet_package_runs(runner: Runner) -> None:
    tool("dotnet")
    await greets(runner, "dotnet")


async def greets(runner: Runner, language: str) -> None:
    """The whole of what a package may expect; what is built is built once."""
    package = PACKAGES / language
    row = await runner.run(package, {"name": "Åsa ☃", "exit": 0})
    assert row.state is RunState.SUCCEEDED, (row.error, runner.output(row, "agent"), runner.output(row, "stderr"))
    work = Path(row.folder) / "work"
    assert runner.output(row) == f"hello Åsa ☃ from {language}\ncwd {work}\n"
    assert [artifact["name"] for artifact in row.artifacts] == [f"made by {language} ü.txt"]
    row = await runner.run(package, {"name": "you", "exit": 7})
    assert (row.state, row.exit_code) == (RunState.FAILED, 7)
    assert runner.output(row, "agent") == ""


@pytest.mark.parametrize("language", HERE)
async def test_output_is_seen_while_a_package_runs_and_a_signal_ends_it(runner: Runner, language: str) -> None:
    run = await runner.start(PACKAGES / language, {"name": "you", "wait": 1})
    await until(lambda: run.row.state.ended or "waiting" in runner.output(run.row))
    assert run.row.pid, told(run.row)
    os.kill(run.row.pid, signal.SIGKILL)
    row = await run.wait()
    assert (row.state, row.signal) == (RunState.KILLED, "SIGKILL")


async def test_where_no_locale_is_set_names_are_utf8_all_the_same(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name == "LANG" or name.startswith("LC_")]:
        monkeypatch.delenv(name)
    row = await runner.run(PACKAGES / "java", {"name": "Åsa", "exit": 0})
    assert row.state is RunState.SUCCEEDED, runner.output(row, "stderr")
    assert [artifact["name"] for artifact in row.artifacts] == ["made by java ü.txt"]
    assert "Åsa" in runner.output(row)


# -- Shell


def package(folder: Path, language: str, files: dict[str, str], **manifest: Any) -> Path:
    return make_package(folder, files, openiap={"language": language}, **manifest)


async def test_a_script_without_a_first_line_is_the_shells(runner: Runner, tmp_path: Path) -> None:
    files = {"agent.sh": "echo started as $0; kill -TERM $$"}
    row = await runner.run(package(tmp_path / "p", "shell", files))
    assert (row.state, row.signal) == (RunState.KILLED, "SIGTERM")
    assert runner.output(row) == f"started as {row.folder}/work/agent.sh\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("#!/no/such/shell -e\n", "its first line names the interpreter /no/such/shell, which is not here"),
        ("#!/usr/bin/env no-such-shell\n", "its first line names the interpreter no-such-shell, which is not here"),
        ("#!/bin/sh\r\necho\r\n", "its lines end as on Windows (CR LF); save it with Unix line ends (LF)"),
    ],
)
@pytest.mark.parametrize("language", ["shell", "exec"])
async def test_a_broken_first_line_is_told(
    runner: Runner, tmp_path: Path, language: str, text: str, sentence: str
) -> None:
    row = await runner.run(package(tmp_path / "p", language, {"start.sh": text}, main="start.sh"))
    assert row.state is RunState.FAILED
    assert row.started is None
    assert told(row).startswith("start.sh cannot be started: ")
    assert sentence in told(row)


async def test_an_interpreter_may_come_with_the_package(runner: Runner, tmp_path: Path) -> None:
    files = {"bin/own": '#!/bin/sh\necho "own runs $(basename "$1")"\n', "main": "#!bin/own\n"}
    folder = package(tmp_path / "p", "exec", files, main="main")
    (folder / "bin" / "own").chmod(0o755)
    row = await runner.run(folder)
    assert runner.output(row) == "own runs main\n", told(row)


async def test_no_screen_is_put_around_a_program(runner: Runner, recorder: Recorder) -> None:
    recorder.add("xvfb-run")
    row = await runner.run(PACKAGES / "exec", {"name": "you", "exit": 0})
    assert (row.state, recorder.calls) == (RunState.SUCCEEDED, [])


def test_first_lines_are_read_as_the_kernel_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "f"
    for line, words in {
        "#!/bin/sh": ("/bin/sh",),
        "#! /bin/sh  -e -u ": ("/bin/sh", "-e -u"),
        "#!/usr/bin/env -S awk -f": ("/usr/bin/env", "-S awk -f"),
        "echo": (),
    }.items():
        file.write_text(f"{line}\nrest")
        assert first_line(file) == words


# -- Programs


OTHER = {"x64": (183, "linux-arm64"), "arm64": (62, "linux-x64")}.get(platform_name()[1], (62, "linux-x64"))
SAME = {"x64": 62, "arm64": 183}.get(platform_name()[1], 0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it is empty"),
        (b"just text", "it is neither a program nor a script whose first line names its interpreter"),
        (elf(machine=OTHER[0]), f"it is a program for {OTHER[1]}, and this is {'-'.join(platform_name())}"),
        (elf(machine=SAME, loader=b"/no/such/ld-musl.so.1"), "it needs /no/such/ld-musl.so.1, which is not here"),
        (b"#!\necho", "its first line names the interpreter nothing"),
        (b"MZ\x90\x00", "it is a program for Windows"),
        (b"\xcf\xfa\xed\xfe", "it is a program for macOS"),
    ],
)
async def test_what_the_system_cannot_start_is_told(
    runner: Runner, tmp_path: Path, content: bytes, sentence: str
) -> None:
    folder = package(tmp_path / "p", "exec", {}, main="tool")
    (folder / "tool").write_bytes(content)
    (folder / "tool").chmod(0o755)
    row = await runner.run(folder)
    assert row.state is RunState.FAILED
    assert told(row).startswith("tool cannot be started: ")
    assert sentence in told(row)


async def test_a_program_that_only_looks_like_one_ends_its_run_and_nothing_else(runner: Runner, tmp_path: Path) -> None:
    folder = package(tmp_path / "p", "exec", {}, main="tool")
    (folder / "tool").write_bytes(elf(machine=SAME) + bytes(200))
    (folder / "tool").chmod(0o755)
    row = await runner.run(folder)
    assert row.state in (RunState.FAILED, RunState.KILLED)
    assert (await runner.run(PACKAGES / "shell", {"exit": 0})).state is RunState.SUCCEEDED


async def test_a_program_that_lost_its_mode_runs_and_the_original_is_left_as_it_is(
    runner: Runner, tmp_path: Path
) -> None:
    shutil.copytree(PACKAGES / "exec", tmp_path / "p")
    original = tmp_path / "p" / "greeting"
    original.chmod(0o644)
    row = await runner.run(tmp_path / "p", {"name": "you", "exit": 0})
    assert row.state is RunState.SUCCEEDED, told(row)
    assert "greeting was not executable" in runner.output(row, "agent")
    assert stat.S_IMODE(original.stat().st_mode) == 0o644


async def test_a_program_that_is_there_for_this_platform_is_started_in_the_runs_copy(
    runner: Runner, tmp_path: Path
) -> None:
    script = (PACKAGES / "exec" / "greeting").read_text()
    names = [f"tool-{'-'.join(platform_name())}", "tool-linux-mips", "tool-win32-x64.exe"]
    folder = package(tmp_path / "p", "exec", dict.fromkeys(names, script))
    for name in names:
        (folder / name).chmod(0o755)
    row = await runner.run(folder, {"name": "you", "exit": 0})
    assert f"cwd {row.folder}/work\n" in runner.output(row), told(row)


@settings(max_examples=200)
@given(
    st.sampled_from([b"\x7fELF\x02\x01", b"\x7fELF\x02\x02", elf()[:64], b"#!", b"#!/usr/bin/env ", b""]), st.binary()
)
def test_whatever_a_file_holds_is_judged_or_passed(begin: bytes, rest: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(begin + rest)
        file.flush()
        with contextlib.suppress(Failed):
            check_program(Path(file.name))


def test_real_programs_of_this_system_pass() -> None:
    check_program(Path(sys.executable).resolve())
    check_program(Path(shutil.which("ls") or "/bin/ls").resolve())


# -- PHP


async def test_php_libraries_are_installed_once_and_lie_beside_the_script(
    runner: Runner, recorder: Recorder, tmp_path: Path
) -> None:
    recorder.add("composer", "Path('vendor').mkdir(); Path('vendor/autoload.php').write_text('<?php echo __DIR__;')")
    files = {"composer.json": '{"require": {"a/b": "^1"}}', "main.php": "<?php require 'vendor/autoload.php';"}
    folder = package(tmp_path / "p", "php", files)
    for _ in range(2):
        row = await runner.run(folder)
        assert (row.state, runner.output(row)) == (RunState.SUCCEEDED, f"{row.folder}/work/vendor"), told(row)
        assert row.artifacts == []
    assert len(recorder.calls) == 1
    assert recorder.argv(0)[:3] == ["composer", "install", "--no-dev"]
    (folder / "vendor").mkdir()
    (folder / "vendor" / "autoload.php").write_text("<?php echo 'own';")
    assert runner.output(await runner.run(folder)) == "own"
    assert len(recorder.calls) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"require": {"a/b": "1"}}', "There is no composer on the agent's PATH: install Composer"),
        ("{", "composer.json is not a readable JSON object"),
        ("[]", "composer.json is not a readable JSON object"),
        ('{"require": {"a/b": "1"}, "config": {"vendor-dir": "../x"}}', "composer.json puts the libraries into ../x"),
    ],
)
async def test_php_libraries_that_cannot_be_had_are_told(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "php").symlink_to(str(shutil.which("php")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    row = await runner.run(package(tmp_path / "p", "php", {"main.php": "", "composer.json": text}))
    assert sentence in told(row)


# -- Rust

CRATE = '[package]\nname = "crate-under-test"\nversion = "1.0.0"\nedition = "2021"\n'


def rust(folder: Path, files: dict[str, str], **manifest: Any) -> Path:
    return package(folder, "rust", {"Cargo.toml": CRATE, **files}, **manifest)


def says(text: str) -> str:
    return f'fn main() {{ println!("{text}"); }}'


async def test_one_of_several_programs_is_built_and_main_names_it(runner: Runner, tmp_path: Path) -> None:
    files = {"src/bin/one.rs": says("one"), "src/bin/two.rs": says("two")}
    row = await runner.run(rust(tmp_path / "p", files, main="src/bin/two.rs"))
    assert runner.output(row) == "two\n", told(row)
    assert row.artifacts == []
    row = await runner.run(rust(tmp_path / "p", files))
    assert told(row) == 'The package has several programs (one, two): name the one to start with "main".'


async def test_vendored_crates_and_a_lock_are_kept_to(runner: Runner, tmp_path: Path) -> None:
    source = "pub fn answer() -> u32 { 42 }"
    library = CRATE.replace("crate-under-test", "answer")
    sums = {"src/lib.rs": source, "Cargo.toml": library}
    checksum = {"files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sums.items()}}
    locked = (
        '[[package]]\nname = "answer"\nversion = "1.0.0"\n'
        'source = "registry+https://github.com/rust-lang/crates.io-index"\n'
        f'checksum = "{"0" * 64}"\n'
    )
    files = {
        "Cargo.toml": f'{CRATE}[dependencies]\nanswer = "1"\n',
        "Cargo.lock": f'version = 3\n\n{locked}\n[[package]]\nname = "crate-under-test"\nversion = "1.0.0"\n'
        'dependencies = ["answer"]\n',
        "src/main.rs": 'fn main() { println!("{}", answer::answer()); }',
        **{f"vendor/answer/{name}": text for name, text in sums.items()},
        "vendor/answer/.cargo-checksum.json": json.dumps({**checksum, "package": "0" * 64}),
    }
    row = await runner.run(rust(tmp_path / "p", files))
    assert runner.output(row) == "42\n", (told(row), runner.output(row, "agent"))
    files["Cargo.lock"] = files["Cargo.lock"].replace('"answer"', '"other"')
    row = await runner.run(rust(tmp_path / "q", files))
    assert row.state is RunState.FAILED
    assert "--locked" in runner.output(row, "agent")


async def test_what_the_compiler_says_is_in_the_log_and_built_again_when_mended(runner: Runner, tmp_path: Path) -> None:
    row = await runner.run(rust(tmp_path / "p", {"src/main.rs": "fn main() { nothing(); }"}))
    assert (row.state, row.started) == (RunState.FAILED, None)
    assert told(row).startswith("cargo build failed (exit code 101): ")
    assert "cannot find function `nothing`" in runner.output(row, "agent")
    both = [await runner.start(rust(tmp_path / "p", {"src/main.rs": says("mended")})) for _ in range(2)]
    for run in both:
        assert runner.output(await run.wait()) == "mended\n"
    logs = [runner.output(run.row, "agent") for run in both]
    assert sorted("Another run is building this package" in log for log in logs) == [False, True]
    assert sum("Compiling crate-under-test" in log for log in logs) == 1


LIBRARY = '[package]\nname = "lib"\nversion = "1.0.0"\nautobins = false\n[lib]\npath = "src/main.rs"\n'


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [("[package", "cargo cannot read the package (exit code 101): error:"), (LIBRARY, "has nothing to start")],
)
async def test_a_manifest_of_cargos_that_is_no_use_is_told(
    runner: Runner, tmp_path: Path, manifest: str, sentence: str
) -> None:
    row = await runner.run(package(tmp_path / "p", "rust", {"Cargo.toml": manifest, "src/main.rs": ""}))
    assert sentence in told(row)


def test_the_program_is_chosen_by_name_or_source_else_the_only_one_else_cargos_default(tmp_path: Path) -> None:
    one, two = (Binary("p", name, tmp_path / f"src/bin/{name}.rs") for name in ("one", "two"))
    default = dataclasses.replace(two, is_default=True)
    assert choose([one], "", root=tmp_path) is one
    assert choose([one, two], "one", root=tmp_path) is one
    assert choose([one, two], "src/bin/two.rs", root=tmp_path) is two
    assert choose([one, default], "", root=tmp_path) is default
    for binaries, wanted, kind in (([one, two], "three", NotFound), ([one, two], "", InvalidInput), ([], "", NotFound)):
        with pytest.raises(kind):
            choose(binaries, wanted, root=tmp_path)


def test_cargo_is_told_of_locks_and_vendored_sources(tmp_path: Path) -> None:
    assert options_of(tmp_path, tmp_path) == []
    (tmp_path / "Cargo.lock").touch()
    below = tmp_path / "member"
    below.mkdir()
    assert options_of(below, tmp_path) == ["--locked"]
    (tmp_path / "vendor" / "a").mkdir(parents=True)
    (tmp_path / "vendor" / "a" / ".cargo-checksum.json").touch()
    assert options_of(below, tmp_path)[:3] == ["--locked", "--offline", "--config"]
    (tmp_path / ".cargo").mkdir()
    (tmp_path / ".cargo" / "config.toml").write_text('[source.crates-io]\nreplace-with = "mine"\n')
    assert options_of(below, tmp_path) == ["--locked", "--offline"]


# -- Java


def java(says: str, name: str = "Main") -> str:
    return f"public class {name} {{ public static void main(String[] a) {{ System.out.println({says}); }} }}"


async def test_java_libraries_resources_and_jars(runner: Runner, tmp_path: Path) -> None:
    library = compiled(
        tmp_path / "library", "Answer.java", "public class Answer { public static int is() { return 42; } }"
    )
    files = {"Main.java": java('Answer.is() + new String(Main.class.getResourceAsStream("/a.txt").readAllBytes())')}
    files["Main.java"] = files["Main.java"].replace("a)", "a) throws Exception")
    files |= {"resources/a.txt": " ü", "Broken.java": "this is no Java"}
    folder = package(tmp_path / "p", "java", files)
    jar(folder / "lib" / "answer of all.jar", library)
    row = await runner.run(folder)
    assert runner.output(row) == "42 ü\n", (told(row), runner.output(row, "agent"), runner.output(row, "stderr"))
    program = compiled(tmp_path / "program", "Main.java", java('"from a jar"'))
    folder = package(tmp_path / "q", "java", {})
    jar(folder / "program.jar", program, Main_Class="Main")
    row = await runner.run(folder)
    assert runner.output(row) == "from a jar\n", told(row)
    assert runner.output(row, "agent") == ""


async def test_what_javac_says_is_told(runner: Runner, tmp_path: Path) -> None:
    row = await runner.run(package(tmp_path / "p", "java", {"Main.java": "public class Main { int x = ; }"}))
    assert told(row).startswith("javac failed (exit code 1): ")
    assert "illegal start of expression" in runner.output(row, "agent")
    row = await runner.run(package(tmp_path / "q", "java", {"Main.java": "class A {} class B {}"}))
    assert told(row) == "Main.java has no class Main: the class to start must be called like its file."


async def test_a_gradle_project_is_told_that_it_is_not_built_here(runner: Runner, tmp_path: Path) -> None:
    row = await runner.run(package(tmp_path / "p", "java", {"build.gradle": ""}))
    assert "Gradle projects are not built here: publish the .jar" in told(row)


async def test_a_maven_project_is_built_once_and_its_jar_run(
    runner: Runner, recorder: Recorder, tmp_path: Path
) -> None:
    program = compiled(tmp_path / "program", "Main.java", java('"by maven"'))
    made = jar(tmp_path / "made.jar", program, Main_Class="Main")
    recorder.add(
        "mvn",
        "import shutil\nPath('target').mkdir()\n"
        f"shutil.copy({str(made)!r}, 'target/app.jar')\nshutil.make_archive('target/app-sources', 'zip', '.')\n"
        "Path('target/app-sources.zip').rename('target/app-sources.jar')\n",
    )
    folder = package(tmp_path / "p", "java", {"pom.xml": "<project/>"})
    for _ in range(2):
        row = await runner.run(folder)
        assert runner.output(row) == "by maven\n", told(row)
    assert [call["argv"][-1] for call in recorder.calls] == ["package"]
    recorder.add("mvn")
    (folder / "pom.xml").write_text("<project><!-- another --></project>")
    assert "Maven built no .jar that can be run" in told(await runner.run(folder))


async def test_a_build_that_is_cancelled_leaves_nothing_and_the_next_one_builds(
    runner: Runner, recorder: Recorder, home: Path, tmp_path: Path
) -> None:
    recorder.add("mvn", "import time\nprint('building', os.getpid(), flush=True)\ntime.sleep(600)")
    folder = package(tmp_path / "p", "java", {"pom.xml": "<project><!-- cancelled --></project>"})
    run = await runner.start(folder)
    await until(lambda: "building" in runner.output(run.row, "agent"))
    pid = int(runner.output(run.row, "agent").split()[-1])
    await runner.supervisor.cancel(run.row.id, who="me")
    assert (await run.wait()).state is RunState.CANCELLED
    assert not psutil.pid_exists(pid)
    assert all((path / ".ready").is_file() for path in (home / "preparations").glob("maven-*"))
    recorder.add("mvn", "sys.exit('built nothing')")
    assert told(await runner.run(folder)) == "mvn package failed (exit code 1): built nothing"


@pytest.mark.parametrize(
    ("path", "text", "root"),
    [
        ("src/main/java/a/b/C.java", "// ü\npackage a.b;", "src/main/java"),
        ("C.java", "class C {}", "."),
        ("odd/C.java", "package a.b;", "odd"),
    ],
)
def test_the_root_of_sources_is_above_their_package(tmp_path: Path, path: str, text: str, root: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    assert source_root(file) == tmp_path / root


# -- PowerShell and .NET, as far as that can be seen without them


async def test_powershell_is_started_without_profile_or_questions(runner: Runner, recorder: Recorder) -> None:
    recorder.add("pwsh", "print('rün', flush=True); sys.exit(3)")
    row = await runner.run(PACKAGES / "powershell", {"name": "you"})
    assert (row.state, row.exit_code, runner.output(row)) == (RunState.FAILED, 3, "rün\n")
    script = f"{row.folder}/work/main.ps1"
    assert recorder.argv(0) == ["pwsh", "-NoLogo", "-NoProfile", "-NonInteractive", "-File", script]
    call = recorder.calls[0]
    assert call["cwd"] == f"{row.folder}/work"
    assert call["env"]["POWERSHELL_TELEMETRY_OPTOUT"] == "1"
    assert json.loads((Path(row.folder) / "payload.json").read_text()) == {"name": "you"}


BUILDS = """
if argv[1] == 'build':
    output = Path(argv[argv.index('--output') + 1])
    output.mkdir()
    for name in NAMES:
        (output / f'{name}.runtimeconfig.json').touch()
        (output / f'{name}.dll').touch()
"""


async def test_dotnet_restores_and_builds_once_and_runs_what_was_built(
    runner: Runner, recorder: Recorder, site: Site
) -> None:
    recorder.add("dotnet", BUILDS.replace("NAMES", "['greeting']"))
    for _ in range(2):
        row = await runner.run(PACKAGES / "dotnet", {"name": "you"})
        assert row.state is RunState.SUCCEEDED, told(row)
    restore, build, *runs = recorder.calls
    source = Path(restore["cwd"])
    assert restore["argv"][1:] == ["restore", "greeting.csproj"]
    assert build["argv"][1:4] == ["build", "greeting.csproj", "--no-restore"]
    assert "-nodeReuse:false" in build["argv"]
    assert build["env"]["DOTNET_CLI_TELEMETRY_OPTOUT"] == "1"
    assert (source / "Program.cs").is_file()
    assert [call["argv"][1:] for call in runs] == [[str(source.parent / "program" / "greeting.dll")]] * 2
    assert runs[1]["cwd"] == f"{row.folder}/work"


async def test_dotnet_without_a_single_library_runs_the_project_and_builds_nothing(
    runner: Runner, recorder: Recorder, tmp_path: Path
) -> None:
    recorder.add("dotnet", BUILDS.replace("NAMES", "['a', 'b']"))
    files = {"app.fsproj": "", "packages.lock.json": "{}"}
    row = await runner.run(package(tmp_path / "p", "dotnet", files))
    assert row.state is RunState.SUCCEEDED, told(row)
    restore, _, started = recorder.calls
    assert restore["argv"][-1] == "--locked-mode"
    assert started["argv"][1:4] == ["run", "--no-build", "--configuration"]
    assert started["argv"][-1].endswith("/app.fsproj")
    assert started["cwd"] == f"{row.folder}/work"


async def test_a_dotnet_program_that_was_built_before_is_only_started(
    runner: Runner, recorder: Recorder, tmp_path: Path
) -> None:
    recorder.add("dotnet")
    row = await runner.run(package(tmp_path / "p", "dotnet", {"app.dll": ""}, main="app.dll"))
    assert row.state is RunState.SUCCEEDED, told(row)
    assert recorder.argv(0) == ["dotnet", f"{row.folder}/work/app.dll"]


async def test_dotnet_projects_that_cannot_be_told_apart_are_told(
    runner: Runner, recorder: Recorder, tmp_path: Path
) -> None:
    recorder.add("dotnet", "sys.exit('no SDK ü')")
    row = await runner.run(package(tmp_path / "p", "dotnet", {"a.sln": "", "b.csproj": "", "c.csproj": ""}))
    assert told(row) == 'The package has several projects (b.csproj, c.csproj): name the one to start with "main".'
    row = await runner.run(package(tmp_path / "q", "dotnet", {"a.sln": ""}))
    assert "has no project file" in told(row)
    row = await runner.run(package(tmp_path / "r", "dotnet", {"b.csproj": ""}))
    assert told(row) == "dotnet restore failed (exit code 1): no SDK ü"


# -- What is built


def test_a_state_of_files_has_one_digest(tmp_path: Path) -> None:
    def made(name: str, **files: str) -> Path:
        folder = tmp_path / name
        (folder / "below").mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        (folder / "link").symlink_to("below")
        return folder

    one, same = made("one", a="1", b="2"), made("same", a="1", b="2")
    assert digest(one) == digest(same)
    seen = {digest(one)}
    (same / "a").chmod(0o755)
    seen.add(digest(same))
    (same / "a").write_text("12")
    seen.add(digest(same))
    (same / "a").rename(same / "ü")
    seen.add(digest(same))
    (same / "link").unlink()
    seen.add(digest(same))
    (same / "below").rmdir()
    seen.add(digest(same))
    assert len(seen) == 6


async def test_what_the_payload_says_steers_no_build(runner: Runner, recorder: Recorder, tmp_path: Path) -> None:
    recorder.add("mvn")
    folder = package(tmp_path / "p", "java", {"pom.xml": "<project/>"})
    await runner.run(folder, {"RUSTFLAGS": "x", "name": "secret"})
    assert "payloadfile" not in recorder.calls[0]["env"]


# -- What is announced, and what is refused


BROKEN_JAVA = "print('Unable to locate a Java Runtime.', file=sys.stderr); sys.exit(1)"


async def test_a_tool_on_the_path_that_does_not_work_is_not_announced_until_it_does(
    recorder: Recorder, runner: Runner, site: Site
) -> None:
    recorder.add("java", BROKEN_JAVA)
    assert "java" in runtimes.languages()
    assert "java" not in await runtimes.working_languages(site.tools)
    row = await runner.run(PACKAGES / "java", {"exit": 0})
    assert "java is at" in told(row)
    assert "does not work (exit code 1): Unable to locate a Java Runtime. Mend it, or install a JDK" in told(row)
    (recorder.folder / "java").unlink()
    (recorder.folder / "java").symlink_to(str(shutil.which("java")))
    assert "java" in await runtimes.working_languages(site.tools)
    assert (await runner.run(PACKAGES / "java", {"exit": 0})).state is RunState.SUCCEEDED


async def test_a_tool_that_was_mended_is_used_at_once(recorder: Recorder, runner: Runner, site: Site) -> None:
    recorder.add("pwsh", "sys.exit(1)")
    assert "powershell" not in await runtimes.working_languages(site.tools)
    recorder.add("pwsh")
    assert (await runner.run(PACKAGES / "powershell")).state is RunState.SUCCEEDED


async def test_without_tools_only_what_needs_none_is_announced(nothing: None) -> None:
    assert {"python", "notebook", "exec"} == set(await runtimes.working_languages(Tools()))
    assert set(runtimes.certain_languages()) == {"python", "notebook", "exec"}
    for language, sentence in {
        "php": "Packages in php cannot be run here. There is no php on the agent's PATH: install PHP",
        "rust": "There is no cargo on the agent's PATH: install Rust",
        "java": "There is no java on the agent's PATH: install a JDK",
        "powershell": "There is no pwsh on the agent's PATH: install PowerShell 7",
        "dotnet": "There is no dotnet on the agent's PATH: install the .NET SDK",
        "shell": "There is no bash on the agent's PATH",
    }.items():
        with pytest.raises(Unavailable) as caught:
            runtime_for(language)
        assert sentence in str(caught.value)


async def test_all_that_is_here_is_announced() -> None:
    assert set(HERE) <= set(await runtimes.working_languages(Tools()))


async def test_a_browser_is_announced_when_it_works_and_asked_for_at_launch(recorder: Recorder, tmp_path: Path) -> None:
    recorder.add("google-chrome", "print('needs a snap'); sys.exit(1)")
    recorder.add("chromium")
    tools = Tools()
    assert await runtimes.needs_met(tools) == {"chrome": False, "chromium": True}
    await runtimes.check_needs(frozenset({"chromium"}), tools, package="p")
    with pytest.raises(Unavailable, match=r"^The package p needs chrome\. google-chrome is at .* needs a snap\. Mend"):
        await runtimes.check_needs(frozenset({"chromium", "chrome"}), tools, package="p")


@pytest.mark.parametrize(
    ("document", "needs"),
    [
        ({}, set()),
        ({"chromium": True, "chrome": False}, {"chromium"}),
        ({"openiap": {"chrome": True}}, {"chrome"}),
        ({"openiap": "nonsense", "chrome": "yes"}, set()),
    ],
)
def test_what_a_package_needs_is_in_its_document(document: dict[str, Any], needs: set[str]) -> None:
    assert runtimes.needs_of_document(document) == needs
