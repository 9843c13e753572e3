"""Files that are proven whole, and transfers that go on after a connection that ended."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from jupyter_agent.errors import Conflict, ConnectionLost, Failed, TransferLost
from jupyter_agent.openflow.client import Client, new_id
from jupyter_agent.openflow.files import Arrival
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import CHUNK, Envelope
from tests.openflow_peers import Peer, names_in, odd_client, odd_peer

CONTENT = os.urandom(10 * CHUNK + 77)
PARTS = [CONTENT[start : start + CHUNK] for start in range(0, len(CONTENT), CHUNK)]
KEPT = ".download-f.part"


class Store:
    """A server with one file, that goes away in the middle of it as often as it is told to."""

    def __init__(self, *, cuts: list[int], about: dict[str, Any] | None = None) -> None:
        self.cuts = cuts
        self.about = about if about is not None else {"sha256": hashlib.sha256(CONTENT).hexdigest()}
        self.sent = 0

    async def __call__(self, peer: Peer, envelope: Envelope, message: Message) -> None:
        if isinstance(message, pb.QueryRequest):
            found = [{"_id": "f", "length": len(CONTENT), "metadata": self.about}]
            await peer.send("queryreply", pb.QueryResponse(results=json.dumps(found)), rid=envelope.id)
            return
        cut = self.cuts.pop(0) if self.cuts else None
        for part in PARTS[:cut]:
            await peer.send("stream", pb.Stream(data=part), rid=envelope.id)
            self.sent += 1
        if cut is None:
            await peer.send("downloadreply", pb.DownloadResponse(id="f", filename="f.bin"), rid=envelope.id)
        else:
            await peer.close()


async def test_an_upload_says_what_it_is_and_a_download_is_checked_by_it(client: Client, tmp_path: Path) -> None:
    (source := tmp_path / "f").write_bytes(CONTENT)
    stored = await client.upload(source, metadata={"mine": 1, "sha256": "another's"})
    (about,) = await client.query("fs.files", {"_id": stored})
    assert about["metadata"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert (about["metadata"]["length"], about["metadata"]["mine"]) == (len(CONTENT), 1)
    await client.update_document("fs.files", {"_id": stored}, {"$set": {"metadata.sha256": "0" * 64}})
    (target := tmp_path / "there").mkdir()
    for resume in (False, True):
        with pytest.raises(Failed, match="its sha256 differs"):
            await client.download(stored, target, resume=resume)
    assert names_in(target) == []


@pytest.mark.parametrize("odd", [None, 5, "", "x" * 64, "0" * 63, ["0" * 64]])
async def test_a_hash_that_is_none_is_not_held_against_a_file(tmp_path: Path, odd: Any) -> None:
    async with odd_peer(Store(cuts=[], about={"sha256": odd})) as url, odd_client(url) as client:
        assert (await client.download("f", tmp_path)).read_bytes() == CONTENT


async def test_a_download_that_was_cut_goes_on(tmp_path: Path) -> None:
    store = Store(cuts=[3, 0, 7])
    async with odd_peer(store) as url, odd_client(url) as client:
        done = []
        for _ in range(3):
            with pytest.raises(TransferLost, match="download it again") as caught:
                await client.download("f", tmp_path, resume=True)
            assert caught.value.partial == tmp_path / KEPT
            assert names_in(tmp_path) == [KEPT]
            done.append(caught.value.done)
        arrived = await client.download("f", tmp_path, resume=True)
    assert done == [3 * CHUNK, 0, 7 * CHUNK]
    assert arrived.read_bytes() == CONTENT
    assert names_in(tmp_path) == ["f.bin"]


async def test_without_resume_nothing_is_left_of_a_download_that_was_cut(tmp_path: Path) -> None:
    async with odd_peer(Store(cuts=[3])) as url, odd_client(url) as client:
        with pytest.raises(ConnectionLost) as caught:
            await client.download("f", tmp_path)
    assert not isinstance(caught.value, TransferLost)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "kept",
    [
        CONTENT[: 2 * CHUNK],
        CONTENT[:12345],
        b"",
        CONTENT,
        CONTENT + b"more than there is",
        b"x" + CONTENT[1:],
        CONTENT[: 2 * CHUNK] + b"x" * CHUNK,
        os.urandom(len(CONTENT) + 5),
    ],
    ids=["parts", "uneven", "empty", "all", "longer", "first byte", "third part", "another file"],
)
async def test_whatever_was_kept_the_file_is_right(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / KEPT).write_bytes(kept)
    async with odd_peer(Store(cuts=[])) as url, odd_client(url) as client:
        assert (await client.download("f", tmp_path, resume=True)).read_bytes() == CONTENT
    assert names_in(tmp_path) == ["f.bin"]


def test_what_was_kept_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"abcdef")
    (tmp_path / "kept").chmod(0o600)
    before = (tmp_path / "kept").stat().st_mtime_ns
    arrival = Arrival(tmp_path, keep_as="kept")
    arrival.write(b"abc")
    arrival.write(b"def")
    assert (tmp_path / "kept").stat().st_mtime_ns == before
    arrival.write(b"ghi")
    assert arrival.sha256 == hashlib.sha256(b"abcdefghi").hexdigest()
    assert arrival.land("done").read_bytes() == b"abcdefghi"


async def test_one_file_is_downloaded_once_at_a_time(tmp_path: Path) -> None:
    arrival = Arrival(tmp_path, keep_as=KEPT)
    async with odd_peer(Store(cuts=[])) as url, odd_client(url) as client:
        with pytest.raises(Conflict, match="already"):
            await client.download("f", tmp_path, resume=True)
        arrival.leave()
        assert (await client.download("f", tmp_path, resume=True)).read_bytes() == CONTENT


async def test_a_download_that_is_given_up_and_resumed(client: Client, tmp_path: Path) -> None:
    (source := tmp_path / "s").write_bytes(os.urandom(20 << 20))
    stored = await client.upload(source)
    (target := tmp_path / "there").mkdir()
    begun = asyncio.Event()
    download = asyncio.create_task(client.download(stored, target, resume=True, progress=lambda *_: begun.set()))
    await begun.wait()
    download.cancel()
    with pytest.raises(asyncio.CancelledError):
        await download
    assert names_in(target) == [f".download-{stored}.part"]
    assert (await client.download(stored, target, resume=True)).read_bytes() == source.read_bytes()


async def test_an_upload_whose_answer_was_lost_is_found_and_not_stored_twice(tmp_path: Path) -> None:
    stored: list[dict[str, Any]] = []
    uploads = 0

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        nonlocal uploads
        if isinstance(message, pb.UploadRequest):
            uploads += 1
            stored.append({"_id": f"f{uploads}", "length": 5, "metadata": json.loads(message.metadata)})
        elif isinstance(message, pb.EndStream):
            await peer.close()
        elif isinstance(message, pb.QueryRequest):
            wanted = json.loads(message.query)
            found = [
                file for file in stored
                if all(file["metadata"].get(key.removeprefix("metadata.")) == value for key, value in wanted.items())
            ]  # fmt: skip
            await peer.send("queryreply", pb.QueryResponse(results=json.dumps(found)), rid=envelope.id)

    (source := tmp_path / "f").write_bytes(b"12345")
    async with odd_peer(behave) as url, odd_client(url) as client:
        with pytest.raises(TransferLost, match="with the same upload_id") as caught:
            await client.upload(source)
        assert await client.upload(source, upload_id=caught.value.upload_id) == "f1"
        assert uploads == 1
        source.write_bytes(b"54321")  # what has changed is another upload
        with pytest.raises(TransferLost):
            await client.upload(source, upload_id=caught.value.upload_id)
        assert uploads == 2


async def test_an_upload_that_is_repeated_is_stored_once_at_a_hub(client: Client, tmp_path: Path) -> None:
    (source := tmp_path / "f").write_bytes(CONTENT)
    upload_id = new_id()
    first = await client.upload(source, upload_id=upload_id)
    assert await client.upload(source, upload_id=upload_id) == first
    assert await client.count("fs.files", {"metadata.uploadid": upload_id}) == 1
    assert await client.upload(source) != first


async def test_a_file_that_changes_on_the_way_is_not_kept(tmp_path: Path) -> None:
    deleted: list[str] = []
    (source := tmp_path / "changing").write_bytes(CONTENT)

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        if isinstance(message, pb.UploadRequest):  # it was measured; what is read next is something else
            source.write_bytes(CONTENT[::-1])
        elif isinstance(message, pb.EndStream):
            await peer.send("uploadreply", pb.UploadResponse(id="f"), rid=envelope.rid)
        elif isinstance(message, pb.DeleteOneRequest):
            deleted.append(message.id)
            await peer.send("deleteonereply", pb.DeleteOneResponse(affectedrows=1), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url) as client:
        with pytest.raises(Failed, match="changed while it was being uploaded"):
            await client.upload(source)
    assert deleted == ["f"]
