"""``backup``: the whole home in one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from jupyter_agent.agent.backup.layout import MADE_ANEW
from jupyter_agent.agent.backup.taking import back_up
from jupyter_agent.agent.voice import Voice
from jupyter_agent.home import Home
from jupyter_agent.hub.transfer.disk import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--everything", action="store_true", help="also what can be made anew")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument("target", metavar="FILE", type=Path)


def run(home: Home, given: argparse.Namespace, voice: Voice) -> int:
    """Back up, and tell what was written."""
    target = given.target.expanduser().absolute()
    with Progress() as say:
        taken = back_up(home, target, everything=given.everything, force=given.force, say=say)
    files = [entry for entry in taken.manifest.entries if entry.kind == "file"]
    size = sum(entry.bytes for entry in files)
    for sentence in taken.manifest.left_out:
        voice.note(f"Left out: {sentence}")
    document = {
        "path": str(target),
        "size": taken.size,
        "files": len(files),
        "bytes": size,
        "everything": given.everything,
        "left_out": list(taken.manifest.left_out),
        "created": taken.head.created,
    }
    lines = [f"{target}: {len(files)} files, {size / (1 << 20):.1f} MiB, packed {taken.size / (1 << 20):.1f} MiB."]
    if not given.everything:
        lines.append(f"Without what is made anew where it is needed: {', '.join(MADE_ANEW)}.")
    lines.append("It holds your tokens and passwords, readable by you alone: keep it as safe as the home itself.")
    voice.answer(document, "\n".join(lines))
    return 0
