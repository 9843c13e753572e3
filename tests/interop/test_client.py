"""The whole public interface of the official npm client, against the hub, over each of its transports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.openflow import rights
from tests.hub_peers import hub_on_a_new_home
from tests.interop.official import HERE, install, public_methods, run_script
from tests.openflow_peers import Hub

ID = re.compile(r"[0-9a-f]{24}")

REFUSED = {
    "CreateWorkflowInstance": "workflows need a workflow engine, which the hub has none of",
    "EnsureCustomer": "customers are tenants; the hub has one",
    "InvokeOpenRPA": "there are no OpenRPA robots on the hub",
    "StartAgent": "the hub starts no containers",
    "StopAgent": "the hub starts no containers",
    "GetAgentLog": "the hub starts no containers",
    "GetAgentPods": "the hub starts no containers",
    "DeleteAgentPod": "the hub starts no containers",
    "DeleteAgent": "the hub starts no containers",
    "GetElement": "a call to a browser, not to a server",
    "where": "no code of clients runs in the hub",
    "encrypt": "documents are not encrypted field by field",
    "timeseries": "collections hold documents",
    "capped": "collections hold documents",
    "heapdump": "it would show what others store",
    "shutdown": "the hub ends by a signal",
}
"""What the client can ask for and the hub does not do, and why; everything else passes."""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    install()
    with hub_on_a_new_home() as running:
        running.add_user("another", "password of another")
        yield running


def test_every_public_method_is_called_in_a_script() -> None:
    install()
    told = "".join(path.read_text() for path in HERE.glob("*.cjs"))
    called = set(re.findall(r"\b\w+\.([A-Z]\w+)\(", told))
    assert public_methods() - {"Ping"} <= called  # Ping is sent by the client itself


def address(hub: Hub, transport: str) -> str:
    """The hub's address for a transport; for gRPC it stands beside the other."""
    if transport == "grpc":
        return str(json.loads((hub.home / "hub" / "hub.json").read_text())["grpcapiurl"])
    return hub.url if transport == "ws" else hub.url.replace("ws://", "http://").replace("/ws/v2", "/api/v2")


@pytest.mark.parametrize("transport", ["ws", "grpc", "rest"])
def test_signing_in(hub: Hub, tmp_path: Path, transport: str) -> None:
    seen = run_script("signin", hub, tmp_path, url=address(hub, transport))
    assert seen["byPassword"] == hub.ready["username"]
    assert seen["config"]["supports_watch"] is True
    assert seen["before"] == {"error": "Not signed in to server"}
    assert {"_id": rights.ADMINS, "name": "admins"} in seen["roles"]
    assert seen["after"] == 0
    assert seen["validated"] == hub.ready["username"]
    assert "invalid or expired" in seen["wrong"]["error"]
    assert seen["wrongPassword"] == {"error": f"{hub.ready['username']} failed logging in using local"}
    assert seen["custom"] == ""
    assert seen["createdBy"] == "another"
    assert seen["unreadable"] == seen["stillUnreadable"] == 0
    assert seen["asAnother"] == []
    for name, call in seen["adminsOnly"].items():
        assert "access denied" in call.get("error", "").lower(), name
    if transport == "rest":  # there is no connection to list
        assert seen["clients"] == seen["clientsOfOther"] == []
    else:
        assert {"agent": "node", "username": "another", "version": "0.0.39"} in seen["clients"]
        assert set(seen["clientsOfOther"]) == {"another"}


@pytest.mark.parametrize("transport", ["ws", "grpc", "rest"])
def test_documents(hub: Hub, tmp_path: Path, transport: str) -> None:
    seen = run_script("documents", hub, tmp_path, url=address(hub, transport), suffix=transport)
    check_writing(seen)
    check_reading(seen)
    check_collections(seen, transport)
    assert seen["deleted"] == 1
    assert seen["deletedByQuery"] == 3
    assert seen["deletedById"] == 1
    assert seen["left"] == 1


def check_writing(seen: dict[str, Any]) -> None:
    one = seen["inserted"]
    assert ID.fullmatch(one["_id"])
    assert (one["_type"], one["_version"], one["when"], one["a.b"]) == ("thing", 0, "1970-01-01T00:00:00.000Z", 3)
    assert [item["name"] for item in seen["many"]] == ["two", "three"]
    assert seen["silent"] == seen["upsertedSilently"] == []
    assert (seen["replaced"]["name"], seen["replaced"]["_version"]) == ("uno", 1)
    assert (seen["updated"]["matchedCount"], seen["updated"]["modifiedCount"]) == (1, 1)
    assert (seen["upserted"]["n"], seen["upserted"]["_id"]) == (22, seen["many"][0]["_id"])
    assert seen["added"]["_version"] == 0
    assert [item["n"] for item in seen["upsertedMany"]] == [33, 6]


def check_reading(seen: dict[str, Any]) -> None:
    one = seen["inserted"]
    assert [(item["name"], item.get("list")) for item in seen["query"]] == [("eins", [1, 2]), ("two", None)]
    assert seen["page"] == [{"n": 4}, {"n": 5}]
    assert [item["name"] for item in seen["dated"]] == ["eins"]
    assert seen["found"]["_id"] == one["_id"]
    assert seen["nothing"] is None
    assert seen["versionOne"]["_version"] == 1
    assert sorted(seen["distinct"]) == ["eins", "five", "four", "two"]
    assert [item["total"] for item in seen["aggregate"]] == [22 + 33 + 4 + 5 + 66]
    assert seen["count"] == 5


def check_collections(seen: dict[str, Any], suffix: str) -> None:
    def names(what: str) -> set[str]:
        return {each["name"] for each in seen[what]}

    assert {f"things-{suffix}", f"made-{suffix}", "users"} <= names("collections")
    assert f"made-{suffix}" not in names("collectionsLeft")
    assert not any(name.endswith("_hist") for name in names("collections"))
    assert f"things-{suffix}_hist" in names("withHistory")
    assert any(index["key"] == {"name": 1} and index["unique"] for index in seen["indexes"])
    assert "E11000" in seen["duplicate"]["error"]
    assert not any(index["key"] == {"name": 1} for index in seen["indexesLeft"])


@pytest.mark.parametrize("transport", ["ws", "grpc"])
@pytest.mark.parametrize("size", [1, 3_000_000])
def test_files(hub: Hub, tmp_path: Path, size: int, transport: str) -> None:
    seen = run_script("files", hub, tmp_path, size=size, url=address(hub, transport))
    assert seen["uploaded"]["filename"] == seen["filename"] == "measured values.bin"
    assert seen["document"]["length"] == size
    metadata = seen["document"]["metadata"]
    assert (metadata["origin"], metadata["_type"]) == ("interop", "measured")
    assert seen["same"]
    assert seen["named"] == {"filename": "measured values.bin", "same": True}
    assert seen["empty"] == 0
    assert "Cannot delete file, it is in use" in seen["inUse"]["error"]
    assert (seen["deleted"], seen["deletedMany"], seen["left"]) == (1, 1, 0)
    assert "Access Denied" in seen["gone"]["error"]


@pytest.mark.parametrize("transport", ["ws", "grpc"])
def test_watches_queues_and_rpc(hub: Hub, tmp_path: Path, transport: str) -> None:
    seen = run_script("messages", hub, tmp_path, url=address(hub, transport), suffix=transport)
    of_it = [["insert", "a"], ["replace", "b"], ["update", "c"], ["delete", "c"]]
    assert seen["all"] == [of_it[0], ["insert", "other"], *of_it[1:]]
    assert seen["packages"] == [*of_it, ["insert", "d"]]
    assert seen["queue"] == f"interopqueue-{transport}"
    assert seen["rpc"] == {"answer": 42}
    first, second = seen["heard"]
    assert first == {"queue": seen["queue"], "payload": {"question": 41}, "user": hub.ready["username"], "jwt": True}
    assert second == {"queue": seen["queue"], "payload": {"question": 1}, "user": None, "jwt": False}
    assert seen["private"] not in ("", seen["queue"])
    assert seen["timeout"]["command"] == seen["expired"]["command"] == "timeout"
    assert seen["bad"]["error"].startswith(f"bad queue: nobodys-queue-{transport}")
    assert seen["toExchange"] == {"error": "AMQP exchange is not enabled on this OpenFlow"}


@pytest.mark.parametrize("transport", ["ws", "grpc", "rest"])
def test_work_items(hub: Hub, tmp_path: Path, transport: str) -> None:
    seen = run_script(
        "workitems", hub, tmp_path, url=address(hub, transport), suffix=transport, hints=transport == "ws"
    )
    assert (seen["queue"]["name"], seen["queue"]["maxretries"]) == (f"orders-{transport}", 2)
    assert seen["changed"]["maxretries"] == 3
    assert (seen["pushed"]["state"], seen["pushed"]["payload"]) == ("new", {"n": 1})
    assert [file["filename"] for file in seen["pushed"]["files"]] == ["order.txt"]
    assert seen["pushedMany"] == ["second", "third"]
    assert (seen["urgent"]["name"], seen["urgent"]["state"]) == ("second", "processing")
    assert seen["contents"] == "the order"
    assert (seen["successful"]["state"], seen["successful"]["payload"]) == ("successful", {"n": 2, "done": True})
    assert (seen["retried"]["state"], seen["retried"]["retries"]) == ("new", 1)
    assert [file["filename"] for file in seen["retried"]["files"]] == ["order.txt"]
    assert "Illegal state" in seen["illegal"]["error"]
    assert seen["business"]["state"] == "failed"
    assert (seen["third"], seen["empty"]) == ("third", None)
    if transport == "ws":  # it comes a few seconds later
        told = {"wiq": "orders-ws", "wiqid": seen["queue"]["_id"], "packageid": "a-package"}
        assert seen["hint"] == {"payload": told, "correlationId": "", "replyto": ""}
    assert (seen["itemsLeft"], seen["queuesLeft"]) == (3, 0)
    assert "error" in seen["notEmpty"]
    assert seen["unknown"]["error"].startswith(f"Work item queue not found orders-{transport}")


def test_what_is_refused_is_refused_by_name(hub: Hub, tmp_path: Path) -> None:
    seen = run_script("refusals", hub, tmp_path)
    assert seen.pop("alive") == 0
    assert seen.keys() == REFUSED.keys()
    for name, call in seen.items():
        assert call.get("error"), f"{name} is not refused: {REFUSED[name]}"
        named = {"where": "$where", "encrypt": "_encrypt"}.get(name, name).lower()
        assert named in call["error"].lower(), f"{name}: {call['error']}"
