"""The tools of the languages: which are there, and whether they work."""

from __future__ import annotations

import asyncio

from jupyter_agent import runtimes
from jupyter_agent.agent.doctor.findings import Case, Finding, ok, problem
from jupyter_agent.runtimes.needs import NEEDS
from jupyter_agent.runtimes.table import RUNTIMES
from jupyter_agent.runtimes.tools import Tool


async def look(_case: Case) -> list[Finding]:
    """Ask each tool that is there."""
    users: dict[Tool, list[str]] = {}
    for language, runtime in RUNTIMES.items():
        for tool in runtime.tools:
            users.setdefault(tool, []).append(f"packages in {language}")
    for name, tool in NEEDS.items():
        users.setdefault(tool, []).append(f"packages that need {name}")
    tools = runtimes.Tools()
    return list(await asyncio.gather(*(_one(tools, tool, " and ".join(for_)) for tool, for_ in users.items())))


async def _one(tools: runtimes.Tools, tool: Tool, users: str) -> Finding:
    if tool.path() is None:
        return ok(tool.name, f"Not there: {users} are not run here.", f"If you want them: {tool.install}.")
    fault = await tools.fault(tool)
    if fault:
        return problem(tool.name, fault, f"Else {users} are not run here.")
    return ok(tool.name, f"{tool.path()} works.")
