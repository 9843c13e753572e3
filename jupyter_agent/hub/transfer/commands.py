"""``hub export`` and ``hub import`` from the command line: what is said, and who has the store meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import psutil

from jupyter_agent.errors import Conflict, InvalidInput
from jupyter_agent.home import Home, Lock, read_json
from jupyter_agent.hub.data.store import Store
from jupyter_agent.hub.transfer.disk import Progress, scratch
from jupyter_agent.hub.transfer.exporting import export
from jupyter_agent.hub.transfer.importing import Report, Rule, import_export
from jupyter_agent.hub.transfer.layout import Manifest
from jupyter_agent.hub.transfer.opening import Export, open_export
from jupyter_agent.waiting import holding, to_its_end

STOP_S = 30


def add_parsers(commands: Any) -> None:
    """The two commands' options."""
    out = commands.add_parser("export", help="write everything in the hub into a file or a folder")
    out.add_argument("--home", default=argparse.SUPPRESS, help="the agent's home")
    out.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="end with one JSON document")
    out.add_argument("--passwords", action="store_true", help="with the hashes of passwords")
    out.add_argument(
        "target", metavar="FILE", type=Path, help="an archive (.tar.gz), or a folder, that is not there yet"
    )
    into = commands.add_parser("import", help="bring an export into the hub, or into an OpenFlow")
    into.add_argument("--home", default=argparse.SUPPRESS, help="the agent's home")
    into.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="end with one JSON document")
    rule = into.add_mutually_exclusive_group()
    rule.add_argument("--replace", action="store_const", dest="rule", const="replace", help="what is there gives way")
    rule.add_argument("--skip", action="store_const", dest="rule", const="skip", help="what is there stays")
    into.add_argument("--stop", action="store_true", help="end a hub that runs; an agent starts it again")
    into.add_argument(
        "--openflow", metavar="URL", help="import into this OpenFlow; its token is asked for, or read from stdin"
    )
    into.add_argument("--username", metavar="NAME", help="sign in there as this user, by password")
    into.add_argument("source", metavar="FILE", type=Path, help="what an export wrote")
    into.set_defaults(rule="refuse")


async def run_export(home: Home, options: argparse.Namespace, lock: Lock) -> None:
    """Export, and tell what was written."""
    if (home.hub / "hub.db").exists():
        with contextlib.suppress(Conflict), lock:  # nobody runs it: it may be of an older version
            await _brought_up(home)
    target = options.target.absolute()
    with Progress() as say:
        manifest = await to_its_end(lambda: export(home.hub, target, passwords=options.passwords, say=say), say.stop)
    _tell(options, {"path": str(target), **_counts(manifest)}, _sentence(manifest, f"{target}: "))


def run_import(home: Home, options: argparse.Namespace, lock: Lock) -> Coroutine[Any, Any, None]:
    """Import, and tell what was done. A secret is read before there is an event loop: that can be broken off."""
    if options.username and not options.openflow:
        raise InvalidInput("--username is for an import into an OpenFlow: give its --openflow URL, too.")
    if options.openflow and options.rule != "refuse":
        raise InvalidInput(
            "An import into an OpenFlow replaces the documents it finds: --replace and --skip do not apply."
        )
    return _import(home, options, lock, _secret(options) if options.openflow else "")


async def _import(home: Home, options: argparse.Namespace, lock: Lock, secret: str) -> None:
    home.hub.mkdir(mode=0o700, parents=True, exist_ok=True)
    with scratch(home.hub) as folder, Progress() as say:
        found = await to_its_end(lambda: open_export(options.source.absolute(), folder, say), say.stop)
        if options.openflow:
            await _send(found, options, secret, say)
            return
        async with _alone(home, lock, stop=options.stop):
            await _brought_up(home)
            report = await to_its_end(lambda: _imported(home, found, options.rule, say), say.stop)
    _tell(options, report.shown(), _told(report))


def _secret(options: argparse.Namespace) -> str:
    """The token or password, of whoever sits there or from standard input. Raises `InvalidInput` for none."""
    what = "password" if options.username else "token"
    if sys.stdin.isatty():
        secret = getpass.getpass(f"The {what} for {options.openflow}: ")
    else:
        secret = sys.stdin.readline().rstrip("\r\n")
    if not secret:
        raise InvalidInput(f"The {what} is missing: write it on standard input, in one line.")
    return secret


async def _send(found: Export, options: argparse.Namespace, secret: str, say: Progress) -> None:
    from jupyter_agent.hub.transfer.sending import send  # noqa: PLC0415 - the client is needed here alone

    sent = await send(found, options.openflow, options.username or "", secret, say=say)
    say.clear()
    _tell(options, sent.shown(), sent.sentence())
    if sent.failed:
        raise InvalidInput(
            f"{len(sent.failed)} documents or files could not be brought over. The first: {sent.failed[0]}"
        )


def _imported(home: Home, found: Export, rule: Rule, say: Progress) -> Report:
    return import_export(home.hub, found, rule=rule, say=say)


async def _brought_up(home: Home) -> None:
    """Make the store, or bring it to the version of this program."""
    async with Store(home.hub / "hub.db"):
        pass


@contextlib.asynccontextmanager
async def _alone(home: Home, lock: Lock, *, stop: bool) -> AsyncIterator[None]:
    """Have the store for oneself. Raises `Conflict` when a hub runs, unless that is to be stopped."""
    if not stop:
        lock.held = (
            f"The hub of {home.path} is running, and an import needs its store alone: stop it, or say --stop "
            "(an agent starts it again afterwards)."
        )
        with lock:
            yield
        return
    _end_hub(home)
    try:
        async with asyncio.timeout(STOP_S) as patience, holding(lock):
            patience.reschedule(None)
            yield
    except TimeoutError as error:
        raise Conflict(f"The hub of {home.path} does not end.") from error


def _end_hub(home: Home) -> None:
    stored = read_json(home.hub / "hub.json") or {}
    pid, started = stored.get("pid"), stored.get("started")
    with contextlib.suppress(psutil.Error, OSError):
        if isinstance(pid, int) and psutil.Process(pid).create_time() == started:
            os.kill(pid, signal.SIGTERM)


def _counts(manifest: Manifest) -> dict[str, Any]:
    return {
        "documents": manifest.documents,
        "collections": {part.collection: part.lines for part in manifest.collections},
        "files": manifest.files,
        "bytes": manifest.size,
    }


def _sentence(manifest: Manifest, begin: str) -> str:
    return f"{begin}{manifest.documents} documents and {manifest.files} files, {manifest.size / (1 << 20):.1f} MiB"


def _told(report: Report) -> str:
    counted = {  # without histories, as an export counts
        name: sum(number for collection, number in getattr(report, name).items() if not collection.endswith("_hist"))
        for name in ("inserted", "replaced", "unchanged", "skipped")
    }
    lines = [f"{number} documents {name}" for name, number in counted.items() if number]
    text = f"{', '.join(lines) or 'Nothing'}; {report.files} files."
    if report.same_names:
        text += f"\nThe hub's own stay for: {', '.join(report.same_names)}."
    if report.without_password:
        names = ", ".join(report.without_password)
        text += f"\nWithout a password (jupyter agent hub user add NAME --password-stdin): {names}."
    return text


def _tell(options: argparse.Namespace, values: dict[str, Any], text: str) -> None:
    print(json.dumps(values) if options.json else text)  # noqa: T201 - a command's answer
