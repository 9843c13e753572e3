"""What a backup consists of: its head, its contents, its manifest, and what may be in it. It touches no disk.

An archive (gzipped tar) begins with ``head.json``; then come the contents, named by number alone, and last
``manifest.json``, which says for each what it is in the home, with its hash. So no name in the archive itself is ever
made a path, and a home may hold whatever names its runs made: the rules for packages would refuse some of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from jupyter_agent.errors import AgentError, InvalidInput, NewerVersion
from jupyter_agent.home import FORMAT as HOME_FORMAT

FORMAT = "jupyter_agent backup"
VERSION = 1

HEAD, MANIFEST, CONTENTS = "head.json", "manifest.json", "contents/"
MAX_HEAD, MAX_MANIFEST = 1 << 16, 1 << 29
LONGEST_NAME, LONGEST_PATH = 255, 4000
SHA256 = re.compile(r"[0-9a-f]{64}")

MADE_ANEW = ("environments", "preparations", "packages")
"""Folders whose contents come back by themselves when they are needed."""

LOCKS = PurePosixPath("environments/locks")
"""What environments were locked to: made anew, they are to be as they were."""

NEVER = ("cache", "held", "building")
"""In ``environments``: copies of what is in the environments, and what says who uses and makes them at the moment."""

OF_A_PROCESS = frozenset({"agent.json", "agent.sock", "agent.lock", "hub/lock", "restored.json"})
"""What belongs to who runs at the moment."""

PRIVATE = 0o700

Kind = Literal["file", "folder", "link"]
KINDS: dict[str, Kind] = {"file": "file", "folder": "folder", "link": "link"}


@dataclass(frozen=True)
class Entry:
    """One thing in a home; ``content`` is a number in the archive, ``bytes`` and ``sha256`` are the content's."""

    path: str
    kind: Kind
    mode: int
    mtime_ns: int = 0
    content: int = -1
    bytes: int = 0
    sha256: str = ""
    target: str = ""


@dataclass(frozen=True)
class Head:
    """What is known before anything is read: ``files`` counts the contents, ``size`` is at most their bytes."""

    created: str
    software: str
    files: int
    size: int
    home_format: int = HOME_FORMAT
    format: str = field(default=FORMAT, init=False)
    version: int = field(default=VERSION, init=False)

    def text(self) -> bytes:
        """As it is written."""
        return json.dumps(asdict(self), indent=2).encode() + b"\n"


@dataclass(frozen=True)
class Manifest:
    """All that is in a backup of the home that lay at ``home``; ``left_out`` are sentences."""

    home: str
    entries: tuple[Entry, ...]
    left_out: tuple[str, ...] = ()

    def text(self) -> bytes:
        """As it is written: names that are no text are kept by JSON's escapes."""
        return json.dumps(asdict(self)).encode() + b"\n"


def is_left_out(path: PurePosixPath, *, everything: bool) -> bool:
    """Whether something of a home stays out of its backup by its name alone."""
    parts = path.parts
    hidden = any(part.startswith(".") for part in parts[:2])  # temporary files, reserves, locks of our own
    rest = str(path).endswith(("-wal", "-shm", "-journal")) and len(parts) <= 2 and parts[0] != "runs"  # noqa: PLR2004
    never = parts[0] == LOCKS.parts[0] and len(parts) > 1 and parts[1] in NEVER
    if str(path) in OF_A_PROCESS or hidden or rest or never:
        return True
    if everything or path in (LOCKS, LOCKS.parent) or LOCKS in path.parents:
        return False
    return parts[0] in MADE_ANEW


def head_of(data: bytes) -> Head:
    """The head in these bytes. Raises ``InvalidInput`` for another file's, ``NewerVersion``."""
    found = _object(data, "head")
    if found.get("format") != FORMAT:
        raise InvalidInput("This is no backup of a home: its head says something else.")
    version, home_format = _count(found, "version"), _count(found, "home_format")
    if version > VERSION or home_format > HOME_FORMAT:
        raise NewerVersion(
            f"This backup was made by a newer version of jupyter_agent ({_text(found, 'software')[:40]}): "
            "upgrade jupyter_agent to restore it. Nothing was changed."
        )
    return Head(
        _text(found, "created"), _text(found, "software"), _count(found, "files"), _count(found, "size"), home_format
    )


def manifest_of(data: bytes) -> Manifest:
    """The manifest in these bytes, with nothing in it that could do harm. Raises ``InvalidInput``."""
    found = _object(data, "manifest")
    entries, left_out = found.get("entries"), found.get("left_out")
    if not isinstance(entries, list) or not isinstance(left_out, list):
        raise broken("its manifest is incomplete")
    made = tuple(_entry(entry) for entry in entries)
    _check_tree(made)
    return Manifest(_text(found, "home"), made, tuple(str(each) for each in left_out))


def broken(what: str) -> AgentError:
    """The error for a backup that is not as it was written."""
    return InvalidInput(f"The backup is damaged: {what}. Nothing was changed.")


def path_of(text: str) -> PurePosixPath:
    """A path of the manifest, relative to the home. Raises ``InvalidInput`` for one that leads out of it."""
    parts = text.split("/")
    if not text or "\0" in text or any(part in ("", ".", "..") for part in parts):
        raise broken(f"it names {text[:200]!r}, which leads out of the home")
    encoded = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    if max(encoded) > LONGEST_NAME or sum(encoded) > LONGEST_PATH:
        raise broken(f"it holds a name that is too long: {text[:60]!r}…")
    return PurePosixPath(*parts)


def _check_tree(entries: tuple[Entry, ...]) -> None:
    """Each path once, below folders alone, each content once; links at the end of a path, and into the home."""
    kinds: dict[PurePosixPath, Kind] = {}
    contents: set[int] = set()
    for entry in entries:
        path = path_of(entry.path)
        if path in kinds:
            raise broken(f"it holds {entry.path[:200]!r} twice")
        if str(path) in OF_A_PROCESS:
            raise broken(f"it holds {path}, which no backup has")
        kinds[path] = entry.kind
        if entry.kind == "file" and entry.content in contents:
            raise broken(f"two files share the content {entry.content}")
        contents.add(entry.content)
        if entry.kind == "link":
            check_link(path, entry.target)
    for path in kinds:
        for parent in path.parents[:-1]:
            if kinds.get(parent) != "folder":
                raise broken(f"it puts {str(path)[:200]!r} below {str(parent)[:200]!r}, which is no folder in it")
    if kinds.get(PurePosixPath("version")) != "file":
        raise broken("it is no home: it has no version")


def check_link(path: PurePosixPath, target: str) -> None:
    """Raise ``InvalidInput`` for a link that may not be in a home.

    In environments and preparations a link may lead to where Python or a tool is; it lies two folders down at least,
    as what is there is made anew and removed by the folder. Elsewhere it stays within its own folder of the home:
    ``..`` stands at its beginning only.
    """
    if not target or "\0" in target:
        raise broken(f"it holds the link {str(path)[:200]!r}, which leads nowhere")
    if path.parts[0] in MADE_ANEW and len(path.parts) > 2:  # noqa: PLR2004 - its folder, and one below
        return
    steps = [step for step in target.split("/") if step not in ("", ".")]
    ups = next((count for count, step in enumerate(steps) if step != ".."), len(steps))
    if target.startswith("/") or ".." in steps[ups:] or ups > len(path.parts) - 2:
        raise broken(f"it links {str(path)[:200]!r} to {target[:200]!r}, which is not where it should be")


def _entry(found: Any) -> Entry:
    if not isinstance(found, dict):
        raise broken("its manifest is incomplete")
    kind, sha256 = KINDS.get(_text(found, "kind")), _text(found, "sha256")
    if kind is None or (kind == "file" and not SHA256.fullmatch(sha256)):
        raise broken("its manifest names something that is no file, folder or link")
    return Entry(
        path=_text(found, "path"),
        kind=kind,
        mode=_count(found, "mode") & 0o777,
        mtime_ns=_count(found, "mtime_ns"),
        content=_count(found, "content") if kind == "file" else -1,
        bytes=_count(found, "bytes"),
        sha256=sha256,
        target=_text(found, "target"),
    )


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise broken(f"its {what} is not JSON") from error
    if not isinstance(found, dict):
        raise broken(f"its {what} is no object")
    return found


def _text(found: Mapping[str, Any], name: str) -> str:
    if not isinstance(value := found.get(name), str):
        raise broken(f"its {name} is no text")
    return value


def _count(found: Mapping[str, Any], name: str) -> int:
    if not isinstance(value := found.get(name), int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise broken(f"its {name} is no number")
    return value
