"""The runtimes there are, by language."""

from __future__ import annotations

from jupyter_agent.errors import InvalidInput, Unavailable
from jupyter_agent.runtimes.base import Runtime
from jupyter_agent.runtimes.dotnet import DotNet
from jupyter_agent.runtimes.executable import Executable
from jupyter_agent.runtimes.java import Java
from jupyter_agent.runtimes.notebook import Notebook
from jupyter_agent.runtimes.php import Php
from jupyter_agent.runtimes.powershell import PowerShell
from jupyter_agent.runtimes.python import Python
from jupyter_agent.runtimes.rust import Rust
from jupyter_agent.runtimes.shell import Shell
from jupyter_agent.runtimes.tools import Tools

RUNTIMES: dict[str, Runtime] = {
    runtime.language: runtime
    for runtime in (
        Python(),
        Notebook(),
        Shell(),
        Executable(),
        Php(),
        PowerShell(),
        Rust(),
        Java(),
        DotNet(),
    )
}

LANGUAGES = tuple(sorted(RUNTIMES))


def runtime_for(language: str) -> Runtime:
    """The runtime of a language.

    Raises ``InvalidInput`` naming those there are, ``Unavailable`` when what it needs is not on this machine.
    """
    if runtime := RUNTIMES.get(language.lower()):
        if missing := runtime.missing():
            raise Unavailable(f"Packages in {runtime.language} cannot be run here. {missing}")
        return runtime
    raise InvalidInput(f"Packages in {language or 'no language'} cannot be run here: there are {', '.join(LANGUAGES)}.")


def languages() -> list[str]:
    """What this agent runs, as it is announced to OpenFlow."""
    return [language for language in LANGUAGES if RUNTIMES[language].missing() is None]


def certain_languages() -> list[str]:
    """What needs no program but ours: what can be announced before anything was asked."""
    return [language for language in languages() if not RUNTIMES[language].tools]


async def working_languages(tools: Tools) -> list[str]:
    """What this machine can run: every program that a language needs was asked, and works."""
    runtimes = [RUNTIMES[language] for language in languages()]
    working = await tools.working(tool for runtime in runtimes for tool in runtime.tools)
    return [runtime.language for runtime in runtimes if working.issuperset(runtime.tools)]
