"""How channels are reached: what is configured, with which credentials, and what is said when one is not reached."""

from __future__ import annotations

import base64
import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rattler.platform.subdir import SubdirLiteral

from jupyter_agent import processes
from jupyter_agent.environments.access import Access, condarc, translated
from jupyter_agent.environments.access.credentials import anaconda_tokens, hidden, parted
from jupyter_agent.environments.access.inheriting import inherited
from jupyter_agent.environments.access.reaching import Route, ask
from jupyter_agent.environments.definitions import Definition
from jupyter_agent.environments.prefixes.condas import Condas
from jupyter_agent.environments.prefixes.layout import Layout
from jupyter_agent.environments.prefixes.orders import Order
from jupyter_agent.environments.work.jobs import BuildJob, LockJob, Settings
from jupyter_agent.environments.work.worker import work
from jupyter_agent.errors import (
    AccessDenied,
    AgentError,
    InvalidInput,
    NoChannel,
    NotFound,
    TimedOut,
    Unavailable,
)
from tests.certificates import authority
from tests.channel_peers import Trouble, deaf, proxy, serving
from tests.environment_peers import Listener

SUBDIRS: tuple[SubdirLiteral, ...] = ("linux-64", "noarch")
SECRET = "s3cret/%"
BASIC = f"Basic {base64.b64encode(f'maria:{SECRET}'.encode()).decode()}"


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Access sets variables of its process, which is a child of its own otherwise."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "RATTLER_AUTH_FILE", "NETRC", "CONDARC"):
        monkeypatch.setenv(name, "x")  # so that it is taken back, whoever sets it
        monkeypatch.delenv(name)


class Machine:
    """A user's home, its files, and the environment with it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.settings = Settings(cache=folder / "cache", channels=folder / "channels")
        self._monkeypatch = monkeypatch
        self.environ: dict[str, str] = {}
        self.set(HOME=str(self.home))

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self.environ[name] = value
            self._monkeypatch.setenv(name, value)

    def write(self, name: str, text: str) -> Path:
        file = self.home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o600)
        return file

    def access(self, *, offline: bool = False) -> Access:
        settings = Settings(self.settings.cache, self.settings.channels, offline=offline)
        return Access.read(settings, self.environ)

    def urls(self, *names: str) -> list[str]:
        return [channel.base_url.rstrip("/") for channel in self.access().channels(names)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


async def versions(access: Access, *names: str, package: str = "pip") -> set[str]:
    """What the channels have of a package, read as a lock does it."""
    channels = access.channels(names)
    try:
        await access.check(channels)
        found = await access.gateway().query(channels, SUBDIRS, [package], recursive=False)
    except Exception as error:
        raise translated(error, channels=channels) from error
    return {record.url for records in found for record in records}


async def failure(kind: type[AgentError], access: Access, *names: str) -> str:
    with pytest.raises(AgentError) as caught:
        await versions(access, *names)
    assert type(caught.value) is kind, repr(caught.value)
    text = str(caught.value)
    assert SECRET not in text
    assert "s3cret" not in text
    assert text.endswith((".", ")"))
    assert "\n" not in text
    return text


# -- Names of channels


async def test_files_that_name_no_channel_have_those_that_conda_is_configured_to(tmp_path: Path) -> None:
    """Unless the agent itself is configured to others; what changes gives another lock."""
    environ, layout = {"HOME": str(tmp_path), "CORP": "corp.example"}, Layout(tmp_path / "environments")
    order = Order(Definition.of("environment.yml", "dependencies: [python]\n"), (), Listener(), "no-tag")
    condas = Condas(layout, environ=environ, default_channels=())

    def defaults() -> tuple[str, ...]:
        return condas.settings(offline=False).default_channels

    before = await condas.key(order)
    assert defaults() == ("conda-forge",)
    (tmp_path / ".condarc").write_text("channels:\n- https://conda.${CORP}/main\n- bioconda\n")
    assert defaults() == ("https://conda.corp.example/main", "bioconda")
    assert await condas.key(order) != before
    chosen = Condas(layout, environ=environ, default_channels=("conda-forge",))
    assert chosen.settings(offline=False).default_channels == ("conda-forge",)
    assert await chosen.key(order) == before
    (tmp_path / ".condarc").write_text("channels: {a: b}\n")
    assert defaults() == ("conda-forge",)  # the job itself says what is wrong with it


def test_names_are_urls_as_conda_has_them(machine: Machine) -> None:
    machine.write(
        ".condarc",
        "channel_alias: https://conda.corp.example/api\n"
        "default_channels: [https://conda.corp.example/main, r-things]\n"
        "custom_channels:\n  ours: https://files.corp.example/channels\n  pkgs/pro: file:///srv/pro\n"
        "custom_multichannels:\n  both: [ours, conda-forge]\n",
    )
    assert machine.urls("conda-forge", "conda-forge/label/dev", "bioconda/linux-64") == [
        "https://conda.corp.example/api/conda-forge",
        "https://conda.corp.example/api/conda-forge/label/dev",
        "https://conda.corp.example/api/bioconda",
    ]
    assert machine.urls("ours", "ours/team", "pkgs/pro") == [
        "https://files.corp.example/channels/ours",
        "https://files.corp.example/channels/ours/team",
        "file:///srv/pro/pkgs/pro",
    ]
    assert machine.urls("both", "ours") == [
        "https://files.corp.example/channels/ours",
        "https://conda.corp.example/api/conda-forge",
    ]
    assert machine.urls("defaults") == ["https://conda.corp.example/main", "https://conda.corp.example/api/r-things"]
    assert machine.urls("https://x.example/c/noarch/", "/srv/c", "file:///srv/d", "file:///srv/a b", "/srv/a b") == [
        "https://x.example/c",
        "file:///srv/c",
        "file:///srv/d",
        "file:///srv/a%20b",
    ]


def test_without_any_file_conda_has_its_own_defaults(machine: Machine) -> None:
    assert machine.urls("conda-forge") == ["https://conda.anaconda.org/conda-forge"]
    assert machine.urls("defaults")[0] == "https://repo.anaconda.com/pkgs/main"


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "ftp://x.example/c", "./here", "a::b", "nodefaults", "https://x.example/a b", "c\n", "[x]"]
)
def test_what_can_be_no_channel_is_refused(machine: Machine, name: str) -> None:
    if name == "c\n":  # white space around a name is nobody's
        assert machine.urls(name)
        return
    with pytest.raises(InvalidInput):
        machine.urls(name)


def test_a_site_can_forbid_channels(machine: Machine) -> None:
    machine.write(".condarc", "denylist_channels: [defaults, bad]\n")
    assert machine.urls("conda-forge")
    for name in ("bad", "defaults", "https://repo.anaconda.com/pkgs/main"):
        with pytest.raises(AccessDenied):
            machine.urls(name)
    machine.write(".condarc", "allowlist_channels: [conda-forge]\n")
    with pytest.raises(AccessDenied):
        machine.urls("bioconda")


def test_channels_that_name_one_another_come_to_an_end(machine: Machine) -> None:
    machine.write(".condarc", "custom_multichannels:\n  a: [b]\n  b: [a]\n")
    with pytest.raises(InvalidInput):
        machine.urls("a")


# -- conda's files


def test_later_places_come_over_earlier_ones(machine: Machine, tmp_path: Path) -> None:
    root, prefix = tmp_path / "root", tmp_path / "prefix"
    places = {
        root / ".condarc": "root",
        machine.home / ".config/conda/condarc": "config",
        machine.home / ".conda/condarc.d/a.yml": "folder",
        machine.home / ".condarc": "home",
        prefix / ".condarc": "prefix",
        tmp_path / "given": "given",
    }
    environ = {"HOME": str(machine.home), "CONDA_EXE": str(root / "bin" / "conda"), "CONDA_PREFIX": str(prefix)}
    environ["CONDARC"] = str(tmp_path / "given")
    for count, (file, name) in enumerate(places.items(), 1):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"channel_alias: https://{name}.example/\ncustom_channels: {{{name}: https://x.example}}\n")
        found = condarc.read(environ)
        assert found.alias == f"https://{name}.example"
        assert len(found.custom_channels) == count
    assert condarc.read({**environ, "CONDA_CHANNEL_ALIAS": "https://set.example"}).alias == "https://set.example"


def test_values_may_name_variables(machine: Machine) -> None:
    machine.write(".condarc", "channel_alias: https://${HOST_OF_CONDA}/x\ncustom_channels: {a: '$UNKNOWN_ONE'}\n")
    found = condarc.read({**machine.environ, "HOST_OF_CONDA": "h.example"})
    assert found.alias == "https://h.example/x"
    assert found.custom_channels == {"a": "$UNKNOWN_ONE"}
    kept = inherited({**machine.environ, "HOST_OF_CONDA": "h.example", "OTHER": "1", "CONDA_PREFIX": "/nowhere"})
    assert kept == {"HOST_OF_CONDA": "h.example"}


@pytest.mark.parametrize(
    "text",
    [
        "channel_alias: [",
        "- a\n- b\n",
        "custom_channels: [a]",
        "proxy_servers: x",
        "channel_alias: {a: b}",
        "default_channels: 3",
        "[" * 5000,
        "\x00",
    ],
)
def test_a_broken_file_of_condas_is_named_in_one_sentence(machine: Machine, text: str) -> None:
    file = machine.write(".condarc", text)
    with pytest.raises(InvalidInput) as caught:
        machine.access()
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_odd_files_of_condas_do_no_harm(machine: Machine) -> None:
    for text in ("", "# nothing\n", "channels: [a]\nauto_activate_base: false\n", "ssl_verify: truststore\noffline:\n"):
        machine.write(".condarc", text)
        assert machine.access().route.verify
    (machine.home / ".condarc").unlink()
    (machine.home / ".condarc").mkdir()
    assert not machine.access().condarc.files


def test_rattlers_own_files_are_read(machine: Machine) -> None:
    file = machine.write(".config/pixi/config.toml", '[mirrors]\n"https://a.example" = "https://b.example"\n')
    with pytest.raises(InvalidInput, match="list of URLs"):
        machine.access()
    file.write_text("mirrors = [\n")
    with pytest.raises(InvalidInput) as caught:
        machine.access()
    assert str(file) in str(caught.value)


# -- Credentials


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://u:p%40@h.example/c", "https://h.example/c"),
        ("https://tok@h.example:8080/c", "https://h.example:8080/c"),
        ("https://h.example/t/ab-cd/c", "https://h.example/c"),
        ("https://h.example/conda/t/ab-cd/c", "https://h.example/conda/c"),
        ("https://h.example/c", "https://h.example/c"),
        ("file:///srv/t", "file:///srv/t"),
    ],
)
def test_no_credentials_stay_in_a_url(url: str, public: str) -> None:
    found, secret = parted(url)
    assert found == public
    assert (secret is None) == (url == public)
    assert "ab-cd" not in repr(secret)
    assert "p%40" not in hidden(f"failed for {url}: no")
    assert "ab-cd" not in hidden(f"failed for {url}/noarch/x.json")


async def test_credentials_of_a_url_are_sent_and_stand_nowhere_else(
    machine: Machine, channel: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(channel, Trouble(wanted=BASIC)) as server:
        given = server.url.replace("://", "://maria:s3cret%2F%25@")
        found = await versions(machine.access(), given)
        assert found
        assert not any("@" in url or "maria" in url for url in found)
        (kept,) = (machine.settings.cache / "credentials").iterdir()
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
        others = [file for file in machine.settings.cache.rglob("*") if file.is_file() and file != kept]
        assert others
        assert not any(b"s3cret" in file.read_bytes() for file in others)
        # a build has the lock's URLs only
        url = found.pop()
        from rattler.package_streaming import download_bytes

        assert await download_bytes(machine.access().client([url]), url)
        with pytest.raises(Exception, match="401"):
            await download_bytes(machine.access().client(["https://elsewhere.example/x"]), url)
        assert "s3cret" not in caplog.text
        machine.urls(server.url)  # which says none any more
        assert not kept.exists()
        assert "s3cret" not in repr(machine.access())


@pytest.mark.parametrize("place", ["start", "deep"])
async def test_a_token_in_the_path(machine: Machine, channel: Path, tmp_path: Path, place: str) -> None:
    if place == "start":
        with serving(channel.parent, Trouble(token="tk-123")) as server:
            found = await versions(machine.access(), f"{server.url}/t/tk-123/{channel.name}")
            assert found
            assert not any("tk-123" in url for url in found)
            assert "401" in await failure(AccessDenied, machine.access(), f"{server.url}/t/wrong/{channel.name}")
        return
    (tmp_path / "site/conda/t/tk-123").mkdir(parents=True)
    (tmp_path / "site/conda/t/tk-123/c").symlink_to(channel)
    with serving(tmp_path / "site") as server:
        found = await versions(machine.access(), f"{server.url}/conda/t/tk-123/c")
        assert all(url.startswith(f"{server.url}/conda/c/") for url in found)
        assert found


def _in_auth_file(machine: Machine) -> None:
    words = {"127.0.0.1": {"BasicHTTP": {"username": "maria", "password": SECRET}}}
    machine.set(RATTLER_AUTH_FILE=str(machine.write("auth.json", json.dumps(words))))


def _in_rattlers_home(machine: Machine) -> None:
    words = {"127.0.0.1": {"BasicHTTP": {"username": "maria", "password": SECRET}}}
    machine.write(".rattler/credentials.json", json.dumps(words))


def _in_netrc(machine: Machine) -> None:
    machine.write(".netrc", f"machine 127.0.0.1 login maria password {SECRET}\n")


def _in_condarc(machine: Machine) -> None:
    machine.write(
        ".condarc",
        "channel_settings:\n  - channel: http://127.0.0.1*\n    auth: http-basic\n"
        f"    username: maria\n    password: {SECRET!r}\n",
    )


@pytest.mark.parametrize("configured", [_in_auth_file, _in_rattlers_home, _in_netrc, _in_condarc])
async def test_places_of_credentials(machine: Machine, channel: Path, configured: Callable[[Machine], None]) -> None:
    with serving(channel, Trouble(wanted=BASIC)) as server:
        assert "looked for in" in await failure(AccessDenied, machine.access(), server.url)
        configured(machine)
        assert await versions(machine.access(), server.url)
        # beside those of another channel's URL
        with serving(channel) as other:
            assert await versions(machine.access(), server.url, other.url.replace("://127.0.0.1", "://x:y@localhost"))


async def test_an_alias_with_credentials_serves_names(machine: Machine, channel: Path) -> None:
    with serving(channel.parent, Trouble(wanted=BASIC)) as server:
        alias = server.url.replace("://", "://maria:${CONDA_PASSWORD}@")
        machine.write(".condarc", f"channel_alias: {alias}\n")
        machine.set(CONDA_PASSWORD="s3cret%2F%25")
        found = await versions(machine.access(), channel.name)
        assert found
        assert all(url.startswith(f"{server.url}/{channel.name}/") for url in found)
        assert not (machine.settings.cache / "credentials").exists()  # they stand in .condarc already
        from rattler.package_streaming import download_bytes

        url = found.pop()
        assert await download_bytes(machine.access().client([url]), url)


async def test_a_bearer_token(machine: Machine, channel: Path) -> None:
    words = {"127.0.0.1": {"BearerToken": "tk-123"}}
    machine.set(RATTLER_AUTH_FILE=str(machine.write("auth.json", json.dumps(words))))
    with serving(channel, Trouble(wanted="Bearer tk-123")) as server:
        assert await versions(machine.access(), server.url)


def test_tokens_that_anaconda_has_left_are_found(machine: Machine) -> None:
    machine.write(".local/share/binstar/https%3A%2F%2Fapi.anaconda.org.token", "tk-123\n")
    assert anaconda_tokens(machine.environ) == {
        "api.anaconda.org": {"CondaToken": "tk-123"},
        "conda.anaconda.org": {"CondaToken": "tk-123"},
    }


@pytest.mark.parametrize("text", ["{broken", "[]", "\x00"])
async def test_a_broken_file_of_credentials_is_named(machine: Machine, text: str) -> None:
    file = machine.write("auth.json", text)
    machine.set(RATTLER_AUTH_FILE=str(file))
    with pytest.raises(InvalidInput) as caught:
        machine.access().client()
    assert str(file) in str(caught.value)
    access = machine.access()
    access.channels(["https://a:s3cret@h.example/c"])
    with pytest.raises(InvalidInput) as caught:
        access.client()
    assert str(file) in str(caught.value)


async def test_credentials_are_not_sent_on_to_another_host(machine: Machine, channel: Path) -> None:
    with serving(channel) as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        with serving(channel, Trouble(redirect=elsewhere)) as server:
            assert await versions(machine.access(), server.url.replace("://", "://maria:s3cret@"))
        assert other.seen
        assert not any(shown for _, _, shown in other.seen)


# -- What can go wrong


async def test_statuses_are_told_in_their_own_types(machine: Machine, channel: Path) -> None:
    kinds = {401: AccessDenied, 403: AccessDenied, 404: NotFound, 410: NotFound, 500: Unavailable, 503: Unavailable}
    for status, kind in kinds.items():
        with serving(channel, Trouble(status=status)) as server:
            text = await failure(kind, machine.access(), server.url)
            assert server.url in text


async def test_a_server_in_trouble_is_asked_again(machine: Machine, channel: Path) -> None:
    with serving(channel, Trouble(status=503, times=3)) as server:
        assert await versions(machine.access(), server.url)


async def test_what_breaks_off_or_is_damaged(machine: Machine, channel: Path, tmp_path: Path) -> None:
    with serving(channel, Trouble(cut=True)) as server:
        await failure(Unavailable, machine.access(), server.url)
    for text in ("{", "[]", "<html>", '{"packages": 3}', "\0" * 50):
        (tmp_path / "c" / "noarch").mkdir(parents=True, exist_ok=True)
        (tmp_path / "c" / "noarch" / "repodata.json").write_text(text)
        with serving(tmp_path / "c") as server:
            assert "index" in await failure(Unavailable, machine.access(), server.url)
        assert "index" in await failure(Unavailable, machine.access(), (tmp_path / "c").as_uri())


async def test_a_web_page_in_place_of_the_index(machine: Machine, channel: Path) -> None:
    with serving(channel, Trouble(page=b"<html>Please sign in</html>")) as server:
        assert "web page" in await failure(NoChannel, machine.access(), server.url)


async def test_a_channel_of_noarch_alone(machine: Machine, channel: Path, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "noarch").symlink_to(channel / "noarch")
    with serving(tmp_path / "c") as server:
        assert await versions(machine.access(), server.url)
    assert await versions(machine.access(), (tmp_path / "c").as_uri())
    await failure(NotFound, machine.access(), (tmp_path / "nothing").as_uri())


async def test_no_channel_means_that_none_can_be_reached(machine: Machine, channel: Path) -> None:
    with deaf() as silent, serving(channel) as server:
        refused = "http://127.0.0.1:1"
        begun = time.monotonic()
        text = await failure(NoChannel, machine.access(), silent, f"{silent}/b", refused, "http://unknown.invalid/c")
        took = time.monotonic() - begun
        assert all(place in text for place in (silent, refused, "unknown.invalid"))
        assert took < 30  # all at once: one after the other takes 4 * 5 s at least, and rattler's own way for ever
        text = await failure(Unavailable, machine.access(), refused, server.url)
        assert server.url not in text


async def test_a_name_that_cannot_be_looked_up_in_time() -> None:
    with deaf() as silent:
        answer, other = await ask([silent, "oci://registry.example/c"], Route(), within_s=0.2)
    assert answer.fault == "no answer"
    assert other.works  # not asked: rattler knows how


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("error sending request for url (https://h/c/noarch/x)\nCaused by: operation timed out", TimedOut),
        ("Request failed after 3 retries\nCaused by: client error (Connect)\nCaused by: dns error", NoChannel),
        ("HTTP status client error (429 Too Many Requests) for url (https://h/c/noarch/x)", Unavailable),
        ("HTTP status client error (404 Not Found) for url (https://h/c/noarch/x-1-0.conda)", NotFound),
        ("something else", AgentError),
    ],
)
def test_errors_of_rattlers_are_translated(said: str, kind: type[AgentError]) -> None:
    found = translated(RuntimeError(said))
    assert isinstance(found, kind)
    assert "\n" not in str(found)
    assert not isinstance(translated(RuntimeError(said), channels=["a", "b"]), NoChannel)


# -- TLS


async def test_certificates(machine: Machine, channel: Path, tmp_path: Path) -> None:
    trusted = str(authority(tmp_path))
    with serving(channel, tls=(tmp_path, "good")) as server:
        text = await failure(NoChannel, machine.access(), server.url)
        assert "SSL_CERT_FILE" in text
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            access = _with(machine, {name: trusted})
            assert await versions(access, server.url), name
            assert access.variables == {"SSL_CERT_FILE": trusted}
            os.environ.pop("SSL_CERT_FILE", None)
        machine.write(".condarc", f"ssl_verify: {trusted}\n")
        assert await versions(machine.access(), server.url)
        os.environ.pop("SSL_CERT_FILE", None)
    for name in ("expired", "other", "self-signed"):
        with serving(channel, tls=(tmp_path, name)) as server:
            assert "certificate" in await failure(NoChannel, _with(machine, {"SSL_CERT_FILE": trusted}), server.url)
            os.environ.pop("SSL_CERT_FILE", None)


def _with(machine: Machine, variables: Mapping[str, str]) -> Access:
    return Access.read(machine.settings, {**machine.environ, **variables})


async def test_verification_is_never_turned_off_silently(machine: Machine, channel: Path, tmp_path: Path) -> None:
    assert not machine.access().notes
    machine.write(".condarc", "ssl_verify: false\n")
    listener = Listener()
    with serving(channel, tls=(tmp_path, "good")) as server:
        access = machine.access()
        await access.check(access.channels([server.url]), tell=listener)
        assert "WARNING" in listener.notes[0]
        assert await versions(access, server.url)


def test_a_file_of_certificates_that_is_not_there_is_named(machine: Machine) -> None:
    with pytest.raises(InvalidInput, match="SSL_CERT_FILE names /nowhere"):
        _with(machine, {"SSL_CERT_FILE": "/nowhere/ca.pem"})
    machine.write(".condarc", "ssl_verify: /nowhere/ca.pem\n")
    with pytest.raises(InvalidInput, match="ssl_verify"):
        machine.access()


# -- Proxies, mirrors, offline


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("place", ["environment", "condarc"])
async def test_a_proxy_with_a_password(
    machine: Machine, channel: Path, tmp_path: Path, scheme: str, place: str
) -> None:
    tls = (tmp_path, "good") if scheme == "https" else None
    with serving(channel, tls=tls) as server, proxy("pia", SECRET, lambda _: ("127.0.0.1", server.port)) as via:
        if tls:
            machine.set(SSL_CERT_FILE=str(authority(tmp_path)))
        target = f"{scheme}://localhost:{server.port}" if tls else "http://channels.invalid"

        def access(password: str) -> Access:
            url = via.url.replace("://", f"://pia:{password}@")
            if place == "environment":
                return _with(machine, {f"{scheme.upper()}_PROXY": url})
            machine.write(".condarc", f"proxy_servers:\n  {scheme}: {url}\n")
            return machine.access()

        assert await versions(access("s3cret%2F%25"), target)
        assert via.seen
        assert "proxy" in await failure(NoChannel, access("s3cretwrong"), target)


async def test_hosts_without_a_proxy(machine: Machine, channel: Path) -> None:
    with serving(channel) as server:
        dead = {"HTTP_PROXY": "http://127.0.0.1:1"}
        await failure(NoChannel, _with(machine, dead), server.url)
        for hosts in ("127.0.0.1", "a.example, 127.0.0.0/8", "*"):
            assert await versions(_with(machine, {**dead, "NO_PROXY": hosts}), server.url), hosts


async def test_mirrors(machine: Machine, channel: Path, tmp_path: Path) -> None:
    with (
        serving(channel) as server,
        serving(tmp_path / "nothing") as empty,
        serving(channel, Trouble(status=503)) as bad,
    ):
        for others in ([], ["http://127.0.0.1:1"], [empty.url], [bad.url]):
            places = json.dumps([*others, server.url])
            machine.write(".pixi/config.toml", f'[mirrors]\n"https://conda.anaconda.org/conda-forge" = {places}\n')
            found = await versions(machine.access(), "conda-forge")
            assert found
            assert all(url.startswith("https://conda.anaconda.org/conda-forge/") for url in found)
        machine.write(".pixi/config.toml", '[mirrors]\n"https://conda.anaconda.org/" = ["http://127.0.0.1:1"]\n')
        await failure(NoChannel, machine.access(), "conda-forge")


async def test_offline_takes_what_is_in_the_cache(machine: Machine, channel: Path) -> None:
    with serving(channel) as server:
        text = await failure(Unavailable, machine.access(offline=True), server.url)
        assert server.url in text
        assert "offline" in text
        assert not server.seen
        known = await versions(machine.access(), server.url)
        server.seen.clear()
        assert await versions(machine.access(offline=True), server.url) == known
        machine.write(".condarc", "offline: true\n")
        assert await versions(machine.access(), server.url) == known
        assert not server.seen
        assert await versions(machine.access(offline=True), channel.as_uri())
        with pytest.raises(Unavailable, match="offline"):
            await _installed(machine.access(offline=True), server.url, machine.home / "prefix")


async def _installed(access: Access, url: str, prefix: Path) -> None:
    from rattler import install

    found = await access.gateway().query(access.channels([url]), SUBDIRS, ["pip"], recursive=False)
    records = [record for records in found for record in records][:1]
    try:
        await install(
            records, str(prefix), cache_dir=access.settings.cache / "pkgs", client=access.client(), show_progress=False
        )
    except Exception as error:
        raise translated(error) from error


# -- All of it: locked and built


async def test_no_credentials_are_in_a_lock_and_a_build_has_them_all_the_same(
    machine: Machine, channel: Path, tmp_path: Path
) -> None:
    with serving(channel, Trouble(wanted=BASIC)) as server:
        file = tmp_path / "environment.yml"
        given = server.url.replace("://", "://maria:s3cret%2F%25@")
        file.write_text(f"channels: ['{given}', nodefaults]\ndependencies: [python, wcwidth]\n")
        listener = Listener()
        job = LockJob(
            Definition.read(file), (), (), tmp_path / "conda-lock.yml", from_pypi=False, settings=machine.settings
        )
        environ = {**processes.inherited_environment(), **machine.environ}
        await work(job, environ=environ, teller=listener, tag="lock")
        text = job.out.read_text()
        assert server.url in text
        assert "s3cret" not in text
        assert "maria" not in text
        prefix = tmp_path / "prefix"
        await work(BuildJob(job.out, prefix, machine.settings), environ=environ, teller=listener, tag="build")
        assert (prefix / "bin" / "python").exists()
        for place in (prefix / "conda-meta", prefix / "lock"):
            assert not any(b"s3cret" in entry.read_bytes() for entry in place.iterdir() if entry.is_file())
        assert "s3cret" not in str(listener)
        # another who has not the credentials is told so
        other = Settings(cache=tmp_path / "other", channels=tmp_path / "channels")
        with pytest.raises(AccessDenied):
            await work(BuildJob(job.out, tmp_path / "p", other), environ=environ, teller=listener, tag="build")


async def test_offline_a_build_says_what_is_missing(machine: Machine, channel: Path, tmp_path: Path) -> None:
    with serving(channel) as server:
        file = tmp_path / "environment.yml"
        file.write_text(f"channels: ['{server.url}', nodefaults]\ndependencies: [wcwidth]\n")
        settings = machine.settings
        job = LockJob(Definition.read(file), (), (), tmp_path / "conda-lock.yml", from_pypi=False, settings=settings)
        environ = {**processes.inherited_environment(), **machine.environ}
        await work(job, environ=environ, teller=Listener(), tag="lock")
        offline = replace(settings, offline=True)
        with pytest.raises(Unavailable, match=r"offline.*wcwidth"):
            await work(BuildJob(job.out, tmp_path / "p", offline), environ=environ, teller=Listener(), tag="build")
        assert job.out.read_text()
        again = replace(job, out=tmp_path / "again.yml", settings=offline)
        server.seen.clear()
        await work(again, environ=environ, teller=Listener(), tag="lock")
        assert again.out.read_text() == job.out.read_text()
        assert not server.seen


async def test_a_build_whose_server_stumbles(machine: Machine, channel: Path, tmp_path: Path) -> None:
    with serving(channel) as server:
        file = tmp_path / "environment.yml"
        file.write_text(f"channels: ['{server.url}', nodefaults]\ndependencies: [wcwidth]\n")
        settings = machine.settings
        job = LockJob(Definition.read(file), (), (), tmp_path / "conda-lock.yml", from_pypi=False, settings=settings)
        environ = {**processes.inherited_environment(), **machine.environ}
        await work(job, environ=environ, teller=Listener(), tag="lock")
        server.trouble.status, server.trouble.times = 503, 2
        await work(BuildJob(job.out, tmp_path / "p", settings), environ=environ, teller=Listener(), tag="build")
        fresh = Settings(cache=tmp_path / "other", channels=tmp_path / "channels")
        server.trouble.times, server.trouble.cut, server.trouble.status = 1 << 20, True, 0
        with pytest.raises(AgentError) as caught:
            await work(BuildJob(job.out, tmp_path / "q", fresh), environ=environ, teller=Listener(), tag="build")
        assert isinstance(caught.value, Unavailable), repr(caught.value)
