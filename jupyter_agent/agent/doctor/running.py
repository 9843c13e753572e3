"""Who runs: the agent, the hub, other agents; and what the machine leaves them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from jupyter_agent import __version__, processes
from jupyter_agent.agent.doctor.findings import Case, Finding, ok, problem, warning
from jupyter_agent.errors import AgentError, Conflict, InvalidInput
from jupyter_agent.home import AgentClient, Home, Lock, read_json, running_agent

LOOKS, LOOK_S = 5, 0.1
"""At a lock, and the pause after each."""

ANSWER_S = 5
LEAST_MEMORY, LITTLE_MEMORY = 200 << 20, 600 << 20
LITTLE_FILES = 1024
OFFICIAL = ("nodeagent",)
"""A word in the command line of the official agent."""


async def look(case: Case) -> list[Finding]:
    """All of it, in a thread."""
    return await asyncio.to_thread(lambda: list(_look(case)))


def _look(case: Case) -> Iterator[Finding]:
    yield _agent(case.home)
    yield from _hub(case.home)
    yield from _installations(case)
    yield from _other_agents(case.home)
    yield _memory()
    yield _open_files()


def _agent(home: Home) -> Finding:
    try:
        stored = read_json(home.agent_file)
    except InvalidInput as error:
        return problem("agent", str(error), f"Remove {home.agent_file}.")
    if stored is None:
        return _without_a_word(home)
    pid = stored.get("pid")
    if not _is_alive(stored):
        if not _is_locked(home.path / "agent.lock"):
            return warning(
                "agent",
                f"No agent runs; the last one (pid {pid}) was killed, and its {home.agent_file.name} is left.",
                "Nothing: the next start cleans up. If it came by itself, look at the end of logs/agent.log for why.",
            )
        return problem("agent", f"{home.agent_file} names a process that is gone, yet the home is in use.",
                       f"End what holds {home.path / 'agent.lock'} (`fuser`, `lsof`).")  # fmt: skip
    return _answering(home, pid)


def _answering(home: Home, pid: object) -> Finding:
    try:
        socket = running_agent(home)
        status = AgentClient(socket).request("GET", "status", timeout_s=ANSWER_S) if socket else None
    except (AgentError, OSError) as error:
        return problem("agent", f"The agent runs (pid {pid}) but does not answer ({error}).", f"kill {pid}")
    if status is None:
        return problem("agent", f"The agent runs (pid {pid}) but its socket is gone.", f"kill {pid}")
    version = status["agent"]["version"]
    if version != __version__:
        return warning("agent", f"It runs (pid {pid}), but as version {version}; {__version__} is installed.",
                       "Restart it when its runs are over: `jupyter-agent serve` after ending it.")  # fmt: skip
    if not status["connected"]:
        why = status["error"] or "it is still trying."
        return problem("agent", f"It runs (pid {pid}) but is not connected to OpenFlow: {why}", "See what it says.")
    return ok("agent", f"It runs (pid {pid}), connected to {status['openflow']['url']}, queue {status['queue']}.")


def _without_a_word(home: Home) -> Finding:
    if _is_locked(home.path / "agent.lock"):
        return problem("agent", "An agent holds the home but has not told where it listens.",
                       f"Wait a moment; else end what holds {home.path / 'agent.lock'}.")  # fmt: skip
    return ok("agent", "None runs; the first command that needs it starts it.")


def _hub(home: Home) -> Iterator[Finding]:
    file = home.hub / "hub.json"
    try:
        stored = read_json(file)
    except InvalidInput as error:
        yield warning("hub", str(error), f"Remove {file}: the hub writes it anew.")
        return
    if stored is None or not _is_alive(stored):
        yield ok("hub", "The embedded hub does not run; an agent that needs it starts it.")
        return
    parts = urlsplit(str(stored.get("apiurl")))
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/livenessprobe")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        yield problem(
            "hub", f"It runs (pid {stored['pid']}) but does not answer ({error!r}).", f"kill {stored['pid']}: an "
            "agent starts it again.",
        )  # fmt: skip
        return
    finally:
        connection.close()
    if status == http.HTTPStatus.OK:
        yield ok("hub", f"It runs (pid {stored['pid']}) at {stored['apiurl']}.")
    else:
        yield problem("hub", f"At {stored['apiurl']} something else answers (HTTP {status}).", f"Remove {file}.")


def _is_alive(stored: Mapping[str, Any]) -> bool:
    try:
        return processes.is_alive(int(stored["pid"]), float(stored["started"]))
    except (KeyError, TypeError, ValueError):
        return False


def _is_locked(path: Path) -> bool:
    """Whether somebody holds the lock, and keeps it: a process that is killed has it for a moment after its death."""
    for _ in range(LOOKS):
        if not path.exists():
            return False
        try:
            with Lock(path, held=""):
                return False
        except (Conflict, OSError):
            time.sleep(LOOK_S)
    return True


def _installations(case: Case) -> Iterator[Finding]:
    found = {}
    for distribution in metadata.distributions(name="jupyter_agent"):
        found[str(distribution.locate_file(""))] = distribution.version
    if len(found) > 1:
        yield warning(
            "installation",
            f"jupyter_agent is installed {len(found)} times for this Python: {', '.join(found)}.",
            f"{sys.executable} -m pip uninstall jupyter_agent, until nothing is left, and install it once.",
        )
    first = shutil.which("jupyter-agent", path=case.environ.get("PATH"))
    own = Path(sys.executable).with_name("jupyter-agent")
    if first and own.exists() and not _same(Path(first), own):
        yield warning(
            "installation",
            f"`jupyter-agent` on the PATH is {first}, not the one of this environment ({own}).",
            f"Activate one environment, or call {own}.",
        )
    if len(found) <= 1:
        yield ok("installation", f"jupyter_agent {__version__} for {sys.executable}.")


def _same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False


def _other_agents(home: Home) -> Iterator[Finding]:
    adopted = False
    with contextlib.suppress(AgentError):
        adopted = bool((read_json(home.config_file) or {}).get("agentid"))
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if adopted and any(name in Path(word).parts[-3:] for word in words[:3] for name in OFFICIAL if word):
            yield warning(
                "other agents",
                f"The official agent runs, too (pid {process.pid}), and {home.config_file} has an agentid: both may be "
                "one agent with one queue.",
                "Stop one of them, or take the agentid out.",
            )
            return
    if (twin := _twin(home)) is not None:
        yield warning(
            "other agents",
            f"An agent on {twin} has the identity of this home, of which one is a copy: both have one queue.",
            f"End one of them; to keep both, remove {home.identity_file} with no agent running.",
        )
        return
    yield ok("other agents", "No other agent answers in the place of this one.")


def _twin(home: Home) -> Path | None:
    """Another home with this one's identity, on which an agent runs, as after a restore beside the original."""
    own = _identity(home)
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "jupyter_agent.api" in words and "--home" in words[:-1]:
            other = Home(Path(words[words.index("--home") + 1]))
            if own and not _same(other.path, home.path) and _identity(other) == own:
                return other.path
    return None


def _identity(home: Home) -> object:
    with contextlib.suppress(AgentError):
        return (read_json(home.identity_file) or {}).get("id")
    return None


def _memory() -> Finding:
    free = min(psutil.virtual_memory().available, _left_in_cgroup())
    said = f"{free >> 20} MiB of memory are free"
    if free < LEAST_MEMORY:
        return problem("memory", f"{said}.", "End other programs, or give the container more: runs will be killed.")
    if free < LITTLE_MEMORY:
        return warning("memory", f"{said}.", "Limit the runs: c.Agent.max_runs, c.Agent.memory_mb.")
    return ok("memory", f"{said}.")


def _left_in_cgroup() -> int:
    """What the container's own limit leaves (cgroup v2); endless where it has none."""
    with contextlib.suppress(OSError, ValueError):
        most = int(Path("/sys/fs/cgroup/memory.max").read_text())
        return most - int(Path("/sys/fs/cgroup/memory.current").read_text())
    return sys.maxsize


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LITTLE_FILES:
        more = f"ulimit -n {min(4096, hard)}, before its start"
        return warning("open files", f"A process may have {soft} files open here.", more)
    return ok("open files", f"A process may have {soft if soft != resource.RLIM_INFINITY else 'any number of'} open.")
