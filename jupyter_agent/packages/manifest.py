"""What a package says of itself: ``package.json`` and its section ``openiap``.

Knows field names and rules of the file (openiap-protocol.md, section 14). Refuses to know archives and servers, and
what of the files is started (``entries.py``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from jupyter_agent.errors import InvalidInput
from jupyter_agent.packages.entries import guess_language

FILES = ("package.openiap.json", "package.json")
"""The first of these that exists is the manifest; an archive holds it as ``package.json``."""

LONGEST_BYTES = 1 << 20
"""The manifest is read into the agent's memory as a whole."""

FOR_PUBLISHING = ("name", "version", "description", "author", "files")
"""Fields that count no more once a package has its document: a fault in them hinders no run."""

HINTS = {
    "name": 'give it a name like "my-package" or "@me/my-package"',
    "version": 'give it a version like "1.0.0"',
    "main": 'give it the path of the file to start, like "main.py"',
    "description": "give it a text, or remove it",
    "author": "give it a text, or remove it",
    "files": 'give it a list of paths like ["dist", "data/*.csv"], or remove it',
    **dict.fromkeys(("start", "prestart", "build"), "give it a command, or remove it"),
    "language": 'give it a language like "python" or "notebook"',
    "ports": 'give it a list like [{"portname": "web", "port": 8080}], or remove it',
    "portname": 'give it a name like "web"',
    "port": "give it a number from 0 to 65535",
    "protocol": "give it TCP or UDP",
    "openiap": 'give it an object like {"language": "python"}',
    "scripts": 'give it an object like {"start": "node main.js"}, or remove it',
}
TRUTH_HINT = "give it true or false"

NAME = r"^(@[A-Za-z0-9~_-][A-Za-z0-9._~-]*/)?[A-Za-z0-9~_-][A-Za-z0-9._~-]*$"
"""npm's names, also with capitals; an archive's file name is made of it."""

LONGEST_NAME = 214


def _author(value: object) -> object:
    """Npm's two forms of a person: a text, or an object with ``name`` and ``email``."""
    if not isinstance(value, dict):
        return value
    email = value.get("email")
    return f"{value.get('name', '')} <{email}>" if email else value.get("name", "")


def _slashes(value: object) -> object:
    """A path as Windows' users write it means the same everywhere."""
    return value.replace("\\", "/") if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


class Port(BaseModel):
    """A port the package wants; ``port`` 0 leaves the number to the agent."""

    model_config = ConfigDict(frozen=True)

    portname: str = Field("", validation_alias=AliasChoices("portname", "name"))
    port: int = Field(0, ge=0, le=65535)
    protocol: str = "TCP"
    web: bool = False


class Section(BaseModel):
    """The section ``openiap``."""

    model_config = ConfigDict(frozen=True)

    language: Annotated[str, BeforeValidator(_lower)] = ""
    typescript: bool = False
    daemon: bool = False
    chrome: bool = False
    chromium: bool = False
    agenttoken: bool = False
    ports: tuple[Port, ...] = ()


class Scripts(BaseModel):
    """Npm's ``scripts``; others than these concern npm alone."""

    model_config = ConfigDict(frozen=True)

    start: str | None = None
    prestart: str | None = None
    build: str | None = None


class Manifest(BaseModel):
    """A package's ``package.json``; fields that are not named here are npm's business and are ignored.

    ``language`` is lower case and never empty; ``section`` is ``openiap`` as it was written, for the server's copy.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(max_length=LONGEST_NAME, pattern=NAME)
    version: str = Field(max_length=256, pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]*$")
    description: str = ""
    author: Annotated[str, BeforeValidator(_author)] = ""
    main: Annotated[str | None, BeforeValidator(_slashes)] = None
    files: tuple[str, ...] | None = None
    scripts: Scripts = Scripts()
    openiap: Section = Section()
    section: dict[str, Any] = Field(default_factory=dict, exclude=True)

    @property
    def language(self) -> str:
        """Which runtime runs it."""
        return self.openiap.language

    @property
    def daemon(self) -> bool:
        """Whether it is to run for ever."""
        return self.openiap.daemon

    @property
    def ports(self) -> tuple[Port, ...]:
        """The ports it wants."""
        return self.openiap.ports

    @property
    def start(self) -> str | None:
        """What npm starts for ``npm run start``."""
        return self.scripts.start

    @property
    def is_built(self) -> bool:
        """Whether it says that some of its files are made on the machine that runs it."""
        return self.openiap.typescript or bool(self.scripts.build or self.scripts.prestart)

    @property
    def agenttoken(self) -> bool:
        """Whether it asks for the agent's own token."""
        return self.openiap.agenttoken

    @property
    def archive_stem(self) -> str:
        """The archive's name without the version: ``@scope/name`` is ``scope-name``."""
        return self.name.replace("/", "-").replace("@", "")

    @property
    def archive_name(self) -> str:
        """The archive's file name."""
        return f"{self.archive_stem}-{self.version}.tgz"

    @classmethod
    def read(cls, folder: Path, document: Mapping[str, Any] | None = None) -> Self:
        """The manifest of the package in ``folder``.

        ``document`` is the package's document in ``agents``: it names the package, and what it says counts where the
        file is silent, also where there is no file at all (archives that were not made by npm). Raises
        ``InvalidInput`` with one sentence a fault.
        """
        file = manifest_file(folder)
        _check_sizes(folder)
        if file is None and document is None:
            raise InvalidInput(
                f'{folder} is not a package: add a package.json with "name", "version", "main" and '
                '"openiap": {"language": …}.'
            )
        return cls.parse(json_object(file) if file else {}, file or folder / "package.json", document)

    @classmethod
    def parse(cls, fields: Mapping[str, Any], file: Path, document: Mapping[str, Any] | None = None) -> Self:
        """The manifest made of the file's fields; ``file`` is named in the faults and its folder is looked into."""
        if document:
            fields = {key: value for key, value in fields.items() if key not in FOR_PUBLISHING}
        known = _merged(_from_document(document or {}), fields)
        section = known["openiap"]
        if isinstance(section, dict) and not section.get("language"):
            main = known.get("main")
            language = guess_language(file.parent, main if isinstance(main, str) else None)
            known["openiap"] = {**section, "language": language or ""}
        try:
            manifest = cls.model_validate({**known, "section": section if isinstance(section, dict) else {}})
        except ValidationError as error:
            raise InvalidInput(" ".join(_sentence(file, fault) for fault in error.errors())) from None
        if not manifest.language:
            raise InvalidInput(
                f'{file}: "openiap.language" is missing and cannot be told from "main": {HINTS["language"]}.'
            )
        return manifest


def manifest_file(folder: Path) -> Path | None:
    """The file that is the manifest of ``folder``, ``None`` when there is none."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def _check_sizes(folder: Path) -> None:
    for name in FILES:
        if (file := folder / name).is_file() and (size := file.stat().st_size) > LONGEST_BYTES:
            raise InvalidInput(f"{file} has {size} bytes, which is no manifest: mend it.")


def json_object(file: Path) -> dict[str, Any]:
    """What a file of JSON holds. Raises ``InvalidInput`` unless it is an object."""
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{file} is not readable as JSON ({error}): mend it.") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{file} should hold a JSON object: mend it.")
    return value


def _merged(document: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The file's fields over the document's, those of the section one by one; ``null`` says nothing."""
    known = {**document, **{key: value for key, value in fields.items() if value is not None}}
    section = known.get("openiap", {})
    return {**known, "openiap": {**document.get("openiap", {}), **section} if isinstance(section, dict) else section}


def _from_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a package's document under the names they have in ``package.json``."""
    if not document:
        return {}
    named = str(document.get("id") or document.get("name") or "")
    name = named if re.fullmatch(NAME, named) else re.sub(r"[^A-Za-z0-9]+", "-", named).strip("-") or "package"
    known = {"main": document["main"]} if document.get("main") else {}
    section = {key: document[key] for key in Section.model_fields if document.get(key) is not None}
    return {"name": name[:LONGEST_NAME], "version": "0.0.0", **known, "openiap": section}


def _sentence(file: Path, fault: Mapping[str, Any]) -> str:
    """One fault of pydantic's as one sentence: file, field, what to do."""
    where = [str(step) for step in fault["loc"]]
    last = next((step for step in reversed(where) if not step.isdigit()), "")
    given = json.dumps(fault["input"], ensure_ascii=False, default=str)[:80]
    problem = "is missing" if fault["type"] == "missing" else f"is {given}"
    return f'{file}: "{".".join(where)}" {problem}: {HINTS.get(last, TRUTH_HINT)}.'
