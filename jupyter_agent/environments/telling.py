"""Who waits for an environment, and is told how it goes."""

from __future__ import annotations

from typing import Protocol

PHASES = ("solve", "download", "link", "pip", "compile", "check")
"""In the order in which an environment goes through them."""


class Teller(Protocol):
    """Takes what is said while an environment is made (a live run)."""

    def note(self, text: str) -> None:
        """Take a line of the log."""

    def show_progress(self, phase: str, done: float, total: float | None, detail: str = "") -> None:
        """Take how far a phase is: ``done`` of ``total`` (``None``: not known); ``detail`` is for people."""
