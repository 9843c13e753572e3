"""What definitions were locked to: a lock for each key, with a few words on it beside."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from jupyter_agent.environments.definitions import Definition, Kind
from jupyter_agent.environments.prefixes.layout import hash_of
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
        """What a key was locked to; ``None``: nothing yet. Two small files are looked at."""
        file = self._folder / f"{key}{maker.suffix}"
        words = self.words(key)
        if words is not None and words.file == file:
            with contextlib.suppress(OSError):
                os.utime(file)  # when it was last asked for
                return words
        if maker.suffix == ".txt" and file.is_file():  # an earlier version wrote no words
            return Locked(file, self._hash(file), maker.kind)
        return None

    def keep(self, key: str, maker: Maker, order: Order, lock: Path, hash_: str) -> Locked:
        """Write down what an order was locked to, for good."""
        file = self._folder / f"{key}{maker.suffix}"
        definition = order.definition
        found = Locked(
            file,
            hash_,
            maker.kind,
            name=name_of(definition),
            source=definition.name,
            asked=asked_by(definition)[:MOST_ASKED],
            from_pypi=order.from_pypi,
        )
        (self._folder / f"{key}.json").unlink(missing_ok=True)  # what it says must never be of another lock
        write_private(file, lock.read_text(encoding="utf-8"))
        write_whole(self._folder / f"{key}.json", json.dumps({**asdict(found), "file": file.name}), durable=True)
        return found

    def of(self, hash_: str) -> Path | None:
        """A lock of which prefixes of this hash are made."""
        return next((file for file, found in self.all() if found == hash_), None)

    def is_conda(self, prefix: Path) -> bool:
        """Whether a prefix of ours, be it whole or not, is of conda's packages."""
        lock = self.of(hash_of(prefix))
        return (prefix / "conda-meta").is_dir() or (lock is not None and lock.suffix == ".yml")

    def all(self) -> list[tuple[Path, str]]:
        """All locks with their hashes (empty: not known)."""
        files = [file for file in self._folder.glob("*") if file.suffix in (".yml", ".txt") and file.stem.isalnum()]
        return [(file, self._hash(file)) for file in sorted(files)]

    def remember(self, out: Path) -> None:
        """A lock of the user's lies there: what it refers to is kept as long as it does."""
        write_whole(self._folder / f"{key_of_file(out)}.out", str(out.absolute()))

    def referring(self) -> Iterator[Path]:
        """All files of which what they refer to is kept: these locks, and the users'."""
        yield from (file for file, _ in self.all())
        for told in self._folder.glob("*.out"):
            with contextlib.suppress(OSError, UnicodeError):
                yield Path(told.read_text(encoding="utf-8"))

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


def is_gone(lock: Path) -> bool:
    """Whether packages of a lock lie in folders of this machine that are not there any more."""
    urls = FILE_URL.findall(lock.read_text(encoding="utf-8"))
    folders = {Path(unquote(urlsplit(url).path)).parent for url in urls}
    return any(not folder.is_dir() for folder in folders)


async def for_repair(known: Locks, prefix: Path, maker: Maker, tag: str) -> tuple[Locked, Definition]:
    """By what one of ours is made anew: its lock as it was kept, or as it lies in it, if that is still the same.

    Raises ``NotFound``.
    """
    hash_ = hash_of(prefix)
    own, given = ("conda-lock.yml", None) if maker.suffix == ".yml" else ("requirements.txt", "options.txt")
    for file in (await asyncio.to_thread(known.of, hash_), prefix / "lock" / own):
        with contextlib.suppress(OSError, UnicodeError, AgentError):
            if file is not None and await maker.hash_of(file, tag) == hash_:
                text = await asyncio.to_thread(_text, prefix / "lock" / given if given else file)
                words = await asyncio.to_thread(known.words, file.stem)
                mark = Mark.read(prefix) or Mark.read(prefix, TAINTED) or Mark()
                found = words or Locked(file, hash_, maker.kind, mark.name, mark.source, mark.asked)
                return found, Definition.of(own, text)
    raise NotFound(f"It is not known any more what {hash_[:12]} was made of: remove it, and make it from its file.")


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


def write_beside(file: Path, made: Path) -> bool:
    """Write a user's file in one moment, with the mode it has or is to have; whether it had to be written.

    Raises ``InvalidInput`` where it cannot be.
    """
    try:
        text = made.read_text(encoding="utf-8")
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
