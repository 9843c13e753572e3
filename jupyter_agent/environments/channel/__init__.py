"""A conda channel made from the running CPython and from PyPI's wheels: where no conda channel can be reached.

Its ``python`` uses the libraries of the machine's operating system, so what is made from it is right for the same
operating system only: the channel's README says so. This package knows wheels, archives and names; it refuses to know
what an environment is.
"""

from __future__ import annotations

import os
import uuid
from typing import Any

from jupyter_agent.environments.channel.fetching import Wanted
from jupyter_agent.environments.channel.making import make
from jupyter_agent.environments.telling import Teller
from jupyter_agent.environments.work.jobs import ChannelJob
from jupyter_agent.processes.environment import TAG

__all__ = ["run"]


async def run(job: ChannelJob, tell: Teller) -> dict[str, Any]:
    """Make the channel that ``job`` asks for: ``{"folder", "url", "packages": [{"name", "version", "build"}]}``."""
    tag = os.environ.get(TAG) or uuid.uuid4().hex
    made = await make(Wanted(job.requirements), job.folder, python=bool(job.python), tell=tell, tag=tag)
    packages = [{name: one.record[name] for name in ("name", "version", "build")} for one in made]
    return {"folder": str(job.folder), "url": job.folder.as_uri(), "packages": packages}
