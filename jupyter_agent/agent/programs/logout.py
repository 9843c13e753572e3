"""``logout``: forget the configured OpenFlow; the embedded hub is used again."""

from __future__ import annotations

import argparse
import os

from jupyter_agent.agent import login, switching
from jupyter_agent.agent.voice import Voice
from jupyter_agent.home import Home


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """It has no options of its own."""


def run(home: Home, _given: argparse.Namespace, voice: Voice) -> int:
    """Remove the configuration, and tell what the running agent makes of it."""
    home.check_version()
    before = login.forget(home)
    winning = switching.variable_that_wins(os.environ)
    url = (before or {}).get("apiurl")
    document = {"apiurl": url if isinstance(url, str) else None, "removed": before is not None, "environment": winning}
    if winning:
        voice.note(f"The environment variable {winning} still names an OpenFlow: unset it, too.")
    if before is None:
        voice.answer({**document, "agent": None}, "No OpenFlow is configured: the embedded hub is used.")
        return 0
    found = switching.settled(home, None, had_it=False)
    told = f"Signed out of {document['apiurl'] or 'the OpenFlow that was configured'}; its token was removed from here"
    lines = [f"{told}, and stays valid there until it ends.", switching.sentence(found, "the embedded hub")]
    voice.answer({**document, "agent": found}, "\n".join(lines))
    return 0 if found["connected"] or not found["running"] else 1
