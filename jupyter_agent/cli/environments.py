"""``env``: making, locking, looking at and removing environments."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_agent.cli.console import Console
from jupyter_agent.cli.context import Context, segment
from jupyter_agent.cli.following import state_colour, state_text
from jupyter_agent.cli.run import LAUNCH_TIMEOUT_S, fetching, follow, target_of
from jupyter_agent.cli.text import local_time, plain, size
from jupyter_agent.home import AgentClient

LOOK_TIMEOUT_S = 1800
"""For what reads all files of an environment, or removes many."""

SHORT = 12
"""Characters of an id that are shown: enough to name it."""

OURS = "jupyter_agent"

COLOURS = {"ready": "green", "building": "yellow", "changed": "yellow"}

SHOWN_PACKAGES = ("NAME", "VERSION", "BUILD", "MANAGER", "SIZE", "WHY")


def create(context: Context, given: argparse.Namespace) -> int:
    """Make an environment, and wait until it is ready."""
    what = {"template": given.template} if given.template else {"file": _path(given.file)}
    return _made(context, "environments", {**what, **fetching(given)})


def lock(context: Context, given: argparse.Namespace) -> int:
    """Lock a file, and wait until that is done."""
    output = {"output": _path(given.output)} if given.output else {}
    body = {"file": _path(given.file), "platforms": given.platforms, **output, **fetching(given)}
    return _made(context, "environments/lock", body)


def channel(context: Context, given: argparse.Namespace) -> int:
    """Make a channel from PyPI, and wait until it is there."""
    body = {
        "requirements": [target_of(each) for each in given.requirements],
        "folder": _path(given.output or "channel"),
    }
    return _made(context, "environments/channel", body)


def repair(context: Context, given: argparse.Namespace) -> int:
    """Make an environment whole again, and wait until it is."""
    return _made(context, f"environments/{_named(given.environment)}/repair", {})


def _made(context: Context, path: str, body: dict[str, Any]) -> int:
    """Follow what makes something to its end; what it made is printed. The exit code."""
    agent, console = context.agent(), context.console
    ended, code = follow(context, agent, agent.request("POST", path, body, timeout_s=LAUNCH_TIMEOUT_S))
    if console.json:
        console.document(ended)
    console.note(f"{plain(ended['package'])}: {state_text(console, ended)}  (run {ended['id']})", state_colour(ended))
    if ended["error"]:
        console.note(f"jupyter-agent: {plain(ended['error'])}")
    console.facts((name.capitalize(), value) for name, value in ended["results"].items())
    return code


def list_environments(context: Context, _given: argparse.Namespace) -> int:
    """List ours, and those of conda, mamba, micromamba and pixi."""
    found, console = context.agent().request("GET", "environments"), context.console
    if console.json:
        console.document(found)
    elif found:
        rows = [_row(each) for each in found]
        head = ("STATE", "ENVIRONMENT", "NAME", "PYTHON", "PACKAGES", "SIZE", "USED", "RUNS", "PATH")
        console.rows(head, rows, soft=(2, 8), colours=[COLOURS.get(each["state"], "red") for each in found])
    else:
        console.note("There are no environments yet: `jupyter-agent env create FILE` makes one.")
    return 0


def _row(known: dict[str, Any]) -> tuple[object, ...]:
    ours = known["origin"] == OURS
    return (
        known["state"],
        str(known["id"])[:SHORT] if ours else known["origin"],
        (known["source"] if ours else "") or known["name"],
        known["python"] or "",
        known["packages"] if known["packages"] is not None else "",
        size(known["bytes"]) if known["bytes"] is not None else "",
        local_time(known["used"]),
        len(known["used_by"]) or "",
        known["path"],
    )


def show(context: Context, given: argparse.Namespace) -> int:
    """Show one, and the packages in it."""
    found = context.agent().request("GET", f"environments/{_named(given.environment)}", timeout_s=LOOK_TIMEOUT_S)
    console = context.console
    if console.json:
        console.document(found)
        return 0
    console.facts(_facts(found))
    rows = [
        (
            each["name"],
            each["version"],
            each["build"],
            each["manager"],
            size(each["bytes"]) if each["bytes"] else "",
            ", ".join(each["why"]),
        )
        for each in found["packages_list"]
    ]
    if rows:
        console.line()
        console.rows(SHOWN_PACKAGES, rows, soft=(5, 2))
    return 0


def _facts(found: dict[str, Any]) -> Iterator[tuple[str, object]]:
    yield "Environment", found["id"]
    yield "Name", found["name"]
    yield "State", found["state"]
    yield "Kind", f"{found['kind']} (of {found['origin']})"
    yield "Path", found["path"]
    yield "Python", found["python"]
    yield "Platform", found["platform"]
    yield "Made from", found["source"]
    yield "Asked for", ", ".join(found["asked"])
    yield "Channels", ", ".join(found["channels"])
    yield "Variables", ", ".join(found["variables"])
    yield "Size", size(found["bytes"]) if found["bytes"] is not None else None
    yield "Made", local_time(found["made"])
    yield "Used", local_time(found["used"])
    yield "Used by", ", ".join(found["used_by"])


def verify(context: Context, given: argparse.Namespace) -> int:
    """Look at every file of those named, or of all of ours; 1 when one is not as it was made."""
    agent, console = context.agent(), context.console
    found = [_verified(console, agent, wanted) for wanted in given.environments or _ours(agent)]
    if console.json:
        console.document(found)
    elif not found:
        console.note("There are no environments to be looked at.")
    return 0 if all(each["ok"] for each in found) else 1


def _ours(agent: AgentClient) -> list[str]:
    known = agent.request("GET", "environments")
    return [each["id"] for each in known if each["origin"] == OURS and each["state"] != "building"]


def _verified(console: Console, agent: AgentClient, wanted: str) -> dict[str, Any]:
    console.bar(f"looking at {plain(wanted)}")
    try:
        path = f"environments/{_named(wanted)}/verify"
        found: dict[str, Any] = agent.request("POST", path, {}, timeout_s=LOOK_TIMEOUT_S)
    finally:
        console.clear()
    symbol = console.symbol("✓", "+") if found["ok"] else console.symbol("✗", "x")
    faults = found["faults"]
    what = "as it was made" if found["ok"] else f"{len(faults)} {'file is' if len(faults) == 1 else 'files are'} not"
    console.line(f"{symbol} {found['id'][:SHORT]}  {what}")
    for fault in faults:
        console.line(f"    {plain(fault['path'])}: {plain(fault['what'])} ({plain(fault['package'])})")
    return found


def remove(context: Context, given: argparse.Namespace) -> int:
    """Remove one."""
    agent, console = context.agent(), context.console
    path = f"environments/{_named(given.environment)}"
    found = agent.request("GET", path, timeout_s=LOOK_TIMEOUT_S)
    agent.request("DELETE", path, timeout_s=LOOK_TIMEOUT_S)
    if console.json:
        console.document({"id": found["id"], "path": found["path"], "removed": True})
    console.line(f"Removed {found['id'][:SHORT]} ({plain(found['path'])})")
    return 0


def collect(context: Context, given: argparse.Namespace) -> int:
    """Remove what nothing uses and none has used for long."""
    body = {"dry_run": given.dry_run, **({} if given.days is None else {"days": given.days})}
    context.console.bar("removing environments that nothing uses")
    try:
        found = context.agent().request("POST", "environments/gc", body, timeout_s=LOOK_TIMEOUT_S)
    finally:
        context.console.clear()
    if context.console.json:
        context.console.document(found)
    for line in _removed(found["removed"]):
        context.console.line(line)
    what = "Would free" if given.dry_run else "Freed"
    context.console.note(f"{what} {size(found['bytes'])}." if found["removed"] else "There is nothing to be removed.")
    return 0


def _removed(removed: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each environment, and one for all else of a kind, of which there may be very many."""
    kinds: dict[str, list[int]] = {}
    for each in removed:
        if len(each["id"]) > SHORT:
            yield f"{plain(each['path'])}  {size(each['bytes'])}"
        else:
            kinds.setdefault(each["id"], []).append(each["bytes"])
    for kind, sizes in kinds.items():
        yield f"{plain(kind)} ({len(sizes)})  {size(sum(sizes))}"


def _path(text: str) -> str:
    return str(Path(text).expanduser().absolute())


def _named(text: str) -> str:
    """An environment's id, name or path as one segment of the API's path."""
    return segment(target_of(text.rstrip("…")))
