"""How the programs of the home speak: the answer on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from jupyter_agent.errors import AgentError

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
        """The answer, for programs or for people."""
        sys.stdout.write(f"{json.dumps(document, indent=2) if self.as_json else text}\n")
        sys.stdout.flush()

    def fail(self, error: AgentError) -> int:
        """Say in one sentence what went wrong; the exit code."""
        self.note(f"jupyter-agent: {error}")
        if self.as_json:
            self.answer({"message": str(error), "reason": type(error).__name__}, "")
        return FAILED
