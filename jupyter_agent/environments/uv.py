"""uv as a child process: what it sees, what it says, and why it failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from uv import find_uv_bin

from jupyter_agent import processes
from jupyter_agent.environments.indexes import (
    KEPT,
    knowing_kept,
    public_first,
    uv_arguments,
    uv_environment,
    without_credentials,
)
from jupyter_agent.errors import Failed, Unavailable

Say = Callable[[str], None]
"""Shows a line to whoever waits for the environment."""

TIMEOUT_S = 3600

NEWS = re.compile(r"\s*((Resolved|Prepared|Installed) \d+ package|Downloading |Building |Built |warning: )")
"""Lines of uv's that are of interest to who waits."""

LONGEST_EXPLANATION = 2000

NOBODY_ANSWERS = re.compile(
    r"dns error|error sending request|failed to lookup address|connection (refused|reset|timed)|tcp connect error|"
    r"operation timed out|network was disabled|could not connect|request failed after|"
    r"HTTP status (server error|client error \((401|403|407|429))",
    re.IGNORECASE,
)
"""What uv says when it is the index, not what was asked for, that fails."""


class UvFailed(Failed):
    """uv ended with an error; ``explanation`` is its own, ``network`` whether an index could not be reached."""

    def __init__(self, explanation: str) -> None:
        super().__init__(f"The environment could not be made: {explanation}")
        self.explanation = explanation
        self.network = NOBODY_ANSWERS.search(explanation) is not None


class Uv:
    """uv with one cache; ``environ`` is what it may see of the environment.

    ``sharing``: it resolves, and what it resolves is for other machines, too, so that folders of this one are the last
    to be asked.
    """

    def __init__(self, environ: Mapping[str, str], *, cache: Path, sharing: bool = False) -> None:
        environment = uv_environment(environ, cache=cache)
        known = knowing_kept(environment, environ.get(KEPT, ""))
        self._environ = public_first(environment) if sharing else known
        self._arguments = uv_arguments(environ)

    async def run(
        self,
        *arguments: str,
        cwd: Path,
        say: Say,
        tag: str,
        indexes: bool = True,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Run it to its end; ``indexes``: it looks for packages. Raises ``UvFailed`` with its own explanation."""
        try:
            program = find_uv_bin()
        except FileNotFoundError as error:
            raise Unavailable("uv, which makes environments, is not installed: install jupyter_agent again.") from error
        argv = (program, *arguments, *(self._arguments if indexes else ()))
        done = await processes.run(
            processes.Command(argv, cwd, {**self._environ, **(variables or {})}),
            tag=tag,
            on_line=lambda _stream, line: say(without_credentials(line.strip())) if NEWS.match(line) else None,
            timeout_s=TIMEOUT_S,
        )
        if not done.exit.ok:
            raise UvFailed(explanation(done.output) or str(done.exit))


def explanation(output: str) -> str:
    """What uv says of its failure: its error and the causes, one after the other."""
    told = re.split(r"^error: ", without_credentials(output), maxsplit=1, flags=re.MULTILINE)[-1]
    lines = [re.sub(r"^\s*(cause: )?", "", line).rstrip() for line in told.splitlines()]
    first, *causes = [line for line in lines if line] or [""]
    text = f"{first}: {' '.join(causes)}" if causes else first
    return text if len(text) <= LONGEST_EXPLANATION else f"{text[:LONGEST_EXPLANATION]}…"
