"""How conda's channels are reached from here, for the child that solves and installs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from jupyter_agent.environments.access import condarc, credentials, mirrors, naming
from jupyter_agent.environments.access.condarc import Condarc, expanded
from jupyter_agent.environments.access.credentials import Secret, hidden
from jupyter_agent.environments.access.mirrors import Mirrors
from jupyter_agent.environments.access.reaching import Answer, Route, ask
from jupyter_agent.environments.access.translating import translated, unreached
from jupyter_agent.environments.indexes import KEPT
from jupyter_agent.errors import InvalidInput, NotFound
from jupyter_agent.home import write_private

if TYPE_CHECKING:
    from rattler import Channel, Gateway  # noqa: TID251 - this is environments/
    from rattler.networking import Client  # noqa: TID251 - the same

    from jupyter_agent.environments.telling import Teller
    from jupyter_agent.environments.work.jobs import Settings

RETRIES = 3
"""Of a request that failed in a way that may pass, with growing pauses: about 3 s in all."""

INDEX_S, PACKAGE_S = 300, 3 * 3600
"""For one whole request: rattler itself would wait for ever for a place that has stopped to answer."""

OFFLINE = "nothing is fetched while offline"
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
UNVERIFIED = (
    "WARNING: {where} turns off the verification of certificates: whoever is on the way to a channel can change what "
    "is installed. Have ssl_verify name the file of your authority's certificate instead."
)


@dataclass(frozen=True)
class Access:
    """What is configured; made once by each child, for its process: it has no other way to tell rattler and uv.

    ``notes`` are sentences for the log of whoever uses it.
    """

    settings: Settings
    condarc: Condarc
    mirrors: Mirrors
    route: Route
    notes: tuple[str, ...] = ()
    _environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    _found: dict[str, Secret] = field(default_factory=dict, repr=False)
    _working: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, settings: Settings, environ: Mapping[str, str] | None = None) -> Access:
        """What this machine is configured to. Raises ``InvalidInput`` when a file of it cannot be used."""
        environ = dict(os.environ if environ is None else environ)
        conda, tools = condarc.read(environ), mirrors.read(environ)
        route = _route(conda, tools, environ)
        return cls(settings, conda, tools, route, tuple(_notes(conda, tools)), environ)

    @property
    def offline(self) -> bool:
        """Whether nothing is fetched from a network."""
        return self.settings.offline or self.condarc.offline

    @property
    def variables(self) -> dict[str, str]:
        """What uv is to have in its environment beside what this process has."""
        kept = " ".join(credentials.kept_indexes(self._kept_in()))
        return {**self._named_certificates, **({KEPT: kept} if kept else {})}

    @property
    def _named_certificates(self) -> dict[str, str]:
        place = self.route.certificates
        return {} if place is None else {"SSL_CERT_DIR" if place.is_dir() else "SSL_CERT_FILE": str(place)}

    def keep_indexes(self, options: Iterable[str]) -> None:
        """Keep the credentials that stand in a file's options for pip: what is locked is fetched with them later."""
        for option in options:
            url = expanded(re.split(r"[\s=]+", option, maxsplit=1)[-1].strip(), self._environ)
            if "://" in url:
                credentials.keep_index(url, self._kept_in())

    def channels(self, names: Sequence[str]) -> list[Channel]:
        """The channels that are meant by names or URLs as a file writes them, without credentials in their URLs.

        Raises ``InvalidInput`` for what is no channel's name, ``AccessDenied`` for what conda's settings forbid.
        """
        from rattler import Channel  # noqa: PLC0415, TID251 - environments/; not in the parent

        try:
            return [Channel(public) for public in self.urls(names)]
        except Exception as error:
            raise translated(error) from error

    def urls(self, names: Sequence[str]) -> list[str]:
        """The same, without rattler."""
        found: dict[str, Secret | None] = {}
        for url in naming.urls(names, self.condarc, self._environ):
            public, secret = credentials.parted(url)
            found[public] = secret or found.get(public) or self._found.get(public)
        self._found.update({public: secret for public, secret in found.items() if secret is not None})
        self._remember(found)
        return list(found)

    async def check(self, channels: Sequence[Channel], *, tell: Teller | None = None) -> None:
        """See that the channels answer; known within seconds, all are asked at once, and all their mirrors.

        Raises ``NoChannel`` when none does, ``Unavailable`` when some do not, ``NotFound`` for a folder that is not
        there. What has to be known of the access is told to ``tell``.
        """
        for note in self.notes if tell is not None else ():
            tell.note(note)  # type: ignore[union-attr]  # not empty only when there is one
        urls = [channel.base_url.rstrip("/") for channel in channels]
        for url in urls:
            _look_for_folder(url)
        if self.offline:
            return
        if faults := await self.faults(urls):
            raise unreached(faults, of=len(urls))

    async def faults(self, urls: Sequence[str]) -> dict[str, Answer]:
        """Those of these channels that do not answer, nor any of their mirrors, within seconds; and how they do not."""
        places = {url: self._places(url) for url in urls if url.startswith(("http://", "https://"))}
        answers = await ask(list(dict.fromkeys(place for several in places.values() for place in several)), self.route)
        by_place = {answer.url: answer for answer in answers}
        self._choose_mirrors(by_place)
        failed = {url: _worst([by_place[place] for place in several]) for url, several in places.items()}
        return {url: answer for url, answer in failed.items() if answer is not None}

    def client(self, urls: Iterable[str] = (), *, timeout_s: int = PACKAGE_S) -> Client:
        """What rattler fetches with. ``urls``: of what is to be fetched, for credentials that were kept with a lock.

        ``timeout_s``: for one whole request.

        Raises ``InvalidInput`` when credentials or certificates cannot be read.
        """
        from rattler import Config  # noqa: PLC0415, TID251 - environments/; not in the parent
        from rattler.networking import AddHeadersMiddleware, Client  # noqa: PLC0415, TID251 - the same

        if self.offline:
            return Client([AddHeadersMiddleware(_refuse)])
        os.environ.update(self._named_certificates)  # of this child: rattler reads its certificates from there alone
        secrets, words = self._secrets(list(urls))
        with contextlib.ExitStack() as stack:
            named = stack.enter_context(credentials.written(words)) if words else None
            override = self.mirrors.credentials and (named or self.mirrors.credentials)
            if named is not None and override is None:  # which leaves netrc and the keyring beside it
                stack.enter_context(_with_variable("RATTLER_AUTH_FILE", str(named)))
            try:
                config = Config.from_toml(self._toml(secrets, override))
                return Client.from_config(config, max_retries=RETRIES, timeout=timeout_s)
            except Exception as error:  # noqa: BLE001 - raised as ours; its text may hold a proxy's password
                raise _unusable(error) from None

    def gateway(self, urls: Iterable[str] = ()) -> Gateway:
        """What rattler reads the channels' indexes with; they are kept below the cache."""
        from rattler import Gateway  # noqa: PLC0415, TID251 - environments/; not in the parent
        from rattler.repo_data.gateway import SourceConfig  # noqa: PLC0415, TID251 - the same

        kept = SourceConfig(cache_action="force-cache-only" if self.offline else "cache-or-fetch")
        client = self.client(urls, timeout_s=INDEX_S)
        return Gateway(cache_dir=self.settings.cache / "repodata", default_config=kept, client=client)

    def _places(self, url: str) -> tuple[str, ...]:
        """Where a channel is fetched from: its mirrors, or itself."""
        for begin, places in sorted(self.mirrors.mirrors.items(), key=lambda item: -len(item[0])):
            base = begin.rstrip("/")
            if url == base or url.startswith(f"{base}/"):
                return tuple(credentials.parted(place.rstrip("/") + url[len(base) :])[0] for place in places)
        return (url,)

    def _choose_mirrors(self, answers: Mapping[str, Answer]) -> None:
        """Have those that do not work left out, where others do: rattler would not go on after a 404."""
        for begin, places in self.mirrors.mirrors.items():
            bare = [credentials.parted(place.rstrip("/"))[0] for place in places]
            working = [
                place
                for place, base in zip(places, bare, strict=True)
                if any(answer.works for url, answer in answers.items() if url == base or url.startswith(f"{base}/"))
            ]
            if working:
                self._working[begin] = tuple(working)

    def _secrets(self, urls: list[str]) -> tuple[dict[str, Secret], dict[str, Any]]:
        """By public URL; and all of them in the form of rattler's file, nothing when it needs none of ours."""
        asked = [*urls, *self._found]
        configured = {**_configured(self.condarc), **_of_mirrors(self.mirrors)}
        kept = {url: secret for url, secret in self._kept().items() if any(one.startswith(url) for one in urls)}
        near = {url: secret for url, secret in configured.items() if any(one.startswith(url) for one in asked)}
        secrets = {**configured, **kept, **near, **self._found}
        ours: dict[str, Any] = credentials.anaconda_tokens(self._environ)
        for secret in (*configured.values(), *kept.values()):
            ours.update({secret.host: secret.words} if secret.words else {})
        closer = {secret.host: secret.words for secret in (*near.values(), *self._found.values()) if secret.words}
        if not ours and not closer:
            return secrets, {}
        home = Path(self._environ.get("HOME") or Path.home())
        named = self.mirrors.credentials or Path(self._environ.get("RATTLER_AUTH_FILE") or os.devnull)
        theirs = credentials.known(named) if str(named) != os.devnull else {}
        return secrets, {**ours, **credentials.known(home / ".rattler" / "credentials.json"), **theirs, **closer}

    def _toml(self, secrets: Mapping[str, Secret], override: Path | None) -> str:
        """The configuration in rattler's own words, of what all others say."""
        stands_in = {url: (secret.private,) for url, secret in secrets.items() if secret.private}
        chosen = {begin: self._working.get(begin, places) for begin, places in self.mirrors.mirrors.items()}
        bare = {begin: [credentials.parted(place)[0] for place in places] for begin, places in chosen.items()}
        lines = [] if self.route.verify else ["tls-no-verify = true"]
        if override is not None:
            lines.append(f"authentication-override-file = {_quoted(str(override))}")
        lines += ["[mirrors]", *(f"{_quoted(url)} = {_quoted(list(to))}" for url, to in {**bare, **stands_in}.items())]
        every = self.route.proxies.get("all")
        proxies = {name: url for name in ("http", "https") if (url := self.route.proxies.get(name, every))}
        if proxies and "*" not in self.route.no_proxy:
            lines += ["[proxy-config]", *(f"{name} = {_quoted(url)}" for name, url in proxies.items())]
            lines.append(f"non-proxy-hosts = {_quoted(list(self.route.no_proxy))}")
        for bucket, options in self.mirrors.s3.items():
            lines += [f"[s3-options.{_quoted(bucket)}]", *(f"{_quoted(n)} = {_quoted(v)}" for n, v in options.items())]
        return "\n".join(lines)

    def _kept_in(self) -> Path:
        return self.settings.cache / "credentials"

    def _kept(self) -> dict[str, Secret]:
        """Credentials that stood in the URLs of files which were locked: the locks do not have them."""
        found: dict[str, Secret] = {}
        for file in self._kept_in().glob("*.json"):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                plain = json.loads(file.read_text(encoding="utf-8"))
                found[plain["url"]] = Secret(plain["host"], plain["words"], plain["private"])
        return found

    def _remember(self, found: Mapping[str, Secret | None]) -> None:
        """Keep those of URLs that say them, forget those of URLs that do not any more; each in a file of its own."""
        configured = _configured(self.condarc)
        for url, secret in found.items():
            file = self._kept_in() / f"{hashlib.sha256(url.encode()).hexdigest()}.json"
            if secret is None or any(_is_of(begin, known, url, secret) for begin, known in configured.items()):
                file.unlink(missing_ok=True)
                continue
            for folder in (self.settings.cache, file.parent):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            plain = {"url": url, "host": secret.host, "words": dict(secret.words), "private": secret.private}
            write_private(file, json.dumps(plain))


def _is_of(begin: str, known: Secret, url: str, secret: Secret) -> bool:
    """Whether conda's configuration, which is read each time, says these credentials itself."""
    return url.startswith(begin) and known.words == secret.words and not secret.private


@contextlib.contextmanager
def _with_variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _refuse(_host: str, _path: str) -> dict[str, str] | None:
    raise RuntimeError(OFFLINE)


def _unusable(error: Exception) -> InvalidInput:
    said = hidden(str(error))
    if "builder error" in said:
        said = "its certificates, proxies or mirrors cannot be used; look at SSL_CERT_FILE, SSL_CERT_DIR, HTTPS_PROXY"
    return InvalidInput(f"The access to conda's channels is not configured well: {said}.")


def _look_for_folder(url: str) -> None:
    if url.startswith("file://") and not Path(unquote(urlsplit(url).path)).is_dir():
        raise NotFound(f"There is no channel at {url}: no such folder.")


def _worst(answers: Sequence[Answer]) -> Answer | None:
    """``None`` when one of them answered; else what to say of them."""
    return None if any(not answer.fault for answer in answers) else answers[0]


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)  # which TOML reads the same: strings, lists of them, true and false


def _route(conda: Condarc, tools: Mirrors, environ: Mapping[str, str]) -> Route:
    """The environment over conda's settings, and these over rattler's, but for what rattler alone is told."""
    from_environ = {
        name: value
        for name in ("http", "https", "all")
        if (value := environ.get(f"{name}_proxy") or environ.get(f"{name.upper()}_PROXY"))
    }
    no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    hosts = tuple(host.strip() for host in no_proxy.split(",") if host.strip())
    verify = conda.verify and tools.verify
    proxies = {**tools.proxies, **{name: conda.proxies[name] for name in ("http", "https") if name in conda.proxies}}
    return Route({**proxies, **from_environ}, (*hosts, *tools.no_proxy), verify, _certificates(conda, environ))


def _certificates(conda: Condarc, environ: Mapping[str, str]) -> Path | None:
    """The file or folder of authorities that somebody named; ``None``: the system's."""
    given = [(name, environ[name]) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if environ.get(name)]
    given += [("ssl_verify of conda's configuration", str(conda.certificates))] if conda.certificates else []
    given += [(name, environ[name]) for name in BUNDLES if environ.get(name)]
    if not given:
        return None
    name, place = given[0]
    if not os.access(place, os.R_OK):
        raise InvalidInput(f"{name} names {place}, which is not there or cannot be read: correct it, or unset it.")
    return Path(place)


def _notes(conda: Condarc, tools: Mirrors) -> Iterable[str]:
    if not conda.verify:
        yield UNVERIFIED.format(where="ssl_verify in conda's configuration")
    if not tools.verify:
        yield UNVERIFIED.format(where="tls-no-verify in a config.toml of rattler or pixi")
    if conda.client_certificate:
        yield "client_ssl_cert of conda's configuration is not used: channels cannot be shown a client's certificate."
    for settings in conda.channel_settings:
        if settings.get("auth") and not _own_words(settings):
            channel = hidden(settings.get("channel", ""))
            yield (
                f"channel_settings of {channel} name {settings['auth']!r}, whose secrets lie in conda's own keyring "
                "entries, which are not read: put them into the file that RATTLER_AUTH_FILE names, or into ~/.netrc."
            )


def _own_words(settings: Mapping[str, str]) -> dict[str, Any]:
    """What the settings of a channel say by themselves, in the words of rattler's file."""
    if settings.get("token"):
        return (
            {"BearerToken": settings["token"]}
            if "bearer" in settings.get("auth", "")
            else {"CondaToken": settings["token"]}
        )
    if settings.get("username") and settings.get("password"):
        return {"BasicHTTP": {"username": settings["username"], "password": settings["password"]}}
    return {}


def _configured(conda: Condarc) -> dict[str, Secret]:
    """Credentials in conda's settings, by the public beginning of the URLs that they are for."""
    urls = [conda.alias, *conda.channels, *conda.default_channels, *conda.custom_channels.values()]
    urls += [url for several in conda.multichannels.values() for url in several]
    found: dict[str, Secret] = {}
    for url in urls:
        public, secret = credentials.parted(url) if "://" in url else (url, None)
        if secret is not None:
            found[public.rstrip("/")] = secret
    for settings in conda.channel_settings:
        public, _ = credentials.parted(settings.get("channel", ""))
        if (words := _own_words(settings)) and "://" in public:
            public = public.split("*")[0].rstrip("/")
            found[public] = Secret(urlsplit(public).hostname or "", words)
    return found


def _of_mirrors(tools: Mirrors) -> dict[str, Secret]:
    parted = [credentials.parted(place) for places in tools.mirrors.values() for place in places]
    return {public: secret for public, secret in parted if secret is not None and secret.words}
