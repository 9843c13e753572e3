"""The child: ``python -P -m jupyter_agent.environments.work JOBFILE``; the file is removed when it was read."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

from jupyter_agent.environments.work.ending import end_with
from jupyter_agent.environments.work.jobs import BuildJob, ChannelJob, Job, LockJob, VerifyJob, from_json
from jupyter_agent.environments.work.telling import Tell
from jupyter_agent.errors import AgentError, Failed

WORK: dict[type[Job], str] = {
    LockJob: "jupyter_agent.environments.locking",
    BuildJob: "jupyter_agent.environments.building.making",
    ChannelJob: "jupyter_agent.environments.channel",
    VerifyJob: "jupyter_agent.environments.building.verifying",
}
"""Which module's ``run(job, tell)`` does a job; loaded when it is needed, for its start is waited for."""


def main() -> None:
    """Do the job and end without the interpreter's own end, which crashed in 3 of 60 with rattler's threads."""
    tell = Tell(_own_stdout())
    try:
        end_with(os.getppid())
        file = Path(sys.argv[1])
        job = from_json(file.read_text(encoding="utf-8"))
        file.unlink()
        gc.disable()  # a tenth of the time that it takes to load rattler
        module = import_module(WORK[type(job)])
        gc.enable()
        tell.finish(asyncio.run(module.run(job, tell)))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is told
        told = _told(error)
        if told is None:
            traceback.print_exc()
            told = Failed(
                f"The work on the environment broke off by an error of its own ({type(error).__name__}: {error})."
            )
        tell.fail(type(told).__name__, str(told))
    finally:
        sys.stderr.flush()
        os._exit(0)


def _told(error: BaseException) -> AgentError | None:
    """The error that was raised on purpose, also where a task group has wrapped it; ``None``: it was not."""
    if isinstance(error, BaseExceptionGroup):
        return next((told for inner in error.exceptions if (told := _told(inner)) is not None), None)
    return error if isinstance(error, AgentError) else None


def _own_stdout() -> int:
    """A descriptor of the stdout for us alone; what a library prints goes to stderr."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return descriptor


if __name__ == "__main__":
    main()
