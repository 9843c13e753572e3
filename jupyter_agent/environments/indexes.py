"""pip's settings for uv: whoever told pip where packages come from need not say it again.

uv reads its own configuration files and ``UV_*`` only. Values go into a child's environment, never into an argument or
a log: an index's address may hold a password. Names and places are those of pip's documentation (topic Configuration).
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}
"""pip's option -> the variable that tells uv the same."""

OLDER_NAMES = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
"""Variables that uv takes as well; where one is set, pip's settings do not count."""

SECTIONS = ("global", "install")
"""Sections of pip's files that count for ``pip install``, the stronger last."""


def uv_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to ``environment`` so that uv finds packages where pip does; what uv was told itself stays."""
    settings = pip_settings(environment)
    variables = {
        variable: _without_missing(option, " ".join(settings[option].split()))
        for option, variable in UV_NAMES.items()
        if settings.get(option) and variable not in environment and OLDER_NAMES.get(variable) not in environment
    }
    if variables.get("UV_INDEX"):
        # pip takes the best version of all its indexes; whoever named several for it trusts them alike.
        variables.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return variables


def pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Pip's options by their long names, of its files and ``PIP_*``."""
    settings: dict[str, str] = {}
    for file in _files(environment):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip would refuse to work at all; uv can go on without it
        for section in SECTIONS:
            if parser.has_section(section):
                settings |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    for option in UV_NAMES:
        if value := environment.get(f"PIP_{option.upper().replace('-', '_')}"):
            settings[option] = value
    return settings


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Pip's configuration files, the stronger last."""
    own = environment.get("PIP_CONFIG_FILE")
    if own == os.devnull:
        return
    home = Path(environment.get("HOME") or Path.home())
    for folder in reversed((environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)):
        yield Path(folder) / "pip" / "pip.conf"
    yield Path("/etc/pip.conf")
    yield home / ".pip" / "pip.conf"
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    yield Path(sys.prefix) / "pip.conf"
    if own:
        yield Path(own)


def _without_missing(option: str, value: str) -> str:
    """Without folders that are not there: pip passes over them, uv fails."""
    if option not in ("find-links", "extra-index-url"):
        return value
    return " ".join(part for part in value.split() if _is_there(part))


def _is_there(place: str) -> bool:
    if place.startswith("file://"):
        return Path(place.removeprefix("file://")).exists()
    return "://" in place or Path(place).exists()
