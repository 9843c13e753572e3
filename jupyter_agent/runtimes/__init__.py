"""Runtimes: from a package's files or a single file to the command that runs it, one small class per language.

A runtime plans; it makes sure of what the program needs and writes what its child is to read, but starts no run itself.
"""

from __future__ import annotations

from jupyter_agent.runtimes.base import Runtime, Site, Task, Teller
from jupyter_agent.runtimes.needs import check_needs, needs_met, needs_of, needs_of_document, no_needs
from jupyter_agent.runtimes.nodejs import Spares
from jupyter_agent.runtimes.notebook import recover
from jupyter_agent.runtimes.places import IN_ENVIRONMENTS, definition_in, existing
from jupyter_agent.runtimes.table import certain_languages, languages, runtime_for, working_languages
from jupyter_agent.runtimes.tools import Tool, Tools

__all__ = [
    "IN_ENVIRONMENTS",
    "Runtime",
    "Site",
    "Spares",
    "Task",
    "Teller",
    "Tool",
    "Tools",
    "certain_languages",
    "check_needs",
    "definition_in",
    "existing",
    "languages",
    "needs_met",
    "needs_of",
    "needs_of_document",
    "no_needs",
    "recover",
    "runtime_for",
    "working_languages",
]
