"""``python -m jupyter_agent.notebook.recover EVENTS NOTEBOOK OUTPUT``: the output notebook of a child that was killed.

Made of the notebook and the run's journal; it holds what was put out until then.
"""

from __future__ import annotations

import sys

# As in ``__main__``.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import argparse  # noqa: E402 - behind the line above
import contextlib  # noqa: E402
import warnings  # noqa: E402
from pathlib import Path  # noqa: E402

from jupyter_agent.errors import AgentError, NotFound  # noqa: E402
from jupyter_agent.notebook import outputs, parameters  # noqa: E402
from jupyter_agent.notebook.journal import Journal, events  # noqa: E402
from jupyter_agent.notebook.spec import complain  # noqa: E402


def recover(journal: Path, notebook: Path, output: Path) -> None:
    """Write ``output`` and say so in the journal. Raises ``AgentError`` when there is too little to make it of."""
    found = outputs.load(notebook)
    try:
        for event in events(journal):
            if event.get("event") == "injected":
                parameters.insert(found, event["source"])
            with contextlib.suppress(LookupError, TypeError, AttributeError, ValueError):  # an event cut short
                outputs.replay(found, event)
    except FileNotFoundError as error:
        raise NotFound(f"There is no journal {journal}.") from error
    outputs.save(found, output)
    with Journal(journal) as continued:
        continued.add("artifact", path=output.name)


def main(arguments: list[str]) -> int:
    """Recover; the three arguments are files."""
    parser = argparse.ArgumentParser("python -m jupyter_agent.notebook.recover", description="Make an output notebook.")
    for name in ("events", "notebook", "output"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # of libraries, about notebooks in older forms
    try:
        recover(given.events, given.notebook, given.output)
    except AgentError as error:
        complain(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
