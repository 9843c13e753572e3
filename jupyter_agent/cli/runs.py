"""``runs``: what is under way and what was."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jupyter_agent.cli import agents
from jupyter_agent.cli.context import Context, segment
from jupyter_agent.cli.following import Following, file_of, path_of, run_folder, see_cancelled, state_colour, state_text
from jupyter_agent.cli.text import local_time, plain, short_time, size, took
from jupyter_agent.errors import Conflict, InvalidInput, NotFound
from jupyter_agent.home import AgentClient, RequestFailed

PAGE = 1000

OUTPUT_PAGE_BYTES = 1 << 20

LEAST = 4
"""Characters of an id that are enough to try."""


def list_runs(context: Context, given: argparse.Namespace) -> int:
    """List runs, the newest first."""
    if given.agent:
        return agents.list_runs(context, given)
    found = _runs(context.agent(), limit=given.limit, state=given.state, package=given.package)
    console = context.console
    if console.json:
        console.document(found)
    elif found:
        terminal = console.width(console.out) is not None
        when, name = (short_time, _short) if terminal else (local_time, str)
        rows = [
            (state_text(console, r), _what(r), when(r["created"]), took(r), name(r["id"]), _remark(r)) for r in found
        ]
        head = ("STATE", "PACKAGE", "CREATED", "TOOK", "RUN", "")
        console.rows(head, rows, soft=(1, 5), colours=[state_colour(r) for r in found])
    else:
        console.note("There are no such runs." if given.state or given.package else "There are no runs yet.")
    return 0


def _runs(agent: AgentClient, *, limit: int, **filters: str | None) -> list[dict[str, Any]]:
    """At most ``limit`` runs, over as many pages as it takes."""
    found: list[dict[str, Any]] = []
    cursor = None
    while len(found) < limit:
        query = {**filters, "limit": str(min(PAGE, limit - len(found))), "cursor": cursor}
        page = agent.request("GET", "runs?" + urlencode({k: v for k, v in query.items() if v is not None}))
        found += page["runs"]
        cursor = page["cursor"]
        if not cursor:
            break
    return found


def _short(run_id: str) -> str:
    """The time in a run's id, which is enough to find it."""
    return run_id.rpartition("-")[0] or run_id


def _what(run: dict[str, Any]) -> str:
    kind = {"prepare": "preparation", "environment": run["language"]}.get(run["kind"])
    return f"{run['package']} ({kind})" if kind else str(run["package"])


def _attempt(run: dict[str, Any]) -> str | None:
    if not run["retries"]:
        return None
    next_at = f", the next one at {local_time(run['next_attempt'])}" if run["next_attempt"] else ""
    return f"{run['attempt']} of {run['retries'] + 1}{next_at}"


def _remark(run: dict[str, Any]) -> str:
    if run["error"] or run["warning"]:
        return str(run["error"] or run["warning"])
    if run["results"]:
        return ", ".join(f"{name}={value}" for name, value in run["results"].items())
    return str((run["progress"] or {}).get("label") or "")


def find(agent: AgentClient, wanted: str) -> dict[str, Any]:
    """The run with this id, with a unique beginning or end of it, or the ``last``. Raises ``NotFound``."""
    wanted = wanted.rstrip("…")  # as a table may have cut it
    if wanted == "last":
        newest = _runs(agent, limit=1)
        if not newest:
            raise NotFound("There are no runs yet.")
        return newest[0]
    try:
        run: dict[str, Any] = agent.request("GET", f"runs/{segment(wanted)}")
    except RequestFailed as error:
        if error.reason != NotFound.__name__:
            raise
    else:
        return run
    all_runs = _runs(agent, limit=sys.maxsize) if len(wanted) >= LEAST else []
    found = [run for run in all_runs if run["id"].startswith(wanted) or run["id"].endswith(wanted)]
    if not found:
        raise NotFound(f"There is no run {plain(wanted)}: `jupyter-agent runs list` lists them.")
    if len(found) > 1:
        raise InvalidInput(f"{len(found)} runs begin or end with {wanted}: give more of the id.")
    return found[0]


def show(context: Context, given: argparse.Namespace) -> int:
    """Show one run."""
    run = find(context.agent(), given.id)
    console = context.console
    if console.json:
        console.document(run)
        return 0
    console.facts(_facts(context, run))
    for title, values in (("Parameters", run["parameters"]), ("Results", run["results"])):
        if values:
            console.line(title)
            console.facts(values.items(), indent="  ")
    return 0


def _facts(context: Context, run: dict[str, Any]) -> Iterator[tuple[str, object]]:
    yield "Run", run["id"]
    yield "State", state_text(context.console, run)
    yield "Error", run["error"]
    yield "Warning", run["warning"]
    yield "Package", f"{_what(run)} {run['version'] or ''}"
    yield "Attempt", _attempt(run)
    yield "Repeats", run["rerun_of"]
    yield "Key", run["key"]
    yield "Priority", run["priority"]
    yield "Path", run["path"]
    yield "Language", run["language"]
    yield "Asked for by", f"{run['who']} ({run['trigger']})"
    yield "Created", local_time(run["created"])
    yield "Started", local_time(run["started"])
    yield "Ended", local_time(run["ended"])
    yield "Took", took(run)
    yield "Progress", (run["progress"] or {}).get("label")
    yield "Exit code", run["exit_code"]
    yield "Signal", run["signal"]
    yield "Peak memory", size(run["peak_memory"]) if run["peak_memory"] else None
    yield "CPU", f"{run['cpu_s']:.1f} s" if run["cpu_s"] else None
    yield "Environment", run["environment"]
    yield "Folder", run_folder(context.home, run["id"])


def logs(context: Context, given: argparse.Namespace) -> int:
    """Print a run's output; its stderr to stderr."""
    agent = context.agent()
    run = agents.find(agent, given.agent, given.id) if given.agent else find(agent, given.id)
    if context.console.json:
        chunks = list(_chunks(agent, path_of(run), follow=given.follow))
        context.console.document({"id": run["id"], "chunks": chunks})
    elif given.follow:
        Following(context, agent, run).to_the_end()
    else:
        for chunk in _chunks(agent, path_of(run), follow=False):
            context.console.pass_on(chunk["text"], to_err=chunk["stream"] != "stdout")
    return 0


def _chunks(agent: AgentClient, path: str, *, follow: bool) -> Iterator[dict[str, Any]]:
    """The pieces of a run's output up to now, or up to its end."""
    if follow:
        yield from (line for line in agent.lines(f"{path}/stream") if "run" not in line)
        return
    offset = 0
    while True:
        page = agent.request("GET", f"{path}/output?offset={offset}&limit={OUTPUT_PAGE_BYTES}")
        yield from page["chunks"]
        if page["complete"] or page["next"] == offset:
            return
        offset = page["next"]


def cancel(context: Context, given: argparse.Namespace) -> int:
    """Cancel a run and wait until it has ended."""
    if given.agent:
        return agents.cancel(context, given)
    agent = context.agent()
    run = find(agent, given.id)
    return see_cancelled(context, agent, run)


def artifacts(context: Context, given: argparse.Namespace) -> int:
    """List the files that a run left, or fetch one."""
    agent = context.agent()
    run = find(agent, given.id)
    if given.name:
        return _fetch(context, agent, run, given)
    found = agent.request("GET", f"runs/{run['id']}/artifacts")
    if context.console.json:
        context.console.document(found)
    elif found:
        folder = run_folder(context.home, run["id"])
        rows = [(a["name"], size(a["size"]), a["mimetype"], file_of(folder, a["name"])) for a in found]
        context.console.rows(("NAME", "SIZE", "TYPE", "FILE"), rows)
    else:
        context.console.note(f"Run {run['id']} has left no files.")
    return 0


def _fetch(context: Context, agent: AgentClient, run: dict[str, Any], given: argparse.Namespace) -> int:
    url = f"runs/{run['id']}/artifacts/{segment(given.name)}"
    target = Path(given.output or Path(given.name).name)
    if not given.output and target.exists():
        raise Conflict(f"{target} exists already: name another file with -o.")
    with tempfile.TemporaryDirectory(dir=None if given.output == "-" else target.absolute().parent) as folder:
        made = Path(folder) / "artifact"
        agent.save(url, made)
        if given.output == "-":
            with made.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            return 0
        made.replace(target)
    if context.console.json:
        context.console.document({"name": given.name, "path": str(target.absolute()), "size": target.stat().st_size})
    context.console.line(str(target))
    return 0
