"""What a check found, and what it may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jupyter_agent.home import Home

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """``message`` is a sentence; ``todo`` what to do, empty for nothing."""

    name: str
    state: State
    message: str
    todo: str = ""


@dataclass(frozen=True)
class Case:
    """The home that is looked at, and the environment of whoever asks."""

    home: Home
    environ: Mapping[str, str]
    temp: Path


def ok(name: str, message: str, todo: str = "") -> Finding:
    """All is well."""
    return Finding(name, "ok", message, todo)


def warning(name: str, message: str, todo: str) -> Finding:
    """It works, but will not for long, or not as one may think."""
    return Finding(name, "warning", message, todo)


def problem(name: str, message: str, todo: str) -> Finding:
    """It does not work."""
    return Finding(name, "problem", message, todo)
