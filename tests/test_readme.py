"""The README and the software tell the same."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from jupyter_agent.agent.agent import Agent
from jupyter_agent.cli.parser import make_parser

README = (Path(__file__).parent.parent / "README.md").read_text()


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if words and not any(action.required for action in nested):
        yield words
    for action in nested:
        for name, below in action.choices.items():
            yield from commands(below, (*words, name))


def test_the_commands_are_those_of_the_readme() -> None:
    told = {
        tuple(re.findall(r"[a-z]+", line.split("[")[0]))
        for line in re.findall(r"^\| `jupyter agent ([^`]*)`", README, re.MULTILINE)
    }
    for words in commands(make_parser()):
        assert any(row[: len(words)] == words for row in told), f"the README does not tell of {' '.join(words)}"
    known = set(commands(make_parser()))
    for row in told:
        assert any(row[: len(words)] == words for words in known), f"there is no command {' '.join(row)}"


def test_the_settings_are_those_of_the_readme() -> None:
    told = set(re.findall(r"^\| `Agent\.(\w+)`", README, re.MULTILINE))
    assert told == set(Agent.class_own_traits(config=True))
    assert all(trait.help for trait in Agent.class_own_traits(config=True).values())


def test_the_two_set_up_commands_stand_first() -> None:
    first, second = re.findall(r"```bash\n(.*?)\n```", README, re.DOTALL)[:2]
    assert first == "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/jupyter agent demo"
    assert second == "bash tests/run.sh"
