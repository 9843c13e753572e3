"""What is measured."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from jupyter_agent.home import AgentClient, Home
from tests.bench.figures import Figure, bench
from tests.conftest import cli, end_all, ended, make_package, printed, start_agent, until

MIB = 1 << 20
BIN = Path(sys.executable).parent
FIRST_INSTRUCTION = "import time; print(time.time_ns())\n"
THREE_CELLS = ["x = 1", "x + 1", "print(x)"]


@contextlib.contextmanager
def new_home() -> Iterator[Home]:
    """A home that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ja-") as folder:
        home = Home(Path(folder) / "home")
        try:
            yield home
        finally:
            end_all(home)


@bench("gate_start", goal="at most 100 ms and 15 MB more than a bare Jupyter server", kind="budget")
def gate_start() -> Iterator[Figure]:
    """CPU milliseconds until the server answers, and its memory then, with and without the extension."""
    with_gate, without = [], []
    for _ in range(5):
        without.append(server_start(enabled=False))
        with_gate.append(server_start(enabled=True))
    for index, unit in enumerate(("ms", "MB")):
        # The least of five: what other processes add to it is never less than nothing.
        ours, bare = (min(run[index] for run in runs) for runs in (with_gate, without))
        yield Figure(round(ours - bare, 1), unit, "a bare Jupyter server", round(bare, 1), f"gate_start_{unit}")


def server_start(*, enabled: bool) -> tuple[float, float]:
    """CPU milliseconds and MiB of a Jupyter server that has just come up."""
    with tempfile.TemporaryDirectory(prefix="ja-") as folder:
        info = Path(folder) / "runtime"
        setting = f"c.ServerApp.jpserver_extensions = {{'jupyter_agent': {enabled}}}\n"
        (Path(folder) / "jupyter_server_config.py").write_text(setting)
        command = [
            *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--port=0"),
            f"--ServerApp.root_dir={folder}",
        ]
        environment = {
            **os.environ,
            "JUPYTER_RUNTIME_DIR": str(info),
            "JUPYTER_AGENT_HOME": f"{folder}/home",
            "JUPYTER_CONFIG_DIR": folder,
        }
        server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: list(info.glob("jpserver-*.json")), what="the server is up")
            process = psutil.Process(server.pid)
            times = process.cpu_times()
            return (times.user + times.system) * 1000, process.memory_info().rss / MIB
        finally:
            server.terminate()
            server.wait()


@bench("idle_memory", goal="agent at most 90 MB, hub at most 60 MB", kind="budget")
def idle_memory() -> Iterator[Figure]:
    """Resident memory of both processes after a run."""
    with new_home() as home:
        agent = start_agent(home)
        package = make_package(
            home.path.parent / "hello", {"main.py": "print('hello')\n"}, openiap={"language": "python"}
        )
        ended(agent, agent.request("POST", "runs", {"target": str(package)})["id"])
        status = agent.request("GET", "status")
        for name in ("agent", "hub"):
            rss = psutil.Process(status[name]["pid"]).memory_info().rss
            yield Figure(round(rss / MIB, 1), "MB", name=f"idle_memory_{name}")


@bench("run_overhead", goal="at most 50 ms from runpackage to the first instruction, over a bare spawn", kind="budget")
def run_overhead() -> Iterator[Figure]:
    """From the order to the child's first instruction, less the same of a bare spawn of the same interpreter."""
    with new_home() as home:
        agent = start_agent(home)
        folder = make_package(
            home.path.parent / "clock", {"main.py": FIRST_INSTRUCTION}, openiap={"language": "python"}
        )
        package = agent.request("POST", "packages", {"path": str(folder)})["id"]
        first = ended(agent, agent.request("POST", f"packages/{package}/runs", {})["id"])
        python = home.environments / str(first["environment"]) / "bin" / "python"
        ours, bare = [], []
        for _ in range(20):
            ours.append(order_to_first_instruction(agent, package))
            start = time.time_ns()
            spawned = subprocess.run([python, folder / "main.py"], capture_output=True, text=True, check=True)
            bare.append((int(spawned.stdout) - start) / 1e6)
        added = statistics.median(ours) - statistics.median(bare)
        yield Figure(round(added, 1), "ms", "a bare spawn", round(statistics.median(bare), 1))


def order_to_first_instruction(agent: AgentClient, package: str) -> float:
    """Milliseconds."""
    start = time.time_ns()
    run = agent.request("POST", f"packages/{package}/runs", {})
    ended(agent, run["id"])
    return (int(printed(agent, run["id"])) - start) / 1e6


@bench("runs_list", goal="at most 120 ms for the whole process", kind="budget")
def runs_list() -> Iterator[Figure]:
    """``jupyter-agent runs list`` against a running agent, and an interpreter that does nothing."""
    with new_home() as home:
        start_agent(home)
        ours, bare = [], []
        for _ in range(15):
            start = time.perf_counter()
            assert cli("runs", "list", home=home).returncode == 0
            ours.append((time.perf_counter() - start) * 1000)
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            bare.append((time.perf_counter() - start) * 1000)
        yield Figure(round(statistics.median(ours), 1), "ms", "python -c pass", round(statistics.median(bare), 1))


@bench("notebook", goal="quicker than the papermill command", kind="comparison")
def notebook() -> Iterator[Figure]:
    """A notebook of three cells, run by the agent in the same interpreter, and by the papermill command."""
    import nbformat

    with new_home() as home:
        agent = start_agent(home)
        path = home.path.parent / "three.ipynb"
        cells = [nbformat.v4.new_code_cell(source) for source in THREE_CELLS]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        ours, theirs = [], []
        for _ in range(5):
            start = time.perf_counter()
            run = ended(agent, agent.request("POST", "runs", {"target": str(path)})["id"])
            assert run["state"] == "succeeded", run["error"]
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            papermill = [str(BIN / "papermill"), "-k", "python3", str(path), str(path.with_name("out.ipynb"))]
            subprocess.run(papermill, check=True, capture_output=True)
            theirs.append(time.perf_counter() - start)
        ms, peer_ms = (round(statistics.median(times) * 1000) for times in (ours, theirs))
        yield Figure(ms, "ms", "the papermill command", peer_ms)


@bench("environment", goal="quicker than venv and pip", kind="comparison")
def environment() -> Iterator[Figure]:
    """A new environment with pandas and ipykernel from a warm cache, and the same by ``python -m venv`` and pip."""
    with new_home() as home:
        agent = start_agent(home)
        seconds = []
        for line in ("pandas\n", "pandas\nsix\n"):  # the first fills the cache
            folder = make_package(
                home.path.parent / f"p{len(line)}",
                {"main.py": "import pandas\n", "requirements.txt": line},
                openiap={"language": "python"},
            )
            start = time.perf_counter()
            run = ended(agent, agent.request("POST", "runs", {"target": str(folder)})["id"])
            assert run["state"] == "succeeded", run["error"]
            seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        venv = home.path.parent / "venv"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "-q", "pandas", "six"], check=True, capture_output=True)
        peer_s = time.perf_counter() - start
        yield Figure(round(seconds[-1], 2), "s", "python -m venv and pip install", round(peer_s, 2))


@bench("demo", goal="under 90 s on a fresh home, under 10 s the second time", kind="budget")
def demo() -> Iterator[Figure]:
    """The whole command, with an empty home and an empty cache of packages; then once more."""
    with new_home() as home, tempfile.TemporaryDirectory(prefix="ja-") as cache:
        os.environ["UV_CACHE_DIR"] = cache
        try:
            for name in ("demo_first", "demo_second"):
                start = time.perf_counter()
                done = cli("demo", home=home)
                assert done.returncode == 0, done.stderr
                yield Figure(round(time.perf_counter() - start, 1), "s", name=name)
        finally:
            del os.environ["UV_CACHE_DIR"]
