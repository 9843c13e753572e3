"""The extension application: settings, paths, schemas; what Jupyter calls at its start and its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonschema import ValidationError  # type: ignore[import-untyped]
from jupyter_server.extension.application import ExtensionApp  # noqa: TID251 - this is the extension
from traitlets import Unicode

from jupyter_agent.home import Home, Started
from jupyter_agent.server.events import Bridge, schemas
from jupyter_agent.server.handlers import handlers
from jupyter_agent.server.upstream import Upstream


class JupyterAgent(ExtensionApp):
    """The gate to the agent of one home. Loading it starts nothing."""

    name = "jupyter_agent"

    home = Unicode(
        "",
        config=True,
        help="""The agent's home: where packages, runs, environments and the embedded hub are kept. Every Jupyter
        server and every command with the same home uses the same agent. Empty: the environment variable
        JUPYTER_AGENT_HOME, else the folder `agent` in Jupyter's data folder.""",
    )

    def initialize_handlers(self) -> None:
        """Add the gate's paths and register the events (called by Jupyter)."""
        server: Any = self.serverapp
        for schema in schemas():
            server.event_logger.register_event_schema(schema)
        upstream = Upstream(Home.find(self.home or None), spawn=_spawn)
        self.bridge = Bridge(upstream, self._emit, log=server.log.warning)
        self.handlers.extend(handlers(upstream, self.bridge))

    def _emit(self, schema: str, data: dict[str, Any]) -> bool:
        server: Any = self.serverapp
        try:
            return server.event_logger.emit(schema_id=schema, data=data) is not None
        except ValidationError as error:
            self.log.warning("jupyter_agent: an event does not follow %s: %s", schema, error.message)
            return True

    async def stop_extension(self) -> None:
        """Let go of the agent, which goes on (called by Jupyter)."""
        await self.bridge.close()


def _spawn(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Started:
    from jupyter_agent.processes import spawn_detached  # noqa: PLC0415 - only when an agent is to be started

    return spawn_detached(argv, environment, log)
