"""What a lock holds for this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rattler.exceptions import ParseCondaLockError  # noqa: TID251 - this folder installs by it
from rattler.lock import LockFile, LockPlatform, PypiLockedPackage  # noqa: TID251 - this folder installs by it
from rattler.platform import Subdir  # noqa: TID251 - this folder installs by it
from rattler.repo_data import RepoDataRecord  # noqa: TID251 - this folder installs by it

from jupyter_agent.errors import Failed, InvalidInput, NotFound

VARIABLES = "jupyter_agent.variables"
"""Key of a lock's own metadata under which the variables of its environment.yml stand, as JSON."""

OTHER_CATEGORY = re.compile(r"""\bcategor(y|ies)["']?[ \t]*:(?![ \t]*["']?main\b)""")

Names = set[tuple[str, str]]
"""Of packages: ``("conda" | "pip", name)``."""


@dataclass(frozen=True)
class Wheel:
    """A locked package of the pip part."""

    name: str
    version: str
    url: str
    sha256: str


@dataclass(frozen=True)
class Locked:
    """What is to be installed."""

    records: list[RepoDataRecord]
    wheels: tuple[Wheel, ...]
    variables: Mapping[str, str]


def read(file: Path) -> Locked:
    """Read a conda-lock.yml by rattler, which takes 3 ms. Raises ``InvalidInput`` or ``NotFound``."""
    try:
        text = file.read_text(encoding="utf-8")
        environment = LockFile.from_path(file).default_environment()
    except FileNotFoundError as error:
        raise NotFound(f"The lock {file} is not there.") from error
    except (ParseCondaLockError, ValueError) as error:
        raise InvalidInput(f"The lock {file} cannot be read ({_line(error)}): lock the environment again.") from error
    except OSError as error:
        raise Failed(f"The lock {file} cannot be read: {error.strerror or error}.") from error
    here = str(Subdir.current())
    if environment is None:
        raise InvalidInput(f"The lock {file} holds no packages.")
    platform = next((known for known in environment.platforms() if str(known.subdir) == here), None)
    if platform is None:
        held = ", ".join(sorted(str(known.subdir) for known in environment.platforms())) or "no platform"
        raise InvalidInput(f"The lock {file} is for {held}, not for this machine ({here}): lock it for {here}, too.")
    main = _main(text, here)
    wheels = [one for one in environment.pypi_packages_for_platform(platform) or [] if _is_in(main, "pip", one.name)]
    return Locked(_records(environment, platform, file, main), _wheels(wheels, file), _variables(text))


def _records(environment: Any, platform: LockPlatform, file: Path, main: Names | None) -> list[RepoDataRecord]:
    found: list[RepoDataRecord] = environment.conda_repodata_records_for_platform(platform) or []
    records = [record for record in found if _is_in(main, "conda", record.name.normalized)]
    if unsure := [record.name.normalized for record in records if record.sha256 is None and record.md5 is None]:
        raise InvalidInput(f"The lock {file} has no hash for {', '.join(unsure)}: lock the environment again.")
    return records


def _main(text: str, platform: str) -> Names | None:
    """What is installed of a lock that has other categories, too (``dev``), which rattler does not tell apart.

    ``None``: all of it. The whole lock is read a second time only when there are any.
    """
    if not OTHER_CATEGORY.search(text):
        return None
    from jupyter_agent.environments.locking.hashes import installed  # noqa: PLC0415 - for such locks alone
    from jupyter_agent.environments.reading import load_yaml  # noqa: PLC0415 - the same

    packages = load_yaml(text, "conda-lock.yml").get("package", [])
    return {(manager, _plain(name)) for manager, name, *_ in installed(packages, platform)}


def _is_in(names: Names | None, manager: str, name: str) -> bool:
    return names is None or (manager, _plain(name)) in names


def _plain(name: str) -> str:
    """As pip compares names; conda's are told apart by less still."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _wheels(packages: list[PypiLockedPackage], file: Path) -> tuple[Wheel, ...]:
    found = []
    for package in packages:
        digest = package.hashes.sha256 if package.hashes is not None else None
        url = package.location
        if not re.search(r"\.whl($|[?#])", url) or digest is None:
            raise InvalidInput(
                f"The lock {file} has no wheel with a sha256 for {package.name}: only those are installed."
            )
        found.append(Wheel(package.name, str(package.version), url, digest.hex()))
    return tuple(found)


def _variables(text: str) -> dict[str, str]:
    """The variables in a lock's metadata; it is read a second time only when there are any."""
    if VARIABLES not in text:
        return {}
    from jupyter_agent.environments.reading import load_yaml  # noqa: PLC0415 - takes a tenth of a build to load

    metadata = (load_yaml(text.partition("\npackage:")[0], VARIABLES) or {}).get("metadata", {})
    found = json.loads((metadata.get("custom_metadata") or {}).get(VARIABLES) or "{}")
    return {str(name): str(value) for name, value in found.items()}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
