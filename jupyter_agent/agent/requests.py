"""What is asked for when something is to be run: checked, and kept so that it can be asked for again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jupyter_agent.agent.senders import Sender
from jupyter_agent.agent.variables import as_text
from jupyter_agent.errors import AccessDenied, Conflict, InvalidInput
from jupyter_agent.runs import MOST_RETRIES, Limits
from jupyter_agent.state import Claim, RunRow

MAX_SHOWN = 1 << 17
"""Characters of parameters, as JSON, that a run's row holds as they came; of larger ones each long value is cut."""

SHORT = 1000
"""Characters of a value that is cut."""

LONGEST_KEY = 200
LONGEST_DELAY_S = 86_400.0
PRIORITIES = range(-1000, 1001)

CHOICES = ("environment", "from_pypi", "offline")
"""What of a request says where it runs."""

_CUT = re.compile(r" … \(\d+ characters\)\Z")


@dataclass(frozen=True)
class RunRequest:
    """What is to be run, for whom, with what.

    ``target`` is the id or name of a package, or the absolute path of a notebook, a script or a package's folder;
    ``who`` the person or thing that asks, ``trigger`` the way it came; ``sender`` a verified user of OpenFlow whose
    rights count and whose token the run gets, ``None`` for the home's own user, who alone may name a path. ``limits``
    are those of the settings where the request has none of its own. ``prepare_only``: all is made ready, nothing is
    started.

    A lower ``priority`` goes first. A run that fails is tried ``retries`` times more, the first time after
    ``retry_delay_s`` seconds, then after longer and longer ones. The same ``key`` of the same caller is the same run
    for 24 hours at least. ``rerun_of`` is the run that this one repeats; ``jwt`` is the token of a sender of whom
    nothing else is known any more.

    ``environment`` is where it runs instead of in what its own files ask for: the id or name of an environment, or the
    absolute path of one, or of a file that says what one is to hold; only the home's own user may name it.
    ``from_pypi``: where no conda channel can be reached, one made from PyPI stands in; ``offline``: nothing is fetched;
    ``None``: as the settings say.
    """

    target: str
    who: str
    trigger: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sender: Sender | None = None
    isolated: bool = False
    limits: Limits | None = None
    reply: Mapping[str, str] | None = None
    priority: int = 2
    retries: int = 0
    retry_delay_s: float = 10.0
    key: str | None = None
    prepare_only: bool = False
    rerun_of: str | None = None
    environment: str = ""
    from_pypi: bool | None = None
    offline: bool | None = None
    jwt: str = field(default="", repr=False)

    @property
    def token(self) -> str:
        """The sender's token; empty when nobody sent it."""
        return self.sender.jwt if self.sender is not None else self.jwt

    def check(self) -> None:
        """Raise ``InvalidInput`` for what cannot be asked for."""
        check_parameters(self.parameters)
        if self.priority not in PRIORITIES:
            raise InvalidInput(f"The priority is from {PRIORITIES[0]} (first) to {PRIORITIES[-1]} (last).")
        if not 0 <= self.retries <= MOST_RETRIES:
            raise InvalidInput(f"A run is tried again {MOST_RETRIES} times at most, or not at all (0).")
        if not math.isfinite(self.retry_delay_s) or not 0 <= self.retry_delay_s <= LONGEST_DELAY_S:
            raise InvalidInput(f"The delay before a run is tried again is from 0 to {LONGEST_DELAY_S:.0f} seconds.")
        if self.key is not None and not 0 < len(self.key) <= LONGEST_KEY:
            raise InvalidInput(f"The key of a run has 1 to {LONGEST_KEY} characters.")
        if self.environment and self.sender is not None:
            raise AccessDenied("Only the user of this agent's home can name the environment of a run.")

    def claim(self) -> Claim | None:
        """What the key stands for; ``None`` without one."""
        if self.key is None:
            return None
        wanted = [self.target, dict(self.parameters), self.isolated, self.prepare_only]
        wanted += [self.environment] if self.environment else []
        fingerprint = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
        caller = f"local {self.who}" if self.sender is None else f"openflow {self.sender.user.id}"
        return Claim(caller, self.key, fingerprint)

    def stored(self, limits: Limits) -> dict[str, Any]:
        """What is kept of it besides the run's row; the token only where a further attempt may need it."""
        kept = {
            "parameters": dict(self.parameters),
            "isolated": self.isolated,
            "limits": dataclasses.asdict(limits),
            **{name: value for name in CHOICES if (value := getattr(self, name)) not in (None, "")},
        }
        return {**kept, "jwt": self.token} if self.retries and self.token else kept


def restored(row: RunRow, stored: Mapping[str, Any] | None) -> RunRequest:
    """The request that a run came from, as its row and what else was kept tell. Raises ``Conflict``."""
    if stored is None:  # from before requests were kept: the row has the parameters, unless they were too large
        if any(isinstance(value, str) and _CUT.search(value) for value in row.parameters.values()):
            raise Conflict(f"Run {row.id} cannot be repeated: its parameters are not known as a whole any more.")
        stored = {"parameters": row.parameters, "isolated": False}
    limits = stored.get("limits")
    return RunRequest(
        target=str(row.package_id or row.path or row.package),
        who=row.who,
        trigger=row.trigger,
        parameters=stored["parameters"],
        isolated=stored["isolated"],
        limits=None if limits is None else limits_of(limits),
        priority=row.priority,
        retries=row.retries,
        retry_delay_s=row.retry_delay_s,
        prepare_only=row.kind == "prepare",
        **{name: stored[name] for name in CHOICES if name in stored},
        jwt=str(stored.get("jwt") or ""),
    )


def limits_of(stored: Mapping[str, Any]) -> Limits:
    """Limits as they were kept; those that only another version knows are passed over."""
    known = {entry.name for entry in dataclasses.fields(Limits)}
    return Limits(**{name: value for name, value in stored.items() if name in known})


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise ``InvalidInput`` for what JSON cannot hold, so that every reader of a run gets what was sent."""
    try:
        json.dumps(parameters, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"The parameters cannot be written as JSON: {error}.") from error


def abridged(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as a run's row keeps them, which is read and sent often: of large ones the beginning.

    The run itself gets them whole.
    """
    if len(json.dumps(parameters)) <= MAX_SHOWN:
        return dict(parameters)
    shown, room = {}, MAX_SHOWN
    for name, value in parameters.items():
        text = as_text(value)
        shown[name] = value if len(text) <= SHORT else f"{text[:SHORT]} … ({len(text)} characters)"
        room -= len(name) + SHORT
        if room < 0:
            break
    return shown
