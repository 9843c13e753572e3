"""The runtimes there are, by language."""

from __future__ import annotations

from jupyter_agent.errors import InvalidInput
from jupyter_agent.runtimes.base import Runtime
from jupyter_agent.runtimes.notebook import Notebook
from jupyter_agent.runtimes.python import Python

RUNTIMES: dict[str, Runtime] = {runtime.language: runtime for runtime in (Python(), Notebook())}

LANGUAGES = tuple(sorted(RUNTIMES))


def runtime_for(language: str) -> Runtime:
    """The runtime of a language. Raises ``InvalidInput`` naming those there are."""
    if runtime := RUNTIMES.get(language.lower()):
        return runtime
    raise InvalidInput(f"Packages in {language or 'no language'} cannot be run here: there are {', '.join(LANGUAGES)}.")


def languages() -> list[str]:
    """What this agent runs, as it is announced to OpenFlow."""
    return [language for language in LANGUAGES if RUNTIMES[language].missing() is None]
