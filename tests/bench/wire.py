"""The wire alone: envelopes, messages and JSON, without a network."""

from __future__ import annotations

import time
from collections.abc import Iterator

from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Session, decode_json, encode_json, unpack
from tests.bench.figures import Figure, bench

CALLS = 20_000
ITEM = {"_type": "order", "name": "small", "n": 7, "tags": ["red", "green"], "at": "2026-01-02T03:04:05.678Z"}


@bench("client_codec", goal="10,000 small calls a second of codec work on one core", kind="budget")
def client_codec() -> Iterator[Figure]:
    """A call is what the client does for it: JSON, message, envelope and record out; the same of the reply in."""
    client, hub = Session(), Session()
    reply = encode_json({**ITEM, "_id": "6740d1c2a8f3b45e9c0d1e2f", "_version": 0})
    records = [
        hub.envelope("insertonereply", pb.InsertOneResponse(result=reply), rid=f"{number:032x}")
        for number in range(CALLS)
    ]
    start = time.process_time()
    for record in records:
        client.envelope("insertone", pb.InsertOneRequest(collectionname="orders", item=encode_json(ITEM)))
        (envelope,) = client.receive(record)
        message = unpack(envelope)
        assert isinstance(message, pb.InsertOneResponse)
        decode_json(message.result)
    yield Figure(round(CALLS / (time.process_time() - start)), "calls/s")
