"""Files: uploads and downloads over the wire, and what lies on the disk."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jupyter_agent.errors import AgentError, ServerRefused
from jupyter_agent.hub.data.documents import new_id
from jupyter_agent.hub.data.store import Store
from jupyter_agent.hub.files import Files
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rights import ADMINS, FILESTORE_ADMINS, FILESTORE_USERS, USERS
from tests.hub_peers import Line, ask, line
from tests.openflow_peers import Hub, names_in, until


@pytest.fixture
async def wire(hub: Hub) -> AsyncIterator[Line]:
    async with line(hub.url) as opened:
        await opened.sign_in(hub)
        yield opened


def contents(hub: Hub) -> Path:
    return hub.home / "hub" / "files"


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [0, 1, (256 << 10) - 1, 256 << 10, 3_000_001])
async def test_a_file_comes_back_the_same(client: Client, hub: Hub, tmp_path: Path, size: int) -> None:
    data = secrets.token_bytes(size)
    made = await client.upload(write(tmp_path / "x.bin", data), mimetype="a/b", metadata={"k": 1, "a.b": 2})
    (document,) = await client.query("files", {"_id": made})
    assert (document["filename"], document["length"], document["contentType"]) == ("x.bin", size, "a/b")
    assert document["metadata"]["k"] == 1
    assert document["metadata"]["a.b"] == 2
    assert document["metadata"]["name"] == "x.bin"
    assert document["uploadDate"] <= document["metadata"]["_created"]
    assert client.user is not None
    acl = {entry["_id"]: entry["rights"] for entry in document["metadata"]["_acl"]}
    assert acl == {ADMINS: 65535, FILESTORE_ADMINS: 65535, FILESTORE_USERS: 2, client.user.id: 65535}
    assert document["sha256"] == hashlib.sha256(data).hexdigest()
    assert (contents(hub) / made).read_bytes() == data
    assert (contents(hub) / made).stat().st_mode & 0o777 == 0o600
    (tmp_path / "in").mkdir()
    assert (await client.download(made, tmp_path / "in")).read_bytes() == data


async def test_who_hangs_up_at_the_very_end_leaves_no_content(tmp_path: Path) -> None:
    """What is being written to the disk then goes on in its thread, and has to be undone after that."""
    async with Store(tmp_path / "hub.db") as store:
        files = Files(tmp_path / "files", store)
        await files.prepare()
        for _ in range(30):
            is_over = asyncio.Event()

            async def parts(over: asyncio.Event = is_over) -> AsyncIterator[bytes]:
                yield b"x" * 300_000
                over.set()

            keeping = asyncio.create_task(files.keep(new_id(), parts()))
            await is_over.wait()
            keeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await keeping
        files.close()
        assert names_in(tmp_path / "files") == []


async def test_several_files_at_once_do_not_mix(client: Client, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}", bytes([number]) * 700_000) for number in range(8)]
    ids = await asyncio.gather(*(client.upload(path) for path in paths))
    (tmp_path / "in").mkdir()
    found = await asyncio.gather(*(client.download(each, tmp_path / "in") for each in ids))
    for path in found:
        assert path.read_bytes() == bytes([int(path.name)]) * 700_000


async def test_a_file_is_found_by_its_name_the_newest_first(client: Client, wire: Line, tmp_path: Path) -> None:
    name = new_id()
    for data in (b"old", b"new"):
        await client.upload(write(tmp_path / name, data))
        await asyncio.sleep(0.002)  # the dates are in milliseconds
    rid = await wire.say("download", pb.DownloadRequest(filename=name))
    seen = [await wire.hear(rid=rid) for _ in range(4)]
    assert [command for command, _ in seen] == ["beginstream", "stream", "endstream", "downloadreply"]
    assert seen[1][1].data == b"new"
    assert seen[3][1].filename == name


async def test_a_deleted_file_is_gone_from_the_disk(client: Client, hub: Hub, tmp_path: Path) -> None:
    made = await client.upload(write(tmp_path / "x", b"x"))
    assert await client.delete_one("files", made) == 1
    await until(lambda: made not in names_in(contents(hub)))
    with pytest.raises(AgentError, match=r"not found in fs\.files or Access Denied"):
        await client.download(made, tmp_path)


async def test_a_file_in_use_is_not_deleted(client: Client, hub: Hub, tmp_path: Path) -> None:
    made = await client.upload(write(tmp_path / "x", b"x"))
    package = await client.insert_one("agents", {"_type": "package", "name": "pack", "fileid": made})
    item = await client.insert_one("workitems", {"_type": "workitem", "files": [{"name": "x", "_id": made}]})
    in_use = r"Cannot delete file, it is in use by an agent/workitem \(package pack\)"
    with pytest.raises(ServerRefused, match=in_use):
        await client.delete_one("fs.files", made)
    with pytest.raises(ServerRefused, match=in_use):
        await ask(client, pb.DeleteManyRequest(collectionname="fs.files", ids=[made]))
    await client.update_one("agents", {**package, "fileid": ""})
    with pytest.raises(ServerRefused, match=r"in use by an agent/workitem \(workitem"):
        await client.delete_one("fs.files", made)
    assert made in names_in(contents(hub))
    await client.delete_one("workitems", item["_id"])
    assert await client.delete_one("fs.files", made) == 1


async def test_what_stands_about_a_file_can_be_changed_but_not_what_it_is(client: Client, tmp_path: Path) -> None:
    made = await client.upload(write(tmp_path / "x", b"xyz"))
    (document,) = await client.query("files", {"_id": made})
    forged = {"length": 1, "uploadDate": "x", "chunkSize": 1, "metadata": {"note": "n", "_createdbyid": "forged"}}
    changed = await client.update_one("files", {**document, **forged})
    assert (changed["length"], changed["uploadDate"]) == (3, document["uploadDate"])
    assert changed["metadata"]["note"] == "n"
    assert changed["metadata"]["_createdbyid"] == document["metadata"]["_createdbyid"]
    assert changed["metadata"]["_acl"] == document["metadata"]["_acl"]
    for update in ({"$set": {"metadata": 1}}, {"$unset": {"metadata": ""}}):
        with pytest.raises(ServerRefused, match="metadata of a file must be an object"):
            await client.update_document("files", {"_id": made}, update)
    await client.update_document("files", {"_id": made}, {"$set": {"length": 7, "metadata.note": "m"}})
    (document,) = await client.query("files", {"_id": made})
    assert (document["length"], document["metadata"]["note"]) == (3, "m")


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (pb.UploadRequest(), "A file needs a filename"),
        (pb.UploadRequest(filename="x" * 2000), "A file needs a filename"),
        (pb.UploadRequest(filename="x", metadata="["), "The metadata is not valid JSON"),
        (pb.UploadRequest(filename="x", metadata="[]"), "The metadata must be a JSON object"),
        (pb.UploadRequest(filename="x", collectionname="mail.files"), "kept in fs.files only"),
        (pb.UploadRequest(filename="x", metadata='{"_acl": 5}'), "_acl must be a list"),
    ],
)
async def test_a_bad_upload_is_refused_and_leaves_nothing(
    wire: Line, hub: Hub, request_: pb.UploadRequest, sentence: str
) -> None:
    before = names_in(contents(hub))
    rid = await wire.say("upload", request_)
    await wire.say("beginstream", pb.BeginStream(), rid=rid)
    for _ in range(40):  # what is sent after the refusal goes by
        await wire.say("stream", pb.Stream(data=b"x" * 10_000), rid=rid)
    await wire.say("endstream", pb.EndStream(), rid=rid)
    command, message = await wire.hear(rid=rid)
    assert command == "error"
    assert sentence in message.message
    assert names_in(contents(hub)) == before
    assert (await wire.ask("count", pb.CountRequest(collectionname="t")))[0] == "countreply"


async def test_a_broken_off_upload_leaves_nothing(hub: Hub) -> None:
    before = names_in(contents(hub))
    async with line(hub.url) as wire:
        await wire.sign_in(hub)
        rid = await wire.say("upload", pb.UploadRequest(filename="x"))
        await wire.say("stream", pb.Stream(data=b"x" * 100_000), rid=rid)
        await until(lambda: len(names_in(contents(hub))) > len(before))
    await until(lambda: names_in(contents(hub)) == before)


async def test_too_many_uploads_at_once_are_refused(wire: Line) -> None:
    ids = [await wire.say("upload", pb.UploadRequest(filename="x")) for _ in range(17)]
    command, message = await wire.hear(rid=ids[-1])
    assert command == "error"
    assert "At most 16 uploads" in message.message
    for rid in ids[:16]:
        await wire.say("endstream", pb.EndStream(), rid=rid)
        assert (await wire.hear(rid=rid))[0] == "uploadreply"


async def test_parts_of_nothing_go_by(wire: Line) -> None:
    for command in ("beginstream", "stream", "endstream"):
        await wire.say(command, rid="nothing")
    assert (await wire.ask("count", pb.CountRequest(collectionname="t")))[0] == "countreply"


async def test_what_no_document_knows_is_removed_at_the_start(hub: Hub, client: Client, tmp_path: Path) -> None:
    data = secrets.token_bytes(1000)
    made = await client.upload(write(tmp_path / "x", data))
    hub.kill()
    (contents(hub) / new_id()).write_bytes(b"an orphan")
    (contents(hub) / f"{new_id()}.part").write_bytes(b"half an upload")
    await until(lambda: not client.is_connected)
    hub.start()
    (tmp_path / "in").mkdir()
    await client.connected()
    assert (await client.download(made, tmp_path / "in")).read_bytes() == data
    known = sorted(document["_id"] for document in await client.query("files", {}, top=10_000))
    assert names_in(contents(hub)) == known


async def test_a_lost_content_is_said(client: Client, hub: Hub, tmp_path: Path) -> None:
    made = await client.upload(write(tmp_path / "x", b"x"))
    (contents(hub) / made).unlink()
    with pytest.raises(AgentError, match=f"The content of the file {made} is missing"):
        await client.download(made, tmp_path)
    await client.delete_one("files", made)


async def test_no_client_is_told_a_path(client: Client, wire: Line, tmp_path: Path) -> None:
    made = await client.upload(write(tmp_path / "x", b"content"), filename="../../etc\\evil.txt")
    document = (await client.query("files", {"_id": made}))[0]
    assert document["filename"] == "../../etc\\evil.txt"
    assert (await wire.ask("download", pb.DownloadRequest(id=made)))[0] == "beginstream"
    _, reply = await wire.hear("downloadreply")
    assert reply.filename == "evil.txt"


async def test_many_files_go_by_their_metadata_but_for_those_in_use(client: Client, tmp_path: Path) -> None:
    made = [
        await client.upload(write(tmp_path / "x", b"content"), metadata={"batch": {"n": n}, "_type": "Part"})
        for n in range(3)
    ]
    package = await client.insert_one("agents", {"_type": "package", "name": "p", "fileid": made[0]})
    with pytest.raises(ServerRefused, match="Cannot delete file, it is in use"):
        await ask(client, pb.DeleteManyRequest(collectionname="files", query='{"metadata.batch.n": {"$lt": 2}}'))
    assert await client.count("files", {"metadata._type": "part"}) == len(made)
    await client.delete_one("agents", package["_id"])
    query = '{"metadata.batch.n": {"$lt": 2}}'
    reply = await ask(client, pb.DeleteManyRequest(collectionname="fs.files", query=query))
    assert reply.affectedrows == 2
    assert [each["_id"] for each in await client.query("files", {"metadata._type": "part"})] == [made[2]]


async def test_a_file_of_a_work_item_stays_as_long_as_the_item_needs_it(client: Client, tmp_path: Path) -> None:
    item = await client.insert_one("workitems", {"_type": "workitem", "name": "i", "files": []})
    made = await client.upload(write(tmp_path / "x", b"content"), metadata={"wi": item["_id"]})
    item = await client.update_one("workitems", {**item, "files": [{"_id": made, "filename": "x"}]})
    with pytest.raises(ServerRefused, match="in use by an agent/workitem \\(workitem i\\)"):
        await client.delete_one("files", made)
    await client.update_one("workitems", {**item, "files": []})
    assert await client.delete_one("files", made) == 1


async def test_files_are_open_to_filestore_users_of_whom_there_are_none(
    client: Client, ann: Client, bob: Client, tmp_path: Path
) -> None:
    open_to_all = await ann.upload(write(tmp_path / "x", b"content"))
    assert await bob.query("files", {"_id": open_to_all}) == []
    (role,) = await client.query("users", {"_id": FILESTORE_USERS})
    await client.update_one("users", {**role, "members": [{"_id": USERS, "name": "users"}]})
    (tmp_path / "in").mkdir()
    assert (await bob.download(open_to_all, tmp_path / "in")).read_bytes() == b"content"
    await client.update_one("users", {**role, "members": []})


async def test_rights_given_at_upload_count_besides(ann: Client, bob: Client, tmp_path: Path) -> None:
    acl = [{"_id": (reader := (await bob.connected()).id), "name": "bob", "rights": 2}]
    made = await ann.upload(write(tmp_path / "x", b"content"), metadata={"_acl": acl})
    (document,) = await bob.query("files", {"_id": made})
    assert {entry["_id"] for entry in document["metadata"]["_acl"]} > {reader, FILESTORE_ADMINS}
    with pytest.raises(ServerRefused, match="you may not update"):
        await bob.update_one("files", {**document, "filename": "y"})
