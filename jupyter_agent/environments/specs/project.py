"""pyproject.toml: PEP 621 by ourselves, ``[tool.conda-lock]``, Poetry, flit and PDM by conda_lock's own parser.

What is installed is what a project needs to run: no extras, no groups for its development. The project itself is not.
"""

from __future__ import annotations

import copy
import platform as machine
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from jupyter_agent.environments.definitions import Definition, load_toml, project_dependencies, table
from jupyter_agent.environments.requirements import Requirements
from jupyter_agent.environments.specs import pypi
from jupyter_agent.environments.specs.asking import Asking
from jupyter_agent.environments.specs.condalock import (
    Dependency,
    LockSpecification,
    VersionedDependency,
    own_section,
    parse_poetry_pyproject_toml,
    parse_requirements_pyproject_toml,
)
from jupyter_agent.environments.specs.environment import NO_DEFAULTS, Read, checked_platforms
from jupyter_agent.environments.specs.matchspecs import check_channel
from jupyter_agent.errors import AgentError, InvalidInput


def platforms_of(definition: Definition) -> list[str]:
    """Those that ``[tool.conda-lock]`` names. Raises ``InvalidInput``."""
    found = table(load_toml(definition.text, definition.name), "tool", "conda-lock").get("platforms")
    return checked_platforms(found, definition.name)


def read(definition: Definition, platforms: Sequence[str]) -> Read:
    """What a pyproject.toml asks for on each platform. Raises ``InvalidInput``."""
    name = definition.name
    value = load_toml(definition.text, name)
    tool = table(value, "tool")
    if "conda-lock" in tool or "dependencies" in table(tool, "poetry") or "flit" in tool:
        found = _by_conda_lock(definition, value, platforms)
    else:
        found = _by_ourselves(definition, value, platforms)
    for asking in found.askings:
        if not asking.asks_for("python", manager="conda"):
            asking.add_conda(python_spec(value, name))
        if asking.pip and not asking.asks_for("pip", manager="conda"):
            asking.add_conda("pip")
    return found


def python_spec(value: Mapping[str, Any], name: str) -> str:
    """The Python of ``requires-python``: our own minor version where it is one of those, else any of them."""
    wanted = table(value, "project").get("requires-python") or ""
    if not isinstance(wanted, str):
        raise InvalidInput(f"{name}: requires-python is no text: write requires-python = '>=3.11'.")
    try:
        versions = SpecifierSet(wanted)
    except InvalidSpecifier as error:
        raise InvalidInput(f"{name} asks for Python {wanted!r}, which is no version: write '>=3.11'.") from error
    said = [str(version).replace("===", "==") for version in sorted(versions, key=str)]
    if versions.contains(machine.python_version(), prereleases=True):
        return ",".join([f"python {our_python()}", *said])
    return f"python {','.join(said)}"


def our_python() -> str:
    """The minor version of our interpreter: what runs with it is what is asked for where nothing else is said."""
    return ".".join(machine.python_version_tuple()[:2]) + ".*"


def _by_ourselves(definition: Definition, value: Mapping[str, Any], platforms: Sequence[str]) -> Read:
    lines = project_dependencies(value, definition.name)
    if not lines and "dependencies" in (table(value, "project").get("dynamic") or []):
        raise InvalidInput(
            f"{definition.name} leaves its dependencies to its build ('dynamic'): write them down, or give a "
            "requirements.txt."
        )
    requirements = Requirements.of("\n".join(lines), name=definition.name)
    found = Read()
    for platform in platforms:
        asking = Asking(platform, definition.name)
        for line in requirements.lines:
            asking.add_pip(line)
        found.askings.append(asking)
    return found


def _by_conda_lock(definition: Definition, value: Mapping[str, Any], platforms: Sequence[str]) -> Read:
    name = definition.name
    settings = table(value, "tool", "conda-lock")
    _check_tables(value, settings, name)
    by_platform = _parsed(value, platforms, name)
    found = Read()
    for platform in platforms:
        asking = Asking(platform, name)
        for dependency in by_platform.get(platform, []):
            _add(dependency, asking)
        for package, version in settings.get("dependencies", {}).items():
            if isinstance(version, str):
                asking.add_conda(f"{package} {version}")
        found.askings.append(asking)
    listed = [check_channel(channel, name) for channel in settings.get("channels", [])]
    found.default_channels = NO_DEFAULTS not in listed
    found.listed = list(dict.fromkeys(channel for channel in listed if channel != NO_DEFAULTS))
    named = (channel for asking in found.askings for channel in asking.channels)
    found.channels = list(dict.fromkeys([*found.listed, *named]))
    found.options = tuple(f"--extra-index-url {url}" for url in settings.get("pip-repositories", []))
    return found


def _check_tables(value: Mapping[str, Any], settings: Mapping[str, Any], name: str) -> None:
    """What conda_lock's parser takes for granted. Raises ``InvalidInput``."""
    if not isinstance(table(value, "tool").get("conda-lock", {}), dict):
        raise InvalidInput(f"{name}: 'conda-lock' is no table: write [tool.conda-lock], and channels = ['...'] below.")
    for key in ("channels", "pip-repositories"):
        if not _is_texts(settings.get(key, [])):
            raise InvalidInput(f"{name}: [tool.conda-lock] {key} is no list of texts: write {key} = ['...'].")
    if any(" " in url or "://" not in url for url in settings.get("pip-repositories", [])):
        raise InvalidInput(f"{name}: [tool.conda-lock] pip-repositories are URLs: write ['https://...'].")
    if settings.get("default-non-conda-source", "conda") not in ("conda", "pip"):
        raise InvalidInput(f"{name}: [tool.conda-lock] default-non-conda-source is 'conda' or 'pip'.")
    for section in (("tool", "conda-lock"), ("tool", "poetry")):
        _check_dependencies(
            table(value, *section).get("dependencies", {}), f"{name}: [{'.'.join(section)}.dependencies]"
        )
    if not _is_texts(table(value, "tool", "flit", "metadata").get("requires", [])):
        raise InvalidInput(f"{name}: [tool.flit.metadata] requires is no list of texts: write requires = ['numpy>=2'].")
    project_dependencies(value, name)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and each.isprintable() for each in value)


def _check_dependencies(found: object, where: str) -> None:
    """A table whose values are versions, or tables of texts. Raises ``InvalidInput``."""
    if not isinstance(found, dict):
        raise InvalidInput(f"{where} is no table: write numpy = '>=2', each on a line of its own.")
    for name, said in found.items():
        rest = (
            {key: value for key, value in said.items() if key != "optional"} if isinstance(said, dict) else {"": said}
        )
        extras = rest.pop("extras", [])
        texts = [name, *rest.values()]
        if not _is_texts(texts) or not _is_texts(extras):
            raise InvalidInput(
                f"{where}: {name[:60]!r} is no version and no table of texts: write {name[:60]!r} = '>=2'."
            )


def _parsed(value: Mapping[str, Any], platforms: Sequence[str], name: str) -> dict[str, list[Dependency]]:
    """What conda_lock's parsers make of it, chosen as it does; it would crash on a file without ``[build-system]``."""
    given = {"path": Path(name), "platforms": list(platforms), "contents": _heard(value)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _chosen(value)(given)
    except AgentError:
        raise
    except Exception as error:  # it raises many kinds: of wrong types, of what it does not know
        reason = (str(error) or type(error).__name__).replace("\n", " ")[:200]
        raise InvalidInput(f"{name} says what conda_lock cannot read ({reason}): correct its dependencies.") from error
    return {platform: list(dependencies) for platform, dependencies in found.dependencies.items()}


def _chosen(value: Mapping[str, Any]) -> Callable[[dict[str, Any]], LockSpecification]:
    if table(value, "tool", "conda-lock").get("skip-non-conda-lock"):
        return lambda given: own_section(given["path"], given["platforms"], given["contents"], [])
    if "dependencies" in table(value, "project"):
        return lambda given: _standard(given, ("project",), "dependencies", "optional-dependencies")
    if "flit" in table(value, "tool"):
        return lambda given: _standard(given, ("tool", "flit", "metadata"), "requires", "requires-extra")
    return lambda given: parse_poetry_pyproject_toml(**given, mapping_url=str(pypi.NAMES))


def _standard(given: dict[str, Any], prefix: tuple[str, ...], main: str, optional: str) -> LockSpecification:
    return parse_requirements_pyproject_toml(
        given["path"],
        platforms=given["platforms"],
        contents=given["contents"],
        prefix=prefix,
        main_tag=main,
        optional_tag=optional,
        mapping_url=str(pypi.NAMES),
    )


def _heard(value: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that say what a project needs to run; a copy, since its reader changes it.

    A project that does not say which packages are conda's has them all from PyPI.
    """
    needed = {
        name: said
        for name, said in table(value, "tool", "poetry", "dependencies").items()
        if not (isinstance(said, dict) and said.get("optional") is True)
    }
    tools = {
        "conda-lock": _settings(value),
        "poetry": {"dependencies": needed},
        "flit": {"metadata": {"requires": table(value, "tool", "flit", "metadata").get("requires", [])}},
    }
    own = {"dependencies": project_dependencies(value, "pyproject.toml")}
    return copy.deepcopy({"project": own, "tool": tools})


def _settings(value: Mapping[str, Any]) -> dict[str, Any]:
    """``[tool.conda-lock]`` without the match specs, which are read here."""
    if "conda-lock" not in table(value, "tool"):
        return {"default-non-conda-source": "pip"}
    settings = table(value, "tool", "conda-lock")
    sources = {name: said for name, said in settings.get("dependencies", {}).items() if isinstance(said, dict)}
    return {**settings, "dependencies": sources}


def _add(dependency: Dependency, asking: Asking) -> None:
    """Ours take what conda_lock read, in the words of conda or of pip."""
    if dependency.manager == "pip" or not isinstance(dependency, VersionedDependency):
        asking.add_pip(pypi.line_of(dependency))
        return
    channel = f"{dependency.conda_channel}::" if dependency.conda_channel else ""
    version = f" {dependency.version}" if dependency.version not in ("", "*") else " *" if dependency.build else ""
    asking.add_conda(f"{channel}{dependency.name}{version}{f' {dependency.build}' if dependency.build else ''}")
