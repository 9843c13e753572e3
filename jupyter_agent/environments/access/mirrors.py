"""What rattler and pixi are configured to: mirrors, proxies, certificates, a file of credentials.

The places are rattler's own for pixi, from the least to the most: /etc/rattler, /etc/pixi, ~/.config/rattler,
~/.config/pixi, ~/.pixi, each ``config.toml``. Read here too, not by rattler alone: whether a channel answers is asked
where its mirror is, and by processes that do not load rattler.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_agent.environments.reading import read_text
from jupyter_agent.errors import InvalidInput

MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Mirrors:
    """``mirrors``: by the beginning of a URL, what stands in for it, the first that works first."""

    files: tuple[Path, ...] = ()
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_proxy: tuple[str, ...] = ()
    verify: bool = True
    credentials: Path | None = None
    s3: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def places(environ: Mapping[str, str]) -> list[Path]:
    """The files, the least first."""
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or Path.home())
    if sys.platform == "darwin":
        own = home / "Library" / "Application Support"
    elif sys.platform == "win32":
        own = Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    else:
        own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    system = Path("C:/ProgramData") if sys.platform == "win32" else Path("/etc")
    pixi = Path(environ.get("PIXI_HOME") or home / ".pixi")
    folders = [system / "rattler", system / "pixi", own / "rattler", own / "pixi", pixi]
    return [folder / "config.toml" for folder in folders]


def read(environ: Mapping[str, str]) -> Mirrors:
    """All of it, the later over the earlier. Raises ``InvalidInput`` with a sentence that names the file."""
    found = Mirrors()
    for file in places(environ):
        if file.is_file():
            found = _adding(found, file, _settings(file))
    return found


def _settings(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(file, most_bytes=MOST_BYTES))
    except (tomllib.TOMLDecodeError, InvalidInput, RecursionError) as error:
        raise InvalidInput(f"{file} cannot be used: {error}") from error


def _adding(found: Mirrors, file: Path, settings: Mapping[str, Any]) -> Mirrors:
    proxy, mirrors = _table(settings, "proxy-config"), _table(settings, "mirrors")
    for url, places in mirrors.items():
        if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
            raise InvalidInput(f'{file}: the mirrors of "{url}" have to be a list of URLs.')
    credentials = settings.get("authentication-override-file")
    return Mirrors(
        files=(*found.files, file),
        mirrors={**found.mirrors, **{url: tuple(places) for url, places in mirrors.items() if places}},
        proxies={**found.proxies, **{name: str(proxy[name]) for name in ("http", "https") if proxy.get(name)}},
        no_proxy=tuple(map(str, proxy.get("non-proxy-hosts", found.no_proxy))),
        verify=found.verify if "tls-no-verify" not in settings else settings["tls-no-verify"] is not True,
        credentials=Path(str(credentials)).expanduser() if credentials else found.credentials,
        s3={
            **found.s3,
            **{name: value for name, value in _table(settings, "s3-options").items() if isinstance(value, dict)},
        },
    )


def _table(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = settings.get(name, {})
    return value if isinstance(value, dict) else {}
