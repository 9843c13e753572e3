"""Names of channels, as files write them, to URLs, as conda's settings say."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from jupyter_agent.environments.access.condarc import Condarc, expanded
from jupyter_agent.environments.access.credentials import hidden
from jupyter_agent.errors import AccessDenied, InvalidInput

SCHEMES = ("http", "https", "file", "s3", "oci", "gcs")
NAME = re.compile(r"[\w.+@%~-]+(?:/[\w.+@%~-]+)*")
SUBDIR = re.compile(r"/(?:noarch|(?:linux|osx|win|freebsd|emscripten|wasi|zos)-[a-z0-9_]+)$")
DEEPEST = 5
"""Multichannels may name one another."""


def urls(names: Sequence[str], condarc: Condarc, environ: Mapping[str, str]) -> list[str]:
    """The URLs of channels in their order, each once, with what credentials stand in them.

    Raises ``InvalidInput`` for what can be no channel, ``AccessDenied`` for one that conda's settings forbid.
    """
    found: dict[str, None] = {}
    for name in names:
        for url in _urls(expanded(name.strip(), environ), condarc, 0):
            _allow(url, name, condarc)
            found[url] = None
    return list(found)


def _urls(name: str, condarc: Condarc, depth: int) -> list[str]:
    if depth > DEEPEST:
        raise InvalidInput(f"The channel {hidden(name)} of custom_multichannels names itself: correct it in .condarc.")
    if "://" in name:
        return [_url(name)]
    if name.startswith(("/", "~")) or re.match(r"[A-Za-z]:[\\/]", name):
        return [_without_subdir(Path(name).expanduser().as_uri())]
    if name.startswith("."):
        raise InvalidInput(f"The channel {name} is a relative path: give the whole path, or its file:// URL.")
    if not NAME.fullmatch(name) or name in ("nodefaults", "."):
        raise InvalidInput(f"{hidden(name)[:200]!r} is no channel: give a name such as conda-forge, a URL, or a path.")
    several = condarc.multichannels.get(name) or (condarc.default_channels if name == "defaults" else ())
    if several:
        return [url for one in several for url in _urls(one, condarc, depth + 1)]
    return [_url(_located(name, condarc))]


def _located(name: str, condarc: Condarc) -> str:
    """The URL of a name: below the custom channel that its first parts name, else below the alias."""
    parts = name.split("/")
    for count in range(len(parts), 0, -1):
        base = condarc.custom_channels.get("/".join(parts[:count]))
        if base:
            base = base if "://" in base else Path(base).expanduser().absolute().as_uri()
            return f"{base.rstrip('/')}/{name}"
    alias = condarc.alias if "://" in condarc.alias else f"https://{condarc.alias}"
    return f"{alias}/{name}"


def _url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme == "file":
        text = f"file://{quote(unquote(rest))}"
    if scheme not in SCHEMES or re.search(r"[\s\x00-\x1f]", text):
        raise InvalidInput(
            f"{hidden(text)[:200]!r} is no channel: its URL has to begin with {', '.join(SCHEMES[:3])} ..."
        )
    return _without_subdir(text.rstrip("/"))


def _without_subdir(url: str) -> str:
    return SUBDIR.sub("", url.rstrip("/"))


def _allow(url: str, name: str, condarc: Condarc) -> None:
    """Hold a channel against the lists that a site may have set up."""
    known_as = {url, name}
    lists = {kind: _meant(getattr(condarc, kind), condarc) for kind in ("allowed", "denied")}
    if condarc.denied and _matches(known_as, lists["denied"]):
        raise AccessDenied(f"The channel {hidden(name)} is in denylist_channels of conda's configuration.")
    if condarc.allowed and not _matches(known_as, lists["allowed"]):
        raise AccessDenied(f"The channel {hidden(name)} is not in allowlist_channels of conda's configuration.")


def _meant(names: Sequence[str], condarc: Condarc) -> list[str]:
    patterns = [name.rstrip("/") for name in names]
    return [*patterns, *(url for name in patterns if NAME.fullmatch(name) for url in _urls(name, condarc, 0))]


def _matches(known_as: set[str], patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(one, pattern) for one in known_as for pattern in patterns)
