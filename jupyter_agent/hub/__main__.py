"""The hub as a process.

``python -m jupyter_agent.hub`` serves; with ``user-add``, ``user-list``, ``user-remove``, ``export`` or ``import`` it
does that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil

from jupyter_agent.errors import AgentError, Conflict, InvalidInput
from jupyter_agent.home import Home, Lock, read_json, write_private
from jupyter_agent.hub import accounts, memory
from jupyter_agent.hub.network import descriptors, rates
from jupyter_agent.hub.network.server import CAPACITY, Server
from jupyter_agent.hub.transfer import commands as transfer
from jupyter_agent.hub.transfer.disk import sweep
from jupyter_agent.hub.users import Users

RENEW_S = 30 * 24 * 3600
"""A stored token that is valid for less than this is renewed."""


@dataclass(frozen=True)
class Owner:
    """What ``credentials.json`` holds: how the owner of the home signs in."""

    username: str
    password: str
    jwt: str = ""


HAND_OVER_S = 0.0005
"""After so long a thread that computes lets another one go on. With Python's own 5 ms three long searches hold up every
answer for a fifth of a second; with this for a fiftieth, and it costs nothing that could be measured."""


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code. Errors are one sentence on standard error."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # What clients send must not fill the log; faults of ours come from tornado.application and our own loggers.
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    logging.getLogger("tornado.general").setLevel(logging.ERROR)
    home = Home.find(options.home)
    try:
        home.prepare()
        if options.command is not None:
            asyncio.run(COMMANDS[options.command](home, options, hub_lock(home)))
        else:
            with hub_lock(home):
                asyncio.run(serve(home, options))
    except AgentError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's answer
        return 1
    except BrokenPipeError:  # whoever read the answer has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is it tried at the interpreter's end
        return 1
    except OSError as error:
        print(f"The hub cannot write to {home.path}, or print its answer ({error.strerror}).", file=sys.stderr)  # noqa: T201
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
    top.add_argument(
        "--rate-limit",
        type=int,
        nargs="?",
        const=rates.DEFAULT,
        default=0,
        metavar="N",
        help=f"answer so many requests a second of each client ({rates.DEFAULT}); without it all",
    )
    commands = top.add_subparsers(dest="command")
    user = commands.add_parser("user-add", help="add a user, or give one a new password; it is read from stdin")
    user.add_argument("--home", default=argparse.SUPPRESS, help="the agent's home")
    user.add_argument("--admin", action="store_true", help="make the user an admin")
    user.add_argument("name", metavar="NAME")
    listing = commands.add_parser("user-list", help="list the users")
    gone = commands.add_parser("user-remove", help="remove a user; what they made stays")
    gone.add_argument("name", metavar="NAME")
    for each in (listing, gone):
        each.add_argument("--home", default=argparse.SUPPRESS, help="the agent's home")
    for each in (user, listing, gone):
        each.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON")
    transfer.add_parsers(commands)
    return top


def hub_lock(home: Home) -> Lock:
    """The lock of the hub of a home: whoever holds it is alone with the store."""
    return Lock(home.hub / "lock", held=f"A hub of {home.path} is running already: use that one, or stop it first.")


async def serve(home: Home, options: argparse.Namespace) -> None:
    """Serve until a signal comes, or nobody has been there for as long as the options say."""
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    if options.rate_limit < 0:
        raise InvalidInput("A rate limit is a number of requests a second, or 0 for none.")
    memory.give_back_early()
    sys.setswitchinterval(HAND_OVER_S)
    capacity = descriptors.room(descriptors.raise_limit(), CAPACITY)
    sweep(home.hub)
    async with Server(home.hub, rate=options.rate_limit, capacity=capacity) as server:
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
    owner = Owner(_text(stored, "username") or accounts.os_user(), _text(stored, "password"), _text(stored, "jwt"))
    if not owner.password:
        owner = Owner(owner.username, secrets.token_urlsafe(18))
        write_private(file, json.dumps(asdict(owner)))
    caller = await users.ensure_first(owner.username, owner.password)
    if users.expires(owner.jwt) - time.time() < RENEW_S:
        owner = Owner(owner.username, owner.password, users.token(caller.id, long=True))
        write_private(file, json.dumps(asdict(owner)))
    return owner


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


async def add_user(home: Home, options: argparse.Namespace, lock: Lock) -> None:
    """Add a user, or give one a new password."""
    password = sys.stdin.readline().rstrip("\r\n")
    async with accounts.accounts_of(home, lock) as opened:
        is_new = await accounts.add(opened, options.name, password, admin=options.admin)
    file = home.hub / "credentials.json"
    if not is_new and _text(stored := read_json(file) or {}, "username") == options.name:
        write_private(file, json.dumps({**stored, "password": password}))  # the owner's: else it would be set back
    text = f"The user {options.name} {'was added' if is_new else 'has a new password'}."
    print(json.dumps({"username": options.name, "added": is_new}) if options.json else text)  # noqa: T201 - its answer


async def list_users(home: Home, options: argparse.Namespace, lock: Lock) -> None:
    """List the users."""
    async with accounts.accounts_of(home, lock) as opened:
        found = await accounts.listed(opened)
    if options.json:
        print(json.dumps([account.shown() for account in found]))  # noqa: T201 - a command's answer
        return
    for account in found:
        about = [*account.roles, *(["disabled"] if account.disabled else [])]
        print(account.username + (f" ({', '.join(about)})" if about else ""))  # noqa: T201 - a command's answer


async def remove_user(home: Home, options: argparse.Namespace, lock: Lock) -> None:
    """Delete a user. Raises `InvalidInput` for the one whose hub it is."""
    if _text(read_json(home.hub / "credentials.json") or {}, "username").lower() == options.name.lower():
        raise InvalidInput(f"{options.name} is the user of this hub's owner and cannot be removed.")
    async with accounts.accounts_of(home, lock) as opened:
        await accounts.remove(opened, options.name)
    text = f"The user {options.name} was removed."
    print(json.dumps({"username": options.name}) if options.json else text)  # noqa: T201 - a command's answer


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


COMMANDS: dict[str, Callable[[Home, argparse.Namespace, Lock], Coroutine[Any, Any, None]]] = {
    "user-add": add_user,
    "user-list": list_users,
    "user-remove": remove_user,
    "export": transfer.run_export,
    "import": transfer.run_import,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
