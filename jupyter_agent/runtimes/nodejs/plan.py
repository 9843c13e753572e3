"""What has to be done before a Node package can start, decided from what it says of itself. Nothing here acts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jupyter_agent.runtimes.nodejs.project import (
    JAVASCRIPT,
    NOT_OURS,
    OWN_STEPS,
    SHELL,
    TYPESCRIPT,
    Project,
    words,
)

BUILDERS = ("build", "prestart", *NOT_OURS)
"""Scripts that make what is missing, the likeliest first."""


@dataclass(frozen=True)
class Plan:
    """``install``: npm is needed; ``dev``: also what only the package's tools need; ``whole``: in a copy of it all.

    ``build`` are scripts, or ``tsc``; ``start`` the scripts to run, one after the other, none where a file is started.
    """

    install: bool = False
    dev: bool = False
    whole: bool = False
    build: tuple[str, ...] = ()
    start: tuple[str, ...] = ()


def planned(project: Project, entry: Path) -> Plan:
    """The plan for a package whose entry, as its manifest tells it, is ``entry``."""
    build = _build(project, entry)
    start = _start(project, entry, build)
    scripts = [project.scripts[name] for name in (*OWN_STEPS, *build, *start) if name in project.scripts]
    with_tsx = entry.suffix in TYPESCRIPT and "tsx" in project.for_development
    dev = bool(project.for_development) and (bool(build) or with_tsx or project.asks_for_development(scripts))
    wanted = bool(project.needed or project.has_own_steps or project.fields.get("workspaces") or dev)
    install = wanted and (dev or project.has_own_steps or not project.brings_all)
    own_modules = (project.folder / "node_modules").is_dir()
    whole = bool(build) or (install and (project.has_local_parts or project.has_own_steps or own_modules))
    return Plan(install, dev, whole, build, start)


def _start(project: Project, entry: Path, build: tuple[str, ...]) -> tuple[str, ...]:
    """The scripts that start it, as npm runs them; one that was run to build it is not run again."""
    start = project.start() if entry.name == "package.json" else None
    if start is None:
        return ()
    before = f"pre{start[0]}"
    again = before in build or (bool(build) and project.scripts.get(before, "").strip() == f"npm run {build[0]}")
    names = ("" if again else before, start[0], f"post{start[0]}")
    return tuple(name for name in names if name in project.scripts)


def _build(project: Project, entry: Path) -> tuple[str, ...]:
    """What makes the JavaScript that is to be started and is not there."""
    if not _is_missing(project, entry):
        return ()
    if script := next((name for name in BUILDERS if name in project.scripts), None):
        return (script,)
    return ("tsc",) if (project.folder / "tsconfig.json").is_file() else ()


def _is_missing(project: Project, entry: Path) -> bool:
    if entry.name != "package.json":
        return not entry.is_file()
    start = project.start()
    if start is None or SHELL.search(start[1]):
        return False
    named = [word for word in words(start[1])[1:] if word.endswith(JAVASCRIPT) and not word.startswith("-")]
    return bool(named) and not (project.folder / named[0]).is_file()
