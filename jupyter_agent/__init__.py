"""An OpenFlow agent for data scientists, inside the Jupyter server."""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"


def _jupyter_server_extension_points() -> list[dict[str, object]]:
    """Tell Jupyter Server where the extension is (its documented entry point).

    The gate is loaded by name: importing this package for its version costs nothing, and leads to no layer.
    """
    return [{"module": "jupyter_agent.server", "app": import_module("jupyter_agent.server.app").JupyterAgent}]
