"""Both halves of the extension: where enabled, in which version, in the environment of the Jupyter that is started."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from jupyter_core.paths import jupyter_config_path, jupyter_path, jupyter_runtime_dir

from jupyter_agent import __version__, processes
from jupyter_agent.agent.doctor.findings import Case, Finding, ok, problem, warning
from jupyter_agent.errors import AgentError
from jupyter_agent.processes import Command

ANSWER_S = 15
SERVER, LAB = "jupyter_agent", "jupyter-agent"
ASK = "import importlib.metadata as m; print(m.version('jupyter_agent'))"
AGAIN = f"{sys.executable} -m pip install --force-reinstall --no-deps jupyter_agent"


async def look(case: Case) -> list[Finding]:
    """All of it."""
    found = await asyncio.to_thread(lambda: [_server_extension(), _gate(), *_lab_extension()])
    servers = await asyncio.to_thread(_servers)
    checks = (_jupyter_on_the_path(case), *(_environment(case, f"The server that runs (pid {pid})", python)
                                            for pid, python in servers.items()))  # fmt: skip
    return [*found, *await asyncio.gather(*checks)]


def _server_extension() -> Finding:
    """As Jupyter Server merges it: folders of less weight first, in each the files of its ``.d``, then its own."""
    enabled, where = None, ""
    for folder in reversed(jupyter_config_path()):
        parts = sorted(Path(folder, "jupyter_server_config.d").glob("*.json"))
        files = [*parts, Path(folder, "jupyter_server_config.json")]
        for file in files:
            app = _json(file).get("ServerApp")
            said = app.get("jpserver_extensions") if isinstance(app, dict) else None
            if isinstance(said, dict) and SERVER in said:
                enabled, where = bool(said[SERVER]), str(file)
    if enabled:
        return ok("server extension", f"Enabled in {where}.")
    said_so = f"It is disabled in {where}." if where else "No configuration of Jupyter enables it."
    return problem("server extension", said_so, f"{sys.executable} -m jupyter server extension enable {SERVER}")


def _gate() -> Finding:
    try:
        importlib.import_module("jupyter_agent.server.app")
    except Exception as error:  # noqa: BLE001 - whatever keeps Jupyter from loading it
        return problem("server extension", f"It cannot be loaded ({type(error).__name__}: {error}).", AGAIN)
    return ok("server extension", "It can be loaded.")


def _lab_extension() -> Iterator[Finding]:
    places = [Path(folder, LAB) for folder in jupyter_path("labextensions")]
    found = [place for place in places if (place / "package.json").exists()]
    if not found:
        yield problem(
            "lab extension", f"It is in none of Jupyter's folders, as {places[0].parent}: the panel is missing.", AGAIN
        )
        return
    version = _json(found[0] / "package.json").get("version")
    if version != __version__:
        yield problem(
            "lab extension", f"{found[0]} is of version {version}, the server's half of {__version__}.",
            f"{AGAIN}; then reload the page." if len(found) == 1 else f"Remove {found[0]}.",
        )  # fmt: skip
    else:
        yield ok("lab extension", f"Version {version} in {found[0]}.")
    for folder in jupyter_config_path():
        file = Path(folder, "labconfig", "page_config.json")
        disabled = _json(file).get("disabledExtensions")
        if (isinstance(disabled, dict) and disabled.get(LAB)) or (isinstance(disabled, list) and LAB in disabled):
            yield problem("lab extension", f"It is disabled in {file}.", f"jupyter labextension enable {LAB}")
            return


async def _jupyter_on_the_path(case: Case) -> Finding:
    """Whether the ``jupyter`` that the user starts is of the environment that this is installed in."""
    path = shutil.which("jupyter", path=case.environ.get("PATH"))
    if path is None:
        return warning("jupyter", "There is no jupyter on the PATH.", f"Start it as {sys.executable} -m jupyter lab.")
    return await _environment(case, path, await asyncio.to_thread(_interpreter, Path(path)))


async def _environment(case: Case, what: str, python: Path | None) -> Finding:
    """Whether an interpreter is of this environment, or of one with the same version."""
    if python is None or await asyncio.to_thread(_is_own, python):
        return ok("jupyter", f"{what} is of this environment.")
    command = Command((str(python), "-I", "-c", ASK), Path("/"), processes.inherited_environment(case.environ))
    install = f"{python} -m pip install jupyter_agent"
    try:
        done = await processes.run(command, tag=f"doctor-{secrets.token_hex(8)}", timeout_s=ANSWER_S)
    except AgentError as error:
        return warning("jupyter", f"{what} is of another environment, whose Python does not work ({error}).", install)
    version = done.output.strip().splitlines()[-1:] if done.exit.ok else []
    if not version:
        return problem(
            "jupyter", f"{what} is of another environment than {sys.prefix}, without jupyter_agent.",
            f"{install}, or start {Path(sys.prefix, 'bin', 'jupyter')}.",
        )  # fmt: skip
    if version[0] != __version__:
        return problem("jupyter", f"{what} is of another environment, with jupyter_agent {version[0]}.",
                       f"{install}=={__version__}")  # fmt: skip
    return ok("jupyter", f"{what} is of another environment, with the same version.")


def _servers() -> dict[int, Path]:
    """The Jupyter servers of this user that run, by pid, with their interpreters."""
    found = {}
    for file in Path(jupyter_runtime_dir()).glob("jpserver-*.json"):
        with contextlib.suppress(psutil.Error, OSError):
            pid = _json(file).get("pid")
            if isinstance(pid, int):
                words = psutil.Process(pid).cmdline()
                if words and "python" in Path(words[0]).name and any("jupyter" in word for word in words[1:]):
                    found[pid] = Path(words[0])
    return found


def _interpreter(script: Path) -> Path | None:
    """The Python in a script's first line; ``None`` for what has none."""
    try:
        with script.open("rb") as file:
            first = file.readline(500).decode(errors="replace").strip()
    except OSError:
        return None
    words = first.removeprefix("#!").split()
    if not first.startswith("#!") or not words or "python" not in Path(words[0]).name:
        return None
    return Path(words[0])


def _is_own(python: Path) -> bool:
    """Whether an interpreter, which may be a link to where it was taken from, is of this environment."""
    return Path(os.path.normpath(python)).parent.parent.resolve() == Path(sys.prefix).resolve()


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
