"""Rust: built by cargo once for each state of the package, then the program is run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_agent import processes
from jupyter_agent.errors import Failed, InvalidInput, NotFound
from jupyter_agent.packages.entries import LANGUAGES_BY_SUFFIX
from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared
from jupyter_agent.runtimes.base import Site, Task, Teller
from jupyter_agent.runtimes.building import build
from jupyter_agent.runtimes.sources import Place, built, stamp
from jupyter_agent.runtimes.tools import Tool, utf8

SETTINGS = (
    "CARGO_HOME",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "CARGO_NET_GIT_FETCH_WITH_CLI",
    "CARGO_NET_OFFLINE",
    "RUSTUP_AUTO_INSTALL",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
)
CARGO = Tool(("cargo",), "install Rust (https://rustup.rs, or Debian's package cargo)", settings=SETTINGS)
RUSTC = Tool(("rustc",), "install Rust (https://rustup.rs, or Debian's package rustc)", settings=SETTINGS)
LINKER = Tool(("cc",), "install a C compiler, by which Rust links (Debian's package gcc)", ask=())

PLAIN = {"CARGO_TERM_COLOR": "never", "CARGO_TERM_PROGRESS_WHEN": "never", "CARGO_INCREMENTAL": "0"}

METADATA = ("metadata", "--no-deps", "--format-version", "1")
METADATA_S = 120

PROGRAM = "program"
"""The file in a preparation that names what was built, relative to it."""

LEFT_BY_CARGO = ("deps", ".fingerprint", "incremental", "examples")
"""Below ``target/release``: most of what a build leaves, and of no use to the program."""


@dataclass(frozen=True)
class Binary:
    """A program that cargo can build. ``is_default``: the one that ``cargo run`` would run in its package."""

    package: str
    name: str
    source: Path
    is_default: bool = False


@dataclass(frozen=True)
class Rust:
    """A cargo package or workspace. ``main`` names the program or its source file where there are several."""

    language: str = "rust"
    tools: tuple[Tool, ...] = (CARGO, RUSTC, LINKER)

    def missing(self) -> str | None:
        """Why there is no Rust."""
        return next((sentence for tool in self.tools if (sentence := tool.missing())), None)

    async def prepare(self, task: Task, site: Site, run: Teller) -> Prepared:
        """The program that cargo built, run in the run's own folder."""
        manifest = await asyncio.to_thread(_nearest_manifest, task)
        cargo = await site.tools.need(CARGO)
        steps = partial(_build, cargo, manifest.relative_to(task.folder), task, run)
        place = await built(task, site, run, kind="cargo", by=stamp(cargo), build=steps)
        program = place.folder / await asyncio.to_thread((place.folder / PROGRAM).read_text)
        return Prepared(Command((str(program),), task.folder, utf8(task.env)))


async def _build(cargo: str, manifest: Path, task: Task, run: Teller, place: Place) -> None:
    environ = {
        **CARGO.environment(processes.inherited_environment(builders=False)),
        **PLAIN,
        "CARGO_TARGET_DIR": str(place.folder / "target"),
    }
    cwd = place.source / manifest.parent
    binaries = await _binaries(Command((cargo, *METADATA), cwd, environ), tag=task.tag)
    binary = choose(binaries, _wanted(task), root=place.source)
    options = await asyncio.to_thread(options_of, cwd, place.source)
    argv = (cargo, "build", "--release", "--package", binary.package, "--bin", binary.name, *options)
    await build(Command(argv, cwd, environ), run=run, tag=task.tag, what="cargo build")
    await asyncio.to_thread(_name_program, place.folder, binary)


async def _binaries(command: Command, *, tag: str) -> list[Binary]:
    """What can be built, by ``cargo metadata``. Raises ``Failed`` with what cargo says of the manifest."""
    said: dict[str, list[str]] = {"stdout": [], "stderr": []}
    done = await processes.run(
        command, tag=tag, on_line=lambda stream, line: said[stream].append(line), timeout_s=METADATA_S
    )
    if not done.exit.ok:
        raise Failed(f"cargo cannot read the package ({done.exit}): {' '.join(' '.join(said['stderr']).split())}")
    try:
        return binaries_of(json.loads("".join(said["stdout"])))
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(
            f"What cargo tells of the package cannot be understood ({error!r}): is it an old cargo?"
        ) from error


def binaries_of(metadata: dict[str, Any]) -> list[Binary]:
    """The programs in what ``cargo metadata --format-version 1`` tells."""
    return [
        Binary(
            package["name"],
            target["name"],
            Path(target["src_path"]),
            is_default=target["name"] == package.get("default_run"),
        )
        for package in metadata["packages"]
        for target in package["targets"]
        if "bin" in target["kind"]
    ]


def choose(binaries: list[Binary], wanted: str, *, root: Path) -> Binary:
    """The program that ``wanted`` (the package's ``main``) names, by its name or source file; else the only one.

    Of several that nothing is said of, cargo's own ``default-run`` counts. Raises ``NotFound`` or ``InvalidInput``.
    """
    if not binaries:
        raise NotFound("The package has nothing to start: no package of its Cargo.toml has a program ([[bin]]).")
    names = ", ".join(sorted(binary.name for binary in binaries))
    found = [binary for binary in binaries if wanted in (binary.name, _relative(binary.source, root))]
    if wanted and not found:
        raise NotFound(f'"main" in package.json is {wanted}, but the programs of the Cargo.toml are {names}: mend it.')
    for some in (found, binaries, [binary for binary in binaries if binary.is_default]):
        if len(some) == 1:
            return some[0]
    raise InvalidInput(f'The package has several programs ({names}): name the one to start with "main".')


def _relative(source: Path, root: Path) -> str:
    with contextlib.suppress(ValueError):
        return source.resolve().relative_to(root.resolve()).as_posix()
    return ""


def _wanted(task: Task) -> str:
    """What ``main`` says of the program; empty where it says nothing: the manifest's file, or npm's default."""
    main = Path((task.manifest.main if task.manifest else None) or "")
    if main.name == "Cargo.toml" or LANGUAGES_BY_SUFFIX.get(main.suffix.lower(), "rust") != "rust":
        return ""
    return "" if main == Path() else main.name if "target" in main.parts else main.as_posix()


def _nearest_manifest(task: Task) -> Path:
    """The Cargo.toml beside or above the entry. Raises ``NotFound``."""
    for folder in task.entry.parents:
        if (folder / "Cargo.toml").is_file():
            return folder / "Cargo.toml"
        if folder == task.folder:
            break
    raise NotFound("The package has no Cargo.toml: make one with `cargo init`.")


def options_of(folder: Path, root: Path) -> list[str]:
    """What cargo is told besides: to keep to a lock file, and to what is vendored.

    Sources in a folder ``vendor`` count also without the ``.cargo/config.toml`` that ``cargo vendor`` asks for.
    """
    above = [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]
    locked = ["--locked"] if any((path / "Cargo.lock").is_file() for path in above) else []
    configs = [path / ".cargo" / name for path in above for name in ("config.toml", "config")]
    if any("replace-with" in _text(config) for config in configs):
        return [*locked, "--offline"]
    vendor = next((path / "vendor" for path in above if any(path.glob("vendor/*/.cargo-checksum.json"))), None)
    if vendor is None:
        return locked
    return [
        *locked,
        "--offline",
        "--config",
        'source.crates-io.replace-with="vendored"',
        "--config",
        f"source.vendored.directory={json.dumps(str(vendor), ensure_ascii=False)}",
    ]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _name_program(folder: Path, binary: Binary) -> None:
    """Write down which program was built, and remove what only the build needed."""
    program = next(_outputs(folder / "target", binary.name), None)
    if program is None:
        raise Failed(f"cargo built no program {binary.name} below target/release.")
    (folder / PROGRAM).write_text(str(program.relative_to(folder)))
    for name in LEFT_BY_CARGO:
        if not any((program.parent / name).glob("*.so")):  # a program of dynamic libraries needs them there
            shutil.rmtree(program.parent / name, ignore_errors=True)


def _outputs(target: Path, name: str) -> Iterator[Path]:
    """Where it can be: with a target triple set in the package's configuration, below a folder of that name."""
    yield from (path for path in (target / "release" / name, *target.glob(f"*/release/{name}")) if path.is_file())
