"""The environments that come along, ready to be used or to start from: ``envs/<name>/environment.yml``."""

from __future__ import annotations

from pathlib import Path

FILE = "environment.yml"

PLACES = (Path(__file__).parents[1] / "envs", Path(__file__).parents[2] / "envs")
"""Where they lie: in an installation, and in the sources."""


def templates() -> dict[str, Path]:
    """Their files, by name."""
    found = (sorted(place.glob(f"*/{FILE}")) for place in PLACES)
    return {file.parent.name: file for file in next((files for files in found if files), [])}
