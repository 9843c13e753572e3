"""The programs of a home: ``python -m jupyter_agent.agent NAME ... --home DIR``.

Each is what ``jupyter-agent`` becomes for the command of its name; all of them work without an agent, and each loads no
more than it needs: ``doctor`` has to speak where half of that is broken.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from jupyter_agent.agent.voice import Voice
from jupyter_agent.errors import AgentError, Unavailable
from jupyter_agent.home import Home

INTERRUPTED = 130

PROGRAMS = ("doctor", "login", "logout", "backup", "restore")
"""Modules of ``agent.programs``, each with ``add_arguments(parser)`` and ``run(home, given, voice)``."""


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code. Errors are one sentence on standard error."""
    name = arguments[0] if arguments else ""
    if name not in PROGRAMS:
        sys.stderr.write(f"jupyter-agent: there is no program {name!r}, but {', '.join(PROGRAMS)}.\n")
        return 2
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # they are TextIOWrappers
    voice = Voice("--json" in arguments)
    try:
        return _done(name, arguments[1:], voice)
    except AgentError as error:
        return voice.fail(error)
    except BrokenPipeError:
        return 1
    except OSError as error:
        return voice.fail(Unavailable(f"{error.filename}: {error.strerror}." if error.filename else f"{error}."))
    except KeyboardInterrupt:
        voice.note("")
        return INTERRUPTED


def _done(name: str, arguments: Sequence[str], voice: Voice) -> int:
    program = importlib.import_module(f"jupyter_agent.agent.programs.{name}")
    parser = argparse.ArgumentParser(prog=f"python -m jupyter_agent.agent {name}")
    parser.add_argument("--home", help="the agent's home")
    parser.add_argument("--json", action="store_true", help="end with one JSON document")
    program.add_arguments(parser)
    given = parser.parse_args(arguments)
    return int(program.run(Home.find(given.home), given, voice))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
