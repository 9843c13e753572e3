"""Settings in Jupyter's configuration folders: what was set, also for programs that do not make an agent of it."""

from __future__ import annotations

from pathlib import Path

from jupyter_core.paths import jupyter_config_path
from traitlets.config import Config
from traitlets.config.loader import ConfigFileNotFound, JSONFileConfigLoader, PyFileConfigLoader

from jupyter_agent.errors import InvalidInput


def load_config() -> Config:
    """``jupyter_agent_config.py`` and ``.json`` of Jupyter's configuration folders, the user's own last.

    Raises ``InvalidInput`` for one that cannot be read.
    """
    config = Config()
    for folder in reversed(jupyter_config_path()):
        for loader in (JSONFileConfigLoader, PyFileConfigLoader):
            suffix = ".json" if loader is JSONFileConfigLoader else ".py"
            try:
                config.merge(loader(f"jupyter_agent_config{suffix}", path=folder).load_config())
            except ConfigFileNotFound:
                continue
            except Exception as error:
                raise InvalidInput(f"{folder}/jupyter_agent_config{suffix} cannot be read: {error!r}.") from error
    return config


def ca_file_of(config: Config) -> Path | None:
    """The file that ``Agent.ca_file`` names, ``None`` for none. Raises ``InvalidInput`` for what is no path."""
    given = config.Agent.get("ca_file", "") if "Agent" in config else ""
    if not isinstance(given, str):
        raise InvalidInput(f"c.Agent.ca_file should be the path of a file, not {given!r}.")
    return Path(given).expanduser() if given else None
