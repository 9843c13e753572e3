"""The agent of a home, put together: state, runs, environments, link, commands."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from traitlets import Bool, Enum, Float, Int, List, Unicode, default
from traitlets.config import Configurable

from jupyter_agent import __version__, processes, runtimes
from jupyter_agent.agent.capabilities import Capabilities
from jupyter_agent.agent.commands import Commands
from jupyter_agent.agent.console import Console
from jupyter_agent.agent.environments import Makings
from jupyter_agent.agent.launch import Launcher
from jupyter_agent.agent.link import Link
from jupyter_agent.agent.others import Others
from jupyter_agent.agent.releases import Releases
from jupyter_agent.agent.updates import Updates
from jupyter_agent.environments import Environments
from jupyter_agent.errors import AgentError
from jupyter_agent.home import Home
from jupyter_agent.packages import Bounds, Preparations, Versions
from jupyter_agent.runs import Limits, Supervisor
from jupyter_agent.state import RunRow, State

log = logging.getLogger(__name__)

TIDY_PAUSE_S = 3600.0
"""Between two looks for what was prepared and is not used any more."""


class Agent(Configurable):
    """The agent of one home. Enter it to start it; leaving it stops its runs and the link."""

    max_runs = Int(
        max(2, (os.cpu_count() or 2)),
        min=1,
        help="How many runs may be under way at once; further ones wait, by priority, then in the order they came.",
    ).tag(config=True)
    keep_runs = Int(
        500,
        min=1,
        help="How many ended runs are kept, with their output and artifacts; the oldest go first.",
    ).tag(config=True)
    keep_runs_days = Float(
        0.0,
        min=0,
        help="How many days ended runs are kept, as far as `keep_runs` allows; 0: as long as that.",
    ).tag(config=True)
    keep_runs_mb = Int(
        20_000,
        min=0,
        help="MiB that the files of ended runs may take together; the oldest go first, the newest stays; 0: any.",
    ).tag(config=True)
    timeout_s = Float(
        0.0,
        min=0,
        help="Seconds after which a run is stopped, where the run itself asks for nothing else; 0: never.",
    ).tag(config=True)
    memory_mb = Int(
        0,
        min=0,
        help="MiB of memory that a run's processes may use together, where the run itself asks for nothing else; "
        "0: as much as there is.",
    ).tag(config=True)
    max_processes = Int(
        0,
        min=0,
        help="How many processes a run may have at once; 0: as many as there may be.",
    ).tag(config=True)
    files_mb = Int(
        0,
        min=0,
        help="MiB that a run may add to its own folder, and leave as artifacts; 0: as much as there is room.",
    ).tag(config=True)
    output_mb = Int(
        0,
        min=0,
        help="MiB that a run may print in all. Of more its log keeps the beginning and the newest, as of all output, "
        "and says so; 0: any.",
    ).tag(config=True)
    output_stops = Bool(
        help="Whether a run that prints more than `output_mb` is stopped.",
    ).tag(config=True)
    grace_s = Float(
        10.0,
        min=0,
        help="Seconds between the polite request to end (SIGTERM) and the end by force (SIGKILL) of a run.",
    ).tag(config=True)
    grant_agent_token = List(
        Unicode(),
        help="Ids of the packages that get the agent's own OpenFlow token when nobody else's is at hand; `*` for all.",
    ).tag(config=True)
    max_package_files = Int(
        100_000, min=1, help="How many files and folders a package may hold; one with more is refused."
    ).tag(config=True)
    max_package_mb = Int(
        4096, min=1, help="MiB that a package's files may have together, and its archive; a larger one is refused."
    ).tag(config=True)
    max_package_ratio = Int(
        200,
        min=1,
        help="How many times as large as its archive a package of more than 256 MiB may be; one that is larger is "
        "taken for a trap.",
    ).tag(config=True)
    on_package_update = Enum(
        ("drain", "kill"),
        help="What becomes of a package's runs when it is published again or removed. `drain`: they go on to their "
        "end. `kill`: they are ended, once the new version is fetched. Runs that have not begun take the new version. "
        "Where it is not set, the environment's `killonpackageupdate` says it, else `drain` holds.",
    ).tag(config=True)
    keep_days = Float(
        30.0,
        min=0,
        help="Days for which versions of packages, and what was prepared for them, are kept while nothing uses them.",
    ).tag(config=True)
    conda_channels = List(
        Unicode(),
        help="Conda channels of files that name none, by name or URL; the first one counts most. Where it is empty, "
        "those of conda's own configuration (`channels` in `.condarc`), else conda-forge.",
    ).tag(config=True)
    channel_fallback = Enum(
        ("", "pypi"),
        default_value="",
        help="`pypi`: where none of a file's conda channels can be reached, a channel made of this machine's Python "
        "and of packages from PyPI stands in, as with `--channel-from-pypi`. It is right for this machine and others "
        "with the same system only.",
    ).tag(config=True)
    offline = Bool(
        help="Whether environments are made of what is on this machine already, so that nothing is fetched for them.",
    ).tag(config=True)
    keep_environments_days = Float(
        30.0,
        min=0,
        help="Days for which `env gc` keeps environments that nothing uses, unless it is told others. Without that "
        "command none is removed.",
    ).tag(config=True)
    ca_file = Unicode(
        help="A file with certificates (PEM) of the authority that OpenFlow's certificate is from, "
        "where the system does not know it.",
    ).tag(config=True)
    lifetime = Enum(
        ("on demand", "always"),
        default_value="on demand",
        help="`on demand`: the agent ends by itself some minutes after the last page, command or run that needed it. "
        "`always`: it stays.",
    ).tag(config=True)
    idle_s = Float(300.0, min=0, help="Seconds without a page, command or run after which the agent ends.").tag(
        config=True
    )

    @default("on_package_update")
    def _on_package_update(self) -> str:
        """As the environment says that an OpenFlow server gives its containers (protocol §16)."""
        told = os.environ.get("killonpackageupdate", "")  # noqa: SIM112 - the server's spelling
        return "kill" if told.strip().lower() in ("true", "1", "yes", "on") else "drain"

    def __init__(
        self,
        home: Home,
        *,
        on_status: Callable[[], None],
        on_run: Callable[[RunRow], None],
        on_package: Callable[[str, str], None],
        **kwargs: Any,
    ) -> None:
        """``on_package`` gets a package's id and the operation (``insert``, ``replace``, ``update``, ``delete``)."""
        super().__init__(**kwargs)
        self.home = home
        self._on_status = on_status
        self._on_run = on_run
        self._on_package = on_package
        self._stack = AsyncExitStack()
        self.started = processes.process_started(os.getpid())

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.state = await stack.enter_async_context(State(self.home.state_file))
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            self.supervisor = Supervisor(
                state=self.state,
                folder=self.home.runs,
                max_runs=self.max_runs,
                keep_runs=self.keep_runs,
                keep_days=self.keep_runs_days or None,
                keep_bytes=(self.keep_runs_mb << 20) or None,
                recover=runtimes.recover,
                resume=lambda row: self.launcher.resumed(row),  # noqa: PLW0108 - the launcher is made after it
            )
            self.site = runtimes.Site(
                environments=self._make_environments(),
                preparations=Preparations(
                    self.home.preparations, living=lambda: {run.tag for run in self.supervisor.live_runs()}
                ),
                spares=await stack.enter_async_context(runtimes.Spares()),
            )
            self.versions = Versions(self.home.packages, bounds=self.bounds())
            await self.versions.open()
            self.capabilities = Capabilities(self.site.tools, on_change=lambda: self.link.register_again())  # noqa: PLW0108 - the link is made after it
            self.link = self._make_link()
            self.console = Console(link=self.link, state=self.state, supervisor=self.supervisor, tasks=tasks)
            self.makings = Makings(
                environments=self.site.environments, supervisor=self.supervisor, limits=self.limits()
            )
            self.launcher = Launcher(
                self.home,
                link=self.link,
                supervisor=self.supervisor,
                state=self.state,
                site=self.site,
                versions=self.versions,
                makings=self.makings,
                grant_agent_token=frozenset(self.grant_agent_token),
                limits=self.limits(),
            )
            self.commands = Commands(
                link=self.link,
                launcher=self.launcher,
                supervisor=self.supervisor,
                console=self.console,
                reinstall=self.launcher.reinstall,
                limits=self.limits(),
                tasks=tasks,
            )
            self.others = await stack.enter_async_context(
                Others(link=self.link, folder=self.home.path / "others", tasks=tasks)
            )
            self.updates = Updates(
                link=self.link,
                supervisor=self.supervisor,
                versions=self.versions,
                kill=self.on_package_update == "kill",
                keep_days=self.keep_days,
                tell=self._on_package,
            )
            releases = Releases(
                environments=self.site.environments,
                supervisor=self.supervisor,
                state=self.state,
                tasks=tasks,
                tell=self._on_run,
            )
            self._tasks = tasks
            stack.callback(self._end_tasks)
            stack.push_async_callback(self.console.end)
            stack.push_async_callback(self.commands.end)
            await self._sweep()  # before a run that goes on asks for an environment
            await stack.enter_async_context(self.supervisor)
            for run in self.supervisor.live_runs():  # those that an earlier agent took in
                self.console.follow(run)
            stack.callback(self.supervisor.subscribe(self._on_run))
            stack.callback(self.supervisor.subscribe(self.updates.on_run))
            self.supervisor.subscribe(releases.on_run)  # to the end of the last run
            self._background = {
                tasks.create_task(work) for work in (self.link.run(), self.updates.run(), self._tidy_now_and_then())
            }
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def limits(self, *, timeout_s: float | None = None, memory_mb: int | None = None) -> Limits:
        """The limits of a run that asks for these; what it does not ask for is as the settings say."""
        return Limits(
            wall_s=timeout_s or self.timeout_s or None,
            memory_bytes=((memory_mb or self.memory_mb) << 20) or None,
            processes=self.max_processes or None,
            files_bytes=(self.files_mb << 20) or None,
            output_bytes=(self.output_mb << 20) or None,
            output_stops=self.output_stops,
            grace_s=self.grace_s,
        )

    def status(self) -> dict[str, Any]:
        """The agent's state, as the API gives it."""
        link, runs = self.link, self.supervisor.live_runs()
        endpoint, error = link.endpoint, link.error
        user = link.user
        return {
            "agent": {
                "pid": os.getpid(),
                "version": __version__,
                "home": str(self.home.path),
                "started": self.started,
            },
            "hub": {"apiurl": link.hub.apiurl, "pid": link.hub.pid} if link.hub else None,
            "openflow": {
                "url": endpoint.url if endpoint else None,
                "embedded": endpoint.embedded if endpoint else True,
                "user": user.username if user else None,
            },
            "connected": link.connected,
            "deaf": link.deaf,
            "slug": link.slug,
            "queue": link.queue,
            "error": str(error) if error else None,
            "warning": link.warning,
            "runs": {
                "active": sum(run.row.state != "queued" for run in runs),
                "queued": sum(run.row.state == "queued" for run in runs),
            },
        }

    def _make_environments(self) -> Environments:
        return Environments(
            self.home.environments,
            fallback=self.channel_fallback == "pypi",
            offline=self.offline,
            default_channels=tuple(self.conda_channels),
        )

    def _make_link(self) -> Link:
        return Link(
            self.home,
            capabilities=self.capabilities.announcement,
            ca_file=Path(self.ca_file).expanduser() if self.ca_file else None,
            on_command=lambda event: self.commands.handle(event),  # noqa: PLW0108 - commands are made after the link
            on_package=self._package_changed,
            on_change=self._on_status,
            on_ready=self._ready,
        )

    def bounds(self) -> Bounds:
        """What a package may hold, as the settings say."""
        return Bounds(files=self.max_package_files, total_bytes=self.max_package_mb << 20, ratio=self.max_package_ratio)

    def _package_changed(self, package: str, operation: str) -> None:
        self.updates.on_package(package, operation)
        self._on_package(package, operation)

    def _ready(self) -> None:
        self.updates.on_ready()
        self.others.connected()
        for job in (self._pay_debts(), self.capabilities.look()):
            task = self._tasks.create_task(job)
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _sweep(self) -> None:
        """Have environments that an earlier agent left in use, or half-made, looked at or removed."""
        try:
            if await asyncio.to_thread(self.home.environments.is_dir):
                await self.site.environments.sweep()
        except AgentError as error:
            log.warning("Environments could not be looked at: %s", error)

    async def _tidy_now_and_then(self) -> None:
        """Remove what was prepared and has not been used for long."""
        while True:
            try:
                await self.site.preparations.tidy(keep_days=self.keep_days)
            except Exception:
                log.exception("What was prepared for runs could not be tidied")
            await asyncio.sleep(TIDY_PAUSE_S)

    async def _pay_debts(self) -> None:
        try:
            await self.console.tell_left_over()
        except AgentError as error:
            log.warning("Results of earlier runs could not be sent: %s", error)

    def _end_tasks(self) -> None:
        for task in self._background:
            task.cancel()
