"""The OpenFlow that is configured: whether it can be reached, is to be trusted, knows the token, and has our time."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import urllib.request
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from jupyter_agent.agent import login
from jupyter_agent.agent.doctor.findings import Case, Finding, ok, problem, warning
from jupyter_agent.agent.endpoint import Endpoint, configured
from jupyter_agent.agent.settings import ca_file_of, load_config
from jupyter_agent.agent.switching import variable_that_wins
from jupyter_agent.errors import AgentError, InvalidInput, SignInFailed
from jupyter_agent.openflow.address import Address, address
from jupyter_agent.openflow.rest import opener
from jupyter_agent.openflow.signin import SOON
from jupyter_agent.openflow.trust import distrust, trust

ANSWER_S = 6
SIGN_IN_S = 10
RENEW = timedelta(days=14)
LITTLE_S, MUCH_S = 30, 240
"""Of a clock that is wrong: short tokens are good for five minutes."""

LOGIN = "Sign in again: jupyter-agent login"


async def look(case: Case) -> list[Finding]:
    """Settings first; the network only where something is configured."""
    try:
        ca_file = await asyncio.to_thread(lambda: ca_file_of(load_config()))
        await asyncio.to_thread(trust, ca_file)
    except AgentError as error:
        return [problem("settings", str(error), "Correct it there.")]
    found = [ok("settings", "They can be read."), *_authorities(case)]
    winning = variable_that_wins(case.environ)
    try:
        endpoint = configured(case.home, case.environ)
    except AgentError as error:
        todo = f"Correct the variable, or: unset {winning} jwt" if winning else f"{LOGIN} URL"
        return [*found, problem("openflow", str(error), todo)]
    if winning and case.home.config_file.exists():
        found.append(
            warning("openflow", f"The variable {winning} comes before {case.home.config_file}.", f"unset {winning} jwt")
        )
    if endpoint is None:
        return [*found, ok("openflow", "None is configured: the embedded hub is used.")]
    return [*found, *await _configured(endpoint, ca_file)]


def _authorities(case: Case) -> list[Finding]:
    """Variables that name what is not there: no certificate at all is trusted then, and nobody says why."""
    named = [(name, case.environ.get(name)) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")]
    return [
        problem("certificates", f"{name} is {place}, which is not there.", f"Correct {name}, or unset it.")
        for name, place in named
        if place and not Path(place).exists()
    ]


async def _configured(endpoint: Endpoint, ca_file: Path | None) -> list[Finding]:
    try:
        where = address(endpoint.url)
    except InvalidInput as error:
        return [problem("openflow", str(error), "Correct the address, or install what it needs.")]
    checks: list[Any] = [_token(endpoint, ca_file)]
    if where.tls:
        checks.append(asyncio.to_thread(_certificate, where, ca_file))
    with contextlib.suppress(InvalidInput):
        checks.append(asyncio.to_thread(_clock, login.web_address(endpoint.url), ca_file))
    return [finding for found in await asyncio.gather(*checks) for finding in found]


async def _token(endpoint: Endpoint, ca_file: Path | None) -> list[Finding]:
    again = f"{LOGIN} {endpoint.url}"
    try:
        async with asyncio.timeout(SIGN_IN_S):
            token = await login.tried(endpoint.url, endpoint.credentials.jwt, ca_file=ca_file, stay=False)
    except SignInFailed as error:
        return [problem("token", f"{error} It is from {endpoint.source}.", again)]
    except AgentError as error:
        return [problem("openflow", str(error), "Check the address, the network, and whether the server runs.")]
    except TimeoutError:
        return [problem("openflow", f"OpenFlow at {endpoint.url} does not answer.", "Check the address, the network.")]
    reached = ok("openflow", f"{endpoint.url} takes the token of {token.user.username}.")
    if token.ends is None:
        return [reached, ok("token", "It does not say when it ends.")]
    left = token.ends - datetime.now(UTC)
    if left < SOON:
        return [reached, warning("token", f"It ends on {token.ends:%Y-%m-%d %H:%M} UTC.", again)]
    return [reached, ok("token", f"It is good until {token.ends:%Y-%m-%d}.")]


def _certificate(where: Address, ca_file: Path | None) -> list[Finding]:
    """Who vouches for the server, and until when; nothing where it cannot be reached without a proxy."""
    if urllib.request.getproxies().get("https") and not where.is_loopback:
        return []
    try:
        with (
            socket.create_connection((where.host, where.port or 443), timeout=ANSWER_S) as plain,
            trust(ca_file).wrap_socket(plain, server_hostname=where.host) as secure,
        ):
            ends = str((secure.getpeercert() or {}).get("notAfter", ""))
    except ssl.SSLCertVerificationError as error:
        return [
            problem("certificate", distrust(where.url, error), "See README, ca_file; or have the server's renewed.")
        ]
    except OSError:
        return []  # the sign-in tells
    when = datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC)
    if when - datetime.now(UTC) < RENEW:
        return [warning("certificate", f"That of {where.host} ends on {when:%Y-%m-%d}.", "Have the server's renewed.")]
    return [ok("certificate", f"That of {where.host} is trusted, and good until {when:%Y-%m-%d}.")]


def _clock(base: str, ca_file: Path | None) -> list[Finding]:
    try:
        with opener(address(base), ca_file).open(f"{base}/livenessprobe", timeout=ANSWER_S) as response:
            said = response.headers.get("Date")
    except HTTPError as error:
        with error:
            said = error.headers.get("Date")
    except (OSError, http.client.HTTPException):
        return []  # the sign-in tells
    return clock_of(said, datetime.now(UTC), base)


def clock_of(said: str | None, now: datetime, base: str) -> list[Finding]:
    """What the ``Date`` of an answer means for our clock."""
    try:
        theirs = parsedate_to_datetime(said or "")
    except ValueError:
        return []
    apart = abs((now - theirs).total_seconds())
    text = f"This machine's clock and that of {base} are {apart:.0f} s apart"
    todo = "Have the clock set by the network (`timedatectl set-ntp true`), here or on the server."
    if apart > MUCH_S:
        return [problem("clock", f"{text}: tokens are refused by that.", todo)]
    if apart > LITTLE_S:
        return [warning("clock", f"{text}.", todo)]
    return [ok("clock", f"{text}.")]
