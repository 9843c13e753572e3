"""Environments: from a package's requirements to a locked prefix that all runs with the same lock share.

It refuses to know packages, runs and languages.
"""

from __future__ import annotations

from jupyter_agent.environments.building import Environment, Environments

__all__ = ["Environment", "Environments"]
