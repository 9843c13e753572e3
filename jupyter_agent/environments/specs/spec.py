"""What is to be solved: conda_lock's model of it, and what that has no field for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from conda_lock.models.lock_spec import LockSpecification  # noqa: TID251 - its model of what is asked for

from jupyter_agent.environments.definitions import Definition


@dataclass(frozen=True)
class Explicit:
    """A package of an explicit list; ``md5`` and ``sha256`` in hexadecimal, empty where the list has none."""

    url: str
    md5: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Spec:
    """What a definition asks for, by platform.

    ``asked`` is what content hashes are made of; ``conda`` and ``pip`` say the same in the words of who solves it:
    match specs for rattler, requirement lines for uv, nothing lost. ``explicit`` is not to be solved at all.
    """

    asked: LockSpecification
    source: str
    conda: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pip: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pip_options: tuple[str, ...] = ()
    pip_constraints: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    explicit: Mapping[str, tuple[Explicit, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def parse(
    definition: Definition,
    *,
    platforms: Sequence[str] = (),
    extra: Sequence[str] = (),
    default_channels: Sequence[str] = ("conda-forge",),
) -> Spec:
    """What ``definition`` asks for on ``platforms`` (its own, or this machine's, where there are none).

    ``extra`` are conda specs that are added unless they are asked for already; ``default_channels`` are for a file that
    names none. Raises ``InvalidInput``, ``NotFound``, each with a sentence for who wrote the file.
    """
    raise NotImplementedError
