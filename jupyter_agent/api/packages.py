"""Routes of packages."""

from __future__ import annotations

from pathlib import Path

from jupyter_agent.agent.senders import find_package
from jupyter_agent.api.handler import Handler
from jupyter_agent.api.values import PublishBody, package_json
from jupyter_agent.errors import InvalidInput
from jupyter_agent.packages import publish


class Packages(Handler):
    """``GET, POST packages``."""

    async def get(self) -> None:
        """All packages that the agent may read, by name."""
        client = await self.agent.link.client()
        documents = await client.query("agents", {"_type": "package"}, order_by={"name": 1}, top=1000)
        self.reply([package_json(document) for document in documents])

    async def post(self) -> None:
        """Pack the folder at ``path`` and publish it."""
        path = Path(PublishBody.parse(self.request.body).path)
        if not path.is_absolute():
            raise InvalidInput(f"The path of a package's folder should be absolute, not {path}.")
        client = await self.agent.link.client()
        published = await publish(client, path, who=self.who)
        self.reply(
            {"id": published.id, "fileid": published.fileid, "name": published.name, "version": published.version}, 201
        )


class Package(Handler):
    """``GET packages/{id or name}``."""

    async def get(self, wanted: str) -> None:
        """One package."""
        self.reply(package_json(await find_package(await self.agent.link.client(), wanted)))
