"""PHP scripts, with the libraries that their ``composer.json`` asks for."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jupyter_agent import processes
from jupyter_agent.errors import InvalidInput
from jupyter_agent.folders import remove_tree
from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared
from jupyter_agent.runtimes.base import Site, Task, Teller
from jupyter_agent.runtimes.building import build
from jupyter_agent.runtimes.sources import Place, built, copied, stamp
from jupyter_agent.runtimes.tools import Tool
from jupyter_agent.waiting import to_its_end

PHP = Tool(("php",), "install PHP (Debian's package php-cli)", settings=("PHPRC", "PHP_INI_SCAN_DIR"))

COMPOSER = Tool(
    ("composer",),
    "install Composer (Debian's package composer), or publish the package with its folder vendor",
    ask=("--version", "--no-ansi", "--no-interaction"),
    settings=("COMPOSER_HOME", "COMPOSER_CACHE_DIR", "PHPRC", "PHP_INI_SCAN_DIR"),
)

INSTALL = ("install", "--no-dev", "--no-interaction", "--no-progress", "--no-ansi", "--prefer-dist")


@dataclass(frozen=True)
class Php:
    """A script. Libraries are installed by Composer, once, unless the package brings its folder ``vendor``."""

    language: str = "php"
    tools: tuple[Tool, ...] = (PHP,)

    def missing(self) -> str | None:
        """Why there is no PHP."""
        return PHP.missing()

    async def prepare(self, task: Task, site: Site, run: Teller) -> Prepared:
        """The script; the libraries are copied to it, as they find the package by where they lie."""
        php = await site.tools.need(PHP)
        if libraries := await asyncio.to_thread(libraries_wanted, task.folder):
            composer = await site.tools.need(COMPOSER)
            place = await built(
                task, site, run, kind="composer", by=stamp(php), build=partial(_install, composer, task, run)
            )
            await _copy(place.source / libraries, task.folder / libraries)
        return Prepared(Command((php, str(task.entry)), task.folder, PHP.environment(task.env)))


async def _install(composer: str, task: Task, run: Teller, place: Place) -> None:
    environ = COMPOSER.environment(processes.inherited_environment(builders=False))
    await build(Command((composer, *INSTALL), place.source, environ), run=run, tag=task.tag, what="composer install")


async def _copy(libraries: Path, target: Path) -> None:
    """Put the libraries into the run's copy. Where nothing was installed there is nothing to copy."""
    if not await asyncio.to_thread(libraries.is_dir):
        return
    await to_its_end(partial(remove_tree, target))
    await copied(libraries, target)


def libraries_wanted(folder: Path) -> str | None:
    """The folder, mostly ``vendor``, for the libraries that ``composer.json`` asks for; ``None``: none, or it is there.

    Raises ``InvalidInput`` when the file is unreadable.
    """
    file = folder / "composer.json"
    if not file.is_file():
        return None
    try:
        asked = json.loads(file.read_text(encoding="utf-8-sig"))
        config = asked.get("config") or {}
        vendor = os.path.normpath(str(config.get("vendor-dir") or "vendor"))
        wanted = bool(asked.get("require") or asked.get("autoload"))
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise InvalidInput(f"composer.json is not a readable JSON object ({error}): mend it.") from error
    if os.path.isabs(vendor) or vendor.startswith(os.pardir) or vendor == os.curdir:  # noqa: PTH117 - text of a file
        raise InvalidInput(
            f'composer.json puts the libraries into {vendor}: give "vendor-dir" a folder of the package.'
        )
    return vendor if wanted and not (folder / vendor / "autoload.php").is_file() else None
