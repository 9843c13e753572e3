"""Credentials in URLs: taken out before a URL stands in a lock, a log or an error, and given to rattler apart.

rattler's file of credentials knows hosts only: the name (no port, no path) and what is sent to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_plus, urlsplit, urlunsplit

from jupyter_agent.environments.indexes import without_credentials
from jupyter_agent.errors import InvalidInput
from jupyter_agent.home import write_private

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = re.compile(r"/t/([^/]+)(?=/|$)")


@dataclass(frozen=True)
class Secret:
    """What is sent to a ``host``, in the words of rattler's file; ``private``: the URL that has the token in it."""

    host: str
    words: Mapping[str, Any] = field(repr=False)
    private: str = field(default="", repr=False)


def parted(url: str) -> tuple[str, Secret | None]:
    """A URL without its credentials, and these.

    A token after the host (``/t/TOKEN/channel``) is what rattler sends by itself; one deeper in the path is kept in
    the private URL, which then stands in for the public one.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise InvalidInput(f"{hidden(url)} is no channel's URL ({error}).") from None
    secret: Secret | None = None
    userinfo, at, netloc = parts.netloc.rpartition("@")
    public = parts._replace(netloc=netloc)
    if at:
        user, _, password = userinfo.partition(":")
        secret = Secret(host, {"BasicHTTP": {"username": unquote(user), "password": unquote(password)}})
    if found := TOKEN.search(public.path):
        private = urlunsplit(public)
        public = public._replace(path=TOKEN.sub("", public.path, count=1))
        at_start = found.start() == 0
        secret = Secret(host, {"CondaToken": unquote(found[1])} if at_start else {}, "" if at_start else private)
    return urlunsplit(public), secret


def hidden(text: str) -> str:
    """The text with the credentials of its URLs made unreadable."""
    return without_credentials(text)


def known(file: Path) -> dict[str, Any]:
    """What a file in rattler's form holds; nothing when there is none. Raises ``InvalidInput`` for a broken one."""
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise InvalidInput(f"The credentials in {file} cannot be read ({said}): mend the file, or remove it.") from None
    if not isinstance(plain, dict):
        raise InvalidInput(f"The credentials in {file} cannot be read: it has to hold one JSON object of hosts.")
    return plain


def anaconda_tokens(environ: Mapping[str, str]) -> dict[str, Any]:
    """Tokens that `anaconda login` and `conda token set` have left, by host, in the form of rattler's file.

    A file is named by the URL that it is for (quoted), as conda's own ``add_anaconda_token`` reads them.
    """
    home = Path(environ.get("HOME") or Path.home())
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    folders = [data / "binstar", home / "Library" / "Application Support" / "binstar"]
    folders.append(home / ".continuum" / "anaconda-client" / "tokens")
    if environ.get("BINSTAR_CONFIG_DIR"):
        folders = [Path(environ["BINSTAR_CONFIG_DIR"]) / "data"]
    tokens: dict[str, Any] = {}
    for file in (file for folder in folders for file in sorted(folder.glob("*.token"))):
        host = urlsplit(unquote_plus(file.name.removesuffix(".token"))).hostname or ""
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError):
            continue
        for name in {host, re.sub(r"(^|\.)api(?=\.)", r"\1conda", host, count=1)} if token and host else ():
            tokens[name] = {"CondaToken": token}
    return tokens


@contextmanager
def written(words: Mapping[str, Any]) -> Iterator[Path]:
    """A file with credentials for rattler, for this user alone, gone at the end; rattler reads it at once."""
    with tempfile.TemporaryDirectory(prefix="jupyter-agent-") as folder:
        file = Path(folder) / "credentials.json"
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a handle, of a file for its user alone
            json.dump(dict(words), stream)
        yield file


def keep_index(url: str, folder: Path) -> None:
    """Keep an index's URL when it has credentials, forget them when it has none any more."""
    public, secret = parted(url)
    file = folder / "indexes" / f"{hashlib.sha256(public.encode()).hexdigest()}.json"
    if secret is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(file, json.dumps(url))


def kept_indexes(folder: Path) -> Iterator[str]:
    """The URLs of the indexes that were kept, with their credentials."""
    for file in sorted((folder / "indexes").glob("*.json")):
        with suppress(OSError, ValueError):
            yield str(json.loads(file.read_text(encoding="utf-8")))
