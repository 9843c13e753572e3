"""Why there is no solution, in plain words: the solver's own explanation, whole but bounded."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from jupyter_agent.environments.indexes import without_credentials

MOST_CHARACTERS = 6000

MOST_LINES = 80

MOST_COMPARED = 5
"""Names for which near ones are looked for: each takes 0.2 s in a channel of 30,000."""

PLAIN = (
    ("cannot be installed because there are no viable options", "cannot be installed"),
    ("can be installed with any of the following options", "could be any of these"),
    ("for which no candidates were found", "which no channel has"),
    ("which conflicts with the versions reported above", "which contradicts what stands above"),
    ("The following packages are incompatible", "These do not go together:"),
    ("would require", "needs"),
)
"""What rattler's solver says, and the same in fewer words."""

VIRTUAL = re.compile(r"\b__(\w+)\b")

LATER_CHANNEL = re.compile(r"is excluded because due to strict channel priority not using this option from: '([^']*)'")

NO_CANDIDATES = re.compile(r"No candidates were found for (\S+) ?([^\n]*?)\.?$", re.MULTILINE)


def in_plain_words(text: str) -> str:
    """A solver's explanation: the same tree, with words for its phrases."""
    told = text.removeprefix("Cannot solve the request because of:").strip()
    for phrase, plain in PLAIN:
        told = told.replace(phrase, plain)
    told = LATER_CHANNEL.sub(_in_a_later_channel, told)
    told = NO_CANDIDATES.sub(lambda found: f"no channel has {_spec(*found.groups())}.", told)
    told = re.sub(r"(?<=\w) \*(?=[ ,.]|$)", "", told, flags=re.MULTILINE)
    return bounded(told)


def _in_a_later_channel(found: re.Match[str]) -> str:
    channel = without_credentials(found[1]).rstrip("/").removeprefix("https://conda.anaconda.org/")
    return f"is not used, for the first channel that has a package gives it ({channel}::PACKAGE asks for this one)"


def _spec(name: str, version: str) -> str:
    return name if version in ("", "*") else f"{name} {version}"


def bounded(text: str) -> str:
    """Not more than somebody reads."""
    lines = text.splitlines()
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"… ({len(lines) - MOST_LINES} more lines)"]
    cut = "\n".join(lines)
    return cut if len(cut) <= MOST_CHARACTERS else f"{cut[:MOST_CHARACTERS]}…"


def unsolvable(source: str, platform: str, told: str, channels: Sequence[str]) -> str:
    """The sentence, the explanation, and what to do about it."""
    explained = in_plain_words(told)
    where = f" (channels: {', '.join(channels)})" if channels else ""
    lines = "\n" if "\n" in explained else " "
    return f"{source} has no solution for {platform}{where}:{lines}{explained}{_hint(explained)}"


def _hint(explained: str) -> str:
    """What a virtual package in an explanation is, and how it is changed."""
    names = sorted({found.group(1) for found in VIRTUAL.finditer(explained)} & {"glibc", "cuda", "osx", "linux", "win"})
    if not names:
        return ""
    told = " and ".join(f"CONDA_OVERRIDE_{name.upper()}" for name in names)
    return (
        f"\n{', '.join(f'__{name}' for name in names)}: what the machine itself must have. When the machine that is to "
        f"run it has that, set {told} to its version and lock again."
    )


def missing(names: Sequence[str], known: Iterable[str], *, source: str, platform: str, channels: Sequence[str]) -> str:
    """The sentence for packages that no channel has, with names that are near."""
    all_known = sorted(set(known))
    told = []
    for place, name in enumerate(names):
        near = difflib.get_close_matches(name, all_known, n=3, cutoff=0.7) if place < MOST_COMPARED else []
        told.append(f"{name} (did you mean {' or '.join(near)}?)" if near else name)
    which = "is a package" if len(names) == 1 else "are packages"
    return (
        f"{source} asks for {', '.join(told[:20])}{' and more' if len(told) > 20 else ''}, which {which} "  # noqa: PLR2004 - enough to see
        f"that no channel has for {platform} (channels: {', '.join(channels)}): correct the name, add the channel that "
        "has it, or write it below pip: if it is on PyPI."
    )


def no_version(spec: str, name: str, versions: Sequence[str], *, source: str, platform: str) -> str:
    """The sentence for a version that no channel has; ``versions`` are those there are, in their order."""
    shown = ", ".join(versions if len(versions) <= 8 else [*versions[:2], "…", *versions[-5:]])  # noqa: PLR2004 - a line
    return (
        f"{source} asks for {spec}, but no channel has that for {platform}: of {name} there is {shown}. "
        "Ask for one of those."
    )
