"""Other agents of the same OpenFlow: who they are, and how they are asked to do something over their queues."""

from __future__ import annotations

from jupyter_agent.agent.others.directory import OtherAgent, agents, find
from jupyter_agent.agent.others.others import Others
from jupyter_agent.agent.others.remote import RemoteRow, RemoteRun

__all__ = ["OtherAgent", "Others", "RemoteRow", "RemoteRun", "agents", "find"]
