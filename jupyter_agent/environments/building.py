"""Locking and building with uv. A prefix is built once, at its final place, and marked as ready last.

``locks/<sha256 of what was asked>.txt`` is the lock that was made of it; ``<sha256 of the lock>/`` is the prefix. What
has no marker is half-made: it is removed and built again. Nothing is ever changed in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyter_agent import processes
from jupyter_agent.environments.indexes import uv_variables
from jupyter_agent.environments.requirements import read_all
from jupyter_agent.errors import Conflict, Failed
from jupyter_agent.home import Lock, write_private

READY = "ready"
"""The marker's name in a prefix; it holds the version of Python."""

MANAGED = """[externally-managed]
Error=This environment belongs to jupyter_agent and is shared by all runs with the same requirements.
 To use another package, add it to the requirements.txt of the notebook or program.
"""
"""What ``EXTERNALLY-MANAGED`` says (Python Packaging User Guide, specification of that name)."""

COMPILE_TIMEOUT_S = 600
INSTALL_TIMEOUT_S = 3600
POLL_S = 0.1


@dataclass(frozen=True)
class Environment:
    """A ready prefix; ``hash`` is the sha256 of its lock."""

    hash: str
    prefix: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.prefix / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    def variables(self, path: str) -> dict[str, str]:
        """What activates it; ``path`` is the ``PATH`` before."""
        folder = str(self.python.parent)
        return {"VIRTUAL_ENV": str(self.prefix), "PATH": os.pathsep.join(filter(None, (folder, path)))}


class Environments:
    """The environments of a home. ``python`` is the interpreter that they are made of."""

    def __init__(self, folder: Path, *, python: str = sys.executable) -> None:
        self._folder = folder
        self._locks = folder / "locks"
        self._python = python

    async def ensure(
        self, requirements: Path | None, *, extra: Sequence[str] = (), say: Callable[[str], None], tag: str
    ) -> Environment:
        """The environment for a ``requirements.txt`` (``None``: there is none) with the ``extra`` requirements.

        ``say`` gets lines on what is done; ``tag`` marks the processes that do it. Raises ``InvalidInput`` for a file
        that cannot be locked, ``Failed`` with uv's explanation.
        """
        asked = await asyncio.to_thread(self._asked, requirements, extra)
        lock = self._locks / f"{asked}.txt"
        if not lock.exists():
            async with self._alone(f".{asked}.lock"):
                if not lock.exists():
                    await self._compile(lock, requirements, extra, say=say, tag=tag)
        text = await asyncio.to_thread(lock.read_bytes)
        environment = Environment(hashlib.sha256(text).hexdigest(), self._folder / hashlib.sha256(text).hexdigest())
        if not (environment.prefix / READY).exists():
            async with self._alone(f".{environment.hash}.lock"):
                if not (environment.prefix / READY).exists():
                    await self._build(environment, lock, say=say, tag=tag)
        return environment

    def _asked(self, requirements: Path | None, extra: Sequence[str]) -> str:
        """One sha256 for all that decides the lock."""
        digest = hashlib.sha256("\0".join([interpreter(self._python), *sorted(extra)]).encode())
        if requirements is not None:
            for file, content in read_all(requirements, requirements.parent):
                digest.update(b"\0".join((b"", os.path.relpath(file, requirements.parent).encode(), content)))
        return digest.hexdigest()

    async def _compile(
        self, lock: Path, requirements: Path | None, extra: Sequence[str], *, say: Callable[[str], None], tag: str
    ) -> None:
        """Resolve to exact versions with hashes; the lock is on disk when this returns."""
        say("Resolving the requirements")
        self._locks.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=self._locks, prefix=".new-") as scratch:
            extras, made = Path(scratch) / "extra.txt", Path(scratch) / "lock.txt"
            extras.write_text("".join(f"{line}\n" for line in extra))
            sources = [str(requirements)] if requirements is not None else []
            sources += [str(extras)] if extra or not sources else []
            cwd = requirements.parent if requirements is not None else Path(scratch)
            await self._uv(
                *("pip", "compile", *sources, "--output-file", str(made), "--generate-hashes", "--no-annotate"),
                *("--no-header", "--python", self._python),
                cwd=cwd, say=None, tag=tag, timeout_s=COMPILE_TIMEOUT_S,
            )  # fmt: skip
            text = await asyncio.to_thread(made.read_text, encoding="utf-8")
            # The interpreter is part of what is locked: the same packages for another Python are another prefix.
            await asyncio.to_thread(write_private, lock, f"# {interpreter(self._python)}\n{text}")

    async def _build(self, environment: Environment, lock: Path, *, say: Callable[[str], None], tag: str) -> None:
        """Make the prefix; a half-made one is removed first, and after a failure."""
        prefix = environment.prefix
        await asyncio.to_thread(remove, prefix)
        say("Building the environment")
        try:
            await self._uv(
                *("venv", str(prefix), "--python", self._python, "--no-project"),
                cwd=self._folder, say=None, tag=tag, timeout_s=COMPILE_TIMEOUT_S,
            )  # fmt: skip
            await self._uv(
                *("pip", "install", "--python", str(environment.python), "--require-hashes", "--compile-bytecode"),
                *("--requirement", str(lock)),
                cwd=self._folder, say=say, tag=tag, timeout_s=INSTALL_TIMEOUT_S,
            )  # fmt: skip
            await asyncio.to_thread(mark_ready, prefix)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(remove, prefix))
            raise

    async def _uv(
        self, *arguments: str, cwd: Path, say: Callable[[str], None] | None, tag: str, timeout_s: float
    ) -> None:
        """Run uv. Raises ``Failed`` with its own words."""
        command = processes.Command((uv_program(), *arguments), cwd, uv_environment())
        done = await processes.run(
            command, tag=tag, on_line=None if say is None else lambda _, line: say(line), timeout_s=timeout_s
        )
        if not done.exit.ok:
            raise Failed(f"The environment cannot be made: {explanation(done.output)}")

    @contextlib.asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """Wait for whoever makes the same, in this process or another."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = Lock(self._folder / name, held=name)
        while True:
            try:
                lock.acquire()
                break
            except Conflict:
                await asyncio.sleep(POLL_S)
        try:
            yield
        finally:
            lock.release()


def uv_program() -> str:
    """The uv that was installed with us."""
    from uv import find_uv_bin  # noqa: PLC0415 - only a home that makes environments needs it

    return find_uv_bin()


def uv_environment() -> Mapping[str, str]:
    """A child's environment in which uv uses our interpreter, the system's certificates and pip's indexes."""
    inherited = processes.inherited_environment()
    ours = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "UV_NO_CONFIG_PROMPT": "1", "NO_COLOR": "1"}
    # Both names of one setting: the first is what older versions know.
    system = {} if "SSL_CERT_FILE" in inherited else {"UV_NATIVE_TLS": "1", "UV_SYSTEM_CERTS": "1"}
    return {**system, **uv_variables(inherited), **inherited, **ours}


def interpreter(python: str) -> str:
    """What of the interpreter and the machine decides which wheels fit."""
    version = platform.python_version()
    where = sys.base_prefix if python == sys.executable else python
    return f"{sys.implementation.name} {version} {sys.platform} {platform.machine()} {where}"


def explanation(output: str) -> str:
    """Uv's words in one line, without its ornaments."""
    lines = (
        re.sub(r"^[\s\u00d7\u2570\u2500\u25b6\u2502\u251c\u00b7]+", "", line).strip() for line in output.splitlines()
    )
    text = " ".join(line for line in lines if line and not line.startswith("warning:"))
    return text if len(text) < 2000 else f"{text[:1000]} … {text[-900:]}"  # noqa: PLR2004 - still a message


def mark_ready(prefix: Path) -> None:
    """Everything is there and on disk: from now on it counts."""
    for folder in (prefix / "lib").glob("python*"):
        (folder / "EXTERNALLY-MANAGED").write_text(MANAGED)
    os.sync()
    write_private(prefix / READY, f"{platform.python_version()}\n")


def remove(prefix: Path) -> None:
    """Remove a prefix, the marker first: what is left of it never counts."""
    (prefix / READY).unlink(missing_ok=True)
    shutil.rmtree(prefix, ignore_errors=True)
