"""Building environments: requirements -> lock -> prefix, each made once and never changed.

A lock is kept under the sha256 of what it was made from, a prefix under the sha256 of its lock. A prefix counts when
its marker ``ready`` is there, which is written last; one without it was being made when something ended, and is made
anew. uv resolves and installs, with hard links from its cache. Bytecode is compiled when a module is first imported:
to compile all of it takes three times as long as to install it, and most of it is never imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jupyter_agent import processes
from jupyter_agent.environments.requirements import Requirements
from jupyter_agent.environments.uv import Say, Uv
from jupyter_agent.errors import Failed
from jupyter_agent.home import Lock, write_private
from jupyter_agent.waiting import holding

READY = "ready"

PROBE = """
import json, platform, sys, sysconfig
print(json.dumps([platform.python_implementation(), platform.python_version(), sysconfig.get_platform(),
                  *platform.libc_ver(), sys.base_exec_prefix]))
"""
"""What of an interpreter decides which packages it can have."""

MANAGED = """[externally-managed]
Error=This environment is shared by all runs with the same requirements and is never changed: add what is missing to
 the package's requirements.txt.
"""


@dataclass(frozen=True)
class Environment:
    """A ready environment; ``hash`` is the sha256 of its lock."""

    hash: str
    prefix: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.prefix / "bin" / "python"

    def variables(self, base: Mapping[str, str]) -> dict[str, str]:
        """``base`` for a process that lives in this environment."""
        path = f"{self.prefix / 'bin'}{os.pathsep}{base.get('PATH') or os.defpath}"
        return {**base, "VIRTUAL_ENV": str(self.prefix), "PATH": path}


class Environments:
    """The environments in a folder, made by one interpreter; many tasks and processes may ask for them at once."""

    def __init__(self, folder: Path, *, python: str = sys.executable, environ: Mapping[str, str] | None = None) -> None:
        """``environ`` is what uv may see of the environment; ``None``: what children of this process inherit."""
        self._folder = folder
        self._python = python
        self._environ = processes.inherited_environment() if environ is None else environ
        self._uv = Uv(self._environ, cache=folder / "cache")
        self._interpreter = ""

    async def ensure(
        self, requirements: Requirements | str, *, extra: Sequence[str] = (), say: Say, tag: str
    ) -> Environment:
        """The environment with these requirements, made unless it is there; ``say`` hears how that goes.

        ``extra`` are requirements of ours; ``tag`` marks the processes. Raises ``Failed`` with uv's explanation.
        """
        wanted = Requirements.of(requirements) if isinstance(requirements, str) else requirements
        wanted = wanted.adding(extra)
        lock = await self._lock_of(wanted, say, tag)
        return await self.from_lock(lock, options=wanted.options, say=say, tag=tag)

    async def from_lock(self, lock: str, *, options: Sequence[str] = (), say: Say, tag: str) -> Environment:
        """The environment that a lock describes, made unless it is there.

        ``options`` are those, such as ``--index-url``, without which its packages cannot be found.
        """
        digest = hashlib.sha256(lock.encode()).hexdigest()
        environment = Environment(digest, self._folder / digest)
        if not await asyncio.to_thread(_is_ready, environment):
            async with self._alone(digest, say):
                if not await asyncio.to_thread(_is_ready, environment):
                    await self._build(environment, lock, options, say, tag)
        return environment

    async def _lock_of(self, wanted: Requirements, say: Say, tag: str) -> str:
        """The lock made of the requirements when they were first asked for."""
        interpreter = await self._interpreter_facts(tag)
        asked = [interpreter, wanted.lines, wanted.constraints, wanted.options]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        file = self._folder / "locks" / f"{key}.txt"
        if (known := await asyncio.to_thread(_text, file)) is not None:
            return known
        async with self._alone(key, say):
            if (known := await asyncio.to_thread(_text, file)) is not None:
                return known
            lock = f"# {interpreter}\n{await self._resolve(wanted, self._folder / f'.{key}', say, tag)}"
            await asyncio.to_thread(_keep, file, lock)
            return lock

    async def _resolve(self, wanted: Requirements, scratch: Path, say: Say, tag: str) -> str:
        if not wanted.lines:
            return ""
        say("Resolving the requirements")
        files = {"requirements.txt": (*wanted.options, *wanted.lines), "constraints.txt": wanted.constraints}
        given = [name for name, lines in files.items() if lines]
        await asyncio.to_thread(_scratch, scratch, files)
        try:
            await self._uv.run(
                *("pip", "compile", given[0], *(part for name in given[1:] for part in ("--constraints", name))),
                *("--output-file", "lock.txt", "--generate-hashes", "--no-header", "--no-annotate"),
                *("--python", self._python),
                cwd=scratch,
                say=say,
                tag=tag,
            )
            return await asyncio.to_thread((scratch / "lock.txt").read_text, encoding="utf-8")
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    async def _build(self, environment: Environment, lock: str, options: Sequence[str], say: Say, tag: str) -> None:
        prefix = environment.prefix
        count = len(re.findall(r"^[A-Za-z0-9]", lock, re.MULTILINE))
        say(f"Making an environment ({count} packages)" if count != 1 else "Making an environment (1 package)")
        await asyncio.to_thread(_remove, prefix)
        run = partial(self._uv.run, say=say, tag=tag)
        try:
            await run("venv", "--no-project", "--python", self._python, str(prefix), cwd=self._folder, indexes=False)
            await asyncio.to_thread(_scratch, prefix / "lock", {"requirements.txt": [lock], "options.txt": options})
            if count:
                await run(
                    *("pip", "install", "--python", str(environment.python), "--require-hashes", "--no-deps"),
                    *("--requirements", "requirements.txt", *(("--requirements", "options.txt") if options else ())),
                    cwd=prefix / "lock",
                )
            await asyncio.to_thread(_finish, prefix)
        except BaseException:
            await asyncio.to_thread(_remove, prefix)
            raise

    async def _interpreter_facts(self, tag: str) -> str:
        if not self._interpreter:
            command = processes.Command((self._python, "-I", "-c", PROBE), self._folder, self._environ)
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            done = await processes.run(command, tag=tag, timeout_s=60)
            if not done.exit.ok:
                raise Failed(f"The interpreter {self._python} does not work: {done.output.strip() or done.exit}")
            self._interpreter = " ".join(json.loads(done.output.splitlines()[-1]))
        return self._interpreter

    def _alone(self, name: str, say: Say) -> contextlib.AbstractAsyncContextManager[None]:
        """Hold the lock of this name."""
        lock = Lock(self._folder / f".{name}.lock", held=name)
        return holding(lock, on_wait=lambda: say("Another run is making this environment: waiting for it"))


def _is_ready(environment: Environment) -> bool:
    return (environment.prefix / READY).is_file() and environment.python.exists()


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _keep(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True, mode=0o700)
    write_private(file, text)


def _scratch(folder: Path, files: Mapping[str, Sequence[str]]) -> None:
    """A new folder, for its user alone (an index may have a password), with these files, given by their lines."""
    _remove(folder)
    folder.mkdir(mode=0o700)
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _finish(prefix: Path) -> None:
    """Mark a prefix as ready; all that is in it is on the disk before."""
    for library in prefix.glob("lib/python*"):
        (library / "EXTERNALLY-MANAGED").write_text(MANAGED)
    os.sync()
    write_private(prefix / READY, "")
