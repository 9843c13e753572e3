"""Starting what outlives us: the agent and the hub. Loads nothing but ``subprocess``."""

from __future__ import annotations

import os
import subprocess  # noqa: TID251 - this package is where processes are started
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from jupyter_agent.processes import marks
from jupyter_agent.processes.environment import TAG


def spawn_detached(argv: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a session of its own, stdin null, its output appended to ``log`` (0600).

    It carries no run's tag or mark: started from within a run, it does not end with that. Raises ``OSError``.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            list(argv),
            env={name: value for name, value in env.items() if name != TAG},
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    marks.clear(process.pid)
    # Whoever started it may live long: it is waited for, so that it leaves no zombie when it ends.
    threading.Thread(target=process.wait, name=f"wait-{process.pid}", daemon=True).start()
    return process
