"""What a run's output costs: the child that prints it, and the one who waits for it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from jupyter_agent.home import AgentClient
from tests.bench.figures import Figure, bench
from tests.bench.measures import new_home
from tests.conftest import ended, make_package, printed, start_agent

RATE_MB = 50
SECONDS = 5
ROUNDS = 3
LINES = 200
CHILD = f"""
import os, sys, time
lines = (b"%063d\\n" % 7) * 1024  # 64 KiB
started = time.monotonic()
for number in range({RATE_MB * SECONDS * 16}):
    view = memoryview(lines)
    while view:
        view = view[os.write(1, view):]
    due_s = started + (number + 1) / ({RATE_MB} * 16) - time.monotonic()
    if due_s > 0 and number % 4 == 3:
        time.sleep(due_s)
print(time.monotonic() - started, file=sys.stderr)
"""
TICKS = f"""
import sys, time
time.sleep(1)
for number in range({LINES}):
    sys.stdout.write(f"{{time.time_ns()}}\\n")
    sys.stdout.flush()
    time.sleep(0.007 + number % 5 * 0.02)
"""


@bench(
    "output_cost",
    goal=f"a child's {RATE_MB} MB/s of output cost it at most 20 % against `> file`: a ratio of 0.83 at least",
    kind="comparison",
)
def output_cost() -> Iterator[Figure]:
    """Seconds a child takes to print at this rate, as a run and into a file: the median of some rounds each."""
    ours, files = [], []
    with new_home() as home:
        agent = start_agent(home)
        package = make_package(home.path.parent / "printer", {"main.py": CHILD}, openiap={"language": "python"})
        for _ in range(ROUNDS):
            run = ended(agent, agent.request("POST", "runs", {"target": str(package)})["id"])
            ours.append(float(printed(agent, run["id"], "stderr")))
            files.append(into_a_file())
    yield Figure(round(statistics.median(ours), 3), "s", "the same child, > file", round(statistics.median(files), 3))


def into_a_file() -> float:
    """Seconds that the child takes with its output in a file."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "output").open("wb") as file:
        done = subprocess.run([sys.executable, "-c", CHILD], stdout=file, stderr=subprocess.PIPE, check=True)
    return float(done.stderr)


@bench("follower", goal="a follower has a line within 50 ms", kind="budget")
def follower() -> Iterator[Figure]:
    """Milliseconds from a child's write to the line at the other end of the stream: the median, and 19 of 20."""
    with new_home() as home:
        agent = start_agent(home)
        package = make_package(home.path.parent / "ticker", {"main.py": TICKS}, openiap={"language": "python"})
        run = agent.request("POST", "runs", {"target": str(package)})
        late_ms = sorted(delays_ms(agent, run["id"]))
    yield Figure(round(statistics.median(late_ms), 1), "ms", name="follower_median")
    yield Figure(round(late_ms[len(late_ms) * 19 // 20], 1), "ms", name="follower_95_percent")


def delays_ms(agent: AgentClient, run_id: str) -> Iterator[float]:
    """How long each line was on its way to the one who reads the stream of the socket."""
    for chunk in agent.lines(f"runs/{run_id}/stream"):
        arrived_ns = time.time_ns()
        if chunk.get("stream") == "stdout":
            yield from ((arrived_ns - int(sent)) / 1e6 for sent in chunk["text"].split())
