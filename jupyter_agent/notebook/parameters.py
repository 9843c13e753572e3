"""Parameters: a cell injected behind the one tagged ``parameters``, as papermill does, by papermill's translators."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import nbformat
from nbformat import NotebookNode

from jupyter_agent.errors import InvalidInput
from jupyter_agent.notebook.spec import check_parameters

TAG = "parameters"
INJECTED = "injected-parameters"


def inject(notebook: NotebookNode, parameters: Mapping[str, Any], *, language: str) -> list[str]:
    """Inject a cell that sets ``parameters``; those are returned that the notebook's own cell does not have.

    Raises ``InvalidInput`` for a name or a value that the language cannot have.
    """
    from papermill.exceptions import PapermillException  # noqa: PLC0415, TID251 - 100 ms; used in notebook/ alone
    from papermill.translators import papermill_translators  # noqa: PLC0415, TID251 - as above

    check_parameters(parameters)
    own = tagged(notebook, TAG)
    try:
        translator = papermill_translators.find_translator(language, language)
        source = translator.codify(dict(parameters), "Parameters")
    except (PapermillException, NotImplementedError) as error:
        raise InvalidInput(f"Parameters cannot be given to a notebook in {language}: {error}.") from error
    known: set[str] = set()
    if own is not None:
        with contextlib.suppress(NotImplementedError):
            known = {each.name for each in translator.inspect(notebook.cells[own])}
    insert(notebook, source)
    return sorted(set(parameters) - known) if known else []


def insert(notebook: NotebookNode, source: str) -> None:
    """Put the code that sets the parameters into the notebook.

    It replaces a cell that was injected before, else it stands behind the cell tagged ``parameters``, else at the top.
    """
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": [INJECTED]})
    if notebook.nbformat_minor < 5:  # noqa: PLR2004 - cells have ids from 4.5 on
        del cell["id"]
    if (earlier := tagged(notebook, INJECTED)) is not None:
        notebook.cells[earlier] = cell
        return
    own = tagged(notebook, TAG)
    notebook.cells.insert(0 if own is None else own + 1, cell)


def tagged(notebook: NotebookNode, tag: str) -> int | None:
    """The index of the first cell with ``tag``."""
    return next(
        (index for index, cell in enumerate(notebook.cells) if tag in cell.get("metadata", {}).get("tags", [])), None
    )
