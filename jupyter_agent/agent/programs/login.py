"""``login``: sign in to an OpenFlow, and tell what the running agent makes of it."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import sys
import webbrowser
from pathlib import Path
from typing import Any

from jupyter_agent.agent import login, switching
from jupyter_agent.agent.settings import ca_file_of, load_config
from jupyter_agent.agent.voice import Voice
from jupyter_agent.errors import InvalidInput
from jupyter_agent.home import Home
from jupyter_agent.openflow.address import address


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--username", metavar="NAME", help="sign in by password, which is asked for or read from stdin")
    parser.add_argument("--adopt", action="store_true", help="be whom the official agent of this user is")
    parser.add_argument("--browser", action="store_true", help="open the page here")
    parser.add_argument("url", metavar="URL", nargs="?")


def run(home: Home, given: argparse.Namespace, voice: Voice) -> int:
    """Get a token, try it out, write it down."""
    official = _adopted(given) if given.adopt else None
    url = given.url or (official.url if official else "")
    if not url:
        raise InvalidInput("Name the address of OpenFlow, like wss://app.example.com, or say --adopt.")
    address(url)
    home.check_version()
    login.check_not_own_hub(home, url)
    ca_file = ca_file_of(load_config())
    if winning := switching.variable_that_wins(os.environ):
        voice.note(f"The environment variable {winning} comes first: as long as it is set, this login does not count.")
    password = _password(given.username, url) if given.username else ""
    token = asyncio.run(_token(url, official, given, password=password, ca_file=ca_file, voice=voice))
    before = login.save(home, token)
    return _report(home, token, before, voice)


async def _token(
    url: str,
    official: login.Adopted | None,
    given: argparse.Namespace,
    *,
    password: str,
    ca_file: Path | None,
    voice: Voice,
) -> login.Token:
    if official is not None:
        found = await login.tried(url, official.jwt, ca_file=ca_file, stay=False)
        return login.Token(found.url, found.jwt, found.user, found.ends, official.agentid)
    if given.username:
        jwt = await login.by_password(url, given.username, password, ca_file=ca_file)
    else:
        jwt = await login.by_browser(
            url, ca_file=ca_file, show=lambda place, key: _show(place, key, voice, browser=given.browser)
        )
    return await login.tried(url, jwt, ca_file=ca_file)


def _show(place: str, key: str, voice: Voice, *, browser: bool) -> None:
    voice.note(f"Open this address in a browser, on any machine, and sign in there:\n\n    {place}\n\n(key {key})")
    if browser and not webbrowser.open(place):
        voice.note("No browser could be opened here.")
    voice.note("Waiting for that; Ctrl-C ends it.")


def _adopted(given: argparse.Namespace) -> login.Adopted:
    if given.username:
        raise InvalidInput("--adopt takes the official agent's token: --username does not go with it.")
    official = login.adopted(Path.home() / ".openiap" / "config.json")
    if given.url and not login.same_server(given.url, official.url):
        raise InvalidInput(f"The official agent is signed in to {official.url}, not to {given.url}.")
    return official


def _password(username: str, url: str) -> str:
    """Of whoever sits there, or from standard input. Raises ``InvalidInput`` for none."""
    if sys.stdin.isatty():
        password = getpass.getpass(f"The password of {username} at {url}: ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise InvalidInput("The password is missing: write it on standard input, in one line.")
    return password


def _report(home: Home, token: login.Token, before: dict[str, Any], voice: Voice) -> int:
    known = (before.get("apiurl"), before.get("jwt"))
    voice.note(f"{token.url} takes the token of {token.user.username}; looking at what a running agent makes of it.")
    found = switching.settled(home, token.url, had_it=known[0] == token.url and known[1] != token.jwt)
    lines = [f"Signed in to {token.url} as {token.user.username}; the token is in {home.config_file}."]
    if token.ends is not None:
        lines.append(f"It ends on {token.ends:%Y-%m-%d}.")
    if token.agentid:
        lines.append("The official agent has the same name and queue: stop it, or both answer.")
    lines.append(switching.sentence(found, token.url))
    document = {
        "apiurl": token.url,
        "user": token.user.username,
        "ends": token.ends.isoformat() if token.ends else None,
        "agentid": token.agentid or None,
        "config": str(home.config_file),
        "before": known[0] if isinstance(known[0], str) else None,
        "agent": found,
        "environment": switching.variable_that_wins(os.environ),
    }
    voice.answer(document, "\n".join(lines))
    return 0 if found["connected"] or not found["running"] else 1
