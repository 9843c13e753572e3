"""Routes of packages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from jupyter_agent.agent.launch import RunRequest
from jupyter_agent.agent.senders import find_package
from jupyter_agent.api.handler import USER_HEADER, Handler
from jupyter_agent.api.values import FetchBody, NoBody, PublishBody, package_json
from jupyter_agent.errors import Conflict, InvalidInput
from jupyter_agent.openflow.client import Client
from jupyter_agent.packages import publish, remove

PAGE = 2000
"""Documents that are asked for at once: there may be many thousands."""

SHOWN = dict.fromkeys(
    ("name", "id", "version", "language", "openiap.language", "description", "author", "main", "daemon", "fileid",
     "_modified"), 1,
)  # fmt: skip
"""What is read of the documents in a list."""


class Packages(Handler):
    """``GET, POST packages``."""

    async def get(self) -> None:
        """All packages that the agent may read, by name."""
        client = await self.agent.link.client()
        pieces = [json.dumps(package_json(document)) async for page in _pages(client) for document in page]
        self.finish(f"[{', '.join(pieces)}]")

    async def post(self) -> None:
        """Pack the folder at ``path`` and publish it."""
        path = Path((await self.body(PublishBody)).path)
        if not path.is_absolute():
            raise InvalidInput(f"The path of a package's folder should be absolute, not {path}.")
        client = await self.agent.link.client()
        published = await publish(client, path, who=self.who, bounds=self.agent.bounds())
        self.reply(
            {"id": published.id, "fileid": published.fileid, "name": published.name, "version": published.version}, 201
        )


class Package(Handler):
    """``GET, DELETE packages/{id or name}``."""

    async def get(self, wanted: str) -> None:
        """One package."""
        self.reply(package_json(await find_package(await self.agent.link.client(), wanted)))

    async def delete(self, wanted: str) -> None:
        """Remove it from OpenFlow, with its archive."""
        client = await self.agent.link.client()
        document = await find_package(client, wanted)
        if document["_id"] != wanted:
            await _only_one(client, wanted)
        await remove(client, document)
        self.set_status(204)
        self.finish()


class Prepare(Handler):
    """``POST packages/{id or name}/prepare``."""

    async def post(self, wanted: str) -> None:
        """Fetch a package and make ready what its runs need; what is answered is followed as a run is."""
        body = await self.body(FetchBody)
        package = (await find_package(await self.agent.link.client(), wanted))["_id"]
        trigger = "rest" if USER_HEADER in self.request.headers else "cli"
        run = await self.agent.launcher.launch(
            RunRequest(
                target=str(package),
                who=self.who,
                trigger=trigger,
                prepare_only=True,
                from_pypi=body.from_pypi,
                offline=body.offline,
            )
        )
        self.reply(await self.shown(run.row), 202)


class Reinstall(Handler):
    """``POST packages/{id or name}/reinstall``."""

    async def post(self, wanted: str) -> None:
        """End its runs, and have it fetched and prepared anew at the next one."""
        await self.body(NoBody)
        self.reply(await self.agent.launcher.reinstall(wanted, who=self.who))


async def _pages(client: Client) -> AsyncIterator[list[dict[str, Any]]]:
    """All packages that may be read, by name; those of one name by id."""
    skip = 0
    while page := await client.query(
        "agents", {"_type": "package"}, projection=SHOWN, order_by={"name": 1, "_id": 1}, top=PAGE, skip=skip
    ):
        yield page
        skip += len(page)
        if len(page) < PAGE:
            return


async def _only_one(client: Client, name: str) -> None:
    """Raise ``Conflict`` where a name stands for several packages: what is removed should be said exactly."""
    found = await client.query(
        "agents", {"_type": "package", "$or": [{"id": name}, {"name": name}]}, projection={"_id": 1}, top=2
    )
    if len(found) > 1:
        ids = " and ".join(str(document["_id"]) for document in found)
        raise Conflict(f"There are several packages named {name} ({ids}): name the one to remove by its id.")
