"""Whether places on the network answer: all asked at once, known within seconds.

rattler would wait for a place that never answers as long as the place likes, and says of many requests only which one
failed first. So one request goes ahead to each: any answer at all will do, for what it means is said by rattler.
Written with http.client in threads of its own: urllib cannot give up on an answer, and a name that cannot be looked
up holds a thread for as long as the system likes, which is not to hold up the end of the process.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed leaves it out

from jupyter_agent import __version__
from jupyter_agent.environments.access.credentials import hidden

Fault = Literal["", "unknown host", "refused", "no answer", "not trusted", "proxy", "web page", "broken"]

CONNECT_S, WITHIN_S = 5.0, 8.0
AGAIN_S = 0.3
"""Before what failed at once is asked again."""

PROXY_REFUSED = "Tunnel connection failed: "


@dataclass(frozen=True)
class Route:
    """How requests go: proxies by scheme, hosts that need none, and whom TLS trusts (``None``: the system's)."""

    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_proxy: tuple[str, ...] = ()
    verify: bool = True
    certificates: Path | None = None

    def proxy(self, url: str) -> str:
        """The proxy's URL for a URL, "" for none."""
        parts = urlsplit(url)
        if proxy_bypass_environment(parts.netloc, {"no": ",".join(self.no_proxy)}) or self._in_networks(parts.hostname):
            return ""
        chosen = self.proxies.get(parts.scheme) or self.proxies.get("all", "")
        return chosen if "://" in chosen or not chosen else f"http://{chosen}"

    def _in_networks(self, host: str | None) -> bool:
        """Whether the host is an address in a network that needs no proxy (``10.0.0.0/8``)."""
        try:
            address = ip_address(host or "")
        except ValueError:
            return False
        return any(address in network for place in self.no_proxy if (network := _network(place)) is not None)

    def context(self) -> ssl.SSLContext:
        """For https."""
        place = self.certificates
        if place is not None and place.is_dir():
            context = ssl.create_default_context(capath=str(place))
        else:
            context = ssl.create_default_context(cafile=str(place) if place else None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True)
class Answer:
    """What came of asking: ``status`` of an answer, or a ``fault`` and what was ``said`` of it."""

    url: str
    status: int = 0
    fault: Fault = ""
    said: str = ""

    @property
    def works(self) -> bool:
        """Whether it is worth to be asked for more; one that wants credentials is."""
        return not self.fault and (self.status < http.HTTPStatus.BAD_REQUEST or self.status in (401, 403, 405))


async def ask(urls: Sequence[str], route: Route, *, within_s: float = WITHIN_S) -> list[Answer]:
    """The answers of channels, in their order, within ``within_s`` seconds."""
    return list(await asyncio.gather(*(_one(url, route, within_s) for url in urls)))


async def _one(url: str, route: Route, within_s: float) -> Answer:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Answer] = loop.create_future()

    def give(answer: Answer) -> None:
        if not answered.done():
            answered.set_result(answer)

    def work() -> None:
        answer = _asked_twice(url, route)
        try:
            loop.call_soon_threadsafe(give, answer)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    threading.Thread(target=work, name="asks whether a channel answers", daemon=True).start()
    try:
        async with asyncio.timeout(within_s):
            return await answered
    except TimeoutError:
        return Answer(url, fault="no answer", said=f"no answer within {within_s:g} s")


def _asked_twice(url: str, route: Route) -> Answer:
    answer = _asked(url, route)
    if answer.fault in ("unknown host", "refused", "broken"):
        time.sleep(AGAIN_S)
        answer = _asked(url, route)
    return answer


def _asked(url: str, route: Route) -> Answer:
    try:
        return _answer(url, route)
    except ssl.SSLCertVerificationError as error:
        return Answer(url, fault="not trusted", said=error.verify_message)
    except TimeoutError:
        return Answer(url, fault="no answer", said=f"no answer within {CONNECT_S:g} s")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _failed(url, error)


def _failed(url: str, error: Exception) -> Answer:
    said = hidden(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    if said.startswith(PROXY_REFUSED) or PROXY_REFUSED in str(error):
        return Answer(url, fault="proxy", said=str(error).partition(PROXY_REFUSED)[2])
    if isinstance(error, ConnectionRefusedError):
        return Answer(url, fault="refused", said="the connection was refused")
    if type(error).__name__ == "gaierror":
        return Answer(url, fault="unknown host", said="its host is not known")
    if isinstance(error, ssl.SSLError):
        said = f"TLS: {error.reason or error}"
    return Answer(url, fault="broken", said=said)


def _answer(url: str, route: Route) -> Answer:
    target = urlsplit(f"{url.rstrip('/')}/noarch/repodata.json")
    proxy = route.proxy(url)
    other = target.scheme not in ("http", "https")  # a mirror in an OCI registry, a bucket
    if other or (proxy and not proxy.startswith("http://")):  # http.client knows no proxy of another kind, rattler does
        return Answer(url, http.HTTPStatus.OK)
    connection, path, headers = _connection(target.geturl(), proxy, route)
    try:
        connection.request("HEAD", path, headers={"User-Agent": f"jupyter_agent/{__version__}", **headers})
        response = connection.getresponse()
        page = response.status == http.HTTPStatus.OK and "text/html" in response.headers.get("Content-Type", "")
    finally:
        connection.close()
    if response.status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return Answer(url, fault="proxy", said=f"{response.status} {response.reason}")
    return Answer(url, response.status, "web page" if page else "", "a web page came instead" if page else "")


def _connection(url: str, proxy: str, route: Route) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """A connection not yet open, the path to ask it for, and the headers that its proxy wants."""
    target, via = urlsplit(url), urlsplit(proxy)
    first = via if proxy else target
    headers = _who(proxy)
    if target.scheme == "https":
        secure = http.client.HTTPSConnection(
            first.hostname or "", first.port, timeout=CONNECT_S, context=route.context()
        )
        if proxy:
            secure.port = via.port or 80
            secure.set_tunnel(target.hostname or "", target.port or 443, headers=headers)
        return secure, target.path, {}
    connection = http.client.HTTPConnection(first.hostname or "", first.port, timeout=CONNECT_S)
    return connection, url if proxy else target.path, headers


def _network(place: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(place, strict=False)
    except ValueError:
        return None


def _who(proxy: str) -> dict[str, str]:
    userinfo = urlsplit(proxy).netloc.rpartition("@")[0]
    if not userinfo:
        return {}
    return {"Proxy-Authorization": f"Basic {base64.b64encode(unquote(userinfo).encode()).decode()}"}
