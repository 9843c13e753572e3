"""What a lock holds for a platform, as one hash: the name of the prefix that is made from it.

The agent itself uses this, for which reason neither conda_lock nor rattler nor pydantic is loaded here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from jupyter_agent.environments.indexes import without_credentials
from jupyter_agent.environments.reading import load_yaml
from jupyter_agent.errors import InvalidInput

VARIABLES = "jupyter_agent.variables"
"""Key of a lock's ``custom_metadata`` under which the variables of its environment.yml stand, as JSON."""

FORM = "1"
"""Of what is hashed: another one gives all environments another name."""

WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.!+-]*")
"""What names, builds and files of packages are made of: no path."""

URL = re.compile(r"(https?|file|s3|oci|gcs|git\+\w+)://.+|[^\s:]+$", re.IGNORECASE)

KNOWN_VERSIONS = (1, 2)
"""Of conda-lock.yml: the second, which few programs write, has ``categories`` in place of ``category``."""


def lock_hash(text: str, platform: str) -> str:
    """sha256, in hexadecimal, over what would be installed from a conda-lock.yml on ``platform`` and its variables.

    Those are the packages of the category ``main``. Two locks that differ in their sources, channels or comments alone
    have the same. Raises ``InvalidInput`` for a text that is no lock, or none for ``platform``.
    """
    lock = load_yaml(text, "conda-lock.yml")
    metadata, packages = _parts(lock)
    held = sorted(set(installed(packages, platform)))
    known = metadata.get("platforms")
    if not held and platform not in (known if isinstance(known, list) else ()):
        raise not_for(platform, [str(one) for one in known] if isinstance(known, list) else [])
    told = json.dumps([FORM, platform, held, sorted(variables(metadata).items())])
    return hashlib.sha256(told.encode()).hexdigest()


def not_for(platform: str, known: list[str]) -> InvalidInput:
    """The sentence for a lock that does not hold ``platform``."""
    return InvalidInput(
        f"The lock is for {', '.join(sorted(known)[:20]) or 'no platform'}, not for {platform}: "
        f"lock it for {platform}, too (env lock FILE --platform {platform})."
    )


def _parts(lock: object) -> tuple[Mapping[str, Any], list[Any]]:
    """Metadata and packages. Raises ``InvalidInput``."""
    version = lock.get("version") if isinstance(lock, Mapping) else None
    if isinstance(lock, Mapping) and "environments" in lock and isinstance(lock.get("packages"), list):
        raise InvalidInput(
            "This is pixi's own lock file (pixi.lock), not a conda-lock.yml: give the environment.yml that "
            "'pixi project export conda-environment' writes."
        )
    if isinstance(lock, Mapping) and isinstance(version, int) and version not in KNOWN_VERSIONS:
        raise InvalidInput(f"The lock has version {version}, which is not known here: lock again (version 1).")
    metadata = lock.get("metadata") if isinstance(lock, Mapping) else None
    packages = lock.get("package") if isinstance(lock, Mapping) else None
    if not isinstance(version, int) or not isinstance(metadata, Mapping) or not isinstance(packages, list):
        raise InvalidInput("This is no conda-lock.yml (it has no version, metadata or package list): lock again.")
    return metadata, packages


def installed(packages: list[Any], platform: str) -> Iterator[tuple[str, str, str, str]]:
    """``(manager, name, url, hash)`` of what is installed on ``platform``. Raises ``InvalidInput``."""
    for package in packages:
        if not isinstance(package, Mapping):
            raise InvalidInput("The lock's package list holds something that is no package: lock again.")
        if package.get("platform") != platform or not is_main(package):
            continue
        manager, name, url = (package.get(key) for key in ("manager", "name", "url"))
        digest = _digest(package.get("hash"))
        if not (isinstance(name, str) and isinstance(url, str) and manager in ("conda", "pip") and digest):
            raise InvalidInput(f"The lock's package {str(name)[:100]!r} has no url, hash or manager: lock again.")
        _check_words(name, url, package.get("build"))
        yield str(manager), name, url, digest.lower()


def _check_words(name: str, url: str, build: object) -> None:
    """Refuse what would name files elsewhere: of name, build and URL those in the cache and in the prefix are made."""
    file = unquote(url.partition("#")[0].partition("?")[0].rpartition("/")[2])
    words = {"name": name, "build": str(build or "0"), "url": file}
    bad = next((key for key, word in words.items() if not WORD.fullmatch(word)), "" if URL.match(url) else "url")
    if bad:
        said = without_credentials(url) if bad == "url" else words[bad]
        raise InvalidInput(
            f"The lock's package {name[:100]!r} has the {bad} {said[:200]!r}, which no package has: lock again."
        )


def _digest(hashes: object) -> str:
    """The best of a package's hashes; empty when it has none."""
    known = hashes if isinstance(hashes, Mapping) else {}
    return next((f"{kind}:{known[kind]}" for kind in ("sha256", "md5") if known.get(kind)), "")


def is_main(package: Mapping[str, Any]) -> bool:
    """Whether a package is installed unless something else is asked for (``dev`` and other categories are not)."""
    categories = package.get("categories")
    if isinstance(categories, list):
        return "main" in categories
    return bool(package.get("category", "main") == "main")


def variables(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The environment's variables that stand in a lock's metadata. Raises ``InvalidInput``."""
    custom = metadata.get("custom_metadata")
    told = custom.get(VARIABLES) if isinstance(custom, Mapping) else None
    if told is None:
        return {}
    try:
        found = json.loads(told)
        return {str(name): str(value) for name, value in found.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"The lock's {VARIABLES} cannot be read ({error}): lock again.") from error
