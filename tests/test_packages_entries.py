"""What of a package is started: the usual names of each language, npm's rules, the program for this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.errors import AgentError, InvalidInput, NotFound
from jupyter_agent.packages import Manifest, entry_point, platform_name
from tests.test_packages import package


@pytest.mark.parametrize(
    ("files", "fields", "entry"),
    [
        ({"src/app.py": ""}, {"main": "./src/app.py"}, "src/app.py"),
        ({"src/app.py": ""}, {"main": ".\\src\\app.py"}, "src/app.py"),
        ({}, {"main": "index.js"}, "main.py"),  # npm's default, left in a Python package
        ({"agent.py": ""}, {}, "agent.py"),
        ({"a b.ipynb": "{}"}, {"openiap": {"language": "notebook"}}, "a b.ipynb"),
        ({"index.ipynb": "{}", "x.ipynb": "{}"}, {"openiap": {"language": "notebook"}}, "index.ipynb"),
        ({"tool": ""}, {"main": "tool", "openiap": {"language": "exec"}}, "tool"),
    ],
)
def test_the_entry(tmp_path: Path, files: dict[str, str | bytes], fields: dict[str, Any], entry: str) -> None:
    folder = package(tmp_path, files, **fields)
    assert entry_point(folder, Manifest.read(folder)) == folder / entry


NODE = {"openiap": {"language": "nodejs"}}


@pytest.mark.parametrize(
    ("files", "fields", "entry"),
    [
        ({"index.js": ""}, {**NODE, "scripts": {"start": "node x"}}, "package.json"),  # npm's to start
        ({"x.js": ""}, {**NODE, "main": "x.js", "scripts": {"build": "tsc"}}, "x.js"),
        ({"index.js": "", "agent.js": ""}, NODE, "agent.js"),
        ({"lib/index.js": ""}, {**NODE, "main": "./lib"}, "lib/index.js"),
        ({"dist/x.cjs": ""}, {**NODE, "main": "dist/x"}, "dist/x.cjs"),
        ({"src/x.ts": "", "tsconfig.json": "{}"}, {**NODE, "main": "dist/x.js"}, "dist/x.js"),  # made by the build
        ({}, {"main": "dist/x.js", "openiap": {"language": "nodejs", "typescript": True}}, "dist/x.js"),
        ({}, {**NODE, "main": "dist/x.js", "scripts": {"build": "make"}}, "dist/x.js"),
        ({"main.ts": ""}, NODE, "main.ts"),
        ({}, {"scripts": {"start": "python main.py"}}, "main.py"),  # npm starts Node's packages alone
        ({"main.sh": ""}, {"openiap": {"language": "shell"}}, "main.sh"),
        ({"index.php": ""}, {"openiap": {"language": "php"}}, "index.php"),
        ({"index.ps1": "", "main.ps1": ""}, {"openiap": {"language": "powershell"}}, "index.ps1"),
        ({"Cargo.toml": ""}, {"main": "tool", "openiap": {"language": "rust"}}, "Cargo.toml"),
        ({"x.jar": ""}, {"main": "org.example.Main", "openiap": {"language": "java"}}, "x.jar"),
        ({"x.fsproj": ""}, {"openiap": {"language": "dotnet"}}, "x.fsproj"),
        ({"a.csproj": "", "b.csproj": "", "all.sln": ""}, {"openiap": {"language": "dotnet"}}, "all.sln"),
    ],
)
def test_the_entry_of_each_language(
    tmp_path: Path, files: dict[str, str | bytes], fields: dict[str, Any], entry: str
) -> None:
    folder = package(tmp_path, files, **fields)
    assert entry_point(folder, Manifest.read(folder)) == folder / entry


SYSTEM, PROCESSOR = platform_name()
ELF = "\x7fELF"


@pytest.mark.parametrize(
    ("files", "main", "entry"),
    [
        (["tool"], None, "tool"),
        (["tool", "README.md-"], None, "tool"),
        (
            [f"tool-{SYSTEM}-{PROCESSOR}", f"tool-{SYSTEM}-riscv64", "tool-win32-x64.exe"],
            None,
            f"tool-{SYSTEM}-{PROCESSOR}",
        ),
        ([f"tool_{SYSTEM}.bin", "tool-darwin", "tool.exe"], None, f"tool_{SYSTEM}.bin"),
        (["bin/tool"], None, "bin/tool"),
        ([f"{SYSTEM}-{PROCESSOR}/tool", "win32-x64/tool.exe"], None, f"{SYSTEM}-{PROCESSOR}/tool"),
        ([f"{SYSTEM}/tool", "darwin/tool", "win/tool.exe"], None, f"{SYSTEM}/tool"),
        (["a", "b"], "b", "b"),
        (["out/a", "tool"], "out", "out/a"),
        (["run.sh"], None, "run.sh"),
    ],
)
def test_the_program_for_this_machine(tmp_path: Path, files: list[str], main: str | None, entry: str) -> None:
    contents: dict[str, str | bytes] = {name: "text" if name.endswith("-") else ELF for name in files}
    folder = package(tmp_path, contents, main=main, openiap={"language": "exec"})
    for name in files:
        (folder / name).chmod(0o644 if name.endswith("-") else 0o755)
    assert entry_point(folder, Manifest.read(folder)) == folder / entry


def test_a_program_that_lost_its_mode_on_the_way_is_told_by_how_it_begins(tmp_path: Path) -> None:
    folder = package(tmp_path, {"tool": "#!/bin/sh\n", "notes.txt": "MY"}, openiap={"language": "exec"})
    assert entry_point(folder, Manifest.read(folder)) == folder / "tool"
    for name in ("tool", "notes.txt", "package.json"):  # as on disks that know no modes
        (folder / name).chmod(0o755)
    assert entry_point(folder, Manifest.read(folder)) == folder / "tool"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "has no program to start"),
        (["one", "two"], f"has 2 programs (one, two) but not one for {SYSTEM}-{PROCESSOR} alone"),
        ([f"{SYSTEM}-a", f"{SYSTEM}-b"], "has 2 programs"),
    ],
)
def test_a_program_that_cannot_be_chosen_is_told(tmp_path: Path, files: list[str], sentence: str) -> None:
    folder = package(tmp_path, dict.fromkeys(files, ELF), openiap={"language": "exec"})
    for name in files:
        (folder / name).chmod(0o755)
    with pytest.raises(NotFound) as caught:
        entry_point(folder, Manifest.read(folder))
    assert sentence in str(caught.value)
    assert str(caught.value).endswith('name the file with "main" in its package.json.')


@pytest.mark.parametrize(
    ("files", "fields", "error", "sentence"),
    [
        ({}, {"main": "gone.py"}, NotFound, "gone.py, but there is no such file"),
        ({}, {"main": "../x.py"}, InvalidInput, "lies outside the package"),
        ({}, {"main": "/etc/passwd"}, InvalidInput, "lies outside the package"),
        ({"x.ipynb": ""}, {"main": "x.ipynb"}, InvalidInput, 'but its "main", x.ipynb, is of "notebook"'),
        ({"a.ipynb": "", "b.ipynb": ""}, {"openiap": {"language": "notebook"}}, NotFound, "looked for agent.ipynb"),
        ({}, {"openiap": {"language": "nodejs"}}, NotFound, "looked for agent.js, main.js, index.js"),
    ],
)
def test_a_missing_entry_is_told(
    tmp_path: Path, files: dict[str, str | bytes], fields: dict[str, Any], error: type[AgentError], sentence: str
) -> None:
    folder = package(tmp_path, files, **fields)
    with pytest.raises(error) as caught:
        entry_point(folder, Manifest.read(folder))
    assert sentence in str(caught.value)
