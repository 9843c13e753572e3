"""The work item that is due next: one partial index of those that wait, and the search in it.

The index is in the order in which items are given out, so the first one found is the one: nothing is sorted. The search
steps from priority to priority, so that items that are not due yet, however many, are not walked over.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from jupyter_agent.hub.data.documents import Date

COLLECTION = "workitems"
DEFAULT_PRIORITY = 2

QUEUE = "json_extract(doc, '$.wiqid')"
PRIORITY = f"coalesce(json_extract(doc, '$.priority'), {DEFAULT_PRIORITY})"
NEXTRUN = """json_extract(doc, '$.nextrun."$date"')"""
WAITS = "json_extract(doc, '$._type') = 'workitem' AND json_extract(doc, '$.state') = 'new'"


def create_index(connection: sqlite3.Connection, number: int) -> None:
    """The index, on the table of the collection ``workitems``, where it is missing."""
    connection.execute(
        f"CREATE INDEX IF NOT EXISTS c{number}_due ON c{number} ({QUEUE}, {PRIORITY}, {NEXTRUN}) WHERE {WAITS}"
    )


def next_due(connection: sqlite3.Connection, number: int, queue: str, now: Date) -> str | None:
    """The text of the item of this queue that is to be given out now; ``None`` when none is due.

    The lowest priority comes first, then the earliest ``nextrun``, then the oldest.
    """
    row = connection.execute(*_lowest_priority(number, queue)).fetchone()
    while row is not None:
        priority = row[0]
        found = connection.execute(
            f"SELECT doc FROM c{number} WHERE {QUEUE} = ? AND {WAITS} AND {PRIORITY} = ? AND {NEXTRUN} <= ?"  # noqa: S608 - a number and expressions of ours
            f" ORDER BY {NEXTRUN}, n LIMIT 1",
            (queue, priority, now.ms),
        ).fetchone()
        if found is not None:
            return str(found[0])
        row = connection.execute(*_lowest_priority(number, queue, f"AND {PRIORITY} > ?", priority)).fetchone()
    return None


def _lowest_priority(number: int, queue: str, above: str = "", *value: Any) -> tuple[str, tuple[Any, ...]]:
    statement = f"SELECT {PRIORITY} FROM c{number} WHERE {QUEUE} = ? AND {WAITS} {above} ORDER BY {PRIORITY} LIMIT 1"  # noqa: S608
    return statement, (queue, *value)
