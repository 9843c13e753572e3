"""Installing what a Node package needs, and building it: once, in a preparation that serves later runs.

Where only others' packages are needed they are installed alone and serve every version of a package that asks for the
same. Where the package's own files take part (workspaces, folders, scripts, TypeScript) all of it is made ready in a
copy that stays, and a run gets what was made there.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jupyter_agent.errors import Failed
from jupyter_agent.folders import copy_tree
from jupyter_agent.packages.preparations import Make
from jupyter_agent.processes import Command
from jupyter_agent.runtimes.base import Site, Task, Teller
from jupyter_agent.runtimes.building import build
from jupyter_agent.runtimes.nodejs import modules
from jupyter_agent.runtimes.nodejs.npm import Npm, builders_environment
from jupyter_agent.runtimes.nodejs.plan import Plan
from jupyter_agent.runtimes.nodejs.project import DECIDING, NOT_OURS, SETTINGS, Project, hashed
from jupyter_agent.runtimes.sources import digest
from jupyter_agent.runtimes.tools import Tool
from jupyter_agent.waiting import to_its_end

NPM = Tool(("npm",), "install npm, which fetches what Node packages need")

TSX = ">=4.19 <5"
"""Runs TypeScript where a package has no tool of its own for that."""

ROOT = "package"
MADE = "made.json"


@dataclass(frozen=True)
class Installation:
    """What makes one task's package ready; ``facts`` are node's version, ABI, system and processor."""

    task: Task
    site: Site
    run: Teller
    facts: tuple[str, ...]

    async def ready(self, project: Project, plan: Plan) -> None:
        """Have the task's folder hold all that the plan asks for, made now or for an earlier run.

        Raises ``Failed`` with npm's explanation; nothing of it is taken for installed then.
        """
        work = self.task.folder
        if plan.whole:
            named = self.task.source or await to_its_end(partial(digest, work))
            folder = await self._made("node", (named, plan), partial(self._make_whole, project, plan))
        else:
            asked = project.decides_install(dev=plan.dev)
            folder = await self._made("npm", (asked,), partial(self._make_modules, project, plan))
        await to_its_end(partial(modules.use, folder / ROOT, folder / MADE, work))

    async def tsx(self) -> Path:
        """The folder of a tsx of ours."""
        folder = await self._made("tsx", (TSX,), self._make_tsx)
        return folder / ROOT / modules.MODULES / "tsx"

    async def _made(self, kind: str, parts: tuple[object, ...], make: Make) -> Path:
        registries = Npm("", builders_environment(os.environ)).registries()
        return await self.site.preparations.ensure(
            f"{kind}-{hashed(repr((self.facts, registries, parts)))}",
            make,
            holder=self.task.tag,
            source=self.task.source,
            on_wait=partial(self.run.note, "Another run is installing the same; waiting for it."),
        )

    async def _npm(self) -> Npm:
        return Npm(await self.site.tools.need(NPM), builders_environment(os.environ))

    async def _install(self, npm: Npm, root: Path, *, lock: bool, dev: bool) -> None:
        self.run.note("Installing what the package needs (npm)")
        await npm.install(root, lock=lock, dev=dev, run=self.run, tag=self.task.tag)

    async def _make_modules(self, project: Project, plan: Plan, folder: Path) -> None:
        """Install what the package needs where nothing else of it is: so it serves other versions of it, too."""
        root = folder / ROOT
        await to_its_end(partial(_write_asked, project, root))
        await self._install(await self._npm(), root, lock=project.lock is not None, dev=plan.dev)
        await to_its_end(partial(_modules_alone, root, folder / MADE))

    async def _make_tsx(self, folder: Path) -> None:
        root = folder / ROOT
        await to_its_end(partial(_write_asked, Project(root, {"dependencies": {"tsx": TSX}}), root))
        await self._install(await self._npm(), root, lock=False, dev=False)

    async def _make_whole(self, project: Project, plan: Plan, folder: Path) -> None:
        """Install and build in a copy of the package that stays."""
        npm = await self._npm()
        root = folder / ROOT
        broken_off = threading.Event()
        copy = partial(copy_tree, self.task.folder, root, without=folder, broken_off=broken_off)
        await to_its_end(copy, broken_off.set)
        before = await to_its_end(partial(modules.files_in, root))
        if plan.install:
            await self._install_whole(npm, project, plan, root)
        for step in plan.build:
            self.run.note(f"Building the package ({step})")
            await self._build(npm, step, root)
        await to_its_end(partial(modules.write_made, root, before, folder / MADE))

    async def _install_whole(self, npm: Npm, project: Project, plan: Plan, root: Path) -> None:
        """Install, without the scripts that are for who makes the package."""
        file = root / "package.json"
        original = await asyncio.to_thread(file.read_bytes)
        scripts = {name: text for name, text in project.scripts.items() if name not in NOT_OURS}
        await asyncio.to_thread(file.write_text, json.dumps({**project.fields, "scripts": scripts}))
        await self._install(npm, root, lock=project.lock is not None, dev=plan.dev)
        await asyncio.to_thread(file.write_bytes, original)

    async def _build(self, npm: Npm, step: str, root: Path) -> None:
        if step != "tsc":
            await npm.run("run", step, root=root, run=self.run, tag=self.task.tag)
            return
        compiler = root / modules.MODULES / ".bin" / "tsc"
        if not await asyncio.to_thread(compiler.exists):
            raise Failed("The package has a tsconfig.json, but neither a script `build` nor typescript to build it by.")
        command = Command((str(compiler), "-p", "."), root, npm.environ)
        await build(command, run=self.run, tag=self.task.tag, what="tsc", hide=npm.hide)


def _write_asked(project: Project, root: Path) -> None:
    """A package that asks for the same as ``project`` and is nothing else."""
    root.mkdir()
    asked = {name: project.fields[name] for name in DECIDING if name in project.fields}
    (root / "package.json").write_text(json.dumps({"name": "package", "version": "0.0.0", "private": True, **asked}))
    for name in (project.lock, SETTINGS):
        if name and (project.folder / name).is_file() and project.folder != root:
            (root / name).write_bytes((project.folder / name).read_bytes())


def _modules_alone(root: Path, record: Path) -> None:
    """Leave the modules alone: one that looks for its package's folder is to find that of the run."""
    for path in root.iterdir():
        if path.name != modules.MODULES:
            path.unlink()
    modules.write_made(root, {}, record)
