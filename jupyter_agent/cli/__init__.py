"""The command line: ``jupyter-agent``, also ``jupyter agent``.

Every command is a face of the agent and reaches it through its socket; only the standard library is imported before
it is known that more is needed.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Sequence

from jupyter_agent.cli.console import Console, open_closed_streams
from jupyter_agent.cli.context import Context
from jupyter_agent.cli.parser import parse
from jupyter_agent.errors import AgentError, Unavailable
from jupyter_agent.home import Home

INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 only when what was asked for succeeded, 2 for a command line that cannot be understood."""
    open_closed_streams()
    given = parse(argv)
    console = Console.standard(json=given.json)
    module, function = given.action.split(":")
    act = getattr(importlib.import_module(f"jupyter_agent.cli.{module}"), function)
    try:
        code = int(act(Context(Home.find(given.home), console), given))
        console.flush()
    except BrokenPipeError:  # whoever read what we print has enough
        console.give_up()
        return 1
    except KeyboardInterrupt:
        console.clear()
        return INTERRUPTED
    except AgentError as error:
        return console.fail(error)
    except OSError as error:
        return console.fail(_translated(error))
    else:
        return code


def _translated(error: OSError) -> AgentError:
    if isinstance(error, TimeoutError):
        return Unavailable("The agent did not answer in time: its log is in `logs` of its home.")
    if not isinstance(error, ConnectionError):
        return AgentError(f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror or error}.")
    return Unavailable("The agent ended while it answered: try again.")
