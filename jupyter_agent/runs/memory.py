"""A run's limits of memory and processes: by a cgroup of its own where one may be made, else by looking at both.

A cgroup (version 2) can be made where a part of the tree was delegated to us: below a systemd service with
``Delegate=``, below a user's own slice, or in a container with a writable cgroup file system. The kernel then keeps the
limits exactly; everywhere else the tree's resident memory is looked at once a second, its processes more often.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

ROOT = Path("/sys/fs/cgroup")


class Group:
    """A cgroup of a run; made by ``Group.make``. Everything here is a few small file accesses."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, name: str, *, memory_bytes: int | None, processes: int | None) -> Self | None:
        """A new group with these limits; ``None`` where none may be made."""
        wanted = {"memory": memory_bytes, "pids": processes}
        limits = {controller: limit for controller, limit in wanted.items() if limit is not None}
        for parent in _candidates():
            group = cls(parent / f"jupyter-agent-{name}")
            try:
                _enable(parent, limits)
                group.path.mkdir()
                for controller, limit in limits.items():
                    group._write(f"{controller}.max", str(limit))
            except OSError:
                group.remove()
                continue
            with contextlib.suppress(OSError):  # no swap, or not accounted for
                group._write("memory.swap.max", "0")
            with contextlib.suppress(OSError):
                group._write("memory.oom.group", "1")  # half a run is of no use
            return group
        return None

    def add(self, pids: Iterable[int]) -> bool:
        """Move processes in; whether all went. What they start later is in it by itself."""
        try:
            for pid in pids:
                self._write("cgroup.procs", str(pid))
        except OSError:
            return False
        return True

    @property
    def exceeded(self) -> bool:
        """Whether the kernel killed something for the limit."""
        return self._number("memory.events", "oom_kill ") > 0

    @property
    def refused_processes(self) -> bool:
        """Whether the kernel refused to make a process for the limit."""
        return self._number("pids.events", "max ") > 0

    @property
    def peak_bytes(self) -> int | None:
        """The most that was ever used at once; ``None`` before Linux 5.19."""
        return self._number("memory.peak", "") or None

    def remove(self) -> None:
        """Remove the group; the processes in it are to be gone."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def _number(self, name: str, before: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            for line in (self.path / name).read_text().splitlines():
                if line.startswith(before):
                    return int(line.removeprefix(before))
        return 0


def _candidates() -> list[Path]:
    """Groups below which one of ours may be made: the one we are in, and its parent.

    The latter because a group with processes of its own cannot share its memory out to groups below it.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::/") and (ROOT / "cgroup.controllers").exists():
                own = ROOT / line.removeprefix("0::/")
                return [group for group in (own, own.parent) if _is_ours(group)]
    return []


def _is_ours(group: Path) -> bool:
    """Whether the group was given to us: root could write everywhere, but what systemd manages is not root's to use."""
    if (
        not group.is_relative_to(ROOT)
        or not os.access(group, os.W_OK)
        or not os.access(group / "cgroup.procs", os.W_OK)
    ):
        return False
    return os.geteuid() != 0 or group == ROOT or _is_delegated(group)


def _is_delegated(group: Path) -> bool:
    for name in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError, AttributeError):
            return os.getxattr(group, name) == b"1"
    return False


def _enable(group: Path, controllers: Iterable[str]) -> None:
    """See that groups below have the controllers. Raises ``OSError`` where that cannot be."""
    subtree = group / "cgroup.subtree_control"
    for controller in set(controllers) - set(subtree.read_text().split()):
        subtree.write_text(f"+{controller}")
