"""Publishing and fetching: a real hub, connections that break at the worst moment, fetches that are killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.errors import AgentError, Conflict, ConnectionLost, Failed, InvalidInput, ServerRefused
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.rights import Right
from jupyter_agent.packages import Versions, publish
from tests.hub_peers import user_of
from tests.openflow_peers import QUICKLY, Hub, until
from tests.test_packages import package

READERS = {"_id": "5a17f157c4815318c8536c21", "name": "users", "rights": int(Right.READ)}


@pytest.fixture
async def client(hub: Hub) -> AsyncIterator[Client]:
    async with hub.client() as entered:
        await entered.connected()
        yield entered
        for document in await entered.query("agents", {"_type": "package"}, top=100):
            await entered.delete_one("agents", document["_id"])
        for file in await entered.query("fs.files", {}, top=100):
            await entered.delete_one("fs.files", file["_id"])


async def fetch(client: Client, document: Mapping[str, Any], packages: Path | Versions, *, jwt: str = "") -> Path:
    """The version's folder, as a run sees it."""

    async def connect() -> Client:
        return client

    versions = packages if isinstance(packages, Versions) else Versions(packages)
    async with versions.take(connect, document, jwt=jwt) as folder:
        return folder


async def state_of(client: Client) -> tuple[list[str], list[str]]:
    """The archives that packages point to, and those there are."""
    documents = await client.query("agents", {"_type": "package"}, top=100)
    files = await client.query("fs.files", {}, top=100)
    return [document["fileid"] for document in documents], [file["_id"] for file in files]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_package_is_published_and_fetched(client: Client, tmp_path: Path) -> None:
    section = {"language": "Notebook", "ports": [{"portname": "web", "port": 80}], "own": 1}
    about: dict[str, Any] = {"name": "@me/sales", "main": "a.ipynb", "description": "Sales", "openiap": section}
    folder = package(tmp_path / "p", {"a.ipynb": "{}", "data/x.csv": "1\n"}, **about)
    (folder / "main.py").unlink()
    published = await publish(client, folder, who="ann")
    [document] = await client.query("agents", {"_type": "package"})
    assert document["_id"] == published.id
    assert document["fileid"] == published.fileid
    expected = {"id": "@me/sales", "name": "@me/sales", "version": "1.2.3", "description": "Sales", "main": "a.ipynb"}
    assert {key: document[key] for key in expected} == expected
    assert (document["language"], document["daemon"]) == ("notebook", False)
    assert document["openiap"] == {**section, "language": "notebook"}
    [file] = await client.query("fs.files", {})
    assert file["filename"] == "me-sales-1.2.3.tgz"
    assert file["metadata"]["publishedby"] == "ann"
    fetched = await fetch(client, document, tmp_path / "packages")
    assert fetched == tmp_path / "packages" / published.fileid
    assert content(fetched) == content(folder)
    assert dict(published.document) == document


async def test_publishing_again_replaces_the_archive_and_keeps_the_document(client: Client, tmp_path: Path) -> None:
    folder = package(tmp_path / "p")
    first = await publish(client, folder, who="ann")
    [document] = await client.query("agents", {"_id": first.id})
    await client.update_one("agents", {**document, "_acl": [*document["_acl"], READERS], "stripeprice": "p"})
    (folder / "main.py").write_text("print('new')\n")
    second = await publish(client, folder, who="ann")
    assert (second.id, second.version) == (first.id, first.version)
    assert await state_of(client) == ([second.fileid], [second.fileid])
    [document] = await client.query("agents", {"_id": first.id})
    assert READERS["_id"] in [entry["_id"] for entry in document["_acl"]]
    assert document["stripeprice"] == "p"
    assert content(await fetch(client, document, tmp_path / "packages"))["main.py"] == b"print('new')\n"


async def test_a_faulty_package_changes_nothing(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match='"version" is missing'):
        await publish(client, package(tmp_path / "p", version=None), who="ann")
    assert await state_of(client) == ([], [])


async def test_two_packages_of_one_name_are_a_conflict(client: Client, tmp_path: Path) -> None:
    for _ in range(2):
        await client.insert_one("agents", {"_type": "package", "id": "sample", "name": "sample", "fileid": ""})
    with pytest.raises(Conflict, match=r"several packages with the id sample \(\w+ and \w+\): remove all but one"):
        await publish(client, package(tmp_path / "p"), who="ann")


async def test_who_may_not_change_a_package_leaves_it_alone(client: Client, hub: Hub, tmp_path: Path) -> None:
    folder = package(tmp_path / "p")
    first = await publish(client, folder, who="ann")
    await client.update_one("agents", {**first.document, "_acl": [*first.document["_acl"], READERS]})
    async with user_of(hub, "reader") as other:
        with pytest.raises(AgentError):
            await publish(other, folder, who="reader")
        [document] = await other.query("agents", {"_id": first.id})
        assert content(await fetch(other, document, tmp_path / "packages")) == content(folder)
    assert await state_of(client) == ([first.fileid], [first.fileid])


class Breaks(Client):
    """Loses its connection at one step: before it is done, or when it is done and the answer is on its way."""

    step = ""
    after = False

    async def _break(self, step: str, call: Any) -> Any:
        if step == self.step and not self.after:
            raise ConnectionLost("The connection ended.")
        answer = await call
        if step == self.step:
            raise ConnectionLost("The connection ended.")
        return answer

    async def upload(self, *args: Any, **kwargs: Any) -> str:
        return str(await self._break("upload", super().upload(*args, **kwargs)))

    async def update_one(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return dict(await self._break("update", super().update_one(*args, **kwargs)))


async def breaking(hub: Hub, step: str, *, after: bool) -> Breaks:
    made = Breaks(hub.url, hub.password, version="1.0", requests_per_s=None, backoff=QUICKLY)
    made.step, made.after = step, after
    return made


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize(("step", "after"), [("upload", False), ("upload", True), ("update", False)])
@pytest.mark.parametrize("is_new", [True, False])
async def test_a_publication_that_breaks_off_is_taken_back(
    client: Client, hub: Hub, tmp_path: Path, step: str, *, after: bool, is_new: bool
) -> None:
    folder = package(tmp_path / "p")
    before = ([], []) if is_new else ([(await publish(client, folder, who="ann")).fileid],) * 2
    async with await breaking(hub, step, after=after) as broken:
        with pytest.raises(ConnectionLost):
            await publish(broken, folder, who="ann")
    assert await state_of(client) == before


async def test_a_lost_answer_to_the_last_step_is_no_failure(client: Client, hub: Hub, tmp_path: Path) -> None:
    folder = package(tmp_path / "p")
    await publish(client, folder, who="ann")
    async with await breaking(hub, "update", after=True) as broken:
        published = await publish(broken, folder, who="ann")
    assert await state_of(client) == ([published.fileid], [published.fileid])


class Waits(Client):
    """Waits before it points the document to the archive, or before it downloads."""

    reached: asyncio.Event
    go_on: asyncio.Event
    downloads = 0

    async def update_one(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self.reached.set()
        await self.go_on.wait()
        return await super().update_one(*args, **kwargs)

    async def download(self, *args: Any, **kwargs: Any) -> Path:
        self.downloads += 1
        self.reached.set()
        await self.go_on.wait()
        return await super().download(*args, **kwargs)


@pytest.fixture
async def waits(hub: Hub) -> AsyncIterator[Waits]:
    made = Waits(hub.url, hub.password, version="1.0", requests_per_s=None, backoff=QUICKLY)
    made.reached, made.go_on = asyncio.Event(), asyncio.Event()
    async with made:
        yield made


async def test_a_cancelled_publication_is_taken_back(client: Client, waits: Waits, tmp_path: Path) -> None:
    task = asyncio.create_task(publish(waits, package(tmp_path / "p"), who="ann"))
    await waits.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await state_of(client) == ([], [])


# Fetching


async def test_fetches_of_one_archive_wait_for_one_another(client: Client, waits: Waits, tmp_path: Path) -> None:
    published = await publish(client, package(tmp_path / "p"), who="ann")
    versions = Versions(tmp_path / "packages")
    tasks = [asyncio.create_task(fetch(waits, published.document, versions)) for _ in range(5)]
    await waits.reached.wait()
    waits.go_on.set()
    assert set(await asyncio.gather(*tasks)) == {tmp_path / "packages" / published.fileid}
    assert waits.downloads == 1


async def test_a_cancelled_fetch_leaves_nothing(client: Client, waits: Waits, tmp_path: Path) -> None:
    published = await publish(client, package(tmp_path / "p"), who="ann")
    task = asyncio.create_task(fetch(waits, published.document, tmp_path / "packages"))
    await waits.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [path for path in (tmp_path / "packages").iterdir() if path.is_dir()]
    await fetch(client, published.document, tmp_path / "packages")


FETCHER = """
import asyncio, json, sys
from pathlib import Path
from jupyter_agent.openflow.client import Client, Credentials
from jupyter_agent.packages import Versions

class Hangs(Client):
    async def download(self, id, folder, **kwargs):
        (folder / "half").write_text("half")
        print("downloading", flush=True)
        await asyncio.Event().wait()

async def main(url, jwt, document, packages):
    async with Hangs(url, Credentials(jwt=jwt), version="1.0") as client:
        async with Versions(Path(packages)).take(lambda: asyncio.sleep(0, client), json.loads(document)):
            pass

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_fetch_leaves_nothing_that_counts(client: Client, hub: Hub, tmp_path: Path) -> None:
    published = await publish(client, package(tmp_path / "p"), who="ann")
    packages = tmp_path / "packages"
    fetcher = fetcher_of(hub, published.fileid, packages)
    assert fetcher.stdout
    assert await asyncio.to_thread(fetcher.stdout.readline) == "downloading\n"
    fetcher.send_signal(signal.SIGKILL)
    fetcher.communicate()
    assert not (packages / published.fileid).exists()
    assert [path.name for path in packages.iterdir()]
    versions = Versions(packages)
    await versions.open()
    assert await fetch(client, published.document, versions) == packages / published.fileid
    await versions.tidy((), keep_days=1)
    assert sorted(path.name for path in packages.iterdir()) == [published.fileid, f"{published.fileid}.json"]


def fetcher_of(hub: Hub, fileid: str, packages: Path) -> subprocess.Popen[str]:
    arguments = [hub.url, hub.ready["jwt"], f'{{"fileid": "{fileid}"}}', str(packages)]
    return subprocess.Popen([sys.executable, "-c", FETCHER, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"name": "x", "fileid": ""}, "The package x has no archive in OpenFlow: publish it again."),
        ({"name": "x"}, "The package x has no archive in OpenFlow: publish it again."),
        ({"name": "x", "fileid": "local"}, "The package x is marked as local"),
        (
            {"name": "x", "repo": "https://x.org/y.git", "ref": "main"},
            "The package x is a git repository (https://x.org",
        ),
        ({"name": "x", "fileid": "../../etc"}, "The package x has a file id that is none"),
        ({"name": "x", "fileid": ".."}, "The package x has a file id that is none"),
    ],
)
async def test_a_package_without_an_archive_is_told(
    client: Client, tmp_path: Path, document: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await fetch(client, document, tmp_path / "packages")
    assert str(caught.value).startswith(sentence)


async def test_an_archive_that_is_gone_is_told(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ServerRefused):
        await fetch(client, {"fileid": "0123456789abcdef01234567"}, tmp_path / "packages")
    assert not [path for path in (tmp_path / "packages").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("name", "data", "metadata", "error", "sentence"),
    [
        ("x.tgz", b"no archive at all", {}, InvalidInput, "x.tgz is not a readable archive"),
        ("../../x.tar.gz", b"\x1f\x8b", {}, InvalidInput, "x.tar.gz is not a readable archive"),
        ("x.tgz", b"whatever", {"sha256": "0" * 64}, Failed, "is not what was uploaded"),
    ],
)
async def test_a_broken_archive_is_told_and_leaves_nothing(
    client: Client,
    tmp_path: Path,
    *,
    name: str,
    data: bytes,
    metadata: dict[str, str],
    error: type[AgentError],
    sentence: str,
) -> None:
    (tmp_path / "archive").write_bytes(data)
    fileid = await client.upload(tmp_path / "archive", filename=name)
    for field, value in metadata.items():
        await client.update_document("fs.files", {"_id": fileid}, {"$set": {f"metadata.{field}": value}})
    for _ in range(2):
        with pytest.raises(error) as caught:
            await fetch(client, {"name": "x", "fileid": fileid}, tmp_path / "packages")
        assert sentence in str(caught.value)
    assert not [path for path in (tmp_path / "packages").iterdir() if path.is_dir()]


async def test_an_archive_of_another_maker_is_fetched(client: Client, tmp_path: Path) -> None:
    (tmp_path / "tool/deep").mkdir(parents=True)
    (tmp_path / "tool/main.py").write_text("print(1)\n")
    with tarfile.open(tmp_path / "tool.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "tool", arcname="tool-1.0")
    fileid = await client.upload(tmp_path / "tool.tar.gz")
    fetched = await fetch(client, {"name": "tool", "fileid": fileid}, tmp_path / "packages")
    assert content(fetched) == {"main.py": b"print(1)\n"}


async def test_whose_rights_count_may_be_said(client: Client, hub: Hub, tmp_path: Path) -> None:
    published = await publish(client, package(tmp_path / "p"), who="ann")
    async with user_of(hub, "stranger") as stranger:
        await until(lambda: stranger.token, "it is signed in")
        with pytest.raises(AgentError):
            await fetch(client, published.document, tmp_path / "packages", jwt=stranger.token)
    assert not (tmp_path / "packages" / published.fileid).exists()
