"""The parts of a running hub, as its commands reach them."""

from __future__ import annotations

from dataclasses import dataclass, field

from jupyter_agent.hub.data.store import Store
from jupyter_agent.hub.files import Files
from jupyter_agent.hub.network.connection import Connection
from jupyter_agent.hub.queues import Queues
from jupyter_agent.hub.turns import Turns
from jupyter_agent.hub.users import Users
from jupyter_agent.hub.watches import Watches


@dataclass(frozen=True)
class Services:
    """One hub's parts; ``config`` is the JSON text that every sign-in returns."""

    store: Store
    users: Users
    files: Files
    watches: Watches
    queues: Queues
    config: str
    connections: dict[str, Connection] = field(default_factory=dict)
    turns: Turns = field(default_factory=Turns)
