"""What tests of exports share: the commands, what is in a hub or an export, and a hub with something of all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_agent.home import Home
from jupyter_agent.hub.data.store import Store
from jupyter_agent.hub.transfer.disk import scratch
from jupyter_agent.hub.transfer.exporting import export
from jupyter_agent.hub.transfer.importing import Report, Rule, import_export
from jupyter_agent.hub.transfer.opening import open_export
from jupyter_agent.openflow.client import Client
from tests.openflow_peers import running_hub

CONTENT = b"0123456789abcdef" * 20_000


def command(home: Path, name: str, *options: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """What the command line does."""
    program = [sys.executable, "-m", "jupyter_agent.hub", name, "--home", str(home), *map(str, options)]
    return subprocess.run(program, input=text, capture_output=True, text=True, timeout=120, check=False)


def answer(home: Path, name: str, *options: str | Path, text: str = "") -> dict[str, Any]:
    done = command(home, name, "--json", *options, text=text)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(home: Path, name: str, *options: str | Path, text: str = "") -> str:
    """The one sentence of an error."""
    done = command(home, name, *options, text=text)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.stderr.strip()


def taken_in(home: Path, source: Path, rule: Rule = "refuse") -> Report:
    """An import without a process of its own."""
    home.joinpath("hub").mkdir(parents=True, exist_ok=True)

    async def make() -> None:
        async with Store(home / "hub" / "hub.db"):
            pass

    asyncio.run(make())
    with scratch(home / "hub") as folder:
        found = open_export(source, folder, print)
        return import_export(home / "hub", found, rule=rule, say=print)


def state_of(home: Path) -> dict[str, Any]:
    """All that is in a hub."""
    with tempfile.TemporaryDirectory(prefix="ja-") as folder:
        export(home / "hub", Path(folder) / "state", passwords=True, say=print)
        return told(Path(folder) / "state")


def told(folder: Path) -> dict[str, Any]:
    """All that is in an export, but for when it was made."""
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {**files, "manifest.json": {**manifest, "created": ""}}


async def filled(client: Client, folder: Path) -> str:
    """Something of everything; the id of a file."""
    (folder / "data.bin").write_bytes(CONTENT)
    file = await client.upload(folder / "data.bin", metadata={"a.b": {"when": "2024-01-02T03:04:05.678Z"}})
    await client.insert_one("agents", {"_type": "package", "name": "p", "fileid": file})
    await client.insert_one("agents", {"_type": "agent", "name": "a", "slug": "a-slug"})
    made = await client.insert_one("things", {"n": 1, "a.b": [{"c.d": None}], "when": "2024-01-02T03:04:05.678Z"})
    await client.update_one("things", {**made, "n": 2, "text": 'ä\u2028\U0001f600\\"____'})
    gone = await client.insert_one("things", {"n": 3})
    await client.delete_one("things", gone["_id"])
    await client.create_index("things", {"n": -1}, options={"unique": True})
    item = {"_type": "workitem", "name": "i", "state": "new", "files": [{"_id": file, "filename": "data.bin"}]}
    await client.insert_one("workitems", item)
    await client.insert_one("users", {"_type": "role", "name": "readers", "members": []})
    return file


def exported_hub(folder: Path) -> Path:
    """The folder, with a hub's home in it, and exports of that as an archive and as a folder."""
    with running_hub(Home(folder / "home")) as hub:
        hub.add_user("ann", "password of ann")

        async def fill() -> None:
            async with hub.client() as client:
                await client.connected()
                await filled(client, folder)

        asyncio.run(fill())
        answer(hub.home, "export", "--passwords", folder / "all.tar.gz")
        answer(hub.home, "export", "--passwords", folder / "all")
    return folder


def change(folder: Path, part: str, edit: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Edit the documents of a part, and put the manifest right."""
    manifest = json.loads((folder / "manifest.json").read_text())
    told_of = next(each for each in manifest["parts"] if part in (each["collection"], each["name"]))
    path = folder / told_of["name"]
    edited = [edit(json.loads(line)) for line in path.read_bytes().splitlines()]
    data = b"".join(json.dumps(each).encode() + b"\n" for each in edited if each is not None)
    path.write_bytes(data)
    lines = sum(each is not None for each in edited)
    told_of |= {"bytes": len(data), "lines": lines, "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def size_of(path: Path) -> int:
    """Bytes, 0 where there is no such file: another process may remove it at any moment."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def part_name(folder: Path, collection: str) -> str:
    parts = json.loads((folder / "manifest.json").read_text())["parts"]
    return str(next(part["name"] for part in parts if part["collection"] == collection))
