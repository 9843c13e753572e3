"""What no decent client sends: requests with any values in any field, and records that are broken."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from jupyter_agent.openflow.protocol import REQUESTS, Envelope, Session, new_id

LENGTH = struct.Struct("<I")
UNANSWERED = ("ping", "pong", "noop", "stream", "beginstream", "endstream")
EVENTS = ("refreshtoken", "watchevent", "queueevent")
NOT_HERE = ("upload", "signin")  # the one is cut elsewhere, the other takes its time on purpose
COMMANDS = sorted(set(REQUESTS) - {*UNANSWERED, *EVENTS, *NOT_HERE})
COLLECTIONS = ("things", "things", "things", "", " ", "fs.files", "files", "workitems", "mq", "agents", "users",
               "a" * 300, "things_hist", "$cmd", "system.users", "fs.chunks",
               "nul\0", "é", "../../x", "config")  # fmt: skip
VALUES = (
    "null", "true", "5", "-1e400", "NaN", "[NaN, -Infinity]", '"text"', "[]", "[1, 2]", "{}", "{", '{"a":', "\0", "'",
    '{"a": "\\ud800"}', '{"\\udc00": 1}', '{"_id": null}', '{"_id": 5}', '{"_id": "aaaaaaaaaaaaaaaaaaaaaaaZ"}',
    '{"_id": {"$gt": ""}}', '{"a.b": 1}', '{"$set": {"a.b": 1}}', '{"$inc": {"_version": 1}}', '{"$$x": 1}',
    '{"": 1}', '{"a": {"": {"": 1}}}', '{"a\\u0000b": 1}', '{"$where": "1"}', '{"a": {"$date": "x"}}',
    '{"a": 123456789012345678901234567890}', '{"a": 1e308, "b": -0.0}', '{"at": "2026-13-45T99:99:99.999Z"}',
    '{"at": "0000-01-01T00:00:00.000Z"}', '{"_acl": 5}', '{"_acl": [{"_id": []}]}', '{"_type": ["x"]}',
    '{"_encrypt": ["a"], "a": 1}', '{"$or": 5}', '{"$or": []}', '{"a": {"$in": 5}}', '{"a": {"$regex": "("}}',
    '{"a": {"$regex": "(a+)+$"}}', '{"a": "__REGEXP /(/x"}', '{"$set": 5}', '{"$set": {"$a": 1}}',
    '{"$push": {"a": 1}}',
    '{"$rename": {"a": "a"}}', '{"$unset": {"_id": 1}}', '[{"$match": 5}]', '[{"$group": {}}]', '[{"$out": "x"}]',
    '[{"$lookup": {"from": "users"}}]', '[{"$unwind": 5}]', '{"a": -1}', '"name"', '{"a": {"$elemMatch": 5}}',
    "[" * 200 + "]" * 200, '{"a":' * 150 + "1" + "}" * 150, "[" * 100_000, "x" * 30_000,
    json.dumps({"a": "é" * 20_000}),
    '[{"a": 1}, 5]', '[{"_id": "twice"}, {"_id": "twice"}]', "\ufeff{}", " { } ", '{"a": 1, "a": 2}', "__REGEXP /x/",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2**31 - 1, -(2**31), 500, 7)


def any_text(chance: random.Random) -> str:
    """A text for a field of which nothing else is known."""
    kind = chance.randrange(5)
    if kind == 0:
        return ""
    if kind == 1:
        return "".join(chr(chance.randrange(32, 0x2FFF)) for _ in range(chance.randrange(40)))
    return chance.choice(VALUES)


def any_message(kind: type[Message], chance: random.Random, levels: int = 2) -> Message:
    """A message with any values in some of its fields."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if chance.random() < 0.75:
            put(message, field, chance, levels)
    return message


def put(message: Message, field: Any, chance: random.Random, levels: int) -> None:
    if field.message_type is not None:
        if levels and field.message_type.full_name.startswith("openiap."):
            inner = type(getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name))
            value = any_message(inner, chance, levels - 1)
            if field.is_repeated:
                del getattr(message, field.name)[:]
                getattr(message, field.name).append(value)
            else:
                getattr(message, field.name).CopyFrom(value)
    elif field.is_repeated:
        getattr(message, field.name).extend([any_value(field, chance) for _ in range(chance.randrange(3))])
    else:
        setattr(message, field.name, any_value(field, chance))


def any_value(field: Any, chance: random.Random) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(COLLECTIONS) if field.name == "collectionname" else any_text(chance)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.randbytes(chance.randrange(100))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return chance.random() < 0.5
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return chance.choice((0.0, -1.5, 1e30, float("nan"), float("inf")))
    return chance.choice(NUMBERS)


def odd_request(session: Session, chance: random.Random) -> tuple[str, str, bytes]:
    """A record with an envelope that makes little sense but is to be answered: its id, its command, its bytes."""
    command = chance.choice(COMMANDS)
    message = any_message(REQUESTS[command], chance)
    shown, name = command, new_id()
    what = chance.randrange(10)
    if what == 0:  # a command of nobody
        shown = any_text(chance)[:200] or "x"
        if shown.lower().endswith("reply") or shown.lower() in (*UNANSWERED, *EVENTS, *NOT_HERE, "error"):
            shown = "nothing"
    elif what == 1:
        shown = "".join(chance.choice((letter, letter.upper())) for letter in command)
    elif what == 2:  # another command's data
        message = any_message(REQUESTS[chance.choice(COMMANDS)], chance)
    envelope = Envelope.FromString(session.envelope(shown, message, id=name)[LENGTH.size :])
    if what == 3:
        envelope.ClearField("data")
    elif what == 4:
        envelope.data.value = chance.randbytes(chance.randrange(60))
    elif what == 5:
        envelope.data.value = envelope.data.value[: chance.randrange(1 + len(envelope.data.value))]
    elif what == 6:
        envelope.data.type_url = any_text(chance)
        envelope.priority, envelope.traceid, envelope.rid = chance.choice(NUMBERS), any_text(chance), any_text(chance)
    elif what == 7 and chance.random() < 0.3:
        envelope.jwt = any_text(chance) or "x"
    record = envelope.SerializeToString()
    return name, command, LENGTH.pack(len(record)) + record


def broken_bytes(records: list[bytes], chance: random.Random) -> bytes:
    """Some good records, made bad in one way or another."""
    data = bytearray(b"".join(records))
    at = chance.randrange(len(data))
    kind = chance.randrange(8)
    if kind == 0:
        del data[at:]
    elif kind == 1:
        del data[at : at + chance.randrange(1, 30)]
    elif kind == 2:
        data[at:at] = chance.randbytes(chance.randrange(1, 30))
    elif kind == 3:
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 4:  # a length that is too long, or negative
        data[:4] = LENGTH.pack(chance.choice((0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, (160 << 20) + 1)))
    elif kind == 5:
        data = bytearray(b"\0" * chance.randrange(1, 5000)) + data
    elif kind == 6:  # everything twice
        data += bytes(data)
    else:
        data = bytearray(chance.randbytes(chance.randrange(1, 200)))
    return bytes(data)
