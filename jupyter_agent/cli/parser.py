"""The commands and their arguments. ``action`` is the module and function that do it, imported when it is chosen."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

USAGE_ERROR = 2

DEFINITIONS = "environment.yml, conda-lock.yml, requirements.txt, pyproject.toml, or an explicit list"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2 (called by ``argparse``)."""
        sys.stderr.write(f"jupyter-agent: {message[:1].lower()}{message[1:]} (see: {self.prog} --help)\n")
        sys.exit(USAGE_ERROR)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line's values; exits with 2 when it cannot be understood."""
    given, words = split_words(sys.argv[1:] if argv is None else argv)
    # Not as the parser's defaults: options that all commands share would be reset by the inner ones.
    return make_parser().parse_args(given, argparse.Namespace(home=None, json=False, words=words))


def split_words(argv: Sequence[str]) -> tuple[Sequence[str], list[str] | None]:
    """The command line, and the half-typed one behind ``completion SHELL --for``, which is no command line of ours."""
    if len(argv) > 2 and argv[0] == "completion" and argv[2] == "--for":  # noqa: PLR2004 - its place
        return argv[:2], list(argv[3:])
    return argv, None


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    shared = Parser(add_help=False)
    group = shared.add_argument_group("everywhere")
    group.add_argument(
        "--home",
        metavar="DIR",
        type=_name,
        default=argparse.SUPPRESS,
        help="the agent's home (else JUPYTER_AGENT_HOME, else `agent` in Jupyter's data folder)",
    )
    group.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="end with one JSON document on stdout"
    )
    parser = Parser(
        prog="jupyter-agent",
        parents=[shared],
        description="Run notebooks and packages with a Jupyter agent for OpenFlow.",
    )
    commands = Commands(parser, shared)
    _agent(commands)
    _home(commands)
    _hub(commands)
    _packages(commands)
    _runs(commands)
    _environments(commands)
    _agents(commands)
    return parser


class Commands:
    """The sub-commands of a command; each knows the options that are the same everywhere."""

    def __init__(self, parser: argparse.ArgumentParser, shared: Parser, *, required: bool = True) -> None:
        self._shared = shared
        self._added = parser.add_subparsers(metavar="COMMAND", required=required, parser_class=Parser)

    def add(self, name: str, summary: str, action: str | None = None, **options: Any) -> argparse.ArgumentParser:
        """One command; with an ``action`` it can be called as it is."""
        description = summary[:1].upper() + summary[1:] + "."
        command = self._added.add_parser(name, help=summary, description=description, parents=[self._shared], **options)
        if action:
            command.set_defaults(action=action)
        return command

    def group(self, name: str, summary: str, action: str | None = None) -> tuple[argparse.ArgumentParser, Commands]:
        """A command with sub-commands; with an ``action`` it can be called without one, too."""
        command = self.add(name, summary, action)
        return command, Commands(command, self._shared, required=action is None)


def _agent(commands: Commands) -> None:
    commands.add("serve", "run the agent in the foreground", "agent:serve")
    commands.add("status", "say whether an agent runs, and what it is connected to", "agent:status")
    demo = commands.add("demo", "publish a notebook on real data and run it", "demo:demo")
    demo.add_argument("--here", action="store_true", help="also where an OpenFlow other than the embedded hub is used")
    demo.add_argument("--lab", action="store_true", help="open the output notebook in JupyterLab at the end")


def _home(commands: Commands) -> None:
    commands.add("doctor", "look for what is wrong, and say what to do about it", "home:doctor")
    login = commands.add("login", "use an OpenFlow, as the one who signs in", "home:login")
    login.add_argument("url", metavar="URL", nargs="?", help="its address, like wss://app.example.com")
    login.add_argument(
        "--username", metavar="NAME", type=_name, help="sign in by password, asked for or read from stdin"
    )
    login.add_argument("--adopt", action="store_true", help="be whom the official agent of this user is")
    login.add_argument("--browser", action="store_true", help="open the page to sign in on this machine")
    commands.add("logout", "forget that OpenFlow and use the embedded hub again", "home:logout")
    backup = commands.add("backup", "write the whole home into a file, also while it is used", "home:backup")
    backup.add_argument("target", metavar="FILE", type=_name, help="the file to be written, readable by you alone")
    backup.add_argument("--everything", action="store_true", help="also what can be made anew, as environments")
    backup.add_argument("--force", action="store_true", help="replace a file that is there")
    restore = commands.add("restore", "make the home what a backup holds; what is there is kept", "home:restore")
    restore.add_argument("source", metavar="FILE", type=_name, help="what `backup` wrote")
    restore.add_argument("--stop", action="store_true", help="end runs that are under way")
    completion = commands.add("completion", "print what makes a shell complete our commands", "completion:completion")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell that is to read it")


def _hub(commands: Commands) -> None:
    hub, below = commands.group("hub", "run the embedded OpenFlow in the foreground", "hub:serve")
    hub.add_argument("--port", type=_port, help="the port to listen on (else the one it had before, or a free one)")
    hub.add_argument(
        "--rate-limit",
        metavar="N",
        nargs="?",
        type=_count,
        const=30,
        help="answer so many requests a second of each client (30), as a real OpenFlow does; else all",
    )
    _user, users = below.group("user", "the hub's users")
    add = users.add("add", "add a user, or give one a new password", "hub:add_user")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--password-stdin", action="store_true", required=True, help="the password is read from stdin")
    add.add_argument("--admin", action="store_true", help="make it a member of admins")
    users.add("list", "list the users with their roles", "hub:list_users")
    gone = users.add("remove", "remove a user; what they made stays", "hub:remove_user")
    gone.add_argument("name", metavar="NAME")
    export = below.add("export", "write everything in the hub into an archive or a folder", "hub:export")
    export.add_argument("target", metavar="FILE", help="a .tar.gz, or a folder, that is not there yet")
    export.add_argument("--passwords", action="store_true", help="with the hashes of the users' passwords")
    into = below.add("import", "bring an export into the hub, or into an OpenFlow", "hub:import_")
    into.add_argument("source", metavar="FILE", help="what `hub export` wrote")
    rule = into.add_mutually_exclusive_group()
    rule.add_argument("--replace", action="store_true", help="a document that is there otherwise gives way")
    rule.add_argument("--skip", action="store_true", help="a document that is there otherwise stays (else: refused)")
    into.add_argument("--stop", action="store_true", help="end a hub that runs; an agent starts it again afterwards")
    into.add_argument("--openflow", metavar="URL", help="into this OpenFlow; its token is asked for or read from stdin")
    into.add_argument("--username", metavar="NAME", help="sign in there as this user, by password")


def _packages(commands: Commands) -> None:
    _package, below = commands.group("package", "packages: notebooks and programs with what they need")
    pack = below.add("pack", "make the archive of a package", "packages:pack")
    pack.add_argument("folder", metavar="FOLDER", type=Path)
    pack.add_argument("-o", "--output", metavar="FILE", type=Path, help="the archive (else <name>-<version>.tgz here)")
    publish = below.add("publish", "pack a package and publish it to OpenFlow", "packages:publish")
    publish.add_argument("folder", metavar="FOLDER", type=Path)
    below.add("list", "list the packages in OpenFlow", "packages:list_packages")
    _named(below.add("show", "show a package", "packages:show"))
    prepare = _named(below.add("prepare", "fetch a package and make ready what its runs need", "packages:prepare"))
    prepare.add_argument("--detach", action="store_true", help="print the run's id and do not wait for its end")
    _fetching(prepare)
    _there(prepare, "on this agent: its slug or name")
    again = below.add("reinstall", "end a package's runs and have it fetched and prepared anew", "packages:reinstall")
    _there(_named(again), "on this agent: its slug or name")
    _named(below.add("remove", "remove a package from OpenFlow, with its archive", "packages:remove"))


def _runs(commands: Commands) -> None:
    run = commands.add("run", "run a package, notebook, script or package folder", "run:run")
    run.add_argument(
        "target",
        metavar="TARGET",
        type=_name,
        help="a package's name or id, or the path of a notebook, script or folder",
    )
    run.add_argument(
        "-p",
        dest="parameters",
        metavar="NAME=VALUE",
        action="append",
        type=_parameter,
        default=[],
        help="a parameter; the value is read as YAML: 5, true, 'text'",
    )
    run.add_argument("--isolated", action="store_true", help="run a copy of the target's folder")
    run.add_argument("--detach", action="store_true", help="print the run's id and do not wait for its end")
    run.add_argument("--timeout", metavar="SECONDS", type=_positive, help="stop the run after this long")
    run.add_argument("--memory", metavar="MB", type=_count, help="stop the run when it uses more memory (MiB)")
    run.add_argument("--priority", metavar="N", type=_integer, help="its place among those that wait, lower first (2)")
    run.add_argument("--retries", metavar="N", type=_whole, help="try again so many times when it fails")
    run.add_argument("--retry-delay", metavar="SECONDS", type=_positive, help="before the first of them; then longer")
    run.add_argument("--key", metavar="KEY", help="asked for with the same key again, the first run is given back")
    run.add_argument(
        "--env",
        dest="environment",
        metavar="ENV",
        type=_name,
        help="in this environment (id, name or path), or in that of this file, instead of what its own files ask for",
    )
    _fetching(run)
    _there(run, "run a published package on this agent instead: its slug or name")
    _group, below = commands.group("runs", "runs that are under way and those that ended")
    listing = below.add("list", "list runs, the newest first", "runs:list_runs")
    listing.add_argument("--state", metavar="S", help="only runs in this state: running, succeeded, failed, ...")
    listing.add_argument("--package", metavar="P", help="only runs of this package")
    listing.add_argument("--limit", metavar="N", type=_count, default=50, help="at most so many (50)")
    _there(listing, "what runs on this agent: its slug or name")
    _one(below.add("show", "show a run", "runs:show"))
    logs = _one(below.add("logs", "print the output of a run", "runs:logs"))
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    _there(logs, "of a run under way on this agent")
    cancel = _one(below.add("cancel", "cancel a run and wait for its end", "runs:cancel"))
    _there(cancel, "a run of this agent")
    again = _one(below.add("rerun", "run once more what an ended run was", "run:rerun"))
    again.add_argument("--detach", action="store_true", help="print the new run's id and do not wait for its end")
    _fetching(again)
    artifacts = _one(below.add("artifacts", "list the files that a run left, or fetch one", "runs:artifacts"))
    artifacts.add_argument("name", metavar="NAME", nargs="?", help="the file to fetch")
    artifacts.add_argument("-o", "--output", metavar="FILE", help="where to write it (else NAME, here); - for stdout")


def _environments(commands: Commands) -> None:
    _env, below = commands.group("env", "environments: what notebooks and Python run in")
    create = below.add("create", "make the environment that a file asks for, unless it is there", "environments:create")
    which = create.add_mutually_exclusive_group(required=True)
    which.add_argument("file", metavar="FILE", type=_name, nargs="?", help=DEFINITIONS)
    which.add_argument("--template", metavar="NAME", type=_name, help="one of those that come along")
    _fetching(create)
    lock = below.add("lock", "write down what a file's environment would hold, exactly", "environments:lock")
    lock.add_argument("file", metavar="FILE", type=_name, help=DEFINITIONS)
    lock.add_argument("-o", "--output", metavar="OUT", type=_name, help="where (else conda-lock.yml beside FILE)")
    lock.add_argument(
        "--platform",
        dest="platforms",
        metavar="P",
        action="append",
        type=_platform,
        default=[],
        help="for this system, like linux-64; may be repeated (else FILE's own platforms, else this one)",
    )
    _fetching(lock)
    _known_environments(below)
    _channel, channels = below.group("channel", "conda channels made from PyPI")
    build = channels.add("build", "make a conda channel of this Python and of what PyPI has", "environments:channel")
    build.add_argument("requirements", metavar="REQUIREMENT", nargs="+", type=_name, help="like pandas, or a file")
    build.add_argument("--python", choices=("host",), default="host", help="the Python in it: the agent's own")
    build.add_argument("-o", "--output", metavar="FOLDER", type=_name, help="where (else ./channel)")


def _known_environments(below: Commands) -> None:
    below.add("list", "list the environments on this machine", "environments:list_environments")
    _environment(below.add("show", "show one environment and what is in it", "environments:show"))
    verify = below.add("verify", "look at every file of environments", "environments:verify")
    verify.add_argument("environments", metavar="ENV", nargs="*", type=_name, help="these (else all of ours)")
    _environment(below.add("repair", "make an environment whole again", "environments:repair"))
    _environment(below.add("remove", "remove an environment that nothing uses", "environments:remove"))
    collect = below.add("gc", "remove environments that nothing uses", "environments:collect")
    collect.add_argument("--days", metavar="N", type=_days, help="unused for so long (else as the settings say)")
    collect.add_argument("--dry-run", action="store_true", help="only say which those are")


def _environment(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "environment", metavar="ENV", type=_name, help="its id, the beginning of it, its name, or its path"
    )


def _fetching(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--channel-from-pypi",
        action="store_true",
        default=None,
        help="where no conda channel can be reached, use one made from PyPI",
    )
    command.add_argument(
        "--offline", action="store_true", default=None, help="fetch nothing: use what is on this machine"
    )


def _agents(commands: Commands) -> None:
    _group, below = commands.group("agents", "the agents of the same OpenFlow")
    below.add("list", "list the agents, and which of them are connected", "agents:list_agents")


def _there(command: argparse.ArgumentParser, summary: str) -> None:
    command.add_argument("--agent", metavar="SLUG", type=_name, help=summary)


def _named(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument("name", metavar="NAME", type=_name, help="the package's name or id")
    return command


def _one(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument(
        "id", metavar="ID", type=_name, help="the run's id, its beginning or end if that is unique, or `last`"
    )
    return command


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"a parameter is given as NAME=VALUE, not {text!r}")
    return name, value


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")


def _whole(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 9:  # noqa: PLR2004 - what any counter holds
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")


def _integer(text: str) -> int:
    return -_whole(text[1:]) if text.startswith("-") else _whole(text)


def _name(text: str) -> str:
    if text.strip():
        return text
    raise argparse.ArgumentTypeError("a name is missing")


def _days(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) <= 1_000_000:  # noqa: PLR2004 - longer than there have been environments
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")


def _platform(text: str) -> str:
    system, dash, machine = text.partition("-")
    if dash and system.isascii() and system.isalpha() and machine.isascii() and machine.isalnum():
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not a platform like linux-64")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 to 65535")
