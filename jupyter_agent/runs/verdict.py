"""How a run ended, decided from what is known of it. Nothing here does anything.

A signal is never success, nor is an error while preparing, nor an end that nobody saw.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from jupyter_agent.errors import AccessDenied, AgentError, InvalidInput
from jupyter_agent.processes import Exit
from jupyter_agent.state import RunState

LONGEST_ERROR = 2000
"""Characters of ``RunRow.error``."""

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]")
"""A terminal's colours and titles, and control characters."""

_AFTERWORD = re.compile(r"Node\.js v\d|note: run with `RUST_BACKTRACE")
"""What Node and Rust say after an error, whatever it was."""

_FRAME = re.compile(r"\s+at\s|\s+\.\.\. \d+ more")
"""A line of a stack as Node, Java and .NET print it, below the error."""

_DETAIL = re.compile(r"\s+\S+: |\s*[}\]]")
"""A property of an error, which Node prints below the stack."""


class Cause(Enum):
    """Why we ended a run ourselves, with the state that it has then."""

    CANCELLED = RunState.CANCELLED
    WALL_TIME = RunState.TIMED_OUT
    LIMIT = RunState.KILLED
    AGENT_ENDS = RunState.LOST


ENDS_ALL = (Cause.CANCELLED, Cause.AGENT_ENDS)
"""Causes that end not only an attempt, but the run."""


@dataclass(frozen=True)
class Stop:
    """An order to end a run; ``sentence`` becomes the row's error. ``hurried``: it would use up all there is."""

    cause: Cause
    sentence: str
    hurried: bool = False


@dataclass(frozen=True)
class Verdict:
    """The state that a run ended in, and why, if not well. ``hopeless``: the same again would end the same."""

    state: RunState
    error: str | None = None
    hopeless: bool = False


@dataclass(frozen=True)
class Ending:
    """What is known of a run whose process has ended.

    ``stop`` is the order that ended it; ``out_of_memory`` that the kernel killed it for its memory limit;
    ``kernel_died`` and ``told`` are what it reported itself; ``last_line`` is what it said of that on stderr.
    """

    exit: Exit
    stop: Stop | None = None
    out_of_memory: str | None = None
    kernel_died: bool = False
    told: str | None = None
    last_line: str = ""


def verdict(ending: Ending) -> Verdict:
    """What became of a run that was started."""
    if ending.stop is not None:
        return Verdict(ending.stop.cause.value, ending.stop.sentence)
    if ending.out_of_memory is not None:
        return Verdict(RunState.KILLED, ending.out_of_memory)
    if ending.exit.signal is not None:
        return Verdict(RunState.KILLED, killed_by(ending.exit.signal))
    if ending.kernel_died:
        return Verdict(RunState.KERNEL_DIED, one_line(ending.told or "The notebook's kernel died."))
    if ending.exit.ok:
        return Verdict(RunState.SUCCEEDED)
    return Verdict(RunState.FAILED, one_line(ending.told or ending.last_line) or f"It ended with {ending.exit}.")


def not_started(stop: Stop | None, error: Exception | None) -> Verdict:
    """What became of a run that was stopped, or failed, before it was started."""
    if stop is not None:
        return Verdict(stop.cause.value, stop.sentence)
    hopeless = isinstance(error, InvalidInput | AccessDenied)
    return Verdict(RunState.FAILED, "It was not prepared." if error is None else sentence(error), hopeless)


def killed_by(signal: str) -> str:
    """The sentence for a signal that was not ours."""
    if signal == "SIGKILL":
        return "The process was killed (SIGKILL) by something else than the agent: the memory may have run out."
    if signal in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS"):
        return f"The process crashed ({signal})."
    return f"The process was ended by the signal {signal}, which the agent had not sent."


def sentence(error: Exception) -> str:
    """One sentence for an error while preparing, whatever it is."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, AgentError):
        return one_line(str(error)) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return one_line(f"It could not be prepared: {error.strerror}{where}.")
    return one_line(f"It could not be prepared ({type(error).__name__}: {error}).")


def last_words(text: str) -> str:
    """What a program said of its end on stderr: the last line, or the one above the stack that ends it."""
    lines = [line for line in text.splitlines() if one_line(line) and not _AFTERWORD.match(line)]
    below = next((n for n, line in enumerate(reversed(lines)) if not _DETAIL.match(line)), len(lines))
    end = len(lines) - below
    if end and _FRAME.match(lines[end - 1]):
        while end and _FRAME.match(lines[end - 1]):
            end -= 1
        return lines[end - 1] if end else ""
    return lines[-1] if lines else ""


def one_line(text: str) -> str:
    """The text without a terminal's escapes and line breaks, not too long."""
    plain = " ".join(_ESCAPES.sub("", text).split())
    return plain if len(plain) <= LONGEST_ERROR else f"{plain[: LONGEST_ERROR - 1]}…"
