"""What went wrong on the way to a channel, in one sentence without credentials that says what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jupyter_agent.environments.access.credentials import hidden
from jupyter_agent.errors import (
    AccessDenied,
    AgentError,
    Failed,
    InvalidInput,
    NoChannel,
    NotFound,
    TimedOut,
    Unavailable,
)

if TYPE_CHECKING:
    from jupyter_agent.environments.access.reaching import Answer

URL = re.compile(r"\b(?:https?|file|s3|oci|gcs)://[^\s'\"()]+")
BELOW = re.compile(r"/(?:noarch|(?:linux|osx|win|freebsd|emscripten|wasi|zos)-[a-z0-9_]+)(?:/.*)?$")

SIGN_IN = (
    "Credentials are looked for in the channel's URL, RATTLER_AUTH_FILE, ~/.rattler/credentials.json, ~/.netrc and "
    "conda's .condarc"
)
TRUST = "have SSL_CERT_FILE (or ssl_verify in ~/.condarc) name the file of its authority's certificate"
OFFLINE = "nothing is fetched while offline: do it once with a network"
NETWORK = "mend the network, or set HTTPS_PROXY"
PROXY = "correct HTTPS_PROXY (http://USER:PASSWORD@HOST:PORT)"

TODO: Mapping[str, str] = {
    "not trusted": f"its certificate is not trusted ({{said}}): {TRUST}",
    "proxy": f"the proxy refuses it ({{said}}): {PROXY}",
    "web page": "a web page came instead of its index: sign in to the network if it wants that, or correct the URL",
}


@dataclass(frozen=True)
class _Case:
    """Which texts of rattler's are meant, and what they come to; ``{where}`` and ``{said}`` in the sentence."""

    pattern: str
    kind: type[AgentError]
    sentence: str


CASES = (
    _Case(r"nothing is fetched while offline", Unavailable, "{thing} is not in the cache, and {offline}."),
    _Case(r"no usable repodata cache", Unavailable, "The index of {where} is not in the cache, and {offline}."),
    _Case(r"\b407\b|proxy auth", NoChannel, f"{{where}} cannot be reached: the proxy asks for credentials; {PROXY}."),
    _Case(r"tunnel error", NoChannel, f"{{where}} cannot be reached through the proxy ({{said}}): {PROXY}."),
    _Case(r"\b401\b", AccessDenied, f"{{where}} wants to know who asks (HTTP 401). {SIGN_IN}."),
    _Case(r"\b403\b", AccessDenied, f"{{where}} may not be read with these credentials (HTTP 403). {SIGN_IN}."),
    _Case(r"could not find subdir", NotFound, "There is no such channel: {where}. Look at its name."),
    _Case(r"\b(?:404|410)\b", NotFound, "{url} is not there (HTTP 404): lock the environment again."),
    _Case(r"HTTP status server error|\b429\b", Unavailable, "{where} is in trouble ({said}): try again later."),
    _Case(
        r"certificate|UnknownIssuer", NoChannel,
        f"{{where}} cannot be reached: its certificate is not trusted ({{said}}); {TRUST}.",
    ),
    _Case(r"dns error|failed to lookup", NoChannel, f"{{where}} cannot be reached (its host is not known): {NETWORK}."),
    _Case(r"refused", NoChannel, f"{{where}} cannot be reached (the connection was refused): {NETWORK}."),
    _Case(r"\(Connect\)|unreachable", NoChannel, f"{{where}} cannot be reached ({{said}}): {NETWORK}."),
    _Case(r"(?i)time(?:d )?out", TimedOut, "{where} did not answer in time: try again later."),
    _Case(
        r"end of file|IncompleteMessage|reset by peer|incomplete|connection closed|unexpected EOF|reading a body",
        Unavailable, "The connection to {where} broke off ({said}): try again.",
    ),
    _Case(r"error sending request", Unavailable, "{where} cannot be asked ({said}): try again."),
    _Case(
        r"decode|frame descriptor|expected (?:value|ident)|parse|deserializ|EOF while|invalid type|missing field",
        Unavailable,
        "What {where} answers is no channel's index ({said}): it is damaged, or something on the way, such as a "
        "sign-in page of the network, answers in its place.",
    ),
)  # fmt: skip


def translated(error: Exception, *, channels: Sequence[object] = ()) -> AgentError:
    """The error that ``error`` of rattler's means; one of ours stays as it is.

    ``channels`` are all that were asked: one of several that cannot be reached is no ``NoChannel``.
    """
    if isinstance(error, AgentError):
        return error
    text = hidden(str(error))
    kind = type(error).__name__
    if kind in ("InvalidChannelError", "InvalidUrlError"):
        return InvalidInput(f"That is no channel: {_last(text)}.")
    for case in CASES:
        if re.search(case.pattern, text):
            of_several = case.kind is NoChannel and len(channels) > 1
            sentence = case.sentence.format(**_words(text))
            begin = sentence if URL.match(sentence) else sentence[0].upper() + sentence[1:]
            return (Unavailable if of_several else case.kind)(begin)
    return Failed(f"The channels could not be read ({_last(text) or kind}).")


def unreached(faults: Mapping[str, Answer], *, of: int) -> AgentError:
    """Of ``of`` channels, those with ``faults``: ``NoChannel`` when it is all of them."""
    reasons = [f"{hidden(url)}: {_reason(answer)}" for url, answer in faults.items()]
    several = [answer.fault for answer in faults.values() if answer.fault not in TODO]
    todo = f" {NETWORK[0].upper()}{NETWORK[1:]}." if several else ""
    if len(faults) < of:
        which = "A channel of the file" if len(faults) == 1 else f"{len(faults)} channels of the file"
        return Unavailable(f"{which} cannot be reached ({'; '.join(reasons)}).{todo}")
    which = "The channel" if of == 1 else "None of the channels"
    return NoChannel(f"{which} {'cannot' if of == 1 else 'can'} be reached ({'; '.join(reasons)}).{todo}")


def _reason(answer: Answer) -> str:
    return TODO.get(answer.fault, "{said}").format(said=answer.said)


def _words(text: str) -> dict[str, str]:
    url = found.group().rstrip(".,") if (found := URL.search(text)) else ""
    place = BELOW.sub("", url) if url else "a channel"
    package = re.search(r"failed to fetch (\S+)", text)
    thing = f"The package {package[1]}" if package else f"What is needed of {place}" if url else "What is needed"
    return {
        "where": place.rstrip("/"),
        "url": url,
        "said": _last(text),
        "thing": thing,
        "offline": OFFLINE,
    }


def _last(text: str) -> str:
    """The innermost cause, without the URL that is said anyhow."""
    lines = [line.removeprefix("Caused by: ").strip() for line in text.splitlines() if line.strip()]
    last = re.sub(r"\s*for url \(.*?\)", "", lines[-1]) if lines else ""
    return last.rstrip(".")[:300]
