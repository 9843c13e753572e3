"""Environments for packages: made from requirements once, named by their lock, never changed."""

from __future__ import annotations

from jupyter_agent.environments.building import Environment, Environments
from jupyter_agent.environments.requirements import Requirements
from jupyter_agent.environments.telling import Teller

__all__ = ["Environment", "Environments", "Requirements", "Teller"]
