"""What of a package's files is started, and where in an unpacked archive the package lies.

The rules are those of openiap-protocol.md, section 14, with more languages. Refuses to know how a language is run.
"""

from __future__ import annotations

import os
import platform
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from jupyter_agent.errors import InvalidInput, NotFound

LANGUAGES_BY_SUFFIX = {
    ".ipynb": "notebook",
    ".py": "python",
    **dict.fromkeys((".js", ".mjs", ".cjs", ".ts", ".mts", ".cts"), "nodejs"),
    ".ps1": "powershell",
    ".sh": "shell",
    ".php": "php",
    ".rs": "rust",
    **dict.fromkeys((".java", ".jar"), "java"),
    **dict.fromkeys((".csproj", ".fsproj", ".vbproj", ".sln", ".dll"), "dotnet"),
}

ENTRIES = {
    "notebook": ("agent.ipynb", "main.ipynb", "index.ipynb", "*.ipynb"),
    "nodejs": ("agent.js", "main.js", "index.js", "agent.ts", "main.ts", "index.ts"),
    "python": ("agent.py", "main.py", "index.py"),
    "powershell": ("index.ps1", "main.ps1", "agent.ps1"),
    "shell": ("agent.sh", "main.sh", "index.sh"),
    "php": ("agent.php", "main.php", "index.php"),
    "rust": ("Cargo.toml",),
    "java": ("Main.java", "App.java", "*.jar", "pom.xml", "build.gradle", "build.gradle.kts"),
    "dotnet": ("*.[cfv][bs]proj", "*.sln"),
}
"""Per language, what is started when ``main`` names nothing: the first that exists, a pattern if one file matches."""

MADE = ("rust", "java", "dotnet")
"""Languages whose ``main`` may name what is only made when the package is built, or something in it."""

MARKERS = ("package.json", *(name for names in ENTRIES.values() for name in names if "*" not in name))
"""One of these in a folder tells that it is a package's."""

SYSTEMS = {"linux": ("linux",), "darwin": ("darwin", "macos", "osx"), "win32": ("win32", "windows", "win")}
"""Node's names of systems, which packages use, and what else their files are called by."""

ARCHITECTURES = {"x64": ("x64", "x86_64", "amd64"), "arm64": ("arm64", "aarch64"), "arm": ("arm", "armv7l", "armhf")}

COMPLETED = (".js", ".cjs", ".mjs", ".json", "/index.js", "/index.cjs", "/index.mjs")
"""What Node puts to a ``main`` that is no file."""

PROGRAMS = (b"\x7fELF", b"#!", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
"""How files begin that a system starts: Linux's, scripts, Windows', macOS's."""


class Described(Protocol):
    """What is looked at of a manifest."""

    @property
    def name(self) -> str:
        """The package's name, for messages."""

    @property
    def main(self) -> str | None:
        """The file to start, as it was written."""

    @property
    def language(self) -> str:
        """Lower case."""

    @property
    def start(self) -> str | None:
        """Npm's ``scripts.start``."""

    @property
    def is_built(self) -> bool:
        """Whether it says that some of its files are made on the machine that runs it."""


def platform_name() -> tuple[str, str]:
    """This machine's system and processor by Node's names, like ``("linux", "x64")``."""
    machine = platform.machine().lower()
    known = next((name for name, others in ARCHITECTURES.items() if machine in others), None)
    return sys.platform, known or ("ia32" if re.fullmatch(r"i[3-6]86", machine) else machine)


def guess_language(folder: Path, main: str | None) -> str | None:
    """The language by ``main``'s suffix, else by the first usual entry that exists in ``folder``."""
    if main and (language := LANGUAGES_BY_SUFFIX.get(Path(main).suffix.lower())):
        return language
    return next(
        (key for key, names in ENTRIES.items() if any((folder / name).is_file() for name in names if "*" not in name)),
        None,
    )


def package_root(folder: Path) -> Path:
    """Where the package lies in an unpacked archive: ``folder``, or the folder one level down that holds it.

    npm puts everything below ``package/``, other tools below other names or none.
    """
    if _marked(folder):
        return folder
    below = sorted((path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()), key=_npm_first)
    found = next((path for path in below if _marked(path)), None)
    if found is None and len(below) == 1 and sum(1 for _ in folder.iterdir()) == 1:
        return below[0]
    return found or folder


def entry_point(folder: Path, manifest: Described) -> Path:
    """The file that is started.

    For Node ``scripts.start`` counts first, which is npm's to start: then it is ``package.json``. Else it is ``main``,
    else the first of the usual names, for ``exec`` the program for this machine. A ``main`` of another language than
    the package's is npm's default and does not count; one that is made when the package is built need not be there
    yet. Raises ``NotFound`` naming what was looked for, ``InvalidInput`` for a ``main`` that leaves the package.
    """
    if manifest.language == "nodejs" and manifest.start and (folder / "package.json").is_file():
        return folder / "package.json"
    if manifest.main and not _of_other_language(folder, manifest) and (main := _main(folder, manifest)):
        return main
    if manifest.language == "exec":
        return _program(folder, manifest.name)
    usual = ENTRIES.get(manifest.language, ())
    for name in usual:
        found = [path for path in folder.glob(name) if path.is_file()]
        if len(found) == 1:
            return found[0]
    if manifest.main and manifest.language in MADE and not _of_other_language(folder, manifest):
        return folder / os.path.normpath(manifest.main)
    looked = f" (looked for {', '.join(usual)})" if usual else ""
    raise NotFound(
        f'The package {manifest.name} has nothing to start{looked}: name the file with "main" in its package.json.'
    )


def _of_other_language(folder: Path, manifest: Described) -> bool:
    main = manifest.main or ""
    other = LANGUAGES_BY_SUFFIX.get(Path(main).suffix.lower())
    if other is None or other == manifest.language or manifest.language not in ENTRIES:
        return False
    if (folder / main).is_file():
        raise InvalidInput(
            f'The package {manifest.name} has the language "{manifest.language}" but its "main", {main}, is of '
            f'"{other}": change one of them in its package.json.'
        )
    return True


def _main(folder: Path, manifest: Described) -> Path | None:
    """The file that ``main`` names; ``None`` where it may name what is no file."""
    main = manifest.main or ""
    target = (folder / main).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise InvalidInput(f'"main" in package.json is {main}, which lies outside the package: name a file in it.')
    normal = os.path.normpath(main)
    path = folder / normal
    if target.is_file():
        return path
    if manifest.language == "exec" and target.is_dir():
        return _program(target, manifest.name)
    if manifest.language in MADE:
        return None
    if manifest.language == "nodejs":
        completed = [made for end in COMPLETED if (made := folder / f"{normal}{end}").is_file()]
        if completed or manifest.is_built or (folder / "tsconfig.json").is_file():
            return completed[0] if completed else path
    raise NotFound(f'"main" in package.json is {main}, but there is no such file in the package: mend one of them.')


def _program(folder: Path, name: str) -> Path:
    """The only program in the folder, or one level down; of several that for this system and processor."""
    for level in (_files(folder), (path for below in sorted(folder.iterdir()) for path in _files(below))):
        found = _best(level)
        if chosen := choose(folder, found):
            return chosen
        if found:
            system, processor = platform_name()
            names = ", ".join(str(path.relative_to(folder)) for path in found[:5])
            raise NotFound(
                f"The package {name} has {len(found)} programs ({names}) but not one for {system}-{processor} alone: "
                'name the file with "main" in its package.json.'
            )
    raise NotFound(f'The package {name} has no program to start: name the file with "main" in its package.json.')


def choose(folder: Path, programs: list[Path]) -> Path | None:
    """The one there is, else the only one called ``<system>-<processor>``, else ``<system>``; ``None``: none or more.

    The folders that a program lies in belong to its name.
    """
    system, processor = platform_name()
    systems = SYSTEMS.get(system, (system,))
    processors = ARCHITECTURES.get(processor, (processor,))
    called = {path: str(path.relative_to(folder)).lower() for path in programs}
    exact = [path for path, name in called.items() if any(_says(name, s, p) for s in systems for p in processors)]
    roughly = [path for path, name in called.items() if any(_says(name, s) for s in systems)]
    for found in (programs, exact, roughly):
        if len(found) == 1:
            return found[0]
    return None


def _says(name: str, *words: str) -> bool:
    """Whether a file's name has these words in a row, and not within longer ones (``win`` is not in ``darwin``)."""
    return re.search(rf"(?<![a-z0-9]){r'[-_./ ]?'.join(map(re.escape, words))}(?![a-z0-9])", name) is not None


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir() and not folder.is_symlink():
        yield from (path for path in sorted(folder.iterdir()) if path.is_file())


def _best(files: Iterable[Path]) -> list[Path]:
    """Those that may be started and look it; else those that may; else those that look it (zips of Windows)."""
    looked = [(path, bool(path.stat().st_mode & stat.S_IXUSR), _looks_it(path)) for path in files]
    both = [path for path, may, looks in looked if may and looks]
    return both or [path for path, may, _ in looked if may] or [path for path, _, looks in looked if looks]


def _looks_it(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(PROGRAMS)
    except OSError:
        return False


def _marked(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MARKERS)


def _npm_first(path: Path) -> tuple[bool, str]:
    return path.name != "package", path.name
