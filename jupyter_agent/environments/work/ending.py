"""A child does not outlive whoever started it: nobody else may build beside it in the same place."""

from __future__ import annotations

import os
import select
import threading
import time

LOOK_S = 0.2
"""Between two looks at the parent, where the system does not tell."""


def end_with(parent: int) -> None:
    """From now on this process, and all that carries its tag, ends when ``parent`` is gone, at once."""
    threading.Thread(target=_wait_and_end, args=(parent,), daemon=True, name="end with parent").start()


def _wait_and_end(parent: int) -> None:
    _wait(parent)
    try:
        _end_the_others()
    finally:
        os._exit(1)


def _wait(parent: int) -> None:
    try:
        descriptor = os.pidfd_open(parent)
    except (AttributeError, OSError):  # not Linux, or an old one; or it is gone already
        while os.getppid() == parent:
            time.sleep(LOOK_S)
        return
    if os.getppid() == parent:  # else the number is another process's by now
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()


def _end_the_others() -> None:
    from jupyter_agent import processes  # noqa: PLC0415 - needed at an end that hardly ever comes
    from jupyter_agent.processes.environment import TAG  # noqa: PLC0415 - the same

    if tag := os.environ.get(TAG):
        processes.kill_leftovers(tag)
