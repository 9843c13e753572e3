"""Which OpenFlow this home is to use, and as whom."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_agent.errors import InvalidInput
from jupyter_agent.home import Home, read_json, write_private
from jupyter_agent.openflow.address import has_grpc
from jupyter_agent.openflow.client import Credentials
from jupyter_agent.packages import platform_name

SCHEMES = ("ws://", "wss://", "http://", "https://", "grpc://", "grpcs://")


@dataclass(frozen=True)
class Endpoint:
    """An OpenFlow and the credentials for it. ``source`` names where they come from, for messages."""

    url: str
    credentials: Credentials = field(repr=False)
    source: str
    agentid: str = ""
    embedded: bool = False


def configured(home: Home, environment: Mapping[str, str]) -> Endpoint | None:
    """The OpenFlow that the environment or ``config.json`` names; ``None``: the embedded hub is to be used.

    The environment's names are those that an OpenFlow server gives its containers (protocol §16). Raises
    ``InvalidInput`` when only half of what is needed is there.
    """
    names = ("apiurl", "grpcapiurl", "wsapiurl") if has_grpc() else ("apiurl", "wsapiurl")
    url = next((environment[name] for name in names if environment.get(name)), "")
    if url:
        return _endpoint(url, environment.get("jwt"), environment.get("agentid"), "the environment (apiurl, jwt)")
    settings = read_json(home.config_file)
    if settings is None:
        return None
    return _endpoint(settings.get("apiurl"), settings.get("jwt"), settings.get("agentid"), str(home.config_file))


def _endpoint(url: object, jwt: object, agentid: object, source: str) -> Endpoint:
    if not isinstance(url, str) or not url.startswith(SCHEMES):
        raise InvalidInput(f"The apiurl in {source} should be a ws, wss, http, https or grpc address, not {url!r}.")
    if not isinstance(jwt, str) or not jwt:
        raise InvalidInput(f"There is an apiurl in {source} but no jwt: add the token of the agent's user.")
    return Endpoint(url, Credentials(jwt=jwt), source, agentid=agentid if isinstance(agentid, str) else "")


def embedded(home: Home, apiurl: str) -> Endpoint:
    """The embedded hub at ``apiurl``, as its first user."""
    path = home.hub / "credentials.json"
    stored = read_json(path) or {}
    credentials = Credentials(username=str(stored.get("username", "")), password=str(stored.get("password", "")))
    return Endpoint(apiurl, credentials, str(path), embedded=True)


class Identity:
    """Who this home is: an id of its own, and the agent document that each OpenFlow keeps for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        stored = read_json(path) or {}
        self.id = str(stored.get("id") or secrets.token_hex(4))
        self._agents: dict[str, str] = dict(stored.get("agents") or {})

    def agent(self, url: str) -> str:
        """The ``_id`` of our agent document on the OpenFlow at ``url``; empty when it has none yet."""
        return self._agents.get(url, "")

    def remember(self, url: str, agentid: str) -> None:
        """Keep the ``_id`` on disk."""
        if self._agents.get(url) != agentid:
            self._agents[url] = agentid
            write_private(self._path, json.dumps({"id": self.id, "agents": self._agents}, indent=2))

    def registration(self, capabilities: Mapping[str, object], version: str) -> dict[str, object]:
        """What ``registeragent`` is told (protocol §13), with what the agent can run.

        The server finds a known agent by host and user name: the home's id in the name keeps the official agent of
        the same user, and other homes, apart from this one.
        """
        system, processor = platform_name()
        return {
            "hostname": socket.gethostname(),
            "os": system,
            "arch": processor,
            "username": f"{user_name()} (jupyter:{self.id})",
            "version": version,
            "daemon": True,
            "maxpackages": 50,
            **capabilities,
        }


def user_name() -> str:
    """The name of the OS user, also where the user database does not know the uid."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
