"""conda's words for a package: ``numpy >=2``, ``conda-forge::python=3.11=*_cpython``, ``pkg[md5=...]``, a URL.

conda's own parser (as conda_lock carries it) says what they mean. It forgets what a channel was called, takes options
and extras for names, and takes two words for a name and a version: that is put right here. rattler has the last word,
since it is who solves them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rattler import MatchSpec as RattlerSpec  # noqa: TID251 - the solver's own check of what it will be given

from jupyter_agent.environments.specs.condalock import Dependency, MatchSpec, URLDependency, VersionedDependency
from jupyter_agent.errors import InvalidInput

NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")

ARCHIVES = (".conda", ".tar.bz2")

URL = re.compile(r"(https?|file|s3|oci)://\S+", re.IGNORECASE)

PLATFORMS = frozenset(
    (
        *("linux-64", "linux-32", "linux-aarch64", "linux-armv6l", "linux-armv7l", "linux-ppc64le", "linux-s390x"),
        *("linux-riscv64", "osx-64", "osx-arm64", "win-64", "win-32", "win-arm64"),
    )
)

FIELDS = ("version", "build", "build_number", "md5", "sha256", "license", "track_features", "fn", "subdir")
"""What else may be said of a package, in the order in which it is written."""

MORE_OR_LESS_WITH_STAR = re.compile(r"([<>]=?)([^,|()*<>=]+)\.\*(?=$|[,|)])")
"""``>1.2.*``: to conda the same as ``>1.2``; rattler takes it as ``>=1.2``."""

LONGEST = 1000


@dataclass(frozen=True)
class Wanted:
    """A conda package that is asked for: in the words of its solver, as conda_lock has it, and its channel if named."""

    words: str
    asked: Dependency
    channel: str | None = None


def wanted(text: object, where: str) -> Wanted:
    """What one dependency says; ``where`` it stands is for sentences. Raises ``InvalidInput``."""
    if not isinstance(text, str):
        raise InvalidInput(f"{where} asks for {_shown(text)}, which is no text: put it in quotes ('numpy 1.2').")
    written = text.strip().replace("\t", " ")
    _check_written(written, where)
    if URL.fullmatch(written) and written.partition("#")[0].endswith(ARCHIVES):
        return _from_url(written, where)
    channel, subdir, rest = _split_channel(written, where)
    named, rest = _bracket_channel(rest, where)
    spec = _parsed(rest, written, where)
    name = str(spec.get("name") or "").lower()
    channel = channel or named
    version, build = _plain(spec.get("version")) or "", _plain(spec.get("build"))
    _check_name(name, written, where)
    _check_version(version, build, written, where)
    said = {key: _plain(spec.get_raw_value(key)) for key in FIELDS}
    _check_brackets(rest, said, written, where)
    plain = MORE_OR_LESS_WITH_STAR.sub(r"\1\2", version)
    changed = {"version": plain, "subdir": subdir or said["subdir"], "channel": channel}
    words = _words(name, {**said, **changed}, written, where)
    asked = VersionedDependency(name=name, version=version, build=build, conda_channel=channel, hash=said["md5"])
    return Wanted(words, asked, channel)


def _check_written(written: str, where: str) -> None:
    if not written:
        raise InvalidInput(f"{where} has an empty dependency: name a package, or remove the line.")
    if not written.isprintable():
        raise InvalidInput(f"{where} asks for {written[:100]!r}, which is more than one line: one package a line.")
    if len(written) > LONGEST:
        raise InvalidInput(f"{where} asks for {written[:60]!r}..., {len(written)} characters: no package is so named.")
    if written.startswith("-"):
        raise InvalidInput(f"{where} asks for {written!r}, an option: put options of pip under 'pip:'.")
    if ";" in written and "[" not in written.partition(";")[0]:
        raise InvalidInput(
            f"{where} asks for {written!r}: markers are for packages under 'pip:'; here write a selector ('# [win]')."
        )
    if "=>" in written or "=<" in written:
        raise InvalidInput(f"{where} asks for {written!r}: write '>=' or '<=', the sign of more or less first.")
    if written.startswith((".", "/", "~")) or (written.endswith(ARCHIVES) and "://" not in written):
        raise InvalidInput(
            f"{where} asks for {written!r}, a path: environments are made of packages that can be fetched by name "
            "or URL."
        )


def _split_channel(written: str, where: str) -> tuple[str | None, str | None, str]:
    """``channel/subdir::rest``: the channel as it is written, the subdir, and the rest."""
    channel, sign, rest = written.rpartition("::")
    if not sign or "[" in channel:
        return None, None, written
    channel = channel.strip().rstrip("/")
    base, _, last = channel.rpartition("/")
    subdir = last if base and (last in PLATFORMS or last == "noarch") else None
    channel = base if subdir else channel
    check_channel(channel, where)
    return channel, subdir, rest.strip()


def _bracket_channel(rest: str, where: str) -> tuple[str | None, str]:
    """The channel that brackets name, as it is written, and the text without it."""
    match = re.search(r"(?<=[\[,\s])channel\s*=\s*(?:'([^']*)'|\"([^\"]*)\"|([^'\",\]\s]+))\s*,?", rest)
    if not match:
        return None, rest
    channel = check_channel(match[1] or match[2] or match[3] or "", where)
    return channel.rstrip("/"), f"{rest[: match.start()]}{rest[match.end() :]}".replace("[]", "").replace(",]", "]")


def _check_brackets(rest: str, said: dict[str, str | None], written: str, where: str) -> None:
    """Refuse what conda's parser leaves out without a word."""
    inside = re.sub(r"'[^']*'|\"[^\"]*\"", "", rest.partition("[")[2])
    for key in re.findall(r"([A-Za-z_]\w*)\s*=", inside):
        if not said.get(key):
            raise InvalidInput(
                f"{where} asks for {written!r}: {key!r} means nothing there: write version, build, build_number, md5, "
                "sha256, channel or subdir in brackets."
            )


def check_channel(channel: object, where: str) -> str:
    """The channel, as it is written, if it can be one. Raises ``InvalidInput``."""
    if not isinstance(channel, str):
        raise InvalidInput(f"{where} has the channel {_shown(channel)}, which is no text: write its name or its URL.")
    found = channel.strip()
    if not found or not found.isprintable() or re.search(r"\s", found) or found.startswith("-") or len(found) > LONGEST:
        raise InvalidInput(f"{where} has the channel {channel[:100]!r}: write a name (conda-forge) or a URL.")
    if found.startswith((".", "~")):
        raise InvalidInput(
            f"{where} has the channel {found!r}, a path that means another folder in each run: write its URL."
        )
    return found


def _parsed(rest: str, written: str, where: str) -> Any:  # of a library without types
    try:
        return MatchSpec(rest)  # type: ignore[no-untyped-call]
    except Exception as error:  # it raises many kinds
        raise _no_spec(written, where, str(error)) from error


def _no_spec(written: str, where: str, reason: str) -> InvalidInput:
    said = reason.replace("\n", " ").strip()[:200]
    return InvalidInput(f"{where} asks for {written!r}, which conda cannot read ({said}): write 'numpy >=1.2,<2'.")


def _plain(value: object) -> str | None:
    """Text of what conda's parser gives: sets of words, objects whose ``str`` is what was written."""
    if value is None:
        return None
    if isinstance(value, (set, frozenset, tuple, list)):
        return " ".join(sorted(str(each) for each in value)) or None
    return str(getattr(value, "raw_value", value)) or None


def _check_name(name: str, written: str, where: str) -> None:
    if name == "*" or not name:
        raise InvalidInput(f"{where} asks for {written!r}, which names no package: write its name first.")
    if not NAME.fullmatch(name):
        raise InvalidInput(f"{where} asks for {written!r}: {name!r} is no package's name.")
    if re.match(r"[0-9]+(\.[0-9]+)+$", name):
        raise InvalidInput(f"{where} asks for {written!r}, a version without a package: write 'python {name}'.")
    if re.search(r"\[\s*[\w, -]+\s*\]", written):
        raise InvalidInput(
            f"{where} asks for {written!r}: conda packages have no extras; put it under 'pip:', or leave the brackets."
        )


def _check_version(version: str, build: str | None, written: str, where: str) -> None:
    """Refuse what can only be meant otherwise: another package's name where a version stands, more than three words."""
    if version and not re.search(r"[0-9*]", version):
        raise InvalidInput(
            f"{where} asks for {written!r}: {version!r} is no version; if it is a package, give it a line of its own."
        )
    if build and (re.search(r"\s", build) or build.startswith((">", "<", "!", ".", ","))):
        raise InvalidInput(
            f"{where} asks for {written!r}: after name and version, {build!r} is no build; join versions by commas."
        )


def _words(name: str, said: dict[str, str | None], written: str, where: str) -> str:
    """The same for rattler, in its canonical form, which its solver takes without a doubt."""
    inner = ",".join(f"{key}={_quoted(value)}" for key, value in said.items() if value)
    text = f"{name}[{inner}]" if inner else name
    try:
        words = str(RattlerSpec(text))
        RattlerSpec(words, strict=True)
    except Exception as error:  # its errors share no root
        raise _no_spec(written, where, str(error)) from error
    return words


def _quoted(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"


def _from_url(written: str, where: str) -> Wanted:
    """A package by its URL, with ``#md5`` or ``#sha256:...`` where it is to be checked."""
    url, _, fragment = written.partition("#")
    name, _, _ = archive_parts(url, where)
    key, value = hash_of(fragment, written, where)
    words = _words(name, {"url": url, **({key: value} if value else {})}, written, where)
    return Wanted(words, URLDependency(name=name, url=url, hashes=[f"{key}:{value}"] if value else [""]))


def archive_parts(url: str, where: str) -> tuple[str, str, str]:
    """Name, version and build from an archive's URL. Raises ``InvalidInput``."""
    file = url.partition("#")[0].rpartition("/")[2]
    stem = next((file.removesuffix(end) for end in ARCHIVES if file.endswith(end)), "")
    parts = stem.rsplit("-", 2)
    if len(parts) != 3 or not all(parts) or not NAME.fullmatch(parts[0].lower()):  # noqa: PLR2004 - the three of a name
        raise InvalidInput(f"{where} asks for {url[:200]!r}: a conda package is called NAME-VERSION-BUILD.conda.")
    return parts[0].lower(), parts[1], parts[2]


def hash_of(fragment: str, written: str, where: str) -> tuple[str, str]:
    """``("md5" | "sha256", hexadecimal)`` of what stands behind a URL's ``#``; both empty where nothing does."""
    kind, sign, value = fragment.strip().lower().rpartition(":")
    if not fragment:
        return "", ""
    lengths = {32: "md5", 64: "sha256"}
    found = lengths.get(len(value), "") if re.fullmatch(r"[0-9a-f]+", value) else ""
    if not found or (sign and kind != found):
        raise InvalidInput(
            f"{where}: {written[:200]!r} ends in no md5 (32 digits) and no sha256 (64): write #md5 or #sha256:..."
        )
    return found, value


def _shown(value: object) -> str:
    return f"nothing ({value})" if value is None else f"{str(value)[:60]} ({type(value).__name__})"
