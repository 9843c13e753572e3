"""How many files and sockets the hub may have open: as many as it is allowed; clients get what that leaves."""

from __future__ import annotations

import resource

MOST = 1 << 16
"""More would be of no use."""

RESERVED = 256
"""Descriptors for everything but clients: the store, files on their way in and out, libraries."""


def raise_limit() -> int:
    """Raise the soft limit of this process to the hard one; what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MOST if soft == resource.RLIM_INFINITY else soft


def room(limit: int, most: int) -> int:
    """How many clients there can be with so many descriptors, ``most`` at most."""
    return max(16, min(most, limit - RESERVED if limit > 2 * RESERVED else limit // 2))
