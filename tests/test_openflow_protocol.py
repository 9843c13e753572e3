"""The wire protocol: framing, order, limits, messages by command, JSON."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jupyter_agent.errors import InvalidInput, ProtocolError
from jupyter_agent.openflow.proto import openiap_pb2
from jupyter_agent.openflow.protocol import (
    PIECE,
    Envelope,
    Session,
    decode_json,
    encode_date,
    encode_json,
    encoded,
    in_pieces,
    is_big,
    new_id,
    reply_type,
    request_type,
    unpack,
)
from tests.conftest import BUDGETS
from tests.openflow_peers import Peer, odd_client, odd_peer, until

many = settings(max_examples=BUDGETS["protocol_examples"], deadline=None)


def framed(envelope: Envelope) -> bytes:
    record = envelope.SerializeToString()
    return struct.pack("<I", len(record)) + record


def numbered(seq: int, payload: bytes = b"") -> bytes:
    envelope = Envelope(command="stream", seq=seq, id=f"e{seq}")
    envelope.data.Pack(openiap_pb2.Stream(data=payload))
    return framed(envelope)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, start = [], 0
    for size in sizes:
        pieces.append(data[start : start + size])
        start += size
    return [*pieces, data[start:]]


payloads = st.lists(st.binary(max_size=300), min_size=1, max_size=12)


@many
@given(payloads, st.lists(st.integers(0, 200), max_size=60))
def test_bytes_cut_and_joined_anywhere_give_the_same_envelopes(contents: list[bytes], sizes: list[int]) -> None:
    sender, receiver = Session(), Session()
    stream = b"".join(sender.envelope("stream", openiap_pb2.Stream(data=data)) for data in contents)
    received = [envelope for piece in cut(stream, sizes) for envelope in receiver.receive(piece)]
    assert [envelope.seq for envelope in received] == list(range(len(contents)))
    assert [openiap_pb2.Stream.FromString(envelope.data.value).data for envelope in received] == contents


@many
@given(st.integers(1, 60).flatmap(lambda count: st.permutations(range(count))))
def test_whatever_order_envelopes_come_in_they_are_delivered_in_the_order_of_their_seq(order: list[int]) -> None:
    session = Session()
    delivered = [envelope.seq for seq in order for envelope in session.receive(numbered(seq))]
    assert delivered == list(range(len(order)))


@many
@given(st.integers(1, 20).flatmap(lambda count: st.permutations(range(count))), st.data())
def test_a_seq_that_was_there_already_is_refused_wherever_it_waits(order: list[int], data: st.DataObject) -> None:
    session = Session()
    for seq in order:
        session.receive(numbered(seq))
    with pytest.raises(ProtocolError, match="again"):
        session.receive(numbered(data.draw(st.sampled_from(order))))


@st.composite
def muddled(draw: st.DrawFn) -> list[int]:
    """Seqs as a bad network would bring them: out of order, some twice, some never."""
    order = list(draw(st.integers(1, 40).flatmap(lambda count: st.permutations(range(count)))))
    for seq in draw(st.lists(st.sampled_from(order), max_size=3)):
        order.insert(draw(st.integers(0, len(order))), seq)
    lost = draw(st.sets(st.sampled_from(order), max_size=2))
    return [seq for seq in order if seq not in lost]


@many
@given(muddled(), st.lists(st.integers(0, 200), max_size=60))
def test_muddled_records_are_delivered_in_order_until_one_comes_again(order: list[int], sizes: list[int]) -> None:
    session = Session()
    delivered: list[int] = []
    refused = False
    for piece in cut(b"".join(numbered(seq) for seq in order), sizes):
        try:
            delivered += [envelope.seq for envelope in session.receive(piece)]
        except ProtocolError:
            refused = True
            break
    assert delivered == list(range(len(delivered)))
    assert refused == (len(set(order)) < len(order))
    if not refused:
        assert len(delivered) == next(seq for seq in range(len(order) + 1) if seq not in order)


@many
@given(payloads, st.data())
def test_bytes_that_come_twice_change_nothing_of_what_was_before_them(
    contents: list[bytes], data: st.DataObject
) -> None:
    sender, session = Session(), Session()
    records = [sender.envelope("stream", openiap_pb2.Stream(data=each)) for each in contents]
    stream = b"".join(records)
    start = data.draw(st.integers(0, len(stream) - 1))
    end = data.draw(st.integers(start + 1, len(stream)))
    whole = next(number for number in range(len(records) + 1) if len(b"".join(records[: number + 1])) > end or
                 number == len(records))  # fmt: skip
    received = []
    for piece in cut(stream[:end] + stream[start:], data.draw(st.lists(st.integers(0, 300), max_size=20))):
        try:
            received += session.receive(piece)
        except ProtocolError:
            break
    assert [envelope.seq for envelope in received] == list(range(len(received)))
    intact = [openiap_pb2.Stream.FromString(envelope.data.value).data for envelope in received[:whole]]
    assert intact == contents[: len(intact)]


def test_a_seq_that_waits_for_an_earlier_one_is_refused_when_it_comes_again() -> None:
    session = Session()
    assert session.receive(numbered(3)) == []
    with pytest.raises(ProtocolError, match="seq 3 again"):
        session.receive(numbered(3))


@pytest.mark.parametrize("seq", [-1, -(2**31)])
def test_a_negative_seq_is_refused(seq: int) -> None:
    with pytest.raises(ProtocolError):
        Session().receive(numbered(seq))


@many
@given(st.lists(st.binary(max_size=400), max_size=8))
def test_garbage_raises_nothing_but_protocol_errors(pieces: list[bytes]) -> None:
    session = Session(max_record=1 << 16)
    for piece in pieces:
        try:
            envelopes = session.receive(piece)
        except ProtocolError:
            continue
        for envelope in envelopes:
            try:
                unpack(envelope)
            except ProtocolError:
                continue


@many
@given(st.binary(max_size=200), st.sampled_from(["signin", "queryreply", "error", "QueueEvent", "pong", "x", ""]))
def test_garbage_as_data_raises_nothing_but_protocol_errors(value: bytes, command: str) -> None:
    envelope = Envelope(command=command)
    envelope.data.value = value
    try:
        unpack(envelope)
    except ProtocolError:
        return


def test_after_an_error_the_session_stays_broken() -> None:
    session = Session()
    with pytest.raises(ProtocolError):
        session.receive(struct.pack("<I", 3) + b"\xff\xff\xff")
    with pytest.raises(ProtocolError, match="no envelope"):
        session.receive(numbered(0))


@pytest.mark.parametrize("length", [(160 << 20) + 1, 2**31, 2**32 - 1])
def test_a_record_that_is_too_long_is_refused_by_its_length_alone(length: int) -> None:
    with pytest.raises(ProtocolError, match="too long"):
        Session().receive(struct.pack("<I", length))


def test_a_record_of_just_the_limit_is_taken() -> None:
    record = numbered(0, bytes(1000))
    assert len(Session(max_record=len(record) - 4).receive(record)) == 1
    with pytest.raises(ProtocolError):
        Session(max_record=len(record) - 5).receive(record)


def test_a_length_of_zero_is_skipped() -> None:
    nothing = struct.pack("<I", 0)
    assert [e.seq for e in Session().receive(nothing + numbered(0) + nothing + nothing + numbered(1))] == [0, 1]


def test_a_record_in_very_many_pieces_comes_whole() -> None:
    session, record = Session(), numbered(0, bytes(range(256)) * 20)
    for at in range(len(record) - 1):
        assert session.receive(record[at : at + 1]) == []
    (envelope,) = session.receive(record[-1:])
    assert openiap_pb2.Stream.FromString(envelope.data.value).data == bytes(range(256)) * 20


@pytest.mark.parametrize("size", [0, 1, 70, 127, 128, 16_000, 16_384, 2_097_152])
def test_a_record_is_what_the_library_would_have_made(size: int) -> None:
    message = openiap_pb2.QueryResponse(results="x" * size)
    expected = Envelope(command="queryreply", priority=2, seq=0, id="i", rid="r", jwt="j")
    expected.data.Pack(message)
    for given_ in (message, encoded(message)):
        length, *rest = Session().frame("queryreply", given_, id="i", rid="r", jwt="j")
        assert struct.unpack("<I", length) == (len(b"".join(rest)),)
        assert Envelope.FromString(b"".join(rest)) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (openiap_pb2.QueryResponse(results="x" * 1000), False),
        (openiap_pb2.QueryResponse(results="x" * 2_000_000), True),
        (openiap_pb2.Stream(data=bytes(256 << 10)), False),
        (openiap_pb2.DistinctResponse(results=["a", "b"]), False),
        (openiap_pb2.PopWorkitemResponse(workitem=openiap_pb2.Workitem(name="w")), False),
        (openiap_pb2.PopWorkitemResponse(workitem={"files": [{"file": b"x"}]}), True),
        (openiap_pb2.SigninResponse(config="x" * 2_000_000), True),
    ],
)
def test_what_is_encoded_in_a_thread(message: Message, expected: bool) -> None:  # noqa: FBT001 - from the table
    assert is_big(message) is expected


@many
@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(0, 3), st.binary(max_size=5))
def test_pieces_are_the_same_bytes_none_too_long(pieces: list[bytes], long_ones: int, end: bytes) -> None:
    given_ = [*pieces, *[bytes(PIECE + 1)] * long_ones, end]
    made = list(in_pieces(given_))
    assert b"".join(made) == b"".join(given_)
    assert all(len(piece) <= PIECE for piece in made)
    assert len(made) <= 3 * long_ones + 2


def test_too_many_envelopes_out_of_order_are_refused() -> None:
    session = Session(max_parked=100)
    for seq in range(1, 101):
        assert session.receive(numbered(seq)) == []
    with pytest.raises(ProtocolError, match="never sent seq 0"):
        session.receive(numbered(101))


def test_too_many_bytes_out_of_order_are_refused() -> None:
    session = Session(max_record=10_000)
    session.receive(numbered(1, bytes(6_000)))
    with pytest.raises(ProtocolError, match="never sent seq 0"):
        session.receive(numbered(2, bytes(6_000)))


def test_what_was_parked_and_delivered_no_longer_counts() -> None:
    session = Session(max_record=10_000)
    for seq in range(0, 100, 2):  # there is always one that waits
        session.receive(numbered(seq + 1, bytes(6_000)))
        assert [e.seq for e in session.receive(numbered(seq))] == [seq, seq + 1]


def test_a_record_that_would_be_too_long_is_not_made_and_uses_no_seq() -> None:
    session = Session(max_record=1000)
    with pytest.raises(InvalidInput, match="too long"):
        session.envelope("stream", openiap_pb2.Stream(data=bytes(1000)))
    (envelope,) = Session().receive(session.envelope("ping"))
    assert envelope.seq == 0


def test_an_envelope_carries_what_it_was_given() -> None:
    record = Session().envelope("query", openiap_pb2.QueryRequest(top=3), id="i", rid="r", jwt="j")
    (envelope,) = Session().receive(record)
    assert (envelope.command, envelope.id, envelope.rid, envelope.jwt, envelope.priority) == ("query", "i", "r", "j", 2)
    assert envelope.data.type_url == "type.googleapis.com/openiap.QueryRequest"
    assert unpack(envelope) == openiap_pb2.QueryRequest(top=3)


def test_envelopes_without_an_id_get_one_that_differs() -> None:
    session = Session()
    first, second = Session().receive(session.envelope("ping") + session.envelope("ping"))
    assert first.id
    assert first.id != second.id
    assert not first.HasField("data")


class TwoSides(RuleBasedStateMachine):
    """Client and server speak at once, in records that arrive in arbitrary pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.client, self.server = Session(), Session()
        self.up, self.down = bytearray(), bytearray()
        self.sent: dict[str, list[str]] = {"up": [], "down": []}
        self.received: dict[str, list[str]] = {"up": [], "down": []}

    @rule(way=st.sampled_from(["up", "down"]), command=st.sampled_from(["query", "ping", "stream"]))
    def send(self, way: str, command: str) -> None:
        name = new_id()
        if way == "up":
            self.up += self.client.envelope(command, id=name)
        else:
            self.down += self.server.envelope(command, id=name)
        self.sent[way].append(name)

    @rule(size=st.integers(1, 300))
    @precondition(lambda self: self.up)
    def arrive_at_the_server(self, size: int) -> None:
        self.received["up"] += [e.id for e in self.server.receive(bytes(self.up[:size]))]
        del self.up[:size]

    @rule(size=st.integers(1, 300))
    @precondition(lambda self: self.down)
    def arrive_at_the_client(self, size: int) -> None:
        self.received["down"] += [e.id for e in self.client.receive(bytes(self.down[:size]))]
        del self.down[:size]

    @invariant()
    def nothing_is_lost_or_reordered(self) -> None:
        for way, left in (("up", self.up), ("down", self.down)):
            assert self.received[way] == self.sent[way][: len(self.received[way])]
            if not left:
                assert self.received[way] == self.sent[way]


TestTwoSides = TwoSides.TestCase
TestTwoSides.settings = settings(many, stateful_step_count=60)


def test_commands_lead_to_their_messages_in_any_case() -> None:
    assert request_type("insertone") is openiap_pb2.InsertOneRequest
    assert request_type("InsertOne") is openiap_pb2.InsertOneRequest
    assert reply_type("unRegisterQueue") is openiap_pb2.UnRegisterQueueResponse
    assert request_type("unwatch") is openiap_pb2.UnWatchRequest
    assert request_type("queueevent") is openiap_pb2.QueueEvent
    assert request_type("stream") is openiap_pb2.Stream
    assert request_type("nonsense") is None
    assert reply_type("nonsense") is None


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("error", openiap_pb2.ErrorResponse(message="no")),
        ("pong", openiap_pb2.PingResponse()),
        ("ping", openiap_pb2.PingRequest()),
        ("signinReply", openiap_pb2.SigninResponse(jwt="t")),
        ("refreshtoken", openiap_pb2.RefreshToken(jwt="t")),
        ("noop", openiap_pb2.Noop()),
    ],
)
def test_unpack_goes_by_the_command_and_not_by_the_type_url(command: str, message: Message) -> None:
    envelope = Envelope(command=command)
    envelope.data.value = message.SerializeToString()
    envelope.data.type_url = "elsewhere/openiap.Other"
    assert unpack(envelope) == message


def test_an_unknown_command_is_named_as_the_server_names_it() -> None:
    with pytest.raises(ProtocolError, match=r"no such type: openiap\.makecoffee"):
        unpack(Envelope(command="makecoffee"))


def test_dates_are_sent_in_the_only_form_that_the_server_reads_as_dates() -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert json.loads(encode_json({"at": [moment]})) == {"at": ["2024-01-02T03:04:05.000Z"]}
    assert encode_date(moment.astimezone(timezone(timedelta(hours=2)))) == "2024-01-02T03:04:05.000Z"


@pytest.mark.parametrize("value", [datetime(2024, 1, 2), {1, 2}, {1: 2}, b"bytes", 2**70, "\ud800"])  # noqa: DTZ001
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="cannot be sent"):
        encode_json({"value": value})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@many
@given(json_values)
def test_json_comes_back_as_it_was_sent(value: Any) -> None:
    assert decode_json(encode_json(value)) == value


@many
@given(st.text())
def test_text_that_is_not_json_raises_nothing_but_protocol_errors(text: str) -> None:
    try:
        decode_json(text)
    except ProtocolError:
        return


def test_one_odd_value_does_not_hide_a_document() -> None:
    assert decode_json('[{"a":"x\\ud800y","b":NaN,"c":[-Infinity]},{"d":1}]') == [
        {"a": "x?y", "b": None, "c": [None]},
        {"d": 1},
    ]


def test_json_nested_beyond_all_limits_is_refused() -> None:
    with pytest.raises(ProtocolError):
        decode_json("[" * 100_000 + "]" * 100_000)


async def test_a_client_takes_replies_however_they_are_cut_joined_and_ordered() -> None:
    chance = random.Random(7)  # noqa: S311 - a test's
    records: list[bytes] = []

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        reply = openiap_pb2.CountResponse(result=len(message.query))  # type: ignore[attr-defined]
        records.append(peer.session.envelope("countreply", reply, rid=envelope.id))
        if len(records) == 60:
            chance.shuffle(records)
            for piece in cut(b"".join(records), [chance.randrange(200) for _ in range(80)]):
                await peer.send_bytes(piece)

    async with odd_peer(behave) as url, odd_client(url, requests_per_s=None) as client:
        await client.connected()
        queries = [{"n": 10**number} for number in range(15)] * 4
        counts = await asyncio.gather(*(client.count("c", query) for query in queries))
        assert counts == [len(json.dumps(query, separators=(",", ":"))) for query in queries]


async def test_a_client_gives_up_a_connection_on_which_a_record_comes_again() -> None:
    async def behave(peer: Peer, envelope: Envelope, _message: Message) -> None:
        record = peer.session.envelope("countreply", openiap_pb2.CountResponse(result=1), rid=envelope.id)
        await peer.send_bytes(record)
        await peer.send_bytes(record)

    async with odd_peer(behave) as url, odd_client(url) as client:
        await client.connected()
        assert await client.count("c", {}) == 1
        await until(lambda: "again" in str(client.last_error), "the connection is given up")
        assert await client.count("c", {}) == 1  # on a new one
