"""A conda channel made from the running CPython and from PyPI's wheels: where no conda channel can be reached.

Its ``python`` uses the libraries of the machine's operating system, so what is made from it is right for the same
operating system only: the channel's README says so. This package knows wheels, archives and names; it refuses to know
what an environment is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from jupyter_agent import processes
from jupyter_agent.environments.channel import host, places
from jupyter_agent.environments.channel.asking import asked_for
from jupyter_agent.environments.channel.fetching import fetch
from jupyter_agent.environments.channel.making import Order, limits, make
from jupyter_agent.environments.telling import Teller
from jupyter_agent.environments.work.jobs import ChannelJob, Settings
from jupyter_agent.errors import Failed
from jupyter_agent.processes.environment import TAG

if TYPE_CHECKING:
    from jupyter_agent.environments.specs import Spec

__all__ = ["run", "stand_in", "stand_in_words"]


async def run(job: ChannelJob, tell: Teller) -> dict[str, Any]:
    """Make the channel that ``job`` asks for: ``{"folder", "url", "packages": [{"name", "version", "build"}]}``.

    Requirements are requirements as in requirements.txt, paths of such files, of environment.yml and the like, and of
    wheels. A channel that was made in the folder before is replaced, once the new one is there.
    """
    with _told():
        return await _run(job, tell, _tag())


async def _run(job: ChannelJob, tell: Teller, tag: str) -> dict[str, Any]:
    place = job.folder.absolute()
    places.check_place(place)
    own = await host.host(tag=tag)
    asked = asked_for(job.requirements, own, pip=bool(job.python))
    for note in asked.notes:
        tell.note(note)
    with places.scratch(place.parent) as folder:
        environ = processes.inherited_environment()
        offline = job.settings.offline
        files = await fetch(asked.wanted, folder / "pip", environ=environ, tell=tell, tag=tag, offline=offline)
        order = Order(own, tuple(files), asked.wanted, asked.aliases, asked.empty, python=bool(job.python))
        made = await make(order, folder / "channel", tell=tell, tag=tag)
        await asyncio.to_thread(places.replace, folder / "channel", place)
    tell.note(f"The channel is {place.as_uri()}. {limits(own)}")
    packages = [{name: one.record[name] for name in ("name", "version", "build")} for one in made]
    return {"folder": str(place), "url": place.as_uri(), "packages": packages}


async def stand_in(spec: Spec, platform: str, *, settings: Settings, tell: Teller) -> str:
    """The URL of a channel that holds what ``spec`` asks for on ``platform``, from PyPI.

    What it is asked for is to be solved as ``stand_in_words`` says. Raises ``InvalidInput`` that names what PyPI
    cannot have, ``Unavailable`` when it cannot be reached.
    """
    from jupyter_agent.environments.channel.standing import channel_for  # noqa: PLC0415 - loads rattler

    words = spec.conda.get(platform, ())
    with _told():
        return (await channel_for(words, platform, settings=settings, tell=tell, tag=_tag())).as_uri()


def stand_in_words(words: Iterable[str]) -> list[str]:
    """The conda specs without channel, build and hash: those are of a channel that a stand-in is not."""
    from jupyter_agent.environments.channel.translation import plain  # noqa: PLC0415 - loads rattler

    return plain(words)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Say in a sentence what the system did not do: a full disk, a folder that may not be written."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise Failed(
            f"The channel could not be made: {error.strerror or error}{where}. Nothing of it was left; make room, or "
            "name another folder."
        ) from error


def _tag() -> str:
    """The mark of whatever is started; a child has one."""
    return os.environ.get(TAG) or uuid.uuid4().hex
