"""The pages of signing in: small, complete in themselves, and readable for everybody."""

from __future__ import annotations

import base64
import hashlib
from html import escape

STYLE = """
:root { color-scheme: light dark; --line: #767676; --accent: #0b57d0; --on: #fff; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --accent: #a8c7fa; --on: #062e6f; --bad: #f2b8b5 } }
* { box-sizing: border-box }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0; display: grid; place-items: center; min-height: 100vh }
main { width: min(24rem, 100vw); padding: 1.5rem }
h1 { font-size: 1.5rem; margin: 0 0 .5rem }
label { display: block; margin-top: 1rem; font-weight: 600 }
input { width: 100%; font: inherit; padding: .5rem .625rem; border: 1px solid var(--line); border-radius: .375rem }
button { font: inherit; font-weight: 600; margin-top: 1.25rem; padding: .5rem 1.25rem; cursor: pointer;
  border: 1px solid var(--accent); border-radius: .375rem; background: var(--accent); color: var(--on) }
button.plain { background: transparent; color: inherit; border-color: var(--line) }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
[role=alert] { color: var(--bad); font-weight: 600 }
"""
POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""The ``Content-Security-Policy`` of these pages: nothing but the style above, and no script."""


def form(*, key: str, hidden: str, username: str = "", error: str = "") -> str:
    """Username and password; ``hidden`` is what tells the form from one of another site."""
    alert = f'<p id="error" role="alert">{escape(error)}</p>' if error else ""
    about = ' aria-describedby="error" aria-invalid="true"' if error else ""
    to_user, to_password = ("", " autofocus") if username else (" autofocus", "")
    return _page(
        "Sign in",
        f"""{_purpose(key)}{alert}
<form method="post" action="/login">{hidden}{_key(key)}
<label for="username">Username</label>
<input id="username" name="username" value="{escape(username)}" autocomplete="username" autocapitalize="none"
 spellcheck="false" required maxlength="100"{about}{to_user}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required{about}{to_password}>
<button>Sign in</button>
</form>""",
    )


def confirmation(*, key: str, hidden: str, username: str) -> str:
    """Whether the user who is signed in here lets the program act for them."""
    return _page(
        "Allow access?",
        f"""{_purpose(key)}<p>You are signed in as <strong>{escape(username)}</strong>.</p>
<form method="post" action="/login">{hidden}{_key(key)}
<button name="allow" value="1">Allow</button>
<button class="plain" name="leave" value="1">Sign in as somebody else</button>
</form>""",
    )


def granted(*, username: str) -> str:
    """It is done."""
    return _page(
        "You are signed in",
        f"""<p role="status">The program that asked can now act as <strong>{escape(username)}</strong>.
You can close this page.</p>""",
    )


def signed_in(*, hidden: str, username: str) -> str:
    """Who is signed in, with a way out."""
    return _page(
        "You are signed in",
        f"""<p role="status">You are signed in as <strong>{escape(username)}</strong>.</p>
<form method="post" action="/login">{hidden}<button class="plain" name="leave" value="1">Sign out</button></form>""",
    )


def problem(*, sentence: str) -> str:
    """What is wrong, and what to do."""
    return _page("This cannot be done", f'<p role="alert">{escape(sentence)}</p>')


def _purpose(key: str) -> str:
    if not key:
        return ""
    return (
        "<p>A program on this computer asks to act as you in OpenFlow. "
        f"Go on only if you have just started it. Its key ends in <code>{escape(key[-6:])}</code>.</p>\n"
    )


def _key(key: str) -> str:
    return f'<input type="hidden" name="key" value="{escape(key)}">' if key else ""


def _page(title: str, body: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title} - OpenFlow hub</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>
<body><main><h1>{title}</h1>
{body}
</main></body></html>
"""
