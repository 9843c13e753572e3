"""Versions of packages on disk, and their removal from OpenFlow: a real hub, real files."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.errors import AccessDenied, AgentError, InvalidInput, Unavailable
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.rights import Right
from jupyter_agent.packages import Bounds, Versions, publish, remove
from tests.hub_peers import user_of
from tests.openflow_peers import Hub
from tests.test_packages import package

EVERYBODY = {"_id": "5a17f157c4815318c8536c21", "name": "users", "rights": int(Right.READ | Right.UPDATE)}


@dataclass
class Place:
    """Versions, and the hub they come from."""

    versions: Versions
    folder: Path
    client: Client
    scratch: Path

    async def connect(self) -> Client:
        return self.client

    async def publish(self, text: str) -> dict[str, Any]:
        folder = package(self.scratch / "p", {"main.py": text})
        return dict((await publish(self.client, folder, who="ann")).document)

    async def take(self, document: dict[str, Any]) -> Path:
        async with self.versions.take(self.connect, document) as folder:
            return folder

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if not path.name.endswith(".json"))


@pytest.fixture
async def place(client: Client, tmp_path: Path) -> AsyncIterator[Place]:
    yield Place(Versions(tmp_path / "packages"), tmp_path / "packages", client, tmp_path)
    for document in await client.query("agents", {"_type": "package"}, top=100):
        await remove(client, document)


async def offline() -> Client:
    raise Unavailable("There is no connection.")


async def test_what_is_here_needs_no_connection(place: Place) -> None:
    document = await place.publish("1")
    await place.take(document)
    async with place.versions.take(offline, document) as folder:
        assert (folder / "main.py").read_text() == "1"
    with pytest.raises(Unavailable):
        async with place.versions.take(offline, {"_id": "x", "fileid": "0123456789abcdef01234567"}):
            pass
    assert place.names() == [document["fileid"]]


async def test_a_version_stays_while_it_is_read_or_a_run_has_it(place: Place) -> None:
    first = await place.publish("1")
    async with place.versions.take(place.connect, first) as folder:
        second = await place.publish("2")
        await place.take(second)
        assert place.versions.supersede(first["_id"], second["fileid"]) == [first["fileid"]]
        assert not place.versions.is_current(first["fileid"])
        assert await place.versions.tidy((), keep_days=1) == []
        assert (folder / "main.py").read_text() == "1"
    assert await place.versions.tidy([first["fileid"]], keep_days=1) == []
    assert place.names() == sorted([first["fileid"], second["fileid"]])
    assert await place.versions.tidy((), keep_days=1) == [first["fileid"]]
    assert place.names() == [second["fileid"]]


async def test_a_version_that_its_package_points_to_again_stays(place: Place) -> None:
    document = await place.publish("1")
    await place.take(document)
    place.versions.supersede(document["_id"], None)
    assert place.versions.supersede(document["_id"], document["fileid"]) == []
    assert place.versions.is_current(document["fileid"])
    assert await place.versions.tidy((), keep_days=1) == []


async def test_what_nobody_has_taken_for_long_goes(place: Place) -> None:
    document = await place.publish("1")
    folder = await place.take(document)
    os.utime(folder, (time.time() - 3 * 86400,) * 2)
    assert await place.versions.tidy((), keep_days=4) == []
    await place.take(document)  # which begins its time anew
    assert await place.versions.tidy((), keep_days=2) == []
    os.utime(folder, (time.time() - 3 * 86400,) * 2)
    assert await place.versions.tidy((), keep_days=2) == [document["fileid"]]
    assert list(place.folder.iterdir()) == []


async def test_a_version_is_forgotten_once_nobody_reads_it_and_fetched_anew(place: Place) -> None:
    document = await place.publish("1")
    async with AsyncExitStack() as reading:
        folder = await reading.enter_async_context(place.versions.take(place.connect, document))
        (folder / "main.py").write_text("spoiled")
        forgetting = asyncio.create_task(place.versions.forget(document["fileid"]))
        other = asyncio.create_task(place.take(document))
        await other
        assert not forgetting.done()
        assert (folder / "main.py").exists()
    await forgetting
    assert place.names() == []
    assert ((await place.take(document)) / "main.py").read_text() == "1"


async def test_a_later_agent_knows_whose_versions_there_are(place: Place) -> None:
    document = await place.publish("1")
    await place.take(document)
    strange = place.folder / "0123456789abcdef01234567"
    strange.mkdir()
    (place.folder / "gone.json").write_text("{}")
    (place.folder / f".{document['fileid']}.half").mkdir()
    (place.folder / ".old.lock").write_text("")
    later = Versions(place.folder)
    await later.open()
    assert later.packages == {document["fileid"]: document["_id"], strange.name: ""}
    later.adopt({strange.name: "other"})
    assert later.is_outdated("other", "another")
    assert not later.is_outdated("other", strange.name)
    await later.tidy((), keep_days=1)
    assert sorted(path.name for path in place.folder.iterdir()) == sorted(
        [document["fileid"], f"{document['fileid']}.json", strange.name]
    )


async def test_what_came_from_another_openflow_is_not_taken_for_gone(place: Place) -> None:
    place.versions.openflow = "wss://one.example.org"
    document = await place.publish("1")
    await place.take(document)
    later = Versions(place.folder)
    await later.open()
    later.openflow = "hub"
    assert later.comparable() == {}
    later.openflow = "wss://one.example.org"
    assert later.comparable() == {document["fileid"]: document["_id"]}


async def test_an_archive_beyond_the_limits_is_not_even_fetched_whole(place: Place) -> None:
    archive = place.scratch / "x.tgz"
    archive.write_bytes(os.urandom(5 << 20))
    fileid = await place.client.upload(archive)
    versions = Versions(place.folder, bounds=Bounds(total_bytes=2 << 20))
    with pytest.raises(InvalidInput, match=r"larger than 2 MiB, which is what a package may hold"):
        async with versions.take(place.connect, {"_id": "x", "fileid": fileid}):
            pass
    assert place.names() == []
    assert await place.client.count("fs.files", {"_id": fileid}) == 1  # the connection works on
    await place.client.delete_one("fs.files", fileid)


# Out of OpenFlow


async def test_a_package_is_removed_with_its_archive(place: Place) -> None:
    document = await place.publish("1")
    await remove(place.client, document)
    assert await place.client.query("agents", {"_id": document["_id"]}) == []
    assert await place.client.query("fs.files", {"_id": document["fileid"]}) == []


async def test_an_archive_that_another_package_has_stays(place: Place) -> None:
    document = await place.publish("1")
    twin = await place.client.insert_one(
        "agents", {"_type": "package", "id": "twin", "name": "twin", "fileid": document["fileid"]}
    )
    await remove(place.client, document)
    assert (await place.take(twin)).is_dir()


async def test_who_may_not_remove_a_package_changes_nothing(place: Place, hub: Hub) -> None:
    document = await place.publish("1")
    await place.client.update_one("agents", {**document, "_acl": [*document["_acl"], EVERYBODY]})
    async with user_of(hub, "reader") as reader:
        [seen] = await reader.query("agents", {"_id": document["_id"]})
        with pytest.raises(AccessDenied, match=r"The package sample may not be removed: the right to delete it"):
            await remove(reader, seen)
    [now] = await place.client.query("agents", {"_id": document["_id"]})
    assert now["fileid"] == document["fileid"]


@pytest.mark.parametrize("fields", [{"fileid": "local"}, {"fileid": ""}, {"repo": "https://x.org/y.git"}])
async def test_packages_without_an_archive_are_removed_too(place: Place, fields: dict[str, str]) -> None:
    document = await place.client.insert_one("agents", {"_type": "package", "id": "x", "name": "x", **fields})
    with pytest.raises(InvalidInput):
        await place.take(document)
    await remove(place.client, document)
    assert await place.client.query("agents", {"_id": document["_id"]}) == []


# Into OpenFlow, while others work there


class Meddles(Client):
    """Somebody else is quicker while the archive is on its way."""

    change: dict[str, Any] | None = None

    async def upload(self, *args: Any, **kwargs: Any) -> str:
        fileid = await super().upload(*args, **kwargs)
        [document] = await self.query("agents", {"_type": "package", "id": "sample"})
        if self.change is None:
            await self.delete_one("agents", document["_id"])
        else:
            await self.update_one("agents", {**document, **self.change})
        return fileid


async def meddling(hub: Hub) -> Meddles:
    return Meddles(hub.url, hub.password, version="1.0", requests_per_s=None)


async def test_what_others_changed_during_the_upload_is_kept(place: Place, hub: Hub, tmp_path: Path) -> None:
    document = await place.publish("1")
    await place.client.update_one("agents", {**document, "repo": "https://x.org/y.git", "ref": "main"})
    async with await meddling(hub) as meddler:
        meddler.change = {"stripeprice": "p", "description": "theirs"}
        published = await publish(meddler, package(tmp_path / "p", description="ours"), who="ann")
    [now] = await place.client.query("agents", {"_id": document["_id"]})
    assert (now["stripeprice"], now["description"], now["fileid"]) == ("p", "ours", published.fileid)
    assert "repo" not in now


async def test_a_package_that_is_removed_meanwhile_is_told(place: Place, hub: Hub, tmp_path: Path) -> None:
    async with await meddling(hub) as meddler:
        with pytest.raises(AgentError, match="was removed while it was published: publish it again"):
            await publish(meddler, package(tmp_path / "p"), who="ann")
    assert await place.client.query("fs.files", {"metadata.name": "sample"}) == []
