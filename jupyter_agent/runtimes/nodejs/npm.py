"""npm as a build step: what it sees of the environment and the registries, and why it failed.

Tokens stay in npm's environment: none is written to a file, an argument or the log.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from jupyter_agent import processes
from jupyter_agent.environments.indexes import without_credentials
from jupyter_agent.errors import Failed
from jupyter_agent.processes import Command
from jupyter_agent.runtimes.base import Teller
from jupyter_agent.runtimes.building import build, last_lines
from jupyter_agent.waiting import to_its_end

REGISTRY, TOKEN = "NPM_REGISTRY", "NPM_TOKEN"
"""What an OpenFlow server tells its containers (openiap-protocol.md, section 16)."""

PASSWORD = "JUPYTER_AGENT_NPM_AUTH"  # noqa: S105 - the name of a variable
"""Holds, in npm's environment alone, what stood before the host in ``NPM_REGISTRY``."""

QUIET = ("--no-audit", "--no-fund", "--no-progress", "--no-update-notifier", "--color=false", "--loglevel=notice")
"""No less than notices: of a file that it could not write npm only warns."""

HALF_UNPACKED = re.compile(r"TAR_ENTRY_ERROR E(NOSPC|DQUOT|FBIG|IO|MFILE|NFILE|ACCES|PERM|ROFS)\b.*")
"""What npm says of that, before it ends with 0. (``ENOENT`` is of optional packages that it removes meanwhile.)"""

PATIENCE = {"npm_config_fetch_retry_mintimeout": "1000", "npm_config_fetch_retry_maxtimeout": "2000"}
"""Milliseconds between tries; npm's own ten and sixty seconds look like hanging to who waits for a run."""

OFFLINE = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT"
)

NO_REASON = re.compile(
    r"code |path |errno |syscall |A complete log|command (failed|sh )|Lifecycle script|workspace |location "
    r"|Node\.js v|404(?! Not Found)"
)
"""Lines of npm's that say nothing of why it failed."""

REGISTRY_LINE = re.compile(r"^\s*((?:@[^:=\s]+:)?registry)\s*=\s*(.*?)\s*$", re.MULTILINE)

MOST_LINES = 6

Step = Callable[..., Awaitable[str]]


@dataclass(frozen=True)
class Npm:
    """npm with the registries that the environment ``environ`` and the user's own settings name."""

    program: str
    environ: Mapping[str, str] = field(repr=False)

    def registries(self) -> str:
        """What packages are taken from, without credentials: what is installed depends on it."""
        given = {name.lower(): value for name, value in self.environ.items() if "registry" in name.lower()}
        user = Path(given.get("npm_config_userconfig") or Path(self.environ.get("HOME") or Path.home(), ".npmrc"))
        with contextlib.suppress(OSError):
            given["user"] = repr(REGISTRY_LINE.findall(user.read_text(encoding="utf-8", errors="replace")))
        return without_credentials(repr(sorted(given.items())))

    async def install(self, root: Path, *, lock: bool, dev: bool, run: Teller, tag: str) -> None:
        """Install what the ``package.json`` in ``root`` asks for: as locked, if ``lock``. Raises ``Failed``."""
        scope = ["--include=dev"] if dev else ["--omit=dev"]
        step = partial(self.run, root=root, run=run, tag=tag)
        if not lock:
            await self._install_unlocked(step, scope)
            return
        try:
            await step("ci", *scope, "--prefer-offline", *QUIET)
        except Failed as error:
            if "EUSAGE" not in str(error):
                raise
            run.note("The lock file does not fit package.json: installing what package.json asks for.")
            await self._install_unlocked(step, scope)

    @staticmethod
    async def _install_unlocked(step: Step, scope: list[str]) -> None:
        options = (*scope, *QUIET, "--no-save", "--no-package-lock")
        try:
            await step("install", *options)
        except Failed as error:
            if not OFFLINE.search(str(error)):
                raise
            try:
                await step("install", *options, "--offline")
            except Failed:
                raise error from None

    async def run(self, *arguments: str, root: Path, run: Teller, tag: str) -> str:
        """Run npm to its end, its output in the run's log. Raises ``Failed`` with its own explanation."""
        settings = root.parent / ".registry"
        environ = {**self.environ, **PATIENCE, **await self._registry(settings, tag)}
        try:
            return await build(
                Command((self.program, *arguments), root, environ),
                run=run,
                tag=tag,
                what=f"npm {' '.join(arguments[:2] if arguments[0] == 'run' else arguments[:1])}",
                explain=explanation,
                hide=self.hide,
                fault=HALF_UNPACKED,
            )
        finally:
            settings.unlink(missing_ok=True)

    def hide(self, text: str) -> str:
        """The text with the tokens in it made unreadable."""
        for secret in self._secrets():
            text = text.replace(secret, "***")
        return without_credentials(text)

    def _secrets(self) -> Iterator[str]:
        password = urlsplit(self.environ.get(REGISTRY, "")).password
        for secret in (self.environ.get(TOKEN), password, unquote(password) if password else None):
            if secret:
                yield secret

    async def _registry(self, settings: Path, tag: str) -> dict[str, str]:
        """Npm's settings for the registry of a container, as the weakest of its files, which names variables only."""
        registry = urlsplit(self.environ.get(REGISTRY, ""))
        if not registry.netloc and not self.environ.get(TOKEN):
            return {}
        host = registry.netloc.rpartition("@")[2]
        plain = urlunsplit((registry.scheme or "https", host, registry.path.rstrip("/") + "/", "", ""))
        lines = [f"registry={plain}"] if host else []
        own = {}
        if self.environ.get(TOKEN):
            place = plain if host else await self._usual_registry(tag)
            lines.append(f"{place.partition(':')[2].rstrip('/')}/:_authToken=${{{TOKEN}}}")
        elif registry.username:
            pair = f"{unquote(registry.username)}:{unquote(registry.password or '')}"
            own[PASSWORD] = base64.b64encode(pair.encode()).decode()
            lines.append(f"{plain.partition(':')[2].rstrip('/')}/:_auth=${{{PASSWORD}}}")
        await to_its_end(partial(settings.write_text, "".join(f"{line}\n" for line in lines), encoding="utf-8"))
        return {"npm_config_globalconfig": str(settings), **own}

    async def _usual_registry(self, tag: str) -> str:
        command = Command((self.program, "config", "get", "registry"), Path(os.sep), self.environ)
        done = await processes.run(command, tag=tag, timeout_s=60)
        if not done.exit.ok:
            raise Failed(f"npm does not say which registry it uses: {explanation(done.output) or done.exit}")
        return done.output.strip().splitlines()[-1]


def builders_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What npm may see of ``environ``: what any build may, and npm's own settings."""
    own = {
        name: value
        for name, value in environ.items()
        if name.lower().startswith("npm_config_") or name in (REGISTRY, TOKEN, "NODE_EXTRA_CA_CERTS")
    }
    without = {name: value for name, value in own.items() if value}
    return {**processes.inherited_environment(environ), **without}


def explanation(output: str) -> str:
    """What npm says of its failure, without the words around it; of a failed script, what that said."""
    told, others = [], []
    for line in output.splitlines():
        found = re.match(r"npm (?:error|ERR!)(?: |$)(.*)", line)
        if found is None:
            others.append(line)
        elif found[1].strip() and not NO_REASON.match(found[1].strip()):
            told.append(found[1].strip())
    code = re.search(r"npm (?:error|ERR!) code (E\w+)", output)
    lines = list(dict.fromkeys(told))[:MOST_LINES]
    said = " ".join(lines) or last_lines("\n".join(line for line in others if not line.startswith((">", "npm "))))
    return f"{code[1]}: {said}" if code and code[1] not in said else said
