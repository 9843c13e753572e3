"""Routes of environments: what there is, what is made as a run, and what is looked at or removed at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jupyter_agent.agent import environments as works
from jupyter_agent.api.handler import Handler
from jupyter_agent.api.runs import trigger_of
from jupyter_agent.api.values import ChannelBody, CollectBody, CreateBody, LockBody, NoBody
from jupyter_agent.environments.prefixes.known import Shown


def shown_json(shown: Shown) -> dict[str, Any]:
    """An environment with what is in it, as the API shows it."""
    packages = [
        {name: getattr(package, name) for name in ("name", "version", "build", "manager", "channel", "bytes", "why")}
        for package in shown.packages
    ]
    return {
        **dataclasses.asdict(shown.known),
        "platform": shown.platform,
        "channels": shown.channels,
        "asked": shown.asked,
        "variables": shown.variables,
        "packages_list": packages,
    }


def tell_removed(handler: Handler, id_: str) -> None:
    """Tell those who listen to events."""
    handler.events.send("environment", id_, lambda: {"event": "environment", "id": id_, "operation": "delete"})


class MakingHandler(Handler):
    """What makes something, as a run."""

    async def start(self, work: works.Work) -> None:
        """Answer 202 with the run."""
        run = await self.agent.makings.start(work, who=self.who, trigger=trigger_of(self))
        self.reply(await self.shown(run.row), 202)


class Environments(MakingHandler):
    """``GET, POST environments``."""

    async def get(self) -> None:
        """All that are known: ours, and those of conda and its kin."""
        self.reply([dataclasses.asdict(known) for known in await self.agent.site.environments.list()])

    async def post(self) -> None:
        """Make one."""
        body = await self.body(CreateBody)
        file = body.file if body.template is None else works.template(body.template)
        await self.start(
            works.Create(
                file=str(works.absolute(file, "the file")) if file else "",
                called=body.name or body.template or "",
                text=body.text or "",
                from_pypi=body.from_pypi,
                offline=body.offline,
            )
        )


class Lock(MakingHandler):
    """``POST environments/lock``."""

    async def post(self) -> None:
        """Lock a file."""
        body = await self.body(LockBody)
        await self.start(
            works.LockUp(
                file=str(works.absolute(body.file, "the file")),
                output=str(works.absolute(body.output, "the lock")) if body.output else "",
                platforms=tuple(body.platforms),
                from_pypi=body.from_pypi,
                offline=body.offline,
            )
        )


class Channel(MakingHandler):
    """``POST environments/channel``."""

    async def post(self) -> None:
        """Make a conda channel of this Python and of what PyPI has."""
        body = await self.body(ChannelBody)
        folder = str(works.absolute(body.folder, "the channel's folder"))
        await self.start(works.BuildChannel(requirements=tuple(body.requirements), folder=folder))


class Collect(Handler):
    """``POST environments/gc``."""

    async def post(self) -> None:
        """Remove what nothing uses and none has used for long."""
        body = await self.body(CollectBody)
        days = self.agent.keep_environments_days if body.days is None else body.days
        collected = await self.agent.site.environments.gc(days=days, dry_run=body.dry_run)
        for gone in () if body.dry_run else collected.removed:
            if Path(gone.path).name == gone.id:  # else it is the kind of something that no environment needs any more
                tell_removed(self, gone.id)
        self.reply({**dataclasses.asdict(collected), "bytes": collected.bytes})


class OneEnvironment(Handler):
    """``GET, DELETE environments/{id, name or path}``."""

    async def get(self, wanted: str) -> None:
        """One environment, with what is in it."""
        self.reply(shown_json(await self.agent.site.environments.show(works.expanded(wanted))))

    async def delete(self, wanted: str) -> None:
        """Remove one of ours that nothing uses."""
        environments = self.agent.site.environments
        found = (await environments.show(works.expanded(wanted))).known
        await environments.remove(found.id)
        tell_removed(self, found.id)
        self.set_status(204)
        self.finish()


class Verify(Handler):
    """``POST environments/{id, name or path}/verify``."""

    async def post(self, wanted: str) -> None:
        """Look at every file of it."""
        await self.body(NoBody)
        environments = self.agent.site.environments
        found = (await environments.show(works.expanded(wanted))).known
        faults = [
            {"path": fault.path, "package": fault.package, "what": fault.what}
            for fault in await environments.verify(found.id)
        ]
        self.reply({"id": found.id, "ok": not faults, "faults": faults})


class Repair(MakingHandler):
    """``POST environments/{id, name or path}/repair``."""

    async def post(self, wanted: str) -> None:
        """Make it whole again."""
        await self.body(NoBody)
        found = await self.agent.site.environments.show(works.expanded(wanted))
        await self.start(works.Repair(found.known.id))
