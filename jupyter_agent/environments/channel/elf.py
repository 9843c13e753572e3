"""Shared libraries of Linux: what they need, and where they look for it.

Read as the ELF format's documentation has it, 64 bits, little-endian; everything else is left as it is. What is
changed is changed in place, so that nothing in the file moves.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = b"\x7fELF\x02\x01"

DYNAMIC_SEGMENT, LOADED_SEGMENT = 2, 1

NEEDED, STRING_TABLE, OLD_PATH, PATH = 1, 5, 15, 29
"""Tags of the dynamic section: ``DT_NEEDED``, ``DT_STRTAB``, ``DT_RPATH``, ``DT_RUNPATH``."""


@dataclass(frozen=True)
class Dynamic:
    """What a file needs (``libssl.so.3``), and where in the file its search path stands (offset, text)."""

    needed: tuple[str, ...]
    path: tuple[int, str] | None


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
    return Dynamic(tuple(text(value) for tag, value in entries if tag == NEEDED), path)


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
    """The file with another search path; ``None`` when there is no room for it."""
    found = dynamic(data).path
    if found is None:
        return None
    offset, old = found
    if len(path) > len(old.encode()):
        return None
    return data[:offset] + path.encode().ljust(len(old.encode()), b"\0") + data[offset + len(old.encode()) :]
