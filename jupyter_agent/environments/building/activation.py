"""Activating once, when an environment is built: its packages' own scripts are run in a clean shell.

What they change is recorded; a run never starts a shell for it. By hand: rattler's ``activate`` writes a script whose
end in a script of a package (``exit``) or a hang would be nobody's, and it does not tell what was changed.
On Windows the scripts are cmd's: they are not run, which is said.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from jupyter_agent.environments.building.activated import FILE, Activation, plain
from jupyter_agent.errors import AgentError, TimedOut

SCRIPTS = "etc/conda/activate.d"

TIMEOUT_S = 10.0
"""For one script; conda-forge's take milliseconds."""

MARK = "\x1a\x1a"
"""Stands for the value that a variable has already."""

NOT_THEIRS = {"PWD", "OLDPWD", "SHLVL", "_", "PATH", "HOME", "LC_ALL", "TMPDIR", "JUPYTER_AGENT_RUN"}
"""Of the shell, or of the environment in which the scripts are run."""

RUN = '. "$1"; status=$?; "$2" -0 > "$3" || exit 1; exit $status'

Variables = dict[str, str]


async def activate(
    prefix: Path, variables: Mapping[str, str], *, note: Callable[[str], None], tag: str, timeout_s: float = TIMEOUT_S
) -> Activation:
    """Find what activating the environment changes, and write it into the prefix, with conda's own ``state``.

    ``variables`` are those of its environment.yml. A script that fails or does not end is named by ``note`` and left
    out.
    """
    if variables:
        state = json.dumps({"env_vars": dict(variables)}, indent=1)
        (prefix / "conda-meta" / "state").write_text(state, encoding="utf-8")
    found = await computed(prefix, variables, note=note, tag=tag, timeout_s=timeout_s, scratch=prefix)
    (prefix / FILE).write_text(found.to_json(), encoding="utf-8")
    return found


async def computed(
    prefix: Path,
    variables: Mapping[str, str],
    *,
    note: Callable[[str], None],
    tag: str,
    timeout_s: float = TIMEOUT_S,
    scratch: Path | None = None,
) -> Activation:
    """The same, and nothing is written into the prefix; ``scratch``: in which folder, else the one for such files."""
    found = plain(prefix, {**_of_packages(prefix), **variables})
    scripts = sorted((prefix / SCRIPTS).glob("*.sh")) if os.name != "nt" else []
    if os.name == "nt" and any((prefix / SCRIPTS).glob("*.bat")):
        note("The activation scripts of packages are not run on Windows: what they set is missing.")
    return await _run_all(found, scripts, note, tag, timeout_s=timeout_s, scratch=scratch) if scripts else found


def _of_packages(prefix: Path) -> Variables:
    """What packages have set without a script (``env_vars.d``)."""
    found: Variables = {}
    for file in sorted((prefix / "etc" / "conda" / "env_vars.d").glob("*.json")):
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            found |= {str(name): str(value) for name, value in held.items()}
        except (OSError, ValueError, AttributeError):
            continue  # conda passes over them, too
    return found


async def _run_all(
    found: Activation,
    scripts: list[Path],
    note: Callable[[str], None],
    tag: str,
    *,
    timeout_s: float,
    scratch: Path | None,
) -> Activation:
    with tempfile.TemporaryDirectory(prefix=".jupyter-agent-", dir=scratch) as folder:
        home = Path(folder)
        base = {"PATH": os.defpath, "HOME": folder, "LC_ALL": "C.UTF-8", "TMPDIR": folder}
        before = found.applied(base)
        after = before
        working = []
        for script in scripts:
            try:
                after = await _sourced(script, after, home, tag, timeout_s)
                working.append(script)
            except AgentError as error:
                note(f"The activation script {script.name} was left out: {error}")
        changed = {name for name, value in after.items() if before.get(name) != value} - NOT_THEIRS
        marked = await _marked(before, working, changed, home, tag=tag, timeout_s=timeout_s)
    around = {name: (parts[0], parts[1]) for name, value in marked.items() if len(parts := value.split(MARK)) == 2}  # noqa: PLR2004 - once
    path = after.get("PATH", "").removesuffix(base["PATH"]).rstrip(os.pathsep)
    return replace(
        found,
        path=tuple(part for part in path.split(os.pathsep) if part) or found.path,
        set={
            **{name: value for name, value in found.set.items() if name in after},
            **{name: after[name] for name in changed},
        },
        unset=tuple(sorted(set(before) - set(after) - NOT_THEIRS)),
        around=around,
    )


async def _marked(
    before: Variables, scripts: list[Path], changed: set[str], home: Path, *, tag: str, timeout_s: float
) -> Variables:
    """The changed variables when each had a value already, to see what the scripts keep of it."""
    variables = {**before, **{name: MARK for name in changed if name not in before}}
    for script in scripts:
        try:
            variables = await _sourced(script, variables, home, tag, timeout_s)
        except AgentError:  # one that minds: then what it set without counts
            return {}
    return {name: variables.get(name, "") for name in changed}


async def _sourced(script: Path, variables: Variables, home: Path, tag: str, timeout_s: float) -> Variables:
    """The variables after the script. Raises an ``AgentError`` that says why there are none."""
    from jupyter_agent import processes  # noqa: PLC0415 - few environments have such a script

    shell = shutil.which("bash") or "/bin/sh"
    options = ("--noprofile", "--norc") if shell.endswith("bash") else ()
    out = home / "variables"
    out.unlink(missing_ok=True)
    env = shutil.which("env") or "/usr/bin/env"
    command = processes.Command((shell, *options, "-c", RUN, shell, str(script), env, str(out)), home, variables)
    try:
        done = await processes.run(command, tag=tag, timeout_s=timeout_s)
    except TimedOut as error:
        raise TimedOut(f"it had not ended after {timeout_s:g} s.") from error
    if not out.exists() or not (data := out.read_bytes()):
        last = (done.output.strip().splitlines() or [str(done.exit)])[-1]
        raise AgentError(f"it ended the shell ({done.exit}): {last}")
    pairs = (entry.partition("=") for entry in data.decode("utf-8", "surrogateescape").split("\0") if entry)
    return {name: value for name, _, value in pairs}
