"""The hub over plain HTTP: REST forms and downloads."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from google.protobuf.message import Message

from jupyter_agent.errors import InvalidInput
from jupyter_agent.hub.network.download import Part, disposition, part_of
from jupyter_agent.hub.network.plain import message_of, plain_result
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import reply_type
from tests.hub_http import Answer, bearer, send
from tests.hub_peers import hub_on_a_new_home, user_of
from tests.openflow_peers import Hub

MIB = 1 << 20


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with hub_on_a_new_home() as running:
        running.add_user("ann", "the password of ann")
        yield running


def plain(hub: Hub, command: str, request: Any, token: str | None = None) -> Answer:
    return send(
        hub,
        "POST",
        f"/rest/v1/{command}",
        request,
        Authorization=bearer(hub.ready["jwt"] if token is None else token),
    )


def result(hub: Hub, command: str, /, **request: Any) -> Any:
    """The result in the answer's JSON in JSON."""
    answer = plain(hub, command, request)
    assert answer.status == 200, answer.text
    return json.loads(answer.json)["result"]


def enveloped(hub: Hub, command: Any, data: Any = None, *, token: str = "", **more: Any) -> tuple[str, Any]:
    """The command and the message of the envelope that answers."""
    headers = {"Authorization": bearer(token)} if token else {}
    answer = send(hub, "POST", "/api/v2", {"command": command, "id": "x1", "data": data, **more}, **headers)
    assert answer.status == 200, answer.text
    envelope = answer.json
    assert envelope["rid"] == "x1"
    assert envelope["data"]["value"]["type"] == "Buffer"
    kind: type[Message] | None = pb.ErrorResponse if envelope["command"] == "error" else reply_type(str(command))
    assert kind is not None
    assert envelope["data"]["type_url"] == f"type.googleapis.com/{kind.DESCRIPTOR.full_name}"
    return envelope["command"], kind.FromString(bytes(envelope["data"]["value"]["data"]))


# Envelopes


def test_an_envelope_as_json_is_answered_with_one(hub: Hub) -> None:
    data = json.dumps({"collectionname": "enveloped", "item": json.dumps({"name": "ä"})})
    command, reply = enveloped(hub, "insertone", data, token=hub.ready["jwt"])
    assert command == "insertonereply"
    assert json.loads(reply.result)["name"] == "ä"
    _, reply = enveloped(hub, "query", '{"collectionname": "enveloped", "query": "{}"}', token=hub.ready["jwt"])
    assert [document["name"] for document in json.loads(reply.results)] == ["ä"]


@pytest.mark.parametrize("form", ["javascript", "bytes alone", "base64", "plain JSON"])
def test_the_data_may_come_in_other_forms(hub: Hub, form: str) -> None:
    encoded = pb.CountRequest(collectionname="none", query="{}").SerializeToString()
    buffer = {"type": "Buffer", "data": list(encoded)}
    url = "type.googleapis.com/openiap.CountRequest"
    data = {
        "javascript": {"type_url": url, "value": buffer},
        "bytes alone": buffer,
        "base64": {"type_url": url, "value": base64.b64encode(encoded).decode()},
        "plain JSON": {"collectionname": "none", "query": {}},
    }[form]
    command, reply = enveloped(hub, "count", data, token=hub.ready["jwt"])
    assert (command, reply.result) == ("countreply", 0)


def test_long_answers_are_what_short_ones_are(hub: Hub) -> None:
    item = {"_id": "long", "text": "é" * 600_000}
    assert result(hub, "InsertOne", collectionname="long answers", item=item)["text"] == item["text"]
    (found,) = result(hub, "Query", collectionname="long answers", query={})
    assert found["text"] == item["text"]


def test_the_token_may_stand_in_the_envelope(hub: Hub) -> None:
    assert enveloped(hub, "count", '{"collectionname": "t"}', jwt=hub.ready["jwt"])[0] == "countreply"


def test_a_sign_in_gives_a_token(hub: Hub) -> None:
    _, reply = enveloped(hub, "signin", {"username": "ann", "password": "the password of ann", "longtoken": True})
    assert reply.user.username == "ann"
    assert enveloped(hub, "count", {"collectionname": "t"}, token=reply.jwt)[0] == "countreply"


@pytest.mark.parametrize(
    ("command", "data", "sentence"),
    [
        ("query", {"collectionname": "t"}, "Not signed in, and missing jwt"),
        ("nosuch", {}, "no such type: openiap.nosuch"),
        ("", {}, "no such type: openiap."),
        ("query", "[", "The request is not valid JSON"),
        ("query", 5, "The data of an envelope must be the request, as JSON or as JSON text."),
        ("query", {"type": "Buffer", "data": [255, 255]}, "The data of a query could not be decoded."),
        ("query", {"type": "Buffer", "data": [256]}, "Bytes must be"),
        ("query", {"type_url": "x", "value": {"a": 1}}, "Bytes must be"),
        ("query", {"top": "many"}, "This is no Query: "),
        ("watch", {}, "The command watch needs a connection"),
        ("upload", {}, "The command upload needs a connection"),
    ],
)
def test_what_is_wrong_is_told_in_an_envelope(hub: Hub, command: str, data: Any, sentence: str) -> None:
    answer, error = enveloped(hub, command, data)
    assert answer == "error"
    assert error.message.startswith(sentence)
    assert "\n" not in error.message


def test_noop_needs_nobody(hub: Hub) -> None:
    answer = send(hub, "POST", "/api/v2", {"command": "noop"})
    assert (answer.status, answer.json["command"]) == (200, "noop")


# Plain JSON


def test_plain_json(hub: Hub) -> None:
    inserted = result(hub, "InsertOne", collectionname="plain", item={"name": "a", "n": 1})
    assert result(hub, "query", collectionname="plain", query='{"name": "a"}', orderby={"n": -1}) == [inserted]
    assert result(hub, "Count", collectionname="plain", query={}) == 1
    update = {"collectionname": "plain", "query": {}, "document": {"$set": {"n": 2}}}
    assert result(hub, "UpdateDocument", **update)["modifiedCount"] == 1
    assert result(hub, "DeleteMany", collectionname="plain", query={"n": 2}, ids=[]) == 1
    assert result(hub, "CustomCommand", command="nosuch") == ""


@pytest.mark.parametrize(
    ("command", "given", "token", "status", "sentence"),
    [
        ("Query", {"collectionname": "t"}, "", 401, "Not signed in, and missing jwt"),
        ("Query", {"collectionname": "t"}, "x.y.z", 401, "Discard signin due to invalid or expired jwt"),
        ("Query", {"collectionname": "t", "query": "{"}, None, 400, "The query is not valid JSON"),
        ("Nosuch", {}, None, 400, "no such type: openiap.Nosuch"),
        ("Query", [], None, 400, "The request must be a JSON object."),
        ("RegisterQueue", {}, None, 400, "The command registerqueue needs a connection"),
        ("StartAgent", {"agentid": "a"}, None, 400, "The command startagent is not offered: "),
        ("InsertOne", {"collectionname": "t", "item": []}, None, 400, ""),
    ],
)
def test_what_is_wrong_has_a_status_and_a_sentence(
    hub: Hub,
    *,
    command: str,
    given: Any,
    token: str | None,
    status: int,
    sentence: str,
) -> None:
    answer = plain(hub, command, given, token)
    assert answer.status == status, answer.text
    assert answer.sentence.startswith(sentence)


def test_a_duplicate_is_a_conflict(hub: Hub) -> None:
    plain(hub, "InsertOne", {"collectionname": "t", "item": {"_id": "one"}})
    assert plain(hub, "InsertOne", {"collectionname": "t", "item": {"_id": "one"}}).status == 409


def test_times_and_bytes_come_as_javascript_sends_them() -> None:
    given = {
        "wiq": "q",
        "payload": {"a": [1]},
        "nextrun": {"seconds": 1_700_000_000, "nanos": 5_000_000},
        "files": [{"filename": "x", "file": {"type": "Buffer", "data": [1, 2, 255]}}],
        "unknown": 1,
    }
    made = message_of(pb.PushWorkitemRequest, given)
    assert made.payload == '{"a":[1]}'
    assert (made.nextrun.seconds, made.nextrun.nanos) == (1_700_000_000, 5_000_000)
    assert made.files[0].file == b"\x01\x02\xff"


@pytest.mark.parametrize(
    "values",
    [{"top": 2**40}, {"top": True}, {"top": {}}, {"query": True}, {"top": [1]}, {"top": 1.5}],
)
def test_values_of_another_kind_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"^This is no Query: [^\n]*[^.]\.$"):
        message_of(pb.QueryRequest, values)


def test_a_result_is_what_was_asked_for() -> None:
    assert plain_result(pb.QueryResponse(results='[{"a": 1}]')) == [{"a": 1}]
    assert plain_result(pb.CountResponse()) == 0
    assert plain_result(pb.CreateIndexResponse(result="5")) == "5"
    assert plain_result(pb.DistinctResponse(results=["5"])) == ["5"]
    assert plain_result(pb.PopWorkitemResponse()) is None
    assert plain_result(pb.SigninResponse(jwt="x"))["jwt"] == "x"


# What no client of ours would send


@pytest.mark.parametrize("path", ["/api/v2", "/rest/v1/Query"])
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"{}", "application/x-www-form-urlencoded", 415),
        (b"{}", "", 415),
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"NaN", "application/json", 400),
        (b'{"a": NaN}', "application/json", 400),
        (b"null", "application/json", 400),
        (b'{"a": "\\ud800"}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"command": 5}', "application/json; charset=utf-8", 400),
    ],
)
def test_bodies_that_are_no_request(hub: Hub, path: str, body: bytes, kind: str, status: int) -> None:
    answer = send(hub, "POST", path, body, Content_Type=kind)
    if path == "/rest/v1/Query" and b"command" in body:
        status = 401
    assert answer.status == status, answer.text
    assert "\n" not in answer.sentence


def test_who_is_not_known_may_send_little(hub: Hub) -> None:
    body = json.dumps({"collectionname": "t", "query": "{}", "more": " " * (2 * MIB)}).encode()
    for token in ("", "x.y.z"):
        answer = send(hub, "POST", "/rest/v1/Count", body, Content_Type="application/json", Authorization=bearer(token))
        assert (answer.status, answer.sentence) == (413, "A request without a valid token can have up to 1 MiB.")
    assert plain(hub, "Count", json.loads(body)).status == 200


def test_huge_bodies_are_refused_and_not_kept(hub: Hub) -> None:
    assert hub.process is not None
    before = psutil.Process(hub.process.pid).memory_info().rss
    body = b" " * (192 * MIB)
    answer = send(hub, "POST", "/api/v2", body, Content_Type="application/json", Authorization=bearer(hub.ready["jwt"]))
    assert (answer.status, answer.sentence) == (413, "A request with a valid token can have up to 64 MiB.")
    assert psutil.Process(hub.process.pid).memory_info().rss < before + 150 * MIB


@pytest.mark.parametrize("path", ["/api/v2", "/rest/v1/Query", "/AddTokenRequest", "/login", "/download/x", "/jwt"])
def test_no_other_site_gets_in(hub: Hub, path: str) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
        for method in ("GET", "POST"):
            answer = send(hub, method, path, b"{}", Content_Type="application/json", **headers)
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers


def test_there_is_no_cors_and_no_oidc(hub: Hub) -> None:
    host = urlsplit(hub.url).netloc
    answer = send(hub, "OPTIONS", "/api/v2", Origin=f"http://{host}", Access_Control_Request_Method="POST")
    assert answer.status == 405
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert send(hub, "GET", "/oidc/.well-known/openid-configuration").status == 404


# Downloads


async def uploaded(hub: Hub, content: bytes, filename: str, mimetype: str = "text/plain") -> str:
    path = hub.home / "content"
    path.write_bytes(content)
    async with hub.client() as client:
        await client.connected()
        return await client.upload(path, filename=filename, mimetype=mimetype)


async def test_a_file_is_downloaded(hub: Hub) -> None:
    content = os.urandom(3 * MIB + 17)
    file = await uploaded(hub, content, 'päckage, 1"\r\nX: y.tgz', "text/html")
    password = base64.b64encode(f"{hub.ready['username']}:{hub.ready['password']}".encode()).decode()
    for authorization in (bearer(hub.ready["jwt"]), f"jwt {hub.ready['jwt']}", f"Basic {password}"):
        answer = send(hub, "GET", f"/download/{file}", Authorization=authorization)
        assert (answer.status, answer.body == content) == (200, True)
    headers = answer.headers
    assert headers["Content-Length"] == str(len(content))
    assert headers["Content-Type"] == "text/html"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("sandbox")
    assert headers["Content-Disposition"].startswith('attachment; filename="p_ckage, 1_')
    assert "X" not in headers
    head = send(hub, "HEAD", f"/download/{file}", Authorization=bearer(hub.ready["jwt"]))
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(content)), b"")
    assert len(list((hub.home / "hub" / "files").iterdir())) >= 1


async def test_a_download_goes_on_where_it_broke_off(hub: Hub) -> None:
    content = os.urandom(700_000)
    file = await uploaded(hub, content, "x")
    url, token = f"/download/{file}", bearer(hub.ready["jwt"])
    whole = send(hub, "GET", url, Authorization=token)
    rest = send(hub, "GET", url, Authorization=token, Range="bytes=300000-", If_Range=whole.headers["ETag"])
    assert (rest.status, rest.body == content[300_000:]) == (206, True)
    assert rest.headers["Content-Range"] == "bytes 300000-699999/700000"
    assert send(hub, "GET", url, Authorization=token, Range="bytes=5-9").body == content[5:10]
    assert send(hub, "GET", url, Authorization=token, Range="bytes=5-", If_Range='"another"').body == content
    beyond = send(hub, "GET", url, Authorization=token, Range="bytes=700000-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, "bytes */700000")


def test_parts_of_a_file() -> None:
    whole = Part(0, 10)
    assert [part_of(10, text) for text in ("", "bytes=", "bytes=-", "bytes=x-", "rows=1-2", "bytes=1-2,4-5")] == [
        whole
    ] * 6
    assert part_of(10, "bytes=5-3") == whole
    assert part_of(10, "bytes=3-5") == Part(3, 6)
    assert part_of(10, "bytes=3-99") == Part(3, 10)
    assert part_of(10, "bytes=-4") == Part(6, 10)
    assert part_of(10, "bytes=-99") == whole
    assert part_of(10, "bytes=10-") is None
    assert part_of(10, "bytes=-0") is None
    assert part_of(0, "bytes=0-") is None


def test_names_of_downloads() -> None:
    assert disposition("a b.txt") == "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"
    assert disposition("../../etc/passwd").startswith('attachment; filename="passwd";')
    assert "\n" not in disposition('a"\r\n\\ö\ud800')


async def test_who_may_not_read_a_file_does_not_get_it(hub: Hub) -> None:
    file = await uploaded(hub, b"secret", "secret")
    wrong = base64.b64encode(b"ann:wrong").decode()
    right = base64.b64encode(b"ann:the password of ann").decode()
    for authorization, status in (
        ("", 401),
        (bearer("x.y.z"), 401),
        (f"Basic {wrong}", 401),
        ("Basic !", 401),
        ("Digest x", 401),
        (f"Basic {right}", 404),
    ):
        headers = {"Authorization": authorization} if authorization else {}
        answer = send(hub, "GET", f"/download/{file}", **headers)
        assert (answer.status, b"secret" in answer.body) == (status, False), answer.text
    missing = send(hub, "GET", "/download/000000000000000000000000", Authorization=f"Basic {right}")
    assert missing.status == 404
    assert missing.sentence.replace("0" * 24, file) == answer.sentence


async def test_a_content_that_is_lost_or_cut_is_no_download(hub: Hub) -> None:
    file = await uploaded(hub, bytes(600_000), "x")
    path = hub.home / "hub" / "files" / file
    os.truncate(path, 400_000)
    parts, token = urlsplit(hub.url), bearer(hub.ready["jwt"])
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        request = f"GET /download/{file} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: {token}\r\n\r\n"
        connection.sendall(request.encode())
        data = b""
        while part := connection.recv(65536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"Content-Length: 600000" in head
    assert len(body) == 400_000  # and then the connection was closed: a client sees that the rest is missing
    path.unlink()
    lost = send(hub, "GET", f"/download/{file}", Authorization=bearer(hub.ready["jwt"]))
    assert (lost.status, lost.sentence) == (404, f"The content of the file {file} is missing.")
    assert "attachment" not in lost.headers.get("Content-Disposition", "")


async def test_a_big_download_to_a_slow_reader_takes_no_memory(hub: Hub) -> None:
    assert hub.process is not None
    file = await uploaded(hub, bytes(96 * MIB), "big")
    before = psutil.Process(hub.process.pid).memory_info().rss
    parts, token = urlsplit(hub.url), bearer(hub.ready["jwt"])
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as slow:
        request = f"GET /download/{file} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: {token}\r\n\r\n"
        slow.sendall(request.encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        answer = send(hub, "GET", f"/download/{file}", Authorization=bearer(hub.ready["jwt"]))
        assert len(answer.body) == 96 * MIB
        assert psutil.Process(hub.process.pid).memory_info().rss < before + 32 * MIB


async def test_a_user_sees_over_http_what_they_see_over_the_wire(hub: Hub) -> None:
    async with user_of(hub, "bob") as bob:
        await bob.insert_one("rights", {"n": 1})
    token = enveloped(hub, "signin", {"username": "ann", "password": "the password of ann"})[1].jwt
    answer = plain(hub, "Query", {"collectionname": "rights", "query": "{}"}, token)
    assert json.loads(answer.json) == {"result": []}
