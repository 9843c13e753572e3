"""What conda is configured to on this machine, as far as it says how channels are reached.

The places and their order are those of conda's own documentation ("Using the .condarc conda configuration file"):
later ones over earlier, maps key by key, the items of later lists before those of earlier. Values may name variables
of the environment (``${TOKEN}``). conda itself need not be there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_agent.environments.reading import load_yaml, read_text
from jupyter_agent.errors import InvalidInput

MOST_BYTES = 1_000_000
ALIAS = "https://conda.anaconda.org"
DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
DEFAULTS_OF_WINDOWS = (*DEFAULTS, "https://repo.anaconda.com/pkgs/msys2")
NAMES = (".condarc", "condarc", "condarc.d")
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

LISTS = (
    "channels",
    "default_channels",
    "channel_settings",
    "allowlist_channels",
    "whitelist_channels",
    "denylist_channels",
    "envs_dirs",
)
MAPS = ("custom_channels", "custom_multichannels", "proxy_servers")
WORDS = ("channel_alias", "ssl_verify", "offline", "client_ssl_cert")
FROM_ENVIRONMENT = ("channel_alias", "ssl_verify", "offline", "channels", "default_channels")
"""Of all that conda reads as ``CONDA_<NAME>``, what one sets so."""


@dataclass(frozen=True)
class Condarc:
    """conda's settings. ``files`` are those that were read; ``certificates`` a file or folder, or ``None``.

    ``channels`` are for what names none, ``default_channels`` what the name ``defaults`` stands for.

    Their texts may hold credentials: none is shown by ``repr``.
    """

    files: tuple[Path, ...] = ()
    alias: str = field(default=ALIAS, repr=False)
    channels: tuple[str, ...] = field(default=(), repr=False)
    default_channels: tuple[str, ...] = field(default=DEFAULTS, repr=False)
    custom_channels: Mapping[str, str] = field(default_factory=dict, repr=False)
    multichannels: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    channel_settings: tuple[Mapping[str, str], ...] = field(default=(), repr=False)
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool = True
    certificates: Path | None = None
    offline: bool = False
    allowed: tuple[str, ...] = field(default=(), repr=False)
    denied: tuple[str, ...] = field(default=(), repr=False)
    client_certificate: bool = False
    envs: tuple[str, ...] = ()


def places(environ: Mapping[str, str]) -> list[Path]:
    """The files and folders in which conda looks, in its order."""
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or Path.home())
    system = [Path("C:/ProgramData/conda")] if sys.platform == "win32" else [Path("/etc/conda"), Path("/var/lib/conda")]
    folders = [*system, *_root(environ), Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "conda"]
    folders += [home / ".config" / "conda", home / ".conda"]
    found = [folder / name for folder in folders for name in NAMES]
    found.append(home / ".condarc")
    if environ.get("CONDA_PREFIX"):
        found += [Path(environ["CONDA_PREFIX"]) / name for name in NAMES]
    if environ.get("CONDARC"):
        found.append(Path(environ["CONDARC"]).expanduser())
    return list(dict.fromkeys(found))


def files(environ: Mapping[str, str]) -> list[Path]:
    """The files that are there and may be read, in conda's order."""
    return [file for place in places(environ) for file in _files(place)]


def read(environ: Mapping[str, str]) -> Condarc:
    """All of it. Raises ``InvalidInput`` with a sentence that names the file which cannot be used."""
    merged: dict[str, Any] = {}
    found = files(environ)
    for file in found:
        _merge(merged, _settings(file, environ))
    for name in FROM_ENVIRONMENT:
        if value := environ.get(f"CONDA_{name.upper()}", "").strip():
            merged[name] = [part.strip() for part in value.split(",")] if name in LISTS else value
    return _condarc(merged, tuple(found))


def _root(environ: Mapping[str, str]) -> list[Path]:
    if environ.get("CONDA_ROOT"):
        return [Path(environ["CONDA_ROOT"])]
    conda = Path(environ.get("CONDA_EXE") or "")
    return [conda.parent.parent] if len(conda.parts) > 2 else []  # noqa: PLR2004 - root/bin/conda


def _files(place: Path) -> Iterator[Path]:
    """The file, or those of a folder that conda reads; what one may not read is passed over as conda does."""
    try:
        if place.name != "condarc.d":
            found = [place] if place.is_file() else []
        else:
            found = (
                sorted(file for file in place.iterdir() if file.suffix in (".yml", ".yaml")) if place.is_dir() else []
            )
    except OSError:
        return
    yield from (file for file in found if os.access(file, os.R_OK))


def _settings(file: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """What a file says, its values of the types that they are to have."""
    try:
        value = load_yaml(read_text(file, most_bytes=MOST_BYTES), str(file), duplicates=True)
    except InvalidInput as error:
        said = str(error)
        raise InvalidInput(said if str(file) in said else f"{file}: {said}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{file} is no configuration of conda: it has to hold `name: value` lines.")
    expanded = _expanded(value, environ)
    return {
        name: _checked(file, name, expanded[name]) for name in (*LISTS, *MAPS, *WORDS) if expanded.get(name) is not None
    }


def _checked(file: Path, name: str, value: Any) -> Any:
    if name in LISTS:
        value = [value] if isinstance(value, str) else value
        wanted: type = list
    else:
        wanted = dict if name in MAPS else object
    if not isinstance(value, wanted) or (name in WORDS and isinstance(value, list | dict)):
        shape = "a list" if name in LISTS else "`name: value` lines" if name in MAPS else "one value"
        raise InvalidInput(f"{file}: `{name}` has to be {shape}.")
    return value


def _expanded(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return expanded(value, environ)
    if isinstance(value, list):
        return [_expanded(item, environ) for item in value]
    if isinstance(value, dict):
        return {str(name): _expanded(item, environ) for name, item in value.items()}
    return value


def expanded(text: str, environ: Mapping[str, str]) -> str:
    """The text with ``$NAME`` and ``${NAME}`` replaced where the environment has such a variable."""
    return VARIABLE.sub(lambda found: environ.get(found[1] or found[2], found[0]), text)


def _merge(merged: dict[str, Any], later: Mapping[str, Any]) -> None:
    for name, value in later.items():
        if name in LISTS:
            merged[name] = [*value, *(item for item in merged.get(name, []) if item not in value)]
        elif name in MAPS:
            merged[name] = {**merged.get(name, {}), **value}
        else:
            merged[name] = value


def _condarc(merged: Mapping[str, Any], files: tuple[Path, ...]) -> Condarc:
    verify, certificates = _verify(merged.get("ssl_verify", True))
    defaults = DEFAULTS_OF_WINDOWS if sys.platform == "win32" else DEFAULTS
    return Condarc(
        files=files,
        alias=str(merged.get("channel_alias", ALIAS)).rstrip("/"),
        channels=_words(merged.get("channels")),
        default_channels=_words(merged.get("default_channels")) or defaults,
        custom_channels={name: str(value) for name, value in merged.get("custom_channels", {}).items() if value},
        multichannels={name: _words(value) for name, value in merged.get("custom_multichannels", {}).items()},
        channel_settings=tuple(
            {str(name): str(value) for name, value in entry.items()}
            for entry in merged.get("channel_settings", [])
            if isinstance(entry, dict)
        ),
        proxies={name: str(value) for name, value in merged.get("proxy_servers", {}).items() if value},
        verify=verify,
        certificates=certificates,
        offline=str(merged.get("offline", False)).lower() in YES,
        allowed=_words([*merged.get("allowlist_channels", []), *merged.get("whitelist_channels", [])]),
        denied=_words(merged.get("denylist_channels")),
        client_certificate=bool(merged.get("client_ssl_cert")),
        envs=_words(merged.get("envs_dirs")),
    )


def _verify(value: Any) -> tuple[bool, Path | None]:
    """Whether certificates are verified, and against which file; ``truststore`` is the system's own, as always."""
    word = str(value).strip()
    if word.lower() in NO:
        return False, None
    if word.lower() in (*YES, "truststore", ""):
        return True, None
    return True, Path(word).expanduser()


def _words(value: Any) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(item.strip() for item in listed if isinstance(item, str) and item.strip())
