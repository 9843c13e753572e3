"""Environments of conda, mamba, micromamba and pixi on this machine (a placeholder until the real one is written)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Foreign:
    """One of them."""

    name: str
    path: Path
    origin: str
    python: str | None = None


def find(environ: Mapping[str, str] | None = None) -> list[Foreign]:  # noqa: ARG001 - the real one needs it
    """All of them."""
    return []
