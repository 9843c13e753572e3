"""A conda-lock.yml that somebody gives: used as it is, but looked at first.

It blocks for as long as its YAML takes: about a second for a megabyte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jupyter_agent.environments.definitions import Definition, this_platform
from jupyter_agent.environments.reading import load_yaml
from jupyter_agent.errors import InvalidInput, NewerVersion

VERSION = 1

MANAGERS = ("conda", "pip")

DIGITS = {"md5": 32, "sha256": 64}

REPOSITORIES = ("git", "hg", "svn", "bzr")

TEXTS = ("name", "version", "manager", "platform", "url")


def check(definition: Definition, *, platform: str | None = None) -> None:
    """That it is a lock, in a version known here, with packages for ``platform`` (``None``: this machine's).

    Raises ``InvalidInput``, ``NewerVersion``.
    """
    name, wanted = definition.name, platform or this_platform()
    value = load_yaml(definition.text, name)
    metadata, packages = _parts(value, name)
    platforms = _platforms(metadata, name)
    found = [_checked(package, index, name) for index, package in enumerate(packages, 1)]
    if wanted not in platforms or not any(package["platform"] == wanted for package in found):
        there = ", ".join(platforms) or "none"
        raise InvalidInput(f"{name} has nothing for {wanted} (but for {there}): lock it for {wanted}, too.")


def _parts(value: object, name: str) -> tuple[Mapping[str, Any], list[Any]]:
    if not isinstance(value, dict) or not isinstance(value.get("package"), list):
        raise InvalidInput(f"{name} is no lock: make one with 'env lock', or rename it if it is an environment.yml.")
    version = value.get("version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise NewerVersion(f"{name} is a lock of version {version}, which is not known here: make one of version 1.")
    if version != VERSION or isinstance(version, bool):
        raise InvalidInput(f"{name} is a lock of version {str(version)[:40]!r}: make one of version 1.")
    if not isinstance(value.get("metadata"), dict):
        raise InvalidInput(f"{name} has no 'metadata': a lock says there which platforms it is for; make it again.")
    return value["metadata"], value["package"]


def _platforms(metadata: Mapping[str, Any], name: str) -> list[str]:
    platforms = metadata.get("platforms")
    if not isinstance(platforms, list) or not all(isinstance(platform, str) for platform in platforms):
        raise InvalidInput(f"{name} does not say for which platforms it is: make it again.")
    return platforms


def _checked(package: object, index: int, name: str) -> dict[str, Any]:
    where = f"{name}, package {index}"
    if not isinstance(package, dict):
        raise InvalidInput(f"{where} is no mapping: make the lock again.")
    for key in TEXTS:
        text = package.get(key)
        if not isinstance(text, str) or not text or not text.isprintable() or text.startswith("-"):
            raise InvalidInput(f"{where} has no usable {key!r} ({str(text)[:40]!r}): make the lock again.")
    if package["manager"] not in MANAGERS:
        raise InvalidInput(f"{where} is of {package['manager'][:40]!r}: only conda and pip are known; make it again.")
    _check_hash(package.get("hash"), package, where)
    return package


def _check_hash(found: object, package: Mapping[str, Any], where: str) -> None:
    """Conda's packages have an md5 or a sha256, pip's a sha256; what comes from a repository has a revision there."""
    if package["manager"] == "pip" and package["url"].partition("+")[0] in REPOSITORIES:
        raise InvalidInput(
            f"{where} ({package['name'][:60]}) comes from a repository, but only wheels with a hash are installed: "
            "have it from an index, and make the lock again."
        )
    hashes = found if isinstance(found, dict) else {}
    known = {key: value for key, value in hashes.items() if key in DIGITS and value is not None}
    for key, value in known.items():
        if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-f]{{{DIGITS[key]}}}", value):
            raise InvalidInput(
                f"{where} ({package['name'][:60]}) has the {key} {str(value)[:80]!r}: make the lock again."
            )
    if not known:
        raise InvalidInput(f"{where} ({package['name'][:60]}) has no md5 and no sha256: make the lock again.")
