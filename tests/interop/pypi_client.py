"""Every method of the official PyPI client that talks to a server: run by path, with its module's folder first.

Arguments: a JSON object with folder (of the module), url, username, password, out, fileid, down.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

GIVEN: dict[str, Any] = json.loads(sys.argv[1])
ITSELF = Path(__file__).read_bytes()
DEADLINE_S = 20


async def main() -> dict[str, Any]:
    sys.path.insert(0, GIVEN["folder"])
    address = GIVEN["url"].replace("://", f"://{GIVEN['username']}:{GIVEN['password']}@")
    client = importlib.import_module("openiap").Client(address)
    seen: dict[str, Any] = {"user": (await asyncio.wait_for(client.Signin(), DEADLINE_S)).username}
    await documents(client, seen)
    await messages(client, seen)
    await work(client, seen)
    downloaded = await client.DownloadFile(Id=GIVEN["fileid"], OutPath=GIVEN["down"])
    seen["filename"] = downloaded.filename
    return seen


async def documents(client: Any, seen: dict[str, Any]) -> None:
    name = "pypi"
    one = await client.InsertOne({"name": "one", "n": 1}, name)
    many = await client.InsertMany([{"name": "two", "n": 2}, {"name": "three", "n": 3}], name)
    replaced = await client.UpdateOne({**one, "n": 10}, name)
    result = await client.UpdateDocument({"name": "two"}, {"$set": {"n": 20}}, name)
    upserted = await client.InsertOrUpdateOne({"name": "three", "n": 30}, name, "name")
    both = await client.InsertOrUpdateMany([{"name": "three", "n": 31}, {"name": "four", "n": 4}], name, "name")
    seen |= {
        "many": len(many),
        "replaced": [replaced["n"], replaced["_version"]],
        "matched": result.matchedCount,
        "upserted": [upserted["n"], len(both)],
        "query": [each["n"] for each in await client.Query(name, {}, {"n": 1}, orderby={"n": -1}, top=2)],
        "count": await client.Count({"n": {"$gt": 5}}, name),
        "aggregate": await client.Aggregate([{"$match": {"n": 20}}, {"$project": {"_id": 0, "n": 1}}], name),
        "collections": name in {each["name"] for each in await client.ListCollections()},
        "version": (await client.GetDocumentVersion(one["_id"], name, 1))["n"],
        "deleted": [await client.DeleteOne(one["_id"], name), await client.DeleteMany({"n": 4}, name)],
    }
    await client.DropCollection(name)
    seen["left"] = await client.Count({}, name)
    try:
        await client.Query(name, {"$where": "1"})
    except ValueError as error:
        seen["refused"] = str(error)


async def messages(client: Any, seen: dict[str, Any]) -> None:
    events: list[Any] = []
    both = asyncio.Event()

    async def watched(_client: Any, operation: str, document: dict[str, Any]) -> None:
        events.append([operation, document["name"]])
        if len(events) > 1:
            both.set()

    async def asked(_client: Any, _message: Any, payload: dict[str, Any]) -> dict[str, Any]:
        return {"answer": payload["question"] + 1}

    async def unexpected(_client: Any, _message: Any, _payload: Any) -> None:
        events.append("an answer to nothing")

    watch = await client.Watch("pypi-seen", [], watched)
    one = await client.InsertOne({"name": "a"}, "pypi-seen")
    await client.UpdateOne({**one, "name": "b"}, "pypi-seen")
    await asyncio.wait_for(both.wait(), DEADLINE_S)
    await client.UnWatch(watch)
    await client.RegisterQueue("", unexpected)
    seen["queue"] = await client.RegisterQueue("pypi-Queue", asked)
    call = client.QueueMessage(seen["queue"], {"question": 41}, rpc=True)
    seen |= {"rpc": await asyncio.wait_for(call, DEADLINE_S), "events": events}


async def work(client: Any, seen: dict[str, Any]) -> None:
    await client.PushWorkitem("pypi-items", "first", {"n": 1}, [__file__], compressed=False)
    item = await client.PopWorkitem("pypi-items", includefiles=True)
    seen["popped"] = [item.name, json.loads(item.payload), item.files[0].file == ITSELF]
    item.state = "successful"
    seen["state"] = (await client.UpdateWorkitem(item)).state
    seen["empty"] = await client.PopWorkitem("pypi-items") is None


Path(GIVEN["out"]).write_text(json.dumps(asyncio.run(main())))
os._exit(0)  # its threads never end
