"""What is asked of the store, and what makes it: two makers stand, one for conda's files and one for pip's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jupyter_agent.environments.definitions import Definition
from jupyter_agent.environments.telling import Teller


@dataclass(frozen=True)
class Order:
    """An environment that somebody waits for.

    ``extra`` are requirements of ours; ``tag`` marks the processes; ``from_pypi``: channels that cannot be reached may
    be stood in for; ``offline``: nothing is fetched.
    """

    definition: Definition
    extra: tuple[str, ...]
    teller: Teller
    tag: str
    from_pypi: bool = False
    offline: bool = False


@dataclass(frozen=True)
class Locked:
    """What a definition was locked to: the ``file``, and the ``hash`` of what is made of it, which names prefixes.

    ``name`` is the definition's own, ``source`` its file's, ``asked`` what stands in it, as far as that is known.
    """

    file: Path
    hash: str
    kind: str
    name: str = ""
    source: str = ""
    asked: tuple[str, ...] = ()
    from_pypi: bool = False


@dataclass(frozen=True)
class Made:
    """What came into a prefix; bytes as in ``Mark``."""

    packages: int
    files: int = 0
    bytes: int = 0
    own_bytes: int = 0


class Maker(Protocol):
    """Makes environments of one kind."""

    @property
    def kind(self) -> str:
        """``conda`` or ``venv``."""

    @property
    def suffix(self) -> str:
        """What the names of its lock files end with."""

    async def hash_of(self, lock: Path, tag: str) -> str:
        """The name of the prefix that is made of a lock. Raises ``InvalidInput`` for what is none."""

    async def key(self, order: Order) -> str:
        """What the order asks for, as 64 hexadecimal digits: the same for the same. Quick."""

    async def lock(self, order: Order, scratch: Path) -> Path:
        """A file with its lock, in ``scratch``, an empty private folder."""

    async def build(self, order: Order, lock: Path, prefix: Path, *, changed: list[str] | None) -> Made:
        """Make what the lock says at ``prefix``, which is not there yet.

        ``changed``: files were changed that the cache may share with prefixes, also of these packages of pip's;
        ``None``: none were.
        """
