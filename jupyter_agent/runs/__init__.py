"""Runs: taken in, prepared, executed within their limits, seen to exactly one end, kept for a while.

What a run executes is decided elsewhere (``Prepared``); this package refuses to know languages, packages and OpenFlow.
"""

from __future__ import annotations

from jupyter_agent.runs.artifacts import path_of as artifact_path
from jupyter_agent.runs.attempts import MOST_RETRIES
from jupyter_agent.runs.output import OutputLog, Page
from jupyter_agent.runs.run import Limits, Prepared, PrepareFn, Run
from jupyter_agent.runs.supervisor import Supervisor
from jupyter_agent.runs.verdict import Verdict, verdict

__all__ = [
    "MOST_RETRIES",
    "Limits",
    "OutputLog",
    "Page",
    "PrepareFn",
    "Prepared",
    "Run",
    "Supervisor",
    "Verdict",
    "artifact_path",
    "verdict",
]
