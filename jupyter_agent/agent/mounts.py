"""What kind of file system a folder is on, by the kernel's own list (``/proc/self/mountinfo``, proc(5))."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from jupyter_agent.errors import InvalidInput

MOUNTS = Path("/proc/self/mountinfo")

NETWORK = frozenset({"nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "fuse.sshfs", "fuse.curlftpfs"})
"""Where SQLite's log, which processes share by memory, and locks on files do not hold what they promise."""


def file_system_of(folder: Path, mounts: str) -> str:
    """The type of the file system of a folder; empty when the list does not tell. The last mount on a place counts."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        with contextlib.suppress(ValueError, IndexError):
            place = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4]))
            if folder.is_relative_to(place) and len(place.parts) >= best:
                best, kind = len(place.parts), fields[fields.index("-") + 1]
    return kind


def network_file_system(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """The type of the network file system that a folder is on; ``None``: it is on none, or that cannot be told."""
    try:
        kind = file_system_of(folder.resolve(), mounts.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return None
    return kind if kind in NETWORK else None


def refuse_network(home: Path, mounts: Path = MOUNTS) -> None:
    """Raise ``InvalidInput`` for a home on a network file system, with the way out."""
    if kind := network_file_system(home, mounts):
        raise InvalidInput(
            f"The home {home} is on a network file system ({kind}), on which databases break: have "
            "JUPYTER_AGENT_HOME name a folder on a disk of this machine."
        )
