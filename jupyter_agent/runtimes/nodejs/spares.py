"""A node kept ready: starting one takes 40 ms and more, which a run need not wait for.

It is used once. What node reads of its environment before its program begins has to be the same as the run's;
otherwise, and where none is ready, a node is started as ever. The runs before it say whether one is worth keeping.
What a program could tell it by: ``performance.now`` counts from node's own start, and ``ps`` shows its command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from jupyter_agent import processes
from jupyter_agent.errors import AgentError
from jupyter_agent.processes import Command, Process
from jupyter_agent.processes.environment import TAG

log = logging.getLogger(__name__)

PROGRAM = Path(__file__).with_name("spare.cjs")

READ_AT_START = re.compile(
    r"LANG|LC_|TZ$|NODE_|(?i:HTTPS?_PROXY|NO_PROXY)$|SSL_|OPENSSL|LD_|DYLD_|UV_|ICU_|MALLOC_|GLIBC_|(NO|FORCE)_COLOR$"
)
"""Variables that node, its libraries or the loader have read before a program begins."""

PAUSE_S = 0.1
"""After a run has got one, before the next is started: the run's own first moments are not to be slower for it."""

IDLE_S = 300.0
"""How long one is kept that nobody needs: it takes some 45 MiB."""

SURROGATES = re.compile("[\ud800-\udfff]")
"""Bytes that are no text, as Python holds them."""

LONGEST = 48 << 10
"""Bytes of what it is told: a pipe takes that at once."""


class Spares:
    """At most one node that waits; use it with ``async with``."""

    def __init__(self) -> None:
        self._ready: _Waiting | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._useless = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])

    async def start(self, command: Command, *, tag: str) -> Process:
        """Start node on a file: the one that waits, if it can be that. Raises as ``processes.start`` does."""
        ready, self._ready = self._ready, None
        self._keep(command)
        if ready is not None:
            if ready.can_be(command):
                if ready.process.hand_over(tag, _told(command, tag)):
                    return ready.process
                self._useless = ready.process.exit is None  # a system on which none can be given to a run
            await _end(ready.process)
        return await processes.start(command, tag=tag)

    def _keep(self, command: Command) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
        if self._useless:
            return
        environ = {name: value for name, value in command.env.items() if name == "PATH" or READ_AT_START.match(name)}
        waiting = Command((command.argv[0], str(PROGRAM)), PROGRAM.parent, environ)
        self._keeping = asyncio.create_task(self._have_one(waiting))

    async def _have_one(self, command: Command) -> None:
        """Start one in a moment, and end it when nobody has needed it for long."""
        await asyncio.sleep(PAUSE_S)
        try:
            process = await processes.start(command, tag=f"spare-{secrets.token_hex(8)}", waiting=True)
        except AgentError as error:
            log.warning("No node can be kept ready: %s", error)
            return
        self._ready = _Waiting(command, process, _stamp(command))
        try:
            async with asyncio.timeout(IDLE_S):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            if self._ready is not None and self._ready.process is process:  # else a run has it
                self._ready = None
                await _end(process)


@dataclass(frozen=True)
class _Waiting:
    command: Command
    process: Process
    stamp: tuple[int, int] | None

    def can_be(self, command: Command) -> bool:
        """Whether it runs what the command names, as that is on the disk now, and has read nothing else."""
        same = self.command.argv[0] == command.argv[0] and _early(self.command.env) == _early(command.env)
        return same and self.stamp == _stamp(command)


def is_plain(command: Command) -> bool:
    """Whether a command is node on a file, without switches of node's own, and can be told as text."""
    if len(command.argv) < 2 or command.argv[1].startswith("-"):  # noqa: PLR2004 - node and a file
        return False
    told = json.dumps([command.argv, str(command.cwd), dict(command.env)], ensure_ascii=False)
    return not SURROGATES.search(told) and len(_told(command, "")) <= LONGEST


def _stamp(command: Command) -> tuple[int, int] | None:
    """What changes when the program is replaced; ``None``: it is gone."""
    try:
        found = os.stat(command.argv[0])  # noqa: PTH116 - a string that is looked at in the event loop: no detours
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _early(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if READ_AT_START.match(name)}


def _told(command: Command, tag: str) -> bytes:
    file = os.path.normpath(command.cwd / command.argv[1])
    told = {"argv": [file, *command.argv[2:]], "cwd": str(command.cwd), "env": {**command.env, TAG: tag}}
    return json.dumps(told).encode()


async def _end(process: Process) -> None:
    with contextlib.suppress(AgentError, OSError):
        await process.end()
    process.close()
