"""The runtimes there are, by language: ours, and those that other distributions bring.

A distribution brings one by an entry point of the group ``jupyter_agent.runtimes``: its name is the language in lower
case, its value a callable without arguments that gives a ``Runtime``.
"""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint, entry_points

from jupyter_agent.errors import InvalidInput, Unavailable
from jupyter_agent.runtimes.base import Runtime
from jupyter_agent.runtimes.dotnet import DotNet
from jupyter_agent.runtimes.executable import Executable
from jupyter_agent.runtimes.java import Java
from jupyter_agent.runtimes.nodejs import NodeJs
from jupyter_agent.runtimes.notebook import Notebook
from jupyter_agent.runtimes.php import Php
from jupyter_agent.runtimes.powershell import PowerShell
from jupyter_agent.runtimes.python import Python
from jupyter_agent.runtimes.rust import Rust
from jupyter_agent.runtimes.shell import Shell
from jupyter_agent.runtimes.tools import Tools

GROUP = "jupyter_agent.runtimes"

log = logging.getLogger(__name__)

OURS: dict[str, Runtime] = {
    runtime.language: runtime
    for runtime in (
        Python(),
        Notebook(),
        NodeJs(),
        Shell(),
        Executable(),
        Php(),
        PowerShell(),
        Rust(),
        Java(),
        DotNet(),
    )
}


def further() -> dict[str, Runtime]:
    """What other distributions bring. One that is broken, or for a language of ours, is logged and passed over."""
    found: dict[str, Runtime] = {}
    for point in entry_points(group=GROUP):
        try:
            runtime = _loaded(point)
        except Exception:
            log.exception("The runtime %s of %s cannot be used", point.name, point.value)
        else:
            found.setdefault(runtime.language, runtime)
    return found


def _loaded(point: EntryPoint) -> Runtime:
    runtime: Runtime = point.load()()
    if point.name in OURS or runtime.language != point.name:
        raise InvalidInput(
            f"It is called {point.name!r} and runs {runtime.language!r}: they should be one new language."
        )
    tuple(runtime.tools)
    runtime.missing()
    if not callable(runtime.prepare):
        raise InvalidInput("Its `prepare` is no method.")
    return runtime


RUNTIMES: dict[str, Runtime] = {**OURS, **further()}

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
