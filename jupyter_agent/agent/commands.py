"""The commands that other clients send to the agent's queue (protocol §15), as a table.

Each is answered to ``replyto``, in the order in which they came; one that takes long is answered when it is done, while
others go on. A run's output and its end go to the queue that the sender named.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import reprlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from jupyter_agent.agent.console import Console
from jupyter_agent.agent.console.post import Post
from jupyter_agent.agent.console.results import exit_code, newest_output
from jupyter_agent.agent.launch import Launcher, RunRequest
from jupyter_agent.agent.link import Link
from jupyter_agent.agent.senders import Sender, Senders, require_invoke, sentence
from jupyter_agent.errors import AccessDenied, AgentError, ConnectionLost, InvalidInput, NotFound, TimedOut, Unavailable
from jupyter_agent.openflow.client import Lane, QueueEvent, in_lane
from jupyter_agent.runs import Limits, Run, Supervisor
from jupyter_agent.state import RunState

log = logging.getLogger(__name__)

ADDED_BY_THE_SERVER = ("__jwt", "__user", "traceId", "spanId")
"""Keys that the server puts into a payload (protocol §11); no package may see them."""

KILL_AFTER_S = 10.0
LONGEST_TEST_S = 3600.0
"""What a package that is tried out gets where the sender says nothing, and at most."""

LEAVE_S = 3.0
"""Answers that are still to come when the agent ends get this long."""

MOST_PENDING = 1000
"""Answers that wait; who may not use the agent gets none beyond that."""

SHOWN = 100
"""Characters of a command that nobody knows, in the answer to it."""

WITH_END = ("", "invoke", "runpackage")
"""Commands whose sender waits for ``completed``, also in a refusal."""

Fields = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """A command as it came: who sent it, what it says, where the answer and the output go."""

    sender: Sender
    data: Mapping[str, Any] = field(repr=False)
    reply_to: str
    correlation_id: str

    @property
    def who(self) -> str:
        """The sender, as people know him."""
        return self.sender.user.username or self.sender.user.name

    @property
    def stream_id(self) -> str:
        """The name under which the sender follows a run."""
        return self.text("streamid") or self.correlation_id

    @property
    def wants_output(self) -> bool:
        """Whether ``stream`` does not say no, in one of the ways in which JavaScript does."""
        return self.data.get("stream") not in (False, "false", "", "0")

    @property
    def stream_queue(self) -> str:
        """Where a run's output is to go; empty when the sender wants none."""
        return (self.text("queuename") or self.reply_to) if self.wants_output else ""

    def text(self, name: str) -> str:
        """A field that is text; empty where there is none."""
        value = self.data.get(name)
        return value if isinstance(value, str) else ""

    def wanted(self, *names: str) -> str:
        """The first of these fields that is given. Raises ``InvalidInput``."""
        for name in names:
            if value := self.text(name):
                return value
        raise InvalidInput(f"{' or '.join(names)} is required.")

    def request(self, *names: str, **wanted: Any) -> RunRequest:
        """A run of the package that the first of these fields names, with this message's payload, for its sender.

        ``wanted`` are further fields of the request. Raises ``InvalidInput``.
        """
        return RunRequest(
            target=self.wanted(*names),
            who=self.who,
            trigger="queue",
            parameters=parameters(self.data.get("payload")),
            sender=self.sender,
            **wanted,
        )

    def subscriber(self) -> str:
        """The queue that is to follow. Raises ``InvalidInput``."""
        if queue := self.text("streamqueue") or self.text("queuename") or self.reply_to:
            return queue
        raise InvalidInput("streamqueue is required.")

    def kill_after_s(self) -> float:
        """For how long a package is tried out. Raises ``InvalidInput``."""
        given = self.data.get("kill_after_seconds")
        try:
            seconds = KILL_AFTER_S if given is None else math.nan if isinstance(given, bool) else float(given)
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if not 0 < seconds <= LONGEST_TEST_S:
            raise InvalidInput(f"kill_after_seconds is a number of seconds, {LONGEST_TEST_S:.0f} at most.")
        return seconds


@dataclass(frozen=True)
class Answer:
    """What is answered: ``fields``, none (``None``), or what comes ``later``; ``then`` is done after it was sent."""

    fields: Fields | None = None
    later: Coroutine[Any, Any, Fields] | None = None
    then: Callable[[], None] | None = None


class Reinstalls(Protocol):
    """What forgets all that is kept of a package."""

    def __call__(self, wanted: str, *, jwt: str = "", who: str) -> Awaitable[Any]:
        """End the package's runs and remove its local copies. Raises ``NotFound`` where ``jwt`` may not read it."""


class Commands:
    """Answers the messages of the agent's queue. What takes long lives in the group ``tasks``; ``end`` ends it.

    ``limits`` are those of runs that ask for none.
    """

    def __init__(
        self,
        *,
        link: Link,
        launcher: Launcher,
        supervisor: Supervisor,
        console: Console,
        reinstall: Reinstalls,
        limits: Limits,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._link = link
        self._launcher = launcher
        self._supervisor = supervisor
        self._console = console
        self._reinstall = reinstall
        self._limits = limits
        self._tasks = tasks
        self._senders = Senders()
        self._post = Post(link=link)
        self._pending: set[asyncio.Task[None]] = set()
        self._table: Mapping[str, Callable[[Message], Awaitable[Answer]]] = {
            "runpackage": self._run_package,
            "kill": self._kill,
            "killall": self._kill_all,
            "preparepackage": self._prepare_package,
            "testrunpackage": self._test_package,
            "reinstallpackage": self._reinstall_package,
            "listprocesses": self._list_processes,
            "setstreamid": self._set_stream,
            "addcommandstreamid": self._add_stream,
            "removecommandstreamid": self._remove_stream,
            "invoke": self._invoke,
            "": self._invoke,
            "portdata": self._port,
            "portclose": self._port,
        }

    async def handle(self, event: QueueEvent) -> None:
        """Carry out one message and answer it; nothing that a sender does ends the agent."""
        if self._came_back(event):
            return
        command, data = told(event)
        with self._console.quiet():
            try:
                answer = await self._carry_out(command, data, event)
            except AccessDenied as error:
                self._refuse(event, command, error)
                return
            except Exception as error:  # noqa: BLE001 - it is told to the sender
                answer = Answer(refusal(command, error))
            if answer.fields is not None:
                await self._send(event, {"command": command, **answer.fields})
        if answer.later is not None:
            self._beside(self._answer_later(event, command, answer.later))
        if answer.then is not None:
            answer.then()

    def _refuse(self, event: QueueEvent, command: str, error: AccessDenied) -> None:
        """Answer who may not do this, when nobody else has anything to do: a flood of theirs holds up no command."""
        if len(self._pending) < MOST_PENDING:
            with in_lane(Lane.SYNC):
                self._beside(self._send(event, {"command": command, **refusal(command, error)}))

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def end(self) -> None:
        """Answer what is still to be answered, for a moment."""
        if self._pending:
            await asyncio.wait(self._pending, timeout=LEAVE_S)
        for task in self._pending:
            task.cancel()

    def _came_back(self, event: QueueEvent) -> bool:
        """Whether this is no command, but what became of a message of ours: it came back, or was answered."""
        command = event.data.get("command") if isinstance(event.data, dict) else event.data
        is_timeout = command == "timeout" and not event.reply_to
        if self._console.is_ping(event.correlation_id) and is_timeout:
            self._console.ping_came_back(event.correlation_id)
        return is_timeout or self._console.is_ping(event.correlation_id)

    async def _carry_out(self, command: str, data: Fields, event: QueueEvent) -> Answer:
        client = await self._link.client()
        sender = await self._senders.verify(client, data)
        require_invoke(sender, self._link.document)
        handler = self._table.get(command)
        if handler is None:
            known = ", ".join(sorted(filter(None, self._table)))
            raise InvalidInput(f"This agent does not know the command {command!r}; it knows {known}.")
        given = {key: value for key, value in data.items() if key not in ADDED_BY_THE_SERVER}
        return await handler(Message(sender, given, event.reply_to, event.correlation_id))

    async def _answer_later(self, event: QueueEvent, command: str, work: Coroutine[Any, Any, Fields]) -> None:
        try:
            fields = await work
        except Exception as error:  # noqa: BLE001 - it is told to the sender
            fields = refusal(command, error)
        await self._send(event, {"command": command, **fields})

    async def _send(self, event: QueueEvent, answer: Fields) -> None:
        """Answer; where OpenFlow has gone meanwhile, when it is back, which others do not wait for."""
        if not event.reply_to:
            return
        try:
            client = await self._link.client()
            await client.queue_message(event.reply_to, answer, correlation_id=event.correlation_id, strip_token=True)
        except Unavailable as error:
            is_unknown = isinstance(error, ConnectionLost | TimedOut)
            if len(self._pending) < MOST_PENDING:
                self._beside(self._send_late(event, {**answer, "again": True} if is_unknown else answer))
        except AgentError as error:
            log.warning("The answer to %.100r could not be sent: %s", answer["command"], error)

    async def _send_late(self, event: QueueEvent, answer: Fields) -> None:
        await self._post.send(event.reply_to, answer, correlation_id=event.correlation_id)

    # Runs

    async def _run_package(self, message: Message) -> Answer:
        self._console.check_name(message.stream_id)
        if queue := message.stream_queue:
            await self._console.check_queue(queue, message.sender)
        reply = {"queue": queue, "correlation_id": message.stream_id} if queue else None
        run = await self._launcher.launch(message.request("id", "packageid", reply=reply))
        self._console.name(run, message.stream_id, message.sender)
        return Answer({"success": True, "completed": False}, then=lambda: self._console.follow(run, "", message.sender))

    async def _kill(self, message: Message) -> Answer:
        run = self._run(message.wanted("id", "streamid"))
        await self._supervisor.cancel(run.row.id, who=message.who)
        return Answer({"success": True})

    async def _kill_all(self, message: Message) -> Answer:
        runs = self._supervisor.live_runs()
        for run in runs:
            await self._supervisor.cancel(run.row.id, who=message.who)
        return Answer({"success": True, "count": len(runs)})

    def _run(self, wanted: str) -> Run:
        run = self._console.run_of(wanted)
        if run is None:
            raise NotFound(f"No run is known as {wanted[:SHOWN]}: it has ended, or never was.")
        return run

    # Packages

    async def _prepare_package(self, message: Message) -> Answer:
        return Answer(later=prepared(await self._launch(message, prepare_only=True)))

    async def _test_package(self, message: Message) -> Answer:
        wall_s = min(message.kill_after_s(), self._limits.wall_s or math.inf)
        run = await self._launch(message, limits=dataclasses.replace(self._limits, wall_s=wall_s))
        return Answer(later=tested(run))

    async def _launch(self, message: Message, **wanted: Any) -> Run:
        """A run whose end is the answer; its output is sent only to a queue that the sender names for it."""
        name = message.text("streamid")  # never the correlation id: what has that is taken for the answer
        self._console.check_name(name)
        queue = message.text("queuename") if message.wants_output else ""
        if queue:
            await self._console.check_queue(queue, message.sender)
        run = await self._launcher.launch(message.request("packageid", "id", **wanted))
        self._console.name(run, name, message.sender)
        if queue:
            await self._console.subscribe(queue, run, message.sender)
        return run

    async def _reinstall_package(self, message: Message) -> Answer:
        wanted = message.wanted("id", "packageid")

        async def work() -> Fields:
            await self._reinstall(wanted, jwt=message.sender.jwt, who=message.who)
            return {"success": True}

        return Answer(later=work())

    # Subscriptions

    async def _list_processes(self, message: Message) -> Answer:
        if message.reply_to and message.wants_output:
            await self._console.check_queue(message.reply_to, message.sender)
            await self._console.watch(message.reply_to, message.sender)
        return Answer(self._console.processes(message.sender))

    async def _set_stream(self, message: Message) -> Answer:
        name, queue = message.wanted("id", "streamid"), message.subscriber()
        await self._console.check_queue(queue, message.sender)
        if self._console.run_of(name) is None and await self._console.tell_again(queue, name, message.sender):
            return Answer({"success": True, "count": 0})
        await self._console.subscribe(queue, self._run(name), message.sender)
        return Answer({"success": True, "count": 0})

    async def _add_stream(self, message: Message) -> Answer:
        queue = message.subscriber()
        await self._console.check_queue(queue, message.sender)
        await self._console.watch(queue, message.sender)
        return Answer()

    async def _remove_stream(self, message: Message) -> Answer:
        self._console.unwatch(message.subscriber(), message.sender)
        return Answer()

    # What there is not

    async def _invoke(self, message: Message) -> Answer:  # noqa: ARG002 - the table's signature
        error = "This agent takes no work items yet: run the package itself, with runpackage."
        return Answer({"command": "invoke", "success": False, "completed": True, "error": error})

    async def _port(self, message: Message) -> Answer:
        connection = {"id": message.data["id"]} if "id" in message.data else {}
        error = "This agent forwards no ports: no connection was made."
        return Answer({**connection, "success": False, "error": error})


def told(event: QueueEvent) -> tuple[str, Fields]:
    """The command of a message and what goes with it; a payload that is no object says nothing."""
    data = event.data if isinstance(event.data, dict) else {}
    if not data.get("command") and isinstance(data.get("payload"), dict):  # the wrapped form of protocol §15
        data = {**data["payload"], **{key: data[key] for key in ADDED_BY_THE_SERVER if key in data}}
    command = data.get("command") or ""
    return (command if isinstance(command, str) else reprlib.repr(command))[:SHOWN], data


def refusal(command: str, error: Exception) -> Fields:
    """The answer to a command that was not carried out."""
    if not isinstance(error, AgentError):
        log.error("The command %.100r failed", command, exc_info=error)
    fields: Fields = {"success": False, "error": sentence(error)}
    is_stranger = isinstance(error, AccessDenied) and fields["error"].startswith("not authenticated")
    return {**fields, "completed": True} if command in WITH_END and not is_stranger else fields


def parameters(payload: Any) -> Fields:
    """What a package gets of a ``payload``, which may be anything."""
    given = payload if isinstance(payload, dict) else {} if payload is None else {"value": payload}
    return {key: value for key, value in given.items() if key not in ADDED_BY_THE_SERVER}


async def prepared(run: Run) -> Fields:
    """How it went to make a package ready, when that is over."""
    row = await run.wait()
    fields: Fields = {"success": row.state is RunState.SUCCEEDED}
    if row.error:
        fields["error"] = row.error
    return {**fields, "output": await asyncio.to_thread(newest_output, row)}


async def tested(run: Run) -> Fields:
    """How it went to try a package out: well, too, when it was still going as its time was over."""
    row = await run.wait()
    success = row.state in (RunState.SUCCEEDED, RunState.TIMED_OUT)
    fields: Fields = {"success": success, "completed": True, "exitcode": exit_code(row)}
    if row.error and not success:
        fields["error"] = row.error
    return {**fields, "output": await asyncio.to_thread(newest_output, row)}
