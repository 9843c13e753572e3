"""Our locks in the hands of others: conda-lock's own command, and py-rattler."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyter_agent import processes
from jupyter_agent.environments.definitions import Definition, this_platform
from jupyter_agent.environments.locking.machines import FILE
from jupyter_agent.environments.specs import parse
from jupyter_agent.environments.specs.pypi import NAMES
from jupyter_agent.environments.work.jobs import LockJob, Settings
from jupyter_agent.environments.work.worker import work
from tests.environment_peers import Listener, environment_file, locked
from tests.metadata_channels import PLATFORMS, usual_records, write_channel

CONDA_LOCK = Path(sys.executable).parent / "conda-lock"

TEXT = """\
channels: [{channel}, nodefaults]
platforms: [linux-64, linux-aarch64, osx-64, osx-arm64, win-64]
dependencies:
  - python 3.12.*
  - numpy >=2
  - pip:
      - humanize==4.12.1
      - colorama==0.4.6; sys_platform == 'win32'
variables: {{MODE: fast}}
"""

RECORDER = """\
#!{python}
import json, sys
from pathlib import Path
files = {{name: Path(name).read_text() for name in sys.argv[1:] if Path(name).is_file()}}
with Path({log!r}).open("a") as log:
    log.write(json.dumps([sys.argv[1:], files]) + "\\n")
"""
"""Stands where conda would, and keeps what it was asked for."""

RATTLER = """\
import asyncio, json, os, sys
from pathlib import Path
from rattler import LockFile, install
from rattler.explicit_environment import ExplicitEnvironmentSpec

lock, listed, prefix = map(Path, sys.argv[1:])

async def main():
    environment = LockFile.from_path(lock).default_environment()
    platforms = {str(one.subdir): one for one in environment.platforms()}
    told = {}
    for name, platform in platforms.items():
        pip = environment.pypi_packages_for_platform(platform) or []
        told[name] = {
            "conda": sorted(r.name.normalized for r in environment.conda_repodata_records_for_platform(platform) or []),
            "pip": sorted([one.name, one.location, one.hashes.sha256.hex()] for one in pip),
        }
    if prefix.name != "none":
        records = environment.conda_repodata_records_for_platform(platforms[sys.argv[3].rpartition("@")[2]])
        await install(records, str(prefix), cache_dir=str(prefix) + ".cache", show_progress=False)
    if listed.exists():
        told["listed"] = [one.url for one in ExplicitEnvironmentSpec.from_path(listed).packages]
    print(json.dumps(told), flush=True)

asyncio.run(main())
os._exit(0)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment.yml and its lock for five platforms."""
    made = tmp_path_factory.mktemp("locked")
    channel = write_channel(made / "ch", usual_records())
    (made / "environment.yml").write_text(TEXT.format(channel=channel.as_uri()))
    settings = Settings(cache=made / "cache", channels=made / "channels")
    definition = Definition.read(made / "environment.yml")
    job = LockJob(definition, (), (), made / "conda-lock.yml", from_pypi=False, settings=settings)
    asyncio.run(work(job, environ=processes.inherited_environment(), teller=Listener(), tag=f"lock {made}"))
    return made


def conda_lock(*arguments: str | Path, cwd: Path) -> str:
    """What the command prints."""
    done = subprocess.run(
        [CONDA_LOCK, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HOME": str(cwd)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def by_rattler(lock: Path, listed: Path, prefix: Path) -> dict[str, Any]:
    """What py-rattler reads in a lock; with a prefix it installs this machine's part."""
    done = subprocess.run(
        [sys.executable, "-c", RATTLER, lock, listed, prefix], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def packages(lock: Path, platform: str, manager: str) -> list[dict[str, Any]]:
    found = yaml.safe_load(lock.read_text())["package"]
    return [one for one in found if (one["platform"], one["manager"]) == (platform, manager)]


def test_conda_lock_renders_our_locks_for_every_platform(folder: Path) -> None:
    conda_lock("render", "-k", "explicit", "-k", "env", "conda-lock.yml", cwd=folder)
    for platform in PLATFORMS:
        lines = (folder / f"conda-{platform}.lock").read_text().splitlines()
        conda = {f"{one['url']}#{one['hash']['md5']}" for one in packages(folder / "conda-lock.yml", platform, "conda")}
        assert {line for line in lines if line.startswith("file:")} == conda
        pip = packages(folder / "conda-lock.yml", platform, "pip")
        assert sum(line.startswith("# pip ") for line in lines) == len(pip) == (2 if platform == "win-64" else 1)
        environment = yaml.safe_load((folder / f"conda-{platform}.lock.yml").read_text())
        assert len(environment["dependencies"]) == len(conda) + 1
        assert len(environment["dependencies"][-1]["pip"]) == len(pip)


def test_conda_lock_finds_its_own_input_hash_and_does_not_solve_again(folder: Path) -> None:
    before = (folder / "conda-lock.yml").read_bytes()
    arguments = (
        *("lock", "--conda", sys.executable, "--check-input-hash", "--virtual-package-spec", FILE),
        *("-f", "environment.yml", "--lockfile", "conda-lock.yml", "--pypi_to_conda_lookup_file", NAMES.as_uri()),
    )
    said = conda_lock(*arguments, cwd=folder)
    assert f"Spec hash already locked for {sorted(PLATFORMS)}" in said
    assert (folder / "conda-lock.yml").read_bytes() == before


def test_conda_lock_installs_from_our_locks(folder: Path, tmp_path: Path) -> None:
    conda, log = tmp_path / "conda", tmp_path / "log"
    conda.write_text(RECORDER.format(python=sys.executable, log=str(log)))
    conda.chmod(0o700)
    conda_lock("install", "--conda", conda, "-p", tmp_path / "prefix", folder / "conda-lock.yml", cwd=tmp_path)
    (create, files), (pip, requirements) = [json.loads(line) for line in log.read_text().splitlines()]
    assert create[0] == "create"
    for one in packages(folder / "conda-lock.yml", this_platform(), "conda"):
        assert f"{one['url']}#{one['hash']['md5']}" in next(iter(files.values()))
    assert pip[-4:-1] == ["install", "--no-deps", "-r"]
    for one in packages(folder / "conda-lock.yml", this_platform(), "pip"):
        assert f"{one['name']} @ {one['url']}#sha256={one['hash']['sha256']}" in next(iter(requirements.values()))


def test_conda_lock_parses_and_writes_our_locks_without_a_change(folder: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from conda_lock.lockfile import parse_conda_lock_file, write_conda_lock_file
    found = parse_conda_lock_file(folder / "conda-lock.yml")
    assert found.metadata.platforms == sorted(PLATFORMS)
    assert found.metadata.sources == ["environment.yml"]
    assert json.loads(found.metadata.custom_metadata["jupyter_agent.variables"]) == {"MODE": "fast"}
    write_conda_lock_file(found, tmp_path / "conda-lock.yml", metadata_choices=set())
    assert yaml.safe_load((tmp_path / "conda-lock.yml").read_text()) == yaml.safe_load(
        (folder / "conda-lock.yml").read_text()
    )


@pytest.mark.parametrize(
    "text",
    [
        "channels: [conda-forge]\ndependencies: [python]\n",
        "channels: [conda-forge, bioconda]\ndependencies: [numpy, python >=3.10, 'scipy 1.11.*']\n",
        "channels: [conda-forge]\nplatforms: [linux-64, win-64]\ndependencies:\n  - python\n  - pywin32  # [win]\n",
        "channels: [conda-forge]\ndependencies: [python, pip, {pip: [rich, 'httpx>=0.27,<1']}]\n",
        "channels: [conda-forge]\ndependencies: [python, {pip: ['requests[socks]>=2']}]\n",
        "channels: [conda-forge]\ndependencies: ['conda-forge::numpy=2.1', 'python=3.12=*_cpython']\n",
    ],
)
def test_the_content_hash_is_conda_locks_own(text: str, tmp_path: Path) -> None:
    from jupyter_agent.environments.locking.writing import content_hashes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from conda_lock.content_hash import compute_content_hashes
        from conda_lock.src_parser import make_lock_spec
        from conda_lock.virtual_package import virtual_package_repo_from_specification

        file = tmp_path / "environment.yml"
        file.write_text(text if "platforms" in text else f"platforms: [linux-64, osx-arm64]\n{text}")
        theirs = make_lock_spec(src_files=[file], mapping_url=NAMES.as_uri())
        hashes = compute_content_hashes(theirs, virtual_package_repo_from_specification(FILE))
    assert content_hashes(parse(Definition.read(file))) == hashes


def test_rattler_reads_our_locks_and_the_lists_rendered_from_them(folder: Path) -> None:
    conda_lock("render", "-k", "explicit", "-p", "linux-64", "conda-lock.yml", cwd=folder)
    told = by_rattler(folder / "conda-lock.yml", folder / "conda-linux-64.lock", Path("none"))
    for platform in PLATFORMS:
        conda, pip = (packages(folder / "conda-lock.yml", platform, manager) for manager in ("conda", "pip"))
        assert told[platform]["conda"] == sorted(one["name"] for one in conda)
        assert told[platform]["pip"] == sorted([one["name"], one["url"], one["hash"]["sha256"]] for one in pip)
    here = {one["url"] for one in packages(folder / "conda-lock.yml", "linux-64", "conda")}
    assert {url.partition("#")[0] for url in told["listed"]} == here


def test_rattler_installs_from_our_locks(channel: Path, tmp_path: Path) -> None:
    lock = locked(environment_file(tmp_path / "asked", channel, "python", "traitlets"), tmp_path / "store")
    prefix = tmp_path / f"prefix@{this_platform()}"
    by_rattler(lock, Path("none"), prefix)
    done = subprocess.run([prefix / "bin" / "python", "-c", "import traitlets, sys; print(sys.prefix)"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.strip() == str(prefix)
