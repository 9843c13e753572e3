"""The official PyPI client, over gRPC and WebSocket.

Over WebSocket it runs with no `websockets` since 14 (it asks for an attribute that is gone), whatever the server is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hub_peers import hub_on_a_new_home
from tests.openflow_peers import Hub

HERE = Path(__file__).parent
VERSION = "0.0.37"
MODULES = HERE / ".cache" / f"openiap-{VERSION}"
WANTED = (f"openiap=={VERSION}", "websockets==13.1")
"""Beside protobuf and grpcio as we have them: it wants no certain versions of these."""


def install() -> None:
    if not MODULES.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", str(MODULES), *WANTED], check=True, timeout=300)


def run_client(hub: Hub, folder: Path, **given: Any) -> dict[str, Any]:
    out = folder / "seen.json"
    about = {**hub.ready, "folder": str(MODULES), "out": str(out), "down": str(folder), **given}
    program = [sys.executable, str(HERE / "pypi_client.py"), json.dumps(about)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert out.exists(), done.stderr
    seen: dict[str, Any] = json.loads(out.read_text())
    return seen


@pytest.mark.parametrize("address", ["grpcapiurl", "apiurl"])
async def test_the_official_python_client(tmp_path: Path, address: str) -> None:
    install()
    with hub_on_a_new_home() as hub:
        (tmp_path / "data.bin").write_bytes(b"content" * 100_000)
        (tmp_path / "in").mkdir()
        async with hub.client() as client:
            await client.connected()
            fileid = await client.upload(tmp_path / "data.bin")
            item = {"_type": "workitemqueue", "name": "pypi-items", "maxretries": 3, "retrydelay": 0, "initialdelay": 0}
            await client.insert_one("mq", item)
        url = json.loads((hub.home / "hub" / "hub.json").read_text())[address]
        seen = run_client(hub, tmp_path, url=url, fileid=fileid, down=str(tmp_path / "in"))
    assert (tmp_path / "in" / seen.pop("filename")).read_bytes() == b"content" * 100_000
    assert "$where" in seen.pop("refused")
    assert seen == {
        "user": hub.ready["username"],
        "many": 2,
        "replaced": [10, 1],
        "matched": 1,
        "upserted": [30, 2],
        "query": [31, 20],
        "count": 3,
        "aggregate": [{"n": 20}],
        "collections": True,
        "version": 10,
        "deleted": [1, 1],
        "left": 0,
        "queue": "pypi-queue",
        "rpc": {"answer": 42},
        "events": [["insert", "a"], ["replace", "b"]],
        "popped": ["first", {"n": 1}, True],
        "state": "successful",
        "empty": True,
    }
