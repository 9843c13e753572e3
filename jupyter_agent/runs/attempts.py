"""Whether a run is tried again, and when. Nothing here does anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from jupyter_agent.runs.verdict import Verdict
from jupyter_agent.state import RunRow, RunState

MOST_RETRIES = 100

FACTOR = 2.0
"""By which each delay is longer than the one before."""

LONGEST_DELAY_S = 3600.0
"""Unless the first one is longer."""

JITTER = 0.1
"""Up to this part of a delay is added by chance: what failed together shall not come again together."""

FAILURES = (RunState.FAILED, RunState.TIMED_OUT, RunState.KILLED, RunState.KERNEL_DIED, RunState.LOST)


def delay_s(row: RunRow, chance: float) -> float:
    """Seconds from the end of the row's attempt to the next one; ``chance`` is between 0 and 1."""
    longest_s = max(LONGEST_DELAY_S, row.retry_delay_s)
    grown_s = min(row.retry_delay_s * FACTOR ** min(row.attempt - 1, MOST_RETRIES), longest_s)
    return grown_s * (1 + JITTER * chance)


def again(row: RunRow, verdict: Verdict, *, moment: datetime, chance: float) -> dict[str, Any] | None:
    """What the row says while its next attempt is waited for; ``None``: there is none."""
    if verdict.state not in FAILURES or verdict.hopeless or row.attempt > row.retries:
        return None
    begins = moment + timedelta(seconds=delay_s(row, chance))
    return {
        **AS_NEW,
        "attempt": row.attempt + 1,
        "next_attempt": begins.isoformat(timespec="milliseconds"),
        "error": f"Attempt {row.attempt} of {row.retries + 1} failed: {verdict.error or verdict.state}",
    }


def after_its_agent(row: RunRow, why: str, *, moment: datetime, chance: float) -> dict[str, Any] | None:
    """The same of a row that its agent leaves unfinished, for the next one; ``None``: the run is lost.

    An attempt that had not been started is no attempt.
    """
    if row.state is RunState.RUNNING:
        return again(row, Verdict(RunState.LOST, why), moment=moment, chance=chance)
    return {"state": RunState.QUEUED} if row.retries else None


def left_s(row: RunRow, *, moment: datetime) -> float:
    """Seconds until the row's next attempt; 0 when nothing is waited for.

    Where the clock was set back meanwhile, it is no longer than the delay can be.
    """
    if row.next_attempt is None:
        return 0.0
    left = (datetime.fromisoformat(row.next_attempt).astimezone(UTC) - moment).total_seconds()
    return max(0.0, min(left, max(LONGEST_DELAY_S, row.retry_delay_s) * (1 + JITTER)))


AS_NEW: dict[str, Any] = {
    "state": RunState.QUEUED,
    "started": None,
    "exit_code": None,
    "signal": None,
    "pid": None,
    "pid_started": None,
    "progress": None,
    "results": {},
    "artifacts": [],
}
"""The row of a run that has not begun yet."""
