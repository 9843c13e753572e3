"""The runtime: from a package or a script to node's command, with what it needs installed.

Programs are started without npm between them and us: npm takes a fifth of a second, and it hides how its program
ended. What ``scripts.start`` says is followed all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_agent import processes
from jupyter_agent.errors import Failed, NotFound
from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared
from jupyter_agent.runtimes.base import Site, Task, Teller
from jupyter_agent.runtimes.nodejs.installation import Installation
from jupyter_agent.runtimes.nodejs.modules import MODULES
from jupyter_agent.runtimes.nodejs.plan import planned
from jupyter_agent.runtimes.nodejs.project import TYPESCRIPT, Project, too_old
from jupyter_agent.runtimes.nodejs.spares import is_plain
from jupyter_agent.runtimes.nodejs.start import started
from jupyter_agent.runtimes.tools import Tool

NODE = Tool(("node", "nodejs"), "install Node.js")

LOADERS_SINCE = "18.19"
"""The first Node with ``--import`` and what tsx needs for it."""

PROBE = "const p = process; console.log(JSON.stringify([p.versions.node, p.versions.modules, p.platform, p.arch]))"

Facts = tuple[str, ...]
"""Version, ABI, system and processor of a node."""


@dataclass(frozen=True)
class NodeJs:
    """A script or a package of scripts, run by node. ``known`` has what each node was asked, by its path and time."""

    language: str = "nodejs"
    tools: tuple[Tool, ...] = (NODE,)
    known: dict[tuple[str, int], Facts] = field(default_factory=dict, compare=False, repr=False)

    def missing(self) -> str | None:
        """Why there is no node. npm is asked for only where something has to be installed."""
        return NODE.missing()

    async def prepare(self, task: Task, site: Site, run: Teller) -> Prepared:
        """Node on the package's file, or what its ``scripts.start`` says, with what it needs installed."""
        node = await site.tools.need(NODE)
        facts = await self._facts(node, task.tag)
        installation = Installation(task, site, run, facts)
        if task.manifest is None:
            loader = await _loader(task, installation)
            return _quickly(Command((node, *loader, str(task.entry)), task.folder, task.env), node, site)
        project = await asyncio.to_thread(Project.read, task.folder)
        _refuse_old(project, facts[0])
        plan = planned(project, task.entry)
        if plan.install or plan.build:
            await installation.ready(project, plan)
        if not plan.start and not await asyncio.to_thread(task.entry.is_file):
            raise NotFound(f"There is no {task.entry.name} in the package, also after it was built: see its main.")
        return _quickly(started(project, plan, task, node, await _loader(task, installation)), node, site)

    async def _facts(self, node: str, tag: str) -> Facts:
        changed = await asyncio.to_thread(lambda: Path(node).stat().st_mtime_ns)
        if (node, changed) not in self.known:
            command = Command((node, "-e", PROBE), Path(os.sep), processes.inherited_environment())
            done = await processes.run(command, tag=tag, timeout_s=60)
            if not done.exit.ok:
                raise Failed(f"node does not work: {done.output.strip() or done.exit}. Install Node.js again.")
            self.known[node, changed] = tuple(json.loads(done.output.splitlines()[-1]))
        return self.known[node, changed]


def _quickly(command: Command, node: str, site: Site) -> Prepared:
    """The command, by a node that is kept ready, if it is plain."""
    plain = site.spares is not None and command.argv[0] == node and is_plain(command)
    return Prepared(command, start=site.spares.start if site.spares is not None and plain else None)


def _refuse_old(project: Project, version: str) -> None:
    asked = project.node_wanted
    if too_old(asked, version):
        raise Failed(f"The package needs Node.js {asked} (engines in its package.json), this is {version}: upgrade it.")


async def _loader(task: Task, installation: Installation) -> tuple[str, ...]:
    """What node needs on its command line to run TypeScript; nothing for JavaScript and for scripts."""
    if task.entry.suffix not in TYPESCRIPT:
        return ()
    if too_old(f">={LOADERS_SINCE}", installation.facts[0]):
        raise Failed(f"TypeScript needs Node.js {LOADERS_SINCE} at least, this is {installation.facts[0]}: upgrade it.")
    own = task.folder / MODULES / "tsx"
    module = own if await asyncio.to_thread(own.exists) else await installation.tsx()
    return ("--import", await asyncio.to_thread(_loader_of, module))


def _loader_of(tsx: Path) -> str:
    """The URL of tsx's loader, by its own account."""
    exports = json.loads((tsx / "package.json").read_text(encoding="utf-8")).get("exports") or {}
    return (tsx / (exports.get(".") or "dist/loader.mjs")).resolve().as_uri()
