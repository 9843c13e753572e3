"""Packages of further languages as the agent runs them, and programs that stand for those that are not here."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent import processes
from jupyter_agent.agent.launch import files_of_package
from jupyter_agent.runs import Limits, OutputLog, Run, Supervisor
from jupyter_agent.runtimes import Site, Task, runtime_for
from jupyter_agent.state import RunRow, RunState, new_run_id, now


class Runner:
    """Runs packages as the agent does: in a copy in the run's own folder."""

    def __init__(self, supervisor: Supervisor, site: Site) -> None:
        self.supervisor = supervisor
        self.site = site

    async def start(self, package: Path, parameters: dict[str, Any] | None = None, **fields: Any) -> Run:
        row = RunRow(id=new_run_id(), state=RunState.QUEUED, created=now(), package=package.name)

        async def prepare(run: Run) -> Any:
            work = run.folder / "work"
            await asyncio.to_thread(partial(shutil.copytree, package, work, symlinks=True))
            payload = run.folder / "payload.json"
            await asyncio.to_thread(payload.write_text, json.dumps(parameters or {}, ensure_ascii=False), "utf-8")
            files = await asyncio.to_thread(files_of_package, work, None)
            env = {**processes.inherited_environment(), "payloadfile": "../payload.json"}
            task = Task(work, run.folder, files.entry, {}, env, run.row.id, manifest=files.manifest, **fields)
            return (await runtime_for(files.language).prepare(task, self.site, run)).with_workdir(work)

        return await self.supervisor.submit(row, prepare, limits=Limits(grace_s=8))

    async def run(self, package: Path, parameters: dict[str, Any] | None = None, **fields: Any) -> RunRow:
        return await (await self.start(package, parameters, **fields)).wait()

    def output(self, row: RunRow, stream: str = "stdout") -> str:
        log = OutputLog(Path(row.folder) / "output").read(0, 1 << 24).chunks
        return "".join(chunk["text"] for chunk in log if chunk["stream"] == stream)


class Recorder:
    """Executables that write down how they are started, on a PATH of their own in front of the real one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._log = folder / "log.jsonl"
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def add(self, name: str, then: str = "") -> Path:
        """``then`` is Python that runs afterwards; ``argv`` and ``Path`` are there."""
        program = self.folder / name
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, os, sys\nfrom pathlib import Path\nargv = sys.argv\n"
            f"with open({str(self._log)!r}, 'a') as log:\n"
            "    log.write(json.dumps({'argv': argv, 'env': dict(os.environ), 'cwd': os.getcwd()}) + '\\n')\n"
            f"{then}\n"
        )
        program.chmod(0o755)
        return program

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def argv(self, call: int) -> list[str]:
        words: list[str] = self.calls[call]["argv"]
        return [Path(words[0]).name, *words[1:]]


def elf(*, machine: int = 62, loader: bytes = b"") -> bytes:
    """The beginning of a Linux program."""
    header = struct.pack("<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    part = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(loader) + 1, 0, 1) if loader else bytes(56)
    return header + part + loader + b"\0"


def jar(file: Path, classes: Path, **manifest: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        lines = {"Manifest-Version": "1.0", **{name.replace("_", "-"): value for name, value in manifest.items()}}
        archive.writestr("META-INF/MANIFEST.MF", "".join(f"{name}: {value}\n" for name, value in lines.items()))
        for path in classes.rglob("*.class"):
            archive.write(path, str(path.relative_to(classes)))
    return file


def compiled(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
    subprocess.run(["javac", "-d", str(folder / "classes"), str(folder / name)], check=True)
    return folder / "classes"


def tool(*names: str) -> None:
    """Skip unless one of these is here."""
    if not any(map(shutil.which, names)):
        pytest.skip(f"{names[0]} is not installed here")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - seen by others
            await asyncio.sleep(0.02)
