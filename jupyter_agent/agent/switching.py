"""What comes of another configuration: an agent that runs looks at it by itself; here it is waited for and told."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from jupyter_agent.errors import AgentError
from jupyter_agent.home import AgentClient, Home, running_agent

CONFIGURATION_S = 2.0
"""Between two looks of an agent at whether another OpenFlow, or another token for it, was configured."""

SETTLED_S = 40
TRYING_S = 15
"""An agent that has changed over and still fails is not waited for any longer."""

LOOK_S = 0.2
SECOND_LOOK_S = CONFIGURATION_S + 1
"""An agent that used the same address before has looked at the new token by then."""

VARIABLES = ("apiurl", "grpcapiurl", "wsapiurl")


def variable_that_wins(environment: Mapping[str, str]) -> str | None:
    """The variable that names an OpenFlow whatever is configured, ``None`` where there is none."""
    return next((name for name in VARIABLES if environment.get(name)), None)


def settled(home: Home, url: str | None, *, had_it: bool) -> dict[str, Any]:
    """Wait until the running agent uses ``url`` (``None``: its hub), and tell what became of it.

    ``had_it``: it used that address before. Blocks. ``{"running", "connected", "url", "error"}``.
    """
    deadline = time.monotonic() + SETTLED_S
    earliest = time.monotonic() + (SECOND_LOOK_S if had_it else 0)
    trying_until = time.monotonic() + TRYING_S
    found = _look(home, url)
    while found["running"] and time.monotonic() < deadline:
        if found["connected"] and time.monotonic() >= earliest:
            break
        if found["switched"] and found["error"] and time.monotonic() >= trying_until:
            break
        time.sleep(LOOK_S)
        found = _look(home, url)
    return found


def _look(home: Home, url: str | None) -> dict[str, Any]:
    nothing = {"running": False, "connected": False, "switched": False, "url": None, "error": None}
    try:
        socket = running_agent(home)
        status = AgentClient(socket).request("GET", "status", timeout_s=10) if socket else None
    except (AgentError, OSError) as error:  # in the midst of its end, or broken: it is told
        return {**nothing, "running": True, "error": str(error)}
    if status is None:
        return nothing
    openflow = status["openflow"] or {}
    switched = bool(openflow.get("embedded")) if url is None else openflow.get("url") == url
    connected = bool(status["connected"])
    return {
        "running": True,
        "connected": connected and switched,
        "switched": switched,
        "url": openflow.get("url"),
        "error": None if connected else status["error"],
    }


def sentence(found: Mapping[str, Any], where: str) -> str:
    """What became of it, for people."""
    if not found["running"]:
        return f"No agent runs; the next one that starts uses {where}."
    if found["connected"]:
        return f"The running agent uses {where} from now on."
    if not found["switched"]:
        return f"The running agent still uses {found['url']}: its own environment may name that one. Restart it."
    return f"The running agent has not connected to {where}: {found['error'] or 'it is still trying.'}"
