"""The wire protocol without I/O: bytes in, envelopes out, and the other way round.

One `Session` stands for one connection and serves both sides of it, client and server. It knows framing, sequence
numbers and limits; it refuses to know sockets, time, and what any command means.

On the wire (OpenIAP Core 1.5, ``/ws/v2``): each record is a length, four bytes little-endian, and that many bytes of an
encoded `Envelope`. Boundaries of WebSocket messages mean nothing. ``Envelope.seq`` counts from 0 in each direction, and
the receiver delivers in that order.
"""

from __future__ import annotations

import functools
import json
import secrets
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from google.protobuf import message_factory  # noqa: TID251 - here bytes become messages
from google.protobuf.message import DecodeError, Message  # noqa: TID251

from jupyter_agent.errors import InvalidInput, ProtocolError
from jupyter_agent.openflow.proto import openiap_pb2

Envelope = openiap_pb2.Envelope

CHUNK = 256 << 10
"""Bytes of a file in one ``stream`` part; what the official client sends."""

MAX_RECORD = 160 << 20
"""Bytes; the server takes payloads of up to 130 MB, which JSON in JSON makes longer."""

BIG = 1 << 20
"""Bytes of a record whose encoding and decoding are worth a thread: they would hold up an event loop."""

MANY = 10_000
"""Values in a list that are worth the same."""

PIECE = 1 << 20
"""Bytes in one message of a WebSocket: records may be cut anywhere, and proxies like messages small."""

MAX_PIECES = 1000
"""Of a record that comes in pieces, before they are joined: each takes more memory than its bytes."""

LENGTH = struct.Struct("<I")
LAST_SEQ = 2**31 - 1
DATA_TAG, TYPE_URL_TAG, VALUE_TAG = b"\x32", b"\x0a", b"\x12"
"""Fields 6 of an envelope, 1 and 2 of an ``Any``; each is a length and that many bytes."""

KEEP_ALIVE = frozenset({"ping", "pong"})


class Session:
    """The state of one connection: what has come in and is not complete or not in order yet, and the next seq out.

    After a `ProtocolError` the session is of no more use: every further call of `receive` raises it again.
    `receive` is `records`, `decode` and `take` in one, `envelope` is `frame` in one piece; apart they let a caller
    move the work on big records off its event loop.
    """

    def __init__(self, *, max_record: int = MAX_RECORD, max_parked: int = 100) -> None:
        self._max_record = max_record
        self._max_parked = max_parked
        self._length = b""
        self._announced = self._missing = 0
        self._pieces: list[bytes | bytearray] = []
        self._next_in = 0
        self._next_out = 0
        self._parked: dict[int, tuple[Envelope, int]] = {}
        self._parked_bytes = 0
        self._failure = ""
        self._name = new_id()

    def __repr__(self) -> str:
        waiting = len(self._length) + sum(map(len, self._pieces))
        return (
            f"<Session next in {self._next_in}, next out {self._next_out}, "
            f"{waiting} bytes and {len(self._parked)} envelopes waiting>"
        )

    @property
    def waiting(self) -> int:
        """Bytes that are kept: of a record that is not complete, and of those that are not in turn."""
        return (self._announced - self._missing if self._missing else 0) + self._parked_bytes

    def receive(self, data: bytes) -> list[Envelope]:
        """Take bytes as they came; return the envelopes that are complete and in turn, in the order of their seq.

        Raises `ProtocolError` for a record that is too long or cannot be decoded, a seq that was there already, and
        too much that is out of order; the connection has to be closed then.
        """
        envelopes: list[Envelope] = []
        try:
            for record in self.records(data):
                envelopes += self.take(decode(record), len(record))
        except ProtocolError as error:
            self._failure = str(error)
            raise
        return envelopes

    def records(self, data: bytes) -> list[bytes]:
        """Take bytes as they came; return the records that are complete now. A length of 0 is nothing.

        Raises `ProtocolError` for one that is too long.
        """
        if self._failure:
            raise ProtocolError(self._failure)
        records: list[bytes] = []
        at = 0
        while at < len(data):
            if not self._missing:
                at = self._take_length(data, at)
                continue
            piece = data[at : at + self._missing]
            at += len(piece)
            self._missing -= len(piece)
            self._pieces.append(piece)
            if len(self._pieces) > MAX_PIECES:
                self._join_pieces()
            if not self._missing:
                records.append(piece if len(self._pieces) == 1 else b"".join(self._pieces))
                self._pieces = []
        return records

    def take(self, envelope: Envelope, size: int) -> list[Envelope]:
        """The envelope of a record of ``size`` bytes and those that waited for it; none when it has to wait itself.

        Raises `ProtocolError` for a seq that was there already and too much that is out of order.
        """
        if envelope.seq < self._next_in or envelope.seq in self._parked:
            self._failure = f"The other side sent seq {envelope.seq} again, {self._next_in} was next."
            raise ProtocolError(self._failure)
        if envelope.seq > self._next_in:
            self._park(envelope, size)
            return []
        self._next_in += 1
        envelopes = [envelope]
        while self._next_in in self._parked:
            waiting, waiting_size = self._parked.pop(self._next_in)
            self._parked_bytes -= waiting_size
            self._next_in += 1
            envelopes.append(waiting)
        return envelopes

    def envelope(
        self,
        command: str,
        message: Message | Encoded | None = None,
        *,
        id: str | None = None,  # noqa: A002 - the field's name
        rid: str = "",
        jwt: str = "",
    ) -> bytes:
        """One record, ready to be sent, with the next seq. Records must be sent in the order in which they are made.

        ``rid`` is the id of the envelope this one answers or belongs to; ``jwt`` makes this one request another
        user's. Raises `InvalidInput`, and uses no seq, when the record would be too long for the other side.
        """
        return b"".join(self.frame(command, message, id=id, rid=rid, jwt=jwt))

    def frame(
        self,
        command: str,
        message: Message | Encoded | None = None,
        *,
        id: str | None = None,  # noqa: A002 - the field's name
        rid: str = "",
        jwt: str = "",
    ) -> list[bytes]:
        """The same in pieces, without a copy of what is encoded already: the head, and the value of the data."""
        seq = self._next_out
        envelope = Envelope(command=command, seq=seq, id=id or f"{self._name}{seq:x}", rid=rid, jwt=jwt)
        if command not in KEEP_ALIVE:
            envelope.priority = 2
        pieces = [b"", envelope.SerializeToString()]
        if message is not None:
            data = message if isinstance(message, Encoded) else encoded(message)
            pieces += _data_field(data)
        size = sum(map(len, pieces))
        if size > self._max_record:
            raise InvalidInput(
                f"A {command} of {size >> 20} MiB is too long: OpenFlow takes at most {self._max_record >> 20}."
            )
        if seq == LAST_SEQ:
            raise ProtocolError("The connection has carried as many envelopes as it can count: it has to be renewed.")
        self._next_out += 1
        pieces[0] = LENGTH.pack(size)
        return pieces

    def _take_length(self, data: bytes, at: int) -> int:
        """Take bytes of a record's length; where what follows them begins."""
        end = at + LENGTH.size - len(self._length)
        self._length += data[at:end]
        if len(self._length) < LENGTH.size:
            return len(data)
        (length,) = LENGTH.unpack(self._length)
        if length > self._max_record:
            self._failure = f"The other side announced a record of {length} bytes, which is too long."
            raise ProtocolError(self._failure)
        self._length, self._announced, self._missing = b"", length, length
        return end

    def _join_pieces(self) -> None:
        first, *others = self._pieces
        whole = first if isinstance(first, bytearray) else bytearray(first)
        whole += b"".join(others)
        self._pieces = [whole]

    def _park(self, envelope: Envelope, size: int) -> None:
        self._parked[envelope.seq] = envelope, size
        self._parked_bytes += size
        if len(self._parked) > self._max_parked or self._parked_bytes > self._max_record:
            self._failure = f"The other side never sent seq {self._next_in}, but too much of what comes after it."
            raise ProtocolError(self._failure)


@dataclass(frozen=True)
class Encoded:
    """A message as it travels: its type's name and its bytes."""

    name: str
    value: bytes


def encoded(message: Message) -> Encoded:
    """A message, encoded: with a big one this is most of the work, and may be done in any thread."""
    return Encoded(message.DESCRIPTOR.full_name, message.SerializeToString())


def is_big(message: Message) -> bool:
    """Whether a message is worth a thread when it is encoded.

    One that holds a list of messages (the files of a work item) is taken for big unseen: to look would be to copy.
    """
    return any(_is_big(value) for _, value in message.ListFields())


def _is_big(value: object) -> bool:
    if isinstance(value, str | bytes):
        return len(value) > BIG
    if isinstance(value, Message):
        return is_big(value)
    if not isinstance(value, Sequence):
        return False
    return len(value) > MANY or any(isinstance(each, Message) or _is_big(each) for each in value)


def _data_field(data: Encoded) -> list[bytes]:
    """The field ``data`` of an envelope, an ``Any``, as two pieces: what comes before the value, and the value.

    Written by hand, for the library would copy the value into the ``Any``, into the envelope and into the record, each
    time holding up all threads. A field is its tag, its length and its bytes, and may stand anywhere in a message.
    """
    head = _any_head(data.name) + _varint(len(data.value))
    return [DATA_TAG + _varint(len(head) + len(data.value)) + head, data.value]


@functools.cache
def _any_head(name: str) -> bytes:
    url = f"type.googleapis.com/{name}".encode()
    return TYPE_URL_TAG + _varint(len(url)) + url + VALUE_TAG


def _varint(number: int) -> bytes:
    """A number in protobuf's form: seven bits a byte, the lowest first, the eighth tells that more follow."""
    if number < 0x80:  # noqa: PLR2004 - seven bits
        return bytes((number,))
    if number < 0x4000:  # noqa: PLR2004 - twice seven bits: most are
        return bytes((number & 0x7F | 0x80, number >> 7))
    return bytes((number & 0x7F | 0x80,)) + _varint(number >> 7)


def in_pieces(pieces: Sequence[bytes]) -> Iterator[bytes]:
    """The same bytes in as few pieces as may be, none longer than `PIECE`."""
    small: list[bytes] = []
    size = 0
    for piece in pieces:
        if small and size + len(piece) > PIECE:
            yield b"".join(small)
            small, size = [], 0
        if len(piece) <= PIECE:
            small.append(piece)
            size += len(piece)
            continue
        for start in range(0, len(piece), PIECE):
            yield piece[start : start + PIECE]
    if small:
        yield b"".join(small)


def decode(record: bytes) -> Envelope:
    """The envelope in a record; `ProtocolError` when there is none."""
    try:
        return Envelope.FromString(record)
    except DecodeError as error:
        raise ProtocolError("The other side sent a record that is no envelope.") from error


def new_id() -> str:
    """An id for an envelope or a conversation that nobody can guess."""
    return secrets.token_hex(16)


def request_type(command: str) -> type[Message] | None:
    """The message that the command or event carries; case does not matter. ``None`` when there is no such command."""
    return REQUESTS.get(command.lower())


def reply_type(command: str) -> type[Message] | None:
    """The message of the reply to the command; case does not matter. ``None`` when there is no such command."""
    return REPLIES.get(command.lower() + "reply")


def unpack(envelope: Envelope) -> Message:
    """The message in an envelope, found by its command alone, as the server does: ``type_url`` is not looked at.

    No data is an empty message. Raises `ProtocolError` for an unknown command and for data of another shape.
    """
    command = envelope.command.lower()
    found = REQUESTS.get(command) or REPLIES.get(command)
    if found is None:
        raise ProtocolError(f"no such type: openiap.{envelope.command}")
    try:
        return found.FromString(envelope.data.value)
    except DecodeError as error:
        raise ProtocolError(f"The data of a {command} could not be decoded.") from error


def encode_json(value: object) -> str:
    """JSON text as the server wants it: a date gets milliseconds and Z, without which it stays text on the server.

    Raises `InvalidInput` for what JSON cannot hold.
    """
    try:
        return orjson.dumps(value, default=encode_date, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()
    except TypeError as error:
        raise InvalidInput(f"This cannot be sent as JSON: {error}.") from error


def encode_date(value: object) -> str:
    """ISO 8601 in UTC for a datetime that says its zone."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    raise TypeError(f"{type(value).__name__} {value!r} has no JSON form")


def decode_json(text: str) -> Any:
    """The value in JSON text. Raises `ProtocolError` when it is none.

    Half surrogate pairs, NaN and Infinity, which other languages let through, become "?" and null: one odd document
    must not hide all others.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        lenient = json.loads(text, parse_constant=lambda _: None)
        return orjson.loads(json.dumps(lenient, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError("OpenFlow sent text that is not JSON.") from error


def message_types() -> tuple[dict[str, type[Message]], dict[str, type[Message]]]:
    """Messages by command: first of requests, events and stream parts, then of replies."""
    requests: dict[str, type[Message]] = {}
    replies: dict[str, type[Message]] = {}
    for name, descriptor in openiap_pb2.DESCRIPTOR.message_types_by_name.items():
        message = message_factory.GetMessageClass(descriptor)
        if name.endswith("Request"):
            requests[name.removesuffix("Request").lower()] = message
        elif name.endswith("Response"):
            replies[name.removesuffix("Response").lower() + "reply"] = message
    for part in ("BeginStream", "Stream", "EndStream", "Noop", "RefreshToken", "WatchEvent", "QueueEvent"):
        requests[part.lower()] = getattr(openiap_pb2, part)
    replies["error"], replies["pong"] = openiap_pb2.ErrorResponse, openiap_pb2.PingResponse
    return requests, replies


REQUESTS, REPLIES = message_types()
