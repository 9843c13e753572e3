"""How the programs of the home speak: the answer on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from jupyter_agent.errors import AgentError, Unavailable

FAILED = 1


@dataclass(frozen=True)
class Voice:
    """Of one program. With ``as_json`` stdout is kept for the one document."""

    as_json: bool = False

    def note(self, text: str) -> None:
        """A line beside the answer."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def answer(self, document: Any, text: str) -> None:
        """The answer, for programs or for people. Raises ``BrokenPipeError``, ``Unavailable`` on a full disk."""
        try:
            sys.stdout.write(f"{json.dumps(document, indent=2) if self.as_json else text}\n")
            sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is it tried at the interpreter's end
            if isinstance(error, BrokenPipeError):  # whoever reads it has enough
                raise
            raise Unavailable(f"The answer cannot be written: {error.strerror}.") from error

    def fail(self, error: AgentError) -> int:
        """Say in one sentence what went wrong; the exit code."""
        with contextlib.suppress(AgentError, OSError):
            self.note(f"jupyter-agent: {error}")
            if self.as_json:
                self.answer({"message": str(error), "reason": type(error).__name__}, "")
        return FAILED
