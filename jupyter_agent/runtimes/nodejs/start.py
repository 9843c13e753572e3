"""The command that starts a Node package, and its environment: what npm would start, without npm."""

from __future__ import annotations

import os
from collections.abc import Mapping

from jupyter_agent.processes import Command
from jupyter_agent.runtimes.base import Task
from jupyter_agent.runtimes.nodejs.modules import MODULES
from jupyter_agent.runtimes.nodejs.plan import Plan
from jupyter_agent.runtimes.nodejs.project import SHELL, Project, words

SH = "/bin/sh"

ROOT = "APP_ROOT_PATH"
"""What modules go by (app-root-path and its like) that would else look for the package above where they lie."""


def started(project: Project, plan: Plan, task: Task, node: str, loader: tuple[str, ...]) -> Command:
    """Node on the package's file, or its scripts; their programs may lie in ``node_modules/.bin``."""
    path = f"{task.folder / MODULES / '.bin'}{os.pathsep}{task.env.get('PATH') or os.defpath}"
    environ = {**task.env, ROOT: str(task.folder), "PATH": path}
    if not plan.start:
        return Command((node, *loader, str(task.entry)), task.folder, environ)
    texts = [project.scripts[name] for name in plan.start]
    own = _as_npm_has_it(project, plan, task, node)
    return Command(_argv(texts, plan.start, node), task.folder, {**environ, **own})


def _argv(texts: list[str], names: tuple[str, ...], node: str) -> tuple[str, ...]:
    """A single plain command as it is: then its exit code and its signals are the program's own. Else a shell."""
    plain = words(texts[0]) if len(texts) == 1 and not SHELL.search(texts[0]) else []
    if plain:
        return (node, *plain[1:]) if plain[0] == "node" else tuple(plain)
    if len(texts) == 1:
        return (SH, "-c", texts[0])
    *first, last = [f'{SH} -c "${number}"' for number in range(1, len(texts) + 1)]
    steps = [f"npm_lifecycle_event={name} {step} || exit" for name, step in zip(names, first, strict=False)]
    return (SH, "-c", "\n".join([*steps, f"npm_lifecycle_event={names[-1]} exec {last}"]), SH, *texts)


def _as_npm_has_it(project: Project, plan: Plan, task: Task, node: str) -> Mapping[str, str]:
    """What scripts are told by npm."""
    name = next((name for name in plan.start if not name.startswith(("pre", "post"))), plan.start[0])
    settings = project.fields.get("config")
    given = settings if isinstance(settings, dict) else {}
    return {
        "INIT_CWD": str(task.folder),
        "NODE": node,
        "npm_node_execpath": node,
        "npm_command": "run-script",
        "npm_lifecycle_event": name,
        "npm_lifecycle_script": project.scripts[name],
        "npm_package_json": str(task.folder / "package.json"),
        "npm_package_name": str(project.fields.get("name", "")),
        "npm_package_version": str(project.fields.get("version", "")),
        **{f"npm_package_config_{key}": str(value) for key, value in given.items()},
    }
