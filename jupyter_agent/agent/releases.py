"""Environments are given back when a run is over; one that the run has changed is told in the run's row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from jupyter_agent.environments import Environments
from jupyter_agent.errors import AgentError
from jupyter_agent.runs import Supervisor
from jupyter_agent.state import RunRow, RunState, State

log = logging.getLogger(__name__)


class Releases:
    """Listens to runs. ``tell`` gets the row of an ended run that was changed."""

    def __init__(
        self,
        *,
        environments: Environments,
        supervisor: Supervisor,
        state: State,
        tasks: asyncio.TaskGroup,
        tell: Callable[[RunRow], None],
    ) -> None:
        self._environments = environments
        self._supervisor = supervisor
        self._state = state
        self._tasks = tasks
        self._tell = tell

    def on_run(self, row: RunRow) -> None:
        """A run changed: at its end, and at the end of each attempt, it uses no environment any more."""
        if row.ended or (row.state is RunState.QUEUED and row.attempt > 1):
            self._tasks.create_task(self._release(row))

    async def _release(self, row: RunRow) -> None:
        """What goes wrong here is no fault of the run."""
        try:
            changed = await self._environments.release(row.tag or row.id)
            if changed:
                await self._warn(row, " ".join(changed))
        except (AgentError, OSError) as error:
            log.warning("The environments of run %s could not be looked at: %s", row.id, error)
        except Exception:
            log.exception("The environments of run %s could not be looked at", row.id)

    async def _warn(self, row: RunRow, sentence: str) -> None:
        log.warning("Run %s: %s", row.id, sentence)
        if (run := self._supervisor.live(row.id)) is not None:
            run.note(sentence)
            run.change(warning=sentence)
        else:
            self._tell(await self._state.update(row.id, warning=sentence))
