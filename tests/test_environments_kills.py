"""``kill -9`` amid all that is done with environments: each one verifies afterwards or is gone, and can be had."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from jupyter_agent.environments import Environments
from jupyter_agent.environments.definitions import Definition
from tests.environment_peers import Listener, environment_file, faults

SEED = int(os.environ.get("JUPYTER_AGENT_SEED", "0")) or random.SystemRandom().randrange(1 << 31)
CHILD = Path(__file__).parent / "children" / "environments.py"
WHAT = ("create", "rebuild", "compile", "gc")
SETS = (("python", "ipykernel"), ("python", "numpy"), ("python", "python-dateutil"))
LATEST_S = {"create": 5.0, "rebuild": 4.0, "compile": 4.0, "gc": 0.5}
COLD_EACH = 7
CHECK = f"check of {os.getpid()}"


def begin(folder: Path, what: str, file: Path) -> subprocess.Popen[str]:
    """The child, once it has begun."""
    environ = {**os.environ, "PYTHONPATH": str(CHILD.parents[2])}
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), what, str(file)], stdout=subprocess.PIPE, text=True, env=environ
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    return child


async def test_whatever_is_killed_each_environment_is_whole_or_gone(
    channel: Path, tmp_path: Path, budgets: dict[str, int]
) -> None:
    chance = random.Random(SEED)  # noqa: S311 - a test's
    print(f"seed {SEED}")
    files = [environment_file(tmp_path / f"e{n}", channel, *names) for n, names in enumerate(SETS)]
    store = tmp_path / "environments"
    for round_ in range(budgets["environment_kills"]):
        if round_ % COLD_EACH == 0:
            await asyncio.to_thread(shutil.rmtree, store, ignore_errors=True)
        what, file = chance.choice(WHAT) if round_ % COLD_EACH else "create", chance.choice(files)
        child = await asyncio.to_thread(begin, store, what, file)
        await asyncio.sleep(chance.random() * LATEST_S[what])
        child.kill()
        await asyncio.to_thread(child.communicate)
        await check(store, file, f"round {round_}: {what}")


async def check(store: Path, file: Path, said: str) -> None:
    """All that counts as ready is whole; what was asked for can be had, and is whole."""
    environments = Environments(store)
    for known in await environments.list():
        if known.origin == "jupyter_agent" and known.state == "ready":
            assert await environments.verify(known.id) == [], said
    teller = Listener()
    environment = await environments.ensure(Definition.read(file), teller=teller, tag=CHECK)
    assert await asyncio.to_thread(faults, environment.prefix, store) == [], said
    await environments.release(CHECK)
