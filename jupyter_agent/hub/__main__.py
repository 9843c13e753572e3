"""The hub as a process.

``python -m jupyter_agent.hub`` serves; ``python -m jupyter_agent.hub user-add`` adds a user.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import json
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil

from jupyter_agent.errors import AgentError, Conflict, InvalidInput, ServerRefused, Unavailable
from jupyter_agent.home import Home, Lock, read_json, write_private
from jupyter_agent.hub.data.store import Store
from jupyter_agent.hub.network.server import Server
from jupyter_agent.hub.users import USERNAME, Users, entry_of_admins

RENEW_S = 30 * 24 * 3600
"""A stored token that is valid for less than this is renewed."""

CONNECT_S = 20


@dataclass(frozen=True)
class Owner:
    """What ``credentials.json`` holds: how the owner of the home signs in."""

    username: str
    password: str
    jwt: str = ""


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code. Errors are one sentence on standard error."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    home = Home.find(options.home)
    try:
        home.prepare()
        if options.command == "user-add":
            add_user(home, options.name, sys.stdin.readline().rstrip("\r\n"), admin=options.admin)
        else:
            with hub_lock(home):
                asyncio.run(serve(home, options))
    except AgentError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's answer
        return 1
    except OSError as error:
        print(f"The hub cannot write to {home.path} ({error.strerror}).", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="jupyter_agent.hub", description="The embedded OpenFlow of a home.")
    top.add_argument("--home", help="the agent's home")
    top.add_argument("--port", type=int, help="listen on this port; without it on the same one as before")
    top.add_argument("--json", action="store_true", help="print the address and the credentials as JSON when ready")
    top.add_argument("--exit-when-idle", type=float, metavar="SECONDS", help="end so long after the last client left")
    commands = top.add_subparsers(dest="command")
    user = commands.add_parser("user-add", help="add a user; the password is read from standard input")
    user.add_argument("--home", default=argparse.SUPPRESS, help="the agent's home")
    user.add_argument("--admin", action="store_true", help="make the user an admin")
    user.add_argument("name", metavar="NAME")
    return top


def hub_lock(home: Home) -> Lock:
    """The lock of the hub of a home: whoever holds it is alone with the store."""
    return Lock(home.hub / "lock", held=f"A hub of {home.path} is running already: use that one, or stop it first.")


async def serve(home: Home, options: argparse.Namespace) -> None:
    """Serve until a signal comes, or nobody has been there for as long as the options say."""
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    async with Server(home.hub) as server:
        owner = await owner_of(home, server.users)
        await listen(home, server, options.port)
        about = {"apiurl": server.url, "pid": os.getpid(), "started": psutil.Process().create_time()}
        if server.grpc_url:
            about["grpcapiurl"] = server.grpc_url
        write_private(home.hub / "hub.json", json.dumps(about))
        announce(home, server.url, owner, as_json=options.json)
        async with asyncio.TaskGroup() as tasks:
            idle = tasks.create_task(end_when_idle(server, options.exit_when_idle, ending))
            await server.serve(ending)
            idle.cancel()


async def listen(home: Home, server: Server, port: int | None) -> None:
    """Take the port that was asked for; else the one of last time, or any where that is taken now. So for gRPC."""
    if port is None:
        try:
            server.listen(last_port(home, "apiurl"))
        except Conflict:
            server.listen()
    elif 0 <= port < 1 << 16:
        server.listen(port)
    else:
        raise InvalidInput(f"{port} is no port: a port is a number from 1 to 65535, or 0 for any.")
    try:
        await server.listen_grpc(last_port(home, "grpcapiurl"))
    except Conflict:
        await server.listen_grpc()


def last_port(home: Home, name: str) -> int:
    """The port in the address of this name that the hub of this home had, 0 when it had none."""
    try:
        return urlsplit(str((read_json(home.hub / "hub.json") or {}).get(name, ""))).port or 0
    except (ValueError, InvalidInput):
        return 0


async def owner_of(home: Home, users: Users) -> Owner:
    """The credentials of the first user, who is made where needed; on disk before they are used."""
    file = home.hub / "credentials.json"
    stored = read_json(file) or {}
    owner = Owner(_text(stored, "username") or os_user(), _text(stored, "password"), _text(stored, "jwt"))
    if not owner.password:
        owner = Owner(owner.username, secrets.token_urlsafe(18))
        write_private(file, json.dumps(asdict(owner)))
    caller = await users.ensure_first(owner.username, owner.password)
    if users.expires(owner.jwt) - time.time() < RENEW_S:
        owner = Owner(owner.username, owner.password, users.token(caller.id, long=True))
        write_private(file, json.dumps(asdict(owner)))
    return owner


def os_user() -> str:
    """The name of who runs this, if it can be a user's name here."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        return "admin"
    return name if USERNAME.fullmatch(name) and name != "root" else "admin"


def announce(home: Home, url: str, owner: Owner, *, as_json: bool) -> None:
    """Print one line: clients may come."""
    line = f"{url}  (credentials in {home.hub / 'credentials.json'})"
    with contextlib.suppress(OSError):  # who started us need not listen
        print(json.dumps({"apiurl": url, **asdict(owner)}) if as_json else line, flush=True)  # noqa: T201


async def end_when_idle(server: Server, idle_s: float | None, ending: asyncio.Event) -> None:
    """Set ``ending`` when no client has been connected for so long; ``None`` means never."""
    while idle_s is not None and server.idle_s < idle_s:  # noqa: ASYNC110 - it is time that is waited for
        await asyncio.sleep(max(0.05, idle_s - server.idle_s))
    if idle_s is not None:
        ending.set()


def add_user(home: Home, name: str, password: str, *, admin: bool) -> None:
    """Add a user: to the store when no hub runs, else through it. Raises `Conflict` when the name is taken."""
    if not password:
        raise InvalidInput("A password cannot be empty: write it on standard input, in one line.")
    if not USERNAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be a user's name: use up to 100 letters, digits and the characters . _ @ + -"
        )
    lock = hub_lock(home)
    try:
        lock.acquire()
    except Conflict:
        asyncio.run(add_over_the_wire(home, name, password, admin=admin))
    else:
        asyncio.run(add_to_store(home, name, password, admin=admin))
        lock.release()
    print(f"The user {name} was added.")  # noqa: T201 - a command's answer


async def add_to_store(home: Home, name: str, password: str, *, admin: bool) -> None:
    """Add a user while no hub runs."""
    async with Store(home.hub / "hub.db") as store:
        users = Users(store)
        try:
            await users.prepare()
            await users.add(name, password, admin=admin)
        except Conflict as error:
            raise taken(name) from error
        finally:
            users.close()


async def add_over_the_wire(home: Home, name: str, password: str, *, admin: bool) -> None:
    """Add a user through the hub that runs, as the owner of the home."""
    from jupyter_agent.openflow.client import Client, Credentials  # noqa: PLC0415 - a hub that serves needs no client

    url = _text(read_json(home.hub / "hub.json") or {}, "apiurl")
    owner = read_json(home.hub / "credentials.json") or {}
    if not url:
        raise Unavailable("The hub is starting: try again in a moment.")
    credentials = Credentials(username=_text(owner, "username"), password=_text(owner, "password"))
    item: dict[str, Any] = {"_type": "user", "username": name, "newpassword": password}
    if admin:
        item["roles"] = [entry_of_admins()]
    async with Client(url, credentials, version="") as client:
        await client.connected(CONNECT_S)
        try:
            await client.insert_one("users", item)
        except ServerRefused as error:
            raise taken(name) if "E11000" in str(error) else InvalidInput(str(error)) from error


def taken(name: str) -> Conflict:
    """The error for a name that somebody has."""
    return Conflict(f"There is a user named {name} already.")


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
