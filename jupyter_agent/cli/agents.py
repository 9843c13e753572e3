"""``agents``, and ``--agent`` of other commands: what other agents of the same OpenFlow are, run and are told."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jupyter_agent.cli.context import Context, segment
from jupyter_agent.cli.following import see_cancelled
from jupyter_agent.cli.text import local_time, plain, size
from jupyter_agent.errors import InvalidInput, NotFound
from jupyter_agent.home import AgentClient, RequestFailed

LEAST = 4
"""Characters of an id that are enough to try."""


def list_agents(context: Context, _given: argparse.Namespace) -> int:
    """List the agents of this OpenFlow."""
    found = context.agent().request("GET", "agents")
    console = context.console
    if console.json:
        console.document(found)
    elif found:
        online, offline = console.symbol("●", "*"), console.symbol("○", "o")
        rows = [
            (
                f"{online} online" if each["online"] else f"{offline} offline",
                each["slug"],
                each["name"],
                ", ".join(each["languages"]),
                each["version"],
                local_time(each["lastseen"]),
                _remark(each),
            )
            for each in found
        ]
        colours = ["green" if each["online"] else "dim" for each in found]
        head = ("STATE", "SLUG", "NAME", "LANGUAGES", "VERSION", "LAST SEEN", "")
        console.rows(head, rows, soft=(2, 3), colours=colours)
    else:
        console.note("There are no agents that may be read.")
    return 0


def _remark(agent: dict[str, Any]) -> str:
    if agent["self"]:
        return "this one"
    return "" if agent["may_invoke"] else "may not be used"


def base(slug: str) -> str:
    """The path of another agent's runs."""
    return f"agents/{segment(slug)}/runs"


def body_of_run(given: argparse.Namespace) -> dict[str, Any]:
    """What another agent can be asked for. Raises ``InvalidInput`` for what the protocol has no words for."""
    refused = {
        "--isolated": given.isolated,
        "--timeout": given.timeout,
        "--memory": given.memory,
        "--priority": given.priority is not None,
        "--retries": given.retries,
        "--retry-delay": given.retry_delay,
        "--key": given.key,
        "--env": given.environment,
        "--channel-from-pypi": given.channel_from_pypi,
        "--offline": given.offline,
    }
    if asked := [name for name, value in refused.items() if value]:
        raise InvalidInput(f"{', '.join(asked)} cannot be asked of another agent: it goes by its own settings.")
    return {"target": target_of(given.target), "parameters_yaml": dict(given.parameters)}


def target_of(text: str) -> str:
    """A package's name or id. Raises ``InvalidInput`` for what is a path here: other agents cannot see it."""
    path = Path(text).expanduser()
    if path.is_absolute() or text in (".", "..") or text.startswith(("./", "../")) or path.is_file():
        raise InvalidInput(
            f"Another agent cannot see {plain(text)}: publish its folder with `jupyter-agent package publish` and run "
            "the package by its name."
        )
    return text


def list_runs(context: Context, given: argparse.Namespace) -> int:
    """List what runs on another agent."""
    if given.state not in (None, "running"):
        raise InvalidInput("Another agent tells only what runs there: leave --state out.")
    found = context.agent().request("GET", base(given.agent))
    if given.package:
        found = [run for run in found if given.package in (run["package"], run["package_id"])]
    found = found[: given.limit]
    console = context.console
    if console.json:
        console.document(found)
    elif found:
        rows = [(r["package"] or r["package_id"] or "", size(r["output_size"]), r["schedule"], r["id"]) for r in found]
        console.rows(("PACKAGE", "OUTPUT", "SCHEDULE", "RUN"), rows, soft=(0, 2))
    else:
        console.note(f"Nothing runs on {plain(given.agent)}.")
    return 0


def find(agent: AgentClient, slug: str, wanted: str) -> dict[str, Any]:
    """The run there with this id, a unique beginning or end of it, or the ``last`` if there is one only."""
    wanted = wanted.rstrip("…")
    if wanted != "last":
        try:
            run: dict[str, Any] = agent.request("GET", f"{base(slug)}/{segment(wanted)}")
        except RequestFailed as error:
            if error.reason != NotFound.__name__ or len(wanted) < LEAST:
                raise
        else:
            return run
    listed = agent.request("GET", base(slug))
    fitting = [r for r in listed if wanted == "last" or r["id"].startswith(wanted) or r["id"].endswith(wanted)]
    if not fitting:
        raise NotFound(f"There is no run {plain(wanted)} on {plain(slug)}: `runs list --agent` lists those under way.")
    if len(fitting) > 1:
        raise InvalidInput(f"{len(fitting)} runs on {plain(slug)} can be meant by {wanted}: give more of the id.")
    found: dict[str, Any] = agent.request("GET", f"{base(slug)}/{segment(fitting[0]['id'])}")
    return found


def cancel(context: Context, given: argparse.Namespace) -> int:
    """Cancel a run of another agent and wait until it has ended."""
    agent = context.agent()
    run = find(agent, given.agent, given.id)
    return see_cancelled(context, agent, run)
