"""Sends messages to the queues of others, and tells a queue that is gone from an OpenFlow that is away.

A message that the server may have taken, though its acknowledgement was lost, is sent again: then it says ``again``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from jupyter_agent.agent.link import Link
from jupyter_agent.errors import AgentError, ConnectionLost, ServerRefused, SignInFailed, TimedOut, Unavailable
from jupyter_agent.openflow.client import Client, Lane, in_lane

log = logging.getLogger(__name__)

PATIENCE_S = 0.5
"""Between two tries while OpenFlow is away."""

REFUSED_S = 300.0
"""A queue that the server refuses for another reason than that it is none, or not ours, is tried this long."""

FINAL = ("bad queue", "denied", "not found", "unknown queue")
"""What a refusal says when trying again is useless (protocol §11)."""


class Post:
    """Sends in the lane of the console: a flood of output is no reason for anybody's command to wait."""

    def __init__(self, *, link: Link) -> None:
        self._link = link

    @property
    def own_queue(self) -> str:
        """Where what could not be delivered comes back to; empty while there is none."""
        return self._link.queue or ""

    async def send(
        self,
        queue: str,
        data: Mapping[str, Any],
        *,
        correlation_id: str,
        reply_to: str = "",
        expiration_ms: int = 0,
    ) -> bool:
        """Send one message, waiting for OpenFlow to come back; ``False`` when the server refuses the queue.

        Refused credentials are no reason to give up what is owed: they may be renewed. What cannot be sent at all, for
        whatever it is, is passed over, and the log says so.
        """
        loop = asyncio.get_running_loop()
        message, refused_at = dict(data), None
        while True:
            client = await self._client()
            try:
                with in_lane(Lane.CONSOLE):
                    await client.queue_message(
                        queue,
                        message,
                        correlation_id=correlation_id,
                        reply_to=reply_to,
                        expiration_ms=expiration_ms,
                        strip_token=True,
                    )
            except ServerRefused as error:
                refused_at = refused_at or loop.time()
                if is_final(error) or loop.time() - refused_at > REFUSED_S:
                    log.info("The queue %s cannot be sent to: %s", queue, error)
                    return False
            except (ConnectionLost, TimedOut):
                message["again"] = True
            except (Unavailable, SignInFailed):
                pass
            except AgentError as error:
                log.warning("A message for the queue %s cannot be sent: %s", queue, error)
                return True
            else:
                return True
            await asyncio.sleep(PATIENCE_S)

    async def _client(self) -> Client:
        """A connected client, however long it takes."""
        while True:
            try:
                return await self._link.client()
            except AgentError:
                await asyncio.sleep(PATIENCE_S)


def is_final(error: ServerRefused) -> bool:
    """Whether the server will never take a message for this queue from us, as far as anybody knows."""
    return any(word in str(error).lower() for word in FINAL)
