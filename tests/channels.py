"""A conda channel for tests, made by the product's own code from PyPI's wheels, once for all tests of a session."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import json
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rattler
from conda_package_streaming.package_streaming import stream_conda_component

from jupyter_agent.environments.channel import run
from jupyter_agent.environments.definitions import this_platform
from jupyter_agent.environments.work.jobs import ChannelJob, Settings

REQUIREMENTS = ("ipykernel>=6.29", "numpy", "pandas", "papermill", "pip")


class Silent:
    """A teller that nobody listens to."""

    def note(self, text: str) -> None:
        """A line of the log."""

    def show_progress(self, phase: str, done: float, total: float | None, detail: str = "") -> None:
        """How far it is."""


def channel_in(folder: Path, requirements: tuple[str, ...] = REQUIREMENTS) -> Path:
    """The channel in ``folder``, made when it is not there; whoever comes second waits."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "channel"
    with (folder / "channel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            settings = Settings(cache=folder / "cache", channels=folder / "channels")
            asyncio.run(run(ChannelJob(requirements, place, python=True, settings=settings), Silent()))
    return place


def wheel(
    folder: Path,
    name: str = "thing",
    version: str = "1.0",
    *,
    files: Mapping[str, bytes] | None = None,
    metadata: str = "",
    entry_points: str = "",
    tag: str = "py3-none-any",
    record: Callable[[str], str] = str,
    extra_members: Iterable[tuple[str | zipfile.ZipInfo, bytes]] = (),
) -> Path:
    """A wheel as a build tool makes it; ``record`` may spoil its RECORD, ``extra_members`` are not in it."""
    about = f"{name}-{version}.dist-info"
    pure = "true" if tag.endswith("-any") else "false"
    held = {
        **({f"{name}/__init__.py": b"value = 1\n"} if files is None else files),
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}\n".encode(),
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: {pure}\nTag: {tag}\n".encode(),
        **({f"{about}/entry_points.txt": entry_points.encode()} if entry_points else {}),
    }
    lines = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in held.items()]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{version}-{tag}.whl"
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # some are doubled on purpose
        for path, data in held.items():
            archive.writestr(path, data)
        archive.writestr(f"{about}/RECORD", record("\n".join([*lines, f"{about}/RECORD,,", ""])))
        for member, data in extra_members:
            archive.writestr(member, data)
    return file


def recorded(path: str, data: bytes) -> str:
    """A line of RECORD."""
    return f"{path},sha256={_digest(data)},{len(data)}\n"


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


async def installed(channels: Sequence[Path], specs: Sequence[str], prefix: Path, *, cache: Path) -> list[str]:
    """An environment made by rattler from the channels; the names of what is in it."""
    records = await rattler.solve(
        [channel.as_uri() for channel in channels],
        list(specs),
        gateway=rattler.Gateway(cache_dir=cache / "repodata"),
        platforms=[rattler.Subdir(this_platform()), "noarch"],
        virtual_packages=[package.into_generic() for package in rattler.VirtualPackage.detect()],
    )
    await rattler.install(records, prefix, cache_dir=cache / "pkgs", show_progress=False)
    return [str(record.name.normalized) for record in records]


def records(channel: Path) -> dict[str, dict[str, Any]]:
    """The records of a channel, by the package's name."""
    found: dict[str, dict[str, Any]] = {}
    for subdir in ("noarch", this_platform()):
        index = json.loads((channel / subdir / "repodata.json").read_text())
        found |= {record["name"]: {**record, "fn": fn} for fn, record in index["packages.conda"].items()}
    return found


def contents(archive: Path, component: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """What conda's own reader finds in an archive, by path."""
    found = {}
    with archive.open("rb") as raw:
        for tar, member in stream_conda_component(archive.name, raw, component=component):
            stream = tar.extractfile(member) if member.isreg() else None
            found[member.name] = (member, stream.read() if stream else b"")
    return found


def pip_wheel_in(folder: Path, channel: Path) -> Path:
    """pip's wheel, made anew from the channel's package."""
    record = records(channel)["pip"]
    held = contents(channel / record["subdir"] / record["fn"], "pkg")
    files = {path.removeprefix("site-packages/"): data for path, (_, data) in held.items() if "/pip/" in path}
    return wheel(folder, "pip", record["version"], files=files)
