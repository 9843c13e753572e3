"""The benchmarks: what each measures, against what, and its goal. Each prints one JSON line a figure.

A comparison is a ratio of two things measured side by side in one run; a budget is absolute and counts what the
software adds to a bare server. Nothing here fails a test: these are figures for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Figure:
    """One measured value; ``peer`` is what it is compared with, measured in the same run."""

    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    name: str = ""

    def line(self, bench: Bench) -> dict[str, Any]:
        """The figure as it is printed."""
        compared = bench.kind == "comparison" and self.peer_value is not None and self.value
        ratio = round(self._better_by(), 2) if compared else None
        named = {"name": self.name or bench.name}
        return {
            **named,
            **{k: v for k, v in asdict(self).items() if k != "name"},
            "ratio": ratio,
            "goal": bench.goal,
            "kind": bench.kind,
        }

    def _better_by(self) -> float:
        """How many times better than the peer: of rates the higher is, of times and sizes the lower."""
        peer = self.peer_value or 0
        return self.value / peer if self.unit.endswith("/s") and peer else peer / self.value


@dataclass(frozen=True)
class Bench:
    """A benchmark; ``goal`` in words, with its figure."""

    name: str
    goal: str
    kind: Literal["budget", "comparison"]
    measure: Callable[[], Iterator[Figure]]


BENCHES: dict[str, Bench] = {}


def bench(
    name: str, *, goal: str, kind: Literal["budget", "comparison"]
) -> Callable[[Callable[[], Iterator[Figure]]], Callable[[], Iterator[Figure]]]:
    """Register a measuring function under a name."""

    def register(measure: Callable[[], Iterator[Figure]]) -> Callable[[], Iterator[Figure]]:
        BENCHES[name] = Bench(name, goal, kind, measure)
        return measure

    return register
