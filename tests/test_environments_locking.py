"""Locks: for many platforms, the same bytes for the same input, explained where there is no solution."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.tags import parse_tag

from jupyter_agent import processes
from jupyter_agent.environments.access import Access
from jupyter_agent.environments.definitions import Definition, this_platform
from jupyter_agent.environments.locking import explaining, wheels
from jupyter_agent.environments.locking.hashes import lock_hash
from jupyter_agent.environments.locking.locks import run
from jupyter_agent.environments.locking.machines import Machine
from jupyter_agent.environments.requirements import hashes_of
from jupyter_agent.environments.uv import Uv, UvFailed, explanation
from jupyter_agent.environments.work.jobs import LockJob, Settings
from jupyter_agent.environments.work.worker import work
from jupyter_agent.errors import AgentError, InvalidInput, NoChannel, Unavailable
from tests.environment_peers import Listener
from tests.metadata_channels import PLATFORMS, record, usual_records, write_channel

HERE = this_platform()


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A channel that holds records alone."""
    return write_channel(tmp_path_factory.mktemp("records") / "ch", usual_records())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


class Locker:
    """Locks here, for a child takes a second to load what solves; with ``variables`` in one, as the agent does."""

    def __init__(self, store: Path) -> None:
        self.settings = Settings(cache=store / "cache", channels=store / "channels")
        self.out = store / "conda-lock.yml"
        self.heard = Listener()

    def lock(
        self,
        text: str,
        *,
        name: str = "environment.yml",
        platforms: tuple[str, ...] = (),
        from_pypi: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> str:
        """The lock's text."""
        job = LockJob(Definition.of(name, text), (), platforms, self.out, from_pypi, self.settings)
        if variables is None:
            self.result = asyncio.run(run(job, self.heard))
        else:
            environ = {**processes.inherited_environment(), **variables}
            self.result = asyncio.run(work(job, environ=environ, teller=self.heard, tag=f"lock-{os.urandom(4).hex()}"))
        return self.out.read_text()


@pytest.fixture
def locker(store: Path) -> Locker:
    return Locker(store)


def asking(channel: Path, *dependencies: str, pip: tuple[str, ...] = (), more: str = "") -> str:
    """The text of an environment.yml."""
    lines = [*(json.dumps(one) for one in dependencies), *([f"{{pip: {json.dumps(pip)}}}"] if pip else [])]
    return f"channels: [{channel.as_uri()}, nodefaults]\ndependencies: [{', '.join(lines)}]\n{more}"


def packages(text: str, platform: str = "", manager: str = "") -> dict[str, Any]:
    found: list[dict[str, Any]] = yaml.safe_load(text)["package"]
    return {one["name"]: one for one in found if platform in ("", one["platform"]) and manager in ("", one["manager"])}


# For all platforms


def test_all_platforms_are_locked_at_once_from_what_their_channels_say(locker: Locker, records: Path) -> None:
    text = asking(records, "python 3.12.*", "numpy", "click", "pip")
    locked = locker.lock(text, platforms=PLATFORMS)
    assert locker.result["platforms"] == sorted(PLATFORMS)
    assert yaml.safe_load(locked)["metadata"]["platforms"] == sorted(PLATFORMS)
    for platform in PLATFORMS:
        found = packages(locked, platform)
        assert found["python"]["version"] == "3.12.7"
        assert found["python"]["url"].startswith(f"{records.as_uri()}/{platform}/")
        assert found["numpy"]["version"] == "2.2.3"
        assert ("colorama" in found) == (platform == "win-64")
        assert found["click"]["build"] == ("pyh7428d3b_0" if platform == "win-64" else "pyh707e725_0")
        assert not [name for name in found if name.startswith("__")]
    assert all(len(one["hash"]["md5"]) == 32 and len(one["hash"]["sha256"]) == 64 for one in packages(locked).values())
    assert "custom_metadata" not in yaml.safe_load(locked)["metadata"]


def test_the_same_input_gives_the_same_bytes_and_leaves_the_file_alone(locker: Locker, records: Path) -> None:
    text = asking(records, "python", "numpy", more="variables: {B: two, A: one}\n")
    first = locker.lock(text, platforms=("win-64", "linux-64"))
    before = locker.out.stat()
    assert locker.lock(text, platforms=("linux-64", "win-64")) == first
    assert locker.result["changed"] is False
    assert (locker.out.stat().st_mtime_ns, locker.out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    shutil.rmtree(locker.settings.cache / "repodata", ignore_errors=True)
    assert locker.lock(text, platforms=("win-64", "linux-64")) == first
    assert str(locker.out) not in first
    assert str(locker.settings.cache) not in first


def test_pips_part_is_resolved_for_every_platform_and_gets_the_wheel_that_runs_there(
    locker: Locker, records: Path
) -> None:
    asked = ("markupsafe==3.0.2", "colorama==0.4.6; sys_platform == 'win32'", "humanize==4.12.1")
    locked = locker.lock(asking(records, "python 3.12.*", "numpy", pip=asked), platforms=PLATFORMS)
    wheels_of = {
        platform: packages(locked, platform, "pip")["markupsafe"]["url"].rpartition("/")[2] for platform in PLATFORMS
    }
    assert wheels_of == {
        "linux-64": "MarkupSafe-3.0.2-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "linux-aarch64": "MarkupSafe-3.0.2-cp312-cp312-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
        "osx-64": "MarkupSafe-3.0.2-cp312-cp312-macosx_10_13_universal2.whl",
        "osx-arm64": "MarkupSafe-3.0.2-cp312-cp312-macosx_11_0_arm64.whl",
        "win-64": "MarkupSafe-3.0.2-cp312-cp312-win_amd64.whl",
    }
    assert [platform for platform in PLATFORMS if "colorama" in packages(locked, platform, "pip")] == ["win-64"]
    assert {packages(locked, platform, "pip")["humanize"]["version"] for platform in PLATFORMS} == {"4.12.1"}
    again = locker.lock(asking(records, "python 3.12.*", "numpy", pip=asked), platforms=("win-64",))
    assert packages(again) == packages(locked, "win-64")


def test_pip_takes_what_conda_has_and_gets_python_where_none_is_asked_for(locker: Locker, records: Path) -> None:
    # contourpy needs numpy, which conda installs: pip's is bound to its version and not installed beside it
    locked = locker.lock(asking(records, "numpy 1.26.*", pip=("contourpy==1.3.1",)), platforms=("linux-64",))
    assert packages(locked, "linux-64", "pip").keys() == {"contourpy"}
    assert packages(locked, "linux-64", "conda")["numpy"]["version"] == "1.26.4"
    assert packages(locked, "linux-64", "pip")["contourpy"]["dependencies"] == {"numpy": "*"}
    with pytest.raises(
        InvalidInput,
        match=r"(?s)pip part of environment.yml has no solution for linux-64 with Python "
        r"3\.1.*numpy",
    ):
        locker.lock(asking(records, "numpy 1.26.*", pip=("numpy>=2",)), platforms=("linux-64",))
    alone = locker.lock(asking(records, pip=("requests==2.32.3",)), platforms=("linux-64",))
    assert packages(alone, "linux-64", "conda").keys() >= {"python"}
    assert packages(alone, "linux-64", "pip")["requests"]["dependencies"].keys() == {
        *("certifi", "charset-normalizer", "idna", "urllib3")
    }


def test_requirements_are_locked_with_the_python_that_would_run_them(locker: Locker, channel: Path) -> None:
    locker.settings = replace(locker.settings, default_channels=(channel.as_uri(),))
    locked = locker.lock("humanize==4.12.1\n", name="requirements.txt")
    assert packages(locked, HERE, "pip").keys() == {"humanize"}
    assert packages(locked, HERE)["python"]["version"].rpartition(".")[0] == ".".join(map(str, sys.version_info[:2]))


def test_a_lock_from_a_real_channel_is_found_for_this_machine(locker: Locker, channel: Path) -> None:
    locked = locker.lock(asking(channel, "python", "ipykernel", "pandas"))
    assert packages(locked, HERE).keys() >= {"python", "ipykernel", "pandas", "numpy"}
    assert locker.lock(asking(channel, "python", "ipykernel", "pandas")) == locked


# Machines


def test_what_most_machines_lack_is_taken_only_where_there_is_no_solution_without(
    locker: Locker, records: Path
) -> None:
    cuda = {"CONDA_OVERRIDE_CUDA": "12.9", "CONDA_OVERRIDE_GLIBC": "2.39"}
    plain = locker.lock(asking(records, "either", "numpy"), platforms=("linux-64",))
    assert packages(plain)["either"]["build"] == "cpu_0"
    assert locker.lock(asking(records, "either", "numpy"), platforms=("linux-64",), variables=cuda) == plain
    needed = locker.lock(asking(records, "gpu-only", "newest-glibc"), platforms=("linux-64",), variables=cuda)
    assert packages(needed).keys() == {"gpu-only", "newest-glibc"}
    told = yaml.safe_load(needed)["metadata"]["custom_metadata"]["jupyter_agent.virtual_packages"]
    assert json.loads(told) == {"linux-64": {"__cuda": ">=12", "__glibc": ">=2.31"}}
    assert any("__cuda >=12, __glibc >=2.31" in note for note in locker.heard.notes)
    with pytest.raises(
        InvalidInput,
        match=r"(?s)gpu-only 1.0 needs.*__cuda >=12, which no channel has.*set CONDA_OVERRIDE_CUDA to its version",
    ):
        locker.lock(asking(records, "gpu-only"), platforms=("linux-64",), variables={"CONDA_OVERRIDE_CUDA": ""})


@pytest.mark.parametrize(
    ("platform", "best", "never"),
    [
        ("linux-64", "cp312-cp312-manylinux_2_28_x86_64", "cp312-cp312-manylinux_2_31_x86_64"),
        ("linux-aarch64", "cp312-cp312-manylinux_2_28_aarch64", "cp312-cp312-manylinux_2_28_x86_64"),
        ("osx-64", "cp312-cp312-macosx_13_0_x86_64", "cp312-cp312-macosx_14_0_x86_64"),
        ("osx-arm64", "cp312-cp312-macosx_13_0_arm64", "cp312-cp312-macosx_13_0_x86_64"),
        ("win-64", "cp312-cp312-win_amd64", "cp312-cp312-win32"),
    ],
)
def test_wheels_are_taken_by_platform_system_version_and_python(platform: str, best: str, never: str) -> None:
    tags = Machine.usual(platform).wheel_tags("3.12.7")
    assert str(tags[0]) == best
    for good in ("py3-none-any", "cp312-none-any", "cp37-abi3-" + best.rpartition("-")[2]):
        assert parse_tag(good) <= set(tags)
    for bad in (never, "cp313-cp313-" + best.rpartition("-")[2], "cp313-abi3-" + best.rpartition("-")[2]):
        assert not parse_tag(bad) & set(tags)


def test_the_best_of_a_packages_wheels_is_taken_wherever_it_stands() -> None:
    files = [
        "x-1.0-py3-none-any.whl",
        "x-1.0-cp312-cp312-manylinux_2_34_x86_64.whl",
        "x-1.0-cp312-cp312-musllinux_1_2_x86_64.whl",
        "x-1.0-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "x-1.0-2-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "x-1.0-cp310-abi3-manylinux_2_28_x86_64.whl",
        "x-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    ]

    def lines(names: list[str]) -> str:
        one = ", ".join(f'{{url = "https://u:p@h/{name}#a", hashes = {{sha256 = "{name}"}}}}' for name in names)
        return f'[[packages]]\nname = "x"\nversion = "1.0"\nwheels = [{one}]\n'

    tags = Machine.usual("linux-64").wheel_tags("3.12.7")
    for names in (files, files[::-1]):
        (found,) = wheels.chosen(lines(names), tags=tags, without={}, source="e", folder=Path("/"))
        assert found.url == "https://h/x-1.0-2-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    with pytest.raises(InvalidInput, match="e asks pip for x, but only wheels"):
        wheels.chosen(lines(files[1:3]), tags=tags, without={}, source="e", folder=Path("/"))
    assert wheels.chosen(lines(files), tags=tags, without={"x": "1.0"}, source="e", folder=Path("/")) == []


def test_a_requirements_own_hashes_are_the_only_ones_that_a_wheel_may_have() -> None:
    tags = Machine.usual("linux-64").wheel_tags("3.12.7")
    plain, best = ("x_y-1.0-py3-none-any.whl", "a" * 64), ("x_y-1.0-cp312-cp312-manylinux_2_17_x86_64.whl", "b" * 64)
    urls = ", ".join(
        f'{{url = "https://h/{name}", hashes = {{sha256 = "{sha256}"}}}}' for name, sha256 in (plain, best)
    )
    pylock = f'[[packages]]\nname = "x-y"\nversion = "1.0"\nwheels = [{urls}]\n'
    choose = partial(wheels.chosen, pylock, tags=tags, without={}, source="e.yml", folder=Path("/"))
    assert choose(hashes={})[0].sha256 == best[1]
    asked = (f"X.Y==1.0 ; python_version < '4' --hash=sha256:{'C' * 64} --hash=sha256:{plain[1]}", "z --hash=md5:ab")
    assert hashes_of(asked)["x-y"] == {f"sha256:{'c' * 64}", f"sha256:{plain[1]}"}
    assert choose(hashes=hashes_of(asked))[0].sha256 == plain[1]
    with pytest.raises(InvalidInput, match=r"e.yml says with --hash which files of x-y .*manylinux.* has sha256:bbbb"):
        choose(hashes=hashes_of((f"https://h/x_y-1.0-py3-none-any.whl --hash sha256:{'c' * 64}",)))


# No solution


def test_a_conflict_is_told_by_the_solvers_own_tree_in_plain_words(locker: Locker, records: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        locker.lock(asking(records, "wants-old", "wants-new"), platforms=("linux-64",))
    said = str(caught.value)
    assert said.startswith("environment.yml has no solution for linux-64 (channels: file://")
    assert "wants-old 1.0 needs" in said
    assert "numpy >=2.1" in said
    assert "contradicts what stands above" in said
    assert "viable options" not in said


def test_a_package_that_no_channel_has_is_named_with_what_is_near(locker: Locker, records: Path) -> None:
    with pytest.raises(
        InvalidInput,
        match=r"asks for numppy \(did you mean numpy\?\), zzqq, which are packages that no "
        r"channel has for osx-arm64",
    ):
        locker.lock(asking(records, "python", "numppy", "zzqq >=2"), platforms=("osx-arm64",))


def test_a_version_that_no_channel_has_is_told_with_those_there_are(locker: Locker, records: Path) -> None:
    with pytest.raises(
        InvalidInput,
        match=r"asks for python 3.9.\*, but no channel has that for linux-64: of python "
        r"there is 3.11.10, 3.12.7, 3.13.1",
    ):
        locker.lock(asking(records, "python 3.9.*"), platforms=("linux-64",))


def test_what_pip_cannot_have_is_told_in_uvs_words(locker: Locker, records: Path) -> None:
    for asked, words in {
        "markupsafe==99": "there is no version of markupsafe==99",
        "numpy==1.21.0; python_version >= '3.12'": "numpy==1.21.0",
        "this-is-on-no-index-at-all": "not found in the package registry",
        "git+https://example.org/x/y.git": "comes from a repository",
        f"humanize==4.12.1 --hash=sha256:{'0' * 64}": "says with --hash which files of humanize may be installed",
    }.items():
        with pytest.raises(InvalidInput) as caught:
            locker.lock(asking(records, "python 3.12.*", pip=(asked,)), platforms=("win-64",))
        assert "environment.yml" in str(caught.value)
        assert words in str(caught.value)


def test_an_explanation_is_bounded() -> None:
    tree = "Cannot solve the request because of: " + "\n".join(
        f"│  └─ a {number} would require" for number in range(500)
    )
    said = explaining.unsolvable("environment.yml", "linux-64", tree, ["conda-forge"])
    assert len(said) < explaining.MOST_CHARACTERS + 300
    assert "a 7 needs" in said
    assert said.endswith("(420 more lines)")


@pytest.mark.parametrize(
    ("told", "network"),
    [
        ("error: Failed to fetch: `https://i/simple/x/`\n  Caused by: dns error\n", True),
        ("error: Request failed after 3 retries\n  Caused by: error sending request for url (https://i/)\n", True),
        ("error: No solution found when resolving dependencies:\n  Because x was not found\n", False),
    ],
)
def test_an_index_that_does_not_answer_is_told_from_what_cannot_be_had(told: str, *, network: bool) -> None:
    assert UvFailed(explanation(told)).network is network


def test_channels_and_indexes_that_do_not_answer_are_unavailable(locker: Locker, records: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    with pytest.raises(NoChannel):
        locker.lock(f"channels: [{nowhere}/ch]\ndependencies: [python]\n", platforms=("linux-64",))
    environ = {"UV_DEFAULT_INDEX": f"{nowhere}/simple", "UV_HTTP_RETRIES": "0"}
    with pytest.raises(Unavailable, match=r"pip part of environment.yml cannot be locked for linux-64"):
        locker.lock(asking(records, "python", pip=("zipp",)), platforms=("linux-64",), variables=environ)


def test_pypi_stands_in_for_channels_that_do_not_answer_where_it_may(locker: Locker) -> None:
    text = "channels: ['http://127.0.0.1:9/ch']\ndependencies: [python, six]\n"
    with pytest.raises(InvalidInput, match=f"stand in for this kind of machine alone .{HERE}., not for osx-64"):
        locker.lock(text, platforms=tuple(sorted({HERE, "osx-64"})), from_pypi=True)
    locked = locker.lock(text, from_pypi=True)
    assert packages(locked, HERE, "conda").keys() >= {"python", "six"}
    (channel,) = yaml.safe_load(locked)["metadata"]["channels"]
    assert channel["url"].startswith(locker.settings.channels.as_uri())
    assert locker.lock(text, from_pypi=True) == locked


# Explicit lists


def test_an_explicit_list_becomes_a_lock_with_what_its_channel_knows(locker: Locker, records: Path) -> None:
    solved = packages(locker.lock(asking(records, "python 3.12.*", "numpy"), platforms=("linux-64",)))
    urls = {name: one["url"] for name, one in solved.items()}
    listed = "@EXPLICIT\n" + "\n".join(
        url + (f"#{solved[name]['hash']['md5']}" if name == "numpy" else "") for name, url in urls.items()
    )
    locked = packages(locker.lock(listed, name="explicit.txt"))
    assert locked == solved
    wrong = listed.replace(solved["numpy"]["hash"]["md5"], "0" * 32)
    with pytest.raises(InvalidInput, match=r"numpy has the md5 0{32} in the list, but"):
        locker.lock(wrong, name="explicit.txt")


def test_a_hash_that_no_channel_says_is_found_in_the_package(locker: Locker, channel: Path, tmp_path: Path) -> None:
    real = next((channel / "noarch").glob("traitlets-*.conda"))
    bare = tmp_path / "bare" / "noarch"
    bare.mkdir(parents=True)
    shutil.copy(real, bare)
    known = json.loads((channel / "noarch" / "repodata.json").read_text())["packages.conda"][real.name]
    for index in ({}, {real.name: {key: one for key, one in known.items() if key not in ("md5", "sha256")}}):
        told = {"info": {"subdir": "noarch"}, "packages": {}, "packages.conda": index, "repodata_version": 1}
        (bare / "repodata.json").write_text(json.dumps(told))
        (found,) = packages(
            locker.lock(f"# platform: {HERE}\n@EXPLICIT\n{(bare / real.name).as_uri()}\n", name="explicit.txt")
        ).values()
        data = real.read_bytes()
        assert found["hash"]["sha256"] == hashlib.sha256(data).hexdigest()
        assert found["hash"]["md5"] == hashlib.md5(data, usedforsecurity=False).hexdigest()
        assert found["name"] == "traitlets"
        assert "python" in found["dependencies"]


def test_a_list_with_hashes_is_locked_where_its_channel_does_not_answer(locker: Locker) -> None:
    url = "http://127.0.0.1:9/ch/linux-64/some-thing-1.2-h1_0.conda"
    (found,) = packages(locker.lock(f"@EXPLICIT\n{url}#{'a' * 32}\n", name="explicit.txt")).values()
    assert (found["name"], found["version"], found["build"]) == ("some-thing", "1.2", "h1_0")
    with pytest.raises((NoChannel, Unavailable)):
        locker.lock(f"@EXPLICIT\n{url}\n", name="explicit.txt")


# Secrets


class _Index(http.server.BaseHTTPRequestHandler):
    """A private index with one wheel, for whoever has the password."""

    wheel = b""

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        if given != f"Basic {base64.b64encode(b'ann:s3cr3t').decode()}":
            self._answer(401, b"", "text/plain")
        elif self.path == "/simple/ourown/":
            digest = hashlib.sha256(self.wheel).hexdigest()
            page = f'<a href="/files/ourown-1.0-py3-none-any.whl#sha256={digest}">ourown-1.0-py3-none-any.whl</a>'
            self._answer(200, page.encode(), "text/html")
        elif self.path.startswith("/files/"):
            self._answer(200, self.wheel, "application/octet-stream")
        else:
            self._answer(404, b"", "text/plain")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the class above
        """Say nothing."""


@pytest.fixture
def private_index(tmp_path: Path) -> Iterator[str]:
    """The address of an index, with the credentials in it."""
    file = tmp_path / "ourown-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("ourown.py", "")
        archive.writestr("ourown-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: ourown\nVersion: 1.0\n")
        archive.writestr("ourown-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("ourown-1.0.dist-info/RECORD", "")
    handler = type("Index", (_Index,), {"wheel": file.read_bytes()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://ann:s3cr3t@127.0.0.1:{server.server_port}/simple"
        server.shutdown()


def fetched_by_uv(url: str, locker: Locker) -> Path:
    """The folder into which uv has put the wheel at a URL, with the credentials that were kept when it was locked."""
    place, settings = locker.out.with_name("fetched"), locker.settings
    plain = {"PATH": os.environ["PATH"], "HOME": str(place)}
    uv = Uv({**plain, **Access.read(settings, plain).variables}, cache=settings.cache / "another-uv")
    install = ("pip", "install", "--no-deps", "--python", sys.executable, "--target", str(place), f"ourown @ {url}")
    asyncio.run(uv.run(*install, cwd=locker.out.parent, say=print, tag=f"uv-{os.urandom(4).hex()}", indexes=False))
    return place


def test_credentials_of_indexes_and_channels_are_in_no_lock(locker: Locker, records: Path, private_index: str) -> None:
    option = f"--extra-index-url {private_index}"
    for text, environ in (
        (asking(records, "python", pip=("ourown",)), {"UV_INDEX": private_index}),
        (asking(records, "python", pip=(option, "ourown")), {}),
    ):
        locked = locker.lock(text, platforms=("linux-64",), variables=environ)
        url = packages(locked, "linux-64", "pip")["ourown"]["url"]
        assert url == private_index.replace("ann:s3cr3t@", "").replace("simple", "files/ourown-1.0-py3-none-any.whl")
        assert "s3cr3t" not in locked + "".join(locker.heard.notes)
    assert (fetched_by_uv(url, locker) / "ourown.py").is_file()  # as a build does it, later
    with pytest.raises((InvalidInput, Unavailable)) as caught:
        locker.lock(asking(records, "python", pip=(option.replace("s3", "x3"), "nothing-such")), platforms=("win-64",))
    assert "x3cr3t" not in str(caught.value)


class _Channel(http.server.SimpleHTTPRequestHandler):
    """A private channel, for whoever has the password."""

    def send_head(self) -> Any:
        if self.headers.get("Authorization", "") != f"Basic {base64.b64encode(b'ann:s3cr3t').decode()}":
            self.send_error(401)
            return None
        return super().send_head()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the class above
        """Say nothing."""


def test_a_private_channel_is_used_and_its_password_is_in_no_lock(locker: Locker, records: Path) -> None:
    handler = partial(_Channel, directory=str(records.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        public = f"http://127.0.0.1:{server.server_port}/ch"
        private = public.replace("://", "://ann:s3cr3t@")
        locked = locker.lock(f"channels: ['{private}']\ndependencies: [numpy]\n", platforms=("linux-64",))
        server.shutdown()
    assert packages(locked)["numpy"]["url"].startswith(f"{public}/linux-64/numpy-")
    assert [one["url"] for one in yaml.safe_load(locked)["metadata"]["channels"]] == [public]
    assert "s3cr3t" not in locked + "".join(locker.heard.notes)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://u:p@h:8/ch/x.conda", "https://h:8/ch/x.conda"),
        ("https://h/t/tk-1-2/ch/noarch/x.conda#abc", "https://h/ch/noarch/x.conda"),
        ("https://h/x.whl?X-Amz-Signature=abc&a=b", "https://h/x.whl"),
        ("https://h/x.whl?version=2", "https://h/x.whl?version=2"),
        ("file:///a%20b/t/x.conda", "file:///a%20b/t/x.conda"),
    ],
)
def test_what_is_secret_in_a_url_is_left_out(url: str, public: str) -> None:
    assert wheels.without_secrets(url) == public


# A lock's hash


def test_a_hash_is_over_what_is_installed_and_the_variables_alone(locker: Locker, records: Path) -> None:
    text = locker.lock(asking(records, "numpy", more="variables: {A: '1'}\n"), platforms=("linux-64", "win-64"))
    known = lock_hash(text, "linux-64")
    lock = yaml.safe_load(text)

    def told(**changes: Any) -> str:
        return lock_hash(yaml.safe_dump({**lock, **changes}), "linux-64")

    metadata = lock["metadata"]
    assert told(package=lock["package"][::-1]) == known
    assert told(metadata={**metadata, "sources": ["other.yml"], "channels": []}) == known
    assert told(package=[one for one in lock["package"] if one["platform"] != "win-64"]) == known
    dev = {**lock["package"][0], "name": "more", "category": "dev", "optional": True}
    assert told(package=[*lock["package"], dev]) == known
    first = next(one for one in lock["package"] if one["platform"] == "linux-64")
    others = [one for one in lock["package"] if one is not first]
    assert told(package=others) != known
    assert told(package=[*others, {**first, "url": first["url"] + "x"}]) != known
    assert told(package=[*others, {**first, "hash": {"md5": "a" * 32, "sha256": "b" * 64}}]) != known
    assert told(metadata={**metadata, "custom_metadata": {"jupyter_agent.variables": '{"A": "2"}'}}) != known
    assert lock_hash(text, "win-64") != known


@pytest.mark.parametrize("index", ["", "[]", "not json{", '{"packages": 1}'])
def test_a_channels_broken_index_is_told_in_a_sentence(locker: Locker, tmp_path: Path, index: str) -> None:
    channel = write_channel(tmp_path / "ch", [record("a", "1.0")])
    (channel / "noarch" / "repodata.json").write_text(index)
    with pytest.raises(AgentError) as caught:
        locker.lock(asking(channel, "a"), platforms=("linux-64",))
    assert "error of its own" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "version: 1\n",
        "version: 1\nmetadata: []\npackage: []\n",
        "version: 1\nmetadata: {platforms: [linux-64]}\npackage: {a: b}\n",
        "version: 1\nmetadata: {platforms: [linux-64]}\npackage: [1]\n",
        "version: 1\nmetadata: {platforms: [linux-64]}\npackage: [{platform: linux-64, name: a, manager: conda}]\n",
        "version: 1\nmetadata: {platforms: [win-64]}\npackage: []\n",
        "version: 1\nmetadata: {platforms: linux-64}\npackage: []\n",
        "version: 9\nmetadata: {platforms: [linux-64]}\npackage: []\n",
        "version: one\nmetadata: {platforms: [linux-64]}\npackage: []\n",
        "version: 6\nenvironments: {default: {}}\npackages: []\n",
        "version: 1\nmetadata: {platforms: [linux-64], custom_metadata: {jupyter_agent.variables: '['}}\npackage: []\n",
        "- " * 5000,
        "\t a: b",
    ],
)
def test_what_is_no_lock_for_the_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        lock_hash(text, "linux-64")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"build": "py3.12_0+b", "url": "file:///a%20folder/linux-64/a-1-0.conda"}, ""),
        ({"url": "https://h/a-1%2Bcpu-py3-none-any.whl#x", "manager": "pip"}, ""),
        ({"name": "../../../evil"}, "has the name '../../../evil'"),
        ({"build": "../../x"}, "has the build '../../x'"),
        ({"url": "https://u:p@h/noarch/..%2f..%2fevil-1-0.conda"}, r"has the url 'https://\*\*\*@h/noarch/"),
        ({"url": "https://h/noarch/.."}, "has the url"),
        ({"url": "ftp://h/noarch/a-1-0.conda"}, "has the url"),
        ({"url": "data:a-1-0.conda"}, "has the url"),
    ],
)
def test_a_lock_names_no_file_outside_of_its_prefix(changed: dict[str, str], said: str) -> None:
    package: dict[str, Any] = {"name": "a", "manager": "conda", "url": "https://h/noarch/a-1-0.conda", "build": "0"}
    package |= {"platform": "linux-64", "hash": {"md5": "0" * 32}, **changed}
    text = json.dumps({"version": 1, "metadata": {"platforms": ["linux-64"]}, "package": [package]})
    if not said:
        assert len(lock_hash(text, "linux-64")) == 64
        return
    with pytest.raises(InvalidInput, match=said):
        lock_hash(text, "linux-64")


def test_a_hash_needs_none_of_the_libraries_that_solve() -> None:
    code = (
        "import sys, jupyter_agent.environments.locking.hashes\n"
        "print([n for n in ('rattler', 'conda_lock', 'pydantic', 'tornado') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_channels_come_in_their_order_and_a_package_may_name_its_own(locker: Locker, tmp_path: Path) -> None:
    first = write_channel(tmp_path / "first", [record("tool", "1.0"), record("more", "1.0")])
    second = write_channel(
        tmp_path / "second", [record("tool", "2.0"), record("other", "1.0"), record("needs-second", "1.0", "tool >=2")]
    )
    text = f"channels: [{first.as_uri()}, {second.as_uri()}]\ndependencies: [%s]\n"
    locked = packages(locker.lock(text % "tool, other", platforms=("linux-64",)))
    assert locked["tool"]["version"] == "1.0"
    own = packages(locker.lock(text % f"'{second.as_uri()}::tool'", platforms=("linux-64",)))
    assert own["tool"]["version"] == "2.0"
    with pytest.raises(InvalidInput, match=f"tool 2.0 is not used, for the first channel.*{second.as_uri()}::PACKAGE"):
        locker.lock(text % "needs-second", platforms=("linux-64",))
