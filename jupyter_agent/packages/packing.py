"""Making a package's archive: which files belong to it, and the same bytes for the same content.

Knows ignore rules, tar and gzip. What it packs, ``unpacking`` accepts: the rules for names and bounds are taken there.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec

from jupyter_agent.errors import Failed, InvalidInput
from jupyter_agent.packages.archives import BOUNDS, Bounds
from jupyter_agent.packages.entries import entry_point
from jupyter_agent.packages.manifest import FILES, Manifest, manifest_file
from jupyter_agent.packages.unpacking import check_distinct, safe_path

NEVER_PACKED = GitIgnoreSpec.from_lines(
    [
        *(".git", ".hg", ".svn", "CVS", ".gitignore", ".npmignore"),
        *("node_modules", "__pycache__", "*.py[cod]", ".venv", ".ipynb_checkpoints", ".virtual_documents"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".DS_Store", "Thumbs.db", ".*.swp", "*~"),
        *(".packing.*", ".env", ".env.*", "!.env.example", "!.env.sample", ".npmrc", ".pypirc", ".netrc"),
    ]
)
"""No ignore file brings these back: what is made anew anywhere, and what holds secrets."""

IGNORE_FILES = (".npmignore", ".gitignore")
"""The first of these in a folder counts, for what is below the folder."""

WITH_A_LIST = GitIgnoreSpec.from_lines(["/README*", "/LICENSE*", "/LICENCE*"])
"""What npm packs also when a ``files`` list does not name it."""

FIXED_TIME = 499_162_500
"""26 October 1985, which npm gives all files: a time that every tool can represent."""

Spec = tuple[PurePosixPath, GitIgnoreSpec]
"""An ignore file's rules and the folder they count in."""


def pack(folder: Path, target: Path, *, bounds: Bounds = BOUNDS) -> Path:
    """Pack the package in ``folder``; the archive's path is returned. The same content gives the same bytes.

    ``target`` is the archive's path, or a folder in which it gets its usual name (``<name>-<version>.tgz``). Everything
    is below ``package/``; empty folders are left out. Raises ``InvalidInput`` for a faulty manifest and for files that
    no archive should hold, ``NotFound`` where there is nothing to start; then no archive is left behind.
    """
    manifest = Manifest.read(folder)
    main = entry_point(folder, manifest).relative_to(folder)
    archive = target / manifest.archive_name if target.is_dir() else target
    try:
        names = select(folder, manifest, main=PurePosixPath(main.as_posix()), bounds=bounds)
    except OSError as error:
        raise InvalidInput(f"{error.filename or folder} cannot be read: {error.strerror or error}.") from error
    names = [name for name in names if folder / name != archive]
    try:
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".packing.") as building:
            made = Path(building) / "archive"
            _write(made, folder, names, bounds)
            made.replace(archive)
    except OSError as error:
        raise Failed(f"{archive} cannot be written: {error.strerror or error}.") from error
    return archive


def select(folder: Path, manifest: Manifest, *, main: PurePosixPath, bounds: Bounds = BOUNDS) -> list[PurePosixPath]:
    """The files of the package, relative to ``folder``, in the order of the archive.

    Left out is what ``NEVER_PACKED`` names, what the ignore files name, what a ``files`` list in the manifest does not
    name, other Python environments, and earlier archives of the package. The manifest is always in, and ``main`` unless
    it is made when the package is built.
    """
    listed = _listed(manifest)
    earlier = GitIgnoreSpec.from_lines([f"/{manifest.archive_stem}-*.tgz"])
    found = {PurePosixPath("package.json"), *([main] if (folder / main).is_file() else [])}
    for path in _walk(folder, PurePosixPath(), [], with_list=manifest.files is not None):
        if listed(path) and not earlier.match_file(path) and str(path) not in FILES:
            found.add(path)
        if len(found) > bounds.files:
            raise InvalidInput(
                f"{folder} holds more than {bounds.files} files: leave out what does not belong to the package with a "
                "file .npmignore in it."
            )
    try:
        for path in found:
            safe_path(str(path))
        check_distinct(found)
    except InvalidInput as error:
        raise InvalidInput(f"{folder} cannot be packed: {error}; rename it.") from error
    return sorted(found)


def _listed(manifest: Manifest) -> Callable[[PurePosixPath], bool]:
    """Whether the manifest's ``files`` list, if there is one, takes a file in; its patterns start at the root."""
    if manifest.files is None:
        return lambda _path: True
    lines = [line.removeprefix("./") for line in manifest.files]
    rooted = [line if line.startswith(("/", "!", "*")) else f"/{line}" for line in lines]
    spec = GitIgnoreSpec.from_lines(rooted)
    return lambda path: spec.match_file(path) or WITH_A_LIST.match_file(path)


def _walk(folder: Path, below: PurePosixPath, outer: list[Spec], *, with_list: bool) -> Iterator[PurePosixPath]:
    """The files below ``folder / below`` that no rule ignores; a ``files`` list replaces the rules at the root."""
    here = folder / below
    specs = outer if with_list and not below.parts else [*outer, *_specs(here, below)]
    with os.scandir(here) as entries:
        for entry in entries:
            path = below / entry.name
            if any("\ud800" <= char <= "\udfff" for char in entry.name):
                raise InvalidInput(f"{folder} cannot be packed: the name of {entry.name!r} is not UTF-8; rename it.")
            is_folder = entry.is_dir(follow_symlinks=False)
            if _ignored(path, specs, is_folder=is_folder):
                continue
            if not is_folder:
                _check_file(folder, path)
                yield path
            elif not Path(entry.path, "pyvenv.cfg").is_file():
                yield from _walk(folder, path, specs, with_list=with_list)


def _specs(folder: Path, below: PurePosixPath) -> list[Spec]:
    for name in IGNORE_FILES:
        file = folder / name
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            try:
                return [(below, GitIgnoreSpec.from_lines(lines))]
            except ValueError as error:
                raise InvalidInput(f"{file} has a rule that is no pattern ({error}): mend it.") from error
    return []


def _ignored(path: PurePosixPath, specs: list[Spec], *, is_folder: bool) -> bool:
    """As git decides: the innermost ignore file that says something about the path."""
    slash = "/" if is_folder else ""
    if NEVER_PACKED.match_file(path.name + slash):
        return True
    for base, spec in reversed(specs):
        include = spec.check_file(f"{path.relative_to(base)}{slash}").include
        if include is not None:
            return include
    return False


def _check_file(folder: Path, path: PurePosixPath) -> None:
    """Refuse what is no file, and links that lead out of the package; a link to a file in it is packed as the file."""
    file = folder / path
    target = file.resolve()
    if file.is_symlink() and not target.is_relative_to(folder.resolve()):
        raise InvalidInput(f"{file} is a link that leads out of the package: put the file itself there.")
    if not target.exists():
        raise InvalidInput(f"{file} is a link to nothing: remove it or leave it out with a file .npmignore.")
    if not target.is_file():
        raise InvalidInput(f"{file} is neither a file nor a link to one: leave it out with a file .npmignore.")


def _write(made: Path, folder: Path, names: list[PurePosixPath], bounds: Bounds) -> None:
    with made.open("xb") as raw:
        # No file name and no time in gzip's header.
        with (
            gzip.GzipFile("", "wb", 9, raw, mtime=0) as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            total = 0
            for name in names:
                source = manifest_file(folder) if str(name) == "package.json" else None
                total += _add(tar, name, source or folder / name)
                if total > bounds.total_bytes:
                    raise InvalidInput(
                        f"{folder} holds more than {bounds.total_bytes >> 20} MiB: leave out what does not belong to "
                        "the package with a file .npmignore in it."
                    )
        raw.flush()
        os.fsync(raw.fileno())


def _add(tar: tarfile.TarFile, name: PurePosixPath, source: Path) -> int:
    """Add one file without what differs from machine to machine; its size."""
    try:
        with source.open("rb") as file:
            status = os.fstat(file.fileno())
            info = tarfile.TarInfo(f"package/{name}")
            info.size = status.st_size
            info.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            info.mtime = FIXED_TIME
            tar.addfile(info, file)
    except PermissionError as error:
        raise InvalidInput(f"{source} cannot be read: allow it, or leave it out with a file .npmignore.") from error
    return info.size
