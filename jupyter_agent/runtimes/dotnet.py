"""C#, F# and Visual Basic projects: restored and built once for each state of the package, then the program is run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jupyter_agent import processes
from jupyter_agent.errors import InvalidInput, NotFound
from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared
from jupyter_agent.runtimes.base import Site, Task, Teller
from jupyter_agent.runtimes.building import build
from jupyter_agent.runtimes.sources import Place, built, stamp
from jupyter_agent.runtimes.tools import Tool

DOTNET = Tool(
    ("dotnet",),
    "install the .NET SDK (https://dotnet.microsoft.com/download)",
    settings=("DOTNET_ROOT", "DOTNET_CLI_HOME", "NUGET_PACKAGES"),
)

PROJECTS = ("*.csproj", "*.fsproj", "*.vbproj")

QUIET = {
    "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
    "DOTNET_NOLOGO": "1",
    "DOTNET_SKIP_FIRST_TIME_EXPERIENCE": "1",
    "DOTNET_GENERATE_ASPNET_CERTIFICATE": "false",
    "DOTNET_CLI_USE_MSBUILD_SERVER": "0",
    "MSBUILDDISABLENODEREUSE": "1",
    "MSBUILDTERMINALLOGGER": "off",
}
"""Nothing that outlives the build, asks, or draws."""

OUTPUT = "program"
"""Where a build puts the program, in its preparation."""


@dataclass(frozen=True)
class DotNet:
    """A project, or a program that was built before (``main`` is its ``.dll``)."""

    language: str = "dotnet"
    tools: tuple[Tool, ...] = (DOTNET,)

    def missing(self) -> str | None:
        """Why there is no .NET."""
        return DOTNET.missing()

    async def prepare(self, task: Task, site: Site, run: Teller) -> Prepared:
        """The program in the run's own folder: its library where one is told by what was built, else the project."""
        dotnet = await site.tools.need(DOTNET)
        environ = {**QUIET, **DOTNET.environment(task.env)}
        if task.entry.suffix.lower() == ".dll" and await asyncio.to_thread(task.entry.is_file):
            return Prepared(Command((dotnet, str(task.entry)), task.folder, environ))
        project = await asyncio.to_thread(_project, task)
        steps = partial(_build, dotnet, project.relative_to(task.folder), task, run)
        place = await built(task, site, run, kind="dotnet", by=stamp(dotnet), build=steps)
        library = await asyncio.to_thread(library_in, place.folder / OUTPUT)
        if library is not None:
            argv: tuple[str, ...] = (dotnet, str(library))
        else:
            built_project = place.source / project.relative_to(task.folder)
            argv = (dotnet, "run", "--no-build", "--configuration", "Release", "--project", str(built_project))
        return Prepared(Command(argv, task.folder, environ))


async def _build(dotnet: str, project: Path, task: Task, run: Teller, place: Place) -> None:
    environ = {**DOTNET.environment(processes.inherited_environment(builders=False)), **QUIET}
    locked = await asyncio.to_thread(((place.source / project).parent / "packages.lock.json").is_file)
    restore = (dotnet, "restore", str(project), *(("--locked-mode",) if locked else ()))
    await build(Command(restore, place.source, environ), run=run, tag=task.tag, what="dotnet restore")
    compile_ = (
        *(dotnet, "build", str(project), "--no-restore", "--nologo", "--configuration", "Release"),
        *("--output", str(place.folder / OUTPUT), "-nodeReuse:false", "-p:UseSharedCompilation=false"),
    )
    await build(Command(compile_, place.source, environ), run=run, tag=task.tag, what="dotnet build")


def library_in(folder: Path) -> Path | None:
    """The built program: the only library that says which runtime it needs; ``None`` when none or several do."""
    found = [path.with_name(path.name.removesuffix(".runtimeconfig.json") + ".dll") for path in _configured(folder)]
    return found[0] if len(found) == 1 and found[0].is_file() else None


def _configured(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.runtimeconfig.json"))


def _project(task: Task) -> Path:
    """The project to build: the entry, else the only one beside or above it. Raises ``NotFound``, ``InvalidInput``."""
    if task.entry.suffix.lower() in (".csproj", ".fsproj", ".vbproj") and task.entry.is_file():
        return task.entry
    for folder in task.entry.parents:
        found = sorted(path for pattern in PROJECTS for path in folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise InvalidInput(f'The package has several projects ({names}): name the one to start with "main".')
        if found:
            return found[0]
        if folder == task.folder:
            break
    raise NotFound('The package has no project file (.csproj, .fsproj or .vbproj) to start: name it with "main".')
