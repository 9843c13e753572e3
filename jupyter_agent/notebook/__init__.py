"""Notebooks executed in a child process of our installation, their kernels in an environment of their own.

``python -m jupyter_agent.notebook SPEC`` executes one, ``.recover`` makes the output notebook of a child that was
killed, ``.html`` a page. Here are only the words that the parent shares with the child; nothing heavy is imported.
"""

from __future__ import annotations

from jupyter_agent.notebook.spec import KernelSpec, Spec, check_parameters, read_notebook

__all__ = ["KernelSpec", "Spec", "check_parameters", "read_notebook"]
