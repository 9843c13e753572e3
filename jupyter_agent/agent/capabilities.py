"""What this agent can run, as OpenFlow is told: languages, browsers.

The tools for it are asked in the background, after the agent has registered: nobody waits for them. What their answers
change is announced by registering again. Refuses to know tools.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jupyter_agent import runtimes

log = logging.getLogger(__name__)

LOOK_PAUSE_S = 30.0
"""At most this often the tools are asked, however often a connection is lost and made again."""


@dataclass(frozen=True)
class Known:
    """``needs`` has a truth for each that a package may have (``chromium``)."""

    languages: tuple[str, ...]
    needs: tuple[tuple[str, bool], ...] = field(default_factory=lambda: tuple(sorted(runtimes.no_needs().items())))


class Capabilities:
    """What is known by now: at first what needs no other program. ``on_change`` is called when it is to be told."""

    def __init__(
        self, tools: runtimes.Tools, *, on_change: Callable[[], None], look_pause_s: float = LOOK_PAUSE_S
    ) -> None:
        self._tools = tools
        self._on_change = on_change
        self._look_pause_s = look_pause_s
        self._looked_at: float | None = None
        self._known = Known(tuple(runtimes.certain_languages()))

    def announcement(self) -> dict[str, object]:
        """The fields of an agent's document (protocol §13)."""
        return {"languages": list(self._known.languages), **dict(self._known.needs)}

    async def look(self) -> None:
        """Ask the tools again, unless they were asked just now."""
        if self._looked_at is not None and time.monotonic() < self._looked_at + self._look_pause_s:
            return
        self._looked_at = time.monotonic()
        try:
            languages = await runtimes.working_languages(self._tools)
            needs = await runtimes.needs_met(self._tools)
        except Exception:
            log.exception("What this machine can run could not be found out; what was known of it is kept.")
            return
        known = Known(tuple(languages), tuple(sorted(needs.items())))
        if known != self._known:
            self._known = known
            self._on_change()
