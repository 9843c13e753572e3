"""The marker of a prefix: written last, taken away first, it says what was made and how far it can be trusted.

A prefix counts when ``ready`` lies in it. ``tainted`` in its stead: it was changed, and is made anew. Neither: it was
being made, or removed, when something ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from jupyter_agent.home import sync

READY = "ready"
TAINTED = "tainted"
REMOVING = "removing"

TRUST = ".trust"

OURS = frozenset({READY, TAINTED, REMOVING, TRUST})
"""Names in a prefix that are no part of what was made."""

LOST = "lost"
"""Cleared of nothing: nobody saw what became of its last use."""


@dataclass(frozen=True)
class Mark:
    """What is known of a ready prefix; it never changes.

    ``bytes`` are those of all its files, ``own_bytes`` of those that it shares with no cache. ``made`` is in ISO 8601,
    ``prefix`` the path at which it was made; empty in a prefix of an earlier version, as is all the rest.
    """

    kind: str = "venv"
    made: str = ""
    name: str = ""
    source: str = ""
    asked: tuple[str, ...] = ()
    python: str = ""
    packages: int = 0
    files: int = 0
    bytes: int = 0
    own_bytes: int = 0
    prefix: str = ""

    @classmethod
    def read(cls, prefix: Path, name: str = READY) -> Self | None:
        """That of a prefix; ``None``: it has none, or one that says nothing that can be read."""
        try:
            text = (prefix / name).read_text(encoding="utf-8")
            plain = json.loads(text) if text.strip() else {}
            known = {field.name: plain[field.name] for field in fields(cls) if field.name in plain}
            return cls(**{**known, "asked": tuple(known.get("asked", ()))})
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def write(self, prefix: Path, *, durable: bool) -> None:
        """Mark a prefix as ready, in one moment; ``durable``: for good before this returns."""
        write_whole(prefix / READY, json.dumps(asdict(self)), durable=durable)


def cleared_of(prefix: Path) -> str:
    """The suspicion that a prefix was cleared of last; ``LOST``: of none, or it was at another path then."""
    try:
        suspicion, _, path = (prefix / TRUST).read_text(encoding="utf-8", errors="surrogateescape").partition("\n")
    except OSError:
        return LOST
    return suspicion if path == str(prefix) else LOST


def clear(prefix: Path, suspicion: str) -> None:
    """Write down that a prefix need not be looked at; what cannot be written leaves a look to be taken once more."""
    with contextlib.suppress(OSError):
        write_whole(prefix / TRUST, f"{suspicion}\n{prefix}")


def write_whole(file: Path, text: str, *, durable: bool = False) -> None:
    """Replace a file in one moment; only its user may read it."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as opened:
            opened.write(text)
            if durable:
                opened.flush()
                os.fsync(opened.fileno())
        temporary.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync(file.parent)
