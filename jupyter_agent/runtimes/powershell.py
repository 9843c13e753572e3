"""PowerShell scripts, run by PowerShell 7 (``pwsh``)."""

from __future__ import annotations

from dataclasses import dataclass

from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared
from jupyter_agent.runtimes.base import Site, Task, Teller
from jupyter_agent.runtimes.tools import Tool

PWSH = Tool(
    ("pwsh",),
    "install PowerShell 7 (https://aka.ms/powershell)",
    ask=("-NoLogo", "-NoProfile", "-NonInteractive", "-Command", "exit 0"),
    settings=("PSModulePath",),
)

QUIET = {"POWERSHELL_TELEMETRY_OPTOUT": "1", "POWERSHELL_UPDATECHECK": "Off", "NO_COLOR": "1"}


@dataclass(frozen=True)
class PowerShell:
    """A script, without the user's profile and without anybody to ask."""

    language: str = "powershell"
    tools: tuple[Tool, ...] = (PWSH,)

    def missing(self) -> str | None:
        """Why there is no PowerShell."""
        return PWSH.missing()

    async def prepare(self, task: Task, site: Site, run: Teller) -> Prepared:  # noqa: ARG002 - as every runtime's
        """The script by its path: ``-File`` takes it as it is, and its ``exit`` as the exit code."""
        pwsh = await site.tools.need(PWSH)
        argv = (pwsh, "-NoLogo", "-NoProfile", "-NonInteractive", "-File", str(task.entry))
        return Prepared(Command(argv, task.folder, {**QUIET, **PWSH.environment(task.env)}))
