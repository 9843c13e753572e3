"""Java: sources and Maven projects, compiled once for each state of the package, and programs in a ``.jar``."""

from __future__ import annotations

import asyncio
import os
import re
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jupyter_agent import processes
from jupyter_agent.errors import Failed, InvalidInput, NotFound
from jupyter_agent.processes import Command
from jupyter_agent.runs import Prepared
from jupyter_agent.runtimes.base import Site, Task, Teller
from jupyter_agent.runtimes.building import build
from jupyter_agent.runtimes.sources import Place, built, stamp
from jupyter_agent.runtimes.tools import Tool

INSTALL = "install a JDK (Debian's package default-jdk-headless)"
JAVA = Tool(("java",), INSTALL, ask=("-version",), settings=("JAVA_HOME",))
JAVAC = Tool(("javac",), INSTALL, ask=("-version",), settings=("JAVA_HOME",))
MAVEN = Tool(
    ("mvn",),
    "install Maven (Debian's package maven), or publish the package with its .jar as main",
    settings=("JAVA_HOME", "MAVEN_OPTS", "M2_HOME"),
)

ENCODING = ("-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-Dstderr.encoding=UTF-8")
"""Before version 18, and for output still, Java goes by the locale."""

CLASSES = "classes"
LIBRARIES = ("lib", "libs")
"""Folders of a package whose ``.jar`` files are on the class path."""

RESOURCES = ("src/main/resources", "resources")

SOURCES = ("src/main/java", "src")
"""Where a class is looked for whose source ``main`` does not name by its path."""

PACKAGE = re.compile(r"^\s*package\s+([\w.]+)\s*;", re.MULTILINE)
CLASS_NAME = re.compile(r"[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*")

MAVEN_STEPS = ("--batch-mode", "--no-transfer-progress", "-Dstyle.color=never", "-DskipTests", "package")


@dataclass(frozen=True)
class Java:
    """``main`` is a ``.jar``, a source file or a class; a package with a ``pom.xml`` is built by Maven."""

    language: str = "java"
    tools: tuple[Tool, ...] = (JAVA, JAVAC)

    def missing(self) -> str | None:
        """Why there is no Java. A ``.jar`` needs no compiler."""
        return JAVA.missing()

    async def prepare(self, task: Task, site: Site, run: Teller) -> Prepared:
        """The Java machine with the program, in the run's own folder."""
        java = await site.tools.need(JAVA)
        if await asyncio.to_thread(_is_file, task.entry, ".jar"):
            what: tuple[str, ...] = ("-jar", str(task.entry))
        elif await asyncio.to_thread((task.folder / "pom.xml").is_file):
            what = await _by_maven(task, site, run)
        else:
            what = await _by_compiler(task, site, run)
        return Prepared(Command((java, *ENCODING, *what), task.folder, JAVA.environment(task.env)))


async def _by_maven(task: Task, site: Site, run: Teller) -> tuple[str, ...]:
    maven = await site.tools.need(MAVEN)
    place = await built(task, site, run, kind="maven", by=stamp(maven), build=partial(_package, maven, task, run))
    return "-jar", str(await asyncio.to_thread(runnable_jar, place.source / "target"))


async def _package(maven: str, task: Task, run: Teller, place: Place) -> None:
    environ = MAVEN.environment(processes.inherited_environment(builders=False))
    await build(Command((maven, *MAVEN_STEPS), place.source, environ), run=run, tag=task.tag, what="mvn package")
    await asyncio.to_thread(runnable_jar, place.source / "target")


def runnable_jar(folder: Path) -> Path:
    """The only ``.jar`` that names its main class. Raises ``NotFound`` or ``InvalidInput``."""
    found = [path for path in sorted(folder.glob("*.jar")) if _main_class(path)]
    if not found:
        raise NotFound(
            "Maven built no .jar that can be run: have maven-jar-plugin, or a plugin that packs the libraries in, too, "
            "write the main class into its manifest."
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InvalidInput(f"Maven built several .jar files that can be run ({names}): leave one.")
    return found[0]


def _main_class(jar: Path) -> bool:
    try:
        with zipfile.ZipFile(jar) as archive:
            return b"Main-Class:" in archive.read("META-INF/MANIFEST.MF")
    except (OSError, KeyError, zipfile.BadZipFile):
        return False


async def _by_compiler(task: Task, site: Site, run: Teller) -> tuple[str, ...]:
    entry = await asyncio.to_thread(_source, task)
    javac = await site.tools.need(JAVAC)
    steps = partial(_compile, javac, entry.relative_to(task.folder), task, run)
    place = await built(task, site, run, kind="javac", by=stamp(javac), build=steps)
    name = await asyncio.to_thread(_class_of, place.folder / CLASSES, entry)
    root = source_root(entry)
    path = (place.folder / CLASSES, *class_path(task.folder), root)
    return "-cp", os.pathsep.join(map(str, path)), name


async def _compile(javac: str, entry: Path, task: Task, run: Teller, place: Place) -> None:
    """Compile the entry and the sources that it uses; others may be programs of their own."""
    source = place.source / entry
    options = ("-J-Dfile.encoding=UTF-8", "-encoding", "UTF-8", "-implicit:class", "-d", str(place.folder / CLASSES))
    paths = ("-cp", os.pathsep.join(class_path(place.source)) or str(place.folder / CLASSES))
    root = await asyncio.to_thread(source_root, source)
    command = (javac, *options, *paths, "-sourcepath", str(root), str(source))
    environ = JAVAC.environment(processes.inherited_environment(builders=False))
    await build(Command(command, place.source, environ), run=run, tag=task.tag, what="javac")
    await asyncio.to_thread(_class_of, place.folder / CLASSES, source)


def class_path(folder: Path) -> list[str]:
    """The libraries and resources of a package. Java itself expands the star."""
    libraries = [f"{folder / name}{os.sep}*" for name in LIBRARIES if any((folder / name).glob("*.jar"))]
    return [*libraries, *(str(folder / name) for name in RESOURCES if (folder / name).is_dir())]


def source_root(source: Path) -> Path:
    """The folder above those of the source's Java package."""
    folder = source.parent
    for name in reversed(_package_of(source)):
        if folder.name != name:
            return source.parent
        folder = folder.parent
    return folder


def _package_of(source: Path) -> list[str]:
    found = PACKAGE.search(source.read_text(encoding="utf-8", errors="replace"))
    return found[1].split(".") if found else []


def _class_of(classes: Path, source: Path) -> str:
    """The class to start: that of the file's name, else the only one that was compiled beside it."""
    package = _package_of(source)
    compiled = sorted(path.stem for path in classes.joinpath(*package).glob("*.class") if "$" not in path.stem)
    if source.stem not in compiled and len(compiled) != 1:
        raise Failed(f"{source.name} has no class {source.stem}: the class to start must be called like its file.")
    return ".".join((*package, source.stem if source.stem in compiled else compiled[0]))


def _source(task: Task) -> Path:
    """The program's source: what ``main`` names, by path or as a class; else the entry. Raises ``NotFound``."""
    main = (task.manifest.main if task.manifest else None) or ""
    if CLASS_NAME.fullmatch(main) and not (task.folder / main).is_file():
        below = Path(*main.split(".")).with_suffix(".java")
        for folder in (task.folder, *(task.folder / name for name in SOURCES)):
            if (folder / below).is_file():
                return folder / below
    if _is_file(task.entry, ".java"):
        return task.entry
    raise NotFound(
        f"The package has no Java program {main or 'to start'}: name its .jar, its source file or its class with "
        '"main" in package.json (Gradle projects are not built here: publish the .jar).'
    )


def _is_file(path: Path, suffix: str) -> bool:
    return path.suffix.lower() == suffix and path.is_file()
