"""Shared libraries of Linux: what they need, and where they look for it.

Read as the ELF format's documentation has it, 64 bits, little-endian; everything else is left as it is. What is
changed is changed in place, so that nothing in the file moves.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

MAGIC = b"\x7fELF\x02\x01"

DYNAMIC_SEGMENT, LOADED_SEGMENT = 2, 1

NEEDED, STRING_TABLE, OLD_PATH, PATH = 1, 5, 15, 29
"""Tags of the dynamic section: ``DT_NEEDED``, ``DT_STRTAB``, ``DT_RPATH``, ``DT_RUNPATH``."""


@dataclass(frozen=True)
class Dynamic:
    """What a file needs (``libssl.so.3``) and where it looks for it; each with its offset in the file."""

    needs: tuple[tuple[int, str], ...]
    path: tuple[int, str] | None

    @property
    def needed(self) -> frozenset[str]:
        """The names of what it needs."""
        return frozenset(name.rpartition("/")[2] for _, name in self.needs)


def is_elf(data: bytes) -> bool:
    """Whether the bytes are a program or library that is understood here."""
    return data.startswith(MAGIC)


def dynamic(data: bytes) -> Dynamic:
    """Its dynamic section; an empty one for what has none or is broken."""
    try:
        return _dynamic(data)
    except (struct.error, ValueError, UnicodeError):
        return Dynamic((), None)


def _dynamic(data: bytes) -> Dynamic:
    segments = _segments(data)
    entries = [
        entry
        for kind, offset, _address, size in segments
        if kind == DYNAMIC_SEGMENT
        for entry in struct.iter_unpack("<qQ", data[offset : offset + size])
    ]
    table = next((value for tag, value in entries if tag == STRING_TABLE), 0)
    base = next(
        (
            offset + table - address
            for kind, offset, address, size in segments
            if kind == LOADED_SEGMENT and address <= table < address + size
        ),
        0,
    )
    if not base:
        return Dynamic((), None)

    def text(at: int) -> str:
        return data[base + at : data.index(b"\0", base + at)].decode()

    path = next(((base + value, text(value)) for tag, value in entries if tag in (PATH, OLD_PATH)), None)
    return Dynamic(tuple((base + value, text(value)) for tag, value in entries if tag == NEEDED), path)


def _segments(data: bytes) -> list[tuple[int, int, int, int]]:
    """``(kind, offset, address, size in the file)`` of each segment."""
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    found = []
    for number in range(count):
        kind, _flags, offset, address, _physical, length = struct.unpack_from("<IIQQQQ", data, start + number * size)
        found.append((kind, offset, address, length))
    return found


def with_path(data: bytes, path: str) -> bytes | None:
    """The file with another search path; ``None`` when there is none, or no room for it."""
    found = dynamic(data).path
    return _with(data, found, path) if found else None


def with_need(data: bytes, name: str, other: str) -> bytes | None:
    """The file that needs ``other`` where it needed ``name``; ``None`` when it does not, or there is no room for it."""
    found = next((need for need in dynamic(data).needs if need[1] == name), None)
    return _with(data, found, other) if found else None


def _with(data: bytes, found: tuple[int, str], text: str) -> bytes | None:
    offset, room = found[0], len(found[1].encode())
    new = text.encode()
    return None if len(new) > room else data[:offset] + new.ljust(room, b"\0") + data[offset + room :]


def with_placeholder(data: bytes, prefix: str, placeholder: str) -> bytes:
    """The file with the placeholder wherever ``prefix`` stands with enough zeros after it for the longer text.

    Such zeros are left where conda has written a prefix over a placeholder of its own.
    """
    old, new = prefix.encode(), placeholder.encode()
    for found in list(re.finditer(re.escape(old) + rb"(?=[/\0])([^\0]*)(\0+)", data)):
        text = new + found[1]
        if len(text) < len(found[0]):  # one zero has to stay
            data = data[: found.start()] + text.ljust(len(found[0]), b"\0") + data[found.end() :]
    return data
