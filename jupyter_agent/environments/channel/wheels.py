"""Wheels, read with distrust: what is in one, and the conda package that holds the same.

A wheel comes from outside. One that names files outside of itself, the same file twice, more than its size can
account for, or contents that are not what its RECORD says, is refused in a sentence, before anything is written.
"""

from __future__ import annotations

import base64
import configparser
import csv
import email
import functools
import hashlib
import io
import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from jupyter_agent.environments.channel import dependencies
from jupyter_agent.environments.channel.archives import PLACEHOLDER, File, Package
from jupyter_agent.errors import InvalidInput

MOST_FILES = 200_000

MOST_BYTES = 256 << 20
"""Of a wheel's contents: more are taken from one that is itself large, ``MOST_RATIO`` times its size."""

MOST_RATIO = 50

MOST_METADATA_BYTES = 16 << 20

HASHES = ("sha256", "sha384", "sha512")
"""What RECORD may name a file's hash by: the wheel format asks for sha256 or better."""

SIGNATURES = ("RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True)
class Target:
    """Which interpreter a channel is for: ``python`` is ``3.11``, ``site_packages`` below the prefix."""

    python: str
    subdir: str
    site_packages: str
    markers: Mapping[str, str]
    glibc: str = ""


@dataclass(frozen=True)
class Wheel:
    """A wheel's own account of itself; ``entry_points`` are ``(name, module:function)``."""

    file: Path
    name: str
    version: str
    tags: frozenset[Tag]
    metadata: Message
    entry_points: tuple[tuple[str, str], ...]
    members: tuple[zipfile.ZipInfo, ...]
    hashes: Mapping[str, tuple[str, str]]
    dist_info: str
    sha256: str
    pure: bool

    @functools.cached_property
    def requirements(self) -> tuple[Requirement, ...]:
        """What it says it needs. Raises ``InvalidInput``."""
        lines = self.metadata.get_all("Requires-Dist") or []
        return tuple(dependencies.parsed(str(line), of=self.file.name) for line in lines)

    @functools.cached_property
    def extras(self) -> frozenset[str]:
        """The names of its extras, in their normal form."""
        return frozenset(canonicalize_name(str(extra)) for extra in self.metadata.get_all("Provides-Extra") or [])

    @functools.cached_property
    def archive(self) -> zipfile.ZipFile:
        """The open file; once for all its members, for each opening reads the whole table of contents."""
        return zipfile.ZipFile(self.file)

    def close(self) -> None:
        """Close it, when it was opened."""
        if "archive" in self.__dict__:
            self.__dict__.pop("archive").close()

    @classmethod
    def read(cls, file: Path) -> Wheel:
        """The wheel in a file. Raises ``InvalidInput`` for one that is broken or means harm."""
        try:
            name, version, _build, tags = parse_wheel_filename(file.name)
            with zipfile.ZipFile(file) as archive:
                return _read(file, str(name), str(version), tags, archive)
        except (InvalidWheelFilename, zipfile.BadZipFile, configparser.Error, UnicodeError, csv.Error) as error:
            raise refused(file, f"it cannot be read ({error})") from error
        except (NotImplementedError, RuntimeError, EOFError) as error:  # an unknown compression, a password, cut short
            raise refused(file, f"it cannot be unpacked ({error})") from error


def refused(file: Path, why: str) -> InvalidInput:
    """What is said of a wheel that is not taken."""
    told = " ".join(why.split())  # a parser's error may be of several lines
    return InvalidInput(f"The wheel {file.name} is not used: {told}. Delete it, or ask for another version.")


def _read(file: Path, name: str, version: str, tags: frozenset[Tag], archive: zipfile.ZipFile) -> Wheel:
    members = _checked_members(file, archive)
    dist_info = _dist_info(file, name, version, members)
    metadata = email.message_from_string(_text(file, archive, f"{dist_info}/METADATA"))
    if canonicalize_name(str(metadata.get("Name", ""))) != name:
        raise refused(file, f"its METADATA is about {str(metadata.get('Name'))[:100]!r}")
    about = email.message_from_string(_text(file, archive, f"{dist_info}/WHEEL"))
    points = _text(file, archive, f"{dist_info}/entry_points.txt", needed=False)
    with file.open("rb") as raw:
        sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
    return Wheel(
        file=file,
        name=name,
        version=version,
        tags=tags,
        metadata=metadata,
        entry_points=tuple(_entry_points(file, points)),
        members=members,
        hashes=_record(file, _text(file, archive, f"{dist_info}/RECORD"), members, dist_info),
        dist_info=dist_info,
        sha256=sha256,
        pure=str(about.get("Root-Is-Purelib", "")).strip().lower() == "true",
    )


def _checked_members(file: Path, archive: zipfile.ZipFile) -> tuple[zipfile.ZipInfo, ...]:
    """Its files, when there is nothing about them that could do harm."""
    members = tuple(member for member in archive.infolist() if not member.is_dir())
    if len(members) > MOST_FILES:
        raise refused(file, f"it has {len(members)} files, more than {MOST_FILES}")
    size = sum(member.file_size for member in members)
    if size > max(MOST_BYTES, MOST_RATIO * file.stat().st_size):
        raise refused(file, f"its contents would be {size / 1e9:.0f} GB, which no honest wheel of its size holds")
    seen: dict[str, str] = {}
    for member in members:
        if why := _objection(member):
            raise refused(file, f"its file {member.filename[:200]!r} {why}")
        if (other := seen.setdefault(member.filename.casefold(), member.filename)) is not member.filename:
            alike = "is in it twice" if other == member.filename else f"differs from {other!r} by case alone"
            raise refused(file, f"its file {member.filename[:200]!r} {alike}")
    return members


def _objection(member: zipfile.ZipInfo) -> str:
    """Why a file of a wheel is not taken; empty for an honest one."""
    name = member.filename
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name) or "\0" in name:
        return "has an absolute path"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "leads out of the wheel"
    if not name.isprintable():
        return "has a name that cannot be shown"
    kind = stat.S_IFMT(member.external_attr >> 16)
    return "" if kind in (0, stat.S_IFREG) else "is no plain file"


def _dist_info(file: Path, name: str, version: str, members: tuple[zipfile.ZipInfo, ...]) -> str:
    found = {member.filename.split("/")[0] for member in members if re.match(r"[^/]+\.dist-info/", member.filename)}
    own = [folder for folder in found if _is_own(folder, name, version)]
    if len(own) != 1 or len(found) != 1:
        raise refused(file, "it has no .dist-info folder of its own name" if not own else "it has several .dist-info")
    return own[0]


def _is_own(folder: str, name: str, version: str) -> bool:
    stem, _, stated = folder.removesuffix(".dist-info").rpartition("-")
    return canonicalize_name(stem) == name and dependencies.conda_version(stated) == version


def _text(file: Path, archive: zipfile.ZipFile, member: str, *, needed: bool = True) -> str:
    try:
        info = archive.getinfo(member)
    except KeyError:
        if needed:
            raise refused(file, f"it has no {member}") from None
        return ""
    if info.file_size > MOST_METADATA_BYTES:
        raise refused(file, f"its {member} is too large")
    return archive.read(info).decode("utf-8")


def _entry_points(file: Path, text: str) -> Iterator[tuple[str, str]]:
    """The commands that it brings. Raises ``InvalidInput`` for names that are no file's."""
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = lambda optionstr: optionstr  # type: ignore[method-assign] # the case counts
    parser.read_string(text)
    for section in ("console_scripts", "gui_scripts"):
        for name, value in parser.items(section) if parser.has_section(section) else ():
            target = value.split("[")[0].replace(" ", "")
            if not re.fullmatch(r"[\w.+-]+", name) or name in (".", "..") or not POINT.fullmatch(target):
                raise refused(file, f"its command {name[:100]!r} = {value[:100]!r} is none")
            yield name, target


POINT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def _record(file: Path, text: str, members: tuple[zipfile.ZipInfo, ...], dist_info: str) -> dict[str, tuple[str, str]]:
    """``{file: (algorithm, digest in hex)}``; every file has to be there."""
    found = {}
    for row in csv.reader(io.StringIO(text)):
        if len(row) >= 2 and row[1]:  # noqa: PLR2004 - path, hash, size
            algorithm, _, digest = row[1].partition("=")
            found[row[0]] = (algorithm.lower(), _hex(digest))
    own = {f"{dist_info}/RECORD", *(f"{dist_info}/{name}" for name in SIGNATURES)}
    for member in members:
        algorithm, digest = found.get(member.filename, ("", ""))
        if member.filename not in own and (algorithm not in HASHES or not digest):
            raise refused(file, f"its RECORD has no hash of {member.filename[:200]!r}")
    return {name: value for name, value in found.items() if name not in own}


def _hex(digest: str) -> str:
    try:
        return base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex()
    except ValueError:
        return ""


def package(wheel: Wheel, target: Target, *, form: str) -> Package:
    """The conda package that installs what the wheel would, for ``target``; ``form`` marks how it was made.

    Raises ``InvalidInput``. Its files are read, and held against RECORD, when its archive is written.
    """
    anywhere = wheel.pure and all(tag.platform == "any" for tag in wheel.tags)
    layout = _Layout(
        wheel, target, "site-packages" if anywhere else target.site_packages, "python-scripts" if anywhere else "bin"
    )
    files = list(layout.files())
    if not anywhere:
        files += [_script(name, point) for name, point in wheel.entry_points]
    files.append(_installed_record(wheel, files, layout.site_packages))
    _check_paths(wheel, files)
    return Package(
        name=wheel.name,
        version=wheel.version,
        build=f"pypi_{hashlib.sha256(f'{form} {target.python} {wheel.sha256}'.encode()).hexdigest()[:10]}_0",
        subdir="noarch" if anywhere else target.subdir,
        depends=tuple(_depends(wheel, target, anywhere=anywhere)),
        noarch="python" if anywhere else None,
        license=_license(wheel.metadata),
        summary=" ".join(str(wheel.metadata.get("Summary") or "").split())[:500],
        files=tuple(files),
        entry_points=tuple(f"{name} = {point}" for name, point in wheel.entry_points) if anywhere else (),
    )


def _license(metadata: Message) -> str:
    text = str(metadata.get("License-Expression") or metadata.get("License") or "").strip()
    return text if len(text) <= 100 and "\n" not in text else ""  # noqa: PLR2004 - older wheels hold the whole text


def _depends(wheel: Wheel, target: Target, *, anywhere: bool) -> Iterator[str]:
    counted = [one for one in wheel.requirements if dependencies.holds(one, target.markers)]
    yield from dependencies.depends(counted)
    try:
        asked = dependencies.conda_expression(SpecifierSet(str(wheel.metadata.get("Requires-Python") or "")))
    except InvalidSpecifier as error:
        raise refused(wheel.file, f"its Requires-Python cannot be read ({error})") from error
    if anywhere:
        yield f"python {asked}".strip()
        return
    yield f"python {','.join(filter(None, (f'{target.python}.*', asked)))}"
    glibc = [tuple(map(int, found.groups())) for tag in wheel.tags if (found := MANYLINUX.match(tag.platform))]
    glibc += [OLD_MANYLINUX[old] for tag in wheel.tags if (old := tag.platform.partition("_")[0]) in OLD_MANYLINUX]
    if glibc:
        yield "__glibc >={}.{}".format(*min(glibc))


MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")

OLD_MANYLINUX = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
"""PEP 600: which glibc the older names stand for."""


@dataclass(frozen=True)
class _Layout:
    """Where the files of a wheel go below a prefix."""

    wheel: Wheel
    target: Target
    site_packages: str
    scripts: str

    def files(self) -> Iterator[File]:
        """Its files but for RECORD, which is written anew."""
        left_out = {f"{self.wheel.dist_info}/{name}" for name in ("RECORD", "INSTALLER", "REQUESTED", *SIGNATURES)}
        for member in self.wheel.members:
            if member.filename not in left_out:
                yield self._file(member)
        yield File.of(f"{self.site_packages}/{self.wheel.dist_info}/INSTALLER", b"conda\n")

    def _file(self, member: zipfile.ZipInfo) -> File:
        executable = bool((member.external_attr >> 16) & stat.S_IXUSR)
        opening = functools.partial(_open, self.wheel, member)
        data = re.fullmatch(r"[^/]+\.data/([^/]+)/(.+)", member.filename)
        if data is None:
            return File(f"{self.site_packages}/{member.filename}", member.file_size, opening, executable)
        scheme, rest = data.groups()
        if scheme == "scripts":
            return self._script(rest, member, opening)
        return File(f"{self._folder(scheme)}{rest}", member.file_size, opening, executable)

    def _folder(self, scheme: str) -> str:
        folders = {
            "purelib": f"{self.site_packages}/",
            "platlib": f"{self.site_packages}/",
            "headers": f"include/python{self.target.python}/{self.wheel.name}/",
            "data": "",
        }
        if scheme not in folders:
            raise refused(self.wheel.file, f"it has files for {scheme[:50]!r}, which is no scheme of wheels")
        return folders[scheme]

    def _script(self, name: str, member: zipfile.ZipInfo, opening: Callable[[], BinaryIO]) -> File:
        """A script; ``#!python`` stands for the environment's own."""
        path = f"{self.scripts}/{name}"
        if member.file_size > MOST_METADATA_BYTES:
            return File(path, member.file_size, opening, executable=True)
        with opening() as stream:
            data = stream.read()
        first = re.match(rb"#!pythonw?(?=[\s])[^\n]*", data)
        if first is None:
            return File.of(path, data, executable=True)
        line = f"#!{PLACEHOLDER}/bin/python".encode()
        return File.of(path, line + data[first.end() :], executable=True, prefixed="text")


def _open(wheel: Wheel, member: zipfile.ZipInfo) -> BinaryIO:
    """The file's contents, which are held against RECORD while they are read."""
    return cast("BinaryIO", _Recorded(wheel, member))


class _Recorded(io.RawIOBase):
    """A file of a wheel; reading its end raises ``InvalidInput`` when it is not what RECORD says."""

    def __init__(self, wheel: Wheel, member: zipfile.ZipInfo) -> None:
        self._wheel, self._member = wheel, member
        self._stream = wheel.archive.open(member)
        algorithm, self._wanted = wheel.hashes[member.filename]
        self._hash = hashlib.new(algorithm)
        self._left = member.file_size
        if not self._left:
            self._check()

    def read(self, size: int = -1) -> bytes:
        """As any stream's."""
        try:
            data = self._stream.read(size)
        except (zipfile.BadZipFile, EOFError) as error:
            raise refused(self._wheel.file, f"its {self._member.filename[:200]!r} is damaged") from error
        self._hash.update(data)
        self._left -= len(data)
        if data and not self._left:
            self._check()
        return data

    def _check(self) -> None:
        if self._hash.hexdigest() != self._wanted:
            name = self._member.filename[:200]
            raise refused(self._wheel.file, f"its {name!r} is not what its RECORD says (by its hash)")

    def close(self) -> None:
        """Close the stream below."""
        self._stream.close()
        super().close()


def _script(name: str, point: str) -> File:
    """The program of an entry point, for a package that is not ``noarch: python``."""
    module, _, function = point.partition(":")
    text = (
        f"#!{PLACEHOLDER}/bin/python\n"
        "import sys\n\n"
        f"from {module} import {function.split('.')[0]}\n\n"
        'if __name__ == "__main__":\n'
        f"    sys.exit({function}())\n"
    )
    return File.of(f"bin/{name}", text.encode(), executable=True, prefixed="text")


def _installed_record(wheel: Wheel, files: list[File], site_packages: str) -> File:
    """RECORD of what lies in site-packages, by which ``importlib.metadata`` and pip see its files; without hashes.

    conda's own record (``conda-meta``) has them, and a prefix's path may be written into a file afterwards.
    """
    own = f"{site_packages}/{wheel.dist_info}/RECORD"
    paths = sorted({own, *(file.path for file in files if file.path.startswith(f"{site_packages}/"))})
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows((path.removeprefix(f"{site_packages}/"), "", "") for path in paths)
    return File.of(own, out.getvalue().encode())


def _check_paths(wheel: Wheel, files: list[File]) -> None:
    """Refuse what would write into conda's own folder, or one file over another."""
    seen: dict[str, str] = {}
    for file in files:
        top = PurePosixPath(file.path).parts[0].casefold()
        if top in ("conda-meta", "info", "lock"):
            raise refused(wheel.file, f"it would write into {top}/, which belongs to the environment itself")
        if seen.setdefault(file.path.casefold(), file.path) is not file.path:
            raise refused(wheel.file, f"two of its files would both be {file.path[:200]!r}")
