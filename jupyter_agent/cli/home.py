"""What is done to the home itself: a program of the agent's side takes the place of this process for each."""

from __future__ import annotations

import argparse
from typing import NoReturn

from jupyter_agent.cli.context import Context, become


def doctor(context: Context, _given: argparse.Namespace) -> NoReturn:
    """Become the program that looks for what is wrong."""
    _become(context, "doctor")


def login(context: Context, given: argparse.Namespace) -> NoReturn:
    """Become the program that signs in; it reads a password from stdin."""
    username = [f"--username={given.username}"] if given.username else []
    url = ["--", given.url] if given.url else []
    _become(context, "login", *_chosen(given, "adopt", "browser"), *username, *url)


def logout(context: Context, _given: argparse.Namespace) -> NoReturn:
    """Become the program that signs out."""
    _become(context, "logout")


def backup(context: Context, given: argparse.Namespace) -> NoReturn:
    """Become the program that backs the home up."""
    _become(context, "backup", *_chosen(given, "everything", "force"), "--", given.target)


def restore(context: Context, given: argparse.Namespace) -> NoReturn:
    """Become the program that brings a backup back."""
    _become(context, "restore", *_chosen(given, "stop"), "--", given.source)


def _chosen(given: argparse.Namespace, *names: str) -> list[str]:
    return [f"--{name}" for name in names if getattr(given, name)]


def _become(context: Context, program: str, *arguments: str) -> NoReturn:
    as_json = ["--json"] if context.console.json else []
    become(context, "jupyter_agent.agent", program, "--home", str(context.home.path), *as_json, *arguments)
