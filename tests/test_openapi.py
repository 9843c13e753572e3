"""The description of the API, the routes, the gate, and what a real agent answers: each holds the others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from tornado.web import RequestHandler

from jupyter_agent.api import values
from jupyter_agent.api.app import OPENAPI, ROUTES
from jupyter_agent.home import AgentClient, Exchange
from jupyter_agent.server.handlers import FORWARDED
from tests.agent_peers import agent_of, published
from tests.conftest import until
from tests.openflow_peers import Hub

DESCRIBED: dict[str, Any] = yaml.safe_load(OPENAPI.read_text())
METHODS = ("get", "post", "put", "patch", "delete")
GATES_OWN = {("/status", "get"), ("/shutdown", "post")}
"""The one is answered by the gate itself, the other is the socket's alone."""

BODIES: dict[str, type[values.Body]] = {
    "publishPackage": values.PublishBody,
    "run": values.TargetBody,
    "runPackage": values.RunBody,
    "runOnAgent": values.RemoteRunBody,
    "testPackageOnAgent": values.TestBody,
    "rerunRun": values.FetchBody,
    "preparePackage": values.FetchBody,
    "createEnvironment": values.CreateBody,
    "lockEnvironment": values.LockBody,
    "buildChannel": values.ChannelBody,
    "collectEnvironments": values.CollectBody,
}
LEAVES = """
import json, os
print("printed")
json.dump({"answer": 42}, open(os.environ["payloadfile"], "w"))
open("left.txt", "w").write("left")
"""


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (path, method): operation
        for path, item in DESCRIBED["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """What a reference leads to."""
    while "$ref" in schema:
        found: Any = DESCRIBED
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        schema = found
    return schema


def fields(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """An object's properties, with those of the schemas it is made of."""
    schema = resolved(schema)
    made: dict[str, dict[str, Any]] = {}
    for part in schema.get("allOf", []):
        made.update(fields(part))
    return {**made, **schema.get("properties", {})}


def undescribed(value: Any, schema: dict[str, Any], where: str = "") -> list[str]:
    """The fields of an answer that its description does not tell of."""
    schema = resolved(schema)
    if isinstance(value, list):
        return [found for each in value for found in undescribed(each, schema.get("items", {}), f"{where}[]")]
    choices = [choice for choice in schema.get("anyOf", []) if not faults(value, choice)]
    if choices:
        return min((undescribed(value, choice, where) for choice in choices), key=len)
    known = fields(schema)
    if not isinstance(value, dict) or not known:
        return []
    unknown = [f"{where}.{name}" for name in value if name not in known]
    for name in known.keys() & value.keys():
        unknown += undescribed(value[name], known[name], f"{where}.{name}")
    return unknown


def faults(value: Any, schema: dict[str, Any]) -> list[str]:
    """Where a value does not follow its schema."""
    whole = {**schema, "components": DESCRIBED["components"]}
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(whole).iter_errors(value)]


def test_the_schemas_are_schemas() -> None:
    for schema in DESCRIBED["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = [operation["operationId"] for operation in operations().values()]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] for operation in operations().values())


def test_all_references_lead_somewhere() -> None:
    text = OPENAPI.read_text()
    for reference in set(re.findall(r'"(#/components/[^"]+)"', text)):
        assert resolved({"$ref": reference})
    kinds = DESCRIBED["components"]
    for kind, named in kinds.items():
        for name in named:
            assert f'"#/components/{kind}/{name}"' in text, f"{kind}/{name} is not used"


def test_the_routes_are_those_described() -> None:
    told = {(re.sub(r"\{\w+\}", "{}", path), method) for path, method in operations()}
    served = {
        ("/" + re.sub(r"\([^)]*\)", "{}", path).replace("\\", ""), method)
        for path, handler in ROUTES
        for method in METHODS
        if getattr(handler, method) is not getattr(RequestHandler, method)
    }
    assert told - served == set(), "described, but not served"
    assert served - told == set(), "served, but not described"
    for path, item in DESCRIBED["paths"].items():
        for operation in (item[method] for method in METHODS if method in item):
            given = [resolved(each) for each in [*item.get("parameters", []), *operation.get("parameters", [])]]
            assert re.findall(r"\{(\w+)\}", path) == [each["name"] for each in given if each["in"] == "path"], path


def test_the_gate_forwards_what_is_described() -> None:
    told = {(re.sub(r"\{\w+\}", "x", path), method) for path, method in operations() if (path, method) not in GATES_OWN}
    for path, method in told:
        rules = [methods for rule, _, methods in FORWARDED if re.fullmatch(rule, path[1:])]
        assert len(rules) == 1, f"{path} is forwarded by {len(rules)} rules"
        assert method.upper() in rules[0].split(), f"the gate does not forward {method} {path}"
    for rule, _, methods in FORWARDED:
        matching = [(path, method) for path, method in told if re.fullmatch(rule, path[1:])]
        assert {method.upper() for _, method in matching} == set(methods.split()), rule


def test_the_bodies_are_those_described() -> None:
    for operation in operations().values():
        body = resolved(operation.get("requestBody", {}))
        if not body:
            continue
        schema = resolved(body["content"]["application/json"]["schema"])
        model = BODIES.get(operation["operationId"], values.NoBody)
        assert set(fields(schema)) == set(model.model_fields), operation["operationId"]
        required = {name for name, field in model.model_fields.items() if field.is_required()}
        assert set(schema.get("required", [])) == required, operation["operationId"]


class Asked:
    """An agent that is asked, and what has been; each answer is held against its description."""

    def __init__(self, agent: AgentClient) -> None:
        self.agent = agent
        self.done: set[tuple[str, str]] = set()

    def __call__(self, method: str, template: str, *names: str, body: object = None, query: str = "") -> Any:
        """The first of the values where the answer is lines."""
        parts = iter(names)
        path = re.sub(r"\{\w+\}", lambda _: next(parts), template)
        with Exchange(self.agent.socket, timeout_s=120) as exchange:
            exchange.send(method.upper(), f"/api/v1{path}{query}", None if body is None else json.dumps(body).encode())
            lines = "stream" in template or template == "/events"
            data = [exchange.readline()] if lines else list(exchange.pieces())
        operation = operations()[template, method]
        responses = operation["responses"]
        assert str(exchange.status) in responses or (exchange.status >= 400 and "default" in responses), data
        response = resolved(responses.get(str(exchange.status), responses.get("default")))
        if exchange.status < 400:
            self.done.add((template, method))
        schema = (
            response.get("content", {}).get("application/x-ndjson" if lines else "application/json", {}).get("schema")
        )
        if schema is None:
            return b"".join(data)
        value = json.loads(b"".join(data))
        assert faults(value, schema) == [], template
        assert undescribed(value, schema) == [], template
        return value


@pytest.fixture(scope="module")
def asked(hub: Hub) -> Iterator[Asked]:
    with agent_of(hub) as (_, agent):
        yield Asked(agent)


def over(asked: Asked, template: str, *names: str) -> dict[str, Any]:
    def run() -> dict[str, Any] | None:
        found: dict[str, Any] = asked("get", template, *names)
        return found if found["ended"] else None

    ended: dict[str, Any] = until(run, what=f"{names} ends")
    return ended


def test_what_is_answered_is_as_described(asked: Asked, hub: Hub, channel: Path, tmp_path: Path) -> None:
    """Every operation once, with success."""
    (tmp_path / "long").mkdir()
    published(asked.agent, tmp_path / "long", "import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    (tmp_path / "leaves").mkdir()
    package = published(asked.agent, tmp_path / "leaves", LEAVES)
    ask_of_packages_and_runs(asked, package, tmp_path)
    ask_of_environments(asked, channel, tmp_path)
    with agent_of(hub) as (_, other):
        ask_of_agents(asked, other.request("GET", "status")["slug"])
    asked("delete", "/packages/{package}", package)
    assert asked("get", "/packages/{package}", package)["reason"] == "NotFound"
    asked("post", "/shutdown")
    assert asked.done == set(operations())


def ask_of_packages_and_runs(asked: Asked, package: str, folder: Path) -> None:
    asked("get", "/status")
    asked("get", "/events")
    assert yaml.safe_load(asked("get", "/openapi.yaml")) == DESCRIBED
    assert len(asked("get", "/packages")) == 2
    asked("get", "/packages/{package}", package)
    asked("post", "/packages", body={"path": str(folder / "leaves")})
    keyed = {"parameters": {"x": 1}, "key": "k", "retries": 1, "retry_delay_s": 0.5, "priority": -1, "timeout_s": 60}
    run = asked("post", "/packages/{package}/runs", package, body=keyed)
    assert asked("post", "/packages/{package}/runs", package, body=keyed)["id"] == run["id"]
    assert asked("post", "/packages/{package}/runs", package, body={**keyed, "parameters": {}})["reason"] == "Conflict"
    ended = over(asked, "/runs/{run}", run["id"])
    assert (ended["state"], ended["priority"], ended["retries"], ended["attempt"]) == ("succeeded", -1, 1, 1)
    asked("get", "/runs", query="?limit=1")
    assert "printed" in str(asked("get", "/runs/{run}/output", run["id"]))
    asked("get", "/runs/{run}/stream", run["id"])
    (left,) = [each for each in asked("get", "/runs/{run}/artifacts", run["id"]) if each["name"].endswith("left.txt")]
    assert asked("get", "/runs/{run}/artifacts/{name}", run["id"], left["name"]) == b"left"
    again = asked("post", "/runs/{run}/rerun", run["id"])
    assert (again["rerun_of"], again["parameters"]) == (run["id"], {"x": 1})
    assert over(asked, "/runs/{run}", again["id"])["state"] == "succeeded"
    long = asked("post", "/runs", body={"target": "long", "memory_mb": 500, "isolated": False, "parameters_yaml": {}})
    asked("post", "/runs/{run}/cancel", long["id"])
    assert over(asked, "/runs/{run}", long["id"])["state"] == "cancelled"
    made = asked("post", "/packages/{package}/prepare", package)
    assert (made["kind"], over(asked, "/runs/{run}", made["id"])["state"]) == ("prepare", "succeeded")
    assert asked("post", "/packages/{package}/reinstall", package) == {"cancelled": 0}
    assert asked("get", "/runs/{run}", "nothing")["reason"] == "NotFound"


def ask_of_environments(asked: Asked, channel: Path, folder: Path) -> None:
    file = folder / "environment.yml"
    file.write_text(f"channels: [{channel.as_uri()}]\ndependencies: [python]\n")
    for path, body in (
        ("/environments", {"file": str(file), "from_pypi": False}),
        ("/environments/lock", {"file": str(file), "platforms": ["linux-64"], "output": str(folder / "lock.yml")}),
        ("/environments/channel", {"requirements": ["six"], "folder": str(folder / "channel")}),
    ):
        made = over(asked, "/runs/{run}", asked("post", path, body=body)["id"])
        assert (made["kind"], made["state"]) == ("environment", "succeeded"), made["error"]
    assert asked("get", "/environments")
    (id_,) = [each["id"] for each in asked("get", "/environments") if each["kind"] == "conda"]
    assert asked("get", "/environments/{environment}", id_)["packages_list"]
    verified = asked("post", "/environments/{environment}/verify", id_)
    assert verified.get("ok"), verified
    repaired = over(asked, "/runs/{run}", asked("post", "/environments/{environment}/repair", id_)["id"])
    assert repaired["state"] == "succeeded", repaired["error"]
    assert asked("post", "/environments/gc", body={"days": 0, "dry_run": True})["removed"]
    asked("delete", "/environments/{environment}", id_)
    assert asked("get", "/environments/{environment}", id_)["reason"] == "NotFound"


def ask_of_agents(asked: Asked, slug: str) -> None:
    until(lambda: asked("get", "/agents/{agent}", slug)["online"])
    assert len(asked("get", "/agents")) == 2
    run = asked("post", "/agents/{agent}/runs", slug, body={"target": "long"})
    asked("get", "/agents/{agent}/runs", slug)
    asked("get", "/agents/{agent}/runs/{run}", slug, run["id"])
    until(lambda: "up" in str(asked("get", "/agents/{agent}/runs/{run}/output", slug, run["id"])))
    asked("get", "/agents/{agent}/runs/{run}/stream", slug, run["id"])
    asked("post", "/agents/{agent}/runs/{run}/cancel", slug, run["id"])
    assert over(asked, "/agents/{agent}/runs/{run}", slug, run["id"])["state"] == "cancelled"
    asked("post", "/agents/{agent}/cancel", slug)
    for verb in ("prepare", "testrun"):
        made = asked("post", f"/agents/{{agent}}/packages/{{package}}/{verb}", slug, "leaves")
        assert over(asked, "/agents/{agent}/runs/{run}", slug, made["id"])["state"] == "succeeded"
    asked("post", "/agents/{agent}/packages/{package}/reinstall", slug, "leaves")
