"""Messages of the protocol as plain JSON, in and out.

Fields are named as in the protocol (``collectionname``, ``_id``). What JavaScript programs send is taken, too:
documents as objects where the protocol has JSON text, bytes as a ``Buffer``, times as seconds and nanos.
"""

from __future__ import annotations

import base64
from typing import Any, TypeVar

import orjson
from google.protobuf import json_format  # noqa: TID251 - here JSON becomes messages
from google.protobuf.descriptor import FieldDescriptor  # noqa: TID251
from google.protobuf.message import Message  # noqa: TID251

from jupyter_agent.errors import InvalidInput
from jupyter_agent.openflow.proto import openiap_pb2 as pb

M = TypeVar("M", bound=Message)

TEXTS = frozenset({pb.CreateIndexResponse.DESCRIPTOR.full_name, pb.DistinctResponse.DESCRIPTOR.full_name})
"""Replies whose result is text; in all others it is JSON."""

TIME = "google.protobuf.Timestamp"


def message_of(kind: type[M], values: dict[str, Any]) -> M:
    """The message with these values; what it has no field for is let go. Raises `InvalidInput`."""
    try:
        return _filled(kind(), _fitted(kind, values))
    except (json_format.ParseError, ValueError, TypeError, OverflowError) as error:
        command = kind.DESCRIPTOR.name.removesuffix("Request")
        raise InvalidInput(f"This is no {command}: {' '.join(str(error).split())[:300].rstrip('.')}.") from error


def plain_result(reply: Message) -> Any:
    """What a reply says: the value of its one field, else all of its fields."""
    values = json_format.MessageToDict(
        reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    for name in ("result", "results", "payload"):
        if isinstance(text := values.get(name), str) and reply.DESCRIPTOR.full_name not in TEXTS:
            values[name] = _json(text)
    if len(reply.DESCRIPTOR.fields) == 1:
        return values.get(reply.DESCRIPTOR.fields[0].name)
    return values


def _filled(message: M, values: dict[str, Any]) -> M:
    # Texts are set past the library: it would hold up all threads by looking through long ones for half surrogates.
    texts = {name: values.pop(name) for name in _texts_of(type(message)) if isinstance(values.get(name), str)}
    json_format.ParseDict(values, message, ignore_unknown_fields=True)
    for name, text in texts.items():
        setattr(message, name, text)
    return message


def _texts_of(kind: type[Message]) -> list[str]:
    fields = kind.DESCRIPTOR.fields
    return [field.name for field in fields if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated]


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _fitted(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The values as the library takes them; ``kind`` is a message or what describes one."""
    fields = {field.name: field for field in getattr(kind, "DESCRIPTOR", kind).fields}
    return {name: _value(fields[name], value) for name, value in values.items() if name in fields}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, list) and field.is_repeated:
        return [_single(field, each) for each in value]
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING and isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    if field.type == FieldDescriptor.TYPE_BYTES and isinstance(value, dict):
        return base64.b64encode(bytes(value.get("data", ()))).decode()
    if field.message_type is not None and isinstance(value, dict):
        return _time(value) if field.message_type.full_name == TIME else _fitted(field.message_type, value)
    return value


def _time(value: dict[str, Any]) -> str:
    stamp = pb.PushWorkitemRequest().nextrun
    stamp.seconds, stamp.nanos = int(value.get("seconds") or 0), int(value.get("nanos") or 0)
    return stamp.ToJsonString()
