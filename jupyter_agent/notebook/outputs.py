"""What cells put out: printed as it comes, journalled, and taken apart for results. Also: replayed, merged, written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import nbformat
from nbformat import NotebookNode

from jupyter_agent.errors import InvalidInput, Unavailable
from jupyter_agent.notebook.spec import read_notebook

RESULT_TYPE = "application/vnd.jupyter-agent+json"
"""``{"result": {name: value}}`` in a display of this type makes values of the run, in any kernel's language."""

RICH = ("image/png", "image/svg+xml", "image/jpeg", "text/html", "text/markdown", "text/latex", "application/json")


class Console:
    """What a person who looks at a terminal is to see of outputs."""

    def show(self, output: Mapping[str, Any]) -> None:
        """Print one output, at once; a reader that is gone is no reason to stop."""
        kind = output["output_type"]
        if kind == "stream":
            _print(output["text"], sys.stderr if output["name"] == "stderr" else sys.stdout)
        elif kind == "error":
            _print("\n".join(output["traceback"]) + "\n", sys.stderr)
        elif text := in_words(output.get("data", {})):
            _print(f"{text}\n", sys.stdout)


def _print(text: str, stream: TextIO) -> None:
    with contextlib.suppress(OSError):
        stream.buffer.write(text.encode("utf-8", "replace"))
        stream.flush()


def in_words(data: Mapping[str, Any]) -> str:
    """A display in plain text: its own text, else what kind of thing it is; nothing for bare results."""
    text = data.get("text/plain")
    if isinstance(text, list):
        text = "".join(text)
    if isinstance(text, str):
        return text.removesuffix("\n")
    return next((f"<{kind}>" for kind in RICH if kind in data), "")


def results(data: Mapping[str, Any]) -> dict[str, Any]:
    """The named values in a display. Raises ``InvalidInput`` for a display of our type that has another shape."""
    if RESULT_TYPE not in data:
        return {}
    content = data[RESULT_TYPE]
    values = content.get("result", {}) if isinstance(content, Mapping) else None
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise InvalidInput(
            f'A display of {RESULT_TYPE} is not of the form {{"result": {{name: value}}}}: it was left out.'
        )
    return dict(values)


def replay(notebook: NotebookNode, event: Mapping[str, Any]) -> None:
    """Do to a notebook what an event of the journal tells that was done; events of other kinds tell nothing."""
    match event:
        case {"event": "cell", "cell": index, "count": count}:
            notebook.cells[index].execution_count = count
        case {"event": "output", "cell": index, "output": output}:
            found = nbformat.from_dict(output)
            found.transient = event.get("display_id")
            notebook.cells[index].outputs.append(found)
        case {"event": "cleared", "cell": index}:
            notebook.cells[index].outputs = []
        case {"event": "updated", "display_id": display_id, "data": data, "metadata": metadata}:
            for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
                if output.get("transient") == display_id:
                    output.data, output.metadata = nbformat.from_dict(data), nbformat.from_dict(metadata)


def merged(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """The outputs with neighbouring pieces of one stream put together, as a notebook's editor does."""
    found: list[NotebookNode] = []
    pieces: list[list[str]] = []
    for output in outputs:
        output.pop("transient", None)
        if output.output_type != "stream":
            found.append(output)
            pieces.append([])
        elif found and found[-1].output_type == "stream" and found[-1].name == output.name:
            pieces[-1].append(output.text)
        else:
            found.append(output)
            pieces.append([output.text])
    for output, texts in zip(found, pieces, strict=True):
        if output.output_type == "stream":
            output.text = overwritten("".join(texts))
    return found


def overwritten(text: str) -> str:
    """Text as a terminal leaves it: what stands before a carriage return in a line is written over."""
    return re.sub(r"[^\n]*\r(?!\n|$)", "", text) if "\r" in text else text


def load(path: Path, *, language: str = "") -> NotebookNode:
    """The notebook in the newest form, without outputs of earlier runs. Raises ``InvalidInput`` or ``NotFound``."""
    content = read_notebook(path, language=language)
    try:
        notebook: NotebookNode = nbformat.reads(json.dumps(content), as_version=4, capture_validation_error={})
        _make_sound(notebook)
    except Exception as error:  # there is nothing that nbformat does not raise on JSON that is no notebook
        reason = (str(error) or type(error).__name__).split("\n", 1)[0]
        raise InvalidInput(
            f"{path.name} is not a valid notebook ({reason}): open it in Jupyter and save it."
        ) from error
    return notebook


def _make_sound(notebook: NotebookNode) -> None:
    """See to it that all is of the kind that its readers expect, and outputs of earlier runs are gone.

    Raises ``TypeError`` for what is no notebook at all.
    """
    shapes = (notebook.metadata, dict), (notebook.cells, list), (notebook.nbformat_minor, int)
    if not all(isinstance(value, kind) for value, kind in shapes):
        raise TypeError("it has no metadata or cells")
    for cell in notebook.cells:
        if not isinstance(cell.source, str) or not isinstance(cell.cell_type, str):
            raise TypeError("a cell has no source")
        if not isinstance(cell.get("metadata"), dict):
            cell.metadata = NotebookNode()
        tags = cell.metadata.get("tags")
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            cell.metadata.pop("tags", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def save(notebook: NotebookNode, path: Path) -> None:
    """Write the notebook atomically and durably. Raises ``Unavailable`` when the disk does not take it."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
    text = nbformat.writes(notebook, version=4, capture_validation_error={})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            file.write(text.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise Unavailable(f"The output notebook could not be written: {error.strerror}.") from error
