"""Where packages come from: what pip is configured to, said to uv, which reads none of pip's configuration.

Credentials in URLs stay in the environment of uv's process; they are in no argument and in no line of output.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

SECTIONS = ("global", "install")

CREDENTIALS = re.compile(r"(?<=://)([^/?#\s]*@|(?!\[)[^/?#\s@:]*:[0-9]*[^0-9/?#\s@:.,;'\")\]}][^/?#\s@]*)")
"""What stands before the host in a URL, up to the last ``@``; or a password alone, of a URL that was cut."""

TOKEN = re.compile(r"(?<=/t/)[^/\s'\"]+")
"""conda's, in a path."""

NOT_OURS = ("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_BREAK_SYSTEM_PACKAGES", "UV_WORKING_DIR", "UV_PROJECT", "UV_NO_CACHE")
"""Settings of uv that speak of another environment or work against ours; so do the prefixes below."""

NOT_OURS_EITHER = ("UV_VENV_", "UV_NO_VERIFY", "UV_REQUIRE_HASHES", "UV_PYTHON_")


KEPT = "JUPYTER_AGENT_KEPT_INDEXES"
"""Variable for ``Uv`` alone: indexes with credentials, at which locked files may lie; not asked what they have."""


def uv_environment(environ: Mapping[str, str], *, cache: Path, pip_files: list[Path] | None = None) -> dict[str, str]:
    """The environment for uv: ``environ``, pip's settings where uv has none of its own, and what we require.

    ``pip_files`` are pip's configuration files, later ones first heard; ``None`` for those of this system.
    """
    chosen = {
        name: value
        for name, value in environ.items()
        if name not in (*NOT_OURS, KEPT) and not name.startswith((*NOT_OURS_EITHER, "PIP_"))
    }
    settings = pip_settings(environ, pip_config_files(environ) if pip_files is None else pip_files)
    translated = _translated(settings)
    for older, newer in (("UV_EXTRA_INDEX_URL", "UV_INDEX"), ("UV_INDEX_URL", "UV_DEFAULT_INDEX")):
        if older in environ or newer in environ:
            translated.pop(newer, None)
    if "UV_INDEX" in translated:  # pip takes the best version of all indexes, uv that of the first that has any
        translated["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    own = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
    certificates = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    return {"UV_CACHE_DIR": str(cache), **certificates, **translated, **chosen, **own}


PYPI = "https://pypi.org/simple"


def public_first(uv: Mapping[str, str]) -> dict[str, str]:
    """The same environment for uv, but folders of this machine are asked after all others: for what is to be shared.

    Of a version that several indexes have uv takes the first one's, with its URL. Where the order was chosen, because
    the first index that has a package is the only one to be trusted with it, it stays.
    """
    given = [*uv.get("UV_INDEX", "").split(), uv.get("UV_DEFAULT_INDEX") or PYPI]
    if uv.get("UV_INDEX_STRATEGY") != "unsafe-best-match" or "UV_EXTRA_INDEX_URL" in uv or "UV_INDEX_URL" in uv:
        return dict(uv)
    ordered = sorted(given, key=lambda index: index.startswith(("file:", "/", ".")))
    return {**uv, "UV_INDEX": " ".join(ordered[:-1]), "UV_DEFAULT_INDEX": ordered[-1]}


def knowing_kept(uv: Mapping[str, str], kept: str) -> dict[str, str]:
    """The same environment for uv, with the kept indexes beside its own: it uses their credentials by host."""
    return {**uv, "UV_INDEX": f"{uv.get('UV_INDEX', '')} {kept}".strip()} if kept else dict(uv)


def uv_arguments(environ: Mapping[str, str], *, pip_files: list[Path] | None = None) -> list[str]:
    """What uv takes as an argument alone."""
    settings = pip_settings(environ, pip_config_files(environ) if pip_files is None else pip_files)
    return ["--no-index"] if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else []


def pip_settings(environ: Mapping[str, str], files: list[Path]) -> dict[str, str]:
    """Pip's settings by their long names: of its files, the later over the earlier, and its variables over both."""
    settings: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        with contextlib.suppress(configparser.Error, OSError, UnicodeError):  # pip itself would complain
            parser.read(file, encoding="utf-8")
        for section in SECTIONS:
            if parser.has_section(section):
                settings.update({name.replace("_", "-"): value for name, value in parser.items(section)})
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            settings[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return settings


def pip_config_files(environ: Mapping[str, str]) -> list[Path]:
    """Pip's configuration files in the order in which pip reads them."""
    given = environ.get("PIP_CONFIG_FILE")
    if given == os.devnull:
        return []
    home = Path(environ.get("HOME") or Path.home())
    own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    shared = [Path(place) for place in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep) if place]
    found = [
        *(place / "pip" / "pip.conf" for place in shared),
        Path("/etc/pip.conf"),
        *([Path("/Library/Application Support/pip/pip.conf")] if sys.platform == "darwin" else []),
        home / ".pip" / "pip.conf",
        *([home / "Library/Application Support/pip/pip.conf"] if sys.platform == "darwin" else []),
        own / "pip" / "pip.conf",
        Path(sys.prefix) / "pip.conf",
    ]
    return [*found, Path(given)] if given else found


def _is_there(place: str) -> bool:
    """Whether it is no folder that is missing: pip passes over those, uv would fail."""
    path = place.removeprefix("file://")
    return not path.startswith("/") or Path(path).exists()


def without_credentials(text: str) -> str:
    """The text with the credentials of its URLs made unreadable: what stands before the host, conda's tokens."""
    return TOKEN.sub("***", CREDENTIALS.sub("***@", text))


def _translated(settings: Mapping[str, str]) -> dict[str, str]:
    """Pip's settings as uv's variables."""
    words = {name: [word for word in value.split() if _is_there(word)] for name, value in settings.items()}
    found = {
        "UV_DEFAULT_INDEX": " ".join(words.get("index-url", [])[:1]),
        "UV_INDEX": " ".join(words.get("extra-index-url", [])),
        "UV_FIND_LINKS": ",".join(words.get("find-links", [])),
        "UV_INSECURE_HOST": " ".join(words.get("trusted-host", [])),
        "UV_HTTP_TIMEOUT": "".join(words.get("timeout", words.get("default-timeout", []))[:1]),
        "SSL_CERT_FILE": settings.get("cert", "").strip(),
        **dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), settings.get("proxy", "").strip()),
    }
    return {name: value for name, value in found.items() if value}
