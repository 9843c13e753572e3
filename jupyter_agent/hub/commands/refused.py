"""Commands of the protocol that make sense with containers, OpenRPA robots or workflows alone: refused by name.

The custom commands of the same names are to be refused with the same sentences.
"""

from __future__ import annotations

from typing import Any, NoReturn

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.commands.call import Call, Command

CONTAINERS = "this hub runs no agents in containers. Start and stop an agent where it is installed."
REFUSED = {
    "startagent": CONTAINERS,
    "stopagent": CONTAINERS,
    "deleteagent": f"{CONTAINERS} Its document goes with deleteone in agents.",
    "getagentpods": "this hub runs no agents in containers, so there are no pods.",
    "deleteagentpod": "this hub runs no agents in containers, so there are no pods.",
    "getagentlog": "this hub runs no agents in containers. An agent keeps the output of its runs itself.",
    "invokeopenrpa": "this hub knows no OpenRPA robots. Send a message to an agent's queue instead.",
    "createworkflowinstance": "this hub runs no workflows. Use a work item queue with a package instead.",
}
"""By command, why not and what to do instead."""


def refusal(command: str) -> InvalidInput:
    """What is said to who asks for one of these, plain or as a custom command."""
    return InvalidInput(f"The command {command} is not offered: {REFUSED[command]}")


def _refusing(command: str) -> Command:
    async def refuse(_call: Call, _request: Any) -> NoReturn:
        raise refusal(command)

    return refuse


COMMANDS: dict[str, Command] = {command: _refusing(command) for command in REFUSED}
