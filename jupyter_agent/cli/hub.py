"""``hub``: the embedded OpenFlow, whose own program takes the place of this process."""

from __future__ import annotations

import argparse
from typing import NoReturn

from jupyter_agent.cli.context import Context, become


def serve(context: Context, given: argparse.Namespace) -> NoReturn:
    """Become the hub."""
    port = [] if given.port is None else ["--port", str(given.port)]
    rate = [] if given.rate_limit is None else [f"--rate-limit={given.rate_limit}"]
    _become(context, "--home", str(context.home.path), *port, *rate, *_json(context))


def add_user(context: Context, given: argparse.Namespace) -> NoReturn:
    """Become the program that adds a user; it reads the password from stdin."""
    admin = ["--admin"] if given.admin else []
    _become(context, "user-add", "--home", str(context.home.path), *_json(context), *admin, "--", given.name)


def list_users(context: Context, _given: argparse.Namespace) -> NoReturn:
    """Become the program that lists the users."""
    _become(context, "user-list", "--home", str(context.home.path), *_json(context))


def remove_user(context: Context, given: argparse.Namespace) -> NoReturn:
    """Become the program that removes a user."""
    _become(context, "user-remove", "--home", str(context.home.path), *_json(context), "--", given.name)


def export(context: Context, given: argparse.Namespace) -> NoReturn:
    """Become the program that writes everything in the hub down."""
    passwords = ["--passwords"] if given.passwords else []
    _become(context, "export", "--home", str(context.home.path), *_json(context), *passwords, "--", given.target)


def import_(context: Context, given: argparse.Namespace) -> NoReturn:
    """Become the program that brings such an export in; a token or password comes by its stdin."""
    chosen = [f"--{name}" for name in ("replace", "skip", "stop") if getattr(given, name)]
    there = [f"--{name}={value}" for name in ("openflow", "username") if (value := getattr(given, name))]
    _become(context, "import", "--home", str(context.home.path), *_json(context), *chosen, *there, "--", given.source)


def _json(context: Context) -> list[str]:
    return ["--json"] if context.console.json else []


def _become(context: Context, *arguments: str) -> NoReturn:
    become(context, "jupyter_agent.hub", *arguments)
