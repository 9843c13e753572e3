"""Watching over the followed runs of other agents: connections that are made again, agents that go away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from jupyter_agent.agent.others import directory
from jupyter_agent.agent.others.directory import OtherAgent
from jupyter_agent.agent.others.letters import Letters
from jupyter_agent.agent.others.remote import Kind, RemoteRun
from jupyter_agent.errors import AgentError, ServerRefused
from jupyter_agent.openflow.client import Lane, in_lane

log = logging.getLogger(__name__)

CHECK_S = 2.0
"""Between two looks at the agents whose runs are followed."""

SILENCE_S = 4.0
"""Of a run, after which its agent is asked whether it still goes on."""

MISSED = 4
"""Looks in a row at which the agent was not there: then its runs are lost. It may come back within."""

PATIENCE_S = 60.0
"""In which an agent is not missed that went away together with our own connection: each comes back at its own pace."""

ABSENT = 3
"""Looks in a row at which the agent did not know the run any more: its end was told while nobody heard it."""

UNTAKEN_S = 600.0
"""In which an old agent may fetch a package before it lists the run."""

SETTLE_S = 2.0
"""In which the output that is sent again after a new subscription has come."""


class Watch:
    """Looks after the runs that ``live`` gives, for as long as there are any."""

    def __init__(self, *, letters: Letters, live: Callable[[], list[RemoteRun]]) -> None:
        self._letters = letters
        self._live = live
        self._now = asyncio.Event()
        self._patient_until = 0.0

    def look_now(self) -> None:
        """The connection was made again: subscriptions are, too."""
        self._patient_until = time.monotonic() + PATIENCE_S
        for run in self._live():
            run.seen = False
        self._now.set()

    async def run(self) -> None:
        """Look now and then, until no run is left."""
        while self._live():
            self._now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._now.wait()
            try:
                with in_lane(Lane.SYNC):  # no command of anybody's waits for it
                    await self._look()
            except AgentError as error:  # our own connection is away: nothing can be told of others
                log.debug("Other agents could not be looked at: %s", error)
            except Exception:
                log.exception("Other agents could not be looked at")

    async def subscribe(self, run: RemoteRun) -> None:
        """Have the run's output sent to our queue as it is named now, from its beginning where the agent keeps it."""
        await self._letters.ready()
        queue, name = self._letters.output_queue, run.row.id
        run.begin_again()
        command = {"command": "setstreamid", "id": name, "streamid": name, "streamqueue": queue}
        await self._letters.ask(run.agent, command)
        run.subscribed = queue
        asyncio.get_running_loop().call_later(SETTLE_S, run.settle)

    async def _look(self) -> None:
        client = await self._letters.ready()
        queues = directory.registered(await client.custom_command("getclients"))
        for queue in {run.agent.queue for run in self._live()}:
            runs = [run for run in self._live() if run.agent.queue == queue]
            if queue in queues:
                with contextlib.suppress(AgentError):  # of one agent: the others are looked at all the same
                    await self._look_at(runs[0].agent, runs)
            else:
                missed([run for run in runs if run.seen or time.monotonic() > self._patient_until])

    async def _look_at(self, agent: OtherAgent, runs: list[RemoteRun]) -> None:
        """The agent is there: subscribe anew where our queue has another name, and ask about silent runs."""
        for run in runs:
            run.missed, run.seen = 0, True
            if run.subscribed != self._letters.output_queue:
                with contextlib.suppress(ServerRefused):  # it does not know the run: see below
                    await self.subscribe(run)
        silent = [run for run in runs if run.row.kind is Kind.RUN and time.monotonic() - run.heard_s > SILENCE_S]
        if silent:
            listed = {each["id"] for each in await self._letters.processes(agent)}
            for run in silent:
                look_for(run, listed=run.row.id in listed)


def missed(runs: list[RemoteRun]) -> None:
    """Their agent was not there: after some time they are lost."""
    for run in runs:
        run.missed += 1
        if run.missed >= MISSED:
            run.lose(f"The agent {run.row.agent} went away during the run: look there what became of it.")


def look_for(run: RemoteRun, *, listed: bool) -> None:
    """A silent run is under way there, or not any more: then its end was told while nobody heard it."""
    taken = run.accepted.is_set() or time.monotonic() - run.heard_s > UNTAKEN_S
    run.absent = run.absent + 1 if taken and not listed else 0
    if run.absent >= ABSENT:
        run.end_as_claimed()
