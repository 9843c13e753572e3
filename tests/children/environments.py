"""One thing that is done with the environments of a folder, to be killed in the middle of it.

Arguments: the folder, what (``create``, ``rebuild``, ``compile`` or ``gc``), the definition's file. Prints ``begun``
when it begins and ``done`` at its end.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from jupyter_agent.environments import Environments
from jupyter_agent.environments.definitions import Definition
from tests.environment_peers import Listener


async def main(folder: Path, what: str, file: Path) -> None:
    environments = Environments(folder)
    definition, tag, teller = Definition.read(file), f"{os.getppid()}-{what}", Listener()
    print("begun", flush=True)
    if what == "gc":
        await environments.gc(days=0, dry_run=False)
    elif what == "compile":
        shutil.rmtree(folder / "cache" / "compiled", ignore_errors=True)
        for known in await environments.list():
            if known.origin == "jupyter_agent":
                await environments.remove(known.id)
        await environments.ensure(definition, teller=teller, tag=tag)
    else:
        environment = await environments.ensure(definition, teller=teller, tag=tag)
        if what == "rebuild":
            await environments.release(tag)
            await environments.taint(environment.hash)
            await environments.ensure(definition, teller=teller, tag=tag)
    print("done", flush=True)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
