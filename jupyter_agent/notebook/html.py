"""``python -m jupyter_agent.notebook.html NOTEBOOK HTML``: a notebook as one page.

The page fetches nothing: plots, tables and styles are in it, formulas stay as they were typed, widgets are their text.
"""

from __future__ import annotations

import sys

# As in ``__main__``.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import argparse  # noqa: E402 - behind the line above
import logging  # noqa: E402
import re  # noqa: E402
import warnings  # noqa: E402
from pathlib import Path  # noqa: E402

import nbformat  # noqa: E402
from jinja2 import TemplateError  # noqa: E402
from nbconvert import HTMLExporter  # noqa: E402

from jupyter_agent.errors import AgentError, Failed  # noqa: E402
from jupyter_agent.notebook.spec import complain, read_notebook  # noqa: E402

TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
"""
"""nbconvert's page without the blocks that fetch from the net."""


def convert(notebook: Path, page: Path) -> None:
    """Write ``page``. Raises ``NotFound`` or ``InvalidInput`` for the notebook, ``Failed`` for the conversion."""
    read_notebook(notebook)
    exporter = HTMLExporter(raw_template=TEMPLATE, exclude_anchor_links=True)
    try:
        found = nbformat.read(notebook, as_version=4)
        body, _ = exporter.from_notebook_node(found, {"metadata": {"name": title(found) or notebook.stem}})
        page.write_text(body, encoding="utf-8", errors="replace")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, TemplateError) as error:
        raise Failed(f"{notebook.name} could not be made a page: {error}.") from error


def title(notebook: nbformat.NotebookNode) -> str:
    """The first heading of the notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^#\s+(.+)$", cell.source, re.MULTILINE)):
            return found.group(1).strip()
    return ""


def main(arguments: list[str]) -> int:
    """Convert; the two arguments are files."""
    parser = argparse.ArgumentParser("python -m jupyter_agent.notebook.html", description="Make a page of a notebook.")
    for name in ("notebook", "html"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # of libraries, about notebooks in older forms
    logging.disable(logging.WARNING)  # nbconvert's advice on accessibility
    try:
        convert(given.notebook, given.html)
    except AgentError as error:
        complain(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
