"""Signing in to the hub with a browser, and who may sign in at all."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from jupyter_agent.errors import Conflict, InvalidInput, Unavailable
from jupyter_agent.hub import logins as login_module
from jupyter_agent.hub.logins import IllegalKey, Logins
from jupyter_agent.hub.passwords import MAX_GUESSES, MAX_HASHING, Passwords
from jupyter_agent.openflow.client import Credentials
from tests.hub_http import Answer, bearer, send
from tests.hub_peers import hub_on_a_new_home
from tests.openflow_peers import Hub

KEY = "a-key-that-nobody-can-guess"
WRONG = "The username or the password is wrong."


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with hub_on_a_new_home() as running:
        running.add_user("ann", "the password of ann")
        yield running


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return f"a-key-of-{request.node.name[:60]}".translate(str.maketrans("[]/", "---"))


class Browser:
    """Keeps cookies, and sends what a browser sends with a form."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.cookies: dict[str, str] = {}

    def get(self, path: str) -> Answer:
        return self._took(send(self.hub, "GET", path, **self._headers()))

    def post(self, path: str = "/login", *, token: str | None = None, **fields: str) -> Answer:
        """Send a form with the token of the page, unless another is given."""
        if token is None:
            token = re.findall(r'name="_xsrf" value="([^"]+)"', self.get("/login").text)[0]
        headers = {**self._headers(), "Origin": f"http://{urlsplit(self.hub.url).netloc}"}
        body = urlencode({"_xsrf": token, **fields}).encode()
        answer = send(self.hub, "POST", path, body, Content_Type="application/x-www-form-urlencoded", **headers)
        return self._took(answer)

    def _headers(self) -> dict[str, str]:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {"Cookie": cookies} if cookies else {}

    def _took(self, answer: Answer) -> Answer:
        for line in answer.headers.get_all("Set-Cookie") or []:
            assert "HttpOnly" in line or "expires=" in line
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.value
        return answer


def asked(hub: Hub, key: Any) -> Answer:
    return send(hub, "POST", "/AddTokenRequest", {"key": key})


def collected(hub: Hub, key: str) -> Answer:
    return send(hub, "GET", f"/GetTokenRequest?{urlencode({'key': key})}")


# The page


def test_in_a_real_browser(hub: Hub, tmp_path: Path) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert chromium, "The browser tests need Chromium: install Debian's package chromium."
    environment = {
        **os.environ,
        "HUB": f"http://{urlsplit(hub.url).netloc}",
        "CHROMIUM": chromium,
        "USERNAME": "ann",
        "PASSWORD": "the password of ann",
        "PICTURE": str(tmp_path / "login.png"),
    }
    script = Path(__file__).parent / "ui" / "login.mjs"
    done = subprocess.run(["node", script], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    tokens = found.pop("tokens")
    assert found == {
        "said": ["ok", "ok", "Illegal key"],
        "before": "",
        "alert": WRONG,
        "user": "ann",
        "used": "This link has been used, or is too old: start the sign-in again where it came from.",
        "after": 401,
        "elsewhere": [],
        "broken": [],
    }
    for token in tokens:
        assert send(hub, "GET", "/user", Authorization=bearer(token)).json["username"] == "ann"


def test_a_token_is_delivered_once_and_lives_long(hub: Hub, key: str) -> None:
    assert (asked(hub, key).status, asked(hub, key).status) == (200, 500)
    assert collected(hub, key).json == {"key": key, "jwt": ""}
    assert Browser(hub).post(key=key, username="ann", password="the password of ann").status == 200
    again = Browser(hub).post(key=key, username="ann", password="the password of ann")
    assert (again.status, "has been used" in again.text) == (404, True)
    token = collected(hub, key).json["jwt"]
    assert send(hub, "GET", "/user", Authorization=bearer(token)).json["username"] == "ann"
    for answer in (collected(hub, key), asked(hub, key)):
        assert (answer.status, answer.json) == (500, {"message": "Illegal key"})
    assert collected(hub, "never-asked-for-at-all").status == 500


def test_the_page_says_nothing_to_other_pages(hub: Hub) -> None:
    answer = send(hub, "GET", "/login")
    headers = answer.headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert (headers["X-Frame-Options"], headers["Cache-Control"]) == ("DENY", "no-store")
    assert "http://" not in answer.text
    assert "<script" not in answer.text
    for line in headers.get_all("Set-Cookie") or []:
        assert "HttpOnly" in line
        assert "SameSite=Strict" in line


def test_what_is_shown_is_escaped(hub: Hub) -> None:
    answer = Browser(hub).post(username='"><script>alert(1)</script>', password="x")
    assert answer.status == 401
    assert "<script" not in answer.text
    assert "&quot;&gt;&lt;script&gt;" in answer.text
    assert WRONG in answer.text


def test_a_form_of_another_site_is_refused(hub: Hub, key: str) -> None:
    asked(hub, key)
    browser = Browser(hub)
    fields = {"key": key, "username": "ann", "password": "the password of ann"}
    assert browser.post(token="", **fields).status == 403
    assert browser.post(token="2|aaaa|bbbb|123", **fields).status == 403
    browser.get("/login")
    assert browser.post(token="", **fields).status == 403
    body = urlencode(fields).encode()
    foreign = {"Content_Type": "application/x-www-form-urlencoded", "Origin": "http://evil.example"}
    assert send(hub, "POST", "/login", body, **foreign).status == 403
    assert collected(hub, key).json["jwt"] == ""


def test_a_program_may_sign_in_without_the_page(hub: Hub) -> None:
    body = urlencode({"username": "ann", "password": "the password of ann"}).encode()
    answer = send(hub, "POST", "/local", body, Content_Type="application/x-www-form-urlencoded")
    assert answer.status == 200
    cookies = "; ".join(line.partition(";")[0] for line in answer.headers.get_all("Set-Cookie") or [])
    short, long = (send(hub, "GET", path, Cookie=cookies).json for path in ("/jwt", "/jwtlong"))
    assert short["user"]["username"] == long["user"]["username"] == "ann"
    for token in (short["jwt"], long["jwt"]):
        assert send(hub, "GET", "/user", Authorization=bearer(token)).json["username"] == "ann"
    assert send(hub, "GET", "/config", Cookie=cookies).json["supports_watch"] is True
    for path in ("/jwt", "/jwtlong", "/user", "/config"):
        assert send(hub, "GET", path).status == 401
        assert send(hub, "GET", path, Cookie="jupyter-agent-hub-1=x").status == 401


@pytest.mark.parametrize("path", ["/login", "/local"])
def test_nobody_is_made_by_signing_in(hub: Hub, path: str) -> None:
    assert Browser(hub).post(path, username="new", password="secret").status == 401
    query = {"collectionname": "users", "query": {"username": "new"}}
    answer = send(hub, "POST", "/rest/v1/Count", query, Authorization=bearer(hub.ready["jwt"]))
    assert json.loads(answer.json) == {"result": 0}


async def test_who_is_disabled_is_signed_in_nowhere(hub: Hub, key: str) -> None:
    hub.add_user("dan", "the password of dan")
    asked(hub, key)
    browser = Browser(hub)
    assert (
        await asyncio.to_thread(browser.post, key=key, username="dan", password="the password of dan")
    ).status == 200
    async with hub.client() as client:
        await client.connected()
        (user,) = await client.query("users", {"username": "dan"})
        await client.update_one("users", {**user, "disabled": True})
    assert browser.get("/user").status == 401
    assert (collected(hub, key).status, "jwt" in collected(hub, key).json) == (401, False)
    assert Browser(hub).post(username="dan", password="the password of dan").status == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"key": 5}', 400),
        (b'{"key": ""}', 400),
        (b'{"key": "short"}', 400),
        (b'{"key": "fifteen-letters"}', 400),
        (b'{"key": "no spaces or such in a key"}', 400),
        (b'{"key": "' + b"x" * 201 + b'"}', 400),
        (b'{"key": "' + "ä".encode() * 30 + b'"}', 400),
    ],
)
def test_what_is_no_key_is_refused(hub: Hub, body: bytes, status: int) -> None:
    answer = send(hub, "POST", "/AddTokenRequest", body, Content_Type="application/json")
    assert (answer.status, "\n" in answer.sentence) == (status, False)


def test_huge_forms_and_odd_arguments(hub: Hub) -> None:
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert send(hub, "POST", "/login", b"username=ann&password=" + b"x" * 5000, **form).status == 400
    assert send(hub, "POST", "/login", b"username=%ff&password=%ff", **form).status == 400
    assert send(hub, "GET", "/login?key=%ff").status == 400
    assert send(hub, "GET", f"/login?key={'x' * 5000}").status == 404
    with contextlib.suppress(http.client.HTTPException, OSError):  # the hub hangs up on so much
        assert send(hub, "POST", "/login", b"username=ann&password=" + b"x" * (4 << 20), **form).status == 400
    assert send(hub, "GET", "/livenessprobe").status == 200


# Who waits, and for how long


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_keys_grow_old() -> None:
    clock = Clock()
    logins = Logins(clock=clock)
    logins.ask(KEY)
    clock.now = login_module.WAITING_S - 1
    logins.check(KEY)
    logins.grant(KEY, "u")
    clock.now += 1
    for late in (logins.collect, logins.check, logins.ask):
        with pytest.raises(IllegalKey):
            late(KEY)


def test_so_many_wait_and_no_more() -> None:
    clock = Clock()
    logins = Logins(clock=clock)
    for number in range(login_module.MAX_WAITING):
        logins.ask(f"{KEY}{number}")
    with pytest.raises(Unavailable):
        logins.ask(KEY)
    clock.now = login_module.WAITING_S
    logins.ask(KEY)
    for number in range(login_module.MAX_USED + login_module.MAX_SESSIONS):
        logins.open_session(str(number))
    assert len(logins._sessions) == login_module.MAX_SESSIONS


def test_sessions_end() -> None:
    clock = Clock()
    logins = Logins(clock=clock)
    session, other = logins.open_session("u"), logins.open_session("v")
    assert (logins.user_of(session), logins.user_of(other), logins.user_of("")) == ("u", "v", "")
    logins.close_session(other)
    clock.now = login_module.SESSION_S
    assert (logins.user_of(session), logins.user_of(other)) == ("", "")


# Passwords


async def test_guessing_is_slow_and_the_right_one_is_quick() -> None:
    passwords = Passwords(refused_s=0.2)
    try:
        hashed = await passwords.hashed("right")
        assert await passwords.check("ann", hashed, "right")
        begun = time.monotonic()
        guesses = [asyncio.create_task(passwords.check("ann", hashed, str(n))) for n in range(MAX_GUESSES)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="Too many sign-ins as ann"):
            await passwords.check("ann", hashed, "one more")
        assert await passwords.check("ann", hashed, "right")  # known already
        assert await passwords.check("bob", hashed, "right")  # of no concern to others
        assert await asyncio.gather(*guesses) == [False] * MAX_GUESSES
        assert time.monotonic() - begun >= 0.2
        assert not await passwords.check("ann", hashed, "one more")
        assert not passwords._guesses
    finally:
        passwords.close()


async def test_many_who_come_with_the_same_password_are_one_check() -> None:
    passwords = Passwords(refused_s=0)
    try:
        hashed = await passwords.hashed("right")
        assert all(await asyncio.gather(*(passwords.check("ann", hashed, "right") for _ in range(1000))))
        assert not any(await asyncio.gather(*(passwords.check("ann", hashed, "wrong") for _ in range(1000))))
    finally:
        passwords.close()


async def test_hashing_is_no_way_to_hold_up_the_hub() -> None:
    passwords = Passwords(refused_s=0)
    try:
        tries = [passwords.check(f"user {n}", "$argon2id$", "x") for n in range(MAX_HASHING * 3)]
        found = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(each, Unavailable) for each in found) == MAX_HASHING * 2
    finally:
        passwords.close()


@pytest.mark.parametrize("password", ["", None, 5, {}])
async def test_what_is_no_password(password: object) -> None:
    passwords = Passwords()
    try:
        with pytest.raises(InvalidInput):
            await passwords.hashed(password)
    finally:
        passwords.close()


async def test_any_text_is_a_password() -> None:
    passwords = Passwords()
    try:
        for password in ("\0", "ä" * 10_000, "\ud800", " "):
            hashed = await passwords.hashed(password)
            assert await passwords.check("ann", hashed, password)
    finally:
        passwords.close()


def test_an_illegal_key_is_a_conflict() -> None:
    assert issubclass(IllegalKey, Conflict)


async def test_a_new_password_ends_the_old_one(hub: Hub) -> None:
    hub.add_user("eve", "old")
    async with hub.client(Credentials(username="eve", password="old")) as client:
        await client.connected()
    hub.add_user("eve", "new")
    assert Browser(hub).post(username="eve", password="old").status == 401
    assert Browser(hub).post(username="eve", password="new").status == 200
