"""A stand-in for an agent that is killed: starts two watched trees and one that it takes back, then waits.

argv: FILE, into which the pids go, as JSON.
"""

import asyncio
import json
import sys
from pathlib import Path

from jupyter_agent.processes import Command, Reaper, inherited_environment, start

HERE = Path(__file__).parent


def command(folder: Path, script: str, *words: str) -> Command:
    return Command((sys.executable, str(HERE / script), *words), folder, inherited_environment())


async def main(target: Path) -> None:
    reaper = Reaper()
    reaper.watch("early")
    detacher = await start(command(target.parent, "detacher.py", str(target.with_suffix(".tree"))), tag="tree")
    reaper.watch("tree", detacher.pid)
    stubborn = await start(command(target.parent, "stubborn.py"), tag="stubborn")
    reaper.watch("stubborn", stubborn.pid)
    await stubborn.stdout.readline()
    early = await start(command(target.parent, "graceful.py", "0"), tag="early")
    freed = await start(command(target.parent, "graceful.py", "0"), tag="freed")
    reaper.watch("freed", freed.pid)
    reaper.forget("freed")
    await early.stdout.readline()
    await freed.stdout.readline()
    while not target.with_suffix(".tree").exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)
    pids = {"stubborn": stubborn.pid, "early": early.pid, "freed": freed.pid, "reaper": reaper.pid}
    temporary = target.with_suffix(".new")
    temporary.write_text(json.dumps(pids))
    temporary.rename(target)
    await asyncio.sleep(600)


asyncio.run(main(Path(sys.argv[1])))
