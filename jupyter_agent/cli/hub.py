"""``hub``: the embedded OpenFlow, whose own program takes the place of this process."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from jupyter_agent.cli.context import Context


def serve(context: Context, given: argparse.Namespace) -> NoReturn:
    """Become the hub."""
    port = [] if given.port is None else ["--port", str(given.port)]
    _become(context, "--home", str(context.home.path), *port, *(["--json"] if context.console.json else []))


def add_user(context: Context, given: argparse.Namespace) -> NoReturn:
    """Become the program that adds a user; it reads the password from stdin."""
    admin = ["--admin"] if given.admin else []
    _become(context, "user-add", "--home", str(context.home.path), *admin, "--", given.name)


def _become(context: Context, *arguments: str) -> NoReturn:
    context.console.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "jupyter_agent.hub", *arguments])  # noqa: S606 - no shell is wanted
