"""What a child is told to execute, and the first look at a notebook. Only the standard library is imported."""

from __future__ import annotations

import json
import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from jupyter_agent.errors import InvalidInput, NotFound
from jupyter_agent.home import write_private


@dataclass(frozen=True)
class KernelSpec:
    """How to start the kernel: ``argv[0]`` absolute, ``{connection_file}`` in ``argv``; ``env`` over the child's."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    language: str = "python"


@dataclass(frozen=True)
class Spec:
    """What to execute and where to write; ``events`` is appended to, ``output`` written once at the end."""

    notebook: Path
    output: Path
    events: Path
    cwd: Path
    kernel: KernelSpec
    parameters: Mapping[str, Any] = field(default_factory=dict)
    kernel_timeout_s: float = 60

    def write(self, path: Path) -> None:
        """Write it, for its user's eyes only: parameters may be private."""
        write_private(path, json.dumps(asdict(self), default=str))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The spec in a file. Raises ``InvalidInput`` for a file that holds none."""
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            kernel = KernelSpec(**{**fields["kernel"], "argv": tuple(fields["kernel"]["argv"])})
            paths = {name: Path(fields[name]) for name in ("notebook", "output", "events", "cwd")}
            return cls(**{**fields, **paths, "kernel": kernel})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"{path} does not say what to execute ({error}).") from error


def read_notebook(path: Path, *, language: str = "") -> dict[str, Any]:
    """The notebook's JSON, looked at just enough to know that it is one, and of ``language`` if that is given.

    Raises ``NotFound`` or ``InvalidInput``.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise NotFound(f"There is no notebook {path}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path.name} is not a readable notebook ({error}): open it in Jupyter and save it.") from (
            error
        )
    if not isinstance(content, dict) or not isinstance(content.get("nbformat"), int):
        raise InvalidInput(f'{path.name} is not a notebook: it has no "nbformat".')
    if content["nbformat"] < 4 and "worksheets" not in content and "cells" not in content:  # noqa: PLR2004 - a version
        raise InvalidInput(f"{path.name} is not a notebook: it has no cells.")
    written_in = language_of(content)
    if language and written_in and written_in != language:
        raise InvalidInput(f"{path.name} is written in {written_in}, but its kernel would run {language}.")
    return content


def complain(text: object) -> None:
    """Say something to whoever looks at the output of this process."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def language_of(content: Mapping[str, Any]) -> str:
    """The language of a notebook in lower case, by its metadata; empty when they do not say."""
    metadata = content.get("metadata")
    if not isinstance(metadata, dict):
        return ""
    for section, key in (("language_info", "name"), ("kernelspec", "language")):
        named = metadata.get(section)
        if isinstance(named, dict) and isinstance(named.get(key), str) and named[key]:
            return str(named[key]).lower()
    return ""


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise ``InvalidInput`` for a parameter that cannot be a variable: it would become code."""
    for name in parameters:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or keyword.iskeyword(name):
            raise InvalidInput(f"The parameter {name!r} cannot be a variable: use letters, digits and underscores.")
