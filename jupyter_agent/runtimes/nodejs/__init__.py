"""Node.js: what a package needs is installed once, what has to be built is built once, then node itself is started.

``project`` reads what a package says of itself, ``plan`` decides what has to be done before it can start,
``installation`` does it (with ``npm`` as its tool) and ``modules`` puts it into the run's copy; ``start`` makes the
command, ``spares`` keeps a node ready for it. ``runtime`` puts these together.
"""

from __future__ import annotations

from jupyter_agent.runtimes.nodejs.runtime import NodeJs
from jupyter_agent.runtimes.nodejs.spares import Spares

__all__ = ["NodeJs", "Spares"]
