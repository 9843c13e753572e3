"""What a Node package asks for, read from its files: dependencies, scripts, whether something has to be built.

Knows npm's files. Refuses to start anything.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_agent.errors import InvalidInput
from jupyter_agent.packages.manifest import json_object, manifest_file

LOCKS = ("npm-shrinkwrap.json", "package-lock.json")
"""The first that is there counts, as for npm."""

SETTINGS = ".npmrc"

NEEDED = ("dependencies", "optionalDependencies", "peerDependencies")

DECIDING = (
    *NEEDED,
    "devDependencies",
    "peerDependenciesMeta",
    "overrides",
    "bundleDependencies",
    "bundledDependencies",
    "allowScripts",
)
"""Fields of ``package.json`` that decide what npm installs."""

OWN_STEPS = ("preinstall", "install", "postinstall")
"""Scripts that npm runs when it installs what a package needs."""

NOT_OURS = ("prepublish", "preprepare", "prepare", "postprepare")
"""Scripts for who makes the package: npm runs none of them where a published one is installed."""

LOCAL = ("file:", "link:", ".", "/", "~/")
"""How a dependency's place begins that lies in the package itself, or on this machine."""

TYPESCRIPT = (".ts", ".mts", ".cts", ".tsx")
JAVASCRIPT = (".js", ".mjs", ".cjs")

SHELL = re.compile(r"[|&;<>()$`\\*?\[\]{}~#!\n]|^\s*\w+=")
"""What only a shell understands."""

OWN_SCRIPT = re.compile(r"npm (?:run(?:-script)? )?([\w:.-]+)")
"""A script that is nothing but another one of the package's."""


@dataclass(frozen=True)
class Project:
    """A package's ``package.json`` and lock. ``fields`` are all of the file's; ``lock`` is the lock's name."""

    folder: Path
    fields: Mapping[str, Any]
    lock: str | None = None
    lock_fields: Mapping[str, Any] = field(default_factory=dict)
    settings: str = ""

    @classmethod
    def read(cls, folder: Path) -> Project:
        """Raises ``InvalidInput`` for files that are not what npm takes."""
        lock = next((name for name in LOCKS if (folder / name).is_file()), None)
        file = manifest_file(folder)
        fields = json_object(file) if file else {}
        for name in (*DECIDING[:4], "scripts"):
            if not isinstance(fields.get(name) or {}, dict):
                raise InvalidInput(f'"{name}" in package.json should be an object: mend it.')
        settings = folder / SETTINGS
        return cls(
            folder,
            fields,
            lock,
            json_object(folder / lock) if lock else {},
            settings.read_text(encoding="utf-8", errors="replace") if settings.is_file() else "",
        )

    @property
    def scripts(self) -> dict[str, str]:
        """Its scripts by name."""
        return {name: text for name, text in (self.fields.get("scripts") or {}).items() if isinstance(text, str)}

    @property
    def node_wanted(self) -> str:
        """Which versions of node it says it needs; empty: it does not say."""
        engines = self.fields.get("engines")
        wanted = engines.get("node") if isinstance(engines, dict) else None
        return wanted if isinstance(wanted, str) else ""

    @property
    def needed(self) -> dict[str, str]:
        """What it cannot run without: name and place."""
        return _all(self.fields, NEEDED)

    @property
    def for_development(self) -> dict[str, str]:
        """What only its tools need."""
        return _all(self.fields, ("devDependencies",))

    @property
    def has_own_steps(self) -> bool:
        """Whether npm runs scripts of the package's own, or compiles it, when it installs what it needs."""
        return any(step in self.scripts for step in OWN_STEPS) or (self.folder / "binding.gyp").is_file()

    @property
    def has_local_parts(self) -> bool:
        """Whether something that it needs lies in the package itself: workspaces, folders, archives."""
        asked = {**self.needed, **self.for_development}.values()
        return bool(self.fields.get("workspaces")) or any(map(_is_local, asked)) or _locks_local(self.lock_fields)

    @property
    def brings_all(self) -> bool:
        """Whether all that it cannot do without lies in a ``node_modules`` of its own."""
        modules = self.folder / "node_modules"
        wanted = _all(self.fields, ("dependencies",)).keys() - _all(self.fields, ("optionalDependencies",)).keys()
        return modules.is_dir() and all((modules / name / "package.json").is_file() for name in wanted)

    def start(self) -> tuple[str, str] | None:
        """The name and the text of the script that starts it; ``None``: it has none."""
        name, seen = "start", set[str]()
        while (text := self.scripts.get(name)) and name not in seen:
            seen.add(name)
            other = OWN_SCRIPT.fullmatch(text.strip())
            if not other or other[1] not in self.scripts or f"pre{name}" in self.scripts:
                return name, text
            name = other[1]
        return None

    def decides_install(self, *, dev: bool) -> str:
        """What the dependencies depend on, as text: not the package's own name and version, nor its sources."""
        left_out = () if dev else ("devDependencies",)
        asked = {name: self.fields[name] for name in DECIDING if name in self.fields and name not in left_out}
        return json.dumps([asked, _nameless(self.lock_fields), self.settings, dev], sort_keys=True)

    def asks_for_development(self, scripts: Iterable[str]) -> bool:
        """Whether one of the script texts may need one of its tools: it does more than to start node on a file."""
        tools = self.for_development
        return bool(tools) and any(
            SHELL.search(text) or words(text)[:1] != ["node"] or any(tool in text for tool in tools) for text in scripts
        )


def words(script: str) -> list[str]:
    """The words of a script; none if its quotes do not end."""
    try:
        return shlex.split(script)
    except ValueError:
        return []


def hashed(*parts: str) -> str:
    """The sha256 of some texts."""
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()


def too_old(asked: str, version: str) -> bool:
    """Whether a Node ``version`` like ``20.1.0`` is older than all that an ``engines`` range asks for.

    Only lower bounds are looked at; of what is not understood nothing is said.
    """
    found = _numbers(version)
    bounds = [_lowest(part) for part in asked.split("||")]
    return bool(bounds) and all(bound is not None and found < bound for bound in bounds)


def _lowest(comparators: str) -> tuple[int, ...] | None:
    lowest: list[tuple[int, ...]] = []
    text = re.sub(r"\s+-\s+\S+", "", re.sub(r"([<>=^~]+)\s+", r"\1", comparators))
    for word in text.split():
        found = re.fullmatch(r"(>=|\^|~|=|)v?(\d+)(?:\.(\d+|x|\*))?(?:\.(\d+|x|\*))?(?:-.*)?", word)
        if found:
            lowest.append(_numbers(".".join(part for part in found.groups()[1:] if part and part.isdigit())))
        elif not word.startswith("<"):
            return None
    return max(lowest, default=None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("-")[0])[:3])


def _all(fields: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    return {name: str(place) for kind in names for name, place in (fields.get(kind) or {}).items()}


def _is_local(place: str) -> bool:
    return place.startswith(LOCAL)


def _locks_local(lock: Mapping[str, Any]) -> bool:
    """Whether a lock leads to folders or archives of the package's own."""
    packages = lock.get("packages") or lock.get("dependencies")
    entries = packages.values() if isinstance(packages, dict) else ()
    return any(
        isinstance(entry, dict)
        and (entry.get("link") is True or _is_local(str(entry.get("resolved") or entry.get("version") or "")))
        for entry in entries
    )


def _nameless(lock: Mapping[str, Any]) -> dict[str, Any]:
    """The lock without the package's own name and version, which change while its dependencies do not."""
    own = ("name", "version")
    plain = {name: value for name, value in lock.items() if name not in own}
    packages = plain.get("packages")
    if isinstance(packages, dict) and isinstance(packages.get(""), dict):
        root = {name: value for name, value in packages[""].items() if name not in own}
        plain["packages"] = {**packages, "": root}
    return plain
