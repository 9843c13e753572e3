"""The agent's process: ``python -m jupyter_agent.api --home DIR``."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from tornado.netutil import bind_unix_socket
from traitlets import TraitError
from traitlets.config import Config

from jupyter_agent import __version__
from jupyter_agent.agent.agent import Agent
from jupyter_agent.agent.mounts import refuse_network
from jupyter_agent.agent.settings import load_config
from jupyter_agent.api.app import MOST_READ_BYTES, SocketServer, make_application
from jupyter_agent.api.broadcast import Broadcast
from jupyter_agent.api.handler import Faces
from jupyter_agent.api.values import run_json
from jupyter_agent.errors import AgentError, Conflict
from jupyter_agent.home import Home, Lock, socket_path, write_private
from jupyter_agent.runs import OutputLog
from jupyter_agent.state import RunRow

log = logging.getLogger("jupyter_agent")

IDLE_CHECK_S = 5.0

BACKLOG = 1024
"""Connections that wait to be taken: a Unix socket refuses more at once instead of letting them wait."""


class Process:
    """One agent on one home, from its lock to its end."""

    def __init__(self, home: Home, config: Config, *, stays: bool) -> None:
        """``stays``: it was started by hand, and does not end by itself."""
        self._home = home
        self._stays = stays
        self._faces = Faces()
        self._events = Broadcast()
        self._end = asyncio.Event()
        self._agent = Agent(
            home,
            on_status=self._status_changed,
            on_run=self._run_changed,
            on_package=self._package_changed,
            config=config,
        )

    async def run(self) -> None:
        """Serve until asked to end, or until nobody has needed the agent for a while."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.set)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._agent)
            path = self._listen(stack)
            write_private(self._home.agent_file, json.dumps(self._about(path), indent=2))
            stack.callback(self._home.agent_file.unlink, missing_ok=True)
            log.info("The agent listens on %s", path)
            await self._until_the_end()
            log.info("The agent ends.")

    def _listen(self, stack: AsyncExitStack) -> Path:
        path = socket_path(self._home)
        path.unlink(missing_ok=True)  # left by one that was killed: we hold the lock
        if path.parent != self._home.path:
            stack.callback(path.parent.rmdir)
        server = SocketServer(
            make_application(self._agent, faces=self._faces, events=self._events, shut_down=self._end.set),
            max_body_size=MOST_READ_BYTES,
        )
        server.add_socket(bind_unix_socket(str(path), mode=0o600, backlog=BACKLOG))
        stack.callback(path.unlink, missing_ok=True)
        stack.callback(server.stop)
        return path

    def _about(self, path: Path) -> dict[str, object]:
        return {"pid": os.getpid(), "started": self._agent.started, "socket": str(path), "version": __version__}

    async def _until_the_end(self) -> None:
        while not self._end.is_set():
            try:
                async with asyncio.timeout(IDLE_CHECK_S):
                    await self._end.wait()
            except TimeoutError:
                if self._unneeded():
                    log.info("Nothing has needed the agent for %.0f s.", self._agent.idle_s)
                    return

    def _unneeded(self) -> bool:
        agent = self._agent
        if self._stays or agent.lifetime == "always" or agent.supervisor.live_runs() or agent.console.busy:
            return False
        if agent.link.endpoint is not None and not agent.link.endpoint.embedded:
            return False
        return self._faces.idle_s() > agent.idle_s

    def _status_changed(self) -> None:
        self._events.send("status", "", lambda: {"event": "status", "status": self._agent.status()})

    def _run_changed(self, row: RunRow) -> None:
        self._events.send("run", row.id, lambda: {"event": "run", "run": run_json(row, self._output_size(row))})
        if row.ended or row.state == "queued":
            self._status_changed()

    def _output_size(self, row: RunRow) -> int:
        live = self._agent.supervisor.live(row.id)
        return live.output.size if live else OutputLog(Path(row.folder) / "output").size

    def _package_changed(self, package: str, operation: str) -> None:
        self._events.send("package", package, lambda: {"event": "package", "id": package, "operation": operation})


def main() -> int:
    """Run the agent; 0 when it ended in order."""
    parser = argparse.ArgumentParser(prog="python -m jupyter_agent.api")
    parser.add_argument("--home", required=True)
    parser.add_argument("--detached", action="store_true", help="started by a face: it is no error if another one runs")
    given = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    home = Home.find(given.home)
    try:
        refuse_network(home.path)
        home.prepare()
        with Lock(home.path / "agent.lock", held=f"An agent runs on {home.path} already."):
            asyncio.run(Process(home, load_config(), stays=not given.detached).run())
    except Conflict as error:
        sys.stderr.write(f"{error}\n")
        return 0 if given.detached else 1
    except Exception as error:  # noqa: BLE001 - told, or logged whole
        sys.stderr.write(f"{last_words(error, home)}\n")
        return 1
    return 0


def last_words(error: Exception, home: Home) -> str:
    """Why the agent ends, in the one sentence that whoever started it shows."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, AgentError):
        return str(error)
    if isinstance(error, TraitError):
        return f"A setting in jupyter_agent_config cannot be used: {error}"
    if isinstance(error, OSError):
        return f"The agent cannot work in its home {home.path}: {error}."
    log.error("The agent failed", exc_info=error)
    return f"The agent failed ({type(error).__name__}): see {home.logs}."


if __name__ == "__main__":
    sys.exit(main())
