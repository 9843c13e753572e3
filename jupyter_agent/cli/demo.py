"""``demo``: the packaged notebook goes the whole way, from a folder to results."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyter_agent.cli.context import Context
from jupyter_agent.cli.following import file_of, run_folder, show_end
from jupyter_agent.cli.packages import publish_folder
from jupyter_agent.cli.run import follow, start
from jupyter_agent.errors import Conflict
from jupyter_agent.home import AgentClient

PACKAGE = Path(__file__).parent.parent / "demo_package"


def demo(context: Context, given: argparse.Namespace) -> int:
    """Publish the demo package, run it, and say where its results are."""
    console, agent = context.console, context.agent()
    _check_openflow(context, agent, here=given.here)
    published = publish_folder(context, PACKAGE)
    console.note(f"Published {published['name']} {published['version']}; the agent fetches and runs it.")
    run, code = follow(context, agent, start(agent, published["id"], _body(published)))
    show_end(console, run, context.home)
    pages = _pages(context, agent, run)
    if console.json:
        console.document({**run, **{name: str(path) for name, path in pages.items()}})
    console.line()
    console.facts([("Notebook", pages.get("notebook")), ("As a page", pages.get("html"))])
    if given.lab and "notebook" in pages:
        _open_lab(context, pages["notebook"])
    return code


def _body(published: dict[str, Any]) -> dict[str, Any]:
    """The run: where no conda channel can be reached, its log says so, and PyPI stands in."""
    return {"target": published["id"], "from_pypi": True}


def _check_openflow(context: Context, agent: AgentClient, *, here: bool) -> None:
    """Raise ``Conflict`` where an OpenFlow other than the embedded hub would get the demo unasked."""
    openflow = _openflow(context, agent)
    if openflow["embedded"] or here:
        return
    raise Conflict(
        f"This home uses the OpenFlow at {openflow['url']}: give --here to publish the demo there, or another --home."
    )


def _openflow(context: Context, agent: AgentClient) -> dict[str, Any]:
    """Which OpenFlow the agent uses, as soon as it knows."""
    context.console.bar("connecting to OpenFlow")
    try:
        for event in agent.lines("events"):
            status = event.get("status") or {}
            if status.get("connected") or status.get("error"):
                return dict(status["openflow"])
    finally:
        context.console.clear()
    return {"embedded": True, "url": None}


def _pages(context: Context, agent: AgentClient, run: dict[str, Any]) -> dict[str, Path]:
    """The output notebook, and the page that the agent makes of it when it is asked for."""
    folder = run_folder(context.home, run["id"])
    if folder is None or not any(artifact["name"] == "output.ipynb" for artifact in run["artifacts"]):
        return {}
    context.console.bar("making a page of the notebook")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            agent.save(f"runs/{run['id']}/artifacts/output.html", Path(scratch) / "output.html")
    finally:
        context.console.clear()
    return {"notebook": file_of(folder, "output.ipynb"), "html": file_of(folder, "output.html")}


def _open_lab(context: Context, notebook: Path) -> None:
    """Become JupyterLab, with the notebook open and this home's agent in its panel."""
    context.console.note("JupyterLab opens; Ctrl-C here ends it.")
    context.console.flush()
    environment = {**os.environ, "JUPYTER_AGENT_HOME": str(context.home.path)}
    # Root has to say so; who runs the demo as root, as in a container, has done that.
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    command = [sys.executable, "-P", "-m", "jupyterlab", *root, str(notebook)]
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is wanted
