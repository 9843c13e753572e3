"""The environment in which a script or notebook runs: one that is named, or what its files ask for."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from pathlib import Path

from jupyter_agent.environments import Environment, Environments
from jupyter_agent.environments.definitions import Definition, Kind, find
from jupyter_agent.errors import InvalidInput, NotFound
from jupyter_agent.runtimes.base import Site, Task, Teller

IN_ENVIRONMENTS = ("notebook", "python")
"""The languages that run in one."""

NOTHING = ("requirements.txt", "")
"""What a package asks for that has no file which says so: an environment without any package."""

PYTHON = "python"

IPYKERNEL = "ipykernel >=6.29"
"""As conda and pip both write it."""

SIGNS = ("conda-meta", "pyvenv.cfg")
"""What lies in every environment of conda's, and in every other one of Python's."""

NO_KERNEL = "A notebook needs ipykernel in its environment, and {where} has none: {what}."


async def environment_of_script(task: Task, site: Site, run: Teller) -> Environment | None:
    """The environment for a task, held until its run is over; ``None`` for our own interpreter.

    Raises ``InvalidInput`` for one without Python.
    """
    definition = await asyncio.to_thread(_definition, task)
    needs = (PYTHON,) if definition is not None and definition.conda() else ()
    environment = await _environment(task, site, run, definition, needs)
    if environment is not None and not await asyncio.to_thread(environment.python.exists):
        where = definition.name if definition is not None else task.environment
        raise InvalidInput(f"There is no Python in the environment of {where}: add `python` to what it asks for.")
    return environment


async def _environment(
    task: Task, site: Site, run: Teller, definition: Definition | None, needs: Sequence[str]
) -> Environment | None:
    """``needs`` are what it is to hold, besides what it is asked for, where something can be added."""
    if definition is None:
        return await existing(site.environments, task.environment, tag=task.tag) if task.environment else None
    extra = () if is_given(definition) else tuple(need for need in needs if not _asks_for(definition, need))
    return await site.environments.ensure(
        definition, extra=extra, teller=run, tag=task.tag, from_pypi=task.from_pypi, offline=task.offline
    )


async def environment_of_notebook(task: Task, site: Site, run: Teller) -> Environment | None:
    """The same for a notebook: a kernel can be started in it. Raises ``InvalidInput`` where none can."""
    definition = await asyncio.to_thread(_definition, task)
    if definition is not None and is_given(definition) and "ipykernel" not in definition.text:
        raise InvalidInput(NO_KERNEL.format(where=definition.name, what="lock it together with ipykernel"))
    environment = await _environment(task, site, run, definition, (IPYKERNEL,))
    if environment is not None and not await asyncio.to_thread(_has_kernel, environment):
        where = definition.name if definition is not None else task.environment
        raise InvalidInput(NO_KERNEL.format(where=where, what="install it there, or run the notebook in another one"))
    return environment


async def existing(environments: Environments, wanted: str, *, tag: str | None = None) -> Environment:
    """That of this id, name or path, held for ``tag``: ours, one that others made, or what lies in a folder.

    Raises ``NotFound``.
    """
    try:
        return await environments.find(wanted, tag=tag)
    except NotFound:
        if not await asyncio.to_thread(_is_prefix, wanted):
            raise
        return Environment("", Path(wanted))


def _is_prefix(wanted: str) -> bool:
    """Whether an environment lies at this absolute path that no program knows of."""
    if "\0" in wanted or not os.path.isabs(wanted):  # noqa: PTH117 - it may be no path
        return False
    return any(os.path.exists(os.path.join(wanted, sign)) for sign in SIGNS)  # noqa: PTH110, PTH118 - it may be too long


def _asks_for(definition: Definition, need: str) -> bool:
    """Whether conda would add nothing for it: then what was made of the file alone is what is needed.

    A line for some systems only (``# [win]``) does not count, nor what is not seen at a glance.
    """
    name = re.escape(need.split(maxsplit=1)[0])
    line = rf"^[ \t]*-[ \t]+[\"']?([\w./-]+::)?{name}(?![\w.-])(?!.*#[ \t]*\[)"
    return definition.kind is Kind.CONDA and re.search(line, definition.text, re.MULTILINE) is not None


def definition_in(wanted: str) -> Definition | None:
    """What the file at an absolute path asks for; ``None`` for what is no file. Blocks. Raises ``InvalidInput``."""
    if "\0" in wanted or not os.path.isabs(wanted) or not os.path.isfile(wanted):  # noqa: PTH113, PTH117 - no path, or too long
        return None
    return Definition.read(Path(wanted))


def is_given(definition: Definition) -> bool:
    """Whether it names all that an environment holds, so that nothing can be added."""
    return definition.kind in (Kind.LOCK, Kind.EXPLICIT)


def mark_of(environment: Environment | None) -> str | None:
    """How a run's row tells its environment: by its hash, one that is not ours by its path."""
    return None if environment is None else environment.hash or str(environment.prefix)


def _definition(task: Task) -> Definition | None:
    """What says the environment's contents; ``None``: one that exists is named, or it is our own interpreter."""
    if task.environment:
        return definition_in(task.environment)
    if (file := find(task.folder)) is not None:
        return Definition.read(file, within=task.folder)
    return None if task.own_interpreter else Definition.of(*NOTHING)


def _has_kernel(environment: Environment) -> bool:
    """Whether its Python can import ipykernel, as far as the files tell."""
    folders = ("lib/python*/site-packages", "Lib/site-packages")
    return environment.python.exists() and any(
        any(environment.prefix.glob(f"{folder}/ipykernel/__init__.py")) for folder in folders
    )
