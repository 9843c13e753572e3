"""``package``: packing, publishing, listing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jupyter_agent.cli.context import Context, segment
from jupyter_agent.cli.run import LAUNCH_TIMEOUT_S, fetching, see_to_end
from jupyter_agent.cli.text import local_time, plain, size
from jupyter_agent.errors import InvalidInput

PUBLISH_TIMEOUT_S = 600

REINSTALL_TIMEOUT_S = 120
"""Longer than runs are given to end."""


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


def prepare(context: Context, given: argparse.Namespace) -> int:
    """Fetch a package and make ready what its runs need, here or on another agent."""
    body = fetching(given)
    if given.agent and body:
        raise InvalidInput("Another agent goes by its own settings: leave --channel-from-pypi and --offline out.")
    agent = context.agent()
    started = agent.request("POST", f"{_base(given)}/prepare", body, timeout_s=LAUNCH_TIMEOUT_S)
    return see_to_end(context, agent, started, detach=given.detach)


def reinstall(context: Context, given: argparse.Namespace) -> int:
    """End a package's runs, and have it fetched and prepared anew."""
    answer = context.agent().request("POST", f"{_base(given)}/reinstall", {}, timeout_s=REINSTALL_TIMEOUT_S)
    if context.console.json:
        context.console.document(answer)
    cancelled = answer["cancelled"]
    runs = "" if cancelled is None else f" ({cancelled} {'run' if cancelled == 1 else 'runs'} of it ended)"
    context.console.line(f"{plain(given.name)} is fetched and prepared anew at its next run{runs}.")
    return 0


def remove(context: Context, given: argparse.Namespace) -> int:
    """Remove a package from OpenFlow, with its archive."""
    agent = context.agent()
    found = agent.request("GET", f"packages/{segment(given.name)}")
    agent.request("DELETE", f"packages/{segment(given.name)}", timeout_s=PUBLISH_TIMEOUT_S)
    if context.console.json:
        context.console.document({"id": found["id"], "name": found["name"], "removed": True})
    context.console.line(f"Removed {plain(found['name'])} {plain(found['version'])} (id {found['id']})")
    return 0


def _base(given: argparse.Namespace) -> str:
    there = f"agents/{segment(given.agent)}/" if given.agent else ""
    return f"{there}packages/{segment(given.name)}"
