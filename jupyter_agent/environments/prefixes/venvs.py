"""Environments of our own interpreter for requirements that pip knows: made by uv, with hard links from its cache.

Bytecode is compiled when a module is first imported: to compile all of it takes three times as long as to install it,
and most of it is never imported.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from jupyter_agent import processes
from jupyter_agent.environments.prefixes.contents import distributions
from jupyter_agent.environments.prefixes.layout import python_of
from jupyter_agent.environments.prefixes.orders import Made, Order
from jupyter_agent.environments.requirements import HASH, Requirements, hashes_of
from jupyter_agent.environments.uv import Uv
from jupyter_agent.errors import Failed, InvalidInput

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


LINE = " \\\n    --hash={}"

LOCKED = re.compile(
    r"^(?P<requirement>(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)[^\\\n]*?)(?P<hashes>(?: \\\n[ ]+--hash=\S+)+)\n",
    re.MULTILINE,
)
"""A package in a lock of uv's, with the hashes of all its files."""


class Venvs:
    """Makes them of one interpreter; ``environ`` is what uv may see of the environment."""

    kind = "venv"
    suffix = ".txt"

    def __init__(self, folder: Path, *, python: str, environ: Mapping[str, str]) -> None:
        """``folder`` is the store's."""
        self._folder = folder
        self._python = python
        self._environ = environ
        self._uv = Uv(environ, cache=folder / "cache" / "uv")
        self._interpreter = ""

    async def hash_of(self, lock: Path, tag: str) -> str:  # noqa: ARG002 - as others need
        """The sha256 of the lock."""
        return hashlib.sha256(await asyncio.to_thread(lock.read_bytes)).hexdigest()

    async def key(self, order: Order) -> str:
        """Of requirements and interpreter."""
        wanted = await asyncio.to_thread(_wanted, order)
        asked = [await self._facts(order.tag), wanted.lines, wanted.constraints, wanted.options]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    async def lock(self, order: Order, scratch: Path) -> Path:
        """A requirements.txt with hashes, which names the interpreter in its first line."""
        wanted = await asyncio.to_thread(_wanted, order)
        text = f"# {await self._facts(order.tag)}\n{await self._resolved(wanted, order, scratch / 'uv')}"
        await asyncio.to_thread((scratch / "requirements.txt").write_text, text, encoding="utf-8")
        return scratch / "requirements.txt"

    async def _resolved(self, wanted: Requirements, order: Order, scratch: Path) -> str:
        if not wanted.lines:
            return ""
        order.teller.note("Resolving the requirements")
        order.teller.show_progress("solve", 0, None)
        files = {"requirements.txt": (*wanted.options, *wanted.lines), "constraints.txt": wanted.constraints}
        given = [name for name, lines in files.items() if lines]
        await asyncio.to_thread(_write, scratch, files)
        await self._uv.run(
            *("pip", "compile", given[0], *(part for name in given[1:] for part in ("--constraints", name))),
            *("--output-file", "lock.txt", "--generate-hashes", "--no-header", "--no-annotate"),
            *("--python", self._python, *(("--offline",) if order.offline else ())),
            cwd=scratch,
            say=order.teller.note,
            tag=order.tag,
        )
        text = await asyncio.to_thread((scratch / "lock.txt").read_text, encoding="utf-8")
        return _with_own_hashes(text, hashes_of((*wanted.lines, *wanted.constraints)))

    async def build(self, order: Order, lock: Path, prefix: Path, *, changed: list[str] | None) -> Made:
        """A venv with what the lock says."""
        text = await asyncio.to_thread(lock.read_text, encoding="utf-8")
        options = (await asyncio.to_thread(_wanted, order)).options
        count = len(re.findall(r"^[A-Za-z0-9]", text, re.MULTILINE))
        say, show = order.teller.note, order.teller.show_progress
        say(f"Making an environment ({count} packages)" if count != 1 else "Making an environment (1 package)")
        show("pip", 0, count)
        run = partial(self._uv.run, say=say, tag=order.tag)
        if changed:
            await run("cache", "clean", *changed, cwd=self._folder, indexes=False)
        await run("venv", "--no-project", "--python", self._python, str(prefix), cwd=self._folder, indexes=False)
        await asyncio.to_thread(_write, prefix / "lock", {"requirements.txt": [text], "options.txt": options})
        if count:
            await run(
                *("pip", "install", "--python", str(python_of(prefix)), "--require-hashes", "--no-deps"),
                *("--requirements", "requirements.txt", *(("--requirements", "options.txt") if options else ())),
                *(("--offline",) if order.offline else ()),
                cwd=prefix / "lock",
            )
        show("pip", count, count)
        return await asyncio.to_thread(_finished, prefix)

    async def forget(self, names: Sequence[str], *, tag: str) -> None:
        """Have uv remove these packages from its cache."""
        await self._uv.run("cache", "clean", *names, cwd=self._folder, say=_nobody, tag=tag, indexes=False)

    async def _facts(self, tag: str) -> str:
        if not self._interpreter:
            if self._python == sys.executable:
                facts = await asyncio.to_thread(_own_facts)
            else:
                facts = await self._probed(tag)
            self._interpreter = " ".join(facts)
        return self._interpreter

    async def _probed(self, tag: str) -> list[str]:
        command = processes.Command((self._python, "-I", "-c", PROBE), Path(os.sep), self._environ)
        done = await processes.run(command, tag=tag, timeout_s=60)
        if not done.exit.ok:
            raise Failed(f"The interpreter {self._python} does not work: {done.output.strip() or done.exit}")
        found: list[str] = json.loads(done.output.splitlines()[-1])
        return found


def _own_facts() -> list[str]:
    """Those of ``PROBE`` for the interpreter that we run in, which need not be started for that."""
    system = (platform.python_implementation(), platform.python_version(), sysconfig.get_platform())
    return [*system, *platform.libc_ver(), sys.base_exec_prefix]


def _nobody(_: str) -> None:
    """Nobody wants to hear it."""


def _with_own_hashes(lock: str, allowed: Mapping[str, frozenset[str]]) -> str:
    """The lock without hashes that a requirement of its own does not allow: uv forgets those when it resolves.

    Raises ``InvalidInput`` where none is left.
    """

    def checked(match: re.Match[str]) -> str:
        own = allowed.get(re.sub(r"[-_.]+", "-", match["name"]).lower())
        if own is None:
            return match[0]
        kept = [hash_ for hash_ in HASH.findall(match["hashes"]) if hash_ in own]
        if not kept:
            raise InvalidInput(
                f"No file of {match['requirement'].strip()} has a hash that the requirements allow: "
                "look where these hashes are from, and lock anew if the files are to be trusted."
            )
        return f"{match['requirement']}{''.join(LINE.format(hash_) for hash_ in kept)}\n"

    return LOCKED.sub(checked, lock) if allowed else lock


def _wanted(order: Order) -> Requirements:
    extra = (re.sub(r"\s+(?=[<>=!~])", "", line) for line in order.extra)
    return order.definition.requirements().adding(extra)


def _write(folder: Path, files: Mapping[str, Sequence[str]]) -> None:
    """A new folder, for its user alone (an index may have a password), with these files, given by their lines."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _finished(prefix: Path) -> Made:
    for library in prefix.glob("lib/python*"):
        (library / "EXTERNALLY-MANAGED").write_text(MANAGED)
    return Made(packages=len(distributions(prefix)))
