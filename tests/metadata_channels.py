"""Channels that hold records alone, as large channels have them, for several platforms: enough to solve from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PLATFORMS = ("linux-64", "linux-aarch64", "osx-64", "osx-arm64", "win-64")

PYTHONS = ("3.11.10", "3.12.7", "3.13.1")

Record = dict[str, Any]


def record(
    name: str, version: str, *depends: str, build: str = "0", subdir: str = "noarch", number: int = 0, **more: Any
) -> Record:
    """A record with the fields that every record has; its hashes are those of its file's name."""
    file = f"{subdir}/{name}-{version}-{build}"
    return {
        "build": build,
        "build_number": number,
        "depends": list(depends),
        "license": "BSD-3-Clause",
        "md5": hashlib.md5(file.encode(), usedforsecurity=False).hexdigest(),
        "name": name,
        "sha256": hashlib.sha256(file.encode()).hexdigest(),
        "size": 1000 + len(file),
        "subdir": subdir,
        "timestamp": 1_700_000_000_000,
        "version": version,
        **({"noarch": "python"} if subdir == "noarch" and any(one.startswith("python") for one in depends) else {}),
        **more,
    }


def write_channel(folder: Path, records: Iterable[Record], *, subdirs: Iterable[str] = PLATFORMS) -> Path:
    """The channel: ``repodata.json`` in the folder of every platform."""
    by_subdir: dict[str, dict[str, Record]] = {subdir: {} for subdir in ("noarch", *subdirs)}
    for one in records:
        file = f"{one['name']}-{one['version']}-{one['build']}.{one.pop('form', 'conda')}"
        by_subdir[one["subdir"]][file] = one
    for subdir, packages in by_subdir.items():
        (folder / subdir).mkdir(parents=True, exist_ok=True)
        index = {
            "info": {"subdir": subdir},
            "packages": {name: one for name, one in packages.items() if name.endswith(".tar.bz2")},
            "packages.conda": {name: one for name, one in packages.items() if name.endswith(".conda")},
            "removed": [],
            "repodata_version": 1,
        }
        (folder / subdir / "repodata.json").write_text(json.dumps(index))
    return folder


def usual_records() -> Iterator[Record]:
    """Python, numpy, and what they need, for all platforms; a package for CUDA and one for a newer glibc."""
    yield record("tzdata", "2025a", build="h78e105d_0")
    yield record("ca-certificates", "2025.1.31", build="hbcca054_0")
    yield record("_anything_mutex", "1.0", build="0")
    for version in ("69.5", "75.8.0"):
        yield record("setuptools", version, "python >=3.9", build="pyhff2d567_0")
    yield record("wheel", "0.45.1", "python >=3.9", build="pyhd8ed1ab_1")
    yield record("pip", "25.0", "python >=3.9,<3.13.0a0", "setuptools", "wheel", build="pyh8b19718_0")
    yield record("pip", "25.0", "python >=3.13.0a0", build="pyh145f28c_0")
    yield record("colorama", "0.4.6", "python >=3.9", build="pyhd8ed1ab_1")
    yield record("click", "8.1.8", "__unix", "python >=3.9", build="pyh707e725_0")
    yield record("click", "8.1.8", "__win", "colorama", "python >=3.9", build="pyh7428d3b_0")
    for platform in PLATFORMS:
        yield from _platform_records(platform)
    yield record("gpu-only", "1.0", "__cuda >=12", subdir="linux-64")
    yield record("either", "1.0", "__cuda", subdir="linux-64", build="cuda_1", number=1)
    yield record("either", "1.0", subdir="linux-64", build="cpu_0")
    yield record("newest-glibc", "1.0", "__glibc >=2.31", subdir="linux-64")
    yield record("wants-old", "1.0", "numpy <2", subdir="linux-64")
    yield record("wants-new", "1.0", "numpy >=2.1", "python", subdir="linux-64")


def _platform_records(platform: str) -> Iterator[Record]:
    system = {
        "linux": ("__glibc >=2.17,<3.0.a0", "libgcc >=13"),
        "osx": (f"__osx >={'11.0' if platform == 'osx-arm64' else '10.13'}",),
        "win": ("vc14_runtime >=14.29", "ucrt >=10.0.20348.0"),
    }[platform.partition("-")[0]]
    if platform.startswith("linux"):
        yield record("libgcc", "14.2.0", "_anything_mutex", build="h77fa898_1", subdir=platform)
    if platform == "win-64":
        yield record("ucrt", "10.0.22621.0", build="h57928b3_1", subdir=platform)
        yield record("vc14_runtime", "14.42", "ucrt >=10.0.20348.0", build="he29a5d6_24", subdir=platform)
    yield record("openssl", "3.4.1", *system, "ca-certificates", build="h7b32b05_0", subdir=platform)
    yield record("readline", "8.2", *system, build="h8228510_1", subdir=platform, form="tar.bz2")
    for version in PYTHONS:
        short = version.rpartition(".")[0].replace(".", "")
        abi = f"python_abi {version.rpartition('.')[0]}.* *_cp{short}"
        needs = (*system, "openssl >=3.4.0,<4.0a0", "tzdata", "readline >=8.2,<9.0a0")
        yield record(
            *("python", version, *needs),
            build="h9e4cc4f_1_cpython",
            subdir=platform,
            constrains=[abi],
        )
        yield record("python_abi", version.rpartition(".")[0], build=f"5_cp{short}", subdir=platform)
        for numpy in ("1.26.4", "2.2.3"):
            yield record(
                *("numpy", numpy, *system, f"python >={version[:4]},<3.{int(version[2:4]) + 1}.0a0", abi),
                build=f"py{short}h72c5963_0",
                subdir=platform,
            )
