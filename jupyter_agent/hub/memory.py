"""Giving memory back to the system when it is no longer needed."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""

LONG = 4 << 20
"""Bytes: more than the pieces of files and messages."""


def give_back_early() -> None:
    """Have long blocks returned to the system as soon as they are free, for this whole process.

    By itself glibc learns to keep them: after a few documents of 15 MB the hub would stay at half a gigabyte. Where
    there is no ``mallopt`` (not Linux, or another C library) nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LONG)
        library.mallopt(M_TRIM_THRESHOLD, 8 * LONG)
