"""``serve`` and ``status``: the agent's own process."""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from jupyter_agent.cli.context import Context
from jupyter_agent.cli.text import duration
from jupyter_agent.errors import Conflict
from jupyter_agent.home import NO_AGENT, read_json, running_agent


def serve(context: Context, _given: argparse.Namespace) -> int:
    """Be the agent until asked to end; says one line when ready."""
    if running_agent(context.home):
        about = read_json(context.home.agent_file) or {}
        raise Conflict(f"An agent runs on {context.home.path} already (pid {about.get('pid')}).")
    threading.Thread(target=_tell_when_ready, args=(context,), daemon=True).start()
    sys.argv = ["jupyter-agent serve", "--home", str(context.home.path)]
    try:
        runpy.run_module("jupyter_agent.api", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _tell_when_ready(context: Context) -> None:
    while True:
        about = read_json(context.home.agent_file) or {}
        if about.get("pid") == os.getpid() and running_agent(context.home):
            break
        time.sleep(0.05)
    if context.console.json:
        context.console.out.write(json.dumps({"agent": {"home": str(context.home.path), **about}}) + "\n")
        context.console.flush()
    else:
        context.console.line(f"The agent of {context.home.path} is ready (pid {os.getpid()}); Ctrl-C ends it.")


def status(context: Context, _given: argparse.Namespace) -> int:
    """Say what runs, without starting it."""
    agent = context.running_agent()
    found: dict[str, Any] = agent.request("GET", "status") if agent else NO_AGENT
    if context.console.json:
        context.console.document(found)
    elif agent:
        context.console.facts(_facts(found))
    else:
        context.console.line(f"No agent runs on {context.home.path}; it is started by the first command that needs it.")
    return 0


def _facts(found: dict[str, Any]) -> Iterator[tuple[str, object]]:
    agent, openflow, hub, runs = found["agent"], found["openflow"] or {}, found["hub"], found["runs"]
    age = duration(time.time() - agent["started"])
    yield "Agent", f"has run for {age} (pid {agent['pid']}, version {agent['version']})"
    yield "Home", agent["home"]
    embedded = f" (the embedded hub, pid {hub['pid']})" if hub else ""
    yield "OpenFlow", f"{openflow.get('url') or 'not known yet'}{embedded}"
    if found.get("deaf"):  # an agent of an older version does not say
        yield "Connected", f"as {openflow.get('user')}, but it hears nothing"
        yield "Trouble", found["error"]
    else:
        yield "Connected", f"as {openflow.get('user')}" if found["connected"] else f"no: {found['error'] or 'not yet'}"
    if found["warning"]:
        yield "Warning", found["warning"]
    yield "Name", found["slug"]
    yield "Queue", found["queue"]
    yield "Runs", f"{runs['active']} under way, {runs['queued']} waiting"
