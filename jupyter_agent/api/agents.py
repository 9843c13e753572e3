"""Routes of other agents: who they are, what runs there, and the same verbs as for runs and packages of one's own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import AsyncGenerator
from typing import Any

from jupyter_agent.agent.others import OtherAgent, RemoteRow, RemoteRun
from jupyter_agent.api.handler import HEARTBEAT_S, Handler
from jupyter_agent.api.runs import MAX_PAGE_BYTES, PAGE_BYTES, read_on
from jupyter_agent.api.values import NoBody, RemoteRunBody, TestBody, run_json
from jupyter_agent.state import RunRow


class Agents(Handler):
    """``GET agents``."""

    async def get(self) -> None:
        """All agents that may be read, this one among them."""
        self.reply([agent_json(each) for each in await self.agent.others.agents()])


class OneAgent(Handler):
    """``GET agents/{slug}``."""

    async def get(self, wanted: str) -> None:
        """One agent."""
        self.reply(agent_json(await self.agent.others.find(wanted)))


class AgentRuns(Handler):
    """``GET, POST agents/{slug}/runs``."""

    async def get(self, wanted: str) -> None:
        """What runs there."""
        self.reply(await self.agent.others.processes(wanted))

    async def post(self, wanted: str) -> None:
        """Run a package there."""
        body = await self.body(RemoteRunBody)
        run = await self.agent.others.launch(wanted, body.target, body.all_parameters(), who=self.who)
        self.reply(remote_json(run), 202)


class AgentRun(Handler):
    """``GET agents/{slug}/runs/{id}``."""

    async def get(self, wanted: str, run_id: str) -> None:
        """One run there, as far as it is known here."""
        row, size = await self.agent.others.look(wanted, run_id)
        self.reply(row_json(row, size))


class AgentRunCancel(Handler):
    """``POST agents/{slug}/runs/{id}/cancel``."""

    async def post(self, wanted: str, run_id: str) -> None:
        """Cancel a run; one that has ended is answered as it ended."""
        await self.body(NoBody)
        self.reply(remote_json(await self.agent.others.cancel(wanted, run_id)))


class AgentRunOutput(Handler):
    """``GET agents/{slug}/runs/{id}/output``."""

    async def get(self, wanted: str, run_id: str) -> None:
        """A page of the run's output from an offset; the first look at a run brings what it has printed before."""
        offset = self.whole_number("offset", 0, sys.maxsize)
        limit = self.whole_number("limit", PAGE_BYTES, MAX_PAGE_BYTES)
        run = await self.agent.others.caught_up(wanted, run_id)
        page = await asyncio.to_thread(run.output.read, offset, max(1, limit))
        self.reply({"chunks": page.chunks, "next": page.next, "complete": page.complete and run.ended})


class AgentRunStream(Handler):
    """``GET agents/{slug}/runs/{id}/stream``."""

    async def get(self, wanted: str, run_id: str) -> None:
        """The run's output and its changes as JSON lines, until it has ended: the same as of a run of one's own."""
        offset = self.whole_number("offset", 0, sys.maxsize)
        await self.stream_lines(self._lines(await self.agent.others.follow(wanted, run_id), offset))

    async def _lines(self, run: RemoteRun, offset: int) -> AsyncGenerator[list[dict[str, Any]], None]:
        told: dict[str, Any] = {}
        async with self.agent.others.changes(run) as changed:
            while True:
                changed.clear()
                ended = run.is_complete
                offset, chunks = await asyncio.to_thread(read_on, run.output, offset)
                if chunks:
                    yield chunks
                    continue
                if (shown := remote_json(run)) != told and (ended or not run.ended):
                    told = shown
                    yield [{"run": shown}]
                if ended:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_S):
                        await changed.wait()
                        continue
                yield []


class AgentCancel(Handler):
    """``POST agents/{slug}/cancel``."""

    async def post(self, wanted: str) -> None:
        """Cancel all runs there."""
        await self.body(NoBody)
        self.reply({"cancelled": await self.agent.others.cancel_all(wanted)})


class AgentPrepare(Handler):
    """``POST agents/{slug}/packages/{id or name}/prepare``."""

    async def post(self, wanted: str, package: str) -> None:
        """Make a package ready there; what is answered is followed as a run is."""
        await self.body(NoBody)
        self.reply(remote_json(await self.agent.others.prepare(wanted, package, who=self.who)), 202)


class AgentTestRun(Handler):
    """``POST agents/{slug}/packages/{id or name}/testrun``."""

    async def post(self, wanted: str, package: str) -> None:
        """Run a package there for some seconds; what is answered is followed as a run is."""
        body = await self.body(TestBody)
        run = await self.agent.others.test(wanted, package, kill_after_s=body.kill_after_s, who=self.who)
        self.reply(remote_json(run), 202)


class AgentReinstall(Handler):
    """``POST agents/{slug}/packages/{id or name}/reinstall``."""

    async def post(self, wanted: str, package: str) -> None:
        """End the package's runs there and have its copy forgotten."""
        await self.body(NoBody)
        self.reply(await self.agent.others.reinstall(wanted, package))


def agent_json(agent: OtherAgent) -> dict[str, Any]:
    """An agent as the API shows it."""
    return {
        "id": agent.id,
        "slug": agent.slug,
        "name": agent.name,
        "hostname": agent.hostname,
        "os": agent.os,
        "arch": agent.arch,
        "languages": list(agent.languages),
        "chrome": agent.chrome,
        "chromium": agent.chromium,
        "version": agent.version,
        "lastseen": agent.lastseen,
        "online": agent.online,
        "self": agent.is_self,
        "may_invoke": agent.may_invoke,
    }


def remote_json(run: RemoteRun) -> dict[str, Any]:
    """A run of another agent as the API shows it: the fields of a run of one's own, and ``agent``."""
    return row_json(run.row, run.output.size)


def row_json(row: RemoteRow, output_size: int) -> dict[str, Any]:
    """What is known of a run of another agent; the fields that only its own agent knows are as of a new run."""
    known = dataclasses.asdict(row)
    return {**run_json(RunRow(id=row.id)), **known, "state": str(row.state), "output_size": output_size}
