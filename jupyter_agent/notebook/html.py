"""``python -m jupyter_agent.notebook.html NOTEBOOK PAGE``: a notebook as one HTML page that needs no other file."""

from __future__ import annotations

import sys

# As in ``__main__``.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import warnings  # noqa: E402 - behind the line above
from pathlib import Path  # noqa: E402

from nbconvert import HTMLExporter  # noqa: E402


def render(notebook: Path) -> str:
    """The page. Images are inside; nothing is fetched but MathJax, and that only where the notebook has formulas."""
    exporter = HTMLExporter(embed_images=True, require_js_url="", mermaid_js_url="")
    body, _ = exporter.from_filename(str(notebook))
    return str(body)


def main(arguments: list[str]) -> int:
    """Convert; the two arguments are files."""
    if len(arguments) != 2:  # noqa: PLR2004 - as the usage says
        print("usage: python -m jupyter_agent.notebook.html NOTEBOOK PAGE", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")  # of libraries, about notebooks in older forms
    notebook, page = map(Path, arguments)
    page.write_text(render(notebook), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
