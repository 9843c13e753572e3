"""What an export consists of: its manifest, its parts, their names. It touches no disk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from jupyter_agent.errors import AgentError, InvalidInput, NewerVersion

FORMAT = "jupyter_agent hub export"
VERSION = 1

MANIFEST = "manifest.json"
PASSWORDS = "passwords.jsonl"
CONTENTS = "contents.jsonl"
FILES = "files/"

MAX_MANIFEST = 64 << 20
MAX_LINE = 64 << 20
"""Bytes. A document has at most 16 MiB as it is stored; escapes may make it longer."""

NAME = re.compile(r"collections/\d{4,8}\.jsonl|passwords\.jsonl|contents\.jsonl")
FILE_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Part:
    """A file of JSON lines; ``collection`` is empty for passwords and contents. ``indexes`` as ``getindexes`` says."""

    name: str
    lines: int
    bytes: int
    sha256: str
    collection: str = ""
    indexes: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What an export holds; ``files`` and ``file_bytes`` count the contents."""

    created: str
    software: str
    parts: tuple[Part, ...] = ()
    files: int = 0
    file_bytes: int = 0
    format: str = field(default=FORMAT, init=False)
    version: int = field(default=VERSION, init=False)

    @property
    def collections(self) -> tuple[Part, ...]:
        """The parts that hold documents."""
        return tuple(part for part in self.parts if part.collection)

    @property
    def documents(self) -> int:
        """How many documents there are, without histories."""
        return sum(part.lines for part in self.collections if not part.collection.endswith("_hist"))

    @property
    def size(self) -> int:
        """Bytes of all parts and contents."""
        return self.file_bytes + sum(part.bytes for part in self.parts)

    def part(self, name: str) -> Part | None:
        """The part of this name, or the collection's of this name."""
        return next((part for part in self.parts if name in (part.name, part.collection)), None)

    def text(self) -> bytes:
        """The manifest as it is written."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2) + b"\n"


def manifest_of(data: bytes) -> Manifest:
    """The manifest in these bytes. Raises `InvalidInput`, or `NewerVersion`."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise broken("its manifest is not JSON") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InvalidInput("This is no export of a hub: its manifest says something else.")
    version = found.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise broken("its manifest does not say its version")
    if version > VERSION:
        raise NewerVersion(
            f"This export was written by a newer version of jupyter_agent (format {version}, this one knows {VERSION}):"
            " upgrade jupyter_agent."
        )
    try:
        parts = tuple(_part(part) for part in found["parts"])
        made = Manifest(_text(found, "created"), _text(found, "software"), parts,
                        _count(found, "files"), _count(found, "file_bytes"))  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise broken(f"its manifest is incomplete ({error})") from error
    _check_distinct(made)
    return made


def broken(what: str) -> AgentError:
    """The error for an export that is not as it was written."""
    return InvalidInput(f"The export is damaged: {what}. Nothing was changed.")


def _check_distinct(manifest: Manifest) -> None:
    names = [part.name for part in manifest.parts]
    collections = [part.collection for part in manifest.collections]
    if len(set(names)) < len(names) or len(set(collections)) < len(collections):
        raise broken("its manifest names a part twice")
    if manifest.part(CONTENTS) is None:
        raise broken(f"its manifest does not name {CONTENTS}")
    for part in manifest.parts:
        if bool(part.collection) != part.name.startswith("collections/"):
            raise broken(f"its manifest does not say what {part.name} is")


def _part(found: Any) -> Part:
    name, sha256 = _text(found, "name"), _text(found, "sha256")
    if not NAME.fullmatch(name) or not SHA256.fullmatch(sha256):
        raise ValueError("a part with a name or a hash that cannot be")
    indexes = found["indexes"]
    if not isinstance(indexes, list) or not all(isinstance(index, dict) for index in indexes):
        raise ValueError("indexes")
    return Part(name, _count(found, "lines"), _count(found, "bytes"), sha256, _text(found, "collection"),
                tuple(indexes))  # fmt: skip


def _text(found: Mapping[str, Any], name: str) -> str:
    if not isinstance(value := found[name], str):
        raise TypeError(name)
    return value


def _count(found: Mapping[str, Any], name: str) -> int:
    if not isinstance(value := found[name], int) or isinstance(value, bool) or value < 0:
        raise TypeError(name)
    return value
