"""Single requests over HTTP, by the facts of the protocol and against a real hub."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from jupyter_agent.errors import AgentError, InvalidInput, ProtocolError, ServerRefused, SignInFailed, Unavailable
from jupyter_agent.openflow.client import Credentials, Workitem, WorkitemFile
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.rest import Rest, fields_of
from tests.certificates import authority, identity
from tests.openflow_peers import Hub


@dataclass
class Web:
    """A web server that gives one answer to everything, and keeps what it was sent."""

    answer: Callable[[dict[str, Any]], tuple[int, str]]
    url: str = ""
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        self.requests.append((head[0], headers, body))
        status, text = self.answer(body)
        data = text.encode()
        location = "Location: http://127.0.0.1:1/elsewhere\r\n" if status == 307 else ""
        writer.write(f"HTTP/1.1 {status} X\r\n{location}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        writer.close()


@contextlib.asynccontextmanager
async def web(answer: Callable[[dict[str, Any]], tuple[int, str]], **options: Any) -> AsyncIterator[Web]:
    site = Web(answer)
    server = await asyncio.start_server(site.attend, "127.0.0.1", 0, **options)
    site.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield site


def envelope(command: str, message: Message, **fields: Any) -> str:
    """An answer as the real server gives it."""
    data = {
        "type_url": "type.googleapis.com/openiap.X",
        "value": {"type": "Buffer", "data": list(message.SerializeToString())},
    }
    return json.dumps({"command": command, "seq": 0, "id": "a", "rid": "b", "data": data, **fields})


def rest(url: str, **options: Any) -> Rest:
    return Rest(url, Credentials(jwt="token"), **options)


async def test_a_request_is_posted_as_the_protocol_says() -> None:
    async with web(lambda _: (200, envelope("queryreply", pb.QueryResponse(results='[{"a": 1}]')))) as site:
        assert await rest(site.url).query("c", {"x": 1}, top=5) == [{"a": 1}]
        await rest(site.url.replace("http", "ws") + "/ws/v2").query("c", {}, jwt="other")
    (line, headers, body), (_, other, _) = site.requests
    assert line == "POST /api/v2 HTTP/1.1"
    assert (headers["authorization"], other["authorization"]) == ("Bearer token", "Bearer other")
    assert body["command"] == "query"
    assert body["id"]
    assert json.loads(body["data"]) == {"query": '{"x":1}', "collectionname": "c", "top": 5}


async def test_times_and_files_have_a_form_in_json() -> None:
    reply = pb.PushWorkitemResponse(workitem=pb.Workitem(_id="1"))
    due = datetime(2030, 1, 1, tzinfo=UTC)
    async with web(lambda _: (200, envelope("pushworkitemreply", reply))) as site:
        item = Workitem(nextrun=due, files=(WorkitemFile("a", content=b"\xff\0"),))
        assert (await rest(site.url).push_workitem("w", item)).id == "1"
    sent = json.loads(site.requests[0][2]["data"])
    assert sent["nextrun"] == {"seconds": int(due.timestamp()), "nanos": 1_000_000}
    assert sent["files"] == [{"filename": "a", "file": base64.b64encode(b"\xff\0").decode()}]
    assert fields_of(pb.WatchRequest(paths=["a", "b"])) == {"paths": ["a", "b"]}


async def test_data_may_be_base64_too() -> None:
    value = base64.b64encode(pb.CountResponse(result=5).SerializeToString()).decode()
    answer = json.dumps({"command": "countreply", "data": {"value": value}})
    async with web(lambda _: (200, answer)) as site:
        assert await rest(site.url).count("c", {}) == 5


ERROR = pb.ErrorResponse(message="Access denied", stack="/srv/app/x.js:1")


@pytest.mark.parametrize(
    ("status", "text", "kind", "said"),
    [
        (200, envelope("error", ERROR), ServerRefused, "Access denied"),
        (500, envelope("error", ERROR), ServerRefused, "Access denied"),
        (200, envelope("error", pb.ErrorResponse()), ServerRefused, "refused a count"),
        (401, "", SignInFailed, "refused the token"),
        (403, "<html>", SignInFailed, "refused the token"),
        (404, "<html>", Unavailable, "HTTP 404"),
        (307, "", Unavailable, "HTTP 307"),
        (429, "", Unavailable, "limit"),
        (502, "[]", Unavailable, "HTTP 502"),
        (200, "", ProtocolError, ""),
        (200, "<html>", ProtocolError, ""),
        (200, "[]", ProtocolError, "something else"),
        (200, "{}", ProtocolError, "something else"),
        (200, envelope("queryreply", pb.QueryResponse()), ProtocolError, "something else"),
        (200, '{"command": "countreply", "data": {"value": "!"}}', ProtocolError, "data is none"),
        (200, '{"command": "countreply", "data": {"value": {"data": [999]}}}', ProtocolError, "data is none"),
        (200, '{"command": "countreply", "data": {"value": {"data": "x"}}}', ProtocolError, ""),
        (200, '{"command": "countreply", "data": {"value": 99999999999999}}', ProtocolError, "data is none"),
        (200, '{"command": "countreply", "data": {"value": {"data": [255]}}}', ProtocolError, "decoded"),
    ],
)
async def test_what_is_no_answer_is_a_typed_error(status: int, text: str, kind: type[AgentError], said: str) -> None:
    async with web(lambda _: (status, text)) as site:
        with pytest.raises(kind) as caught:
            await rest(site.url).count("c", {})
    assert said in str(caught.value)
    assert "/srv" not in str(caught.value)
    assert "token" not in str(caught.value).replace("the token", "")
    assert len(site.requests) == 1  # and nothing followed a redirect


async def test_a_request_that_exceeded_the_limit_is_made_again() -> None:
    limit = envelope("error", pb.ErrorResponse(message="Rate limit exceeded consumedPoints: 31"))
    answers = [limit, envelope("countreply", pb.CountResponse(result=3))]
    async with web(lambda _: (200, answers.pop(0))) as site:
        assert await rest(site.url).count("c", {}) == 3


async def test_a_server_that_is_not_there_or_does_not_answer_is_told() -> None:
    async with web(lambda _: (200, "")) as site:
        pass
    with pytest.raises(Unavailable, match="cannot be reached"):
        await rest(site.url).count("c", {})

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Unavailable, match="did not answer a count within"):
            await rest(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=0.5).count("c", {})


async def test_an_answer_that_breaks_off_is_told() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Unavailable):
            await rest(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}").count("c", {})


async def test_certificates_are_verified_here_too(tmp_path: Path) -> None:
    reply = envelope("countreply", pb.CountResponse(result=1))
    async with web(lambda _: (200, reply), ssl=identity(tmp_path, "good")) as site:
        url = site.url.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(Unavailable, match=r"c\.Agent\.ca_file"):
            await rest(url).count("c", {})
        assert await rest(url, ca_file=authority(tmp_path)).count("c", {}) == 1
    assert len(site.requests) == 1


def test_what_cannot_be_asked_this_way_is_refused_at_once() -> None:
    with pytest.raises(InvalidInput, match="http or ws address"):
        rest("grpc://h")
    with pytest.raises(InvalidInput, match="with a token"):
        Rest("http://h", Credentials(username="u", password="p"))
    assert "token" not in repr(rest("http://h"))


# Against a hub


async def test_a_hub_answers_single_requests(hub: Hub) -> None:
    asker = Rest(hub.url, Credentials(jwt=hub.ready["jwt"]))
    stored = await asker.insert_one("entities", {"name": "n", "at": datetime(2024, 1, 1, tzinfo=UTC)})
    assert [found["_id"] for found in await asker.query("entities", {"name": "n"})] == [stored["_id"]]
    assert await asker.count("entities", {"name": "n"}) == 1
    done = await asker.update_document("entities", {"name": "n"}, {"$set": {"seen": True}})
    assert (done.matched, done.modified) == (1, 1)
    with pytest.raises(ServerRefused):
        await asker.update_one("entities", {"_id": "0" * 24, "name": "none"})


async def test_a_hub_refuses_a_token_that_is_none(hub: Hub) -> None:
    with pytest.raises(AgentError) as caught:
        await Rest(hub.url, Credentials(jwt="nonsense")).count("entities", {})
    assert isinstance(caught.value, SignInFailed | ServerRefused)
