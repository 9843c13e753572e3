"""Requests to the API that no decent client makes: each is answered 4xx with one sentence."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from jupyter_agent.api.values import LONGEST_SCALAR, RunBody, yaml_scalar
from jupyter_agent.errors import InvalidInput
from jupyter_agent.home import AgentClient
from tests.agent_peers import agent_of
from tests.openflow_peers import Hub

NESTED = b'{"target": "x", "parameters": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}}"
KEYED = b'{"target": "/no-such-file", "key": "k"}'


@pytest.fixture(scope="module")
def agent(hub: Hub) -> Iterator[AgentClient]:
    with agent_of(hub) as (_, running):
        yield running


def answer(agent: AgentClient, method: str, path: str, body: bytes = b"", *headers: str) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    lines = [f"{method} /api/v1/{path} HTTP/1.0", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(agent.socket)
        connection.sendall("\r\n".join(lines).encode("latin-1") + body)
        data = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, rest = data.partition(b"\r\n\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in head + b"\r\n"  # as HTML, a name that comes back is a script
    return int(head.split()[1]), json.loads(rest)


def check(status: int, told: Any) -> None:
    assert 400 <= status < 500
    assert set(told) == {"message", "reason"}
    assert told["message"].strip().endswith(".")
    assert "\n" not in told["message"]
    assert "Traceback" not in told["message"]
    assert len(told["message"]) < 400


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{", b"\xff", b'{"target": "\xff"}', b'{"target": "\\ud800"}', b'{"target": 5}',
        b'{"target": ""}', b'{"target": "x", "surprise": 1}', b'{"target": "x", "parameters": []}',
        b'{"target": "x", "parameters": {"a": NaN}}', b'{"target": "x", "parameters": {"a": 1e999}}',
        b'{"target": "x", "parameters": {"a": ' + b"9" * 5000 + b"}}", NESTED,
        b'{"target": "x", "parameters_yaml": {"a": 5}}', b'{"target": "x", "timeout_s": 0}',
        b'{"target": "x", "timeout_s": true}', b'{"target": "x", "timeout_s": "5"}',
        b'{"target": "x", "memory_mb": 99999999999999999999}', b'{"target": "x", "memory_mb": 1.5}',
        b'{"target": "x", "retries": 101}', b'{"target": "x", "retries": -1}', b'{"target": "x", "retries": 1.5}',
        b'{"target": "x", "retry_delay_s": -1}', b'{"target": "x", "retry_delay_s": 1e9}',
        b'{"target": "x", "priority": 1001}', b'{"target": "x", "priority": null}', b'{"target": "x", "key": ""}',
        b'{"target": "x", "key": "' + b"k" * 201 + b'"}', b'{"target": "x", "isolated": "yes"}',
    ],
)  # fmt: skip
def test_bodies_that_cannot_be_used(agent: AgentClient, body: bytes) -> None:
    status, told = answer(agent, "POST", "runs", body)
    assert status == 400, told
    check(status, told)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "nothing", 404), ("GET", "runs//cancel", 404), ("GET", "runs/%00", 404), ("GET", "runs/%ff", 400),
        ("GET", "runs/%2e%2e%2fx", 404), ("GET", "runs/%27%20OR%201=1", 404), ("GET", "runs/" + "x" * 20_000, 404),
        ("GET", "runs?limit=x", 400), ("GET", "runs?limit=-1", 400), ("GET", "runs?limit=99999999999", 400),
        ("GET", "runs?limit=%D9%A3", 400), ("GET", "runs?state=nope", 400), ("GET", "runs?package=%ff", 400),
        ("GET", "runs/x/output?offset=1e9", 400), ("GET", "runs/x/artifacts/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "packages/%7B%22$gt%22:1%7D", 404), ("GET", "packages/..", 404), ("GET", "agents/%00", 404),
        ("GET", "agents/%ff/runs", 400), ("DELETE", "runs/x", 405), ("PUT", "runs", 405), ("POST", "status", 405),
        ("BREW", "status", 405), ("POST", "runs/x/rerun", 404), ("POST", "runs/x/cancel", 404),
        ("GET", "environments/nothing", 404), ("GET", "environments/%00", 404), ("GET", "environments/%2Fetc", 404),
        ("GET", "environments/" + "x" * 20_000, 404), ("DELETE", "environments/nothing", 404),
        ("DELETE", "environments/%2Fetc", 404), ("PUT", "environments", 405), ("GET", "environments/gc", 405),
        ("GET", "environments/%ff", 400), ("POST", "environments/..%2f..%2fetc/repair", 404),
        ("POST", "packages/x/prepare", 404), ("POST", "packages/x/reinstall", 404), ("DELETE", "packages/x", 404),
    ],
)  # fmt: skip
def test_paths_and_queries_that_lead_nowhere(agent: AgentClient, method: str, path: str, status: int) -> None:
    got, told = answer(agent, method, path)
    if path.startswith("runs/x/output"):
        assert got in (400, 404)
    else:
        assert got == status, told
    check(got, told)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("environments", b""),
        ("environments", b'{"file": "relative.yml"}'),
        ("environments", b'{"file": "/no.yml"}'),
        ("environments", b'{"file": "/etc"}'),
        ("environments", b'{"file": "/dev/null"}'),
        ("environments", b'{"file": "/etc/passwd"}'),
        ("environments", b'{"file": "/a\\u0000b"}'),
        ("environments", b'{"file": "/' + b"x" * 5000 + b'"}'),
        ("environments", b'{"file": "/x", "template": "minimal"}'),
        ("environments", b'{"name": "environment.yml"}'),
        ("environments", b'{"text": "dependencies: [python]"}'),
        ("environments", b'{"template": "nothing"}'),
        ("environments", b'{"template": "../minimal"}'),
        ("environments", b'{"name": "environment.yml", "text": "- a list"}'),
        ("environments", b'{"name": "environment.yml", "text": "dependencies: [[["}'),
        ("environments", b'{"name": "photo.png", "text": "x"}'),
        ("environments", b'{"name": "a/b", "text": ""}'),
        ("environments", b'{"name": "environment.yml", "text": "' + b"x" * 1_000_001 + b'"}'),
        ("environments", b'{"file": "/x", "from_pypi": "yes"}'),
        ("environments", b'{"file": "/x", "offline": 1}'),
        ("environments", b'{"file": "/x", "surprise": 1}'),
        ("environments/lock", b"{}"),
        ("environments/lock", b'{"file": "environment.yml"}'),
        ("environments/lock", b'{"file": "/no/environment.yml"}'),
        ("environments/lock", b'{"file": "/x", "platforms": ["linux"]}'),
        ("environments/lock", b'{"file": "/x", "platforms": "linux-64"}'),
        ("environments/lock", b'{"file": "/x", "output": "here.yml"}'),
        ("environments/channel", b'{"requirements": [], "folder": "/tmp/x"}'),
        ("environments/channel", b'{"requirements": ["six"], "folder": "x"}'),
        ("environments/channel", b'{"requirements": ["six"], "folder": "/dev/null"}'),
        ("environments/channel", b'{"requirements": ["six"], "folder": "/etc"}'),
        ("environments/channel", b'{"requirements": ["/no/requirements.txt"], "folder": "/tmp/x"}'),
        ("environments/channel", b'{"requirements": ["-e ."], "folder": "/tmp/x"}'),
        ("environments/channel", b'{"requirements": "six", "folder": "/tmp/x"}'),
        ("environments/gc", b'{"days": -1}'),
        ("environments/gc", b'{"days": 1e999}'),
        ("environments/gc", b'{"days": "x"}'),
        ("environments/gc", b'{"dry_run": "no"}'),
        ("environments/x/verify", b""),
        ("environments/x/repair", b""),
        ("environments/%00/verify", b""),
        ("environments/%2Fetc/repair", b""),
        ("runs", b'{"target": "/etc/passwd", "environment": ""}'),
        ("runs", b'{"target": "x", "environment": 5}'),
        ("runs", b'{"target": "x", "from_pypi": "pypi"}'),
        ("runs/x/rerun", b'{"from_pypi": "yes"}'),
        ("packages/x/prepare", b'{"offline": "yes"}'),
    ],
)
def test_environments_that_cannot_be(agent: AgentClient, path: str, body: bytes) -> None:
    status, told = answer(agent, "POST", path, body)
    assert status in (400, 404, 409), told
    check(status, told)
    assert agent.request("GET", "runs?limit=1")["runs"] == [], "nothing was begun"


@pytest.mark.parametrize("path", ["runs/x/cancel", "packages/x/prepare", "packages/x/reinstall"])
@pytest.mark.parametrize("body", [b'{"x": 1}', b"nonsense", b"[]"])
def test_requests_that_need_no_body_take_none(agent: AgentClient, path: str, body: bytes) -> None:
    status, told = answer(agent, "POST", path, body)
    assert status == 400
    check(status, told)


@pytest.mark.parametrize(
    ("header", "body"), [("", b'{"target": "/no"}'), ("x" * 201, b'{"target": "/no"}'), ("other", KEYED), ('""', KEYED)]
)
def test_keys_in_a_header(agent: AgentClient, header: str, body: bytes) -> None:
    status, told = answer(agent, "POST", "runs", body, f"Idempotency-Key: {header}")
    assert status == 400
    check(status, told)
    assert RunBody(key=None).key_of('"quoted"') == "quoted"
    assert RunBody(key="k").key_of("k") == RunBody(key="k").key_of(None) == "k"


def test_a_body_that_is_too_large(agent: AgentClient) -> None:
    status, told = answer(agent, "POST", "runs", b'{"target": "' + b"x" * (17 << 20) + b'"}')
    assert (status, told["message"]) == (413, "A request holds at most 16 MiB.")
    status, told = answer(
        agent, "POST", "runs", b'{"target": "/no", "parameters": {"a": [' + b"1," * (4 << 20) + b"1]}}"
    )
    assert status == 404
    assert agent.request("GET", "status")["connected"]


@pytest.mark.parametrize(
    "text", ["[" * 5000, "{" * 5000, "x: " * 1000, "*a", "&a [*a]", "\x00", "!!python/name:os.system"]
)
def test_texts_that_are_no_scalars_stay_texts(text: str) -> None:
    assert yaml_scalar(text) == text
    with pytest.raises(InvalidInput):
        RunBody.parse(b'{"parameters_yaml": {"a": 1}}')


def test_a_long_text_is_not_read_as_yaml() -> None:
    quoted = "'" + "x" * LONGEST_SCALAR + "'"
    assert yaml_scalar(quoted) == quoted
    assert yaml_scalar("'short'") == "short"
