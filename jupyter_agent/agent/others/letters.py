"""Commands to the queues of other agents, their answers, and the output that they send.

Two private queues of ours take them, apart, so that no answer waits behind a flood of output. Their names change with
the connection (protocol §11). It refuses to know what commands mean.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from jupyter_agent.agent.link import Link
from jupyter_agent.agent.others.directory import OtherAgent
from jupyter_agent.agent.others.remote import sentence_of
from jupyter_agent.errors import ServerRefused, TimedOut, Unavailable
from jupyter_agent.openflow.client import Client, Queue, QueueEvent, new_id

ANSWER_S = 20.0
"""In which another agent answers a command that takes it no time."""

Answer = dict[str, Any]


class Letters:
    """What goes to other agents and comes from them.

    ``on_output`` gets the messages of followed runs; ``on_late`` the correlation id and the answer of a command whose
    answer nobody waits for any more.
    """

    def __init__(
        self,
        *,
        link: Link,
        on_output: Callable[[QueueEvent], Awaitable[None]],
        on_late: Callable[[str, Answer], None],
    ) -> None:
        self._link = link
        self._on_output = on_output
        self._on_late = on_late
        self._client: Client | None = None
        self._answers: Queue | None = None
        self._output: Queue | None = None
        self._registering = asyncio.Lock()
        self._asked: dict[str, asyncio.Future[Answer]] = {}

    @property
    def output_queue(self) -> str:
        """The name under which output reaches us at present; empty before ``ready``."""
        return self._output.name if self._output else ""

    async def ready(self) -> Client:
        """The client, with our queues registered on it. Raises ``Unavailable`` without one."""
        client = await self._link.client()
        async with self._registering:
            if client is not self._client or self._answers is None or self._output is None:
                self._answers = await client.register_queue("", self._answered)
                self._output = await client.register_queue("", self._on_output)
                self._client = client
        for queue in (self._answers, self._output):
            if queue.refused is not None:
                raise Unavailable(f"OpenFlow makes no queue for the answers of other agents: {queue.refused}")
        return client

    @contextlib.contextmanager
    def question(self, correlation_id: str) -> Iterator[asyncio.Future[Answer]]:
        """The answer to be to what is sent with this id."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[correlation_id] = answer
        try:
            yield answer
        finally:
            del self._asked[correlation_id]

    async def send(self, agent: OtherAgent, command: dict[str, Any], correlation_id: str) -> None:
        """Send a command to the queue that the agent has registered. Raises ``Unavailable`` where that is gone."""
        client = await self.ready()
        reply_to = self._answers.name if self._answers else ""
        try:
            await client.queue_message(agent.queue, command, reply_to=reply_to, correlation_id=correlation_id)
        except ServerRefused as error:
            raise Unavailable(f"The agent {agent.slug} cannot be sent commands: {error}") from error

    async def ask(self, agent: OtherAgent, command: dict[str, Any], timeout_s: float = ANSWER_S) -> Answer:
        """An agent's answer to a command. Raises its sentence, or ``TimedOut``."""
        correlation_id = new_id()
        with self.question(correlation_id) as answer:
            await self.send(agent, command, correlation_id)
            try:
                async with asyncio.timeout(timeout_s):
                    return checked(agent, await answer)
            except TimeoutError:
                raise TimedOut(f"The agent {agent.slug} did not answer within {timeout_s:.0f} s.") from None

    async def processes(self, agent: OtherAgent) -> list[dict[str, Any]]:
        """What runs there, as it tells it.

        Whoever asks is subscribed to the output of all (protocol §15): agents of ours take ``stream`` for a no, others
        are told afterwards.
        """
        answer = await self.ask(agent, {"command": "listprocesses", "stream": False})
        if not agent.is_old and self._answers is not None:
            await self.send(agent, {"command": "removecommandstreamid", "streamqueue": self._answers.name}, new_id())
        listed = answer.get("processes")
        return (
            [each for each in listed if isinstance(each, dict) and each.get("id")] if isinstance(listed, list) else []
        )

    async def _answered(self, event: QueueEvent) -> None:
        if not isinstance(event.data, dict):
            return
        data = {key: value for key, value in event.data.items() if key not in ("__jwt", "__user")}
        answer = self._asked.get(event.correlation_id)
        if answer is None:
            self._on_late(event.correlation_id, data)
        elif not answer.done():
            answer.set_result(data)


def checked(agent: OtherAgent, answer: Answer) -> Answer:
    """An agent's answer. Raises ``ServerRefused`` with its sentence, ``Unavailable`` when it was not taken."""
    if answer.get("command") == "timeout":
        raise Unavailable(f"The agent {agent.slug} did not take the command: it has just gone.")
    if answer.get("success") is not True:
        told = sentence_of(answer.get("error")) or "it does not say why."
        raise ServerRefused(f"The agent {agent.slug} refuses: {told}", command=str(answer.get("command") or ""))
    return answer
