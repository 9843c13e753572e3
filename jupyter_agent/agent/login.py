"""Signing in to an OpenFlow: getting a token, trying it out, and only then writing it down.

A token comes from a browser (protocol §1: a page is opened for a key that nobody can guess, and the token fetched for
it), for a user name and a password, or from the official agent's own file. It refuses to know how it is shown.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit

from jupyter_agent import __version__
from jupyter_agent.errors import AgentError, Conflict, Failed, InvalidInput, NotFound, TimedOut, Unavailable
from jupyter_agent.home import Home, read_json, sync, write_private
from jupyter_agent.openflow.address import address
from jupyter_agent.openflow.client import Client, Credentials, User
from jupyter_agent.openflow.rest import HEADERS, opener
from jupyter_agent.openflow.signin import lifetime
from jupyter_agent.openflow.transport import unreachable

POLL_S = 2.5
"""Between two questions whether somebody has signed in: what the official agent takes, too."""

PATIENCE_S = 15 * 60
"""For so long a server remembers the key."""

ANSWER_S = 20
FIRST_S, CONNECT_S = 1.5, 20
"""A reason why there is no connection is told after so long; a server that is only slow gets the second."""

MAX_ANSWER = 1 << 20
STAYING = timedelta(days=1)
"""A token that ends sooner is not made to stay with: a long one is asked for in its place."""

KEY_BYTES = 32
UNKNOWN_ROUTES = (404, 405)
LATER = (429, 502, 503, 504)


@dataclass(frozen=True)
class Token:
    """A token that was tried out: where, whose, and until when (``None``: it does not say)."""

    url: str
    jwt: str = field(repr=False)
    user: User
    ends: datetime | None = None
    agentid: str = ""


@dataclass(frozen=True)
class Adopted:
    """What the official agent's configuration holds."""

    url: str
    jwt: str = field(repr=False)
    agentid: str = ""


async def by_browser(
    url: str,
    *,
    ca_file: Path | None,
    show: Callable[[str, str], None],
    patience_s: float = PATIENCE_S,
    poll_s: float = POLL_S,
) -> str:
    """A token of whoever signs in in a browser; ``show(address, key)`` is told where, once the server waits for it.

    Raises ``TimedOut`` when nobody did within ``patience_s``, ``InvalidInput`` where the server knows no such way, and
    what else keeps it from being asked at all. A server that is away for a moment later on is waited for.
    """
    base, key = web_address(url), secrets.token_urlsafe(KEY_BYTES)
    await asyncio.to_thread(_ask, f"{base}/AddTokenRequest", ca_file, {"key": key})
    show(f"{base}/login?{urlencode({'key': key})}", key)
    reason: AgentError | None = None
    try:
        async with asyncio.timeout(patience_s):
            while True:
                await asyncio.sleep(poll_s)
                try:
                    found = await asyncio.to_thread(
                        _ask, f"{base}/GetTokenRequest?{urlencode({'key': key})}", ca_file, None
                    )
                except Unavailable as error:
                    reason = error
                    continue
                if isinstance(jwt := found.get("jwt"), str) and jwt:
                    return jwt
    except TimeoutError:
        said = f" ({reason})" if reason else ""
        raise TimedOut(f"Nobody signed in within {patience_s / 60:.0f} minutes{said}: try again.") from reason


async def by_password(url: str, username: str, password: str, *, ca_file: Path | None) -> str:
    """A long token for a user name and a password. Raises ``SignInFailed``, or why the server cannot be reached."""
    async with _client(url, Credentials(username=username, password=password), ca_file) as client:
        await _signed_in(client)
        return await client.mint_token(long=True)


def adopted(file: Path) -> Adopted:
    """What the official agent is signed in with; its file stays as it is. Raises ``NotFound``, ``InvalidInput``."""
    stored = read_json(file)
    if stored is None:
        raise NotFound(f"There is no {file}: the official agent of this user is not signed in anywhere.")
    url, jwt, agentid = (stored.get(name) for name in ("apiurl", "jwt", "agentid"))
    if not isinstance(url, str) or not url or not isinstance(jwt, str) or not jwt:
        raise InvalidInput(
            f"{file} holds no apiurl and jwt: sign in with the official agent first, or without --adopt."
        )
    return Adopted(url, jwt, agentid if isinstance(agentid, str) else "")


def same_server(one: str, other: str) -> bool:
    """Whether two addresses may be of one server: hosts are compared, without the ``grpc.`` of hosted ones."""
    return _host(one) == _host(other)


async def tried(url: str, jwt: str, *, ca_file: Path | None, stay: bool = True) -> Token:
    """The token once the server has taken it. With ``stay``, one that ends soon is changed for a long one.

    Raises ``SignInFailed``, or why the server cannot be reached.
    """
    async with _client(url, Credentials(jwt=jwt), ca_file) as client:
        user = await _signed_in(client)
        ends = _end_of(jwt)
        if stay and ends is not None and ends - datetime.now(UTC) < STAYING:
            jwt = await client.mint_token(long=True)
            ends = _end_of(jwt)
    return Token(address(url).url, jwt, user, ends)


def save(home: Home, token: Token) -> dict[str, Any]:
    """Write ``config.json``, which is there as a whole or as it was; what else stood in it stays. What was there."""
    home.prepare()
    stored = stored_config(home)
    same = isinstance(known := stored.get("apiurl"), str) and same_server(known, token.url)
    kept = {name: value for name, value in stored.items() if name not in ("apiurl", "jwt", "agentid")}
    agentid = token.agentid or (stored.get("agentid") if same else "")
    written = {"apiurl": token.url, "jwt": token.jwt, **({"agentid": agentid} if agentid else {}), **kept}
    write_private(home.config_file, json.dumps(written, indent=2) + "\n")
    return stored


def forget(home: Home) -> dict[str, Any] | None:
    """Remove ``config.json``; what was in it, ``None`` when there was none."""
    if not home.config_file.exists():
        return None
    stored = stored_config(home)
    home.config_file.unlink()
    sync(home.path)
    return stored


def stored_config(home: Home) -> dict[str, Any]:
    """What ``config.json`` holds; nothing of one that cannot be read."""
    try:
        return read_json(home.config_file) or {}
    except InvalidInput:
        return {}


def check_not_own_hub(home: Home, url: str) -> None:
    """Raise ``Conflict`` for the address of this home's own hub: nothing need be done to use that."""
    wanted = address(url)
    with_hub = stored_hub(home)
    ports = {urlsplit(str(with_hub.get(name, ""))).port for name in ("apiurl", "grpcapiurl") if with_hub.get(name)}
    if wanted.is_loopback and wanted.port in ports:
        raise Conflict(
            f"{url} is the embedded hub of this home itself, which is used where no other OpenFlow is configured: "
            "`jupyter-agent logout` goes back to it."
        )


def stored_hub(home: Home) -> dict[str, Any]:
    """What ``hub.json`` holds; nothing of one that cannot be read."""
    try:
        return read_json(home.hub / "hub.json") or {}
    except InvalidInput:
        return {}


def web_address(url: str) -> str:
    """Where the pages of an OpenFlow are. Raises ``InvalidInput`` for an address that does not tell."""
    known = address(url)
    host = known.host.removeprefix("grpc.")
    shown = f"[{host}]" if ":" in host else host
    if known.grpc:
        if not known.tls:
            raise InvalidInput(
                f"{url} does not say where the pages of OpenFlow are: give its ws address, or sign in with --username."
            )
        return f"https://{shown}"
    return f"{'https' if known.tls else 'http'}://{shown}{f':{known.port}' if known.port else ''}"


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").removeprefix("grpc.")


def _client(url: str, credentials: Credentials, ca_file: Path | None) -> Client:
    return Client(url, credentials, version=__version__, ca_file=ca_file, timeout_s=ANSWER_S)


async def _signed_in(client: Client) -> User:
    try:
        return await client.connected(FIRST_S)
    except TimedOut:
        return await client.connected(CONNECT_S)


def _end_of(jwt: str) -> datetime | None:
    known = lifetime(jwt)
    return known[1] if known else None


def _ask(url: str, ca_file: Path | None, body: dict[str, str] | None) -> dict[str, Any]:
    """One request of the way by the browser; blocks. Raises ``Unavailable`` for what may pass."""
    base = url.partition("?")[0]
    request = urllib.request.Request(  # noqa: S310 - web_address makes http(s) alone
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers=HEADERS,
        method="GET" if body is None else "POST",
    )
    server = address(url.rpartition("/")[0])
    try:
        with opener(server, ca_file).open(request, timeout=ANSWER_S) as response:
            text = response.read(MAX_ANSWER).decode(errors="replace")
    except HTTPError as error:
        with error:
            raise _refused(base, error) from None
    except URLError as error:
        reason = error.reason
        raise unreachable(base.rpartition("/")[0], reason if isinstance(reason, Exception) else error) from error
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{base} does not answer ({type(error).__name__}).") from error
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _no_openflow(base)
    return found


def _refused(base: str, error: HTTPError) -> AgentError:
    place = base.rpartition("/")[0]
    if error.code in LATER:
        return Unavailable(f"{place} answers with HTTP {error.code} for now.")
    if error.code in UNKNOWN_ROUTES:
        return _no_openflow(base)
    if location := error.headers.get("Location"):
        there = urlsplit(location)
        return InvalidInput(
            f"{place} says that OpenFlow is at {there.scheme}://{there.netloc}: "
            "put that in the address if you trust it."
        )
    said = error.read(MAX_ANSWER).decode(errors="replace")
    try:
        message = str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        message = said.strip()[:200] or f"HTTP {error.code}"
    return Failed(f"{place} did not let anybody sign in this way ({' '.join(message.split())}): try again.")


def _no_openflow(base: str) -> InvalidInput:
    return InvalidInput(
        f"{base.rpartition('/')[0]} offers no sign-in by browser: check the address of OpenFlow, "
        "or sign in with --username."
    )
