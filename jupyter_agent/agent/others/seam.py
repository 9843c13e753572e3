"""Joining output that an agent sends again to what is there already. Pure; knows nothing of messages.

After a reconnection the protocol offers one thing only: subscribe again, and be sent the buffered output once more
(protocol §15). What of it is new is told by comparing: by length and beginning as long as both begin at the start of
the run, else by where the newest bytes that are there stand in what was sent.
"""

from __future__ import annotations

HELD_BYTES = 8 << 20
"""Of the newest output, kept to be compared with; what other agents buffer is less."""

ANCHOR_BYTES = 4096
"""Of the newest output, looked for in what was sent again when their beginnings differ."""


class Seam:
    """The output of one run so far, as bytes."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._whole = True
        self._again: bytearray | None = None
        self.size = 0
        """Bytes in all."""

    def begin_again(self) -> None:
        """From now on the output may come from its beginning once more."""
        if self.size:
            self._again = bytearray()

    @property
    def is_waiting(self) -> bool:
        """Whether it is not decided yet what of the output is new."""
        return self._again is not None

    def take(self, data: bytes) -> bytes:
        """What of this output is new; nothing while that cannot be said."""
        if self._again is None:
            return self._new(data)
        self._again += data
        if self._whole and len(self._again) <= len(self._held) and self._held.startswith(self._again):
            return b""
        at = self._where()
        return self._decided(at) if at is not None else b""

    def settle(self) -> bytes:
        """Nothing more is sent again: what was not recognised is new."""
        if self._again is None:
            return b""
        if self._whole and self._held.startswith(self._again):
            return self._decided(len(self._again))
        at = self._where()
        return self._decided(at if at is not None else 0)

    def last_words(self, text: bytes) -> bytes:
        """What of the newest output, as a result message has it, has not come yet; nothing where that is unclear."""
        if not self.size:
            return self._new(text)
        if self._whole and text.startswith(self._held):
            return self._new(text[len(self._held) :])
        if not text or self._held.endswith(text):
            return b""
        anchor = self._held[-ANCHOR_BYTES:]
        at = text.rfind(anchor)
        return self._new(text[at + len(anchor) :]) if at >= 0 else b""

    def _where(self) -> int | None:
        """Where in the output that was sent again the new begins; ``None``: not in what has come so far."""
        again = self._again or bytearray()
        if self._whole and again.startswith(self._held):
            return len(self._held)
        anchor = self._held[-ANCHOR_BYTES:]
        at = again.find(anchor)
        return at + len(anchor) if at >= 0 else None

    def _decided(self, at: int) -> bytes:
        new, self._again = bytes((self._again or bytearray())[at:]), None
        return self._new(new)

    def _new(self, data: bytes) -> bytes:
        self._held += data
        self.size += len(data)
        if len(self._held) > HELD_BYTES:
            del self._held[: len(self._held) - HELD_BYTES // 2]
            self._whole = False
        return data
