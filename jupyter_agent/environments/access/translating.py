"""What went wrong on the way to a channel, in one sentence without credentials."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jupyter_agent.environments.indexes import without_credentials
from jupyter_agent.errors import AccessDenied, AgentError, Failed, InvalidInput, NoChannel, NotFound, Unavailable

URL = re.compile(r"[a-z0-9+]+://[^\s'\"()]+")


def translated(error: Exception, *, channels: Sequence[object] = ()) -> AgentError:
    """The error that ``error`` of rattler's means; one of ours stays as it is."""
    if isinstance(error, AgentError):
        return error
    text = without_credentials(str(error))
    said = " ".join(line.removeprefix("Caused by: ").strip() for line in text.splitlines()[-1:]) or type(error).__name__
    where = found.group() if (found := URL.search(text)) else "A conda channel"
    if re.search(r"\b(401|403|407)\b", text):
        return AccessDenied(f"{where} asks for credentials ({said}).")
    if re.search(r"\b404\b", text):
        return NotFound(f"There is no such channel: {where}.")
    if "error sending request" in text or "timed out" in text:
        kind = NoChannel if len(channels) <= 1 else Unavailable
        return kind(f"{where} cannot be reached ({said}).")
    if "annel" in type(error).__name__:
        return InvalidInput(f"That is no channel: {said}.")
    return Failed(f"{where}: {said}.")
