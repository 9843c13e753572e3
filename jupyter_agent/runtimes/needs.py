"""What a package needs besides its language, and whether it is here: a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyter_agent.errors import AgentError, Unavailable
from jupyter_agent.packages import Manifest
from jupyter_agent.runtimes.tools import Tool, Tools

CHROMIUM = Tool(
    ("chromium", "chromium-browser", "/Applications/Chromium.app/Contents/MacOS/Chromium"),
    "install Chromium (Debian's package chromium), or run the package on an agent that has it",
)
CHROME = Tool(
    (
        "google-chrome",
        "google-chrome-stable",
        "chrome",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    ),
    "install Google Chrome, or run the package on an agent that has it",
)

NEEDS: Mapping[str, Tool] = {"chrome": CHROME, "chromium": CHROMIUM}
"""By the name that a manifest, a package's document and an agent's document have for it (protocol §13)."""


def needs_of_document(document: Mapping[str, Any]) -> frozenset[str]:
    """What a package's document asks for, itself or in its section ``openiap``."""
    section = document.get("openiap")
    said = {**(section if isinstance(section, dict) else {}), **document}
    return frozenset(name for name in NEEDS if said.get(name) is True)


def needs_of(manifest: Manifest | None) -> frozenset[str]:
    """What a package's manifest asks for."""
    return frozenset(name for name in NEEDS if manifest is not None and getattr(manifest.openiap, name))


async def check_needs(needs: frozenset[str], tools: Tools, *, package: str) -> None:
    """Raise ``Unavailable`` with a sentence for the first of ``needs`` that this machine does not have."""
    for name in sorted(needs):
        try:
            await tools.need(NEEDS[name])
        except AgentError as error:
            raise Unavailable(f"The package {package} needs {name}. {error}") from error


def no_needs() -> dict[str, bool]:
    """What is announced before any tool was asked."""
    return dict.fromkeys(NEEDS, False)


async def needs_met(tools: Tools) -> dict[str, bool]:
    """Which of the needs this machine meets, as an agent's document says it; each tool is asked whether it works."""
    working = await tools.working(NEEDS.values())
    return {name: tool in working for name, tool in NEEDS.items()}
