"""A channel that stands in for those of a file which cannot be reached: made once for what is asked, never changed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jupyter_agent import processes
from jupyter_agent.environments.channel import host, places
from jupyter_agent.environments.channel.archives import Archive
from jupyter_agent.environments.channel.fetching import NoWheel, Wanted, fetch
from jupyter_agent.environments.channel.host import Host
from jupyter_agent.environments.channel.making import FORM, Alias, Order, limits, make
from jupyter_agent.environments.channel.translation import Asked, Translation, not_had, translate
from jupyter_agent.environments.telling import Teller
from jupyter_agent.environments.work.jobs import Settings
from jupyter_agent.errors import InvalidInput, Unavailable
from jupyter_agent.waiting import holding

MOST_MISSING = 20
"""So many packages that PyPI does not have are looked for, to tell them all at once."""


async def channel_for(words: Iterable[str], platform: str, *, settings: Settings, tell: Teller, tag: str) -> Path:
    """The folder of a channel that holds what the conda specs ask for, from PyPI.

    Raises ``InvalidInput`` that names what PyPI cannot have, ``Unavailable`` when it cannot be reached.
    """
    own = await host.host(tag=tag)
    if platform != own.target.subdir:
        raise InvalidInput(
            f"A channel made from PyPI is for this kind of machine, {own.target.subdir}: lock for {platform} where a "
            "conda channel can be reached."
        )
    asked = translate(words, python=own.version)
    for note in asked.notes:
        tell.note(note)
    requests = places.Requests(settings.channels)
    digest = _digest(asked, own)
    async with holding(requests.lock(digest), on_wait=lambda: tell.note("Another process makes the same channel.")):
        return await _known_or_made(asked, own, digest, requests, settings=settings, tell=tell, tag=tag)


def _digest(asked: Translation, own: Host) -> str:
    lines = sorted(f"{one.name} {one.project} {one.choices}" for one in asked.asked)
    text = json.dumps([FORM, lines, sorted(asked.empty), own.version, str(own.program), own.target.subdir, own.glibc])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


async def _known_or_made(
    asked: Translation,
    own: Host,
    digest: str,
    requests: places.Requests,
    *,
    settings: Settings,
    tell: Teller,
    tag: str,
) -> Path:
    known = requests.known(digest)
    if known and (known[1] or settings.offline):
        return known[0]
    if settings.offline:
        raise Unavailable(
            "No channel was made from PyPI for this file yet, and jupyter_agent is offline: make it once online."
        )
    try:
        place = await _made(asked, own, settings.channels, tell=tell, tag=tag)
    except Unavailable as error:
        if known is None:
            raise
        tell.note(f"{error} What was made from PyPI before is used.")
        return known[0]
    await asyncio.to_thread(requests.remember, digest, place)
    return place


async def _made(asked: Translation, own: Host, channels: Path, *, tell: Teller, tag: str) -> Path:
    with places.scratch(channels) as folder:
        wanted, files = await _fetched(asked, folder, tell=tell, tag=tag)
        aliases = tuple({Alias(one.name, one.project): None for one in asked.asked if one.name != one.project})
        order = Order(own, tuple(files), wanted, aliases, asked.empty)
        made = await make(order, folder / "channel", tell=tell, tag=tag)
        place = channels / _key(made)
        await asyncio.to_thread(places.put, folder / "channel", place)
    tell.note(f"A channel was made from PyPI. {limits(own)}")
    return place


def _key(made: list[Archive]) -> str:
    """A channel's name: the same for the same packages."""
    lines = sorted(f"{one.subdir}/{one.file.name} {one.record['sha256']}" for one in made)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]


async def _fetched(asked: Translation, folder: Path, *, tell: Teller, tag: str) -> tuple[Wanted, list[Path]]:
    """The wheels, with the first of each package's alternatives that PyPI has.

    Raises ``InvalidInput`` that names all that it has not.
    """
    chosen = dict.fromkeys(asked.asked, 0)
    missing: dict[Asked, str] = {}
    for attempt in range(MOST_MISSING + sum(len(one.choices) for one in chosen)):
        lines = tuple(one.line(choice) for one, choice in chosen.items() if one not in missing)
        wanted = Wanted((*lines, "pip"))
        try:
            files = await fetch(
                wanted, folder / f"pip-{attempt}", environ=processes.inherited_environment(), tell=tell, tag=tag
            )
        except NoWheel as error:
            one = _asked_for(error, chosen, missing)
            if chosen[one] + 1 < len(one.choices):
                chosen[one] += 1
            else:
                missing[one] = f"{one.project}{' or '.join(one.choices)}"
                if len(missing) >= MOST_MISSING:
                    break
            continue
        if missing:
            break
        return wanted, files
    raise not_had(sorted(missing.values()))


def _asked_for(error: NoWheel, chosen: Iterable[Asked], missing: Iterable[Asked]) -> Asked:
    """Which of what was asked for it is; raises the error itself for what only another package needs."""
    found = re.match(r"[A-Za-z0-9._-]+", error.requirement)
    name = canonicalize_name(found[0]) if found else ""
    for one in chosen:
        if one not in missing and canonicalize_name(Requirement(one.project).name) == name:
            return one
    raise error
