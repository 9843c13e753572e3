"""Environments: a further one of a known lock, one that is ready, what many cost on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from uv import find_uv_bin

from jupyter_agent.environments import Environments
from jupyter_agent.environments.definitions import Definition
from tests.bench.figures import Figure, bench
from tests.channels import channel_in
from tests.environment_peers import Listener, built, environment_file, locked

NAMES = ("ipykernel", "numpy", "pandas", "papermill", "pip")
ROUNDS = 7
READY_ROUNDS = 200
EQUAL = 10
PLAIN = Path(__file__).parents[1] / "children" / "plain_rattler.py"
KERNEL = """
import sys
from jupyter_client.manager import KernelManager
manager = KernelManager()
manager.kernel_spec.argv = [sys.argv[1], "-m", "ipykernel_launcher", "-f", "{connection_file}"]
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=120)
assert client.execute_interactive("import numpy, pandas", timeout=120)["content"]["status"] == "ok"
client.stop_channels()
manager.shutdown_kernel()
"""


@contextlib.contextmanager
def store_with_file() -> Iterator[tuple[Path, Path]]:
    """A new store's folder, and a file that asks a channel for the reference set."""
    with tempfile.TemporaryDirectory(prefix="ja-bench-") as folder:
        channel = channel_in(Path(folder) / "channel")
        yield Path(folder) / "environments", environment_file(Path(folder) / "asked", channel, "python", *NAMES)


def timed(command: list[str], *, cwd: Path) -> float:
    """Seconds that a command takes."""
    started = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, timeout=600)
    return time.perf_counter() - started


async def second_prefix(store: Path, file: Path) -> float:
    """Seconds until an environment whose lock and packages are known is there again."""
    environments, definition = Environments(store), Definition.read(file)
    known = await environments.ensure(definition, teller=Listener(), tag="bench")
    await environments.release("bench")
    await environments.remove(known.hash)
    await asyncio.to_thread(os.sync)
    started = time.perf_counter()
    await environments.ensure(definition, teller=Listener(), tag="bench")
    taken = time.perf_counter() - started
    await environments.release("bench")
    return taken


@bench(
    "environment_second",
    goal="a second prefix of a known lock: at most 1.3 times plain rattler installing the same records in a child",
    kind="comparison",
)
def environment_second() -> Iterator[Figure]:
    """Seconds of a child each: a process, the lock read, all packages linked; ours also compiled and checked.

    Then what the store takes in all, with the list of all files that later changes are held against.
    """
    with store_with_file() as (store, file):
        lock = locked(file, store)
        built(lock, store / "first", store)
        ours, theirs, whole = [], [], []
        for turn in range(ROUNDS + 1):
            prefix = store.parent / f"ours-{turn}"
            ours.append(settled(lambda prefix=prefix: built(lock, prefix, store)))  # type: ignore[misc]
            shutil.rmtree(prefix)
            prefix = store.parent / f"plain-{turn}"
            command = [sys.executable, "-P", str(PLAIN), str(lock), str(prefix), str(store / "cache" / "pkgs")]
            theirs.append(settled(lambda command=command: timed(command, cwd=store)))  # type: ignore[misc]
            shutil.rmtree(prefix)
            whole.append(asyncio.run(second_prefix(store, file)))
        ours_s, theirs_s, whole_s = (round(statistics.median(times[1:]), 3) for times in (ours, theirs, whole))
        yield Figure(ours_s, "s", "py-rattler alone", theirs_s)
        yield Figure(whole_s, "s", "py-rattler alone", theirs_s, "environment_second_in_the_store")


def settled(work: Callable[[], object]) -> float:
    """Seconds of what is done while nothing else waits for the disk."""
    os.sync()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@bench("environment_ready", goal="an environment that is ready costs a run at most 5 ms", kind="budget")
def environment_ready() -> Iterator[Figure]:
    """Milliseconds from the file to the environment."""
    with store_with_file() as (store, file):
        yield Figure(round(asyncio.run(ready(store, file)) * 1000, 2), "ms")


async def ready(store: Path, file: Path) -> float:
    """Seconds, the median."""
    environments = Environments(store)
    await environments.ensure(Definition.read(file), teller=Listener(), tag="bench")
    taken = []
    for _ in range(READY_ROUNDS):
        started = time.perf_counter()
        definition = await asyncio.to_thread(Definition.read, file)
        (await environments.ensure(definition, teller=Listener(), tag="bench")).variables(os.environ)
        taken.append(time.perf_counter() - started)
    await environments.release("bench")
    return statistics.median(taken)


@bench(
    "environment_disk",
    goal="ten equal prefixes after a kernel ran in each: at most 1.8 times the disk of one",
    kind="comparison",
)
def environment_disk() -> Iterator[Figure]:
    """MB that ten take together, beside one alone."""
    with store_with_file() as (store, file):
        lock = locked(file, store)
        prefixes = [built(lock, store / f"equal-{number}", store) for number in range(EQUAL)]
        for prefix in prefixes:
            subprocess.run([sys.executable, "-c", KERNEL, str(prefix / "bin" / "python")], check=True, timeout=300)
        one, all_ = (round(disk_bytes(some) / 1e6, 1) for some in (prefixes[:1], prefixes))
        yield Figure(all_, "MB", "one prefix", one)


def disk_bytes(folders: Iterable[Path]) -> int:
    """What the folders take together; what is linked several times counts once."""
    seen = {}
    for folder in folders:
        for path in folder.rglob("*"):
            status = path.lstat()
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


@bench("environment_others", goal="a second prefix, beside what else one would make one with", kind="comparison")
def environment_others() -> Iterator[Figure]:
    """Seconds for the same packages: warm ``uv venv`` and ``uv pip install``; ``python -m venv`` and its pip."""
    with store_with_file() as (store, file):
        ours = statistics.median([asyncio.run(second_prefix(store, file)) for _ in range(ROUNDS)][1:])
        yield Figure(round(ours, 3), "s", "uv, warm", round(by_uv(store.parent), 3), "environment_uv")
        yield Figure(round(ours, 3), "s", "python -m venv and pip", round(by_pip(store.parent), 1), "environment_pip")


def by_uv(folder: Path) -> float:
    """Seconds of uv with all wheels in its cache."""
    uv, target, taken = find_uv_bin(), folder / "uv", []
    for _ in range(ROUNDS):
        shutil.rmtree(target, ignore_errors=True)
        made = timed([uv, "venv", "--python", sys.executable, str(target)], cwd=folder)
        install = [uv, "pip", "install", "--python", str(target / "bin" / "python"), *NAMES]
        taken.append(made + timed(install, cwd=folder))
    return statistics.median(taken[1:])


def by_pip(folder: Path) -> float:
    """Seconds of the standard library's way, once."""
    target = folder / "pip"
    made = timed([sys.executable, "-m", "venv", str(target)], cwd=folder)
    return made + timed([str(target / "bin" / "python"), "-m", "pip", "install", *NAMES], cwd=folder)
