"""Selectors: ``- pywin32  # [win]`` in a YAML file, a line for some platforms only.

conda knows them from recipes, not from environment.yml; conda_lock reads the plain words of six platforms. Here the
words of conda-build's recipes that speak of platforms may be joined by ``not``, ``and``, ``or`` and brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from jupyter_agent.errors import InvalidInput

SELECTOR = re.compile(r"^(?P<line>.*?\S)\s+#(?P<before>[^\[\]]*)\[(?P<words>[^\[\]]+)\]\s*$")

WORD = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*|[()])")

SYSTEMS = ("linux", "osx", "win")

MACHINES = {
    "64": ("x86_64", "x86"),
    "32": ("x86",),
    "aarch64": ("aarch64",),
    "arm64": ("arm64",),
    "ppc64le": ("ppc64le",),
    "s390x": ("s390x",),
    "armv7l": ("armv7l",),
    "riscv64": ("riscv64",),
}

KNOWN = frozenset({*SYSTEMS, "unix", "emscripten", "wasi"}).union(
    *MACHINES.values(), (f"{system}{bits}" for system in SYSTEMS for bits in ("64", "32"))
)


def words_of(platform: str) -> frozenset[str]:
    """The words that are true on a platform: ``linux-64`` is ``linux``, ``unix``, ``linux64``, ``x86_64``, ``x86``."""
    system, _, machine = platform.partition("-")
    words = {system, *MACHINES.get(machine, (machine,))}
    words |= {"unix"} if system in ("linux", "osx") else set()
    words |= {f"{system}{machine}"} if machine in ("64", "32") else set()
    return frozenset(words)


def selected(text: str, platform: str, name: str) -> str:
    """The text with empty lines where others are for other platforms, and with the blocks that those begin.

    Raises ``InvalidInput`` for a selector with other words. A comment that merely ends in brackets is none.
    """
    words = words_of(platform)
    lines, hidden = [], None
    for number, line in enumerate(text.split("\n"), 1):
        indent = len(line) - len(line.lstrip(" "))
        if hidden is not None and (indent > hidden or not line.strip()):
            lines.append("")
            continue
        hidden = None
        match = SELECTOR.match(line)
        if match and not line.lstrip().startswith("#") and not _is_true(match, words, f"{name}, line {number}"):
            hidden = indent if match["line"].endswith(":") else None
            lines.append("")
        else:
            lines.append(line)
    return "\n".join(lines)


def _is_true(match: re.Match[str], words: frozenset[str], where: str) -> bool:
    found = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", match["words"])) - {"and", "or", "not"}
    if match["before"].strip() and not (found and found <= KNOWN):
        return True
    expression = _Expression(list(_tokens(match["words"], where)), words, where)
    return expression.whole()


def _tokens(text: str, where: str) -> Iterator[str]:
    at = 0
    text = text.rstrip()
    while at < len(text):
        found = WORD.match(text, at)
        if not found:
            raise _unknown(text.strip(), where)
        yield found[1]
        at = found.end()


@dataclass
class _Expression:
    """``or`` of ``and`` of ``not`` of words and brackets, over the words that are true."""

    tokens: list[str]
    words: frozenset[str]
    where: str
    text: str = field(init=False)

    def __post_init__(self) -> None:
        self.text = " ".join(self.tokens)
        if len(self.tokens) > 100:  # noqa: PLR2004 - far more than anybody writes, far less than recursion bears
            raise _unknown(self.text[:60], self.where)

    def whole(self) -> bool:
        value = self._any()
        if self.tokens:
            raise _unknown(self.text, self.where)
        return value

    def _any(self) -> bool:
        value = self._all()
        while self._next("or"):
            value = self._all() or value
        return value

    def _all(self) -> bool:
        value = self._one()
        while self._next("and"):
            value = self._one() and value
        return value

    def _one(self) -> bool:
        if self._next("not"):
            return not self._one()
        if self._next("("):
            value = self._any()
            if not self._next(")"):
                raise _unknown(self.text, self.where)
            return value
        if not self.tokens or self.tokens[0] not in KNOWN:
            raise _unknown(self.text, self.where)
        return self.tokens.pop(0) in self.words

    def _next(self, word: str) -> bool:
        if self.tokens and self.tokens[0] == word:
            self.tokens.pop(0)
            return True
        return False


def _unknown(text: str, where: str) -> InvalidInput:
    return InvalidInput(
        f"{where}: the selector [{text[:60]}] is not known: write linux, osx, win, unix, x86_64, aarch64 or arm64, "
        "joined by 'and', 'or', 'not'."
    )
