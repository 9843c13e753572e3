"""An OpenFlow agent for data scientists, inside the Jupyter server."""

from __future__ import annotations

__version__ = "0.1.0"


def _jupyter_server_extension_points() -> list[dict[str, object]]:
    """Tell Jupyter Server where the extension is (its documented entry point)."""
    from jupyter_agent.server.app import JupyterAgent  # noqa: PLC0415 - importing the package costs nothing

    return [{"module": "jupyter_agent.server", "app": JupyterAgent}]
