"""The commands that other clients send to the agent's queue (protocol §15), as a table.

Each is answered to ``replyto``; a run's output and its end go to the queue that the sender named.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jupyter_agent.agent.console import Console
from jupyter_agent.agent.launch import Launcher, RunRequest
from jupyter_agent.agent.link import Link
from jupyter_agent.agent.senders import Sender, Senders, require_invoke, sentence
from jupyter_agent.errors import AgentError, InvalidInput, NotFound
from jupyter_agent.openflow.client import QueueEvent
from jupyter_agent.runs import Run, Supervisor

log = logging.getLogger(__name__)

ADDED_BY_THE_SERVER = ("__jwt", "__user", "traceId", "spanId")
"""Keys that the server puts into a payload (protocol §11); no package may see them."""


@dataclass(frozen=True)
class Message:
    """A command as it came: who sent it, what it says, where the answer and the output go."""

    sender: Sender
    data: Mapping[str, Any] = field(repr=False)
    reply_to: str
    correlation_id: str

    @property
    def stream_id(self) -> str:
        """The name under which the sender follows a run."""
        return str(self.data.get("streamid") or self.correlation_id)

    @property
    def stream_queue(self) -> str:
        """Where the run's output is to go; empty when the sender wants none."""
        if self.data.get("stream") in (False, "false"):
            return ""
        return str(self.data.get("queuename") or self.reply_to)

    def wanted(self, *names: str) -> str:
        """The first of these fields that is given. Raises ``InvalidInput``."""
        for name in names:
            if isinstance(value := self.data.get(name), str) and value:
                return value
        raise InvalidInput(f"{' or '.join(names)} is missing.")


class Commands:
    """Answers the messages of the agent's queue."""

    def __init__(self, *, link: Link, launcher: Launcher, supervisor: Supervisor, console: Console) -> None:
        self._link = link
        self._launcher = launcher
        self._supervisor = supervisor
        self._console = console
        self._senders = Senders()
        self._table: Mapping[str, Callable[[Message], Awaitable[dict[str, Any]]]] = {
            "runpackage": self._run_package,
            "kill": self._kill,
            "listprocesses": self._list_processes,
        }

    async def handle(self, event: QueueEvent) -> None:
        """Carry out one message and answer it; nothing that a sender does ends the agent."""
        data = event.data if isinstance(event.data, dict) else {}
        if not data.get("command") and isinstance(data.get("payload"), dict):  # the wrapped form of protocol §15
            data = {**data["payload"], **{key: data[key] for key in ADDED_BY_THE_SERVER if key in data}}
        command = str(data.get("command") or "")
        try:
            answer = await self._carry_out(command, data, event)
        except AgentError as error:
            answer = {"success": False, "completed": True, "error": str(error)}
        except Exception as error:
            log.exception("The command %.100r failed", command)
            answer = {"success": False, "completed": True, "error": sentence(error)}
        if event.reply_to:
            await self._answer(event, {"command": command, **answer})

    async def _carry_out(self, command: str, data: dict[str, Any], event: QueueEvent) -> dict[str, Any]:
        client = await self._link.client()
        sender = await self._senders.verify(client, data)
        require_invoke(sender, self._link.document)
        handler = self._table.get(command)
        if handler is None:
            known = ", ".join(sorted(self._table))
            raise InvalidInput(f"This agent does not know the command {command!r}; it knows {known}.")
        told = {key: value for key, value in data.items() if key not in ADDED_BY_THE_SERVER}
        return await handler(Message(sender, told, event.reply_to, event.correlation_id))

    async def _answer(self, event: QueueEvent, answer: dict[str, Any]) -> None:
        try:
            client = await self._link.client()
            await client.queue_message(event.reply_to, answer, correlation_id=event.correlation_id, strip_token=True)
        except AgentError as error:
            log.warning("The answer to %s could not be sent: %s", answer["command"], error)

    async def _run_package(self, message: Message) -> dict[str, Any]:
        payload = message.data.get("payload")
        parameters = payload if isinstance(payload, dict) else {} if payload is None else {"value": payload}
        parameters = {key: value for key, value in parameters.items() if key not in ADDED_BY_THE_SERVER}
        if message.stream_id and self._console.run_of(message.stream_id) is not None:
            raise InvalidInput(f"A run is followed as {message.stream_id} already: give another streamid.")
        queue = message.stream_queue
        run = await self._launcher.launch(
            RunRequest(
                target=message.wanted("id", "packageid"),
                who=message.sender.user.username or message.sender.user.name,
                trigger="queue",
                parameters=parameters,
                sender=message.sender,
                reply={"queue": queue, "correlation_id": message.stream_id} if queue else None,
            )
        )
        self._console.follow(run, message.stream_id)
        return {"success": True, "completed": False}

    async def _kill(self, message: Message) -> dict[str, Any]:
        wanted = message.wanted("id", "streamid")
        run = self._console.run_of(wanted) or self._supervisor.live(wanted)
        if run is None:
            raise NotFound(f"No run is known as {wanted}: it has ended, or never was.")
        await self._supervisor.cancel(run.row.id, who=message.sender.user.username)
        return {"success": True}

    async def _list_processes(self, message: Message) -> dict[str, Any]:  # noqa: ARG002 - the table's signature
        processes = [self._process(run) for run in self._supervisor.live_runs()]
        return {"success": True, "count": len(processes), "processes": processes}

    def _process(self, run: Run) -> dict[str, Any]:
        reply = run.row.reply or {}
        return {
            "id": self._console.name_of(run),
            "streamqueues": [reply["queue"]] if reply.get("queue") else [],
            "packagename": run.row.package,
            "packageid": run.row.package_id,
            "schedulename": "",
            "buffersize": run.output.size,
            "ports": [],
        }
