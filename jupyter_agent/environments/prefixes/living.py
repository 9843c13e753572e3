"""Which prefixes a process of this machine lives in: they are never removed, whoever started it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil


def lived_in(prefixes: Iterable[Path]) -> dict[Path, int]:
    """Prefixes to the number of a process whose program, script or working folder lies in them.

    Of a command line its first two words count, which are programs and scripts: what is named after them, as in
    ``jupyter agent env remove PATH``, is no sign of life.

    Blocks: all processes of the machine are looked at, as far as they may be.
    """
    wanted = {name: prefix for prefix in prefixes for name in {str(prefix), os.path.realpath(prefix)}}
    found: dict[Path, int] = {}
    for process in psutil.process_iter():
        for text in _places(process) if wanted else ():
            for name, prefix in wanted.items():
                if _names(text, name):
                    found.setdefault(prefix, process.pid)
    return found


def _names(text: str, folder: str) -> bool:
    at = text.find(folder)
    return at >= 0 and text[at + len(folder) :][:1] in ("", "/", "\\", ":", " ")


def _places(process: psutil.Process) -> Iterator[str]:
    for ask in (process.exe, process.cwd):
        with contextlib.suppress(psutil.Error, OSError):
            yield ask()
    with contextlib.suppress(psutil.Error, OSError):
        yield from process.cmdline()[:2]
