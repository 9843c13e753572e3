"""``restore``: the home becomes what a backup holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from jupyter_agent.agent.backup.restoring import Restored, restore
from jupyter_agent.agent.voice import Voice
from jupyter_agent.home import Home
from jupyter_agent.hub.transfer.disk import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--stop", action="store_true", help="end runs that are under way")
    parser.add_argument("source", metavar="FILE", type=Path)


def run(home: Home, given: argparse.Namespace, voice: Voice) -> int:
    """Restore, and tell where the old home is."""
    source = given.source.expanduser().absolute()
    with Progress() as say:

        def tell(text: str) -> None:
            say.clear()
            voice.note(text)

        done = restore(home, source, stop=given.stop, say=say, tell=tell)
    document = {
        "home": str(done.home),
        "created": done.backup.head.created,
        "files": done.backup.head.files,
        "before": str(done.before) if done.before else None,
        "restarted": [name for name, ran in (("agent", done.agent), ("hub", done.hub)) if ran and not done.trouble],
        "trouble": done.trouble or None,
    }
    voice.answer(document, "\n".join(_lines(done)))
    return 1 if done.trouble else 0


def _lines(done: Restored) -> list[str]:
    lines = [f"{done.home} is what it was on {done.backup.head.created}: {done.backup.head.files} files."]
    if done.before:
        lines.append(f"What was there before is in {done.before}: remove it when all is well.")
    if done.backup.manifest.home != str(done.home):
        lines.append(f"The backup is of {done.backup.manifest.home}: two agents of one identity must not run at once.")
    if done.trouble:
        lines.append(f"The agent did not start again: {done.trouble}")
        if done.before:
            lines.append(f"To go back: remove {done.home} and rename {done.before} to it.")
    elif done.agent:
        lines.append("The agent runs again.")
    return lines
