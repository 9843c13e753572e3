"""What definitions were locked to: a lock for each key, with a few words on it beside."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from jupyter_agent.environments.definitions import Definition, Kind
from jupyter_agent.environments.prefixes.marks import TAINTED, Mark, write_whole
from jupyter_agent.environments.prefixes.orders import Locked, Maker, Order
from jupyter_agent.environments.reading import load_yaml
from jupyter_agent.errors import AgentError, InvalidInput, NotFound
from jupyter_agent.home import sync, write_private

FILE_URL = re.compile(r"""file://[^\s"'#]+""")

MOST_ASKED = 1000


class Locks:
    """The files in ``folder``: ``<key>.yml`` or ``.txt`` (by kind) and ``<key>.json``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def known(self, key: str, maker: Maker) -> Locked | None:
        """What a key was locked to; ``None``: nothing yet. Two small files are looked at when it is known.

        Its words are written anew where an earlier version wrote none. Raises ``InvalidInput`` for a lock that is none.
        """
        file = self._folder / f"{key}{maker.suffix}"
        if not file.is_file():
            return None
        words = self.words(key)
        if words is not None:
            with contextlib.suppress(OSError):
                os.utime(file)  # when it was last asked for
            return words
        text = file.read_text(encoding="utf-8")
        found = Locked(file, maker.hash_of(text), maker.kind)
        self._describe(key, found)
        return found

    def keep(self, key: str, maker: Maker, order: Order, text: str) -> Locked:
        """Write down what an order was locked to, for good."""
        file = self._folder / f"{key}{maker.suffix}"
        definition = order.definition
        found = Locked(
            file,
            maker.hash_of(text),
            maker.kind,
            name=name_of(definition),
            source=definition.name,
            asked=asked_by(definition)[:MOST_ASKED],
            from_pypi=order.from_pypi,
        )
        (self._folder / f"{key}.json").unlink(missing_ok=True)  # what it says must never be of another lock
        write_private(file, text)
        self._describe(key, found)
        return found

    def forget(self, key: str, maker: Maker) -> None:
        """Have a key locked anew."""
        for suffix in (".json", maker.suffix):
            (self._folder / f"{key}{suffix}").unlink(missing_ok=True)
        sync(self._folder)

    def of(self, hash_: str) -> Path | None:
        """A lock of which prefixes of this hash are made."""
        return next((file for file, found in self.all() if found == hash_), None)

    def all(self) -> list[tuple[Path, str]]:
        """All locks with their hashes (empty: not known)."""
        files = [file for file in self._folder.glob("*") if file.suffix in (".yml", ".txt") and file.stem.isalnum()]
        return [(file, self._hash(file)) for file in sorted(files)]

    def _hash(self, file: Path) -> str:
        if (words := self.words(file.stem)) is not None:
            return words.hash
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.suffix == ".txt" else ""

    def words(self, key: str) -> Locked | None:
        """What is written down on a lock."""
        try:
            plain: dict[str, Any] = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8"))
            file = self._folder / plain.pop("file")
            return Locked(**{**plain, "file": file, "asked": tuple(plain["asked"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _describe(self, key: str, found: Locked) -> None:
        write_whole(self._folder / f"{key}.json", json.dumps({**asdict(found), "file": found.file.name}))


def is_gone(lock: Path) -> bool:
    """Whether packages of a lock lie in folders of this machine that are not there any more."""
    urls = FILE_URL.findall(lock.read_text(encoding="utf-8"))
    folders = {Path(unquote(urlsplit(url).path)).parent for url in urls}
    return any(not folder.is_dir() for folder in folders)


def for_repair(known: Locks, prefix: Path, makers: Sequence[Maker]) -> tuple[Maker, Locked, Definition]:
    """By what one of ours is made anew: its lock as it was kept, or as it lies in it, if that is still the same.

    Raises ``NotFound``.
    """
    hash_ = prefix.name.partition(".")[0]
    names = {".yml": ("conda-lock.yml", "conda-lock.yml"), ".txt": ("requirements.txt", "options.txt")}
    for maker in makers:
        own, options = names[maker.suffix]
        for file in (known.of(hash_), prefix / "lock" / own):
            if file is not None and file.suffix == maker.suffix and (text := _same(file, hash_, maker)) is not None:
                words = known.words(file.stem)
                mark = Mark.read(prefix) or Mark.read(prefix, TAINTED) or Mark()
                found = words or Locked(file, hash_, maker.kind, mark.name, mark.source, mark.asked)
                given = text if maker.suffix == ".yml" else _text(prefix / "lock" / options)
                return maker, found, Definition.of(own, given)
    raise NotFound(f"It is not known any more what {hash_[:12]} was made of: remove it, and make it from its file.")


def _same(file: Path, hash_: str, maker: Maker) -> str | None:
    """The text of a lock, if it is the one of this hash."""
    with contextlib.suppress(OSError, UnicodeError, AgentError):
        text = file.read_text(encoding="utf-8")
        if maker.hash_of(text) == hash_:
            return text
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def key_of_file(file: Path) -> str:
    """A key for who writes this file."""
    return hashlib.sha256(os.fsencode(file.absolute())).hexdigest()


def copy_known(file: Path, copy: Path) -> None:
    """Have a lock that was made before at hand for who makes it again."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(file, copy)


def name_of(definition: Definition) -> str:
    """What an environment.yml calls itself, for people; empty where it does not."""
    if definition.kind is not Kind.CONDA:
        return ""
    found = re.search(r"^name:[ \t]*([^\s#'\"]+)[ \t]*(#.*)?$", definition.text, re.MULTILINE)
    return found[1][:200] if found else ""


def asked_by(definition: Definition) -> tuple[str, ...]:
    """What stands in a file, as people wrote it, as far as that can be told without conda's libraries."""
    with contextlib.suppress(AgentError):
        if definition.kind is Kind.CONDA:
            return tuple(_flat(load_yaml(definition.text, definition.name, duplicates=True)))
        if not definition.conda():
            return definition.requirements().lines
    return ()


def _flat(value: Any) -> list[str]:
    dependencies = value.get("dependencies") if isinstance(value, dict) else None
    found: list[str] = []
    for entry in dependencies if isinstance(dependencies, list) else ():
        inner = entry.get("pip") if isinstance(entry, dict) else entry
        found += [line for line in (inner if isinstance(inner, list) else [inner]) if isinstance(line, str)]
    return found


def write_beside(file: Path, text: str) -> bool:
    """Write a user's file in one moment, with the mode it has or is to have; whether it had to be written.

    Raises ``InvalidInput`` where it cannot be.
    """
    try:
        if file.is_file() and file.read_bytes() == text.encode():
            return False
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o666 & ~_umask()
        target = file.resolve()  # of a link, what it leads to is written
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        write_private(temporary, text)
        temporary.chmod(mode)
        temporary.replace(target)
        sync(target.parent)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written ({error.strerror or error}): name another file.") from error
    return True


def _umask() -> int:
    """What new files of this process may not have; asked of the system, as asking ``os.umask`` changes it."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        found = re.search(r"^Umask:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(found[1], 8) if found else 0o022
    return 0o022
