"""Environments: real locks, real prefixes, and what goes wrong with them."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from jupyter_agent.environments import Environments
from jupyter_agent.environments.building import READY, explanation
from jupyter_agent.environments.indexes import pip_settings, uv_variables
from jupyter_agent.environments.requirements import read_all
from jupyter_agent.errors import Failed, InvalidInput


class Told:
    """What was said on the way."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)


def imports(python: Path, module: str) -> bool:
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


async def test_an_environment_is_made_once(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("six==1.16.0\n")
    environments, told = Environments(tmp_path / "environments"), Told()
    made = await environments.ensure(requirements, say=told, tag="t1")
    assert imports(made.python, "six")
    assert not imports(made.python, "tornado"), "nothing of ours is in it"
    assert any("six" in line for line in told.lines)
    lock = next((tmp_path / "environments" / "locks").glob("*.txt")).read_text()
    assert "six==1.16.0" in lock
    assert "--hash=sha256:" in lock
    told.lines.clear()
    assert await environments.ensure(requirements, say=told, tag="t2") == made
    assert told.lines == [], "nothing at all is done"
    marker = next((made.prefix / "lib").glob("python*")) / "EXTERNALLY-MANAGED"
    assert "externally-managed" in marker.read_text()


async def test_requests_for_one_environment_wait_for_one_another(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("six==1.16.0\n")
    told = Told()
    builders = [Environments(tmp_path / "environments") for _ in range(4)]
    made = await asyncio.gather(
        *(builder.ensure(requirements, say=told, tag=f"t{number}") for number, builder in enumerate(builders))
    )
    assert len(set(made)) == 1
    assert told.lines.count("Building the environment") == 1


async def test_a_half_made_prefix_is_built_again(tmp_path: Path) -> None:
    environments = Environments(tmp_path / "environments")
    made = await environments.ensure(None, extra=("six==1.16.0",), say=Told(), tag="t")
    (made.prefix / READY).unlink()
    (made.python).unlink()
    again = await environments.ensure(None, extra=("six==1.16.0",), say=Told(), tag="t")
    assert again == made
    assert imports(again.python, "six")


async def test_a_cancelled_build_leaves_nothing(tmp_path: Path) -> None:
    environments, building = Environments(tmp_path / "environments"), asyncio.Event()
    task = asyncio.create_task(
        environments.ensure(
            None, extra=("six==1.16.0",), say=lambda line: building.set() if "Building" in line else None, tag="t"
        )
    )
    await building.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    left = [path.name for path in (tmp_path / "environments").iterdir() if path.suffix != ".lock"]
    assert left == ["locks"]


@pytest.mark.parametrize(
    ("text", "word"),
    [("six==0.0.0.1\n", "six==0.0.0.1"), ("six >> 1\n", "six"), ("a-package-that-nobody-made-7c2f\n", "7c2f")],
)
async def test_what_cannot_be_resolved_is_explained_in_one_line(tmp_path: Path, text: str, word: str) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(text)
    with pytest.raises(Failed) as refusal:
        await Environments(tmp_path / "environments").ensure(requirements, say=Told(), tag="t")
    assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert list((tmp_path / "environments" / "locks").glob("*.txt")) == []


@pytest.mark.parametrize(
    "line",
    ["-e .", "--editable=../x", "./lib", "/abs/lib", "file:///x", "lib @ file:///x", "-r ../outside.txt", "-r none.txt",
     "-c https://example.org/c.txt", "-r requirements.txt"],
)  # fmt: skip
def test_requirements_that_cannot_be_locked_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"six\n{line}\n")
    with pytest.raises(InvalidInput, match="line 2"):
        list(read_all(tmp_path / "requirements.txt", tmp_path))


def test_included_files_count(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r more/base.txt  # the base\nsix\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.txt").write_text("attrs\n")
    assert [file.name for file, _ in read_all(tmp_path / "requirements.txt", tmp_path)] == [
        "requirements.txt",
        "base.txt",
    ]


async def test_requirements_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="UTF-8"):
        await Environments(tmp_path / "e").ensure(tmp_path / "requirements.txt", say=Told(), tag="t")


def test_pips_settings_are_uvs(tmp_path: Path) -> None:
    conf = tmp_path / "pip.conf"
    conf.write_text(
        "[global]\nindex-url = https://me:secret@one.example/simple\n[install]\nextra_index_url =\n  https://two.example\n"
    )
    environment = {"PIP_CONFIG_FILE": str(conf), "HOME": str(tmp_path), "PIP_TRUSTED_HOST": "two.example"}
    assert pip_settings(environment)["extra-index-url"].split() == ["https://two.example"]
    assert uv_variables(environment) | {"UV_FIND_LINKS": ""} == {
        "UV_DEFAULT_INDEX": "https://me:secret@one.example/simple",
        "UV_INDEX": "https://two.example",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "two.example",
        "UV_FIND_LINKS": "",
    } | {key: value for key, value in uv_variables(environment).items() if key in ("UV_FIND_LINKS", "SSL_CERT_FILE")}
    assert "UV_DEFAULT_INDEX" not in uv_variables({**environment, "UV_INDEX_URL": "https://three.example"})


def test_a_broken_pip_conf_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("no section")
    assert isinstance(pip_settings({"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "HOME": str(tmp_path)}), dict)


def test_ornaments_are_taken_off() -> None:
    said = "  \u00d7 No solution\n  \u2570\u2500\u25b6 Because a\n      b.\nwarning: x\n"
    assert explanation(said) == "No solution Because a b."
    assert len(explanation("word " * 10_000)) < 2100
