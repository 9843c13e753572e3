"""Seeing and steering other agents, by the same protocol as anybody else (protocol §15).

Commands go to the queue that an agent has registered, their answers and the runs' output come to private queues of
ours. What becomes of a followed run is seen to here: a connection that is made again, an agent that goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from jupyter_agent.agent.link import Link
from jupyter_agent.agent.others import directory
from jupyter_agent.agent.others.directory import OtherAgent
from jupyter_agent.agent.others.remote import Kind, RemoteRow, RemoteRun, sentence_of
from jupyter_agent.agent.senders import find_package
from jupyter_agent.errors import AgentError, Conflict, InvalidInput, NotFound, ServerRefused, TimedOut, Unavailable
from jupyter_agent.folders import remove_tree
from jupyter_agent.openflow.client import Client, Queue, QueueEvent, new_id
from jupyter_agent.state import RunState, now

log = logging.getLogger(__name__)

ANSWER_S = 20.0
"""In which another agent answers a command that takes it no time."""

PREPARE_S = 3600.0
"""In which it answers one that makes it install things."""

CHECK_S = 3.0
"""Between two looks at the agents whose runs are followed."""

SILENCE_S = 3.0
"""Of a run, after which its agent is asked whether it still goes on."""

MISSED = 4
"""Looks in a row at which the agent was not there: then its runs are lost. It may come back within."""

ABSENT = 3
"""Looks in a row at which the agent did not know the run any more: its end was told while nobody heard it."""

UNTAKEN_S = 600.0
"""In which an old agent may fetch a package before it lists the run."""

SETTLE_S = 2.0
"""In which the output that is sent again after a new subscription has come."""

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
        self._client: Client | None = None
        self._answers: Queue | None = None
        self._streams: Queue | None = None
        self._registering = asyncio.Lock()
        self._asked: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._watching: set[asyncio.Task[None]] = set()
        self._look_now = asyncio.Event()
        self._followers: dict[str, set[Callable[[], None]]] = {}

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(remove_tree, self._folder)  # what an agent that was killed left
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._watching):
            task.cancel()
        await asyncio.to_thread(remove_tree, self._folder)

    def connected(self) -> None:
        """The connection was made (again): subscriptions are, too."""
        self._look_now.set()

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
        return [self._process(each) for each in await self._list(agent)]

    async def launch(self, wanted: str, target: str, parameters: Mapping[str, Any], *, who: str) -> RemoteRun:
        """Have an agent run a package; back when it has taken it. Raises its sentence when it refuses."""
        agent = (await self.find(wanted)).reachable()
        if parameters:
            agent.must_know("take parameters")
        run = await self._begin(agent, target, Kind.RUN, who=who, parameters=dict(parameters))
        run.subscribed = self._streams.name if self._streams else ""
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
        answer = await self._ask(agent, {"command": "reinstallpackage", "id": str(document["_id"])}, PREPARE_S)
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
        await self._queues()
        run = self._add(RemoteRun(self._row_of(agent, process), agent, self._folder / new_id(), self._changed))
        run.accepted.set()
        run.printed_before = process["output_size"]
        try:
            await self._subscribe(run)
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
                await self._ask(run.agent, {"command": "kill", "id": run.row.id, "streamid": run.row.id})
            except ServerRefused:
                run.asked_to_end = False
                raise
        return run

    async def cancel_all(self, wanted: str) -> int:
        """Have all runs of an agent ended; how many they were."""
        agent = (await self.find(wanted)).reachable()
        listed = await self._list(agent)
        for process in listed:
            if run := self._runs.get(str(process["id"])):
                run.asked_to_end = True
        if not agent.is_old:
            answer = await self._ask(agent, {"command": "killall"})
            return int(answer["count"]) if isinstance(answer.get("count"), int) else len(listed)
        for process in listed:  # its own way to end all of them always fails
            await self._ask(agent, {"command": "kill", "id": process["id"]})
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
        await self._queues()
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
        if not any(task.get_name() == "watch other agents" for task in self._watching):
            self._spawn(self._watch(), name="watch other agents")
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
        with self._question(run.row.id) as answer:
            await self._send(run.agent, command, run.row.id)
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
        run.subscribed = self._streams.name if self._streams else ""
        package = run.row.package_id
        sent = {**command, "id": package, "packageid": package, "streamid": run.row.id, "queuename": run.subscribed}
        run.change(state=RunState.PREPARING if kind is Kind.PREPARE else RunState.RUNNING, started=now())
        self._spawn(self._see_to_answer(run, sent))
        return run

    async def _see_to_answer(self, run: RemoteRun, command: dict[str, Any]) -> None:
        try:
            with self._question(run.row.id) as answer:
                await self._send(run.agent, command, run.row.id)
                async with asyncio.timeout(PREPARE_S):
                    run.answered(await answer)
        except TimeoutError:
            run.lose(f"The agent {run.row.agent} did not answer within {PREPARE_S / 60:.0f} minutes.")
        except AgentError as error:
            run.lose(str(error))

    async def _listed(self, agent: OtherAgent, run_id: str) -> dict[str, Any]:
        for each in await self._list(agent):
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

    # Messages

    async def _queues(self) -> Client:
        """The client, with our two private queues registered on it. One is for output: no answer waits behind it."""
        client = await self._link.client()
        async with self._registering:
            if client is not self._client or self._answers is None or self._streams is None:
                self._client = client
                self._answers = await client.register_queue("", self._answer)
                self._streams = await client.register_queue("", self._hear)
        for queue in (self._answers, self._streams):
            if queue.refused is not None:
                raise Unavailable(f"OpenFlow makes no queue for the answers of other agents: {queue.refused}")
        return client

    @contextlib.contextmanager
    def _question(self, correlation_id: str) -> Iterator[asyncio.Future[dict[str, Any]]]:
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[correlation_id] = answer
        try:
            yield answer
        finally:
            del self._asked[correlation_id]

    async def _send(
        self, agent: OtherAgent, command: dict[str, Any], correlation_id: str, *, quiet: bool = False
    ) -> None:
        client = await self._queues()
        reply_to = "" if quiet or self._answers is None else self._answers.name
        try:
            await client.queue_message(agent.queue, command, reply_to=reply_to, correlation_id=correlation_id)
        except ServerRefused as error:
            raise Unavailable(f"The agent {agent.slug} cannot be sent commands: {error}") from error

    async def _ask(self, agent: OtherAgent, command: dict[str, Any], timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """An agent's answer to a command. Raises its sentence, or ``TimedOut``."""
        correlation_id = new_id()
        with self._question(correlation_id) as answer:
            await self._send(agent, command, correlation_id)
            try:
                async with asyncio.timeout(timeout_s):
                    return checked(agent, await answer)
            except TimeoutError:
                raise TimedOut(f"The agent {agent.slug} did not answer within {timeout_s:.0f} s.") from None

    async def _list(self, agent: OtherAgent) -> list[dict[str, Any]]:
        """Its processes. Asking subscribes us to the output of all (protocol §15), unless it is one of ours: undone."""
        answer = await self._ask(agent, {"command": "listprocesses", "stream": False})
        if not agent.is_old and self._answers is not None:
            undo = {"command": "removecommandstreamid", "streamqueue": self._answers.name}
            await self._send(agent, undo, new_id(), quiet=True)
        listed = answer.get("processes")
        return (
            [each for each in listed if isinstance(each, dict) and each.get("id")] if isinstance(listed, list) else []
        )

    async def _answer(self, event: QueueEvent) -> None:
        if not isinstance(event.data, dict):
            return
        data = {key: value for key, value in event.data.items() if key not in ("__jwt", "__user")}
        answer, run = self._asked.get(event.correlation_id), self._runs.get(event.correlation_id)
        if answer is not None and not answer.done():
            answer.set_result(data)
        elif answer is None and run is not None:
            run.answered_late(data)

    async def _hear(self, event: QueueEvent) -> None:
        run = self._runs.get(event.correlation_id)
        if run is None or not isinstance(event.data, dict):
            return
        had_ended = run.over_s is not None
        run.take(event.data)
        if run.over_s is not None and not had_ended:
            asyncio.get_running_loop().call_later(GRACE_S, run.end_as_claimed)
        await run.output.room()

    # Watching over followed runs

    async def _subscribe(self, run: RemoteRun) -> None:
        """Have the run's output sent to our queue as it is named now, from its beginning where the agent keeps it."""
        await self._queues()
        queue = self._streams.name if self._streams else ""
        run.begin_again()
        await self._ask(
            run.agent, {"command": "setstreamid", "id": run.row.id, "streamid": run.row.id, "streamqueue": queue}
        )
        run.subscribed = queue
        asyncio.get_running_loop().call_later(SETTLE_S, run.settle)

    async def _watch(self) -> None:
        while live := [run for run in self._runs.values() if not run.ended]:
            self._look_now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._look_now.wait()
            try:
                await self._look_after([run for run in live if not run.ended])
            except AgentError as error:  # our own connection is away: nothing can be told of others
                log.debug("Other agents could not be looked at: %s", error)
            except Exception:
                log.exception("Other agents could not be looked at")

    async def _look_after(self, live: list[RemoteRun]) -> None:
        client = await self._queues()
        queues = directory.registered(await client.custom_command("getclients"))
        for slug in {run.agent.slug for run in live}:
            runs = [run for run in live if run.agent.slug == slug]
            if directory.queue_of(slug, queues) != runs[0].agent.queue:
                self._missed(runs)
            else:
                await self._look_at(runs[0].agent, runs)

    def _missed(self, runs: list[RemoteRun]) -> None:
        for run in runs:
            run.missed += 1
            if run.missed >= MISSED:
                run.lose(f"The agent {run.row.agent} went away during the run: look there what became of it.")

    async def _look_at(self, agent: OtherAgent, runs: list[RemoteRun]) -> None:
        """The agent is there: subscribe anew where our queue has another name, and ask about silent runs."""
        for run in runs:
            run.missed = 0
            if self._streams is not None and run.subscribed != self._streams.name:
                with contextlib.suppress(ServerRefused):  # it does not know the run: see below
                    await self._subscribe(run)
        silent = [run for run in runs if run.row.kind is Kind.RUN and time.monotonic() - run.heard_s > SILENCE_S]
        if not silent:
            return
        listed = {each.get("id") for each in await self._list(agent)}
        for run in silent:
            taken = run.accepted.is_set() or time.monotonic() - run.heard_s > UNTAKEN_S
            run.absent = run.absent + 1 if taken and run.row.id not in listed else 0
            if run.absent >= ABSENT:
                run.end_as_claimed()

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str | None = None) -> None:
        task = self._tasks.create_task(_logged(work), name=name)
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    """Work whose failure is nobody else's end."""
    try:
        await work
    except Exception:
        log.exception("Something about another agent's run failed")


def checked(agent: OtherAgent, answer: dict[str, Any]) -> dict[str, Any]:
    """An agent's answer. Raises ``ServerRefused`` with its sentence, ``Unavailable`` when it was not taken."""
    if answer.get("command") == "timeout":
        raise Unavailable(f"The agent {agent.slug} did not take the command: it has just gone.")
    if answer.get("success") is not True:
        told = sentence_of(answer.get("error")) or "it does not say why."
        raise ServerRefused(f"The agent {agent.slug} refuses: {told}", command=str(answer.get("command") or ""))
    return answer


def only_packages(target: str) -> str:
    """The target as it is. Raises ``InvalidInput`` for a path: other agents have no files of ours."""
    if "/" in target and not target.startswith("@"):
        raise InvalidInput("Another agent runs packages that are published: publish the folder first.")
    return target
