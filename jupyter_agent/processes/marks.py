"""The mark that a process of a run does not lose by accident: a resource limit that limits nothing.

Every process inherits the limits of the one that started it, over ``fork`` and ``exec``, whatever it does to its
environment, session or parents, and any process of the same user may read them. ``RLIMIT_RTTIME`` (how long a
real-time process may go on without a pause, in microseconds) is unlimited as a rule; the mark sets it to some 73,000
years and more, a number made of the run's tag. Linux only: elsewhere the environment has to do.

What sets this limit itself (servers of sound do) or becomes another user is found by environment, session and parents
only, as is everything where a sandbox refuses the call or the agent was started with such a limit. What a daemon is
asked to do (docker, systemd-run, cron) is no child of the run and goes on. An agent that a run starts marks its own
runs anew: they end with that agent, as its reaper sees to.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator

LOWEST = 1 << 61
"""All marks are from here to twice this."""

_OFFSET, _PRIME, _WORD = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1
"""Of FNV-1a with 64 bits."""


def mark_of(tag: str) -> int:
    """The limit that stands for a tag; the same in every process."""
    found = _OFFSET
    for byte in tag.encode():
        found = ((found ^ byte) * _PRIME) & _WORD
    return LOWEST | (found & (LOWEST - 1))


if sys.platform == "linux":

    @contextlib.contextmanager
    def given(tag: str) -> Iterator[None]:
        """What this process starts meanwhile has the tag's mark from its first moment on.

        Set afterwards, it would come too late for what the child itself starts at once. What another thread starts
        in the same moment has it, too: that is to be taken away (``clear``).
        """
        before = resource.getrlimit(resource.RLIMIT_RTTIME)
        try:
            _set(before, mark_of(tag))
            yield
        finally:
            _set(before, before[0])

    def _set(limits: tuple[int, int], wanted: int) -> None:
        if limits[1] == resource.RLIM_INFINITY:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_RTTIME, (wanted, limits[1]))

    def put(pid: int, tag: str) -> bool:
        """Give the tag's mark to a process that was started before it had one of its own; whether that was possible."""
        with contextlib.suppress(OSError, ValueError):
            most = resource.prlimit(pid, resource.RLIMIT_RTTIME)[1]
            if most == resource.RLIM_INFINITY:
                resource.prlimit(pid, resource.RLIMIT_RTTIME, (mark_of(tag), most))
                return True
        return False

    def clear(pid: int) -> None:
        """Take the mark from a process, whosever it is."""
        with contextlib.suppress(OSError, ValueError):
            if read(pid) is not None:
                most = resource.prlimit(pid, resource.RLIMIT_RTTIME)[1]
                resource.prlimit(pid, resource.RLIMIT_RTTIME, (most, most))

    def read(pid: int) -> int | None:
        """The mark of a process; ``None`` when it has none, or it is another user's, or gone."""
        with contextlib.suppress(OSError, ValueError):
            found, _ = resource.prlimit(pid, resource.RLIMIT_RTTIME)
            return found if LOWEST <= found < 2 * LOWEST else None
        return None

else:

    @contextlib.contextmanager
    def given(tag: str) -> Iterator[None]:  # noqa: ARG001 - the signature that Linux needs
        """There is no such limit here."""
        yield

    def put(pid: int, tag: str) -> bool:  # noqa: ARG001 - the signature that Linux needs
        """There is no such limit here."""
        return False

    def clear(pid: int) -> None:
        """There is no such limit here."""

    def read(pid: int) -> int | None:  # noqa: ARG001 - the signature that Linux needs
        """There is no such limit here."""
        return None
