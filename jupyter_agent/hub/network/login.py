"""The routes of signing in: the page, the requests of programs that wait, and what a session may ask for.

Only users there are may sign in; nobody is made by it.
"""

from __future__ import annotations

from urllib.parse import urlencode

import orjson

from jupyter_agent.errors import AgentError, InvalidInput, SignInFailed
from jupyter_agent.hub.callers import Caller
from jupyter_agent.hub.commands.messaging import token_user
from jupyter_agent.hub.logins import SESSION_S, IllegalKey
from jupyter_agent.hub.network import pages
from jupyter_agent.hub.network.routes import Route, in_a_sentence, status_of

USED = "This link has been used, or is too old: start the sign-in again where it came from."
MAX_PASSWORD = 1000
BROWSER = ("Origin", "Referer", "Cookie", "Sec-Fetch-Site")
"""Headers of browsers; where there is none of them, no other site can have made a browser ask."""


class AddTokenRequest(Route):
    """``POST /AddTokenRequest``: a program waits for a user."""

    @in_a_sentence
    async def post(self) -> None:
        """Take its key."""
        try:
            given = orjson.loads(self.request.body)
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"The request is not valid JSON: {error}.") from error
        key = given.get("key") if isinstance(given, dict) else None
        if not isinstance(key, str):
            raise InvalidInput('The request must be {"key": "..."}.')
        try:
            self.front.logins.ask(key)
        except IllegalKey as error:
            self.refuse(500, str(error))
        else:
            await self.finish({"message": "ok"})


class GetTokenRequest(Route):
    """``GET /GetTokenRequest?key=K``: whether somebody has signed in for it."""

    @in_a_sentence
    async def get(self) -> None:
        """The token, once; an empty one until then."""
        key, users = self.get_query_argument("key", ""), self.front.services.users
        try:
            user = self.front.logins.collect(key)
        except IllegalKey as error:
            self.refuse(500, str(error))
            return
        token = users.token((await users.caller(user)).id, long=True) if user else ""
        await self.finish({"key": key, "jwt": token})


class SessionRoute(Route):
    """A route that knows who is signed in in this browser."""

    @property
    def cookie(self) -> str:
        """The name of the session's cookie: all ports of an address share their cookies."""
        return f"jupyter-agent-hub-{self.front.port}"

    @property
    def session(self) -> str:
        """The session that the browser names, empty for none."""
        return self.get_cookie(self.cookie) or ""

    async def signed_in(self) -> Caller | None:
        """Who is signed in here, ``None`` for nobody."""
        user = self.front.logins.user_of(self.session)
        try:
            return await self.front.services.users.caller(user) if user else None
        except SignInFailed:
            return None


class Login(SessionRoute):
    """``/login`` and ``/local``: the page."""

    @in_a_sentence
    async def get(self) -> None:
        """What there is to do."""
        key, caller = self.get_query_argument("key", ""), await self.signed_in()
        if key and not self._is_waiting(key):
            self._show(pages.problem(sentence=USED), 404)
        elif caller is None:
            self._show(pages.form(key=key, hidden=self._hidden))
        elif key:
            self._show(pages.confirmation(key=key, hidden=self._hidden, username=caller.username))
        else:
            self._show(pages.signed_in(hidden=self._hidden, username=caller.username))

    @in_a_sentence
    async def post(self) -> None:
        """Sign in, let a program act for the user who is, or sign out."""
        self._check_form()
        key = self.get_body_argument("key", "")
        if self.get_body_argument("leave", ""):
            self.front.logins.close_session(self.session)
            self.clear_cookie(self.cookie)
            self.redirect("/login" + (f"?{urlencode({'key': key})}" if key else ""), status=303)
            return
        if key and not self._is_waiting(key):
            self._show(pages.problem(sentence=USED), 404)
            return
        caller = await self._caller_in_form(key)
        if caller is not None:
            self._welcome(caller, key)

    async def _caller_in_form(self, key: str) -> Caller | None:
        """Who signs in; ``None`` when the form was shown again."""
        if self.get_body_argument("allow", "") and (caller := await self.signed_in()) is not None:
            return caller
        username = self.get_body_argument("username", "")
        password = self.get_body_argument("password", "", strip=False)
        try:
            if len(password) > MAX_PASSWORD:
                raise InvalidInput(f"A password here can have up to {MAX_PASSWORD} characters.")
            return await self.front.services.users.by_password(username, password)
        except SignInFailed:
            self._show(pages.form(key=key, hidden=self._hidden, username=username,
                                  error="The username or the password is wrong."), 401)  # fmt: skip
        except AgentError as error:
            form = pages.form(key=key, hidden=self._hidden, username=username, error=str(error))
            self._show(form, status_of(error))
        return None

    def _welcome(self, caller: Caller, key: str) -> None:
        logins = self.front.logins
        if key:
            try:
                logins.grant(key, caller.id)
            except IllegalKey:  # somebody was quicker
                self._show(pages.problem(sentence=USED), 404)
                return
        logins.close_session(self.session)
        self.set_cookie(
            self.cookie, logins.open_session(caller.id), max_age=SESSION_S, httponly=True, samesite="Strict"
        )
        if key:
            self._show(pages.granted(username=caller.username))
        else:
            self._show(pages.signed_in(hidden=self._hidden, username=caller.username))

    def _check_form(self) -> None:
        """Refuse what another site made the browser send."""
        if any(name in self.request.headers for name in BROWSER):
            self.check_xsrf_cookie()

    def _is_waiting(self, key: str) -> bool:
        try:
            self.front.logins.check(key)
        except IllegalKey:
            return False
        return True

    @property
    def _hidden(self) -> str:
        return self.xsrf_form_html()

    def _show(self, page: str, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", pages.POLICY)
        # Not no-referrer: a browser would then hide the Origin of our own form.
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("X-Frame-Options", "DENY")
        self.finish(page)


class About(SessionRoute):
    """``/user``, ``/config``, ``/jwt``, ``/jwtlong``: for who is signed in, here or by the Authorization header."""

    @in_a_sentence
    async def get(self, what: str) -> None:
        """Answer."""
        caller = await self.caller() or await self.signed_in()
        if caller is None:
            raise SignInFailed("Nobody is signed in here: open /login first.")
        users = self.front.services.users
        if what == "user":
            await self.finish(token_user(caller))
        elif what == "config":
            self.set_header("Content-Type", "application/json; charset=utf-8")
            await self.finish(self.front.services.config)
        else:
            await self.finish({"jwt": users.token(caller.id, long=what == "jwtlong"), "user": token_user(caller)})
