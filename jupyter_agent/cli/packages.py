"""``package``: packing, publishing, listing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jupyter_agent.cli.context import Context, segment
from jupyter_agent.cli.text import local_time, size

PUBLISH_TIMEOUT_S = 600


def pack(context: Context, given: argparse.Namespace) -> int:
    """Make the archive of a package."""
    from jupyter_agent.packages import Manifest, pack  # with pydantic, for this command alone

    folder = given.folder.expanduser().absolute()
    manifest = Manifest.read(folder)
    archive = pack(folder, (given.output or Path()).expanduser().absolute())
    length = archive.stat().st_size
    if context.console.json:
        context.console.document(
            {"path": str(archive), "name": manifest.name, "version": manifest.version, "size": length}
        )
    context.console.line(f"Packed {manifest.name} {manifest.version}: {archive} ({size(length)})")
    return 0


def publish(context: Context, given: argparse.Namespace) -> int:
    """Pack a package and publish it."""
    published = publish_folder(context, given.folder.expanduser().absolute())
    if context.console.json:
        context.console.document(published)
    context.console.line(f"Published {published['name']} {published['version']} (id {published['id']})")
    return 0


def publish_folder(context: Context, folder: Path) -> dict[str, Any]:
    """Let the agent publish a folder: ``{"id", "fileid", "name", "version"}``."""
    agent = context.agent()
    context.console.bar("publishing")
    try:
        published: dict[str, Any] = agent.request(
            "POST", "packages", {"path": str(folder)}, timeout_s=PUBLISH_TIMEOUT_S
        )
    finally:
        context.console.clear()
    return published


def list_packages(context: Context, _given: argparse.Namespace) -> int:
    """List what is in OpenFlow."""
    found = context.agent().request("GET", "packages")
    if context.console.json:
        context.console.document(found)
    elif found:
        rows = [(p["name"], p["version"], p["language"], p["id"], p["description"]) for p in found]
        context.console.rows(("NAME", "VERSION", "LANGUAGE", "ID", "DESCRIPTION"), rows, soft=(4,))
    else:
        context.console.note("There are no packages yet: `jupyter-agent package publish FOLDER` publishes one.")
    return 0


def show(context: Context, given: argparse.Namespace) -> int:
    """Show one package."""
    found = context.agent().request("GET", f"packages/{segment(given.name)}")
    if context.console.json:
        context.console.document(found)
    shown = {**found, "modified": local_time(found.get("modified"))}
    context.console.facts((name.capitalize(), "yes" if value is True else value or "") for name, value in shown.items())
    return 0
