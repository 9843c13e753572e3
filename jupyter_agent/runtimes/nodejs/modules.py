"""The installed modules in a run's private copy: links to where they were installed once.

``node_modules`` itself is a folder of the run's own, so that what programs add to it (``.cache``) is no other run's,
and so is what the package's own parts in it lead to. Everything here blocks.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from jupyter_agent.folders import copy_file, remove_tree

MODULES = "node_modules"

Files = dict[str, tuple[int, int]]
"""Path below a folder -> (bytes, mtime in ns)."""


def files_in(root: Path) -> Files:
    """The files of a package's folder as they are now, without those of installed modules; links among them."""
    found = {}
    for path, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != MODULES]
        links = [name for name in folders if os.path.islink(os.path.join(path, name))]  # noqa: PTH114, PTH118 - many
        for name in (*names, *links):
            known = os.lstat(os.path.join(path, name))  # noqa: PTH118 - many
            found[os.path.relpath(os.path.join(path, name), root)] = (known.st_size, known.st_mtime_ns)  # noqa: PTH118
    return found


def write_made(root: Path, before: Files, record: Path) -> None:
    """Write down which files of ``root`` are new or changed, and where installed modules are."""
    made = sorted(name for name, now in files_in(root).items() if before.get(name) != now)
    record.write_text(json.dumps({"files": made, "modules": list(_module_folders(root))}), encoding="utf-8")


def use(root: Path, record: Path, work: Path) -> None:
    """Give the private copy ``work`` what was made and installed in ``root``, as it was written down."""
    made = json.loads(record.read_text(encoding="utf-8"))
    for name in made["files"]:
        _copy(root / name, work / name)
    for name in made["modules"]:
        link(root / name, work / name, root)


def link(modules: Path, target: Path, root: Path) -> None:
    """Make ``target`` a folder that leads to all in ``modules``; parts of ``root`` itself lead to the copy's own."""
    if target.is_symlink() or target.is_file():
        target.unlink()
    remove_tree(target)
    target.mkdir(parents=True)
    for entry in os.scandir(modules):
        if entry.name.startswith("@") and entry.is_dir(follow_symlinks=False):
            (target / entry.name).mkdir()
            for below in os.scandir(entry):
                _lead(below, target / entry.name / below.name, root)
        elif entry.name != ".package-lock.json":  # npm's record of a folder in which it may change things
            _lead(entry, target / entry.name, root)


def _lead(entry: os.DirEntry[str], target: Path, root: Path) -> None:
    if entry.is_symlink():
        place = os.path.realpath(entry.path)
        if Path(place).is_relative_to(root.resolve()) and MODULES not in Path(place).relative_to(root.resolve()).parts:
            os.symlink(os.readlink(entry.path), target)  # noqa: PTH115, PTH211 - as it is written, one of many
            return
    os.symlink(entry.path, target)  # noqa: PTH211 - one of many


def _module_folders(root: Path) -> Iterator[str]:
    for path, folders, _ in os.walk(root):
        if MODULES in folders:
            folders.remove(MODULES)
            yield os.path.relpath(Path(path, MODULES), root)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or target.exists():
        if target.is_dir() and not target.is_symlink():
            remove_tree(target)
        else:
            target.unlink()
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif stat.S_ISREG(source.stat().st_mode):
        copy_file(str(source), str(target))
        shutil.copymode(source, target)
