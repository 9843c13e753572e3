"""A run's output notebook as a page, made when it is first asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jupyter_agent import processes
from jupyter_agent.errors import Failed, NotFound

TIMEOUT_S = 120


async def html_report(folder: Path, *, tag: str) -> Path:
    """``output.html`` beside ``output.ipynb`` in the run's folder; it is made in a process of its own.

    Raises ``NotFound`` when there is no notebook, ``Failed`` when it cannot be converted.
    """
    notebook, page = folder / "output.ipynb", folder / "output.html"
    if page.exists():
        return page
    if not notebook.exists():
        raise NotFound("This run has left no output notebook.")
    making = folder / f".output.{os.urandom(4).hex()}.html"
    command = processes.Command(
        (sys.executable, "-P", "-m", "jupyter_agent.notebook.html", str(notebook), str(making)),
        folder,
        processes.inherited_environment(),
    )
    done = await processes.run(command, tag=f"{tag}-report", on_line=None, timeout_s=TIMEOUT_S)
    if not done.exit.ok:
        making.unlink(missing_ok=True)
        raise Failed(f"The output notebook cannot be shown as a page: {done.output.strip().splitlines()[-1:]}")
    making.replace(page)
    return page
