"""How values read to people: tables, times, sizes. Pure; knows nothing of terminals but their width."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

NARROWEST = 6
"""Characters to which a column is shrunk at most."""

GAP = "  "


def plain(value: object) -> str:
    """One line that steers no terminal: what cannot be printed is shown as ``?``, line ends as spaces."""
    text = " ".join(str(value).split()) if value is not None else ""
    return "".join(c if c.isprintable() else "?" for c in text)


def cut(text: str, width: int) -> str:
    """At most ``width`` characters; ``…`` stands for what is cut off."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def column_widths(rows: Sequence[Sequence[str]], width: int | None, soft: Collection[int] = ()) -> list[int]:
    """The columns' widths; when all do not fit in ``width``, the soft ones give way first, then the widest."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    if width is None:
        return widths
    room = width - len(GAP) * (len(widths) - 1)
    for yielding in (soft, range(len(widths))):
        while sum(widths) > room and max((widths[index] for index in yielding), default=0) > NARROWEST:
            widths[max(yielding, key=widths.__getitem__)] -= 1
    return widths


def table(rows: Sequence[Sequence[str]], width: int | None, soft: Collection[int] = ()) -> list[list[str]]:
    """The cells, cut and padded to their columns."""
    widths = column_widths(rows, width, soft)
    return [[cut(cell, size).ljust(size) for cell, size in zip(row, widths, strict=False)] for row in rows]


def moment(iso: str | None) -> datetime | None:
    """The time in an ISO text of the API (UTC)."""
    if not iso:
        return None
    parsed = datetime.fromisoformat(iso)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def local_time(iso: str | None) -> str:
    """``2025-03-01 14:05:09`` in the user's time zone."""
    time = moment(iso)
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time else ""


def short_time(iso: str | None) -> str:
    """``03-01 14:05``, where the run's id beside it tells the rest."""
    return local_time(iso)[5:16]


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 10:  # noqa: PLR2004 - from there on tenths say nothing
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def took(run: dict[str, Any]) -> str:
    """How long a run has been under way, or was; empty before it started."""
    started = moment(run.get("started"))
    if started is None:
        return ""
    return duration(((moment(run.get("ended")) or datetime.now(UTC)) - started).total_seconds())


def size(count: float) -> str:
    """``17 B``, ``4.2 kB``, ``1.0 MB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004 - the step of decimal units
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"  # noqa: PLR2004
        count /= 1000
    return f"{count:.1f} GB"
