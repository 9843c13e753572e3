"""Where packages come from: whether the indexes that are configured can be reached."""

from __future__ import annotations

import asyncio
import configparser
import http.client
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from jupyter_agent import __version__
from jupyter_agent.agent.doctor.findings import Case, Finding, ok, problem, warning
from jupyter_agent.environments.indexes import pip_config_files, pip_settings, without_credentials

ANSWER_S = 6
REFUSED = (401, 403, 407)
PYPI, NPM = "https://pypi.org/simple", "https://registry.npmjs.org"
PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


async def look(case: Case) -> list[Finding]:
    """All at once, each within a few seconds."""
    checks = (
        asyncio.to_thread(_reach, "Python packages", python_index(case.environ), "pip/", "pip's index-url"),
        asyncio.to_thread(_reach, "npm packages", npm_registry(case.environ), "-/ping", "npm's registry"),
        asyncio.to_thread(_proxy, case.environ),
    )
    return list(await asyncio.gather(*checks))


def python_index(environ: Mapping[str, str]) -> str:
    """The index that environments are made from."""
    given = next((environ[name] for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL") if environ.get(name)), "")
    return given or pip_settings(environ, pip_config_files(environ)).get("index-url", "").strip() or PYPI


def npm_registry(environ: Mapping[str, str]) -> str:
    """The registry that npm is configured to."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY", "NPM_REGISTRY"):
        if environ.get(name):
            return environ[name]
    file = Path(environ.get("NPM_CONFIG_USERCONFIG") or Path(environ.get("HOME") or Path.home()) / ".npmrc")
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(f"[npm]\n{file.read_text(encoding='utf-8')}")
        return parser.get("npm", "registry").strip("\"' ")
    except (OSError, UnicodeError, configparser.Error):
        return NPM


def _reach(name: str, index: str, path: str, setting: str) -> Finding:
    shown = without_credentials(index)
    if not index.startswith(("http://", "https://")):
        return ok(name, f"They come from {shown}.")
    request = urllib.request.Request(f"{index.rstrip('/')}/{path}", headers=_headers(index))  # noqa: S310 - http(s)
    if "@" in urlsplit(index).netloc:  # which urllib would take for a host; that it answers at all is enough
        parts = urlsplit(index)
        request.full_url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S):  # noqa: S310 - the same
            return ok(name, f"{shown} answers.")
    except HTTPError as error:
        return _answered(name, shown, error.code, setting)
    except URLError as error:
        reason = error.reason
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return problem(name, f"The certificate of {shown} is not trusted ({reason.verify_message}).",
                       "Have SSL_CERT_FILE name the file of its authority.")  # fmt: skip
    said = "no answer in time" if isinstance(reason, TimeoutError) else str(reason)
    return warning(name, f"{shown} cannot be reached ({said}): nothing new can be installed while offline.",
                   f"Mend the network, set HTTPS_PROXY, or change {setting}. What is installed goes on.")  # fmt: skip


def _headers(_index: str) -> dict[str, str]:
    return {"User-Agent": f"jupyter_agent/{__version__}", "Accept": "*/*"}


def _answered(name: str, shown: str, code: int, setting: str) -> Finding:
    if code in REFUSED:
        return warning(name, f"{shown} answers, but asks who you are (HTTP {code}).",
                       f"Check the credentials that go with {setting}.")  # fmt: skip
    if code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return warning(name, f"{shown} is in trouble (HTTP {code}).", "Try again later.")
    return ok(name, f"{shown} answers.")


def _proxy(environ: Mapping[str, str]) -> Finding:
    given = next(((name, environ[name]) for name in PROXIES if environ.get(name)), None)
    if given is None:
        return ok("proxy", "None is set.")
    name, value = given
    shown = without_credentials(value)
    parts = urlsplit(value if "://" in value else f"http://{value}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=ANSWER_S):
            return ok("proxy", f"{name} is {shown}, which takes connections.")
    except (OSError, ValueError) as error:
        return problem(
            "proxy", f"{name} is {shown}, which cannot be reached ({error}).", f"Correct {name}, or unset it."
        )
