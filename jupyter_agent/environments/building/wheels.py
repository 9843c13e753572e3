"""The pip part: uv installs the wheels that are locked, with hard links from its cache, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import os
import posixpath
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jupyter_agent.environments.building.compiling import interpreter
from jupyter_agent.environments.building.locked import Wheel
from jupyter_agent.environments.telling import Teller
from jupyter_agent.environments.uv import Uv
from jupyter_agent.errors import Failed

ALWAYS = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--link-mode", "hardlink", "--no-config")
"""Without ``--no-deps`` uv would replace conda's packages."""


@dataclass(frozen=True)
class Entry:
    """A file of a wheel: where it is in the prefix, its sha256 as RECORD writes it, its size; both may be ``""``."""

    path: str
    sha256: str
    size: str

    def is_changed(self, prefix: Path) -> bool:
        """Whether it is not what the wheel had. Raises ``FileNotFoundError``."""
        data = (prefix / self.path).read_bytes()
        found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        return bool(self.sha256) and found != self.sha256


async def install(
    wheels: tuple[Wheel, ...],
    prefix: Path,
    *,
    site: str,
    environ: Mapping[str, str],
    cache: Path,
    offline: bool,
    distrust: bool,
    teller: Teller,
    tag: str,
) -> dict[Wheel, list[Entry]]:
    """Install them; the files of each. ``site`` is the prefix's folder of packages.

    ``distrust``: what came from uv's cache is held against each wheel's own list, and fetched anew when it differs.
    Raises ``Failed`` with uv's explanation.
    """
    uv = Uv(environ, cache=cache)
    options = (*ALWAYS, *(("--offline",) if offline else ()), "--python", str(interpreter(prefix)))
    teller.show_progress("pip", 0, len(wheels))
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=prefix) as folder:  # a kill leaves it in what is removed
        file = Path(folder) / "wheels.txt"
        file.write_text("".join(map(_line, wheels)), encoding="utf-8")
        run = partial(uv.run, cwd=Path(folder), say=teller.note, tag=tag, indexes=False)
        await run("pip", "install", *options, "--requirements", str(file))
        found = installed(prefix, site, wheels)
        if distrust and (changed := [wheel for wheel in wheels if _is_changed(found[wheel], prefix)]):
            names = [wheel.name for wheel in changed]
            teller.note(f"Packages of the cache were changed and are fetched anew: {', '.join(names)}")
            await run("cache", "clean", *names)
            again = [part for name in names for part in ("--reinstall-package", name)]
            await run("pip", "install", *options, *again, "--requirements", str(file))
            found = installed(prefix, site, wheels)
    teller.show_progress("pip", len(wheels), len(wheels))
    return found


def installed(prefix: Path, site: str, wheels: Iterable[Wheel]) -> dict[Wheel, list[Entry]]:
    """The files of each wheel in the prefix. Raises ``Failed`` when one is not there."""
    places = {_normalized(folder.name.partition("-")[0]): folder for folder in (prefix / site).glob("*.dist-info")}
    found = {}
    for wheel in wheels:
        place = places.get(_normalized(wheel.name))
        if place is None:
            raise Failed(f"The pip package {wheel.name} is not in the environment after its installation.")
        found[wheel] = list(entries(place, site))
    return found


def entries(place: Path, site: str) -> Iterator[Entry]:
    """The files that the RECORD in a ``.dist-info`` folder names (PEP 376)."""
    with (place / "RECORD").open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            if row:
                path, digest, size = (*row, "", "")[:3]
                yield Entry(posixpath.normpath(posixpath.join(site, path)), digest.removeprefix("sha256="), size)


def by_uv(prefix: Path) -> Iterator[Path]:
    """The ``.dist-info`` of each package that uv has put into a prefix, wherever its Python has its packages."""
    where = "Lib/site-packages" if os.name == "nt" else "lib/*/site-packages"
    for place in sorted(prefix.glob(f"{where}/*.dist-info")):
        with contextlib.suppress(OSError):
            if (place / "INSTALLER").read_bytes().strip() == b"uv":
                yield place


def _is_changed(files: Iterable[Entry], prefix: Path) -> bool:
    try:
        return any(entry.is_changed(prefix) for entry in files)
    except FileNotFoundError:
        return True


def _line(wheel: Wheel) -> str:
    return f"{wheel.name} @ {wheel.url} --hash=sha256:{wheel.sha256}\n"


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
