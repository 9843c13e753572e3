"""The running CPython as a conda package that can be installed anywhere on this operating system.

An interpreter finds its library from where its own program lies, so a copy works at any prefix as it is. What has to
change: where the program looks for libpython (an absolute path in builds of pyenv or ``make install``), what
``sysconfig`` says of the build, and what a distribution has put in to find its own folders. Libraries of the system
(libssl, libsqlite3, ...) are not taken along: this is right for the same operating system alone.

Layouts: ``make install`` (pyenv, python.org), Debian's (no prefix of its own; its ``site`` and ``sysconfig`` know
``dist-packages``; no ensurepip), conda's and python-build-standalone's (all libraries inside the prefix, ``$ORIGIN``
in them; the latter was built for ``/install``).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jupyter_agent import processes
from jupyter_agent.environments.channel import debian, elf
from jupyter_agent.environments.channel.archives import PLACEHOLDER, File, Link, Package, Prefixed
from jupyter_agent.environments.channel.wheels import Target
from jupyter_agent.errors import InvalidInput

PROBE = """
import json, os, platform, sys, sysconfig
base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
paths = sysconfig.get_paths("posix_prefix", base)
try:
    glibc = os.confstr("CS_GNU_LIBC_VERSION").split()[1]
except (ValueError, OSError, AttributeError, IndexError):
    glibc = ""
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": platform.python_version(),
    "program": os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable),
    "prefix": os.path.realpath(sys.base_prefix),
    "stdlib": os.path.realpath(os.path.dirname(os.__file__)),
    "modules": sysconfig.get_config_var("DESTSHARED") or "",
    "library": sys.platlibdir,
    "include": paths["include"],
    "recorded": getattr(__import__(sysconfig._get_sysconfigdata_name()), "build_time_vars", {}).get("prefix", ""),
    "glibc": glibc,
    "machine": platform.machine(),
    "system": sys.platform,
    "markers": {
        "implementation_name": sys.implementation.name,
        "implementation_version": platform.python_version(),
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_system": platform.system(),
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    },
}))
"""
"""What an interpreter says of itself; of the one that it is a virtual environment of, where it is one."""

TESTS = frozenset(("test", "tests", "idle_test", "__pycache__", "site-packages", "dist-packages"))
"""Folders of the library that are not taken: the interpreter's own tests, what was compiled or installed."""

TEST_MODULES = re.compile(r"_test\w*\.|_ctypes_test|_xxtestfuzz|xxlimited")

SYSTEM_PREFIXES = ("/", "/usr")
"""A prefix that is shared with the whole system: its name in a text mostly means something else."""

DATA = ("lib/tcl[0-9]*", "lib/tk[0-9]*", "share/terminfo", "ssl")
"""What libraries need that lie in the interpreter's own prefix: conda's, python-build-standalone's."""

FOLDERS = re.compile(
    r"(?<=\n )'(?P<name>prefix|exec_prefix|\w*DIR|\w*LIBDEST|\w*DESTLIB|DESTSHARED|DESTDIRS|INCLUDEPY|CONFINCLUDEPY"
    r"|LIBPC|LIBPL|INCLDIRSTOMAKE|datarootdir|srcdir|projectbase)': '(?P<value>[^'\n]*)'"
)
"""Lines of ``_sysconfigdata`` that name the build's folders."""


@dataclass(frozen=True)
class Host:
    """An interpreter and where it has its parts; ``folder`` is its library's name, ``python3.11``."""

    version: str
    program: Path
    prefix: Path
    stdlib: Path
    modules: Path
    library: str
    include: Path
    recorded: str
    glibc: str
    target: Target

    @property
    def python(self) -> str:
        """``3.11``."""
        return self.target.python

    @property
    def folder(self) -> str:
        """The library's place below the prefix."""
        return f"{self.library}/{self.stdlib.name}"

    @functools.cached_property
    def padded(self) -> frozenset[Path]:
        """Files of a conda environment in which the prefix stands over a longer placeholder, padded with zeros."""
        found = set()
        for file in (self.prefix / "conda-meta").glob("*.json"):
            for path in json.loads(file.read_text(encoding="utf-8")).get("paths_data", {}).get("paths", ()):
                if path.get("file_mode") == "binary":
                    found.add((self.prefix / path["_path"]).resolve())
        return frozenset(found)

    @property
    def shares_the_system(self) -> bool:
        """Whether its prefix is the system's own."""
        return str(self.prefix) in SYSTEM_PREFIXES


async def host(program: str = sys.executable, *, tag: str) -> Host:
    """What the interpreter at ``program`` is. Raises ``InvalidInput`` for one of which no package can be made."""
    output = await _printed((program, "-I", "-c", PROBE), tag)
    try:
        told = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise InvalidInput(f"{program} does not say what it is: {output.strip()[-500:]}") from None
    if told["implementation"] != "cpython" or told["system"] != "linux":
        raise InvalidInput(
            f"A channel is made from CPython on Linux; {program} is {told['implementation']} on {told['system']}."
        )
    return _host(told)


def _host(told: dict[str, Any]) -> Host:
    stdlib = Path(told["stdlib"])
    modules = Path(told["modules"])
    python = ".".join(told["version"].split(".")[:2])
    return Host(
        version=told["version"],
        program=Path(told["program"]),
        prefix=Path(told["prefix"]),
        stdlib=stdlib,
        modules=modules if modules.is_dir() else stdlib / "lib-dynload",
        library=told["library"],
        include=Path(told["include"]),
        recorded=told["recorded"],
        glibc=told["glibc"],
        target=Target(
            python=python,
            subdir=f"linux-{MACHINES.get(told['machine'], told['machine'])}",
            site_packages=f"lib/{stdlib.name}/site-packages",
            markers=told["markers"],
        ),
    )


MACHINES = {"x86_64": "64", "i686": "32", "i386": "32"}


async def _printed(argv: tuple[str, ...], tag: str) -> str:
    environ = processes.inherited_environment()
    done = await processes.run(processes.Command(argv, Path("/"), environ), tag=tag, timeout_s=600)
    return done.output


async def package(host: Host, *, pip: Path | None, tag: str, form: str) -> Package:
    """The ``python`` package; ``pip``: its wheel, for an interpreter that has no ensurepip."""
    with tempfile.TemporaryDirectory(prefix="jupyter-agent-python-") as scratch:
        small = await _stripped(host, Path(scratch), tag)
        files = {file.path: file for file in _files(host, small)}
    if pip is not None and not debian.has_ensurepip(host.stdlib):
        files = {path: file for path, file in files.items() if not path.startswith(f"{host.folder}/ensurepip/")}
        files |= {file.path: file for file in debian.ensurepip(host.folder, pip)}
    short = host.python.replace(".", "")
    return Package(
        name="python",
        version=host.version.replace("+", ""),
        build=f"h{_digest(files.values(), form)}_cpython",
        subdir=host.target.subdir,
        depends=("__unix", *([f"__glibc >={host.glibc}"] if host.glibc else [])),
        constrains=(f"python_abi {host.python}.* *_cp{short}",),
        license="PSF-2.0",
        summary="The CPython of the machine on which this channel was made; for the same operating system only",
        files=tuple(files.values()),
        site_packages=host.target.site_packages,
    )


def _digest(files: Iterable[File | Link], form: str) -> str:
    found = hashlib.sha256(form.encode())
    for file in sorted(files, key=lambda file: file.path):
        found.update(f"\0{file.path}\0".encode())
        if isinstance(file, Link):
            found.update(file.target.encode())
            continue
        with file.open() as stream:
            found.update(hashlib.sha256(stream.read()).digest() + f"{file.executable}{file.prefixed}".encode())
    return found.hexdigest()[:10]


def _files(host: Host, small: Mapping[Path, bytes]) -> Iterator[File | Link]:
    """All files of the package, in memory: it is some 40 MB, read once."""
    taken = list(_found(host))
    program = f"bin/{host.program.name}" if PROGRAM.fullmatch(host.program.name) else f"bin/python{host.python}"
    taken.append((program, host.program))
    needed: set[str] = set()
    for path, source in taken:
        data = small.get(source.resolve()) or source.read_bytes()
        needed |= elf.dynamic(data).needed if elf.is_elf(data) else frozenset()
        file = _adapted(host, path, source, data)
        yield file
        if path == program:
            yield from _own_library(file, needed)
    yield from (Link(f"bin/{name}", PurePosixPath(program).name) for name in _names(host, program))
    yield from _libraries(host, needed, small)
    yield File.of(f"{host.target.site_packages}/README.txt", b"Packages of this environment lie here.\n")


def _own_library(program: File, needed: set[str]) -> Iterator[Link]:
    """The link that ``_with_own_library`` has made the program look for."""
    with program.open() as stream:
        names = elf.dynamic(stream.read()).needed
    if PurePosixPath(OWN_LIBRARY).name in names:
        library = next(name for name in needed if name.startswith("libpython"))
        yield Link(OWN_LIBRARY, f"../lib/{library}")


PROGRAM = re.compile(r"python\d+\.\d+[a-z]*")


def _names(host: Host, program: str) -> Iterator[str]:
    for name in ("python", "python3", f"python{host.python}"):
        if f"bin/{name}" != program:
            yield name


def _found(host: Host) -> Iterator[tuple[str, Path]]:
    """``(path below the prefix, file)`` of the library, its compiled modules, and the headers."""
    yield from _walked(host.stdlib, host.folder)
    if not host.modules.is_relative_to(host.stdlib):
        yield from _walked(host.modules, f"{host.folder}/lib-dynload")
    if host.include.is_dir():
        yield from _walked(host.include, f"include/{host.include.name}")
    for pattern in () if host.shares_the_system else DATA:
        for folder in sorted(host.prefix.glob(pattern)):
            yield from _walked(folder, folder.relative_to(host.prefix).as_posix())


def _walked(source: Path, folder: str) -> Iterator[tuple[str, Path]]:
    for root, folders, names in os.walk(source, followlinks=False):
        folders[:] = sorted(name for name in folders if name not in TESTS)
        for name in sorted(names):
            file = Path(root) / name
            relative = file.relative_to(source).as_posix()
            if _is_taken(relative) and file.is_file():
                yield f"{folder}/{relative}", file


def _is_taken(relative: str) -> bool:
    """Whether a file of the library belongs to it wherever it lies."""
    name = PurePosixPath(relative).name
    if relative in debian.LEFT_OUT or name.endswith((".a", ".o", ".pyc")) or TEST_MODULES.match(name):
        return False
    return not relative.startswith("config-") or name == "Makefile"


def _libraries(host: Host, needed: set[str], small: Mapping[Path, bytes]) -> Iterator[File | Link]:
    """The shared libraries that lie in the interpreter's own prefix and are needed, and what those need."""
    if host.shares_the_system:
        return
    done: set[str] = set()
    while wanted := sorted(needed - done):
        done |= set(wanted)
        for name in wanted:
            source = host.prefix / "lib" / name
            if not source.is_file():
                continue
            data = small.get(source.resolve()) or source.read_bytes()
            needed = needed | elf.dynamic(data).needed
            yield _adapted(host, f"lib/{name}", source, data)


def _adapted(host: Host, path: str, source: Path, data: bytes) -> File:
    """The file as it has to be at another prefix."""
    executable = os.access(source, os.X_OK)
    if elf.is_elf(data):
        return _adapted_binary(host, path, source, data)
    changed = data
    if path.startswith(f"{host.folder}/") and path.endswith(".py"):
        relative = path.removeprefix(f"{host.folder}/")
        if relative in debian.CHANGED:
            changed = debian.undone(relative, data.decode()).encode()
    replaced = _with_placeholder(host, path, changed)
    return File.of(path, replaced, executable=executable, prefixed="text" if replaced != changed else "")


def _adapted_binary(host: Host, path: str, source: Path, data: bytes) -> File:
    if path.startswith("bin/") or PurePosixPath(path).name.startswith("libpython"):
        data = debian.thawed(data)
    relocated = _relocated(host, path, data)
    replaced = relocated
    if source.resolve() in host.padded:
        replaced = elf.with_placeholder(relocated, str(host.prefix), PLACEHOLDER)
    prefixed: Prefixed = "binary" if replaced != relocated else ""
    return File.of(path, replaced, executable=os.access(source, os.X_OK), prefixed=prefixed)


def _relocated(host: Host, path: str, data: bytes) -> bytes:
    """A program or library that looks for others beside itself, where it looked into the prefix by its full path."""
    found = elf.dynamic(data).path
    if found is None or not found[1]:
        return _with_own_library(host, path, data)
    up = "/".join(".." for _ in PurePosixPath(path).parts[:-1])
    places = [
        f"$ORIGIN/{up}{place.removeprefix(prefix)}"
        if (prefix := next((one for one in _prefixes(host) if place == one or place.startswith(f"{one}/")), ""))
        else place
        for place in found[1].split(":")
    ]
    changed = elf.with_path(data, ":".join(dict.fromkeys(places)))
    if changed is not None and any(place.startswith("$ORIGIN") for place in places):
        return changed
    return _with_own_library(host, path, data)


OWN_LIBRARY = "bin/libpython"
"""Beside the program, for one that looks for libpython in the system's folders: a link to it."""


def _with_own_library(host: Host, path: str, data: bytes) -> bytes:
    """A program without a search path (Docker's official images have such), or one too short to be changed.

    It is told the file instead of the name: ``$ORIGIN`` may stand there, too.
    """
    if not path.startswith("bin/") or host.shares_the_system:
        return data
    name = next((name for _, name in elf.dynamic(data).needs if name.startswith("libpython")), "")
    return elf.with_need(data, name, f"$ORIGIN/{PurePosixPath(OWN_LIBRARY).name}") or data


def _prefixes(host: Host) -> list[str]:
    """The prefixes that the interpreter was built for and lies in, longest first; none that is the system's."""
    found = {str(host.prefix), host.recorded} - {"", *SYSTEM_PREFIXES}
    return sorted(found, key=len, reverse=True)


BUILD = re.compile(r"_sysconfigdata.*\.py|_sysconfig_vars.*\.json|build-details\.json|Makefile")
"""Files of the library that say how and for which prefix it was built. Elsewhere a prefix such as ``/usr/local`` means
the system's own folder."""


def _with_placeholder(host: Host, path: str, data: bytes) -> bytes:
    """A text in which the prefix stands, with the placeholder in its place."""
    name = PurePosixPath(path).name
    if not BUILD.fullmatch(name):
        return data
    if host.shares_the_system:
        named = name.startswith("_sysconfigdata")
        return FOLDERS.sub(lambda found: _in_folders(host, found), data.decode()).encode() if named else data
    for prefix in _prefixes(host):
        whole = rb"(?:(?<![\w./-])|(?<=-[LI]))" + re.escape(prefix.encode()) + rb"(?![\w.-])"
        data = re.sub(whole, PLACEHOLDER.encode(), data)
    return data


def _in_folders(host: Host, found: re.Match[str]) -> str:
    value = re.sub(rf"(?<![\w./-]){re.escape(str(host.prefix))}(?![\w.-])", PLACEHOLDER, found["value"])
    return f"'{found['name']}': '{value}'"


async def _stripped(host: Host, scratch: Path, tag: str) -> dict[Path, bytes]:
    """Programs and libraries without what only a debugger needs, where ``strip`` is there; builds of pyenv have it."""
    if shutil.which("strip") is None or host.shares_the_system:
        return {}
    large = [host.program, *(host.prefix / "lib").glob("libpython*.so*"), *host.modules.glob("*.so")]
    copies: dict[Path, Path] = {}
    for source in {file.resolve() for file in large}:
        data = source.read_bytes()
        if elf.is_elf(data) and b"\0.debug_info\0" in data:
            copies[source] = scratch / str(len(copies))
            copies[source].write_bytes(data)
    if copies:
        await _printed(("strip", "--strip-unneeded", *(str(copy) for copy in copies.values())), tag)
    return {source: copy.read_bytes() for source, copy in copies.items()}
