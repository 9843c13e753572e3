"""Seeing and steering other agents, by the same protocol as anybody else (protocol §15).

Commands go to the queue that an agent has registered, their answers and the runs' output come to private queues of
ours. A followed run stays known here, with its output, for a while after its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Self

from jupyter_agent.agent.link import Link
from jupyter_agent.agent.others import directory
from jupyter_agent.agent.others.directory import OtherAgent
from jupyter_agent.agent.others.letters import ANSWER_S, Answer, Letters, checked
from jupyter_agent.agent.others.remote import Kind, RemoteRow, RemoteRun
from jupyter_agent.agent.others.watch import SETTLE_S, Watch
from jupyter_agent.agent.senders import find_package
from jupyter_agent.errors import AgentError, Conflict, InvalidInput, NotFound, ServerRefused, TimedOut
from jupyter_agent.folders import remove_tree
from jupyter_agent.openflow.client import QueueEvent, new_id
from jupyter_agent.state import RunState, now

log = logging.getLogger(__name__)

PREPARE_S = 3600.0
"""In which an agent answers a command that makes it install things."""

GRACE_S = 2.0
"""For the message that tells how a run ended, after its output has."""

KEPT = 50
"""Ended runs of other agents whose output is kept."""


class Others:
    """The other agents, and the runs of theirs that are followed.

    Tasks live in the group given; ``folder`` holds the followed output, as long as this agent lives.
    """

    def __init__(self, *, link: Link, folder: Path, tasks: asyncio.TaskGroup) -> None:
        self._link = link
        self._folder = folder
        self._tasks = tasks
        self._runs: dict[str, RemoteRun] = {}
        self._letters = Letters(link=link, on_output=self._hear, on_late=self._answered_late)
        self._watch = Watch(letters=self._letters, live=self._live)
        self._watching: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._followers: dict[str, set[Callable[[], None]]] = {}

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(remove_tree, self._folder)  # what an agent that was killed left
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._working):
            task.cancel()
        await asyncio.to_thread(remove_tree, self._folder)

    def connected(self) -> None:
        """The connection was made (again): subscriptions are, too."""
        self._watch.look_now()

    # Agents

    async def agents(self) -> list[OtherAgent]:
        """All that may be read, by name."""
        return await directory.agents(await self._link.client(), str(self._link.document.get("_id", "")))

    async def find(self, wanted: str) -> OtherAgent:
        """The agent of this slug, id or unique name. Raises ``NotFound`` or ``InvalidInput``."""
        return directory.find(await self.agents(), wanted)

    # Runs

    async def processes(self, wanted: str) -> list[dict[str, Any]]:
        """What runs on an agent: ``{id, package, package_id, schedule, output_size, ports}``."""
        agent = (await self.find(wanted)).reachable()
        return [self._process(each) for each in await self._letters.processes(agent)]

    async def launch(self, wanted: str, target: str, parameters: Mapping[str, Any], *, who: str) -> RemoteRun:
        """Have an agent run a package; back when it has taken it. Raises its sentence when it refuses."""
        agent = (await self.find(wanted)).reachable()
        if parameters:
            agent.must_know("take parameters")
        run = await self._begin(agent, target, Kind.RUN, who=who, parameters=dict(parameters))
        run.subscribed = self._letters.output_queue
        command: dict[str, Any] = {"command": "runpackage", "id": run.row.package_id, "streamid": run.row.id}
        if parameters:
            command["payload"] = dict(parameters)
        try:
            await self._until_taken(run, {**command, "stream": True, "queuename": run.subscribed})
        except BaseException:
            await self._forget(run)
            raise
        return run

    async def prepare(self, wanted: str, target: str, *, who: str) -> RemoteRun:
        """Have an agent make a package ready; its answer is the end of what is given back."""
        return await self._long(wanted, target, Kind.PREPARE, {"command": "preparepackage"}, who=who)

    async def test(self, wanted: str, target: str, *, kill_after_s: float, who: str) -> RemoteRun:
        """Have an agent run a package for some seconds; its answer is the end of what is given back."""
        command = {"command": "testrunpackage", "kill_after_seconds": kill_after_s}
        return await self._long(wanted, target, Kind.TEST, command, who=who)

    async def reinstall(self, wanted: str, target: str) -> dict[str, Any]:
        """Have an agent forget its copy of a package and end its runs: ``{"cancelled": n}``, ``None`` if untold."""
        agent = (await self.find(wanted)).reachable()
        agent.must_know("reinstall packages")
        document = await find_package(await self._link.client(), target)
        answer = await self._letters.ask(agent, {"command": "reinstallpackage", "id": str(document["_id"])}, PREPARE_S)
        count = answer.get("count", answer.get("cancelled"))
        return {"cancelled": count if isinstance(count, int) else None}

    async def look(self, wanted: str, run_id: str) -> tuple[RemoteRow, int]:
        """A run and the bytes of its output, without following it. Raises ``NotFound``."""
        if run := self._known(wanted, run_id):
            return run.row, run.output.size
        agent = (await self.find(wanted)).reachable()
        process = await self._listed(agent, run_id)
        return self._row_of(agent, process), process["output_size"]

    async def follow(self, wanted: str, run_id: str) -> RemoteRun:
        """A run whose output comes here from now on, with what was printed before. Raises ``NotFound``."""
        if run := self._known(wanted, run_id):
            return run
        agent = (await self.find(wanted)).reachable()
        if run := self._known(agent.slug, run_id):
            return run
        process = await self._listed(agent, run_id)
        await self._letters.ready()
        run = self._add(RemoteRun(self._row_of(agent, process), agent, self._folder / new_id(), self._changed))
        run.accepted.set()
        run.printed_before = process["output_size"]
        try:
            await self._watch.subscribe(run)
        except BaseException:
            await self._forget(run)
            raise
        return run

    async def caught_up(self, wanted: str, run_id: str) -> RemoteRun:
        """A followed run, once what it had printed before has come (as far as its agent sends that)."""
        known = self._known(wanted, run_id)
        run = known or await self.follow(wanted, run_id)
        if known is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S), self.changes(run) as changed:
                    while run.output.size < run.printed_before and not run.is_complete:
                        await changed.wait()
                        changed.clear()
        await run.output.flush()
        return run

    async def cancel(self, wanted: str, run_id: str) -> RemoteRun:
        """Have a run ended; it is followed until it has. One that has ended is given back as it ended."""
        run = await self.follow(wanted, run_id)
        if not run.ended:
            run.asked_to_end = True
            try:
                await self._letters.ask(run.agent, {"command": "kill", "id": run.row.id, "streamid": run.row.id})
            except ServerRefused:
                run.asked_to_end = False
                raise
        return run

    async def cancel_all(self, wanted: str) -> int:
        """Have all runs of an agent ended; how many they were."""
        agent = (await self.find(wanted)).reachable()
        listed = await self._letters.processes(agent)
        for process in listed:
            if run := self._runs.get(str(process["id"])):
                run.asked_to_end = True
        if not agent.is_old:
            answer = await self._letters.ask(agent, {"command": "killall"})
            return int(answer["count"]) if isinstance(answer.get("count"), int) else len(listed)
        for process in listed:  # its own way to end all of them always fails
            await self._letters.ask(agent, {"command": "kill", "id": process["id"]})
        return len(listed)

    @contextlib.asynccontextmanager
    async def changes(self, run: RemoteRun) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever something of the run is new."""
        changed = asyncio.Event()
        followers = self._followers.setdefault(run.row.id, set())
        followers.add(changed.set)
        try:
            yield changed
        finally:
            followers.discard(changed.set)
            if not followers:
                self._followers.pop(run.row.id, None)

    # What runs are made of

    async def _begin(
        self, agent: OtherAgent, target: str, kind: Kind, *, who: str, parameters: dict[str, Any] | None = None
    ) -> RemoteRun:
        document = await find_package(await self._link.client(), only_packages(target))
        language = str(document.get("language") or "")
        if language and agent.languages and language not in agent.languages:
            known = ", ".join(agent.languages)
            raise Conflict(f"The agent {agent.slug} does not run {language} packages; it runs {known}.")
        await self._letters.ready()
        row = RemoteRow(
            id=new_id(),
            agent=agent.slug,
            kind=kind,
            package_id=str(document["_id"]),
            package=str(document.get("name") or document.get("id") or document["_id"]),
            version=str(document.get("version") or ""),
            language=language,
            who=who,
            parameters=parameters or {},
            created=now(),
        )
        return self._add(RemoteRun(row, agent, self._folder / row.id, self._changed))

    def _add(self, run: RemoteRun) -> RemoteRun:
        self._runs[run.row.id] = run
        self._spawn(run.output.keep_writing())
        if self._watching is None or self._watching.done():
            self._watching = self._spawn(self._watch.run())
        for old in [each for each in self._runs.values() if each.ended][:-KEPT]:
            self._spawn(self._forget(old))
        return run

    async def _forget(self, run: RemoteRun) -> None:
        if self._runs.get(run.row.id) is run:
            del self._runs[run.row.id]
        await run.output.close()
        await asyncio.to_thread(remove_tree, run.folder)

    async def _until_taken(self, run: RemoteRun, command: dict[str, Any]) -> None:
        """Send a run's request and wait for a sign that it was taken: an answer, or output.

        The official agent up to 0.0.45 answers when the run has ended; it prints something before.
        """
        with self._letters.question(run.row.id) as answer:
            await self._letters.send(run.agent, command, run.row.id)
            taken = asyncio.ensure_future(run.accepted.wait())
            signs: set[asyncio.Future[Any]] = {answer, taken}
            try:
                await asyncio.wait(signs, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                taken.cancel()
            if answer.done():
                checked(run.agent, answer.result())
            elif not run.accepted.is_set() and not run.agent.is_old:
                raise TimedOut(
                    f"The agent {run.agent.slug} did not answer within {ANSWER_S:.0f} s: look there whether it runs."
                )

    async def _long(self, wanted: str, target: str, kind: Kind, command: dict[str, Any], *, who: str) -> RemoteRun:
        """A command whose answer comes when all is done; it is watched like a run."""
        agent = (await self.find(wanted)).reachable()
        agent.must_know("prepare packages" if kind is Kind.PREPARE else "run packages for a test")
        run = await self._begin(agent, target, kind, who=who)
        run.subscribed = self._letters.output_queue
        package = run.row.package_id
        sent = {**command, "id": package, "packageid": package, "streamid": run.row.id, "queuename": run.subscribed}
        run.change(state=RunState.PREPARING if kind is Kind.PREPARE else RunState.RUNNING, started=now())
        self._spawn(self._see_to_answer(run, sent))
        return run

    async def _see_to_answer(self, run: RemoteRun, command: dict[str, Any]) -> None:
        try:
            with self._letters.question(run.row.id) as answer:
                await self._letters.send(run.agent, command, run.row.id)
                async with asyncio.timeout(PREPARE_S):
                    run.answered(await answer)
        except TimeoutError:
            run.lose(f"The agent {run.row.agent} did not answer within {PREPARE_S / 60:.0f} minutes.")
        except AgentError as error:
            run.lose(str(error))

    async def _listed(self, agent: OtherAgent, run_id: str) -> dict[str, Any]:
        for each in await self._letters.processes(agent):
            if each.get("id") == run_id:
                return self._process(each)
        raise NotFound(f"No run is known as {run_id[:100]} on the agent {agent.slug}: it has ended, or never was.")

    def _process(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """A process as the API shows it; what an old agent does not tell of it is filled in where it is known."""
        run = self._runs.get(str(told.get("id")))
        size, ports = told.get("buffersize"), told.get("ports")
        return {
            "id": str(told.get("id")),
            "package": str(told.get("packagename") or (run.row.package if run else "")),
            "package_id": str(told.get("packageid") or (run.row.package_id if run else "") or "") or None,
            "schedule": str(told.get("schedulename") or ""),
            "output_size": size if isinstance(size, int) else (run.output.size if run else 0),
            "ports": ports if isinstance(ports, list) else [],
        }

    def _row_of(self, agent: OtherAgent, process: Mapping[str, Any]) -> RemoteRow:
        return RemoteRow(
            id=process["id"],
            agent=agent.slug,
            state=RunState.RUNNING,
            package=process["package"],
            package_id=process["package_id"],
            ports=process["ports"],
        )

    def _known(self, wanted: str, run_id: str) -> RemoteRun | None:
        run = self._runs.get(run_id)
        return run if run and wanted in (run.agent.slug, run.agent.id, run.agent.name) else None

    def _changed(self, run: RemoteRun) -> None:
        if run.ended and not run.is_complete:
            self._spawn(self._close(run))
        self._tell(run)

    async def _close(self, run: RemoteRun) -> None:
        await run.output.close()
        run.is_complete = True
        self._tell(run)

    def _tell(self, run: RemoteRun) -> None:
        for tell in self._followers.get(run.row.id, ()):
            tell()

    async def _hear(self, event: QueueEvent) -> None:
        run = self._runs.get(event.correlation_id)
        if run is None or not isinstance(event.data, dict):
            return
        had_ended = run.over_s is not None
        run.take(event.data)
        if run.over_s is not None and not had_ended:
            asyncio.get_running_loop().call_later(GRACE_S, run.end_as_claimed)
        await run.output.room()

    def _answered_late(self, correlation_id: str, answer: Answer) -> None:
        if (run := self._runs.get(correlation_id)) is not None:
            run.answered_late(answer)

    def _live(self) -> list[RemoteRun]:
        return [run for run in self._runs.values() if not run.ended]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(_logged(work))
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    """Work whose failure is nobody else's end."""
    try:
        await work
    except Exception:
        log.exception("Something about another agent's run failed")


def only_packages(target: str) -> str:
    """The target as it is. Raises ``InvalidInput`` for a path: other agents have no files of ours."""
    if "/" in target and not target.startswith("@"):
        raise InvalidInput("Another agent runs packages that are published: publish the folder first.")
    return target
