"""``completion``: the shell's script, and what may come next in a command line.

A script asks us for each word. Commands and options are known; names of runs, packages and agents are asked of an agent
that runs already: none is started for it, and one that takes long is not waited for.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jupyter_agent.cli.context import Context
from jupyter_agent.cli.following import ENDED
from jupyter_agent.cli.parser import make_parser
from jupyter_agent.cli.text import plain
from jupyter_agent.errors import AgentError
from jupyter_agent.home import AgentClient, Home, running_agent

ANSWER_S = 0.5
MOST = 200

BASH = """\
_jupyter_agent_words() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$(printf '%q' "$line")")
    done < <("$@" 2>/dev/null)
}
_jupyter_agent() {
    _jupyter_agent_words "$1" completion bash --for "${COMP_WORDS[@]:1:COMP_CWORD}"
}
_jupyter_agent_of_jupyter() {
    COMPREPLY=()
    if [ "${COMP_WORDS[1]}" = agent ] && [ "$COMP_CWORD" -gt 1 ]; then
        _jupyter_agent_words "$1" agent completion bash --for "${COMP_WORDS[@]:2:COMP_CWORD-1}"
    fi
}
complete -o default -F _jupyter_agent jupyter-agent
complete -p jupyter >/dev/null 2>&1 || complete -o default -F _jupyter_agent_of_jupyter jupyter
"""

ZSH = """\
_jupyter_agent() {
    local -a found
    found=("${(@f)$("${words[1]}" completion zsh --for "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        _describe -t words jupyter-agent found
    else
        _files
    fi
}
compdef _jupyter_agent jupyter-agent
"""

FISH = """\
function __jupyter_agent_words
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] completion fish --for $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c jupyter-agent -f -a '(__jupyter_agent_words)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


@dataclass(frozen=True)
class Word:
    """What may come next; ``about`` says what it is."""

    text: str
    about: str = ""


Ask = Callable[[AgentClient], Iterator[Word]]


def completion(context: Context, given: argparse.Namespace) -> int:
    """Print the script of a shell, or for it what may come next."""
    if given.words is None:
        context.console.out.write(SCRIPTS[given.shell])
        return 0
    for word in next_words(given.words, context.home):
        context.console.out.write(FORMS[given.shell](word) + "\n")
    return 0


def next_words(words: Sequence[str], home: Home) -> list[Word]:
    """What the last of the words may become; nothing where it is a file's name, which shells know best."""
    *before, begun = [word for word in words if word != "="] or [""]  # bash takes --state=x for three words
    position = _position(before)
    named = position.named.get("--home")
    found = list(_candidates(position, begun, Home.find(named) if named else home))
    return [word for word in found if word.text.startswith(begun)]


@dataclass
class _Position:
    """Where in the command line one is: the command, the option that waits for its value, values so far."""

    parser: argparse.ArgumentParser
    path: tuple[str, ...]
    waiting: argparse.Action | None
    values: int
    named: dict[str, str]
    only_values: bool


def _position(words: Sequence[str]) -> _Position:
    at = _Position(make_parser(), (), None, 0, {}, only_values=False)
    for word in words:
        if at.waiting is not None:
            at.named[at.waiting.option_strings[-1]] = word
            at.waiting = None
        elif word == "--":
            at.only_values = True
        elif word.startswith("-") and not at.only_values:
            action = _options(at.parser).get(word)
            at.waiting = action if action is not None and action.nargs is None else None
        elif (below := _below(at.parser)) and word in below:
            at.parser, at.path, at.values = below[word], (*at.path, word), 0
        else:
            at.values += 1
    return at


def _candidates(at: _Position, begun: str, home: Home) -> Iterator[Word]:
    if at.waiting is not None:
        yield from _values(at, at.waiting, home)
        return
    if begun.startswith("-") and not at.only_values:
        for name, option in _options(at.parser).items():
            if option.help != argparse.SUPPRESS:
                yield Word(name, option.help or "")
        return
    yield from _commands(at.parser)
    positional = [
        action
        for action in at.parser._actions  # noqa: SLF001 - argparse has no other way to ask for them
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
    ]
    if at.values < len(positional):
        yield from _values(at, positional[at.values], home)


def _values(at: _Position, action: argparse.Action, home: Home) -> Iterator[Word]:
    """The values that an option or an argument may have, as far as that is known."""
    if action.choices is not None:
        yield from (Word(str(choice)) for choice in action.choices)
        return
    if action.dest == "state":
        yield from (Word(state) for state in ("queued", "preparing", "running", *ENDED))
        return
    ask = ASKED.get((at.path[0] if at.path else "", action.dest)) or ASKED.get(("", action.dest))
    if ask is None:
        return
    with contextlib.suppress(AgentError, OSError, KeyError, TypeError, ValueError):
        if (socket := running_agent(home)) is not None:
            yield from ask(AgentClient(socket))


def _runs(agent: AgentClient) -> Iterator[Word]:
    yield Word("last", "the newest")
    for run in agent.request("GET", f"runs?limit={MOST}", timeout_s=ANSWER_S)["runs"]:
        yield Word(run["id"], f"{run['package']}, {run['state'].replace('_', ' ')}")


def _packages(agent: AgentClient) -> Iterator[Word]:
    for package in agent.request("GET", "packages", timeout_s=ANSWER_S)[:MOST]:
        yield Word(package["name"], package["description"] or package["language"])


def _agents(agent: AgentClient) -> Iterator[Word]:
    for other in agent.request("GET", "agents", timeout_s=ANSWER_S)[:MOST]:
        yield Word(other["slug"], other["name"] if other["online"] else f"{other['name']}, offline")


def _environments(agent: AgentClient) -> Iterator[Word]:
    for known in agent.request("GET", "environments", timeout_s=ANSWER_S)[:MOST]:
        yield Word(known["id"] or known["path"], known["source"] or known["name"])


ASKED: dict[tuple[str, str], Ask] = {
    ("runs", "id"): _runs,
    ("package", "name"): _packages,
    ("run", "target"): _packages,
    ("", "package"): _packages,
    ("", "agent"): _agents,
    ("", "environment"): _environments,
    ("env", "environments"): _environments,
}
"""By the first word of the command and the argument's name; an empty word is any command."""


def _commands(parser: argparse.ArgumentParser) -> Iterator[Word]:
    for action in parser._actions:  # noqa: SLF001 - as above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for choice in action._choices_actions:  # noqa: SLF001
                yield Word(choice.dest, choice.help or "")


def _below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:  # noqa: SLF001 - as above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def _options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return parser._option_string_actions  # noqa: SLF001 - as above


def _for_bash(word: Word) -> str:
    return word.text


def _for_zsh(word: Word) -> str:
    text = word.text.replace("\\", "\\\\").replace(":", "\\:")
    return f"{text}:{plain(word.about)}"


def _for_fish(word: Word) -> str:
    return f"{word.text}\t{plain(word.about)}"


FORMS = {"bash": _for_bash, "zsh": _for_zsh, "fish": _for_fish}
