"""Wheels for requirements, by pip: so the user's configuration, proxies, certificates and credentials hold.

Nothing is ever built: only wheels are taken, and they are not run.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from jupyter_agent import processes
from jupyter_agent.environments.indexes import pip_config_files, pip_settings, without_credentials
from jupyter_agent.environments.telling import Teller
from jupyter_agent.errors import Failed, InvalidInput, NotFound, Unavailable

TIMEOUT_S = 6 * 3600

ASKED, LIMITS = "requirements.txt", "constraints.txt"

NOT_OURS = (
    *("PIP_NO_BINARY", "PIP_ONLY_BINARY", "PIP_REQUIRE_VIRTUALENV", "PIP_DEST", "PIP_DESTINATION_DIRECTORY"),
    *("PIP_NO_DEPS", "PIP_PLATFORM", "PIP_PYTHON_VERSION", "PIP_IMPLEMENTATION", "PIP_ABI", "PIP_PYTHON"),
    *("PIP_QUIET", "PIP_VERBOSE", "PIP_LOG", "PIP_REQUIREMENT", "PIP_EDITABLE", "PIP_CONSTRAINT", "PIP_REPORT"),
)
"""Settings of pip that work against what is asked of it here."""

COLLECTING = re.compile(r"Collecting ([A-Za-z0-9._-]+)")

DOWNLOADING = re.compile(r"\s*(?:Downloading|Using cached) (\S+\.whl)(?: \((.+)\))?")

UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeout|Failed to establish|Name or service not known|ProxyError|SSLError|Connection "
    r"(?:refused|reset|aborted)|Temporary failure in name|Read timed out|Network is unreachable|No route to host"
)


class NoWheel(NotFound):
    """No index has a wheel for ``requirement``, as pip writes it."""

    def __init__(self, requirement: str) -> None:
        super().__init__(
            f"No index has a wheel of {requirement} for this machine and this Python "
            f"({sys.version_info.major}.{sys.version_info.minor}): ask for another version, or leave it out."
        )
        self.requirement = requirement


@dataclass(frozen=True)
class Wanted:
    """What is to be had from PyPI: requirements, a line each, constraints, and options (``--index-url ...``)."""

    lines: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def requirements(self) -> list[Requirement]:
        """The lines, read. Raises ``InvalidInput`` for one that is none, or that would have to be built."""
        return [_checked(line) for line in self.lines]


def _checked(line: str) -> Requirement:
    bare = re.split(r"\s--hash[=\s]", line)[0].strip()
    try:
        found = Requirement(bare)
    except InvalidRequirement as error:
        why = " ".join(str(error).split())
        raise InvalidInput(f"{bare[:200]!r} is no requirement: write it as in requirements.txt ({why}).") from error
    if found.url and not re.search(r"\.whl(#|\?|$)", found.url):
        raise InvalidInput(
            f"{without_credentials(bare)[:200]!r} is no wheel: a channel is made from wheels alone, nothing is built."
        )
    return found


@dataclass
class _Seen:
    """What pip has said so far."""

    tell: Teller
    names: set[str] = field(default_factory=set)

    def line(self, _stream: str, line: str) -> None:
        """A line of its output."""
        if found := COLLECTING.match(line):
            self.names.add(found[1].lower())
            self.tell.show_progress("solve", len(self.names), None, found[1])
        elif found := DOWNLOADING.match(line):
            self.tell.note(without_credentials(line.strip()))


async def fetch(
    wanted: Wanted, folder: Path, *, environ: Mapping[str, str], tell: Teller, tag: str, offline: bool = False
) -> list[Path]:
    """The wheels for ``wanted`` and what they need, in the new ``folder``, for the running interpreter.

    ``offline``: from this machine's folders alone. Raises ``InvalidInput`` for what cannot be had together, ``NoWheel``
    for what no index has as a wheel, ``Unavailable`` when no index can be reached.
    """
    wanted.requirements()
    wheels = _prepared(wanted, folder)
    argv = (
        *(sys.executable, "-P", "-m", "pip", "download", "--only-binary", ":all:", "--progress-bar", "off"),
        *("--no-input", "--disable-pip-version-check", "--dest", str(wheels)),
        *("--requirement", str(folder / ASKED), "--constraint", str(folder / LIMITS)),
    )
    chosen = {name: value for name, value in environ.items() if name not in NOT_OURS}
    if offline:
        chosen |= _local_alone(environ)
    done = await processes.run(
        processes.Command(argv, folder, chosen | {"PYTHONWARNINGS": "ignore", "PYTHONUTF8": "1"}),
        tag=tag,
        on_line=_Seen(tell).line,
        timeout_s=TIMEOUT_S,
    )
    if not done.exit.ok:
        error = failure(done.output)
        if offline and isinstance(error, NoWheel):
            raise Unavailable(
                f"jupyter_agent is offline, and no folder that pip knows (find-links) has a wheel of "
                f"{error.requirement}."
            )
        raise error
    return sorted(wheels.glob("*.whl"))


def _local_alone(environ: Mapping[str, str]) -> dict[str, str]:
    """Settings under which pip looks into the folders that it is configured to, and nowhere else."""
    links = pip_settings(environ, pip_config_files(environ)).get("find-links", "").split()
    folders = [link for link in links if link.startswith(("/", "file:", "."))]
    return {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": " ".join(folders)}


def _prepared(wanted: Wanted, folder: Path) -> Path:
    """What pip is told stands in files: an index's URL may have a password in it. The folder for the wheels."""
    folder.mkdir(mode=0o700)
    (folder / ASKED).write_text("".join(f"{line}\n" for line in (*wanted.options, *wanted.lines)), encoding="utf-8")
    (folder / LIMITS).write_text("".join(f"{line}\n" for line in wanted.constraints), encoding="utf-8")
    wheels = folder / "wheels"
    wheels.mkdir()
    return wheels


def failure(output: str) -> InvalidInput | NotFound | Unavailable | Failed:
    """What pip's output says about why it did not work."""
    lines = [without_credentials(line.strip()) for line in output.splitlines()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if UNREACHABLE.search(output):
        return Unavailable(
            f"PyPI, or the index that pip is configured to, cannot be reached: {_last(errors or lines)} "
            "Check the network and pip's configuration (pip config list)."
        )
    if missing := next((found[1] for line in errors if (found := MISSING.match(line))), ""):
        return NoWheel(missing)
    if "ResolutionImpossible" in output:
        conflict = [line for line in lines if CONFLICT.search(line)]
        return InvalidInput(f"These cannot be had together: {'; '.join(dict.fromkeys(conflict))[:2000]}.")
    return Failed(f"pip could not fetch the wheels: {_last(errors or lines)}")


MISSING = re.compile(r"No matching distribution found for (.+)")

CONFLICT = re.compile(r" depends on |^The user requested ")


def _last(lines: list[str]) -> str:
    return next((line for line in reversed(lines) if line), "it said nothing.")[:1000]
