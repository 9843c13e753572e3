"""What the doctor says of conda: its channels, its configuration, the disk, and what others have made."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from jupyter_agent.agent.doctor import conda
from jupyter_agent.agent.doctor.examination import CHECKS
from jupyter_agent.agent.doctor.findings import Case, Finding
from jupyter_agent.home import Home
from tests.certificates import authority
from tests.channel_peers import deaf, serving
from tests.conftest import small_file_system
from tests.test_environments_foreign import make


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A home of a user, beside that of the agent."""
    (made := tmp_path / "user").mkdir()
    return made


def look(home: Home, own: Path, **variables: str) -> dict[str, Finding]:
    """The findings by name; each that is no good one says what to do."""
    case = Case(home, {"HOME": str(own), "PATH": os.environ["PATH"], **variables}, Path("/tmp"))
    found = asyncio.run(conda.look(case))
    assert all(finding.todo for finding in found if finding.state != "ok"), found
    assert all(finding.message.endswith(".") for finding in found), found
    return {finding.name: finding for finding in found if finding.state != "ok"} or {one.name: one for one in found}


def alias(own: Path, url: str, more: str = "") -> None:
    (own / ".condarc").write_text(f"channel_alias: {url}\n{more}")


def test_channels_are_reached_or_not_and_what_then(home: Home, own: Path, tmp_path: Path) -> None:
    (tmp_path / "site" / "conda-forge").mkdir(parents=True)
    assert "conda" in CHECKS
    with serving(tmp_path / "site") as server:
        alias(own, server.url.replace("://", "://maria:s3cret@"))
        finding = look(home, own)["conda channels"]
        assert finding.state == "ok"
        assert f"{server.url}/conda-forge" in finding.message
        assert "s3cret" not in str(finding)
        proxied = look(home, own, HTTP_PROXY="http://maria:s3cret@127.0.0.1:1")["conda channels"]
        assert proxied.state == "warning"
        assert "s3cret" not in str(proxied)
    with deaf() as url:
        alias(own, url)
        finding = look(home, own)["conda channels"]
        assert (finding.state, "--channel-from-pypi" in finding.todo) == ("warning", True)
    alias(own, "https://x.example", "offline: true\n")
    assert "offline" in look(home, own)["conda channels"].message


def test_what_is_wrong_with_condas_configuration(home: Home, own: Path, tmp_path: Path) -> None:
    (own / ".condarc").write_text("channel_alias: [")
    finding = look(home, own)["conda channels"]
    assert finding.state == "problem"
    assert str(own / ".condarc") in finding.message
    with serving(tmp_path, tls=(tmp_path, "good")) as server:
        alias(own, server.url, "ssl_verify: false\n")
        assert "WARNING" in look(home, own)["conda channels"].message
        alias(own, server.url)
        assert "certificate" in look(home, own)["conda channels"].message
        assert look(home, own, SSL_CERT_FILE=str(authority(tmp_path)))["conda channels"].state == "ok"


def test_whether_environments_share_files(home: Home, own: Path, tmp_path: Path) -> None:
    alias(own, "https://x.example", "offline: true\n")
    store = home.path / "environments"
    assert "hard links" not in look(home, own)
    (store / "cache").mkdir(parents=True)
    assert look(home, own)["hard links"].state == "ok"
    assert [entry.name for entry in store.iterdir()] == ["cache"]
    assert not list((store / "cache").iterdir())
    (store / "cache").rmdir()
    with small_file_system(tmp_path / "other", "size=20m") as other:
        (store / "cache").symlink_to(other)
        found = look(home, own)
        assert found["hard links"].state == "warning"
        assert found["packages"].state == "warning"


def test_what_others_have_made(home: Home, own: Path) -> None:
    alias(own, "https://x.example", "offline: true\n")
    assert "needed" in look(home, own)["conda"].message
    make(own / "miniforge3", "conda-24.1.0-py311_0")
    make(own / ".pixi/envs/tool")
    assert "1 of pixi" in look(home, own)["conda"].message
